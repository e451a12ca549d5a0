//! Batch normalization with its statistics.

use super::Module;
use crate::{
    Result, Tensor,
    autograd::{Buffer, Mode, Param, State, Tape, Var},
    ops::{BatchNorm, Moments, Statistics},
};

/// Normalizes each channel of `[N, H, W, C]` to mean 0 and variance 1, then scales and shifts it
/// (Ioffe and Szegedy 2015, algorithm 1); see [`Var::batch_norm`].
///
/// In training, the moments are those of the batch, and the tape observes new running moments, `(1
/// - momentum) * old + momentum * batch`, of the unbiased variance, as PyTorch does. In evaluation,
/// the running moments normalize and nothing is observed. So it is in training, too, where
/// `running_mean` is frozen, as fine-tuning with small batches needs it; see
/// [`State::freeze_statistics`](crate::autograd::State::freeze_statistics).
///
/// Its state is `weight`, `bias`, `running_mean` and `running_var`, each `[C]`.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::Tape, nn::{BatchNorm2d, Module}};
/// let norm = BatchNorm2d::new(1)?;
/// let x = Tensor::new([2, 1, 1, 1], [3.0, 7.0])?;
///
/// let tape = Tape::train(Rng::seed(0));
/// let y = norm.forward(&tape.input(x.clone()))?;
/// assert!((y.value().data()[1] - 1.0).abs() < 1e-5);
/// let updates = y.sum().backward()?;
/// assert_eq!(updates.observed(&norm.running_mean).unwrap().data(), [0.5]);
/// assert!((updates.observed(&norm.running_var).unwrap().item() - (0.9 + 0.1 * 8.0)).abs() < 1e-6);
///
/// let tape = Tape::eval();
/// assert!((norm.forward(&tape.input(x))?.value().data()[1] - 7.0).abs() < 1e-4);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug, State)]
pub struct BatchNorm2d {
    /// The scale, gamma in the paper; it begins at 1.
    pub weight: Param,
    /// The shift, beta in the paper; it begins at 0.
    pub bias: Param,
    /// The mean that evaluation uses; it begins at 0.
    pub running_mean: Buffer,
    /// The variance that evaluation uses; it begins at 1.
    pub running_var: Buffer,
    /// The number added to the variance under the root, 1e-5 by default. Keras' default is 1e-3.
    #[state(skip)]
    pub eps: f32,
    /// The weight of a new observation in the running moments, 0.1 by default, as in PyTorch. Keras
    /// has the weight of the old value, 1 minus this one, and a default of 0.99.
    #[state(skip)]
    pub momentum: f32,
}

impl Module for BatchNorm2d {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        self.forward_fused(x, Fused::default())
    }
}

impl BatchNorm2d {
    /// Makes a normalization of `num_channels` channels, with the default settings.
    ///
    /// # Errors
    /// As [`BatchNorm2dBuilder::build`].
    pub fn new(num_channels: usize) -> Result<BatchNorm2d> {
        BatchNorm2d::builder(num_channels).build()
    }

    /// Begins a normalization with settings other than those of [`BatchNorm2d::new`].
    ///
    /// ```
    /// use skipgrad::nn::BatchNorm2d;
    /// let norm = BatchNorm2d::builder(64).eps(1e-3).momentum(0.01).build()?;
    /// assert_eq!((norm.num_channels(), norm.eps), (64, 1e-3));
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn builder(num_channels: usize) -> BatchNorm2dBuilder {
        BatchNorm2dBuilder { num_channels, eps: 1e-5, momentum: 0.1 }
    }

    /// Returns the number of channels.
    pub fn num_channels(&self) -> usize {
        self.weight.value().shape().num_channels()
    }

    /// Returns `relu(norm(x))`, in one pass over memory.
    ///
    /// # Errors
    /// As [`Module::forward`].
    pub fn forward_relu<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        self.forward_fused(x, Fused { relu: true, ..Fused::default() })
    }

    /// Returns `relu(norm(x) + shortcut)`, the end of a residual block, in one pass over memory.
    ///
    /// # Errors
    /// As [`Module::forward`], and if the shapes differ.
    pub fn forward_add_relu<'t>(&self, x: &Var<'t>, shortcut: &Var<'t>) -> Result<Var<'t>> {
        self.forward_fused(x, Fused { residual: Some(shortcut), relu: true, ..Fused::default() })
    }

    /// Returns the normalized input and what follows it; in one pass over memory, unless the norm's
    /// own output is captured.
    pub(crate) fn forward_fused<'t>(&self, x: &Var<'t>, fused: Fused<'_, 't>) -> Result<Var<'t>> {
        let tape = x.tape();
        if !tape.captures(self) {
            return tape.enter(self, || self.normalize(x, fused));
        }
        let Fused { moments, residual, relu } = fused;
        let y = tape.enter(self, || self.normalize(x, Fused { moments, ..Fused::default() }))?;
        let y = residual.map_or(Ok(y.clone()), |residual| y.add(residual))?;
        Ok(if relu { y.relu() } else { y })
    }

    fn normalize<'t>(&self, x: &Var<'t>, fused: Fused<'_, 't>) -> Result<Var<'t>> {
        let tape = x.tape();
        let (gamma, beta) = (tape.param(&self.weight), tape.param(&self.bias));
        let (mean, var) = (tape.buffer(&self.running_mean), tape.buffer(&self.running_var));
        let fixed = self.uses_running_moments(tape);
        let statistics = match fused.moments {
            _ if fixed => Statistics::Fixed { mean: &mean, var: &var },
            Some(moments) => Statistics::Precomputed(moments),
            None => Statistics::Batch,
        };
        let norm = BatchNorm::new(&gamma, &beta).eps(self.eps).statistics(statistics);
        let (y, moments) = x.batch_norm(&norm.residual(fused.residual).relu(fused.relu))?;
        if !fixed {
            self.observe(tape, &moments);
        }
        Ok(y)
    }

    /// Returns whether it normalizes with its running moments on this tape, rather than with those
    /// of the batch.
    pub fn uses_running_moments(&self, tape: &Tape) -> bool {
        self.running_mean.is_frozen() || tape.mode() == Mode::Eval
    }

    /// Has the tape observe new running moments, from those of a batch that an operation normalized
    /// on this layer's behalf.
    pub fn observe(&self, tape: &Tape, batch: &Moments) {
        let blend = |old: &Tensor, new: &Tensor, correction: f32| {
            let mut blend = old.clone();
            blend.scale(1.0 - self.momentum);
            blend.axpy(self.momentum * correction, new);
            blend
        };
        let unbiased = batch.count as f32 / (batch.count as f32 - 1.0);
        tape.observe(&self.running_mean, blend(self.running_mean.value(), &batch.mean, 1.0));
        tape.observe(&self.running_var, blend(self.running_var.value(), &batch.var, unbiased));
    }
}

/// What is computed in the same pass over memory as a normalization.
#[derive(Clone, Copy, Default)]
pub(crate) struct Fused<'a, 't> {
    /// The moments of the input, if they are known.
    pub(crate) moments: Option<&'a Moments>,
    /// What is added to the normalized input.
    pub(crate) residual: Option<&'a Var<'t>>,
    /// Whether a ReLU follows.
    pub(crate) relu: bool,
}

/// The settings of a [`BatchNorm2d`]; see [`BatchNorm2d::builder`].
#[derive(Clone, Debug)]
#[must_use = "`build` makes the normalization"]
pub struct BatchNorm2dBuilder {
    num_channels: usize,
    eps: f32,
    momentum: f32,
}

impl BatchNorm2dBuilder {
    /// Sets the number added to the variance under the root; 1e-5 by default, in Keras 1e-3.
    pub fn eps(mut self, eps: f32) -> Self {
        self.eps = eps;
        self
    }

    /// Sets the weight of a new observation in the running moments; 0.1 by default. It is 1 minus
    /// the `momentum` of Keras.
    pub fn momentum(mut self, momentum: f32) -> Self {
        self.momentum = momentum;
        self
    }

    /// Makes the normalization.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) or
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory) if the number of channels is too large.
    pub fn build(self) -> Result<BatchNorm2d> {
        let BatchNorm2dBuilder { num_channels, eps, momentum } = self;
        Ok(BatchNorm2d {
            weight: Param::new(Tensor::full([num_channels], 1.0)?),
            bias: Param::new(Tensor::zeros([num_channels])?),
            running_mean: Buffer::new(Tensor::zeros([num_channels])?),
            running_var: Buffer::new(Tensor::full([num_channels], 1.0)?),
            eps,
            momentum,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rng;

    fn images() -> Tensor {
        Tensor::normal([3, 4, 5, 2], 2.0, &mut Rng::seed(8)).unwrap()
    }

    #[test]
    fn frozen_norms_use_the_running_moments_and_observe_nothing() {
        let mut norm = BatchNorm2d::new(2).unwrap();
        norm.running_mean.value_mut().data_mut().copy_from_slice(&[1.0, -1.0]);
        norm.running_var.value_mut().data_mut().copy_from_slice(&[4.0, 0.25]);
        norm.freeze_statistics("*").unwrap();
        let (train, eval) = (Tape::train(Rng::seed(0)), Tape::eval());
        let y = norm.forward(&train.input(images())).unwrap();
        assert_eq!(y.value(), norm.forward(&eval.input(images())).unwrap().value());
        let updates = y.sum().backward().unwrap();
        assert!(
            updates.observed(&norm.running_mean).is_none() && updates.observed(&norm.running_var).is_none()
        );
        assert!(updates.grad(&norm.weight).is_some());
    }

    #[test]
    fn a_frozen_variance_is_not_observed() {
        let mut norm = BatchNorm2d::new(2).unwrap();
        norm.freeze_statistics("running_var").unwrap();
        let tape = Tape::train(Rng::seed(0));
        let y = norm.forward(&tape.input(images())).unwrap();
        let updates = y.sum().backward().unwrap();
        assert!(updates.observed(&norm.running_mean).is_some());
        assert!(updates.observed(&norm.running_var).is_none());
    }

    #[test]
    fn a_single_value_a_channel_has_no_variance() {
        let norm = BatchNorm2d::new(2).unwrap();
        let x = Tensor::zeros([1, 1, 1, 2]).unwrap();
        let error = norm.forward(&Tape::train(Rng::seed(0)).input(x.clone())).err().unwrap();
        assert!(error.to_string().starts_with("batch_norm: "), "{error}");
        assert!(norm.forward(&Tape::eval().input(x)).is_ok());
    }

    #[test]
    fn fused_forms_are_what_they_say() {
        let norm = BatchNorm2d::new(2).unwrap();
        let tape = Tape::train(Rng::seed(0));
        let (x, shortcut) = (tape.input(images()), tape.input(images()));
        let plain = norm.forward(&x).unwrap();
        assert_eq!(norm.forward_relu(&x).unwrap().value(), plain.relu().value());
        let sum = plain.add(&shortcut).unwrap().relu();
        for (a, b) in
            norm.forward_add_relu(&x, &shortcut).unwrap().value().data().iter().zip(sum.value().data())
        {
            assert!((a - b).abs() < 1e-5);
        }
    }
}
