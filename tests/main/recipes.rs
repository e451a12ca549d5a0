//! Options of a trainer that recipes have: other losses, a teacher, learning rates that follow the
//! loss, and trainings that end early.

use crate::common::training::{bits, loaders, model, sgd, trainer};
use skipgrad::{
    Result, Rng, Tensor,
    autograd::{State, Tape, Var},
    data::{
        Compose, CutMix, Loader, Mixup, Normalize, RandomChoice, RandomErasing, RandomHorizontalFlip,
        RandomResizedCrop, SyntheticShapes, TrivialAugmentWide,
    },
    inference::{InferenceModel, InferenceOptions},
    nn::{Flatten, Linear, Module, Sequential},
    ops::{BceOptions, FocalOptions, Targets},
    optim::{Muon, Optimizer, Plateau, Schedule, Sgd},
    train::{Checkpoint, Distillation, EarlyStopping, Ema, Event, Loss, Outcome, Position, Trainer},
};
use std::ops::ControlFlow;

fn linear(seed: u64, classes: usize) -> Sequential {
    Sequential::new().push(Flatten).push(Linear::new(3072, classes, &mut Rng::seed(seed)).unwrap())
}

fn shapes() -> (Loader, Loader) {
    let data = SyntheticShapes::with_sizes(24, 10, 3).unwrap();
    (Loader::new(data.train(), 8).shuffle(1), Loader::new(data.test(), 10))
}

/// Trains for an epoch with a trainer, and by hand with a loss, and compares.
fn equals_by_hand<F>(trainer: Trainer, loss: F) -> Result<()>
where
    F: for<'t> Fn(&Var<'t>, &[usize], &Tensor) -> Result<Var<'t>>,
{
    let ((train, test), mut trained, mut losses) = (shapes(), linear(0, 10), vec![]);
    let mut trainer = trainer;
    trainer.run(&mut trained, &mut Sgd::new(0.0), &train, &test, |event| {
        if let Event::Step(step) = event {
            losses.push(step.loss);
        }
    })?;
    let (mut by_hand, mut sgd, mut expected) = (linear(0, 10), Sgd::new(0.01), vec![]);
    for batch in train.epoch(0)? {
        let batch = batch?;
        let tape = Tape::train(Rng::seed(0));
        let logits = by_hand.forward(&tape.input(batch.images.clone()))?;
        let loss = loss(&logits, &batch.labels, &batch.images)?;
        expected.push(loss.item());
        sgd.step(&mut by_hand, loss.backward()?)?;
    }
    assert_eq!(losses, expected);
    assert_eq!(trained.export(), by_hand.export());
    Ok(())
}

fn plain() -> Trainer {
    Trainer::new(1, Schedule::constant(0.01))
}

/// Smoothed one-hot targets.
fn one_hot(labels: &[usize], smoothing: f32) -> Result<Tensor> {
    Tensor::from_fn([labels.len(), 10], |i| {
        let target = f32::from(u8::from(labels[i / 10] == i % 10));
        (1.0 - smoothing) * target + smoothing / 10.0
    })
}

#[test]
fn other_losses_equal_a_loop_by_hand() -> Result<()> {
    let weights: Vec<f32> = (0..10).map(|class| 0.5 + class as f32).collect();
    let weighted = Loss::WeightedCrossEntropy { class_weights: weights.clone() };
    equals_by_hand(plain().loss(weighted).label_smoothing(0.1), |logits, labels, _| {
        logits.cross_entropy(Targets::classes(labels).class_weights(&weights).smoothed(0.1))
    })?;
    let bce = Loss::BceWithLogits { pos_weight: Some(weights.clone()) };
    equals_by_hand(plain().loss(bce).label_smoothing(0.1), |logits, labels, _| {
        let options = BceOptions::new().pos_weight(weights.clone());
        logits.bce_with_logits(&one_hot(labels, 0.1)?, &options)
    })?;
    let focal = Loss::Focal { alpha: Some(0.25), gamma: 2.0 };
    equals_by_hand(plain().loss(focal), |logits, labels, _| {
        logits.focal_loss(&one_hot(labels, 0.0)?, &FocalOptions::new())
    })
}

fn teacher(classes: usize) -> InferenceModel {
    let options = InferenceOptions::new([32, 32, 3]).batch_size(8);
    InferenceModel::compile(&linear(5, classes), &options).unwrap()
}

#[test]
fn a_distilled_training_equals_a_loop_by_hand() -> Result<()> {
    let by_hand = teacher(10);
    equals_by_hand(
        plain().distill(teacher(10), Distillation::new(3.0).alpha(0.75)),
        |logits, labels, images| {
            let divergence = logits.distillation(&by_hand.run(images)?, 3.0)?.scale(0.75);
            logits.cross_entropy(labels)?.scale(0.25).add(&divergence)
        },
    )
}

#[test]
fn what_does_not_fit_a_loss_is_refused_before_the_first_step() {
    let error = |mut trainer: Trainer| {
        let (train, test) = shapes();
        let run = trainer.run(&mut linear(0, 10), &mut Sgd::new(0.0), &train, &test, |_| panic!("a step"));
        run.unwrap_err().to_string()
    };
    let short = Loss::WeightedCrossEntropy { class_weights: vec![1.0; 3] };
    assert!(error(plain().loss(short)).contains("class_weights: expected 10, one for each class, found 3"));
    let focal = Loss::Focal { alpha: None, gamma: -1.0 };
    assert!(error(plain().loss(focal)).contains("focal_loss: gamma"));
    let other = error(plain().distill(teacher(7), Distillation::new(1.0)));
    assert_eq!(other, "train: teacher: expected logits [1, 10], as the model's, found [1, 7]");
    assert!(error(plain().distill(teacher(10), Distillation::new(0.0))).contains("temperature"));
    assert!(error(plain().distill(teacher(10), Distillation::new(1.0).alpha(2.0))).contains("alpha"));
    let settings = plain().distill(teacher(10), Distillation::new(1.0)).settings().clone();
    let without = error(Trainer::with_settings(settings));
    assert!(without.contains("a teacher, given by Trainer::distill"), "{without}");
    assert!(error(plain().early_stopping(EarlyStopping::new(0))).contains("patience"));
    assert!(error(plain().reduce_on_plateau(Plateau::new().factor(2.0))).contains("factor"));
}

#[test]
fn an_answer_stops_after_the_step_and_the_training_goes_on_with_the_same_bits() -> Result<()> {
    let ((train, test), mut expected, mut expected_sgd) = (loaders(1), model(1), sgd());
    trainer().run(&mut expected, &mut expected_sgd, &train, &test, |_| ())?;
    let (mut net, mut optimizer, mut trainer) = (model(1), sgd(), trainer());
    let mut run = |stops: &dyn Fn(&Event) -> bool| {
        trainer.run_until(&mut net, &mut optimizer, &train, &test, |event| {
            if stops(&event) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    };
    let after_step = run(&|event| matches!(event, Event::Step(step) if step.batch == 3))?;
    assert_eq!(after_step, Outcome::Stopped(Position { epoch: 0, batch: 3 }));
    let after_epoch = run(&|event| matches!(event, Event::Epoch(record) if record.epoch == 2))?;
    assert_eq!(after_epoch, Outcome::Stopped(Position { epoch: 2, batch: 0 }));
    assert_eq!(run(&|event| matches!(event, Event::Epoch(_)))?, Outcome::Finished, "nothing is left to stop");
    assert!(bits(&net, &optimizer) == bits(&expected, &expected_sgd));
    Ok(())
}

#[test]
fn the_learning_rate_falls_on_a_plateau_also_after_resuming() -> Result<()> {
    let plateau = Plateau::new().patience(0).factor(0.5).threshold(0.2);
    let train_with = |stop_after: Option<usize>| -> Result<Vec<(f32, f32)>> {
        let ((train, test), mut net, mut optimizer) = (loaders(1), model(1), sgd());
        let folder = tempfile::tempdir().unwrap();
        let new = || Trainer::new(6, Schedule::constant(0.05)).seed(11).reduce_on_plateau(plateau);
        let mut trainer = new().folder(folder.path());
        let mut steps = 0;
        trainer.run_until(&mut net, &mut optimizer, &train, &test, |event| {
            steps += usize::from(matches!(event, Event::Step(_)));
            if Some(steps) == stop_after { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if stop_after.is_some() {
            (net, optimizer) = (model(2), sgd());
            trainer = new().folder(folder.path());
            trainer.resume(&mut net, &mut optimizer, folder.path().join(Trainer::LAST))?;
            trainer.run(&mut net, &mut optimizer, &train, &test, |_| ())?;
        }
        Ok(trainer.history().records.iter().map(|record| (record.lr, record.test_loss)).collect())
    };
    let whole = train_with(None)?;
    for epoch in 0..6 {
        let before = whole[..epoch].iter().map(|(_, loss)| *loss);
        assert_eq!(whole[epoch].0, 0.05 * plateau.scale(before), "epoch {epoch}");
    }
    assert!(whole[5].0 < 0.05, "{whole:?}");
    assert_eq!(train_with(Some(17))?, whole);
    Ok(())
}

#[test]
fn a_training_without_progress_ends_with_its_best_weights() -> Result<()> {
    // Steps so large that the accuracy goes up and down.
    let new = || {
        let trainer = Trainer::new(60, Schedule::constant(0.4)).seed(11).ema(Ema::new(0.5));
        trainer.early_stopping(EarlyStopping::new(3))
    };
    let folder = tempfile::tempdir().unwrap();
    let ((train, test), mut net, mut optimizer) = (loaders(1), model(1), sgd());
    let mut first = new().folder(folder.path());
    let outcome = first.run(&mut net, &mut optimizer, &train, &test, |_| ())?;
    let Outcome::EarlyStopped { best_epoch } = outcome else { panic!("{outcome:?}") };
    let records = &first.history().records;
    assert_eq!(records.len(), best_epoch + 3);
    assert_eq!(first.history().best().unwrap().epoch, best_epoch);
    let best = Checkpoint::read(folder.path().join(Trainer::BEST))?;
    let mut expected = model(2);
    best.load_model(&mut expected)?;
    assert_eq!(net.export(), expected.export());
    assert_eq!(first.averages().unwrap().tensors(), best.ema().unwrap());
    // Resumed from its last checkpoint, the training ends at once, in the same way.
    let mut resumed = new().folder(folder.path());
    let (mut other, mut optimizer) = (model(3), sgd());
    resumed.resume(&mut other, &mut optimizer, folder.path().join(Trainer::LAST))?;
    let again = resumed.run(&mut other, &mut optimizer, &train, &test, |_| panic!("an event"))?;
    assert_eq!((again, other.export()), (outcome, expected.export()));
    Ok(())
}

/// A recipe with everything on: stopped in the middle of an epoch and resumed, with any number of
/// workers and threads, it gives the same bits as in one piece.
#[test]
fn a_whole_recipe_resumes_with_the_same_bits() {
    let loaders = |workers: usize| {
        let data = SyntheticShapes::with_sizes(50, 20, 3).unwrap();
        let transform = Compose::new()
            .then(RandomResizedCrop::new().scale([0.5, 1.0]))
            .then(RandomHorizontalFlip)
            .then(TrivialAugmentWide::new())
            .then(Normalize::cifar10())
            .then(RandomErasing::new());
        let mixing = RandomChoice::new().or(Mixup::new(0.2)).or(CutMix::new(1.0));
        let test = Loader::new(data.test(), 20).transform(transform.eval());
        let train = Loader::new(data.train(), 8).shuffle(7).transform(transform).num_workers(workers);
        (train.batch_transform(mixing), test)
    };
    let new = || {
        let bce = Loss::BceWithLogits { pos_weight: None };
        trainer().loss(bce).ema(Ema::new(0.9).warmup(true)).reduce_on_plateau(Plateau::new().patience(0))
    };
    let muon = || Muon::new(0.0).weight_decay(0.1).no_decay_on_norms_and_biases();
    let everything = |trainer: &Trainer, model: &Sequential, optimizer: &Muon| {
        let records = trainer.history().records.iter();
        let metrics = records.map(|r| (r.lr, r.train_loss, r.test_loss, r.ema_test_loss)).collect::<Vec<_>>();
        (bits(model, optimizer), trainer.averages().unwrap().tensors().clone(), metrics)
    };
    let whole = || {
        let ((train, test), mut net, mut optimizer, mut trainer) = (loaders(1), model(1), muon(), new());
        trainer.run(&mut net, &mut optimizer, &train, &test, |_| ()).unwrap();
        everything(&trainer, &net, &optimizer)
    };
    let in_parts = |workers: usize| {
        let folder = tempfile::tempdir().unwrap();
        let ((train, test), mut net, mut optimizer) = (loaders(workers), model(1), muon());
        let mut steps = 0;
        let mut first = new().folder(folder.path());
        let stopped = first.run_until(&mut net, &mut optimizer, &train, &test, |event| {
            steps += usize::from(matches!(event, Event::Step(_)));
            if steps == 10 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(stopped.unwrap(), Outcome::Stopped(Position { epoch: 1, batch: 3 }));
        let (mut net, mut optimizer) = (model(2), muon());
        let mut second = new().folder(folder.path());
        second.resume(&mut net, &mut optimizer, folder.path().join(Trainer::LAST)).unwrap();
        second.run(&mut net, &mut optimizer, &train, &test, |_| ()).unwrap();
        everything(&second, &net, &optimizer)
    };
    let on_threads = |threads: usize| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let expected = on_threads(1).install(whole);
    for (threads, workers) in [(1, 0), (2, 1), (2, 3)] {
        let found = on_threads(threads).install(|| in_parts(workers));
        assert!(found == expected, "{threads} threads, {workers} workers");
    }
}
