//! The training loop.

use super::{
    Checkpoint, Event, History, Metrics, Outcome, Position, Record, Settings, Step,
    checkpoint::{Progress, Sums},
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

/// A training: a loop over epochs and batches, each batch a step at the schedule's learning rate, each epoch evaluated,
/// written down and kept in a checkpoint.
///
/// Whatever is random in a step is keyed by (seed, epoch, batch), and a [`Loader`]'s batches by its seed and the epoch. So a
/// training that is stopped after any step and resumed from its checkpoint, with the same model, optimizer settings and
/// loaders, ends with the same bits as one that never stopped.
///
/// [The module](super) has an example.
#[derive(Debug)]
pub struct Trainer {
    settings: Settings,
    progress: Progress,
    folder: Option<PathBuf>,
    checkpoint_every: Option<usize>,
    stop: Arc<AtomicBool>,
}

impl Trainer {
    /// The name of the file, in [`Trainer::folder`], with the latest checkpoint.
    pub const LAST: &'static str = "last.checkpoint";

    /// The name of the file, in [`Trainer::folder`], with the checkpoint of the best test accuracy so far.
    pub const BEST: &'static str = "best.checkpoint";

    /// The name of the file, in [`Trainer::folder`], with the record of every epoch.
    pub const HISTORY: &'static str = "history.csv";

    /// A training of so many epochs; no smoothing, no clipping, whole batches, seed 0, nothing written.
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
        let stop = Arc::default();
        Trainer { settings, progress: Progress::default(), folder: None, checkpoint_every: None, stop }
    }

    /// Where everything random in a step comes from: dropout and its kin.
    pub fn seed(mut self, seed: u64) -> Trainer {
        self.settings.seed = seed;
        self
    }

    /// The model's name, one line, kept in checkpoints.
    pub fn model_name(mut self, name: impl Into<String>) -> Trainer {
        self.settings.model = name.into();
        self
    }

    /// How much of each target is spread over all classes (Szegedy et al. 2016, section 7), in [0, 1).
    pub fn label_smoothing(mut self, label_smoothing: f32) -> Trainer {
        self.settings.label_smoothing = label_smoothing;
        self
    }

    /// Scales the gradients of a step so that their common Euclidean norm is at most this (Pascanu et al. 2013).
    pub fn clip_norm(mut self, norm: f32) -> Trainer {
        self.settings.clip_norm = Some(norm);
        self
    }

    /// Computes every batch in so many parts, one after the other, to need less memory. The step is the mean's, as that of
    /// the whole batch; batch normalization takes the statistics of each part.
    pub fn micro_batches(mut self, parts: usize) -> Trainer {
        self.settings.micro_batches = parts;
        self
    }

    /// Where checkpoints and the history are written, after every epoch and when the training is stopped. Made if it is not
    /// there.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Trainer {
        self.folder = Some(folder.into());
        self
    }

    /// Writes [`Trainer::LAST`] after every so many batches of an epoch, too.
    pub fn checkpoint_every(mut self, batches: usize) -> Trainer {
        self.checkpoint_every = Some(batches);
        self
    }

    /// A flag that another thread, or a handler of Ctrl-C, sets to stop the training after the step at hand.
    pub fn stop(mut self, flag: Arc<AtomicBool>) -> Trainer {
        self.stop = flag;
        self
    }

    /// What the training is made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How far it is.
    pub fn position(&self) -> Position {
        self.progress.position
    }

    /// Its epochs so far.
    pub fn history(&self) -> &History {
        &self.progress.history
    }

    /// Goes on from a checkpoint: takes the weights and statistics into `model`, what was remembered into `optimizer`, and the
    /// checkpoint's settings in place of its own. The optimizer's other settings and the loaders must be those of before.
    ///
    /// # Errors
    /// As [`Checkpoint::read`]; [`Error::State`] if the checkpoint is of another model or optimizer. Nothing is changed then.
    pub fn resume(
        &mut self,
        model: &mut dyn Module,
        optimizer: &mut dyn Optimizer,
        path: impl AsRef<Path>,
    ) -> Result<()> {
        (self.settings, self.progress) = Checkpoint::read(path)?.restore(model, optimizer)?;
        Ok(())
    }

    /// Trains, from where the training stands to its end, or until it is stopped.
    ///
    /// # Errors
    /// [`Error::Argument`] for settings out of their range, for a loader that gives other batches than those before the
    /// training was stopped, and if the loss or the norm of the gradients is no longer finite (the weights are those before
    /// the step); [`Error::Io`] if the folder cannot be written, before the first step; whatever model, optimizer and loaders
    /// refuse.
    pub fn run(
        &mut self,
        model: &mut dyn Module,
        optimizer: &mut dyn Optimizer,
        train: &Loader,
        test: &Loader,
        mut tell: impl FnMut(Event),
    ) -> Result<Outcome> {
        self.prepare(train)?;
        while self.progress.position.epoch < self.settings.epochs {
            self.train_epoch(model, optimizer, train, &mut tell)?;
            if self.is_stopped() {
                self.save(Trainer::LAST, model, optimizer)?;
                return Ok(Outcome::Stopped(self.progress.position));
            }
            let metrics = evaluate(model, test)?;
            let record = self.close_epoch(&metrics, train.num_batches());
            self.save_epoch(record, model, optimizer)?;
            tell(Event::Epoch(record));
        }
        Ok(Outcome::Finished)
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Finds out before the first step what would go wrong later.
    fn prepare(&mut self, train: &Loader) -> Result<()> {
        train.check()?;
        if self.settings.micro_batches == 0 {
            return Err(Error::argument("train", "micro_batches", "at least 1", 0));
        }
        if let Some(norm) = self.settings.clip_norm.filter(|norm| norm.is_nan() || *norm <= 0.0) {
            return Err(Error::argument("train", "clip_norm", "more than 0", norm));
        }
        let found = Progress::of_loader(train);
        let [images, size] = *self.progress.data.get_or_insert(found);
        if found != [images, size] {
            let expected =
                format!("{images} images in batches of {size}, as before the training was stopped");
            let found = format!("{} in batches of {}", found[0], found[1]);
            return Err(Error::argument("train", "train", expected, found));
        }
        if let Some(folder) = &self.folder {
            fs::create_dir_all(folder).map_err(|e| Error::io(folder, "create", e))?;
            self.progress.history.write(folder.join(Trainer::HISTORY))?;
        }
        Ok(())
    }

    /// The steps of an epoch, or of what is left of it, until it ends or the training is stopped.
    fn train_epoch(
        &mut self,
        model: &mut dyn Module,
        optimizer: &mut dyn Optimizer,
        train: &Loader,
        tell: &mut impl FnMut(Event),
    ) -> Result<()> {
        let Position { epoch, batch: first } = self.progress.position;
        let (start, before) = (Instant::now(), self.progress.sums);
        for batch in train.epoch_from(epoch as u64, first)? {
            if self.is_stopped() {
                return Ok(());
            }
            let batch = batch?;
            let images = batch.labels.len();
            let (loss, right) = self.step(model, optimizer, batch, epoch * train.num_batches())?;
            self.progress.position.batch += 1;
            let elapsed = start.elapsed().as_secs_f64();
            let sums = &mut self.progress.sums;
            sums.images += images;
            sums.right += right;
            sums.loss += f64::from(loss) * images as f64;
            sums.seconds = before.seconds + elapsed;
            let rate = (sums.images - before.images) as f64 / elapsed.max(1e-9);
            let left = train.samples().saturating_sub(sums.images) as f64;
            tell(Event::Step(Step {
                epoch: epoch + 1,
                epochs: self.settings.epochs,
                batch: self.progress.position.batch,
                batches: train.num_batches(),
                loss,
                mean_loss: sums.mean_loss(),
                accuracy: sums.accuracy(),
                lr: optimizer.lr(),
                images_per_second: rate as f32,
                eta: Duration::from_secs_f64(left / rate.max(1e-9)),
            }));
            if self.checkpoint_every.is_some_and(|every| self.progress.position.batch.is_multiple_of(every)) {
                self.save(Trainer::LAST, model, optimizer)?;
            }
        }
        Ok(())
    }

    /// One step: the loss before it, and how many images were right. `before` is the number of steps of earlier epochs.
    fn step(
        &self,
        model: &mut dyn Module,
        optimizer: &mut dyn Optimizer,
        batch: Batch,
        before: usize,
    ) -> Result<(f32, usize)> {
        let Position { epoch, batch: number } = self.progress.position;
        optimizer.set_lr(self.settings.schedule.lr(before + number));
        // Split, so that a sample's augmentation keyed by the same three numbers has another stream.
        let rng = Rng::keyed(self.settings.seed, epoch as u64, number as u64).split();
        let (mut updates, loss, right) = install(|| self.gradients(model, batch, rng))?;
        self.expect_finite("loss", loss, optimizer.lr())?;
        if let Some(norm) = self.settings.clip_norm {
            let found = updates.clip_global_norm(norm);
            self.expect_finite("gradients", found, optimizer.lr())?;
        }
        optimizer.step(model, updates)?;
        Ok((loss, right))
    }

    /// Forward and backward, part by part.
    fn gradients(&self, model: &dyn Module, batch: Batch, mut rng: Rng) -> Result<(Updates, f32, usize)> {
        let images = batch.labels.len();
        let size = images.div_ceil(self.settings.micro_batches).max(1);
        let (mut updates, mut mean_loss, mut right) = (Updates::default(), 0.0, 0);
        for (part, labels) in batch.labels.chunks(size).enumerate() {
            let pixels = if labels.len() == images {
                batch.images.clone()
            } else {
                batch.images.slice_rows(part * size..part * size + labels.len())?
            };
            let tape = Tape::train(rng.split());
            let logits = tape.input(pixels).apply(model)?;
            let targets = Targets::classes(labels).smoothed(self.settings.label_smoothing);
            let share = labels.len() as f32 / images as f32;
            let loss = logits.cross_entropy(targets)?.scale(share);
            mean_loss += loss.item();
            right += logits.argmax().iter().zip(labels).filter(|(guess, label)| guess == label).count();
            updates.accumulate(loss.backward()?);
        }
        Ok((updates, mean_loss, right))
    }

    fn expect_finite(&self, argument: &'static str, found: f32, lr: f32) -> Result<()> {
        if found.is_finite() {
            return Ok(());
        }
        let Position { epoch, batch } = self.progress.position;
        let at = format!("{found} in epoch {}, batch {} (learning rate {lr})", epoch + 1, batch + 1);
        Err(Error::argument("train", argument, "a finite number", at))
    }

    /// Ends an epoch of so many batches: its record, and a fresh start for the next.
    fn close_epoch(&mut self, test: &Metrics, batches: usize) -> Record {
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
            self.save(Trainer::BEST, model, optimizer)?;
        }
        self.save(Trainer::LAST, model, optimizer)?;
        self.history().write(folder.join(Trainer::HISTORY))
    }

    fn save(&self, name: &str, model: &dyn Module, optimizer: &dyn Optimizer) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        Checkpoint::capture(&self.settings, &self.progress, model, optimizer).write(folder.join(name))
    }
}

impl Sums {
    fn mean_loss(&self) -> f32 {
        (self.loss / self.images as f64) as f32
    }

    fn accuracy(&self) -> f32 {
        self.right as f32 / self.images as f32
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
        let ended = trainer.run(&mut model, &mut Sgd::new(9.0), &loader(4), &loader(5), |event| {
            if let Event::Step(step) = event {
                steps.push(step);
            }
        });
        assert_eq!(ended.unwrap(), Outcome::Finished);
        (model, steps)
    }

    #[test]
    fn it_is_the_loop_that_one_would_write() {
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
    fn a_batch_in_parts_makes_the_same_step() {
        let schedule = Schedule::constant(0.5);
        let (whole, _) = train(Trainer::new(2, schedule.clone()));
        for parts in [2, 3, 100] {
            let (split, _) = train(Trainer::new(2, schedule.clone()).micro_batches(parts));
            for (a, b) in whole.export().values().zip(split.export().values()) {
                assert!(a.data().iter().zip(b.data()).all(|(a, b)| (a - b).abs() < 1e-6), "{parts}: {a} {b}");
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
    fn it_goes_on_in_the_same_process_too() {
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
    fn settings_out_of_range_are_refused() {
        let refused = |mut trainer: Trainer, text: &str| {
            let (mut model, mut sgd) = (model(), Sgd::new(0.1));
            let run = trainer.run(&mut model, &mut sgd, &loader(4), &loader(5), |_| panic!("a step"));
            let error = run.unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
            assert_eq!(model.export(), self::model().export());
        };
        let trainer = || Trainer::new(1, Schedule::constant(0.1));
        refused(trainer().micro_batches(0), "train: micro_batches: expected at least 1, found 0");
        refused(trainer().clip_norm(f32::NAN), "train: clip_norm: expected more than 0, found NaN");
        refused(trainer().label_smoothing(1.5), "smoothing");
        refused(Trainer::new(1, Schedule::constant(-1.0)), "sgd: lr");
    }
}
