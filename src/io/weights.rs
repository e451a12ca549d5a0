//! A weights file of any format: names and shapes first, numbers one tensor at a time.

#[cfg(feature = "pth")]
use super::pth;
use super::{number::Number, open_regular_file, safetensors};
use crate::{Error, Result, Shape, Tensor, autograd::NamedTensors};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Texts that a file carries beside its tensors.
pub type Metadata = BTreeMap<String, String>;

/// An open weights file: what is in it is known, its numbers are read when they are asked for.
///
/// The format is that of the content, whatever the file is called: safetensors, or with the feature `pth` PyTorch's own
/// (`.pt`, `.pth`, `.th`, `.bin`; the zip archive of PyTorch 1.6 and later, and the pickle stream before it). In a PyTorch
/// file that holds more than tensors, names are the way through its dictionaries: `state_dict.module.conv1.weight`.
///
/// ```
/// use skipgrad::{Tensor, io::{self, WeightsFile}};
/// let path = std::env::temp_dir().join(format!("skipgrad-look-{}.safetensors", std::process::id()));
/// io::write(&path, &[("fc.bias".to_string(), Tensor::from_fn([3], |i| i as f32)?)].into(), &Default::default())?;
/// let file = WeightsFile::open(&path)?;
/// let table: Vec<String> = file.iter().map(|(name, shape)| format!("{name} {shape}")).collect();
/// assert_eq!(table, ["fc.bias [3]"]);
/// assert_eq!(file.read("fc.bias")?.data(), [0.0, 1.0, 2.0]);
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), skipgrad::Error>(())
/// ```
pub struct WeightsFile {
    path: PathBuf,
    size: u64,
    entries: BTreeMap<String, Entry>,
    texts: Metadata,
}

/// A tensor that is still in its file.
pub(super) struct Entry {
    pub(super) shape: Shape,
    /// The type of its numbers, or the name of one that no weights come in.
    pub(super) number: Result<Number, String>,
    /// Reads its numbers: row-major and little-endian, as many as the shape says.
    pub(super) bytes: Box<dyn Fn() -> io::Result<Vec<u8>> + Send + Sync>,
}

impl WeightsFile {
    /// Reads what tensors a file has, of which names and shapes. Nothing in it is ever run.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Malformed`] if it is no weights file, is cut short, contradicts
    /// itself, has tensors of absurd shapes, or is a PyTorch file that wants to call anything but what rebuilds tensors.
    pub fn open(path: impl AsRef<Path>) -> Result<WeightsFile> {
        let path = path.as_ref();
        let (mut file, size) = open_regular_file(path)?;
        let mut head = vec![];
        (&mut file).take(HEAD).read_to_end(&mut head).map_err(|e| Error::io(path, "read", e))?;
        let (entries, texts) = if looks_like_pytorch(&head) {
            (pytorch(path, file, size)?, Metadata::new())
        } else {
            safetensors::entries(path, file, size)?
        };
        Ok(WeightsFile { path: path.to_path_buf(), size, entries, texts })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names and shapes by name, as the file has them (a convolution's weight is `[OC, C/groups, KH, KW]`).
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Shape)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), &entry.shape))
    }

    /// The shape of a tensor, if there is one of this name.
    pub fn shape(&self, name: &str) -> Option<&Shape> {
        self.entries.get(name).map(|entry| &entry.shape)
    }

    /// The texts that a safetensors file carries.
    pub fn metadata(&self) -> &Metadata {
        &self.texts
    }

    /// Reads a tensor. Numbers of the types F16, BF16, F64 and I64 become `f32`.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no tensor of this name; [`Error::Malformed`] if it has another type or is damaged;
    /// [`Error::Io`]; [`Error::OutOfMemory`].
    pub fn read(&self, name: &str) -> Result<Tensor> {
        self.stored(name)?.tensor()
    }

    /// Reads all tensors.
    ///
    /// # Errors
    /// As [`WeightsFile::read`]; [`Error::Malformed`] if they are of the same numbers so often that they come to more than twice
    /// the file.
    pub fn read_all(&self) -> Result<NamedTensors> {
        let names: Vec<&str> = self.entries.keys().map(String::as_str).collect();
        Ok(self.entries.keys().cloned().zip(self.read_several(&names)?).collect())
    }

    /// Reads tensors, in this order. All are read before one becomes `f32`, which may take more memory than it takes in the file:
    /// then they are known to be whole.
    ///
    /// # Errors
    /// As [`WeightsFile::read_all`].
    pub(super) fn read_several(&self, names: &[&str]) -> Result<Vec<Tensor>> {
        let mut bytes = 0u64;
        for name in names {
            let (entry, number) = self.find(name)?;
            bytes = bytes
                .saturating_add((entry.shape.num_elements() as u64).saturating_mul(number.size() as u64));
        }
        if bytes > 2 * self.size {
            let found = format!("{bytes} bytes in a file of {}", self.size);
            return Err(Error::malformed(&self.path, "tensors", "at most twice the file", found));
        }
        let stored = names.iter().map(|name| self.stored(name)).collect::<Result<Vec<_>>>()?;
        stored.into_iter().map(Stored::tensor).collect()
    }

    /// Reads a tensor's numbers as the file has them.
    fn stored(&self, name: &str) -> Result<Stored> {
        let (entry, number) = self.find(name)?;
        let bytes = (entry.bytes)().map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                Error::malformed(&self.path, format!("tensor {name}"), "its numbers, whole", error)
            }
            _ => Error::io(&self.path, "read", error),
        })?;
        if bytes.len() != entry.shape.num_elements() * number.size() {
            let expected = format!("{} numbers", entry.shape.num_elements());
            let found = format!("{} bytes", bytes.len());
            return Err(Error::malformed(&self.path, format!("tensor {name}"), expected, found));
        }
        Ok(Stored { shape: entry.shape, number, bytes })
    }

    /// The tensor of this name, and the type of its numbers.
    fn find(&self, name: &str) -> Result<(&Entry, Number)> {
        let Some(entry) = self.entries.get(name) else {
            let expected = format!("a tensor of {}", self.path.display());
            return Err(Error::argument("read", "name", expected, name));
        };
        match &entry.number {
            Ok(number) => Ok((entry, *number)),
            Err(found) => {
                let expected = "type F32, F16, BF16, F64 or I64";
                Err(Error::malformed(&self.path, format!("tensor {name}"), expected, found))
            }
        }
    }
}

/// A tensor's numbers as a file has them, as many as its shape says.
struct Stored {
    shape: Shape,
    number: Number,
    bytes: Vec<u8>,
}

impl Stored {
    fn tensor(self) -> Result<Tensor> {
        self.number.tensor(self.shape, &self.bytes)
    }
}

impl std::fmt::Debug for WeightsFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WeightsFile").field("path", &self.path).field("tensors", &self.entries.len()).finish()
    }
}

/// The shape of a tensor of a file.
pub(super) fn shape(path: &Path, name: &str, sizes: &[usize]) -> Result<Shape> {
    Shape::new(sizes).map_err(|error| match error {
        Error::Argument { expected, found, .. } => {
            Error::malformed(path, format!("tensor {name}"), expected, found)
        }
        other => other,
    })
}

/// What is read of a file before its numbers may take this much more in memory than twice the file.
pub(super) const ALLOWANCE: u64 = 1 << 20;

/// As many bytes of a file as say what it is.
const HEAD: u64 = 64;

/// What a pickle stream of PyTorch begins with: a number that spells nothing else, in little-endian.
const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Whether this is the head of a PyTorch file. The length of a safetensors header could read as either of the other two
/// marks; but behind it stands a brace, which no head of theirs has there.
fn looks_like_pytorch(head: &[u8]) -> bool {
    let legacy = head.windows(LEGACY_MAGIC.len()).any(|bytes| bytes == LEGACY_MAGIC);
    head.get(8) != Some(&b'{') && (head.starts_with(b"PK\x03\x04") || legacy)
}

#[cfg(feature = "pth")]
fn pytorch(path: &Path, file: File, size: u64) -> Result<BTreeMap<String, Entry>> {
    pth::entries(path, file, size)
}

#[cfg(not(feature = "pth"))]
fn pytorch(path: &Path, _file: File, _size: u64) -> Result<BTreeMap<String, Entry>> {
    Err(Error::malformed(
        path,
        "format",
        "safetensors",
        "a PyTorch file, which the crate's feature `pth` reads",
    ))
}
