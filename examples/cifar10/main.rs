//! The main job: trains a ResNet or a DenseNet on images of ten classes.
//!
//! ```sh
//! cargo run --release --example cifar10                                        # drawn images, nothing needed
//! cargo run --release --example cifar10 -- --data cifar-10-batches-bin --model resnet20 --epochs 30
//! ```
//!
//! Shows progress, and leaves in `--out` the history as a table and as curves, test images with the network's guesses,
//! checkpoints and the final weights. Ctrl-C finishes the step and writes a checkpoint; `--resume` goes on from there
//! and ends with the same bits as a run that was never stopped.

#[path = "../common/curves.rs"]
mod curves;
mod pictures;
#[path = "../common/progress.rs"]
mod progress;

use clap::{Parser, ValueEnum};
use skipgrad::{
    Rng,
    data::{Cifar10, Compose, Images, Loader, Normalize, RandomCrop, RandomHorizontalFlip, SyntheticShapes},
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

/// Trains a ResNet or a DenseNet on CIFAR-10, or on images drawn by the library.
#[derive(Parser)]
struct Options {
    /// The folder of CIFAR-10's binary version; without it, images are drawn.
    #[arg(long, env = "SKIPGRAD_CIFAR10")]
    data: Option<PathBuf>,
    /// The network, by name.
    #[arg(long, default_value = "resnet20")]
    model: String,
    /// How often the training images are gone through.
    #[arg(long, default_value_t = 6)]
    epochs: usize,
    /// Images in a step.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// The highest learning rate.
    #[arg(long, default_value_t = 0.2)]
    lr: f32,
    /// L2 penalty on weights; norms and biases have none.
    #[arg(long, default_value_t = 5e-4)]
    weight_decay: f32,
    /// How much of each target is spread over all classes.
    #[arg(long, default_value_t = 0.1)]
    label_smoothing: f32,
    /// How the learning rate changes, step by step.
    #[arg(long, value_enum, default_value_t = Curve::OneCycle)]
    schedule: Curve,
    /// Where everything random comes from.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Threads; 0 is one a core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Train on this many images only.
    #[arg(long)]
    train_limit: Option<usize>,
    /// Where to write.
    #[arg(long, default_value = "runs/cifar10")]
    out: PathBuf,
    /// Go on from the last checkpoint in `--out`.
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
    let steps = Compose::new().then(RandomCrop(4)).then(RandomHorizontalFlip).then(Normalize::cifar10());
    let train = Loader::new(train.take(options.train_limit.unwrap_or(usize::MAX)), options.batch)
        .shuffle(options.seed)
        .transform(steps.clone())
        .drop_last(true)
        .workers(1);
    let evaluation = Loader::new(test.clone(), 250).transform(steps.eval()).workers(1);

    let mut rng = Rng::seed(options.seed);
    let mut model = models::build(&options.model, &ModelOptions::classes(classes), &mut rng)?;
    let mut sgd = Sgd::new(options.lr)
        .momentum(0.9)
        .nesterov(true)
        .weight_decay(options.weight_decay)
        .no_decay_on_norms_and_biases();
    println!(
        "{}: {} parameters; {} training and {} test images, {} threads, {}",
        options.model,
        skipgrad::autograd::State::num_parameters(&model),
        train.samples(),
        test.len(),
        rayon::current_num_threads(),
        skipgrad::cpu::Isa::active().name()
    );

    let stop = Arc::new(AtomicBool::new(false));
    stop_on_ctrl_c(stop.clone())?;
    let mut trainer = Trainer::new(options.epochs, schedule(options, train.num_batches()))
        .seed(options.seed)
        .model_name(&options.model)
        .label_smoothing(options.label_smoothing)
        .folder(&options.out)
        .stop(stop);
    let last = options.out.join(Trainer::LAST);
    if options.resume {
        trainer.resume(&mut model, &mut sgd, &last)?;
        let at = trainer.position();
        println!("resumed after {} epochs and {} batches", at.epoch, at.batch);
    }
    let mut progress = progress::Progress::new();
    let ended = trainer.run(&mut model, &mut sgd, &train, &evaluation, |event| match event {
        Event::Step(step) => progress.step(&step),
        Event::Epoch(record) => progress.epoch(&record, options.epochs),
    })?;
    progress.finish();
    if let Outcome::Stopped(at) = ended {
        println!("stopped after {} epochs and {} batches; {} is written", at.epoch, at.batch, last.display());
        println!("to go on: the same command with --resume");
        return Ok(ExitCode::from(130));
    }

    io::save(&model, options.out.join("weights.safetensors"))?;
    let classes = test.classes().join("\n") + "\n";
    io::write_atomically(options.out.join("classes.txt"), classes.as_bytes())?;
    curves::curves(trainer.history(), &options.out.join("curves.svg"))?;
    pictures::samples(&model, &test, &steps, &options.out.join("samples.svg"))?;
    println!(
        "written to {}: history, curves, samples, checkpoints, weights, names of classes",
        options.out.display()
    );
    let metrics = evaluate(&model, &evaluation)?;
    println!("test accuracy {:.4} ({}/{})", metrics.accuracy(), metrics.top1, metrics.images);
    Ok(ExitCode::SUCCESS)
}

/// Training and test images.
fn images(options: &Options) -> Result<(Images, Images), Box<dyn Error>> {
    if let Some(folder) = &options.data {
        let data = Cifar10::open(folder)?;
        println!("CIFAR-10 from {}", folder.display());
        return Ok((data.train(), data.test()));
    }
    println!("no --data and no SKIPGRAD_CIFAR10: training on images drawn by the library");
    let data = SyntheticShapes::new(options.seed);
    Ok((data.train(), data.test()))
}

fn schedule(options: &Options, batches: usize) -> Schedule {
    let steps = options.epochs * batches;
    match options.schedule {
        Curve::Cosine => Schedule::cosine(options.lr, steps).warm_up(steps / 20),
        Curve::OneCycle => Schedule::one_cycle(options.lr, steps),
        Curve::Step => Schedule::multi_step(options.lr, &[steps / 2, steps * 3 / 4], 0.1),
    }
}

/// The first Ctrl-C asks the training to stop, a second one ends the program at once.
fn stop_on_ctrl_c(stop: Arc<AtomicBool>) -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(move || {
        if stop.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\nstopping after this step; once more to stop at once");
    })
}
