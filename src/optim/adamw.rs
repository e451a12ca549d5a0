//! Adam with decoupled weight decay.

use super::{
    Group, NamedSettings, Optimizer,
    adam::{Decay, Moments, moments_optimizer},
};
use crate::{
    Result,
    autograd::{NamedTensors, Param, State, Updates},
};

/// Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2), as
/// `torch.optim.AdamW` computes it:
///
/// ```text
/// p <- p - lr weight_decay p               decoupled: the moments do not include the decay
/// m <- beta1 m + (1 - beta1) g
/// v <- beta2 v + (1 - beta2) g^2
/// p <- p - lr m^ / (sqrt(v^) + eps)        m^ = m / (1 - beta1^t), v^ = v / (1 - beta2^t)
/// ```
///
/// The step `t` is counted from 1, for each parameter separately.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::{Param, Tape}, optim::{AdamW, Optimizer}};
/// let mut weight = Param::new(Tensor::scalar(3.0));
/// let mut adamw = AdamW::new(0.1).weight_decay(0.0);
/// let tape = Tape::train(Rng::seed(0));
/// let w = tape.param(&weight);
/// adamw.step(&mut weight, w.mul(&w)?.backward()?)?;
/// // The first step is lr times the sign of the gradient.
/// assert!((weight.value().item() - 2.9).abs() < 1e-6);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct AdamW(Moments);

impl AdamW {
    /// Creates AdamW with the learning rate `lr`, at least 0, and PyTorch's defaults: betas 0.9 and
    /// 0.999, eps 1e-8, weight decay 0.01.
    pub fn new(lr: f32) -> AdamW {
        AdamW(Moments::new("adamw", Decay::Decoupled, lr, 0.01))
    }

    /// Sets the weight decay, at least 0: a step shrinks a parameter by the factor
    /// `1 - lr weight_decay`.
    pub fn weight_decay(mut self, weight_decay: f32) -> AdamW {
        self.0.weight_decay = weight_decay;
        self
    }
}

moments_optimizer!(AdamW);
