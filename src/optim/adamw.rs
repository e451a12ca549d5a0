//! Adam with decoupled weight decay.

use super::{
    Group, NamedSettings, Optimizer, apply, check,
    groups::Groups,
    named,
    param_state::{ParamState, STEP},
    setting,
};
use crate::{
    Result, Tensor,
    autograd::{NamedTensors, Param, State, Updates},
    kernels::{AdamWStep, Isa, adamw},
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
pub struct AdamW {
    lr: f32,
    betas: [f32; 2],
    eps: f32,
    weight_decay: f32,
    groups: Groups,
    state: ParamState<3>,
}

impl AdamW {
    /// Creates AdamW with the learning rate `lr`, at least 0, and PyTorch's defaults: betas 0.9 and
    /// 0.999, eps 1e-8, weight decay 0.01.
    pub fn new(lr: f32) -> AdamW {
        AdamW {
            lr,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay: 0.01,
            groups: Groups::default(),
            state: ParamState::new([STEP, "exp_avg", "exp_avg_sq"]),
        }
    }

    /// Sets the decay rates of the first and of the second moment, each in [0, 1).
    pub fn betas(self, beta1: f32, beta2: f32) -> AdamW {
        AdamW { betas: [beta1, beta2], ..self }
    }

    /// Sets the term that is added to the square root of the second moment, at least 0.
    pub fn eps(self, eps: f32) -> AdamW {
        AdamW { eps, ..self }
    }

    /// Sets the weight decay, at least 0: a step shrinks a parameter by the factor
    /// `1 - lr weight_decay`.
    pub fn weight_decay(self, weight_decay: f32) -> AdamW {
        AdamW { weight_decay, ..self }
    }

    /// Turns weight decay off for the parameters of at most one axis: biases, and the scales and
    /// shifts of normalizations.
    pub fn no_decay_on_norms_and_biases(mut self) -> AdamW {
        self.groups.add_no_decay();
        self
    }

    /// Adds a parameter group; see [`Sgd::group`](super::Sgd::group).
    pub fn group(
        mut self,
        predicate: impl Fn(&str, &Param) -> bool + Send + Sync + 'static,
        group: Group,
    ) -> AdamW {
        self.groups.add(predicate, group);
        self
    }
}

impl Optimizer for AdamW {
    fn check(&self, model: &dyn State) -> Result<()> {
        setting("adamw", "lr", self.lr, 0.0..f32::INFINITY)?;
        setting("adamw", "beta1", self.betas[0], 0.0..1.0)?;
        setting("adamw", "beta2", self.betas[1], 0.0..1.0)?;
        setting("adamw", "eps", self.eps, 0.0..f32::INFINITY)?;
        setting("adamw", "weight_decay", self.weight_decay, 0.0..f32::INFINITY)?;
        self.groups.check("adamw", model)?;
        self.state.check(model)
    }

    fn settings(&self, model: &dyn State) -> NamedSettings {
        let settings = [
            ("betas", format!("{:?}", self.betas)),
            ("eps", self.eps.to_string()),
            ("weight_decay", self.weight_decay.to_string()),
        ];
        named("adamw", settings, &self.groups, model)
    }

    fn step(&mut self, model: &mut dyn State, updates: Updates) -> Result<()> {
        self.check(model)?;
        check(model, &updates)?;
        let [beta1, beta2] = self.betas.map(f64::from);
        apply(model, updates, |name, param, gradient| {
            let (lr, weight_decay) = self.groups.settings(name, param, self.lr, self.weight_decay);
            let [count, m, v] = self.state.get_or_insert(name, || {
                let zeros = Tensor::build(*gradient.shape(), |z| z.fill(0.0));
                [Tensor::scalar(0.0), zeros.clone(), zeros]
            });
            // The count is an f32 as in PyTorch; it is exact for 16 million steps.
            count.data_mut()[0] += 1.0;
            let step = AdamWStep {
                lr: lr.into(),
                beta1,
                beta2,
                eps: self.eps.into(),
                weight_decay: weight_decay.into(),
                step: count.item() as u64,
            };
            let parameter = param.value_mut().data_mut();
            adamw(Isa::active(), step, parameter, gradient.data(), m.data_mut(), v.data_mut());
        });
        Ok(())
    }

    fn lr(&self) -> f32 {
        self.lr
    }

    fn set_lr(&mut self, lr: f32) {
        self.lr = lr;
    }

    fn export(&self) -> NamedTensors {
        self.state.export()
    }

    fn import(&mut self, model: &dyn State, tensors: NamedTensors) -> Result<()> {
        self.state.import(model, tensors)
    }
}
