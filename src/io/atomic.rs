//! Atomic replacement of files.

use crate::{Error, Result};
use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

/// Writes a file atomically: after a crash or a power cut, `path` holds either the old content or
/// the new content, never a part of one.
///
/// The bytes are written to a temporary file in the same folder and flushed to the disk (`fsync`).
/// Then the temporary file is renamed to `path`, and the folder is flushed (on Unix; Windows has no
/// such call). If a step fails, the temporary file is removed. A crash may leave one, which no
/// later call reads.
///
/// # Errors
/// [`Error::Io`], which names the file that could not be created, written or renamed.
pub fn write_atomically(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    let temporary = TemporaryFile(temporary_path(path)?);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&temporary.0)
        .map_err(|e| Error::io(path, "create", e))?;
    file.write_all(bytes).map_err(|e| Error::io(path, "write", e))?;
    file.sync_all().map_err(|e| Error::io(path, "write to the disk", e))?;
    drop(file);
    fs::rename(&temporary.0, path).map_err(|e| Error::io(path, "replace", e))?;
    sync_folder(path)
}

/// A file that is removed on drop, unless it has been renamed.
struct TemporaryFile(PathBuf);

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        // After the rename there is no such file; after an error, that error is the one to report.
        let _ = fs::remove_file(&self.0);
    }
}

/// Returns a path in the same folder that no other writer uses: it contains the process id and a
/// counter. Files of that name which a crash has left are skipped.
fn temporary_path(path: &Path) -> Result<PathBuf> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let Some(name) = path.file_name() else {
        return Err(Error::io(path, "create", io::Error::new(io::ErrorKind::InvalidInput, "no file name")));
    };
    loop {
        let mut temporary = OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}-{}.tmp", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        let temporary = path.with_file_name(temporary);
        if !temporary.exists() {
            return Ok(temporary);
        }
    }
}

/// Flushes the folder of `path` to the disk, which makes a rename in it durable.
#[cfg(unix)]
fn sync_folder(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|e| Error::io(folder, "write to the disk", e))
}

#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("skipgrad-atomic-{}-{name}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn names(folder: &Path) -> Vec<OsString> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_and_no_temporary_file_remains() {
        let folder = folder("replace");
        let path = folder.join("a.bin");
        write_atomically(&path, b"old").unwrap();
        write_atomically(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(&folder), ["a.bin"]);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn temporary_files_of_a_crash_are_skipped() {
        let folder = folder("crash");
        let path = folder.join("a.bin");
        write_atomically(&path, b"old").unwrap();
        for n in 0..200 {
            let left = folder.join(format!(".a.bin.{}-{n}.tmp", std::process::id()));
            fs::write(left, b"ha").unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), b"old");
        write_atomically(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_failure_names_the_file_and_leaves_no_temporary_file() {
        let folder = folder("fail");
        let missing = folder.join("no/such/a.bin");
        let error = write_atomically(&missing, b"x").unwrap_err();
        assert!(matches!(&error, Error::Io { path, .. } if *path == missing), "{error}");
        // The path is a folder that is not empty, so that only the rename fails.
        let occupied = folder.join("occupied");
        fs::create_dir_all(occupied.join("inside")).unwrap();
        assert!(matches!(write_atomically(&occupied, b"x"), Err(Error::Io { action: "replace", .. })));
        assert_eq!(names(&folder), ["occupied"]);
        assert!(write_atomically(folder.join(".."), b"x").is_err());
        fs::remove_dir_all(&folder).unwrap();
    }
}
