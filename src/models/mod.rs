//! The networks of the papers: tables and what assembles them from [`blocks`](crate::blocks).
//!
//! By type, where it is known, or by name, where a user chooses:
//!
//! ```
//! use skipgrad::{Rng, Tensor, autograd::{State, Tape}, models::{self, Model, ModelOptions, ResNet}, nn::Module};
//! let mut rng = Rng::seed(0);
//! let resnet = ResNet::cifar_paper(20, 10, &mut rng)?;
//! assert_eq!(resnet.num_parameters(), 269_722);
//!
//! let dense = models::build("densenet40_k12", &ModelOptions { channels: 1, ..ModelOptions::classes(5) }, &mut rng)?;
//! let tape = Tape::eval();
//! let images = tape.input(Tensor::zeros([2, 8, 8, 1])?);
//! assert_eq!(dense.forward(&images)?.shape(), [2, 5]);
//! assert_eq!(dense.forward_features(&images)?.shape(), [2, 2, 2, 448]);
//!
//! let error = models::build("resnet19", &ModelOptions::default(), &mut rng).err().unwrap();
//! assert!(error.to_string().starts_with("unknown model \"resnet19\"; known are: resnet18, resnet34, "));
//! # Ok::<(), skipgrad::Error>(())
//! ```

mod densenet;
mod resnet;

pub use densenet::{DenseNet, DenseNetConfig};
pub use resnet::{Naming, ResNet, ResNetConfig};

use crate::{
    Error, Result, Rng,
    autograd::Var,
    blocks::StemKind,
    nn::{Linear, Module},
};

/// A network that classifies images: maps, their mean over the pixels, a linear classifier.
///
/// [`Module::forward`] gives the logits, `[N, H, W, channels]` to `[N, classes]`.
pub trait Model: Module {
    /// The maps before pooling and classifier, `[N, H', W', features]`.
    ///
    /// # Errors
    /// [`Error::Argument`] with the path of the layer, if the images have other channels or are too small.
    fn forward_features<'t>(&self, x: &Var<'t>) -> Result<Var<'t>>;

    /// The classifier.
    fn classifier(&self) -> &Linear;

    /// The classifier, to be replaced: for other classes than the weights were trained on.
    ///
    /// ```
    /// use skipgrad::{Rng, models::{Model, ResNet}, nn::Linear};
    /// let mut rng = Rng::seed(0);
    /// let mut model = ResNet::cifar_paper(20, 10, &mut rng)?;
    /// *model.classifier_mut() = Linear::new(64, 7, &mut rng)?;
    /// assert_eq!(model.classifier().outputs(), 7);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    fn classifier_mut(&mut self) -> &mut Linear;
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
}

/// What [`build`] takes beside the name. The default: 1000 classes, 3 channels, and what the papers have.
#[derive(Clone, Debug)]
pub struct ModelOptions {
    /// The number of classes.
    pub classes: usize,
    /// The number of the images' channels.
    pub channels: usize,
    /// Another stem than the name says, such as [`StemKind::Cifar`] for an ImageNet network on small images. A DenseNet's
    /// is bare there.
    pub stem: Option<StemKind>,
    /// ResNets: whether each block begins as its shortcut; see [`BlockOptions`](crate::blocks::BlockOptions).
    pub zero_init_residual: bool,
    /// ResNets: the probability in [0, 1) that training skips the last block; the others' rises to it in equal steps from
    /// the first (Huang et al. 2016, figure 2).
    pub drop_path: f32,
    /// DenseNets: the probability in [0, 1) with which training drops a layer's new values.
    pub dropout: f32,
}

impl Default for ModelOptions {
    fn default() -> ModelOptions {
        ModelOptions::classes(1000)
    }
}

impl ModelOptions {
    /// The default with another number of classes.
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
}

/// The names that [`build`] knows.
pub fn names() -> Vec<&'static str> {
    resnet::names().chain(densenet::names()).collect()
}

/// The network of this name with fresh weights.
///
/// # Errors
/// [`Error::UnknownName`] that lists the names; [`Error::Argument`] for zero classes or channels, a probability that is
/// none, or an option of the other family.
pub fn build(name: &str, options: &ModelOptions, rng: &mut Rng) -> Result<Box<dyn Model>> {
    if let Some(config) = ResNetConfig::named(name) {
        return Ok(Box::new(ResNet::new(&config.with(options)?, rng)?));
    }
    if let Some(config) = DenseNetConfig::named(name) {
        return Ok(Box::new(DenseNet::new(&config.with(options)?, rng)?));
    }
    Err(Error::UnknownName { kind: "model", name: name.to_string(), known: names() })
}

/// Mean over the pixels, then the classifier: the head of both families.
fn classify<'t>(maps: &Var<'t>, classifier: &Linear, name: &'static str) -> Result<Var<'t>> {
    let pooled = maps.global_avg_pool()?;
    maps.tape().scope(name, || classifier.forward(&pooled))
}
