//! Batch normalization (Ioffe and Szegedy 2015, algorithm 1), with what follows it in a residual network in the same pass:
//!
//! ```text
//! x̂ = (x - mean) / sqrt(var + eps)      y = relu(gamma x̂ + beta + residual)
//! ```
//!
//! mean and var are each channel's over all other axes (var divides by the number m of values), or given. With g = dy where
//! the ReLU let y through and 0 elsewhere, the gradient in closed form (their section 3, simplified) is
//!
//! ```text
//! dbeta = Σ g      dgamma = Σ g x̂      dx = gamma / sqrt(var + eps) (g - dbeta / m - x̂ dgamma / m)      dresidual = g
//! ```
//!
//! and, where the statistics are given and so constant, dx = gamma / sqrt(var + eps) g.
//!
//! Backward keeps x and vectors of one number a channel. y, and where the ReLU let through, is computed again from x and the
//! residual, also for an operation behind that needs y in backward: a map less in memory for a pass over it. Where the
//! residual would itself have to be computed again by way of another residual, y is kept, and where it has fewer than [`WIDE`]
//! channels: beside a convolution of so few, a pass over memory takes long, and networks of such maps are small.

use super::{expect_eps, expect_shape, expect_vector};
use crate::{
    Error, Result, Shape, Tensor,
    autograd::{Cost, GradientMemory, Saved, Var},
    kernels::{self, Activation, BatchNormGradient, BatchNormSums, Isa, NormRelu},
};
use std::iter;

/// Fewest channels of a map that is computed again. A CIFAR ResNet-20 keeps its maps of 16 channels: 187 instead of 134 MiB for 128
/// images, still half of what others need, and a step takes 3 to 9 % less time. To keep those of 32 channels, too, gained nothing.
const WIDE: usize = 32;

/// The arguments of [`Var::batch_norm`] besides the input, whose channels are C.
///
/// ```
/// use skipgrad::{Tensor, autograd::Tape, ops::BatchNorm};
/// let tape = Tape::eval();
/// let (gamma, beta) = (tape.input(Tensor::full([1], 1.0)?), tape.input(Tensor::zeros([1])?));
/// let x = tape.input(Tensor::new([2, 1], [-3.0, 3.0])?);
/// let (y, _) = x.batch_norm(&BatchNorm { relu: true, eps: 0.0, ..BatchNorm::new(&gamma, &beta) })?;
/// assert_eq!(y.value().data(), [0.0, 1.0]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm<'v, 't> {
    /// The factor of each channel, `[C]`.
    pub gamma: &'v Var<'t>,
    /// The offset of each channel, `[C]`.
    pub beta: &'v Var<'t>,
    /// What is added to the variance, at least 0.
    pub eps: f32,
    /// Mean and variance, `[C]` each, to be used as constants: evaluation, or frozen layers. Without them, the batch's.
    pub given: Option<(&'v Tensor, &'v Tensor)>,
    /// The batch's own statistics, if they are known already, from [`Var::conv2d_moments`]: they must be those of the input, since the
    /// gradient flows through them. They are not looked at where statistics are given.
    pub batch: Option<&'v Moments>,
    /// Added behind the normalization: the shortcut of a residual block, with the shape of the input.
    pub residual: Option<&'v Var<'t>>,
    /// Whether a ReLU follows, behind the residual.
    pub relu: bool,
}

impl<'v, 't> BatchNorm<'v, 't> {
    /// The batch's own statistics, eps 1e-5, no residual, no ReLU.
    pub fn new(gamma: &'v Var<'t>, beta: &'v Var<'t>) -> BatchNorm<'v, 't> {
        BatchNorm { gamma, beta, eps: 1e-5, given: None, batch: None, residual: None, relu: false }
    }
}

/// What translators must know of a batch normalization besides its inputs.
#[cfg_attr(not(feature = "onnx"), allow(dead_code, reason = "for translators only"))]
pub(crate) struct Normalized {
    /// As [`BatchNorm::eps`].
    pub(crate) eps: f32,
    /// Mean and variance, unless they are the batch's.
    pub(crate) given: Option<[Tensor; 2]>,
    /// Whether a ReLU follows.
    pub(crate) relu: bool,
}

/// The statistics that a batch normalization used.
#[derive(Clone, Debug)]
pub struct Moments {
    /// The mean of each channel, `[C]`.
    pub mean: Tensor,
    /// The variance of each channel, `[C]`, the sum of squares divided by `count`.
    pub var: Tensor,
    /// The number of values a channel has in this batch, N H W. `var` times count / (count - 1) is the unbiased variance.
    pub count: usize,
}

impl Moments {
    /// From mean and biased variance of each channel.
    pub(super) fn new(channels: Shape, (mean, var): (Vec<f64>, Vec<f64>), count: usize) -> Moments {
        Moments { mean: vector(channels, |c| mean[c]), var: vector(channels, |c| var[c]), count }
    }
}

impl Moments {
    /// Of a meta pass, in which nothing is known but how many there are.
    fn zeros(channels: Shape, count: usize) -> Moments {
        let zeros = vector(channels, |_| 0.0);
        Moments { mean: zeros.clone(), var: zeros, count }
    }
}

impl<'t> Var<'t> {
    /// Normalizes each channel, the last axis, of `[N, H, W, C]` or `[N, C]` (any number of axes), and returns the statistics
    /// that it used beside the result, which has the input's shape. See [`BatchNorm`] for an example.
    ///
    /// # Errors
    /// [`Error::Argument`] if gamma, beta or given statistics are not `[C]`, the residual has not the input's shape, or eps is
    /// negative; and, without given statistics, if a channel has only one value: its variance would be 0 whatever the
    /// network computed (as PyTorch). A batch of one on maps of 1 x 1 is such a case.
    pub fn batch_norm(&self, norm: &BatchNorm<'_, 't>) -> Result<(Var<'t>, Moments)> {
        let count = self.shape().num_rows();
        let channels = match self.check_batch_norm(norm) {
            Ok(channels) => channels,
            Err(error) => {
                let y = self.tape().recover(error, Some(*self.shape()))?;
                return Ok((y, Moments::zeros(*norm.gamma.shape(), count)));
            }
        };
        let moments = match (norm.given, norm.batch) {
            (Some((mean, var)), _) => Moments { mean: mean.clone(), var: var.clone(), count },
            (None, Some(batch)) => batch.clone(),
            (None, None) if self.tape().is_meta() => Moments::zeros(*norm.gamma.shape(), count),
            (None, None) => {
                let moments = kernels::moments(Isa::active(), self.value().data(), channels);
                Moments::new(*norm.gamma.shape(), moments, count)
            }
        };
        let affine =
            Affine::new([norm.gamma, norm.beta].map(Var::value), [&moments.mean, &moments.var], norm.eps);
        let (x, residual, given) = (self.value().clone(), norm.residual.map(Var::save), norm.given.is_some());
        let recipe = Recipe { x, affine, residual, relu: norm.relu };
        let inputs: Vec<&Var<'t>> = [self, norm.gamma, norm.beta].into_iter().chain(norm.residual).collect();
        let y = Var::op_many("batch_norm", &inputs, *self.shape(), |values| {
            let y = recipe.make(values.get(3).copied());
            let output = (norm.relu && !recipe.is_cheap()).then(|| y.clone());
            let rule = Rule { recipe: recipe.clone(), output, given };
            (y, move |dy: Tensor, needs: &[bool]| {
                rule.gradients(dy, [0, 1, 2, 3].map(|input| needs.get(input) == Some(&true))).into()
            })
        });
        let passes_residual = norm.residual.is_some_and(Var::is_recorded);
        let y = y.costs(|| recipe.cost(passes_residual)).settings(|| Normalized {
            eps: norm.eps,
            given: norm.given.map(|(mean, var)| [mean.clone(), var.clone()]),
            relu: norm.relu,
        });
        let y = match recipe.is_cheap() && channels >= WIDE {
            true => y.rematerialize_with(recipe.passes(), move || recipe.again()),
            false => y,
        };
        Ok((y, moments))
    }

    /// Refuses what does not fit; returns the number of channels.
    fn check_batch_norm(&self, norm: &BatchNorm<'_, 't>) -> Result<usize> {
        let Some(&channels) = self.shape().last() else {
            return Err(Error::shape("batch_norm", "input", ["N", "...", "C"], self.shape()));
        };
        expect_vector("batch_norm", "gamma", channels, norm.gamma.shape())?;
        expect_vector("batch_norm", "beta", channels, norm.beta.shape())?;
        if let Some(residual) = norm.residual {
            expect_shape("batch_norm", "residual", self.shape(), residual.shape())?;
        }
        expect_eps("batch_norm", norm.eps)?;
        if let (None, Some(batch)) = (norm.given, norm.batch) {
            expect_vector("batch_norm", "mean", channels, batch.mean.shape())?;
            expect_vector("batch_norm", "var", channels, batch.var.shape())?;
        }
        match norm.given {
            Some((mean, var)) => {
                expect_vector("batch_norm", "mean", channels, mean.shape())?;
                expect_vector("batch_norm", "var", channels, var.shape())?;
            }
            None if self.shape().num_rows() < 2 => {
                let expected = "more than one value per channel, to have a variance (train with a larger batch or larger maps)";
                return Err(Error::argument("batch_norm", "input", expected, self.shape()));
            }
            None => {}
        }
        Ok(channels)
    }
}

/// A number for each channel, computed in `f64` and rounded once.
pub(super) fn vector(channels: Shape, value: impl Fn(usize) -> f64) -> Tensor {
    Tensor::build(channels, |out| out.iter_mut().enumerate().for_each(|(c, out)| *out = value(c) as f32))
}

/// The normalization as one multiplication and one addition, `y = x scale + shift`; vectors of one number a channel.
#[derive(Clone, Debug)]
pub(super) struct Affine {
    pub(super) mean: Tensor,
    /// 1 / sqrt(var + eps).
    pub(super) inverse_std: Tensor,
    /// gamma / sqrt(var + eps).
    pub(super) scale: Tensor,
    /// beta - mean scale.
    pub(super) shift: Tensor,
}

impl Affine {
    pub(super) fn new([gamma, beta]: [&Tensor; 2], [mean, var]: [&Tensor; 2], eps: f32) -> Affine {
        let channels = *mean.shape();
        let saved = mean.clone();
        let [gamma, beta, mean, var] = [gamma, beta, mean, var].map(Tensor::data);
        let inverse_std = |c: usize| 1.0 / (f64::from(var[c]) + f64::from(eps)).sqrt();
        let scale = |c: usize| f64::from(gamma[c]) * inverse_std(c);
        Affine {
            mean: saved,
            inverse_std: vector(channels, inverse_std),
            scale: vector(channels, scale),
            shift: vector(channels, |c| f64::from(beta[c]) - f64::from(mean[c]) * scale(c)),
        }
    }

    /// As what stands in front of a ReLU.
    pub(super) fn relu(&self) -> NormRelu<'_> {
        NormRelu { scale: self.scale.data(), shift: self.shift.data() }
    }

    /// The gradients of gamma and beta.
    pub(super) fn gradients(&self, sums: &BatchNormSums) -> (Tensor, Tensor) {
        let (channels, inverse_std) = (*self.inverse_std.shape(), self.inverse_std.data());
        let dgamma = vector(channels, |c| sums.dy_deviation[c] * f64::from(inverse_std[c]));
        (dgamma, vector(channels, |c| sums.dy[c]))
    }

    pub(super) fn apply(&self, x: &Tensor, residual: Option<&Tensor>, relu: bool) -> Tensor {
        let residual = residual.map(Tensor::data);
        let (scale, shift) = (self.scale.data(), self.shift.data());
        Tensor::build(*x.shape(), |y| {
            kernels::normalize(Isa::active(), x.data(), scale, shift, residual, relu, y);
        })
    }
}

/// How y is made, now or again in backward.
#[derive(Clone)]
struct Recipe {
    x: Tensor,
    affine: Affine,
    residual: Option<Saved>,
    relu: bool,
}

impl Recipe {
    /// What making y again costs.
    fn passes(&self) -> usize {
        1 + self.residual.as_ref().map_or(0, Saved::passes)
    }

    /// Whether y need not be kept. In a stage of blocks, each of which adds the output of the one before, every third output is
    /// kept, and the others are at most two passes over memory away from what is.
    fn is_cheap(&self) -> bool {
        self.passes() <= 2
    }

    /// What the normalization takes, for meta passes; `passes_residual` says whether a gradient flows to the residual.
    fn cost(&self, passes_residual: bool) -> Cost {
        let channels = *self.affine.mean.shape();
        let needed = self.relu && self.is_cheap();
        let residual = self.residual.iter().filter(|saved| needed || saved.passes() == 0).cloned();
        let gradients = match passes_residual {
            true => {
                vec![GradientMemory::New, GradientMemory::New, GradientMemory::New, GradientMemory::InPlace]
            }
            false => vec![GradientMemory::InPlace],
        };
        Cost {
            saves: iter::once(self.x.clone().into()).chain(residual).collect(),
            saves_output: self.relu && !self.is_cheap(),
            makes: vec![channels; 4],
            backward: vec![channels; 2],
            gradients,
            ..Cost::default()
        }
    }

    fn make(&self, residual: Option<&Tensor>) -> Tensor {
        self.affine.apply(&self.x, residual, self.relu)
    }

    fn again(&self) -> Tensor {
        self.make(self.residual.as_ref().map(Saved::value).as_ref())
    }
}

/// What backward keeps.
struct Rule {
    recipe: Recipe,
    /// y, if it is needed to tell where the ReLU let through.
    output: Option<Tensor>,
    /// Whether the statistics are constants.
    given: bool,
}

impl Rule {
    /// The gradients of x, gamma, beta and the residual.
    fn gradients(&self, mut dy: Tensor, needs: [bool; 4]) -> [Option<Tensor>; 4] {
        let [x_needs, gamma_needs, beta_needs, residual_needs] = needs;
        let Recipe { x, affine, .. } = &self.recipe;
        let residual = self.residual();
        let activation = self.activation(residual.as_ref());
        let sums_need = gamma_needs || beta_needs || (x_needs && !self.given);
        let sums = sums_need.then(|| {
            let mean = affine.mean.data();
            kernels::batch_norm_sums(Isa::active(), x.data(), dy.data(), mean, activation)
        });
        let (dgamma, dbeta) = sums.as_ref().map(|sums| affine.gradients(sums)).unzip();
        let (dgamma, dbeta) = (dgamma.filter(|_| gamma_needs), dbeta.filter(|_| beta_needs));
        let sums = sums.filter(|_| !self.given);
        if !residual_needs {
            if x_needs {
                self.input_gradient(sums, activation, dy.data_mut(), None);
            }
            return [x_needs.then_some(dy), dgamma, dbeta, None];
        }
        let dx = Tensor::build(*x.shape(), |dx| {
            self.input_gradient(sums, activation, dy.data_mut(), Some(dx));
        });
        [x_needs.then_some(dx), dgamma, dbeta, Some(dy)]
    }

    /// The residual, if it tells where the ReLU let through.
    fn residual(&self) -> Option<Tensor> {
        let needed = self.recipe.relu && self.output.is_none();
        self.recipe.residual.as_ref().filter(|_| needed).map(Saved::value)
    }

    fn activation<'a>(&'a self, residual: Option<&'a Tensor>) -> Activation<'a> {
        let (scale, shift) = (self.recipe.affine.scale.data(), self.recipe.affine.shift.data());
        match (&self.output, residual) {
            _ if !self.recipe.relu => Activation::None,
            (Some(y), _) => Activation::Relu(y.data()),
            (None, None) => Activation::ReluOf { scale, shift },
            (None, Some(residual)) => Activation::ReluOfSum { scale, shift, residual: residual.data() },
        }
    }

    /// Writes dx to `dx`, or over `dy` if there is none; with `dx`, `dy` becomes the residual's gradient. Without sums the
    /// statistics are constants.
    fn input_gradient(
        &self,
        sums: Option<BatchNormSums>,
        activation: Activation<'_>,
        dy: &mut [f32],
        dx: Option<&mut [f32]>,
    ) {
        let Recipe { x, affine, .. } = &self.recipe;
        let (isa, m, x, scale) = (Isa::active(), x.shape().num_rows() as f64, x.data(), affine.scale.data());
        let Some(sums) = sums else {
            return kernels::batch_norm_frozen_dx(isa, x, scale, activation, dy, dx);
        };
        let (channels, mean, inverse_std) =
            (*affine.mean.shape(), affine.mean.data(), affine.inverse_std.data());
        let mean_dy = vector(channels, |c| sums.dy[c] / m);
        let slope = vector(channels, |c| sums.dy_deviation[c] / m * f64::from(inverse_std[c]).powi(2));
        let gradient = BatchNormGradient { scale, mean, mean_dy: mean_dy.data(), slope: slope.data() };
        kernels::batch_norm_dx(isa, x, gradient, activation, dy, dx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Rng,
        autograd::{Tape, gradient_check},
    };

    const EPS: f32 = 1e-3;

    /// x, gamma, beta and a residual such that what enters a ReLU, in any form, is far from 0: x is about 2 or -2 in turn, so its
    /// normalized values are about 1 or -1; the residual outweighs them.
    fn inputs(shape: &[usize], seed: u64) -> [Tensor; 4] {
        let mut rng = Rng::seed(seed);
        let channels = shape[shape.len() - 1];
        let in_turn = |i: usize| if (i / channels + i % channels).is_multiple_of(2) { 2.0 } else { -2.0 };
        let x = Tensor::from_fn(shape, |i| in_turn(i) + 0.2 * rng.uniform()).unwrap();
        let gamma = Tensor::uniform([channels], 0.8, 1.2, &mut rng).unwrap();
        let beta = Tensor::uniform([channels], -0.2, 0.2, &mut rng).unwrap();
        let residual = Tensor::from_fn(shape, |_| if rng.chance(0.5) { 4.0 } else { -4.0 } + rng.uniform());
        [x, gamma, beta, residual.unwrap()]
    }

    fn statistics(channels: usize) -> (Tensor, Tensor) {
        let mut rng = Rng::seed(9);
        let mean = Tensor::uniform([channels], -0.5, 0.5, &mut rng).unwrap();
        (mean, Tensor::uniform([channels], 1.0, 2.0, &mut rng).unwrap())
    }

    fn all_forms() -> impl Iterator<Item = (bool, bool, bool)> {
        (0..8).map(|bits| (bits & 1 > 0, bits & 2 > 0, bits & 4 > 0))
    }

    #[test]
    fn values_are_those_of_f64_and_the_statistics_are_returned() {
        let [x, gamma, beta, _] = inputs(&[3, 2, 5, 3], 1);
        let tape = Tape::eval();
        let vars = [&gamma, &beta].map(|v| tape.input(v.clone()));
        let (y, moments) = tape.input(x.clone()).batch_norm(&BatchNorm::new(&vars[0], &vars[1])).unwrap();
        assert_eq!(moments.count, 30);
        for c in 0..3 {
            let column =
                |t: &Tensor| -> Vec<f64> { t.data().iter().skip(c).step_by(3).map(|&v| v.into()).collect() };
            let values = column(&x);
            let mean = values.iter().sum::<f64>() / 30.0;
            let var = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 30.0;
            assert!((f64::from(moments.mean.data()[c]) - mean).abs() < 1e-6);
            assert!((f64::from(moments.var.data()[c]) - var).abs() < 1e-6 * var);
            let (gamma, beta) = (f64::from(gamma.data()[c]), f64::from(beta.data()[c]));
            for (y, v) in column(y.value()).iter().zip(&values) {
                assert!((y - (gamma * (v - mean) / (var + 1e-5).sqrt() + beta)).abs() < 2e-6);
            }
        }
    }

    #[test]
    fn what_is_computed_again_is_the_same_to_the_bit_and_chains_are_cut() {
        let [x, gamma, beta, residual] = inputs(&[3, 2, 5, WIDE], 1);
        let tape = Tape::train(Rng::seed(0));
        let [x, gamma, beta, residual] = [x, gamma, beta, residual].map(|t| tape.watch(t));
        for relu in [false, true] {
            let plain = BatchNorm { relu, ..BatchNorm::new(&gamma, &beta) };
            assert_eq!(again(&x, plain, Some(&residual)).1, 1, "the residual is at hand");
            let (first, passes) = again(&x, plain, None);
            assert_eq!(passes, 1);
            let (second, passes) = again(&x, plain, Some(&first));
            assert_eq!(passes, 2);
            let (third, passes) = again(&x, plain, Some(&second));
            assert_eq!(passes, 0, "saved");
            assert_eq!(again(&x, plain, Some(&third)).1, 1);
        }
    }

    #[test]
    fn narrow_maps_are_kept() {
        let [x, gamma, beta, _] = inputs(&[3, 2, 5, WIDE - 1], 1);
        let tape = Tape::train(Rng::seed(0));
        let [x, gamma, beta] = [x, gamma, beta].map(|t| tape.watch(t));
        assert_eq!(again(&x, BatchNorm { relu: true, ..BatchNorm::new(&gamma, &beta) }, None).1, 0);
    }

    /// The normalized x, and in how many passes it is computed again.
    fn again<'v, 't>(
        x: &Var<'t>,
        norm: BatchNorm<'v, 't>,
        residual: Option<&'v Var<'t>>,
    ) -> (Var<'t>, usize) {
        let (y, _) = x.batch_norm(&BatchNorm { residual, ..norm }).unwrap();
        let saved = y.save();
        assert_eq!(saved.value(), *y.value());
        (y, saved.passes())
    }

    #[test]
    fn gradients_agree_with_differences_in_every_form() {
        for shape in [&[3, 2, 2, 3][..], &[5, 4], &[3, WIDE]] {
            let all = inputs(shape, 7);
            let (mean, var) = statistics(shape[shape.len() - 1]);
            for (given, relu, residual) in all_forms() {
                let inputs = if residual { &all[..] } else { &all[..3] };
                let check = gradient_check(inputs, |v| {
                    let given = given.then_some((&mean, &var));
                    let norm = BatchNorm {
                        eps: EPS,
                        given,
                        residual: v.get(3),
                        relu,
                        ..BatchNorm::new(&v[1], &v[2])
                    };
                    Ok(v[0].batch_norm(&norm)?.0)
                });
                check.unwrap().within(1e-3).unwrap();
            }
        }
    }

    #[test]
    fn the_fused_form_is_the_composition_with_all_gradients() {
        for shape in [&[4, 5, 3, 7][..], &[9, 5], &[2, 3, 2, WIDE]] {
            let all = inputs(shape, 3);
            let (mean, var) = statistics(shape[shape.len() - 1]);
            let weights = Tensor::normal(shape, 1.0, &mut Rng::seed(4)).unwrap();
            for (given, relu, residual) in all_forms() {
                let run = |fused: bool| -> Vec<Tensor> {
                    let tape = Tape::train(Rng::seed(0));
                    let v = all.each_ref().map(|t| tape.watch(t.clone()));
                    let given = given.then_some((&mean, &var));
                    let norm = BatchNorm { given, ..BatchNorm::new(&v[1], &v[2]) };
                    let y = if fused {
                        let norm = BatchNorm { residual: residual.then_some(&v[3]), relu, ..norm };
                        v[0].batch_norm(&norm).unwrap().0
                    } else {
                        let y = v[0].batch_norm(&norm).unwrap().0;
                        let y = if residual { y.add(&v[3]).unwrap() } else { y };
                        if relu { y.relu() } else { y }
                    };
                    let updates = y.backward_from(weights.clone()).unwrap();
                    let gradients = v.iter().filter_map(|v| updates.grad_of(v).cloned());
                    iter::once(y.value().clone()).chain(gradients).collect()
                };
                let (fused, composed) = (run(true), run(false));
                assert_eq!(fused.len(), if residual { 5 } else { 4 });
                assert_eq!(fused.len(), composed.len());
                for (a, b) in fused.iter().zip(&composed) {
                    let largest = b.data().iter().fold(1.0, |m: f32, v| m.max(v.abs()));
                    let close = a.data().iter().zip(b.data()).all(|(a, b)| (a - b).abs() <= 1e-6 * largest);
                    assert!(close, "given {given}, relu {relu}, residual {residual}: {a:?} {b:?}");
                }
            }
        }
    }

    #[test]
    fn only_the_gradients_that_are_needed() {
        let [x, gamma, beta, residual] = inputs(&[2, 3, 3, 2], 5);
        let all = |watched: [bool; 4]| {
            let tape = Tape::train(Rng::seed(0));
            let values = [&x, &gamma, &beta, &residual];
            let v: [Var; 4] = std::array::from_fn(|i| {
                if watched[i] { tape.watch(values[i].clone()) } else { tape.input(values[i].clone()) }
            });
            let norm = BatchNorm { residual: Some(&v[3]), relu: true, ..BatchNorm::new(&v[1], &v[2]) };
            let y = v[0].batch_norm(&norm).unwrap().0;
            let updates = y.backward_from(x.clone()).unwrap();
            v.each_ref().map(|v| updates.grad_of(v).cloned())
        };
        let full = all([true; 4]);
        for i in 0..4 {
            let one = all(std::array::from_fn(|j| i == j));
            assert_eq!(one[i], full[i], "input {i}");
            assert_eq!(one.iter().flatten().count(), 1);
        }
    }

    #[test]
    fn a_single_value_per_channel_has_no_variance() {
        let tape = Tape::train(Rng::seed(0));
        let vector = tape.input(Tensor::zeros([3]).unwrap());
        let x = tape.input(Tensor::zeros([1, 1, 1, 3]).unwrap());
        let error = x.batch_norm(&BatchNorm::new(&vector, &vector)).unwrap_err().to_string();
        assert!(
            error.contains("more than one value per channel") && error.contains("[1, 1, 1, 3]"),
            "{error}"
        );
        let (mean, var) = statistics(3);
        let norm = BatchNorm { given: Some((&mean, &var)), ..BatchNorm::new(&vector, &vector) };
        assert!(x.batch_norm(&norm).is_ok(), "given statistics need no batch");
    }

    #[test]
    fn refusals_name_the_argument() {
        let tape = Tape::eval();
        let zeros = |shape: &[usize]| tape.input(Tensor::zeros(shape).unwrap());
        let (x, three, two) = (zeros(&[4, 3]), zeros(&[3]), zeros(&[2]));
        let message = |norm: BatchNorm| x.batch_norm(&norm).unwrap_err().to_string();
        let right = BatchNorm::new(&three, &three);
        assert_eq!(message(BatchNorm::new(&two, &three)), "batch_norm: gamma: expected [3], found [2]");
        assert_eq!(message(BatchNorm::new(&three, &two)), "batch_norm: beta: expected [3], found [2]");
        let residual = Some(&three);
        assert_eq!(
            message(BatchNorm { residual, ..right }),
            "batch_norm: residual: expected [4, 3], found [3]"
        );
        let given = Some((three.value(), two.value()));
        assert_eq!(message(BatchNorm { given, ..right }), "batch_norm: var: expected [3], found [2]");
        assert_eq!(
            message(BatchNorm { eps: -1.0, ..right }),
            "batch_norm: eps: expected a number of at least 0, found -1"
        );
        assert!(zeros(&[]).batch_norm(&right).unwrap_err().to_string().contains("[N, ..., C]"));
    }
}
