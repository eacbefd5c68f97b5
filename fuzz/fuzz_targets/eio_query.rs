//! See `testkit::fuzz::eio_query`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::eio_query(data));
