//! Plans against what the pool then measures. One test in a process of its own: the pool's counters are the whole process's.

use skipgrad::{
    Result, Rng, Tensor,
    autograd::{Mode, State, StateMut, StateRef, Tape, Var},
    memory,
    models::{self, Model, ModelOptions},
    nn::{BatchNorm2d, Linear, Module, ModuleExt, conv3x3},
    ops::{Pool2dOptions, Targets},
    optim::{Optimizer, Sgd},
};

#[test]
fn plans_are_what_the_pool_measures() -> Result<()> {
    every_operation()?;
    training()?;
    evaluation()
}

/// The most that is live, and what is live behind `pass`, beside what is live now.
fn measured<T>(pass: impl FnOnce() -> Result<T>) -> Result<[usize; 2]> {
    let before = memory::stats().live;
    memory::reset_peak();
    let result = pass()?;
    let stats = memory::stats();
    drop(result);
    Ok([stats.peak - before, stats.live - before])
}

fn training() -> Result<()> {
    let drop_path = ModelOptions::classes(10).drop_path(0.2);
    let default = ModelOptions::classes(10);
    for (name, options, batch, edge) in [
        ("resnet20", &default, 64, 32),
        ("resnet18_cifar", &default, 16, 32),
        ("resnet50", &default, 8, 96),
        ("resnext50_32x4d", &drop_path, 4, 64),
        ("resnet50d", &default, 8, 64),
        ("resnetv2_18", &default, 16, 64),
        ("wrn16_4", &drop_path, 8, 32),
        ("densenet121", &default, 8, 96),
        ("densenet40_k12", &default, 16, 32),
        ("densenet_bc100_k12", &default, 16, 32),
    ] {
        let shape = [batch, edge, edge, 3];
        let base = memory::stats().live;
        let mut model = models::build(name, options, &mut Rng::seed(1))?;
        let plan = model.plan(&shape, Mode::Train)?;
        let state: usize = model.export().values().map(Tensor::bytes).sum();
        assert_eq!(
            plan.model, state,
            "{name}: export shares what is laid out alike, and the rest is as large"
        );
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
    }
    Ok(())
}

fn evaluation() -> Result<()> {
    for (name, batch, edge) in [("resnet18_cifar", 8, 32), ("resnet50", 2, 96), ("densenet121", 4, 96)] {
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
    }
    Ok(())
}

/// A function whose value is watched, so that a gradient flows to it.
struct Op<F>(F);

impl<F> State for Op<F> {
    fn visit(&self, _: &str, _: &mut dyn FnMut(&str, StateRef<'_>)) {}
    fn visit_mut(&mut self, _: &str, _: &mut dyn FnMut(&str, StateMut<'_>)) {}
}

impl<F> Module for Op<F>
where
    F: for<'t> Fn(&Var<'t>) -> Result<Var<'t>> + Send + Sync,
{
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let watched = x.tape().watch(x.value().clone());
        (self.0)(&watched)
    }
}

/// What is wrong with what an operation says, if anything.
fn op<F>(name: &str, shape: &[usize], f: F) -> Result<String>
where
    F: for<'t> Fn(&Var<'t>) -> Result<Var<'t>> + Send + Sync,
{
    let op = Op(f);
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
    // Numbers and vectors of one number a channel take little and are not all said.
    let small = 16 << 10;
    let mut wrong = String::new();
    if plan.kept.abs_diff(kept) > small {
        wrong += &format!("{name}: {kept} kept, {} said\n", plan.kept);
    }
    let predicted = plan.pass - x.bytes();
    if predicted.abs_diff(peak) > small {
        wrong += &format!("{name}: {peak} at most, {predicted} said\n");
    }
    Ok(wrong)
}

/// Each operation alone: what it says that it keeps and needs is what it does.
fn every_operation() -> Result<()> {
    let rng = &mut Rng::seed(0);
    let maps = [4, 32, 32, 32];
    let mut wrong = String::new();
    wrong += &op("relu", &maps, |x| Ok(x.relu()))?;
    wrong += &op("sigmoid", &maps, |x| Ok(x.sigmoid()))?;
    wrong += &op("scale", &maps, |x| Ok(x.scale(2.0)))?;
    wrong += &op("add", &maps, |x| x.add(&x.relu()))?;
    wrong += &op("add to itself", &maps, |x| x.add(x))?;
    wrong += &op("mul", &maps, |x| x.mul(&x.sigmoid()))?;
    wrong += &op("sum", &maps, |x| Ok(x.sum()))?;
    wrong += &op("mean", &maps, |x| Ok(x.mean()))?;
    wrong += &op("mse", &maps, |x| x.mse(&x.relu()))?;
    wrong += &op("softmax", &maps, |x| x.softmax())?;
    wrong += &op("log_softmax", &maps, |x| x.log_softmax())?;
    wrong += &op("flatten", &maps, |x| x.relu().flatten())?;
    wrong += &op("concat", &maps, |x| Var::concat(&[x, &x.relu(), x]))?;
    wrong += &op("slice_channels", &maps, |x| x.slice_channels(3..30))?;
    wrong += &op("pad_channels", &maps, |x| x.pad_channels(8, 24))?;
    wrong += &op("dropout", &maps, |x| x.relu().dropout(0.5))?;
    wrong += &op("drop_path", &maps, |x| x.relu().drop_path(0.5))?;
    wrong += &op("max_pool2d", &maps, |x| x.max_pool2d(&Pool2dOptions::default()))?;
    wrong += &op("avg_pool2d", &maps, |x| x.avg_pool2d(&Pool2dOptions::default()))?;
    wrong += &op("global_avg_pool", &maps, |x| x.global_avg_pool())?;
    wrong += &op("matmul", &[300, 300], |x| x.matmul(x))?;
    wrong += &op("cross_entropy", &[300, 300], |x| x.cross_entropy(Targets::classes(&[7; 300])))?;
    let linear = Linear::new(300, 200, rng)?;
    wrong += &op("linear", &[300, 300], move |x| linear.forward(x))?;
    let (conv, norm) = (conv3x3(32, 48).stride(2).bias(true).build(rng)?, BatchNorm2d::new(48)?);
    wrong += &op("conv2d", &maps, {
        let conv = conv.clone();
        move |x| conv.forward(x)
    })?;
    wrong += &op("batch_norm", &maps, {
        let (conv, norm) = (conv.clone(), norm.clone());
        move |x| norm.forward(&conv.forward(x)?)
    })?;
    let same = conv3x3(48, 48).build(rng)?;
    // A chain of shortcuts: values that are computed again, by way of others, and every third that is kept.
    wrong += &op("a stage", &maps, move |x| {
        let mut y = norm.forward_relu(&conv.forward(x)?)?;
        for _ in 0..5 {
            y = norm.forward_add_relu(&same.forward(&y)?, &y)?;
        }
        Ok(y)
    })?;
    assert_eq!(wrong, "");
    Ok(())
}
