//! What can be known before the first step is an error before it, and nothing is written.

use crate::common::training::{loaders, model, plain_trainer, sgd, trainer};
use skipgrad::{
    Error, Result, Rng, Tensor,
    autograd::{Param, State, Var},
    data::{Compose, Images, Loader, Normalize, RandomCrop, SyntheticShapes},
    nn::{BatchNorm2d, Flatten, GlobalAvgPool, Linear, Module, Sequential, conv3x3},
    optim::{AdamW, Curve, Group, Optimizer, Schedule, Sgd},
    train::{Checkpoint, Event, Outcome, Trainer},
};
use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Runs a training that must fail before its first step and before it writes anything.
#[track_caller]
fn refuses(
    trainer: Trainer,
    model: &mut dyn Module,
    optimizer: &mut dyn Optimizer,
    [train, test]: [&Loader; 2],
    expected: &str,
) {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("run");
    let before = model.export();
    let outcome = trainer.folder(&folder).run(model, optimizer, train, test, |_| panic!("a step"));
    let error = outcome.unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
    assert!(!folder.exists(), "nothing is written");
    assert_eq!(model.export(), before);
}

fn images(count: usize, shape: [usize; 3], classes: &[impl AsRef<str>]) -> Images {
    let [h, w, c] = shape;
    let pixels = Tensor::uniform([count, h, w, c], 0.0, 1.0, &mut Rng::seed(1)).unwrap();
    let labels = (0..count).map(|i| i % classes.len()).collect();
    Images::new(pixels, labels, classes.iter().map(AsRef::as_ref)).unwrap()
}

#[test]
fn a_test_loader_that_cannot_be_read() {
    let (train, test) = loaders(1);
    let check = |test: Loader, expected: &str| {
        refuses(trainer(), &mut model(1), &mut sgd(), [&train, &test], expected);
    };
    let data = SyntheticShapes::with_sizes(0, 0, 1).unwrap().test();
    check(Loader::new(data, 5), "train: test: expected at least one image (loader: dataset), found none");
    let data = || SyntheticShapes::with_sizes(0, 20, 1).unwrap().test();
    check(Loader::new(data(), 0), "train: test: expected at least 1 (loader: batch size), found 0");
    check(test.clone().transform(Compose::new().then(RandomCrop::with_padding(99))), "random_crop");
    let one_channel = Normalize::fit(&images(2, [4, 4, 1], &["a"])).unwrap();
    check(test.clone().transform(Compose::new().then(one_channel)), "(normalize: ");
    let names: Vec<String> = (0..10).map(|i| format!("class {i}")).collect();
    check(
        Loader::new(images(20, [32, 32, 3], &names), 5),
        "train: test: expected the classes of the training",
    );
    let names = train.dataset().classes();
    check(Loader::new(images(20, [32, 32, 1], names), 5), "conv2d: input: expected [N, H, W, 3]");
}

#[test]
fn a_training_loader_that_does_not_fit_the_model() {
    let (train, test) = loaders(1);
    let check = |train: &Loader, expected: &str| {
        refuses(trainer(), &mut model(1), &mut sgd(), [train, &test], expected);
    };
    check(
        &Loader::new(SyntheticShapes::with_sizes(0, 0, 1).unwrap().train(), 4),
        "train: train: expected at least one",
    );
    let names = test.dataset().classes();
    check(&Loader::new(images(20, [32, 32, 4], names), 5), "conv2d: input: expected [N, H, W, 3]");

    // Every fault of a network is listed, not only the first one.
    let mut rng = Rng::seed(0);
    let mut two_faults = Sequential::new()
        .push(conv3x3(3, 8).build(&mut rng).unwrap())
        .push(conv3x3(16, 8).build(&mut rng).unwrap())
        .push(GlobalAvgPool)
        .push(Linear::new(9, 10, &mut rng).unwrap());
    refuses(trainer(), &mut two_faults, &mut sgd(), [&train, &test], "2 faults: 1: conv2d: ");

    let mut maps = Sequential::new().push(conv3x3(3, 8).build(&mut rng).unwrap());
    refuses(
        trainer(),
        &mut maps,
        &mut sgd(),
        [&train, &test],
        "logits: expected [N, K], found [8, 32, 32, 8]",
    );
    let mut four = Sequential::new().push(GlobalAvgPool).push(Linear::new(3, 4, &mut rng).unwrap());
    let expected = "train: model: expected logits for the 10 classes of the training images, found 4 logits";
    refuses(trainer(), &mut four, &mut sgd(), [&train, &test], expected);
}

/// A network whose batch normalization sees one value per image and channel.
fn normalized() -> Sequential {
    Sequential::new()
        .push(Flatten)
        .push(Linear::new(12, 6, &mut Rng::seed(0)).unwrap())
        .named("bn", BatchNorm2d::new(6).unwrap())
        .unwrap()
        .push(Linear::new(6, 3, &mut Rng::seed(1)).unwrap())
}

#[test]
fn a_batch_that_is_too_small_for_batch_norm_is_found_by_its_size() {
    let loader = |images: usize, batch| Loader::new(self::images(images, [2, 2, 3], &["a", "b", "c"]), batch);
    let plain = || Trainer::new(1, Schedule::constant(0.1));
    let check = |trainer: Trainer, train: Loader, expected: &str| {
        refuses(trainer, &mut normalized(), &mut Sgd::new(0.1), [&train, &loader(9, 1)], expected);
    };
    check(
        plain(),
        loader(9, 4),
        "train: train: expected at least 2 images in the last batch: set Loader::drop_last(true), or another batch \
         size or number of micro-batches, found 1 (bn: batch_norm: ",
    );
    check(plain(), loader(9, 1), "at least 2 images in the batch");
    check(plain().micro_batches(4), loader(8, 4), "in every micro-batch of the batch of 4 images");
    check(plain().micro_batches(2), loader(11, 4), "in a micro-batch of the last batch of 3 images");
    check(plain().micro_batches(2), loader(10, 4), "in every micro-batch of the last batch of 2 images");

    // The same sizes are enough where batch normalization has more values, and in evaluation.
    for train in [loader(9, 4).drop_last(true), loader(8, 4), loader(10, 4)] {
        let (mut model, mut sgd) = (normalized(), Sgd::new(0.1));
        assert_eq!(
            plain().run(&mut model, &mut sgd, &train, &loader(9, 1), |_| ()).unwrap(),
            Outcome::Finished
        );
    }
}

#[derive(State)]
struct Forgetful {
    used: Linear,
    unused: Param,
}

impl Module for Forgetful {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        x.global_avg_pool()?.apply(&self.used)
    }
}

#[test]
fn a_parameter_without_a_gradient_is_found_before_the_first_step() {
    let (train, test) = loaders(1);
    let used = Linear::new(3, 10, &mut Rng::seed(0)).unwrap();
    let mut model = Forgetful { used, unused: Param::new(Tensor::scalar(1.0)) };
    refuses(trainer(), &mut model, &mut sgd(), [&train, &test], "unused: no gradient");
    model.freeze("*").unwrap();
    refuses(trainer(), &mut model, &mut sgd(), [&train, &test], "nothing trainable");
}

#[test]
fn settings_that_a_later_step_would_reject() {
    let (train, test) = loaders(1);
    let check = |trainer: Trainer, expected: &str| {
        refuses(trainer, &mut model(1), &mut sgd(), [&train, &test], expected);
    };
    check(trainer().label_smoothing(1.0), "train: label_smoothing: expected at least 0 and below 1, found 1");
    check(trainer().checkpoint_every(0), "train: checkpoint_every: expected at least 1, found 0");
    let negative = Curve::Cosine { lr: 0.1, steps: 10, min_lr: -0.1 };
    check(
        trainer().schedule(negative.into()),
        "train: schedule: expected a finite learning rate of at least 0",
    );
    check(Trainer::new(1, Schedule::constant(f32::NAN)), "sgd: lr: ");

    let optimizer = |mut optimizer: Box<dyn Optimizer>, expected: &str| {
        refuses(trainer(), &mut model(1), &mut *optimizer, [&train, &test], expected);
    };
    optimizer(Box::new(Sgd::new(0.1).momentum(-1.0)), "sgd: momentum");
    let head = Group::new().lr_scale(10.0);
    let expected = "sgd: group: expected a group that has parameters of the model, found none in group 0";
    optimizer(Box::new(Sgd::new(0.1).group(|name, _| name.starts_with("linear."), head)), expected);
    optimizer(Box::new(AdamW::new(0.1).group(|name, _| name == "fc", head)), "adamw: group");
}

#[test]
fn a_group_without_parameters_is_an_error_in_a_loop_by_hand() {
    let mut weight = Param::new(Tensor::scalar(2.0));
    let tape = skipgrad::autograd::Tape::train(Rng::seed(0));
    let updates = tape.param(&weight).sum().backward().unwrap();
    let mut sgd = Sgd::new(0.1).group(|name, _| name == "bias", Group::new());
    assert!(matches!(sgd.step(&mut weight, updates), Err(Error::Argument { argument: "group", .. })));
    assert_eq!(weight.value().item(), 2.0);
}

/// Trains for two steps of the first epoch or to the end, in a folder.
fn run_in(folder: &std::path::Path, steps: Option<usize>) -> Result<Outcome> {
    let ((train, test), mut model) = (loaders(1), model(1));
    let flag = Arc::new(AtomicBool::new(false));
    let mut trainer = plain_trainer().epochs(1).folder(folder).stop(flag.clone());
    trainer.run(&mut model, &mut sgd(), &train, &test, |event| {
        if let Event::Step(step) = event {
            flag.store(Some(step.batch) == steps, Ordering::Relaxed);
        }
    })
}

#[test]
fn the_folder_of_another_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    run_in(folder.path(), None).unwrap();
    let files = || {
        let names = [Trainer::LAST, Trainer::BEST, Trainer::HISTORY];
        names.map(|name| fs::read(folder.path().join(name)).ok())
    };
    let before = files();
    let error = run_in(folder.path(), None).unwrap_err();
    assert!(matches!(&error, Error::Argument { op: "train", argument: "folder", .. }), "{error}");
    let error = error.to_string();
    assert!(error.contains("Trainer::resume") && error.contains("found one that is at epoch 1"), "{error}");
    assert!(files() == before, "nothing of it is changed");

    // The history alone, and the best checkpoint alone, are results, too.
    for removed in [Trainer::LAST, Trainer::HISTORY] {
        fs::remove_file(folder.path().join(removed)).unwrap();
        let before = files();
        assert!(run_in(folder.path(), None).is_err(), "{removed}");
        assert!(files() == before);
    }
    fs::remove_file(folder.path().join(Trainer::BEST)).unwrap();
    run_in(folder.path(), None).unwrap();
}

#[test]
fn the_folder_of_a_run_that_was_stopped_is_refused_unless_it_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    run_in(folder.path(), Some(2)).unwrap();
    let error = run_in(folder.path(), None).unwrap_err().to_string();
    assert!(error.contains("found one that is at epoch 0, batch 2 in "), "{error}");

    let ((train, test), mut model, mut sgd) = (loaders(1), model(1), sgd());
    let last = folder.path().join(Trainer::LAST);
    let mut resumed = plain_trainer().epochs(1).folder(folder.path());
    resumed.resume(&mut model, &mut sgd, &last).unwrap();
    assert_eq!(resumed.run(&mut model, &mut sgd, &train, &test, |_| ()).unwrap(), Outcome::Finished);

    // A copy of the checkpoint may go on elsewhere, but not where another training is.
    let copy = tempfile::tempdir().unwrap();
    fs::copy(&last, copy.path().join("copy.checkpoint")).unwrap();
    let mut other = plain_trainer().epochs(2).folder(folder.path());
    other.resume(&mut model, &mut sgd, copy.path().join("copy.checkpoint")).unwrap();
    let error = other.run(&mut model, &mut sgd, &train, &test, |_| panic!("a step")).unwrap_err();
    assert!(matches!(&error, Error::Argument { argument: "folder", .. }), "{error}");
    let mut other = other.folder(copy.path().join("new"));
    assert_eq!(other.run(&mut model, &mut sgd, &train, &test, |_| ()).unwrap(), Outcome::Finished);
}

#[test]
fn going_back_to_an_older_checkpoint_does_not_wipe_the_history_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let ((train, test), mut model, mut sgd) = (loaders(1), model(1), sgd());
    let older = folder.path().join("older.checkpoint");
    let mut trainer = plain_trainer().folder(folder.path());
    trainer
        .run(&mut model, &mut sgd, &train, &test, |event| {
            if let Event::Step(step) = event
                && (step.epoch, step.batch) == (2, 1)
            {
                fs::copy(folder.path().join(Trainer::LAST), &older).unwrap();
            }
        })
        .unwrap();
    let history = fs::read(folder.path().join(Trainer::HISTORY)).unwrap();
    let mut back = plain_trainer().folder(folder.path());
    back.resume(&mut model, &mut sgd, &older).unwrap();
    assert_eq!(back.position().epoch, 1);
    let error = back.run(&mut model, &mut sgd, &train, &test, |_| panic!("a step")).unwrap_err().to_string();
    assert!(error.contains("not ahead of this one, which is at epoch 1, batch 0"), "{error}");
    assert_eq!(fs::read(folder.path().join(Trainer::HISTORY)).unwrap(), history);
}

#[test]
fn the_state_before_the_first_step_is_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let ((train, test), mut model, before) = (loaders(1), model(1), model(1).export());
    let mut initial = None;
    let mut trainer = plain_trainer().epochs(1).folder(folder.path());
    trainer
        .run(&mut model, &mut sgd(), &train, &test, |_| {
            initial.get_or_insert_with(|| Checkpoint::read(folder.path().join(Trainer::LAST)).unwrap());
        })
        .unwrap();
    let mut copy = self::model(5);
    initial.unwrap().load_model(&mut copy).unwrap();
    assert_eq!(copy.export(), before);
}
