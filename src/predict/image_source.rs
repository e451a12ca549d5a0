//! The images that a predictor accepts.

use crate::{Result, Tensor, data::Preset};
#[cfg(feature = "image")]
use std::path::{Path, PathBuf};

/// An image of any size to predict from, made of a reference to a tensor, a path, or an image of
/// the crate `image`.
///
/// ```
/// use skipgrad::{Tensor, predict::ImageSource};
/// let tensor = Tensor::zeros([4, 5, 3])?;
/// assert!(matches!(ImageSource::from(&tensor), ImageSource::Tensor(_)));
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum ImageSource<'a> {
    /// An image `[H, W, C]` with values in [0, 1].
    Tensor(&'a Tensor),
    /// A PNG or JPEG file.
    #[cfg(feature = "image")]
    Path(&'a Path),
    /// An image of the crate `image`.
    #[cfg(feature = "image")]
    Image(&'a image::DynamicImage),
}

impl ImageSource<'_> {
    /// Reads the image if it is a file, and prepares it as the preset says.
    pub(super) fn prepare(&self, preset: &Preset) -> Result<Tensor> {
        match self {
            ImageSource::Tensor(pixels) => preset.apply(pixels),
            #[cfg(feature = "image")]
            ImageSource::Path(path) => preset.apply_file(path),
            #[cfg(feature = "image")]
            ImageSource::Image(image) => preset.apply_image(image),
        }
    }
}

impl<'a> From<&'a Tensor> for ImageSource<'a> {
    fn from(pixels: &'a Tensor) -> ImageSource<'a> {
        ImageSource::Tensor(pixels)
    }
}

#[cfg(feature = "image")]
impl<'a> From<&'a image::DynamicImage> for ImageSource<'a> {
    fn from(image: &'a image::DynamicImage) -> ImageSource<'a> {
        ImageSource::Image(image)
    }
}

#[cfg(feature = "image")]
impl<'a> From<&'a Path> for ImageSource<'a> {
    fn from(path: &'a Path) -> ImageSource<'a> {
        ImageSource::Path(path)
    }
}

#[cfg(feature = "image")]
impl<'a> From<&'a PathBuf> for ImageSource<'a> {
    fn from(path: &'a PathBuf) -> ImageSource<'a> {
        ImageSource::Path(path)
    }
}

#[cfg(feature = "image")]
impl<'a> From<&'a str> for ImageSource<'a> {
    fn from(path: &'a str) -> ImageSource<'a> {
        ImageSource::Path(Path::new(path))
    }
}

#[cfg(feature = "image")]
impl<'a> From<&'a String> for ImageSource<'a> {
    fn from(path: &'a String) -> ImageSource<'a> {
        ImageSource::Path(Path::new(path))
    }
}
