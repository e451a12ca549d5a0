//! Why networks are residual: plain networks of 20 and 56 layers against the same networks with
//! shortcuts (He et al. 2015, "Deep residual learning for image recognition", figures 1 and 6).
//!
//! ```sh
//! # On synthetic images, for five to six minutes on two cores.
//! cargo run --release --example why_residual
//! cargo run --release --example why_residual -- --data cifar-10-batches-bin --steps 4000
//! ```
//!
//! It writes a picture to `--out`: the errors on training and on test images, and how large the
//! gradient of every layer was before the first step. With batch normalization the gradient of a
//! plain network does not vanish: on its way back it grows with every layer. A step that suits the
//! last layers is then far too large for the first.

mod nets;
mod picture;
#[path = "../common/short_training.rs"]
mod short_training;

use clap::Parser;
use nets::{Net, Options};
use short_training::Progress;
use skipgrad::{
    data::{Compose, Images, Loader, Normalize},
    prelude::*,
    train::evaluate,
};
use std::{process::ExitCode, time::Instant};

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("why_residual: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let most = [options.batch.saturating_mul(options.steps), options.test_images];
    let (train, test) = short_training::images(options.data.as_deref(), most, options.seed)?;
    let nets = compare(options, train, test)?;
    println!("{}", nets::table(&nets));
    let path = picture::write(&nets, &options.out)?;
    println!("written: {}", path.display());
    Ok(())
}

/// Trains every network on the same batches, with the same optimizer and schedule.
fn compare(options: &Options, train: Images, test: Images) -> Result<Vec<Net>> {
    let normalize = Compose::new().then(Normalize::cifar10());
    let train = Loader::new(train, options.batch).shuffle(options.seed).transform(normalize.clone());
    let test = Loader::new(test, 250).transform(normalize);
    let mut nets = nets::build(options)?;
    let mut progress = Progress::new(nets.iter().map(|net| net.work * options.steps as f64).sum());
    for net in &mut nets {
        train_one(net, options, [&train, &test], &mut progress)?;
        progress.println(&net.to_string());
    }
    Ok(nets)
}

fn train_one(
    net: &mut Net,
    options: &Options,
    [train, test]: [&Loader; 2],
    progress: &mut Progress,
) -> Result<()> {
    let schedule = Schedule::cosine(options.lr, options.steps);
    let mut sgd = Sgd::new(options.lr).momentum(0.9).weight_decay(1e-4).no_decay_on_norms_and_biases();
    for (step, batch) in short_training::batches(train, options.steps)?.enumerate() {
        let (batch, begin) = (batch?, Instant::now());
        let tape = Tape::train(Rng::seed(0)); // no layer of these networks draws random numbers
        let logits = tape.input(batch.images).apply(&net.model)?;
        let loss = logits.cross_entropy(&batch.labels)?;
        let updates = loss.backward()?;
        if step == 0 {
            net.gradients = nets::gradient_norms(&net.model, &updates);
        }
        sgd.set_lr(schedule.lr(step));
        sgd.step(&mut net.model, updates)?;
        net.count(&logits.argmax(), &batch.labels);
        let message = format!("step {}/{}, loss {:.3}", step + 1, options.steps, loss.item());
        progress.step(&net.name, &message, net.work, batch.labels.len(), begin);
        if net.has_point(step + 1, options.steps) {
            net.add_point(step + 1, evaluate(&net.model, test)?.accuracy());
        }
    }
    Ok(())
}
