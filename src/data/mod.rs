//! Labeled images: datasets, transforms, and loaders that turn a dataset into batches.
//!
//! [`Cifar10`], [`Cifar100`] and [`SyntheticShapes`] have a training and a test split, each of type
//! [`Images`], a dataset in memory. [`Images::new`] makes such a dataset of a tensor and its
//! labels. With the feature `image`, `ImageFolder` reads folders of PNG and JPEG files, and with
//! `webp`, `bmp`, `gif` and `tiff` those of these formats.
//!
//! [`Images::batches`] is the shortest way to batches. A [`Loader`] does more: it reads any
//! [`Dataset`], applies the transforms of a [`Compose`], prepares batches on worker threads, and
//! can resume an epoch at any batch with the same bits. A [`Preset`] prepares an image of any size
//! for a trained network.
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

mod batch_transform;
mod beta;
mod cifar;
mod class_names;
mod color_jitter;
mod cutmix;
mod cutout;
mod dataset;
mod epoch;
#[cfg(feature = "image")]
mod folder;
#[cfg(feature = "image")]
mod image_file;
mod image_op;
mod imagenet;
mod loader;
mod memory;
mod mixup;
mod normalize;
mod op_space;
mod planned;
mod preset;
mod preset_file;
mod rand_augment;
mod random_affine;
mod random_crop;
mod random_erasing;
mod random_flip;
mod random_resized_crop;
mod resample;
mod splits;
mod synthetic_shapes;
mod transform;
mod trivial_augment_wide;

pub use batch_transform::{BatchTransform, RandomChoice};
pub use cifar::{Cifar10, Cifar100};
pub use class_names::{read_class_names, read_class_names_for, write_class_names};
pub use color_jitter::ColorJitter;
pub use cutmix::CutMix;
pub use cutout::Cutout;
pub use dataset::{Batch, Dataset};
pub use epoch::Epoch;
#[cfg(feature = "image")]
pub use folder::{ImageFolder, ImageFolderOptions, ImageFolderParts};
#[cfg(feature = "image")]
pub use image_file::{ImageLimits, open_image};
pub use image_op::{Affine, ImageOp, Interpolation};
pub use imagenet::IMAGENET_CLASSES;
pub use loader::Loader;
pub use memory::{Batches, Images};
pub use mixup::Mixup;
pub use normalize::Normalize;
pub use preset::Preset;
pub use rand_augment::RandAugment;
pub use random_affine::{RandomAffine, RandomRotation};
pub use random_crop::RandomCrop;
pub use random_erasing::{ErasingValue, RandomErasing};
pub use random_flip::RandomHorizontalFlip;
pub use random_resized_crop::RandomResizedCrop;
pub use splits::Splits;
pub use synthetic_shapes::SyntheticShapes;
pub use transform::{Compose, Crop, Transform};
pub use trivial_augment_wide::TrivialAugmentWide;
