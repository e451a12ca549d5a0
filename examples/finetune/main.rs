//! Fine-tunes a trained network on pictures of your own, in one folder per class.
//!
//! ```sh
//! # Without arguments it draws a folder of pictures; nothing else is needed.
//! cargo run --release --features image --example finetune
//! # On your pictures: pictures/cat/1.jpg, pictures/dog/1.jpg, ...
//! cargo run --release --features image --example finetune -- pictures
//! cargo run --release --features image,pth --example finetune -- \
//!     --model resnet50 --weights resnet50.pth --size 224 pictures
//! ```
//!
//! The network gets a new head for the folder's classes, which is trained at the full learning
//! rate. The pretrained layers are trained at a tenth of it, or frozen with `--head-only` or
//! `--freeze`. A part of the pictures is used for evaluation only, unless the folder has the
//! subfolders `train` and `val` or `test`. Pictures that cannot be decoded are listed at the end.
//! The folder `--out` receives the weights, the names of the classes, the history and its curves;
//! the last lines of the output show how to predict with them.

#[path = "../common/curves.rs"]
mod curves;
mod pictures;
#[path = "../common/progress.rs"]
mod progress;

use clap::Parser;
use skipgrad::{
    Rng,
    autograd::State as _,
    data::{
        Compose, Dataset as _, ImageFolder, Loader, Normalize, Preset, RandomHorizontalFlip,
        RandomResizedCrop,
    },
    io::{self, LoadOptions},
    models::{self, Model, ModelOptions},
    optim::{Group, Schedule, Sgd},
    train::{Event, History, Trainer, evaluate},
};
use std::{collections::BTreeMap, error::Error, fs, path::PathBuf, process::ExitCode};

/// Fine-tunes a network on a folder of pictures.
#[derive(Parser)]
struct Options {
    /// Folder with one subfolder per class; if it is not given, a folder is drawn.
    data: Option<PathBuf>,
    /// Name of the network.
    #[arg(long, default_value = "resnet20")]
    model: String,
    /// Pretrained weights, of any number of classes; by default those that the example cifar10
    /// wrote.
    #[arg(long)]
    weights: Option<PathBuf>,
    /// Height and width of the network's input, in pixels.
    #[arg(long, default_value_t = 32)]
    size: usize,
    /// Fraction of each class that is trained on.
    #[arg(long, default_value_t = 0.8)]
    part: f32,
    /// Number of epochs.
    #[arg(long, default_value_t = 8)]
    epochs: usize,
    /// Batch size.
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Highest learning rate of the schedule, which the head is trained with.
    #[arg(long, default_value_t = 0.05)]
    lr: f32,
    /// Factor of the learning rate for the pretrained layers.
    #[arg(long, default_value_t = 0.1)]
    lr_scale: f32,
    /// Parameters to freeze: `conv1.*`, `layer1.*`. May be repeated.
    #[arg(long)]
    freeze: Vec<String>,
    /// Train only the head.
    #[arg(long, conflicts_with = "freeze")]
    head_only: bool,
    /// Freeze the running statistics of batch normalizations.
    #[arg(long)]
    freeze_statistics: bool,
    /// Stop at a picture that cannot be decoded.
    #[arg(long)]
    strict: bool,
    /// Seed of all random numbers.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Output folder.
    #[arg(long, default_value = "runs/finetune")]
    out: PathBuf,
}

/// The weights that the example cifar10 writes.
const TRAINED: &str = "runs/cifar10/weights.safetensors";

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("finetune: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(&options.out)?;
    let (train, test) = pictures::open(options)?;
    println!(
        "{} classes: {}; {} training and {} test pictures",
        train.classes().len(),
        train.classes().join(", "),
        train.len(),
        test.len()
    );
    let (loader, evaluation) = loaders(options, &train, &test);

    let mut rng = Rng::seed(options.seed);
    let mut model = models::build(&options.model, &ModelOptions::classes(train.classes().len()), &mut rng)?;
    let mut sgd =
        Sgd::new(options.lr).momentum(0.9).nesterov(true).weight_decay(1e-4).no_decay_on_norms_and_biases();
    if let Some(head) = load(options, &mut model)? {
        let pretrained = move |name: &str| !head.iter().any(|of_head| of_head == name);
        sgd = sgd.group(move |name, _| pretrained(name), Group::new().lr_scale(options.lr_scale));
    }

    let schedule = Schedule::one_cycle(options.lr, options.epochs * loader.num_batches());
    let mut trainer = Trainer::new(options.epochs, schedule)
        .seed(options.seed)
        .model_name(&options.model)
        .label_smoothing(0.1)
        .folder(&options.out);
    let mut progress = progress::Progress::new();
    trainer.run(&mut model, &mut sgd, &loader, &evaluation, |event| match event {
        Event::Step(step) => progress.step(&step),
        Event::Epoch(record) => progress.epoch(&record, options.epochs),
        _ => {}
    })?;
    progress.finish();

    // The two parts of one folder share this list; two folders do not.
    let unreadable: BTreeMap<_, _> = train.unreadable().into_iter().chain(test.unreadable()).collect();
    for reason in unreadable.values() {
        println!("left out: {reason}");
    }
    println!("{} pictures could not be decoded", unreadable.len());
    write(options, &*model, train.classes(), trainer.history())?;
    let metrics = evaluate(&model, &evaluation)?;
    println!("test accuracy {:.4} ({}/{})", metrics.accuracy(), metrics.top1, metrics.images);
    Ok(())
}

/// Whether the network is one for CIFAR's image sizes, normalized with CIFAR's statistics.
fn is_small(options: &Options) -> bool {
    options.size <= 64
}

/// Builds the loaders of the training and of the test pictures.
fn loaders(options: &Options, train: &ImageFolder, test: &ImageFolder) -> (Loader, Loader) {
    let normalize = if is_small(options) { Normalize::cifar10() } else { Normalize::imagenet() };
    let crop = RandomResizedCrop::new().scale([0.5, 1.0]);
    let transform = Compose::new().then(crop).then(RandomHorizontalFlip).then(normalize);
    let batch = options.batch.min(train.len());
    let evaluation = Loader::new(test.clone(), batch).transform(transform.eval()).num_workers(2);
    let loader = Loader::new(train.clone(), batch)
        .shuffle(options.seed)
        .transform(transform)
        .num_workers(2)
        .drop_last(true);
    (loader, evaluation)
}

/// Loads pretrained weights, if there are any, and freezes layers as the options say. Returns the
/// names of the parameters of the new head.
fn load(options: &Options, model: &mut Box<dyn Model>) -> Result<Option<Vec<String>>, Box<dyn Error>> {
    let trained = || Some(PathBuf::from(TRAINED)).filter(|path| path.exists() && options.model == "resnet20");
    let Some(weights) = options.weights.clone().or_else(trained) else {
        println!(
            "NO WEIGHTS: all layers are trained from scratch. --weights names a file of pretrained weights; by\n\
             default it is {TRAINED}, which the example cifar10 writes."
        );
        return match options.head_only || options.freeze_statistics || !options.freeze.is_empty() {
            true => Err("freezing needs pretrained weights".into()),
            false => Ok(None),
        };
    };
    let head = LoadOptions::new().new_head().load(model, &weights)?.missing_keys;
    println!(
        "{} with the weights of {}, and a new head: {}",
        options.model,
        weights.display(),
        head.join(", ")
    );
    let everything = ["*".to_string()];
    let patterns = if options.head_only { &everything[..] } else { &options.freeze };
    let mut frozen = 0;
    for pattern in patterns {
        frozen += model.freeze(pattern)?;
    }
    if frozen > 0 {
        for name in &head {
            model.thaw(name)?;
        }
        println!("frozen: {}", patterns.join(", "));
    }
    if options.freeze_statistics {
        model.freeze_statistics("*")?;
    }
    Ok(Some(head))
}

/// Writes the weights, the names of the classes and the curves, and prints how to predict with
/// them.
fn write(
    options: &Options,
    model: &dyn Model,
    classes: &[String],
    history: &History,
) -> Result<(), Box<dyn Error>> {
    let weights = options.out.join("weights.safetensors");
    io::save(model, &weights)?;
    io::write_atomically(options.out.join("classes.txt"), (classes.join("\n") + "\n").as_bytes())?;
    let preset = if is_small(options) { Preset::cifar10() } else { Preset::imagenet() };
    let preset = preset.resize_size(options.size).crop_size([options.size; 2]).classes(classes);
    preset.save(options.out.join(Preset::FILE_NAME))?;
    curves::curves(history, &options.out.join("curves.svg"))?;
    println!("written to {}: weights, preset, classes, history, curves, checkpoints", options.out.display());
    println!(
        "to predict: cargo run --release --features image --example predict -- --model {} --weights {} \
         PICTURE...",
        options.model,
        weights.display()
    );
    Ok(())
}
