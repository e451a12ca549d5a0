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
//! two exceptions, see [`is_cheap`] and [`MIN_RECOMPUTED_CHANNELS`].

mod affine;
mod backward;

use super::{expect_eps, expect_shape, expect_vector};
use crate::{
    Error, Result, Shape, Tensor,
    autograd::{Cost, Fault, GradientMemory, Input, Kind, Op, Recompute, Saved, Var, apply_with},
    kernels::{self, Isa},
};
pub(crate) use affine::Affine;
pub(super) use affine::vector;
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
pub enum Statistics<'v, 't> {
    /// The statistics of the input, which the operation computes. The gradient flows through them.
    #[default]
    Batch,
    /// The statistics of the input, computed before by [`Var::conv2d_moments`]. The gradient flows
    /// through them, so they must be those of the input.
    Precomputed(&'v Moments),
    /// Constants, as in evaluation and in layers whose statistics are frozen.
    Fixed {
        /// The mean of each channel, `[C]`. No gradient flows to it.
        mean: &'v Var<'t>,
        /// The variance of each channel, `[C]`. No gradient flows to it.
        var: &'v Var<'t>,
    },
}

/// Mean and variance are fixed if there are any; otherwise they are those of the batch.
impl<'v, 't> From<Option<(&'v Var<'t>, &'v Var<'t>)>> for Statistics<'v, 't> {
    fn from(fixed: Option<(&'v Var<'t>, &'v Var<'t>)>) -> Statistics<'v, 't> {
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
    pub statistics: Statistics<'v, 't>,
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
    pub fn statistics(self, statistics: impl Into<Statistics<'v, 't>>) -> Self {
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
        let (fixed, source) = match norm.statistics {
            Statistics::Batch => (None, Source::Batch),
            Statistics::Precomputed(moments) => (None, Source::Precomputed(moments.clone())),
            Statistics::Fixed { mean, var } => (Some([mean, var]), Source::Inputs),
        };
        let inputs: Vec<&Var<'t>> = [self, norm.gamma, norm.beta]
            .into_iter()
            .chain(fixed.into_iter().flatten())
            .chain(norm.residual)
            .collect();
        let op = Normalize { eps: norm.eps, source, has_residual: norm.residual.is_some(), relu: norm.relu };
        let (y, moments) = apply_with(op, &inputs, |context| context.moments.clone())?;
        // A meta pass computes no moments.
        let zeros = || Moments::zeros(*norm.gamma.shape(), self.shape().num_rows());
        Ok((y, moments.unwrap_or_else(zeros)))
    }
}

/// The normalization as an operation on x, gamma, beta, mean and variance if they are fixed, and
/// the residual if there is one.
struct Normalize {
    eps: f32,
    source: Source,
    has_residual: bool,
    relu: bool,
}

/// Where the mean and the variance come from.
enum Source {
    Batch,
    Precomputed(Moments),
    Inputs,
}

impl Op for Normalize {
    type Context = Backward;

    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
        let x = *inputs[0].shape();
        self.check(inputs).map_err(|error| Fault::new(error, x))?;
        Ok(x)
    }

    fn forward(&self, inputs: &[Input<'_>], _: Shape) -> (Tensor, Backward) {
        let (x, gamma, beta) = (inputs[0].value(), inputs[1].value(), inputs[2].value());
        let moments = self.moments(inputs);
        let residual = self.residual(inputs);
        let forward = Forward {
            x: x.clone(),
            affine: Affine::new([gamma, beta], [&moments.mean, &moments.var], self.eps),
            residual: residual.map(|residual| residual.save()),
            relu: self.relu,
        };
        let y = forward.compute(residual.map(|residual| residual.value()));
        let output = (self.relu && !is_cheap(forward.passes())).then(|| y.clone());
        let is_fixed = self.is_fixed();
        (y, Backward { forward, output, is_fixed, moments })
    }

    fn backward(&self, backward: Backward, dy: Tensor, needs: &[bool]) -> Vec<Option<Tensor>> {
        let residual = if self.has_residual { needs.last().copied() } else { None };
        let needs = [needs[0], needs[1], needs[2], residual.unwrap_or(false)];
        let [dx, dgamma, dbeta, dresidual] = backward.gradients(dy, needs);
        let fixed = if self.is_fixed() { 2 } else { 0 };
        let statistics = iter::repeat_n(None, fixed);
        [dx, dgamma, dbeta].into_iter().chain(statistics).chain([dresidual]).collect()
    }

    fn cost(&self, inputs: &[Input<'_>], _: Shape) -> Cost {
        let (x, channels) = (Saved::from(inputs[0].value().clone()), *inputs[1].shape());
        let residual = self.residual(inputs).map(|residual| residual.save());
        let passes = 1 + residual.as_ref().map_or(0, Saved::passes);
        let mask_is_recomputed = self.relu && is_cheap(passes);
        let saved = residual.iter().filter(|saved| mask_is_recomputed || saved.passes() == 0).cloned();
        let gradients = match self.residual(inputs) {
            Some(residual) if residual.needs_gradient() => {
                let before = vec![GradientMemory::New; inputs.len() - 1];
                [before, vec![GradientMemory::InPlace]].concat()
            }
            _ => vec![GradientMemory::InPlace],
        };
        let cost = Cost {
            saved_inputs: iter::once(x.clone()).chain(saved).collect(),
            saves_output: self.relu && !is_cheap(passes),
            saved_intermediates: vec![channels; 4],
            backward_workspace: vec![channels; 2],
            gradients,
            ..Cost::default()
        };
        match is_recomputed(passes, &channels) {
            true => cost.recompute(passes, iter::once(x).chain(residual).collect()),
            false => cost,
        }
    }

    fn kind(&self, _: &[Input<'_>]) -> Kind {
        let Normalize { eps, has_residual, relu, .. } = *self;
        Kind::BatchNorm { eps, is_fixed: self.is_fixed(), has_residual, relu }
    }

    fn recompute(&self, Backward { forward, .. }: &Backward) -> Option<Recompute> {
        let forward = forward.clone();
        is_recomputed(forward.passes(), forward.affine.mean.shape())
            .then(|| Recompute::new(forward.passes(), move || forward.recompute()))
    }
}

impl Normalize {
    fn is_fixed(&self) -> bool {
        matches!(self.source, Source::Inputs)
    }

    fn residual<'a>(&self, inputs: &[Input<'a>]) -> Option<Input<'a>> {
        if self.has_residual { inputs.last().copied() } else { None }
    }

    /// Returns the mean and variance to normalize with.
    fn moments(&self, inputs: &[Input<'_>]) -> Moments {
        let (x, channels) = (inputs[0].value(), *inputs[1].shape());
        let count = x.shape().num_rows();
        match &self.source {
            Source::Precomputed(moments) => moments.clone(),
            Source::Inputs => {
                let [mean, var] = [inputs[3], inputs[4]].map(|input| input.value().clone());
                Moments { mean, var, count }
            }
            Source::Batch => {
                let moments = kernels::moments(Isa::active(), x.data(), channels.num_channels());
                Moments::new(channels, moments, count)
            }
        }
    }

    /// Checks that everything fits the input.
    fn check(&self, inputs: &[Input<'_>]) -> Result<()> {
        let x = inputs[0].shape();
        let Some(&channels) = x.last() else {
            return Err(Error::shape("batch_norm", "input", ["N", "...", "C"], x));
        };
        expect_vector("batch_norm", "gamma", channels, inputs[1].shape())?;
        expect_vector("batch_norm", "beta", channels, inputs[2].shape())?;
        if let Some(residual) = self.residual(inputs) {
            expect_shape("batch_norm", "residual", x, residual.shape())?;
        }
        expect_eps("batch_norm", self.eps)?;
        let [mean, var] = match &self.source {
            Source::Batch => return expect_variance(x),
            Source::Precomputed(moments) => [moments.mean.shape(), moments.var.shape()],
            Source::Inputs => [inputs[3].shape(), inputs[4].shape()],
        };
        expect_vector("batch_norm", "mean", channels, mean)?;
        expect_vector("batch_norm", "var", channels, var)?;
        if self.is_fixed() { Ok(()) } else { expect_variance(x) }
    }
}

/// Returns whether y, which takes this number of passes over memory to recompute, need not be
/// saved for the mask of its own ReLU.
///
/// In a stage of blocks, each of which adds the output of the block before, every third output is
/// saved, and the others are at most two passes over memory away from a saved one.
fn is_cheap(passes: usize) -> bool {
    passes <= 2
}

/// Returns whether a following operation recomputes y, instead of saving it.
fn is_recomputed(passes: usize, channels: &Shape) -> bool {
    is_cheap(passes) && channels.num_channels() >= MIN_RECOMPUTED_CHANNELS
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
}

#[cfg(test)]
mod tests;
