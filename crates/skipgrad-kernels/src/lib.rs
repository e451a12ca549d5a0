//! The arithmetic of skipgrad on plain slices, and the [`memory`] that its tensors live in. All
//! `unsafe` code of the library is in this crate.
//!
//! Every kernel takes the instruction set as its first argument ([`Isa::active`] outside of tests)
//! and is written once, for any implementation of [`simd::Simd`]; [`Isa::dispatch`] compiles it for
//! every set. The caller guarantees that the sizes of the slices fit: a kernel asserts what its
//! memory accesses rely on and panics otherwise. skipgrad checks the sizes of its inputs and
//! returns errors before it calls a kernel.
#![allow(unsafe_code)]

mod batch_norm;
mod blocking;
mod channels;
mod element;
mod elementwise;
mod epilogue;
mod gate;
mod global_pool;
mod isa;
pub mod memory;
mod moments;
mod optimizer;
mod parallel;
mod pool;
mod reduce;
mod rows;
pub mod simd;
mod softmax;
#[cfg(test)]
mod testing;

mod scratch;

pub mod conv;
mod dense;
mod engine;
pub mod gemm;
mod grid;
mod microkernel;
#[cfg(test)]
mod naive;
mod narrow;
mod pack;
mod panel;
mod prefetch;
mod product;
mod split;

pub use batch_norm::*;
pub use channels::*;
pub use conv::{
    Algorithm, Conv2dGeometry, Packing, bf16, col2im, conv2d, conv2d_input_gradient, conv2d_weight_gradient,
    conv2d_with, im2col,
};
pub use dense::*;
pub use element::{Bf16, Element};
pub use elementwise::*;
pub use engine::Engine;
pub use epilogue::Epilogue;
pub use gate::*;
pub use gemm::{Gemm, gemm};
pub use global_pool::*;
pub use isa::{Isa, Task};
pub use moments::*;
pub use optimizer::*;
pub use pool::*;
pub use reduce::*;
pub use softmax::*;
