//! What is predicted from.

use crate::{Result, Tensor, data::Preset};
#[cfg(feature = "image")]
use std::path::{Path, PathBuf};

/// A picture of any size, wherever it is. What it is made from says which: a reference to a path, an image or a tensor.
///
/// ```
/// use skipgrad::{Tensor, predict::Picture};
/// let tensor = Tensor::zeros([4, 5, 3])?;
/// assert!(matches!(Picture::from(&tensor), Picture::Tensor(_)));
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Picture<'a> {
    /// Pixels `[H, W, C]` with values in [0, 1].
    Tensor(&'a Tensor),
    /// A PNG or JPEG file.
    #[cfg(feature = "image")]
    Path(&'a Path),
    /// An image of the crate `image`.
    #[cfg(feature = "image")]
    Image(&'a image::DynamicImage),
}

impl Picture<'_> {
    /// As the network wants it.
    pub(super) fn prepared(&self, preset: &Preset) -> Result<Tensor> {
        match self {
            Picture::Tensor(pixels) => preset.apply(pixels),
            #[cfg(feature = "image")]
            Picture::Path(path) => preset.read(path),
            #[cfg(feature = "image")]
            Picture::Image(image) => preset.image(image),
        }
    }
}

impl<'a> From<&'a Tensor> for Picture<'a> {
    fn from(pixels: &'a Tensor) -> Picture<'a> {
        Picture::Tensor(pixels)
    }
}

#[cfg(feature = "image")]
impl<'a> From<&'a image::DynamicImage> for Picture<'a> {
    fn from(image: &'a image::DynamicImage) -> Picture<'a> {
        Picture::Image(image)
    }
}

#[cfg(feature = "image")]
impl<'a> From<&'a Path> for Picture<'a> {
    fn from(path: &'a Path) -> Picture<'a> {
        Picture::Path(path)
    }
}

#[cfg(feature = "image")]
impl<'a> From<&'a PathBuf> for Picture<'a> {
    fn from(path: &'a PathBuf) -> Picture<'a> {
        Picture::Path(path)
    }
}

#[cfg(feature = "image")]
impl<'a> From<&'a str> for Picture<'a> {
    fn from(path: &'a str) -> Picture<'a> {
        Picture::Path(Path::new(path))
    }
}

#[cfg(feature = "image")]
impl<'a> From<&'a String> for Picture<'a> {
    fn from(path: &'a String) -> Picture<'a> {
        Picture::Path(Path::new(path))
    }
}
