//! Networks learn: small ones fit the synthetic images, and twenty steps equal those of PyTorch
//! (`tests/golden`).

use crate::common::{
    compare::assert_close,
    golden::{below, tensors_below},
};
use skipgrad::{
    Result, Rng, Tensor,
    autograd::Tape,
    blocks::{ShortcutKind, StemKind},
    data::{Compose, Loader, Normalize, SyntheticShapes},
    models::{DenseNet, DenseNetConfig, ResNet, ResNetConfig},
    nn::Module,
    optim::{AdamW, Group, Optimizer, Schedule, Sgd},
    train::{Outcome, Trainer},
};

/// Makes twenty steps of SGD on one batch from PyTorch's initial weights, and compares the results.
fn follows_pytorch(name: &str, mut model: impl Module) -> Result<()> {
    const TOLERANCE: f64 = 1e-4;
    let golden = tensors_below("training.safetensors", &format!("net/{name}/")).into_iter();
    let golden = golden.map(|(name, tensor)| (name.replace("linear.", "fc."), tensor)).collect();
    model.import(below(&golden, "init/"))?;
    let labels: Vec<usize> = golden["labels"].data().iter().map(|&label| label as usize).collect();
    let mut sgd = Sgd::new(0.05).momentum(0.9);
    let (mut losses, mut norms) = (vec![], vec![]);
    for _ in 0..20 {
        let tape = Tape::train(Rng::seed(0));
        let loss = model.forward(&tape.input(golden["x"].clone()))?.cross_entropy(&labels)?;
        losses.push(loss.item());
        let updates = loss.backward()?;
        norms.push(updates.global_norm());
        sgd.step(&mut model, updates)?;
    }
    let expected = golden["losses"].data();
    assert!(expected[19] < 0.5 * expected[0], "PyTorch's loss falls");
    assert_close(&format!("{name}: losses"), &Tensor::new([20], losses)?, &golden["losses"], TOLERANCE);
    assert_close(&format!("{name}: norms"), &Tensor::new([20], norms)?, &golden["grad_norms"], TOLERANCE);

    let (found, expected) = (model.export(), below(&golden, "after/"));
    assert!(found.keys().eq(expected.keys()), "{name}: {:?} and {:?}", found.keys(), expected.keys());
    for (tensor, expected) in &expected {
        assert_close(&format!("{name}: {tensor}"), &found[tensor], expected, TOLERANCE);
    }
    let tape = Tape::eval();
    let logits = model.forward(&tape.input(golden["x"].clone()))?;
    assert_close(&format!("{name}: logits"), logits.value(), &golden["eval_logits"], TOLERANCE);
    Ok(())
}

#[test]
fn a_resnet_follows_pytorch() -> Result<()> {
    let config = ResNetConfig::cifar_paper(8, 5)?.stages([(4, 1), (8, 1), (16, 1)]);
    follows_pytorch("resnet", ResNet::new(&config, &mut Rng::seed(0))?)
}

#[test]
fn a_densenet_follows_pytorch() -> Result<()> {
    let config = DenseNetConfig::bc(10, 4, 5)?.layers([2, 2]).width(8).growth_rate(4);
    follows_pytorch("densenet", DenseNet::new(&config, &mut Rng::seed(0))?)
}

/// Trains for five epochs on two thousand synthetic images, and returns the accuracy on five
/// hundred others. Chance is 0.1.
fn fits_synthetic_images(mut model: impl Module) -> Result<f32> {
    const EPOCHS: usize = 5;
    let data = SyntheticShapes::with_sizes(2000, 500, 42)?;
    let normalize = Compose::new().then(Normalize::fit(&data.train())?);
    let test = Loader::new(data.test(), 250).transform(normalize.clone());
    let train = Loader::new(data.train(), 20).shuffle(1).transform(normalize);
    let mut trainer = Trainer::new(EPOCHS, Schedule::one_cycle(0.01, EPOCHS * train.num_batches())).seed(1);
    assert_eq!(trainer.run(&mut model, &mut AdamW::new(0.0), &train, &test, |_| ())?, Outcome::Finished);

    let records = &trainer.history().records;
    let losses: Vec<f32> = records.iter().map(|record| record.train_loss).collect();
    assert!(losses.is_sorted_by(|before, after| before > after), "the loss falls every epoch: {losses:?}");
    assert!(losses[EPOCHS - 1] < 0.6 * losses[0], "{losses:?}");
    Ok(records[EPOCHS - 1].test_accuracy)
}

#[test]
fn a_resnet_fits_the_synthetic_images() -> Result<()> {
    let config = ResNetConfig::cifar_paper(8, 10)?
        .stem(StemKind::ImageNet)
        .shortcut(ShortcutKind::Project)
        .stages([(32, 1), (64, 1)]);
    let accuracy = fits_synthetic_images(ResNet::new(&config, &mut Rng::seed(1))?)?;
    assert!(accuracy > 0.5, "{accuracy}");
    Ok(())
}

#[test]
fn a_densenet_fits_the_synthetic_images() -> Result<()> {
    let config =
        DenseNetConfig::bc(10, 12, 10)?.stem(StemKind::ImageNet).layers([2, 2]).width(24).growth_rate(12);
    let accuracy = fits_synthetic_images(DenseNet::new(&config, &mut Rng::seed(1))?)?;
    assert!(accuracy > 0.5, "{accuracy}");
    Ok(())
}

/// Trains the head alone, with everything that could change the rest: momentum, weight decay, and
/// images whose statistics are not the running ones.
fn trains_the_head_alone(mut model: impl Module, head: &'static str) -> Result<()> {
    let data = SyntheticShapes::with_sizes(24, 8, 3)?;
    let (train, test) = (Loader::new(data.train(), 8).shuffle(1), Loader::new(data.test(), 8));
    model.freeze("*")?;
    model.freeze_statistics("*")?;
    model.thaw(&format!("{head}.*"))?;
    let before = model.export();
    let backbone = Group::new().lr_scale(0.1);
    let mut sgd =
        Sgd::new(0.1).momentum(0.9).weight_decay(0.1).group(move |name, _| !name.starts_with(head), backbone);
    let mut trainer = Trainer::new(2, Schedule::constant(0.1));
    trainer.run(&mut model, &mut sgd, &train, &test, |_| ())?;
    for (name, tensor) in model.export() {
        assert_eq!(tensor != before[&name], name.starts_with(head), "{name}");
    }
    Ok(())
}

#[test]
fn a_head_alone_is_trained_and_the_backbone_keeps_its_bits() -> Result<()> {
    let rng = &mut Rng::seed(0);
    trains_the_head_alone(ResNet::cifar_paper(8, 10, rng)?, "fc")?;
    let config = ResNetConfig::cifar_paper(8, 10)?.shortcut(ShortcutKind::Project);
    trains_the_head_alone(ResNet::new(&config, rng)?, "fc")?;
    let config = DenseNetConfig::bc(10, 4, 10)?.layers([2, 2]).width(8).growth_rate(4);
    trains_the_head_alone(DenseNet::new(&config, rng)?, "classifier")
}
