//! Which files a folder of CIFAR has, among the versions that are published.

use crate::{Error, Result};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Where all versions are published.
const SOURCE: &str = "https://www.cs.toronto.edu/~kriz/cifar.html";

/// The names of the files of one dataset in its versions.
pub(super) struct Version {
    name: &'static str,
    /// The function that reads it.
    reader: &'static str,
    /// Folder to which the archive of the binary version unpacks.
    folder: &'static str,
    /// Files of the binary version, which are read.
    files: &'static [&'static str],
    archive: &'static str,
    /// Files and folders of the versions for Python and Matlab, which are not read.
    others: [(&'static str, &'static str); 7],
}

pub(super) const CIFAR_10: Version = Version {
    name: "CIFAR-10",
    reader: "Cifar10::open",
    folder: "cifar-10-batches-bin",
    files: &[
        "data_batch_1.bin",
        "data_batch_2.bin",
        "data_batch_3.bin",
        "data_batch_4.bin",
        "data_batch_5.bin",
        "test_batch.bin",
    ],
    archive: "cifar-10-binary.tar.gz",
    others: [
        ("data_batch_1", "Python"),
        ("test_batch", "Python"),
        ("cifar-10-batches-py", "Python"),
        ("cifar-10-python.tar.gz", "Python"),
        ("data_batch_1.mat", "Matlab"),
        ("cifar-10-batches-mat", "Matlab"),
        ("cifar-10-matlab.tar.gz", "Matlab"),
    ],
};

pub(super) const CIFAR_100: Version = Version {
    name: "CIFAR-100",
    reader: "Cifar100::open",
    folder: "cifar-100-binary",
    files: &["train.bin", "test.bin"],
    archive: "cifar-100-binary.tar.gz",
    others: [
        ("train", "Python"),
        ("test", "Python"),
        ("cifar-100-python", "Python"),
        ("cifar-100-python.tar.gz", "Python"),
        ("train.mat", "Matlab"),
        ("cifar-100-matlab", "Matlab"),
        ("cifar-100-matlab.tar.gz", "Matlab"),
    ],
};

impl Version {
    /// Returns the folder with the files of the binary version: `path`, or the folder in it to
    /// which the archive unpacks.
    ///
    /// # Errors
    /// [`Error::Malformed`] if `path` is a file, or if there is an archive or another version
    /// instead; and [`Error::Io`] with the first file if there are files of none.
    pub(super) fn locate(&self, path: &Path) -> Result<PathBuf> {
        if path.is_file() {
            return Err(self.is_a_file(path));
        }
        let has_any = |folder: &PathBuf| self.files.iter().any(|file| folder.join(file).exists());
        let folders = [path.to_path_buf(), path.join(self.folder)];
        if let Some(folder) = folders.iter().find(|folder| has_any(folder)) {
            return Ok(folder.clone());
        }
        let archive = folders.iter().map(|folder| folder.join(self.archive)).find(|path| path.is_file());
        if let Some(archive) = archive {
            return Err(self.is_a_file(&archive));
        }
        for (name, language) in self.others {
            let found = path.join(name);
            // A folder of images may have a part that is called `train`.
            if found.exists() && (found.is_file() || name.contains("cifar")) {
                return Err(self.other_version(&found, language));
            }
        }
        Err(self.nothing(path, &folders[1]))
    }

    /// Builds the error for a file in the place of the folder.
    fn is_a_file(&self, path: &Path) -> Error {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if let Some((_, language)) = self.others.iter().find(|(other, _)| *other == name) {
            return self.other_version(path, language);
        }
        let is_archive = [".tar.gz", ".tgz", ".tar", ".gz", ".zip"].iter().any(|end| name.ends_with(end));
        let found = if is_archive {
            format!("an archive: unpack it, as `tar xf {name}` does")
        } else {
            "a file: open the folder that it is in".to_string()
        };
        let expected = format!("the folder {} of {}'s binary version", self.folder, self.name);
        Error::malformed(path, "content", expected, found)
    }

    /// Builds the error for the files of another version.
    fn other_version(&self, path: &Path, language: &str) -> Error {
        let expected = format!("{}'s binary version, which {} from {SOURCE} has", self.name, self.archive);
        Error::malformed(path, "content", expected, format!("its version for {language}"))
    }

    /// Builds the error for a folder without files of any version.
    fn nothing(&self, path: &Path, nested: &Path) -> Error {
        let folder = if nested.is_dir() { nested } else { path };
        let file = folder.join(self.files[0]);
        let other = if self.name == CIFAR_10.name { CIFAR_100 } else { CIFAR_10 };
        let is_other = |folder: &Path| other.files.iter().any(|file| folder.join(file).is_file());
        let reason = match fs::read_dir(folder) {
            Err(error) => return Error::io(file, "read", error),
            Ok(_) if is_other(path) || is_other(&path.join(other.folder)) => {
                format!("no such file; the folder has {}, which {} reads", other.name, other.reader)
            }
            Ok(_) => {
                format!("no such file; the folder {} of {} from {SOURCE} has it", self.folder, self.archive)
            }
        };
        Error::io(file, "read", io::Error::new(io::ErrorKind::NotFound, reason))
    }
}
