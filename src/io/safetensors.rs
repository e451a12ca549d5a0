//! Safetensors files: 8 bytes with the length of the header, the header (JSON: names, types, shapes, places), the numbers.

use super::{
    half::{from_bf16, from_f16},
    write_atomically,
};
use crate::{Error, Result, Tensor, autograd::NamedTensors};
use safetensors::{Dtype, SafeTensors, View, tensor::TensorView};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

/// Texts that a file carries beside its tensors.
pub type Metadata = BTreeMap<String, String>;

/// The longest header that is read, in bytes, as in the format's own library: a header of ten thousand tensors is about
/// a hundredth of it.
const LONGEST_HEADER: u64 = 100_000_000;

/// The bytes of the header's length.
const LENGTH: u64 = 8;

/// Reads all tensors of a safetensors file. Numbers of type F16, BF16, F64 and I64 become `f32`.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Malformed`] if it is no safetensors file, is cut short, or has tensors
/// of another type or of an absurd shape.
pub fn read(path: impl AsRef<Path>) -> Result<NamedTensors> {
    Ok(open(path)?.0)
}

/// Reads all tensors and the texts of a safetensors file.
///
/// # Errors
/// As [`read`].
pub fn open(path: impl AsRef<Path>) -> Result<(NamedTensors, Metadata)> {
    let path = path.as_ref();
    decode(path, &read_checked(path)?)
}

/// The content of a file's bytes; `path` is for the errors.
fn decode(path: &Path, bytes: &[u8]) -> Result<(NamedTensors, Metadata)> {
    let malformed = |error| Error::Malformed {
        path: path.to_path_buf(),
        at: "header".to_string(),
        expected: "a header that describes the whole file".to_string(),
        found: format!("{error}"),
    };
    let file = SafeTensors::deserialize(bytes).map_err(malformed)?;
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(malformed)?;
    let tensors = file.iter().map(|(name, view)| Ok((name.to_string(), tensor(path, name, &view)?)));
    let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok((tensors.collect::<Result<_>>()?, metadata))
}

/// Writes tensors and texts to a safetensors file, atomically (see [`write_atomically`]). With at most one text, the same
/// content makes the same bytes.
///
/// # Errors
/// [`Error::Io`] if the folder does not exist, cannot be written or is full; [`Error::Argument`] if the names and texts
/// need a header of more than 100 MB.
pub fn write(path: impl AsRef<Path>, tensors: &NamedTensors, metadata: &Metadata) -> Result<()> {
    let metadata = (!metadata.is_empty()).then(|| metadata.clone().into_iter().collect());
    let bytes = safetensors::serialize(tensors.iter().map(|(name, t)| (name, Stored(t))), metadata)
        .map_err(|e| Error::argument("write", "tensors", "names and texts that fit a header", e))?;
    write_atomically(path, &bytes)
}

/// The bytes of the file, once its size and that of its header are plausible.
fn read_checked(path: &Path) -> Result<Vec<u8>> {
    let cannot = |e| Error::io(path, "read", e);
    let malformed = |at: &str, expected: String, found: String| Error::Malformed {
        path: path.to_path_buf(),
        at: at.to_string(),
        expected,
        found,
    };
    // Before it is opened: opening a pipe would wait for its writer.
    let about = fs::metadata(path).map_err(cannot)?;
    if !about.is_file() {
        return Err(cannot(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    let mut file = File::open(path).map_err(cannot)?;
    let size = about.len();
    if size < LENGTH {
        let found = format!("{size} bytes");
        return Err(malformed("size", format!("at least {LENGTH} bytes"), found));
    }
    let mut length = [0; LENGTH as usize];
    file.read_exact(&mut length).map_err(cannot)?;
    let (header, most) = (u64::from_le_bytes(length), LONGEST_HEADER.min(size - LENGTH));
    if header > most {
        return Err(malformed("header length", format!("at most {most} bytes"), format!("{header}")));
    }
    let mut bytes = Vec::new();
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    bytes.try_reserve_exact(size).map_err(|_| Error::OutOfMemory { bytes: size })?;
    bytes.extend_from_slice(&length);
    file.take(size as u64 - LENGTH).read_to_end(&mut bytes).map_err(cannot)?;
    Ok(bytes)
}

/// A tensor of the file as `f32`.
fn tensor(path: &Path, name: &str, view: &TensorView<'_>) -> Result<Tensor> {
    let malformed = |expected: &str, found: String| Error::Malformed {
        path: path.to_path_buf(),
        at: format!("tensor {name}"),
        expected: expected.to_string(),
        found,
    };
    let bytes = view.data();
    let values: Vec<f32> = match view.dtype() {
        Dtype::F32 => numbers(bytes, f32::from_le_bytes),
        Dtype::F16 => numbers(bytes, |b| from_f16(u16::from_le_bytes(b))),
        Dtype::BF16 => numbers(bytes, |b| from_bf16(u16::from_le_bytes(b))),
        Dtype::F64 => numbers(bytes, |b| f64::from_le_bytes(b) as f32),
        // PyTorch's batch norms count their batches in this type.
        Dtype::I64 => numbers(bytes, |b| i64::from_le_bytes(b) as f32),
        other => return Err(malformed("type F32, F16, BF16, F64 or I64", format!("{other}"))),
    };
    Tensor::new(view.shape(), values).map_err(|error| match error {
        Error::Argument { expected, found, .. } => malformed(&expected, found),
        other => other,
    })
}

fn numbers<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|&chunk| number(chunk)).collect()
}

/// A tensor as the file has it.
struct Stored<'a>(&'a Tensor);

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        self.0.shape()
    }
    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = Vec::with_capacity(self.data_len());
        self.0.data().iter().for_each(|x| bytes.extend_from_slice(&x.to_le_bytes()));
        bytes.into()
    }
    fn data_len(&self) -> usize {
        size_of_val(self.0.data())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

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
    fn tensors_and_texts_come_back() {
        let path = path("back");
        let tensors = NamedTensors::from([
            ("a.weight".to_string(), Tensor::from_fn([2, 3], |i| i as f32 - 0.1).unwrap()),
            ("b".to_string(), Tensor::scalar(f32::MIN_POSITIVE / 2.0)),
            ("none".to_string(), Tensor::zeros([0, 4]).unwrap()),
        ]);
        let metadata = Metadata::from([("about".to_string(), "line\nand \"quotes\"".to_string())]);
        write(&path, &tensors, &metadata).unwrap();
        assert_eq!(open(&path).unwrap(), (tensors.clone(), metadata.clone()));
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
    fn malformed_files_are_told_apart() {
        let path = path("malformed");
        let refused = |bytes: &[u8], at: &str, found: &str| {
            fs::write(&path, bytes).unwrap();
            let error = read(&path).unwrap_err();
            assert!(matches!(&error, Error::Malformed { at: a, .. } if a == at), "{error}");
            let text = error.to_string();
            assert!(text.contains(found) && text.contains(path.to_str().unwrap()), "{text}");
        };
        let one = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
        refused(b"", "size", "0 bytes");
        refused(&u64::MAX.to_le_bytes(), "header length", "at most 0 bytes");
        refused(&file(one, &[0; 4])[..20], "header length", "expected at most 12 bytes");
        refused(&file(one, &[0; 3]), "header", "not fully covered");
        refused(&file(one, &[0; 5]), "header", "not fully covered");
        refused(&file("{\"a\":", &[]), "header", "invalid JSON");
        refused(&file("\u{1}", &[]), "header", "invalid JSON");
        let integers = r#"{"a":{"dtype":"I8","shape":[4],"data_offsets":[0,4]}}"#;
        refused(&file(integers, &[0; 4]), "tensor a", "found I8");
        let huge = r#"{"a":{"dtype":"F32","shape":[0,9223372036854775807,9],"data_offsets":[0,0]}}"#;
        refused(&file(huge, &[]), "tensor a", "fits the address space");
        let deep = r#"{"a":{"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]}}"#;
        refused(&file(deep, &[0; 4]), "tensor a", "at most 8 axes");
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_is_no_file_is_an_io_error() {
        assert!(matches!(read(path("missing")), Err(Error::Io { action: "read", .. })));
        assert!(matches!(read(std::env::temp_dir()), Err(Error::Io { .. })));
    }

    #[test]
    fn every_cut_and_every_changed_byte_of_a_file_is_answered() {
        let path = path("fuzz");
        let tensors = NamedTensors::from([("a".to_string(), Tensor::zeros([3]).unwrap())]);
        write(&path, &tensors, &Metadata::new()).unwrap();
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            assert!(matches!(decode(&path, &whole[..at]), Err(Error::Malformed { .. })), "cut at {at}");
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[at] ^= 1 << bit;
                let answer = decode(&path, &changed);
                assert!(matches!(answer, Ok(_) | Err(Error::Malformed { .. })), "byte {at}, bit {bit}");
            }
        }
        fs::remove_file(&path).unwrap();
    }
}
