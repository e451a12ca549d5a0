//! Reads the same bytes as the names of classes, as a preset, and for their kind:
//! `cargo +nightly fuzz run text -- -max_len=4096`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| skipgrad_fuzz::read_text(bytes));
