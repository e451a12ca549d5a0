//! The settings of a diagnosis, and its progress.

use crate::{Error, Result};
use std::{fmt, sync::Arc};

/// The settings of [`diagnose`](super::diagnose).
///
/// ```
/// use skipgrad::train::DiagnoseOptions;
/// let quick = DiagnoseOptions::new().batches(2).overfit_steps(50).held_out_steps(0);
/// assert_eq!((quick.batches, quick.images_per_step), (2, 32));
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct DiagnoseOptions {
    /// The number of batches of which images, labels and activations are measured, at least 1; 8 by
    /// default.
    pub batches: usize,
    /// The most steps in which one batch must be memorized; 100 by default. 0 leaves the check out.
    pub overfit_steps: usize,
    /// The most steps after which labels of images that were held out must be predicted better than
    /// by chance; 300 by default. 0 leaves the check out. A healthy training takes far fewer.
    pub held_out_steps: usize,
    /// The most images of one step of these two checks, at least 2; 32 by default.
    pub images_per_step: usize,
    /// The seed of all random numbers; 0 by default.
    pub seed: u64,
    progress: Option<Arc<ProgressFn>>,
}

type ProgressFn = dyn Fn(CheckProgress) + Send + Sync;

/// The progress of a diagnosis, before each step of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckProgress {
    /// The name of the check, as in [`Check::name`](super::Check::name).
    pub check: &'static str,
    /// The number of steps that are done.
    pub step: usize,
    /// The most steps that the check takes; it may end before.
    pub steps: usize,
}

impl Default for DiagnoseOptions {
    fn default() -> DiagnoseOptions {
        DiagnoseOptions {
            batches: 8,
            overfit_steps: 100,
            held_out_steps: 300,
            images_per_step: 32,
            seed: 0,
            progress: None,
        }
    }
}

impl DiagnoseOptions {
    /// Makes the default settings.
    pub fn new() -> DiagnoseOptions {
        DiagnoseOptions::default()
    }

    /// Sets the number of batches of which images, labels and activations are measured, at least 1.
    pub fn batches(self, batches: usize) -> DiagnoseOptions {
        DiagnoseOptions { batches, ..self }
    }

    /// Sets the most steps in which one batch must be memorized; 0 leaves the check out.
    pub fn overfit_steps(self, overfit_steps: usize) -> DiagnoseOptions {
        DiagnoseOptions { overfit_steps, ..self }
    }

    /// Sets the most steps after which labels of images that were held out must be predicted better
    /// than by chance; 0 leaves the check out.
    pub fn held_out_steps(self, held_out_steps: usize) -> DiagnoseOptions {
        DiagnoseOptions { held_out_steps, ..self }
    }

    /// Sets the most images of one step, at least 2.
    pub fn images_per_step(self, images_per_step: usize) -> DiagnoseOptions {
        DiagnoseOptions { images_per_step, ..self }
    }

    /// Sets the seed of all random numbers.
    pub fn seed(self, seed: u64) -> DiagnoseOptions {
        DiagnoseOptions { seed, ..self }
    }

    /// Sets what is called before each step of a check, to show the progress.
    pub fn on_progress(self, show: impl Fn(CheckProgress) + Send + Sync + 'static) -> DiagnoseOptions {
        DiagnoseOptions { progress: Some(Arc::new(show)), ..self }
    }

    /// Checks that the settings are in range.
    pub(super) fn check(&self) -> Result<()> {
        if self.batches == 0 {
            return Err(Error::argument("diagnose", "batches", "at least 1", 0));
        }
        if self.images_per_step < 2 {
            return Err(Error::argument("diagnose", "images_per_step", "at least 2", self.images_per_step));
        }
        Ok(())
    }

    pub(super) fn show(&self, check: &'static str, step: usize, steps: usize) {
        if let Some(progress) = &self.progress {
            progress(CheckProgress { check, step, steps });
        }
    }
}

impl fmt::Debug for DiagnoseOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiagnoseOptions")
            .field("batches", &self.batches)
            .field("overfit_steps", &self.overfit_steps)
            .field("held_out_steps", &self.held_out_steps)
            .field("images_per_step", &self.images_per_step)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}
