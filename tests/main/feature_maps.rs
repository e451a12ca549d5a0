//! What modules inside a network give: the same values and gradients as the modules by themselves,
//! whatever evaluation folds.

use crate::common::{compare::assert_close, rows};
use skipgrad::{
    Error, Result, Rng, Tensor,
    autograd::{NamedTensors, State, Tape},
    blocks::ResidualUnit,
    graph::ModuleExt,
    models::{self, DenseNet, DenseNetConfig, ModelOptions, ResNet, ResNetConfig},
    nn::Module,
};

/// The model with running statistics that are not 0 and 1.
fn perturbed<M: State>(mut model: M) -> Result<M> {
    let mut rng = Rng::seed(9);
    let mut tensors: NamedTensors = model.export();
    for (name, tensor) in &mut tensors {
        if name.ends_with("running_mean") {
            *tensor = Tensor::normal(tensor.shape(), 0.1, &mut rng)?;
        } else if name.ends_with("running_var") {
            *tensor = Tensor::uniform(tensor.shape(), 0.7, 1.5, &mut rng)?;
        }
    }
    model.import(tensors)?;
    Ok(model)
}

/// The modules that carry state, which are parts of the names of weights files.
fn modules(model: &dyn Module) -> Vec<String> {
    let mut paths = vec![];
    model.visit("", &mut |name, _| {
        let parts: Vec<&str> = name.split('.').collect();
        paths.extend((1..parts.len()).map(|n| parts[..n].join(".")));
    });
    paths.sort();
    paths.dedup();
    paths
}

/// Every module gives its output, and the logits stay what they are.
fn every_module(name: &str, edge: usize) -> Result<()> {
    let model = perturbed(models::build(name, &ModelOptions::classes(10), &mut Rng::seed(1))?)?;
    let images = Tensor::normal([2, edge, edge, 3], 1.0, &mut Rng::seed(2))?;
    let logits = model.forward(&Tape::eval().input(images.clone()))?.value().clone();
    let names = modules(&model);
    assert!(names.len() > 20);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let tape = Tape::eval();
    let all = model.feature_maps(&tape.input(images.clone()), &names)?;
    let head = names.iter().position(|name| ["fc", "classifier"].contains(name));
    assert_close("logits", all[head.unwrap()].value(), &logits, 1e-4);
    // One by one, the rest of the network is fused.
    for i in (0..names.len()).step_by(names.len() / 3) {
        let tape = Tape::eval();
        let one = model.feature_maps(&tape.input(images.clone()), &[names[i]])?;
        assert_close(names[i], one[0].value(), all[i].value(), 1e-4);
    }
    Ok(())
}

// One model of every family, with the edge of its images.
rows! {
    every_module;
    resnet18 => 33,
    resnet50 => 33,
    resnext50_32x4d => 33,
    resnet50d => 33,
    resnetv2_18 => 33,
    wrn16_4 => 16,
    resnet20 => 16,
    densenet121 => 33,
    densenet40_k12 => 16,
}

#[test]
fn stages_of_a_resnet() -> Result<()> {
    let model = perturbed(ResNet::cifar(18, 10, &mut Rng::seed(1))?)?;
    let tape = Tape::eval();
    let x = tape.input(Tensor::normal([2, 16, 16, 3], 1.0, &mut Rng::seed(2))?);
    let maps = model.feature_maps(&x, &["layer2", "layer1", "layer2.0.bn2", "layer2.0.downsample"])?;
    let one = model.stages[0].forward(&model.stem.forward(&x)?)?;
    assert_close("layer1", maps[1].value(), one.value(), 1e-6);
    assert_close("layer2", maps[0].value(), model.stages[1].forward(&one)?.value(), 1e-4);
    // The norm's own output, without the shortcut and the ReLU after it.
    let ResidualUnit::Basic(block) = &model.stages[1].blocks[0] else { unreachable!() };
    let norm = block.conv2.forward(&block.conv1.forward_relu(&one)?)?;
    assert_close("bn2", maps[2].value(), norm.value(), 1e-4);
    assert_close("downsample", maps[3].value(), block.downsample.forward(&one)?.value(), 1e-4);
    Ok(())
}

#[test]
fn inside_of_a_dense_block_and_of_a_transition() -> Result<()> {
    let config = DenseNetConfig::bc(10, 6, 5)?.layers([2, 3]);
    let model = perturbed(DenseNet::new(&config, &mut Rng::seed(1))?)?;
    let tape = Tape::eval();
    let x = tape.input(Tensor::normal([2, 8, 8, 3], 1.0, &mut Rng::seed(2))?);
    let names = ["denseblock2", "denselayer3", "transition1.conv", "transition1"];
    let maps = model.feature_maps(&x, &names)?;
    let block = model.features.stages[0].block.forward(&model.features.stem.forward(&x)?)?;
    let transition = model.features.stages[0].transition.as_ref().unwrap();
    let conv = transition.conv.forward(&block)?;
    assert_close("conv", maps[2].value(), conv.value(), 1e-5);
    assert_close("transition1", maps[3].value(), transition.forward(&block)?.value(), 1e-5);
    let second = model.features.stages[1].block.forward(&maps[3])?;
    assert_close("denseblock2", maps[0].value(), second.value(), 1e-5);
    let new = second.slice_channels(second.shape().num_channels() - 6..second.shape().num_channels())?;
    assert_close("denselayer3", maps[1].value(), new.value(), 1e-5);
    Ok(())
}

#[test]
fn gradients_flow_through_what_is_looked_at() -> Result<()> {
    let config = ResNetConfig::cifar_paper(8, 3)?.stages([(4, 1), (8, 1)]);
    let model = ResNet::new(&config, &mut Rng::seed(1))?;
    let images = Tensor::normal([4, 8, 8, 3], 1.0, &mut Rng::seed(2))?;
    let tape = Tape::train(Rng::seed(0));
    let maps = model.feature_maps(&tape.input(images.clone()), &["layer1", ""])?;
    let updates = maps[1].cross_entropy(&[0, 1, 2, 0])?.backward()?;

    // The gradients of all parameters are those of a pass that nobody looks at.
    let plain = Tape::train(Rng::seed(0));
    let expected = model.forward(&plain.input(images))?.cross_entropy(&[0, 1, 2, 0])?.backward()?;
    model.visit("", &mut |name, slot| {
        if let skipgrad::autograd::StateRef::Param(param) = slot {
            let (found, expected) = (updates.grad(param).unwrap(), expected.grad(param).unwrap());
            assert_eq!(found, expected, "{name}");
        }
    });
    // And that of the map is that of what follows, from the map.
    let tape = Tape::train(Rng::seed(0));
    let map = tape.watch(maps[0].value().clone());
    let pooled = model.stages[1].forward(&map)?.global_avg_pool()?;
    let loss = model.fc.forward(&pooled)?.cross_entropy(&[0, 1, 2, 0])?;
    assert_eq!(updates.grad_of(&maps[0]).unwrap(), loss.backward()?.grad_of(&map).unwrap());
    Ok(())
}

#[test]
fn a_frozen_beginning_costs_no_gradients() -> Result<()> {
    let mut model = ResNet::cifar_paper(8, 3, &mut Rng::seed(1))?;
    model.visit_mut("", &mut |_, slot| {
        if let skipgrad::autograd::StateMut::Param(param) = slot {
            param.set_trainable(false);
        }
    });
    let tape = Tape::eval().recording(true);
    let x = tape.input(Tensor::normal([1, 8, 8, 3], 1.0, &mut Rng::seed(2))?);
    let maps = model.feature_maps(&x, &["layer3", "fc"])?;
    let updates = maps[1].sum().backward()?;
    assert!(updates.grad_of(&maps[0]).is_some());
    Ok(())
}

#[test]
fn names_that_are_not_there_are_refused_before_anything_is_computed() -> Result<()> {
    let model = DenseNet::bc(10, 6, 5, &mut Rng::seed(1))?;
    let tape = Tape::eval();
    let x = tape.input(Tensor::zeros([1, 8, 8, 3])?);
    let refused = |name: &str| match model.feature_maps(&x, &[name]).unwrap_err() {
        Error::UnknownModule { name: of, nearest, .. } if of == name => nearest,
        other => panic!("{other}"),
    };
    assert_eq!(refused("features.denseblok2")[0], "features.denseblock2");
    let ambiguous = refused("denselayer1");
    assert_eq!(ambiguous.len(), 3);
    assert!(ambiguous.contains(&"features.denseblock2.denselayer1".to_string()));
    assert!(!refused("block2").is_empty());
    assert!(model.feature_maps(&x, &[])?.is_empty());
    let small = tape.input(Tensor::zeros([1, 8, 8, 4])?);
    assert_eq!(model.feature_maps(&small, &["classifier"]).unwrap_err().path(), Some("features.conv0"));
    Ok(())
}
