//! Evaluates weights: top-1 and top-5 accuracy and mean loss on test images of ten classes.
//!
//! ```sh
//! cargo run --release --example evaluate -- \
//!     --model resnet20 --weights weights.safetensors --data cifar-10-batches-bin
//! # Weights of PyTorch, with the normalization that they were published with:
//! cargo run --release --features pth --example evaluate -- \
//!     --model resnet20 --weights resnet20.th --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
//! ```

use clap::Parser;
use skipgrad::{
    Rng,
    autograd::Tape,
    data::{Cifar10, Compose, Loader, Normalize, SyntheticShapes},
    io,
    models::{self, ModelOptions},
    nn::Module,
    train::evaluate,
};
use std::{error::Error, path::PathBuf, process::ExitCode};

/// Evaluates a weights file on the test images of CIFAR-10 or on synthetic images.
#[derive(Parser)]
struct Options {
    /// Name of the network.
    #[arg(long)]
    model: String,
    /// Weights: safetensors, or with the feature `pth` a PyTorch file (.pth, .pt, .th).
    #[arg(long)]
    weights: PathBuf,
    /// Folder of CIFAR-10's binary version; by default synthetic images are used.
    #[arg(long, env = "SKIPGRAD_CIFAR10")]
    data: Option<PathBuf>,
    /// Means of red, green and blue, subtracted from pixels in [0, 1].
    #[arg(long, value_delimiter = ',', default_values_t = [0.4914, 0.4822, 0.4465])]
    mean: Vec<f32>,
    /// Standard deviations of red, green and blue.
    #[arg(long, value_delimiter = ',', default_values_t = [0.2470, 0.2435, 0.2616])]
    std: Vec<f32>,
    /// Print the logits of the first image, too.
    #[arg(long)]
    logits: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("evaluate: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let images = match &options.data {
        Some(folder) => Cifar10::open(folder)?.test(),
        None => SyntheticShapes::new(0).test(),
    };
    let mut model = models::build(&options.model, &ModelOptions::classes(10), &mut Rng::seed(0))?;
    io::load(&mut model, &options.weights)?;
    let normalize = Normalize::new(&options.mean[..], &options.std[..]);
    let loader = Loader::new(images, 250).transform(Compose::new().then(normalize)).num_workers(1);

    if options.logits
        && let Some(batch) = loader.epoch(0)?.next()
    {
        let tape = Tape::eval();
        println!("logits {}", model.forward(&tape.input(batch?.images.slice_rows(0..1)?))?.value());
    }
    let metrics = evaluate(&model, &loader)?;
    println!("top1 {}/{}", metrics.top1, metrics.images);
    println!("top5 {}/{}", metrics.top5, metrics.images);
    println!("loss {:.6}", metrics.loss());
    Ok(())
}
