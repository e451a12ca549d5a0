//! What a file is, so that an error can say it and what to do.

mod signature;
mod words;

use super::regular_file::open_regular_file;
use crate::{Error, Result};
use std::{fmt, io::Read, path::Path};

/// What a file is, by its first bytes and its name.
///
/// Files often are something else than their names say: the pointer that Git LFS leaves, the page
/// that a server sent instead, an archive that was not unpacked, the model of another framework.
/// Every reader of this crate looks at the first bytes and says in its error what it found and what
/// to do about it.
///
/// ```
/// use skipgrad::io::FileKind;
/// let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 46830571\n";
/// let kind = FileKind::of("resnet18.safetensors", pointer);
/// assert_eq!(kind, FileKind::GitLfsPointer);
/// assert!(kind.to_string().contains("git lfs pull"));
/// assert_eq!(FileKind::of("photo.jpg", b"GIF89a\x01\0\x01\0\0\0\0"), FileKind::Gif);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileKind {
    /// A file without content.
    Empty,
    /// A file whose first bytes are all zero.
    Zeros,
    /// A file that a browser or another program has not finished downloading, by its name.
    UnfinishedDownload,
    /// The pointer that Git LFS leaves instead of a file.
    GitLfsPointer,
    /// The pointer that git-annex leaves instead of a file.
    GitAnnexPointer,
    /// A page of a website.
    Html,
    /// XML, as servers answer with an error.
    Xml,
    /// JSON, other than the index of shards.
    Json,
    /// UTF-8 text.
    Text,
    /// Text in UTF-16, as some editors save it.
    Utf16Text,
    /// What the Finder and archives of macOS leave beside a file, under its name after `._`.
    AppleDouble,
    /// A PDF document.
    Pdf,
    /// Weights in the safetensors format.
    Safetensors,
    /// The index of weights in several files, `model.safetensors.index.json`.
    ShardIndex,
    /// What `torch.save` writes: an archive with a pickle, or the stream before PyTorch 1.6.
    PyTorch,
    /// A program that `torch.jit.save` wrote.
    TorchScript,
    /// A Python pickle that `torch.save` did not write.
    Pickle,
    /// A NumPy array, `.npy`.
    Npy,
    /// NumPy arrays in an archive, `.npz`.
    Npz,
    /// HDF5, in which Keras saves weights.
    Hdf5,
    /// An archive that Keras 3 saved, `.keras`.
    KerasArchive,
    /// A part of a TensorFlow checkpoint.
    TensorFlowCheckpoint,
    /// The graph of a TensorFlow SavedModel.
    TensorFlowSavedModel,
    /// A TensorFlow Lite model.
    TfLite,
    /// An ONNX model.
    Onnx,
    /// A GGUF model, as of llama.cpp.
    Gguf,
    /// A table in the Parquet format.
    Parquet,
    /// A gzip file, which may hold an archive: `.gz`, `.tgz`.
    Gzip,
    /// A bzip2 file.
    Bzip2,
    /// An xz file.
    Xz,
    /// A Zstandard file.
    Zstd,
    /// A zip archive, other than PyTorch's, NumPy's and Keras'.
    Zip,
    /// A tar archive.
    Tar,
    /// A 7-Zip archive.
    SevenZip,
    /// A RAR archive.
    Rar,
    /// A PNG image.
    Png,
    /// A JPEG image.
    Jpeg,
    /// A GIF image.
    Gif,
    /// A WebP image.
    WebP,
    /// A BMP image.
    Bmp,
    /// A TIFF image.
    Tiff,
    /// A HEIC image, as iPhones take them.
    Heic,
    /// An AVIF image.
    Avif,
    /// A JPEG XL image.
    JpegXl,
    /// A JPEG 2000 image.
    Jpeg2000,
    /// An SVG drawing.
    Svg,
    /// An icon of Windows.
    Ico,
    /// An image of Photoshop.
    Psd,
    /// A video in the MP4 or QuickTime format.
    Video,
    /// None of the others.
    Unknown,
}

impl FileKind {
    /// The number of first bytes that [`FileKind::of`] looks at; more are ignored.
    pub const HEAD_LEN: usize = 4096;

    /// Returns the kind of a file by its name and its first bytes, of which
    /// [`HEAD_LEN`](FileKind::HEAD_LEN) are enough; a shorter file is passed as a whole. The bytes
    /// decide, and the name only between kinds that begin alike.
    pub fn of(path: impl AsRef<Path>, head: &[u8]) -> FileKind {
        let name = path.as_ref().file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        signature::kind(&name, &head[..head.len().min(FileKind::HEAD_LEN)])
    }

    /// Opens a file and returns its kind. At most [`HEAD_LEN`](FileKind::HEAD_LEN) bytes are read.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, or is a folder, a pipe or a device.
    pub fn read(path: impl AsRef<Path>) -> Result<FileKind> {
        let path = path.as_ref();
        let (mut file, _) = open_regular_file(path)?;
        Ok(FileKind::of(path, &head(path, &mut file)?))
    }

    /// Returns what the kind is called, with an article: `a Git LFS pointer`.
    pub fn description(self) -> &'static str {
        words::words(self).0
    }

    /// Returns what to do about a file of this kind where another was expected, if something helps.
    pub fn advice(self) -> Option<&'static str> {
        Some(words::words(self).1).filter(|advice| !advice.is_empty())
    }

    /// Returns the error that a reader of `expected` found a file of this kind.
    pub(crate) fn error(self, path: &Path, expected: impl fmt::Display) -> Error {
        Error::malformed(path, "format", expected, self)
    }
}

/// The description, and the advice after a colon.
impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.description())?;
        self.advice().map_or(Ok(()), |advice| write!(f, ": {advice}"))
    }
}

/// Reads the first bytes of an open file, as many as tell its kind.
pub(crate) fn head(path: &Path, file: &mut impl Read) -> Result<Vec<u8>> {
    let mut head = vec![];
    file.take(FileKind::HEAD_LEN as u64).read_to_end(&mut head).map_err(|e| Error::io(path, "read", e))?;
    Ok(head)
}
