//! Operations on [`Var`](crate::autograd::Var): one file each, forward beside backward.
//!
//! Every file says what its backward keeps: that is what training remembers. Methods that can refuse their arguments return a
//! [`Result`] and check everything before anything is computed.

mod add;
mod batch_norm;
mod concat;
mod conv2d;
mod cross_entropy;
mod dense_block;
mod drop_path;
mod dropout;
mod folded_conv2d;
mod linear;
mod matmul;
mod mean;
mod mse;
mod mul;
mod pool;
mod relu;
mod reshape;
mod scale;
mod sigmoid;
mod slice_channels;
mod softmax;
mod sum;

#[cfg(feature = "onnx")]
pub(crate) use batch_norm::Normalized;
pub use batch_norm::{BatchNorm, Moments};
pub use conv2d::{Algorithm, Conv2dOptions, Padding};
pub use cross_entropy::Targets;
pub use dense_block::{
    DenseBlockLayer, DenseBlockLayerMoments, DenseBlockMoments, DenseBlockNorm, FoldedDenseBlock,
};
pub use folded_conv2d::{FoldedConv2d, Normalization};
pub use pool::Pool2dOptions;
#[cfg(feature = "onnx")]
pub(crate) use pool::Windows;

use crate::{Error, Result, Shape};

/// Refuses an argument that must have a given shape and has another.
fn expect_shape(op: &'static str, argument: &'static str, expected: &Shape, found: &Shape) -> Result<()> {
    if expected == found { Ok(()) } else { Err(Error::shape(op, argument, expected, found)) }
}

/// Refuses an argument that must be a vector of one number for each of `channels` and is not.
fn expect_vector(op: &'static str, argument: &'static str, channels: usize, found: &Shape) -> Result<()> {
    if found == [channels] { Ok(()) } else { Err(Error::shape(op, argument, [channels], found)) }
}

/// The sizes of an input `[N, H, W, C]`; refuses other shapes, and images without pixels.
fn expect_images(op: &'static str, input: &Shape) -> Result<[usize; 4]> {
    let sizes = input.nhwc(op, "input")?;
    if sizes[1] == 0 || sizes[2] == 0 {
        return Err(Error::argument(op, "input", "images of at least one pixel", input));
    }
    Ok(sizes)
}

/// Refuses a term under the root of a normalization that is negative.
fn expect_eps(op: &'static str, eps: f32) -> Result<()> {
    if eps >= 0.0 { Ok(()) } else { Err(Error::argument(op, "eps", "a number of at least 0", eps)) }
}

/// Refuses a probability of dropping that is not in [0, 1).
pub(crate) fn expect_drop_probability(op: &'static str, p: f32) -> Result<()> {
    if (0.0..1.0).contains(&p) { Ok(()) } else { Err(Error::argument(op, "p", "a probability in [0, 1)", p)) }
}
