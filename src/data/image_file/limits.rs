//! How large an image file may be.

use super::decode::{DecodeError, decode};
use crate::{Error, Result, io::open_regular_file};
use image::DynamicImage;
use std::{io::Read, path::Path};

/// The size up to which image files are read, as PIL's `MAX_IMAGE_PIXELS` limits it.
///
/// The limits protect a program from files that take more memory than it has. The size that a file
/// declares is compared with them before memory is allocated.
///
/// ```no_run
/// use skipgrad::data::{ImageFolderOptions, ImageLimits};
/// // Satellite images of up to 20,000 x 20,000 pixels.
/// let limits = ImageLimits::new().max_side(20_000).max_image_bytes(3 * 20_000 * 20_000);
/// let image = limits.open("scene.png")?;
/// let data = ImageFolderOptions::new(224).limits(limits).open("scenes")?;
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLimits {
    pub(super) max_side: u32,
    pub(super) max_image_bytes: u64,
    max_file_bytes: u64,
}

impl ImageLimits {
    /// Creates the limits that [`open_image`](super::open_image) has: 16,384 pixels a side, 256 MiB
    /// for the pixels of an image, and 256 MiB for its file.
    pub fn new() -> ImageLimits {
        ImageLimits { max_side: 16_384, max_image_bytes: 256 << 20, max_file_bytes: 256 << 20 }
    }

    /// Sets the largest height and width of an image, in pixels.
    #[must_use]
    pub fn max_side(self, max_side: u32) -> ImageLimits {
        ImageLimits { max_side, ..self }
    }

    /// Sets the largest size of the pixels of an image, in bytes: for a JPEG file in color this is
    /// 3 times its number of pixels.
    #[must_use]
    pub fn max_image_bytes(self, max_image_bytes: u64) -> ImageLimits {
        ImageLimits { max_image_bytes, ..self }
    }

    /// Sets the largest size of a file, in bytes.
    #[must_use]
    pub fn max_file_bytes(self, max_file_bytes: u64) -> ImageLimits {
        ImageLimits { max_file_bytes, ..self }
    }

    /// Reads an image within these limits, as [`open_image`](super::open_image) does.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, and [`Error::Malformed`] if its format is not
    /// known, or if it is truncated, damaged or larger than the limits.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<DynamicImage> {
        let path = path.as_ref();
        self.open_noting(path, &mut |note| log::warn!("{}: {note}", path.display()))
    }

    /// Reads an image, and calls `note` with what is wrong in a file that can be read nevertheless.
    pub(in crate::data) fn open_noting(
        &self,
        path: &Path,
        note: &mut dyn FnMut(String),
    ) -> Result<DynamicImage> {
        let (file, size) = open_regular_file(path)?;
        if size > self.max_file_bytes {
            let expected = format!("at most {} bytes (ImageLimits::max_file_bytes)", self.max_file_bytes);
            return Err(Error::malformed(path, "size", expected, format!("{size} bytes")));
        }
        let mut bytes = vec![];
        let read = file.take(self.max_file_bytes).read_to_end(&mut bytes);
        read.map_err(|error| Error::io(path, "read", error))?;
        decode(path, &bytes, self, note).map_err(|error| self.describe(path, &bytes, error))
    }

    /// Makes an error of the reason why the bytes of a file cannot be decoded.
    fn describe(&self, path: &Path, bytes: &[u8], error: DecodeError) -> Error {
        match error {
            DecodeError::Format(found) => {
                Error::malformed(path, "format", super::formats::expected("a", "image"), found)
            }
            DecodeError::Declared(declared) => {
                let most = super::decode::MAX_COMPRESSION;
                let expected = format!("at most {most} times the file's {} bytes", bytes.len());
                Error::malformed(path, "header", expected, format!("an image of {declared} bytes"))
            }
            DecodeError::TooLarge(size) => {
                let (side, most) = (self.max_side, self.max_image_bytes);
                let expected = format!("at most {side} x {side} pixels and {most} bytes (see ImageLimits)");
                let found = size.map_or("a larger image".to_string(), |(width, height, bytes)| {
                    format!("{width} x {height} pixels and {bytes} bytes")
                });
                Error::malformed(path, "header", expected, found)
            }
            DecodeError::Truncated => Error::malformed(path, "image", "a complete image", "a truncated one"),
            DecodeError::Damaged(error) => Error::malformed(path, "image", "a complete image", error),
        }
    }
}

impl Default for ImageLimits {
    fn default() -> ImageLimits {
        ImageLimits::new()
    }
}
