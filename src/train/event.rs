//! The events of a training and its outcome.

use super::{Change, Position, Record};
use std::time::Duration;

/// An event that [`Trainer::run`](super::Trainer::run) reports.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A loader differs from the one that the training was stopped with, in a way that does not
    /// prevent its continuation.
    Changed(Change),
    /// A step is finished, or was skipped.
    Step(Step),
    /// A value was not finite, and the training goes on as
    /// [`OnDivergence`](super::OnDivergence) says.
    Diverged(Divergence),
    /// An epoch is finished, evaluated and saved.
    Epoch(Record),
}

/// The progress and the metrics of a training after a step.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Step {
    /// Epoch, counted from 1.
    pub epoch: usize,
    /// Number of epochs.
    pub epochs: usize,
    /// Batch in the epoch, counted from 1.
    pub batch: usize,
    /// Number of batches in the epoch.
    pub batches: usize,
    /// Loss of the batch, computed before the weights were updated. It may not be finite if the
    /// step was skipped.
    pub loss: f32,
    /// Mean loss over the images of the epoch so far, without those of skipped steps.
    pub mean_loss: f32,
    /// Fraction of the epoch's images so far that were classified correctly in training, in [0, 1].
    pub accuracy: f32,
    /// Learning rate of the step.
    pub lr: f32,
    /// Number of steps of the epoch so far that were skipped; see
    /// [`OnDivergence::SkipStep`](super::OnDivergence::SkipStep).
    pub skipped_steps: usize,
    /// Images per second in this epoch so far.
    pub images_per_second: f32,
    /// Estimated time until the last step of the epoch, without the evaluation.
    pub eta: Duration,
    /// Estimated time until the end of the training. Evaluations are assumed to take as long as the
    /// last one; before the first one, they are left out.
    pub total_eta: Duration,
}

/// A value that was not finite, and what the training did about it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Divergence {
    /// Epoch, counted from 1.
    pub epoch: usize,
    /// Batch in the epoch, counted from 1.
    pub batch: usize,
    /// The quantity that was not finite, and its value: `loss (NaN)`, `bn1.running_var (inf)`.
    pub what: String,
    /// Learning rate of the step.
    pub learning_rate: f32,
    /// What the training did.
    pub recovery: Recovery,
}

/// What a training did about a value that was not finite.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Recovery {
    /// The step was skipped.
    SkippedStep {
        /// Number of steps that have been skipped without a step in between.
        consecutive: usize,
    },
    /// The training went back to the beginning of the epoch.
    RolledBack {
        /// Number of times that the training has gone back.
        rollbacks: usize,
        /// The factor of the schedule's learning rate from now on.
        lr_scale: f32,
    },
}

/// How [`Trainer::run`](super::Trainer::run) ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// All epochs are finished.
    Finished,
    /// The test accuracy did not rise any more ([`EarlyStopping`](super::EarlyStopping)).
    EarlyStopped {
        /// The best epoch, counted from 1.
        best_epoch: usize,
    },
    /// The stop flag was set, or an event was answered by a break, and the training stopped at this
    /// position.
    /// [`Trainer::run`](super::Trainer::run) continues from there, also in another process after
    /// [`Trainer::resume`](super::Trainer::resume).
    Stopped(Position),
}
