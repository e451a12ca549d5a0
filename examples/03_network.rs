//! A network of one's own from the blocks: a residual stage, then a dense one, and a block that no paper has.
//!
//! `cargo run --release --example 03_network`

use skipgrad::{
    blocks::{ConvNorm, DenseBlock, ResBlock, Stem, Transition},
    data::SyntheticShapes,
    nn::{Linear, conv1x1, conv3x3},
    prelude::*,
};

/// Two convolutions side by side, 1x1 and 3x3, and their input: `relu(x + a(x) + b(x))`. The fields name the state:
/// `fork.narrow.conv.weight`, `fork.wide.norm.bias` and so on.
#[derive(State)]
struct Fork {
    narrow: ConvNorm,
    wide: ConvNorm,
}

impl Module for Fork {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let narrow = x.tape().scope("narrow", || self.narrow.forward(x))?;
        let wide = x.tape().scope("wide", || self.wide.forward(x))?;
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
            transition: Transition::new(dense.outputs(), 32, rng)?,
            dense,
            head: Linear::new(32, classes, rng)?,
        })
    }
}

impl Module for Net {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let tape = x.tape();
        let x = tape.scope("stem", || self.stem.forward(x))?;
        let x = tape.scope("residual", || self.residual.forward(&x))?;
        let x = tape.scope("fork", || self.fork.forward(&x))?;
        let x = tape.scope("dense", || self.dense.forward(&x))?;
        let x = tape.scope("transition", || self.transition.forward(&x))?.global_avg_pool()?;
        tape.scope("head", || self.head.forward(&x))
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
        let loss = net.forward(&tape.input(batch.images))?.cross_entropy(&batch.labels)?;
        println!("step {step:2}: loss {:.3}", loss.item());
        sgd.step(&mut net, loss.backward()?)?;
    }

    // A mistake is reported with the path of the layer that could not go on.
    let tape = Tape::eval();
    let error = net.forward(&tape.input(Tensor::zeros([1, 32, 32, 1])?)).err();
    println!("a grey image: {}", error.expect("the stem wants three channels"));
    Ok(())
}
