//! The preprocessing that a trained network expects.

use super::{Cifar10, Cifar100, IMAGENET_CLASSES, Normalize, Transform, resample::Resample};
use crate::{Error, Result, Rng, Shape, Tensor};

/// The preprocessing that a trained network expects and the names of its classes.
///
/// As in torchvision's presets for evaluation, the shorter side of an image is resized, the center
/// is cropped, and each channel is normalized. Resizing is bilinear with antialiasing, as in PIL;
/// an image of bytes is rounded to bytes after resizing, as there. The number of channels is that
/// of the normalization: 3 for red, green and blue, 1 for gray.
///
/// ```
/// use skipgrad::{Tensor, data::Preset};
/// let preset = Preset::imagenet();
/// let image = preset.apply(&Tensor::full([300, 400, 3], 0.485)?)?;
/// assert_eq!(image.shape(), [224, 224, 3]);
/// assert!(image.data()[0].abs() < 1e-5, "red has the mean 0.485");
/// assert_eq!(preset.classes[281], "tabby");
///
/// // The same preprocessing for larger images and other classes.
/// let own = Preset::imagenet().resize_size(256).crop_size([256, 256]).classes(["cat", "dog"]);
/// assert_eq!(own.apply(&Tensor::zeros([300, 400, 3])?)?.shape(), [256, 256, 3]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Preset {
    /// Length of the shorter side after resizing, in pixels. The other side preserves the aspect
    /// ratio, rounded down.
    pub resize_size: usize,
    /// Height and width of the center crop, in pixels, at least 1 and at most `resize_size`.
    pub crop_size: [usize; 2],
    /// Normalization of the cropped image, whose pixels are in [0, 1].
    pub normalize: Normalize,
    /// Names of the classes, in the order of the logits.
    pub classes: Vec<String>,
}

impl Preset {
    /// Creates a preset that resizes the shorter side to `size` pixels and crops a square of that
    /// size. The values are checked by [`Preset::check`], which all uses of a preset call.
    pub fn new(
        size: usize,
        normalize: Normalize,
        classes: impl IntoIterator<Item = impl Into<String>>,
    ) -> Preset {
        let classes = classes.into_iter().map(Into::into).collect();
        Preset { resize_size: size, crop_size: [size; 2], normalize, classes }
    }

    /// Returns the preset of ImageNet: a resize to 256 pixels, a crop of 224, and the thousand
    /// classes. Weights that torchvision calls `IMAGENET1K_V1` expect it; those called
    /// `IMAGENET1K_V2` expect a resize to 232.
    pub fn imagenet() -> Preset {
        Preset::new(224, Normalize::imagenet(), IMAGENET_CLASSES).resize_size(256)
    }

    /// Returns the preset of CIFAR-10: 32 pixels, ten classes.
    pub fn cifar10() -> Preset {
        Preset::new(32, Normalize::cifar10(), Cifar10::CLASSES)
    }

    /// Returns the preset of CIFAR-100: 32 pixels, a hundred classes.
    pub fn cifar100() -> Preset {
        Preset::new(32, Normalize::cifar100(), Cifar100::CLASSES)
    }

    /// Sets the length of the shorter side after resizing, in pixels.
    #[must_use]
    pub fn resize_size(self, resize_size: usize) -> Preset {
        Preset { resize_size, ..self }
    }

    /// Sets the height and the width of the center crop, in pixels.
    #[must_use]
    pub fn crop_size(self, crop_size: [usize; 2]) -> Preset {
        Preset { crop_size, ..self }
    }

    /// Sets the normalization of the cropped image.
    #[must_use]
    pub fn normalize(self, normalize: Normalize) -> Preset {
        Preset { normalize, ..self }
    }

    /// Sets the names of the classes, in the order of the logits.
    #[must_use]
    pub fn classes(self, classes: impl IntoIterator<Item = impl Into<String>>) -> Preset {
        Preset { classes: classes.into_iter().map(Into::into).collect(), ..self }
    }

    /// Returns the number of channels of the network's input.
    pub fn num_channels(&self) -> usize {
        self.normalize.mean.len()
    }

    /// Returns the shape of one image of the network's input, `[H, W, C]`.
    pub fn shape(&self) -> [usize; 3] {
        [self.crop_size[0], self.crop_size[1], self.num_channels()]
    }

    /// Prepares an image `[H, W, C]` of any size, with values in [0, 1], and returns the network's
    /// input for it, which has the shape [`Preset::shape`].
    ///
    /// # Errors
    /// [`Error::Argument`] if the image has no pixels or another number of channels, and the errors
    /// of [`Preset::check`].
    pub fn apply(&self, image: &Tensor) -> Result<Tensor> {
        let [height, width, channels] = image.shape()[..] else {
            return Err(Error::argument("preset", "image", "[H, W, C]", image.shape()));
        };
        if height * width == 0 || channels != self.num_channels() {
            let expected = format!("[H, W, {}] with at least one pixel", self.num_channels());
            return Err(Error::argument("preset", "image", expected, image.shape()));
        }
        self.prepare(image.data(), [height, width], |x| x as f32, 1.0)
    }

    /// Checks that the values of the preset fit each other.
    ///
    /// # Errors
    /// [`Error::Argument`] if the crop is empty or larger than the resized image, and the errors of
    /// the normalization: its values must be finite, and its standard deviations above 0.
    pub fn check(&self) -> Result<()> {
        if self.crop_size.contains(&0) || self.crop_size.iter().any(|&crop| crop > self.resize_size) {
            let expected = format!("from 1 to {}, the size after resizing", self.resize_size);
            let found = format!("{:?}", self.crop_size);
            return Err(Error::argument("preset", "crop_size", expected, found));
        }
        self.normalize.check(self.shape())
    }

    /// Prepares an image whose pixels have the type `T`. `round` converts the sums of each pass of
    /// resizing, and `white` is the pixel value that becomes 1 before normalization.
    pub(super) fn prepare<T: Copy + Into<f32>>(
        &self,
        pixels: &[T],
        [height, width]: [usize; 2],
        round: impl Fn(f64) -> f32,
        white: f32,
    ) -> Result<Tensor> {
        self.check()?;
        let shape = Shape::new(&self.shape())?;
        let short = height.min(width) as u128;
        let size = [height, width].map(|side| (self.resize_size as u128 * side as u128 / short) as usize);
        let window = [0, 1].map(|axis| {
            let begin = half(size[axis] - self.crop_size[axis]);
            begin..begin + self.crop_size[axis]
        });
        let resample = Resample { source: [0..height, 0..width], size, window };
        let mut image = Tensor::zeros(&shape[..])?;
        resample.run(pixels, [width, self.num_channels()], round, image.data_mut());
        image.data_mut().iter_mut().for_each(|x| *x /= white);
        self.normalize.apply(image.data_mut(), self.shape(), &mut Rng::seed(0));
        Ok(image)
    }
}

/// Returns half of `n`, rounded to the even number at a tie, as Python's `round` does.
fn half(n: usize) -> usize {
    let half = n / 2;
    if n % 2 == 1 && half % 2 == 1 { half + 1 } else { half }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_rounded_as_in_python() {
        assert_eq!([0, 1, 2, 3, 4, 5, 7].map(half), [0, 0, 1, 2, 2, 2, 4]);
    }

    #[test]
    fn a_wide_image_costs_no_more_than_its_center() {
        let preset = Preset::imagenet().normalize(Normalize::new([0.0], [1.0]));
        let image = preset.apply(&Tensor::from_fn([1, 16_384, 1], |i| i as f32 / 16_384.0).unwrap()).unwrap();
        assert_eq!(image.shape(), [224, 224, 1]);
        assert!((image.data()[0] - 0.5).abs() < 1e-3);
        let one = preset.apply(&Tensor::full([1, 1, 1], 0.25).unwrap()).unwrap();
        assert!(one.data().iter().all(|&x| x == 0.25));
    }

    #[test]
    fn images_and_values_that_do_not_fit_are_an_error() {
        let preset = Preset::cifar10();
        let says = |preset: &Preset, shape: &[usize], text: &str| {
            let error = preset.apply(&Tensor::zeros(shape).unwrap()).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        };
        says(&preset, &[1, 8, 8, 3], "preset: image: expected [H, W, C], found [1, 8, 8, 3]");
        says(&preset, &[8, 8, 4], "expected [H, W, 3] with at least one pixel, found [8, 8, 4]");
        says(&preset, &[0, 8, 3], "at least one pixel");
        let large = Preset::cifar10().crop_size([32, 33]);
        says(&large, &[8, 8, 3], "crop_size: expected from 1 to 32, the size after resizing, found [32, 33]");
        says(&Preset::cifar10().crop_size([0, 1]), &[8, 8, 3], "crop_size");
        let mut short = Preset::cifar10();
        short.normalize.std.pop();
        says(&short, &[8, 8, 3], "normalize: std: expected 3 values");
    }
}
