//! From a picture of any size to what a network was trained on.

use super::{Cifar10, Cifar100, IMAGENET_CLASSES, Normalize, resample::Resample, transform::Transform};
use crate::{Error, Result, Rng, Shape, Tensor};

/// What a trained network expects of a picture, and what it calls its classes: the shorter side is resized, the middle cut
/// out, every channel normalized, as torchvision's presets for evaluation do it.
///
/// Resizing is bilinear with antialiasing, as in PIL; pictures of bytes are rounded to bytes in between, as there. The number of
/// channels is that of the normalization: 3 for red, green and blue, 1 for gray.
///
/// ```
/// use skipgrad::{Tensor, data::Preset};
/// let preset = Preset::imagenet();
/// let image = preset.apply(&Tensor::full([300, 400, 3], 0.485)?)?;
/// assert_eq!(image.shape(), [224, 224, 3]);
/// assert!(image.data()[0].abs() < 1e-5, "red has the mean 0.485");
/// assert_eq!(preset.classes[281], "tabby");
///
/// // The same, for a network of one's own classes on larger images.
/// let own = Preset { resize: 256, crop: [256, 256], classes: vec!["cat".into(), "dog".into()], ..preset };
/// assert_eq!(own.apply(&Tensor::zeros([300, 400, 3])?)?.shape(), [256, 256, 3]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Preset {
    /// The pixels that the shorter side is resized to; the other side keeps the ratio, rounded down.
    pub resize: usize,
    /// The rows and columns that are then cut out of the middle, at least 1 and at most `resize`.
    pub crop: [usize; 2],
    /// What happens to the cut-out pixels, which are in [0, 1].
    pub normalize: Normalize,
    /// The names of the classes, in the order of the logits.
    pub classes: Vec<String>,
}

impl Preset {
    /// ImageNet's: 256 pixels, of which 224 are cut out, and the thousand classes. It is that of the weights that torchvision calls
    /// `IMAGENET1K_V1`; those called `_V2` want `resize: 232`.
    pub fn imagenet() -> Preset {
        Preset {
            resize: 256,
            crop: [224, 224],
            normalize: Normalize::imagenet(),
            classes: IMAGENET_CLASSES.map(String::from).to_vec(),
        }
    }

    /// CIFAR-10's: 32 pixels.
    pub fn cifar10() -> Preset {
        Preset {
            resize: 32,
            crop: [32, 32],
            normalize: Normalize::cifar10(),
            classes: Cifar10::CLASSES.map(String::from).to_vec(),
        }
    }

    /// CIFAR-100's: 32 pixels.
    pub fn cifar100() -> Preset {
        Preset {
            normalize: Normalize::cifar100(),
            classes: Cifar100::CLASSES.map(String::from).to_vec(),
            ..Preset::cifar10()
        }
    }

    /// The number of channels that the network sees.
    pub fn num_channels(&self) -> usize {
        self.normalize.mean.len()
    }

    /// The shape of what the network sees, `[H, W, C]`.
    pub fn shape(&self) -> [usize; 3] {
        [self.crop[0], self.crop[1], self.num_channels()]
    }

    /// A picture `[H, W, C]` of any size, with values in [0, 1], as the network wants it: `[crop, crop, C]`.
    ///
    /// # Errors
    /// [`Error::Argument`] if the picture has no pixels or other channels, and [`Preset::check`]'s.
    pub fn apply(&self, picture: &Tensor) -> Result<Tensor> {
        let [height, width, channels] = picture.shape()[..] else {
            return Err(Error::argument("preset", "picture", "[H, W, C]", picture.shape()));
        };
        if height * width == 0 || channels != self.num_channels() {
            let expected = format!("[H, W, {}] with at least one pixel", self.num_channels());
            return Err(Error::argument("preset", "picture", expected, picture.shape()));
        }
        self.prepare(picture.data(), [height, width], |x| x as f32, 1.0)
    }

    /// Whether the numbers fit each other.
    ///
    /// # Errors
    /// [`Error::Argument`] if nothing or more than there is would be cut out, or the normalization is none.
    pub fn check(&self) -> Result<()> {
        if self.crop.contains(&0) || self.crop.iter().any(|&crop| crop > self.resize) {
            let expected = format!("from 1 to {}, the pixels that are resized to", self.resize);
            return Err(Error::argument("preset", "crop", expected, format_args!("{:?}", self.crop)));
        }
        self.normalize.check(self.shape())
    }

    /// The same of pixels of any type: `store` sees sums of them, and `white` is what becomes 1.
    pub(super) fn prepare<T: Copy + Into<f32>>(
        &self,
        pixels: &[T],
        [height, width]: [usize; 2],
        store: impl Fn(f64) -> f32,
        white: f32,
    ) -> Result<Tensor> {
        self.check()?;
        let shape = Shape::new(&self.shape())?;
        let short = height.min(width) as u128;
        let size = [height, width].map(|side| (self.resize as u128 * side as u128 / short) as usize);
        let part = [0, 1].map(|axis| {
            let begin = middle(size[axis] - self.crop[axis]);
            begin..begin + self.crop[axis]
        });
        let resample = Resample { from: [0..height, 0..width], size, part };
        let mut image = Tensor::zeros(&shape[..])?;
        resample.run(pixels, [width, self.num_channels()], store, image.data_mut());
        image.data_mut().iter_mut().for_each(|x| *x /= white);
        self.normalize.apply(image.data_mut(), self.shape(), &mut Rng::seed(0));
        Ok(image)
    }
}

/// Half of what is left over, to the even number where there are two: Python's `round`.
fn middle(rest: usize) -> usize {
    let half = rest / 2;
    if rest % 2 == 1 && half % 2 == 1 { half + 1 } else { half }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_pythons() {
        assert_eq!([0, 1, 2, 3, 4, 5, 7].map(middle), [0, 0, 1, 2, 2, 2, 4]);
    }

    #[test]
    fn a_wide_picture_costs_no_more_than_its_middle() {
        let preset =
            Preset { normalize: Normalize { mean: vec![0.0], std: vec![1.0] }, ..Preset::imagenet() };
        let image = preset.apply(&Tensor::from_fn([1, 16_384, 1], |i| i as f32 / 16_384.0).unwrap()).unwrap();
        assert_eq!(image.shape(), [224, 224, 1]);
        assert!((image.data()[0] - 0.5).abs() < 1e-3);
        let one = preset.apply(&Tensor::full([1, 1, 1], 0.25).unwrap()).unwrap();
        assert!(one.data().iter().all(|&x| x == 0.25));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let preset = Preset::cifar10();
        let says = |preset: &Preset, shape: &[usize], text: &str| {
            let error = preset.apply(&Tensor::zeros(shape).unwrap()).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        };
        says(&preset, &[1, 8, 8, 3], "preset: picture: expected [H, W, C], found [1, 8, 8, 3]");
        says(&preset, &[8, 8, 4], "expected [H, W, 3] with at least one pixel, found [8, 8, 4]");
        says(&preset, &[0, 8, 3], "at least one pixel");
        let large = Preset { crop: [32, 33], ..Preset::cifar10() };
        says(
            &large,
            &[8, 8, 3],
            "crop: expected from 1 to 32, the pixels that are resized to, found [32, 33]",
        );
        says(&Preset { crop: [0, 1], ..Preset::cifar10() }, &[8, 8, 3], "crop");
        let mut short = Preset::cifar10();
        short.normalize.std.pop();
        says(&short, &[8, 8, 3], "normalize: std: expected 3 values");
    }
}
