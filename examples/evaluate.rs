//! Evaluates weights: top-1 and top-5 accuracy and mean loss on test images of ten classes.
//!
//! ```sh
//! cargo run --release --example evaluate -- \
//!     --model resnet20 --weights weights.safetensors --data cifar-10-batches-bin
//! # Weights of PyTorch, with the normalization that they were published with; without these
//! # options it is that of `preset.json` beside the weights, or else CIFAR-10's:
//! cargo run --release --features pth --example evaluate -- \
//!     --model resnet20 --weights resnet20.th --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
//! ```

use clap::Parser;
use skipgrad::{
    Precision, Rng,
    autograd::Tape,
    data::{Cifar10, Compose, Loader, Normalize, Preset, SyntheticShapes},
    io,
    models::{self, ModelOptions},
    nn::Module,
    train::evaluate_in,
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
    #[arg(long, value_delimiter = ',', requires = "std")]
    mean: Vec<f32>,
    /// Standard deviations of red, green and blue.
    #[arg(long, value_delimiter = ',', requires = "mean")]
    std: Vec<f32>,
    /// Type in which convolutions and linear layers multiply: f32, bf16 or auto.
    #[arg(long, default_value_t = Precision::F32)]
    precision: Precision,
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
    let normalize = normalize(options)?;
    let loader = Loader::new(images, 250).transform(Compose::new().then(normalize)).num_workers(1);

    if options.logits
        && let Some(batch) = loader.epoch(0)?.next()
    {
        let tape = Tape::eval().precision(options.precision);
        println!("logits {}", model.forward(&tape.input(batch?.images.slice_rows(0..1)?))?.value());
    }
    let metrics = evaluate_in(options.precision, &model, &loader)?;
    println!("top1 {}/{}", metrics.top1, metrics.images);
    println!("top5 {}/{}", metrics.top5, metrics.images);
    println!("loss {:.6}", metrics.loss());
    Ok(())
}

/// Returns the normalization of the options, of the preset beside the weights, or CIFAR-10's.
fn normalize(options: &Options) -> Result<Normalize, Box<dyn Error>> {
    let preset = options.weights.with_file_name(Preset::FILE_NAME);
    Ok(if !options.mean.is_empty() {
        Normalize::new(&options.mean[..], &options.std[..])
    } else if preset.exists() {
        Preset::load(&preset)?.normalize
    } else {
        Normalize::cifar10()
    })
}
