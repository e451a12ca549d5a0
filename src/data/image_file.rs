//! Images from PNG and JPEG files.

use super::Preset;
use crate::{Error, Result, Tensor, io::open_regular_file};
use image::{
    DynamicImage, GenericImageView as _, ImageDecoder as _, ImageError, ImageFormat, ImageReader, Limits,
    metadata::Orientation,
};
use std::{
    io::{self, Read},
    path::Path,
};

/// Largest height and width of an image, in pixels.
const MAX_SIDE: u32 = 16_384;

/// Largest size of an image, and of its file, in bytes.
const MAX_BYTES: u64 = 256 << 20;

/// Largest number of bytes of an image for each byte of its file. Deflate reaches about a thousand,
/// and so do the shortest codes of JPEG: a file that declares a larger image is incomplete, and no
/// memory is allocated for it.
const MAX_COMPRESSION: u64 = 4096;

/// Reads an image from a PNG or JPEG file and rotates it upright if the camera stored an
/// orientation. The format follows from the content of the file.
///
/// An image has at most 16,384 pixels a side and 256 MiB. The size that a file declares is compared
/// with the size of the file before memory is allocated.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, and [`Error::Malformed`] if it is neither PNG nor
/// JPEG, truncated, damaged, or too large.
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
    let path = path.as_ref();
    let (file, size) = open_regular_file(path)?;
    if size > MAX_BYTES {
        return Err(Error::malformed(path, "size", format!("at most {MAX_BYTES} bytes"), size));
    }
    let mut bytes = vec![];
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(|error| Error::io(path, "read", error))?;
    decode(path, &bytes).map_err(|error| match error {
        DecodeError::Format => Error::malformed(path, "format", "a PNG or JPEG image", "something else"),
        DecodeError::Declared(declared) => {
            let expected = format!("at most {MAX_COMPRESSION} times the file's {} bytes", bytes.len());
            Error::malformed(path, "header", expected, format!("an image of {declared} bytes"))
        }
        DecodeError::Limits => {
            let expected = format!("at most {MAX_SIDE} x {MAX_SIDE} pixels and {MAX_BYTES} bytes");
            Error::malformed(path, "header", expected, "a larger image")
        }
        DecodeError::Truncated => Error::malformed(path, "image", "a complete image", "a truncated one"),
        DecodeError::Damaged(error) => Error::malformed(path, "image", "a complete image", error),
    })
}

/// Why a file cannot be decoded.
enum DecodeError {
    /// The file is neither PNG nor JPEG.
    Format,
    /// The file declares an image of this many bytes, more than it can contain.
    Declared(u64),
    /// The image exceeds the limits.
    Limits,
    /// The end of the image is missing.
    Truncated,
    /// The decoder found another error, in these words.
    Damaged(String),
}

impl From<ImageError> for DecodeError {
    fn from(error: ImageError) -> DecodeError {
        match error {
            ImageError::Limits(_) => DecodeError::Limits,
            // All bytes are in memory, so this is the decoder at the end of an incomplete file.
            ImageError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                DecodeError::Truncated
            }
            error => DecodeError::Damaged(error.to_string()),
        }
    }
}

/// Decodes the bytes of a file; `path` is for the log.
fn decode(path: &Path, bytes: &[u8]) -> Result<DynamicImage, DecodeError> {
    let format = image::guess_format(bytes).map_err(|_| DecodeError::Format)?;
    if !matches!(format, ImageFormat::Png | ImageFormat::Jpeg) {
        return Err(DecodeError::Format);
    }
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(MAX_SIDE), Some(MAX_SIDE));
    limits.max_alloc = Some(MAX_BYTES);
    let mut reader = ImageReader::with_format(io::Cursor::new(bytes), format);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    if width > MAX_SIDE || height > MAX_SIDE || decoder.total_bytes() > MAX_BYTES {
        return Err(DecodeError::Limits);
    }
    if decoder.total_bytes() > MAX_COMPRESSION * bytes.len() as u64 {
        return Err(DecodeError::Declared(decoder.total_bytes()));
    }
    // The JPEG decoder fills missing pixels with gray instead of reporting an error.
    if format == ImageFormat::Jpeg && !jpeg_is_complete(bytes) {
        return Err(DecodeError::Truncated);
    }
    limits.reserve(decoder.total_bytes())?;
    decoder.set_limits(limits)?;
    let orientation = decoder.orientation().unwrap_or_else(|error| {
        log::warn!("{}: the orientation of the camera cannot be read: {error}", path.display());
        Orientation::NoTransforms
    });
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// Returns whether a JPEG file has the marker of its end, `FF D9`. The segments are followed to the
/// first scan, because before it the marker may be the end of a thumbnail; after it, the two bytes
/// cannot be anything else.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xda;
    const FILL: u8 = 0xff;
    let mut at = 2;
    while let Some(&[0xff, marker, high, low]) = bytes.get(at..at + 4) {
        match marker {
            START_OF_SCAN => return bytes[at..].windows(2).any(|pair| pair == [0xff, 0xd9]),
            FILL => at += 1,
            _ => at += 2 + usize::from(u16::from_be_bytes([high, low])),
        }
    }
    false
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
            // PIL rounds to bytes after each pass of a resizing.
            let round = |x: f64| (x + 0.5).floor().clamp(0.0, 255.0) as f32;
            self.prepare(bytes, [height as usize, width as usize], round, 255.0)
        })?
    }
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

/// Computes the luma of a color with the weights of ITU-R 601-2, in integers as PIL does.
fn luma([r, g, b]: [u8; 3]) -> u8 {
    ((19_595 * u32::from(r) + 38_470 * u32::from(g) + 7_471 * u32::from(b) + 0x8000) >> 16) as u8
}
