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
//! The preprocessing and the names of the classes are those of `preset.json` in the folder of the
//! weights, which the examples cifar10 and finetune write. Without that file they follow from the
//! number of classes: 1000 are those of ImageNet, 10 and 100 those of CIFAR, with the names of
//! `classes.txt`, if it is there. `--preset`, `--classes`, `--resize` and `--mean` override this.
//!
//! Pictures are read one after the other, two at a time, so that there may be any number of them.
//! One that cannot be decoded is reported, and the others are classified.

mod sheet;

use clap::{Parser, ValueEnum};
use image::{DynamicImage, RgbImage};
use rayon::prelude::*;
use sheet::Cell;
use skipgrad::{
    Rng,
    data::{Normalize, Preset, SyntheticShapes, open_image, read_class_names_for},
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
    /// Dataset that the network was trained on; by default `preset.json` beside the weights says
    /// it, or the number of classes.
    #[arg(long, value_enum)]
    preset: Option<PresetName>,
    /// Text file with the name of one class per line; by default `preset.json` or `classes.txt` in
    /// the folder of the weights.
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

/// The number of pictures that are in memory at once.
const AT_ONCE: usize = 2;

/// The number of pictures that the sheet has room for.
const ON_SHEET: usize = 60;

fn run(options: &Options) -> Result<ExitCode, Box<dyn Error>> {
    let weights =
        options.weights.clone().or_else(|| Some(PathBuf::from(TRAINED)).filter(|path| path.exists()));
    let preset = preset(options, weights.as_deref())?;
    let classes = ModelOptions::classes(preset.classes.len()).channels(preset.num_channels());
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

    let pictures = pictures(options)?;
    let (mut cells, mut unreadable) = (vec![], 0);
    for some in pictures.chunks(AT_ONCE) {
        let opened: Vec<_> = some.par_iter().map(Picture::open).collect();
        for (picture, opened) in some.iter().zip(opened) {
            match opened {
                Ok(image) => cells.extend(classify(options, &predictor, picture, &image, cells.len())?),
                Err(error) => {
                    eprintln!("predict: {error}");
                    unreadable += 1;
                }
            }
        }
    }
    if !cells.is_empty() {
        write(&options.out, &sheet::svg(&cells, options.top)?)?;
        println!("\nwritten: {}", options.out.display());
    }
    Ok(if unreadable == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints the prediction for a picture, and returns its cell of the sheet, while there is room.
fn classify(
    options: &Options,
    predictor: &Predictor,
    picture: &Picture,
    image: &DynamicImage,
    cells: usize,
) -> Result<Option<Cell>, Box<dyn Error>> {
    let prediction = predictor.predict_one(image)?;
    let name = picture.name();
    println!("\n{name} ({} x {})", image.width(), image.height());
    for class in prediction.top_k(options.top) {
        let bar = "#".repeat((class.probability * 40.0).round() as usize);
        println!("  {:>5.1} %  {:<24} {bar}", 100.0 * class.probability, class.name);
    }
    if cells < ON_SHEET { Cell::new(name, image, prediction).map(Some) } else { Ok(None) }
}

/// Writes a file, and its folder if it is not there.
fn write(path: &Path, text: &str) -> skipgrad::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| skipgrad::Error::io(folder, "create", error))?;
    }
    io::write_atomically(path, text.as_bytes())
}

/// Returns the preset of the weights, with the changes of the options.
fn preset(options: &Options, weights: Option<&Path>) -> Result<Preset, Box<dyn Error>> {
    let named = options.preset.map(|name| match name {
        PresetName::Imagenet => Preset::imagenet(),
        PresetName::Cifar10 => Preset::cifar10(),
        PresetName::Cifar100 => Preset::cifar100(),
    });
    let mut preset = match (named, weights) {
        (Some(named), Some(path)) => match Preset::for_weights(path) {
            Ok(of_weights) => named.classes(of_weights.classes),
            Err(_) => named,
        },
        (Some(named), None) => named,
        // Names are given: their number need not be that of a known dataset.
        (None, Some(path)) if options.classes.is_some() => {
            Preset::for_weights(path).or_else(|_| WeightsFile::open(path).map(|_| Preset::imagenet()))?
        }
        (None, Some(path)) => Preset::for_weights(path)?,
        (None, None) => Preset::cifar10(),
    };
    if let Some(path) = &options.classes {
        preset.classes = match weights {
            Some(weights) => read_class_names_for(path, &WeightsFile::open(weights)?)?,
            None => skipgrad::data::read_class_names(path)?,
        };
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

/// A picture to classify.
enum Picture {
    File(PathBuf),
    /// A synthetic picture, and what it shows.
    Synthetic(String, DynamicImage),
}

impl Picture {
    fn name(&self) -> String {
        match self {
            Picture::File(path) => path.display().to_string(),
            Picture::Synthetic(name, _) => name.clone(),
        }
    }

    fn open(&self) -> skipgrad::Result<DynamicImage> {
        match self {
            Picture::File(path) => open_image(path),
            Picture::Synthetic(_, picture) => Ok(picture.clone()),
        }
    }
}

fn pictures(options: &Options) -> Result<Vec<Picture>, Box<dyn Error>> {
    if options.pictures.is_empty() {
        println!("no pictures named: drawing some");
        return drawn(6);
    }
    Ok(options.pictures.iter().cloned().map(Picture::File).collect())
}

/// Draws synthetic pictures of known classes.
fn drawn(count: usize) -> Result<Vec<Picture>, Box<dyn Error>> {
    let images = SyntheticShapes::with_sizes(0, count, 7)?.test();
    let picture = |i: usize| -> Result<Picture, Box<dyn Error>> {
        let bytes = images.images(i..i + 1)?.data().iter().map(|x| (x * 255.0).round() as u8).collect();
        let picture = RgbImage::from_raw(32, 32, bytes).ok_or("a synthetic image is 32 x 32")?;
        let class = &images.classes()[images.labels(i..i + 1)?[0]];
        Ok(Picture::Synthetic(format!("a synthetic {class}"), DynamicImage::ImageRgb8(picture)))
    };
    (0..count).map(picture).collect()
}
