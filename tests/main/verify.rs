//! The comparison of `examples/verify`: with references of our own, in which a fault is planted,
//! and with PyTorch's, where `SKIPGRAD_PYTHON` names a Python that has torch and torchvision.
//! Elsewhere that test says that it did nothing.

#[path = "../../examples/verify/compare.rs"]
mod compare;

use compare::{Kind, Row, compare};
use skipgrad::{
    Result, Rng, Tensor,
    autograd::{Mode, NamedTensors, State, StateRef, Tape},
    graph::ModuleExt,
    io::{self, Metadata, WeightsFile},
    models::{self, ModelOptions, ResNet, ResNetConfig},
    nn::Module,
};
use std::{env, path::Path, process::Command};

const TOLERANCE: f64 = 1e-3;

/// In the order of a pass.
const MODULES: [&str; 3] = ["bn1", "layer2.0.conv1", "layer2.0"];

/// What a reference file would hold if PyTorch computed what we do.
fn own_reference(model: &ResNet) -> Result<NamedTensors> {
    let mut tensors = NamedTensors::new();
    let images = Tensor::normal([3, 8, 8, 3], 1.0, &mut Rng::seed(1))?;
    for (mode, tape) in [("eval", Tape::eval().recording(true)), ("train", Tape::train(Rng::seed(0)))] {
        let x = tape.watch(images.clone());
        let logits = model.forward(&x)?;
        let loss = logits.cross_entropy(&[0, 1, 2][..])?;
        let updates = loss.backward()?;
        tensors.insert(format!("{mode}/logits"), logits.value().clone());
        tensors.insert(format!("{mode}/loss"), loss.value().clone());
        let maps = model.feature_maps(&tape.input(images.clone()), &MODULES)?;
        for (path, map) in MODULES.iter().zip(&maps) {
            tensors.insert(format!("{mode}/activation/{path}"), map.value().clone());
        }
        tensors.insert(format!("{mode}/images"), updates.grad_of(&x).unwrap().clone());
        model.visit("", &mut |name, slot| {
            let (kind, value) = match slot {
                StateRef::Param(param) => ("gradient", updates.grad(param)),
                StateRef::Buffer(buffer) => ("statistic", updates.observed(buffer)),
                _ => return,
            };
            if let Some(value) = value {
                tensors.insert(format!("{mode}/{kind}/{name}"), slot.layout().to_file(value).unwrap());
            }
        });
    }
    tensors.insert("labels".into(), Tensor::new([3], [0.0, 1.0, 2.0])?);
    tensors.insert("images".into(), images);
    Ok(tensors)
}

#[test]
fn a_planted_fault_is_found_and_named() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("reference.safetensors");
    let config = ResNetConfig::cifar_paper(8, 5)?.stages([(4, 1), (8, 1)]);
    let model = ResNet::new(&config, &mut Rng::seed(2))?;
    let right = own_reference(&model)?;
    // A module that the model has not is passed over.
    let listed = Metadata::from([("activations".to_string(), MODULES.join("\n") + "\nlayer2.0.se")]);
    let rows = |tensors: &NamedTensors, mode| -> Result<Vec<Row>> {
        io::write(&path, tensors, &listed)?;
        compare(&model, &WeightsFile::open(&path)?, mode)
    };
    for (mode, statistics) in [(Mode::Eval, 0), (Mode::Train, 2 * 5)] {
        let rows = rows(&right, mode)?;
        let count = |kind: Kind| rows.iter().filter(|row| row.kind == kind).count();
        let kinds = [Kind::Activation, Kind::Gradient, Kind::Statistic];
        assert_eq!(kinds.map(count), [3, 5 + 2 * 5 + 2 + 1, statistics]);
        // Evaluation is compared compiled, too.
        assert_eq!(count(Kind::Output), if mode == Mode::Eval { 3 } else { 2 });
        let far = rows.iter().find(|row| row.exceeds(1e-5));
        assert!(far.is_none(), "{far:?}");
    }
    for (mode, planted, kind, name) in [
        (Mode::Eval, "eval/logits", Kind::Output, "logits"),
        (Mode::Eval, "eval/activation/layer2.0.conv1", Kind::Activation, "layer2.0.conv1"),
        (Mode::Train, "train/activation/layer2.0", Kind::Activation, "layer2.0"),
        (Mode::Eval, "eval/gradient/layer2.0.conv1.weight", Kind::Gradient, "layer2.0.conv1.weight"),
        (Mode::Train, "train/images", Kind::Gradient, "images"),
        (
            Mode::Train,
            "train/statistic/layer1.0.bn2.running_var",
            Kind::Statistic,
            "layer1.0.bn2.running_var",
        ),
    ] {
        for change in [1.01, f32::NAN] {
            let mut wrong = right.clone();
            wrong.get_mut(planted).unwrap().scale(change);
            let rows = rows(&wrong, mode)?;
            let found: Vec<&Row> = rows.iter().filter(|row| row.exceeds(TOLERANCE)).collect();
            assert!(!found.is_empty() && found.iter().all(|row| row.kind == kind), "{planted}: {found:?}");
            assert!(
                found.iter().all(|row| row.name.split(", ").next() == Some(name)),
                "{planted}: {found:?}"
            );
        }
    }
    let mut other = right.clone();
    other.insert("float32/train/logits".into(), Tensor::scalar(0.25));
    let rows_of_pytorch: Vec<Option<f64>> =
        rows(&other, Mode::Train)?.iter().map(|row| row.float32).collect();
    assert_eq!(rows_of_pytorch.iter().flatten().collect::<Vec<_>>(), [&0.25]);
    other.insert("train/gradient/bn1.bias".into(), Tensor::zeros([5])?);
    let error = rows(&other, Mode::Train).unwrap_err().to_string();
    assert_eq!(error, "verify: reference: expected [5] for train/gradient/bn1.bias, found [4]");
    Ok(())
}

/// Random networks of torchvision whose inputs of ReLUs keep away from zero, see
/// `examples/verify/sweep.py`.
#[test]
fn passes_are_pytorchs() -> Result<()> {
    const MODELS: [&str; 2] = ["resnet18", "densenet121"];
    let Some(python) = env::var_os("SKIPGRAD_PYTHON").filter(|python| !python.is_empty()) else {
        eprintln!("passes_are_pytorchs: skipped, SKIPGRAD_PYTHON is not set");
        return Ok(());
    };
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/verify/sweep.py");
    let options = ["-B", script.to_str().unwrap(), "--size", "64", "--classes", "10", "--activations"];
    let mut command = Command::new(python);
    let written = command.args(options).args(MODELS).arg("--out").arg(folder.path()).status().unwrap();
    assert!(written.success());
    for name in MODELS {
        let mut model = models::build(name, &ModelOptions::classes(10), &mut Rng::seed(0))?;
        io::load(&mut model, folder.path().join(format!("{name}.weights.safetensors")))?;
        let file = WeightsFile::open(folder.path().join(format!("{name}.reference.safetensors")))?;
        for mode in [Mode::Eval, Mode::Train] {
            for row in compare(&*model, &file, mode)? {
                assert!(!row.exceeds(TOLERANCE), "{name}: {row:?}");
            }
        }
    }
    Ok(())
}
