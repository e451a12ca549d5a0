//! Any bytes as a weights file, from files of this format on: `cargo +nightly fuzz run safetensors`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| skipgrad_fuzz::read_weights(bytes));
