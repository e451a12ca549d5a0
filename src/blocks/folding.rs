//! What evaluation keeps of a block: its weights, folded and packed, until something that they were made of changes.

use crate::{
    Result,
    autograd::{Param, Version},
    nn::{BatchNorm2d, Conv2d},
    ops::Conv2dOptions,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What was folded, and of what. A copy begins without.
#[derive(Debug)]
pub(super) struct Folding<F>(Mutex<Option<(Vec<Origin>, Arc<F>)>>);

/// All that the folded weights of a convolution and a norm depend on: the revisions of weight, bias, gamma, beta, mean and
/// variance, and the settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Origin {
    versions: [Option<Version>; 6],
    options: Conv2dOptions,
    eps: f32,
}

impl Origin {
    pub(super) fn of(conv: &Conv2d, norm: &BatchNorm2d) -> Origin {
        let versions = [
            Some(conv.weight.version()),
            conv.bias.as_ref().map(Param::version),
            Some(norm.weight.version()),
            Some(norm.bias.version()),
            Some(norm.running_mean.version()),
            Some(norm.running_var.version()),
        ];
        Origin { versions, options: conv.options, eps: norm.eps }
    }
}

impl<F> Default for Folding<F> {
    fn default() -> Folding<F> {
        Folding(Mutex::new(None))
    }
}

impl<F> Clone for Folding<F> {
    fn clone(&self) -> Folding<F> {
        Folding::default()
    }
}

impl<F> Folding<F> {
    /// What was folded of these origins, or is now.
    pub(super) fn of(
        &self,
        origins: impl Iterator<Item = Origin> + Clone,
        fold: impl FnOnce() -> Result<Arc<F>>,
    ) -> Result<Arc<F>> {
        let mut kept = self.lock();
        if let Some((of, folded)) = &*kept
            && of.iter().copied().eq(origins.clone())
        {
            return Ok(folded.clone());
        }
        Ok(kept.insert((origins.collect(), fold()?)).1.clone())
    }

    /// Forgets it, so that an update finds weights that nobody shares.
    pub(super) fn clear(&self) {
        *self.lock() = None;
    }

    /// What a thread that panicked left behind is whole: it is replaced in one step.
    fn lock(&self) -> MutexGuard<'_, Option<(Vec<Origin>, Arc<F>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
