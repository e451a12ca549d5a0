//! Slices and sizes in, slices out: the arithmetic of the crate, and the only room with `unsafe` (besides the buffer that
//! tensors live in).
//!
//! Every kernel takes the instruction set as its first argument ([`Isa::active`] outside of tests) and is written once,
//! over the [`simd::Simd`] trait; [`Isa::dispatch`] compiles it for every set. Sizes are the caller's promise: a kernel
//! asserts what its memory accesses rest on and panics if the promise is broken, which no input of the public API can do.
#![allow(unsafe_code)]

mod isa;
pub mod simd;

mod scratch;

pub mod conv;
pub mod gemm;
mod microkernel;
#[cfg(test)]
mod naive;
mod pack;
mod product;

pub use conv::{Conv2d, col2im, conv2d, conv2d_bias, conv2d_input_gradient, conv2d_weight_gradient, im2col};
pub use gemm::{Gemm, gemm};
pub use isa::{Isa, Task};
