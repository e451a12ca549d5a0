//! What a training says on the way and at its end.

use super::{Position, Record};
use std::time::Duration;

/// What a training tells while it runs.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// After every step.
    Step(Step),
    /// After every epoch, when it is evaluated and written down.
    Epoch(Record),
}

/// How a training is doing after a step.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The epoch, counted from 1.
    pub epoch: usize,
    /// Of so many.
    pub epochs: usize,
    /// The batch in its epoch, counted from 1.
    pub batch: usize,
    /// Of so many.
    pub batches: usize,
    /// The step's loss, before the step.
    pub loss: f32,
    /// The mean loss of the epoch so far.
    pub mean_loss: f32,
    /// The part of the epoch's images so far that were right when they were trained on, in [0, 1].
    pub accuracy: f32,
    /// The step's learning rate.
    pub lr: f32,
    /// Images a second, in this epoch so far.
    pub images_per_second: f32,
    /// How long the rest of the epoch takes at this rate; evaluation is not in it.
    pub eta: Duration,
}

/// How a training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All epochs are done.
    Finished,
    /// It was asked to stop, and stands here. [`Trainer::run`](super::Trainer::run) goes on from there, also in another process after
    /// [`Trainer::resume`](super::Trainer::resume).
    Stopped(Position),
}
