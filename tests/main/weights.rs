//! Weights as PyTorch and others save them: every file of `tests/golden/weights` brings the values
//! that `training.safetensors` has under `net/resnet/init` and `net/densenet/init`, whatever its
//! format and its names.

use crate::common::golden;
use skipgrad::{
    Error, Result, Rng, Tensor,
    autograd::{NamedTensors, State},
    blocks::StemKind,
    io::{self, KeyStyle, LoadOptions, Metadata, SaveOptions, WeightsFile},
    models::{self, DenseNet, DenseNetConfig, ModelOptions, ResNet, ResNetConfig},
};
use std::fs;

/// The state that the files hold.
fn state(net: &str) -> Result<NamedTensors> {
    let prefix = format!("net/{net}/init/");
    let all = io::read(golden::path("training.safetensors"))?;
    let below = all
        .into_iter()
        .filter_map(|(name, t)| Some((name.strip_prefix(&prefix)?.replace("linear.", "fc."), t)));
    Ok(below.collect())
}

fn resnet_config() -> Result<ResNetConfig> {
    Ok(ResNetConfig::cifar_paper(8, 5)?.stages([(4, 1), (8, 1), (16, 1)]))
}

fn resnet() -> Result<ResNet> {
    ResNet::new(&resnet_config()?, &mut Rng::seed(1))
}

fn densenet() -> Result<DenseNet> {
    let config = DenseNetConfig::plain(7, 4, 5)?.layers([2, 2]).width(8).bottleneck(true).compression(0.5);
    DenseNet::new(&config.stem(StemKind::Bare), &mut Rng::seed(1))
}

fn within_rounding(found: &NamedTensors, expected: &NamedTensors, relative: f32) {
    assert!(found.keys().eq(expected.keys()));
    for (name, expected) in expected {
        for (found, expected) in found[name].data().iter().zip(expected.data()) {
            assert!(
                (found - expected).abs() <= relative * expected.abs() + 1e-7,
                "{name}: {found}, {expected}"
            );
        }
    }
}

#[test]
fn safetensors_of_every_type() -> Result<()> {
    for (file, rounding) in [("resnet", 0.0), ("resnet_f16", 4.9e-4), ("resnet_bf16", 3.95e-3)] {
        let mut model = resnet()?;
        let loaded = io::load(&mut model, golden::path(&format!("weights/{file}.safetensors")))?;
        assert_eq!(
            (loaded.prefix.as_str(), loaded.renamed_keys.len(), loaded.missing_keys.len()),
            ("", 2, 0), // the file's `linear` is the model's `fc`
            "{file}"
        );
        within_rounding(&model.export(), &state("resnet")?, rounding);
    }
    Ok(())
}

#[test]
fn keras_names_and_layouts() -> Result<()> {
    let mut model = densenet()?;
    let loaded = io::load(&mut model, golden::path("weights/densenet_keras.safetensors"))?;
    assert_eq!(model.export(), state("densenet")?);
    assert_eq!(
        loaded.renamed_keys["features.denseblock1.denselayer2.norm1.running_var"],
        "conv2_block2_0_bn/moving_variance"
    );
    Ok(())
}

#[test]
fn timms_names_and_shapes_are_ours() -> Result<()> {
    let list = fs::read_to_string(golden::path("weights/timm.txt")).unwrap();
    for model in ["resnet18", "resnet50", "densenet121"] {
        let ours = models::build(model, &ModelOptions::default(), &mut Rng::seed(0))?.export();
        let ours = ours.iter().map(|(name, t)| {
            let shape: Vec<String> = t.shape().iter().map(usize::to_string).collect();
            format!("{model} {name} {}", shape.join("x"))
        });
        let mut theirs: Vec<&str> =
            list.lines().filter(|line| line.starts_with(&format!("{model} "))).collect();
        theirs.sort_unstable();
        assert_eq!(ours.collect::<Vec<_>>(), theirs);
    }
    Ok(())
}

#[test]
fn a_head_for_other_classes_and_a_stem_for_other_channels() -> Result<()> {
    let file = golden::path("weights/resnet.safetensors");
    let of = |classes, channels| -> Result<ResNet> {
        ResNet::new(&resnet_config()?.classes(classes).channels(channels), &mut Rng::seed(2))
    };
    let stem = |model: &ResNet| model.export().remove("conv1.weight").unwrap();
    let three = state("resnet")?.remove("conv1.weight").unwrap();
    let of_three =
        |output: usize, channel: usize, pixel: usize| three.data()[(output * 3 + channel) * 9 + pixel];

    let mut model = of(7, 1)?;
    let before = model.export();
    let loaded = LoadOptions::new().new_head().adapt_channels().load(&mut model, &file)?;
    assert_eq!(
        (loaded.missing_keys, loaded.adapted_channels),
        (vec!["fc.weight".into(), "fc.bias".into()], Some([3, 1]))
    );
    assert_eq!(loaded.unexpected_keys, ["linear.bias", "linear.weight"]);
    assert_eq!(model.export()["fc.weight"], before["fc.weight"]);
    assert_eq!(model.export()["layer3.0.conv2.weight"], state("resnet")?["layer3.0.conv2.weight"]);
    let summed = |i: usize| (0..3).map(|channel| of_three(i / 9, channel, i % 9)).sum::<f32>();
    assert_eq!(stem(&model), Tensor::from_fn([4, 1, 3, 3], summed)?);

    let mut model = of(5, 5)?;
    LoadOptions::new().adapt_channels().load(&mut model, &file)?;
    let repeated = |i: usize| 0.6 * of_three(i / 45, i / 9 % 5 % 3, i % 9);
    assert_eq!(stem(&model), Tensor::from_fn([4, 5, 3, 3], repeated)?);

    // Neither without being asked, and a head is new where the classes are as many, too.
    let error = io::load(&mut of(7, 1)?, &file).unwrap_err();
    let Error::State { file: Some(named), missing, unexpected, misshapen, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!((named, missing.len(), unexpected.len()), (&file, 0, 0));
    let names: Vec<&str> = misshapen.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names, ["conv1.weight", "fc.weight", "fc.bias"]);
    assert_eq!(misshapen[0], ("conv1.weight".to_string(), vec![4, 1, 3, 3], vec![4, 3, 3, 3]));
    let (mut model, before) = (of(5, 3)?, of(5, 3)?.export());
    LoadOptions::new().new_head().load(&mut model, &file)?;
    assert_eq!(model.export()["fc.weight"], before["fc.weight"]);
    Ok(())
}

#[test]
fn a_failed_load_lists_everything_and_changes_nothing() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wrong.safetensors");
    let mut tensors = state("resnet")?;
    for (from, to) in [("bn1.weight", "bn1.wieght"), ("layer1.0.bn1.bias", "layer1.0.bn1.shift")] {
        let tensor = tensors.remove(from).unwrap();
        tensors.insert(to.into(), tensor);
    }
    tensors.insert("layer1.0.conv1.weight".into(), Tensor::zeros([4, 4, 1, 1])?);
    tensors.insert("something.else".into(), Tensor::scalar(0.0));
    io::write(&path, &tensors, &Metadata::new())?;

    let mut model = resnet()?;
    let before = model.export();
    let error = io::load(&mut model, &path).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{}: the tensors do not fit the model; missing: bn1.weight (nearest: bn1.wieght), layer1.0.bn1.bias (nearest: \
             layer1.0.bn1.shift); unexpected: bn1.wieght, layer1.0.bn1.shift, something.else; layer1.0.conv1.weight: expected \
             [4, 4, 3, 3], found [4, 4, 1, 1]",
            path.display()
        )
    );
    assert_eq!(model.export(), before);

    let ignoring = LoadOptions::new().ignore("bn1.w*").ignore("something.*").ignore("layer1.0.*");
    let loaded = ignoring.load(&mut model, &path)?;
    assert!(
        loaded.missing_keys.iter().all(|name| name == "bn1.weight" || name.starts_with("layer1.0.")),
        "{loaded:?}"
    );
    assert_eq!((loaded.missing_keys.len(), loaded.unexpected_keys.len()), (11, 12));
    assert_eq!(model.export()["bn1.bias"], state("resnet")?["bn1.bias"]);
    assert_eq!(model.export()["layer1.0.conv1.weight"], before["layer1.0.conv1.weight"]);
    Ok(())
}

#[test]
fn loading_that_is_not_strict_reports_unmatched_keys() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.safetensors");
    let mut tensors = state("resnet")?;
    tensors.remove("bn1.weight");
    tensors.insert("extra.weight".into(), Tensor::scalar(0.0));
    io::write(&path, &tensors, &Metadata::new())?;
    let mut model = resnet()?;
    assert!(matches!(io::load(&mut model, &path), Err(Error::State { .. })));
    let report = LoadOptions::new().strict(false).load(&mut model, &path)?;
    assert_eq!(
        (report.missing_keys, report.unexpected_keys),
        (vec!["bn1.weight".into()], vec!["extra.weight".into()])
    );
    assert_eq!(model.export()["bn1.bias"], state("resnet")?["bn1.bias"]);
    assert_eq!(model.export()["bn1.weight"], resnet()?.export()["bn1.weight"]);

    tensors.insert("conv1.weight".into(), Tensor::scalar(0.0));
    io::write(&path, &tensors, &Metadata::new())?;
    assert!(LoadOptions::new().strict(false).load(&mut model, &path).is_err());
    Ok(())
}

/// A file that [`SaveOptions`] writes under other names is read back to the same bits.
#[test]
fn every_style_is_read_back() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    for (style, name, key) in [
        (KeyStyle::Transformers, "resnet18", "resnet.encoder.stages.1.layers.0.shortcut.convolution.weight"),
        (KeyStyle::PytorchCifar, "resnet18_cifar", "layer2.0.shortcut.1.running_var"),
        (KeyStyle::TorchvisionLegacy, "densenet_bc100_k12", "features.denseblock1.denselayer1.norm.1.bias"),
        (KeyStyle::Keras, "densenet_bc100_k12", "conv2_block1_0_bn/moving_mean"),
        (KeyStyle::Timm, "resnet18", "layer1.0.bn1.weight"),
        (KeyStyle::Timm, "resnetv2_18", "stages.1.blocks.0.downsample.conv.weight"),
    ] {
        let build = |seed| models::build(name, &ModelOptions::classes(5), &mut Rng::seed(seed));
        let (model, mut other) = (build(3)?, build(4)?);
        SaveOptions::new().key_style(style).save(&*model, &path)?;
        assert!(WeightsFile::open(&path)?.shape(key).is_some(), "{style:?} has no {key}");
        io::load(&mut *other, &path)?;
        assert_eq!(other.export(), model.export(), "{style:?}");
    }
    Ok(())
}

#[test]
fn wrong_numbers_are_found_before_anything_is_changed() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("quantized.safetensors");
    fs::write(&path, fs::read(golden::path("weights/resnet.safetensors")).unwrap()).unwrap();
    let text = fs::read(&path).unwrap();
    let at = text.windows(14).position(|bytes| bytes == br#""dtype":"F32","#).unwrap();
    let mut text = text;
    text[at..at + 14].copy_from_slice(br#""dtype":"I32","#);
    fs::write(&path, &text).unwrap();
    let mut model = resnet()?;
    let before = model.export();
    let error = io::load(&mut model, &path).unwrap_err().to_string();
    assert!(error.contains("expected type F32, F16, BF16, F64 or I64, found I32"), "{error}");
    assert_eq!(model.export(), before);
    Ok(())
}

#[test]
fn a_training_checkpoint_of_ours_loads_as_weights() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last.checkpoint");
    let mut tensors = NamedTensors::new();
    for (name, tensor) in state("resnet")? {
        tensors.insert(format!("optimizer.{name}.momentum_buffer"), tensor.clone());
        tensors.insert(format!("model.{name}"), tensor);
    }
    io::write(&path, &tensors, &Metadata::new())?;
    let mut model = resnet()?;
    assert_eq!(io::load(&mut model, &path)?.prefix, "model");
    assert_eq!(model.export(), state("resnet")?);
    Ok(())
}

#[test]
fn the_spelling_of_cifar_networks_in_another_style() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resnet18.safetensors");
    let mut model = ResNet::cifar(18, 10, &mut Rng::seed(3))?;
    let renamed = model.export().into_iter().map(|(name, tensor)| {
        let name = name.replace("downsample", "shortcut").replace("fc.", "linear.");
        (format!("net.module.{name}"), tensor)
    });
    io::write(&path, &renamed.collect(), &Metadata::new())?;
    let mut other = ResNet::cifar(18, 10, &mut Rng::seed(4))?;
    let loaded = io::load(&mut other, &path)?;
    assert_eq!((loaded.prefix.as_str(), loaded.renamed_keys.len()), ("net.module", 3 * 5 + 2));
    assert_eq!(other.export(), std::mem::replace(&mut model, other).export());
    Ok(())
}

/// timm's pre-activation networks have a convolution of one pixel for a classifier.
#[test]
fn a_convolution_of_one_pixel_is_a_linear_head() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("resnetv2_18.safetensors");
    let model = models::build("resnetv2_18", &ModelOptions::classes(5), &mut Rng::seed(3))?;
    let expected = model.export();
    SaveOptions::new().key_style(KeyStyle::Timm).save(&model, &path)?;
    let mut tensors = io::read(&path)?;
    assert_eq!(tensors["head.fc.weight"].shape(), [5, 512, 1, 1]);
    let mut other = models::build("resnetv2_18", &ModelOptions::classes(5), &mut Rng::seed(4))?;
    let renamed = io::load(&mut other, &path)?.renamed_keys;
    assert_eq!(renamed["fc.weight"], "head.fc.weight");
    assert_eq!(other.export(), expected);

    tensors.insert("head.fc.weight".into(), Tensor::zeros([5, 512, 1, 2])?);
    io::write(&path, &tensors, &Metadata::new())?;
    let error = io::load(&mut other, &path).unwrap_err().to_string();
    assert!(error.ends_with("fc.weight: expected [5, 512], found [5, 512, 1, 2]"), "{error}");
    Ok(())
}

#[cfg(not(feature = "pth"))]
#[test]
fn without_the_feature_an_error_names_it() {
    let error = WeightsFile::open(golden::path("weights/resnet.pth")).unwrap_err().to_string();
    assert!(error.contains("found a PyTorch file, which the crate's feature `pth` reads"), "{error}");
}

#[cfg(feature = "pth")]
mod pytorch {
    use super::*;
    use skipgrad::nn::Linear;

    fn loaded(file: &str) -> Result<(io::LoadReport, NamedTensors)> {
        let mut model = resnet()?;
        Ok((io::load(&mut model, golden::path(&format!("weights/{file}")))?, model.export()))
    }

    #[test]
    fn archives_and_streams_have_the_bits_of_safetensors() -> Result<()> {
        for file in ["resnet.pth", "resnet_legacy.pth", "resnet_channels_last.pth"] {
            assert_eq!(loaded(file)?.1, state("resnet")?, "{file}");
        }
        for kind in ["f16", "bf16"] {
            let same = io::read(golden::path(&format!("weights/resnet_{kind}.safetensors")))?;
            assert_eq!(io::read(golden::path(&format!("weights/resnet_{kind}.pth")))?, same, "{kind}");
            loaded(&format!("resnet_{kind}.pth"))?;
        }
        Ok(())
    }

    #[test]
    fn the_model_is_found_in_a_checkpoint() -> Result<()> {
        for (file, within) in
            [("checkpoint.pth", "model.module"), ("checkpoint_legacy.th", "state_dict.module")]
        {
            let (loaded, state) = loaded(file)?;
            assert_eq!((loaded.prefix.as_str(), &state), (within, &super::state("resnet")?), "{file}");
        }
        let file = WeightsFile::open(golden::path("weights/checkpoint.pth"))?;
        assert!(file.shape("optimizer.state.0.momentum_buffer").is_some());
        assert_eq!(file.read("best_prec1")?.item(), 91.7);
        Ok(())
    }

    #[test]
    fn of_two_models_in_a_file_one_is_named() -> Result<()> {
        let error = loaded("checkpoint_ema.pth").unwrap_err();
        assert!(matches!(error, Error::Argument { argument: "prefix", .. }), "{error}");
        assert!(error.to_string().ends_with("found state_dict and state_dict_ema"), "{error}");
        let mut model = resnet()?;
        let options = LoadOptions::new().prefix("state_dict_ema");
        options.load(&mut model, golden::path("weights/checkpoint_ema.pth"))?;
        assert_eq!(model.export()["fc.bias"].data()[0], 2.0 * state("resnet")?["fc.bias"].data()[0]);
        Ok(())
    }

    #[test]
    fn densenets_with_torchvisions_old_names() -> Result<()> {
        for (file, renamed) in [("densenet.pth", 0), ("densenet_old.pth", 4 * (2 + 2 * 4))] {
            let mut model = densenet()?;
            let loaded = io::load(&mut model, golden::path(&format!("weights/{file}")))?;
            assert_eq!((loaded.renamed_keys.len(), model.export()), (renamed, state("densenet")?), "{file}");
        }
        Ok(())
    }

    /// Checkpoints of every protocol, packed again, and in the old stream, with all kinds of values
    /// beside the weights: see `tests/golden/company.py`.
    #[test]
    fn company_is_passed_over() -> Result<()> {
        for kind in ["2", "3", "4", "5", "legacy", "deflated"] {
            let file = WeightsFile::open(golden::path(&format!("weights/company_{kind}.pth")))?;
            let names: Vec<&str> = file.iter().map(|(name, _)| name).collect();
            assert_eq!(names, ["parameter", "state_dict.bias", "state_dict.weight"], "{kind}");
            let tensors = file.read_all()?;
            assert_eq!(tensors["state_dict.weight"], Tensor::from_fn([2, 3], |i| i as f32 + 1.0)?, "{kind}");
            assert_eq!(tensors["state_dict.bias"].data(), [0.5, -0.5], "{kind}");
            let mut model = Linear::new(3, 2, &mut Rng::seed(0))?;
            assert_eq!(io::load(&mut model, file.path())?.prefix, "state_dict", "{kind}");
        }
        Ok(())
    }

    /// What holds tensors in another form is never left out in silence.
    #[test]
    fn objects_with_tensors_are_refused_with_the_way_out() {
        for (file, says) in [
            ("company_module.pth", "found company.Net, a whole model: save its state_dict() with torch.save"),
            (
                "company_object.pth",
                "found company.Holder, an object that holds tensors: save its state_dict()",
            ),
            ("company_list.pth", "expected a dictionary of tensors, found a list"),
            ("company_tensor.pth", "expected a dictionary of tensors, found a tensor"),
            ("company_script.pt", "a TorchScript program: load it with torch.jit.load"),
            ("company_keys.pth", "a text or an integer as the key of every tensor"),
        ] {
            let error = WeightsFile::open(golden::path(&format!("weights/{file}"))).unwrap_err();
            assert!(matches!(error, Error::Malformed { .. }), "{file}: {error}");
            assert!(error.to_string().contains(says), "{file}: {error}");
        }
    }

    #[test]
    fn a_file_that_is_cut_short_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut_short.pth");
        let whole = fs::read(golden::path("weights/small.pth")).unwrap();
        for at in [whole.len() - 1, whole.len() / 2, 100] {
            fs::write(&path, &whole[..at]).unwrap();
            let error = WeightsFile::open(&path).unwrap_err().to_string();
            assert!(error.contains("the file is cut short, download it again"), "{at}: {error}");
        }
    }

    #[test]
    fn a_pickled_module_is_refused_by_its_class() {
        let error = loaded("module.pth").unwrap_err();
        assert!(matches!(&error, Error::Malformed { at, .. } if at == "pickle"), "{error}");
        assert!(
            error
                .to_string()
                .contains("expected tensors and plain values, as of a state_dict, found make.CifarResNet"),
            "{error}"
        );
    }
}
