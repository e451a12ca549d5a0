//! The training loop.

use super::{
    Checkpoint, Event, History, Metrics, Outcome, Position, Record, Settings, Step,
    checkpoint::{LoaderSizes, Progress, Sums},
    evaluate,
};
use crate::{
    Error, Result, Rng,
    autograd::{Tape, Updates},
    data::{Batch, Loader},
    install,
    nn::Module,
    ops::Targets,
    optim::{Optimizer, Schedule},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// A training loop over epochs and batches: every batch is one optimizer step at the learning rate
/// of the schedule, and after every epoch the model is evaluated and a checkpoint is written.
///
/// The random numbers of a step are keyed by (seed, epoch, batch), and the batches of a [`Loader`]
/// by its seed and the epoch. A training that is stopped after any step and resumed from its
/// checkpoint, with the same model, optimizer settings and loaders, therefore ends with the same
/// bits as one that was never stopped.
///
/// See [the module](super) for an example.
#[derive(Debug)]
pub struct Trainer {
    settings: Settings,
    progress: Progress,
    folder: Option<PathBuf>,
    checkpoint_every: Option<usize>,
    stop: Arc<AtomicBool>,
}

impl Trainer {
    /// Name of the file in [`Trainer::folder`] that holds the latest checkpoint.
    pub const LAST: &'static str = "last.checkpoint";

    /// Name of the file in [`Trainer::folder`] that holds the checkpoint of the best test accuracy.
    pub const BEST: &'static str = "best.checkpoint";

    /// Name of the file in [`Trainer::folder`] that holds the history.
    pub const HISTORY: &'static str = "history.csv";

    /// Creates a training of `epochs` epochs with seed 0, without label smoothing, gradient
    /// clipping, micro-batches or files.
    pub fn new(epochs: usize, schedule: Schedule) -> Trainer {
        let settings = Settings {
            model: String::new(),
            epochs,
            schedule,
            seed: 0,
            label_smoothing: 0.0,
            clip_norm: None,
            micro_batches: 1,
        };
        Trainer {
            settings,
            progress: Progress::default(),
            folder: None,
            checkpoint_every: None,
            stop: Arc::default(),
        }
    }

    /// Sets the seed of the random numbers of a step, such as those of dropout.
    pub fn seed(mut self, seed: u64) -> Trainer {
        self.settings.seed = seed;
        self
    }

    /// Sets the name of the model that checkpoints record.
    pub fn model_name(mut self, name: impl Into<String>) -> Trainer {
        self.settings.model = name.into();
        self
    }

    /// Sets the fraction of each target that is spread over all classes, in [0, 1) (Szegedy et al.
    /// 2016, section 7).
    pub fn label_smoothing(mut self, label_smoothing: f32) -> Trainer {
        self.settings.label_smoothing = label_smoothing;
        self
    }

    /// Scales the gradients of a step so that their global Euclidean norm is at most `norm`
    /// (Pascanu et al. 2013).
    pub fn clip_norm(mut self, norm: f32) -> Trainer {
        self.settings.clip_norm = Some(norm);
        self
    }

    /// Computes every batch as `count` micro-batches, one after the other, and accumulates their
    /// gradients, which takes less memory. The step is that of the whole batch, except that batch
    /// normalization uses the statistics of each micro-batch.
    pub fn micro_batches(mut self, count: usize) -> Trainer {
        self.settings.micro_batches = count;
        self
    }

    /// Sets the folder where checkpoints and the history are written after every epoch, and when
    /// the training is stopped. It is created if it does not exist.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Trainer {
        self.folder = Some(folder.into());
        self
    }

    /// Writes [`Trainer::LAST`] also after every `batches` batches of an epoch.
    pub fn checkpoint_every(mut self, batches: usize) -> Trainer {
        self.checkpoint_every = Some(batches);
        self
    }

    /// Sets the flag with which another thread, or a handler of Ctrl-C, stops the training after
    /// the current step.
    pub fn stop(mut self, flag: Arc<AtomicBool>) -> Trainer {
        self.stop = flag;
        self
    }

    /// Returns the settings of the training.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the position of the training.
    pub fn position(&self) -> Position {
        self.progress.position
    }

    /// Returns the records of all finished epochs.
    pub fn history(&self) -> &History {
        &self.progress.history
    }

    /// Resumes from a checkpoint: restores the weights and statistics of `model`, the state of
    /// `optimizer`, and the settings and the position of the training. The settings of the
    /// optimizer and the loaders are not part of a checkpoint; they must be the same as before.
    ///
    /// # Errors
    /// As [`Checkpoint::read`]; [`Error::State`] if the checkpoint is of another model or
    /// optimizer. Nothing is changed then.
    pub fn resume(
        &mut self,
        model: &mut dyn Module,
        optimizer: &mut dyn Optimizer,
        path: impl AsRef<Path>,
    ) -> Result<()> {
        let path = path.as_ref();
        (self.settings, self.progress) = Checkpoint::read(path)?.restore(model, optimizer)?;
        let Position { epoch, batch } = self.progress.position;
        log::info!("resumed from {} after {epoch} epochs and {batch} batches", path.display());
        Ok(())
    }

    /// Trains from the current position until all epochs are finished or the training is stopped,
    /// and calls `on_event` after every step and every epoch.
    ///
    /// # Errors
    /// [`Error::Argument`] for settings out of range, and for a training loader of other sizes than
    /// before the training was stopped; [`Error::Diverged`] if the loss, or the norm of gradients
    /// that are clipped, is not finite (the weights are those before the step); [`Error::Io`]
    /// before the first step if the folder cannot be written; errors of the model, the optimizer
    /// and the loaders.
    pub fn run(
        &mut self,
        model: &mut dyn Module,
        optimizer: &mut dyn Optimizer,
        train: &Loader,
        test: &Loader,
        mut on_event: impl FnMut(Event),
    ) -> Result<Outcome> {
        self.prepare(train)?;
        while self.progress.position.epoch < self.settings.epochs {
            self.train_epoch(model, optimizer, train, &mut on_event)?;
            if self.is_stopped() {
                self.save(Trainer::LAST, model, optimizer)?;
                let Position { epoch, batch } = self.progress.position;
                log::info!("stopped after {epoch} epochs and {batch} batches");
                return Ok(Outcome::Stopped(self.progress.position));
            }
            let metrics = evaluate(model, test)?;
            let record = self.finish_epoch(&metrics, train.num_batches());
            self.save_epoch(record, model, optimizer)?;
            on_event(Event::Epoch(record));
        }
        Ok(Outcome::Finished)
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Checks settings and loader, and creates the folder, so that errors appear before the first
    /// step.
    fn prepare(&mut self, train: &Loader) -> Result<()> {
        train.check()?;
        if self.settings.micro_batches == 0 {
            return Err(Error::argument("train", "micro_batches", "at least 1", 0));
        }
        if let Some(norm) = self.settings.clip_norm.filter(|norm| norm.is_nan() || *norm <= 0.0) {
            return Err(Error::argument("train", "clip_norm", "more than 0", norm));
        }
        let found = LoaderSizes::of(train);
        let expected = *self.progress.loader.get_or_insert(found);
        if found != expected {
            let LoaderSizes { images, batch_size } = expected;
            let expected =
                format!("{images} images in batches of {batch_size}, as before the training was stopped");
            let found = format!("{} in batches of {}", found.images, found.batch_size);
            return Err(Error::argument("train", "train", expected, found));
        }
        match &self.folder {
            Some(folder) => {
                fs::create_dir_all(folder).map_err(|e| Error::io(folder, "create", e))?;
                self.progress.history.write(folder.join(Trainer::HISTORY))
            }
            None => {
                log::debug!("the trainer has no folder: no checkpoint and no history is written");
                Ok(())
            }
        }
    }

    /// Trains on the remaining batches of the current epoch, until it ends or the training is
    /// stopped.
    fn train_epoch(
        &mut self,
        model: &mut dyn Module,
        optimizer: &mut dyn Optimizer,
        train: &Loader,
        on_event: &mut impl FnMut(Event),
    ) -> Result<()> {
        let Position { epoch, batch: first } = self.progress.position;
        let (start, before) = (Instant::now(), self.progress.sums);
        for batch in train.epoch_from(epoch as u64, first)? {
            if self.is_stopped() {
                return Ok(());
            }
            let batch = batch?;
            let images = batch.labels.len();
            let (loss, correct) = self.step(model, optimizer, batch, epoch * train.num_batches())?;
            self.progress.position.batch += 1;
            let elapsed = start.elapsed().as_secs_f64();
            let sums = &mut self.progress.sums;
            sums.images += images;
            sums.correct += correct;
            sums.loss += f64::from(loss) * images as f64;
            sums.seconds = before.seconds + elapsed;
            let rate = (sums.images - before.images) as f64 / elapsed.max(1e-9);
            let remaining = train.num_samples().saturating_sub(sums.images) as f64;
            on_event(Event::Step(Step {
                epoch: epoch + 1,
                epochs: self.settings.epochs,
                batch: self.progress.position.batch,
                batches: train.num_batches(),
                loss,
                mean_loss: sums.mean_loss(),
                accuracy: sums.accuracy(),
                lr: optimizer.lr(),
                images_per_second: rate as f32,
                eta: Duration::from_secs_f64(remaining / rate.max(1e-9)),
            }));
            if self.checkpoint_every.is_some_and(|every| self.progress.position.batch.is_multiple_of(every)) {
                self.save(Trainer::LAST, model, optimizer)?;
            }
        }
        Ok(())
    }

    /// Makes one step, and returns the loss before it and the number of images that were classified
    /// correctly. `first_step` is the number of steps of the epochs before.
    fn step(
        &self,
        model: &mut dyn Module,
        optimizer: &mut dyn Optimizer,
        batch: Batch,
        first_step: usize,
    ) -> Result<(f32, usize)> {
        let Position { epoch, batch: number } = self.progress.position;
        optimizer.set_lr(self.settings.schedule.lr(first_step + number));
        // The split separates this stream from that of an augmentation keyed by the same numbers.
        let rng = Rng::keyed(self.settings.seed, epoch as u64, number as u64).split();
        let (mut updates, loss, correct) = install(|| self.gradients(model, batch, rng))?;
        self.check_finite("loss", loss, optimizer.lr())?;
        if let Some(norm) = self.settings.clip_norm {
            let norm = updates.clip_global_norm(norm);
            self.check_finite("gradient norm", norm, optimizer.lr())?;
        }
        optimizer.step(model, updates)?;
        Ok((loss, correct))
    }

    /// Computes the gradients and the loss of a batch, micro-batch by micro-batch, and the number
    /// of images that were classified correctly.
    fn gradients(&self, model: &dyn Module, batch: Batch, mut rng: Rng) -> Result<(Updates, f32, usize)> {
        let images = batch.labels.len();
        let size = images.div_ceil(self.settings.micro_batches).max(1);
        let (mut updates, mut mean_loss, mut correct) = (Updates::default(), 0.0, 0);
        for (i, labels) in batch.labels.chunks(size).enumerate() {
            let pixels = if labels.len() == images {
                batch.images.clone()
            } else {
                batch.images.slice_rows(i * size..i * size + labels.len())?
            };
            let tape = Tape::train(rng.split());
            let logits = tape.input(pixels).apply(model)?;
            let targets = Targets::classes(labels).smoothed(self.settings.label_smoothing);
            let weight = labels.len() as f32 / images as f32;
            let loss = logits.cross_entropy(targets)?.scale(weight);
            mean_loss += loss.item();
            let predictions = logits.argmax();
            correct += predictions.iter().zip(labels).filter(|(class, label)| class == label).count();
            updates.accumulate(loss.backward()?);
        }
        Ok((updates, mean_loss, correct))
    }

    fn check_finite(&self, name: &str, value: f32, learning_rate: f32) -> Result<()> {
        if value.is_finite() {
            return Ok(());
        }
        let Position { epoch, batch } = self.progress.position;
        let what = format!("{name} ({value})");
        Err(Error::Diverged { epoch: epoch + 1, batch: batch + 1, what, learning_rate })
    }

    /// Finishes an epoch of `batches` batches: adds its record and moves on to the next epoch.
    fn finish_epoch(&mut self, test: &Metrics, batches: usize) -> Record {
        let progress = &mut self.progress;
        let sums = std::mem::take(&mut progress.sums);
        progress.position = Position { epoch: progress.position.epoch + 1, batch: 0 };
        let record = Record {
            epoch: progress.position.epoch,
            seconds: sums.seconds,
            lr: self.settings.schedule.lr(progress.position.epoch * batches - 1),
            train_loss: sums.mean_loss(),
            train_accuracy: sums.accuracy(),
            test_loss: test.loss(),
            test_accuracy: test.accuracy(),
            test_top5: test.top5_accuracy(),
        };
        progress.history.records.push(record);
        record
    }

    fn save_epoch(&self, record: Record, model: &dyn Module, optimizer: &dyn Optimizer) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        if self.history().best().is_some_and(|best| best.epoch == record.epoch) {
            log::info!("epoch {} has the best test accuracy so far, {}", record.epoch, record.test_accuracy);
            self.save(Trainer::BEST, model, optimizer)?;
        }
        self.save(Trainer::LAST, model, optimizer)?;
        self.history().write(folder.join(Trainer::HISTORY))
    }

    fn save(&self, name: &str, model: &dyn Module, optimizer: &dyn Optimizer) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let path = folder.join(name);
        Checkpoint::capture(&self.settings, &self.progress, model, optimizer).write(&path)?;
        log::debug!("wrote {}", path.display());
        Ok(())
    }
}

impl Sums {
    fn mean_loss(&self) -> f32 {
        (self.loss / self.images as f64) as f32
    }

    fn accuracy(&self) -> f32 {
        self.correct as f32 / self.images as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Tensor,
        autograd::State,
        data::Images,
        nn::{Flatten, Linear, Sequential},
        optim::Sgd,
    };

    fn loader(size: usize) -> Loader {
        let mut rng = Rng::seed(4);
        let pixels = Tensor::uniform([10, 2, 2, 1], 0.0, 1.0, &mut rng).unwrap();
        let images = Images::new(pixels, (0..10).map(|i| i % 3).collect(), ["a", "b", "c"]).unwrap();
        Loader::new(images, size).shuffle(1)
    }

    fn model() -> Sequential {
        Sequential::new().push(Flatten).push(Linear::new(4, 3, &mut Rng::seed(0)).unwrap())
    }

    fn train(mut trainer: Trainer) -> (Sequential, Vec<Step>) {
        let (mut model, mut steps) = (model(), vec![]);
        let outcome = trainer.run(&mut model, &mut Sgd::new(9.0), &loader(4), &loader(5), |event| {
            if let Event::Step(step) = event {
                steps.push(step);
            }
        });
        assert_eq!(outcome.unwrap(), Outcome::Finished);
        (model, steps)
    }

    #[test]
    fn it_equals_a_loop_written_by_hand() {
        let schedule = Schedule::step(0.5, 2, 0.5);
        let (trained, steps) = train(Trainer::new(2, schedule.clone()).label_smoothing(0.1));
        let (mut model, mut sgd, mut losses) = (model(), Sgd::new(0.0), vec![]);
        for epoch in 0..2 {
            for batch in loader(4).epoch(epoch).unwrap() {
                let batch = batch.unwrap();
                sgd.set_lr(schedule.lr(losses.len()));
                let tape = Tape::train(Rng::seed(0));
                let logits = model.forward(&tape.input(batch.images)).unwrap();
                let loss = logits.cross_entropy(Targets::classes(&batch.labels).smoothed(0.1)).unwrap();
                losses.push(loss.item());
                sgd.step(&mut model, loss.backward().unwrap()).unwrap();
            }
        }
        assert_eq!(model.export(), trained.export());
        assert_eq!(steps.iter().map(|step| step.loss).collect::<Vec<_>>(), losses);
        let counts: Vec<_> = steps.iter().map(|s| (s.epoch, s.batch, s.batches, s.lr)).collect();
        assert_eq!(
            counts,
            [
                (1, 1, 3, 0.5),
                (1, 2, 3, 0.5),
                (1, 3, 3, 0.25),
                (2, 1, 3, 0.25),
                (2, 2, 3, 0.125),
                (2, 3, 3, 0.125)
            ]
        );
        let mean = (4.0 * losses[3] + 4.0 * losses[4] + 2.0 * losses[5]) / 10.0;
        assert!((steps[5].mean_loss - mean).abs() < 1e-6, "weighted by the images");
        assert_eq!(steps[5].eta, Duration::ZERO);
    }

    #[test]
    fn micro_batches_make_the_same_step() {
        let schedule = Schedule::constant(0.5);
        let (whole, _) = train(Trainer::new(2, schedule.clone()));
        for count in [2, 3, 100] {
            let (split, _) = train(Trainer::new(2, schedule.clone()).micro_batches(count));
            for (a, b) in whole.export().values().zip(split.export().values()) {
                assert!(a.data().iter().zip(b.data()).all(|(a, b)| (a - b).abs() < 1e-6), "{count}: {a} {b}");
            }
        }
    }

    #[test]
    fn clipped_steps_are_short() {
        let (model, _) = train(Trainer::new(1, Schedule::constant(1.0)).clip_norm(1e-3));
        let (before, after) = (self::model().export(), model.export());
        for (name, tensor) in after {
            let moved = tensor.data().iter().zip(before[&name].data()).all(|(a, b)| (a - b).abs() <= 3.1e-3);
            assert!(moved, "{name}");
        }
    }

    #[test]
    fn it_continues_in_the_same_process() {
        let flag = Arc::new(AtomicBool::new(true));
        let mut trainer = Trainer::new(1, Schedule::constant(0.5)).stop(flag.clone());
        let (mut model, mut sgd) = (model(), Sgd::new(0.0));
        let mut run = |trainer: &mut Trainer| {
            trainer.run(&mut model, &mut sgd, &loader(4), &loader(5), |_| flag.store(true, Ordering::Relaxed))
        };
        for batch in [0, 1, 2, 3] {
            assert_eq!(run(&mut trainer).unwrap(), Outcome::Stopped(Position { epoch: 0, batch }));
            flag.store(false, Ordering::Relaxed);
        }
        assert_eq!(run(&mut trainer).unwrap(), Outcome::Finished);
        assert_eq!(trainer.history().records.len(), 1);
        assert_eq!(model.export(), train(Trainer::new(1, Schedule::constant(0.5))).0.export());
    }

    #[test]
    fn settings_out_of_range_are_errors() {
        let check = |mut trainer: Trainer, text: &str| {
            let (mut model, mut sgd) = (model(), Sgd::new(0.1));
            let run = trainer.run(&mut model, &mut sgd, &loader(4), &loader(5), |_| panic!("a step"));
            let error = run.unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
            assert_eq!(model.export(), self::model().export());
        };
        let trainer = || Trainer::new(1, Schedule::constant(0.1));
        check(trainer().micro_batches(0), "train: micro_batches: expected at least 1, found 0");
        check(trainer().clip_norm(f32::NAN), "train: clip_norm: expected more than 0, found NaN");
        check(trainer().label_smoothing(1.5), "smoothing");
        check(Trainer::new(1, Schedule::constant(-1.0)), "sgd: lr");
    }
}
