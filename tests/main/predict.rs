//! Predictions: the bits of evaluation, from many threads, and errors that say what was wrong.

use skipgrad::{
    Error, Result, Rng, Tensor,
    autograd::Tape,
    data::{Compose, Loader, Normalize, Preset, SyntheticShapes},
    models::{self, Model, ModelOptions},
    nn::Module,
    predict::Predictor,
};
use std::thread;

const PICTURES: usize = 7;

/// Drawn images, as evaluation sees them, and as pictures.
fn images(preset: &Preset) -> Result<(Tensor, Vec<Tensor>)> {
    let images = SyntheticShapes::with_sizes(0, PICTURES, 3)?.test();
    let steps = Compose::new().then(preset.normalize.clone());
    let batch = Loader::new(images.clone(), PICTURES).transform(steps).epoch(0)?.next().unwrap()?;
    let pictures = (0..images.len()).map(|i| images.images(i..i + 1)?.reshape(images.image_shape()));
    Ok((batch.images, pictures.collect::<Result<_>>()?))
}

fn model(name: &str) -> Result<Box<dyn Model>> {
    models::build(name, &ModelOptions::classes(10), &mut Rng::seed(5))
}

fn logits_of_evaluation(name: &str, images: &Tensor) -> Result<Vec<f32>> {
    let tape = Tape::eval();
    Ok(model(name)?.forward(&tape.input(images.clone()))?.value().to_vec())
}

fn logits_of(predictor: &Predictor, pictures: &[Tensor]) -> Result<Vec<f32>> {
    let predictions = predictor.predict(pictures)?;
    Ok(predictions.iter().flat_map(|prediction| prediction.logits().to_vec()).collect())
}

/// A network of each family: 32 pixels are the preset's size, so the pictures stay what they are.
#[test]
fn predictions_are_evaluations_bits_from_any_thread() -> Result<()> {
    let preset = Preset::cifar10();
    let (batch, pictures) = images(&preset)?;
    for name in ["resnet20", "densenet40_k12"] {
        let expected = logits_of_evaluation(name, &batch)?;
        let predictor = Predictor::new(model(name)?, preset.clone())?;
        thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| logits_of(&predictor, &pictures))).collect();
            for thread in threads {
                assert_eq!(thread.join().unwrap().unwrap(), expected, "{name}");
            }
        });
        let mut in_threes = vec![];
        for start in [0, 3, 6] {
            in_threes.extend(logits_of_evaluation(name, &batch.slice_rows(start..PICTURES.min(start + 3))?)?);
        }
        assert_eq!(logits_of(&predictor.batch(3)?, &pictures)?, in_threes, "{name}");
    }
    Ok(())
}

#[test]
fn a_predictor_may_be_shared() {
    fn shared<T: Send + Sync>() {}
    shared::<Predictor>();
}

#[test]
fn nothing_gives_nothing() -> Result<()> {
    let predictor = Predictor::new(model("resnet20")?, Preset::cifar10())?;
    assert!(predictor.predict(&[] as &[Tensor])?.is_empty());
    Ok(())
}

#[test]
fn what_does_not_fit_is_a_typed_error() -> Result<()> {
    let refused = |result: Result<()>, text: &str| {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Argument { .. } | Error::Module { .. }), "{error:?}");
        assert!(error.to_string().contains(text), "{error}");
    };
    let new = |preset| Predictor::new(model("resnet20")?, preset).map(drop);
    refused(new(Preset::imagenet()), "predictor: classes: expected 10 names, one a logit, found 1000");
    refused(new(Preset { crop: [40, 32], ..Preset::cifar10() }), "preset: crop");
    let gray = Normalize { mean: vec![0.5], std: vec![0.5] };
    refused(new(Preset { normalize: gray, ..Preset::cifar10() }), "conv1: conv2d: input");
    let none = Preset { classes: vec![], ..Preset::cifar10() };
    refused(new(none), "classes: expected 10 names, one a logit, found 0");

    let predictor = Predictor::new(model("resnet20")?, Preset::cifar10())?;
    let predict = |shape: &[usize]| predictor.predict([&Tensor::zeros(shape)?]).map(drop);
    refused(predict(&[32, 32]), "preset: picture: expected [H, W, C], found [32, 32]");
    refused(predict(&[32, 32, 4]), "expected [H, W, 3]");
    refused(predict(&[0, 32, 3]), "at least one pixel");
    refused(predictor.logits(&Tensor::zeros([32, 32, 3])?).map(drop), "conv1: conv2d: input");
    refused(
        predictor.predict([&Tensor::full([4, 4, 3], f32::NAN)?]).map(drop),
        "predict: logits: expected finite",
    );
    refused(predictor.batch(0).map(drop), "predictor: batch: expected at least 1, found 0");
    Ok(())
}

#[cfg(feature = "image")]
#[test]
fn a_picture_that_cannot_be_read_is_named() -> Result<()> {
    let predictor = Predictor::new(model("resnet20")?, Preset::cifar10())?;
    let error = predictor.predict(["tests/main/predict.rs"]).unwrap_err();
    assert!(matches!(&error, Error::Malformed { path, .. } if path.ends_with("predict.rs")), "{error}");
    Ok(())
}
