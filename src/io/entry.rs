//! The description of a tensor that is still in its file.

use super::dtype::DType;
use crate::{Error, Result, Shape};
use std::{collections::BTreeMap, io, path::Path};

/// Key-value strings that a file stores beside its tensors.
pub type Metadata = BTreeMap<String, String>;

/// Name, shape and type are read when a file is opened; the data is read on demand.
pub(super) struct Entry {
    pub(super) shape: Shape,
    /// The element type, or the name of one that weights files are not read from.
    pub(super) dtype: Result<DType, String>,
    /// Reads the data: row-major, little-endian, as many elements as the shape has.
    pub(super) read: Box<dyn Fn() -> io::Result<Vec<u8>> + Send + Sync>,
}

/// Bytes that opening a file may allocate beyond twice the size of the file.
pub(super) const MEMORY_ALLOWANCE: u64 = 1 << 20;

/// Checks the shape of the tensor `name` of a file.
///
/// # Errors
/// [`Error::Malformed`] if it has too many axes or overflows the address space.
pub(super) fn checked_shape(path: &Path, name: &str, sizes: &[usize]) -> Result<Shape> {
    Shape::new(sizes).map_err(|error| match error {
        Error::Argument { expected, found, .. } => {
            Error::malformed(path, format_args!("tensor {name}"), expected, found)
        }
        other => other,
    })
}
