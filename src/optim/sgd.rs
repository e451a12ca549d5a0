//! Stochastic gradient descent.

use super::{Group, Optimizer, apply, check, groups::Groups, memory::Memory, setting};
use crate::{
    Error, Result, Tensor,
    autograd::{NamedTensors, Param, State, Updates},
    kernels::{Isa, SgdStep, sgd},
};

/// Stochastic gradient descent with momentum, as `torch.optim.SGD` computes it:
///
/// ```text
/// g <- g + weight_decay p                        an L2 penalty, so it goes through the momentum
/// v <- momentum v + (1 - dampening) g            v = g at a parameter's first step
/// p <- p - lr v                                  with Nesterov: p - lr (g + momentum v)
/// ```
///
/// Nesterov's form is that of Sutskever et al. 2013 (section 2, rewritten in terms of the point that is evaluated).
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::{Param, Tape}, optim::{Optimizer, Sgd}};
/// let mut weight = Param::new(Tensor::scalar(3.0));
/// let mut sgd = Sgd::new(0.1).momentum(0.9);
/// for expected in [2.4, 1.38] {                              // 3 - 0.1 * 6, then 2.4 - 0.1 * (0.9 * 6 + 4.8)
///     let tape = Tape::train(Rng::seed(0));
///     let w = tape.param(&weight);
///     sgd.step(&mut weight, w.mul(&w)?.backward()?)?;
///     assert!((weight.value().item() - expected).abs() < 1e-6);
/// }
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Sgd {
    lr: f32,
    momentum: f32,
    dampening: f32,
    nesterov: bool,
    weight_decay: f32,
    groups: Groups,
    memory: Memory<1>,
}

impl Sgd {
    /// Plain gradient descent with learning rate `lr`, at least 0.
    pub fn new(lr: f32) -> Sgd {
        Sgd {
            lr,
            momentum: 0.0,
            dampening: 0.0,
            nesterov: false,
            weight_decay: 0.0,
            groups: Groups::default(),
            memory: Memory::new(["momentum_buffer"]),
        }
    }

    /// How much of the last step's velocity is kept, in [0, 1); 0 by default.
    pub fn momentum(self, momentum: f32) -> Sgd {
        Sgd { momentum, ..self }
    }

    /// How much of the gradient the velocity leaves out, in [0, 1); 0 by default.
    pub fn dampening(self, dampening: f32) -> Sgd {
        Sgd { dampening, ..self }
    }

    /// Nesterov's momentum: looks one step of the velocity ahead. Needs a momentum, and no dampening.
    pub fn nesterov(self, nesterov: bool) -> Sgd {
        Sgd { nesterov, ..self }
    }

    /// The weight of the L2 penalty, at least 0; 0 by default.
    pub fn weight_decay(self, weight_decay: f32) -> Sgd {
        Sgd { weight_decay, ..self }
    }

    /// No weight decay on the parameters of at most one axis: biases, scales and shifts of norms.
    pub fn no_decay_on_norms_and_biases(mut self) -> Sgd {
        self.groups.add_no_decay();
        self
    }

    /// Treats the parameters that `member` accepts, by name and value, differently.
    ///
    /// ```
    /// use skipgrad::optim::{Group, Sgd};
    /// let sgd = Sgd::new(0.01)
    ///     .weight_decay(1e-4)
    ///     .no_decay_on_norms_and_biases()
    ///     .group(|name, _| name.starts_with("fc."), Group { lr_scale: 10.0, ..Group::default() });
    /// # let _ = sgd;
    /// ```
    pub fn group(
        mut self,
        member: impl Fn(&str, &Param) -> bool + Send + Sync + 'static,
        group: Group,
    ) -> Sgd {
        self.groups.add(member, group);
        self
    }

    fn check_settings(&self) -> Result<()> {
        setting("sgd", "lr", self.lr, 0.0..f32::INFINITY)?;
        setting("sgd", "momentum", self.momentum, 0.0..1.0)?;
        setting("sgd", "dampening", self.dampening, 0.0..1.0)?;
        setting("sgd", "weight_decay", self.weight_decay, 0.0..f32::INFINITY)?;
        if self.nesterov && (self.momentum == 0.0 || self.dampening != 0.0) {
            let found = format!("momentum {} and dampening {}", self.momentum, self.dampening);
            return Err(Error::argument("sgd", "nesterov", "a momentum and no dampening", found));
        }
        self.groups.check("sgd")
    }
}

impl Optimizer for Sgd {
    fn step(&mut self, model: &mut dyn State, updates: Updates) -> Result<()> {
        self.check_settings()?;
        check(model, &updates)?;
        self.memory.check(model)?;
        apply(model, updates, |name, param, gradient| {
            let (lr, weight_decay) = self.groups.settings(name, param, self.lr, self.weight_decay);
            let step = SgdStep {
                lr: lr.into(),
                momentum: self.momentum.into(),
                dampening: self.dampening.into(),
                nesterov: self.nesterov,
                weight_decay: weight_decay.into(),
                first: !self.memory.contains(name),
            };
            let velocity = (self.momentum != 0.0).then(|| {
                // At the first step the kernel writes the velocity and does not read it.
                let [velocity] =
                    self.memory.get_or_insert(name, || [Tensor::build(*gradient.shape(), |_| ())]);
                velocity.data_mut()
            });
            sgd(Isa::active(), step, param.value_mut().data_mut(), gradient.data(), velocity);
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
        self.memory.export()
    }

    fn import(&mut self, model: &dyn State, tensors: NamedTensors) -> Result<()> {
        self.memory.import(model, tensors)
    }
}
