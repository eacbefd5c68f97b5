//! See `testkit::fuzz::sio_text`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::sio_text(data));
