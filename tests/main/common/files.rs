//! The source files of the repository.

use std::{fs, path::Path};

/// Returns the Rust files in a folder of the repository and in the folders below it: their paths
/// from the root, with `/`, and their texts.
pub(crate) fn rust_files(folder: &str) -> Vec<(String, String)> {
    let mut files = vec![];
    let mut folders = vec![folder.to_string()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                folders.push(path);
            } else if path.ends_with(".rs") {
                files.push((path, fs::read_to_string(entry.path()).unwrap().replace("\r\n", "\n")));
            }
        }
    }
    files.sort();
    files
}

/// Returns the part of a source file before its unit tests.
pub(crate) fn before_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default()
}
