//! See `testkit::fuzz::sio_msgpack`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| testkit::fuzz::sio_msgpack(data));
