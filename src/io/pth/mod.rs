//! PyTorch's own files: the zip archive of PyTorch 1.6 and later, and the stream of pickles before
//! it.
//!
//! A pickle is a program. [`pickle`] runs it without calling anything: what rebuilds a tensor
//! becomes a description of the tensor, plain values and objects without tensors are passed over,
//! and a file that would do harm in Python is an error as a whole. Memory is counted before it is
//! allocated ([`value`]), so that a file takes no more than twice its size and 1 MiB.

mod archive;
mod calls;
mod elements;
mod input;
mod names;
mod opcode;
mod pickle;
mod stream;
mod tensors;
mod value;

use super::{
    entry::{Entry, MEMORY_ALLOWANCE, checked_shape},
    kind::FileKind,
};
use crate::{Error, Result};
use elements::Location;
use flate2::CrcReader;
use pickle::Pickle;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::Path,
    sync::{Arc, Mutex},
};
use value::View;

/// Bytes of memory for buffers, and for unpacking.
const BUFFERS: u64 = 1 << 17;

/// The longest text that says the order of bytes.
const MAX_BYTE_ORDER: u64 = 64;

/// Returns the tensors of an open file of `size` bytes.
pub(super) fn entries(
    path: &Path,
    mut file: File,
    size: u64,
    kind: FileKind,
) -> Result<BTreeMap<String, Entry>> {
    let budget = 2 * size + MEMORY_ALLOWANCE - BUFFERS;
    let mut head = [0; 4];
    let is_archive = size >= 4 && {
        io::Seek::rewind(&mut file)
            .and_then(|()| file.read_exact(&mut head))
            .map_err(|e| Error::io(path, "read", e))?;
        &head == b"PK\x03\x04"
    };
    let (mut pickle, storages) = match is_archive {
        true => read_archive(path, &mut file, size, budget)?,
        false if kind == FileKind::PyTorch => stream::read(path, &mut file, size, budget)?,
        false => return Err(kind.error(path, "an archive or a stream that torch.save wrote")),
    };
    let named = tensors::named(&mut pickle).map_err(|fault| fault.into_error(path))?;
    drop(pickle);
    let file = Arc::new(Mutex::new(file));
    let entry = |(name, view): (String, View)| {
        let location = storages.get(&view.key).copied();
        Ok((name.clone(), entry(path, size, &name, view, location, file.clone())?))
    };
    named.into_iter().map(entry).collect()
}

/// Reads the pickle of an archive, and where the storages are.
fn read_archive(
    path: &Path,
    file: &mut File,
    size: u64,
    budget: u64,
) -> Result<(Pickle, BTreeMap<Box<str>, Location>)> {
    let contents = archive::read(path, file, size)?;
    if let Some(entry) = contents.byte_order {
        let order = entry
            .read(file, 0, entry.len.min(MAX_BYTE_ORDER))
            .map_err(|e| unpacking(path, "byteorder", e))?;
        if order.trim_ascii() != b"little" {
            let found = String::from_utf8_lossy(&order);
            return Err(Error::malformed(path, "byteorder", "little", found.trim()));
        }
    }
    let entry = contents.pickle;
    let unpacked = entry.open(file).map_err(|error| unpacking(path, "pickle", error))?;
    let mut reader = CrcReader::new(unpacked.take(entry.len));
    let pickle = pickle::read(path, &mut reader, budget.saturating_sub(contents.memory))?;
    io::copy(&mut reader, &mut io::sink())
        .and_then(|_| entry.check(reader.crc().sum()))
        .map_err(|error| unpacking(path, "pickle", error))?;
    let storages = contents.storages.into_iter().map(|(key, entry)| (key, Location::Archived(entry)));
    Ok((pickle, storages.collect()))
}

/// Returns the error of reading a file in an archive: the system's, or about what is in it.
fn unpacking(path: &Path, at: &str, error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(_) => Error::io(path, "read", error),
        None => Error::malformed(path, at, "all of its data", error),
    }
}

/// Describes a tensor of the file.
fn entry(
    path: &Path,
    size: u64,
    name: &str,
    view: View,
    location: Option<Location>,
    file: Arc<Mutex<File>>,
) -> Result<Entry> {
    let malformed = |expected: String, found: String| {
        Error::malformed(path, format_args!("tensor {name}"), expected, found)
    };
    let sizes: Vec<usize> =
        view.shape.iter().map(|size| usize::try_from(*size).unwrap_or(usize::MAX)).collect();
    let shape = checked_shape(path, name, &sizes)?;
    let Some(location) = location else {
        return Err(malformed(
            "its storage in the file".to_string(),
            format!("none of the key {}", view.key),
        ));
    };
    let (begin, len) = view.window();
    if begin + len > location.len() {
        return Err(malformed(
            format!("a storage of {} bytes", begin + len),
            format!("{} bytes", location.len()),
        ));
    }
    let bytes = (shape.num_elements() as u64).saturating_mul(view.element.size as u64);
    let dtype = match view.element.dtype {
        // A view with strides of zero repeats elements of its storage any number of times.
        _ if bytes > size => Err(format!("{bytes} bytes, more than the file")),
        dtype => dtype.map_err(str::to_string),
    };
    Ok(Entry { shape, dtype, read: Box::new(move || view.read(&file, location)) })
}
