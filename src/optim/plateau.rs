//! Lower learning rates where a loss does not fall any more.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Reduces the learning rate when the test loss has not fallen for some epochs, as PyTorch's
/// `ReduceLROnPlateau` does.
///
/// A loss is better than the best one if it is below `(1 - threshold) best`. After more than
/// `patience` epochs in a row without a better one, the learning rate is multiplied by `factor`,
/// and for `cooldown` epochs none is counted. (PyTorch's `eps` is 0.) The result depends on the
/// losses alone, so that a training is resumed with the same learning rates.
/// [`Trainer::reduce_on_plateau`](crate::train::Trainer::reduce_on_plateau) trains with it.
///
/// ```
/// use skipgrad::optim::Plateau;
/// let plateau = Plateau::new().patience(1).factor(0.5);
/// assert_eq!(plateau.scale([2.0, 1.0, 1.0]), 1.0);
/// assert_eq!(plateau.scale([2.0, 1.0, 1.0, 1.5]), 0.5);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Plateau {
    /// Factor of the learning rate in a reduction, above 0 and below 1; 0.1 by default.
    pub factor: f32,
    /// Number of epochs without a better loss that are waited for; 10 by default.
    pub patience: usize,
    /// Least relative improvement that counts, in [0, 1); 1e-4 by default.
    pub threshold: f32,
    /// Number of epochs after a reduction in which none is counted; 0 by default.
    pub cooldown: usize,
    /// Least factor of the schedule's learning rate, in [0, 1]; 0 by default.
    pub min_scale: f32,
}

impl Plateau {
    /// Creates the settings with PyTorch's defaults.
    pub fn new() -> Plateau {
        Plateau { factor: 0.1, patience: 10, threshold: 1e-4, cooldown: 0, min_scale: 0.0 }
    }

    /// Sets the factor of the learning rate in a reduction, above 0 and below 1.
    #[must_use]
    pub fn factor(self, factor: f32) -> Plateau {
        Plateau { factor, ..self }
    }

    /// Sets the number of epochs without a better loss that are waited for.
    #[must_use]
    pub fn patience(self, patience: usize) -> Plateau {
        Plateau { patience, ..self }
    }

    /// Sets the least relative improvement that counts, in [0, 1).
    #[must_use]
    pub fn threshold(self, threshold: f32) -> Plateau {
        Plateau { threshold, ..self }
    }

    /// Sets the number of epochs after a reduction in which none is counted.
    #[must_use]
    pub fn cooldown(self, cooldown: usize) -> Plateau {
        Plateau { cooldown, ..self }
    }

    /// Sets the least factor of the schedule's learning rate, in [0, 1].
    #[must_use]
    pub fn min_scale(self, min_scale: f32) -> Plateau {
        Plateau { min_scale, ..self }
    }

    /// Returns the factor of the learning rate after epochs with these losses.
    pub fn scale(&self, losses: impl IntoIterator<Item = f32>) -> f32 {
        let (mut scale, mut best) = (1.0f64, f64::INFINITY);
        let (mut bad_epochs, mut cooldown) = (0, 0);
        for loss in losses {
            let loss = f64::from(loss);
            if loss < best * (1.0 - f64::from(self.threshold)) {
                (best, bad_epochs) = (loss, 0);
            } else {
                bad_epochs += 1;
            }
            if cooldown > 0 {
                (cooldown, bad_epochs) = (cooldown - 1, 0);
            }
            if bad_epochs > self.patience {
                scale = (scale * f64::from(self.factor)).max(f64::from(self.min_scale));
                (cooldown, bad_epochs) = (self.cooldown, 0);
            }
        }
        scale as f32
    }

    /// Checks that the settings are in range.
    pub(crate) fn check(&self) -> Result<()> {
        let error = |argument, expected, found: f32| {
            Err(Error::argument("reduce_on_plateau", argument, expected, found))
        };
        if !(self.factor > 0.0 && self.factor < 1.0) {
            return error("factor", "above 0 and below 1", self.factor);
        }
        if !(0.0..1.0).contains(&self.threshold) {
            return error("threshold", "at least 0 and below 1", self.threshold);
        }
        if !(0.0..=1.0).contains(&self.min_scale) {
            return error("min_scale", "a number in [0, 1]", self.min_scale);
        }
        Ok(())
    }
}

impl Default for Plateau {
    fn default() -> Plateau {
        Plateau::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_range_are_errors() {
        let error = |plateau: Plateau| plateau.check().unwrap_err().to_string();
        assert_eq!(
            error(Plateau::new().factor(1.0)),
            "reduce_on_plateau: factor: expected above 0 and below 1, found 1"
        );
        assert!(error(Plateau::new().threshold(f32::NAN)).contains("threshold"));
        assert!(error(Plateau::new().min_scale(-0.1)).contains("min_scale"));
        Plateau::default().check().unwrap();
    }

    #[test]
    fn a_loss_that_is_not_a_number_is_not_better() {
        let plateau = Plateau::new().patience(0);
        assert_eq!(plateau.scale([1.0, f32::NAN, 0.5]), 0.1);
        assert_eq!(plateau.scale([]), 1.0);
    }
}
