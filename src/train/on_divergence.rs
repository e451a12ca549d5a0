//! What a training does when a value is not finite.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// What a training does when a value is not finite: the loss, the gradient, weights, running
/// statistics, the state of the optimizer, or the test loss.
///
/// The policy is part of the checkpoints, as are its counts, so a resumed training does the same as
/// one that was never stopped.
///
/// ```
/// use skipgrad::{optim::Schedule, train::{OnDivergence, Trainer}};
/// let rollback = OnDivergence::Rollback { lr_factor: 0.5, max_rollbacks: 3 };
/// let trainer = Trainer::new(30, Schedule::cosine(0.1, 30 * 391)).on_divergence(rollback);
/// assert_eq!(trainer.settings().on_divergence, rollback);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum OnDivergence {
    /// The training ends with [`Error::Diverged`], which names the last good checkpoint.
    #[default]
    Stop,
    /// A step whose loss, gradient or new running statistics are not finite is skipped: weights,
    /// statistics and optimizer stay as they are. The norm of the gradient is computed at every
    /// step. What is found after a step, such as a test loss that is not finite, ends the training.
    SkipStep {
        /// The number of steps in a row that may be skipped, at least 1; one more ends the
        /// training.
        max_consecutive: usize,
    },
    /// The training goes back to the beginning of the epoch and goes on with a lower learning rate.
    /// A copy of the model and of the optimizer's state is held in memory.
    Rollback {
        /// Factor of the schedule's learning rate for the rest of the training, between 0 and 1;
        /// the factors of several rollbacks are multiplied.
        lr_factor: f32,
        /// The number of rollbacks in the whole training, at least 1; one more ends the training.
        max_rollbacks: usize,
    },
}

impl OnDivergence {
    /// Checks that the settings of the policy are in range.
    pub(super) fn check(self) -> Result<()> {
        let error =
            |expected: &str, found: String| Err(Error::argument("train", "on_divergence", expected, found));
        match self {
            OnDivergence::SkipStep { max_consecutive: 0 } => {
                error("max_consecutive of at least 1", "0".into())
            }
            OnDivergence::Rollback { max_rollbacks: 0, .. } => {
                error("max_rollbacks of at least 1", "0".into())
            }
            OnDivergence::Rollback { lr_factor, .. } if !(lr_factor > 0.0 && lr_factor < 1.0) => {
                error("lr_factor above 0 and below 1", lr_factor.to_string())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_out_of_range_are_errors() {
        let error = |policy: OnDivergence| policy.check().unwrap_err().to_string();
        assert_eq!(
            error(OnDivergence::SkipStep { max_consecutive: 0 }),
            "train: on_divergence: expected max_consecutive of at least 1, found 0"
        );
        assert!(error(OnDivergence::Rollback { lr_factor: 0.5, max_rollbacks: 0 }).contains("max_rollbacks"));
        for lr_factor in [0.0, 1.0, -0.5, f32::NAN] {
            assert!(error(OnDivergence::Rollback { lr_factor, max_rollbacks: 1 }).contains("lr_factor"));
        }
        OnDivergence::Stop.check().unwrap();
        OnDivergence::Rollback { lr_factor: 0.1, max_rollbacks: 1 }.check().unwrap();
    }
}
