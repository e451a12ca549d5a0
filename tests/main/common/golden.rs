//! The files that PyTorch wrote: `tests/golden/README.md` says what they hold.

use skipgrad::{autograd::NamedTensors, io};
use std::path::{Path, PathBuf};

/// Returns the path of a file in `tests/golden`.
pub(crate) fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
}

/// Reads all tensors of a safetensors file in `tests/golden`.
pub(crate) fn tensors(file: &str) -> NamedTensors {
    io::read(path(file)).unwrap()
}

/// Reads the tensors of a file whose names start with `prefix`, under the rest of their names.
pub(crate) fn tensors_below(file: &str, prefix: &str) -> NamedTensors {
    below(&tensors(file), prefix)
}

/// Returns the tensors whose names start with `prefix`, under the rest of their names.
pub(crate) fn below(tensors: &NamedTensors, prefix: &str) -> NamedTensors {
    let rest =
        tensors.iter().filter_map(|(name, t)| Some((name.strip_prefix(prefix)?.to_string(), t.clone())));
    rest.collect()
}
