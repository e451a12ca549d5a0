//! Seven planted faults, each of which a diagnosis names; and healthy trainings, of which it finds
//! nothing.

use crate::common::training::bits;
use skipgrad::{
    Error, Result, Rng, Tensor,
    autograd::{Buffer, State, StateMut, Var},
    data::{Compose, Dataset, Images, Loader, Normalize, RandomCrop, RandomHorizontalFlip, SyntheticShapes},
    models::{Model, ResNet},
    nn::{BatchNorm2d, Flatten, GlobalAvgPool, Linear, Module, Relu, Sequential, conv3x3, from_fn},
    optim::{AdamW, Optimizer, Sgd},
    train::{DiagnoseOptions, Diagnosis, FindingKind, Severity, diagnose},
};

/// A residual network of three stages for images of 32 x 32, as in the example `cifar10`, but
/// smaller.
fn model() -> ResNet {
    ResNet::cifar_paper(8, 10, &mut Rng::seed(1)).unwrap()
}

/// The optimizer of the example `cifar10`.
fn sgd(lr: f32) -> Sgd {
    Sgd::new(lr).momentum(0.9).nesterov(true).weight_decay(5e-4).no_decay_on_norms_and_biases()
}

const LR: f32 = 0.2;

fn images(count: usize) -> Images {
    SyntheticShapes::with_sizes(count, 0, 1).unwrap().train()
}

/// The loader of the example `cifar10`.
fn loader(images: Images) -> Loader {
    let transform = Compose::new()
        .then(RandomCrop::with_padding(4))
        .then(RandomHorizontalFlip)
        .then(Normalize::cifar10());
    Loader::new(images, 32).shuffle(0).transform(transform).drop_last(true).num_workers(0)
}

fn relabeled(images: &Images, label: impl FnMut(usize) -> usize) -> Images {
    let labels = images.labels(0..images.len()).unwrap().iter().copied().map(label).collect();
    Images::new(images.images(0..images.len()).unwrap(), labels, images.classes()).unwrap()
}

/// The checks that do not train.
fn quick() -> DiagnoseOptions {
    DiagnoseOptions::new().batches(2).overfit_steps(0).held_out_steps(0)
}

fn kinds(diagnosis: &Diagnosis) -> Vec<FindingKind> {
    diagnosis.findings.iter().map(|finding| finding.kind()).collect()
}

/// Asserts that the findings are these kinds, and returns the first one's text.
#[track_caller]
fn expect(diagnosis: &Diagnosis, expected: &[FindingKind]) -> String {
    assert_eq!(kinds(diagnosis), expected, "\n{diagnosis:#}");
    diagnosis.findings.first().map_or(String::new(), |finding| finding.to_string())
}

/// A healthy training has no finding, and all of its bits are as before.
#[test]
fn the_set_up_of_cifar10_is_healthy_and_unchanged() {
    let (mut model, mut optimizer, train) = (model(), sgd(LR), loader(images(1000)));
    let before = bits(&model, &optimizer);
    let diagnosis = diagnose(&mut model, &mut optimizer, &train, &DiagnoseOptions::new()).unwrap();
    expect(&diagnosis, &[]);
    assert!(diagnosis.is_healthy() && diagnosis.to_string().ends_with("No findings."));
    assert!(diagnosis.checks.iter().all(|check| check.passed == Some(true)), "{diagnosis}");
    assert!(diagnosis.held_out.unwrap().score >= 4.0);
    assert_eq!(bits(&model, &optimizer), before);
    assert_eq!((diagnosis.images, diagnosis.channels.len()), (256, 3));
    assert_eq!(diagnosis.class_counts.iter().sum::<usize>(), 256);
    assert_eq!(diagnosis.layers[0].path, "conv1");
    assert_eq!(
        diagnosis.relus.iter().map(|relu| &*relu.after).collect::<Vec<_>>(),
        ["bn1", "layer1.0.bn1", "layer1.0", "layer2.0.bn1", "layer2.0", "layer3.0.bn1", "layer3.0"]
    );
}

#[test]
fn shuffled_labels_are_named() {
    let data = images(1000);
    let mut rng = Rng::seed(3);
    let mut labels = data.labels(0..data.len()).unwrap().to_vec();
    rng.shuffle(&mut labels);
    let mut labels = labels.into_iter();
    let shuffled = relabeled(&data, |_| labels.next().unwrap());
    let options = DiagnoseOptions::new().held_out_steps(60);
    let diagnosis = diagnose(&mut model(), &mut sgd(LR), &loader(shuffled), &options).unwrap();
    let text = expect(&diagnosis, &[FindingKind::ShuffledLabels]);
    assert!(text.starts_with("warning: shuffled-labels: The labels look unrelated"), "{text}");
    assert!(diagnosis.findings[0].value() < 4.0);
}

#[test]
fn images_that_are_not_normalized_are_named() {
    let train = loader(images(128)).transform(Compose::new());
    let diagnosis = diagnose(&mut model(), &mut sgd(LR), &train, &quick()).unwrap();
    let text = expect(&diagnosis, &[FindingKind::UnnormalizedInputs]);
    assert!(text.contains("`Normalize`"), "{text}");
}

#[test]
fn a_learning_rate_100_times_too_high_is_named() {
    let train = loader(images(128));
    let diagnosis = diagnose(&mut model(), &mut sgd(100.0 * LR), &train, &quick()).unwrap();
    let text = expect(&diagnosis, &[FindingKind::HighLearningRate]);
    assert!(text.starts_with("error: high-learning-rate: At the learning rate 20, "), "{text}");
    let mut adam = AdamW::new(1e-3);
    expect(&diagnose(&mut model(), &mut adam, &train, &quick()).unwrap(), &[]);
    let mut adam = AdamW::new(1e-1);
    let diagnosis = diagnose(&mut model(), &mut adam, &train, &quick()).unwrap();
    expect(&diagnosis, &[FindingKind::HighLearningRate]);
    let diagnosis = diagnose(&mut model(), &mut sgd(1e-7), &train, &quick()).unwrap();
    expect(&diagnosis, &[FindingKind::LowLearningRate]);
}

#[test]
fn a_frozen_head_is_named_and_a_frozen_body_is_not() {
    let train = loader(images(128));
    let mut frozen = model();
    frozen.freeze("fc.*").unwrap();
    let diagnosis = diagnose(&mut frozen, &mut sgd(LR), &train, &quick()).unwrap();
    expect(&diagnosis, &[FindingKind::FrozenHead]);
    let finding = diagnosis.finding(FindingKind::FrozenHead).unwrap();
    assert_eq!((finding.path(), finding.value(), finding.severity()), (Some("fc"), 650.0, Severity::Warning));

    let mut body = model();
    body.freeze("*").unwrap();
    body.thaw("fc.*").unwrap();
    let options = quick();
    expect(&diagnose(&mut body, &mut sgd(LR), &train, &options).unwrap(), &[]);
    body.freeze("*").unwrap();
    let diagnosis = diagnose(&mut body, &mut sgd(LR), &train, &options).unwrap();
    expect(&diagnosis, &[FindingKind::NothingTrainable]);
}

#[test]
fn a_convolution_of_zeros_is_named() {
    let mut model = model();
    model.visit_mut("", &mut |name, state| {
        if let StateMut::Param(param) = state
            && name == "layer2.0.conv1.weight"
        {
            param.value_mut().data_mut().fill(0.0);
        }
    });
    let diagnosis = diagnose(&mut model, &mut sgd(LR), &loader(images(128)), &quick()).unwrap();
    expect(&diagnosis, &[FindingKind::ZeroConvolution]);
    assert_eq!(diagnosis.findings[0].path(), Some("layer2.0.conv1"));
}

#[test]
fn a_class_of_95_percent_is_named() {
    let mut rng = Rng::seed(4);
    let data = relabeled(&images(640), |label| if rng.chance(0.95) { 7 } else { label });
    let options = quick().batches(8).held_out_steps(20);
    let diagnosis = diagnose(&mut model(), &mut sgd(LR), &loader(data), &options).unwrap();
    expect(&diagnosis, &[FindingKind::ImbalancedLabels]);
    assert!(diagnosis.to_string().contains("not measured: the labels are not balanced"));
    assert!((0.9..1.0).contains(&diagnosis.findings[0].value()));
    assert!(diagnosis.findings[0].message().starts_with("Class `"), "{}", diagnosis.findings[0]);
}

#[test]
fn a_relu_dead_by_a_bias_of_minus_10_is_named() {
    let mut model = model();
    model.visit_mut("", &mut |name, state| {
        if let StateMut::Param(param) = state
            && name == "layer3.0.bn1.bias"
        {
            param.value_mut().data_mut().fill(-10.0);
        }
    });
    let train = loader(images(128));
    let diagnosis = diagnose(&mut model, &mut sgd(LR), &train, &quick()).unwrap();
    expect(&diagnosis, &[FindingKind::DeadRelus]);
    let finding = &diagnosis.findings[0];
    assert_eq!((finding.path(), finding.value()), (Some("layer3.0.bn1"), 1.0));
    assert_eq!(diagnosis.relus.iter().map(|relu| relu.dead).sum::<usize>(), 64);
}

/// A block that begins as its shortcut has no gradient before the first step, a classifier of zeros
/// lets none through, and stochastic depth leaves out blocks.
#[test]
fn usual_zeros_are_no_faults() -> Result<()> {
    let config = skipgrad::models::ResNetConfig::cifar_paper(8, 10)?.zero_init_residual(true).drop_path(0.3);
    let mut model = ResNet::new(&config, &mut Rng::seed(1))?;
    model.classifier_mut().weight.value_mut().data_mut().fill(0.0);
    let options = quick();
    let diagnosis = diagnose(&mut model, &mut sgd(LR), &loader(images(128)), &options)?;
    expect(&diagnosis, &[]);
    Ok(())
}

#[test]
fn small_batches_are_named() -> Result<()> {
    let options = quick();
    let diagnose = |train: Loader| {
        diagnose(&mut model(), &mut AdamW::new(1e-3), &train, &options).map(|d| (kinds(&d), d))
    };
    let train = |batch| {
        let transform = Compose::new().then(Normalize::cifar10());
        Loader::new(images(65), batch).shuffle(0).transform(transform)
    };
    let (found, diagnosis) = diagnose(train(4))?;
    assert_eq!(found, [FindingKind::SmallBatches], "{diagnosis}");
    let (found, diagnosis) = diagnose(train(64))?;
    assert_eq!(found, [FindingKind::SmallBatches], "{diagnosis}");
    assert!(diagnosis.findings[0].message().contains("last batch of an epoch has 1 of 64"), "{diagnosis}");
    let (found, diagnosis) = diagnose(train(64).drop_last(true))?;
    assert!(found.is_empty(), "{diagnosis}");

    // Maps of one pixel, and one image: there is no variance.
    let mut rng = Rng::seed(0);
    let mut net =
        Sequential::new().push(GlobalAvgPool).push(BatchNorm2d::new(3)?).push(Linear::new(3, 10, &mut rng)?);
    let diagnosis = skipgrad::train::diagnose(&mut net, &mut Sgd::new(0.1), &train(1), &options)?;
    assert_eq!(kinds(&diagnosis), [FindingKind::SmallBatches], "{diagnosis}");
    assert_eq!(diagnosis.findings[0].severity(), Severity::Error);
    Ok(())
}

/// A dataset of noise whose labels and pixels may be wrong.
struct Noise {
    classes: Vec<String>,
    label: usize,
    pixel: f32,
    /// How often the same image comes, each time with another label.
    copies: usize,
}

impl Dataset for Noise {
    fn len(&self) -> usize {
        64
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn image_shape(&self) -> [usize; 3] {
        [8, 8, 1]
    }

    fn read(&self, index: usize, pixels: &mut [f32]) -> Result<usize> {
        let mut rng = Rng::keyed(0, 0, (index / self.copies) as u64);
        pixels.iter_mut().for_each(|pixel| *pixel = rng.normal());
        if index == 5 {
            pixels[0] = self.pixel;
            return Ok(self.label);
        }
        Ok(index % 4)
    }
}

fn noise(label: usize, pixel: f32) -> Loader {
    let classes = (0..4).map(|class| class.to_string()).collect();
    Loader::new(Noise { classes, label, pixel, copies: 1 }, 32)
}

/// Normalization and ReLU after a convolution, and a classifier.
fn small() -> Sequential {
    let mut rng = Rng::seed(5);
    Sequential::new()
        .push(conv3x3(1, 4).build(&mut rng).unwrap())
        .push(BatchNorm2d::new(4).unwrap())
        .push(Relu)
        .push(Flatten)
        .named("fc", Linear::new(256, 4, &mut rng).unwrap())
        .unwrap()
}

#[test]
fn labels_and_pixels_that_no_training_survives_are_named() {
    let options = quick().overfit_steps(100);
    let found = |train: Loader| diagnose(&mut small(), &mut Sgd::new(0.1), &train, &options).unwrap();
    expect(&found(noise(1, 0.0)), &[]);
    let diagnosis = found(noise(4, 0.0));
    expect(&diagnosis, &[FindingKind::InvalidLabels]);
    assert_eq!(diagnosis.findings[0].value(), 4.0);
    let diagnosis = found(noise(1, f32::NAN));
    expect(&diagnosis, &[FindingKind::NotFinite]);
    assert!(diagnosis.checks.iter().any(|check| check.passed.is_none()));
    assert!(diagnosis.to_string().contains("not measured: the pixels are not finite"), "{diagnosis}");

    let classes = (0..4).map(|class| class.to_string()).collect();
    let diagnosis = found(Loader::new(Noise { classes, label: 1, pixel: 0.0, copies: 4 }, 32));
    expect(&diagnosis, &[FindingKind::CannotOverfit]);
    assert!(diagnosis.findings[0].value() > 1.0 && diagnosis.overfit_losses.len() == 101);
}

/// A part whose output is not used.
#[derive(State)]
struct Detached {
    used: Linear,
    unused: Linear,
    seen: Buffer,
}

impl Module for Detached {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        x.tape().observe(&self.seen, Tensor::scalar(1.0));
        x.flatten()?.apply(&self.used)
    }
}

#[test]
fn parameters_without_a_gradient_are_named_and_nothing_is_changed() {
    let mut rng = Rng::seed(0);
    let mut model = Detached {
        used: Linear::new(64, 4, &mut rng).unwrap(),
        unused: Linear::new(64, 4, &mut rng).unwrap(),
        seen: Buffer::new(Tensor::scalar(0.0)),
    };
    let mut sgd = Sgd::new(0.01).momentum(0.9);
    let before = bits(&model, &sgd);
    let diagnosis = diagnose(&mut model, &mut sgd, &noise(1, 0.0), &quick()).unwrap();
    expect(&diagnosis, &[FindingKind::NoGradient]);
    assert_eq!(diagnosis.findings[0].path(), Some("unused"));
    assert_eq!(bits(&model, &sgd), before);
}

/// The optimizer's own state, of steps before, is put back; and so is all after an error.
#[test]
fn an_optimizer_with_state_goes_on_as_if_nothing_had_been() {
    let train = noise(1, 0.0);
    let batch = train.epoch(0).unwrap().next().unwrap().unwrap();
    let step = |model: &mut Sequential, optimizer: &mut dyn Optimizer| {
        let tape = skipgrad::autograd::Tape::train(Rng::seed(1));
        let logits = tape.input(batch.images.clone()).apply(model).unwrap();
        let updates = logits.cross_entropy(&batch.labels).unwrap().backward().unwrap();
        optimizer.step(model, updates).unwrap();
    };
    let run = |is_diagnosed: bool| {
        let (mut model, mut optimizer) = (small(), AdamW::new(1e-2));
        step(&mut model, &mut optimizer);
        if is_diagnosed {
            diagnose(&mut model, &mut optimizer, &train, &quick()).unwrap();
            let wrong = Loader::new(images(4), 2);
            diagnose(&mut model, &mut optimizer, &wrong, &quick()).unwrap_err();
        }
        step(&mut model, &mut optimizer);
        bits(&model, &optimizer)
    };
    assert_eq!(run(true), run(false));
}

#[test]
fn options_out_of_range_are_errors() {
    let error = |options: DiagnoseOptions| {
        diagnose(&mut small(), &mut Sgd::new(0.1), &noise(1, 0.0), &options).unwrap_err().to_string()
    };
    assert_eq!(error(quick().batches(0)), "diagnose: batches: expected at least 1, found 0");
    assert_eq!(error(quick().images_per_step(1)), "diagnose: images_per_step: expected at least 2, found 1");
    let none = Images::new(Tensor::zeros([0, 8, 8, 1]).unwrap(), vec![], ["a"]).unwrap();
    let error = diagnose(&mut small(), &mut Sgd::new(0.1), &Loader::new(none, 2), &quick()).unwrap_err();
    assert!(matches!(error, Error::Argument { argument: "dataset", .. }), "{error}");
    let error = diagnose(&mut small(), &mut Sgd::new(-1.0), &noise(1, 0.0), &quick()).unwrap_err();
    assert!(matches!(error, Error::Argument { op: "sgd", .. }), "{error}");
}

/// Saturated layers let next to no gradient through, and many normalizations without shortcuts
/// make it explode.
#[test]
fn gradients_out_of_proportion_are_named() {
    let found =
        |mut net: Sequential| diagnose(&mut net, &mut AdamW::new(1e-3), &noise(1, 0.0), &quick()).unwrap();
    let mut rng = Rng::seed(6);
    let mut saturated = Sequential::new().push(Flatten);
    for _ in 0..8 {
        let linear = Linear::new(64, 64, &mut rng).unwrap();
        saturated = saturated.push(linear).push(from_fn(|x| Ok(x.sigmoid())));
    }
    let diagnosis = found(saturated.push(Linear::new(64, 4, &mut rng).unwrap()));
    expect(&diagnosis, &[FindingKind::VanishingGradients]);
    assert_eq!(diagnosis.findings[0].path(), Some("1"));

    let mut deep = Sequential::new().push(conv3x3(1, 8).build(&mut rng).unwrap());
    for _ in 0..40 {
        let conv = conv3x3(8, 8).build(&mut rng).unwrap();
        deep = deep.push(conv).push(BatchNorm2d::new(8).unwrap()).push(Relu);
    }
    let diagnosis = found(deep.push(GlobalAvgPool).push(Linear::new(8, 4, &mut rng).unwrap()));
    assert!(diagnosis.finding(FindingKind::ExplodingGradients).is_some(), "{diagnosis:#}");
}
