//! The networks of the papers: their tables, and the code that assembles them from
//! [`blocks`](crate::blocks).
//!
//! A network is made by its type, where that is known, or by name, where a user chooses:
//!
//! ```
//! use skipgrad::models::{self, Model, ModelOptions, ResNet};
//! use skipgrad::{Rng, Tensor, autograd::{State, Tape}, nn::Module};
//! let mut rng = Rng::seed(0);
//! let resnet = ResNet::cifar_paper(20, 10, &mut rng)?;
//! assert_eq!(resnet.num_parameters(), 269_722);
//!
//! let dense = models::build("densenet40_k12", &ModelOptions::classes(5).channels(1), &mut rng)?;
//! let tape = Tape::eval();
//! let images = tape.input(Tensor::zeros([2, 8, 8, 1])?);
//! assert_eq!(dense.forward(&images)?.shape(), [2, 5]);
//! assert_eq!(dense.forward_features(&images)?.shape(), [2, 2, 2, 448]);
//!
//! let error = models::build("resnet19", &ModelOptions::default(), &mut rng).err().unwrap();
//! let expected = "unknown model \"resnet19\" (nearest: resnet18); known are: resnet18, ";
//! assert!(error.to_string().starts_with(expected));
//! # Ok::<(), skipgrad::Error>(())
//! ```

mod densenet;
mod resnet;

pub use densenet::{DenseFeatures, DenseNet, DenseNetConfig, DenseStage};
pub use resnet::{ResNet, ResNetConfig};

use crate::{
    Error, Result, Rng,
    autograd::{State, StateId, Var, displayed_as_tree},
    blocks::StemKind,
    nn::{BatchNorm2d, Linear, Module},
};
use std::collections::BTreeMap;

displayed_as_tree!(debug: ResNet, DenseNet, dyn Model);

/// A network that classifies images: feature maps, their mean over the pixels, and a linear
/// classifier.
///
/// [`Module::forward`] maps images `[N, H, W, channels]` to logits `[N, classes]`.
pub trait Model: Module {
    /// Returns the maps before pooling and classifier, `[N, H', W', features]`.
    ///
    /// # Errors
    /// [`Error::Argument`], with the path of the layer, if the images have other channels or are
    /// too small.
    fn forward_features<'t>(&self, x: &Var<'t>) -> Result<Var<'t>>;

    /// Returns the classifier.
    fn classifier(&self) -> &Linear;

    /// Returns the classifier, to be replaced for other classes than the weights were trained on.
    ///
    /// ```
    /// use skipgrad::{Rng, models::{Model, ResNet}, nn::Linear};
    /// let mut rng = Rng::seed(0);
    /// let mut model = ResNet::cifar_paper(20, 10, &mut rng)?;
    /// *model.classifier_mut() = Linear::new(64, 7, &mut rng)?;
    /// assert_eq!(model.classifier().out_features(), 7);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    fn classifier_mut(&mut self) -> &mut Linear;

    /// Returns the batch normalizations with their names, so that settings which weights files do
    /// not have can be those that the weights were trained with. Blocks of a user's own are left
    /// out.
    ///
    /// Keras' `momentum` is the weight of the old value, 1 minus the one here: its default of 0.99
    /// is 0.01, and PyTorch's 0.1 is 0.9 there. Its default `epsilon` is 1e-3, and 1.001e-5 in its
    /// ResNets and DenseNets.
    ///
    /// ```
    /// use skipgrad::{Rng, models::{Model, ResNet}};
    /// let mut model = ResNet::imagenet(50, 1000, &mut Rng::seed(0))?;
    /// for (name, norm) in model.norms_mut() {
    ///     norm.eps = 1.001e-5;
    ///     norm.momentum = if name.starts_with("layer4.") { 0.1 } else { 1.0 - 0.99 };
    /// }
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    fn norms_mut(&mut self) -> Vec<(String, &mut BatchNorm2d)>;
}

impl<M: Model + ?Sized> Model for Box<M> {
    fn forward_features<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        (**self).forward_features(x)
    }
    fn classifier(&self) -> &Linear {
        (**self).classifier()
    }
    fn classifier_mut(&mut self) -> &mut Linear {
        (**self).classifier_mut()
    }
    fn norms_mut(&mut self) -> Vec<(String, &mut BatchNorm2d)> {
        (**self).norms_mut()
    }
}

/// The options of [`build`]. The defaults are 1000 classes, 3 channels, and the settings of the
/// papers.
///
/// ```
/// use skipgrad::{blocks::StemKind, models::ModelOptions};
/// let options = ModelOptions::classes(10).stem(StemKind::Cifar).drop_path(0.1);
/// assert_eq!((options.classes, options.channels), (10, 3));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ModelOptions {
    /// The number of classes.
    pub classes: usize,
    /// The number of channels of the images.
    pub channels: usize,
    /// Another stem than the network's own, such as [`StemKind::Cifar`] for an ImageNet network on
    /// small images, which in a DenseNet is [`StemKind::Bare`].
    pub stem: Option<StemKind>,
    /// For ResNets: whether each block begins as its shortcut; see
    /// [`ResBlockBuilder::zero_init_residual`](crate::blocks::ResBlockBuilder::zero_init_residual).
    pub zero_init_residual: bool,
    /// For ResNets: the probability in [0, 1) that training skips the last block; it rises in equal
    /// steps from the first (Huang et al. 2016, figure 2).
    pub drop_path: f32,
    /// For DenseNets: the probability in [0, 1) with which training drops a layer's new values.
    pub dropout: f32,
}

impl Default for ModelOptions {
    fn default() -> ModelOptions {
        ModelOptions::classes(1000)
    }
}

impl ModelOptions {
    /// Returns the default options for this number of classes.
    pub fn classes(classes: usize) -> ModelOptions {
        ModelOptions {
            classes,
            channels: 3,
            stem: None,
            zero_init_residual: false,
            drop_path: 0.0,
            dropout: 0.0,
        }
    }

    /// Sets the number of channels of the images.
    pub fn channels(self, channels: usize) -> ModelOptions {
        ModelOptions { channels, ..self }
    }

    /// Sets another stem than the network's own.
    pub fn stem(self, stem: StemKind) -> ModelOptions {
        ModelOptions { stem: Some(stem), ..self }
    }

    /// Sets whether each block of a ResNet begins as its shortcut.
    pub fn zero_init_residual(self, zero_init_residual: bool) -> ModelOptions {
        ModelOptions { zero_init_residual, ..self }
    }

    /// Sets the probability that training skips the last block of a ResNet.
    pub fn drop_path(self, drop_path: f32) -> ModelOptions {
        ModelOptions { drop_path, ..self }
    }

    /// Sets the probability with which training drops the new values of a DenseNet's layers.
    pub fn dropout(self, dropout: f32) -> ModelOptions {
        ModelOptions { dropout, ..self }
    }
}

/// Returns the names that [`build`] knows.
pub fn names() -> Vec<&'static str> {
    resnet::names().chain(densenet::names()).collect()
}

/// Makes the network of this name, with random weights.
///
/// # Errors
/// [`Error::UnknownName`], which lists the names, or [`Error::Argument`] if classes or channels are
/// zero, a probability is not in [0, 1), or an option is one of the other family.
pub fn build(name: &str, options: &ModelOptions, rng: &mut Rng) -> Result<Box<dyn Model>> {
    if let Some(config) = ResNetConfig::named(name) {
        return Ok(Box::new(ResNet::new(&config.with(options)?, rng)?));
    }
    if let Some(config) = DenseNetConfig::named(name) {
        return Ok(Box::new(DenseNet::new(&config.with(options)?, rng)?));
    }
    Err(Error::UnknownName { kind: "model", name: name.to_string(), known: names() })
}

/// Returns the names of the modules of a model, by the identity of their weights.
fn norm_names(model: &impl State) -> BTreeMap<StateId, String> {
    let mut names = BTreeMap::new();
    model.visit("", &mut |name, state| {
        if let Some(name) = name.strip_suffix(".weight") {
            names.insert(state.id(), name.to_string());
        }
    });
    names
}

/// Returns normalizations with their names.
fn named<'a>(
    names: &BTreeMap<StateId, String>,
    norms: Vec<&'a mut BatchNorm2d>,
) -> Vec<(String, &'a mut BatchNorm2d)> {
    let name = |norm: &BatchNorm2d| names.get(&norm.weight.id()).cloned().unwrap_or_default();
    norms.into_iter().map(|norm| (name(norm), norm)).collect()
}

/// Returns the logits of feature maps: the classifier of their mean over the pixels.
fn classify<'t>(maps: &Var<'t>, classifier: &Linear) -> Result<Var<'t>> {
    classifier.forward(&maps.global_avg_pool()?)
}
