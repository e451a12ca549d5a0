//! Prediction: it gives the bits of evaluation on many threads at once, and errors that name what
//! is wrong.

use skipgrad::{
    Error, Result, Rng, Tensor,
    data::{Compose, Loader, Normalize, Preset, SyntheticShapes},
    inference::{InferenceModel, InferenceOptions},
    models::{self, Model, ModelOptions},
    predict::Predictor,
};
use std::thread;

const IMAGES: usize = 7;

/// Returns synthetic images as the batch of an evaluation, and one by one.
fn synthetic_images(preset: &Preset) -> Result<(Tensor, Vec<Tensor>)> {
    let images = SyntheticShapes::with_sizes(0, IMAGES, 3)?.test();
    let steps = Compose::new().then(preset.normalize.clone());
    let batch = Loader::new(images.clone(), IMAGES).transform(steps).epoch(0)?.next().unwrap()?;
    let single = (0..images.len()).map(|i| images.images(i..i + 1)?.reshape(images.image_shape()));
    Ok((batch.images, single.collect::<Result<_>>()?))
}

fn model(name: &str) -> Result<Box<dyn Model>> {
    models::build(name, &ModelOptions::classes(10), &mut Rng::seed(5))
}

/// Returns the logits of the compiled network, which are those of its definition up to rounding.
fn logits_of_evaluation(name: &str, images: &Tensor) -> Result<Vec<f32>> {
    let model = model(name)?;
    let compiled = InferenceModel::compile(&model, &InferenceOptions::new(&images.shape()[1..]))?;
    compiled.verify(&model, images, 1e-5)?;
    Ok(compiled.run(images)?.to_vec())
}

fn logits_of(predictor: &Predictor, images: &[Tensor]) -> Result<Vec<f32>> {
    let predictions = predictor.predict(images)?;
    Ok(predictions.iter().flat_map(|prediction| prediction.logits().to_vec()).collect())
}

/// The images have the size of the preset, 32 pixels, so resizing does not change them.
#[test]
fn predictions_have_the_bits_of_evaluation_on_any_thread() -> Result<()> {
    let preset = Preset::cifar10();
    let (batch, images) = synthetic_images(&preset)?;
    for name in ["resnet20", "densenet40_k12"] {
        let expected = logits_of_evaluation(name, &batch)?;
        let predictor = Predictor::new(model(name)?, preset.clone())?;
        thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| logits_of(&predictor, &images))).collect();
            for thread in threads {
                assert_eq!(thread.join().unwrap().unwrap(), expected, "{name}");
            }
        });
        let mut in_threes = vec![];
        for start in [0, 3, 6] {
            in_threes.extend(logits_of_evaluation(name, &batch.slice_rows(start..IMAGES.min(start + 3))?)?);
        }
        assert_eq!(logits_of(&predictor.batch_size(3), &images)?, in_threes, "{name}");
    }
    Ok(())
}

#[test]
fn a_predictor_can_be_shared() {
    fn shared<T: Send + Sync>() {}
    shared::<Predictor>();
}

#[test]
fn no_images_give_no_predictions() -> Result<()> {
    let predictor = Predictor::new(model("resnet20")?, Preset::cifar10())?;
    assert!(predictor.predict(&[] as &[Tensor])?.is_empty());
    Ok(())
}

#[test]
fn what_does_not_fit_is_a_typed_error() -> Result<()> {
    let is_error = |result: Result<()>, text: &str| {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Argument { .. } | Error::Module { .. }), "{error:?}");
        assert!(error.to_string().contains(text), "{error}");
    };
    let new = |preset| Predictor::new(model("resnet20")?, preset).map(drop);
    is_error(new(Preset::imagenet()), "predictor: classes: expected 10 names, one per logit, found 1000");
    is_error(new(Preset::cifar10().crop_size([40, 32])), "preset: crop");
    let gray = Normalize::new([0.5], [0.5]);
    is_error(new(Preset::cifar10().normalize(gray)), "conv1: conv2d: input");
    is_error(new(Preset::cifar10().classes([""; 0])), "classes: expected 10 names, one per logit, found 0");

    let predictor = Predictor::new(model("resnet20")?, Preset::cifar10())?;
    let predict = |shape: &[usize]| predictor.predict([&Tensor::zeros(shape)?]).map(drop);
    is_error(predict(&[32, 32]), "preset: image: expected [H, W, C], found [32, 32]");
    is_error(predict(&[32, 32, 4]), "expected [H, W, 3]");
    is_error(predict(&[0, 32, 3]), "at least one pixel");
    is_error(predictor.logits(&Tensor::zeros([32, 32, 3])?).map(drop), "conv1: conv2d: input");
    is_error(
        predictor.predict([&Tensor::full([4, 4, 3], f32::NAN)?]).map(drop),
        "predict: logits: expected finite",
    );
    is_error(
        predictor.batch_size(0).predict([&Tensor::zeros([32, 32, 3])?]).map(drop),
        "predictor: batch_size: expected at least 1, found 0",
    );
    Ok(())
}

#[cfg(feature = "image")]
#[test]
fn an_image_that_cannot_be_read_is_named() -> Result<()> {
    let predictor = Predictor::new(model("resnet20")?, Preset::cifar10())?;
    let error = predictor.predict(["tests/main/predict.rs"]).unwrap_err();
    assert!(matches!(&error, Error::Malformed { path, .. } if path.ends_with("predict.rs")), "{error}");
    Ok(())
}

/// Paths of every type that programs have.
#[cfg(feature = "image")]
#[test]
fn paths_of_any_type_are_images() -> Result<()> {
    use std::path::{Path, PathBuf};
    let predictor = Predictor::new(model("resnet20")?, Preset::cifar10())?;
    let folder = tempfile::tempdir().unwrap();
    let paths = ["a.png", "b.png"].map(|name| folder.path().join(name));
    image::RgbImage::from_pixel(40, 30, image::Rgb([200, 100, 50])).save(&paths[0]).unwrap();
    image::GrayImage::from_pixel(30, 40, image::Luma([90])).save(&paths[1]).unwrap();
    let expected: Vec<Vec<f32>> = predictor.predict(&paths)?.iter().map(|p| p.logits().to_vec()).collect();
    let same = |predictions: Result<Vec<skipgrad::predict::Prediction>>| {
        let logits: Vec<Vec<f32>> = predictions.unwrap().iter().map(|p| p.logits().to_vec()).collect();
        assert_eq!(logits, expected);
    };
    let strings: Vec<String> = paths.iter().map(|path| path.to_str().unwrap().to_string()).collect();
    let strs: Vec<&str> = strings.iter().map(String::as_str).collect();
    same(predictor.predict(&strs[..]));
    same(predictor.predict(&strs));
    same(predictor.predict(strs.clone()));
    same(predictor.predict(strs.iter().copied().map(Path::new)));
    let borrowed: Vec<&Path> = strs.iter().map(Path::new).collect();
    same(predictor.predict(&borrowed));
    same(predictor.predict(&strings));
    same(predictor.predict(strings.clone()));
    same(predictor.predict(strings.clone().into_iter().chain(std::env::args().filter(|_| false))));
    let owned = paths.to_vec();
    same(predictor.predict(&owned));
    same(predictor.predict(owned));
    same(predictor.predict(paths.iter().map(|path| path.as_os_str())));
    same(predictor.predict(paths.iter().map(|path| path.clone().into_os_string())));
    same(predictor.predict(paths.iter().map(|path| image::open(path).unwrap())));
    same(predictor.predict_iter(&paths).collect());
    for (path, expected) in paths.iter().zip(&expected) {
        let str = path.to_str().unwrap();
        for one in [
            predictor.predict_one(str)?,
            predictor.predict_one(str.to_string())?,
            predictor.predict_one(path)?,
            predictor.predict_one(PathBuf::from(str))?,
        ] {
            let close = one.logits().iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4);
            assert!(close, "{:?} {expected:?}", one.logits());
        }
    }
    Ok(())
}

#[cfg(feature = "image")]
#[test]
fn a_stream_goes_on_after_an_image_that_cannot_be_read() -> Result<()> {
    let predictor = Predictor::new(model("resnet20")?, Preset::cifar10())?.batch_size(3);
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good.png");
    image::RgbImage::new(40, 30).save(&good).unwrap();
    let missing = folder.path().join("missing.png");
    for pattern in ["gmg", "mmm", "mmmg", "gggm", "mgmgmgm", ""] {
        let paths = pattern.chars().map(|kind| if kind == 'g' { &good } else { &missing });
        let found: String = predictor
            .predict_iter(paths)
            .map(|prediction| match prediction {
                Ok(_) => 'g',
                Err(Error::Io { path, .. }) if path == missing => 'm',
                Err(other) => panic!("{other}"),
            })
            .collect();
        assert_eq!(found, pattern);
    }
    Ok(())
}

#[test]
fn normalizations_for_bytes_and_pixels_that_are_bytes_are_refused() -> Result<()> {
    let caffe = Normalize::new([123.675, 116.28, 103.53], [1.0; 3]);
    let error = Predictor::new(model("resnet20")?, Preset::cifar10().normalize(caffe)).unwrap_err();
    assert!(error.to_string().contains("divide one for bytes by 255"), "{error}");
    let predictor = Predictor::new(model("resnet20")?, Preset::cifar10())?;
    let error = predictor.predict_one(Tensor::full([8, 8, 3], 200.0)?).unwrap_err();
    assert!(matches!(error, Error::Argument { op: "predict", argument: "image", .. }), "{error}");
    assert!(error.to_string().contains("divide bytes by 255"), "{error}");
    Ok(())
}
