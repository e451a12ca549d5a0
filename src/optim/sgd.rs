//! Stochastic gradient descent.

use super::{
    Group, NamedSettings, Optimizer, apply, check, groups::Groups, named, param_state::ParamState, setting,
};
use crate::{
    Error, Result, Tensor,
    autograd::{NamedTensors, Param, State, Updates},
    kernels::{Isa, SgdStep, sgd},
};

/// Stochastic gradient descent with momentum, as `torch.optim.SGD` computes it:
///
/// ```text
/// g <- g + weight_decay p                  L2 penalty, which the momentum includes
/// v <- momentum v + (1 - dampening) g      v = g at the first step of a parameter
/// p <- p - lr v                            with Nesterov momentum: p - lr (g + momentum v)
/// ```
///
/// Nesterov momentum has the form of Sutskever et al. 2013 (section 2), rewritten in terms of the
/// point at which the gradient is evaluated.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::{Param, Tape}, optim::{Optimizer, Sgd}};
/// let mut weight = Param::new(Tensor::scalar(3.0));
/// let mut sgd = Sgd::new(0.1).momentum(0.9);
/// for expected in [2.4, 1.38] {              // 3 - 0.1 * 6, then 2.4 - 0.1 * (0.9 * 6 + 4.8)
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
    state: ParamState<1>,
}

impl Sgd {
    /// Creates plain gradient descent with the learning rate `lr`, at least 0.
    pub fn new(lr: f32) -> Sgd {
        Sgd {
            lr,
            momentum: 0.0,
            dampening: 0.0,
            nesterov: false,
            weight_decay: 0.0,
            groups: Groups::default(),
            state: ParamState::new(["momentum_buffer"]),
        }
    }

    /// Sets the momentum, the factor of the previous velocity, in [0, 1); 0 by default.
    pub fn momentum(self, momentum: f32) -> Sgd {
        Sgd { momentum, ..self }
    }

    /// Sets the dampening, in [0, 1): the velocity takes up `1 - dampening` of the gradient; 0 by
    /// default.
    pub fn dampening(self, dampening: f32) -> Sgd {
        Sgd { dampening, ..self }
    }

    /// Enables Nesterov momentum, which requires a momentum above 0 and a dampening of 0.
    pub fn nesterov(self, nesterov: bool) -> Sgd {
        Sgd { nesterov, ..self }
    }

    /// Sets the weight decay, the factor of the L2 penalty, at least 0; 0 by default.
    pub fn weight_decay(self, weight_decay: f32) -> Sgd {
        Sgd { weight_decay, ..self }
    }

    /// Turns weight decay off for the parameters of at most one axis: biases, and the scales and
    /// shifts of normalizations.
    pub fn no_decay_on_norms_and_biases(mut self) -> Sgd {
        self.groups.add_no_decay();
        self
    }

    /// Adds a parameter group: `group` holds for the parameters for which `predicate` returns
    /// `true`, given the name and the parameter.
    ///
    /// ```
    /// use skipgrad::optim::{Group, Sgd};
    /// let sgd = Sgd::new(0.01)
    ///     .weight_decay(1e-4)
    ///     .no_decay_on_norms_and_biases()
    ///     .group(|name, _| name.starts_with("fc."), Group::new().lr_scale(10.0));
    /// # let _ = sgd;
    /// ```
    pub fn group(
        mut self,
        predicate: impl Fn(&str, &Param) -> bool + Send + Sync + 'static,
        group: Group,
    ) -> Sgd {
        self.groups.add(predicate, group);
        self
    }

    /// Gives each layer a learning rate of its own, as timm's `layer_decay` does: `decay` times
    /// that of the next layer. `layers` has the names of the modules of each, from the input to the
    /// head; what is in none has the learning rate of the last one.
    ///
    /// ```
    /// use skipgrad::{models::ResNet, optim::{Optimizer, Sgd}, prelude::*};
    /// let model = ResNet::cifar_paper(20, 10, &mut Rng::seed(0))?;
    /// let stem = vec!["conv1", "bn1"];
    /// let layers = [stem, vec!["layer1"], vec!["layer2"], vec!["layer3"], vec!["fc"]];
    /// let sgd = Sgd::new(0.01).layer_decay(0.5, layers);
    /// assert!(sgd.settings(&model)["groups"].starts_with("Group { lr_scale: 0.0625"));
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn layer_decay<'a, L>(mut self, decay: f32, layers: impl IntoIterator<Item = L>) -> Sgd
    where
        L: IntoIterator<Item = &'a str>,
    {
        self.groups.add_layer_decay(decay, layers);
        self
    }
}

impl Optimizer for Sgd {
    fn check(&self, model: &dyn State) -> Result<()> {
        setting("sgd", "lr", self.lr, 0.0..f32::INFINITY)?;
        setting("sgd", "momentum", self.momentum, 0.0..1.0)?;
        setting("sgd", "dampening", self.dampening, 0.0..1.0)?;
        setting("sgd", "weight_decay", self.weight_decay, 0.0..f32::INFINITY)?;
        if self.nesterov && (self.momentum == 0.0 || self.dampening != 0.0) {
            let found = format!("momentum {} and dampening {}", self.momentum, self.dampening);
            return Err(Error::argument("sgd", "nesterov", "a momentum and no dampening", found));
        }
        self.groups.check("sgd", model)?;
        self.state.check(model)
    }

    fn settings(&self, model: &dyn State) -> NamedSettings {
        let settings = [
            ("momentum", self.momentum.to_string()),
            ("dampening", self.dampening.to_string()),
            ("nesterov", self.nesterov.to_string()),
            ("weight_decay", self.weight_decay.to_string()),
        ];
        named("sgd", settings, &self.groups, model)
    }

    fn step(&mut self, model: &mut dyn State, updates: Updates) -> Result<()> {
        self.check(model)?;
        check(model, &updates)?;
        apply(model, updates, |name, param, gradient| {
            let (lr, weight_decay) = self.groups.settings(name, param, self.lr, self.weight_decay);
            let step = SgdStep {
                lr: lr.into(),
                momentum: self.momentum.into(),
                dampening: self.dampening.into(),
                nesterov: self.nesterov,
                weight_decay: weight_decay.into(),
                first: !self.state.contains(name),
            };
            let velocity = (self.momentum != 0.0).then(|| {
                // At the first step the kernel writes the velocity without reading it.
                let [velocity] =
                    self.state.get_or_insert(name, || [Tensor::build(*gradient.shape(), |_| ())]);
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
        self.state.export()
    }

    fn import(&mut self, model: &dyn State, tensors: NamedTensors) -> Result<()> {
        self.state.import(model, tensors)
    }
}
