//! PyTorch's own files, read by the crate `pytorch-reader`: the zip archive of PyTorch 1.6 and
//! later, and the stream of pickles before it.
//!
//! A pickle is a program. That crate interprets the few calls that rebuild tensors, runs no code,
//! and ignores what it does not know. Here a file is first checked to be what `torch.save` writes
//! of tensors and plain values ([`archive`], [`pickle`]). A file that refers to anything else is an
//! error as a whole, and one that would take more memory than the limit never reaches the reader.
//! There is no unchecked way to read a file.

mod archive;
mod names;
mod opcode;
mod pickle;
mod value;

use super::{
    dtype::DType,
    entry::{Entry, MEMORY_ALLOWANCE, checked_shape},
};
use crate::{Error, Result};
use pickle::Limit;
use pytorch_reader::{DType as PyTorchDType, PytorchError, PytorchReader};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read},
    path::Path,
};
use value::Kind;

/// Bytes that the reader takes for its buffers and the path.
const BUFFERS: u64 = 1 << 15;

/// Returns the tensors of an open file of `size` bytes.
pub(super) fn entries(path: &Path, mut file: File, size: u64) -> Result<BTreeMap<String, Entry>> {
    let budget = 2 * size + MEMORY_ALLOWANCE - BUFFERS;
    let count = match archive::find_pickle(path, &mut file, size)? {
        Some(found) => {
            let memory = budget.saturating_sub(found.len + found.directory_memory);
            let mut pickle = BufReader::new(file.take(found.len));
            pickle::check(path, &mut pickle, Limit { memory, kind: None })?.tensors
        }
        None => check_stream(path, file, budget)?,
    };
    let tensors = PytorchReader::new(path).map_err(|error| reader_error(path, error))?.into_tensors();
    // Of several tensors with the same name, the reader keeps any one.
    if tensors.len() as u64 != count {
        let found = format!("{} names of {count}", tensors.len());
        return Err(Error::malformed(path, "pickle", "a name for every tensor", found));
    }
    tensors.into_iter().map(|(name, tensor)| entry(path, size, name, tensor)).collect()
}

/// Checks a file of PyTorch before 1.6, which is a stream of pickles: a magic number, a version,
/// the sizes of the machine's types, the object, and the keys of the storages that follow. Returns
/// the number of tensors.
fn check_stream(path: &Path, file: File, budget: u64) -> Result<u64> {
    /// Far more than PyTorch writes before the object.
    const HEADER: u64 = 1 << 14;
    let mut file = BufReader::new(file);
    for kind in [Kind::Number, Kind::Number, Kind::Dict] {
        pickle::check(path, &mut file, Limit { memory: HEADER, kind: Some(kind) })?;
    }
    let budget = budget - 2 * HEADER;
    let object = pickle::check(path, &mut file, Limit { memory: budget, kind: None })?;
    // The reader has the keys twice: as values, and with the offsets of the storages.
    let keys = Limit { memory: (budget - object.memory) / 2, kind: Some(Kind::List) };
    pickle::check(path, &mut file, keys)?;
    Ok(object.tensors)
}

fn entry(path: &Path, size: u64, name: String, tensor: pytorch_reader::Tensor) -> Result<(String, Entry)> {
    let shape = checked_shape(path, &name, tensor.shape())?;
    let dtype = match tensor.dtype() {
        // A view with strides of zero repeats elements of its storage any number of times.
        _ if tensor.byte_len() as u64 > size => {
            Err(format!("{} bytes, more than the file", tensor.byte_len()))
        }
        PyTorchDType::F32 => Ok(DType::F32),
        PyTorchDType::F16 => Ok(DType::F16),
        PyTorchDType::BF16 => Ok(DType::Bf16),
        PyTorchDType::F64 => Ok(DType::F64),
        PyTorchDType::I64 => Ok(DType::I64),
        other => Err(format!("{other:?}")),
    };
    let element = tensor.dtype().size();
    let read = move || {
        let mut bytes = tensor.read()?;
        if cfg!(target_endian = "big") {
            bytes.chunks_exact_mut(element).for_each(<[u8]>::reverse);
        }
        Ok(bytes)
    };
    Ok((name, Entry { shape, dtype, read: Box::new(read) }))
}

fn reader_error(path: &Path, error: PytorchError) -> Error {
    match error {
        PytorchError::Io(error) if error.raw_os_error().is_some() => Error::io(path, "read", error),
        error => Error::malformed(path, "content", "tensors that PyTorch saved", error),
    }
}
