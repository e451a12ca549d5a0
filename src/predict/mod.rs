//! Prediction: a trained network classifies images of any size.
//!
//! ```
//! use skipgrad::{Rng, Tensor, data::Preset, models::ResNet, predict::Predictor};
//! let model = ResNet::cifar_paper(20, 10, &mut Rng::seed(0))?; // then io::load(&mut model, path)?
//! let predictor = Predictor::new(model, Preset::cifar10())?;
//!
//! // With the feature `image`, `predict` also accepts paths and images of the crate `image`.
//! let image = Tensor::full([50, 40, 3], 0.5)?;
//! let predictions = predictor.predict([&image])?;
//! println!("{}", predictions[0]); // truck 28.1 %, airplane 21.9 %, ...
//! assert_eq!(predictions[0].top_k(3).count(), 3);
//! assert!(predictions[0].best().probability > 0.1);
//! # Ok::<(), skipgrad::Error>(())
//! ```

mod image_source;
mod prediction;

pub use image_source::ImageSource;
pub use prediction::{ClassProbability, Prediction};

use crate::{Error, Result, Tensor, autograd::Tape, data::Preset, install, nn::Module};
use rayon::prelude::*;
use std::{fmt, sync::Arc};

/// A trained network with its preset, which classifies images; threads can share it.
///
/// The predictor owns the network, so weights are folded and packed for evaluation only once: for
/// batches of one image when the predictor is created, for larger batches at the first of them. The
/// logits equal, to the bit, those of the network for the same batch in evaluation. (A batch of
/// another size may use another convolution algorithm, which can change the last digits of the
/// logits of an image.)
///
/// See [`predict`](self) for an example.
pub struct Predictor {
    model: Box<dyn Module>,
    preset: Preset,
    names: Arc<[String]>,
    batch_size: usize,
}

impl Predictor {
    /// Creates a predictor and runs the network once, on a black image.
    ///
    /// # Errors
    /// [`Error::Argument`] if the number of logits is not the number of class names of the preset,
    /// the errors of [`Preset::check`], and the errors of the network for an image of the preset's
    /// shape.
    ///
    /// ```
    /// use skipgrad::{Rng, data::Preset, models::ResNet, predict::Predictor};
    /// let model = ResNet::cifar_paper(20, 3, &mut Rng::seed(0))?;
    /// let error = Predictor::new(model.clone(), Preset::cifar10()).unwrap_err().to_string();
    /// assert_eq!(error, "predictor: classes: expected 3 names, one per logit, found 10");
    /// let preset = Preset::cifar10().classes(["cat", "dog", "cow"]);
    /// assert!(Predictor::new(model, preset).is_ok());
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn new(model: impl Module + 'static, preset: Preset) -> Result<Predictor> {
        preset.check()?;
        let names = preset.classes.clone().into();
        let predictor = Predictor { model: Box::new(model), preset, names, batch_size: 16 };
        let [height, width, channels] = predictor.preset.shape();
        predictor.logits(&Tensor::zeros([1, height, width, channels])?)?;
        Ok(predictor)
    }

    /// Sets how many images [`Predictor::predict`] passes through the network at once, at least 1.
    /// The default is 16.
    #[must_use]
    pub fn batch_size(self, batch_size: usize) -> Predictor {
        Predictor { batch_size, ..self }
    }

    /// Returns the preset that images are prepared with.
    pub fn preset(&self) -> &Preset {
        &self.preset
    }

    /// Returns the network.
    pub fn model(&self) -> &dyn Module {
        &*self.model
    }

    /// Returns a prediction for each image, in the same order. The images of a batch are read and
    /// resized in parallel.
    ///
    /// # Errors
    /// The error of the first image that cannot be read or does not fit, and [`Error::Argument`] if
    /// a logit is not finite or the batch size is 0.
    ///
    /// ```
    /// # #[cfg(feature = "image")] {
    /// use skipgrad::{Rng, data::Preset, models::ResNet, predict::Predictor};
    /// # let file = format!("skipgrad-predict-{}.png", std::process::id());
    /// # let path = std::env::temp_dir().join(file);
    /// # image::RgbImage::new(50, 40).save(&path).unwrap();
    /// let model = ResNet::cifar_paper(20, 10, &mut Rng::seed(0))?;
    /// let predictor = Predictor::new(model, Preset::cifar10())?;
    /// let from_file = predictor.predict([&path])?;
    /// let from_image = predictor.predict([&image::DynamicImage::new_rgb8(50, 40)])?;
    /// assert_eq!(from_file[0].logits(), from_image[0].logits());
    /// # std::fs::remove_file(&path).unwrap();
    /// # }
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn predict<'a, S: Into<ImageSource<'a>>>(
        &self,
        images: impl IntoIterator<Item = S>,
    ) -> Result<Vec<Prediction>> {
        if self.batch_size == 0 {
            return Err(Error::argument("predictor", "batch_size", "at least 1", 0));
        }
        let sources: Vec<ImageSource<'a>> = images.into_iter().map(Into::into).collect();
        let mut predictions = Vec::with_capacity(sources.len());
        for sources in sources.chunks(self.batch_size) {
            let images: Vec<Result<Tensor>> =
                sources.par_iter().map(|source| source.prepare(&self.preset)).collect();
            let logits = self.logits(&stack(&images.into_iter().collect::<Result<Vec<Tensor>>>()?)?)?;
            for row in logits.data().chunks_exact(self.names.len()) {
                if let Some(logit) = row.iter().find(|logit| !logit.is_finite()) {
                    let found = format!("{logit} for image {}", predictions.len());
                    return Err(Error::argument("predict", "logits", "finite numbers", found));
                }
                predictions.push(Prediction::new(row.to_vec(), self.names.clone()));
            }
        }
        Ok(predictions)
    }

    /// Computes the logits `[N, K]` of images `[N, H, W, C]` that the preset prepared, in one
    /// batch.
    ///
    /// # Errors
    /// The error of the network if the images do not fit, with the path of the layer.
    ///
    /// ```
    /// use skipgrad::{Rng, Tensor, data::Preset, models::ResNet, predict::Predictor};
    /// let model = ResNet::cifar_paper(20, 10, &mut Rng::seed(0))?;
    /// let predictor = Predictor::new(model, Preset::cifar10())?;
    /// let image = Tensor::full([50, 40, 3], 0.5)?;
    /// let input = predictor.preset().apply(&image)?.reshape([1, 32, 32, 3])?;
    /// assert_eq!(predictor.logits(&input)?.data(), predictor.predict([&image])?[0].logits());
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn logits(&self, images: &Tensor) -> Result<Tensor> {
        let logits =
            install(|| Tape::eval().input(images.clone()).apply(&self.model).map(|y| y.value().clone()))?;
        let classes = self.names.len();
        match logits.shape()[..] {
            [_, found] if found == classes => Ok(logits),
            [_, found] => {
                let expected = format!("{found} names, one per logit");
                Err(Error::argument("predictor", "classes", expected, classes))
            }
            _ => Err(Error::argument("predictor", "model", "logits [N, K]", logits.shape())),
        }
    }
}

/// Stacks images of one shape `[H, W, C]`, of which there is at least one, to a batch `[N, H, W,
/// C]`.
fn stack(images: &[Tensor]) -> Result<Tensor> {
    let [height, width, channels] = images[0].shape()[..] else {
        return Err(Error::argument("predict", "image", "[H, W, C]", images[0].shape()));
    };
    let mut batch = Tensor::zeros([images.len(), height, width, channels])?;
    for (to, image) in batch.data_mut().chunks_exact_mut(height * width * channels).zip(images) {
        to.copy_from_slice(image.data());
    }
    Ok(batch)
}

impl fmt::Debug for Predictor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shape, classes) = (self.preset.shape(), self.names.len());
        f.debug_struct("Predictor").field("images", &shape).field("classes", &classes).finish()
    }
}
