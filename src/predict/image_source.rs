//! The images that a predictor accepts.

use crate::{Error, Result, Tensor, data::Preset};
#[cfg(feature = "image")]
use std::{
    borrow::Cow,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

/// An image of any size to predict from: a tensor, the path of a file, or an image of the crate
/// `image`, borrowed or owned. It is made of all that can be one by `From`.
///
/// ```
/// use skipgrad::{Tensor, predict::ImageSource};
/// let tensor = Tensor::zeros([4, 5, 3])?;
/// assert!(matches!(ImageSource::from(&tensor), ImageSource::Tensor(_)));
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ImageSource<'a> {
    /// An image `[H, W, C]` with values in [0, 1].
    Tensor(Tensor),
    /// An image file.
    #[cfg(feature = "image")]
    Path(Cow<'a, Path>),
    /// An image of the crate `image`.
    #[cfg(feature = "image")]
    Image(Cow<'a, image::DynamicImage>),
    #[cfg(not(feature = "image"))]
    #[doc(hidden)]
    Never(std::convert::Infallible, std::marker::PhantomData<&'a ()>),
}

impl ImageSource<'_> {
    /// Reads the image if it is a file, and prepares it as the preset says.
    pub(super) fn prepare(&self, preset: &Preset) -> Result<Tensor> {
        match self {
            ImageSource::Tensor(pixels) => {
                expect_pixels(pixels)?;
                preset.apply(pixels)
            }
            #[cfg(feature = "image")]
            ImageSource::Path(path) => preset.apply_file(path),
            #[cfg(feature = "image")]
            ImageSource::Image(image) => preset.apply_image(image),
            #[cfg(not(feature = "image"))]
            ImageSource::Never(never, _) => match *never {},
        }
    }

    /// Returns about how many bytes it takes to read the image, beside what is in memory already.
    pub(super) fn bytes_to_read(&self) -> u64 {
        match self {
            #[cfg(feature = "image")]
            ImageSource::Path(path) => bytes_of_file(path).unwrap_or(0),
            _ => 0,
        }
    }
}

/// Checks that the pixels of a tensor are in [0, 1], up to rounding. NaN is left to the logits.
fn expect_pixels(pixels: &Tensor) -> Result<()> {
    const ROUNDING: f32 = 1e-3;
    let range = |(low, high): (f32, f32), &x: &f32| (low.min(x), high.max(x));
    let (low, high) = pixels.data().iter().fold((f32::INFINITY, f32::NEG_INFINITY), range);
    if low >= -ROUNDING && high <= 1.0 + ROUNDING || pixels.data().is_empty() || low > high {
        return Ok(());
    }
    let expected = match (low < -ROUNDING, high > 2.0) {
        (false, true) => "values in [0, 1] (divide bytes by 255)",
        (true, _) => "values in [0, 1], which the preset normalizes itself",
        (false, false) => "values in [0, 1]",
    };
    Err(Error::argument("predict", "image", expected, format_args!("{low} to {high}")))
}

/// Returns the size of an image file and of the image, whose header is read.
#[cfg(feature = "image")]
fn bytes_of_file(path: &Path) -> Option<u64> {
    let file = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
    let reader = image::ImageReader::open(path).ok()?.with_guessed_format().ok()?;
    let (width, height) = reader.into_dimensions().ok()?;
    Some(file.len().saturating_add(3 * u64::from(width) * u64::from(height)))
}

impl From<&Tensor> for ImageSource<'_> {
    fn from(pixels: &Tensor) -> Self {
        ImageSource::Tensor(pixels.clone())
    }
}

impl From<Tensor> for ImageSource<'_> {
    fn from(pixels: Tensor) -> Self {
        ImageSource::Tensor(pixels)
    }
}

#[cfg(feature = "image")]
impl<'a> From<&'a image::DynamicImage> for ImageSource<'a> {
    fn from(image: &'a image::DynamicImage) -> ImageSource<'a> {
        ImageSource::Image(Cow::Borrowed(image))
    }
}

#[cfg(feature = "image")]
impl From<image::DynamicImage> for ImageSource<'_> {
    fn from(image: image::DynamicImage) -> Self {
        ImageSource::Image(Cow::Owned(image))
    }
}

/// Sources made of paths by reference, and of owned paths.
#[cfg(feature = "image")]
macro_rules! paths {
    (borrowed: $($borrowed:ty),+; owned: $($owned:ty),+) => {
        $(
            impl<'a> From<&'a $borrowed> for ImageSource<'a> {
                fn from(path: &'a $borrowed) -> ImageSource<'a> {
                    let path: &Path = path.as_ref();
                    ImageSource::Path(Cow::Borrowed(path))
                }
            }
        )+
        $(
            impl From<$owned> for ImageSource<'_> {
                fn from(path: $owned) -> Self {
                    ImageSource::Path(Cow::Owned(path.into()))
                }
            }
        )+
    };
}
#[cfg(feature = "image")]
paths! {
    borrowed: Path, PathBuf, str, &str, &Path, String, OsStr, OsString;
    owned: PathBuf, String, OsString
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_beyond_the_range_are_said() {
        let prepare = |values: &[f32]| {
            let pixels = Tensor::from_fn([2, 2, 3], |i| values[i % values.len()]).unwrap();
            ImageSource::from(pixels)
                .prepare(&Preset::cifar10())
                .map(|_| ())
                .map_err(|error| error.to_string())
        };
        let error = |values: &[f32]| prepare(values).unwrap_err();
        assert_eq!(
            error(&[0.0, 255.0]),
            "predict: image: expected values in [0, 1] (divide bytes by 255), found 0 to 255"
        );
        assert_eq!(
            error(&[-2.1, 2.6]),
            "predict: image: expected values in [0, 1], which the preset normalizes itself, found -2.1 to 2.6"
        );
        assert!(error(&[0.5, 1.25]).ends_with("expected values in [0, 1], found 0.5 to 1.25"));
        assert!(error(&[0.0, f32::INFINITY]).contains("0 to inf"));
        for fine in [&[0.0, 1.0][..], &[-1e-6, 1.0 + 1e-6], &[0.25]] {
            prepare(fine).unwrap();
        }
    }
}
