//! See `testkit::fuzz::eio_payload_v3`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::eio_payload_v3(data));
