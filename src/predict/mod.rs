//! Prediction: a trained network classifies images of any size.
//!
//! ```
//! use skipgrad::{Rng, Tensor, data::Preset, models::ResNet, predict::Predictor};
//! let model = ResNet::cifar_paper(20, 10, &mut Rng::seed(0))?; // then io::load(&mut model, path)?
//! let predictor = Predictor::new(model, Preset::cifar10())?;
//!
//! // With the feature `image`, `predict` also accepts paths and images of the crate `image`.
//! let image = Tensor::full([50, 40, 3], 0.5)?;
//! let predictions = predictor.predict([&image])?; // or a path: predict_one("cat.jpg")
//! println!("{}", predictions[0]); // truck 28.1 %, airplane 21.9 %, ...
//! assert_eq!(predictions[0].top_k(3).count(), 3);
//! assert!(predictions[0].best().probability > 0.1);
//! # Ok::<(), skipgrad::Error>(())
//! ```

mod image_source;
mod prediction;

pub use image_source::ImageSource;
pub use prediction::{ClassProbability, Prediction};

use crate::{
    Error, Result, Tensor,
    data::Preset,
    inference::{InferenceModel, InferenceOptions},
    nn::Module,
};
use rayon::prelude::*;
use std::{collections::VecDeque, fmt, iter, sync::Arc};

/// The number of bytes that the images which are read at the same time may take: two photographs of
/// 12 megapixels, whatever the number of threads.
const READ_AT_ONCE: u64 = 100 << 20;

/// A trained network with its preset, which classifies images; threads can share it.
///
/// The network is compiled when the predictor is created, for single images; batches run, too. Up
/// to rounding, the logits are those of the network in evaluation.
///
/// See [`predict`](self) for an example.
pub struct Predictor {
    model: Box<dyn Module>,
    compiled: InferenceModel,
    preset: Preset,
    names: Arc<[String]>,
    batch_size: usize,
}

impl Predictor {
    /// Creates a predictor, compiles the network and runs it once, on a black image.
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
        let shape @ [height, width, channels] = preset.shape();
        let compiled = InferenceModel::compile(&model, &InferenceOptions::new(shape))?;
        let predictor = Predictor { model: Box::new(model), compiled, preset, names, batch_size: 16 };
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

    /// Returns a prediction for each image, in the same order. Images are tensors `[H, W, C]` with
    /// values in [0, 1], and with the feature `image` paths of any type and images of that crate:
    /// an array of `&str`, a `Vec<PathBuf>`, `std::env::args().skip(1)`.
    ///
    /// The images of a batch are read and resized in parallel, large ones one or two at a time, and
    /// only the prepared images of a batch are in memory at once.
    ///
    /// # Errors
    /// The error of the first image that cannot be read or does not fit, and [`Error::Argument`] if
    /// the values of a tensor are not in [0, 1], a logit is not finite or the batch size is 0.
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
        self.predict_iter(images).collect()
    }

    /// Returns the prediction for one image.
    ///
    /// # Errors
    /// As [`Predictor::predict`].
    ///
    /// ```
    /// use skipgrad::{Rng, Tensor, data::Preset, models::ResNet, predict::Predictor};
    /// let model = ResNet::cifar_paper(20, 10, &mut Rng::seed(0))?;
    /// let predictor = Predictor::new(model, Preset::cifar10())?;
    /// let prediction = predictor.predict_one(Tensor::full([50, 40, 3], 0.5)?)?; // or "cat.jpg"
    /// assert_eq!(prediction.probabilities().len(), 10);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn predict_one<'a>(&self, image: impl Into<ImageSource<'a>>) -> Result<Prediction> {
        let mut predictions = self.predict(iter::once(image))?;
        predictions.pop().ok_or_else(|| Error::argument("predict", "images", "one prediction", "none"))
    }

    /// Returns the predictions one after the other, in the order of the images, of which only one
    /// batch is taken and read ahead. An image that cannot be read or does not fit gives an error,
    /// and the iterator continues with the next one.
    ///
    /// ```
    /// use skipgrad::{Rng, Tensor, data::Preset, models::ResNet, predict::Predictor};
    /// let model = ResNet::cifar_paper(20, 10, &mut Rng::seed(0))?;
    /// let predictor = Predictor::new(model, Preset::cifar10())?;
    /// let images = (0..100).map(|i| Tensor::full([8, 8, 3], if i == 1 { 255.0 } else { 0.5 }));
    /// let mut predictions = predictor.predict_iter(images.filter_map(Result::ok));
    /// assert!(predictions.next().is_some_and(|first| first.is_ok()));
    /// assert!(predictions.next().is_some_and(|second| second.is_err()));
    /// assert!(predictions.next().is_some_and(|third| third.is_ok()));
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn predict_iter<'a, S: Into<ImageSource<'a>>>(
        &self,
        images: impl IntoIterator<Item = S>,
    ) -> impl Iterator<Item = Result<Prediction>> {
        let mut images = images.into_iter().map(Into::into);
        let (mut ready, mut done) = (VecDeque::new(), 0);
        iter::from_fn(move || {
            if ready.is_empty() {
                let batch: Vec<ImageSource<'a>> = images.by_ref().take(self.batch_size.max(1)).collect();
                ready.extend(self.predict_batch(&batch, done));
                done += batch.len();
            }
            ready.pop_front()
        })
    }

    /// Returns the predictions for the images of a batch, whose first one has the index `first`.
    fn predict_batch(&self, batch: &[ImageSource<'_>], first: usize) -> Vec<Result<Prediction>> {
        if self.batch_size == 0 {
            let zero = || Err(Error::argument("predictor", "batch_size", "at least 1", 0));
            return batch.iter().map(|_| zero()).collect();
        }
        let images = self.prepare(batch);
        let fitting: Vec<&Tensor> = images.iter().filter_map(|image| image.as_ref().ok()).collect();
        if fitting.is_empty() {
            return images.into_iter().filter_map(Result::err).map(Err).collect();
        }
        let logits = match stack(&fitting).and_then(|images| self.logits(&images)) {
            Ok(logits) => logits,
            // The network refuses the batch: this is an error of all, of which the first one tells.
            Err(error) => return vec![Err(error)],
        };
        let mut rows = logits.data().chunks_exact(self.names.len());
        let predict = |(index, image): (usize, Result<Tensor>)| {
            image?;
            let row = rows.next().unwrap_or_default();
            if let Some(logit) = row.iter().find(|logit| !logit.is_finite()) {
                let found = format!("{logit} for image {index}");
                return Err(Error::argument("predict", "logits", "finite numbers", found));
            }
            Ok(Prediction::new(row.to_vec(), self.names.clone()))
        };
        (first..).zip(images).map(predict).collect()
    }

    /// Reads and prepares images in parallel, as many at once as [`READ_AT_ONCE`] allows.
    fn prepare(&self, mut sources: &[ImageSource<'_>]) -> Vec<Result<Tensor>> {
        let mut images = Vec::with_capacity(sources.len());
        while let [first, rest @ ..] = sources {
            let mut bytes = first.bytes_to_read();
            let fits = |source: &&ImageSource<'_>| {
                bytes = bytes.saturating_add(source.bytes_to_read());
                bytes <= READ_AT_ONCE
            };
            let group = 1 + rest.iter().take_while(fits).count();
            let (now, later) = sources.split_at(group);
            images.par_extend(now.par_iter().map(|source| source.prepare(&self.preset)));
            sources = later;
        }
        images
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
        let logits = self.compiled.run(images)?;
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
fn stack(images: &[&Tensor]) -> Result<Tensor> {
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
