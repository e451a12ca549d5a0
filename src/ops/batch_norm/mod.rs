//! Batch normalization (Ioffe and Szegedy 2015, algorithm 1), fused with the residual connection
//! and the ReLU that follow it in a residual network:
//!
//! ```text
//! x̂ = (x - mean) / sqrt(var + eps)      y = relu(gamma x̂ + beta + residual)
//! ```
//!
//! The statistics, mean and var of each channel over all other axes, are those of the batch (var is
//! the sum of squares divided by the number m of values) or fixed. Let g be dy where the ReLU
//! passed a positive value and 0 elsewhere. The gradients in closed form (section 3 of the paper,
//! simplified) are
//!
//! ```text
//! dbeta = Σ g      dgamma = Σ g x̂      dresidual = g
//! dx = gamma / sqrt(var + eps) (g - dbeta / m - x̂ dgamma / m)      with statistics of the batch
//! dx = gamma / sqrt(var + eps) g                                   with fixed statistics
//! ```
//!
//! Backward keeps x and vectors of one element per channel. It does not keep y: y, and the mask of
//! the ReLU, are recomputed from x and the residual, also for a following operation that needs y in
//! its own backward. That trades one pass over memory for one activation fewer in memory. There are
//! two exceptions, see [`Forward::is_cheap`] and [`MIN_RECOMPUTED_CHANNELS`].

mod affine;
mod backward;

use super::{expect_eps, expect_shape, expect_vector};
use crate::{
    Error, Result, Shape, Tensor,
    autograd::{Cost, GradientMemory, Saved, Var},
    kernels::{self, Isa},
};
pub(super) use affine::{Affine, vector};
use backward::Backward;
use std::iter;

/// The fewest channels of an activation that is recomputed in backward instead of saved.
///
/// Next to a convolution with few channels, a pass over memory takes long, and the networks that
/// have such layers are small. A CIFAR ResNet-20 keeps its activations of 16 channels: that takes
/// 187 MiB instead of 134 MiB for 128 images, and makes a step 3 to 9 % faster. Keeping those of 32
/// channels, too, did not help.
const MIN_RECOMPUTED_CHANNELS: usize = 32;

/// The mean and variance that [`Var::batch_norm`] normalizes with.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub enum Statistics<'v> {
    /// The statistics of the input, which the operation computes. The gradient flows through them.
    #[default]
    Batch,
    /// The statistics of the input, computed before by [`Var::conv2d_moments`]. The gradient flows
    /// through them, so they must be those of the input.
    Precomputed(&'v Moments),
    /// Constants, as in evaluation and in layers whose statistics are frozen.
    Fixed {
        /// The mean of each channel, `[C]`.
        mean: &'v Tensor,
        /// The variance of each channel, `[C]`.
        var: &'v Tensor,
    },
}

/// Mean and variance are fixed if there are any; otherwise they are those of the batch.
impl<'v> From<Option<(&'v Tensor, &'v Tensor)>> for Statistics<'v> {
    fn from(fixed: Option<(&'v Tensor, &'v Tensor)>) -> Statistics<'v> {
        fixed.map_or(Statistics::Batch, |(mean, var)| Statistics::Fixed { mean, var })
    }
}

/// The arguments of [`Var::batch_norm`] besides the input, which has C channels.
///
/// ```
/// use skipgrad::{Tensor, autograd::Tape, ops::BatchNorm};
/// let tape = Tape::eval();
/// let (gamma, beta) = (tape.input(Tensor::full([1], 1.0)?), tape.input(Tensor::zeros([1])?));
/// let x = tape.input(Tensor::new([2, 1], [-3.0, 3.0])?);
/// let (y, _) = x.batch_norm(&BatchNorm::new(&gamma, &beta).eps(0.0).relu(true))?;
/// assert_eq!(y.value().data(), [0.0, 1.0]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct BatchNorm<'v, 't> {
    /// The scale of each channel, `[C]`.
    pub gamma: &'v Var<'t>,
    /// The shift of each channel, `[C]`.
    pub beta: &'v Var<'t>,
    /// The constant that is added to the variance, at least 0.
    pub eps: f32,
    /// The mean and variance to normalize with.
    pub statistics: Statistics<'v>,
    /// The shortcut of a residual block, which is added to the normalized value; it has the shape
    /// of the input.
    pub residual: Option<&'v Var<'t>>,
    /// Whether a ReLU is applied last.
    pub relu: bool,
}

impl<'v, 't> BatchNorm<'v, 't> {
    /// Normalizes with the statistics of the batch and eps 1e-5, without a residual and without a
    /// ReLU.
    pub fn new(gamma: &'v Var<'t>, beta: &'v Var<'t>) -> BatchNorm<'v, 't> {
        BatchNorm { gamma, beta, eps: 1e-5, statistics: Statistics::Batch, residual: None, relu: false }
    }

    /// Sets the constant that is added to the variance, at least 0.
    pub fn eps(self, eps: f32) -> Self {
        BatchNorm { eps, ..self }
    }

    /// Sets the mean and variance to normalize with.
    pub fn statistics(self, statistics: impl Into<Statistics<'v>>) -> Self {
        BatchNorm { statistics: statistics.into(), ..self }
    }

    /// Adds the shortcut of a residual block, if there is one, to the normalized value.
    pub fn residual(self, residual: impl Into<Option<&'v Var<'t>>>) -> Self {
        BatchNorm { residual: residual.into(), ..self }
    }

    /// Sets whether a ReLU is applied last.
    pub fn relu(self, relu: bool) -> Self {
        BatchNorm { relu, ..self }
    }

    /// Returns the mean and variance, if they are constants.
    fn fixed(&self) -> Option<[&'v Tensor; 2]> {
        match self.statistics {
            Statistics::Fixed { mean, var } => Some([mean, var]),
            Statistics::Batch | Statistics::Precomputed(_) => None,
        }
    }

    /// Returns the statistics for `x`, after its shape was checked.
    fn moments(&self, x: &Var<'t>) -> Moments {
        let (channels, count) = (*self.gamma.shape(), x.shape().num_rows());
        match self.statistics {
            Statistics::Fixed { mean, var } => Moments { mean: mean.clone(), var: var.clone(), count },
            Statistics::Precomputed(moments) => moments.clone(),
            Statistics::Batch if x.tape().is_meta() => Moments::zeros(channels, count),
            Statistics::Batch => {
                let moments = kernels::moments(Isa::active(), x.value().data(), channels.num_channels());
                Moments::new(channels, moments, count)
            }
        }
    }

    /// Checks that everything fits an input of shape `x`.
    fn check(&self, x: &Shape) -> Result<()> {
        let Some(&channels) = x.last() else {
            return Err(Error::shape("batch_norm", "input", ["N", "...", "C"], x));
        };
        expect_vector("batch_norm", "gamma", channels, self.gamma.shape())?;
        expect_vector("batch_norm", "beta", channels, self.beta.shape())?;
        if let Some(residual) = self.residual {
            expect_shape("batch_norm", "residual", x, residual.shape())?;
        }
        expect_eps("batch_norm", self.eps)?;
        let (Statistics::Precomputed(Moments { mean, var, .. }) | Statistics::Fixed { mean, var }) =
            self.statistics
        else {
            return expect_variance(x);
        };
        expect_vector("batch_norm", "mean", channels, mean.shape())?;
        expect_vector("batch_norm", "var", channels, var.shape())?;
        if self.fixed().is_some() { Ok(()) } else { expect_variance(x) }
    }
}

/// Checks that each channel has more than one value: otherwise its variance would be 0, whatever
/// the network computed.
fn expect_variance(x: &Shape) -> Result<()> {
    if x.num_rows() >= 2 {
        return Ok(());
    }
    let expected =
        "more than one value per channel, to have a variance (train with a larger batch or larger maps)";
    Err(Error::argument("batch_norm", "input", expected, x))
}

/// The settings of a batch normalization, for translators of a meta pass.
#[cfg_attr(not(feature = "onnx"), allow(dead_code, reason = "for translators only"))]
pub(crate) struct Normalized {
    /// The constant that is added to the variance.
    pub(crate) eps: f32,
    /// The mean and variance, if they are constants.
    pub(crate) fixed: Option<[Tensor; 2]>,
    /// Whether a ReLU is applied last.
    pub(crate) relu: bool,
}

/// The mean and variance of each channel of a batch.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Moments {
    /// The mean of each channel, `[C]`.
    pub mean: Tensor,
    /// The biased variance of each channel, `[C]`: the sum of squared deviations divided by
    /// `count`.
    pub var: Tensor,
    /// The number of values per channel, N H W. `var * count / (count - 1)` is the unbiased
    /// variance.
    pub count: usize,
}

impl Moments {
    /// Rounds the mean and biased variance of each channel to `f32`.
    pub(super) fn new(channels: Shape, (mean, var): (Vec<f64>, Vec<f64>), count: usize) -> Moments {
        Moments { mean: vector(channels, |c| mean[c]), var: vector(channels, |c| var[c]), count }
    }

    /// Returns the moments of a meta pass, whose values are not known.
    fn zeros(channels: Shape, count: usize) -> Moments {
        let zeros = vector(channels, |_| 0.0);
        Moments { mean: zeros.clone(), var: zeros, count }
    }
}

impl<'t> Var<'t> {
    /// Normalizes each channel, the last axis, of `[N, H, W, C]` or `[N, C]` (any number of axes).
    ///
    /// Returns the result, which has the shape of the input, and the statistics that it was
    /// normalized with. See [`BatchNorm`] for an example.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if gamma, beta or the statistics are not `[C]`, or the residual
    /// does not have the shape of the input; [`Error::Argument`] if eps is negative, or if a
    /// channel has only one value and the statistics are not fixed (a batch of one image of 1 x 1
    /// pixels, for example): its variance would always be 0.
    pub fn batch_norm(&self, norm: &BatchNorm<'_, 't>) -> Result<(Var<'t>, Moments)> {
        let residual = norm.residual.unwrap_or(self);
        Var::expect_one_tape("batch_norm", &[self, norm.gamma, norm.beta, residual])?;
        if let Err(error) = norm.check(self.shape()) {
            let y = self.tape().recover(error, Some(*self.shape()))?;
            return Ok((y, Moments::zeros(*norm.gamma.shape(), self.shape().num_rows())));
        }
        let moments = norm.moments(self);
        let (gamma, beta) = (norm.gamma.value(), norm.beta.value());
        let forward = Forward {
            x: self.value().clone(),
            affine: Affine::new([gamma, beta], [&moments.mean, &moments.var], norm.eps),
            residual: norm.residual.map(Var::save),
            relu: norm.relu,
        };
        let fixed = norm.fixed();
        let inputs: Vec<&Var<'t>> = [self, norm.gamma, norm.beta].into_iter().chain(norm.residual).collect();
        let y = Var::op_many("batch_norm", &inputs, *self.shape(), |values| {
            let y = forward.compute(values.get(3).copied());
            let output = (norm.relu && !forward.is_cheap()).then(|| y.clone());
            let backward = Backward { forward: forward.clone(), output, is_fixed: fixed.is_some() };
            (y, move |dy: Tensor, needs: &[bool]| {
                backward.gradients(dy, [0, 1, 2, 3].map(|input| needs.get(input) == Some(&true))).into()
            })
        });
        let residual_needs_gradient = norm.residual.is_some_and(Var::is_recorded);
        let y = y.costs(|| forward.cost(residual_needs_gradient)).settings(|| Normalized {
            eps: norm.eps,
            fixed: fixed.map(|statistics| statistics.map(Tensor::clone)),
            relu: norm.relu,
        });
        let recomputed = forward.is_cheap() && gamma.shape().num_channels() >= MIN_RECOMPUTED_CHANNELS;
        let y = match recomputed {
            true => y.rematerialize_with(forward.passes(), move || forward.recompute()),
            false => y,
        };
        Ok((y, moments))
    }
}

/// The operands of y, from which it is computed and, in backward, recomputed.
#[derive(Clone)]
struct Forward {
    x: Tensor,
    affine: Affine,
    residual: Option<Saved>,
    relu: bool,
}

impl Forward {
    /// Computes y.
    fn compute(&self, residual: Option<&Tensor>) -> Tensor {
        self.affine.apply(&self.x, residual, self.relu)
    }

    /// Computes y again in backward, to the bit.
    fn recompute(&self) -> Tensor {
        self.compute(self.residual.as_ref().map(Saved::value).as_ref())
    }

    /// Returns the number of passes over memory that it takes to recompute y.
    fn passes(&self) -> usize {
        1 + self.residual.as_ref().map_or(0, Saved::passes)
    }

    /// Returns whether y is cheap enough to recompute that it need not be saved.
    ///
    /// In a stage of blocks, each of which adds the output of the block before, every third output
    /// is saved, and the others are at most two passes over memory away from a saved one.
    fn is_cheap(&self) -> bool {
        self.passes() <= 2
    }

    /// Returns the cost for meta passes.
    fn cost(&self, residual_needs_gradient: bool) -> Cost {
        let channels = *self.affine.mean.shape();
        let mask_is_recomputed = self.relu && self.is_cheap();
        let residual = self.residual.iter().filter(|saved| mask_is_recomputed || saved.passes() == 0);
        let gradients = match residual_needs_gradient {
            true => {
                vec![GradientMemory::New, GradientMemory::New, GradientMemory::New, GradientMemory::InPlace]
            }
            false => vec![GradientMemory::InPlace],
        };
        Cost {
            saved_inputs: iter::once(self.x.clone().into()).chain(residual.cloned()).collect(),
            saves_output: self.relu && !self.is_cheap(),
            saved_intermediates: vec![channels; 4],
            backward_workspace: vec![channels; 2],
            gradients,
            ..Cost::default()
        }
    }
}

#[cfg(test)]
mod tests;
