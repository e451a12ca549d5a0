// The README links to files of the repository. Of two definitions of a link Markdown takes the
// first, so that here the links lead to pages of this documentation and of docs.rs, and the picture
// is part of the page.
#![cfg_attr(
    doc,
    doc = concat!("[picture]: data:image/svg+xml;base64,", include_str!("../docs/training.svg.base64"))
)]
#![cfg_attr(doc, doc = include_str!("guide/links.md"))]
// An example of the README needs this feature.
#![cfg_attr(any(not(doctest), feature = "image"), doc = include_str!("../README.md"))]
#![forbid(unsafe_code)]
// A library must not print or unwrap; examples, tests and benches may.
#![warn(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

// So that derived code finds the crate by its name here, too.
extern crate self as skipgrad;

pub mod prelude;
mod error;
mod install;
mod precision;
mod rng;

pub mod cpu;
pub mod tensor;
pub mod autograd;
pub mod ops;
pub mod nn;
pub mod graph;
pub mod blocks;
pub mod models;
pub mod optim;
pub mod data;
pub mod io;
pub mod inference;
#[cfg(feature = "onnx")]
pub mod onnx;
pub mod train;
pub mod predict;
#[cfg(any(feature = "report", feature = "tensorboard"))]
pub mod report;
#[cfg(doc)]
pub mod guide;

pub use error::{At, Error, Result};
pub use install::install;
pub use precision::Precision;
pub use rng::Rng;
use skipgrad_kernels as kernels;
pub use tensor::{Axis, Shape, ShapePattern, Tensor};

/// The process-wide pool of the memory of tensors: its statistics, its limit, and how to trim it.
pub mod memory {
    pub use skipgrad_kernels::memory::{Stats, reset_peak, set_limit, stats, trim};
}

/// The kernels, for the benches in `benches/kernels`. This module is not part of the public API:
/// any release may change it.
#[doc(hidden)]
pub mod __private {
    pub use skipgrad_kernels as kernels;
}
