//! Training and inference with convolutions and linear layers that multiply in bf16.

use crate::common::training::{bits, loaders, model, plain_trainer, sgd};
use skipgrad::{
    Precision, Result, Rng, Tensor,
    autograd::{Tape, Var},
    data::{Compose, Loader, Normalize, SyntheticShapes},
    inference::{InferenceModel, InferenceOptions},
    models::{DenseNet, DenseNetConfig, ResNet},
    nn::{Module, conv3x3},
    ops::Conv2dOptions,
    optim::{Schedule, Sgd},
    train::{Trainer, weights_hash},
};

/// Integers of at most 3 are bf16 numbers, and so small that no sum of their products is rounded.
fn integers(shape: &[usize], rng: &mut Rng) -> Result<Tensor> {
    Tensor::from_fn(shape, |_| rng.below(7) as f32 - 3.0)
}

/// Returns the output of a function and the gradients of its inputs.
fn values_and_gradients(
    precision: Precision,
    inputs: &[Tensor],
    f: impl for<'t> Fn(&[Var<'t>]) -> Result<Var<'t>>,
) -> Result<Vec<Tensor>> {
    let tape = Tape::train(Rng::seed(0)).precision(precision);
    let inputs: Vec<Var<'_>> = inputs.iter().map(|input| tape.watch(input.clone())).collect();
    let y = f(&inputs)?;
    let mut all = vec![y.value().clone()];
    let dy = integers(y.shape(), &mut Rng::seed(9))?;
    let updates = y.backward_from(dy)?;
    all.extend(inputs.iter().filter_map(|input| updates.grad_of(input).cloned()));
    Ok(all)
}

#[test]
fn products_of_small_integers_are_those_of_f32() -> Result<()> {
    let mut rng = Rng::seed(1);
    let options = Conv2dOptions::new().stride([2, 1]).padding([1, 2]).dilation([1, 2]).groups(2);
    let inputs = [&[3, 9, 11, 6][..], &[3, 2, 3, 8], &[8]].map(|shape| integers(shape, &mut rng));
    let [x, w, b] = inputs;
    let inputs = [x?, w?, b?];
    let conv =
        |precision| values_and_gradients(precision, &inputs, |v| v[0].conv2d(&v[1], Some(&v[2]), &options));
    assert_eq!(conv(Precision::Bf16)?, conv(Precision::F32)?);
    let inputs = [integers(&[5, 40], &mut rng)?, integers(&[40, 35], &mut rng)?, integers(&[35], &mut rng)?];
    let linear = |precision| values_and_gradients(precision, &inputs, |v| v[0].linear(&v[1], Some(&v[2])));
    assert_eq!(linear(Precision::Bf16)?, linear(Precision::F32)?);
    Ok(())
}

#[test]
fn compiled_networks_round_as_the_pass_does() -> Result<()> {
    let mut rng = Rng::seed(2);
    let images = Tensor::normal([3, 32, 32, 3], 1.0, &mut rng)?;
    let nets: [Box<dyn Module>; 2] = [
        Box::new(ResNet::cifar_paper(20, 10, &mut rng)?),
        Box::new(DenseNet::new(&DenseNetConfig::bc(22, 8, 10)?, &mut rng)?),
    ];
    for net in &nets {
        let f32_logits = Tape::eval().input(images.clone()).apply(net)?.value().clone();
        let tape = Tape::eval().precision(Precision::Bf16);
        let bf16_logits = tape.input(images.clone()).apply(net)?.value().clone();
        assert_ne!(f32_logits, bf16_logits);
        let options = InferenceOptions::new([32, 32, 3]).batch_size(3).precision(Precision::Bf16);
        let compiled = InferenceModel::compile(net, &options)?;
        compiled.verify(net, &images, 0.03)?;
    }
    Ok(())
}

/// Trains for an epoch and returns all bits of the state.
fn epoch(precision: Precision) -> Result<Vec<(String, Vec<u32>)>> {
    let ((train, test), mut model, mut sgd) = (loaders(1), model(1), sgd());
    plain_trainer().epochs(1).precision(precision).run(&mut model, &mut sgd, &train, &test, |_| ())?;
    Ok(bits(&model, &sgd))
}

#[test]
fn an_epoch_has_the_same_bits_on_any_number_of_threads() -> Result<()> {
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| epoch(Precision::Bf16))
    };
    let alone = on(1)?;
    assert_eq!(on(2)?, alone);
    assert_eq!(on(3)?, alone);
    assert_ne!(epoch(Precision::F32)?, alone);
    Ok(())
}

#[test]
fn a_resumed_training_keeps_the_precision_unless_another_is_asked_for() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let (train, test) = loaders(0);
    let mut unbroken = model(1);
    plain_trainer().precision(Precision::Bf16).run(&mut unbroken, &mut sgd(), &train, &test, |_| ())?;
    let (mut half, mut optimizer) = (model(1), sgd());
    let first = plain_trainer().epochs(1).precision(Precision::Bf16).folder(folder.path());
    { first }.run(&mut half, &mut optimizer, &train, &test, |_| ())?;
    let last = folder.path().join(Trainer::LAST);
    let (mut resumed, mut optimizer, mut trainer) = (model(2), sgd(), plain_trainer());
    trainer.resume(&mut resumed, &mut optimizer, &last)?;
    assert_eq!(trainer.settings().precision, Precision::Bf16);
    trainer.run(&mut resumed, &mut optimizer, &train, &test, |_| ())?;
    assert_eq!(weights_hash(&resumed), weights_hash(&unbroken));
    let mut other = plain_trainer().precision(Precision::F32);
    let changes = other.resume(&mut model(3), &mut sgd(), &last)?.changed;
    assert!(
        changes.iter().any(|change| change.to_string() == "precision: Bf16 before, F32 now"),
        "{changes:?}"
    );
    Ok(())
}

#[test]
fn the_weights_of_a_convolution_take_half_the_memory() -> Result<()> {
    let conv = conv3x3(64, 96).build(&mut Rng::seed(0))?;
    let bytes = |precision| -> Result<usize> {
        let options = InferenceOptions::new([2, 2, 64]).precision(precision);
        Ok(InferenceModel::compile(&conv, &options)?.memory().weights)
    };
    assert_eq!(bytes(Precision::Bf16)?, 2 * 9 * 64 * 96);
    assert!(bytes(Precision::F32)? >= 4 * 9 * 64 * 96);
    Ok(())
}

#[test]
fn a_network_learns_as_well_as_in_f32() -> Result<()> {
    let data = SyntheticShapes::with_sizes(64, 16, 4)?.train();
    let transform = Compose::new().then(Normalize::fit(&data)?);
    let train = Loader::new(data, 16).shuffle(1).transform(transform);
    let loss = |precision| -> Result<f32> {
        let mut model = ResNet::cifar_paper(8, 10, &mut Rng::seed(5))?;
        let mut trainer = Trainer::new(12, Schedule::cosine(0.05, 48)).precision(precision);
        trainer.run(&mut model, &mut Sgd::new(0.0).momentum(0.9), &train, &train, |_| ())?;
        Ok(trainer.history().records[11].train_loss)
    };
    let [f32_loss, bf16_loss] = [loss(Precision::F32)?, loss(Precision::Bf16)?];
    println!("training loss {f32_loss} in f32, {bf16_loss} in bf16");
    assert!(f32_loss < 1.2 && (f32_loss - bf16_loss).abs() < 0.15, "{f32_loss} and {bf16_loss}");
    Ok(())
}
