//! CIFAR-10 itself and the published ResNet-20, where they are at hand: the folder of the binary
//! version is named by `SKIPGRAD_CIFAR10`, the weights by `SKIPGRAD_RESNET20`: the file as
//! published (`.th`, with the feature `pth`), or as safetensors. Elsewhere the tests say that they
//! did nothing.
//!
//! What is expected of the weights is what PyTorch computes with them on the JPEG-recoded copy of
//! CIFAR-10, where they do a little worse than on the original images (8103 of 10000 are right).

use skipgrad::{
    Precision, Result, Rng, Tensor,
    autograd::Tape,
    data::{Cifar10, Compose, Loader, Normalize},
    inference::{InferenceModel, InferenceOptions},
    io,
    models::ResNet,
    nn::Module,
    train::{Metrics, evaluate},
};
use std::{env, path::PathBuf};

/// Returns the path that an environment variable names. If it is not set, prints that the test is
/// skipped.
fn path(variable: &str, test: &str) -> Option<PathBuf> {
    let path = env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
    if path.is_none() {
        eprintln!("{test}: skipped, {variable} is not set");
    }
    path
}

#[test]
fn cifar10_is_read() -> Result<()> {
    let Some(folder) = path("SKIPGRAD_CIFAR10", "cifar10_is_read") else { return Ok(()) };
    let data = Cifar10::open(folder)?;
    assert_eq!((data.train().len(), data.test().len()), (50_000, 10_000));
    for (images, each) in [(data.train(), 5000), (data.test(), 1000)] {
        for class in 0..10 {
            let count = images.labels(0..images.len())?.iter().filter(|&&label| label == class).count();
            assert_eq!(count, each, "{}", images.classes()[class]);
        }
    }
    let steps = Compose::new().then(Normalize::cifar10());
    let batch =
        Loader::new(data.train(), 500).shuffle(1).transform(steps).epoch(0)?.next().expect("a batch")?;
    assert_eq!(batch.images.shape(), [500, 32, 32, 3]);
    let mean = |values: &mut dyn Iterator<Item = f32>| {
        let values: Vec<f64> = values.map(f64::from).collect();
        values.iter().sum::<f64>() / values.len() as f64
    };
    let first = mean(&mut batch.images.data().iter().copied());
    let second = mean(&mut batch.images.data().iter().map(|x| x * x));
    assert!(first.abs() < 0.1 && (second - 1.0).abs() < 0.1, "normalized: mean {first}, square {second}");
    Ok(())
}

/// Results of PyTorch 2.15 in `f32` on the JPEG-recoded copy of CIFAR-10.
const TOP1: usize = 8103;
const TOP5: usize = 9872;
const LOSS: f32 = 0.878_796;
const FIRST_LOGITS: [f32; 10] =
    [-3.38923, 8.09352, -2.69378, -0.7454, -2.23342, -0.29999, -3.28063, -1.54821, -2.99338, 9.09839];

/// Returns the published network and the test images, if they are at hand.
fn published(test: &str) -> Result<Option<(ResNet, Loader)>> {
    let (Some(folder), Some(weights)) = (path("SKIPGRAD_CIFAR10", test), path("SKIPGRAD_RESNET20", test))
    else {
        return Ok(None);
    };
    let mut model = ResNet::cifar_paper(20, 10, &mut Rng::seed(0))?;
    io::load(&mut model, weights)?;
    // The weights were trained with the normalization of ImageNet.
    let normalize = Normalize::imagenet();
    let images = Cifar10::open(folder)?.test();
    Ok(Some((model, Loader::new(images, 250).transform(Compose::new().then(normalize)))))
}

#[test]
fn the_published_resnet20_is_as_good_as_in_pytorch() -> Result<()> {
    let test = "the_published_resnet20_is_as_good_as_in_pytorch";
    let Some((model, loader)) = published(test)? else { return Ok(()) };

    let first: Tensor = loader.epoch(0)?.next().expect("a batch")?.images.slice_rows(0..1)?;
    let tape = Tape::eval();
    let logits = model.forward(&tape.input(first))?;
    for (logit, expected) in logits.value().data().iter().zip(FIRST_LOGITS) {
        assert!((logit - expected).abs() < 1e-3, "{:?}, expected {FIRST_LOGITS:?}", logits.value().data());
    }

    let metrics = evaluate(&model, &loader)?;
    assert_eq!(metrics.images, 10_000);
    assert!(metrics.top1.abs_diff(TOP1) <= 3, "top-1 {}, expected {TOP1}", metrics.top1);
    assert!(metrics.top5.abs_diff(TOP5) <= 3, "top-5 {}, expected {TOP5}", metrics.top5);
    assert!((metrics.loss() - LOSS).abs() < 1e-3, "loss {}, expected {LOSS}", metrics.loss());
    println!("top1 {} top5 {} loss {:.6}", metrics.top1, metrics.top5, metrics.loss());
    Ok(())
}

#[test]
fn the_published_resnet20_is_as_good_in_bf16() -> Result<()> {
    let Some((model, loader)) = published("the_published_resnet20_is_as_good_in_bf16")? else {
        return Ok(());
    };
    let compile = |precision| {
        InferenceModel::compile(
            &model,
            &InferenceOptions::new([32, 32, 3]).batch_size(250).precision(precision),
        )
    };
    let (in_f32, in_bf16) = (compile(Precision::F32)?, compile(Precision::Bf16)?);
    let (mut metrics, mut differing) = (Metrics::default(), 0);
    for batch in loader.epoch(0)? {
        let batch = batch?;
        let [expected, logits] = [in_f32.run(&batch.images)?, in_bf16.run(&batch.images)?];
        metrics.add(&logits, &batch.labels)?;
        differing += expected.argmax().iter().zip(logits.argmax()).filter(|(a, b)| **a != *b).count();
    }
    println!("top1 {} of {} in bf16, {differing} predictions differ", metrics.top1, metrics.images);
    assert_eq!(metrics.images, 10_000);
    assert!(metrics.top1.abs_diff(TOP1) <= 30, "top-1 {}, expected {TOP1}", metrics.top1);
    assert!(differing <= 200, "{differing} predictions differ from those in f32");
    Ok(())
}
