//! Classifies pictures: prints a table, and draws a sheet of the pictures with their likeliest
//! classes.
//!
//! ```sh
//! # Without arguments it classifies synthetic pictures; nothing else is needed.
//! cargo run --release --features image --example predict
//! # With the weights that the example cifar10 wrote:
//! cargo run --release --features image --example predict -- cat.jpg dog.png
//! cargo run --release --features image,pth --example predict -- \
//!     --model resnet50 --weights resnet50.pth cat.jpg
//! ```
//!
//! The preprocessing and the names of the classes follow from the number of classes: 1000 are those
//! of ImageNet, 10 and 100 those of CIFAR. `--preset`, `--resize` and `--mean` override this. The
//! names are read from `--classes`, or from the file `classes.txt` in the folder of the weights,
//! which the examples cifar10 and finetune write. A picture that cannot be decoded is reported, and
//! the others are classified.

mod sheet;

use clap::{Parser, ValueEnum};
use image::{DynamicImage, RgbImage};
use skipgrad::{
    Rng,
    data::{Normalize, Preset, SyntheticShapes, open_image},
    io::{self, WeightsFile},
    models::{self, ModelOptions},
    predict::Predictor,
};
use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Classifies pictures.
#[derive(Parser)]
struct Options {
    /// PNG and JPEG files; if none is given, some pictures are drawn.
    pictures: Vec<PathBuf>,
    /// Name of the network.
    #[arg(long, default_value = "resnet20")]
    model: String,
    /// Weights: safetensors, or with the feature `pth` a PyTorch file; by default those that the
    /// example cifar10 wrote.
    #[arg(long)]
    weights: Option<PathBuf>,
    /// Dataset that the network was trained on; by default it follows from the number of classes.
    #[arg(long, value_enum)]
    preset: Option<PresetName>,
    /// Text file with the name of one class per line; by default `classes.txt` in the folder of the
    /// weights, if it exists.
    #[arg(long)]
    classes: Option<PathBuf>,
    /// Size of the shorter side after resizing, and of the center crop, in pixels: `256,224`.
    #[arg(long, value_delimiter = ',', num_args = 1..=2)]
    resize: Vec<usize>,
    /// Means of red, green and blue, subtracted from pixels in [0, 1].
    #[arg(long, value_delimiter = ',', requires = "std")]
    mean: Vec<f32>,
    /// Standard deviations of red, green and blue.
    #[arg(long, value_delimiter = ',', requires = "mean")]
    std: Vec<f32>,
    /// Number of classes shown for each picture.
    #[arg(long, default_value_t = 5)]
    top: usize,
    /// Path of the sheet.
    #[arg(long, default_value = "runs/predictions.svg")]
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum PresetName {
    Imagenet,
    Cifar10,
    Cifar100,
}

/// The weights that the example cifar10 writes.
const TRAINED: &str = "runs/cifar10/weights.safetensors";

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("predict: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let weights =
        options.weights.clone().or_else(|| Some(PathBuf::from(TRAINED)).filter(|path| path.exists()));
    let preset = preset(options, weights.as_deref())?;
    let classes = ModelOptions::classes(preset.classes.len());
    let mut model = models::build(&options.model, &classes, &mut Rng::seed(0))?;
    match &weights {
        Some(path) => {
            io::load(&mut model, path)?;
            println!("{} with the weights of {}", options.model, path.display());
        }
        None => println!(
            "NO WEIGHTS: this {} is untrained, and its predictions mean nothing. --weights names a file of\n\
             weights; by default it is {TRAINED}, which the example cifar10 writes.",
            options.model
        ),
    }
    let predictor = Predictor::new(model, preset)?;

    let (pictures, unreadable) = pictures(options)?;
    let predictions = predictor.predict(pictures.iter().map(|(_, picture)| picture))?;
    for ((name, picture), prediction) in pictures.iter().zip(&predictions) {
        println!("\n{name} ({} x {})", picture.width(), picture.height());
        for class in prediction.top_k(options.top) {
            let bar = "#".repeat((class.probability * 40.0).round() as usize);
            println!("  {:>5.1} %  {:<24} {bar}", 100.0 * class.probability, class.name);
        }
    }
    if !pictures.is_empty() {
        if let Some(folder) = options.out.parent() {
            fs::create_dir_all(folder)?;
        }
        let svg = sheet::svg(&pictures, &predictions, options.top)?;
        io::write_atomically(&options.out, svg.as_bytes())?;
        println!("\nwritten: {}", options.out.display());
    }
    Ok(if unreadable == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The preset that follows from the number of classes in the weights, with the changes of the
/// options.
fn preset(options: &Options, weights: Option<&Path>) -> Result<Preset, Box<dyn Error>> {
    let classes = match weights {
        Some(path) => num_classes(&WeightsFile::open(path)?),
        None => None,
    };
    let beside = weights.map(|path| path.with_file_name("classes.txt")).filter(|path| path.exists());
    let names = options.classes.clone().or(beside);
    let mut preset = match (options.preset, classes) {
        (Some(PresetName::Imagenet), _) | (None, Some(1000)) => Preset::imagenet(),
        (Some(PresetName::Cifar100), _) | (None, Some(100)) => Preset::cifar100(),
        (Some(PresetName::Cifar10), _) | (None, None | Some(10)) => Preset::cifar10(),
        (None, Some(_)) if names.is_some() => Preset::imagenet(),
        (None, Some(classes)) => {
            return Err(format!(
                "{classes} classes are neither ImageNet's nor CIFAR's: name them with --classes"
            )
            .into());
        }
    };
    if let Some(path) = names {
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        preset.classes = text.lines().map(String::from).collect();
    }
    if let [resize, ref crop @ ..] = options.resize[..] {
        preset.resize_size = resize;
        preset.crop_size = [crop.first().copied().unwrap_or(resize); 2];
    }
    if !options.mean.is_empty() {
        preset.normalize = Normalize::new(&options.mean[..], &options.std[..]);
    }
    Ok(preset)
}

/// The number of classes: the rows of the first weight matrix in the file.
fn num_classes(file: &WeightsFile) -> Option<usize> {
    let mut matrices = file.iter().filter(|(name, shape)| name.ends_with("weight") && shape.rank() == 2);
    matrices.next().map(|(_, shape)| shape[0])
}

/// The decoded pictures, each with a name, and the number of pictures that could not be decoded.
type Pictures = (Vec<(String, DynamicImage)>, usize);

fn pictures(options: &Options) -> Result<Pictures, Box<dyn Error>> {
    if options.pictures.is_empty() {
        println!("no pictures named: drawing some");
        return Ok((drawn(6)?, 0));
    }
    let mut readable = vec![];
    for path in &options.pictures {
        match open_image(path) {
            Ok(picture) => readable.push((path.display().to_string(), picture)),
            Err(error) => eprintln!("predict: {error}"),
        }
    }
    let unreadable = options.pictures.len() - readable.len();
    Ok((readable, unreadable))
}

/// Draws synthetic pictures of known classes.
fn drawn(count: usize) -> Result<Vec<(String, DynamicImage)>, Box<dyn Error>> {
    let images = SyntheticShapes::with_sizes(0, count, 7)?.test();
    let picture = |i: usize| -> Result<(String, DynamicImage), Box<dyn Error>> {
        let bytes = images.images(i..i + 1)?.data().iter().map(|x| (x * 255.0).round() as u8).collect();
        let picture = RgbImage::from_raw(32, 32, bytes).ok_or("a synthetic image is 32 x 32")?;
        let class = &images.classes()[images.labels(i..i + 1)?[0]];
        Ok((format!("a synthetic {class}"), DynamicImage::ImageRgb8(picture)))
    };
    (0..count).map(picture).collect()
}
