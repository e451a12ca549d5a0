//! Batch normalization with its statistics.

use super::Module;
use crate::{
    Result, Tensor,
    autograd::{Buffer, Mode, Param, Tape, Var},
    ops::{BatchNorm, Moments, Statistics},
    state,
};

/// Normalizes each channel of `[N, H, W, C]` to mean 0 and variance 1, then scales and shifts it (Ioffe and Szegedy 2015,
/// algorithm 1): see [`Var::batch_norm`].
///
/// In training the moments are the batch's, and the tape observes new running moments: `(1 - momentum) * old + momentum *
/// batch`, the variance unbiased there, as PyTorch does. In evaluation the running moments normalize and nothing is observed, and in
/// training, too, where `running_mean` is frozen, as fine-tuning with small batches wants it
/// ([`State::freeze_statistics`](crate::autograd::State::freeze_statistics), for a layer or a whole model).
///
/// State: `weight`, `bias`, `running_mean`, `running_var`, each `[C]`.
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
#[derive(Clone, Debug)]
pub struct BatchNorm2d {
    /// The scale, gamma in the paper; begins at 1.
    pub weight: Param,
    /// The shift, beta in the paper; begins at 0.
    pub bias: Param,
    /// The mean that evaluation uses; begins at 0.
    pub running_mean: Buffer,
    /// The variance that evaluation uses; begins at 1.
    pub running_var: Buffer,
    /// Added to the variance under the root; 1e-5.
    pub eps: f32,
    /// The weight of a new observation in the running moments; 0.1.
    pub momentum: f32,
}
state!(BatchNorm2d { weight, bias, running_mean, running_var });

impl BatchNorm2d {
    /// For this many channels.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) or [`Error::OutOfMemory`](crate::Error::OutOfMemory) for an absurd
    /// number.
    pub fn new(channels: usize) -> Result<BatchNorm2d> {
        Ok(BatchNorm2d {
            weight: Param::new(Tensor::full([channels], 1.0)?),
            bias: Param::new(Tensor::zeros([channels])?),
            running_mean: Buffer::new(Tensor::zeros([channels])?),
            running_var: Buffer::new(Tensor::full([channels], 1.0)?),
            eps: 1e-5,
            momentum: 0.1,
        })
    }

    /// The number of channels.
    pub fn num_channels(&self) -> usize {
        self.weight.value().shape().num_channels()
    }

    /// The normalized input behind a ReLU, in one pass over memory.
    ///
    /// # Errors
    /// As [`Module::forward`].
    pub fn relu<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        self.apply(x, None, None, true)
    }

    /// [`BatchNorm2d::relu`], with the batch's moments if they are known: they must be those of the input.
    ///
    /// # Errors
    /// As [`Module::forward`].
    pub fn relu_with<'t>(&self, x: &Var<'t>, batch: Option<&Moments>) -> Result<Var<'t>> {
        self.apply(x, batch, None, true)
    }

    /// `relu(norm(x) + shortcut)`, the end of a residual block, in one pass over memory.
    ///
    /// # Errors
    /// As [`Module::forward`], and if the shapes differ.
    pub fn add_relu<'t>(&self, x: &Var<'t>, shortcut: &Var<'t>) -> Result<Var<'t>> {
        self.apply(x, None, Some(shortcut), true)
    }

    /// Whether it normalizes with its running moments on this tape, rather than with the batch's.
    pub fn is_constant(&self, tape: &Tape) -> bool {
        self.running_mean.is_frozen() || tape.mode() == Mode::Eval
    }

    /// The norm as a part of this name: where somebody looks at its output, what follows is not done in the same pass over memory.
    pub(crate) fn apply_as<'t>(
        &self,
        name: &str,
        x: &Var<'t>,
        batch: Option<&Moments>,
        residual: Option<&Var<'t>>,
        relu: bool,
    ) -> Result<Var<'t>> {
        let tape = x.tape();
        if !tape.captures(name) {
            return tape.scope(name, || self.apply(x, batch, residual, relu));
        }
        let y = tape.scope(name, || self.apply(x, batch, None, false))?;
        let y = residual.map_or(Ok(y.clone()), |residual| y.add(residual))?;
        Ok(if relu { y.relu() } else { y })
    }

    /// The normalized input, with the batch's moments if they are known, and what follows in the same pass over memory.
    fn apply<'t>(
        &self,
        x: &Var<'t>,
        batch: Option<&Moments>,
        residual: Option<&Var<'t>>,
        relu: bool,
    ) -> Result<Var<'t>> {
        let tape = x.tape();
        let (gamma, beta) = (tape.param(&self.weight), tape.param(&self.bias));
        let running = (self.running_mean.value(), self.running_var.value());
        let is_constant = self.is_constant(tape);
        let statistics = match batch {
            _ if is_constant => Statistics::from(Some(running)),
            Some(moments) => Statistics::Precomputed(moments),
            None => Statistics::Batch,
        };
        let norm = BatchNorm::new(&gamma, &beta).eps(self.eps).statistics(statistics);
        let (y, moments) = x.batch_norm(&norm.residual(residual).relu(relu))?;
        if !is_constant {
            self.observe(tape, &moments);
        }
        Ok(y)
    }

    /// Has the tape observe new running moments, those of a batch that an operation normalized with on this layer's behalf.
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

impl Module for BatchNorm2d {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        self.apply(x, None, None, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rng, autograd::State};

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
        assert_eq!(norm.relu(&x).unwrap().value(), plain.relu().value());
        let sum = plain.add(&shortcut).unwrap().relu();
        for (a, b) in norm.add_relu(&x, &shortcut).unwrap().value().data().iter().zip(sum.value().data()) {
            assert!((a - b).abs() < 1e-5);
        }
    }
}
