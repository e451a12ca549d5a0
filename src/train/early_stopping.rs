//! Trainings that end when they improve no more.

use super::History;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Ends a training after some epochs in a row without a better test accuracy, and gives the model
/// the weights of the best epoch (Prechelt 1998, "Early stopping - but when?").
///
/// The best epoch is that of [`History::best`]: the accuracy is that of the averaged weights if
/// there are any. [`Trainer::early_stopping`](super::Trainer::early_stopping) trains with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct EarlyStopping {
    /// Number of epochs without a better accuracy after which the training ends, at least 1.
    pub patience: usize,
    /// Whether the model then has the weights of the best epoch instead of the last one; `true` by
    /// default.
    pub restore_best: bool,
}

impl EarlyStopping {
    /// Creates the settings with this patience, at least 1.
    pub fn new(patience: usize) -> EarlyStopping {
        EarlyStopping { patience, restore_best: true }
    }

    /// Sets whether the model has the weights of the best epoch in the end.
    #[must_use]
    pub fn restore_best(self, restore_best: bool) -> EarlyStopping {
        EarlyStopping { restore_best, ..self }
    }

    /// Returns the best epoch, counted from 1, if a training with this history is to end.
    pub(super) fn best_epoch(&self, history: &History) -> Option<usize> {
        let (best, last) = (history.best()?, history.records.last()?);
        (last.epoch >= best.epoch + self.patience).then_some(best.epoch)
    }

    /// Checks that the settings are in range.
    pub(super) fn check(&self) -> Result<()> {
        if self.patience > 0 {
            return Ok(());
        }
        Err(Error::argument("early_stopping", "patience", "at least 1", 0))
    }
}
