//! See `testkit::fuzz::eio_payload`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::eio_payload(data));
