//! Mixed batches: Mixup and CutMix by hand and as torchvision computes them, and in loaders.

use crate::common::{
    compare::assert_close,
    golden::{below, tensors},
};
use skipgrad::{
    Error, Result, Rng, Tensor,
    autograd::State,
    data::{Batch, CutMix, Dataset, Images, Loader, Mixup, RandomChoice, SyntheticShapes},
    nn::{Flatten, Linear, Sequential},
    optim::{Schedule, Sgd},
    train::{Event, Trainer},
};

#[test]
fn mixed_images_and_targets_are_torchvisions() -> Result<()> {
    let golden = below(&tensors("losses.safetensors"), "mix/");
    let targets =
        Tensor::from_fn([3, 4], |i| f32::from(u8::from(golden["labels"].data()[i / 4] == (i % 4) as f32)))?;
    let check = |name: &str, images: &Tensor, targets: &Tensor| {
        assert_close(name, images, &golden[&format!("{name}/images")], 1e-6);
        assert_close(name, targets, &golden[&format!("{name}/targets")], 1e-6);
    };
    let (mut images, mut mixed) = (golden["images"].clone(), targets.clone());
    Mixup::mix(&mut images, &mut mixed, 0.375);
    check("mixup", &images, &mixed);
    let (mut images, mut mixed) = (golden["images"].clone(), targets);
    CutMix::mix(&mut images, &mut mixed, [2..4, 1..4])?;
    check("cutmix", &images, &mixed);
    Ok(())
}

/// Images of one pixel, whose value is a 32nd of their index; the classes are 0, 1 and 2 in turn.
fn indices(count: usize) -> Images {
    let pixels = Tensor::from_fn([count, 1, 1, 1], |i| i as f32 / 32.0).unwrap();
    Images::new(pixels, (0..count).map(|i| i % 3).collect(), ["a", "b", "c"]).unwrap()
}

#[test]
fn mixup_in_a_loader_by_hand() -> Result<()> {
    let loader = Loader::new(indices(7), 3).shuffle(4).batch_transform(Mixup::new(1.0));
    for batch in loader.epoch(2)? {
        let batch = batch?;
        let (n, targets) = (batch.labels.len(), batch.targets.as_ref().unwrap());
        for i in 0..n {
            let partner = (i + n - 1) % n;
            // Lambda follows from the pixel, unless an image is its own partner.
            let [own, other] = [i, partner].map(|i| batch.indices[i] as f32 / 32.0);
            let lambda = if n == 1 { 1.0 } else { (batch.images.data()[i] - other) / (own - other) };
            assert!((0.0..=1.0).contains(&lambda));
            let mut expected = [0.0; 3];
            expected[batch.labels[i]] += lambda;
            expected[batch.labels[partner]] += 1.0 - lambda;
            for (found, expected) in targets.data()[3 * i..3 * i + 3].iter().zip(expected) {
                assert!((found - expected).abs() < 1e-5, "{found} {expected}");
            }
        }
    }
    Ok(())
}

fn mixed() -> RandomChoice {
    RandomChoice::new().or(Mixup::new(0.2)).or(CutMix::new(1.0)).p(0.9)
}

#[test]
fn mixed_batches_are_the_same_however_they_are_run() {
    let data = SyntheticShapes::with_sizes(45, 0, 3).unwrap();
    let loader = Loader::new(data.train(), 4).shuffle(5).batch_transform(mixed());
    let run = |workers: usize, epoch: u64, first: usize| -> Vec<Batch> {
        let loader = loader.clone().num_workers(workers);
        loader.epoch_from(epoch, first).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let whole = run(0, 2, 0);
    for (workers, first) in [(1, 0), (3, 0), (0, 5), (3, 5)] {
        assert!(run(workers, 2, first) == whole[first..], "{workers} workers from batch {first}");
    }
    assert!(run(1, 3, 0) != whole, "every epoch is another");
    let sums = whole.iter().flat_map(|batch| {
        let targets = batch.targets.as_ref().unwrap();
        targets.data().chunks(10).map(|row| row.iter().sum::<f32>()).collect::<Vec<_>>()
    });
    assert!(sums.into_iter().all(|sum| (sum - 1.0).abs() < 1e-6));
}

/// Every second image cannot be read.
struct Gaps(Images);

impl Dataset for Gaps {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn classes(&self) -> &[String] {
        self.0.classes()
    }

    fn image_shape(&self) -> [usize; 3] {
        self.0.image_shape()
    }

    fn read(&self, index: usize, pixels: &mut [f32]) -> Result<usize> {
        if index % 2 == 1 {
            return Err(Error::malformed("x.png", "image", "a complete one", "half"));
        }
        self.0.read(index, pixels)
    }

    fn should_skip(&self, _: &Error) -> bool {
        true
    }
}

#[test]
fn what_is_left_of_batches_is_mixed_and_joined() {
    let loader = Loader::new(Gaps(indices(20)), 3).batch_transform(Mixup::new(1.0));
    let run = |workers| -> Vec<Batch> {
        loader.clone().num_workers(workers).epoch(0).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let batches = run(0);
    assert!(batches.iter().all(|batch| batch.targets.as_ref().unwrap().shape() == [batch.labels.len(), 3]));
    assert!(batches.iter().map(|batch| batch.labels.len()).sum::<usize>() == 10);
    assert_eq!(run(2), batches);
}

#[test]
fn options_and_labels_are_checked() {
    let data = indices(4);
    let error = |transform: RandomChoice| {
        Loader::new(data.clone(), 2).batch_transform(transform).epoch(0).unwrap_err().to_string()
    };
    assert_eq!(
        error(RandomChoice::new().or(Mixup::new(0.0))),
        "mixup: alpha: expected a finite number above 0, found 0"
    );
    assert!(error(RandomChoice::new().or(CutMix::new(f32::NAN))).starts_with("cutmix: alpha"));
    assert!(error(mixed().p(-0.5)).contains("random_choice: p"));
    let mut images = Tensor::zeros([2, 3, 3, 1]).unwrap();
    let mut targets = Tensor::zeros([2, 2]).unwrap();
    let outside = CutMix::mix(&mut images, &mut targets, [0..4, 0..1]).unwrap_err().to_string();
    assert_eq!(outside, "cutmix: box: expected rows and columns within 3 and 3, found 0..4 and 0..1");
    assert!(CutMix::mix(&mut targets.clone(), &mut targets, [0..1, 0..1]).is_err());
}

fn linear(classes: usize) -> Sequential {
    Sequential::new().push(Flatten).push(Linear::new(3072, classes, &mut Rng::seed(0)).unwrap())
}

#[test]
fn a_training_with_mixed_batches_equals_a_loop_by_hand() -> Result<()> {
    use skipgrad::{autograd::Tape, nn::Module, ops::Targets, optim::Optimizer};
    let data = SyntheticShapes::with_sizes(24, 10, 3)?;
    let train = Loader::new(data.train(), 8).shuffle(1).batch_transform(mixed());
    let test = Loader::new(data.test(), 10);
    let trained = |micro_batches: usize| -> Result<(Sequential, Vec<f32>)> {
        let (mut model, mut losses) = (linear(10), vec![]);
        let mut trainer = Trainer::new(2, Schedule::constant(0.01)).label_smoothing(0.1);
        trainer = trainer.micro_batches(micro_batches);
        trainer.run(&mut model, &mut Sgd::new(0.0), &train, &test, |event| {
            if let Event::Step(step) = event {
                losses.push(step.loss);
            }
        })?;
        Ok((model, losses))
    };
    let (model, losses) = trained(1)?;
    let (mut by_hand, mut sgd, mut expected) = (linear(10), Sgd::new(0.01), vec![]);
    for epoch in 0..2 {
        for batch in train.epoch(epoch)? {
            let batch = batch?;
            let tape = Tape::train(Rng::seed(0));
            let logits = by_hand.forward(&tape.input(batch.images))?;
            let targets = batch.targets.unwrap();
            let loss = logits.cross_entropy(Targets::soft(&targets).smoothed(0.1))?;
            expected.push(loss.item());
            sgd.step(&mut by_hand, loss.backward()?)?;
        }
    }
    assert_eq!((losses, model.export()), (expected, by_hand.export()));
    let (split, _) = trained(3)?;
    for (a, b) in split.export().values().zip(model.export().values()) {
        assert!(a.data().iter().zip(b.data()).all(|(a, b)| (a - b).abs() < 1e-6));
    }
    Ok(())
}

#[test]
fn a_model_with_more_logits_than_classes_is_refused() {
    let data = SyntheticShapes::with_sizes(8, 8, 3).unwrap();
    let train = Loader::new(data.train(), 8).batch_transform(mixed());
    let mut trainer = Trainer::new(1, Schedule::constant(0.01));
    let test = Loader::new(data.test(), 8);
    let run = trainer.run(&mut linear(11), &mut Sgd::new(0.0), &train, &test, |_| panic!("a step"));
    let error = run.unwrap_err().to_string();
    assert!(error.contains("expected 10 logits") && error.ends_with("found 11 logits"), "{error}");
}
