//! A training that is stopped or killed resumes with the same bits; a checkpoint that does not fit
//! is an error and changes nothing.

use crate::common::training::{Bits, bits, epochs, loaders, model, sgd, trainer};
use skipgrad::{
    Error, Rng,
    autograd::State,
    data::{Dataset, Images, Loader},
    io,
    nn::{Sequential, conv3x3},
    optim::{Adam, AdamW, Optimizer, Schedule, Sgd},
    train::{Change, Checkpoint, Event, Outcome, Position, Trainer, evaluate},
};
use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tempfile::TempDir;

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
    let last = folder.path().join(Trainer::LAST);
    let settings = Checkpoint::read(&last).unwrap().settings().clone();
    let mut trainer = Trainer::with_settings(settings).folder(folder.path());
    let resumed = trainer.resume(&mut model, optimizer, last).unwrap();
    assert_eq!(resumed.changed, []);
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
        matches!(&error, Error::Diverged { epoch: 1, batch: 1, what, learning_rate, checkpoint: None }
            if what == "loss (NaN)" && *learning_rate == first_lr),
        "{error}"
    );
    let text = error.to_string();
    assert!(text.starts_with("train: loss (NaN) is not finite in epoch 1, batch 1"), "{text}");
    assert_eq!(bits(&model, &sgd), before);
}

/// A run of one epoch in a folder, and the path of its last checkpoint.
fn one_epoch(folder: &TempDir) -> std::path::PathBuf {
    train_until(7, folder, &mut sgd());
    folder.path().join(Trainer::LAST)
}

fn names(changes: &[Change]) -> Vec<&str> {
    changes.iter().map(|change| &*change.name).collect()
}

#[test]
fn what_was_asked_for_is_taken_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let last = one_epoch(&folder);
    let schedule = Schedule::constant(0.01);
    let mut trainer = Trainer::new(2, schedule.clone()).label_smoothing(0.0).folder(folder.path());
    let (mut model, (train, test)) = (model(2), loaders(1));
    let mut adjusted = Sgd::new(0.0).momentum(0.5).weight_decay(1e-3).no_decay_on_norms_and_biases();
    let resumed = trainer.resume(&mut model, &mut adjusted, &last).unwrap();
    assert_eq!(resumed.position, Position { epoch: 0, batch: 7 });
    assert_eq!(names(&resumed.changed), ["epochs", "schedule", "label_smoothing", "momentum", "nesterov"]);
    assert_eq!(resumed.changed[0].to_string(), "epochs: 3 before, 2 now");
    assert_eq!(resumed.changed[3].to_string(), "momentum: 0.9 before, 0.5 now");
    let settings = trainer.settings();
    assert_eq!((settings.epochs, &settings.schedule, settings.label_smoothing), (2, &schedule, 0.0));
    // What was not asked for is the checkpoint's.
    assert_eq!((settings.clip_norm, settings.micro_batches, &*settings.model), (Some(1.0), 2, "small"));
    let mut rates = vec![];
    let outcome = trainer.run(&mut model, &mut adjusted, &train, &test, |event| {
        if let Event::Step(step) = event {
            rates.push(step.lr);
        }
    });
    assert_eq!((outcome.unwrap(), rates), (Outcome::Finished, vec![0.01; 7]));
    let saved = Checkpoint::read(&last).unwrap();
    assert_eq!((saved.settings().epochs, saved.history().records.len()), (2, 2));
    assert_eq!(saved.optimizer_settings()["momentum"], "0.5");
}

#[test]
fn a_finished_training_goes_on_for_more_epochs() {
    let folder = tempfile::tempdir().unwrap();
    let ((train, test), mut trained) = (loaders(2), model(1));
    trainer().folder(folder.path()).run(&mut trained, &mut sgd(), &train, &test, |_| ()).unwrap();
    let last = folder.path().join(Trainer::LAST);
    let settings = Checkpoint::read(&last).unwrap().settings().clone();
    let (mut model, mut sgd) = (model(2), sgd());
    let mut trainer = Trainer::with_settings(settings).epochs(4).folder(folder.path());
    assert_eq!(names(&trainer.resume(&mut model, &mut sgd, &last).unwrap().changed), ["epochs"]);
    assert_eq!(model.export(), trained.export());
    trainer.run(&mut model, &mut sgd, &train, &test, |_| ()).unwrap();
    assert_eq!(trainer.history().records.len(), 4);
}

#[test]
fn what_a_resumed_training_cannot_change_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    train_until(9, &folder, &mut sgd());
    let last = folder.path().join(Trainer::LAST);
    let check = |mut trainer: Trainer, expected: &str| {
        let (mut model, mut sgd) = (model(2), sgd());
        let before = bits(&model, &sgd);
        let error = trainer.resume(&mut model, &mut sgd, &last).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!((bits(&model, &sgd), trainer.position()), (before, Position::default()));
    };
    check(trainer().seed(12), "resume: seed: expected 11, which the checkpoint was written with, found 12");
    check(trainer().model_name("large"), "resume: model_name: expected \"small\"");
    check(trainer().epochs(1), "resume: epochs: expected at least 2, the epochs that are begun, found 1");
}

#[test]
fn another_order_of_the_images_is_refused_and_other_images_are_said() {
    let folder = tempfile::tempdir().unwrap();
    train_until(4, &folder, &mut sgd());
    let data = skipgrad::data::SyntheticShapes::with_sizes(50, 20, 4).unwrap();
    let run = |train: &Loader, test: &Loader| {
        let (mut model, mut sgd, mut trainer) = (model(1), sgd(), trainer());
        trainer.resume(&mut model, &mut sgd, folder.path().join(Trainer::LAST)).unwrap();
        let mut said = vec![];
        let outcome = trainer.run(&mut model, &mut sgd, train, test, |event| {
            if let Event::Changed(change) = event {
                said.push(change.name);
            }
        });
        (outcome, said)
    };
    let (train, test) = loaders(1);
    let (outcome, said) = run(&train.clone().shuffle(8), &test);
    assert_eq!(
        outcome.unwrap_err().to_string(),
        "train: train: expected a loader of seed 7, as before the training was stopped, found 8"
    );
    assert_eq!(said.len(), 0);
    let (outcome, said) = run(&train.clone().num_workers(3), &test);
    assert_eq!((outcome.unwrap(), said.len()), (Outcome::Finished, 0));
    let (outcome, said) = run(&Loader::new(data.train(), 8).shuffle(7), &Loader::new(data.test(), 10));
    let expected =
        ["fingerprint of the training images", "training transform", "fingerprint of the test images"];
    assert_eq!((outcome.unwrap(), said), (Outcome::Finished, expected.map(String::from).to_vec()));
}

/// Images of which some cannot be read.
struct Gaps {
    images: Images,
    broken: std::ops::Range<usize>,
    kept: usize,
}

impl Dataset for Gaps {
    fn len(&self) -> usize {
        self.images.len()
    }

    fn classes(&self) -> &[String] {
        self.images.classes()
    }

    fn image_shape(&self) -> [usize; 3] {
        self.images.image_shape()
    }

    fn read(&self, index: usize, pixels: &mut [f32]) -> skipgrad::Result<usize> {
        if self.broken.contains(&index) && index != self.kept {
            return Err(Error::malformed(format!("{index}.png"), "image", "a whole image", "half of one"));
        }
        self.images.read(index, pixels)
    }

    fn should_skip(&self, error: &Error) -> bool {
        matches!(error, Error::Malformed { .. })
    }
}

#[test]
fn unreadable_images_are_counted_and_never_stop_a_training() {
    let data = skipgrad::data::SyntheticShapes::with_sizes(50, 20, 3).unwrap();
    // The second batch has no image, and the third one has one, which joins the fourth.
    let train = Loader::new(Gaps { images: data.train(), broken: 8..24, kept: 16 }, 8);
    let test = Loader::new(Gaps { images: data.test(), broken: 4..6, kept: 4 }, 5);
    assert_eq!(evaluate(&model(1), &test).unwrap().unreadable, 1);

    let run = |folder: &TempDir, stop: Option<usize>| {
        let (mut model, mut sgd, mut steps) = (model(1), sgd(), vec![]);
        let flag = Arc::new(AtomicBool::new(false));
        let mut on_event = |event: Event| {
            if let Event::Step(step) = event {
                steps.push(step.batch);
                flag.store(Some(steps.len()) == stop, Ordering::Relaxed);
            }
        };
        let mut trainer = trainer().epochs(2).folder(folder.path()).stop(flag.clone());
        if let Outcome::Stopped(_) = trainer.run(&mut model, &mut sgd, &train, &test, &mut on_event).unwrap()
        {
            flag.store(false, Ordering::Relaxed);
            model = self::model(2);
            trainer = self::trainer().epochs(2).folder(folder.path()).stop(flag.clone());
            trainer.resume(&mut model, &mut sgd, folder.path().join(Trainer::LAST)).unwrap();
            trainer.run(&mut model, &mut sgd, &train, &test, &mut on_event).unwrap();
        }
        let counts: Vec<_> =
            trainer.history().records.iter().map(|r| (r.unreadable, r.test_unreadable)).collect();
        (bits(&model, &sgd), epochs(&trainer), counts, steps)
    };
    let folder = tempfile::tempdir().unwrap();
    let expected = run(&folder, None);
    assert_eq!((&expected.2, &expected.3), (&vec![(15, 1); 2], &[1, 4, 5, 6, 7].repeat(2)));
    for stop in 1..10 {
        let folder = tempfile::tempdir().unwrap();
        assert!(run(&folder, Some(stop)) == expected, "stopped after {stop} steps");
    }
}
