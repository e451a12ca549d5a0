//! Adam, and what it has in common with AdamW.

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

/// The way in which weight decay acts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Decay {
    /// As an L2 penalty, a part of the gradient: Adam.
    Coupled,
    /// On the parameter itself, apart from the moments: AdamW.
    Decoupled,
}

/// The settings and the state of [`Adam`] and of [`AdamW`](super::AdamW), which differ in their
/// weight decay only.
#[derive(Clone, Debug)]
pub(super) struct Moments {
    op: &'static str,
    decay: Decay,
    pub(super) lr: f32,
    pub(super) betas: [f32; 2],
    pub(super) eps: f32,
    pub(super) weight_decay: f32,
    pub(super) groups: Groups,
    pub(super) state: ParamState<3>,
}

impl Moments {
    pub(super) fn new(op: &'static str, decay: Decay, lr: f32, weight_decay: f32) -> Moments {
        Moments {
            op,
            decay,
            lr,
            betas: [0.9, 0.999],
            eps: 1e-8,
            weight_decay,
            groups: Groups::default(),
            state: ParamState::new([STEP, "exp_avg", "exp_avg_sq"]),
        }
    }

    /// Checks settings, groups and state for a model, as [`Optimizer::check`].
    pub(super) fn check(&self, model: &dyn State) -> Result<()> {
        let Moments { op, lr, betas: [beta1, beta2], eps, weight_decay, .. } = *self;
        setting(op, "lr", lr, 0.0..f32::INFINITY)?;
        setting(op, "beta1", beta1, 0.0..1.0)?;
        setting(op, "beta2", beta2, 0.0..1.0)?;
        setting(op, "eps", eps, 0.0..f32::INFINITY)?;
        setting(op, "weight_decay", weight_decay, 0.0..f32::INFINITY)?;
        self.groups.check(op, model)?;
        self.state.check(model)
    }

    /// Returns the settings, as [`Optimizer::settings`].
    pub(super) fn named_settings(&self, model: &dyn State) -> NamedSettings {
        let settings = [
            ("betas", format!("{:?}", self.betas)),
            ("eps", self.eps.to_string()),
            ("weight_decay", self.weight_decay.to_string()),
        ];
        named(self.op, settings, &self.groups, model)
    }

    pub(super) fn step(&mut self, model: &mut dyn State, updates: Updates) -> Result<()> {
        self.check(model)?;
        check(model, &updates)?;
        apply(model, updates, |name, param, gradient| {
            let settings = self.groups.settings(name, param, self.lr, self.weight_decay);
            self.update(name, param, gradient, settings);
        });
        Ok(())
    }

    /// Updates a parameter with its learning rate and its weight decay.
    pub(super) fn update(
        &mut self,
        name: &str,
        param: &mut Param,
        mut gradient: Tensor,
        (lr, weight_decay): (f32, f32),
    ) {
        let [beta1, beta2] = self.betas.map(f64::from);
        let [count, m, v] = self.state.get_or_insert(name, || {
            let zeros = Tensor::build(*gradient.shape(), |z| z.fill(0.0));
            [Tensor::scalar(0.0), zeros.clone(), zeros]
        });
        // The count is an f32 as in PyTorch; it is exact for 16 million steps.
        count.data_mut()[0] += 1.0;
        if self.decay == Decay::Coupled && weight_decay != 0.0 {
            gradient.axpy(weight_decay, param.value());
        }
        let step = AdamWStep {
            lr: lr.into(),
            beta1,
            beta2,
            eps: self.eps.into(),
            weight_decay: if self.decay == Decay::Decoupled { weight_decay.into() } else { 0.0 },
            step: count.item() as u64,
        };
        let parameter = param.value_mut().data_mut();
        adamw(Isa::active(), step, parameter, gradient.data(), m.data_mut(), v.data_mut());
    }
}

/// The settings, and the trait, that [`Adam`] and [`AdamW`](super::AdamW) share.
macro_rules! moments_optimizer {
    ($name:ident) => {
        impl $name {
            /// Sets the decay rates of the first and of the second moment, each in [0, 1); 0.9 and
            /// 0.999 by default.
            pub fn betas(mut self, beta1: f32, beta2: f32) -> $name {
                self.0.betas = [beta1, beta2];
                self
            }

            /// Sets the term that is added to the square root of the second moment, at least 0;
            /// 1e-8 by default (Keras has 1e-7).
            pub fn eps(mut self, eps: f32) -> $name {
                self.0.eps = eps;
                self
            }

            /// Turns weight decay off for the parameters of at most one axis: biases, and the
            /// scales and shifts of normalizations.
            pub fn no_decay_on_norms_and_biases(mut self) -> $name {
                self.0.groups.add_no_decay();
                self
            }

            /// Adds a parameter group; see [`Sgd::group`](super::Sgd::group).
            pub fn group(
                mut self,
                predicate: impl Fn(&str, &Param) -> bool + Send + Sync + 'static,
                group: Group,
            ) -> $name {
                self.0.groups.add(predicate, group);
                self
            }

            /// Gives each layer a learning rate of its own; see
            /// [`Sgd::layer_decay`](super::Sgd::layer_decay).
            pub fn layer_decay<'a, L>(mut self, decay: f32, layers: impl IntoIterator<Item = L>) -> $name
            where
                L: IntoIterator<Item = &'a str>,
            {
                self.0.groups.add_layer_decay(decay, layers);
                self
            }
        }

        impl Optimizer for $name {
            fn check(&self, model: &dyn State) -> Result<()> {
                self.0.check(model)
            }

            fn settings(&self, model: &dyn State) -> NamedSettings {
                self.0.named_settings(model)
            }

            fn step(&mut self, model: &mut dyn State, updates: Updates) -> Result<()> {
                self.0.step(model, updates)
            }

            fn lr(&self) -> f32 {
                self.0.lr
            }

            fn set_lr(&mut self, lr: f32) {
                self.0.lr = lr;
            }

            fn export(&self) -> NamedTensors {
                self.0.state.export()
            }

            fn import(&mut self, model: &dyn State, tensors: NamedTensors) -> Result<()> {
                self.0.state.import(model, tensors)
            }
        }
    };
}
pub(super) use moments_optimizer;

/// Adam (Kingma and Ba 2015, "Adam: a method for stochastic optimization", algorithm 1), as
/// `torch.optim.Adam` computes it:
///
/// ```text
/// g <- g + weight_decay p                  L2 penalty, which the moments include
/// m <- beta1 m + (1 - beta1) g
/// v <- beta2 v + (1 - beta2) g^2
/// p <- p - lr m^ / (sqrt(v^) + eps)        m^ = m / (1 - beta1^t), v^ = v / (1 - beta2^t)
/// ```
///
/// The step `t` is counted from 1, for each parameter separately. [`AdamW`](super::AdamW) decays
/// the weights apart from the moments, which generalizes better where there is weight decay.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::{Param, Tape}, optim::{Adam, Optimizer}};
/// let mut weight = Param::new(Tensor::scalar(3.0));
/// let mut adam = Adam::new(0.1);
/// let tape = Tape::train(Rng::seed(0));
/// let w = tape.param(&weight);
/// adam.step(&mut weight, w.mul(&w)?.backward()?)?;
/// // The first step is lr times the sign of the gradient.
/// assert!((weight.value().item() - 2.9).abs() < 1e-6);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Adam(Moments);

impl Adam {
    /// Creates Adam with the learning rate `lr`, at least 0, and PyTorch's defaults: betas 0.9 and
    /// 0.999, eps 1e-8, no weight decay.
    pub fn new(lr: f32) -> Adam {
        Adam(Moments::new("adam", Decay::Coupled, lr, 0.0))
    }

    /// Sets the weight decay, the factor of the L2 penalty, at least 0; 0 by default.
    pub fn weight_decay(mut self, weight_decay: f32) -> Adam {
        self.0.weight_decay = weight_decay;
        self
    }
}

moments_optimizer!(Adam);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rng, autograd::Tape, optim::AdamW};

    /// The formulas above, in f64, for the sum of `a p^2 / 2`.
    fn oracle(p: f64, a: f64, [lr, beta1, beta2, eps, decay]: [f64; 5], steps: i32) -> f64 {
        let (mut p, mut m, mut v) = (p, 0.0, 0.0);
        for t in 1..=steps {
            let g = a * p + decay * p;
            m = beta1 * m + (1.0 - beta1) * g;
            v = beta2 * v + (1.0 - beta2) * g * g;
            let (m, v) = (m / (1.0 - beta1.powi(t)), v / (1.0 - beta2.powi(t)));
            p -= lr * m / (v.sqrt() + eps);
        }
        p
    }

    fn run(optimizer: &mut dyn Optimizer, values: &[f32], factors: &[f32], steps: i32) -> Vec<f32> {
        let mut param = Param::new(Tensor::new([values.len()], values).unwrap());
        for _ in 0..steps {
            let tape = Tape::train(Rng::seed(0));
            let p = tape.param(&param);
            let a = tape.input(Tensor::new([factors.len()], factors).unwrap());
            let loss = p.mul(&p).unwrap().mul(&a).unwrap().sum().scale(0.5);
            optimizer.step(&mut param, loss.backward().unwrap()).unwrap();
        }
        param.value().data().to_vec()
    }

    #[test]
    fn it_is_the_algorithm() {
        let (values, factors) = ([3.0, -0.5, 1e-3, 7.0], [1.0, 2.0, 30.0, 1e-3]);
        for settings in [[0.1, 0.9, 0.999, 1e-8, 0.0], [0.02, 0.8, 0.95, 1e-3, 0.1]] {
            let [lr, beta1, beta2, eps, decay] = settings.map(|x| x as f32);
            let mut adam = Adam::new(lr).betas(beta1, beta2).eps(eps).weight_decay(decay);
            for ((found, p), a) in run(&mut adam, &values, &factors, 25).iter().zip(values).zip(factors) {
                let expected = oracle(p.into(), a.into(), settings, 25);
                assert!((f64::from(*found) - expected).abs() < 2e-5, "{settings:?}: {found} {expected}");
            }
        }
    }

    #[test]
    fn without_decay_it_is_adamw() {
        let (values, factors) = ([3.0, -0.5], [1.0, 2.0]);
        let adam = run(&mut Adam::new(0.1), &values, &factors, 9);
        assert_eq!(adam, run(&mut AdamW::new(0.1).weight_decay(0.0), &values, &factors, 9));
        let decayed = run(&mut Adam::new(0.1).weight_decay(0.1), &values, &factors, 9);
        assert_ne!(decayed, run(&mut AdamW::new(0.1).weight_decay(0.1), &values, &factors, 9));
    }

    #[test]
    fn a_group_without_decay_has_none() {
        let none = Group::new().weight_decay(0.0);
        let mut grouped = Adam::new(0.1).weight_decay(0.1).group(|_, _| true, none);
        assert_eq!(run(&mut grouped, &[3.0], &[1.0], 5), run(&mut Adam::new(0.1), &[3.0], &[1.0], 5));
        let mut norms = Adam::new(0.1).weight_decay(0.1).no_decay_on_norms_and_biases();
        assert_eq!(run(&mut norms, &[3.0], &[1.0], 5), run(&mut Adam::new(0.1), &[3.0], &[1.0], 5));
    }
}
