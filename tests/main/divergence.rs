//! Runs that are killed, fail or diverge at any place leave the last good checkpoint, from which a
//! run ends with the same bits as one without the fault; and the policies besides the error.

use crate::common::training::{Bits, bits, epochs, loaders, model, plain_trainer, sgd};
use skipgrad::{
    Error, Result, Rng, Tensor,
    autograd::{Mode, NamedTensors, State, StateMut, Tape, Updates, Var},
    data::{Dataset, Loader},
    nn::{Module, Sequential},
    optim::{NamedSettings, Optimizer, Schedule, Sgd},
    train::{Checkpoint, Divergence, Event, OnDivergence, Outcome, Position, Record, Recovery, Trainer},
};
use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

/// What goes wrong. Epochs and batches are counted from 1.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// The process ends after a step; with batch 0, after the epoch.
    Kill(usize, usize),
    /// The process ends during the evaluation after an epoch.
    KillInEvaluation(usize),
    /// The folder cannot be written from this step on.
    Unwritable(usize, usize),
    /// The folder cannot be written from this evaluation on.
    UnwritableAfterEvaluation(usize),
    /// A training image cannot be read from this step on, for a reason that ends the training.
    TrainImage(usize, usize),
    /// A test image cannot be read in the evaluation after this epoch.
    TestImage(usize),
    /// The loss of a step has this value.
    Loss(usize, usize, f32),
    /// The gradient of a step has this value.
    Gradient(usize, usize, f32),
    /// A step leaves this value in a tensor of the model.
    State(usize, usize, &'static str, f32),
    /// A step leaves this value in the state of the optimizer.
    Momentum(usize, usize, f32),
    /// The test loss after an epoch has this value.
    TestLoss(usize, f32),
    /// The training is stopped after a step that leaves a weight that is not finite.
    StopWithWeight(usize, usize, f32),
}

/// Batches of an epoch.
const BATCHES: usize = 7;

/// The number of steps that are done after a batch.
fn steps(epoch: usize, batch: usize) -> usize {
    (epoch - 1) * BATCHES + batch
}

/// The small network, and after it a layer that multiplies by 1, or by what a fault says.
#[derive(State)]
struct Faulty {
    #[state(flatten)]
    net: Sequential,
    #[state(skip)]
    fault: Option<Fault>,
    /// The number of training passes.
    #[state(skip)]
    passes: AtomicUsize,
}

impl Faulty {
    fn new(fault: Option<Fault>, done: usize) -> Faulty {
        Faulty { net: model(if done == 0 { 1 } else { 2 }), fault, passes: AtomicUsize::new(done) }
    }

    /// Counts a training pass, and returns the factors of its output and of its gradient.
    fn factors(&self) -> [f32; 2] {
        let pass = 1 + self.passes.fetch_add(1, Ordering::SeqCst);
        match self.fault {
            Some(Fault::Loss(epoch, batch, value)) if pass == steps(epoch, batch) => [value, 1.0],
            Some(Fault::Gradient(epoch, batch, value)) if pass == steps(epoch, batch) => [1.0, value],
            _ => [1.0, 1.0],
        }
    }
}

impl Module for Faulty {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let y = x.apply(&self.net)?;
        if y.tape().is_meta() || y.tape().mode() == Mode::Eval {
            return Ok(y);
        }
        let [factor, gradient] = self.factors();
        Var::op("faulty", [&y], *y.shape(), move |[y]| {
            let mut z = y.clone();
            z.scale(factor);
            (z, move |mut dz: Tensor, _| {
                dz.scale(gradient);
                [Some(dz)]
            })
        })
    }
}

/// SGD after whose step a fault may change a tensor.
struct FaultySgd {
    sgd: Sgd,
    fault: Option<Fault>,
    steps: usize,
}

impl FaultySgd {
    fn new(fault: Option<Fault>, steps: usize) -> FaultySgd {
        FaultySgd { sgd: sgd(), fault, steps }
    }
}

fn set(model: &mut dyn State, tensor: &str, value: f32) {
    model.visit_mut("", &mut |name, slot| {
        if name == tensor {
            match slot {
                StateMut::Param(param) => param.value_mut().data_mut()[1] = value,
                StateMut::Buffer(buffer) => buffer.value_mut().data_mut()[1] = value,
                _ => {}
            }
        }
    });
}

impl Optimizer for FaultySgd {
    fn step(&mut self, model: &mut dyn State, updates: Updates) -> Result<()> {
        self.sgd.step(model, updates)?;
        self.steps += 1;
        match self.fault {
            Some(Fault::State(epoch, batch, name, value)) if self.steps == steps(epoch, batch) => {
                set(model, name, value);
            }
            Some(Fault::StopWithWeight(epoch, batch, value)) if self.steps == steps(epoch, batch) => {
                set(model, "fc.weight", value);
            }
            Some(Fault::Momentum(epoch, batch, value)) if self.steps == steps(epoch, batch) => {
                let mut state = self.sgd.export();
                state.get_mut("fc.bias.momentum_buffer").unwrap().data_mut()[0] = value;
                self.sgd.import(model, state)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn check(&self, model: &dyn State) -> Result<()> {
        self.sgd.check(model)
    }

    fn settings(&self, model: &dyn State) -> NamedSettings {
        self.sgd.settings(model)
    }

    fn lr(&self) -> f32 {
        self.sgd.lr()
    }

    fn set_lr(&mut self, lr: f32) {
        self.sgd.set_lr(lr);
    }

    fn export(&self) -> NamedTensors {
        self.sgd.export()
    }

    fn import(&mut self, model: &dyn State, tensors: NamedTensors) -> Result<()> {
        self.sgd.import(model, tensors)
    }
}

/// A dataset on which something goes wrong once it is told to.
struct FaultyData {
    data: skipgrad::data::Images,
    fault: Fault,
    folder: PathBuf,
    fails: Arc<AtomicBool>,
}

impl Dataset for FaultyData {
    fn len(&self) -> usize {
        self.data.len()
    }

    fn classes(&self) -> &[String] {
        self.data.classes()
    }

    fn image_shape(&self) -> [usize; 3] {
        self.data.image_shape()
    }

    fn read(&self, index: usize, pixels: &mut [f32]) -> Result<usize> {
        if !self.fails.load(Ordering::SeqCst) {
            return self.data.read(index, pixels);
        }
        match self.fault {
            Fault::KillInEvaluation(_) => resume_unwind(Box::new("killed")),
            Fault::UnwritableAfterEvaluation(_) => {
                if self.folder.is_dir() {
                    hide(&self.folder);
                }
                self.data.read(index, pixels)
            }
            Fault::TestLoss(_, value) => {
                pixels.fill(value);
                self.data.read(index, &mut pixels.to_vec())
            }
            _ => Err(Error::argument("read", "index", "a disk that is there", index)),
        }
    }
}

/// Moves a folder away and puts a file in its place, so that nothing can be written into it.
fn hide(folder: &Path) {
    fs::rename(folder, folder.with_extension("hidden")).unwrap();
    fs::write(folder, "no folder").unwrap();
}

fn unhide(folder: &Path) {
    if folder.is_file() {
        fs::remove_file(folder).unwrap();
        fs::rename(folder.with_extension("hidden"), folder).unwrap();
    }
}

/// How a run with a fault ended.
#[derive(Debug)]
enum End {
    Killed,
    Failed(Error),
    NoFault,
}

/// Returns the loaders of training and of evaluation, and the flags that make their data fail.
fn faulty_loaders(fault: Fault, folder: &Path) -> (Loader, Loader, [Arc<AtomicBool>; 2]) {
    let data = skipgrad::data::SyntheticShapes::with_sizes(50, 20, 3).unwrap();
    let fails = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let faulty = |data, fails: &Arc<AtomicBool>| {
        let (folder, fails) = (folder.to_path_buf(), fails.clone());
        FaultyData { data, fault, folder, fails }
    };
    let (plain, _) = loaders(1);
    let train = Loader::new(faulty(data.train(), &fails[0]), 8).shuffle(7);
    let train = train.transform(crate::common::training::transform()).num_workers(0);
    assert_eq!(train.num_batches(), plain.num_batches());
    let test = Loader::new(faulty(data.test(), &fails[1]), 20).num_workers(0);
    (train, test, fails)
}

/// Trains in a folder until a fault ends the run.
fn run_with(fault: Fault, trainer: Trainer, folder: &Path) -> End {
    let (train, test, fails) = faulty_loaders(fault, folder);
    let stop = Arc::new(AtomicBool::new(false));
    let mut trainer = trainer.folder(folder).checkpoint_every(3).stop(stop.clone());
    let mut model = Faulty::new(Some(fault), 0);
    let mut optimizer = FaultySgd::new(Some(fault), 0);
    let run = catch_unwind(AssertUnwindSafe(|| {
        trainer.run(&mut model, &mut optimizer, &train, &test, |event| {
            let at = match event {
                Event::Step(step) => (step.epoch, step.batch),
                Event::Epoch(record) => (record.epoch, 0),
                _ => return,
            };
            match fault {
                Fault::Kill(epoch, batch) if at == (epoch, batch) => resume_unwind(Box::new("killed")),
                Fault::Unwritable(epoch, batch) if at == (epoch, batch) => hide(folder),
                Fault::TrainImage(epoch, batch) if at == (epoch, batch) => {
                    fails[0].store(true, Ordering::SeqCst)
                }
                Fault::TestImage(epoch)
                | Fault::KillInEvaluation(epoch)
                | Fault::UnwritableAfterEvaluation(epoch)
                | Fault::TestLoss(epoch, _)
                    if at == (epoch, BATCHES) =>
                {
                    fails[1].store(true, Ordering::SeqCst);
                }
                Fault::StopWithWeight(epoch, batch, _) if at == (epoch, batch) => {
                    stop.store(true, Ordering::SeqCst);
                }
                _ => {}
            }
        })
    }));
    unhide(folder);
    match run {
        Err(_) => End::Killed,
        Ok(Err(error)) => End::Failed(error),
        Ok(Ok(_)) => End::NoFault,
    }
}

/// The result of a training without a fault.
fn unbroken() -> (Bits, Vec<[f32; 6]>) {
    let ((train, test), mut model, mut sgd, mut trainer) = (loaders(1), model(1), sgd(), plain_trainer());
    assert_eq!(trainer.run(&mut model, &mut sgd, &train, &test, |_| ()).unwrap(), Outcome::Finished);
    (bits(&model, &sgd), epochs(&trainer))
}

/// Resumes as another process would, without the fault.
fn resume(folder: &Path, checkpoint: &Path) -> (Position, (Bits, Vec<[f32; 6]>)) {
    let ((train, test), mut model, mut sgd) = (loaders(1), model(2), sgd());
    let mut trainer = plain_trainer().folder(folder);
    let resumed = trainer.resume(&mut model, &mut sgd, checkpoint).unwrap();
    assert_eq!(resumed.changed, []);
    let finite = |(_, bits): &(String, Vec<u32>)| bits.iter().all(|bits| f32::from_bits(*bits).is_finite());
    assert!(bits(&model, &sgd).iter().all(finite), "a good checkpoint is finite");
    assert_eq!(trainer.run(&mut model, &mut sgd, &train, &test, |_| ()).unwrap(), Outcome::Finished);
    (resumed.position, (bits(&model, &sgd), epochs(&trainer)))
}

/// What [`Error::Diverged`] says of a fault: epoch and batch, counted from 1, and how the quantity
/// begins.
type Diverged = (usize, usize, &'static str);

/// Each fault, where the last good checkpoint is, and the error if it is that one.
const FAULTS: &[(Fault, (usize, usize), Option<Diverged>)] = &[
    (Fault::Kill(1, 1), (0, 0), None),
    (Fault::Kill(1, 5), (0, 3), None),
    (Fault::Kill(1, 7), (0, 6), None),
    (Fault::Kill(2, 0), (2, 0), None),
    (Fault::KillInEvaluation(1), (0, 7), None),
    (Fault::KillInEvaluation(3), (2, 7), None),
    (Fault::Unwritable(1, 2), (0, 0), None),
    (Fault::Unwritable(2, 4), (1, 3), None),
    (Fault::Unwritable(2, 7), (1, 6), None),
    (Fault::UnwritableAfterEvaluation(2), (1, 7), None),
    (Fault::TrainImage(2, 1), (1, 0), None),
    (Fault::TestImage(2), (1, 7), None),
    (Fault::Loss(1, 1, f32::NAN), (0, 0), Some((1, 1, "loss (NaN)"))),
    (Fault::Loss(2, 1, f32::INFINITY), (1, 0), Some((2, 1, "loss ("))),
    (Fault::Loss(3, 7, f32::NAN), (2, 6), Some((3, 7, "loss (NaN)"))),
    (Fault::Gradient(1, 4, f32::NAN), (0, 3), Some((1, 5, "loss (NaN)"))),
    (Fault::Gradient(2, 7, f32::INFINITY), (1, 6), Some((2, 7, "0.weight ("))),
    (Fault::State(1, 7, "fc.weight", f32::NAN), (0, 6), Some((1, 7, "fc.weight (NaN)"))),
    (Fault::State(1, 3, "fc.weight", f32::INFINITY), (0, 0), Some((1, 3, "fc.weight (inf)"))),
    (Fault::State(2, 2, "1.running_var", f32::INFINITY), (1, 0), Some((2, 3, "1.running_var (inf)"))),
    (Fault::State(3, 7, "1.running_mean", f32::NAN), (2, 6), Some((3, 7, "1.running_mean (NaN)"))),
    (Fault::Momentum(1, 6, f32::INFINITY), (0, 3), Some((1, 6, "fc.bias.momentum_buffer (inf)"))),
    (Fault::TestLoss(1, f32::NAN), (0, 6), Some((1, 7, "test loss (NaN)"))),
    (Fault::TestLoss(3, f32::INFINITY), (2, 6), Some((3, 7, "test loss ("))),
    (Fault::StopWithWeight(2, 5, f32::NAN), (1, 3), Some((2, 5, "fc.weight (NaN)"))),
];

#[test]
fn every_fault_leaves_the_last_good_checkpoint() {
    let expected = unbroken();
    for &(fault, (epoch, batch), diverged) in FAULTS {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("run");
        let end = run_with(fault, plain_trainer(), &folder);
        let last = folder.join(Trainer::LAST);
        match (&end, diverged) {
            (End::Failed(Error::Diverged { epoch, batch, what, checkpoint, .. }), Some(diverged)) => {
                assert_eq!((*epoch, *batch), (diverged.0, diverged.1), "{fault:?}: {what}");
                assert!(what.starts_with(diverged.2), "{fault:?}: {what}");
                assert_eq!(checkpoint.as_ref(), Some(&last), "{fault:?}");
            }
            (End::Killed | End::Failed(Error::Io { .. } | Error::Argument { .. }), None) => {}
            _ => panic!("{fault:?}: {end:?}"),
        }
        let (position, result) = resume(&folder, &last);
        assert_eq!(position, Position { epoch, batch }, "{fault:?}");
        assert!(result == expected, "{fault:?}: other bits");
        let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(files.len(), 3, "{fault:?}: {files:?}");
    }
}

#[test]
fn a_test_loss_that_stays_not_finite_does_not_replace_the_good_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let last = folder.path().join(Trainer::LAST);
    let (train, test, fails) = faulty_loaders(Fault::TestLoss(2, f32::NAN), folder.path());
    let (mut model, mut sgd, mut trainer) = (model(1), sgd(), plain_trainer().folder(folder.path()));
    let on_event = |event| match event {
        Event::Step(step) if (step.epoch, step.batch) == (2, BATCHES) => {
            fails[1].store(true, Ordering::SeqCst);
        }
        _ => {}
    };
    let error = trainer.run(&mut model, &mut sgd, &train, &test, on_event).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "train: test loss (NaN) is not finite in epoch 2, batch 7, at a learning rate of {}; the last good \
             checkpoint is {}; resume from it at a lower learning rate",
            sgd.lr(),
            last.display()
        )
    );
    assert_eq!(Checkpoint::read(&last).unwrap().position(), Position { epoch: 1, batch: 0 });
    // The same trainer evaluates again, with the same result.
    let no_step = |event| assert!(!matches!(event, Event::Step(_)));
    let again = trainer.run(&mut model, &mut sgd, &train, &test, no_step).unwrap_err();
    assert_eq!(again.to_string(), error.to_string());
    assert_eq!(Checkpoint::read(&last).unwrap().position(), Position { epoch: 1, batch: 0 });
}

#[test]
fn a_learning_rate_that_is_too_high_diverges_and_a_lower_one_may_follow() {
    let folder = tempfile::tempdir().unwrap();
    let ((train, test), mut model, mut sgd) = (loaders(1), model(1), Sgd::new(0.0).momentum(0.9));
    let mut trainer = Trainer::new(3, Schedule::constant(1e25)).folder(folder.path());
    let error = trainer.run(&mut model, &mut sgd, &train, &test, |_| ()).unwrap_err();
    let Error::Diverged { checkpoint: Some(checkpoint), learning_rate: 1e25, .. } = error else {
        panic!("{error}")
    };
    let mut trainer = Trainer::new(3, Schedule::constant(0.01)).folder(folder.path());
    assert_eq!(trainer.resume(&mut model, &mut sgd, checkpoint).unwrap().changed.len(), 1);
    assert_eq!(trainer.run(&mut model, &mut sgd, &train, &test, |_| ()).unwrap(), Outcome::Finished);
}

#[test]
fn weights_that_are_not_finite_from_the_start_are_not_saved() {
    let folder = tempfile::tempdir().unwrap();
    let ((train, test), mut model) = (loaders(1), model(1));
    set(&mut model, "fc.bias", f32::NAN);
    let mut trainer = plain_trainer().folder(folder.path());
    let error = trainer.run(&mut model, &mut sgd(), &train, &test, |_| ()).unwrap_err();
    assert!(
        matches!(&error, Error::Diverged { batch: 1, what, checkpoint: None, .. } if what == "loss (NaN)")
    );
    assert!(error.to_string().ends_with("no checkpoint was written; begin again at a lower learning rate"));
    assert!(!folder.path().join(Trainer::LAST).exists());
}

/// Runs with a fault in the model or in the optimizer until the end, or until it is stopped after
/// `stop` steps and then resumed in a new trainer, and returns all events besides steps.
fn run_policy(
    policy: OnDivergence,
    fault: Fault,
    stop: Option<usize>,
) -> (Bits, Vec<Record>, Vec<Divergence>) {
    let folder = tempfile::tempdir().unwrap();
    let (train, test, fails) = faulty_loaders(fault, folder.path());
    let last = folder.path().join(Trainer::LAST);
    let mut divergences = vec![];
    let flag = Arc::new(AtomicBool::new(false));
    let (mut model, mut optimizer) = (Faulty::new(Some(fault), 0), FaultySgd::new(Some(fault), 0));
    let mut trainer = plain_trainer().on_divergence(policy).folder(folder.path()).stop(flag.clone());
    let (mut done, mut is_over) = (0, false);
    let mut on_event = |event: Event| match event {
        Event::Step(step) => {
            // A test loss is not finite once.
            if let Fault::TestLoss(epoch, _) = fault
                && (step.epoch, step.batch) == (epoch, BATCHES)
                && !std::mem::replace(&mut is_over, true)
            {
                fails[1].store(true, Ordering::SeqCst);
            }
            done += 1;
            flag.store(stop == Some(done), Ordering::Relaxed);
        }
        Event::Diverged(divergence) => {
            fails[1].store(false, Ordering::SeqCst);
            divergences.push(divergence);
        }
        _ => {}
    };
    let outcome = trainer.run(&mut model, &mut optimizer, &train, &test, &mut on_event).unwrap();
    if let Outcome::Stopped(position) = outcome {
        let before = model.passes.load(Ordering::SeqCst);
        flag.store(false, Ordering::Relaxed);
        // Another process: a new model, whose faults come at the same steps.
        model = Faulty::new(Some(fault), 1);
        model.passes = AtomicUsize::new(before);
        optimizer = FaultySgd::new(Some(fault), optimizer.steps);
        trainer = plain_trainer().folder(folder.path()).stop(flag.clone());
        assert_eq!(trainer.resume(&mut model, &mut optimizer, &last).unwrap().position, position);
        assert_eq!(trainer.settings().on_divergence, policy);
        let outcome = trainer.run(&mut model, &mut optimizer, &train, &test, &mut on_event);
        assert_eq!(outcome.unwrap(), Outcome::Finished);
    }
    let records = trainer.history().records.iter().map(|&record| without_time(record)).collect();
    (bits(&model, &optimizer), records, divergences)
}

fn without_time(mut record: Record) -> Record {
    record.seconds = 0.0;
    record.images_per_second = None;
    record
}

#[test]
fn a_skipped_step_changes_nothing_and_is_counted() {
    let policy = OnDivergence::SkipStep { max_consecutive: 2 };
    for fault in
        [Fault::Loss(1, 3, f32::NAN), Fault::Gradient(2, 7, f32::NAN), Fault::Gradient(1, 1, f32::INFINITY)]
    {
        let (bits, records, divergences) = run_policy(policy, fault, None);
        let skipped: Vec<usize> = records.iter().map(|record| record.skipped_steps).collect();
        assert_eq!(skipped.iter().sum::<usize>(), 1, "{fault:?}: {skipped:?}");
        let [divergence] = &divergences[..] else { panic!("{divergences:?}") };
        assert_eq!(divergence.recovery, Recovery::SkippedStep { consecutive: 1 });
        assert!(records.iter().all(|record| record.train_loss.is_finite() && record.unreadable == 0));
        assert!(bits.iter().flat_map(|(_, bits)| bits).all(|bits| f32::from_bits(*bits).is_finite()));
        // Stopped before, at and after the skipped step.
        for stop in [1, 2, 3, 4, 7, 13, 14, 15] {
            assert!(
                run_policy(policy, fault, Some(stop)) == (bits.clone(), records.clone(), divergences.clone())
            );
        }
    }
}

/// A step that is skipped is one that never was: the others are those of a loop by hand.
#[test]
fn skipping_is_leaving_out_the_step() {
    let fault = Fault::Loss(1, 3, f32::NAN);
    let policy = OnDivergence::SkipStep { max_consecutive: 1 };
    let (found, ..) = run_policy(policy, fault, None);
    let ((train, _), trainer) = (loaders(1), plain_trainer());
    let (mut model, mut sgd) = (model(1), sgd());
    for epoch in 0..3 {
        for (number, batch) in train.epoch(epoch).unwrap().enumerate() {
            let batch = batch.unwrap();
            sgd.set_lr(trainer.settings().schedule.lr(epoch as usize * BATCHES + number));
            if (epoch, number) == (0, 2) {
                continue;
            }
            let tape = Tape::train(Rng::keyed(11, epoch, number as u64).split().split());
            let logits = tape.input(batch.images).apply(&model).unwrap();
            let targets = skipgrad::ops::Targets::classes(&batch.labels).smoothed(0.1);
            sgd.step(&mut model, logits.cross_entropy(targets).unwrap().backward().unwrap()).unwrap();
        }
    }
    assert!(found == bits(&model, &sgd));
}

#[test]
fn a_run_of_skipped_steps_ends() {
    let ((train, test), mut model) = (loaders(1), model(1));
    set(&mut model, "fc.bias", f32::NAN);
    let before = bits(&model, &sgd());
    for (max_consecutive, epoch, batch) in [(1, 1, 2), (4, 1, 5), (100, 1, 7)] {
        let policy = OnDivergence::SkipStep { max_consecutive };
        let (mut sgd, mut steps) = (sgd(), 0);
        let mut trainer = plain_trainer().on_divergence(policy);
        let run = trainer.run(&mut model, &mut sgd, &train, &test, |event| {
            steps += usize::from(matches!(event, Event::Step(_)));
        });
        let error = run.unwrap_err();
        let at = (epoch, batch);
        assert!(matches!(&error, Error::Diverged { epoch, batch, .. } if (*epoch, *batch) == at), "{error}");
        assert_eq!(steps, max_consecutive.min(BATCHES));
        assert_eq!(bits(&model, &sgd), before);
    }
}

#[test]
fn a_rollback_goes_back_to_the_beginning_of_the_epoch_at_a_lower_rate() {
    let policy = OnDivergence::Rollback { lr_factor: 0.5, max_rollbacks: 2 };
    let faults = [
        Fault::Loss(2, 4, f32::NAN),
        Fault::Gradient(1, 1, f32::NAN),
        Fault::State(2, 7, "fc.weight", f32::NAN),
        Fault::State(2, 7, "1.running_var", f32::INFINITY),
        Fault::TestLoss(2, f32::NAN),
    ];
    for fault in faults {
        let (bits, records, divergences) = run_policy(policy, fault, None);
        let [divergence] = &divergences[..] else { panic!("{divergences:?}") };
        assert_eq!(divergence.recovery, Recovery::RolledBack { rollbacks: 1, lr_scale: 0.5 });
        let rollbacks: Vec<usize> = records.iter().map(|record| record.rollbacks).collect();
        assert_eq!(rollbacks.iter().sum::<usize>(), 1);
        assert_eq!(rollbacks[divergence.epoch - 1], 1);
        let schedule = &plain_trainer().settings().schedule.clone();
        assert_eq!(records[2].lr, 0.5 * schedule.lr(3 * BATCHES - 1));
        assert!(bits.iter().flat_map(|(_, bits)| bits).all(|bits| f32::from_bits(*bits).is_finite()));
        // Stopped before and after the fault, and where the epoch is trained and not evaluated.
        for stop in [3, 7, 9, 10, 11, 14, 18] {
            let stopped = run_policy(policy, fault, Some(stop));
            assert!(stopped == (bits.clone(), records.clone(), divergences.clone()), "{fault:?} {stop}");
        }
    }
}

#[test]
fn rollbacks_end() {
    let folder = tempfile::tempdir().unwrap();
    let ((train, test), mut model, mut sgd) = (loaders(1), model(1), Sgd::new(0.0));
    let policy = OnDivergence::Rollback { lr_factor: 0.1, max_rollbacks: 3 };
    let mut trainer = Trainer::new(2, Schedule::constant(1e30)).on_divergence(policy).folder(folder.path());
    let mut scales = vec![];
    let run = trainer.run(&mut model, &mut sgd, &train, &test, |event| {
        if let Event::Diverged(Divergence { recovery: Recovery::RolledBack { lr_scale, .. }, .. }) = event {
            scales.push(lr_scale);
        }
    });
    assert!(matches!(run, Err(Error::Diverged { .. })));
    assert_eq!(scales, [0.1, 0.1 * 0.1, 0.1 * 0.1 * 0.1]);
    let last = Checkpoint::read(folder.path().join(Trainer::LAST)).unwrap();
    let mut copy = self::model(7);
    last.load_model(&mut copy).unwrap();
    assert_eq!(copy.export(), self::model(1).export(), "the first epoch was never finished");
}
