//! Reads a mutated PyTorch file as weights: `cargo +nightly fuzz run pytorch`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| skipgrad_fuzz::read_weights(bytes));
