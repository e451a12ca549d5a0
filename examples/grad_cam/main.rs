//! Where does a network look? Grad-CAM (Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via gradient-based
//! localization"), written over the images.
//!
//! ```sh
//! cargo run --release --example grad_cam          # trains on drawn images for a minute or two, nothing needed
//! cargo run --release --example cifar10           # or trains longer first, and then explains those weights
//! cargo run --release --example grad_cam -- --model resnet20 --weights runs/cifar10/weights.safetensors
//! ```
//!
//! For each of the first test images `--out` gets a picture: the image, and over it what spoke for the class that the network
//! chose, from blue (nothing) to red. Whether that says something about the network can be measured, and is: the class should
//! lose more when the places that are said to matter are painted over than when those that are said not to are.

mod picture;

use clap::Parser;
use skipgrad::{
    autograd::{State, StateMut},
    data::{
        Cifar10, Compose, Images, Loader, Normalize, RandomCrop, RandomHorizontalFlip, SyntheticShapes,
        Transform,
    },
    io, models,
    optim::Schedule,
    prelude::*,
};
use std::{fs, path::PathBuf, process::ExitCode};

/// Shows where a network looks, on CIFAR-10's test images or on those that the library draws.
#[derive(Parser)]
struct Options {
    /// The network, by name.
    #[arg(long, default_value = "resnet20")]
    model: String,
    /// Its weights; without them it is trained first.
    #[arg(long)]
    weights: Option<PathBuf>,
    /// The folder of CIFAR-10's binary version; without it, images are drawn.
    #[arg(long, env = "SKIPGRAD_CIFAR10")]
    data: Option<PathBuf>,
    /// Steps of training.
    #[arg(long, default_value_t = 250)]
    steps: usize,
    /// The module whose maps are weighed: the last with an extent, or an earlier one with more pixels and less meaning.
    #[arg(long, default_value = "layer3")]
    layer: String,
    /// How many test images are explained.
    #[arg(long, default_value_t = 10)]
    images: usize,
    /// Where the pictures go.
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
    let mut model = models::build(&options.model, &ModelOptions::classes(10), &mut Rng::seed(0))?;
    match &options.weights {
        Some(path) => drop(io::load(&mut model, path)?),
        None => learn(&mut model, train, &normalize, options.steps)?,
    }
    // Nothing is trained from here on; so a recording begins where maps are looked at.
    model.visit_mut("", &mut |_, slot| {
        if let StateMut::Param(param) = slot {
            param.set_trainable(false);
        }
    });

    let test = test.take(options.images);
    let pixels = test.images(0..test.len())?;
    let [height, width, channels] = test.image_shape();
    let images = normalized(&pixels, &normalize)?;
    let looks = grad_cam(&model, &images, &options.layer)?;
    fs::create_dir_all(&options.out)?;
    let (labels, names) = (test.labels(0..test.len())?, test.classes());
    let size = height * width * channels;
    for (i, (look, image)) in looks.iter().zip(pixels.data().chunks(size)).enumerate() {
        let path = options.out.join(format!("{i:02}-{}.png", names[labels[i]]));
        io::write_atomically(&path, &picture::png(image, [height, width], look)?)?;
        let (guess, truth) = (&names[look.class], &names[labels[i]]);
        let note = if guess == truth { String::new() } else { format!(", but it is {truth}") };
        println!("{}: {guess} ({:.0} %){note}", path.display(), 100.0 * look.probability);
    }
    let [hot, cold] = [true, false].map(|hottest| painted(&pixels, [height, width], &looks, hottest));
    let [hot, cold] = [
        mean_probability(&model, &normalized(&hot?, &normalize)?, &looks)?,
        mean_probability(&model, &normalized(&cold?, &normalize)?, &looks)?,
    ];
    let whole = looks.iter().map(|look| look.probability).sum::<f32>() / looks.len().max(1) as f32;
    println!(
        "mean probability of the chosen class: {whole:.3}; {hot:.3} without the hottest quarter of the pixels, {cold:.3} without \
         the coldest"
    );
    Ok(())
}

/// A short training.
fn learn(model: &mut Box<dyn Model>, train: Images, normalize: &Normalize, steps: usize) -> Result<()> {
    println!("no --weights: {steps} steps of training");
    let augment =
        Compose::new().then(RandomCrop::with_padding(4)).then(RandomHorizontalFlip).then(normalize.clone());
    let loader = Loader::new(train, 64).shuffle(0).transform(augment).drop_last(true);
    let schedule = Schedule::one_cycle(0.2, steps);
    let mut sgd = Sgd::new(0.2).momentum(0.9).weight_decay(5e-4).no_decay_on_norms_and_biases();
    let (mut step, mut epoch) = (0, 0);
    while step < steps {
        for batch in loader.epoch(epoch)?.take(steps - step) {
            let batch = batch?;
            sgd.set_lr(schedule.lr(step));
            let tape = Tape::train(Rng::seed(step as u64));
            let loss = model.forward(&tape.input(batch.images))?.cross_entropy(&batch.labels)?;
            if step % 25 == 0 {
                println!("step {step}: loss {:.3}", loss.item());
            }
            sgd.step(model, loss.backward()?)?;
            step += 1;
        }
        epoch += 1;
    }
    Ok(())
}

/// What spoke for the class that the network chose.
struct Look {
    class: usize,
    probability: f32,
    /// Rows and columns of the heat.
    size: [usize; 2],
    /// At least 0, at most 1.
    heat: Vec<f32>,
}

/// For each image, with maps A of a layer and the logit y of the class that the network chooses:
/// weights α[k] = mean over the pixels of ∂y / ∂A[k] (equation 1), heat = relu(Σ α[k] A[k]) (equation 2), over its largest value.
fn grad_cam(model: &dyn Model, images: &Tensor, layer: &str) -> Result<Vec<Look>> {
    let tape = Tape::eval().recording(true);
    let found = model.feature_maps(&tape.input(images.clone()), &[layer, ""])?;
    let (maps, logits) = (&found[0], &found[1]);
    let (classes, chosen) = (logits.shape().num_channels(), logits.argmax());
    // Images do not mix in evaluation: one sweep gives the gradients of all.
    let one_hot =
        Tensor::from_fn(logits.shape(), |i| f32::from(u8::from(chosen[i / classes] == i % classes)))?;
    let updates = logits.backward_from(one_hot)?;
    let gradients = updates
        .grad_of(maps)
        .ok_or_else(|| Error::argument("grad_cam", "layer", "one in front of the classes", layer))?;
    let [_, height, width, channels] = maps.shape()[..] else {
        return Err(Error::argument("grad_cam", "layer", "maps, [N, H, W, C]", maps.shape()));
    };
    let probabilities = logits.softmax()?;
    let size = height * width * channels;
    let of_image = |(i, (maps, gradients)): (usize, (&[f32], &[f32]))| {
        let mut weights = vec![0.0; channels];
        for pixel in gradients.chunks(channels) {
            weights.iter_mut().zip(pixel).for_each(|(w, g)| *w += g / (height * width) as f32);
        }
        let heat = |pixel: &[f32]| pixel.iter().zip(&weights).map(|(a, w)| a * w).sum::<f32>().max(0.0);
        let mut heat: Vec<f32> = maps.chunks(channels).map(heat).collect();
        let most = heat.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
        heat.iter_mut().for_each(|heat| *heat /= most);
        let class = chosen[i];
        let probability = probabilities.value().data()[i * classes + class];
        Look { class, probability, size: [height, width], heat }
    };
    let parts = maps.value().data().chunks(size).zip(gradients.data().chunks(size));
    Ok(parts.enumerate().map(of_image).collect())
}

/// The images with the hottest or the coldest quarter of their pixels in the image's mean color.
fn painted(pixels: &Tensor, [height, width]: [usize; 2], looks: &[Look], hottest: bool) -> Result<Tensor> {
    let (mut painted, channels) = (pixels.clone(), pixels.shape().num_channels());
    let area = height * width;
    for (image, look) in painted.data_mut().chunks_mut(area * channels).zip(looks) {
        let heat = picture::stretched(look, [height, width]);
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

/// The mean over the images of the probability of the class that was chosen before.
fn mean_probability(model: &dyn Model, images: &Tensor, looks: &[Look]) -> Result<f32> {
    let tape = Tape::eval();
    let probabilities = model.forward(&tape.input(images.clone()))?.softmax()?;
    let rows = probabilities.value().data().chunks(probabilities.shape().num_channels());
    Ok(rows.zip(looks).map(|(row, look)| row[look.class]).sum::<f32>() / looks.len().max(1) as f32)
}

/// As the network wants them.
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
