//! Residual and densely connected networks (ResNet, DenseNet) on CPUs.

mod error;
mod rng;

pub mod kernels;

pub use error::{At, Error, Result};
pub use rng::Rng;
