//! A network of your own from the blocks: a residual stage, a block that no paper has, and a dense stage.
//!
//! `cargo run --release --example 03_network`

use skipgrad::{
    blocks::{ConvNorm, DenseBlock, ResBlock, Stem, Transition},
    data::SyntheticShapes,
    nn::{Linear, conv1x1, conv3x3},
    prelude::*,
};

/// A 1x1 and a 3x3 convolution side by side, added to their input: `relu(x + a(x) + b(x))`. The fields
/// name the state, `fork.narrow.conv.weight` and so on, and the modules in errors.
#[derive(State)]
struct Fork {
    narrow: ConvNorm,
    wide: ConvNorm,
}

impl Module for Fork {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let (narrow, wide) = (x.apply(&self.narrow)?, x.apply(&self.wide)?);
        Ok(x.add(&narrow)?.add(&wide)?.relu())
    }
}

#[derive(State)]
struct Net {
    stem: Stem,
    residual: ResBlock,
    fork: Fork,
    dense: DenseBlock,
    transition: Transition,
    head: Linear,
}

impl Net {
    fn new(classes: usize, rng: &mut Rng) -> Result<Net> {
        let dense = DenseBlock::bottleneck(32, 8, 4).build(rng)?;
        Ok(Net {
            stem: Stem::cifar(3, 16).build(rng)?,
            residual: ResBlock::basic(16, 32, 2).stride(2).build(rng)?,
            fork: Fork {
                narrow: ConvNorm::new(conv1x1(32, 32), rng)?,
                wide: ConvNorm::new(conv3x3(32, 32), rng)?,
            },
            transition: Transition::new(dense.out_channels(), 32, rng)?,
            dense,
            head: Linear::new(32, classes, rng)?,
        })
    }
}

impl Module for Net {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let x = x.apply(&self.stem)?.apply(&self.residual)?.apply(&self.fork)?;
        x.apply(&self.dense)?.apply(&self.transition)?.global_avg_pool()?.apply(&self.head)
    }
}

fn main() -> Result<()> {
    let mut rng = Rng::seed(0);
    let mut net = Net::new(10, &mut rng)?;
    println!("{} parameters", net.num_parameters());

    let mut sgd = Sgd::new(0.05).momentum(0.9).weight_decay(5e-4).no_decay_on_norms_and_biases();
    let data = SyntheticShapes::with_sizes(1024, 256, 0)?;
    for (step, batch) in data.train().batches(64, rng.split())?.enumerate() {
        let tape = Tape::train(rng.split());
        let loss = tape.input(batch.images).apply(&net)?.cross_entropy(&batch.labels)?;
        println!("step {step:2}: loss {:.3}", loss.item());
        sgd.step(&mut net, loss.backward()?)?;
    }

    // An error carries the path of the layer in which it arose.
    let tape = Tape::eval();
    let error = tape.input(Tensor::zeros([1, 32, 32, 1])?).apply(&net).err();
    println!("a gray image: {}", error.expect("the stem wants three channels"));
    Ok(())
}
