//! Folded and packed weights, which evaluation uses until something that they were made of changes.

use crate::{
    Result,
    autograd::{Param, Version},
    nn::{BatchNorm2d, Conv2d},
    ops::Conv2dOptions,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The folded weights of a block, and what they were made of. A copy of the block begins without
/// any.
#[derive(Debug)]
pub(super) struct Folding<F>(Mutex<Option<(Vec<Origin>, Arc<F>)>>);

/// Everything that the folded weights of a convolution and a norm depend on: the versions of
/// weight, bias, gamma, beta, mean and variance, and the settings.
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
    /// Returns the weights that were folded from these origins, or folds them now.
    pub(super) fn get_or_fold(
        &self,
        origins: impl Iterator<Item = Origin> + Clone,
        fold: impl FnOnce() -> Result<Arc<F>>,
    ) -> Result<Arc<F>> {
        let mut cached = self.lock();
        if let Some((of, folded)) = &*cached
            && of.iter().copied().eq(origins.clone())
        {
            return Ok(folded.clone());
        }
        log::debug!("folding the normalizations of {} convolutions", origins.clone().count());
        Ok(cached.insert((origins.collect(), fold()?)).1.clone())
    }

    /// Drops the folded weights, so that an update finds parameters that nothing else shares.
    pub(super) fn clear(&self) {
        *self.lock() = None;
    }

    /// Locks the weights. A thread that panicked leaves them whole: they are replaced in one step.
    fn lock(&self) -> MutexGuard<'_, Option<(Vec<Origin>, Arc<F>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
