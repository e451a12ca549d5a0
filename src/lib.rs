#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
// What a library must not do; examples, tests and benches may.
#![warn(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

// So that derived code finds the crate by its name here, too.
extern crate self as skipgrad;

pub mod prelude;
mod error;
mod install;
mod rng;

pub mod cpu;
pub mod tensor;
pub mod autograd;
pub mod ops;
pub mod nn;
pub mod blocks;
pub mod models;
pub mod optim;
pub mod data;
pub mod io;
#[cfg(feature = "onnx")]
pub mod onnx;
pub mod train;
pub mod predict;

pub use error::{At, Error, Result};
pub use install::install;
pub use rng::Rng;
use skipgrad_kernels as kernels;
pub use tensor::{Shape, Tensor};

/// The process-wide pool that tensors take their memory from.
pub mod memory {
    pub use skipgrad_kernels::memory::{Stats, reset_peak, set_limit, stats, trim};
}

/// The kernels, for the benches in `benches/kernels`. This module is not part of the public API:
/// any release may change it.
#[doc(hidden)]
pub mod __private {
    pub use skipgrad_kernels as kernels;
}
