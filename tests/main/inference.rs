//! Compiled networks against their definition.

use skipgrad::{
    Result, Rng, Shape, Tensor,
    autograd::{Cost, Fault, Input, Kind, Op, State, Var},
    graph::Graph,
    inference::{InferenceModel, InferenceOptions},
    models::{self, ModelOptions},
    nn::{BatchNorm2d, Conv2d, GlobalAvgPool, Linear, MaxPool2d, Module, Relu, Sequential, conv3x3},
};
use std::thread;

/// Gives every normalization statistics that are not those of its construction.
fn with_statistics<M: Module>(mut model: M, seed: u64) -> M {
    let mut rng = Rng::seed(seed);
    let tensors = model.export().into_iter().map(|(name, tensor)| {
        let tensor = match name.rsplit('.').next() {
            Some("running_mean") => Tensor::normal(tensor.shape(), 0.2, &mut rng),
            Some("running_var") => Tensor::uniform(tensor.shape(), 0.5, 1.5, &mut rng),
            _ => Ok(tensor),
        };
        (name, tensor.expect("a small tensor"))
    });
    let tensors = tensors.collect();
    model.import(tensors).expect("the model's own names");
    model
}

fn images(shape: &[usize], seed: u64) -> Tensor {
    Tensor::uniform(shape, 0.0, 1.0, &mut Rng::seed(seed)).expect("a small tensor")
}

/// Compiles a model for some images, and compares with its definition.
fn compile<M: Module + ?Sized>(model: &M, shape: &[usize]) -> Result<InferenceModel> {
    let options = InferenceOptions::new(&shape[1..]).batch_size(shape[0]);
    let compiled = InferenceModel::compile(model, &options)?;
    compiled.verify(model, &images(shape, 5), 2e-5)?;
    Ok(compiled)
}

#[test]
fn every_family_is_what_it_is_by_definition() -> Result<()> {
    for name in [
        "resnet18",
        "resnet50",
        "resnext50_32x4d",
        "resnet50d",
        "resnetv2_18",
        "resnetv2_50",
        "wrn16_4",
        "resnet20",
        "densenet121",
        "densenet40_k12",
        "densenet_bc100_k12",
    ] {
        let model = models::build(name, &ModelOptions::classes(10), &mut Rng::seed(0))?;
        let model = with_statistics(model, 1);
        let compiled = compile(&model, &[2, 64, 64, 3])?;
        for shape in [[1, 64, 64, 3], [3, 96, 64, 3], [2, 64, 64, 3]] {
            compiled.verify(&model, &images(&shape, 6), 2e-5).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }
    Ok(())
}

/// A residual block with squeeze and excitation (Hu et al. 2018), written with layers alone.
#[derive(State)]
struct Gated {
    conv: Conv2d,
    bn: BatchNorm2d,
    squeeze: Linear,
    excite: Linear,
}

impl Module for Gated {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let y = x.apply(&self.conv)?.apply(&self.bn)?;
        let gate = y.global_avg_pool()?.apply(&self.squeeze)?.relu().apply(&self.excite)?.sigmoid();
        // Every pixel is multiplied by the gate of its image and channel.
        let [batch, height, width, channels] = y.shape()[..] else { panic!("images") };
        let gate = gate.reshape([batch, 1, channels])?;
        let rows: Vec<&Var<'t>> = vec![&gate; height * width];
        let gate = Var::concat(&rows)?.reshape([batch, height, width, channels])?;
        Ok(y.mul(&gate)?.add(x)?.relu())
    }
}

fn gated(channels: usize, rng: &mut Rng) -> Result<Gated> {
    Ok(Gated {
        conv: conv3x3(channels, channels).build(rng)?,
        bn: BatchNorm2d::new(channels)?,
        squeeze: Linear::new(channels, 4, rng)?,
        excite: Linear::new(4, channels, rng)?,
    })
}

#[test]
fn a_network_with_gates() -> Result<()> {
    let rng = &mut Rng::seed(2);
    let net = Sequential::new()
        .push(conv3x3(3, 16).build(rng)?)
        .push(gated(16, rng)?)
        .push(gated(16, rng)?)
        .push(GlobalAvgPool)
        .push(Linear::new(16, 5, rng)?);
    let net = with_statistics(net, 3);
    let compiled = compile(&net, &[2, 8, 8, 3])?;
    // How many times the gate is repeated depends on the size of the images, not on their number.
    compiled.verify(&net, &images(&[5, 8, 8, 3], 1), 1e-5)?;
    let error = compiled.run(&images(&[2, 9, 8, 3], 1)).unwrap_err().to_string();
    assert!(error.starts_with("inference: input: expected [2, 8, 8, 3], since"), "{error}");
    Ok(())
}

/// Convolutions, normalizations and ReLUs one after the other, some of them with a bias or twice.
fn plain(rng: &mut Rng) -> Result<Sequential> {
    Ok(Sequential::new()
        .push(Conv2d::builder(3, 12, 5).stride(2).padding(2).bias(true).build(rng)?)
        .push(BatchNorm2d::new(12)?)
        .push(Relu)
        .push(MaxPool2d::new(2))
        .push(conv3x3(12, 24).groups(3).bias(true).build(rng)?)
        .push(Relu)
        .push(BatchNorm2d::new(24)?)
        .push(conv3x3(24, 24).build(rng)?)
        .push(BatchNorm2d::new(24)?)
        .push(BatchNorm2d::new(24)?)
        .push(GlobalAvgPool)
        .push(Linear::builder(24, 7).bias(false).build(rng)?))
}

#[test]
fn a_plain_sequence_of_layers() -> Result<()> {
    let net = with_statistics(plain(&mut Rng::seed(3))?, 4);
    let compiled = compile(&net, &[2, 21, 18, 3])?;
    for shape in [[1, 21, 18, 3], [4, 32, 16, 3], [0, 21, 18, 3]] {
        compiled.verify(&net, &images(&shape, 2), 1e-5)?;
    }
    let error = compiled.run(&images(&[1, 21, 18, 4], 2)).unwrap_err();
    assert_eq!(error.path(), Some("0"));
    assert!(error.to_string().contains("expected [N, H, W, 3]"), "{error}");
    Ok(())
}

/// Concatenations whose parts are read elsewhere, repeated, nested, or the input itself.
#[derive(State)]
struct Concatenations {
    first: Conv2d,
    second: Conv2d,
    third: Conv2d,
}

impl Module for Concatenations {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let a = x.apply(&self.first)?;
        let b = a.apply(&self.second)?;
        let inner = Var::concat(&[&b, &a])?;
        let twice = Var::concat(&[&inner, x, &a, &a])?;
        let c = twice.apply(&self.third)?;
        Var::concat(&[&c, &inner, &c.relu()])
    }
}

#[test]
fn concatenations_of_every_kind() -> Result<()> {
    let rng = &mut Rng::seed(6);
    let net = Concatenations {
        first: conv3x3(3, 8).build(rng)?,
        second: conv3x3(8, 5).build(rng)?,
        third: conv3x3(13 + 3 + 16, 6).build(rng)?,
    };
    let compiled = compile(&net, &[2, 7, 6, 3])?;
    compiled.verify(&net, &images(&[3, 5, 9, 3], 2), 1e-5)
}

/// An operation of a user, and an output that is also read inside.
struct Square;

impl Op for Square {
    type Context = Tensor;

    fn name(&self) -> &'static str {
        "square"
    }

    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
        Ok(*inputs[0].shape())
    }

    fn forward(&self, inputs: &[Input<'_>], shape: Shape) -> (Tensor, Tensor) {
        let x = inputs[0].value();
        let square = |y: &mut [f32]| y.iter_mut().zip(x.data()).for_each(|(y, x)| *y = x * x);
        (Tensor::build(shape, square), x.clone())
    }

    fn backward(&self, x: Tensor, mut dy: Tensor, _: &[bool]) -> Vec<Option<Tensor>> {
        dy.data_mut().iter_mut().zip(x.data()).for_each(|(dy, x)| *dy *= 2.0 * x);
        vec![Some(dy)]
    }

    fn cost(&self, inputs: &[Input<'_>], _: Shape) -> Cost {
        Cost::saving_everything(inputs)
    }

    fn kind(&self, _: &[Input<'_>]) -> Kind {
        Kind::Custom(None)
    }
}

#[derive(State)]
struct OwnOperations {
    conv: Conv2d,
    bn: BatchNorm2d,
}

impl Module for OwnOperations {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let y = Square.apply(&[&x.apply(&self.conv)?.apply(&self.bn)?])?;
        let half = Var::op("half", [&y], *y.shape(), |[y]| {
            let mut half = y.clone();
            half.scale(0.5);
            (half, |mut dy: Tensor, _| {
                dy.scale(0.5);
                [Some(dy)]
            })
        })?;
        half.add(&y)?.flatten()
    }
}

#[test]
fn own_operations_run_as_they_are() -> Result<()> {
    let net = OwnOperations { conv: conv3x3(3, 4).build(&mut Rng::seed(0))?, bn: BatchNorm2d::new(4)? };
    let net = with_statistics(net, 2);
    let compiled = compile(&net, &[2, 6, 5, 3])?;
    compiled.verify(&net, &images(&[3, 4, 8, 3], 2), 1e-5)
}

#[test]
fn it_is_a_snapshot_that_knows_when_it_is_stale() -> Result<()> {
    let mut net = with_statistics(plain(&mut Rng::seed(3))?, 4);
    let x = images(&[1, 21, 18, 3], 1);
    let compiled = compile(&net, &[1, 21, 18, 3])?;
    let before = compiled.run(&x)?;
    assert!(!compiled.is_stale(&net));
    let tensors = net.export().into_iter().map(|(name, mut tensor)| {
        tensor.scale(1.5);
        (name, tensor)
    });
    let tensors = tensors.collect();
    net.import(tensors)?;
    assert!(compiled.is_stale(&net));
    assert_eq!(compiled.run(&x)?, before);
    assert!(compiled.verify(&net, &x, 1e-5).unwrap_err().to_string().contains("inference: output"));
    compile(&net, &[1, 21, 18, 3]).map(drop)
}

#[test]
fn threads_share_it_and_give_the_same_bits() -> Result<()> {
    let model = with_statistics(models::build("resnet20", &ModelOptions::classes(10), &mut Rng::seed(0))?, 1);
    let compiled = compile(&model, &[4, 32, 32, 3])?;
    let x = images(&[4, 32, 32, 3], 9);
    let expected = compiled.run(&x)?;
    thread::scope(|scope| {
        let runs: Vec<_> = (0..8).map(|_| scope.spawn(|| compiled.run(&x))).collect();
        for run in runs {
            assert_eq!(run.join().expect("no panic").expect("the input fits"), expected);
        }
    });
    Ok(())
}

#[test]
fn the_graph_is_what_it_is_traced_from() -> Result<()> {
    let graph = Graph::trace(&plain(&mut Rng::seed(3))?, &[1, 21, 18, 3])?;
    let names: Vec<&str> = graph.nodes().iter().map(|node| node.name()).collect();
    assert_eq!(names[..4], ["conv2d", "batch_norm", "relu", "max_pool2d"]);
    assert_eq!(graph.nodes()[1].path(), "1");
    assert_eq!(graph.shape(graph.output()), &[1, 7][..]);
    Ok(())
}
