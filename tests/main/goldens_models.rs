//! Blocks and models against what PyTorch computes: `tests/golden/README.md` says what the files
//! hold.

use crate::common::{
    compare::{assert_close, distance},
    golden::{below, tensors, tensors_below},
    hash::fnv1a,
    rows,
};
use skipgrad::{
    Precision, Result, Rng, Tensor,
    autograd::{NamedTensors, State, StateRef, Tape, Updates},
    blocks::{BasicBlock, Bottleneck, DenseBlock, DenseLayer, ShortcutKind, Transition},
    inference::{InferenceModel, InferenceOptions},
    models::{self, Model, ModelOptions},
    nn::Module,
};
use std::collections::BTreeSet;

/// The name that a tensor of a model has in the golden files, where the model is PyTorch's and not
/// ours.
fn golden_name(model: &str, name: &str) -> String {
    let (first, rest) = name.split_once('.').unwrap();
    let stage = first.strip_prefix("layer").map(|stage| stage.parse::<usize>().unwrap());
    match (model, stage, first) {
        ("resnet20", _, "fc") => format!("linear.{rest}"),
        ("wrn16_4", None, "norm") => format!("bn1.{rest}"),
        ("wrn16_4", Some(stage), _) => {
            format!("block{stage}.layer.{}", rest.replace("downsample.0", "convShortcut"))
        }
        ("resnetv2_18", None, "conv1") => format!("stem.conv.{rest}"),
        ("resnetv2_18", None, "fc") => format!("head.fc.{rest}"),
        ("resnetv2_18", Some(stage), _) => {
            let (block, rest) = rest.split_once('.').unwrap();
            let rest = rest.replace("bn", "norm").replace("downsample.0", "downsample.conv");
            format!("stages.{}.blocks.{block}.{rest}", stage - 1)
        }
        _ => name.to_string(),
    }
}

/// The state of a model with the values that the golden files' rule gives.
fn by_rule(name: &str, model: &dyn Model) -> NamedTensors {
    let state = model.export().into_iter();
    state.map(|(tensor, t)| (tensor.clone(), rule(&golden_name(name, &tensor), t.shape()))).collect()
}

/// Gradients of parameters and new values of buffers by name, in the layouts of a file.
fn exported(model_name: &str, model: &dyn Module, updates: &Updates) -> NamedTensors {
    let mut tensors = NamedTensors::new();
    model.visit("", &mut |name, slot| {
        let value = match slot {
            StateRef::Param(param) => updates.grad(param),
            StateRef::Buffer(buffer) => updates.observed(buffer),
            _ => None,
        };
        let value = value.unwrap_or_else(|| panic!("{name}: neither gradient nor observation"));
        tensors.insert(golden_name(model_name, name), slot.layout().to_file(value).unwrap());
    });
    tensors
}

fn block<M: Module>(name: &str, build: impl FnOnce(&mut Rng) -> Result<M>) -> Result<()> {
    const TOLERANCE: f64 = 1e-5;
    let golden = tensors_below("blocks.safetensors", &format!("{name}/"));
    let mut block = build(&mut Rng::seed(0))?;
    block.import(below(&golden, "state/"))?;
    let tape = Tape::train(Rng::seed(0));
    let x = tape.watch(golden["x"].clone());
    let y = block.forward(&x).unwrap();
    assert_close(&format!("{name}: y"), y.value(), &golden["y"], TOLERANCE);
    let updates = y.backward_from(golden["dy"].clone()).unwrap();
    assert_close(&format!("{name}: dx"), updates.grad_of(&x).unwrap(), &golden["dx"], TOLERANCE);

    let found = exported(name, &block, &updates);
    let mut expected = below(&golden, "grad/");
    expected.extend(below(&golden, "after/"));
    assert!(found.keys().eq(expected.keys()), "{name}: {:?} and {:?}", found.keys(), expected.keys());
    for (tensor, expected) in &expected {
        assert_close(&format!("{name}: {tensor}"), &found[tensor], expected, TOLERANCE);
    }
    Ok(())
}

rows! {
    const BLOCKS;
    block;
    basic_identity => |rng| BasicBlock::new(4, 4, rng),
    basic_projection => |rng| BasicBlock::builder(4, 6).stride(2).build(rng),
    basic_pad => |rng| BasicBlock::builder(4, 8).stride(2).shortcut(ShortcutKind::Pad).build(rng),
    bottleneck_identity => |rng| Bottleneck::new(8, 8, rng),
    bottleneck_projection => |rng| Bottleneck::builder(6, 8).stride(2).build(rng),
    dense_block => |rng| DenseBlock::bottleneck(6, 3, 3).build(rng),
    dense_layer => |rng| DenseLayer::bottleneck(6, 3).build(rng),
    transition => |rng| Transition::new(6, 3, rng),
}

#[test]
fn every_block_and_fingerprint_of_the_files_has_a_test() {
    for (file, tests) in [("blocks.safetensors", BLOCKS), ("fingerprints.safetensors", FINGERPRINTS)] {
        let golden = tensors(file);
        let names: BTreeSet<&str> = golden.keys().filter_map(|name| name.split('/').next()).collect();
        assert_eq!(names, tests.iter().copied().collect());
    }
}

/// The tensor that the golden files' rule gives for a name: see the head of `tests/golden/make.py`.
fn rule(name: &str, shape: &[usize]) -> Tensor {
    let hash = fnv1a(name.bytes());
    let elements: usize = shape.iter().product();
    let (offset, scale) = match name.rsplit('.').next().unwrap_or_default() {
        "weight" if shape.len() > 1 => (0.0, (12.0 / (elements / shape[0]) as f64).sqrt()),
        "weight" => (0.5, 0.1),
        "bias" => (0.25, 0.1),
        "running_mean" => (0.0, 0.1),
        "running_var" => (1.0, 0.3),
        _ => (0.0, 1.0),
    };
    Tensor::from_fn(shape, |i| {
        let mut z = hash.wrapping_add(i as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let u = ((z ^ z >> 31) >> 40) as f64 / f64::from(1 << 23) - 1.0;
        (offset + scale * u) as f32
    })
    .unwrap()
}

#[test]
fn the_rule_is_the_files() {
    let samples = tensors_below("models.safetensors", "rule/");
    assert_eq!(samples.len(), 7);
    for (name, sample) in samples {
        assert_eq!(rule(&name, sample.shape()), sample, "{name}");
    }
}

/// A model's golden pass. PyTorch's own `f32` lies up to a fifth of the tolerances away from the
/// golden values, which are `f64`'s: a network of fifty layers in training mode amplifies a
/// rounding.
struct Pass {
    model: &'static str,
    classes: usize,
    /// Name and edge of the images.
    input: (&'static str, usize),
    /// Tolerances of logits and loss, of the norms of gradients in evaluation (where only a ReLU
    /// that changes sides amplifies a rounding) and in training, and of gradients in training.
    logits: f64,
    eval_norms: f64,
    norms: f64,
    gradients: f64,
}

fn norm(tensor: &Tensor) -> Tensor {
    let sum: f64 = tensor.data().iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    Tensor::scalar(sum.sqrt() as f32)
}

/// Holds the norm of every parameter's gradient against PyTorch's.
fn assert_norms(name: &str, model: &dyn Module, updates: &Updates, expected: &NamedTensors, tolerance: f64) {
    let mut found = NamedTensors::new();
    model.visit("", &mut |path, slot| {
        if let StateRef::Param(param) = slot {
            found.insert(golden_name(name, path), norm(updates.grad(param).unwrap()));
        }
    });
    assert!(expected.keys().eq(found.keys()), "{name}: the parameters are PyTorch's");
    for (tensor, expected) in expected {
        assert_close(&format!("{name}: norm of {tensor}"), &found[tensor], expected, tolerance);
    }
}

fn model(pass: Pass) {
    let Pass { model: name, classes, input, logits, eval_norms, norms, gradients } = pass;
    let golden = tensors_below("models.safetensors", &format!("{name}/"));
    let mut model = models::build(name, &ModelOptions::classes(classes), &mut Rng::seed(0)).unwrap();
    model.import(by_rule(name, &model)).unwrap();
    let images = rule(input.0, &[2, input.1, input.1, 3]);

    let options = InferenceOptions::new(&images.shape()[1..]).batch_size(2);
    let y = InferenceModel::compile(&model, &options).unwrap().run(&images).unwrap();
    assert_close(&format!("{name}: eval, compiled"), &y, &golden["eval/logits"], logits);
    let tape = Tape::eval().recording(true);
    let x = tape.watch(images.clone());
    let y = model.forward(&x).unwrap();
    assert_close(&format!("{name}: eval"), y.value(), &golden["eval/logits"], logits);
    let loss = y.cross_entropy(&[3, 7][..]).unwrap();
    assert_close(&format!("{name}: eval loss"), loss.value(), &golden["eval/loss"], logits);
    let updates = loss.backward().unwrap();
    let dx_norm = norm(updates.grad_of(&x).unwrap());
    assert_close(&format!("{name}: eval dx"), &dx_norm, &golden["eval/dx_norm"], eval_norms);
    assert_norms(name, &model, &updates, &below(&golden, "eval_grad_norm/"), eval_norms);

    let tape = Tape::train(Rng::seed(0));
    let x = tape.watch(images);
    let y = model.forward(&x).unwrap();
    assert_close(&format!("{name}: train"), y.value(), &golden["train/logits"], logits);
    let loss = y.cross_entropy(&[3, 7][..]).unwrap();
    assert_close(&format!("{name}: loss"), loss.value(), &golden["train/loss"], logits);
    let updates = loss.backward().unwrap();
    assert_close(
        &format!("{name}: dx"),
        &norm(updates.grad_of(&x).unwrap()),
        &golden["train/dx_norm"],
        norms,
    );
    assert_norms(name, &model, &updates, &below(&golden, "grad_norm/"), norms);
    let found = exported(name, &model, &updates);
    for (tensor, expected) in below(&golden, "grad/") {
        assert_close(&format!("{name}: gradient of {tensor}"), &found[&tensor], &expected, gradients);
    }
    for (tensor, expected) in below(&golden, "after/") {
        assert_close(&format!("{name}: {tensor}"), &found[&tensor], &expected, 1e-4);
    }
}

#[test]
fn resnet18() {
    model(Pass {
        model: "resnet18",
        classes: 1000,
        input: ("x11", 64),
        logits: 1e-5,
        eval_norms: 1e-4,
        norms: 1e-4,
        gradients: 1e-4,
    });
}

#[test]
fn resnet50() {
    model(Pass {
        model: "resnet50",
        classes: 1000,
        input: ("x16", 64),
        logits: 2e-5,
        eval_norms: 1e-4,
        norms: 5e-4,
        gradients: 5e-4,
    });
}

/// In evaluation an input of a ReLU of the third block (`denselayer24.norm1`) is 1.7e-7, within a
/// rounding of the bend: its gradient, or none, makes up to 5e-4 of the norms of others.
#[test]
fn densenet121() {
    model(Pass {
        model: "densenet121",
        classes: 1000,
        input: ("x32", 64),
        logits: 1e-5,
        eval_norms: 1e-3,
        norms: 1e-3,
        gradients: 7e-3,
    });
}

#[test]
fn resnet18_cifar() {
    model(Pass {
        model: "resnet18_cifar",
        classes: 10,
        input: ("x2", 32),
        logits: 1e-5,
        eval_norms: 1e-4,
        norms: 1e-4,
        gradients: 1e-4,
    });
}

#[test]
fn resnet20() {
    model(Pass {
        model: "resnet20",
        classes: 10,
        input: ("x29", 32),
        logits: 1e-5,
        eval_norms: 1e-4,
        norms: 1e-4,
        gradients: 1e-4,
    });
}

/// A model of 10 classes against `fingerprints.safetensors`: logits, and of every parameter's
/// gradient the norm and a sum that no permutation leaves alone. `image` is the name of the images,
/// see `tests/golden/fingerprints.py`.
fn fingerprint(name: &str, (image, edge): (&str, usize)) -> Result<()> {
    const LOGITS: f64 = 1e-3;
    const GRADIENTS: f64 = 1e-3;
    let golden = tensors_below("fingerprints.safetensors", &format!("{name}/"));
    let mut model = models::build(name, &ModelOptions::classes(10), &mut Rng::seed(0)).unwrap();
    model.import(by_rule(name, &model)).unwrap();
    let images = rule(image, &[2, edge, edge, 3]);

    let tape = Tape::eval();
    let y = model.forward(&tape.input(images.clone())).unwrap();
    assert_close(&format!("{name}: eval"), y.value(), &golden["eval/logits"], LOGITS);

    let tape = Tape::train(Rng::seed(0));
    let x = tape.watch(images);
    let y = model.forward(&x).unwrap();
    assert_close(&format!("{name}: train"), y.value(), &golden["train/logits"], LOGITS);
    let loss = y.cross_entropy(&[3, 7][..]).unwrap();
    assert_close(&format!("{name}: loss"), loss.value(), &golden["train/loss"], LOGITS);
    let updates = loss.backward().unwrap();
    assert_close(&format!("{name}: dx"), &norm(updates.grad_of(&x).unwrap()), &golden["dx_norm"], GRADIENTS);

    let found = exported(name, &model, &updates);
    let gradients: Vec<_> = found.iter().filter(|(name, _)| !name.contains("running")).collect();
    let [norms, sums] = ["grad_norms", "grad_sums"].map(|key| golden[key].data());
    assert_eq!(gradients.len(), norms.len(), "{name}: the parameters are PyTorch's");
    for ((tensor, gradient), (expected_norm, expected_sum)) in
        gradients.into_iter().zip(norms.iter().zip(sums))
    {
        let products = gradient.data().iter().zip(rule(&format!("{tensor}/u"), gradient.shape()).to_vec());
        let sum: f64 = products.map(|(&g, u)| f64::from(g) * f64::from(u)).sum();
        let apart =
            [f64::from(norm(gradient).item()) - f64::from(*expected_norm), sum - f64::from(*expected_sum)];
        let relative = apart.map(|apart| apart.abs() / f64::from(*expected_norm));
        assert!(
            relative.iter().all(|&apart| apart <= GRADIENTS),
            "{name}: gradient of {tensor}: {relative:?}"
        );
    }
    Ok(())
}

// The images are those for which PyTorch's own `f32` finds gradients nearest to `f64`'s.
rows! {
    const FINGERPRINTS;
    fingerprint;
    resnet34 => ("x0", 64),
    resnet101 => ("x2", 64),
    resnext50_32x4d => ("x5", 64),
    resnet50d => ("x4", 64),
    resnetv2_18 => ("x0", 64),
    wrn16_4 => ("x0", 32),
}

/// In bf16, a network is as far from the definition as PyTorch's is under autocast, up to half as
/// much again, and not farther than both together from PyTorch's.
#[test]
fn bf16_is_as_near_as_autocast() {
    for (name, input) in [("resnet20", "x29"), ("resnet18_cifar", "x2")] {
        let exact = tensors_below("models.safetensors", &format!("{name}/"));
        let autocast = tensors_below("autocast.safetensors", &format!("{name}/"));
        let mut model = models::build(name, &ModelOptions::classes(10), &mut Rng::seed(0)).unwrap();
        model.import(by_rule(name, &model)).unwrap();
        for (mode, tape) in [("eval", Tape::eval().recording(true)), ("train", Tape::train(Rng::seed(0)))] {
            let tape = tape.precision(Precision::Bf16);
            let x = tape.watch(rule(input, &[2, 32, 32, 3]));
            let y = model.forward(&x).unwrap();
            let updates = y.cross_entropy(&[3, 7][..]).unwrap().backward().unwrap();
            let found = [("logits", y.value().clone()), ("dx_norm", norm(updates.grad_of(&x).unwrap()))];
            for (tensor, found) in found {
                let key = format!("{mode}/{tensor}");
                let theirs = distance(&autocast[&key], &exact[&key]);
                let (ours, between) = (distance(&found, &exact[&key]), distance(&found, &autocast[&key]));
                println!("{name}/{key}: ours {ours:.1e}, autocast's {theirs:.1e}, between {between:.1e}");
                // A norm is one number, which may be right by chance.
                let theirs = if tensor == "dx_norm" { theirs.max(0.01) } else { theirs };
                assert!(ours <= 1.5 * theirs && between <= 2.5 * theirs, "{name}/{key}");
            }
        }
    }
}
