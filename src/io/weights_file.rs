//! Weights files of any format: names and shapes are read first, the data one tensor at a time.

#[cfg(feature = "pth")]
use super::pth;
use super::{
    dtype::DType,
    entry::{Entry, Metadata},
    kind::{self, FileKind},
    regular_file::open_regular_file,
    safetensors, shards,
};
use crate::{Error, Result, Shape, Tensor, autograd::NamedTensors};
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    path::{Path, PathBuf},
};

/// An open weights file: the names and shapes of its tensors are known, the data is read on demand.
///
/// The format follows from the content, not from the file's name: safetensors, or with the feature
/// `pth` PyTorch's own (`.pt`, `.pth`, `.th`, `.bin`; the zip archive of PyTorch 1.6 and later, and
/// the pickle stream before it). In a PyTorch file that holds nested dictionaries, a tensor's name
/// is the path of keys to it: `state_dict.module.conv1.weight`.
///
/// Weights in several files are opened by their index, `model.safetensors.index.json` or
/// `pytorch_model.bin.index.json`, and are then as one file. An error about any other file says
/// what it is; see [`FileKind`].
///
/// ```
/// use skipgrad::{Tensor, io::{self, WeightsFile}};
/// let file_name = format!("skipgrad-look-{}.safetensors", std::process::id());
/// let path = std::env::temp_dir().join(file_name);
/// let tensors = [("fc.bias".to_string(), Tensor::from_fn([3], |i| i as f32)?)].into();
/// io::write(&path, &tensors, &Default::default())?;
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
    metadata: Metadata,
}

impl WeightsFile {
    /// Opens a file and reads the names, types and shapes of its tensors. No code in it is run.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Malformed`] if it is not a weights file,
    /// is truncated, contradicts itself, has a tensor of more than 8 axes or of more elements than
    /// the address space, is a PyTorch file that holds a whole model or would run a program when
    /// PyTorch loads it, or is an index whose files are not all there.
    pub fn open(path: impl AsRef<Path>) -> Result<WeightsFile> {
        let path = path.as_ref();
        let (mut file, size) = open_regular_file(path)?;
        let head = kind::head(path, &mut file)?;
        match FileKind::of(path, &head) {
            FileKind::ShardIndex => shards::open(path, file, size),
            kind => WeightsFile::open_single(path, file, size, kind, &head),
        }
    }

    /// Reads the names, types and shapes of the tensors of an open file, which is no index.
    pub(super) fn open_single(
        path: &Path,
        file: File,
        size: u64,
        kind: FileKind,
        head: &[u8],
    ) -> Result<WeightsFile> {
        let (entries, metadata) = match kind {
            FileKind::Safetensors => safetensors::entries(path, file, size)?,
            FileKind::PyTorch | FileKind::TorchScript | FileKind::Zip => {
                (pytorch_entries(path, file, size, kind)?, Metadata::new())
            }
            FileKind::Empty => {
                let expected = format!("weights, in {FORMATS}");
                let found = format!("{size} bytes: {}", FileKind::Empty);
                return Err(Error::malformed(path, "size", expected, found));
            }
            // Perhaps safetensors with a header of a length that cannot be.
            FileKind::Unknown if head.len() <= 8 || head[8] == b'{' || plausible_length(head, size) => {
                safetensors::entries(path, file, size)?
            }
            FileKind::Unknown => {
                let begin = head.iter().take(8).map(|byte| format!(" {byte:02x}")).collect::<String>();
                let found = format!("{} that begins with{begin}", kind.description());
                return Err(Error::malformed(path, "format", format!("weights, in {FORMATS}"), found));
            }
            kind => return Err(kind.error(path, format_args!("weights, in {FORMATS}"))),
        };
        Ok(WeightsFile { path: path.to_path_buf(), size, entries, metadata })
    }

    /// Combines the tensors of several files of `size` bytes in total, which the index at `path`
    /// names.
    pub(super) fn of_shards(path: &Path, size: u64, entries: BTreeMap<String, Entry>) -> WeightsFile {
        WeightsFile { path: path.to_path_buf(), size, entries, metadata: Metadata::new() }
    }

    /// Takes the descriptions of the tensors, and the size of the file in bytes.
    pub(super) fn into_entries(self) -> (BTreeMap<String, Entry>, u64) {
        (self.entries, self.size)
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Iterates over names and shapes in the order of the names. Shapes are the file's: a
    /// convolution's weight is usually `[OC, C/groups, KH, KW]`.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Shape)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), &entry.shape))
    }

    /// Returns the shape of the tensor `name`, if there is one.
    pub fn shape(&self, name: &str) -> Option<&Shape> {
        self.entries.get(name).map(|entry| &entry.shape)
    }

    /// Returns the metadata of a safetensors file. PyTorch files have none.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Reads a tensor. Elements of type F16, BF16, F64 and I64 are converted to `f32`.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no tensor `name`; [`Error::Malformed`] if it has another
    /// type or is damaged; [`Error::Io`]; [`Error::OutOfMemory`].
    pub fn read(&self, name: &str) -> Result<Tensor> {
        self.raw_tensor(name)?.convert()
    }

    /// Reads all tensors.
    ///
    /// # Errors
    /// As [`WeightsFile::read`]; [`Error::Malformed`] if tensors share data so often that together
    /// they are more than twice as large as the file.
    pub fn read_all(&self) -> Result<NamedTensors> {
        let names: Vec<&str> = self.entries.keys().map(String::as_str).collect();
        Ok(self.entries.keys().cloned().zip(self.read_several(&names)?).collect())
    }

    /// Reads tensors in the order of `names`. All bytes are read before any is converted to `f32`,
    /// which may take more memory than the file: by then all tensors are known to be intact.
    ///
    /// # Errors
    /// As [`WeightsFile::read_all`].
    pub(super) fn read_several(&self, names: &[&str]) -> Result<Vec<Tensor>> {
        let mut bytes = 0u64;
        for name in names {
            let (entry, dtype) = self.find(name)?;
            let len = (entry.shape.num_elements() as u64).saturating_mul(dtype.size() as u64);
            bytes = bytes.saturating_add(len);
        }
        if bytes > 2 * self.size {
            let found = format!("{bytes} bytes in a file of {}", self.size);
            return Err(Error::malformed(&self.path, "tensors", "at most twice the file", found));
        }
        let tensors = names.iter().map(|name| self.raw_tensor(name)).collect::<Result<Vec<_>>>()?;
        tensors.into_iter().map(RawTensor::convert).collect()
    }

    /// Reads a tensor's bytes as the file has them.
    fn raw_tensor(&self, name: &str) -> Result<RawTensor> {
        let (entry, dtype) = self.find(name)?;
        let malformed = |expected: String, found: String| {
            Error::malformed(&self.path, format_args!("tensor {name}"), expected, found)
        };
        let bytes = (entry.read)().map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                malformed("all of its data".into(), error.to_string())
            }
            _ => Error::io(&self.path, "read", error),
        })?;
        let elements = entry.shape.num_elements();
        if bytes.len() != elements * dtype.size() {
            return Err(malformed(format!("{elements} elements"), format!("{} bytes", bytes.len())));
        }
        Ok(RawTensor { shape: entry.shape, dtype, bytes })
    }

    /// Looks a tensor up, and checks its element type.
    fn find(&self, name: &str) -> Result<(&Entry, DType)> {
        let Some(entry) = self.entries.get(name) else {
            let expected = format!("a tensor of {}", self.path.display());
            return Err(Error::argument("read", "name", expected, name));
        };
        match &entry.dtype {
            Ok(dtype) => Ok((entry, *dtype)),
            Err(found) => {
                let expected = "type F32, F16, BF16, F64 or I64";
                Err(Error::malformed(&self.path, format_args!("tensor {name}"), expected, found))
            }
        }
    }
}

/// A tensor's bytes as the file has them, exactly as many as its shape needs.
struct RawTensor {
    shape: Shape,
    dtype: DType,
    bytes: Vec<u8>,
}

impl RawTensor {
    fn convert(self) -> Result<Tensor> {
        self.dtype.to_tensor(self.shape, &self.bytes)
    }
}

impl std::fmt::Debug for WeightsFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WeightsFile").field("path", &self.path).field("tensors", &self.entries.len()).finish()
    }
}

/// The formats that weights are read in.
const FORMATS: &str = if cfg!(feature = "pth") {
    "safetensors or PyTorch's format"
} else {
    "safetensors (and PyTorch's format with the crate's feature `pth`)"
};

/// Whether the first eight bytes are the length of a header that fits into a file of `size` bytes.
fn plausible_length(head: &[u8], size: u64) -> bool {
    head.first_chunk().is_some_and(|length| u64::from_le_bytes(*length) <= size.saturating_sub(8))
}

#[cfg(feature = "pth")]
fn pytorch_entries(path: &Path, file: File, size: u64, kind: FileKind) -> Result<BTreeMap<String, Entry>> {
    pth::entries(path, file, size, kind)
}

#[cfg(not(feature = "pth"))]
fn pytorch_entries(path: &Path, _file: File, _size: u64, kind: FileKind) -> Result<BTreeMap<String, Entry>> {
    let expected = "safetensors";
    if kind == FileKind::PyTorch {
        let found = "a PyTorch file, which the crate's feature `pth` reads";
        return Err(Error::malformed(path, "format", expected, found));
    }
    Err(kind.error(path, expected))
}
