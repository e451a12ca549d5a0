//! Wrong inputs as a user makes them: each gives an error that says which operation and
//! argument, what was expected, what was found, and where in the network.

use skipgrad::{
    Error, Result, Rng, Tensor,
    autograd::{NamedTensors, State, Tape},
    blocks::{ConvNorm, ResBlock},
    data::{Cifar10, Images, Loader, SyntheticShapes},
    io,
    models::{self, DenseNet, ModelOptions, ResNet},
    nn::{Conv2d, GlobalAvgPool, Linear, Module, Sequential, conv3x3},
    optim::{Schedule, Sgd},
    train::{Trainer, evaluate},
};
use std::{fs, path::Path};
use tempfile::TempDir;

#[track_caller]
fn refused<T>(result: Result<T>, text: &str) -> Error {
    let error = result.err().expect("a error");
    assert_eq!(error.to_string(), text);
    error
}

/// What a model says about images of a shape.
fn forward(model: &impl Module, tape: &Tape, shape: [usize; 4]) -> Result<()> {
    model.forward(&tape.input(Tensor::zeros(shape)?)).map(drop)
}

fn small_resnet() -> Result<ResNet> {
    ResNet::cifar_paper(8, 10, &mut Rng::seed(0))
}

#[test]
fn images_of_the_wrong_channels() -> Result<()> {
    let tape = Tape::eval();
    let error = refused(
        forward(&small_resnet()?, &tape, [2, 32, 32, 1]),
        "conv1: conv2d: input: expected [N, H, W, 3] for the weight [3, 3, 3, 16], found [2, 32, 32, 1]",
    );
    assert_eq!(error.path(), Some("conv1"));
    refused(
        forward(&DenseNet::bc(10, 4, 10, &mut Rng::seed(0))?, &tape, [2, 32, 32, 4]),
        "features.conv0: conv2d: input: expected [N, H, W, 3] for the weight [3, 3, 3, 8], found [2, 32, 32, 4]",
    );
    let gray = models::build("resnet18", &ModelOptions::default().channels(1), &mut Rng::seed(0))?;
    refused(
        forward(&gray, &tape, [2, 64, 64, 3]),
        "conv1: conv2d: input: expected [N, H, W, 1] for the weight [7, 7, 1, 64], found [2, 64, 64, 3]",
    );
    refused(
        small_resnet()?.forward(&tape.input(Tensor::zeros([32, 32, 3])?)),
        "conv1: conv2d: input: expected [N, H, W, C], found [32, 32, 3]",
    );
    Ok(())
}

#[test]
fn a_batch_of_one_on_maps_of_one_pixel() -> Result<()> {
    let train = Tape::train(Rng::seed(0));
    refused(
        forward(&small_resnet()?, &train, [1, 4, 4, 3]),
        "layer3.0.bn1: batch_norm: input: expected more than one value per channel, to have a variance (train with a \
         larger batch or larger maps), found [1, 1, 1, 64]",
    );
    forward(&small_resnet()?, &train, [2, 4, 4, 3])?;
    forward(&small_resnet()?, &Tape::eval(), [1, 4, 4, 3])
}

#[test]
fn kernels_larger_than_the_padded_image() -> Result<()> {
    let rng = &mut Rng::seed(0);
    let tape = Tape::eval();
    let net = Sequential::new()
        .push(conv3x3(3, 8).build(rng)?)
        .named("wide", Conv2d::builder(8, 8, [9, 3]).padding([1, 1]).build(rng)?)?;
    forward(&net, &tape, [1, 7, 5, 3])?;
    refused(
        forward(&net, &tape, [1, 6, 5, 3]),
        "wide: conv2d: kernel: expected at most the padded image, 8 x 7, found 9 x 3",
    );
    let dilated = Sequential::new().push(Conv2d::builder(3, 8, 3).dilation(4).build(rng)?);
    refused(
        forward(&dilated, &tape, [1, 8, 8, 3]),
        "0: conv2d: kernel: expected at most the padded image, 8 x 8, found 3 x 3 with dilation [4, 4]",
    );
    Ok(())
}

#[test]
fn images_too_small_for_the_strides() -> Result<()> {
    let rng = &mut Rng::seed(0);
    let (eval, densenet) = (Tape::eval(), DenseNet::imagenet(121, 10, rng)?);
    refused(
        forward(&densenet, &eval, [1, 31, 27, 3]),
        "features.transition3.pool: avg_pool2d: kernel: expected at most the padded image [2, 1], found [2, 2]",
    );
    refused(
        forward(&DenseNet::bc(10, 4, 10, rng)?, &eval, [1, 33, 3, 3]),
        "features.transition2.pool: avg_pool2d: kernel: expected at most the padded image [16, 1], found [2, 2]",
    );
    forward(&ResNet::imagenet(18, 10, rng)?, &eval, [1, 1, 3, 3])?;
    refused(
        forward(&small_resnet()?, &eval, [1, 0, 5, 3]),
        "conv1: conv2d: input: expected images of at least one pixel, found [1, 0, 5, 3]",
    );
    Ok(())
}

#[test]
fn strides_of_zero() -> Result<()> {
    let rng = &mut Rng::seed(0);
    refused(
        Conv2d::builder(3, 8, 3).stride([1, 0]).build(rng),
        "conv2d: stride: expected positive numbers, found [1, 0]",
    );
    refused(
        ResBlock::basic(8, 16, 2).stride(0).build(rng),
        "0: conv2d: stride: expected positive numbers, found [0, 0]",
    );
    let mut model = small_resnet()?;
    model.stem.conv_mut().options.stride = [0, 0];
    refused(
        forward(&model, &Tape::eval(), [1, 8, 8, 3]),
        "conv1: conv2d: stride: expected at least 1, found [0, 0]",
    );
    Ok(())
}

#[test]
fn groups_that_do_not_divide() -> Result<()> {
    let rng = &mut Rng::seed(0);
    refused(conv3x3(8, 12).groups(3).build(rng), "conv2d: groups: expected a divisor of 8 and 12, found 3");
    refused(conv3x3(8, 12).groups(0).build(rng), "conv2d: groups: expected a divisor of 8 and 12, found 0");
    refused(
        ConvNorm::new(conv3x3(8, 12).groups(5), rng),
        "conv2d: groups: expected a divisor of 8 and 12, found 5",
    );
    let mut model = small_resnet()?;
    model.stem.conv_mut().options.groups = 2;
    refused(
        forward(&model, &Tape::eval(), [1, 8, 8, 3]),
        "conv1: conv2d: groups: expected a divisor of the input's channels, found 2 of 3",
    );
    Ok(())
}

#[test]
fn labels_that_are_no_class() -> Result<()> {
    let tape = Tape::eval();
    let logits = small_resnet()?.forward(&tape.input(Tensor::zeros([3, 8, 8, 3])?))?;
    refused(
        logits.cross_entropy(&[9, 0, 10]),
        "cross_entropy: labels: expected classes below 10, found 10 in row 2",
    );
    refused(logits.cross_entropy(&[9, 0]), "cross_entropy: labels: expected 3, one for each row, found 2");
    refused(
        Images::new(Tensor::zeros([3, 8, 8, 3])?, vec![0, 1, 2], ["cat", "dog"]),
        "images: labels: expected classes below 2, found 2 in image 2",
    );

    // Ten classes of images, a network for four.
    let mut model = ResNet::cifar_paper(8, 4, &mut Rng::seed(0))?;
    let before = model.export();
    let data = SyntheticShapes::with_sizes(20, 10, 0)?;
    let (train, test) = (Loader::new(data.train(), 5), Loader::new(data.test(), 10));
    let mut trainer = Trainer::new(1, Schedule::constant(0.1));
    refused(
        trainer.run(&mut model, &mut Sgd::new(0.1), &train, &test, |_| ()),
        "train: model: expected logits for the 10 classes of the training images, found 4 logits",
    );
    assert_eq!(model.export(), before, "no step was made");
    refused(evaluate(&model, &test), "metrics: labels: expected classes below 4, found 4 in row 4");
    Ok(())
}

/// A folder of CIFAR-10 files with two images each.
fn cifar() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let files = (1..=5).map(|i| format!("data_batch_{i}.bin")).chain(["test_batch.bin".to_string()]);
    files.for_each(|file| fs::write(folder.path().join(file), [7; 2 * 3073]).unwrap());
    folder
}

#[test]
fn truncated_cifar_files() {
    let folder = cifar();
    assert_eq!(Cifar10::open(folder.path()).unwrap().train().len(), 10);
    let path = folder.path().join("data_batch_3.bin");
    fs::write(&path, [7; 2 * 3073 - 1000]).unwrap();
    refused(
        Cifar10::open(folder.path()),
        &format!("{}: record 1: expected 3073 bytes, found 2073 bytes", path.display()),
    );
    fs::remove_file(&path).unwrap();
    let error = Cifar10::open(folder.path()).unwrap_err();
    assert!(
        matches!(&error, Error::Io { path: named, action: "read", source } if *named == path
            && source.kind() == std::io::ErrorKind::NotFound),
        "{error}"
    );
}

#[test]
fn a_label_byte_of_200() {
    let folder = cifar();
    let path = folder.path().join("test_batch.bin");
    let mut bytes = vec![7; 2 * 3073];
    bytes[3073] = 200;
    fs::write(&path, bytes).unwrap();
    refused(
        Cifar10::open(folder.path()),
        &format!("{}: record 1: expected a label below 10, found 200", path.display()),
    );
}

#[test]
fn a_weights_file_that_does_not_fit() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let mut model = small_resnet()?;
    let mut tensors: NamedTensors = ResNet::cifar_paper(8, 10, &mut Rng::seed(9))?.export();
    tensors.remove("layer1.0.bn1.running_var");
    tensors.remove("fc.bias");
    tensors.insert("layer4.0.conv1.weight".to_string(), Tensor::zeros([8, 8, 3, 3])?);
    tensors.insert("conv1.weight".to_string(), Tensor::zeros([16, 1, 3, 3])?);
    tensors.insert("fc.weight".to_string(), Tensor::zeros([100, 64])?);
    io::write(&path, &tensors, &io::Metadata::new())?;

    let before = model.export();
    refused(
        io::load(&mut model, &path),
        &format!(
            "{}: the tensors do not fit the model; missing: layer1.0.bn1.running_var, fc.bias; unexpected: \
             layer4.0.conv1.weight; conv1.weight: expected [16, 3, 3, 3], found [16, 1, 3, 3]; fc.weight: \
             expected [10, 64], found [100, 64]",
            path.display()
        ),
    );
    assert_eq!(model.export(), before, "the model is unchanged");

    let missing = folder.path().join("no-such-file");
    let error = io::load(&mut model, &missing).unwrap_err();
    assert!(matches!(&error, Error::Io { path, action: "read", .. } if *path == missing), "{error}");
    Ok(())
}

/// A training of one epoch on a few drawn images that writes to a folder.
fn train(model: &mut dyn Module, folder: &Path) -> Result<Trainer> {
    let data = SyntheticShapes::with_sizes(8, 4, 0)?;
    let (train, test) = (Loader::new(data.train(), 4), Loader::new(data.test(), 4));
    let mut trainer = Trainer::new(1, Schedule::constant(0.1)).folder(folder).model_name("tiny");
    trainer.run(model, &mut Sgd::new(0.1).momentum(0.9), &train, &test, |_| ())?;
    Ok(trainer)
}

fn tiny(channels: usize, classes: usize) -> Result<Sequential> {
    let rng = &mut Rng::seed(0);
    Sequential::new()
        .named("conv", conv3x3(3, channels).bias(true).build(rng)?)?
        .push(GlobalAvgPool)
        .named("fc", Linear::new(channels, classes, rng)?)
}

#[test]
fn a_checkpoint_of_another_model() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    train(&mut tiny(4, 10)?, folder.path())?;
    let path = folder.path().join(Trainer::LAST);
    let mut model = tiny(4, 12)?;
    let before = model.export();
    let mut sgd = Sgd::new(0.1).momentum(0.9);
    let mut trainer = Trainer::new(3, Schedule::constant(0.5));
    refused(
        trainer.resume(&mut model, &mut sgd, &path),
        &format!(
            "{}: the tensors do not fit the model; fc.weight: expected [12, 4], found [10, 4]; fc.bias: expected [12], \
             found [10]",
            path.display()
        ),
    );
    assert_eq!(model.export(), before, "the model is unchanged");
    assert_eq!((trainer.settings().epochs, trainer.position().epoch), (3, 0), "so is the training");
    Ok(())
}

#[test]
fn a_folder_that_cannot_be_written() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("results");
    fs::write(&file, "a file stands where the folder should be").unwrap();
    for out in [file.clone(), file.join("run1")] {
        let mut model = tiny(4, 10)?;
        let before = model.export();
        let error = train(&mut model, &out).unwrap_err();
        let Error::Io { path, action: "create", source } = &error else { panic!("{error}") };
        assert_eq!(*path, out);
        assert_eq!(error.to_string(), format!("{}: cannot create: {source}", out.display()));
        assert_eq!(model.export(), before, "no step was made");
    }
    let error = io::save(&tiny(4, 10)?, file.join("weights.safetensors")).unwrap_err();
    assert!(matches!(&error, Error::Io { action: "create", .. }), "{error}");
    Ok(())
}

#[test]
fn names_that_no_model_has() {
    refused(
        models::build("resnet19", &ModelOptions::classes(10), &mut Rng::seed(0)),
        "unknown model \"resnet19\" (nearest: resnet18); known are: resnet18, resnet34, resnet50, resnet101, resnet152, resnet18_cifar, \
         resnet34_cifar, resnet50_cifar, resnet101_cifar, resnet152_cifar, resnext50_32x4d, resnext101_32x8d, \
         resnext101_64x4d, wide_resnet50_2, wide_resnet101_2, resnet50d, resnet101d, resnetv2_18, resnetv2_34, \
         resnetv2_50, resnetv2_101, resnetv2_152, resnet20, resnet32, resnet44, resnet56, resnet110, wrn16_4, \
         wrn28_10, densenet121, densenet161, densenet169, densenet201, densenet_bc100_k12, densenet_bc190_k40, \
         densenet40_k12",
    );
    refused(
        ResNet::imagenet(19, 10, &mut Rng::seed(0)),
        "unknown ResNet \"resnet19\" (nearest: resnet18); known are: resnet18, resnet34, resnet50, resnet101, \
         resnet152",
    );
    let nearest = |name| {
        let error = models::build(name, &ModelOptions::classes(10), &mut Rng::seed(0)).err().unwrap();
        let text = error.to_string();
        text.split_once("nearest: ").map(|(_, rest)| rest.split(')').next().unwrap().to_string())
    };
    for (name, known) in [
        ("ResNet18", "resnet18"),
        ("resnet-50", "resnet50"),
        ("RESNEXT50 32x4d", "resnext50_32x4d"),
        ("densenet-121", "densenet121"),
        ("resnet_18_cifar", "resnet18_cifar"),
        ("wideresnet50_2", "wide_resnet50_2"),
        ("WRN-28-10", "wrn28_10"),
    ] {
        assert_eq!(nearest(name).as_deref(), Some(known), "{name}");
    }
    for name in ["", "vit_b_16", "яблоко"] {
        assert_eq!(nearest(name), None, "{name}");
    }
}
