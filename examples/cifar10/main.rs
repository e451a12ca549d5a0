//! Trains a ResNet or a DenseNet on CIFAR-10, or on synthetic images of ten classes.
//!
//! ```sh
//! # Without arguments it trains on synthetic images; nothing else is needed.
//! cargo run --release --example cifar10
//! cargo run --release --example cifar10 -- \
//!     --data cifar-10-batches-bin --model resnet20 --epochs 30
//! ```
//!
//! It shows the progress, and writes to `--out` a report of the training as a web page, the history
//! as a table and as curves, test images with the network's predictions, checkpoints and the final
//! weights. Ctrl-C finishes the step and
//! writes a checkpoint; `--resume` continues from there and ends with the same bits as a run that
//! was never stopped. With `--resume --epochs 60` or another learning rate it goes on as said, and
//! lists what changed. A folder with the results of another run is refused.
//!
//! `--auto-augment ta_wide --cutmix-alpha 1 --model-ema` and their like are the parts of newer
//! recipes; see `--help`.

mod pictures;
#[path = "../common/progress.rs"]
mod progress;
#[path = "../common/training.rs"]
mod training;

use clap::{Args, Parser, ValueEnum};
use skipgrad::{
    Rng,
    data::{
        Cifar10, Compose, CutMix, Images, Loader, Mixup, Normalize, Preset, RandAugment, RandomChoice,
        RandomCrop, RandomErasing, RandomHorizontalFlip, SyntheticShapes, TrivialAugmentWide,
    },
    io, models,
    models::ModelOptions,
    optim::Sgd,
    report::{self, Report},
};
use std::{error::Error, path::PathBuf, process::ExitCode};
use training::{Recipe, Session};

/// Trains a ResNet or a DenseNet on CIFAR-10 or on synthetic images.
#[derive(Parser)]
struct Options {
    /// Folder of CIFAR-10's binary version; by default synthetic images are used.
    #[arg(long, env = "SKIPGRAD_CIFAR10")]
    data: Option<PathBuf>,
    /// Name of the network; resnet20 by default.
    #[arg(long)]
    model: Option<String>,
    /// Batch size.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Weight decay; not applied to normalizations and biases.
    #[arg(long, default_value_t = 5e-4)]
    weight_decay: f32,
    #[command(flatten)]
    augmentation: Augmentation,
    #[command(flatten)]
    training: training::TrainingOptions,
    /// Number of threads; 0 means one per core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Number of training images to use; by default all of them.
    #[arg(long)]
    train_limit: Option<usize>,
    /// Output folder; the default is the first of runs/cifar10, runs/cifar10-2 and so on without
    /// a training or, with `--resume`, the last one with a training.
    #[arg(long, default_value = DEFAULT_OUT)]
    out: PathBuf,
}

/// How images are augmented besides random crops and flips, by the names of torchvision's
/// references. A training is to be resumed with the same options.
#[derive(Args)]
struct Augmentation {
    /// Random operations on every image: ta_wide for `TrivialAugmentWide`, ra for `RandAugment`.
    #[arg(long, value_enum)]
    auto_augment: Option<AutoAugment>,
    /// Probability that a box of an image is erased.
    #[arg(long, default_value_t = 0.0)]
    random_erase: f32,
    /// Alpha of Mixup, usually 0.2; with CutMix too, each batch takes one of them. 0 is off.
    #[arg(long, default_value_t = 0.0)]
    mixup_alpha: f32,
    /// Alpha of CutMix, usually 1. 0 is off.
    #[arg(long, default_value_t = 0.0)]
    cutmix_alpha: f32,
}

#[derive(Clone, Copy, ValueEnum)]
enum AutoAugment {
    #[value(name = "ta_wide")]
    TaWide,
    Ra,
}

impl Augmentation {
    fn transform(&self) -> Compose {
        let mut transform = Compose::new().then(RandomCrop::with_padding(4)).then(RandomHorizontalFlip);
        transform = match self.auto_augment {
            Some(AutoAugment::TaWide) => transform.then(TrivialAugmentWide::new()),
            Some(AutoAugment::Ra) => transform.then(RandAugment::new()),
            None => transform,
        };
        transform = transform.then(Normalize::cifar10());
        match self.random_erase {
            0.0 => transform,
            p => transform.then(RandomErasing::new().p(p)),
        }
    }

    fn mixing(&self) -> Option<RandomChoice> {
        let mut choice = RandomChoice::new();
        if self.mixup_alpha != 0.0 {
            choice = choice.or(Mixup::new(self.mixup_alpha));
        }
        if self.cutmix_alpha != 0.0 {
            choice = choice.or(CutMix::new(self.cutmix_alpha));
        }
        (self.mixup_alpha != 0.0 || self.cutmix_alpha != 0.0).then_some(choice)
    }
}

/// What is trained unless the options say otherwise.
const RECIPE: Recipe = Recipe { epochs: 6, lr: 0.2, label_smoothing: 0.1 };

/// The output folder of the first run.
const DEFAULT_OUT: &str = "runs/cifar10";

fn main() -> ExitCode {
    let mut options = Options::parse();
    options.out = training::output_folder(&options.training, &options.out, DEFAULT_OUT);
    match run(&options) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("cifar10: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    rayon::ThreadPoolBuilder::new().num_threads(options.threads).build_global()?;
    let session = Session::open(&options.training, RECIPE, &options.out)?;
    let (train, test) = images(options, session.seed())?;
    let classes = train.classes().len();
    let transform = options.augmentation.transform();
    let train = train_loader(options, session.seed(), train, &transform);
    let evaluation = Loader::new(test.clone(), 250).transform(transform.eval()).num_workers(1);

    let mut rng = Rng::seed(session.seed());
    let name = session.model(options.model.as_deref(), "resnet20");
    let mut model = models::build(&name, &ModelOptions::classes(classes), &mut rng)?;
    let mut sgd = Sgd::new(RECIPE.lr)
        .momentum(0.9)
        .nesterov(true)
        .weight_decay(options.weight_decay)
        .no_decay_on_norms_and_biases();
    println!(
        "{name}: {} parameters; {} training and {} test images, {} threads, {}",
        skipgrad::autograd::State::num_parameters(&model),
        train.num_samples(),
        test.len(),
        rayon::current_num_threads(),
        skipgrad::cpu::Isa::active().name()
    );
    let diagnosis = session.diagnose(&mut model, &mut sgd, &train)?;
    let Some(trainer) = session.train(&name, &mut model, &mut sgd, [&train, &evaluation])? else {
        return Ok(ExitCode::from(130));
    };

    let out = &options.out;
    io::save(&model, out.join("weights.safetensors"))?;
    if let Some(averages) = trainer.averages() {
        averages.copy_to(&mut model)?;
        io::save(&model, out.join("weights_ema.safetensors"))?;
        println!("the averaged weights are used from here on: weights_ema.safetensors");
    }
    io::write_atomically(out.join("classes.txt"), (test.classes().join("\n") + "\n").as_bytes())?;
    Preset::cifar10().classes(test.classes()).save(out.join(Preset::FILE_NAME))?;
    io::write_atomically(out.join("curves.svg"), report::curves_to_svg(trainer.history())?.as_bytes())?;
    pictures::samples(&model, &test, &transform, &out.join("samples.svg"))?;
    println!("written to {}: history, curves, samples, checkpoints, weights, classes", out.display());
    training::write_report(Report::new(&model, &trainer, &evaluation), diagnosis.as_ref(), out)?;
    Ok(ExitCode::SUCCESS)
}

/// Opens the training and the test images.
fn images(options: &Options, seed: u64) -> Result<(Images, Images), Box<dyn Error>> {
    if let Some(folder) = &options.data {
        let data = Cifar10::open(folder)?;
        println!("CIFAR-10 from {}", folder.display());
        return Ok((data.train(), data.test()));
    }
    println!("no --data and no SKIPGRAD_CIFAR10: training on synthetic images");
    let data = SyntheticShapes::new(seed);
    Ok((data.train(), data.test()))
}

fn train_loader(options: &Options, seed: u64, images: Images, transform: &Compose) -> Loader {
    let loader = Loader::new(images.take(options.train_limit.unwrap_or(usize::MAX)), options.batch)
        .shuffle(seed)
        .transform(transform.clone())
        .drop_last(true)
        .num_workers(1);
    match options.augmentation.mixing() {
        Some(mixing) => loader.batch_transform(mixing),
        None => loader,
    }
}
