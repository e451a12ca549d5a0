//! Whether the batches are large enough for batch normalization.

use super::{
    diagnosis::Diagnosis,
    finding::{Finding, FindingKind, Severity},
    pass::named,
};
use crate::data::Loader;

pub(super) const NAME: &str = "batch size";

/// The smallest batch whose statistics are good enough. Below 8 images, the error of networks with
/// batch normalization rises quickly (Wu and He 2018, "Group normalization", figure 1).
const IMAGES: usize = 8;

/// The smallest last batch of an epoch, whose statistics count for one step only.
const LAST_IMAGES: usize = 4;

/// A batch normalization that uses the statistics of the batch: its path and the number of values
/// of a channel for one image.
pub(super) struct NormSize {
    pub(super) path: String,
    pub(super) pixels: usize,
}

/// Returns the sizes of the batches of an epoch: all but the last, and the last if it is smaller.
fn sizes(loader: &Loader) -> (usize, Option<usize>) {
    let samples = loader.num_samples();
    let full = loader.batch_size().min(samples);
    (full, Some(samples % loader.batch_size()).filter(|&last| last > 0 && last < full))
}

/// Judges the batches of a loader for the normalizations of a model.
pub(super) fn judge(norms: &[NormSize], loader: &Loader, diagnosis: &mut Diagnosis) {
    let (full, last) = sizes(loader);
    let Some(smallest) = norms.iter().min_by_key(|norm| norm.pixels) else {
        diagnosis.check(NAME, format!("{full} images"), true, "no batch normalization depends on it");
        return;
    };
    let (path, pixels) = (named(&smallest.path), smallest.pixels);
    let measured = match last {
        None => format!("{full} images, at least {} values for a mean", full * pixels),
        Some(last) => format!("{full} images, at least {} values for a mean; {last} last", full * pixels),
    };
    if full < IMAGES {
        let message = format!(
            "A batch has {full} images, so that the statistics of {path} are those of {} values, and of few \
             images. Take at least {IMAGES}, or use the running statistics of trained weights by \
             `State::freeze_statistics`.",
            full * pixels
        );
        diagnosis.add(Finding::new(FindingKind::SmallBatches, Severity::Warning, full as f64, message));
        diagnosis.check(NAME, measured, false, "too small for batch normalization");
    } else if let Some(last) = last.filter(|&last| last < LAST_IMAGES) {
        let message = format!(
            "The last batch of an epoch has {last} of {full} images, so that its statistics, and its step, are \
             off. Set `Loader::drop_last(true)`, or take another batch size."
        );
        diagnosis.add(Finding::new(FindingKind::SmallBatches, Severity::Warning, last as f64, message));
        diagnosis.check(NAME, measured, false, "the last batch is too small");
    } else {
        diagnosis.check(NAME, measured, true, "large enough");
    }
}

/// Says that a pass of the loader's batches fails, and one of two images succeeds.
pub(super) fn refuse(error: &crate::Error, loader: &Loader, diagnosis: &mut Diagnosis) {
    let (full, _) = sizes(loader);
    let message =
        format!("A batch has {full} images, with which training fails ({error}). Take at least {IMAGES}.");
    diagnosis.add(Finding::new(FindingKind::SmallBatches, Severity::Error, full as f64, message));
    diagnosis.check(NAME, format!("{full} images"), false, "training fails");
}
