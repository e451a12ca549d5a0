//! Weights files: safetensors, written atomically, and PyTorch's own files, read only.
//!
//! [`save`] and [`load`] are for the state of a model; [`read`] and [`write()`] are for any named
//! tensors. Files have torchvision's names and layouts, so that PyTorch reads what is written here,
//! and the other way round. [`load`] also understands the names of the libraries of [`KeyStyle`],
//! and [`SaveOptions`] writes them.
//!
//! Files are untrusted input: reading one never runs code and never panics, and one that is
//! rejected takes at most twice its size and 1 MiB of memory.
//!
//! ```
//! use skipgrad::{Tensor, autograd::Param, io};
//! let folder = std::env::temp_dir().join(format!("skipgrad-io-{}", std::process::id()));
//! std::fs::create_dir_all(&folder).unwrap();
//! let path = folder.join("model.safetensors");
//! let model = vec![Param::linear(Tensor::from_fn([2, 3], |i| i as f32)?)];
//! io::save(&model, &path)?;
//! // A linear layer's weight is [in, out] in memory and [out, in] in files.
//! assert_eq!(io::read(&path)?["0"].data(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
//! let mut other = vec![Param::linear(Tensor::zeros([2, 3])?)];
//! io::load(&mut other, &path)?;
//! assert_eq!(other[0].value(), model[0].value());
//! # std::fs::remove_dir_all(&folder).unwrap();
//! # Ok::<(), skipgrad::Error>(())
//! ```

mod atomic;
mod classifier;
mod dtype;
mod entry;
mod half;
mod key_map;
mod kind;
mod load;
mod load_plan;
#[cfg(feature = "pth")]
mod pth;
mod regular_file;
mod safetensors;
mod save;
mod shards;
mod source;
mod weights_file;

pub use atomic::write_atomically;
pub use entry::Metadata;
pub use key_map::KeyStyle;
pub use kind::FileKind;
pub use load::{LoadOptions, LoadReport};
pub use safetensors::write;
pub use save::{SaveOptions, save};
pub use weights_file::WeightsFile;

pub(crate) use kind::head;
pub(crate) use regular_file::open_regular_file;

use crate::{
    Result,
    autograd::{NamedTensors, State},
};
use std::path::Path;

/// Reads all tensors of a weights file, in any format that [`WeightsFile`] opens. Elements of type
/// F16, BF16, F64 and I64 are converted to `f32`.
///
/// # Errors
/// As [`WeightsFile::open`] and [`WeightsFile::read_all`].
pub fn read(path: impl AsRef<Path>) -> Result<NamedTensors> {
    WeightsFile::open(path)?.read_all()
}

/// Loads all state of a model from a weights file, strictly; [`LoadOptions`] has the details and
/// more choices.
///
/// # Errors
/// As [`LoadOptions::load`]; among them [`Error::State`](crate::Error::State), which lists
/// every tensor that does not fit. After an error the model is unchanged.
pub fn load(model: &mut (impl State + ?Sized), path: impl AsRef<Path>) -> Result<LoadReport> {
    LoadOptions::new().load(model, path)
}
