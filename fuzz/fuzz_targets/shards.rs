//! Reads a mutated index of weights in several files, beside two files that it may name:
//! `cargo +nightly fuzz run shards -- -max_len=4096`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| skipgrad_fuzz::read_shards(bytes));
