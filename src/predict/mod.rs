//! Predictions: pictures in, names and probabilities out.
//!
//! ```
//! use skipgrad::{Rng, Tensor, data::Preset, models::ResNet, predict::Predictor};
//! let model = ResNet::cifar_paper(20, 10, &mut Rng::seed(0))?; // and io::load(&mut model, "weights.safetensors")?
//! let predictor = Predictor::new(model, Preset::cifar10())?;
//!
//! let picture = Tensor::full([50, 40, 3], 0.5)?; // with the feature `image` also paths and images of that crate
//! let predictions = predictor.predict([&picture])?;
//! println!("{}", predictions[0]); // truck 28.1 %, airplane 21.9 %, ...
//! assert_eq!(predictions[0].top(3).count(), 3);
//! assert!(predictions[0].best().probability > 0.1);
//! # Ok::<(), skipgrad::Error>(())
//! ```

mod picture;
mod prediction;

pub use picture::Picture;
pub use prediction::{ClassProbability, Prediction};

use crate::{Error, Result, Tensor, autograd::Tape, data::Preset, install, nn::Module};
use rayon::prelude::*;
use std::{fmt, sync::Arc};

/// A network that is done with training, and what it was trained on. Threads may share it.
///
/// It owns its network, so nothing that was folded and packed for evaluation is ever made again: for one picture that is done when
/// the predictor is made, for batches of several when the first of them comes. Logits are to the bit what the network gives for
/// such a batch in evaluation. (A larger batch may be convolved by another algorithm, so the same picture's logits in other
/// company can differ in the last digits.)
///
/// See [`predict`](self) for an example.
pub struct Predictor {
    model: Box<dyn Module>,
    preset: Preset,
    names: Arc<[String]>,
    batch: usize,
}

impl Predictor {
    /// Takes a network and what it was trained on, and has it see a black picture.
    ///
    /// # Errors
    /// [`Error::Argument`] if the network has not as many logits as the preset has names, [`Preset::check`]'s, and the network's for
    /// images of the preset's shape.
    ///
    /// ```
    /// use skipgrad::{Rng, data::Preset, models::ResNet, predict::Predictor};
    /// let model = ResNet::cifar_paper(20, 3, &mut Rng::seed(0))?;
    /// let error = Predictor::new(model.clone(), Preset::cifar10()).unwrap_err().to_string();
    /// assert_eq!(error, "predictor: classes: expected 3 names, one a logit, found 10");
    /// let classes = ["cat", "dog", "cow"].map(String::from).to_vec();
    /// assert!(Predictor::new(model, Preset { classes, ..Preset::cifar10() }).is_ok());
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn new(model: impl Module + 'static, preset: Preset) -> Result<Predictor> {
        preset.check()?;
        let names = preset.classes.clone().into();
        let predictor = Predictor { model: Box::new(model), preset, names, batch: 16 };
        let [height, width, channels] = predictor.preset.shape();
        predictor.logits(&Tensor::zeros([1, height, width, channels])?)?;
        Ok(predictor)
    }

    /// How many pictures go through the network at once; 16 if nothing is said.
    ///
    /// # Errors
    /// [`Error::Argument`] if none do.
    pub fn batch(self, size: usize) -> Result<Predictor> {
        match size {
            0 => Err(Error::argument("predictor", "batch", "at least 1", 0)),
            batch => Ok(Predictor { batch, ..self }),
        }
    }

    /// What the network was trained on.
    pub fn preset(&self) -> &Preset {
        &self.preset
    }

    /// The network.
    pub fn model(&self) -> &dyn Module {
        &*self.model
    }

    /// What the network takes pictures for, in their order. Pictures are read and resized in parallel, a batch at a time.
    ///
    /// # Errors
    /// The first picture's that cannot be read or does not fit; [`Error::Argument`] if a logit is not finite.
    ///
    /// ```
    /// # #[cfg(feature = "image")] {
    /// use skipgrad::{Rng, data::Preset, models::ResNet, predict::Predictor};
    /// # let path = std::env::temp_dir().join(format!("skipgrad-predict-{}.png", std::process::id()));
    /// # image::RgbImage::new(50, 40).save(&path).unwrap();
    /// let predictor = Predictor::new(ResNet::cifar_paper(20, 10, &mut Rng::seed(0))?, Preset::cifar10())?;
    /// let of_file = predictor.predict([&path])?;
    /// let of_image = predictor.predict([&image::DynamicImage::new_rgb8(50, 40)])?;
    /// assert_eq!(of_file[0].logits(), of_image[0].logits());
    /// # std::fs::remove_file(&path).unwrap();
    /// # }
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn predict<'a, P: Into<Picture<'a>>>(
        &self,
        pictures: impl IntoIterator<Item = P>,
    ) -> Result<Vec<Prediction>> {
        let pictures: Vec<Picture<'a>> = pictures.into_iter().map(Into::into).collect();
        let mut predictions = Vec::with_capacity(pictures.len());
        for pictures in pictures.chunks(self.batch) {
            let images: Vec<Result<Tensor>> =
                pictures.par_iter().map(|picture| picture.prepared(&self.preset)).collect();
            let logits = self.logits(&stacked(images.into_iter().collect::<Result<Vec<Tensor>>>()?)?)?;
            for row in logits.data().chunks_exact(self.names.len()) {
                if let Some(logit) = row.iter().find(|logit| !logit.is_finite()) {
                    let found = format!("{logit} for picture {}", predictions.len());
                    return Err(Error::argument("predict", "logits", "finite numbers", found));
                }
                predictions.push(Prediction::new(row.to_vec(), self.names.clone()));
            }
        }
        Ok(predictions)
    }

    /// The logits `[N, K]` of images that are as the preset makes them, `[N, H, W, C]`, all at once.
    ///
    /// # Errors
    /// The network's if the images do not fit, with the path of the layer.
    ///
    /// ```
    /// use skipgrad::{Rng, Tensor, data::Preset, models::ResNet, predict::Predictor};
    /// let predictor = Predictor::new(ResNet::cifar_paper(20, 10, &mut Rng::seed(0))?, Preset::cifar10())?;
    /// let picture = Tensor::full([50, 40, 3], 0.5)?;
    /// let image = predictor.preset().apply(&picture)?.reshape([1, 32, 32, 3])?;
    /// assert_eq!(predictor.logits(&image)?.data(), predictor.predict([&picture])?[0].logits());
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn logits(&self, images: &Tensor) -> Result<Tensor> {
        let logits =
            install(|| Tape::eval().input(images.clone()).apply(&self.model).map(|y| y.value().clone()))?;
        let classes = self.names.len();
        match logits.shape()[..] {
            [_, found] if found == classes => Ok(logits),
            [_, found] => {
                let expected = format!("{found} names, one a logit");
                Err(Error::argument("predictor", "classes", expected, classes))
            }
            _ => Err(Error::argument("predictor", "model", "logits [N, K]", logits.shape())),
        }
    }
}

/// Images of one shape `[H, W, C]`, at least one, as a batch.
fn stacked(images: Vec<Tensor>) -> Result<Tensor> {
    let [height, width, channels] = images[0].shape()[..] else {
        return Err(Error::argument("predict", "image", "[H, W, C]", images[0].shape()));
    };
    let mut batch = Tensor::zeros([images.len(), height, width, channels])?;
    for (to, image) in batch.data_mut().chunks_exact_mut(height * width * channels).zip(&images) {
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
