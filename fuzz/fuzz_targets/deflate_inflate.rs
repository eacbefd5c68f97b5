//! See `testkit::fuzz::deflate_inflate`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::deflate_inflate(data));
