//! A look at networks without running them: what does not fit, and what they are made of.

use crate::common::rows;
use skipgrad::{
    Error, Result, Rng,
    autograd::State,
    blocks::{DenseLayer, ResBlock, ResidualUnit, Shortcut},
    graph::ModuleExt,
    models::{self, DenseNet, ModelOptions, ResNet},
    nn::{BatchNorm2d, Conv2d, Flatten, GlobalAvgPool, Linear, MaxPool2d, Module, Relu, Sequential, conv3x3},
};

/// A network that is broken, the images that it is to see, and of each fault the module and the
/// shapes that the error must name.
type Broken = (Box<dyn Module>, [usize; 4], &'static [(&'static str, [&'static str; 2])]);

fn resnet(change: impl FnOnce(&mut ResNet) -> Result<()>) -> Result<Box<dyn Module>> {
    let mut model = ResNet::cifar(18, 10, &mut Rng::seed(0))?;
    change(&mut model)?;
    Ok(Box::new(model))
}

fn broken() -> Result<Vec<Broken>> {
    let rng = &mut Rng::seed(0);
    let images = [2, 32, 32, 3];
    let bottlenecks = models::build("resnet50_cifar", &ModelOptions::classes(10), rng)?;
    Ok(vec![
        (bottlenecks, [2, 32, 32, 1], &[("conv1", ["[N, H, W, 3]", "[2, 32, 32, 1]"])]),
        (
            resnet(|model| {
                model.stages[2] = ResBlock::basic(64, 256, 2).stride(2).build(&mut Rng::seed(0))?;
                model.fc = Linear::new(500, 10, &mut Rng::seed(0))?;
                Ok(())
            })?,
            images,
            &[
                ("layer3.0.conv1", ["[N, H, W, 64]", "[2, 16, 16, 128]"]),
                ("layer3.0.downsample.0", ["[N, H, W, 64]", "[2, 16, 16, 128]"]),
                ("fc", ["[512, out]", "[500, 10]"]),
            ],
        ),
        (
            resnet(|model| {
                let ResidualUnit::Basic(block) = &mut model.stages[0].blocks[1] else { return Ok(()) };
                block.conv1.norm = BatchNorm2d::new(32)?;
                Ok(())
            })?,
            images,
            &[("layer1.1.bn1", ["[64]", "[32]"])],
        ),
        (
            resnet(|model| {
                let ResidualUnit::Basic(block) = &mut model.stages[1].blocks[0] else { return Ok(()) };
                block.downsample = Shortcut::Identity;
                Ok(())
            })?,
            images,
            &[("layer2.0.bn2", ["[2, 16, 16, 128]", "[2, 32, 32, 64]"])],
        ),
        (
            resnet(|model| {
                let ResidualUnit::Basic(block) = &mut model.stages[3].blocks[1] else { return Ok(()) };
                block.conv2.conv.options.groups = 2;
                Ok(())
            })?,
            images,
            &[("layer4.1.conv2", ["[N, H, W, 1024]", "[2, 4, 4, 512]"])],
        ),
        (
            {
                let mut model = ResNet::wide(10, 2, 10, rng)?;
                let ResidualUnit::PreAct(block) = &mut model.stages[1].blocks[0] else { unreachable!() };
                block.downsample = Some(Conv2d::builder(32, 48, 1).stride(2).build(rng)?);
                Box::new(model)
            },
            images,
            &[("layer2.0", ["[2, 16, 16, 64]", "[2, 16, 16, 48]"])],
        ),
        (
            {
                let mut model = DenseNet::bc(22, 12, 10, rng)?;
                model.features.stages[1].block.layers[2] = DenseLayer::bottleneck(70, 12).build(rng)?;
                Box::new(model)
            },
            images,
            &[
                ("features.denseblock2.denselayer3.norm1", ["[54]", "[70]"]),
                ("features.denseblock2.denselayer3.conv1", ["[N, H, W, 70]", "[2, 16, 16, 54]"]),
            ],
        ),
        (
            models::build("densenet121", &ModelOptions::classes(10), rng)?,
            [2, 16, 16, 3],
            &[("features.transition3.pool", ["[1, 1]", "[2, 2]"])],
        ),
        (
            Box::new(
                Sequential::new()
                    .named("conv", Conv2d::builder(3, 8, 7).build(rng)?)?
                    .push(Relu)
                    .named("pool", MaxPool2d::new(2))?
                    .push(Flatten)
                    .named("fc", Linear::new(100, 10, rng)?)?,
            ),
            [2, 8, 5, 3],
            &[("conv", ["8 x 5", "7 x 7"]), ("fc", ["[64, out]", "[100, 10]"])],
        ),
        (
            Box::new(
                Sequential::new()
                    .named("one", conv3x3(3, 8).build(rng)?)?
                    .named("two", conv3x3(9, 16).stride(2).build(rng)?)?
                    .named("norm", BatchNorm2d::new(15)?)?
                    .named("three", conv3x3(16, 17).build(rng)?)?
                    .push(GlobalAvgPool)
                    .named("fc", Linear::new(16, 10, rng)?)?,
            ),
            images,
            &[
                ("two", ["[N, H, W, 9]", "[2, 32, 32, 8]"]),
                ("norm", ["[16]", "[15]"]),
                ("fc", ["[17, out]", "[16, 10]"]),
            ],
        ),
    ])
}

#[test]
fn every_fault_is_reported_with_its_module_and_both_shapes() -> Result<()> {
    let broken = broken()?;
    assert_eq!(broken.len(), 10);
    for (i, (model, images, expected)) in broken.iter().enumerate() {
        let Err(Error::Faults { faults }) = model.check(images) else { panic!("network {i} passes") };
        let paths: Vec<_> = faults.iter().filter_map(Error::path).collect();
        assert_eq!(paths, expected.iter().map(|fault| fault.0).collect::<Vec<_>>(), "network {i}");
        for (fault, (_, shapes)) in faults.iter().zip(*expected) {
            let message = fault.to_string();
            assert!(shapes.iter().all(|shape| message.contains(shape)), "network {i}: {message}");
        }
    }
    Ok(())
}

#[test]
fn what_fits_passes_and_what_training_refuses_does_not() -> Result<()> {
    let rng = &mut Rng::seed(0);
    for name in ["resnet20", "resnext50_32x4d", "resnet50d", "resnetv2_18", "wrn16_4", "densenet121"] {
        models::build(name, &ModelOptions::classes(10), rng)?.check(&[2, 65, 64, 3])?;
    }
    let model = ResNet::imagenet(18, 10, rng)?;
    assert!(model.check(&[1, 32, 32, 3]).unwrap_err().to_string().contains("train with a larger batch"));
    assert!(matches!(model.check(&[1, 32, 32]), Err(Error::Faults { faults }) if faults.len() == 1));
    assert!(matches!(model.check(&[usize::MAX, 32, 32, 3]), Err(Error::Argument { .. })));
    Ok(())
}

/// A fault that a module reports by itself, with a value that it read.
#[derive(State)]
struct Picky;
impl Module for Picky {
    fn forward<'t>(&self, x: &skipgrad::autograd::Var<'t>) -> Result<skipgrad::autograd::Var<'t>> {
        Err(Error::argument("picky", "mean", "a number", x.mean().item()))
    }
}

#[test]
fn a_fault_of_a_module_ends_the_list() -> Result<()> {
    let rng = &mut Rng::seed(0);
    let net = Sequential::new()
        .push(conv3x3(4, 8).build(rng)?)
        .named("picky", Picky)?
        .named("fc", Linear::new(1, 1, rng)?)?;
    let Err(Error::Faults { faults }) = net.check(&[2, 8, 8, 3]) else { panic!("it passes") };
    assert_eq!(faults.iter().map(|fault| fault.path().unwrap()).collect::<Vec<_>>(), ["0", "picky"]);
    assert!(faults[1].to_string().contains("found NaN"), "a meta value has no numbers");
    Ok(())
}

/// Multiply-adds are as torchvision publishes them (`_ops` of its weights), at 224 x 224.
fn published(name: &str, (parameters, millions): (usize, u64)) -> Result<()> {
    let model = models::build(name, &ModelOptions::default(), &mut Rng::seed(0))?;
    let summary = model.summary(&[1, 224, 224, 3])?;
    assert_eq!(summary.parameters, parameters, "{name}");
    assert_eq!(summary.layers.iter().map(|layer| layer.parameters).sum::<usize>(), parameters, "{name}");

    // A transition pools before its 1x1 convolution, which then has a quarter of the work.
    let state = model.export();
    let saved = |i: u32| {
        let weight = state.get(&format!("features.transition{i}.conv.weight"));
        let edge = 112_usize.pow(2) >> (2 * i);
        weight.map_or(0, |weight| weight.shape().num_elements() * edge * 3 / 4)
    };
    let defined = summary.multiply_adds + (1..4).map(saved).sum::<usize>() as u64;
    assert_eq!((defined + 500_000) / 1_000_000, millions, "{name}: {defined}");

    let one = summary.layers.iter().map(|layer| layer.multiply_adds).sum::<u64>();
    let many = model.summary(&[3, 224, 224, 3])?;
    assert_eq!((one, 3 * one), (summary.multiply_adds, many.multiply_adds));
    Ok(())
}

// The number of parameters, and of multiply-adds in millions.
rows! {
    published;
    resnet18 => (11_689_512, 1_814),
    resnet34 => (21_797_672, 3_664),
    resnet50 => (25_557_032, 4_089),
    resnext50_32x4d => (25_028_904, 4_230),
    densenet121 => (7_978_856, 2_834),
    densenet169 => (14_149_480, 3_360),
}

#[test]
fn a_summary_reads_as_a_table() -> Result<()> {
    let rng = &mut Rng::seed(0);
    let net = Sequential::new()
        .named("conv", conv3x3(3, 8).bias(true).build(rng)?)?
        .push(Relu)
        .push(GlobalAvgPool)
        .named("fc", Linear::new(8, 10, rng)?)?;
    let expected = "\
layer  operation        output          parameters  multiply-adds    memory
input                   [2, 16, 16, 3]
conv   conv2d           [2, 16, 16, 8]         224        110,592
       relu             [2, 16, 16, 8]                             0.02 MiB
       global_avg_pool  [2, 8]                                     0.00 MiB
fc     linear           [2, 10]                 90            160
total                                          314        110,752  0.02 MiB
";
    assert_eq!(net.summary(&[2, 16, 16, 3])?.to_string(), expected);
    assert_eq!(net.num_parameters(), 314);
    Ok(())
}
