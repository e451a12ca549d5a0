//! Optimizers ([`Sgd`], [`Adam`], [`AdamW`], [`Lion`], [`Muon`]), parameter groups and
//! learning-rate schedules.
//!
//! An optimizer works on named state ([`State`]) and knows no layers. Its own state is keyed by the
//! names of the parameters, so that it can be saved and loaded for another instance of the model.
//!
//! ```
//! use skipgrad::{Rng, Tensor, autograd::{Param, Tape}, optim::{Optimizer, Schedule, Sgd}};
//! let mut weight = Param::new(Tensor::new([2], [4.0, -2.0])?);
//! let schedule = Schedule::cosine(0.4, 30);
//! let mut sgd = Sgd::new(schedule.lr(0)).momentum(0.5);
//! for step in 0..30 {
//!     sgd.set_lr(schedule.lr(step));
//!     let tape = Tape::train(Rng::seed(0));
//!     let w = tape.param(&weight);
//!     sgd.step(&mut weight, w.mul(&w)?.sum().backward()?)?;    // minimizes the sum of squares
//! }
//! assert!(weight.value().data().iter().all(|w| w.abs() < 1e-3));
//! # Ok::<(), skipgrad::Error>(())
//! ```

mod adam;
mod adamw;
mod groups;
mod lion;
mod muon;
mod param_state;
mod plateau;
mod schedule;
mod sgd;

pub use adam::Adam;
pub use adamw::AdamW;
pub use groups::Group;
pub use lion::Lion;
pub use muon::Muon;
pub use plateau::Plateau;
pub(crate) use schedule::null_as_infinity;
pub use schedule::{Curve, Schedule};
pub use sgd::Sgd;

use crate::{
    At, Error, Result, Tensor,
    autograd::{NamedTensors, Param, State, StateMut, StateRef, Updates},
};
use std::collections::BTreeMap;

/// The settings of an optimizer by name, as text; see [`Optimizer::settings`].
pub type NamedSettings = BTreeMap<String, String>;

/// An algorithm that updates the parameters of a model from the gradients of a loss.
pub trait Optimizer {
    /// Updates every trainable parameter of `model` from its gradient, in place, and sets every
    /// buffer to the value that the forward pass observed for it.
    ///
    /// Gradients are not checked: one that is not finite makes its parameter not finite, as in
    /// PyTorch. The loss, or the norm that [`Updates::clip_global_norm`] returns, tells before the
    /// step.
    ///
    /// # Errors
    /// Those of [`Optimizer::check`]; [`Error::NoGradient`] for a trainable parameter without a
    /// gradient; [`Error::NotInState`] for one with a gradient that `model` does not name (see
    /// [`Updates::check_named`] for a step of a part of a model); [`Error::ShapeMismatch`] for an
    /// observed value whose shape is not that of the model's buffer. The model and the optimizer
    /// are unchanged then.
    fn step(&mut self, model: &mut dyn State, updates: Updates) -> Result<()>;

    /// Checks what can be known before a step of this model: that the settings are in range, that
    /// every parameter group has parameters, and that the state fits. The default implementation
    /// checks nothing.
    ///
    /// # Errors
    /// [`Error::Argument`] for a setting out of range and for a group without parameters;
    /// [`Error::ShapeMismatch`] for a tensor of the optimizer's state whose shape is not that of
    /// its parameter.
    fn check(&self, _model: &dyn State) -> Result<()> {
        Ok(())
    }

    /// Returns the settings apart from the learning rate, by which a checkpoint tells whether a
    /// training is resumed with the same ones. The default implementation returns none.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Param, optim::{Optimizer, Sgd}};
    /// let settings = Sgd::new(0.1).momentum(0.9).settings(&Param::new(Tensor::scalar(1.0)));
    /// assert_eq!((&*settings["optimizer"], &*settings["momentum"]), ("sgd", "0.9"));
    /// ```
    fn settings(&self, _model: &dyn State) -> NamedSettings {
        NamedSettings::new()
    }

    /// Returns the learning rate.
    fn lr(&self) -> f32;

    /// Sets the learning rate of the following steps, for example to that of a [`Schedule`].
    fn set_lr(&mut self, lr: f32);

    /// Returns the state of the optimizer, each tensor named by its parameter and its role
    /// (`conv1.weight.momentum_buffer`), in the crate's own layout.
    fn export(&self) -> NamedTensors;

    /// Replaces the state of the optimizer by the one that [`Optimizer::export`] returned.
    ///
    /// # Errors
    /// [`Error::State`] that lists every tensor that belongs to no parameter of `model`, is missing
    /// or has another shape; the optimizer is unchanged then.
    fn import(&mut self, model: &dyn State, tensors: NamedTensors) -> Result<()>;
}

/// Checks that every trainable parameter has a gradient, that every observed value fits its buffer,
/// and that the model names all of them.
fn check(model: &dyn State, updates: &Updates) -> Result<()> {
    let mut result = Ok(());
    model.visit("", &mut |name, slot| {
        let found = match slot {
            _ if result.is_err() => return,
            StateRef::Param(param) if !param.is_trainable() => return,
            StateRef::Param(param) => match updates.grad(param) {
                None => Err(Error::NoGradient { name: name.to_string() }),
                Some(gradient) => same_shape("gradient", param.value(), gradient).at(name),
            },
            StateRef::Buffer(buffer) => match updates.observed(buffer) {
                None => return,
                Some(value) => same_shape("observed", buffer.value(), value).at(name),
            },
        };
        result = found;
    });
    result?;
    updates.check_named(model)
}

fn same_shape(argument: &'static str, expected: &Tensor, found: &Tensor) -> Result<()> {
    if expected.shape() == found.shape() {
        return Ok(());
    }
    Err(Error::shape("step", argument, expected.shape(), found.shape()))
}

/// Returns an error if a setting is not in `range`, which excludes its end.
fn setting(op: &'static str, argument: &'static str, value: f32, range: std::ops::Range<f32>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let expected = match range.end {
        f32::INFINITY => format!("a finite number of at least {}", range.start),
        end => format!("at least {} and below {end}", range.start),
    };
    Err(Error::argument(op, argument, expected, value))
}

/// Returns the settings of an optimizer by name, and its groups as the last one.
fn named<const N: usize>(
    optimizer: &str,
    settings: [(&str, String); N],
    groups: &groups::Groups,
    model: &dyn State,
) -> NamedSettings {
    let settings = settings.into_iter().map(|(name, value)| (name.to_string(), value));
    let kind = ("optimizer".to_string(), optimizer.to_string());
    let groups = ("groups".to_string(), groups.describe(model).join("; "));
    settings.chain([kind, groups]).collect()
}

/// Calls `update` with every trainable parameter and its gradient, and sets every buffer to its
/// observed value. [`check`] must have succeeded before.
fn apply(model: &mut dyn State, mut updates: Updates, mut update: impl FnMut(&str, &mut Param, Tensor)) {
    model.visit_mut("", &mut |name, slot| match slot {
        StateMut::Param(param) if param.is_trainable() => {
            if let Some(gradient) = updates.take_grad(param) {
                update(name, param, gradient);
            }
        }
        StateMut::Param(_) => {}
        StateMut::Buffer(buffer) => {
            if let Some(value) = updates.take_observed(buffer) {
                *buffer.value_mut() = value;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Rng,
        autograd::{Buffer, Tape, Var},
    };

    #[derive(State)]
    struct Net {
        first: Param,
        second: Param,
        seen: Buffer,
    }

    fn net() -> Net {
        let scalar = |x| Tensor::full([2], x).unwrap();
        Net {
            first: Param::new(scalar(1.0)),
            second: Param::new(scalar(2.0)),
            seen: Buffer::new(scalar(0.0)),
        }
    }

    /// The gradient of the first parameter is 1; that of the second is 3 if the loss depends on it.
    fn updates(net: &Net, reach_second: bool, observed: &Tensor) -> Updates {
        let tape = Tape::train(Rng::seed(0));
        tape.observe(&net.seen, observed.clone());
        let one = tape.input(Tensor::full([2], 1.0).unwrap());
        let three = tape.input(Tensor::full([2], 3.0).unwrap());
        let value = tape.param(&net.first).mul(&one).unwrap();
        let value = if reach_second {
            let other = tape.param(&net.second).mul(&three).unwrap();
            Var::op("add", [&value, &other], *value.shape(), |[a, b]| {
                let mut y = a.clone();
                y.axpy(1.0, b);
                (y, |dy: Tensor, _| [Some(dy.clone()), Some(dy)])
            })
            .unwrap()
        } else {
            value
        };
        value.sum().backward().unwrap()
    }

    fn optimizers() -> Vec<Box<dyn Optimizer>> {
        vec![
            Box::new(Sgd::new(0.1).momentum(0.9)),
            Box::new(Adam::new(0.1)),
            Box::new(AdamW::new(0.1)),
            Box::new(Lion::new(0.1)),
            Box::new(Muon::new(0.1)),
        ]
    }

    #[test]
    fn a_step_changes_parameters_and_buffers() {
        for mut optimizer in optimizers() {
            let mut net = net();
            let seen = Tensor::full([2], 7.0).unwrap();
            let updates = updates(&net, true, &seen);
            optimizer.step(&mut net, updates).unwrap();
            assert!(net.first.value().data()[0] < 1.0 && net.second.value().data()[1] < 2.0);
            assert_eq!(*net.seen.value(), seen);
        }
    }

    #[test]
    fn a_failed_step_changes_nothing_and_names_the_parameter() {
        for mut optimizer in optimizers() {
            let mut net = net();
            let before = net.export();
            let unreached = updates(&net, false, &Tensor::full([2], 7.0).unwrap());
            let error = optimizer.step(&mut net, unreached).unwrap_err();
            assert!(matches!(&error, Error::NoGradient { name } if name == "second"), "{error}");
            let misfit = updates(&net, true, &Tensor::zeros([3]).unwrap());
            let error = optimizer.step(&mut net, misfit).unwrap_err();
            assert_eq!(error.to_string(), "seen: step: observed: expected [2], found [3]");
            assert_eq!((net.export(), optimizer.export().len()), (before, 0));
        }
    }

    #[test]
    fn a_frozen_parameter_needs_no_gradient_and_keeps_its_value() {
        for mut optimizer in optimizers() {
            let mut net = net();
            net.second.set_trainable(false);
            let updates = updates(&net, false, &Tensor::zeros([2]).unwrap());
            optimizer.step(&mut net, updates).unwrap();
            assert_eq!(net.second.value().data(), [2.0, 2.0]);
            assert!(net.first.value().data()[0] < 1.0);
        }
    }

    #[test]
    fn a_parameter_that_the_model_does_not_name_is_an_error_unless_it_is_frozen() {
        #[derive(State)]
        struct Forgetful {
            first: Param,
            #[state(skip)]
            second: Param,
            seen: Buffer,
        }
        for mut optimizer in optimizers() {
            let Net { first, second, seen } = net();
            let mut model = Forgetful { first, second, seen };
            let pass = |model: &Forgetful| {
                let tape = Tape::train(Rng::seed(0));
                let second = tape.param(&model.second);
                tape.param(&model.first).mul(&second).unwrap().sum().backward().unwrap()
            };
            let (updates, before) = (pass(&model), model.export());
            let error = optimizer.step(&mut model, updates).unwrap_err();
            assert!(matches!(&error, Error::NotInState { op: "mul", .. }), "{error}");
            assert_eq!((model.export(), optimizer.export().len()), (before, 0));

            let mut updates = pass(&model);
            let of_second = updates.split_off(&model.second);
            optimizer.step(&mut model, updates).unwrap();
            assert_eq!(of_second.grad(&model.second).unwrap().data(), [1.0, 1.0]);
            model.second.set_trainable(false);
            let updates = pass(&model);
            optimizer.step(&mut model, updates).unwrap();
        }
    }

    #[test]
    fn weights_are_updated_in_place() {
        for mut optimizer in optimizers() {
            let mut net = net();
            let before = net.first.value().data().as_ptr();
            let updates = updates(&net, true, &Tensor::zeros([2]).unwrap());
            optimizer.step(&mut net, updates).unwrap();
            assert_eq!(net.first.value().data().as_ptr(), before);
        }
    }

    #[test]
    fn state_can_be_moved_to_another_optimizer() {
        let step = |optimizer: &mut dyn Optimizer, net: &mut Net| {
            let updates = updates(net, true, &Tensor::zeros([2]).unwrap());
            optimizer.step(net, updates).unwrap();
        };
        for (mut optimizer, mut fresh) in optimizers().into_iter().zip(optimizers()) {
            let mut net = net();
            (0..3).for_each(|_| step(&mut *optimizer, &mut net));
            let mut copy = self::net();
            copy.import(net.export()).unwrap();
            fresh.import(&copy, optimizer.export()).unwrap();
            step(&mut *optimizer, &mut net);
            step(&mut *fresh, &mut copy);
            assert_eq!(net.export(), copy.export());
            assert_eq!(optimizer.export(), fresh.export());
        }
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        let step_error = |mut optimizer: Box<dyn Optimizer>| {
            let mut net = net();
            let updates = updates(&net, true, &Tensor::zeros([2]).unwrap());
            let error = optimizer.step(&mut net, updates).unwrap_err().to_string();
            assert_eq!(net.first.value().data(), [1.0, 1.0], "{error}");
            error
        };
        assert_eq!(
            step_error(Box::new(Sgd::new(f32::NAN))),
            "sgd: lr: expected a finite number of at least 0, found NaN"
        );
        assert_eq!(
            step_error(Box::new(Sgd::new(0.1).momentum(1.0))),
            "sgd: momentum: expected at least 0 and below 1, found 1"
        );
        assert!(
            step_error(Box::new(Sgd::new(0.1).nesterov(true))).contains("sgd: nesterov: expected a momentum")
        );
        assert!(step_error(Box::new(AdamW::new(0.1).betas(0.9, 1.5))).contains("adamw: beta2"));
        assert!(step_error(Box::new(Lion::new(0.1).betas(1.0, 0.9))).contains("lion: beta1"));
        assert!(step_error(Box::new(Adam::new(0.1).eps(-1.0))).contains("adam: eps"));
        let group = Group::new().weight_decay(-1.0);
        assert!(step_error(Box::new(AdamW::new(0.1).group(|_, _| true, group))).contains("weight_decay"));
    }
}
