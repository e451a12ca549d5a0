//! Any bytes as a weights file: `cargo +nightly fuzz run pytorch`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use skipgrad::{Error, io};
use std::{env, fs, process};

fuzz_target!(|bytes: &[u8]| {
    let path = env::temp_dir().join(format!("skipgrad-fuzz-pytorch-{}", process::id()));
    fs::write(&path, bytes).unwrap();
    let answer = io::read(&path);
    assert!(matches!(answer, Ok(_) | Err(Error::Malformed { .. })), "{answer:?}");
});
