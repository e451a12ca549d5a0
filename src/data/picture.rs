//! Pictures from files: PNG and JPEG.

use super::Preset;
use crate::{Error, Result, Tensor};
use image::{DynamicImage, GenericImageView as _, ImageDecoder as _, ImageError, ImageReader, Limits};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

/// The most pixels a side of a picture may have.
const SIDE: u32 = 16_384;

/// The most bytes that a picture, or its file, may take.
const BYTES: u64 = 256 << 20;

/// How many bytes of pixels a byte of a file can be at most. Deflate reaches about a thousand, and so do the shortest codes of
/// JPEG: a file that promises more is not whole, and no memory is taken for it.
const MOST: u64 = 4096;

/// Opens a picture, PNG or JPEG, whichever it is by its content, and turns it upright if the camera says how it was held.
///
/// A picture has at most 16,384 pixels a side and 256 MiB. What a file promises is compared with its size before memory is
/// taken for it.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Malformed`] if it is no PNG or JPEG, is cut short or damaged, or is too
/// large.
///
/// ```
/// # let path = std::env::temp_dir().join(format!("skipgrad-open-{}.png", std::process::id()));
/// # image::RgbImage::new(5, 4).save(&path).unwrap();
/// let picture = skipgrad::data::open_picture(&path)?;
/// assert_eq!((picture.width(), picture.height()), (5, 4));
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), skipgrad::Error>(())
/// ```
pub fn open_picture(path: impl AsRef<Path>) -> Result<DynamicImage> {
    let path = path.as_ref();
    let cannot = |source| Error::io(path, "read", source);
    // Before it is opened: opening a pipe would wait for its writer.
    let about = fs::metadata(path).map_err(cannot)?;
    if !about.is_file() {
        return Err(cannot(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    let size = about.len();
    if size > BYTES {
        return Err(malformed(path, "size", format!("at most {BYTES} bytes"), size));
    }
    let mut bytes = vec![];
    File::open(path).map_err(cannot)?.take(BYTES).read_to_end(&mut bytes).map_err(cannot)?;
    decode(path, &bytes).map_err(|error| match error {
        Fault::Format => malformed(path, "format", "a picture, PNG or JPEG", "something else"),
        Fault::Promise(promised) => {
            let expected = format!("at most {MOST} times the file's {} bytes", bytes.len());
            malformed(path, "header", expected, format_args!("a picture of {promised} bytes"))
        }
        Fault::Limits => {
            let expected = format!("at most {SIDE} x {SIDE} pixels and {BYTES} bytes");
            malformed(path, "header", expected, "a larger picture")
        }
        Fault::Cut => malformed(path, "picture", "a whole one", "one that is cut short"),
        Fault::Damage(word) => malformed(path, "picture", "a whole one", word),
    })
}

fn malformed(path: &Path, at: &str, expected: impl Into<String>, found: impl ToString) -> Error {
    Error::Malformed {
        path: path.to_path_buf(),
        at: at.to_string(),
        expected: expected.into(),
        found: found.to_string(),
    }
}

/// What may be wrong with a picture.
enum Fault {
    Format,
    Promise(u64),
    Limits,
    Cut,
    Damage(String),
}

impl From<ImageError> for Fault {
    fn from(error: ImageError) -> Fault {
        match error {
            ImageError::Limits(_) => Fault::Limits,
            // All bytes are in memory: this is the decoder that wants more of them.
            ImageError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => Fault::Cut,
            error => Fault::Damage(error.to_string().chars().take(300).collect()),
        }
    }
}

fn decode(path: &Path, bytes: &[u8]) -> Result<DynamicImage, Fault> {
    let format = image::guess_format(bytes).map_err(|_| Fault::Format)?;
    if !matches!(format, image::ImageFormat::Png | image::ImageFormat::Jpeg) {
        return Err(Fault::Format);
    }
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(SIDE), Some(SIDE));
    limits.max_alloc = Some(BYTES);
    let mut reader = ImageReader::with_format(io::Cursor::new(bytes), format);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    if width > SIDE || height > SIDE || decoder.total_bytes() > BYTES {
        return Err(Fault::Limits);
    }
    if decoder.total_bytes() > MOST * bytes.len() as u64 {
        return Err(Fault::Promise(decoder.total_bytes()));
    }
    // The decoder of JPEG paints what is missing gray.
    if format == image::ImageFormat::Jpeg && !jpeg_is_whole(bytes) {
        return Err(Fault::Cut);
    }
    limits.reserve(decoder.total_bytes())?;
    decoder.set_limits(limits)?;
    let orientation = decoder.orientation().unwrap_or_else(|error| {
        log::warn!("{}: how the camera was held is not readable: {error}", path.display());
        image::metadata::Orientation::NoTransforms
    });
    let mut picture = DynamicImage::from_decoder(decoder)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

/// Whether the picture's end is there: the segments are followed to the first scan, behind which `FF D9` stands for nothing else.
/// (Before it, it may be the end of a preview.)
fn jpeg_is_whole(bytes: &[u8]) -> bool {
    const SCAN: u8 = 0xda;
    let mut at = 2;
    while let Some(&[0xff, marker, high, low]) = bytes.get(at..at + 4) {
        match marker {
            SCAN => return bytes[at..].windows(2).any(|pair| pair == [0xff, 0xd9]),
            // A fill byte.
            0xff => at += 1,
            _ => at += 2 + usize::from(u16::from_be_bytes([high, low])),
        }
    }
    false
}

impl Preset {
    /// Reads a picture as the network wants it, `[crop, crop, C]`.
    ///
    /// # Errors
    /// As [`open_picture`] and [`Preset::image`].
    ///
    /// ```
    /// use skipgrad::data::Preset;
    /// # let path = std::env::temp_dir().join(format!("skipgrad-read-{}.png", std::process::id()));
    /// # image::RgbImage::from_pixel(500, 400, image::Rgb([255, 0, 0])).save(&path).unwrap();
    /// let image = Preset::imagenet().read(&path)?; // a red one
    /// assert_eq!(image.shape(), [224, 224, 3]);
    /// assert!((image.data()[0] - (1.0 - 0.485) / 0.229).abs() < 1e-6);
    /// # std::fs::remove_file(&path).unwrap();
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Tensor> {
        self.image(&open_picture(path)?)
    }

    /// A picture of the crate `image` as the network wants it, `[crop, crop, C]`. Transparency is ignored, 16 bits become 8.
    ///
    /// # Errors
    /// [`Error::Argument`] if the picture has no pixels or the network sees neither 1 channel nor 3, and [`Preset::check`]'s.
    ///
    /// ```
    /// use skipgrad::data::Preset;
    /// let picture = image::DynamicImage::new_luma16(40, 50);
    /// assert_eq!(Preset::cifar10().image(&picture)?.shape(), [32, 32, 3]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn image(&self, picture: &DynamicImage) -> Result<Tensor> {
        let (width, height) = picture.dimensions();
        if width == 0 || height == 0 {
            let found = format!("{width} x {height}");
            return Err(Error::argument("preset", "picture", "at least one pixel", found));
        }
        with_bytes(picture, self.num_channels(), |bytes| {
            // PIL keeps bytes.
            let byte = |x: f64| (x + 0.5).floor().clamp(0.0, 255.0) as f32;
            self.prepare(bytes, [height as usize, width as usize], byte, 255.0)
        })?
    }
}

/// Hands over the picture's pixels in so many channels, a byte each.
fn with_bytes<R>(picture: &DynamicImage, channels: usize, f: impl FnOnce(&[u8]) -> R) -> Result<R> {
    match (channels, picture) {
        (1, DynamicImage::ImageLuma8(gray)) => Ok(f(gray)),
        (1, _) if picture.color().has_color() => {
            Ok(f(&picture.to_rgb8().pixels().map(|pixel| brightness(pixel.0)).collect::<Vec<u8>>()))
        }
        (1, _) => Ok(f(&picture.to_luma8())),
        (3, DynamicImage::ImageRgb8(rgb)) => Ok(f(rgb)),
        (3, _) => Ok(f(&picture.to_rgb8())),
        _ => Err(Error::argument("preset", "channels", "1 or 3 for a picture", channels)),
    }
}

/// The brightness of a color as ITU-R 601-2 weighs it, in whole numbers as PIL does it.
fn brightness([r, g, b]: [u8; 3]) -> u8 {
    ((19_595 * u32::from(r) + 38_470 * u32::from(g) + 7_471 * u32::from(b) + 0x8000) >> 16) as u8
}
