//! Opening files that may be anything.

use crate::{Error, Result};
use std::{fs, fs::File, io, path::Path};

/// Opens a regular file for reading and returns its size in bytes with it.
///
/// The type of the file is checked before it is opened, because opening a named pipe blocks until
/// another process writes to it.
///
/// # Errors
/// [`Error::Io`] if the file does not exist, cannot be read, or is a folder, a pipe or a device.
pub(crate) fn open_regular_file(path: &Path) -> Result<(File, u64)> {
    let read_error = |error| Error::io(path, "read", error);
    let metadata = fs::metadata(path).map_err(read_error)?;
    if !metadata.is_file() {
        let found = match () {
            () if !metadata.is_dir() => "not a regular file",
            () if path.join("saved_model.pb").exists() => {
                "not a regular file, but a TensorFlow SavedModel: save its weights as safetensors there"
            }
            () => "not a regular file, but a folder: name a file in it",
        };
        return Err(read_error(io::Error::new(io::ErrorKind::InvalidInput, found)));
    }
    Ok((File::open(path).map_err(read_error)?, metadata.len()))
}
