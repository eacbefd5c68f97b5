//! See `promises::adapter_message`.
#![no_main]

#[path = "../../crates/adapter/tests/promises/mod.rs"]
mod promises;

libfuzzer_sys::fuzz_target!(|data: &[u8]| promises::adapter_message(data));
