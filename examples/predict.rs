//! What is in these pictures? A table on the terminal, and a sheet of the pictures with the network's guesses.
//!
//! ```sh
//! cargo run --release --features image --example predict                      # drawn pictures: nothing needed
//! cargo run --release --features image --example predict -- cat.jpg dog.png   # by what the example cifar10 trained
//! cargo run --release --features image,pth --example predict -- --model resnet50 --weights resnet50.pth cat.jpg
//! ```
//!
//! The size and the colors that the network wants and the names of its classes follow from the number of its classes: 1000 are
//! ImageNet's, 10 and 100 CIFAR's; `--preset`, `--resize` and `--mean` say otherwise. Names are taken from `--classes`, or from a file
//! `classes.txt` beside the weights, as the examples cifar10 and finetune leave it. A picture that cannot be read is
//! reported, and the others are predicted.

use base64::prelude::{BASE64_STANDARD, Engine};
use clap::{Parser, ValueEnum};
use image::{DynamicImage, ImageFormat, RgbImage};
use skipgrad::{
    Rng,
    data::{Normalize, Preset, SyntheticShapes, open_image},
    io::{self, WeightsFile},
    models::{self, ModelOptions},
    predict::{Prediction, Predictor},
};
use std::{
    error::Error,
    fmt::Write as _,
    fs,
    io::Cursor,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Says what is in pictures.
#[derive(Parser)]
struct Options {
    /// PNG and JPEG files; without any, some are drawn.
    pictures: Vec<PathBuf>,
    /// The network, by name.
    #[arg(long, default_value = "resnet20")]
    model: String,
    /// Its weights: safetensors, or with the feature `pth` PyTorch's; without, what the example cifar10 left.
    #[arg(long)]
    weights: Option<PathBuf>,
    /// What the network was trained on; follows from the number of its classes where that is known.
    #[arg(long, value_enum)]
    preset: Option<PresetName>,
    /// The names of its classes, if they are others: a text file with one on each line. Without, `classes.txt` beside the weights.
    #[arg(long)]
    classes: Option<PathBuf>,
    /// The pixels that the shorter side becomes, and that are cut out, if they are others: `256,224`.
    #[arg(long, value_delimiter = ',', num_args = 1..=2)]
    resize: Vec<usize>,
    /// What is subtracted from pixels in [0, 1], for red, green and blue, if it is something else.
    #[arg(long, value_delimiter = ',', requires = "std")]
    mean: Vec<f32>,
    /// What they are then divided by.
    #[arg(long, value_delimiter = ',', requires = "mean")]
    std: Vec<f32>,
    /// How many classes are shown for each picture.
    #[arg(long, default_value_t = 5)]
    top: usize,
    /// Where the sheet is written.
    #[arg(long, default_value = "runs/predictions.svg")]
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum PresetName {
    Imagenet,
    Cifar10,
    Cifar100,
}

/// Where the example cifar10 leaves its weights.
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
            "NO WEIGHTS: this {} never saw a picture and its guesses mean nothing. --weights names a file; the example\n\
             cifar10 leaves one in {TRAINED}, which is taken if nothing is said.",
            options.model
        ),
    }
    let predictor = Predictor::new(model, preset)?;

    let (pictures, unreadable) = pictures(options)?;
    let predictions = predictor.predict(pictures.iter().map(|(_, picture)| picture))?;
    for ((name, picture), prediction) in pictures.iter().zip(&predictions) {
        println!("\n{name} ({} x {})", picture.width(), picture.height());
        for guess in prediction.top_k(options.top) {
            let bar = "#".repeat((guess.probability * 40.0).round() as usize);
            println!("  {:>5.1} %  {:<24} {bar}", 100.0 * guess.probability, guess.name);
        }
    }
    if !pictures.is_empty() {
        if let Some(folder) = options.out.parent() {
            fs::create_dir_all(folder)?;
        }
        io::write_atomically(&options.out, sheet(&pictures, &predictions, options.top)?.as_bytes())?;
        println!("\nwritten: {}", options.out.display());
    }
    Ok(if unreadable == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the network was trained on, as far as its weights tell, and as the options say.
fn preset(options: &Options, weights: Option<&Path>) -> Result<Preset, Box<dyn Error>> {
    let classes = match weights {
        Some(path) => outputs(&WeightsFile::open(path)?),
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
                "{classes} classes are neither ImageNet's nor CIFAR's: --classes names them"
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

/// The number of classes: the rows of the one matrix among a network's weights.
fn outputs(file: &WeightsFile) -> Option<usize> {
    let mut matrices = file.iter().filter(|(name, shape)| name.ends_with("weight") && shape.rank() == 2);
    matrices.next().map(|(_, shape)| shape[0])
}

/// The pictures that can be read, each with a name, and how many cannot.
type Pictures = (Vec<(String, DynamicImage)>, usize);

fn pictures(options: &Options) -> Result<Pictures, Box<dyn Error>> {
    if options.pictures.is_empty() {
        println!("no pictures named: some are drawn");
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

/// Pictures of known classes that the library draws.
fn drawn(count: usize) -> Result<Vec<(String, DynamicImage)>, Box<dyn Error>> {
    let images = SyntheticShapes::with_sizes(0, count, 7)?.test();
    let picture = |i: usize| -> Result<(String, DynamicImage), Box<dyn Error>> {
        let bytes = images.images(i..i + 1)?.data().iter().map(|x| (x * 255.0).round() as u8).collect();
        let picture = RgbImage::from_raw(32, 32, bytes).ok_or("a drawn image is 32 x 32")?;
        let class = &images.classes()[images.labels(i..i + 1)?[0]];
        Ok((format!("a drawn {class}"), DynamicImage::ImageRgb8(picture)))
    };
    (0..count).map(picture).collect()
}

/// The edge that a picture is scaled into, and the width of a cell of the sheet, in screen pixels.
const EDGE: u32 = 220;
const CELL: u32 = 300;

/// The pictures three in a row, each with bars for its likeliest classes below.
fn sheet(
    pictures: &[(String, DynamicImage)],
    predictions: &[Prediction],
    top: usize,
) -> Result<String, Box<dyn Error>> {
    let columns = pictures.len().clamp(1, 3) as u32;
    let height = EDGE + 50 + 20 * top as u32;
    let rows = (pictures.len() as u32).div_ceil(columns);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        columns * CELL,
        rows * height
    );
    for (i, ((name, picture), prediction)) in (0..).zip(pictures.iter().zip(predictions)) {
        let (left, y) = (i % columns * CELL + 12, i / columns * height + 10);
        let side = picture.width().max(picture.height());
        let mut png = Cursor::new(vec![]);
        let thumbnail =
            if side <= 2 * EDGE { picture.clone() } else { picture.thumbnail(2 * EDGE, 2 * EDGE) };
        thumbnail.to_rgb8().write_to(&mut png, ImageFormat::Png)?;
        let rendering = if side <= 64 { "pixelated" } else { "auto" };
        writeln!(
            svg,
            "<image x=\"{left}\" y=\"{y}\" width=\"{EDGE}\" height=\"{EDGE}\" preserveAspectRatio=\"xMinYMid\" \
             style=\"image-rendering:{rendering}\" href=\"data:image/png;base64,{}\"/>",
            BASE64_STANDARD.encode(png.into_inner())
        )?;
        let title =
            escaped(Path::new(name).file_name().map_or(name.into(), |name| name.to_string_lossy()).as_ref());
        writeln!(svg, "<text x=\"{left}\" y=\"{}\" fill=\"#666\">{title}</text>", y + EDGE + 17)?;
        for (row, guess) in (0..).zip(prediction.top_k(top)) {
            let y = y + EDGE + 24 + 20 * row;
            let width = (guess.probability * (CELL - 24) as f32).max(1.0);
            let label = escaped(&format!("{:.1} % {}", 100.0 * guess.probability, guess.name));
            writeln!(
                svg,
                "<rect x=\"{left}\" y=\"{y}\" width=\"{width:.1}\" height=\"18\" fill=\"#9cf\"/>\
                 <text x=\"{}\" y=\"{}\">{label}</text>",
                left + 4,
                y + 14
            )?;
        }
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
