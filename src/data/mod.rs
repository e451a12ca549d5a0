//! Labeled images: where they come from, how they are varied, and how they reach the training loop in batches.
//!
//! A source ([`Cifar10`], [`Cifar100`], [`SyntheticShapes`]) has two [`Images`], `train()` and `test()`; arrays of one's own become
//! [`Images`] with [`Images::new`]; pictures in folders are read with the feature `image`. The short way from there to batches is [`Images::batches`]. The long way is the
//! [`Loader`]: augmentation with a [`Compose`], worker threads, and epochs that can be entered at any batch with the same
//! bits. It reads any [`Dataset`], of which [`Images`] is one. A [`Preset`] makes of a picture of any size what a trained network
//! expects.
//!
//! ```
//! use skipgrad::{Rng, data::SyntheticShapes};
//! let data = SyntheticShapes::with_sizes(100, 20, 42)?;
//! let mut seen = 0;
//! for batch in data.train().batches(32, Rng::seed(1))? {
//!     assert_eq!(batch.images.shape()[1..], [32, 32, 3]);
//!     seen += batch.labels.len();
//! }
//! assert_eq!(seen, 100);
//! assert_eq!(*data.test().images(0..10)?.shape(), skipgrad::Shape::new(&[10, 32, 32, 3])?);
//! # Ok::<(), skipgrad::Error>(())
//! ```

mod transform;
mod cifar;
mod synthetic_shapes;
#[cfg(feature = "image")]
mod folder;
mod imagenet;
mod loader;
mod memory;
#[cfg(feature = "image")]
mod picture;
mod preset;
mod random_crop;
mod resample;

pub use cifar::{Cifar10, Cifar100};
#[cfg(feature = "image")]
pub use folder::ImageFolder;
pub use imagenet::IMAGENET_CLASSES;
pub use loader::{Epoch, Loader};
pub use memory::{Batches, Images};
#[cfg(feature = "image")]
pub use picture::open_picture;
pub use preset::Preset;
pub use random_crop::RandomResizedCrop;
pub use synthetic_shapes::SyntheticShapes;
pub use transform::{Compose, Cutout, Normalize, RandomCrop, RandomHorizontalFlip, Transform};

use crate::{Error, Result, Tensor};
use std::sync::Arc;

/// Labeled images of one size, read by number. Threads read at the same time.
///
/// Reading must give the same pixels every time: what varies from epoch to epoch belongs into a [`Compose`].
///
/// ```
/// use skipgrad::{Result, data::{Dataset, Loader}};
///
/// /// A thousand gray images, each the brightness of its number.
/// struct Grays(Vec<String>);
///
/// impl Dataset for Grays {
///     fn len(&self) -> usize { 1000 }
///     fn classes(&self) -> &[String] { &self.0 }
///     fn image_shape(&self) -> [usize; 3] { [8, 8, 1] }
///     fn read(&self, index: usize, pixels: &mut [f32]) -> Result<usize> {
///         pixels.fill(index as f32 / 1000.0);
///         Ok(usize::from(index >= 500))
///     }
/// }
///
/// let loader = Loader::new(Grays(vec!["dark".into(), "bright".into()]), 250);
/// let last = loader.epoch(0)?.last().unwrap()?;
/// assert_eq!((last.labels[0], last.images.data()[0]), (1, 0.75));
/// # Ok::<(), skipgrad::Error>(())
/// ```
pub trait Dataset: Send + Sync {
    /// The number of images.
    fn len(&self) -> usize;

    /// Whether there are no images.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names of the classes; a label is an index into them.
    fn classes(&self) -> &[String];

    /// The size of every image, `[H, W, C]`.
    fn image_shape(&self) -> [usize; 3];

    /// Writes the pixels of image `index` (below `len`), `[H, W, C]` with values in [0, 1], and returns its label.
    ///
    /// # Errors
    /// Whatever can go wrong with the source; an [`Images`] refuses an index or a slice that does not fit.
    fn read(&self, index: usize, pixels: &mut [f32]) -> Result<usize>;

    /// Whether an image that reading gave this error for is left out of its batch, which is then smaller, and no more is made of it.
    /// Nothing is unless it says otherwise.
    fn should_skip(&self, _error: &Error) -> bool {
        false
    }
}

impl<D: Dataset + ?Sized> Dataset for Arc<D> {
    fn len(&self) -> usize {
        (**self).len()
    }

    fn classes(&self) -> &[String] {
        (**self).classes()
    }

    fn image_shape(&self) -> [usize; 3] {
        (**self).image_shape()
    }

    fn read(&self, index: usize, pixels: &mut [f32]) -> Result<usize> {
        (**self).read(index, pixels)
    }

    fn should_skip(&self, error: &Error) -> bool {
        (**self).should_skip(error)
    }
}

/// Images and their labels: what a training step takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The pixels, `[N, H, W, C]`.
    pub images: Tensor,
    /// The class of each image, `N` of them.
    pub labels: Vec<usize>,
}

/// The two halves of a source, when which source it is no longer matters.
///
/// ```
/// use skipgrad::data::{SyntheticShapes, Splits};
/// let data = Splits::from(SyntheticShapes::with_sizes(20, 10, 42)?);
/// assert_eq!((data.train().len(), data.test().len()), (20, 10));
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Splits {
    train: Images,
    test: Images,
}

impl Splits {
    /// The images to learn from and the images to judge by.
    pub fn new(train: Images, test: Images) -> Splits {
        Splits { train, test }
    }

    /// The images to learn from. (A handle: the pixels are shared.)
    pub fn train(&self) -> Images {
        self.train.clone()
    }

    /// The images to judge by. (A handle: the pixels are shared.)
    pub fn test(&self) -> Images {
        self.test.clone()
    }
}
