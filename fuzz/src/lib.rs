//! The checks of the targets.

use peak_alloc::PeakAlloc;
use skipgrad::{
    Error,
    data::{Preset, read_class_names},
    io::{self, FileKind, WeightsFile},
};
use std::{env, fs, path::PathBuf, process};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Reads bytes as a weights file. It must open and be read, or be [`Error::Malformed`]; opening it
/// and rejecting it may take at most twice its size and 1 MiB of memory.
pub fn read_weights(bytes: &[u8]) {
    let path = path("weights");
    fs::write(&path, bytes).unwrap();
    assert_eq!(FileKind::read(&path).unwrap(), FileKind::of(&path, bytes));
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

/// Reads bytes as the index of weights in the files `a` and `b`. It must open and be read, or be
/// [`Error::Malformed`].
pub fn read_shards(bytes: &[u8]) {
    let folder = path("shards");
    if !folder.exists() {
        fs::create_dir_all(&folder).unwrap();
        for name in ["a", "b"] {
            let tensors = [(format!("{name}.weight"), skipgrad::Tensor::scalar(1.0))].into();
            io::write(folder.join(name), &tensors, &Default::default()).unwrap();
        }
    }
    let path = folder.join("model.safetensors.index.json");
    fs::write(&path, bytes).unwrap();
    match WeightsFile::open(&path).and_then(|file| file.read_all()) {
        Ok(_) | Err(Error::Malformed { .. }) => {}
        // A name in the index may be that of the folder itself, `.`.
        Err(Error::Io { path, .. }) if path.is_dir() => {}
        Err(error) => panic!("{error}"),
    }
}

/// Reads bytes as the names of classes and as a preset. What is read must be valid, and an error
/// must be [`Error::Malformed`].
pub fn read_text(bytes: &[u8]) {
    let path = path("text");
    fs::write(&path, bytes).unwrap();
    match read_class_names(&path) {
        Ok(names) => assert!(!names.is_empty() && names.iter().all(|name| !name.is_empty())),
        Err(Error::Malformed { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    match Preset::load(&path) {
        Ok(preset) => preset.check().unwrap(),
        Err(Error::Malformed { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

/// A path of this process.
fn path(what: &str) -> PathBuf {
    env::temp_dir().join(format!("skipgrad-fuzz-{what}-{}", process::id()))
}
