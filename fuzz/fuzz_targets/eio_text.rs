//! See `testkit::fuzz::eio_text`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::eio_text(data));
