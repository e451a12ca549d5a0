//! Whether the model can memorize one batch ("overfit one batch", Karpathy 2019, "A recipe for
//! training neural networks").

use super::{
    diagnosis::Diagnosis,
    finding::{Finding, FindingKind, Severity},
    options::DiagnoseOptions,
    pass::{Sample, gradients},
    restored::Restored,
};
use crate::{
    Result, Rng,
    optim::{Adam, Optimizer},
};

pub(super) const NAME: &str = "one batch";

/// The learning rate of Adam, which does not depend on the scale of the gradients: the learning
/// rate of the training is another check.
const RATE: f32 = 1e-3;

/// The loss below which a batch is memorized, in nats.
const MEMORIZED: f32 = 0.05;

/// The part of the initial loss, which may stay with dropout.
const LEFT: f32 = 0.2;

/// Trains on the images of one batch until they are memorized, and judges whether they are. Returns
/// that, or `None` if the check is left out.
pub(super) fn judge(
    run: &mut Restored<'_>,
    sample: &Sample,
    options: &DiagnoseOptions,
    diagnosis: &mut Diagnosis,
) -> Result<Option<bool>> {
    let steps = options.overfit_steps;
    if steps == 0 {
        return Ok(None);
    }
    let (mut adam, mut losses) = (Adam::new(RATE), vec![]);
    // The loss after the last step is that before one more.
    for step in 0..=steps {
        options.show(NAME, step, steps);
        let rng = Rng::keyed(options.seed, 1, step as u64);
        let (loss, updates) = gradients(&*run.model, sample, rng)?;
        losses.push(loss);
        if loss < MEMORIZED || !loss.is_finite() || step == steps {
            break;
        }
        adam.step(&mut *run.model, updates)?;
    }
    run.restore()?;
    let images = sample.labels.len();
    let (first, last) = (losses[0], losses[losses.len() - 1]);
    let best = losses.iter().rev().take(5).copied().fold(f32::INFINITY, f32::min);
    let is_memorized = last.is_finite() && best <= (LEFT * first).max(MEMORIZED);
    if !is_memorized {
        let message = format!(
            "The model cannot memorize {images} images: in {} steps, the loss went from {first:.2} to {last:.2}, and \
             not near 0. Such a network has too few parameters, its gradient is blocked, most of it is frozen, or \
             the same image has several labels. Repair the findings before this one first.",
            losses.len() - 1
        );
        diagnosis.add(Finding::new(FindingKind::CannotOverfit, Severity::Error, last.into(), message));
    }
    let measured = format!("loss {first:.2} to {last:.3} in {} steps of {images} images", losses.len() - 1);
    diagnosis.check(NAME, measured, is_memorized, if is_memorized { "memorized" } else { "not memorized" });
    diagnosis.overfit_losses = losses;
    Ok(Some(is_memorized))
}
