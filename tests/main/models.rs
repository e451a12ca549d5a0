//! Every model by its name: sizes, names, forward, backward, and what goes wrong.

use crate::common::{hash::fnv1a, rows};
use skipgrad::{
    Error, Result, Rng, Shape, Tensor,
    autograd::{State, StateRef, Tape},
    blocks::{ResBlock, ResidualUnit, StemKind},
    io::{KeyStyle, SaveOptions, WeightsFile},
    models::{self, DenseNet, DenseNetConfig, Model, ModelOptions, ResNet, ResNetConfig},
    nn::Module,
};

fn images(batch: usize, edge: usize, channels: usize) -> Tensor {
    Tensor::normal([batch, edge, edge, channels], 1.0, &mut Rng::seed(7)).unwrap()
}

/// The layers that the papers count: convolutions and the classifier without projections, in wide
/// networks convolutions and projections without the classifier.
fn depth(model: &dyn Model, is_wide: bool) -> usize {
    let uncounted = if is_wide { "fc." } else { "downsample" };
    let mut depth = 0;
    model.visit("", &mut |name, slot| {
        depth += usize::from(slot.value().shape().rank() > 1 && !name.contains(uncounted));
    });
    depth
}

/// Parameters without a gradient and buffers without an observation after a training pass.
fn unreached(model: &dyn Model, x: Tensor) -> Vec<String> {
    let tape = Tape::train(Rng::seed(0));
    let labels: Vec<usize> = (0..x.shape()[0]).collect();
    let loss = model.forward(&tape.input(x)).unwrap().cross_entropy(&labels).unwrap();
    assert!(loss.item().is_finite());
    let updates = loss.backward().unwrap();
    let mut unreached = vec![];
    model.visit("", &mut |name, slot| {
        let value = match slot {
            StateRef::Param(param) => updates.grad(param),
            StateRef::Buffer(buffer) => updates.observed(buffer),
            _ => None,
        };
        let finite = |value: &Tensor| value.data().iter().all(|x| x.is_finite());
        if value.is_none_or(|value| value.shape() != slot.value().shape() || !finite(value)) {
            unreached.push(name.to_string());
        }
    });
    unreached
}

fn sweep(name: &str, [classes, parameters, edge, features]: [usize; 4]) -> Result<()> {
    let model = models::build(name, &ModelOptions::classes(classes), &mut Rng::seed(1))?;
    assert_eq!(model.num_parameters(), parameters);
    let number = |digits: &str| digits.chars().take_while(char::is_ascii_digit).collect::<String>();
    let digits = name.trim_start_matches("resnetv2_").trim_start_matches(|c: char| !c.is_ascii_digit());
    // A stem of three convolutions counts as one.
    let uncounted = if name.ends_with('d') && !name.contains('_') { 2 } else { 0 };
    let counted = depth(&*model, name.starts_with("wrn")) - uncounted;
    assert_eq!(counted.to_string(), number(digits), "{name} has as many layers as its name says");

    let tape = Tape::eval();
    let x = tape.input(images(2, edge, 3));
    assert_eq!(model.forward(&x)?.shape(), [2, classes]);
    assert_eq!(model.forward_features(&x)?.shape(), [2, 1, 1, features]);
    assert_eq!(model.classifier().out_features(), classes);
    assert_eq!(unreached(&*model, images(2, edge, 3)), [""; 0]);
    Ok(())
}

// Of each model: the number of classes, of parameters as PyTorch counts them (torchvision's
// networks, and the same with the papers' CIFAR stems; timm's resnet50d, resnet101d and resnetv2;
// the papers' wide networks), the edge of the smallest images that leave two values a channel for a
// batch of two, and the number of channels of the last maps.
rows! {
    const MODELS;
    sweep;
    resnet18 => [1000, 11_689_512, 32, 512],
    resnet34 => [1000, 21_797_672, 32, 512],
    resnet50 => [1000, 25_557_032, 32, 2048],
    resnet101 => [1000, 44_549_160, 32, 2048],
    resnet152 => [1000, 60_192_808, 32, 2048],
    resnet18_cifar => [10, 11_173_962, 8, 512],
    resnet34_cifar => [10, 21_282_122, 8, 512],
    resnet50_cifar => [10, 23_520_842, 8, 2048],
    resnet101_cifar => [10, 42_512_970, 8, 2048],
    resnet152_cifar => [10, 58_156_618, 8, 2048],
    resnext50_32x4d => [1000, 25_028_904, 32, 2048],
    resnext101_32x8d => [1000, 88_791_336, 32, 2048],
    resnext101_64x4d => [1000, 83_455_272, 32, 2048],
    wide_resnet50_2 => [1000, 68_883_240, 32, 2048],
    wide_resnet101_2 => [1000, 126_886_696, 32, 2048],
    resnet50d => [1000, 25_576_264, 32, 2048],
    resnet101d => [1000, 44_568_392, 32, 2048],
    resnetv2_18 => [1000, 11_687_720, 32, 512],
    resnetv2_34 => [1000, 21_795_880, 32, 512],
    resnetv2_50 => [1000, 25_549_352, 32, 2048],
    resnetv2_101 => [1000, 44_541_480, 32, 2048],
    resnetv2_152 => [1000, 60_185_128, 32, 2048],
    resnet20 => [10, 269_722, 4, 64],
    resnet32 => [10, 464_154, 4, 64],
    resnet44 => [10, 658_586, 4, 64],
    resnet56 => [10, 853_018, 4, 64],
    resnet110 => [10, 1_727_962, 4, 64],
    wrn16_4 => [10, 2_748_890, 4, 256],
    wrn28_10 => [10, 36_479_194, 4, 640],
    densenet121 => [1000, 7_978_856, 32, 1024],
    densenet161 => [1000, 28_681_000, 32, 2208],
    densenet169 => [1000, 14_149_480, 32, 1664],
    densenet201 => [1000, 20_013_928, 32, 1920],
    densenet_bc100_k12 => [10, 769_162, 4, 342],
    densenet_bc190_k40 => [10, 25_624_430, 4, 2190],
    densenet40_k12 => [10, 1_019_722, 4, 448],
}

#[test]
fn every_model_has_a_test() {
    assert_eq!(models::names(), MODELS);
}

/// A digest of the names and shapes of a model's state, as a library names them in its files. The
/// classifier of timm's pre-activation networks, a 1x1 convolution, counts as the linear layer.
fn digest(model: &dyn Model, style: KeyStyle) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    SaveOptions::new().key_style(style).save(model, &path).unwrap();
    let line = |(name, shape): (&str, &Shape)| match shape[..] {
        [classes, channels, 1, 1] if name == "head.fc.weight" => format!("{name} [{classes}, {channels}]"),
        _ => format!("{name} {shape}"),
    };
    let mut lines: Vec<String> = WeightsFile::open(&path).unwrap().iter().map(line).collect();
    lines.sort();
    fnv1a(lines.join("\n").bytes())
}

#[test]
fn names_and_shapes_are_the_published_ones() {
    let mut rng = Rng::seed(0);
    let resnet = |depth, rng: &mut Rng| ResNet::imagenet(depth, 1000, rng).unwrap();
    let torchvision = |model: &dyn Model| digest(model, KeyStyle::Torchvision);
    assert_eq!(torchvision(&resnet(18, &mut rng)), 0x7d6d_e2ea_9df6_f7c8);
    assert_eq!(torchvision(&resnet(50, &mut rng)), 0x8dd6_3c80_eecf_8deb);
    assert_eq!(torchvision(&DenseNet::imagenet(121, 1000, &mut rng).unwrap()), 0xedc6_4a8a_adf3_95d9);
    assert_eq!(torchvision(&DenseNet::bc(100, 12, 10, &mut rng).unwrap()), 0xb8f5_4284_e98d_e188);
    let paper = ResNet::cifar_paper(20, 10, &mut rng).unwrap();
    assert_eq!(digest(&paper, KeyStyle::PytorchCifar), 0x16f7_697f_9c3a_bbbc);
    for (name, style, classes, expected) in [
        ("resnext50_32x4d", KeyStyle::Torchvision, 1000, 0xa735_6c00_db53_c674),
        ("resnext101_32x8d", KeyStyle::Torchvision, 1000, 0x0204_7b20_df58_e231),
        ("wide_resnet50_2", KeyStyle::Torchvision, 1000, 0x9dae_fb04_f2c9_4897),
        ("resnet50d", KeyStyle::Timm, 1000, 0x0fb3_1f1a_7bf4_cd80),
        ("resnet101d", KeyStyle::Timm, 1000, 0x76a4_953a_4197_89ff),
        ("resnetv2_18", KeyStyle::Timm, 1000, 0x5372_bab4_7ef5_41b6),
        ("resnetv2_34", KeyStyle::Timm, 1000, 0x0085_fb83_d92e_9fe6),
        ("resnetv2_50", KeyStyle::Timm, 1000, 0xc44d_a1a0_0edc_619b),
        ("resnetv2_101", KeyStyle::Timm, 1000, 0x48e5_2d88_395c_32bf),
        ("wrn16_4", KeyStyle::WideResNet, 10, 0x67c1_c895_367a_2137),
        ("wrn28_10", KeyStyle::WideResNet, 10, 0xf51f_0500_9626_97c0),
    ] {
        let model = models::build(name, &ModelOptions::classes(classes), &mut rng).unwrap();
        assert_eq!(digest(&*model, style), expected, "{name}");
    }
}

/// The order of `visit` is the order of the layers.
#[test]
fn state_is_visited_in_the_order_of_the_layers() {
    let mut names = vec![];
    let model = ResNet::imagenet(18, 1000, &mut Rng::seed(0)).unwrap();
    model.visit("", &mut |name, _| names.push(name.to_string()));
    let mut mutable = vec![];
    model.clone().visit_mut("", &mut |name, _| mutable.push(name.to_string()));
    assert_eq!(names, mutable);
    let at = |name: &str| names.iter().position(|n| n == name).unwrap();
    assert_eq!(names[..5], ["conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var"]);
    assert!(at("layer2.0.bn2.bias") < at("layer2.0.downsample.0.weight"));
    assert!(at("layer2.0.downsample.1.running_var") < at("layer2.1.conv1.weight"));
    assert_eq!(names[names.len() - 2..], ["fc.weight", "fc.bias"]);

    for name in ["resnetv2_18", "resnet50d", "wrn16_4"] {
        let mut model = models::build(name, &ModelOptions::classes(10), &mut Rng::seed(0)).unwrap();
        let (mut names, mut mutable) = (vec![], vec![]);
        model.visit("m", &mut |name, _| names.push(name.to_string()));
        model.visit_mut("m", &mut |name, _| mutable.push(name.to_string()));
        assert_eq!(names, mutable);
        assert!(names.iter().all(|name| name.starts_with("m.")), "{names:?}");
    }

    let dense = DenseNet::bc(16, 4, 10, &mut Rng::seed(0)).unwrap();
    let (mut names, mut mutable) = (vec![], vec![]);
    dense.visit("m", &mut |name, _| names.push(name.to_string()));
    dense.clone().visit_mut("m", &mut |name, _| mutable.push(name.to_string()));
    assert_eq!(names, mutable);
    let at = |name: &str| names.iter().position(|n| n == name).unwrap();
    assert!(at("m.features.denseblock1.denselayer2.conv2.weight") < at("m.features.transition1.norm.weight"));
    assert!(at("m.features.transition1.conv.weight") < at("m.features.denseblock2.denselayer1.norm1.weight"));
    assert_eq!(names.last().unwrap(), "m.classifier.bias");
}

#[test]
fn state_moves_from_model_to_model() {
    for name in ["resnet20", "densenet40_k12"] {
        let build = |seed| models::build(name, &ModelOptions::classes(5), &mut Rng::seed(seed)).unwrap();
        let (a, mut b) = (build(1), build(2));
        let logits = |model: &dyn Model| {
            let tape = Tape::eval();
            model.forward(&tape.input(images(2, 8, 3))).unwrap().value().clone()
        };
        assert_ne!(logits(&*a), logits(&*b));
        b.import(a.export()).unwrap();
        assert_eq!(logits(&*a), logits(&*b));
    }
}

#[test]
fn the_same_seed_makes_the_same_weights() {
    let export = |seed| ResNet::cifar_paper(8, 10, &mut Rng::seed(seed)).unwrap().export();
    assert!(export(3) == export(3) && export(3) != export(4));
}

#[test]
fn a_copy_computes_the_same_and_learns_alone() {
    let model = ResNet::cifar_paper(8, 10, &mut Rng::seed(0)).unwrap();
    let copy = model.clone();
    let tape = Tape::train(Rng::seed(0));
    let [a, b] = [&model, &copy].map(|m| m.forward(&tape.input(images(2, 8, 3))).unwrap());
    assert_eq!(a.value(), b.value());
    let updates = a.sum().backward().unwrap();
    assert!(updates.grad(&model.fc.weight).is_some() && updates.grad(&copy.fc.weight).is_none());
}

#[test]
fn images_of_any_size_and_any_number_of_channels() {
    let mut rng = Rng::seed(0);
    for name in ["resnet18", "resnet20", "resnet50d", "resnetv2_18", "wrn16_4", "densenet_bc100_k12"] {
        let options = ModelOptions::classes(3).channels(5);
        let model = models::build(name, &options, &mut rng).unwrap();
        let tape = Tape::eval();
        for [height, width] in [[33, 47], [40, 9], [64, 32]] {
            let x = tape.input(Tensor::normal([1, height, width, 5], 1.0, &mut rng).unwrap());
            assert_eq!(model.forward(&x).unwrap().shape(), [1, 3], "{name} {height} {width}");
        }
    }
}

#[test]
fn another_stem_by_option() {
    let mut rng = Rng::seed(0);
    let mut edge = |name: &str, stem: Option<StemKind>| {
        let options = ModelOptions::classes(10);
        let options = stem.map_or(options.clone(), |stem| options.stem(stem));
        let model = models::build(name, &options, &mut rng).unwrap();
        let tape = Tape::eval();
        model.forward_features(&tape.input(images(1, 32, 3))).unwrap().shape()[1]
    };
    assert_eq!([edge("resnet18", None), edge("resnet18", Some(StemKind::Cifar))], [1, 4]);
    assert_eq!([edge("resnet20", None), edge("resnet20", Some(StemKind::ImageNet))], [8, 2]);
    assert_eq!([edge("resnet50d", None), edge("resnetv2_18", Some(StemKind::Deep))], [1, 1]);
    assert_eq!([edge("densenet121", None), edge("densenet121", Some(StemKind::Cifar))], [1, 4]);
}

#[test]
fn zero_last_gamma_makes_the_blocks_shortcuts() {
    let options = ModelOptions::classes(10).zero_init_residual(true);
    let mut zero = vec![];
    for name in ["resnet18_cifar", "resnet50_cifar"] {
        let model = models::build(name, &options, &mut Rng::seed(0)).unwrap();
        model.visit("", &mut |name, slot| {
            if name.ends_with("weight") && slot.value().data().iter().all(|&w| w == 0.0) {
                zero.push(name.to_string());
            }
        });
    }
    let model = models::build("resnetv2_18", &options, &mut Rng::seed(0)).unwrap();
    model.visit("", &mut |name, slot| {
        let zeros = slot.value().data().iter().all(|&w| w == 0.0);
        assert_eq!(
            zeros && name.contains("conv"),
            name.ends_with("conv2.weight"),
            "{name}: no norm is last there"
        );
    });
    assert_eq!(zero.len(), 8 + 16);
    assert!(zero[..8].iter().all(|name| name.ends_with("bn2.weight")));
    assert!(zero[8..].iter().all(|name| name.ends_with("bn3.weight")));
}

#[test]
fn stochastic_depth_rises_to_the_last_block() {
    let config = ResNetConfig::cifar_paper(20, 10).unwrap().drop_path(0.6);
    let model = ResNet::new(&config, &mut Rng::seed(0)).unwrap();
    let rates = model.stages.iter().flat_map(|stage| &stage.blocks).map(|unit| match unit {
        ResidualUnit::Basic(block) => block.drop_path,
        ResidualUnit::Bottleneck(block) => block.drop_path,
        ResidualUnit::PreAct(block) => block.drop_path,
        other => panic!("{other:?} is a kind of block that is new"),
    });
    for (i, rate) in rates.enumerate() {
        assert!((rate - 0.6 * (i + 1) as f32 / 9.0).abs() < 1e-6, "block {i}: {rate}");
    }
    let pass = |tape: Tape| model.forward(&tape.input(images(2, 8, 3))).unwrap().value().clone();
    assert_ne!(pass(Tape::train(Rng::seed(0))), pass(Tape::train(Rng::seed(1))));
    assert_eq!(pass(Tape::eval()), pass(Tape::eval()));
}

#[test]
fn stochastic_depth_in_every_kind_of_residual_network() {
    let options = ModelOptions::classes(10).drop_path(0.5);
    for name in ["resnext50_32x4d", "resnet50d", "resnetv2_18", "resnetv2_50", "wrn16_4"] {
        let model = models::build(name, &options, &mut Rng::seed(0)).unwrap();
        let pass = |tape: Tape| model.forward(&tape.input(images(2, 33, 3))).unwrap().value().clone();
        assert_ne!(pass(Tape::train(Rng::seed(0))), pass(Tape::train(Rng::seed(1))), "{name}");
        assert_eq!(pass(Tape::eval()), pass(Tape::eval()), "{name}");
    }
}

#[test]
fn dropout_reaches_the_dense_layers() {
    let options = ModelOptions::classes(10).dropout(0.2);
    let model = models::build("densenet40_k12", &options, &mut Rng::seed(0)).unwrap();
    let pass = |tape: Tape| model.forward(&tape.input(images(2, 8, 3))).unwrap().value().clone();
    assert_ne!(pass(Tape::train(Rng::seed(0))), pass(Tape::train(Rng::seed(1))));
    assert_eq!(pass(Tape::eval()), pass(Tape::eval()));
}

#[test]
fn frozen_norms_leave_a_fine_tuned_network_alone() {
    let mut model = ResNet::cifar_paper(8, 10, &mut Rng::seed(0)).unwrap();
    if let Some(norm) = model.stem.norm_mut() {
        norm.freeze_statistics("*").unwrap();
    }
    let buffers = unreached(&model, images(2, 8, 3));
    assert_eq!(buffers, ["bn1.running_mean", "bn1.running_var"]);
}

fn error<T>(result: Result<T>) -> String {
    result.err().expect("a error").to_string()
}

#[test]
fn errors_say_where() {
    let mut rng = Rng::seed(0);
    let tape = Tape::eval();
    let mut model = ResNet::cifar(18, 10, &mut rng).unwrap();
    let error = model.forward(&tape.input(images(1, 32, 1))).err().unwrap();
    assert_eq!(error.path(), Some("conv1"));
    assert!(error.to_string().starts_with("conv1: conv2d: "), "{error}");

    model.stages[2] = ResBlock::basic(64, 256, 2).stride(2).build(&mut rng).unwrap();
    let error = model.forward(&tape.input(images(1, 32, 3))).err().unwrap();
    assert!(error.to_string().starts_with("layer3.0.conv1: conv2d: "), "{error}");

    let v2 = models::build("resnetv2_18", &ModelOptions::classes(10), &mut rng).unwrap();
    let error = v2.forward(&tape.input(images(1, 32, 1))).err().unwrap();
    assert!(error.to_string().starts_with("conv1: conv2d: "), "{error}");
    let dense = DenseNet::imagenet(121, 10, &mut rng).unwrap();
    let error = dense.forward(&tape.input(images(1, 16, 3))).err().unwrap();
    assert_eq!(error.path(), Some("features.transition3.pool"), "{error}");

    let train = Tape::train(Rng::seed(0));
    let paper = ResNet::cifar_paper(8, 10, &mut rng).unwrap();
    let error = paper.forward(&train.input(images(1, 4, 3))).err().unwrap();
    assert_eq!(error.path(), Some("layer3.0.bn1"), "a batch of one on 1 x 1 maps: {error}");
}

#[test]
fn what_makes_no_network_is_refused() {
    let mut rng = Rng::seed(0);
    let mut build = |name: &str, options| error(models::build(name, &options, &mut rng));
    assert!(build("resnet18", ModelOptions::classes(0)).starts_with("fc: linear: sizes"));
    assert!(build("resnet20", ModelOptions::classes(0)).starts_with("fc: linear: sizes"));
    assert!(build("densenet121", ModelOptions::classes(0)).starts_with("classifier: linear: sizes"));
    let blind = ModelOptions::default().channels(0);
    assert!(build("resnet18", blind.clone()).starts_with("conv1: conv2d: channels"));
    assert!(build("densenet121", blind).starts_with("features.conv0: conv2d: channels"));
    let drop_path = ModelOptions::default().drop_path(1.5);
    assert!(build("resnet18", drop_path.clone()).contains("drop_path: p: expected a probability"));
    assert!(build("densenet121", drop_path).starts_with("densenet: drop_path: expected 0"));
    let dropout = ModelOptions::default().dropout(0.2);
    assert!(build("resnet18", dropout).starts_with("resnet: dropout: expected 0"));
    let zero = ModelOptions::default().zero_init_residual(true);
    assert!(build("densenet121", zero).starts_with("densenet: zero_init_residual: expected false"));
}

#[test]
fn depths_and_names_that_are_not_in_the_tables() {
    let mut rng = Rng::seed(0);
    let Err(Error::UnknownName { kind: "model", name, known }) =
        models::build("resnet", &ModelOptions::default(), &mut rng)
    else {
        panic!("there is no model of that name")
    };
    assert_eq!((name.as_str(), known), ("resnet", models::names()));
    assert!(error(ResNet::imagenet(20, 10, &mut rng)).starts_with("unknown ResNet \"resnet20\" (nearest: "));
    assert!(error(ResNet::cifar(20, 10, &mut rng)).ends_with("resnet101, resnet152"));
    assert!(error(DenseNet::imagenet(100, 10, &mut rng)).contains("densenet121, densenet161"));
    for depth in [0, 4, 21] {
        assert!(error(ResNet::wide(depth, 2, 10, &mut rng)).contains("expected 6n + 4"));
    }
    assert!(error(ResNet::wide(10, 0, 10, &mut rng)).contains("conv2d: channels"));
    for depth in [0, 2, 21] {
        assert!(error(ResNet::cifar_paper(depth, 10, &mut rng)).contains("expected 6n + 2"));
    }
    for depth in [3, 4, 11] {
        assert!(error(DenseNet::bc(depth, 12, 10, &mut rng)).contains("expected 6n + 4"));
        assert!(error(DenseNet::plain(depth, 12, 10, &mut rng)).contains("expected 3n + 4"));
    }
    assert!(error(DenseNet::bc(10, 0, 10, &mut rng)).contains("conv2d: channels"));
    let config = DenseNetConfig::bc(10, 4, 10).unwrap();
    for compression in [0.0, 1.1, f32::NAN] {
        let config = config.clone().compression(compression);
        assert!(error(DenseNet::new(&config, &mut rng)).contains("a share in (0, 1]"));
    }
    let empty = config.layers(vec![]);
    assert!(error(DenseNet::new(&empty, &mut rng)).contains("densenet: layers"));
    let empty = ResNetConfig::cifar_paper(8, 10).unwrap().stages(vec![]);
    assert!(error(ResNet::new(&empty, &mut rng)).contains("resnet: stages"));
}
