//! Exponential moving averages of weights and statistics.

use crate::{
    Error, Result,
    autograd::{NamedTensors, State},
};
use serde::{Deserialize, Serialize};

/// How the weights of a model are averaged over the steps of a training (Polyak and Juditsky 1992),
/// as timm's `ModelEmaV3` does:
///
/// ```text
/// average <- decay average + (1 - decay) weights
/// ```
///
/// Running statistics are averaged too. The first updates of an average, up to
/// `update_after_step + 1`, copy the weights. With a warmup, the decay rises as
/// `1 - (1 + t / warmup_gamma)^-warmup_power`, where t counts the updates after those.
///
/// A decay of d averages over the last 1 / (1 - d) steps, about; a training should have many times
/// as many. [`Trainer::ema`](super::Trainer::ema) trains with an average, and [`ModelEma`] is one.
///
/// ```
/// use skipgrad::train::Ema;
/// let ema = Ema::new(0.999).warmup(true);
/// assert_eq!((ema.decay_at(1), ema.decay_at(100_000)), (0.0, 0.999));
/// assert!((ema.decay_at(8) - 0.75).abs() < 1e-3, "1 - 8^(-2/3) = 3/4");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Ema {
    /// Weight of the average in an update, in [0, 1).
    pub decay: f64,
    /// Least decay during the warmup, in [0, 1); 0 by default.
    pub min_decay: f64,
    /// Number of updates, besides the first, that copy the weights; 0 by default.
    pub update_after_step: usize,
    /// Whether the decay rises to its value; `false` by default.
    pub warmup: bool,
    /// Number of updates in which the warmup goes its first part, above 0; 1 by default.
    pub warmup_gamma: f64,
    /// Exponent of the warmup, above 0; 2/3 by default.
    pub warmup_power: f64,
}

impl Ema {
    /// Creates the settings of an average with this decay, in [0, 1), without a warmup.
    pub fn new(decay: f64) -> Ema {
        Ema {
            decay,
            min_decay: 0.0,
            update_after_step: 0,
            warmup: false,
            warmup_gamma: 1.0,
            warmup_power: 2.0 / 3.0,
        }
    }

    /// Sets whether the decay rises to its value, so that the average forgets the first weights.
    #[must_use]
    pub fn warmup(self, warmup: bool) -> Ema {
        Ema { warmup, ..self }
    }

    /// Sets the least decay during the warmup, in [0, 1).
    #[must_use]
    pub fn min_decay(self, min_decay: f64) -> Ema {
        Ema { min_decay, ..self }
    }

    /// Sets the number of updates, besides the first, that copy the weights.
    #[must_use]
    pub fn update_after_step(self, update_after_step: usize) -> Ema {
        Ema { update_after_step, ..self }
    }

    /// Sets the number of updates in which the warmup goes its first part, above 0.
    #[must_use]
    pub fn warmup_gamma(self, warmup_gamma: f64) -> Ema {
        Ema { warmup_gamma, ..self }
    }

    /// Sets the exponent of the warmup, above 0: 2/3 for trainings of a million steps, 3/4 for
    /// shorter ones.
    #[must_use]
    pub fn warmup_power(self, warmup_power: f64) -> Ema {
        Ema { warmup_power, ..self }
    }

    /// Returns the decay of an update, which are counted from 1.
    pub fn decay_at(&self, step: usize) -> f64 {
        let t = step.saturating_sub(self.update_after_step).saturating_sub(1);
        match (t, self.warmup) {
            (0, _) => 0.0,
            (_, false) => self.decay,
            (t, true) => {
                let decay = 1.0 - (1.0 + t as f64 / self.warmup_gamma).powf(-self.warmup_power);
                decay.min(self.decay).max(self.min_decay)
            }
        }
    }

    /// Checks that the settings are in range.
    pub(super) fn check(&self) -> Result<()> {
        for (argument, value) in [("decay", self.decay), ("min_decay", self.min_decay)] {
            if !(0.0..1.0).contains(&value) {
                return Err(Error::argument("ema", argument, "at least 0 and below 1", value));
            }
        }
        for (argument, value) in [("warmup_gamma", self.warmup_gamma), ("warmup_power", self.warmup_power)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::argument("ema", argument, "a finite number above 0", value));
            }
        }
        Ok(())
    }
}

/// The exponential moving average of the weights and statistics of a model.
///
/// ```
/// use skipgrad::{Tensor, autograd::Param, train::{Ema, ModelEma}};
/// let mut model = vec![Param::new(Tensor::scalar(1.0))];
/// let mut average = ModelEma::new(Ema::new(0.75), &model)?;
/// average.update(&model, 1)?;
/// model[0] = Param::new(Tensor::scalar(3.0));
/// average.update(&model, 2)?;
/// assert_eq!(average.tensors()["0"].item(), 1.5);
/// average.copy_to(&mut model)?;
/// assert_eq!(model[0].value().item(), 1.5);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ModelEma {
    settings: Ema,
    tensors: NamedTensors,
}

impl ModelEma {
    /// Creates an average that begins with the values of a model.
    ///
    /// # Errors
    /// [`Error::Argument`] for settings that are out of range.
    pub fn new(settings: Ema, model: &(impl State + ?Sized)) -> Result<ModelEma> {
        settings.check()?;
        Ok(ModelEma { settings, tensors: model.export() })
    }

    /// Creates an average from the values of an earlier one.
    pub(super) fn from_tensors(settings: Ema, tensors: NamedTensors) -> ModelEma {
        ModelEma { settings, tensors }
    }

    /// Updates the average with the values of a model after a step, which are counted from 1.
    ///
    /// # Errors
    /// [`Error::State`] if the model has other parameters or buffers than the one before; nothing
    /// is changed then.
    pub fn update(&mut self, model: &(impl State + ?Sized), step: usize) -> Result<()> {
        let values = model.export();
        check_fit(&self.tensors, &values)?;
        let weight = (1.0 - self.settings.decay_at(step)) as f32;
        for (average, value) in self.tensors.values_mut().zip(values.values()) {
            // From the nearer end, so that a weight of 1 copies to the bit.
            for (x, &y) in average.data_mut().iter_mut().zip(value.data()) {
                *x = if weight < 0.5 { *x + weight * (y - *x) } else { y - (y - *x) * (1.0 - weight) };
            }
        }
        Ok(())
    }

    /// Returns the averages by the names of the parameters and buffers.
    pub fn tensors(&self) -> &NamedTensors {
        &self.tensors
    }

    /// Returns the settings of the average.
    pub fn settings(&self) -> &Ema {
        &self.settings
    }

    /// Copies the averages into a model.
    ///
    /// # Errors
    /// [`Error::State`] if the model has other parameters or buffers; it is unchanged then.
    pub fn copy_to(&self, model: &mut (impl State + ?Sized)) -> Result<()> {
        model.import(self.tensors.clone())
    }
}

/// Checks that averages are those of a model with these values.
pub(super) fn check_fit(averages: &NamedTensors, values: &NamedTensors) -> Result<()> {
    let missing = values.keys().filter(|name| !averages.contains_key(*name)).cloned().collect();
    let unexpected = averages.keys().filter(|name| !values.contains_key(*name)).cloned().collect();
    let misshapen = values.iter().filter_map(|(name, value)| {
        let [expected, found] = [value.shape(), averages.get(name)?.shape()];
        (expected != found).then(|| (name.clone(), expected.to_vec(), found.to_vec()))
    });
    Error::state(missing, unexpected, misshapen.collect()).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Rng, Tensor,
        autograd::{Buffer, Param},
    };

    #[derive(State)]
    struct Net {
        weight: Param,
        mean: Buffer,
    }

    fn net(rng: &mut Rng) -> Net {
        let mut values = || Tensor::normal([5], 1.0, rng).unwrap();
        Net { weight: Param::new(values()), mean: Buffer::new(values()) }
    }

    /// The formula of timm's `ModelEmaV3`, written out.
    fn timm_decay(ema: Ema, step: i64) -> f64 {
        let step = (step - ema.update_after_step as i64 - 1).max(0);
        if step <= 0 {
            return 0.0;
        }
        if !ema.warmup {
            return ema.decay;
        }
        let decay = 1.0 - (1.0 + step as f64 / ema.warmup_gamma).powf(-ema.warmup_power);
        f64::max(f64::min(decay, ema.decay), ema.min_decay)
    }

    #[test]
    fn twenty_steps_follow_timms_formula() {
        let warm = Ema::new(0.9).warmup(true);
        for ema in [
            Ema::new(0.9),
            Ema::new(0.3).update_after_step(4),
            warm,
            warm.warmup_power(0.75).warmup_gamma(3.0),
            warm.min_decay(0.6).update_after_step(7),
        ] {
            let mut rng = Rng::seed(1);
            let first = net(&mut rng);
            let mut average = ModelEma::new(ema, &first).unwrap();
            let exact = |net: &Net| -> Vec<f64> {
                net.export()
                    .values()
                    .flat_map(|t| t.data().iter().map(|&x| f64::from(x)).collect::<Vec<_>>())
                    .collect()
            };
            let mut expected = exact(&first);
            for step in 1..=20 {
                let model = net(&mut rng);
                average.update(&model, step).unwrap();
                let decay = timm_decay(ema, step as i64);
                for (average, value) in expected.iter_mut().zip(exact(&model)) {
                    *average = decay * *average + (1.0 - decay) * value;
                }
                let found: Vec<f32> = average.tensors().values().flat_map(|t| t.to_vec()).collect();
                for (found, expected) in found.into_iter().zip(&expected) {
                    assert!((f64::from(found) - expected).abs() < 1e-6, "{ema:?} at {step}");
                }
            }
        }
    }

    #[test]
    fn the_first_update_is_a_copy_and_the_model_is_not_changed() {
        let mut rng = Rng::seed(2);
        let (first, second) = (net(&mut rng), net(&mut rng));
        let mut average = ModelEma::new(Ema::new(0.99), &first).unwrap();
        average.update(&second, 1).unwrap();
        assert_eq!(*average.tensors(), second.export());
        let before = second.export();
        average.update(&first, 2).unwrap();
        assert_eq!(second.export(), before);
        let mut model = net(&mut rng);
        average.copy_to(&mut model).unwrap();
        assert_eq!(model.export(), *average.tensors());
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let mut average = ModelEma::new(Ema::new(0.9), &net(&mut Rng::seed(1))).unwrap();
        let other = vec![Param::new(Tensor::zeros([5]).unwrap())];
        let error = average.update(&other, 1).unwrap_err().to_string();
        assert!(error.contains("missing: 0") && error.contains("unexpected: mean, weight"), "{error}");
        let error = |ema: Ema| ModelEma::new(ema, &other).unwrap_err().to_string();
        assert_eq!(error(Ema::new(1.0)), "ema: decay: expected at least 0 and below 1, found 1");
        assert!(error(Ema::new(0.9).min_decay(f64::NAN)).contains("min_decay"));
        assert!(error(Ema::new(0.9).warmup_gamma(0.0)).contains("warmup_gamma"));
        assert!(error(Ema::new(0.9).warmup_power(-1.0)).contains("warmup_power"));
    }
}
