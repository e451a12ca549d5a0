#![doc = include_str!("../README.md")]
// A library must not print or unwrap; examples, tests and benches may.
#![warn(clippy::print_stdout, clippy::print_stderr, clippy::unwrap_used)]

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
pub use tensor::{Axis, Shape, ShapePattern, Tensor, memory};
