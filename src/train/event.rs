//! The events of a training and its outcome.

use super::{Position, Record};
use std::time::Duration;

/// An event that [`Trainer::run`](super::Trainer::run) reports.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A step is finished.
    Step(Step),
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
    /// Loss of the batch, computed before the weights were updated.
    pub loss: f32,
    /// Mean loss over the images of the epoch so far.
    pub mean_loss: f32,
    /// Fraction of the epoch's images so far that were classified correctly in training, in [0, 1].
    pub accuracy: f32,
    /// Learning rate of the step.
    pub lr: f32,
    /// Images per second in this epoch so far.
    pub images_per_second: f32,
    /// Estimated time until the last step of the epoch, without the evaluation.
    pub eta: Duration,
}

/// How [`Trainer::run`](super::Trainer::run) ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// All epochs are finished.
    Finished,
    /// The stop flag was set, and the training stopped at this position.
    /// [`Trainer::run`](super::Trainer::run) continues from there, also in another process after
    /// [`Trainer::resume`](super::Trainer::resume).
    Stopped(Position),
}
