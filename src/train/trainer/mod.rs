//! The training loop: what it knows here, its options in [`options`], the loop itself in [`run`].

mod checks;
mod divergence;
mod options;
mod output;
mod resume;
mod run;

#[cfg(feature = "report")]
use super::LoaderInfo;
use super::{
    Event, History, Loss, ModelEma, OnDivergence, Outcome, Position, Settings,
    checkpoint::{Progress, Snapshot},
    loss::Teacher,
    settings::Requested,
};
use crate::{
    Precision, Result,
    data::Loader,
    nn::Module,
    optim::{NamedSettings, Optimizer, Schedule},
};
pub(super) use checks::single;
use output::Output;
pub use resume::Resumed;
use run::Run;
use std::{
    ops::ControlFlow,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

/// A training loop over epochs and batches: every batch is one optimizer step at the learning rate
/// of the schedule, and after every epoch the model is evaluated and a checkpoint is written.
///
/// The random numbers of a step are keyed by (seed, epoch, batch), and the batches of a [`Loader`]
/// by its seed and the epoch. A training that is stopped or killed after any step and resumed from
/// its checkpoint, with the same model, optimizer settings and loaders, therefore ends with the
/// same bits as one that was never stopped.
///
/// Before the first step, everything that can be known is checked; see [`Trainer::run`]. A state
/// that is not finite is never written to a checkpoint; see [`OnDivergence`].
///
/// See [the module](super) for an example.
#[derive(Debug)]
pub struct Trainer {
    settings: Settings,
    requested: Requested,
    progress: Progress,
    /// The state that a rollback goes back to, if the policy is one.
    rollback: Option<Snapshot>,
    /// The average of the weights, once the training has begun with one.
    ema: Option<ModelEma>,
    /// The state after the best epoch, if the training may end early.
    best: Option<Snapshot>,
    /// The network to learn from, if there is one.
    teacher: Option<Teacher>,
    output: Option<Output>,
    /// The checkpoint that the training was resumed from.
    resumed_from: Option<PathBuf>,
    checkpoint_every: Option<usize>,
    stop: Arc<AtomicBool>,
    /// The duration of the last evaluation.
    evaluation: Duration,
    /// The settings of the optimizer that the training last ran with.
    optimizer_settings: NamedSettings,
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
            on_divergence: OnDivergence::Stop,
            precision: Precision::F32,
            ema: None,
            loss: Loss::CrossEntropy,
            distillation: None,
            early_stopping: None,
            plateau: None,
        };
        Trainer::create(settings, Requested::default())
    }

    /// Creates a training with these settings, such as those of a checkpoint.
    ///
    /// ```no_run
    /// use skipgrad::train::{Checkpoint, Trainer};
    /// let last = "runs/cifar10/last.checkpoint";
    /// let settings = Checkpoint::read(last)?.settings().clone();
    /// let trainer = Trainer::with_settings(settings).epochs(60); // as before, but for longer
    /// # let _ = trainer;
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn with_settings(settings: Settings) -> Trainer {
        Trainer::create(settings, Requested::ALL)
    }

    fn create(settings: Settings, requested: Requested) -> Trainer {
        Trainer {
            settings,
            requested,
            progress: Progress::default(),
            rollback: None,
            ema: None,
            best: None,
            teacher: None,
            output: None,
            resumed_from: None,
            checkpoint_every: None,
            stop: Arc::default(),
            evaluation: Duration::ZERO,
            optimizer_settings: NamedSettings::new(),
        }
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

    /// Returns the average of the weights, if there is one and the training has begun.
    pub fn averages(&self) -> Option<&ModelEma> {
        self.ema.as_ref()
    }

    /// Returns the settings of the optimizer of the last [`Trainer::run`], apart from the learning
    /// rate; none before it.
    ///
    /// ```
    /// use skipgrad::{data::{Loader, SyntheticShapes}, nn::{Flatten, Linear, Sequential}};
    /// use skipgrad::{prelude::*, train::Trainer};
    /// let data = SyntheticShapes::with_sizes(16, 16, 0)?;
    /// let (train, test) = (Loader::new(data.train(), 8), Loader::new(data.test(), 16));
    /// let fc = Linear::new(3072, 10, &mut Rng::seed(0))?;
    /// let mut model = Sequential::new().push(Flatten).push(fc);
    /// let mut trainer = Trainer::new(1, Schedule::constant(0.01));
    /// trainer.run(&mut model, &mut Sgd::new(0.0).momentum(0.9), &train, &test, |_| ())?;
    /// assert_eq!(trainer.optimizer_settings()["momentum"], "0.9");
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn optimizer_settings(&self) -> &NamedSettings {
        &self.optimizer_settings
    }

    /// Returns what is known of the training and of the test loader, once there were some.
    #[cfg(feature = "report")]
    pub(crate) fn loaders(&self) -> [Option<&LoaderInfo>; 2] {
        [self.progress.train.as_ref(), self.progress.test.as_ref()]
    }

    /// Trains from the current position until all epochs are finished or the training is stopped,
    /// and calls `on_event` after every step and every epoch.
    ///
    /// Before the first step it checks the settings, both loaders, the model (by meta passes on the
    /// sizes of all batches, see [`Tape::meta`](crate::autograd::Tape::meta)), the optimizer and
    /// the folder. It reads no more than a few images for that, and writes nothing.
    /// [`Trainer::LAST`] is then written after every epoch, first before the evaluation and once
    /// more after it.
    ///
    /// # Errors
    /// Before the first step, with the model and all files unchanged:
    ///
    /// * [`Error::Argument`](crate::Error::Argument) for settings out of range; for loaders without
    ///   images, batches that are too small for batch normalization, and classes that differ or for
    ///   which the model has no logits; for a training loader that differs from the one before the
    ///   training was stopped; for settings of the optimizer; for a folder with the results of
    ///   another training;
    /// * what the model reports for the images of both loaders, and
    ///   [`Error::NoGradient`](crate::Error::NoGradient);
    /// * [`Error::Io`](crate::Error::Io) if the folder cannot be written.
    ///
    /// Later, [`Error::Diverged`](crate::Error::Diverged) if a value is not finite, unless
    /// [`Trainer::on_divergence`] has another policy; and errors of the loaders and of writing. The
    /// last checkpoint is good in any case.
    pub fn run(
        &mut self,
        model: &mut dyn Module,
        optimizer: &mut dyn Optimizer,
        train: &Loader,
        test: &Loader,
        mut on_event: impl FnMut(Event),
    ) -> Result<Outcome> {
        self.run_until(model, optimizer, train, test, |event| {
            on_event(event);
            ControlFlow::Continue(())
        })
    }

    /// Trains as [`Trainer::run`], until `on_event` answers with a break: then the training stops
    /// as if the flag of [`Trainer::stop`] were set, after the current step or epoch.
    ///
    /// # Errors
    /// As [`Trainer::run`].
    ///
    /// ```
    /// use skipgrad::{data::{Loader, SyntheticShapes}, nn::{Flatten, Linear, Sequential}};
    /// use skipgrad::{prelude::*, train::{Event, Outcome, Trainer}};
    /// use std::ops::ControlFlow;
    /// let data = SyntheticShapes::with_sizes(16, 16, 0)?;
    /// let (train, test) = (Loader::new(data.train(), 8), Loader::new(data.test(), 16));
    /// let fc = Linear::new(3072, 10, &mut Rng::seed(0))?;
    /// let mut model = Sequential::new().push(Flatten).push(fc);
    /// let mut trainer = Trainer::new(9, Schedule::constant(0.01));
    /// let mut sgd = Sgd::new(0.0);
    /// let outcome = trainer.run_until(&mut model, &mut sgd, &train, &test, |event| match event {
    ///     Event::Epoch(record) if record.epoch == 2 => ControlFlow::Break(()),
    ///     _ => ControlFlow::Continue(()),
    /// })?;
    /// assert!(matches!(outcome, Outcome::Stopped(at) if at.epoch == 2));
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn run_until(
        &mut self,
        model: &mut dyn Module,
        optimizer: &mut dyn Optimizer,
        train: &Loader,
        test: &Loader,
        mut on_event: impl FnMut(Event) -> ControlFlow<()>,
    ) -> Result<Outcome> {
        let on_event = &mut on_event;
        Run { trainer: self, model, optimizer, train, test, on_event, is_answered: false }.run()
    }

    /// Returns the learning rate of a step of the current epoch, counted from the beginning of the
    /// training.
    fn lr(&self, step: usize) -> f32 {
        let lr = self.settings.schedule.lr(step) * self.progress.lr_scale;
        let losses = self.progress.history.records.iter().map(|record| record.test_loss);
        self.settings.plateau.map_or(lr, |plateau| lr * plateau.scale(losses))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Rng, Tensor,
        autograd::{State, Tape},
        data::Images,
        nn::{Flatten, Linear, Sequential},
        ops::Targets,
        optim::Sgd,
        train::Step,
    };
    use std::sync::atomic::Ordering;

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
        assert!(steps[0].total_eta > steps[0].eta && steps[0].skipped_steps == 0);
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
