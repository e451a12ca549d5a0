//! PyTorch's own files, through the crate `pytorch-reader`: the zip archive of PyTorch 1.6 and later, and the stream of pickles
//! before it.
//!
//! A pickle is a program. That crate interprets the few calls that rebuild tensors and runs nothing; what it does not know it
//! passes over. Here a file is first held to be what `torch.save` writes of tensors and plain values ([`archive`],
//! [`pickle`]), so that one that wants anything else is refused whole, and one that would unfold to more than its size in memory
//! never reaches the reader. There is no other way to read such a file, and none to ask for one.

mod archive;
mod names;
mod pickle;
mod value;

use super::{
    number::Number,
    weights::{ALLOWANCE, Entry, shape},
};
use crate::{Error, Result};
use pickle::Limit;
use pytorch_reader::{DType, PytorchError, PytorchReader};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read},
    path::Path,
};
use value::Kind;

/// What the reader takes of its own: buffers, and the path.
const BUFFERS: u64 = 1 << 15;

/// The tensors of an open file of this size.
pub(super) fn entries(path: &Path, mut file: File, size: u64) -> Result<BTreeMap<String, Entry>> {
    let budget = 2 * size + ALLOWANCE - BUFFERS;
    let count = match archive::find_pickle(path, &mut file, size)? {
        Some(found) => {
            let left = budget.saturating_sub(found.len + found.directory);
            let mut pickle = BufReader::new(file.take(found.len));
            pickle::check(path, &mut pickle, Limit { heap: left, kind: None })?.tensors
        }
        None => stream(path, file, budget)?,
    };
    let tensors = PytorchReader::new(path).map_err(|error| refused(path, error))?.into_tensors();
    // The reader keeps any one of several tensors that come to the same name.
    if tensors.len() as u64 != count {
        let found = format!("{} names of {count}", tensors.len());
        return Err(Error::malformed(path, "pickle", "a name for every tensor", found));
    }
    tensors.into_iter().map(|(name, tensor)| entry(path, size, name, tensor)).collect()
}

/// Holds a stream of pickles to be what PyTorch wrote before 1.6: a mark, a version, the machine's sizes, the object, and the
/// keys of the storages that follow. Gives the number of tensors.
fn stream(path: &Path, file: File, budget: u64) -> Result<u64> {
    /// Far more than PyTorch writes there.
    const HEADER: u64 = 1 << 14;
    let mut file = BufReader::new(file);
    for kind in [Kind::Number, Kind::Number, Kind::Dict] {
        pickle::check(path, &mut file, Limit { heap: HEADER, kind: Some(kind) })?;
    }
    let left = budget - 2 * HEADER;
    let made = pickle::check(path, &mut file, Limit { heap: left, kind: None })?;
    // The keys are there twice, as values and as places in the file.
    let keys = Limit { heap: (left - made.heap) / 2, kind: Some(Kind::List) };
    pickle::check(path, &mut file, keys)?;
    Ok(made.tensors)
}

fn entry(path: &Path, size: u64, name: String, tensor: pytorch_reader::Tensor) -> Result<(String, Entry)> {
    let shape = shape(path, &name, tensor.shape())?;
    let number = match tensor.dtype() {
        // A view can repeat numbers of its storage without end.
        _ if tensor.byte_len() as u64 > size => {
            Err(format!("{} bytes, more than the file", tensor.byte_len()))
        }
        DType::F32 => Ok(Number::F32),
        DType::F16 => Ok(Number::F16),
        DType::BF16 => Ok(Number::Bf16),
        DType::F64 => Ok(Number::F64),
        DType::I64 => Ok(Number::I64),
        other => Err(format!("{other:?}")),
    };
    let element = tensor.dtype().size();
    let bytes = move || {
        let mut bytes = tensor.read()?;
        if cfg!(target_endian = "big") {
            bytes.chunks_exact_mut(element).for_each(<[u8]>::reverse);
        }
        Ok(bytes)
    };
    Ok((name, Entry { shape, number, bytes: Box::new(bytes) }))
}

fn refused(path: &Path, error: PytorchError) -> Error {
    match error {
        PytorchError::Io(error) if error.raw_os_error().is_some() => Error::io(path, "read", error),
        error => Error::malformed(path, "content", "tensors that PyTorch saved", error),
    }
}
