//! Transforms of images, and how they are composed.

use super::Dataset;
use crate::{Result, Rng};
use std::{fmt, ops::Range, sync::Arc};

/// A transform of one image `[H, W, C]`, in place; a [`Compose`] applies several in turn.
///
/// ```
/// use skipgrad::{Rng, data::{Compose, Transform}};
///
/// /// Inverts an image with probability one half.
/// #[derive(Debug)]
/// struct RandomInvert;
///
/// impl Transform for RandomInvert {
///     fn apply(&self, pixels: &mut [f32], _shape: [usize; 3], rng: &mut Rng) {
///         if rng.chance(0.5) {
///             pixels.iter_mut().for_each(|x| *x = 1.0 - *x);
///         }
///     }
/// }
///
/// let mut pixels = [0.25; 4];
/// let test = Compose::new().then(RandomInvert).eval();
/// test.apply(&mut pixels, [2, 2, 1], &mut Rng::seed(0));
/// assert_eq!(pixels, [0.25; 4], "no random transform is applied to test images");
/// ```
pub trait Transform: fmt::Debug + Send + Sync {
    /// Transforms the pixels of one image.
    ///
    /// `shape` is `[H, W, C]` without a zero, and `pixels` has `H * W * C` elements. All randomness
    /// comes from `rng`.
    ///
    /// # Panics
    /// The transforms of this module may panic if `shape` and the length of `pixels` disagree. A
    /// [`Loader`](super::Loader) always passes slices that fit.
    fn apply(&self, pixels: &mut [f32], shape: [usize; 3], rng: &mut Rng);

    /// Returns whether the transform is random, so that [`Compose::eval`] removes it. The default
    /// is `true`.
    fn is_random(&self) -> bool {
        true
    }

    /// Checks that the transform can be applied to images of this shape, `[H, W, C]`. The default
    /// implementation accepts every shape.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) with the option or the axis that does not fit.
    fn check(&self, _shape: [usize; 3]) -> Result<()> {
        Ok(())
    }

    /// Returns the transform as a [`Crop`], if it is one. Where it is the first of a [`Compose`], a
    /// [`Loader`](super::Loader) crops images in their own size then, instead of calling
    /// [`Transform::apply`]. The default implementation returns `None`.
    fn as_crop(&self) -> Option<&dyn Crop> {
        None
    }
}

/// A transform that crops a box from an image of any size and resizes it to the size of the images
/// in a batch; see [`Transform::as_crop`].
///
/// [`RandomResizedCrop`](super::RandomResizedCrop) is one.
pub trait Crop {
    /// Draws the rows and the columns of the box for an image of `h` rows and `w` columns, both at
    /// least 1. The box has at least one pixel and lies within the image.
    fn draw(&self, size: [usize; 2], rng: &mut Rng) -> [Range<usize>; 2];
}

/// A sequence of transforms, which are applied to an image one after the other.
///
/// The order matters. [`RandomCrop`](super::RandomCrop) and [`Cutout`](super::Cutout) write zeros:
/// before [`Normalize`](super::Normalize) these are black pixels, which is the recipe of He et al.
/// 2015, section 4.2, in its public implementations; after it they have the mean color.
///
/// ```
/// use skipgrad::data::{Compose, Normalize, RandomCrop, RandomHorizontalFlip};
/// let train = Compose::new()
///     .then(RandomCrop::with_padding(4))
///     .then(RandomHorizontalFlip)
///     .then(Normalize::cifar10());
/// let test = train.eval();
/// assert_eq!((train.len(), test.len()), (3, 1));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Compose(Vec<Arc<dyn Transform>>);

impl Compose {
    /// Creates an empty sequence, which leaves images as they are.
    pub fn new() -> Compose {
        Compose::default()
    }

    /// Appends a transform.
    #[must_use]
    pub fn then(mut self, transform: impl Transform + 'static) -> Compose {
        self.0.push(Arc::new(transform));
        self
    }

    /// Returns the transforms for evaluation: those that are not random.
    #[must_use]
    pub fn eval(&self) -> Compose {
        Compose(self.0.iter().filter(|transform| !transform.is_random()).cloned().collect())
    }

    /// Applies all transforms to an image `[H, W, C]`.
    ///
    /// # Panics
    /// May panic if `shape` and the length of `pixels` disagree, or if [`Compose::check`] rejects
    /// the shape; see [`Transform::apply`].
    pub fn apply(&self, pixels: &mut [f32], shape: [usize; 3], rng: &mut Rng) {
        self.0.iter().for_each(|transform| transform.apply(pixels, shape, rng));
    }

    /// Reads an image of a dataset and applies all transforms to it. A crop that comes first sees
    /// the image in its own size.
    pub(super) fn read(
        &self,
        dataset: &dyn Dataset,
        index: usize,
        pixels: &mut [f32],
        rng: &mut Rng,
    ) -> Result<usize> {
        let crop = self.0.first().and_then(|first| first.as_crop());
        let (label, rest) = match crop {
            Some(crop) => (dataset.read_crop(index, pixels, &mut |size| crop.draw(size, rng))?, &self.0[1..]),
            None => (dataset.read(index, pixels)?, &self.0[..]),
        };
        let shape = dataset.image_shape();
        rest.iter().for_each(|transform| transform.apply(pixels, shape, rng));
        Ok(label)
    }

    /// Checks that all transforms can be applied to images of this shape, `[H, W, C]`.
    ///
    /// # Errors
    /// The error of the first transform that cannot be applied.
    pub fn check(&self, shape: [usize; 3]) -> Result<()> {
        self.0.iter().try_for_each(|transform| transform.check(shape))
    }

    /// Returns the number of transforms.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are no transforms.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Cutout, Normalize, RandomCrop, RandomHorizontalFlip};
    use std::collections::BTreeSet;

    #[test]
    fn padding_before_normalizing_is_black() {
        let normalize = Normalize { mean: vec![0.5], std: vec![0.5] };
        let black = Compose::new().then(RandomCrop::with_padding(1)).then(normalize.clone());
        let gray = Compose::new().then(normalize).then(RandomCrop::with_padding(1));
        let corner = |transforms: &Compose| {
            let mut values = BTreeSet::new();
            for seed in 0..20 {
                let mut image = [1.0; 9];
                transforms.apply(&mut image, [3, 3, 1], &mut Rng::seed(seed));
                values.extend(image.map(|x| x as i32));
            }
            values
        };
        assert_eq!((corner(&black), corner(&gray)), ([-1, 1].into(), [0, 1].into()));
    }

    #[test]
    fn evaluation_keeps_the_normalization_only() {
        let train = Compose::new()
            .then(RandomCrop::with_padding(1))
            .then(RandomHorizontalFlip)
            .then(Normalize::cifar10())
            .then(Cutout::with_length(1));
        assert_eq!(format!("{:?}", train.eval()), format!("Compose([{:?}])", Normalize::cifar10()));
    }

    #[test]
    fn a_sequence_is_checked_whole() {
        let (crop, flip) = (RandomCrop::with_padding, RandomHorizontalFlip);
        assert!(Compose::new().then(flip).then(crop(9)).check([8, 6, 3]).is_err());
        assert!(Compose::new().then(crop(4)).then(flip).check([8, 6, 3]).is_ok());
    }
}
