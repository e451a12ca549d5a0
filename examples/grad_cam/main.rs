//! Grad-CAM: heat maps of the image regions that a network's prediction depends on (Selvaraju et
//! al. 2017, "Grad-CAM: visual explanations from deep networks via gradient-based localization").
//!
//! ```sh
//! # Without arguments it explains the weights that the example cifar10 wrote, if there are any,
//! # and otherwise trains on synthetic images first, for two or three minutes.
//! cargo run --release --example grad_cam
//! cargo run --release --example grad_cam -- --model resnet18_cifar --layer layer4 \
//!     --weights resnet18.safetensors --data cifar-10-batches-bin
//! ```
//!
//! For each of the first test images it writes a picture to `--out`: the image, and next to it the
//! image under the heat map of the predicted class, from blue (no influence) to red. It also
//! measures whether the maps are faithful: the probability of the predicted class should fall more
//! when the hottest quarter of the pixels is painted over than when the coldest quarter is. Before
//! that it measures whether the network has learned, since nothing explains one that guesses.

mod picture;
mod training;

use clap::Parser;
use skipgrad::{
    autograd::{State, StateMut},
    data::{Cifar10, Normalize, Preset, SyntheticShapes, Transform},
    graph::{HeatMap, grad_cam},
    io, models,
    prelude::*,
};
use std::{fs, path::PathBuf, process::ExitCode};

/// Draws Grad-CAM heat maps of a network, for test images of CIFAR-10 or for synthetic images.
#[derive(Parser)]
struct Options {
    /// Name of the network.
    #[arg(long, default_value = "resnet20")]
    model: String,
    /// Weights; by default those that the example cifar10 wrote for a ResNet-20 and the same
    /// classes, if there are any.
    /// Without weights the network is trained first.
    #[arg(long)]
    weights: Option<PathBuf>,
    /// Train the network first, even if there are weights.
    #[arg(long, conflicts_with = "weights")]
    train: bool,
    /// Folder of CIFAR-10's binary version; by default synthetic images are used.
    #[arg(long, env = "SKIPGRAD_CIFAR10")]
    data: Option<PathBuf>,
    /// Number of epochs of the training.
    #[arg(long, default_value_t = 6)]
    epochs: u64,
    /// Seed of the training's random numbers.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Module whose feature maps are weighted, usually the last one before the pooling. Earlier
    /// ones have more pixels and less specific features.
    #[arg(long, default_value = "layer3")]
    layer: String,
    /// Number of test images.
    #[arg(long, default_value_t = 10)]
    images: usize,
    /// Output folder.
    #[arg(long, default_value = "runs/grad_cam")]
    out: PathBuf,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("grad_cam: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn std::error::Error>> {
    let (train, test) = match &options.data {
        Some(folder) => {
            let data = Cifar10::open(folder)?;
            (data.train(), data.test())
        }
        None => {
            let data = SyntheticShapes::new(0);
            (data.train(), data.test())
        }
    };
    let normalize = Normalize::cifar10();
    let mut model = models::build(&options.model, &ModelOptions::classes(10), &mut Rng::seed(options.seed))?;
    if !load(options, &mut model, test.classes())? {
        training::train(&mut model, train, &normalize, [options.epochs, options.seed])?;
    }
    training::report(&model, &test, &normalize)?;
    // With all parameters frozen, the tape records only from the captured feature maps on.
    model.visit_mut("", &mut |_, slot| {
        if let StateMut::Param(param) = slot {
            param.set_trainable(false);
        }
    });

    let test = test.take(options.images);
    let pixels = test.images(0..test.len())?;
    let [height, width, channels] = test.image_shape();
    let images = normalized(&pixels, &normalize)?;
    let maps = grad_cam(&model, &images, &options.layer, None)?;
    fs::create_dir_all(&options.out).map_err(|error| Error::io(&options.out, "create", error))?;
    let (labels, names) = (test.labels(0..test.len())?, test.classes());
    let size = height * width * channels;
    for (i, (map, image)) in maps.iter().zip(pixels.data().chunks(size)).enumerate() {
        let path = options.out.join(format!("{i:02}-{}.png", names[labels[i]]));
        io::write_atomically(&path, &picture::png(image, [height, width], map)?)?;
        let (prediction, truth) = (&names[map.class], &names[labels[i]]);
        let note = if prediction == truth { String::new() } else { format!(", but it is {truth}") };
        println!("{}: {prediction} ({:.0} %){note}", path.display(), 100.0 * map.probability);
    }
    let [hot, cold] = [true, false].map(|hottest| painted(&pixels, [height, width], &maps, hottest));
    let [hot, cold] = [
        mean_probability(&model, &normalized(&hot?, &normalize)?, &maps)?,
        mean_probability(&model, &normalized(&cold?, &normalize)?, &maps)?,
    ];
    let whole = maps.iter().map(|map| map.probability).sum::<f32>() / maps.len().max(1) as f32;
    println!(
        "mean probability of the predicted class: {whole:.3}; {hot:.3} without the hottest quarter of the \
         pixels, {cold:.3} without the coldest"
    );
    Ok(())
}

/// The weights that the example cifar10 writes by default, of a ResNet-20.
const TRAINED: &str = "runs/cifar10/weights.safetensors";

/// Loads the weights that the options name, or those of the example cifar10 if they are for the
/// same classes; returns whether there are any.
fn load(options: &Options, model: &mut Box<dyn Model>, classes: &[String]) -> Result<bool> {
    let path = match &options.weights {
        Some(path) => path.clone(),
        None => {
            let written = PathBuf::from(TRAINED);
            let fits = !options.train
                && options.model == "resnet20"
                && written.exists()
                && Preset::for_weights(&written).is_ok_and(|preset| preset.classes == classes);
            if !fits {
                return Ok(false);
            }
            written
        }
    };
    match io::load(model, &path) {
        Ok(_) => {
            println!("{} with the weights of {}", options.model, path.display());
            Ok(true)
        }
        Err(error) if options.weights.is_none() => {
            println!("training, because these weights do not fit: {error}");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Paints the hottest or the coldest quarter of the pixels of each image in the image's mean color.
fn painted(pixels: &Tensor, [height, width]: [usize; 2], maps: &[HeatMap], hottest: bool) -> Result<Tensor> {
    let (mut painted, channels) = (pixels.clone(), pixels.shape().num_channels());
    let area = height * width;
    for (image, map) in painted.data_mut().chunks_mut(area * channels).zip(maps) {
        let heat = map.resized([height, width]);
        let mut order: Vec<usize> = (0..area).collect();
        order.sort_by(|&a, &b| heat[b].total_cmp(&heat[a]));
        if !hottest {
            order.reverse();
        }
        let mean = |c: usize| image.iter().skip(c).step_by(channels).sum::<f32>() / area as f32;
        let mean: Vec<f32> = (0..channels).map(mean).collect();
        for &pixel in &order[..area / 4] {
            image[pixel * channels..][..channels].copy_from_slice(&mean);
        }
    }
    Ok(painted)
}

/// Computes the mean probability of the classes that were predicted before.
fn mean_probability(model: &dyn Model, images: &Tensor, maps: &[HeatMap]) -> Result<f32> {
    let tape = Tape::eval();
    let probabilities = model.forward(&tape.input(images.clone()))?.softmax()?;
    let rows = probabilities.value().data().chunks(probabilities.shape().num_channels());
    Ok(rows.zip(maps).map(|(row, map)| row[map.class]).sum::<f32>() / maps.len().max(1) as f32)
}

/// Normalizes the images as the network expects them.
fn normalized(pixels: &Tensor, normalize: &Normalize) -> Result<Tensor> {
    let [_, height, width, channels] = pixels.shape()[..] else {
        return Err(Error::argument("grad_cam", "images", "[N, H, W, C]", pixels.shape()));
    };
    let mut images = pixels.clone();
    for image in images.data_mut().chunks_mut((height * width * channels).max(1)) {
        normalize.apply(image, [height, width, channels], &mut Rng::seed(0));
    }
    Ok(images)
}
