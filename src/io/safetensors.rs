//! The safetensors format: 8 bytes with the length of the header, the header (JSON with the name,
//! type, shape and offsets of each tensor), and the data.

use super::{
    atomic::write_atomically,
    dtype::DType,
    entry::{Entry, MEMORY_ALLOWANCE, Metadata, checked_shape},
};
use crate::{Error, Result, Tensor, autograd::NamedTensors};
use safetensors::{Dtype, View, tensor::TensorInfo};
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use std::{
    borrow::Cow,
    collections::{BTreeMap, btree_map},
    fmt,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

/// The longest header that is read, in bytes, as in the format's own library. A header of ten
/// thousand tensors has about a hundredth of it.
const MAX_HEADER_LEN: u64 = 100_000_000;

/// Bytes of the field that holds the header's length.
const LENGTH_FIELD: u64 = 8;

/// Bytes of memory that a name, a number or a string of the header takes at most after parsing.
const BYTES_PER_ITEM: u64 = 64;

/// Writes tensors and metadata to a safetensors file, atomically (see [`write_atomically`]). With
/// at most one metadata string, the same content gives the same bytes.
///
/// # Errors
/// [`Error::Io`] if the folder does not exist, cannot be written or is full; [`Error::Argument`] if
/// the names and the metadata need a header of more than 100 MB, or if the name of the file is that
/// of another format, such as `.pth`, in which other programs would then misread it.
pub fn write(path: impl AsRef<Path>, tensors: &NamedTensors, metadata: &Metadata) -> Result<()> {
    write_as(DType::F32, path, tensors, metadata)
}

/// Writes as [`write()`], with elements of a type.
pub(super) fn write_as(
    dtype: DType,
    path: impl AsRef<Path>,
    tensors: &NamedTensors,
    metadata: &Metadata,
) -> Result<()> {
    let path = path.as_ref();
    check_extension(path)?;
    if dtype == DType::F16 {
        check_range(tensors)?;
    }
    let metadata = (!metadata.is_empty()).then(|| metadata.clone().into_iter().collect());
    let bytes =
        safetensors::serialize(tensors.iter().map(|(name, t)| (name, TensorView(t, dtype))), metadata)
            .map_err(|e| Error::argument("write", "tensors", "names and metadata that fit a header", e))?;
    write_atomically(path, &bytes)
}

/// Ends of file names by which other programs recognize other formats.
const OTHER_FORMATS: [&str; 18] = [
    "pth", "pt", "th", "bin", "ckpt", "pkl", "pickle", "h5", "hdf5", "keras", "pb", "tflite", "onnx", "npy",
    "npz", "gguf", "msgpack", "zip",
];

/// Checks that a name does not promise another format.
fn check_extension(path: &Path) -> Result<()> {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    if OTHER_FORMATS.contains(&extension.as_str()) {
        let name = path.with_extension("safetensors");
        let expected = format!("a name that says the format, {}", name.display());
        return Err(Error::argument("save", "path", expected, path.display()));
    }
    Ok(())
}

/// Reads the header of an open file of `size` bytes: its tensors and its metadata.
pub(super) fn entries(path: &Path, mut file: File, size: u64) -> Result<(BTreeMap<String, Entry>, Metadata)> {
    let bytes = read_header(path, &mut file, size)?;
    let begin = LENGTH_FIELD + bytes.len() as u64;
    let malformed =
        |error: String| Error::malformed(path, "header", "a header that describes the whole file", error);
    let Header { mut tensors, metadata } =
        serde_json::from_slice(&bytes).map_err(|e| malformed(e.to_string()))?;
    drop(bytes);

    tensors.sort_by_key(|(_, info)| info.data_offsets);
    // Checks that the offsets match the shapes and leave neither gaps nor overlaps.
    let described =
        safetensors::tensor::Metadata::new(None, tensors).map_err(|e| malformed(e.to_string()))?;
    let (described_size, found) = (described.data_len() as u64, size - begin);
    if described_size != found {
        return Err(malformed(format!("{described_size} bytes of data described, {found} there")));
    }
    let file = Arc::new(Mutex::new(file));
    let entry = |(name, info): (String, &TensorInfo)| {
        let (file, (from, to)) = (file.clone(), info.data_offsets);
        let read = move || {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            let mut bytes = vec![0; to - from];
            file.seek(SeekFrom::Start(begin + from as u64))?;
            file.read_exact(&mut bytes)?;
            Ok(bytes)
        };
        let (shape, dtype) = (checked_shape(path, &name, &info.shape)?, supported_dtype(info.dtype));
        Ok((name, Entry { shape, dtype, read: Box::new(read) }))
    };
    Ok((described.tensors().into_iter().map(entry).collect::<Result<_>>()?, metadata))
}

/// Reads the header's bytes, after checking their length and the memory that parsing them takes.
fn read_header(path: &Path, file: &mut File, size: u64) -> Result<Vec<u8>> {
    let read_error = |e| Error::io(path, "read", e);
    if size < LENGTH_FIELD {
        let expected = format!("at least {LENGTH_FIELD} bytes");
        return Err(Error::malformed(path, "size", expected, format_args!("{size} bytes")));
    }
    let mut length = [0; LENGTH_FIELD as usize];
    file.seek(SeekFrom::Start(0)).and_then(|_| file.read_exact(&mut length)).map_err(read_error)?;
    let (length, max) = (u64::from_le_bytes(length), MAX_HEADER_LEN.min(size - LENGTH_FIELD));
    if length > max {
        return Err(Error::malformed(path, "header length", format_args!("at most {max} bytes"), length));
    }
    let mut bytes = Vec::new();
    let length = length as usize;
    bytes.try_reserve_exact(length).map_err(|_| Error::OutOfMemory { bytes: length })?;
    file.take(length as u64).read_to_end(&mut bytes).map_err(read_error)?;
    let items = bytes.iter().filter(|byte| b",:[{".contains(byte)).count() as u64;
    // Names are in memory twice: while they are parsed, and in an error that lists those that the
    // model does not have.
    let max = (2 * size + MEMORY_ALLOWANCE - 2 * bytes.len() as u64) / BYTES_PER_ITEM;
    if items > max {
        let expected = format!("at most {max} items, in proportion to the file");
        return Err(Error::malformed(path, "header", expected, items));
    }
    Ok(bytes)
}

/// Returns the element type, or its name if weights are not read from it.
fn supported_dtype(dtype: Dtype) -> Result<DType, String> {
    match dtype {
        Dtype::F32 => Ok(DType::F32),
        Dtype::F16 => Ok(DType::F16),
        Dtype::BF16 => Ok(DType::Bf16),
        Dtype::F64 => Ok(DType::F64),
        Dtype::I64 => Ok(DType::I64),
        other => Err(other.to_string()),
    }
}

/// The content of a header. Of two tensors with one name the format's own library keeps the last;
/// here that is an error.
struct Header {
    tensors: Vec<(String, TensorInfo)>,
    metadata: Metadata,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Header, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let (mut tensors, mut metadata) = (BTreeMap::new(), None);
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                if metadata.replace(map.next_value()?).is_some() {
                    return Err(de::Error::custom("two __metadata__"));
                }
                continue;
            }
            match tensors.entry(name) {
                btree_map::Entry::Occupied(entry) => {
                    return Err(de::Error::custom(format_args!("two tensors of the name {}", entry.key())));
                }
                btree_map::Entry::Vacant(entry) => {
                    entry.insert(map.next_value()?);
                }
            }
        }
        Ok(Header { tensors: tensors.into_iter().collect(), metadata: metadata.unwrap_or_default() })
    }
}

/// Checks that no finite element becomes infinite in f16.
fn check_range(tensors: &NamedTensors) -> Result<()> {
    for (name, tensor) in tensors {
        if let Some(x) = tensor.data().iter().find(|x| x.is_finite() && x.abs() >= 65520.0) {
            let found = format_args!("{x} in {name}");
            return Err(Error::argument("save", "tensors", "elements of at most 65504, for f16", found));
        }
    }
    Ok(())
}

/// A tensor as the format's own library writes it.
struct TensorView<'a>(&'a Tensor, DType);

impl View for TensorView<'_> {
    fn dtype(&self) -> Dtype {
        match self.1 {
            DType::F32 => Dtype::F32,
            DType::F16 => Dtype::F16,
            DType::Bf16 => Dtype::BF16,
            DType::F64 => Dtype::F64,
            DType::I64 => Dtype::I64,
        }
    }
    fn shape(&self) -> &[usize] {
        self.0.shape()
    }
    fn data(&self) -> Cow<'_, [u8]> {
        self.1.to_bytes(self.0).into()
    }
    fn data_len(&self) -> usize {
        self.0.data().len() * self.1.size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{WeightsFile, read};
    use std::{fs, path::PathBuf};

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("skipgrad-safetensors-{}-{name}", std::process::id()))
    }

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        bytes
    }

    #[test]
    fn tensors_and_metadata_come_back() {
        let path = path("back");
        let tensors = NamedTensors::from([
            ("a.weight".to_string(), Tensor::from_fn([2, 3], |i| i as f32 - 0.1).unwrap()),
            ("b".to_string(), Tensor::scalar(f32::MIN_POSITIVE / 2.0)),
            ("none".to_string(), Tensor::zeros([0, 4]).unwrap()),
        ]);
        let metadata = Metadata::from([("about".to_string(), "line\nand \"quotes\"".to_string())]);
        write(&path, &tensors, &metadata).unwrap();
        let opened = WeightsFile::open(&path).unwrap();
        assert_eq!((opened.read_all().unwrap(), opened.metadata()), (tensors.clone(), &metadata));
        let first = fs::read(&path).unwrap();
        write(&path, &tensors, &metadata).unwrap();
        assert_eq!(fs::read(&path).unwrap(), first, "the same content makes the same bytes");
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn other_types_become_f32() {
        let header = r#"{"f64":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},
            "i64":{"dtype":"I64","shape":[],"data_offsets":[8,16]},
            "f16":{"dtype":"F16","shape":[2],"data_offsets":[16,20]},
            "bf16":{"dtype":"BF16","shape":[1],"data_offsets":[20,22]}}"#;
        let mut data = 0.5f64.to_le_bytes().to_vec();
        data.extend(117i64.to_le_bytes());
        data.extend([0x00, 0x3c, 0x00, 0xc0, 0x80, 0x3f]);
        let path = path("types");
        fs::write(&path, file(header, &data)).unwrap();
        let tensors = read(&path).unwrap();
        assert_eq!((tensors["f64"].item(), tensors["i64"].item()), (0.5, 117.0));
        assert_eq!((tensors["f16"].data(), tensors["bf16"].item()), (&[1.0, -2.0][..], 1.0));
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn every_fault_of_a_header_has_its_error() {
        let path = path("malformed");
        let expect_malformed = |bytes: &[u8], at: &str, found: &str| {
            fs::write(&path, bytes).unwrap();
            let error = read(&path).unwrap_err();
            assert!(matches!(&error, Error::Malformed { at: a, .. } if a == at), "{error}");
            let text = error.to_string();
            assert!(text.contains(found) && text.contains(path.to_str().unwrap()), "{text}");
        };
        let one = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        expect_malformed(b"", "size", "0 bytes");
        expect_malformed(&u64::MAX.to_le_bytes(), "header length", "at most 0 bytes");
        expect_malformed(&file(one, &[0; 4])[..20], "header length", "expected at most 12 bytes");
        expect_malformed(&file(one, &[0; 3]), "header", "4 bytes of data described, 3 there");
        expect_malformed(&file(one, &[0; 5]), "header", "4 bytes of data described, 5 there");
        expect_malformed(&file("{\"a\":", &[]), "header", "EOF while parsing");
        expect_malformed(&file("\u{1}", &[]), "header", "expected value at line 1");
        let twice = one.replacen('{', &format!("{{{},", &one[1..one.len() - 1]), 1);
        expect_malformed(&file(&twice, &[0; 4]), "header", "two tensors of the name a");
        let integers = r#"{"a":{"dtype":"I8","shape":[4],"data_offsets":[0,4]}}"#;
        expect_malformed(&file(integers, &[0; 4]), "tensor a", "found I8");
        let huge = r#"{"a":{"dtype":"F32","shape":[0,9223372036854775807,9],"data_offsets":[0,0]}}"#;
        expect_malformed(&file(huge, &[]), "tensor a", "fits the address space");
        let deep = r#"{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}"#;
        expect_malformed(&file(deep, &[0; 4]), "tensor a", "at most 8 axes");
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_missing_file_and_a_folder_are_io_errors() {
        assert!(matches!(read(path("missing")), Err(Error::Io { action: "read", .. })));
        assert!(matches!(read(std::env::temp_dir()), Err(Error::Io { .. })));
    }

    #[test]
    fn a_truncated_or_changed_file_never_panics() {
        let path = path("fuzz");
        let tensors = NamedTensors::from([("a".to_string(), Tensor::zeros([3]).unwrap())]);
        write(&path, &tensors, &Metadata::new()).unwrap();
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            fs::write(&path, &whole[..at]).unwrap();
            assert!(matches!(read(&path), Err(Error::Malformed { .. })), "cut at {at}");
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[at] ^= 1 << bit;
                fs::write(&path, &changed).unwrap();
                let result = read(&path);
                assert!(matches!(result, Ok(_) | Err(Error::Malformed { .. })), "byte {at}, bit {bit}");
            }
        }
        fs::remove_file(&path).unwrap();
    }
}
