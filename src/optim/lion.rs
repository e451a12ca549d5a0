//! Lion: steps of the same size for all elements.

use super::{
    Group, NamedSettings, Optimizer, apply, check, groups::Groups, named, param_state::ParamState, setting,
};
use crate::{
    Result, Tensor,
    autograd::{NamedTensors, Param, State, Updates},
};

/// Lion (Chen et al. 2023, "Symbolic discovery of optimization algorithms", algorithm 2), as timm
/// computes it:
///
/// ```text
/// p <- p - lr weight_decay p                     decoupled
/// p <- p - lr sign(beta1 m + (1 - beta1) g)
/// m <- beta2 m + (1 - beta2) g
/// ```
///
/// It has one momentum where AdamW has two. Its learning rate should be 3 to 10 times lower than
/// that of AdamW, and its weight decay as many times larger.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::{Param, Tape}, optim::{Lion, Optimizer}};
/// let mut weight = Param::new(Tensor::scalar(3.0));
/// let mut lion = Lion::new(0.1);
/// let tape = Tape::train(Rng::seed(0));
/// let w = tape.param(&weight);
/// lion.step(&mut weight, w.mul(&w)?.backward()?)?;
/// assert_eq!(weight.value().item(), 2.9);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Lion {
    lr: f32,
    betas: [f32; 2],
    weight_decay: f32,
    groups: Groups,
    state: ParamState<1>,
}

impl Lion {
    /// Creates Lion with the learning rate `lr`, at least 0, betas 0.9 and 0.99, and no weight
    /// decay.
    pub fn new(lr: f32) -> Lion {
        Lion {
            lr,
            betas: [0.9, 0.99],
            weight_decay: 0.0,
            groups: Groups::default(),
            state: ParamState::new(["exp_avg"]),
        }
    }

    /// Sets the weights of the momentum in a step and in its own update, each in [0, 1).
    pub fn betas(self, beta1: f32, beta2: f32) -> Lion {
        Lion { betas: [beta1, beta2], ..self }
    }

    /// Sets the weight decay, at least 0: a step shrinks a parameter by the factor
    /// `1 - lr weight_decay`.
    pub fn weight_decay(self, weight_decay: f32) -> Lion {
        Lion { weight_decay, ..self }
    }

    /// Turns weight decay off for the parameters of at most one axis: biases, and the scales and
    /// shifts of normalizations.
    pub fn no_decay_on_norms_and_biases(mut self) -> Lion {
        self.groups.add_no_decay();
        self
    }

    /// Adds a parameter group; see [`Sgd::group`](super::Sgd::group).
    pub fn group(
        mut self,
        predicate: impl Fn(&str, &Param) -> bool + Send + Sync + 'static,
        group: Group,
    ) -> Lion {
        self.groups.add(predicate, group);
        self
    }

    /// Gives each layer a learning rate of its own; see
    /// [`Sgd::layer_decay`](super::Sgd::layer_decay).
    pub fn layer_decay<'a, L>(mut self, decay: f32, layers: impl IntoIterator<Item = L>) -> Lion
    where
        L: IntoIterator<Item = &'a str>,
    {
        self.groups.add_layer_decay(decay, layers);
        self
    }
}

impl Optimizer for Lion {
    fn check(&self, model: &dyn State) -> Result<()> {
        setting("lion", "lr", self.lr, 0.0..f32::INFINITY)?;
        setting("lion", "beta1", self.betas[0], 0.0..1.0)?;
        setting("lion", "beta2", self.betas[1], 0.0..1.0)?;
        setting("lion", "weight_decay", self.weight_decay, 0.0..f32::INFINITY)?;
        self.groups.check("lion", model)?;
        self.state.check(model)
    }

    fn settings(&self, model: &dyn State) -> NamedSettings {
        let settings =
            [("betas", format!("{:?}", self.betas)), ("weight_decay", self.weight_decay.to_string())];
        named("lion", settings, &self.groups, model)
    }

    fn step(&mut self, model: &mut dyn State, updates: Updates) -> Result<()> {
        self.check(model)?;
        check(model, &updates)?;
        let [beta1, beta2] = self.betas;
        apply(model, updates, |name, param, gradient| {
            let (lr, weight_decay) = self.groups.settings(name, param, self.lr, self.weight_decay);
            let [momentum] = self
                .state
                .get_or_insert(name, || [Tensor::build(*gradient.shape(), |zeros| zeros.fill(0.0))]);
            let shrink = 1.0 - lr * weight_decay;
            let elements = param.value_mut().data_mut().iter_mut().zip(momentum.data_mut());
            for ((p, m), g) in elements.zip(gradient.data()) {
                let direction = beta1 * *m + (1.0 - beta1) * g;
                // The sign of 0 is 0.
                let sign = if direction == 0.0 { direction } else { direction.signum() };
                *p = *p * shrink - lr * sign;
                *m = beta2 * *m + (1.0 - beta2) * g;
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rng, autograd::Tape};

    /// The formulas above, in f64, for the sum of `a p^2 / 2`.
    fn oracle(p: f64, a: f64, [lr, beta1, beta2, decay]: [f64; 4], steps: usize) -> f64 {
        let (mut p, mut m) = (p, 0.0);
        for _ in 0..steps {
            let g = a * p;
            p *= 1.0 - lr * decay;
            p -= lr * f64::signum(beta1 * m + (1.0 - beta1) * g);
            m = beta2 * m + (1.0 - beta2) * g;
        }
        p
    }

    #[test]
    fn it_is_the_algorithm() {
        let (values, factors) = ([3.0f32, -0.5, 1e-3, 7.0], [1.0f32, 2.0, 30.0, 1e-3]);
        for settings in [[0.1, 0.9, 0.99, 0.0], [0.03, 0.8, 0.95, 0.5]] {
            let [lr, beta1, beta2, decay] = settings.map(|x| x as f32);
            let mut lion = Lion::new(lr).betas(beta1, beta2).weight_decay(decay);
            let mut param = Param::new(Tensor::new([4], values).unwrap());
            for _ in 0..20 {
                let tape = Tape::train(Rng::seed(0));
                let (p, a) = (tape.param(&param), tape.input(Tensor::new([4], factors).unwrap()));
                let loss = p.mul(&p).unwrap().mul(&a).unwrap().sum().scale(0.5);
                lion.step(&mut param, loss.backward().unwrap()).unwrap();
            }
            for ((found, p), a) in param.value().data().iter().zip(values).zip(factors) {
                let expected = oracle(p.into(), a.into(), settings, 20);
                assert!((f64::from(*found) - expected).abs() < 1e-5, "{settings:?}: {found} {expected}");
            }
        }
    }

    #[test]
    fn without_a_gradient_nothing_moves() {
        let mut param = Param::new(Tensor::zeros([2]).unwrap());
        let tape = Tape::train(Rng::seed(0));
        let p = tape.param(&param);
        let updates = p.mul(&p).unwrap().sum().backward().unwrap();
        Lion::new(0.1).step(&mut param, updates).unwrap();
        assert_eq!(param.value().data(), [0.0, 0.0]);
    }
}
