//! Trains a ResNet or a DenseNet on CIFAR-10, or on synthetic images of ten classes.
//!
//! ```sh
//! # Without arguments it trains on synthetic images; nothing else is needed.
//! cargo run --release --example cifar10
//! cargo run --release --example cifar10 -- \
//!     --data cifar-10-batches-bin --model resnet20 --epochs 30
//! ```
//!
//! It shows the progress, and writes to `--out` the history as a table and as curves, test images
//! with the network's predictions, checkpoints and the final weights. Ctrl-C finishes the step and
//! writes a checkpoint; `--resume` continues from there and ends with the same bits as a run that
//! was never stopped.

#[path = "../common/curves.rs"]
mod curves;
mod pictures;
#[path = "../common/progress.rs"]
mod progress;

use clap::{Parser, ValueEnum};
use skipgrad::{
    Rng,
    data::{
        Cifar10, Compose, Images, Loader, Normalize, Preset, RandomCrop, RandomHorizontalFlip,
        SyntheticShapes,
    },
    io, models,
    models::ModelOptions,
    optim::{Schedule, Sgd},
    train::{Event, Outcome, Trainer, evaluate},
};
use std::{
    error::Error,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Trains a ResNet or a DenseNet on CIFAR-10 or on synthetic images.
#[derive(Parser)]
struct Options {
    /// Folder of CIFAR-10's binary version; by default synthetic images are used.
    #[arg(long, env = "SKIPGRAD_CIFAR10")]
    data: Option<PathBuf>,
    /// Name of the network.
    #[arg(long, default_value = "resnet20")]
    model: String,
    /// Number of epochs.
    #[arg(long, default_value_t = 6)]
    epochs: usize,
    /// Batch size.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Highest learning rate of the schedule.
    #[arg(long, default_value_t = 0.2)]
    lr: f32,
    /// Weight decay; not applied to normalizations and biases.
    #[arg(long, default_value_t = 5e-4)]
    weight_decay: f32,
    /// Fraction of each target that is spread over all classes.
    #[arg(long, default_value_t = 0.1)]
    label_smoothing: f32,
    /// Learning-rate schedule.
    #[arg(long, value_enum, default_value_t = Curve::OneCycle)]
    schedule: Curve,
    /// Seed of all random numbers.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Number of threads; 0 means one per core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Number of training images to use; by default all of them.
    #[arg(long)]
    train_limit: Option<usize>,
    /// Output folder.
    #[arg(long, default_value = "runs/cifar10")]
    out: PathBuf,
    /// Resume from the last checkpoint in `--out`.
    #[arg(long)]
    resume: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Curve {
    Cosine,
    OneCycle,
    Step,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cifar10: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    rayon::ThreadPoolBuilder::new().num_threads(options.threads).build_global()?;
    let (train, test) = images(options)?;
    let classes = train.classes().len();
    let transform = Compose::new()
        .then(RandomCrop::with_padding(4))
        .then(RandomHorizontalFlip)
        .then(Normalize::cifar10());
    let train = train_loader(options, train, &transform);
    let evaluation = Loader::new(test.clone(), 250).transform(transform.eval()).num_workers(1);

    let mut rng = Rng::seed(options.seed);
    let mut model = models::build(&options.model, &ModelOptions::classes(classes), &mut rng)?;
    let mut sgd = sgd(options);
    println!(
        "{}: {} parameters; {} training and {} test images, {} threads, {}",
        options.model,
        skipgrad::autograd::State::num_parameters(&model),
        train.num_samples(),
        test.len(),
        rayon::current_num_threads(),
        skipgrad::cpu::Isa::active().name()
    );

    let mut trainer = Trainer::new(options.epochs, schedule(options, train.num_batches()))
        .seed(options.seed)
        .model_name(&options.model)
        .label_smoothing(options.label_smoothing)
        .folder(&options.out)
        .stop(stop_on_ctrl_c()?);
    let last = options.out.join(Trainer::LAST);
    if options.resume {
        trainer.resume(&mut model, &mut sgd, &last)?;
        let at = trainer.position();
        println!("resumed after {} epochs and {} batches", at.epoch, at.batch);
    }
    let mut progress = progress::Progress::new();
    let outcome = trainer.run(&mut model, &mut sgd, &train, &evaluation, |event| match event {
        Event::Step(step) => progress.step(&step),
        Event::Epoch(record) => progress.epoch(&record, options.epochs),
        _ => {}
    })?;
    progress.finish();
    if let Outcome::Stopped(at) = outcome {
        println!("stopped after {} epochs and {} batches; {} is written", at.epoch, at.batch, last.display());
        println!("to resume: the same command with --resume");
        return Ok(ExitCode::from(130));
    }

    let out = &options.out;
    io::save(&model, out.join("weights.safetensors"))?;
    io::write_atomically(out.join("classes.txt"), (test.classes().join("\n") + "\n").as_bytes())?;
    Preset::cifar10().classes(test.classes()).save(out.join(Preset::FILE_NAME))?;
    curves::curves(trainer.history(), &out.join("curves.svg"))?;
    pictures::samples(&model, &test, &transform, &out.join("samples.svg"))?;
    println!("written to {}: history, curves, samples, checkpoints, weights, classes", out.display());
    let metrics = evaluate(&model, &evaluation)?;
    println!("test accuracy {:.4} ({}/{})", metrics.accuracy(), metrics.top1, metrics.images);
    Ok(ExitCode::SUCCESS)
}

/// Opens the training and the test images.
fn images(options: &Options) -> Result<(Images, Images), Box<dyn Error>> {
    if let Some(folder) = &options.data {
        let data = Cifar10::open(folder)?;
        println!("CIFAR-10 from {}", folder.display());
        return Ok((data.train(), data.test()));
    }
    println!("no --data and no SKIPGRAD_CIFAR10: training on synthetic images");
    let data = SyntheticShapes::new(options.seed);
    Ok((data.train(), data.test()))
}

fn train_loader(options: &Options, images: Images, transform: &Compose) -> Loader {
    Loader::new(images.take(options.train_limit.unwrap_or(usize::MAX)), options.batch)
        .shuffle(options.seed)
        .transform(transform.clone())
        .drop_last(true)
        .num_workers(1)
}

fn sgd(options: &Options) -> Sgd {
    Sgd::new(options.lr)
        .momentum(0.9)
        .nesterov(true)
        .weight_decay(options.weight_decay)
        .no_decay_on_norms_and_biases()
}

fn schedule(options: &Options, batches: usize) -> Schedule {
    let steps = options.epochs * batches;
    match options.schedule {
        Curve::Cosine => Schedule::cosine(options.lr, steps).warmup(steps / 20),
        Curve::OneCycle => Schedule::one_cycle(options.lr, steps),
        Curve::Step => Schedule::multi_step(options.lr, &[steps / 2, steps * 3 / 4], 0.1),
    }
}

/// Returns a flag that the first Ctrl-C sets; the second one ends the program at once.
fn stop_on_ctrl_c() -> Result<Arc<AtomicBool>, ctrlc::Error> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\nstopping after this step; once more to stop at once");
    })?;
    Ok(stop)
}
