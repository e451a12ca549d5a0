//! ResNet-18 as a lecture's tf.keras code builds it, with `BasicBlock`, `build_resblock(filters,
//! blocks, stride)`, `[2, 2, 2, 2]` and Keras's defaults; and why a bottleneck is cheap.
//!
//! `cargo run --release --example lecture_resnet` prints tables, and draws both into `--out`.

mod bottleneck;
mod keras;
mod options;

use clap::Parser;
use keras::{batch_norm, conv2d, dense};
use options::Options;
use skipgrad::{
    blocks::ConvNorm,
    graph::Graph,
    nn::{Conv2d, Linear, MaxPool2d, Sequential},
    ops::Padding::{Same, Zeros},
    prelude::*,
};

#[derive(State)]
struct BasicBlock {
    #[state(flatten(conv = "conv1", norm = "bn1"))]
    conv1: ConvNorm,
    #[state(flatten(conv = "conv2", norm = "bn2"))]
    conv2: ConvNorm,
    downsample: Option<Conv2d>,
}

impl BasicBlock {
    fn new([channels, filters]: [usize; 2], stride: usize, rng: &mut Rng) -> Result<BasicBlock> {
        let [first, second] = [[channels, filters], [filters, filters]];
        let projection = (stride != 1).then(|| conv2d(first, 1, stride, Zeros([0, 0]), rng)).transpose()?;
        Ok(BasicBlock {
            conv1: ConvNorm { conv: conv2d(first, 3, stride, Same, rng)?, norm: batch_norm(filters)? },
            conv2: ConvNorm { conv: conv2d(second, 3, 1, Same, rng)?, norm: batch_norm(filters)? },
            downsample: projection, // without one, `lambda x: x`
        })
    }
}

impl Module for BasicBlock {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let out = x.apply(&self.conv1)?.relu().apply(&self.conv2)?;
        let identity = match &self.downsample {
            Some(projection) => x.apply(projection)?,
            None => x.clone(),
        };
        Ok(out.add(&identity)?.relu())
    }
}

#[derive(State)]
struct ResNet18 {
    stem: ConvNorm,
    layer1: Sequential,
    layer2: Sequential,
    layer3: Sequential,
    layer4: Sequential,
    fc: Linear,
}

impl ResNet18 {
    fn new(blocks: [usize; 4], classes: usize, rng: &mut Rng) -> Result<ResNet18> {
        Ok(ResNet18 {
            stem: ConvNorm { conv: conv2d([3, 64], 3, 1, Zeros([0, 0]), rng)?, norm: batch_norm(64)? },
            layer1: build_resblock([64, 64], blocks[0], 1, rng)?,
            layer2: build_resblock([64, 128], blocks[1], 2, rng)?,
            layer3: build_resblock([128, 256], blocks[2], 2, rng)?,
            layer4: build_resblock([256, 512], blocks[3], 2, rng)?,
            fc: dense(512, classes, rng)?,
        })
    }
}

/// Keras finds the input channels itself, when the network first runs.
fn build_resblock(channels: [usize; 2], blocks: usize, stride: usize, rng: &mut Rng) -> Result<Sequential> {
    let filters = channels[1];
    let first = Sequential::new().push(BasicBlock::new(channels, stride, rng)?);
    (1..blocks).try_fold(first, |stage, _| Ok(stage.push(BasicBlock::new([filters; 2], 1, rng)?)))
}

impl Module for ResNet18 {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let x = x.apply(&self.stem)?.relu().apply(&MaxPool2d::new(2).stride(1).padding(Same))?;
        let x = x.apply(&self.layer1)?.apply(&self.layer2)?.apply(&self.layer3)?.apply(&self.layer4)?;
        x.global_avg_pool()?.apply(&self.fc)
    }
}

fn main() -> Result<()> {
    let options = Options::parse();
    let model = ResNet18::new([2, 2, 2, 2], options.classes, &mut Rng::seed(0))?;
    println!("{}", model.summary(&[1, 32, 32, 3])?);
    let ([trained, rest], pieces) = (keras::totals(&model), bottleneck::pieces()?);
    println!("as Keras counts: {} parameters, {trained} trained and {rest} not\n", trained + rest);
    println!("{}", bottleneck::table(&pieces));
    options.write("resnet18.svg", &Graph::trace(&model, &[1, 32, 32, 3])?.to_svg(3))?;
    options.write("bottleneck.svg", &bottleneck::to_svg(&pieces))
}
