//! Reads the same bytes as every file of CIFAR-10 and CIFAR-100:
//! `cargo +nightly fuzz run cifar -- -max_len=6200`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use skipgrad::{
    Error,
    data::{Cifar10, Cifar100},
};
use std::{env, fs, process};

fuzz_target!(|bytes: &[u8]| {
    let folder = env::temp_dir().join(format!("skipgrad-fuzz-cifar-{}", process::id()));
    fs::create_dir_all(&folder).unwrap();
    for file in [
        "data_batch_1",
        "data_batch_2",
        "data_batch_3",
        "data_batch_4",
        "data_batch_5",
        "test_batch",
        "train",
        "test",
    ] {
        fs::write(folder.join(format!("{file}.bin")), bytes).unwrap();
    }
    let allowed = |error: Option<Error>| error.is_none_or(|error| matches!(error, Error::Malformed { .. }));
    assert!(allowed(Cifar10::open(&folder).err()) && allowed(Cifar100::open(&folder).err()));
});
