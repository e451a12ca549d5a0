//! Plans against what the buffer pool then measures.

use libtest_mimic::Trial;
use skipgrad::{
    Result, Rng, Tensor,
    autograd::{Mode, State, Tape, Var},
    graph::ModuleExt,
    memory,
    models::{self, Model, ModelOptions},
    nn::{BatchNorm2d, Conv2d, Linear, Module, conv3x3},
    ops::{BceOptions, FocalOptions, Padding, Pool2dOptions, Targets},
    optim::{Optimizer, Sgd},
};
use skipgrad_serial_tests as serial;
use std::sync::LazyLock;

pub(crate) fn tests() -> Vec<Trial> {
    let training = TRAINING.map(|(name, drop_path, batch, edge)| {
        serial::test(format!("plan::{name}_train"), move || training(name, drop_path, batch, edge))
    });
    let evaluation = EVALUATION.map(|(name, batch, edge)| {
        serial::test(format!("plan::{name}_eval"), move || evaluation(name, batch, edge))
    });
    [operations(), training.into(), evaluation.into()].into_iter().flatten().collect()
}

/// Model, probability of skipping the last block, batch size and edge of the images.
const TRAINING: [(&str, f32, usize, usize); 10] = [
    ("resnet20", 0.0, 64, 32),
    ("resnet18_cifar", 0.0, 16, 32),
    ("resnet50", 0.0, 8, 96),
    ("resnext50_32x4d", 0.2, 4, 64),
    ("resnet50d", 0.0, 8, 64),
    ("resnetv2_18", 0.0, 16, 64),
    ("wrn16_4", 0.2, 8, 32),
    ("densenet121", 0.0, 8, 96),
    ("densenet40_k12", 0.0, 16, 32),
    ("densenet_bc100_k12", 0.0, 16, 32),
];

/// Model, batch size and edge of the images.
const EVALUATION: [(&str, usize, usize); 3] =
    [("resnet18_cifar", 8, 32), ("resnet50", 2, 96), ("densenet121", 4, 96)];

/// Returns the peak of live bytes during `pass` and the live bytes after it, beyond those before
/// it.
fn measured<T>(pass: impl FnOnce() -> Result<T>) -> Result<[usize; 2]> {
    let before = memory::stats().live;
    memory::reset_peak();
    let result = pass()?;
    let stats = memory::stats();
    drop(result);
    Ok([stats.peak - before, stats.live - before])
}

fn training(name: &str, drop_path: f32, batch: usize, edge: usize) -> Result<()> {
    let options = ModelOptions::classes(10).drop_path(drop_path);
    let shape = [batch, edge, edge, 3];
    let base = memory::stats().live;
    let mut model = models::build(name, &options, &mut Rng::seed(1))?;
    let plan = model.plan(&shape, Mode::Train)?;
    let state: usize = model.export().values().map(Tensor::bytes).sum();
    assert_eq!(plan.model, state, "{name}: export shares what is laid out alike, and the rest is as large");
    let mut sgd = Sgd::new(0.01).momentum(0.9);
    let mut step = |model: &mut Box<dyn Model>| -> Result<()> {
        let images = Tensor::normal(shape, 1.0, &mut Rng::seed(2))?;
        let tape = Tape::train(Rng::seed(0));
        let loss = model.forward(&tape.input(images.clone()))?.cross_entropy(&vec![1; batch])?;
        sgd.step(model, loss.backward()?)
    };
    step(&mut model)?;
    memory::reset_peak();
    step(&mut model)?;
    let [found, predicted] = [memory::stats().peak - base, plan.peak(1)];
    let ratio = |predicted: usize, found: usize| predicted as f64 / found as f64;
    assert!((ratio(predicted, found) - 1.0).abs() < 0.1, "{name}: {predicted} predicted, {found} found");
    let rest = predicted - plan.pass;
    let of_pass = ratio(plan.pass, found - rest);
    assert!((of_pass - 1.0).abs() < 0.1, "{name}: without the model {of_pass:.3}");

    let kept = measured(|| {
        let tape = Tape::train(Rng::seed(0));
        drop(model.forward(&tape.input(Tensor::normal(shape, 1.0, &mut Rng::seed(2))?))?);
        Ok(tape)
    })?[1];
    // The first convolution keeps the images.
    let kept = kept - Tensor::zeros(shape)?.bytes();
    assert!((ratio(plan.kept, kept) - 1.0).abs() < 0.01, "{name}: {kept} kept, {} said", plan.kept);
    let listed = model.summary(&shape)?.memory;
    assert!((ratio(listed, kept) - 1.0).abs() < 0.02, "{name}: {kept} kept, {listed} listed");
    Ok(())
}

fn evaluation(name: &str, batch: usize, edge: usize) -> Result<()> {
    let shape = [batch, edge, edge, 3];
    let model = models::build(name, &ModelOptions::classes(10), &mut Rng::seed(1))?;
    let plan = model.plan(&shape, Mode::Eval)?;
    let copy = models::build(name, &ModelOptions::classes(10), &mut Rng::seed(1))?;
    let [found, _] = measured(|| {
        let images = Tensor::normal(shape, 1.0, &mut Rng::seed(2))?;
        copy.forward(&Tape::eval().input(images)).map(drop)
    })?;
    let ratio = plan.pass as f64 / found as f64;
    assert!((ratio - 1.0).abs() < 0.1, "{name}: {} predicted, {found} found", plan.pass);
    Ok(())
}

/// The layers that a test may use.
#[derive(State)]
struct Layers {
    linear: Linear,
    /// A convolution of stride 2 with a bias, and a norm for its output.
    conv: Conv2d,
    norm: BatchNorm2d,
    /// A convolution that keeps the channels and the size.
    same: Conv2d,
}

/// A function whose value is watched, so that a gradient flows to it.
#[derive(State)]
struct Op<F> {
    layers: Layers,
    #[state(skip)]
    f: F,
}

impl<F> Module for Op<F>
where
    F: for<'t> Fn(&Layers, &Var<'t>) -> Result<Var<'t>> + Send + Sync,
{
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let watched = x.tape().watch(x.value().clone());
        (self.f)(&self.layers, &watched)
    }
}

/// What an operation says that it keeps and needs is what it does.
fn op<F>(shape: &[usize], f: F) -> Result<()>
where
    F: for<'t> Fn(&Var<'t>) -> Result<Var<'t>> + Send + Sync,
{
    op_of_layers(shape, move |_, x| f(x))
}

/// As [`op`], for a function that uses layers.
fn op_of_layers<F>(shape: &[usize], f: F) -> Result<()>
where
    F: for<'t> Fn(&Layers, &Var<'t>) -> Result<Var<'t>> + Send + Sync,
{
    let rng = &mut Rng::seed(0);
    let layers = Layers {
        linear: Linear::new(300, 200, rng)?,
        conv: conv3x3(32, 48).stride(2).bias(true).build(rng)?,
        norm: BatchNorm2d::new(48)?,
        same: conv3x3(48, 48).build(rng)?,
    };
    let op = Op { layers, f };
    let plan = op.plan(shape, Mode::Train)?;
    let x = Tensor::normal(shape, 1.0, &mut Rng::seed(1))?;
    let kept = measured(|| {
        let tape = Tape::train(Rng::seed(0));
        drop(op.forward(&tape.input(x.clone()))?);
        Ok(tape)
    })?[1];
    let [peak, _] = measured(|| {
        let tape = Tape::train(Rng::seed(0));
        op.forward(&tape.input(x.clone()))?.sum().backward()
    })?;
    // Scalars and vectors of one element a channel take little and are not all said.
    let small = 16 << 10;
    let predicted = plan.pass - x.bytes();
    assert!(plan.kept.abs_diff(kept) <= small, "{kept} kept, {} said", plan.kept);
    assert!(predicted.abs_diff(peak) <= small, "{peak} at most, {predicted} said");
    Ok(())
}

/// A test of one operation, a function of one input.
macro_rules! operation {
    ($name:ident, $shape:expr, $f:expr) => {
        serial::test(concat!("plan::", stringify!($name)), || op(&$shape, $f))
    };
}

const MAPS: [usize; 4] = [4, 32, 32, 32];
const MATRIX: [usize; 2] = [300, 300];

/// Targets of a matrix, which the plan allocates before anything is measured.
static ZEROS: LazyLock<Tensor> = LazyLock::new(|| Tensor::zeros(MATRIX).unwrap());

/// Each operation alone.
fn operations() -> Vec<Trial> {
    vec![
        operation!(relu, MAPS, |x| Ok(x.relu())),
        operation!(sigmoid, MAPS, |x| Ok(x.sigmoid())),
        operation!(scale, MAPS, |x| Ok(x.scale(2.0))),
        operation!(add, MAPS, |x| x.add(&x.relu())),
        operation!(add_to_itself, MAPS, |x| x.add(x)),
        operation!(mul, MAPS, |x| x.mul(&x.sigmoid())),
        operation!(scale_channels, MAPS, |x| x.scale_channels(&x.global_avg_pool()?.sigmoid())),
        operation!(sum, MAPS, |x| Ok(x.sum())),
        operation!(mean, MAPS, |x| Ok(x.mean())),
        operation!(mse, MAPS, |x| x.mse(&x.relu())),
        operation!(softmax, MAPS, |x| x.softmax()),
        operation!(log_softmax, MAPS, |x| x.log_softmax()),
        operation!(flatten, MAPS, |x| x.relu().flatten()),
        operation!(concat, MAPS, |x| Var::concat(&[x, &x.relu(), x])),
        operation!(slice_channels, MAPS, |x| x.slice_channels(3..30)),
        operation!(pad_channels, MAPS, |x| x.pad_channels(8, 24)),
        operation!(dropout, MAPS, |x| x.relu().dropout(0.5)),
        operation!(drop_path, MAPS, |x| x.relu().drop_path(0.5)),
        operation!(max_pool2d, MAPS, |x| x.max_pool2d(&Pool2dOptions::default())),
        operation!(max_pool2d_same, MAPS, |x| x.max_pool2d(&Pool2dOptions::new(3).padding(Padding::Same))),
        operation!(avg_pool2d, MAPS, |x| x.avg_pool2d(&Pool2dOptions::default())),
        operation!(global_avg_pool, MAPS, |x| x.global_avg_pool()),
        operation!(matmul, MATRIX, |x| x.matmul(x)),
        operation!(cross_entropy, MATRIX, |x| x.cross_entropy(Targets::classes(&[7; 300]))),
        operation!(cross_entropy_ignoring, MATRIX, |x| {
            x.cross_entropy(Targets::classes(&[7; 300]).ignore_index(3))
        }),
        operation!(bce_with_logits, MATRIX, |x| x.bce_with_logits(&ZEROS, &BceOptions::new())),
        operation!(focal_loss, MATRIX, |x| x.focal_loss(&ZEROS, &FocalOptions::new())),
        operation!(distillation, MATRIX, |x| x.distillation(&ZEROS, 2.0)),
        serial::test("plan::linear", linear),
        serial::test("plan::conv2d", conv2d),
        serial::test("plan::batch_norm", batch_norm),
        serial::test("plan::chain_of_shortcuts", chain_of_shortcuts),
    ]
}

fn linear() -> Result<()> {
    op_of_layers(&MATRIX, |layers, x| layers.linear.forward(x))
}

fn conv2d() -> Result<()> {
    op_of_layers(&MAPS, |layers, x| layers.conv.forward(x))
}

fn batch_norm() -> Result<()> {
    op_of_layers(&MAPS, |layers, x| layers.norm.forward(&layers.conv.forward(x)?))
}

/// Values that are computed again, by way of others, and every third that is kept.
fn chain_of_shortcuts() -> Result<()> {
    op_of_layers(&MAPS, |Layers { conv, norm, same, .. }, x| {
        let mut y = norm.forward_relu(&conv.forward(x)?)?;
        for _ in 0..5 {
            y = norm.forward_add_relu(&same.forward(&y)?, &y)?;
        }
        Ok(y)
    })
}
