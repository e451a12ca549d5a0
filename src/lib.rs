//! Residual and densely connected networks (ResNet, DenseNet) on CPUs.

mod error;
mod rng;

pub mod autograd;
pub mod blocks;
pub mod data;
pub mod io;
pub mod kernels;
pub mod models;
pub mod nn;
pub mod ops;
pub mod optim;
pub mod prelude;
pub mod tensor;
pub mod train;

pub use error::{At, Error, Result};
pub use rng::Rng;
pub use tensor::{Shape, Tensor, memory};
