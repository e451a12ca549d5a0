//! Weights as people have them: in several files, with elements that are not finite, with a head of
//! several layers, with a preset beside them.

use skipgrad::{
    Error, Result, Rng, Tensor,
    autograd::{NamedTensors, Param, State, StateMut, StateRef},
    data::{Normalize, Preset, write_class_names},
    io::{self, KeyStyle, LoadOptions, Metadata, SaveOptions, WeightsFile},
    models::{self, ModelOptions, ResNet, ResNetConfig},
};
use std::{fs, path::Path};

fn network(classes: usize, seed: u64) -> Result<ResNet> {
    let config = ResNetConfig::cifar_paper(8, classes)?.stages([(4, 1), (8, 1)]);
    ResNet::new(&config, &mut Rng::seed(seed))
}

/// Writes tensors in two files and their index, in the words of Hugging Face.
fn write_shards(folder: &Path, tensors: &NamedTensors) -> Result<std::path::PathBuf> {
    let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let mut shards = [NamedTensors::new(), NamedTensors::new()];
    let mut map = vec![];
    for (i, (name, tensor)) in tensors.iter().enumerate() {
        shards[i % 2].insert(name.clone(), tensor.clone());
        map.push(format!("{name:?}: {:?}", names[i % 2]));
    }
    for (name, shard) in names.into_iter().zip(&shards) {
        io::write(folder.join(name), shard, &Metadata::new())?;
    }
    let path = folder.join("model.safetensors.index.json");
    let metadata = r#""metadata": {"total_size": 1}"#;
    fs::write(&path, format!("{{{metadata}, \"weight_map\": {{\n{}}}}}", map.join(",\n"))).unwrap();
    Ok(path)
}

#[test]
fn several_files_are_read_by_their_index() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let (model, mut other) = (network(5, 1)?, network(5, 2)?);
    let path = write_shards(folder.path(), &model.export())?;
    let report = io::load(&mut other, &path)?;
    assert!(report.missing_keys.is_empty() && report.unexpected_keys.is_empty());
    assert_eq!(other.export(), model.export());
    assert_eq!(WeightsFile::open(&path)?.num_classes(), Some(5));

    // A file with more than the index names is read for what the index names.
    let shard = folder.path().join("model-00001-of-00002.safetensors");
    let mut tensors = io::read(&shard)?;
    tensors.insert("fc.weight".to_string(), Tensor::zeros([9, 9])?);
    tensors.insert("other".to_string(), Tensor::zeros([9])?);
    let named_elsewhere = !io::read(&shard)?.contains_key("fc.weight");
    io::write(&shard, &tensors, &Metadata::new())?;
    if named_elsewhere {
        io::load(&mut other, &path)?;
        assert_eq!(other.export(), model.export());
    }
    Ok(())
}

#[test]
fn an_index_that_is_not_right_is_named() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let (model, mut other) = (network(5, 1)?, network(5, 2)?);
    let before = other.export();
    let path = write_shards(folder.path(), &model.export())?;
    let mut says = |text: &str| {
        let error = io::load(&mut other, &path).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(other.export(), before);
    };
    let index = fs::read_to_string(&path).unwrap();
    let second = folder.path().join("model-00002-of-00002.safetensors");
    let whole = fs::read(&second).unwrap();

    fs::write(&second, b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n").unwrap();
    says("model-00002-of-00002.safetensors: format: expected weights");
    fs::write(&second, &index).unwrap();
    says("found the index of weights in several files");
    fs::remove_file(&second).unwrap();
    says("found 1 of them missing: download model-00002-of-00002.safetensors");
    io::write(&second, &NamedTensors::new(), &Metadata::new())?;
    says("which");
    fs::write(&second, whole).unwrap();

    for outside in ["../other.safetensors", "/etc/passwd", "a/../../b", "..\\b", ""] {
        let forged = index.replacen("model-00001-of-00002.safetensors", &outside.replace('\\', "\\\\"), 1);
        fs::write(&path, forged).unwrap();
        says("expected files in the folder of the index");
    }
    fs::write(&path, r#"{"weight_map": {"a": 3}}"#).unwrap();
    says("expected a file for each tensor, in `weight_map`");
    fs::write(&path, r#"{"weight_map": {"#).unwrap();
    says("expected a file for each tensor, in `weight_map`");
    let many: Vec<String> = (0..600).map(|i| format!("\"{i}\": \"{i}.safetensors\"")).collect();
    fs::write(&path, format!("{{\"weight_map\": {{{}}}}}", many.join(","))).unwrap();
    says("expected at most 512 files, found 600");
    let items = vec!["[]"; 200_000].join(",");
    fs::write(&path, format!("{{\"weight_map\": {{}}, \"a\": [{items}]}}")).unwrap();
    says("in proportion to the file");
    Ok(())
}

#[test]
fn elements_that_are_not_finite_are_refused_by_name() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("diverged.safetensors");
    let mut tensors = network(5, 1)?.export();
    tensors.get_mut("layer1.0.bn1.running_var").unwrap().data_mut()[1] = f32::NAN;
    tensors.get_mut("fc.weight").unwrap().data_mut()[..2].fill(f32::NEG_INFINITY);
    io::write(&path, &tensors, &Metadata::new())?;
    let mut model = network(5, 2)?;
    let before = model.export();
    let error = io::load(&mut model, &path).unwrap_err();
    assert!(matches!(error, Error::Malformed { .. }), "{error}");
    let error = error.to_string();
    for text in [
        "diverged.safetensors",
        "layer1.0.bn1.running_var (1 times NaN in 4)",
        "fc.weight (2 times infinity in 40)",
    ] {
        assert!(error.contains(text), "{error}");
    }
    assert_eq!(model.export(), before);

    // What is not loaded is not checked, and all is loaded on request.
    LoadOptions::new().new_head().ignore("*.running_var").load(&mut model, &path)?;
    LoadOptions::new().finite(false).load(&mut model, &path)?;
    assert!(model.export()["layer1.0.bn1.running_var"].data()[1].is_nan());
    for tensor in tensors.values_mut() {
        tensor.data_mut().fill(f32::NAN);
    }
    io::write(&path, &tensors, &Metadata::new())?;
    let error = io::load(&mut model, &path).unwrap_err().to_string();
    assert!(error.contains(" more") && error.len() < 600, "{error}");
    Ok(())
}

/// A network whose head is a sequence, under any name.
struct Net {
    net: ResNet,
    name: &'static str,
    head: Vec<(&'static str, Param)>,
}

impl Net {
    fn new(name: &'static str, classes: usize, value: f32) -> Result<Net> {
        let weight = |inputs, outputs| Tensor::full([inputs, outputs], value).map(Param::linear);
        let bias = |outputs| Tensor::full([outputs], value).map(Param::new);
        let head = vec![
            ("0.weight", weight(8, 6)?),
            ("0.bias", bias(6)?),
            ("1.weight", bias(6)?),
            ("1.bias", bias(6)?),
            ("3.weight", weight(6, classes)?),
            ("3.bias", bias(classes)?),
        ];
        Ok(Net { net: network(5, 7)?, name, head })
    }
}

impl State for Net {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, StateRef<'_>)) {
        self.net.visit(path, &mut |key, state| {
            if !key.starts_with("fc.") {
                f(key, state);
            }
        });
        self.head.iter().for_each(|(key, param)| f(&format!("{}.{key}", self.name), StateRef::Param(param)));
    }
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, StateMut<'_>)) {
        self.net.visit_mut(path, &mut |key, state| {
            if !key.starts_with("fc.") {
                f(key, state);
            }
        });
        let name = self.name;
        self.head.iter_mut().for_each(|(key, param)| f(&format!("{name}.{key}"), StateMut::Param(param)));
    }
}

#[test]
fn heads_of_several_layers_load_and_are_replaced() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("several.safetensors");
    let keys = |name: &str| -> Vec<String> {
        let model = Net::new("fc", 3, 0.0).unwrap();
        model.head.iter().map(|(key, _)| format!("{name}.{key}")).collect()
    };
    // A file with such a head, for a model with the same, with one of other classes, and with one
    // layer of this or another name.
    io::save(&Net::new("fc", 3, 2.0)?, &path)?;
    let mut same = Net::new("fc", 3, 0.0)?;
    io::load(&mut same, &path)?;
    assert_eq!(same.head[4].1.value().data()[0], 2.0);
    for mut other in [Net::new("fc", 4, 0.5)?, Net::new("head", 3, 0.5)?] {
        let report = LoadOptions::new().new_head().load(&mut other, &path)?;
        assert_eq!(report.missing_keys, keys(other.name), "the whole head is new");
        assert!(report.unexpected_keys.iter().all(|key| key.starts_with("fc.")), "{report:?}");
        assert!(other.head.iter().all(|(_, param)| param.value().data()[0] == 0.5));
    }
    let mut one = network(4, 3)?;
    let report = LoadOptions::new().new_head().load(&mut one, &path)?;
    assert_eq!((report.missing_keys.len(), report.unexpected_keys.len()), (2, 6));
    assert_eq!(WeightsFile::open(&path)?.num_classes(), Some(3));

    // A file with one layer, for a model with several.
    io::save(&network(5, 3)?, &path)?;
    let mut several = Net::new("classifier", 4, 0.5)?;
    let report = LoadOptions::new().new_head().load(&mut several, &path)?;
    assert_eq!(report.missing_keys, keys("classifier"));
    assert_eq!(report.unexpected_keys, ["fc.bias", "fc.weight"]);
    Ok(())
}

/// A dropout and a linear layer, whose keys are `fc.1.weight` and `fc.1.bias`.
#[test]
fn the_only_layer_of_a_sequence_is_the_head() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dropout.safetensors");
    let model = network(3, 1)?;
    for name in ["fc.1", "classifier.1", "head.0"] {
        let renamed = model.export().into_iter().map(|(key, tensor)| {
            let key = key.strip_prefix("fc.").map_or(key.clone(), |end| format!("{name}.{end}"));
            (key, tensor)
        });
        io::write(&path, &renamed.collect(), &Metadata::new())?;
        let mut other = network(3, 2)?;
        let report = io::load(&mut other, &path)?;
        assert_eq!(report.renamed_keys["fc.weight"], format!("{name}.weight"));
        assert_eq!(other.export(), model.export(), "{name}");
        let mut fresh = network(4, 2)?;
        let report = LoadOptions::new().new_head().load(&mut fresh, &path)?;
        assert_eq!(report.missing_keys, ["fc.weight", "fc.bias"]);
    }
    Ok(())
}

#[test]
fn names_of_other_formats_are_refused() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let model = network(3, 1)?;
    for name in ["x.pth", "x.pt", "x.bin", "x.ckpt", "x.h5", "x.onnx", "X.PTH", "a.b.npz"] {
        let path = folder.path().join(name);
        let safetensors = path.with_extension("safetensors").display().to_string();
        for result in [
            io::save(&model, &path),
            SaveOptions::new().key_style(KeyStyle::Timm).save(&model, &path),
            io::write(&path, &model.export(), &Metadata::new()),
        ] {
            let error = result.unwrap_err();
            assert!(matches!(error, Error::Argument { argument: "path", .. }), "{error}");
            assert!(error.to_string().contains(&safetensors), "{error}");
        }
        assert!(!path.exists());
    }
    for name in ["x.safetensors", "x", "last.checkpoint", "x.v1.2"] {
        io::save(&model, folder.path().join(name))?;
    }
    Ok(())
}

/// The number of classes, and the preset that follows from it, by the names and shapes that
/// libraries give the classifier.
#[test]
fn the_classifier_is_told_from_other_matrices() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("head.safetensors");
    /// Tensors by name and shape, and the number of classes.
    type Case<'a> = (&'a [(&'a str, &'a [usize])], Option<usize>);
    let cases: [Case<'_>; 12] = [
        (&[("fc.weight", &[1000, 8]), ("fc.bias", &[1000])], Some(1000)),
        (&[("head.fc.weight", &[1000, 8, 1, 1]), ("stem.conv.weight", &[8, 3, 1, 1])], Some(1000)),
        (&[("module.linear.weight", &[10, 8])], Some(10)),
        (&[("classifier.1.weight", &[21, 8]), ("a.weight", &[8, 8])], Some(21)),
        (&[("fc.0.weight", &[6, 8]), ("fc.10.weight", &[3, 6]), ("fc.9.weight", &[6, 6])], Some(3)),
        (&[("layer1.0.se.fc.0.weight", &[2, 8]), ("fc.weight", &[7, 8])], Some(7)),
        (&[("layer1.0.attn.weight", &[8, 8]), ("last_linear.weight", &[7, 8])], Some(7)),
        (&[("predictions/kernel:0", &[8, 11]), ("a/kernel:0", &[1, 1, 3, 8])], Some(11)),
        (&[("out.weight", &[9, 8]), ("out.bias", &[9])], Some(9)),
        (&[("a.weight", &[9, 8]), ("b.weight", &[4, 9])], None),
        (&[("conv1.weight", &[8, 3, 3, 3])], None),
        (&[("state_dict.fc.weight", &[5, 8]), ("state_dict_ema.fc.weight", &[5, 8])], Some(5)),
    ];
    for (tensors, classes) in cases {
        let named = tensors.iter().map(|(name, shape)| Ok((name.to_string(), Tensor::zeros(*shape)?)));
        io::write(&path, &named.collect::<Result<_>>()?, &Metadata::new())?;
        assert_eq!(WeightsFile::open(&path)?.num_classes(), classes, "{tensors:?}");
    }
    Ok(())
}

/// timm's pre-activation networks have a convolution of one pixel for a classifier.
#[test]
fn the_preset_follows_from_the_weights() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let save = |classes: usize, style| {
        let model = models::build("resnetv2_18", &ModelOptions::classes(classes), &mut Rng::seed(0))?;
        SaveOptions::new().key_style(style).save(&*model, &path)
    };
    save(1000, KeyStyle::Timm)?;
    assert_eq!(Preset::for_weights(&path)?, Preset::imagenet());
    save(10, KeyStyle::Timm)?;
    assert_eq!(Preset::for_weights(&path)?, Preset::cifar10());
    save(100, KeyStyle::Torchvision)?;
    assert_eq!(Preset::for_weights(&path)?, Preset::cifar100());
    save(3, KeyStyle::Timm)?;
    let error = Preset::for_weights(&path).unwrap_err().to_string();
    assert!(error.contains("preset.json or classes.txt") && error.contains("3 outputs"), "{error}");

    write_class_names(folder.path().join("classes.txt"), &["a", "b"])?;
    let error = Preset::for_weights(&path).unwrap_err().to_string();
    assert!(error.contains("classes.txt: names: expected 3, one for each output of"), "{error}");
    fs::write(folder.path().join("classes.txt"), "a\nb\nc\n\n").unwrap();
    assert_eq!(Preset::for_weights(&path)?, Preset::imagenet().classes(["a", "b", "c"]));

    // The file of the preset is what counts if it is there, and what is named if it does not fit.
    let preset = Preset::new(64, Normalize::new([0.1, 0.2, 0.3], [0.3, 0.2, 0.1]), ["x", "y", "z"]);
    preset.save(folder.path().join(Preset::FILE_NAME))?;
    assert_eq!(Preset::for_weights(&path)?, preset);
    preset.classes(["x"]).save(folder.path().join(Preset::FILE_NAME))?;
    let error = Preset::for_weights(&path).unwrap_err().to_string();
    assert!(error.contains("preset.json: classes: expected 3, one for each output of"), "{error}");
    Ok(())
}

#[test]
fn presets_come_back_and_their_faults_are_named() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("preset.json");
    for preset in [
        Preset::imagenet(),
        Preset::cifar100(),
        Preset::new(7, Normalize::new([0.1], [1e-7]), ["é \"quoted\""]).crop_size([5, 6]),
        Preset::new(28, Normalize::new([1.0 / 3.0], [2.0 / 3.0]), Vec::<String>::new()),
    ] {
        preset.save(&path)?;
        assert_eq!(Preset::load(&path)?, preset);
    }
    Preset::cifar10().save(&path)?;
    let good = fs::read_to_string(&path).unwrap();
    for (from, to, says) in [
        ("\"version\": 1", "\"version\": 2", "version: expected from 1 to 1"),
        ("skipgrad preset", "other", "format: expected \"skipgrad preset\", found \"other\""),
        ("bilinear", "bicubic", "interpolation: expected \"bilinear\", found \"bicubic\""),
        ("resize_size", "resize", "unknown field `resize`"),
        ("\"resize_size\": 32", "\"resize_size\": -1", "invalid value: integer `-1`"),
        ("\"resize_size\": 32", "\"resize_size\": 31", "crop_size: expected from 1 to 31"),
        ("\"format\"", "\"kind\"", "missing field `format`"),
        ("0.247", "0.0", "std"),
        ("{", "{ \"a\": {", "JSON with `format` and `version`"),
    ] {
        assert!(good.contains(from), "{from} in {good}");
        fs::write(&path, good.replacen(from, to, 1)).unwrap();
        let error = Preset::load(&path).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "{error}");
        assert!(error.to_string().contains(says) && error.to_string().contains("preset.json"), "{error}");
    }
    // As an editor of Windows saves it.
    fs::write(&path, format!("\u{feff}{}", good.replace('\n', "\r\n"))).unwrap();
    assert_eq!(Preset::load(&path)?, Preset::cifar10());
    let nan = Preset::cifar10().normalize(Normalize::new([f32::NAN; 3], [1.0; 3]));
    assert!(nan.save(&path).is_err(), "a preset that cannot be used is not written");
    assert_eq!(Preset::load(&path)?, Preset::cifar10());
    Ok(())
}
