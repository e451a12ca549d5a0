//! Takes a trained network over to pictures of one's own, a folder a class.
//!
//! ```sh
//! cargo run --release --features image --example finetune                    # on a folder that it draws: nothing needed
//! cargo run --release --features image --example finetune -- pictures        # pictures/cat/1.jpg, pictures/dog/1.jpg, ...
//! cargo run --release --features image,pth --example finetune -- --model resnet50 --weights resnet50.pth --size 224 pictures
//! ```
//!
//! The network gets a new head for the folder's classes, which learns at the full rate; what was trained before learns at a tenth of
//! it, or not at all with `--head-only` or `--freeze`. A part of the pictures is kept to judge by, unless the folder has parts of its
//! own, `train` and `val` or `test`. Pictures that cannot be read are listed at the end. Left in `--out` are the weights, the names
//! of the classes, the history and its curves, and the last line says how to predict with them.

#[path = "common/curves.rs"]
mod curves;
#[path = "common/progress.rs"]
mod progress;

use clap::Parser;
use image::RgbImage;
use skipgrad::{
    Rng,
    autograd::State as _,
    data::{
        Compose, Dataset as _, ImageFolder, ImageFolderOptions, Loader, Normalize, RandomHorizontalFlip,
        RandomResizedCrop, SyntheticShapes,
    },
    io::{self, LoadOptions},
    models::{self, Model, ModelOptions},
    optim::{Group, Schedule, Sgd},
    train::{Event, Trainer, evaluate},
};
use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Fine-tunes a network on a folder of pictures.
#[derive(Parser)]
struct Options {
    /// The folder, with a folder for each class in it; without, one is drawn.
    data: Option<PathBuf>,
    /// The network, by name.
    #[arg(long, default_value = "resnet20")]
    model: String,
    /// Weights to begin with, of any number of classes; without, what the example cifar10 left.
    #[arg(long)]
    weights: Option<PathBuf>,
    /// The edge of the images that the network sees, in pixels.
    #[arg(long, default_value_t = 32)]
    size: usize,
    /// The part of each class that is learned from.
    #[arg(long, default_value_t = 0.8)]
    part: f32,
    /// How often the pictures are gone through.
    #[arg(long, default_value_t = 8)]
    epochs: usize,
    /// Images in a step.
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// The highest learning rate, the head's.
    #[arg(long, default_value_t = 0.05)]
    lr: f32,
    /// What it is multiplied by for what was trained before.
    #[arg(long, default_value_t = 0.1)]
    lr_scale: f32,
    /// Parameters that stay as they are: `conv1.*`, `layer1.*`. May be repeated.
    #[arg(long)]
    freeze: Vec<String>,
    /// Let the head learn and nothing else.
    #[arg(long, conflicts_with = "freeze")]
    head_only: bool,
    /// Let batch normalizations keep the statistics that they were trained with.
    #[arg(long)]
    freeze_statistics: bool,
    /// Stop at a picture that cannot be read.
    #[arg(long)]
    strict: bool,
    /// Where everything random comes from.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where to write.
    #[arg(long, default_value = "runs/finetune")]
    out: PathBuf,
}

/// Where the example cifar10 leaves its weights.
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
    let (train, test) = pictures(options)?;
    println!(
        "{} classes: {}; {} pictures to learn from, {} to judge by",
        train.classes().len(),
        train.classes().join(", "),
        train.len(),
        test.len()
    );
    // The small networks were trained on CIFAR's colors, the large ones on ImageNet's.
    let small = options.size <= 64;
    let normalize = if small { Normalize::cifar10() } else { Normalize::imagenet() };
    let crop = RandomResizedCrop::new().scale([0.5, 1.0]);
    let steps = Compose::new().then(crop).then(RandomHorizontalFlip).then(normalize);
    let batch = options.batch.min(train.len());
    let loader = Loader::new(train.clone(), batch)
        .shuffle(options.seed)
        .transform(steps.clone())
        .num_workers(2)
        .drop_last(true);
    let evaluation = Loader::new(test.clone(), batch).transform(steps.eval()).num_workers(2);

    let mut rng = Rng::seed(options.seed);
    let mut model = models::build(&options.model, &ModelOptions::classes(train.classes().len()), &mut rng)?;
    let mut sgd =
        Sgd::new(options.lr).momentum(0.9).nesterov(true).weight_decay(1e-4).no_decay_on_norms_and_biases();
    if let Some(head) = load(options, &mut model)? {
        let group = Group { lr_scale: options.lr_scale, ..Group::default() };
        sgd = sgd.group(move |name, _| !head.iter().any(|of_head| of_head == name), group);
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
    })?;
    progress.finish();

    // The parts of one folder share the list, two folders do not.
    let unreadable: BTreeMap<_, _> = train.unreadable().into_iter().chain(test.unreadable()).collect();
    for why in unreadable.values() {
        println!("left out: {why}");
    }
    println!("{} pictures could not be read", unreadable.len());
    let weights = options.out.join("weights.safetensors");
    let classes = options.out.join("classes.txt");
    io::save(&model, &weights)?;
    io::write_atomically(&classes, (train.classes().join("\n") + "\n").as_bytes())?;
    curves::curves(trainer.history(), &options.out.join("curves.svg"))?;
    println!("written to {}: weights, classes, history, curves, checkpoints", options.out.display());
    println!(
        "to predict: cargo run --release --features image --example predict -- --model {} --weights {} --preset {} --resize {} \
         PICTURE...",
        options.model,
        weights.display(),
        if small { "cifar10" } else { "imagenet" },
        options.size
    );
    let metrics = evaluate(&model, &evaluation)?;
    println!("test accuracy {:.4} ({}/{})", metrics.accuracy(), metrics.top1, metrics.images);
    Ok(())
}

/// Takes over what was trained, if there is something, and freezes what shall stay. Returns the names of the head's parameters, which
/// are new.
fn load(options: &Options, model: &mut Box<dyn Model>) -> Result<Option<Vec<String>>, Box<dyn Error>> {
    let trained = || Some(PathBuf::from(TRAINED)).filter(|path| path.exists() && options.model == "resnet20");
    let Some(weights) = options.weights.clone().or_else(trained) else {
        println!(
            "NO WEIGHTS: everything is learned from the folder alone. --weights names a file; the example cifar10 leaves one\n\
             in {TRAINED}, which is taken if nothing is said."
        );
        return match options.head_only || options.freeze_statistics || !options.freeze.is_empty() {
            true => Err("without weights there is nothing worth freezing".into()),
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

/// Pictures to learn from and to judge by.
fn pictures(options: &Options) -> Result<(ImageFolder, ImageFolder), Box<dyn Error>> {
    let root = match &options.data {
        Some(root) => root.clone(),
        None => {
            let root = options.out.join("pictures");
            println!("no folder named: drawing pictures into {}", root.display());
            draw(&root, options.seed)?;
            root
        }
    };
    let open = |folder: &Path| ImageFolderOptions::new(options.size).strict(options.strict).open(folder);
    let judged = ["val", "test"].map(|name| root.join(name)).into_iter().find(|folder| folder.is_dir());
    if let Some(judged) = judged.filter(|_| root.join("train").is_dir()) {
        let (train, test) = (open(&root.join("train"))?, open(&judged)?);
        if train.classes() != test.classes() {
            return Err(format!(
                "{} has other classes than {}",
                judged.display(),
                root.join("train").display()
            )
            .into());
        }
        return Ok((train, test));
    }
    Ok(open(&root)?.split(options.part, Rng::seed(options.seed))?)
}

/// The classes of the drawn folder, and how many pictures each has.
const CLASSES: [usize; 4] = [0, 3, 5, 8];
const EACH: usize = 100;

/// Draws pictures of some of the library's classes into folders, and writes a file that is no picture among them, as happens.
fn draw(root: &Path, seed: u64) -> Result<(), Box<dyn Error>> {
    let images = SyntheticShapes::with_sizes(10 * EACH, 0, seed ^ 1)?.train();
    for class in CLASSES {
        let folder = root.join(&images.classes()[class]);
        fs::create_dir_all(&folder)?;
        for i in (class..images.len()).step_by(10) {
            let bytes = images.images(i..i + 1)?.data().iter().map(|x| (x * 255.0).round() as u8).collect();
            let picture = RgbImage::from_raw(32, 32, bytes).ok_or("a drawn image is 32 x 32")?;
            picture.save(folder.join(format!("{i:04}.png")))?;
        }
    }
    fs::write(root.join(&images.classes()[CLASSES[0]]).join("broken.jpg"), "cut short on its way")?;
    Ok(())
}
