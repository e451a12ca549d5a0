//! Exported networks in ONNX Runtime: the same logits as ours. `SKIPGRAD_PYTHON` names a Python
//! that has onnx and onnxruntime; without it this says that it was skipped.

use crate::own_networks::se_resnet;
use skipgrad::{
    Result, Rng, Shape, Tensor,
    autograd::{Cost, Fault, Input, Kind, NamedTensors, OnnxAttribute, OnnxNode, Op, State, Tape, Var},
    blocks::ShortcutKind,
    io,
    models::{self, ModelOptions, ResNet, ResNetConfig},
    nn::{BatchNorm2d, Conv2d, GlobalAvgPool, Linear, MaxPool2d, Module, Relu, Sequential, conv3x3, from_fn},
    onnx,
};
use std::{path::Path, process::Command};

/// Names and the side of the images; the first three in ImageNet's size.
const MODELS: [(&str, usize); 21] = [
    ("resnet18", 224),
    ("resnet152", 224),
    ("densenet121", 224),
    ("resnet34", 65),
    ("resnet50", 64),
    ("resnext50_32x4d", 64),
    ("wide_resnet50_2", 64),
    ("resnet50d", 63),
    ("resnetv2_18", 64),
    ("resnetv2_50", 63),
    ("resnet18_cifar", 31),
    ("resnet20", 32),
    ("resnet56", 33),
    ("wrn16_4", 32),
    ("densenet169", 65),
    ("densenet_bc100_k12", 32),
    ("densenet40_k12", 33),
    (SE_RESNET, 31),
    (LAYERS, 30),
    (LEAKY, 29),
    (PLAIN, 32),
];

/// A network with blocks of a user's own, whose channels are gated.
const SE_RESNET: &str = "se_resnet";

/// Layers one after the other.
const LAYERS: &str = "layers";

/// The same with an operation of a user's own, which says which node of ONNX it is.
const LEAKY: &str = "leaky";

/// A network without shortcuts.
const PLAIN: &str = "plain20";

/// Checks each file and runs it on the images beside it; writes the largest difference, relative to
/// the largest logit.
const RUN: &str = r#"
import json, struct, sys
import numpy as np, onnx, onnxruntime

def read(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        data = f.read()
    tensor = lambda t: np.frombuffer(data[slice(*t["data_offsets"])], np.float32).reshape(t["shape"])
    return {name: tensor(t) for name, t in header.items() if name != "__metadata__"}

for name in sys.argv[2:]:
    path = f"{sys.argv[1]}/{name}.onnx"
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    tensors = read(f"{sys.argv[1]}/{name}.safetensors")
    for batch in (1, 3):
        images = np.ascontiguousarray(tensors[f"images{batch}"].transpose(0, 3, 1, 2))
        (logits,) = session.run(["logits"], {"input": images})
        ours = tensors[f"logits{batch}"]
        assert logits.shape == ours.shape, (logits.shape, ours.shape)
        print(name, batch, np.abs(logits - ours).max() / np.abs(ours).max())
"#;

/// Running statistics, factors and offsets as training might have left them.
fn perturb(model: &mut (impl State + ?Sized), rng: &mut Rng) -> Result<()> {
    let mut tensors: NamedTensors = model.export();
    for (name, tensor) in &mut tensors {
        let shape = tensor.shape().to_vec();
        if name.ends_with("running_mean") || (name.ends_with("bias") && shape.len() == 1) {
            *tensor = Tensor::normal(&shape, 0.1, rng)?;
        } else if name.ends_with("running_var") || (name.ends_with("weight") && shape.len() == 1) {
            *tensor = Tensor::uniform(&shape, 0.7, 1.3, rng)?;
        }
    }
    model.import(tensors)
}

/// Returns layers one after the other, and between them a module.
fn layers(between: impl Module + 'static, rng: &mut Rng) -> Result<Sequential> {
    Ok(Sequential::new()
        .push(Conv2d::builder(3, 8, 5).stride(2).padding(2).bias(true).build(rng)?)
        .push(BatchNorm2d::new(8)?)
        .push(between)
        .push(MaxPool2d::new(2))
        .push(conv3x3(8, 12).build(rng)?)
        .push(BatchNorm2d::new(12)?)
        .push(Relu)
        .push(GlobalAvgPool)
        .push(Linear::new(12, 10, rng)?))
}

/// `y = x` where x is positive, else `x / 10`.
fn leaky_relu<'t>(x: &Var<'t>) -> Result<Var<'t>> {
    LeakyRelu.apply(&[x])
}

struct LeakyRelu;

impl Op for LeakyRelu {
    type Context = Tensor;

    fn name(&self) -> &'static str {
        "leaky_relu"
    }

    fn output_shape(&self, inputs: &[Input<'_>]) -> std::result::Result<Shape, Fault> {
        Ok(*inputs[0].shape())
    }

    fn forward(&self, inputs: &[Input<'_>], shape: Shape) -> (Tensor, Tensor) {
        let x = inputs[0].value();
        let write = |y: &mut [f32]| y.iter_mut().zip(x.data()).for_each(|(y, x)| *y = x.max(0.1 * x));
        (Tensor::build(shape, write), x.clone())
    }

    fn backward(&self, x: Tensor, mut dy: Tensor, _: &[bool]) -> Vec<Option<Tensor>> {
        let slope = |x: &f32| if *x > 0.0 { 1.0 } else { 0.1 };
        dy.data_mut().iter_mut().zip(x.data()).for_each(|(dy, x)| *dy *= slope(x));
        vec![Some(dy)]
    }

    fn cost(&self, inputs: &[Input<'_>], _: Shape) -> Cost {
        Cost::saving_everything(inputs)
    }

    fn kind(&self, _: &[Input<'_>]) -> Kind {
        Kind::Custom(Some(OnnxNode::new("LeakyRelu").attribute("alpha", OnnxAttribute::Float(0.1))))
    }
}

fn write(folder: &Path, name: &str, edge: usize) -> Result<()> {
    let mut rng = Rng::seed(7);
    let mut model: Box<dyn Module> = match name {
        SE_RESNET => Box::new(ResNet::new(&se_resnet()?, &mut rng)?),
        LAYERS => Box::new(layers(Relu, &mut rng)?),
        LEAKY => Box::new(layers(from_fn(leaky_relu), &mut rng)?),
        PLAIN => {
            let config = ResNetConfig::cifar_paper(20, 10)?.shortcut(ShortcutKind::None);
            Box::new(ResNet::new(&config, &mut rng)?)
        }
        name => models::build(name, &ModelOptions::classes(10), &mut rng)?,
    };
    perturb(&mut *model, &mut rng)?;
    let mut tensors = NamedTensors::new();
    for batch in [1, 3] {
        let images = Tensor::normal([batch, edge, edge, 3], 1.0, &mut rng)?;
        let logits = Tape::eval().input(images.clone()).apply(&model)?.value().clone();
        tensors.insert(format!("images{batch}"), images);
        tensors.insert(format!("logits{batch}"), logits);
    }
    io::write(folder.join(format!("{name}.safetensors")), &tensors, &io::Metadata::new())?;
    onnx::save(&*model, [edge, edge, 3], folder.join(format!("{name}.onnx")))
}

#[test]
fn onnx_runtime_gives_our_logits() -> Result<()> {
    let Some(python) = std::env::var_os("SKIPGRAD_PYTHON") else {
        println!("skipped: SKIPGRAD_PYTHON is not set to a Python that has onnx and onnxruntime");
        return Ok(());
    };
    let folder = tempfile::tempdir().unwrap();
    for (name, edge) in MODELS {
        write(folder.path(), name, edge)?;
    }
    let names = MODELS.map(|(name, _)| name);
    let output = Command::new(python).args(["-c", RUN]).arg(folder.path()).args(names).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    print!("{text}");
    let differences: Vec<f64> =
        text.lines().map(|line| line.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(differences.len(), 2 * MODELS.len(), "{text}");
    assert!(differences.iter().all(|&difference| difference < 1e-4), "{text}");
    Ok(())
}
