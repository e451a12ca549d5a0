//! Files that are there whole or not at all.

use crate::{Error, Result};
use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

/// Writes a file so that at every moment, a crash or a power cut included, `path` holds the old content or the new.
///
/// The bytes go to a temporary file in the same folder, then to the disk (fsync), then under their name (rename), and then
/// the folder goes to the disk (on Unix; Windows has no such call). The temporary file is removed if anything fails; a crash
/// may leave one behind, which nothing reads.
///
/// # Errors
/// [`Error::Io`] that names the file that could not be made, written or renamed.
pub fn write_atomically(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    let temporary = Temporary(temporary_beside(path)?);
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

/// A file that is removed unless it was renamed.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // After the rename there is nothing by this name, and on the way out of an error that one is what counts.
        let _ = fs::remove_file(&self.0);
    }
}

/// A name that no other writer uses: of this process and its own counter. A file of the same name can only be what a crash
/// left behind.
fn temporary_beside(path: &Path) -> Result<PathBuf> {
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

/// The rename is durable once the folder is on the disk.
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
    fn a_file_is_replaced_and_nothing_is_left_beside_it() {
        let folder = folder("replace");
        let path = folder.join("a.bin");
        write_atomically(&path, b"old").unwrap();
        write_atomically(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(&folder), ["a.bin"]);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_a_crash_left_behind_disturbs_nobody() {
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
    fn a_failure_names_the_file_and_leaves_nothing() {
        let folder = folder("fail");
        let missing = folder.join("no/such/a.bin");
        let error = write_atomically(&missing, b"x").unwrap_err();
        assert!(matches!(&error, Error::Io { path, .. } if *path == missing), "{error}");
        // A folder stands where the file shall go: only the rename fails.
        let occupied = folder.join("occupied");
        fs::create_dir_all(occupied.join("inside")).unwrap();
        assert!(matches!(write_atomically(&occupied, b"x"), Err(Error::Io { action: "replace", .. })));
        assert_eq!(names(&folder), ["occupied"]);
        assert!(write_atomically(folder.join(".."), b"x").is_err());
        fs::remove_dir_all(&folder).unwrap();
    }
}
