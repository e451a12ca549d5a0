//! The check of both targets that read weights files.

use peak_alloc::PeakAlloc;
use skipgrad::{Error, io::WeightsFile};
use std::{env, fs, process};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Reads bytes as a weights file. It must open and be read, or be [`Error::Malformed`]; opening it
/// and rejecting it may take at most twice its size and 1 MiB of memory.
pub fn read_weights(bytes: &[u8]) {
    let path = env::temp_dir().join(format!("skipgrad-fuzz-weights-{}", process::id()));
    fs::write(&path, bytes).unwrap();
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    let assert_within_bound = |step: &str| {
        let taken = MEMORY.peak_usage() - before;
        assert!(taken <= 2 * bytes.len() + (1 << 20), "{taken} bytes to {step} a file of {}", bytes.len());
    };
    let opened = WeightsFile::open(&path);
    assert_within_bound("open");
    match opened.and_then(|file| file.read_all()) {
        Ok(_) => {}
        Err(Error::Malformed { .. }) => assert_within_bound("read"),
        Err(error) => panic!("{error}"),
    }
}
