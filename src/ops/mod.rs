//! Operations on [`Var`]: one file each, with forward and backward side by side.
//!
//! Every file says what its backward keeps, since that determines the memory of training. Methods
//! whose arguments may not fit return a [`Result`], and check all arguments before they compute
//! anything.

mod add;
mod batch_norm;
mod bce_with_logits;
mod concat;
mod conv2d;
mod cross_entropy;
mod dense_block;
mod distillation;
mod drop_path;
mod dropout;
mod focal_loss;
mod linear;
mod matmul;
mod mean;
mod mse;
mod mul;
mod pool;
mod relu;
mod reshape;
mod scale;
mod scale_channels;
mod sigmoid;
mod slice_channels;
mod softmax;
mod sum;

pub(crate) use batch_norm::Affine;
pub use batch_norm::{BatchNorm, Moments, Statistics};
pub use bce_with_logits::BceOptions;
pub use conv2d::{Algorithm, Conv2dOptions, Padding, Pair};
pub use cross_entropy::Targets;
pub use dense_block::{DenseBlockLayer, DenseBlockLayerMoments, DenseBlockMoments, DenseBlockNorm};
pub use focal_loss::FocalOptions;
pub use pool::Pool2dOptions;

use crate::{
    Error, Result, Shape, Tensor,
    autograd::{Fault, Input, Op, Var},
};

/// Applies an operation of one input that fits every input.
fn apply_to_any<'t>(op: impl Op, x: &Var<'t>) -> Var<'t> {
    let name = op.name();
    match op.apply(&[x]) {
        Ok(y) => y,
        Err(error) => unreachable!("{name} fits every input: {error}"),
    }
}

/// Returns the shape of both inputs of an element-wise operation, the second of which is called
/// `argument`.
fn same_shape(op: &'static str, argument: &'static str, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
    let shape = *inputs[0].shape();
    match expect_shape(op, argument, &shape, inputs[1].shape()) {
        Ok(()) => Ok(shape),
        Err(error) => Err(Fault::new(error, shape)),
    }
}

/// Checks that an argument has the expected shape.
fn expect_shape(op: &'static str, argument: &'static str, expected: &Shape, found: &Shape) -> Result<()> {
    if expected == found { Ok(()) } else { Err(Error::shape(op, argument, expected, found)) }
}

/// Checks that logits are `[N, K]` with at least one row and one class.
fn expect_logits(op: &'static str, logits: &Shape) -> Result<()> {
    match logits[..] {
        [rows, classes] if rows > 0 && classes > 0 => Ok(()),
        [_, _] => Err(Error::argument(op, "logits", "at least one row and one class", logits)),
        _ => Err(Error::shape(op, "logits", ["N", "K"], logits)),
    }
}

/// Checks that logits are `[N, K]`, and that there is a target in [0, 1] for each of them.
fn expect_element_targets(op: &'static str, logits: &Shape, targets: &Tensor) -> Result<()> {
    expect_logits(op, logits)?;
    expect_shape(op, "targets", logits, targets.shape())?;
    match targets.data().iter().find(|target| !(0.0..=1.0).contains(*target)) {
        Some(target) => Err(Error::argument(op, "targets", "numbers in [0, 1]", target)),
        None => Ok(()),
    }
}

/// Returns the mean over all elements of a loss, and its gradient. `f` has the number of the
/// element, its logit and its target, and returns the loss of the element and its derivative.
fn per_element(
    logits: &Tensor,
    targets: &Tensor,
    f: impl Fn(usize, f64, f64) -> (f64, f64),
) -> (Tensor, Tensor) {
    let count = logits.shape().num_elements() as f64;
    let mut sum = 0.0;
    let gradient = Tensor::build(*logits.shape(), |gradient| {
        let pairs = logits.data().iter().zip(targets.data());
        for (i, ((&x, &t), gradient)) in pairs.zip(gradient).enumerate() {
            let (loss, derivative) = f(i, x.into(), t.into());
            sum += loss;
            *gradient = (derivative / count) as f32;
        }
    });
    (Tensor::scalar((sum / count) as f32), gradient)
}

/// Checks that an argument is a vector with one element per channel.
fn expect_vector(op: &'static str, argument: &'static str, channels: usize, found: &Shape) -> Result<()> {
    if found == [channels] { Ok(()) } else { Err(Error::shape(op, argument, [channels], found)) }
}

/// Checks that an input is `[N, H, W, C]` with at least one pixel, and returns its sizes.
fn expect_images(op: &'static str, input: &Shape) -> Result<[usize; 4]> {
    let sizes = input.nhwc(op, "input")?;
    if sizes[1] == 0 || sizes[2] == 0 {
        return Err(Error::argument(op, "input", "images of at least one pixel", input));
    }
    Ok(sizes)
}

/// Checks that the constant added to the variance of a normalization is not negative.
fn expect_eps(op: &'static str, eps: f32) -> Result<()> {
    if eps >= 0.0 { Ok(()) } else { Err(Error::argument(op, "eps", "a number of at least 0", eps)) }
}

/// Checks that a probability of dropping is in [0, 1).
pub(crate) fn expect_drop_probability(op: &'static str, p: f32) -> Result<()> {
    if (0.0..1.0).contains(&p) { Ok(()) } else { Err(Error::argument(op, "p", "a probability in [0, 1)", p)) }
}
