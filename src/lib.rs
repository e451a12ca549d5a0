#![doc = include_str!("../README.md")]
// What a library must not do; examples, tests and benches may.
#![warn(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

// So that derived code finds the crate by its name here, too.
extern crate self as skipgrad;

pub mod prelude;
mod error;
mod rng;

pub mod kernels;
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
pub use rng::Rng;
pub use tensor::{Shape, Tensor, memory};
