//! A training that is stopped or killed resumes with the same bits; a checkpoint that does not fit
//! is an error and changes nothing.

use skipgrad::{
    Error, Rng, Tensor,
    autograd::State,
    data::{Compose, Loader, RandomCrop, RandomHorizontalFlip, SyntheticShapes},
    io,
    nn::{BatchNorm2d, Dropout, GlobalAvgPool, Linear, Relu, Sequential, conv3x3},
    optim::{Adam, AdamW, Optimizer, Schedule, Sgd},
    train::{Checkpoint, Event, Outcome, Position, Trainer},
};
use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tempfile::TempDir;

/// A small network with all kinds of state that a step changes: weights, running statistics, random
/// numbers of dropout.
fn model(seed: u64) -> Sequential {
    let mut rng = Rng::seed(seed);
    Sequential::new()
        .push(conv3x3(3, 6).build(&mut rng).unwrap())
        .push(BatchNorm2d::new(6).unwrap())
        .push(Relu)
        .push(Dropout::new(0.2).unwrap())
        .push(GlobalAvgPool)
        .named("fc", Linear::new(6, 10, &mut rng).unwrap())
        .unwrap()
}

/// Seven batches per epoch, the last one smaller, shuffled and augmented.
fn loaders(workers: usize) -> (Loader, Loader) {
    let data = SyntheticShapes::with_sizes(50, 20, 3).unwrap();
    let transform = Compose::new().then(RandomCrop::with_padding(4)).then(RandomHorizontalFlip);
    let train = Loader::new(data.train(), 8).shuffle(7).transform(transform).num_workers(workers);
    (train, Loader::new(data.test(), 20))
}

fn trainer() -> Trainer {
    let schedule = Schedule::one_cycle(0.1, 21).warmup(2);
    Trainer::new(3, schedule)
        .seed(11)
        .label_smoothing(0.1)
        .clip_norm(1.0)
        .micro_batches(2)
        .model_name("small")
}

fn sgd() -> Sgd {
    Sgd::new(0.0).momentum(0.9).nesterov(true).weight_decay(1e-3).no_decay_on_norms_and_biases()
}

/// All bits of the state of a model and of an optimizer.
fn bits(model: &dyn State, optimizer: &dyn Optimizer) -> Vec<(String, Vec<u32>)> {
    let bits = |(name, tensor): (String, Tensor)| (name, tensor.data().iter().map(|x| x.to_bits()).collect());
    model.export().into_iter().chain(optimizer.export()).map(bits).collect()
}

/// The history without the durations, which differ from run to run.
fn epochs(trainer: &Trainer) -> Vec<[f32; 6]> {
    let numbers = trainer
        .history()
        .records
        .iter()
        .map(|r| [r.lr, r.train_loss, r.train_accuracy, r.test_loss, r.test_accuracy, r.test_top5]);
    numbers.collect()
}

type Bits = Vec<(String, Vec<u32>)>;

/// Trains to the end without stopping.
fn uninterrupted(optimizer: &mut dyn Optimizer) -> (Bits, Vec<[f32; 6]>) {
    let ((train, test), mut model, mut trainer) = (loaders(2), model(1), trainer());
    assert_eq!(trainer.run(&mut model, optimizer, &train, &test, |_| ()).unwrap(), Outcome::Finished);
    (bits(&model, optimizer), epochs(&trainer))
}

/// Trains for `stop` steps, then stops, and returns the position.
fn train_until(stop: usize, folder: &TempDir, optimizer: &mut dyn Optimizer) -> Position {
    let ((train, test), mut model) = (loaders(2), model(1));
    let flag = Arc::new(AtomicBool::new(false));
    let mut trainer = trainer().folder(folder.path()).stop(flag.clone());
    let mut steps = 0;
    let outcome = trainer.run(&mut model, optimizer, &train, &test, |event| {
        if let Event::Step(_) = event {
            steps += 1;
            flag.store(steps == stop, Ordering::Relaxed);
        }
    });
    match outcome.unwrap() {
        Outcome::Stopped(position) => position,
        outcome => panic!("{outcome:?}, not stopped after {stop} steps"),
    }
}

/// Resumes as another process would: with a new trainer, new loaders and a model of other weights.
fn resume(folder: &TempDir, optimizer: &mut dyn Optimizer) -> (Bits, Vec<[f32; 6]>) {
    let ((train, test), mut model) = (loaders(1), model(2));
    let mut trainer = Trainer::new(1, Schedule::constant(1.0)).folder(folder.path());
    trainer.resume(&mut model, optimizer, folder.path().join(Trainer::LAST)).unwrap();
    assert_eq!(trainer.settings().model, "small");
    assert_eq!(trainer.run(&mut model, optimizer, &train, &test, |_| ()).unwrap(), Outcome::Finished);
    (bits(&model, optimizer), epochs(&trainer))
}

#[test]
fn a_stopped_training_resumes_with_the_same_bits() {
    let expected = uninterrupted(&mut sgd());
    // In the middle of an epoch, after its last step but before its evaluation, and in the last
    // epoch.
    for (stop, position) in [(3, (0, 3)), (7, (0, 7)), (8, (1, 1)), (20, (2, 6)), (21, (2, 7))] {
        let folder = tempfile::tempdir().unwrap();
        let stopped = train_until(stop, &folder, &mut sgd());
        assert_eq!((stopped.epoch, stopped.batch), position);
        assert!(resume(&folder, &mut sgd()) == expected, "stopped at {stopped:?}");
    }
}

#[test]
fn a_stopped_training_with_adamw_resumes_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let expected = uninterrupted(&mut AdamW::new(0.0));
    train_until(10, &folder, &mut AdamW::new(0.0));
    assert!(resume(&folder, &mut AdamW::new(0.0)) == expected);
}

#[test]
fn a_stopped_training_with_adam_resumes_with_the_same_bits() {
    let adam = || Adam::new(0.0).weight_decay(1e-3);
    let folder = tempfile::tempdir().unwrap();
    let expected = uninterrupted(&mut adam());
    train_until(10, &folder, &mut adam());
    assert!(resume(&folder, &mut adam()) == expected);
}

#[test]
fn a_killed_training_resumes_from_its_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let expected = uninterrupted(&mut sgd());
    let ((train, test), mut model) = (loaders(2), model(1));
    let mut trainer = trainer().folder(folder.path()).checkpoint_every(2);
    let kill = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        trainer.run(&mut model, &mut sgd(), &train, &test, |event| {
            if let Event::Step(step) = event
                && (step.epoch, step.batch) == (2, 6)
            {
                std::panic::resume_unwind(Box::new("killed"));
            }
        })
    }));
    assert!(kill.is_err());
    let checkpoint = Checkpoint::read(folder.path().join(Trainer::LAST)).unwrap();
    assert_eq!(checkpoint.position(), Position { epoch: 1, batch: 4 });
    // A crash between write and rename leaves a temporary file beside the old checkpoint.
    fs::write(folder.path().join(format!(".{}.1-1.tmp", Trainer::LAST)), b"half of a checkp").unwrap();
    assert!(resume(&folder, &mut sgd()) == expected);
}

#[test]
fn best_last_and_history_are_written() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("run1");
    let ((train, test), mut model, mut sgd) = (loaders(2), model(1), sgd());
    let mut trainer = trainer().folder(&folder);
    trainer.run(&mut model, &mut sgd, &train, &test, |_| ()).unwrap();
    let best = Checkpoint::read(folder.join(Trainer::BEST)).unwrap();
    assert_eq!(best.position().epoch, trainer.history().best().unwrap().epoch);
    let last = Checkpoint::read(folder.join(Trainer::LAST)).unwrap();
    assert_eq!((last.history(), last.settings()), (trainer.history(), trainer.settings()));
    let mut copy = self::model(5);
    last.load_model(&mut copy).unwrap();
    assert_eq!(copy.export(), model.export());
    let csv = fs::read_to_string(folder.join(Trainer::HISTORY)).unwrap();
    assert_eq!(csv, trainer.history().to_csv());
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 3, "no temporary file is left");
}

#[test]
fn a_checkpoint_that_does_not_fit_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    train_until(4, &folder, &mut sgd());
    let path = folder.path().join(Trainer::LAST);

    let mut rng = Rng::seed(0);
    let mut other = Sequential::new().push(conv3x3(3, 8).build(&mut rng).unwrap());
    let (mut trainer, mut optimizer) = (trainer(), sgd());
    let before = bits(&other, &optimizer);
    let error = trainer.resume(&mut other, &mut optimizer, &path).unwrap_err();
    assert!(
        matches!(&error, Error::State { file: Some(file), missing, unexpected, misshapen, .. }
        if *file == path && missing.is_empty() && unexpected.len() == 6 && misshapen.len() == 1),
        "{error}"
    );
    assert_eq!(bits(&other, &optimizer), before);
    let checkpoint = Checkpoint::read(&path).unwrap();
    assert_eq!(checkpoint.load_model(&mut other).unwrap_err().to_string(), error.to_string());
    assert_eq!(bits(&other, &optimizer), before);

    let (mut same, mut adamw) = (model(2), AdamW::new(0.1));
    let before = bits(&same, &adamw);
    let error = trainer.resume(&mut same, &mut adamw, &path).unwrap_err();
    assert!(error.to_string().contains("fc.weight.momentum_buffer"), "{error}");
    assert_eq!((bits(&same, &adamw), trainer.position()), (before, Position::default()));

    let weights = folder.path().join("weights.safetensors");
    io::save(&same, &weights).unwrap();
    let error = trainer.resume(&mut same, &mut optimizer, &weights).unwrap_err();
    assert!(error.to_string().contains("expected the text of a checkpoint, found none"), "{error}");
}

#[test]
fn a_truncated_checkpoint_is_an_error_at_any_length() {
    let folder = tempfile::tempdir().unwrap();
    train_until(4, &folder, &mut sgd());
    let path = folder.path().join(Trainer::LAST);
    let whole = fs::read(&path).unwrap();
    for length in [0, 7, 8, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = trainer().resume(&mut model(1), &mut sgd(), &path).unwrap_err();
        assert!(matches!(&error, Error::Malformed { path: p, .. } if *p == path), "{error}");
    }
}

#[test]
fn another_loader_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    train_until(4, &folder, &mut sgd());
    let (_, test) = loaders(1);
    let (mut model, mut sgd, mut trainer) = (model(1), sgd(), trainer());
    trainer.resume(&mut model, &mut sgd, folder.path().join(Trainer::LAST)).unwrap();
    let error = trainer.run(&mut model, &mut sgd, &test, &test, |_| ()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "train: train: expected 50 images in batches of 8, as before the training was stopped, found 20 in batches of 20"
    );
}

#[test]
fn an_unwritable_folder_is_found_before_the_first_step() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    let (train, test) = loaders(1);
    let (mut model, mut sgd) = (model(1), sgd());
    for out in [file.clone(), file.join("below")] {
        let mut trainer = trainer().folder(&out);
        let error = trainer.run(&mut model, &mut sgd, &train, &test, |_| panic!("a step")).unwrap_err();
        assert!(matches!(&error, Error::Io { path, .. } if *path == out), "{error}");
    }
}

#[test]
fn a_loss_that_is_not_finite_is_an_error_before_the_weights_change() {
    let (train, test) = loaders(1);
    let (mut model, mut sgd) = (model(1), sgd());
    model.visit_mut("", &mut |name, slot| {
        if let ("fc.bias", skipgrad::autograd::StateMut::Param(bias)) = (name, slot) {
            bias.value_mut().data_mut()[3] = f32::NAN;
        }
    });
    let before = bits(&model, &sgd);
    let error = trainer().run(&mut model, &mut sgd, &train, &test, |_| ()).unwrap_err();
    let first_lr = trainer().settings().schedule.lr(0);
    assert!(
        matches!(&error, Error::Diverged { epoch: 1, batch: 1, what, learning_rate }
            if what == "loss (NaN)" && *learning_rate == first_lr),
        "{error}"
    );
    let text = error.to_string();
    assert!(text.starts_with("train: loss (NaN) is not finite in epoch 1, batch 1"), "{text}");
    assert_eq!(bits(&model, &sgd), before);
}
