//! What is not finite, and what follows from it.

use super::run::Run;
use crate::{
    Error, Result, Tensor,
    autograd::{State, StateRef, Updates},
    data::Batch,
    optim::Optimizer,
    train::{Divergence, Event, Metrics, ModelEma, OnDivergence, Position, Recovery, checkpoint::Snapshot},
};

impl Run<'_> {
    /// Makes one step, which finishes `done` batches of the epoch, or skips it if a value is not
    /// finite and the policy says so. Returns the loss before it.
    pub(super) fn step_or_skip(&mut self, batch: Batch, done: usize) -> Result<f32> {
        let images = batch.labels.len();
        match (self.step(batch, done), self.trainer.settings.on_divergence) {
            (Ok(loss), _) => {
                self.trainer.progress.consecutive_skipped = 0;
                Ok(loss)
            }
            (Err(error @ Error::Diverged { .. }), OnDivergence::SkipStep { max_consecutive }) => {
                let progress = &mut self.trainer.progress;
                if progress.consecutive_skipped >= max_consecutive {
                    return Err(error);
                }
                progress.consecutive_skipped += 1;
                progress.sums.skipped_steps += 1;
                progress.sums.skipped_images += images;
                let consecutive = progress.consecutive_skipped;
                self.report_divergence(&error, Recovery::SkippedStep { consecutive });
                Ok(f32::NAN)
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Checks what a step is about to apply, and clips the gradient. The gradient is checked if its
    /// norm is needed anyway or steps may be skipped; otherwise the loss of the next step tells.
    pub(super) fn check_updates(&self, loss: f32, updates: &mut Updates, done: usize) -> Result<()> {
        self.expect_finite("loss", loss, done)?;
        let settings = &self.trainer.settings;
        if let Some(norm) = settings.clip_norm {
            self.expect_finite("gradient norm", updates.clip_global_norm(norm), done)?;
        } else if matches!(settings.on_divergence, OnDivergence::SkipStep { .. }) {
            self.expect_finite("gradient norm", updates.global_norm(), done)?;
        }
        let mut result = Ok(());
        self.model.visit("", &mut |name, slot| {
            if let StateRef::Buffer(buffer) = slot
                && result.is_ok()
                && let Some(value) = updates.observed(buffer)
                && let Some(value) = not_finite(value)
            {
                result = self.expect_finite(name, value, done);
            }
        });
        result
    }

    /// Checks that weights, statistics and the optimizer's state are finite, so that they may be
    /// saved.
    pub(super) fn check_state(&self) -> Result<()> {
        match first_not_finite(&*self.model, &*self.optimizer) {
            Some((name, value)) => self.expect_finite(&name, value, self.trainer.progress.position.batch),
            None => Ok(()),
        }
    }

    /// Checks that an epoch had a step that was not skipped.
    pub(super) fn check_sums(&self) -> Result<()> {
        let sums = &self.trainer.progress.sums;
        if sums.images > 0 || sums.skipped_steps == 0 {
            return Ok(());
        }
        let what = format!("the loss of every step, of which {} were skipped,", sums.skipped_steps);
        Err(self.diverged(what, self.train.num_batches()))
    }

    /// Checks the loss of the evaluation after an epoch. If it is not finite, [`LAST`], which was
    /// written before the evaluation, is replaced by the checkpoint before it.
    ///
    /// [`LAST`]: super::Trainer::LAST
    pub(super) fn check_test_loss(&mut self, metrics: &Metrics) -> Result<()> {
        if metrics.loss().is_finite() {
            return Ok(());
        }
        if let Some(output) = &mut self.trainer.output {
            output.restore_previous(self.trainer.progress.position)?;
        }
        self.expect_finite("test loss", metrics.loss(), self.train.num_batches())
    }

    /// Returns an error if a value is not finite after `batch` batches of the epoch.
    fn expect_finite(&self, name: &str, value: f32, batch: usize) -> Result<()> {
        if value.is_finite() { Ok(()) } else { Err(self.diverged(format!("{name} ({value})"), batch)) }
    }

    fn diverged(&self, what: String, batch: usize) -> Error {
        let checkpoint = match &self.trainer.output {
            Some(output) => output.good_checkpoint(),
            None => self.trainer.resumed_from.clone(),
        };
        Error::Diverged {
            epoch: self.trainer.progress.position.epoch + 1,
            batch,
            what,
            learning_rate: self.optimizer.lr(),
            checkpoint,
        }
    }

    /// Remembers the state at the beginning of an epoch, if the training may go back to it.
    pub(super) fn remember(&mut self) {
        let trainer = &mut *self.trainer;
        let may_roll_back = matches!(trainer.settings.on_divergence, OnDivergence::Rollback { .. });
        if !may_roll_back {
            trainer.rollback = None;
        } else if trainer.progress.position.batch == 0 || trainer.rollback.is_none() {
            let ema = trainer.ema.as_ref();
            let state = Snapshot::capture(&trainer.progress, ema, &*self.model, &*self.optimizer);
            trainer.rollback = Some(state);
        }
    }

    /// Goes back to the beginning of the epoch with a lower learning rate if the training diverged
    /// and the policy says so; otherwise returns the error.
    pub(super) fn roll_back(&mut self, error: Error) -> Result<()> {
        let trainer = &mut *self.trainer;
        let (Error::Diverged { .. }, OnDivergence::Rollback { lr_factor, max_rollbacks }, Some(state)) =
            (&error, trainer.settings.on_divergence, &trainer.rollback)
        else {
            return Err(error);
        };
        if trainer.progress.rollbacks >= max_rollbacks {
            return Err(error);
        }
        let rollbacks = trainer.progress.rollbacks + 1;
        let lr_scale = trainer.progress.lr_scale * lr_factor;
        let (progress, averages) = state.clone().restore(self.model, self.optimizer)?;
        trainer.progress = progress;
        trainer.ema = trainer.settings.ema.map(|settings| ModelEma::from_tensors(settings, averages));
        trainer.progress.rollbacks = rollbacks;
        trainer.progress.lr_scale = lr_scale;
        // From now on, going back once more means to this state.
        let Position { epoch, .. } = trainer.progress.position;
        trainer.rollback = None;
        self.remember();
        log::warn!(
            "went back to the beginning of epoch {}, at {lr_scale} times the learning rate",
            epoch + 1
        );
        self.report_divergence(&error, Recovery::RolledBack { rollbacks, lr_scale });
        self.save_last()
    }

    fn report_divergence(&mut self, error: &Error, recovery: Recovery) {
        if let Error::Diverged { epoch, batch, what, learning_rate, .. } = error {
            let what = what.clone();
            log::warn!("{what} is not finite in epoch {epoch}, batch {batch}: {recovery:?}");
            let (epoch, batch, learning_rate) = (*epoch, *batch, *learning_rate);
            self.tell(Event::Diverged(Divergence { epoch, batch, what, learning_rate, recovery }));
        }
    }
}

/// Returns the name and the value of the first element of the model and of the optimizer's state
/// that is not finite.
pub(super) fn first_not_finite(model: &dyn State, optimizer: &dyn Optimizer) -> Option<(String, f32)> {
    let mut found = None;
    model.visit("", &mut |name, slot| {
        if found.is_none()
            && let Some(value) = not_finite(slot.value())
        {
            found = Some((name.to_string(), value));
        }
    });
    let in_optimizer = || {
        let found = |(name, tensor): (String, Tensor)| Some((name, not_finite(&tensor)?));
        optimizer.export().into_iter().find_map(found)
    };
    found.or_else(in_optimizer)
}

/// Returns the first element that is not finite. The sum of the squares, in `f64`, cannot overflow,
/// so it tells for all elements at once, at the speed of memory.
fn not_finite(tensor: &Tensor) -> Option<f32> {
    if tensor.sum_of_squares().is_finite() {
        return None;
    }
    tensor.data().iter().copied().find(|x| !x.is_finite())
}
