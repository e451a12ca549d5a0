//! Any bytes as a weights file, within its memory: `cargo +nightly fuzz run pytorch`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use peak_alloc::PeakAlloc;
use skipgrad::{Error, io::WeightsFile};
use std::{env, fs, process};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

fuzz_target!(|bytes: &[u8]| {
    let path = env::temp_dir().join(format!("skipgrad-fuzz-pytorch-{}", process::id()));
    fs::write(&path, bytes).unwrap();
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let within = |step: &str| {
        let taken = MEMORY.peak_usage() - before;
        assert!(taken <= 2 * bytes.len() + (1 << 20), "{taken} bytes to {step} a file of {}", bytes.len());
    };
    let opened = WeightsFile::open(&path);
    within("open");
    match opened.and_then(|file| file.read_all()) {
        Ok(_) => {}
        Err(Error::Malformed { .. }) => within("read"),
        Err(error) => panic!("{error}"),
    }
});
