//! Looks for what may be wrong with a training before it runs: the data, the network, and the
//! learning rate.
//!
//! ```sh
//! # Without arguments: the network, images and settings of the example cifar10.
//! cargo run --release --example doctor
//! cargo run --release --example doctor -- --data cifar-10-batches-bin --model resnet56
//! # Plants a fault, to see how it is found.
//! cargo run --release --example doctor -- --fault dead-relu
//! ```
//!
//! It succeeds if nothing is found, or if the fault that was planted is. Nothing is written.

mod fault;

use clap::Parser;
use fault::Fault;
use indicatif::{ProgressBar, ProgressStyle};
use skipgrad::{
    Rng,
    data::{Cifar10, Compose, Images, Loader, Normalize, RandomCrop, RandomHorizontalFlip, SyntheticShapes},
    models::{self, ModelOptions},
    optim::Sgd,
    train::{CheckProgress, DiagnoseOptions, diagnose},
};
use std::{
    error::Error,
    io::IsTerminal,
    path::PathBuf,
    process::ExitCode,
    sync::Mutex,
    time::{Duration, Instant},
};

/// Looks for what may be wrong with a training before it runs.
#[derive(Parser)]
struct Options {
    /// Folder of CIFAR-10's binary version; by default synthetic images are used.
    #[arg(long, env = "SKIPGRAD_CIFAR10")]
    data: Option<PathBuf>,
    /// Name of the network.
    #[arg(long, default_value = "resnet20")]
    model: String,
    /// Batch size.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Highest learning rate of the schedule.
    #[arg(long, default_value_t = 0.2)]
    lr: f32,
    /// Seed of all random numbers.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Plants a fault.
    #[arg(long, value_enum)]
    fault: Option<Fault>,
    /// Number of training images to use; by default all of them.
    #[arg(long)]
    train_limit: Option<usize>,
    /// Number of batches whose images, labels and activations are measured.
    #[arg(long, default_value_t = 8)]
    batches: usize,
    /// Most steps of a training until labels of other images are predicted better than by chance.
    #[arg(long, default_value_t = 300)]
    steps: usize,
    /// Shows every layer.
    #[arg(long)]
    layers: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("doctor: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns whether nothing is found, or the planted fault is.
fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    let mut rng = Rng::seed(options.seed);
    let mut images = images(options)?;
    let mut transform = Compose::new().then(RandomCrop::with_padding(4)).then(RandomHorizontalFlip);
    if options.fault != Some(Fault::UnnormalizedImages) {
        transform = transform.then(Normalize::cifar10());
    }
    let mut lr = options.lr;
    let model_options = ModelOptions::classes(images.classes().len());
    let mut model = models::build(&options.model, &model_options, &mut rng)?;
    if let Some(fault) = options.fault {
        println!("planted: {}", fault.plant(&mut images, &mut lr, &mut *model, &mut rng)?);
    }
    let train = Loader::new(images, options.batch).shuffle(options.seed).transform(transform).drop_last(true);
    let mut sgd = Sgd::new(lr).momentum(0.9).nesterov(true).weight_decay(5e-4).no_decay_on_norms_and_biases();

    let progress = Progress::new();
    let settings = DiagnoseOptions::new()
        .seed(options.seed)
        .batches(options.batches)
        .held_out_steps(options.steps)
        .on_progress(move |step| progress.show(step));
    let start = Instant::now();
    let diagnosis = diagnose(&mut model, &mut sgd, &train, &settings)?;
    // The settings hold the progress bar, which ends with them.
    drop(settings);
    match options.layers {
        true => println!("{diagnosis:#}"),
        false => println!("{diagnosis}"),
    }
    println!("{}: {:.1} s", options.model, start.elapsed().as_secs_f32());
    let Some(fault) = options.fault else { return Ok(diagnosis.is_healthy()) };
    let is_found = diagnosis.finding(fault.finding()).is_some();
    println!("the planted fault is {}", if is_found { "found" } else { "not found" });
    Ok(is_found)
}

/// Opens the training images.
fn images(options: &Options) -> Result<Images, Box<dyn Error>> {
    let images = match &options.data {
        Some(folder) => {
            println!("CIFAR-10 from {}", folder.display());
            Cifar10::open(folder)?.train()
        }
        None => {
            println!("no --data and no SKIPGRAD_CIFAR10: synthetic images");
            SyntheticShapes::new(options.seed).train()
        }
    };
    Ok(images.take(options.train_limit.unwrap_or(usize::MAX)))
}

/// Shows the progress: a bar on a terminal, a line now and then elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
    last: Mutex<Instant>,
}

impl Progress {
    fn new() -> Progress {
        let style = ProgressStyle::with_template("{prefix:>14} [{bar:24}] {pos}/{len}");
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ");
        let bar = std::io::stderr().is_terminal().then(|| ProgressBar::new(1).with_style(style));
        Progress { bar, last: Mutex::new(Instant::now()) }
    }

    fn show(&self, CheckProgress { check, step, steps, .. }: CheckProgress) {
        if let Some(bar) = &self.bar {
            bar.set_prefix(check);
            bar.set_length(steps as u64);
            bar.set_position(step as u64);
            return;
        }
        if let Ok(mut last) = self.last.lock()
            && last.elapsed() >= Duration::from_secs(5)
        {
            *last = Instant::now();
            println!("{check}: step {step} of at most {steps}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
