//! The trainer's average of the weights: it is that of the formula, evaluated, saved and resumed to
//! the bit.

use crate::common::training::{loaders, model, sgd, trainer};
use skipgrad::{
    Result,
    autograd::{NamedTensors, State},
    nn::Sequential,
    train::{
        Checkpoint, Ema, Event, History, ModelEma, OnDivergence, Outcome, Trainer, evaluate, weights_hash,
    },
};
use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

fn ema() -> Ema {
    Ema::new(0.8).warmup(true)
}

/// Trains to the end with an average.
fn uninterrupted() -> (Sequential, Trainer) {
    let ((train, test), mut model, mut trainer) = (loaders(2), model(1), trainer().ema(ema()));
    trainer.run(&mut model, &mut sgd(), &train, &test, |_| ()).unwrap();
    (model, trainer)
}

fn bits(tensors: &NamedTensors) -> Vec<u32> {
    tensors.values().flat_map(|t| t.data().iter().map(|x| x.to_bits()).collect::<Vec<_>>()).collect()
}

#[test]
fn the_average_changes_neither_weights_nor_history() {
    let ((train, test), mut plain) = (loaders(2), model(1));
    let mut without = trainer();
    without.run(&mut plain, &mut sgd(), &train, &test, |_| ()).unwrap();
    let (model, trainer) = uninterrupted();
    assert_eq!(bits(&model.export()), bits(&plain.export()));
    for (a, b) in trainer.history().records.iter().zip(&without.history().records) {
        assert_eq!(
            (a.test_loss, a.test_accuracy, a.weights_hash),
            (b.test_loss, b.test_accuracy, b.weights_hash)
        );
        assert!(a.ema_test_loss.is_some() && b.ema_test_loss.is_none());
    }
}

#[test]
fn it_is_what_updates_by_hand_give_and_it_is_evaluated() -> Result<()> {
    let ((train, test), mut net) = (loaders(1), model(1));
    let flag = Arc::new(AtomicBool::new(true));
    let mut trainer = trainer().ema(ema()).stop(flag.clone());
    let (mut average, mut sgd) = (ModelEma::new(ema(), &net)?, sgd());
    // Stopped after every step, so that the model can be looked at.
    for step in 1..=21 {
        let outcome = trainer.run(&mut net, &mut sgd, &train, &test, |event| {
            if let Event::Step(_) = event {
                flag.store(true, Ordering::Relaxed);
            }
        })?;
        assert!(step == 1 || matches!(outcome, Outcome::Stopped(_)), "{outcome:?}");
        if step > 1 {
            average.update(&net, step - 1)?;
        }
        flag.store(false, Ordering::Relaxed);
    }
    trainer.run(&mut net, &mut sgd, &train, &test, |_| ())?;
    average.update(&net, 21)?;
    assert_eq!(bits(trainer.averages().unwrap().tensors()), bits(average.tensors()));
    let mut averaged = model(9);
    average.copy_to(&mut averaged)?;
    let (metrics, last) = (evaluate(&averaged, &test)?, trainer.history().records[2]);
    assert_eq!(
        (Some(metrics.loss()), Some(metrics.accuracy())),
        (last.ema_test_loss, last.ema_test_accuracy)
    );
    assert_eq!(last.weights_hash, Some(weights_hash(&net)), "the model has its own weights");
    Ok(())
}

#[test]
fn a_stopped_training_resumes_with_the_same_average() -> Result<()> {
    let (expected, whole) = uninterrupted();
    for stop in [1, 3, 7, 9, 21] {
        let (folder, flag) = (tempfile::tempdir().unwrap(), Arc::new(AtomicBool::new(false)));
        let ((train, test), mut net, mut steps) = (loaders(2), model(1), 0);
        let mut stopped = trainer().ema(ema()).folder(folder.path()).stop(flag.clone());
        stopped.run(&mut net, &mut sgd(), &train, &test, |event| {
            if let Event::Step(_) = event {
                steps += 1;
                flag.store(steps == stop, Ordering::Relaxed);
            }
        })?;
        let ((train, test), mut net, mut sgd) = (loaders(0), model(2), sgd());
        let last = folder.path().join(Trainer::LAST);
        let settings = Checkpoint::read(&last)?.settings().clone();
        assert_eq!(settings.ema, Some(ema()));
        let mut resumed = Trainer::with_settings(settings).folder(folder.path());
        assert_eq!(resumed.resume(&mut net, &mut sgd, &last)?.changed, []);
        resumed.run(&mut net, &mut sgd, &train, &test, |_| ())?;
        assert_eq!(bits(&net.export()), bits(&expected.export()), "after {stop} steps");
        let [found, expected] = [&resumed, &whole].map(|trainer| bits(trainer.averages().unwrap().tensors()));
        assert_eq!(found, expected, "after {stop} steps");
        let metrics = |trainer: &Trainer| -> Vec<_> {
            trainer.history().records.iter().map(|r| (r.ema_test_loss, r.ema_test_accuracy)).collect()
        };
        assert_eq!(metrics(&resumed), metrics(&whole));
        // The file has what the trainer has, and the best epoch is that of the average.
        let checkpoint = Checkpoint::read(&last)?;
        assert_eq!(bits(checkpoint.ema().unwrap()), expected);
        let mut averaged = model(3);
        checkpoint.load_ema(&mut averaged)?;
        assert_eq!(bits(&averaged.export()), expected);
        let best = Checkpoint::read(folder.path().join(Trainer::BEST))?;
        assert_eq!(best.position().epoch, resumed.history().best().unwrap().epoch);
        let csv = fs::read_to_string(folder.path().join(Trainer::HISTORY)).unwrap();
        assert_eq!(csv.parse::<History>()?, *resumed.history());
    }
    Ok(())
}

#[test]
fn an_average_that_begins_later_begins_with_the_weights() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let ((train, test), mut net, mut optimizer) = (loaders(1), model(1), sgd());
    let mut first = trainer().epochs(1).folder(folder.path());
    first.run(&mut net, &mut optimizer, &train, &test, |_| ())?;
    let last = folder.path().join(Trainer::LAST);
    assert!(Checkpoint::read(&last)?.ema().is_none());
    let error = Checkpoint::read(&last)?.load_ema(&mut model(2)).unwrap_err().to_string();
    assert!(error.contains("a checkpoint of a training with Trainer::ema"), "{error}");
    let mut second = trainer().ema(Ema::new(0.5)).folder(folder.path());
    let resumed = second.resume(&mut net, &mut optimizer, &last)?;
    assert_eq!(resumed.changed.last().map(|change| &*change.name), Some("ema"));
    second.run(&mut net, &mut optimizer, &train, &test, |_| ())?;
    let records = &second.history().records;
    assert!(records[0].ema_test_loss.is_none() && records[1].ema_test_loss.is_some());
    Ok(())
}

#[test]
fn a_rollback_goes_back_to_the_average_of_the_epoch() -> Result<()> {
    // Steps that are too large to be finite, until the learning rate is low enough.
    let run = |lr: f32| -> Result<Vec<u32>> {
        let ((train, test), mut net) = (loaders(1), model(1));
        let policy = OnDivergence::Rollback { lr_factor: 1e-30, max_rollbacks: 1 };
        let mut trainer = Trainer::new(1, skipgrad::optim::Schedule::constant(lr)).seed(11).ema(ema());
        trainer = trainer.on_divergence(policy);
        trainer.run(&mut net, &mut sgd(), &train, &test, |_| ())?;
        Ok(bits(trainer.averages().unwrap().tensors()))
    };
    // The second training begins at the rate that the first one goes back to.
    assert_eq!(run(1e30)?, run(1e30f32 * 1e-30)?);
    Ok(())
}

#[test]
fn settings_out_of_range_are_errors() {
    let ((train, test), mut net) = (loaders(1), model(1));
    let mut trainer = trainer().ema(Ema::new(1.5));
    let run = trainer.run(&mut net, &mut sgd(), &train, &test, |_| panic!("a step"));
    assert_eq!(run.unwrap_err().to_string(), "ema: decay: expected at least 0 and below 1, found 1.5");
}
