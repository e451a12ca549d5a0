//! What dense connections are: every layer of a dense block reads the channels of all layers before
//! it (Huang et al. 2017, "Densely connected convolutional networks", figures 1 and 5).
//!
//! `cargo run --release --example dense_connections` compares concatenation and sum, trains a small
//! DenseNet for one or two minutes, and measures what its layers use. It draws both into `--out`.

mod connections;
mod options;
mod reuse;
#[path = "../common/short_training.rs"]
mod short_training;
mod svg;

use clap::Parser;
use connections::LayerCost;
use options::Options;
use short_training::Progress;
use skipgrad::{
    blocks::{DenseBlock, NormConv},
    data::{Compose, Loader, Normalize},
    models::DenseNetConfig,
    nn::conv3x3,
    prelude::*,
    train::evaluate,
};
use std::time::Instant;

/// A dense block by its definition, which copies all channels for every layer.
#[derive(State)]
struct Concatenation(DenseBlock);

impl Module for Concatenation {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        self.0.forward_by_concatenation(x)
    }
}

/// Such layers with a sum in place of the concatenation: each has as many channels as the whole.
#[derive(State)]
struct Sum(Vec<NormConv>);

impl Module for Sum {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        self.0.iter().try_fold(x.clone(), |x, layer| x.add(&x.apply(layer)?))
    }
}

/// Measures blocks of 1, 2 and more layers, on shapes alone.
fn costs(options: &Options) -> Result<Vec<LayerCost>> {
    let rng = &mut Rng::seed(0);
    let &Options { layers, channels, growth, batch, .. } = options;
    let width = channels + layers * growth;
    let cost = |layers: usize| {
        let dense = DenseBlock::plain(channels, growth, layers).build(rng)?;
        let norm_conv = |_| NormConv::new(conv3x3(width, width), rng);
        let sum = Sum((0..layers).map(norm_conv).collect::<Result<_>>()?);
        let parameters = [dense.num_parameters(), sum.num_parameters()];
        let [of_dense, of_sum] = [[batch, 32, 32, channels], [batch, 32, 32, width]];
        let in_place = dense.plan(&of_dense, Mode::Train)?.pass;
        let copied = Concatenation(dense).plan(&of_dense, Mode::Train)?.pass;
        let memory = [in_place, copied, sum.plan(&of_sum, Mode::Train)?.pass];
        Ok(LayerCost { channels: channels + layers * growth, parameters, memory })
    };
    (1..=layers).map(cost).collect()
}

/// Trains a DenseNet whose three blocks are such blocks.
fn train(options: &Options) -> Result<DenseNet> {
    let most = [options.batch.saturating_mul(options.steps), options.test_images];
    let (train, test) = short_training::images(options.data.as_deref(), most, options.seed)?;
    let config = DenseNetConfig::plain(3 * options.layers + 4, options.growth, train.classes().len())?;
    let mut model = DenseNet::new(&config, &mut Rng::seed(options.seed))?;
    let normalize = Compose::new().then(Normalize::cifar10());
    let test = Loader::new(test, 250).transform(normalize.clone());
    let train = Loader::new(train, options.batch).shuffle(options.seed).transform(normalize);
    let schedule = Schedule::one_cycle(options.lr, options.steps);
    let mut sgd = Sgd::new(options.lr).momentum(0.9).nesterov(true).weight_decay(options.weight_decay);
    let mut progress = Progress::new(options.steps as f64);
    for (step, batch) in short_training::batches(&train, options.steps)?.enumerate() {
        let (batch, begin) = (batch?, Instant::now());
        let tape = Tape::train(Rng::seed(0)); // no layer of this network draws random numbers
        let loss = tape.input(batch.images).apply(&model)?.cross_entropy(&batch.labels)?;
        sgd.set_lr(schedule.lr(step));
        let mut updates = loss.backward()?;
        updates.clip_global_norm(1.0); // so that a high learning rate does no harm at first
        sgd.step(&mut model, updates)?;
        let message = format!("step {}/{}, loss {:.3}", step + 1, options.steps, loss.item());
        progress.step("DenseNet", &message, 1.0, batch.labels.len(), begin);
    }
    progress.println(&format!("test accuracy {:.3}", evaluate(&model, &test)?.accuracy()));
    Ok(model)
}

fn main() -> Result<()> {
    let options = &Options::parse();
    let costs = costs(options)?;
    println!("{}", connections::table(options, &costs));
    options.write("connections.svg", &connections::to_svg(options, &costs))?;
    let reuse = reuse::measure(&train(options)?, options.growth);
    println!("{}", reuse::table(&reuse));
    options.write("feature_reuse.svg", &reuse::to_svg(&reuse))
}
