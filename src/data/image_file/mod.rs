//! Images from files.

mod decode;
mod formats;
mod jpeg;
mod limits;
mod png;

pub(super) use formats::{readable_extensions, why_not_read};
pub use limits::ImageLimits;

use super::{Preset, image_op::luma, resample::Resample};
use crate::{Error, Result, Tensor};
use image::{DynamicImage, GenericImageView as _};
use std::{ops::Range, path::Path};

/// Reads an image from a file and rotates it upright if the camera stored an orientation. The
/// format follows from the content of the file, not from its name.
///
/// PNG and JPEG files are read, and with the features `webp`, `bmp`, `gif` and `tiff` those of
/// these formats; of an animation and of several pages, the first image. As other programs do, it
/// reads files without the mark of their end if all pixels are there, and logs a warning.
///
/// An image has at most 16,384 pixels a side and 256 MiB; [`ImageLimits::open`] has other limits.
/// The size that a file declares is compared with them before memory is allocated, and for PNG and
/// JPEG with the size of the file.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, and [`Error::Malformed`] if its format is not known,
/// or if it is truncated, damaged or too large.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("skipgrad-open-{}.png", std::process::id()));
/// # image::RgbImage::new(5, 4).save(&path).unwrap();
/// let image = skipgrad::data::open_image(&path)?;
/// assert_eq!((image.width(), image.height()), (5, 4));
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), skipgrad::Error>(())
/// ```
pub fn open_image(path: impl AsRef<Path>) -> Result<DynamicImage> {
    ImageLimits::new().open(path)
}

impl Preset {
    /// Reads an image with [`open_image`] and prepares it with [`Preset::apply_image`].
    ///
    /// # Errors
    /// The errors of [`open_image`] and [`Preset::apply_image`].
    ///
    /// ```
    /// use skipgrad::data::Preset;
    /// # let path = std::env::temp_dir().join(format!("skipgrad-read-{}.png", std::process::id()));
    /// # image::RgbImage::from_pixel(500, 400, image::Rgb([255, 0, 0])).save(&path).unwrap();
    /// let image = Preset::imagenet().apply_file(&path)?; // a red image
    /// assert_eq!(image.shape(), [224, 224, 3]);
    /// assert!((image.data()[0] - (1.0 - 0.485) / 0.229).abs() < 1e-6);
    /// # std::fs::remove_file(&path).unwrap();
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn apply_file(&self, path: impl AsRef<Path>) -> Result<Tensor> {
        self.apply_image(&open_image(path)?)
    }

    /// Prepares an image of the crate `image` and returns the network's input for it, which has the
    /// shape [`Preset::shape`]. Transparency is ignored, and 16 bits are reduced to 8.
    ///
    /// # Errors
    /// [`Error::Argument`] if the image has no pixels or the network's input has neither 1 nor 3
    /// channels, and the errors of [`Preset::check`].
    ///
    /// ```
    /// use skipgrad::data::Preset;
    /// let image = image::DynamicImage::new_luma16(40, 50);
    /// assert_eq!(Preset::cifar10().apply_image(&image)?.shape(), [32, 32, 3]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn apply_image(&self, image: &DynamicImage) -> Result<Tensor> {
        let (width, height) = image.dimensions();
        if width == 0 || height == 0 {
            let found = format!("{width} x {height}");
            return Err(Error::argument("preset", "image", "at least one pixel", found));
        }
        with_bytes(image, self.num_channels(), |bytes| {
            self.prepare(bytes, [height as usize, width as usize], round, 255.0)
        })?
    }
}

/// Rounds to bytes, as PIL does after each pass of a resizing.
fn round(x: f64) -> f32 {
    (x + 0.5).floor().clamp(0.0, 255.0) as f32
}

/// Writes a box of an image, resized to `[H, W, C]`, with values in [0, 1].
pub(super) fn resize_image_box(
    image: &DynamicImage,
    source: [Range<usize>; 2],
    [h, w, c]: [usize; 3],
    pixels: &mut [f32],
) -> Result<()> {
    let resample = Resample { source, size: [h, w], window: [0..h, 0..w] };
    with_bytes(image, c, |bytes| resample.run(bytes, [image.width() as usize, c], round, pixels))?;
    pixels.iter_mut().for_each(|x| *x /= 255.0);
    Ok(())
}

/// Calls `f` with the pixels of an image, `[H, W, channels]`, as bytes.
fn with_bytes<R>(image: &DynamicImage, channels: usize, f: impl FnOnce(&[u8]) -> R) -> Result<R> {
    match (channels, image) {
        (1, DynamicImage::ImageLuma8(gray)) => Ok(f(gray)),
        (1, _) if image.color().has_color() => {
            Ok(f(&image.to_rgb8().pixels().map(|pixel| luma(pixel.0)).collect::<Vec<u8>>()))
        }
        (1, _) => Ok(f(&image.to_luma8())),
        (3, DynamicImage::ImageRgb8(rgb)) => Ok(f(rgb)),
        (3, _) => Ok(f(&image.to_rgb8())),
        _ => Err(Error::argument("preset", "channels", "1 or 3 for an image file", channels)),
    }
}
