//! Names and tensors in files: safetensors, read with suspicion and written atomically.
//!
//! [`save`] and [`load`] are for weights; [`read`], [`open`] and [`write()`] for any named tensors. Weights files have
//! torchvision's names and layouts, so PyTorch reads what is written here and the other way round.
//!
//! ```
//! use skipgrad::{Tensor, autograd::Param, io};
//! let folder = std::env::temp_dir().join(format!("skipgrad-io-{}", std::process::id()));
//! std::fs::create_dir_all(&folder).unwrap();
//! let path = folder.join("model.safetensors");
//! let model = vec![Param::linear(Tensor::from_fn([2, 3], |i| i as f32)?)];
//! io::save(&model, &path)?;
//! assert_eq!(io::read(&path)?["0"].data(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);     // [out, in] in files
//! let mut other = vec![Param::linear(Tensor::zeros([2, 3])?)];
//! io::load(&mut other, &path)?;
//! assert_eq!(other[0].value(), model[0].value());
//! # std::fs::remove_dir_all(&folder).unwrap();
//! # Ok::<(), skipgrad::Error>(())
//! ```

mod atomic;
mod half;
mod key_map;
mod load;
mod number;
#[cfg(feature = "pth")]
mod pth;
mod regular_file;
mod safetensors;
mod weights;

pub use atomic::write_atomically;
pub use load::{LoadOptions, Loaded};
pub use safetensors::{open, write};
pub use weights::{Metadata, WeightsFile};

pub(crate) use regular_file::open_regular_file;

use crate::{
    Result,
    autograd::{NamedTensors, State},
};
use std::path::Path;

/// Writes all state of a model to a safetensors file, atomically: at every moment the path holds the old file or the new.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) if the folder does not exist, cannot be written or is full.
pub fn save(model: &(impl State + ?Sized), path: impl AsRef<Path>) -> Result<()> {
    // PyTorch's own loaders ask for this entry.
    let metadata = Metadata::from([("format".to_string(), "pt".to_string())]);
    write(path, &model.export(), &metadata)
}

/// Reads all tensors of a weights file, of any format that [`WeightsFile`] opens. Numbers of type F16, BF16, F64 and I64 become
/// `f32`.
///
/// # Errors
/// As [`WeightsFile::open`] and [`WeightsFile::read_all`].
pub fn read(path: impl AsRef<Path>) -> Result<NamedTensors> {
    WeightsFile::open(path)?.read_all()
}

/// Takes all state of a model from a weights file, strictly, whoever wrote it: [`LoadOptions`] says how, and has more to choose.
///
/// # Errors
/// As [`LoadOptions::load`]: among others [`Error::State`](crate::Error::State), which lists everything that does not fit. The
/// model is unchanged then.
pub fn load(model: &mut (impl State + ?Sized), path: impl AsRef<Path>) -> Result<Loaded> {
    LoadOptions::new().load(model, path)
}
