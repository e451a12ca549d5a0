//! Safetensors files: 8 bytes with the length of the header, the header (JSON: names, types, shapes, places), the numbers.

use super::{
    number::Number,
    weights::{ALLOWANCE, Entry, Metadata, WeightsFile, shape},
    write_atomically,
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

/// The longest header that is read, in bytes, as in the format's own library: a header of ten thousand tensors is about
/// a hundredth of it.
const LONGEST_HEADER: u64 = 100_000_000;

/// The bytes of the header's length.
const LENGTH: u64 = 8;

/// Bytes that a name, a number or a text of the header takes at most once it is read.
const BYTES_PER_ITEM: u64 = 64;

/// Reads all tensors and the texts of a safetensors file.
///
/// # Errors
/// As [`read`](super::read).
pub fn open(path: impl AsRef<Path>) -> Result<(NamedTensors, Metadata)> {
    let file = WeightsFile::open(path)?;
    Ok((file.read_all()?, file.metadata().clone()))
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

/// The tensors of an open file of this size, and its texts.
pub(super) fn entries(path: &Path, mut file: File, size: u64) -> Result<(BTreeMap<String, Entry>, Metadata)> {
    let bytes = header(path, &mut file, size)?;
    let begin = LENGTH + bytes.len() as u64;
    let refuse =
        |error: String| Error::malformed(path, "header", "a header that describes the whole file", error);
    let Header { mut tensors, texts } = serde_json::from_slice(&bytes).map_err(|e| refuse(e.to_string()))?;
    drop(bytes);

    tensors.sort_by_key(|(_, info)| info.data_offsets);
    // Holds the places against the shapes and against one another.
    let described = safetensors::tensor::Metadata::new(None, tensors).map_err(|e| refuse(e.to_string()))?;
    let (described_size, found) = (described.data_len() as u64, size - begin);
    if described_size != found {
        return Err(refuse(format!("{described_size} bytes of numbers described, {found} there")));
    }
    let file = Arc::new(Mutex::new(file));
    let entry = |(name, info): (String, &TensorInfo)| {
        let (file, (from, to)) = (file.clone(), info.data_offsets);
        let bytes = move || {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            let mut bytes = vec![0; to - from];
            file.seek(SeekFrom::Start(begin + from as u64))?;
            file.read_exact(&mut bytes)?;
            Ok(bytes)
        };
        let (shape, number) = (shape(path, &name, &info.shape)?, number(info.dtype));
        Ok((name, Entry { shape, number, bytes: Box::new(bytes) }))
    };
    Ok((described.tensors().into_iter().map(entry).collect::<Result<_>>()?, texts))
}

/// The header's bytes, once their number and what they will take are plausible.
fn header(path: &Path, file: &mut File, size: u64) -> Result<Vec<u8>> {
    let cannot = |e| Error::io(path, "read", e);
    if size < LENGTH {
        return Err(Error::malformed(
            path,
            "size",
            format!("at least {LENGTH} bytes"),
            format!("{size} bytes"),
        ));
    }
    let mut length = [0; LENGTH as usize];
    file.seek(SeekFrom::Start(0)).and_then(|_| file.read_exact(&mut length)).map_err(cannot)?;
    let (length, most) = (u64::from_le_bytes(length), LONGEST_HEADER.min(size - LENGTH));
    if length > most {
        return Err(Error::malformed(path, "header length", format!("at most {most} bytes"), length));
    }
    let mut bytes = Vec::new();
    let length = length as usize;
    bytes.try_reserve_exact(length).map_err(|_| Error::OutOfMemory { bytes: length })?;
    file.take(length as u64).read_to_end(&mut bytes).map_err(cannot)?;
    let items = bytes.iter().filter(|byte| b",:[{".contains(byte)).count() as u64;
    // Its names are there twice while it is read, and where they are listed because a model has none of them.
    let most = (2 * size + ALLOWANCE - 2 * bytes.len() as u64) / BYTES_PER_ITEM;
    if items > most {
        let expected = format!("at most {most} items, in proportion to the file");
        return Err(Error::malformed(path, "header", expected, items));
    }
    Ok(bytes)
}

/// The type of weights that this is, if any come in it.
fn number(dtype: Dtype) -> Result<Number, String> {
    match dtype {
        Dtype::F32 => Ok(Number::F32),
        Dtype::F16 => Ok(Number::F16),
        Dtype::BF16 => Ok(Number::Bf16),
        Dtype::F64 => Ok(Number::F64),
        Dtype::I64 => Ok(Number::I64),
        other => Err(other.to_string()),
    }
}

/// What a header says. Unlike the format's own library, which keeps the last of two tensors of one name, this refuses them.
struct Header {
    tensors: Vec<(String, TensorInfo)>,
    texts: Metadata,
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
        let (mut tensors, mut texts) = (BTreeMap::new(), None);
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                if texts.replace(map.next_value()?).is_some() {
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
        Ok(Header { tensors: tensors.into_iter().collect(), texts: texts.unwrap_or_default() })
    }
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
    use crate::io::read;
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
        refused(&file(one, &[0; 3]), "header", "4 bytes of numbers described, 3 there");
        refused(&file(one, &[0; 5]), "header", "4 bytes of numbers described, 5 there");
        refused(&file("{\"a\":", &[]), "header", "EOF while parsing");
        refused(&file("\u{1}", &[]), "header", "expected value at line 1");
        let twice = one.replacen('{', &format!("{{{},", &one[1..one.len() - 1]), 1);
        refused(&file(&twice, &[0; 4]), "header", "two tensors of the name a");
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
            fs::write(&path, &whole[..at]).unwrap();
            assert!(matches!(read(&path), Err(Error::Malformed { .. })), "cut at {at}");
            for bit in 0..8 {
                let mut changed = whole.clone();
                changed[at] ^= 1 << bit;
                fs::write(&path, &changed).unwrap();
                let answer = read(&path);
                assert!(matches!(answer, Ok(_) | Err(Error::Malformed { .. })), "byte {at}, bit {bit}");
            }
        }
        fs::remove_file(&path).unwrap();
    }
}
