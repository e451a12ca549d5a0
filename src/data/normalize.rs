//! Normalization of the channels of an image.

use super::{Dataset, Transform};
use crate::{Error, Result, Rng, Shape};

/// Normalizes each channel of an image: `(x - mean) / std`, as torchvision's `Normalize` does.
///
/// The transform is not random, so [`Compose::eval`](super::Compose::eval) retains it.
///
/// ```
/// use skipgrad::{Rng, data::{Normalize, Transform}};
/// let mut pixels = [0.5, 0.5, 0.5];
/// let normalize = Normalize::new([0.5, 0.25, 0.0], [1.0, 0.25, 0.5]);
/// normalize.apply(&mut pixels, [1, 1, 3], &mut Rng::seed(0));
/// assert_eq!(pixels, [0.0, 1.0, 1.0]);
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Normalize {
    /// Mean of each channel, `C` values from -1 to 2, since pixels are in [0, 1]. Values for bytes
    /// (123.675) are to be divided by 255.
    pub mean: Vec<f32>,
    /// Standard deviation of each channel, `C` values above 0 and at most 2.
    pub std: Vec<f32>,
}

impl Normalize {
    /// Creates the transform from the mean and the standard deviation of each channel.
    ///
    /// The values are checked by [`Transform::check`], which a [`Loader`](super::Loader) and a
    /// [`Preset`](super::Preset) call.
    pub fn new(mean: impl Into<Vec<f32>>, std: impl Into<Vec<f32>>) -> Normalize {
        Normalize { mean: mean.into(), std: std.into() }
    }

    /// Returns the normalization of CIFAR-10's training images: mean 0.4914, 0.4822, 0.4465 and
    /// standard deviation 0.2470, 0.2435, 0.2616.
    pub fn cifar10() -> Normalize {
        Normalize::new([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616])
    }

    /// Returns the normalization of CIFAR-100's training images: mean 0.5071, 0.4865, 0.4409 and
    /// standard deviation 0.2673, 0.2564, 0.2762.
    pub fn cifar100() -> Normalize {
        Normalize::new([0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762])
    }

    /// Returns the normalization of ImageNet's training images: mean 0.485, 0.456, 0.406 and
    /// standard deviation 0.229, 0.224, 0.225.
    pub fn imagenet() -> Normalize {
        Normalize::new([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    }

    /// Computes the mean and the standard deviation of each channel over all images of a dataset.
    ///
    /// # Errors
    /// [`Error::Argument`] if there are no images, and the errors of reading them. Images that the
    /// dataset skips are not counted.
    ///
    /// ```
    /// use skipgrad::{Tensor, data::{Images, Normalize}};
    /// let images =
    ///     Images::new(Tensor::new([2, 1, 1, 1], [0.25, 0.75])?, vec![0, 0], ["gray"])?;
    /// assert_eq!(Normalize::fit(&images)?, Normalize::new([0.5], [0.25]));
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn fit(dataset: &dyn Dataset) -> Result<Normalize> {
        let shape @ [h, w, c] = dataset.image_shape();
        let size = Shape::new(&shape)?.num_elements();
        if dataset.is_empty() || size == 0 {
            let found = format!("{} images of {shape:?}", dataset.len());
            return Err(Error::argument("normalize", "data", "at least one image with pixels", found));
        }
        let mut pixels = vec![0.0; size];
        let mut sums = vec![[0.0f64; 2]; c];
        let mut images = 0;
        for index in 0..dataset.len() {
            match dataset.read(index, &mut pixels) {
                Err(error) if dataset.should_skip(&error) => continue,
                read => read?,
            };
            images += 1;
            for pixel in pixels.chunks_exact(c) {
                for ([sum, squares], &x) in sums.iter_mut().zip(pixel) {
                    *sum += f64::from(x);
                    *squares += f64::from(x) * f64::from(x);
                }
            }
        }
        if images == 0 {
            return Err(Error::argument("normalize", "data", "an image that can be read", "none"));
        }
        let count = (images * h * w) as f64;
        let deviation =
            |&[sum, squares]: &[f64; 2]| (squares / count - (sum / count).powi(2)).max(0.0).sqrt();
        Ok(Normalize {
            mean: sums.iter().map(|[sum, _]| (sum / count) as f32).collect(),
            std: sums.iter().map(|moments| deviation(moments) as f32).collect(),
        })
    }
}

impl Transform for Normalize {
    fn apply(&self, pixels: &mut [f32], [_, _, c]: [usize; 3], _rng: &mut Rng) {
        for pixel in pixels.chunks_exact_mut(c) {
            for ((x, mean), std) in pixel.iter_mut().zip(&self.mean).zip(&self.std) {
                *x = (*x - mean) / std;
            }
        }
    }

    fn is_random(&self) -> bool {
        false
    }

    fn check(&self, [_, _, c]: [usize; 3]) -> Result<()> {
        for (argument, values) in [("mean", &self.mean), ("std", &self.std)] {
            if values.len() != c {
                let expected = format!("{c} values, one per channel");
                return Err(Error::argument("normalize", argument, expected, values.len()));
            }
        }
        if let Some(mean) = self.mean.iter().find(|x| !x.is_finite()) {
            return Err(Error::argument("normalize", "mean", "finite values", mean));
        }
        if let Some(std) = self.std.iter().find(|&&x| !(x.is_finite() && x > 0.0)) {
            return Err(Error::argument("normalize", "std", "finite values above 0", std));
        }
        let for_bytes = |argument, found: Option<&f32>| match found {
            Some(found) => {
                let expected = "a value for pixels in [0, 1] (divide one for bytes by 255)";
                Err(Error::argument("normalize", argument, expected, found))
            }
            None => Ok(()),
        };
        for_bytes("mean", self.mean.iter().find(|mean| !(-1.0..=2.0).contains(*mean)))?;
        for_bytes("std", self.std.iter().find(|&&std| std > 2.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Images;

    #[test]
    fn a_fitted_normalization_gives_mean_0_and_deviation_1() {
        let pixels = crate::Tensor::uniform([20, 4, 4, 3], 0.2, 0.9, &mut Rng::seed(2)).unwrap();
        let images = Images::new(pixels, vec![0; 20], ["noise"]).unwrap();
        let normalize = Normalize::fit(&images).unwrap();
        let mut normalized = images.images(0..20).unwrap().to_vec();
        normalize.apply(&mut normalized, [320, 1, 3], &mut Rng::seed(0));
        for k in 0..3 {
            let channel: Vec<f64> = normalized.iter().skip(k).step_by(3).map(|&x| f64::from(x)).collect();
            let mean = channel.iter().sum::<f64>() / 320.0;
            let variance = channel.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 320.0;
            assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-5, "{mean} {variance}");
        }
        assert!(Normalize::fit(&images.take(0)).is_err());
    }

    #[test]
    fn values_that_do_not_fit_are_an_error() {
        let check =
            |mean: &[f32], std: &[f32]| Normalize::new(mean, std).check([8, 6, 3]).unwrap_err().to_string();
        assert!(check(&[0.0], &[1.0; 3]).contains("mean: expected 3 values"));
        assert!(check(&[0.0; 3], &[1.0; 4]).contains("std: expected 3 values"));
        assert!(check(&[0.0; 3], &[1.0, 0.0, 1.0]).contains("finite values above 0, found 0"));
        assert!(check(&[f32::NAN; 3], &[1.0; 3]).contains("finite values, found NaN"));
        assert_eq!(
            check(&[123.675, 116.28, 103.53], &[58.395, 57.12, 57.375]),
            "normalize: mean: expected a value for pixels in [0, 1] (divide one for bytes by 255), found 123.675"
        );
        assert!(
            check(&[0.485, 0.456, 0.406], &[58.395, 57.12, 57.375]).contains("std: expected a value for")
        );
        assert!(check(&[-127.5; 3], &[1.0; 3]).contains("mean: expected a value for"));
    }

    #[test]
    fn what_other_conventions_give_in_0_to_1_is_accepted() {
        // Identity; Keras' [-1, 1]; Caffe's bytes minus the mean; bytes.
        let settings = [(0.0, 1.0), (0.5, 0.5), (0.4076, 1.0 / 255.0), (0.0, 1.0 / 255.0), (1.0, 2.0)];
        for (mean, std) in settings {
            Normalize::new([mean; 3], [std; 3]).check([8, 6, 3]).unwrap();
        }
    }
}
