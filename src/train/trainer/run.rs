//! The loop over epochs and batches.

use super::Trainer;
use crate::{
    Result, Rng, Tensor,
    autograd::{Tape, Updates},
    data::{Batch, Loader},
    install,
    nn::Module,
    optim::Optimizer,
    train::{
        Distillation, Event, Metrics, ModelEma, Outcome, Position, Record, Settings, Step,
        checkpoint::{Snapshot, Sums},
        evaluate_in,
        loss::Teacher,
        metrics::log_unreadable,
        weights_hash,
    },
};
use std::{
    ops::ControlFlow,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

/// A trainer and everything that it trains with.
pub(super) struct Run<'a> {
    pub(super) trainer: &'a mut Trainer,
    pub(super) model: &'a mut dyn Module,
    pub(super) optimizer: &'a mut dyn Optimizer,
    pub(super) train: &'a Loader,
    pub(super) test: &'a Loader,
    pub(super) on_event: &'a mut dyn FnMut(Event) -> ControlFlow<()>,
    /// Whether an event was answered by a break.
    pub(super) is_answered: bool,
}

impl Run<'_> {
    /// Trains until all epochs are finished or the training is stopped.
    pub(super) fn run(mut self) -> Result<Outcome> {
        self.prepare()?;
        while self.trainer.progress.position.epoch < self.trainer.settings.epochs {
            if let Some(best_epoch) = self.stop_early()? {
                return Ok(Outcome::EarlyStopped { best_epoch });
            }
            match self.epoch() {
                Ok(Some(record)) => self.tell(Event::Epoch(record)),
                Ok(None) => return Ok(Outcome::Stopped(self.trainer.progress.position)),
                Err(error) => self.roll_back(error)?,
            }
        }
        Ok(Outcome::Finished)
    }

    /// Finishes the current epoch: trains on its remaining batches, evaluates and saves. Returns
    /// `None` if the training was stopped before the evaluation.
    fn epoch(&mut self) -> Result<Option<Record>> {
        self.remember();
        // A training that was stopped or killed before the evaluation has saved this state.
        let is_saved = self.is_trained();
        self.train_epoch()?;
        let is_stopped = self.is_stopped() || !self.is_trained();
        if is_stopped || !is_saved {
            self.save_last()?;
        }
        if is_stopped {
            let Position { epoch, batch } = self.trainer.progress.position;
            log::info!("stopped after {epoch} epochs and {batch} batches");
            return Ok(None);
        }
        let start = Instant::now();
        let precision = self.trainer.settings.precision;
        let metrics = evaluate_in(precision, &*self.model, self.test)?;
        self.check_test_loss(&metrics)?;
        let averaged = self.evaluate_average()?;
        self.trainer.evaluation = start.elapsed();
        let record = self.finish_epoch(&metrics, averaged.as_ref());
        self.save_epoch(&record)?;
        Ok(Some(record))
    }

    /// Evaluates the model with the averaged weights, if there are any, and gives it its own back.
    fn evaluate_average(&mut self) -> Result<Option<Metrics>> {
        let Some(average) = &self.trainer.ema else { return Ok(None) };
        let weights = self.model.export();
        average.copy_to(self.model)?;
        let metrics = evaluate_in(self.trainer.settings.precision, &*self.model, self.test);
        self.model.import(weights)?;
        metrics.map(Some)
    }

    /// Trains on the remaining batches of the current epoch, until it ends or the training is
    /// stopped.
    fn train_epoch(&mut self) -> Result<()> {
        if self.is_trained() {
            return Ok(());
        }
        let Position { epoch, batch: first } = self.trainer.progress.position;
        let (start, before) = (Instant::now(), self.trainer.progress.sums);
        let mut batches = self.train.epoch_from(epoch as u64, first)?;
        while !self.is_stopped() {
            let Some(batch) = batches.next() else {
                self.trainer.progress.position.batch = self.train.num_batches();
                return self.check_sums();
            };
            let done = self.trainer.progress.position.batch;
            let loss = self.step_or_skip(batch?, batches.position())?;
            self.trainer.progress.position.batch = batches.position();
            self.trainer.progress.sums.seconds = before.seconds + start.elapsed().as_secs_f64();
            let step = self.report(loss, &before);
            self.tell(Event::Step(step));
            if self.trainer.checkpoint_every.is_some_and(|every| step.batch / every > done / every)
                && !self.is_trained()
            {
                self.save_last()?;
            }
        }
        Ok(())
    }

    /// Makes one step, which finishes `done` batches of the epoch, and returns the loss before it.
    pub(super) fn step(&mut self, batch: Batch, done: usize) -> Result<f32> {
        let Position { epoch, batch: number } = self.trainer.progress.position;
        self.optimizer.set_lr(self.trainer.lr(epoch * self.train.num_batches() + number));
        let Trainer { settings, teacher, .. } = &*self.trainer;
        // The split separates this stream from that of an augmentation keyed by the same numbers.
        let rng = Rng::keyed(settings.seed, epoch as u64, number as u64).split();
        let images = batch.labels.len();
        let model = &*self.model;
        let teacher = settings.distillation.zip(teacher.as_ref());
        let (mut updates, loss, correct) = install(|| gradients(settings, teacher, model, batch, rng))?;
        self.check_updates(loss, &mut updates, done)?;
        self.optimizer.step(self.model, updates)?;
        let Trainer { progress, ema, .. } = &mut *self.trainer;
        if let Some(average) = ema {
            progress.ema_updates += 1;
            average.update(&*self.model, progress.ema_updates)?;
        }
        let sums = &mut self.trainer.progress.sums;
        sums.images += images;
        sums.correct += correct;
        sums.loss += f64::from(loss) * images as f64;
        Ok(loss)
    }

    /// Describes the progress after a step of this loss. `before` are the sums of the epoch when
    /// this process began with it.
    fn report(&self, loss: f32, before: &Sums) -> Step {
        let Trainer { settings, progress, evaluation, .. } = &*self.trainer;
        let (Position { epoch, batch }, sums) = (progress.position, &progress.sums);
        let (batches, samples) = (self.train.num_batches(), self.train.num_samples());
        let images = sums.images + sums.skipped_images - before.images - before.skipped_images;
        let rate = images as f64 / (sums.seconds - before.seconds).max(1e-9);
        let remaining = samples.saturating_sub(batch.saturating_mul(self.train.batch_size()));
        let later = settings.epochs - epoch - 1;
        let time = |images: usize| Duration::try_from_secs_f64(images as f64 / rate.max(1e-9));
        let time = |images: usize| time(images).unwrap_or(Duration::MAX);
        let evaluations = evaluation.saturating_mul(u32::try_from(later + 1).unwrap_or(u32::MAX));
        Step {
            epoch: epoch + 1,
            epochs: settings.epochs,
            batch,
            batches,
            loss,
            mean_loss: sums.mean_loss(),
            accuracy: sums.accuracy(),
            lr: self.optimizer.lr(),
            skipped_steps: sums.skipped_steps,
            images_per_second: rate as f32,
            eta: time(remaining),
            total_eta: time(remaining.saturating_add(later.saturating_mul(samples)))
                .saturating_add(evaluations),
        }
    }

    /// Finishes an epoch: adds its record, and moves on to the next one.
    fn finish_epoch(&mut self, test: &Metrics, averaged: Option<&Metrics>) -> Record {
        let last_step = (self.trainer.progress.position.epoch + 1) * self.train.num_batches() - 1;
        let lr = self.trainer.lr(last_step);
        let progress = &mut self.trainer.progress;
        let sums = std::mem::take(&mut progress.sums);
        progress.position = Position { epoch: progress.position.epoch + 1, batch: 0 };
        let rollbacks: usize = progress.history.records.iter().map(|record| record.rollbacks).sum();
        let record = Record {
            epoch: progress.position.epoch,
            seconds: sums.seconds,
            lr,
            train_loss: sums.mean_loss(),
            train_accuracy: sums.accuracy(),
            test_loss: test.loss(),
            test_accuracy: test.accuracy(),
            test_top5: test.top5_accuracy(),
            skipped_steps: sums.skipped_steps,
            rollbacks: progress.rollbacks - rollbacks,
            unreadable: self.train.num_samples().saturating_sub(sums.images + sums.skipped_images),
            test_unreadable: test.unreadable,
            images_per_second: Some(sums.images_per_second()),
            weights_hash: Some(weights_hash(&*self.model)),
            ema_test_loss: averaged.map(Metrics::loss),
            ema_test_accuracy: averaged.map(Metrics::accuracy),
        };
        progress.history.records.push(record);
        log_unreadable(&format!("epoch {}", record.epoch), record.unreadable, self.train);
        record
    }

    /// Returns whether the steps of the current epoch are finished.
    pub(super) fn is_trained(&self) -> bool {
        self.trainer.progress.position.batch == self.train.num_batches()
    }

    fn is_stopped(&self) -> bool {
        self.is_answered || self.trainer.stop.load(Ordering::Relaxed)
    }

    /// Reports an event.
    pub(super) fn tell(&mut self, event: Event) {
        self.is_answered |= (self.on_event)(event).is_break();
    }

    /// Returns the best epoch if the training is to end early, and gives the model its weights.
    fn stop_early(&mut self) -> Result<Option<usize>> {
        let Trainer { settings, progress, best, ema, .. } = &mut *self.trainer;
        let Some(settings) = settings.early_stopping else { return Ok(None) };
        let Some(best_epoch) = settings.best_epoch(&progress.history) else { return Ok(None) };
        log::info!("no better test accuracy for {} epochs since epoch {best_epoch}", settings.patience);
        match best.as_ref().filter(|state| state.epoch() == best_epoch) {
            _ if !settings.restore_best => {}
            None => log::warn!("the weights of epoch {best_epoch} are not there: those of the last one stay"),
            Some(state) => {
                let averages = state.clone().load_model(self.model)?;
                if let Some(ema) = ema
                    && !averages.is_empty()
                {
                    *ema = ModelEma::from_tensors(*ema.settings(), averages);
                }
            }
        }
        Ok(Some(best_epoch))
    }

    /// Holds the state after the best epoch so far, if the training may end early.
    pub(super) fn remember_best(&mut self) {
        let trainer = &mut *self.trainer;
        if trainer.settings.early_stopping.is_some_and(|settings| settings.restore_best) {
            let ema = trainer.ema.as_ref();
            trainer.best = Some(Snapshot::capture(&trainer.progress, ema, &*self.model, &*self.optimizer));
        }
    }
}

/// Computes the gradients and the loss of a batch, micro-batch by micro-batch, and the number of
/// images that were classified correctly.
fn gradients(
    settings: &Settings,
    teacher: Option<(Distillation, &Teacher)>,
    model: &dyn Module,
    batch: Batch,
    mut rng: Rng,
) -> Result<(Updates, f32, usize)> {
    let images = batch.labels.len();
    let size = images.div_ceil(settings.micro_batches).max(1);
    let (mut updates, mut mean_loss, mut correct) = (Updates::default(), 0.0, 0);
    for (i, labels) in batch.classes().chunks(size).enumerate() {
        let part = |all: &Tensor| match labels.len() {
            count if count == images => Ok(all.clone()),
            count => all.slice_rows(i * size..i * size + count),
        };
        let (pixels, mixed) = (part(&batch.images)?, batch.targets.as_ref().map(part).transpose()?);
        let tape = Tape::train(rng.split()).precision(settings.precision);
        let logits = tape.input(pixels.clone()).apply(model)?;
        let smoothing = settings.label_smoothing;
        let mut loss = settings.loss.compute(&logits, labels, mixed.as_ref(), smoothing)?;
        if let Some((Distillation { temperature, alpha }, Teacher(teacher))) = teacher {
            let divergence = logits.distillation(&teacher.run(&pixels)?, temperature)?;
            loss = loss.scale(1.0 - alpha).add(&divergence.scale(alpha))?;
        }
        let loss = loss.scale(labels.len() as f32 / images as f32);
        mean_loss += loss.item();
        let predictions = logits.argmax();
        correct += predictions.iter().zip(labels).filter(|(class, label)| class == label).count();
        updates.accumulate(loss.backward()?);
    }
    Ok((updates, mean_loss, correct))
}

impl Sums {
    fn mean_loss(&self) -> f32 {
        (self.loss / self.images as f64) as f32
    }

    fn accuracy(&self) -> f32 {
        self.correct as f32 / self.images as f32
    }

    fn images_per_second(&self) -> f32 {
        ((self.images + self.skipped_images) as f64 / self.seconds.max(1e-9)) as f32
    }
}
