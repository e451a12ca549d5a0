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
//! rate. The pretrained layers are trained at a tenth of it. `--head-only` leaves all of them as
//! they are, running statistics too; `--freeze` freezes some of their parameters. Ctrl-C finishes
//! the step and writes a checkpoint, and the same command with `--resume` continues. A part of the
//! pictures is used for evaluation only, unless the folder has parts such as `train` and `val` or
//! `test`, by any of their usual names. Files that are no pictures are listed at the start, and
//! pictures that cannot be decoded at the end.
//! The folder `--out` receives the weights, the names of the classes, a report of the training as a
//! web page, the history and its curves; the last lines of the output show how to predict.

mod pictures;
#[path = "../common/progress.rs"]
mod progress;
#[path = "../common/training.rs"]
mod training;

use clap::Parser;
use skipgrad::{
    Rng,
    autograd::{NamedTensors, State as _, StateRef},
    data::{
        Compose, Dataset as _, ImageFolder, Loader, Normalize, Preset, RandomHorizontalFlip,
        RandomResizedCrop,
    },
    io::{self, LoadOptions},
    models::{self, Model, ModelOptions},
    optim::{Group, Sgd},
    report::{self, Report},
    train::History,
};
use std::{collections::BTreeMap, error::Error, path::PathBuf, process::ExitCode};
use training::{Recipe, Session};

/// Fine-tunes a network on a folder of pictures.
#[derive(Parser)]
struct Options {
    /// Folder with one subfolder per class, or with parts (`train`, `val`) that have these; if it
    /// is not given, a folder is drawn.
    data: Option<PathBuf>,
    /// Name of the network; resnet20 by default.
    #[arg(long)]
    model: Option<String>,
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
    /// Batch size.
    #[arg(long, default_value_t = 32)]
    batch: usize,
    #[command(flatten)]
    training: training::TrainingOptions,
    /// Factor of the learning rate for the pretrained layers.
    #[arg(long, default_value_t = 0.1)]
    lr_scale: f32,
    /// Pretrained parameters to freeze: `conv1.*`, `layer1.*`. May be repeated. Running statistics
    /// go on to change; see --freeze-statistics.
    #[arg(long)]
    freeze: Vec<String>,
    /// Train only the head, and leave everything else as it is, running statistics too.
    #[arg(long, conflicts_with = "freeze")]
    head_only: bool,
    /// Freeze the running statistics of batch normalizations.
    #[arg(long)]
    freeze_statistics: bool,
    /// Sort numbers in the names of classes by their value: 2 before 10.
    #[arg(long)]
    natural_order: bool,
    /// Stop at a picture that cannot be decoded.
    #[arg(long)]
    strict: bool,
    /// Output folder; the default is the first of runs/finetune, runs/finetune-2 and so on without
    /// a training or, with `--resume`, the last one with a training.
    #[arg(long, default_value = DEFAULT_OUT)]
    out: PathBuf,
}

/// What is trained unless the options say otherwise.
const RECIPE: Recipe = Recipe { epochs: 8, lr: 0.05, label_smoothing: 0.1 };

/// The weights that the example cifar10 writes.
const TRAINED: &str = "runs/cifar10/weights.safetensors";

/// The output folder of the first run.
const DEFAULT_OUT: &str = "runs/finetune";

fn main() -> ExitCode {
    let mut options = Options::parse();
    options.out = training::output_folder(&options.training, &options.out, DEFAULT_OUT);
    match run(&options) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("finetune: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let session = Session::open(&options.training, RECIPE, &options.out)?;
    let (train, test) = pictures::open(options, session.seed())?;
    println!(
        "{} classes: {}; {} training and {} test pictures",
        train.classes().len(),
        train.classes().join(", "),
        train.len(),
        test.len()
    );
    let (loader, evaluation) = loaders(options, session.seed(), &train, &test);

    let mut rng = Rng::seed(session.seed());
    let name = session.model(options.model.as_deref(), "resnet20");
    let mut model = models::build(&name, &ModelOptions::classes(train.classes().len()), &mut rng)?;
    let mut sgd =
        Sgd::new(RECIPE.lr).momentum(0.9).nesterov(true).weight_decay(1e-4).no_decay_on_norms_and_biases();
    let head = load(options, &name, &mut model)?;
    if let Some(head) = head.clone() {
        let pretrained = move |name: &str| !head.iter().any(|of_head| of_head == name);
        sgd = sgd.group(move |name, _| pretrained(name), Group::new().lr_scale(options.lr_scale));
    }
    let before = options.head_only.then(|| model.export());
    let diagnosis = session.diagnose(&mut model, &mut sgd, &loader)?;
    let Some(trainer) = session.train(&name, &mut model, &mut sgd, [&loader, &evaluation])? else {
        return Ok(ExitCode::from(130));
    };
    if let (Some(before), Some(head)) = (before, head) {
        check_backbone(&before, &model.export(), &head)?;
    }

    // The two parts of one folder share this list; two folders do not.
    let unreadable: BTreeMap<_, _> = train.unreadable().into_iter().chain(test.unreadable()).collect();
    for reason in unreadable.values() {
        println!("left out: {reason}");
    }
    println!("{} pictures could not be decoded", unreadable.len());
    write(options, &name, &*model, train.classes(), trainer.history())?;
    training::write_report(Report::new(&model, &trainer, &evaluation), diagnosis.as_ref(), &options.out)?;
    Ok(ExitCode::SUCCESS)
}

/// Checks that every tensor outside of the head has the same bits as before the training.
fn check_backbone(
    before: &NamedTensors,
    after: &NamedTensors,
    head: &[String],
) -> Result<(), Box<dyn Error>> {
    let backbone = || before.iter().filter(|(name, _)| !head.contains(name));
    match backbone().find(|(name, tensor)| after.get(*name) != Some(tensor)) {
        Some((name, _)) => Err(format!("{name} was to be frozen, and changed").into()),
        None => {
            println!("unchanged: the {} tensors outside of the head", backbone().count());
            Ok(())
        }
    }
}

/// Whether the network is one for CIFAR's image sizes, normalized with CIFAR's statistics.
fn is_small(options: &Options) -> bool {
    options.size <= 64
}

/// Builds the loaders of the training and of the test pictures.
fn loaders(options: &Options, seed: u64, train: &ImageFolder, test: &ImageFolder) -> (Loader, Loader) {
    let normalize = if is_small(options) { Normalize::cifar10() } else { Normalize::imagenet() };
    let crop = RandomResizedCrop::new().scale([0.5, 1.0]);
    let transform = Compose::new().then(crop).then(RandomHorizontalFlip).then(normalize);
    let batch = options.batch.min(train.len());
    let evaluation = Loader::new(test.clone(), batch).transform(transform.eval()).num_workers(2);
    let loader =
        Loader::new(train.clone(), batch).shuffle(seed).transform(transform).num_workers(2).drop_last(true);
    (loader, evaluation)
}

/// Loads pretrained weights, if there are any, and freezes layers as the options say. Returns the
/// names of the tensors of the new head.
fn load(
    options: &Options,
    name: &str,
    model: &mut Box<dyn Model>,
) -> Result<Option<Vec<String>>, Box<dyn Error>> {
    let trained = || Some(PathBuf::from(TRAINED)).filter(|path| path.exists() && name == "resnet20");
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
    println!("{name} with the weights of {}, and a new head: {}", weights.display(), head.join(", "));
    freeze(options, model, &head)?;
    Ok(Some(head))
}

/// Freezes layers as the options say.
fn freeze(options: &Options, model: &mut Box<dyn Model>, head: &[String]) -> Result<(), Box<dyn Error>> {
    if options.head_only {
        model.freeze("*")?;
        model.freeze_statistics("*")?;
        for name in head {
            model.thaw(name).or_else(|_| model.thaw_statistics(name))?;
        }
        println!("frozen: everything except the head");
        return Ok(());
    }
    for pattern in &options.freeze {
        let count = model.freeze(pattern)?;
        let mut of_head = vec![];
        model.visit("", &mut |name, slot| match slot {
            StateRef::Param(param) if !param.is_trainable() && head.iter().any(|of_head| of_head == name) => {
                of_head.push(name.to_string());
            }
            _ => {}
        });
        if !of_head.is_empty() {
            return Err(format!(
                "--freeze {pattern}: {} of the new head would stay random; name layers that the weights file has, or \
                 use --head-only to train nothing but the head",
                of_head.join(", ")
            )
            .into());
        }
        println!("frozen: {pattern}, {count} parameters");
    }
    if options.freeze_statistics {
        let count = model.freeze_statistics("*")?;
        println!("frozen: {count} running statistics");
    }
    Ok(())
}

/// Writes the weights, the names of the classes and the curves, and prints how to predict with
/// them.
fn write(
    options: &Options,
    name: &str,
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
    io::write_atomically(options.out.join("curves.svg"), report::curves_to_svg(history)?.as_bytes())?;
    println!("written to {}: weights, preset, classes, history, curves, checkpoints", options.out.display());
    println!(
        "to predict: cargo run --release --features image --example predict -- --model {name} --weights {} \
         PICTURE...",
        weights.display()
    );
    Ok(())
}
