//! From the bytes of a file to pixels.

use super::{ImageLimits, formats, jpeg, png};
use crate::Rng;
use image::{
    DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, ImageResult, Limits,
    metadata::Orientation,
};
use std::{borrow::Cow, io, path::Path};

/// Largest number of bytes of an image, as they are packed in the file, for each byte of the file.
/// Deflate reaches about a thousand, and so do the shortest codes of JPEG: a file that declares a
/// larger image is incomplete, and no memory is allocated for it.
pub(super) const MAX_COMPRESSION: u64 = 4096;

/// Why a file cannot be decoded.
pub(super) enum DecodeError {
    /// The file has a format that is not read: what it is.
    Format(String),
    /// The file declares an image of this many bytes, more than it can contain.
    Declared(u64),
    /// The image exceeds the limits: its width, height and bytes, if they are known.
    TooLarge(Option<(u32, u32, u64)>),
    /// The end of the image is missing.
    Truncated,
    /// The decoder found another error, in these words.
    Damaged(String),
}

impl From<ImageError> for DecodeError {
    fn from(error: ImageError) -> DecodeError {
        match error {
            ImageError::Limits(_) => DecodeError::TooLarge(None),
            // All bytes are in memory, so this is the decoder at the end of an incomplete file.
            ImageError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                DecodeError::Truncated
            }
            error => DecodeError::Damaged(error.to_string()),
        }
    }
}

/// Decodes the bytes of a file, and turns the image upright if the camera stored an orientation.
/// `path` tells only what a file is that is no image.
/// `note` is called with what is wrong in a file that can be read nevertheless.
pub(super) fn decode(
    path: &Path,
    bytes: &[u8],
    limits: &ImageLimits,
    note: &mut dyn FnMut(String),
) -> Result<DynamicImage, DecodeError> {
    let format = formats::sniff(path, bytes).map_err(DecodeError::Format)?;
    if format == ImageFormat::Png
        && let Some(header) = png::Header::read(bytes)
    {
        check_size(limits, header.width, header.height, header.image_len())?;
        check_compression(header.packed_len(), bytes)?;
    }
    if format == ImageFormat::Bmp && lacks_rows(bytes) {
        return Err(DecodeError::Truncated);
    }
    let with_end = match format {
        ImageFormat::Png if !png::has_end_mark(bytes) => Cow::Owned(png::with_end_mark(bytes)),
        _ => Cow::Borrowed(bytes),
    };
    let mut decoder = decoder(&with_end, format, limits)?;
    let (width, height) = decoder.dimensions();
    check_size(limits, width, height, decoder.total_bytes())?;
    if format == ImageFormat::Jpeg {
        check_compression(decoder.total_bytes(), bytes)?;
    }
    let orientation = decoder.orientation().unwrap_or_else(|error| {
        note(format!("the orientation of the camera cannot be read: {error}"));
        Orientation::NoTransforms
    });
    // The JPEG decoder fills missing pixels with gray instead of reporting an error.
    let mut image = if format == ImageFormat::Jpeg && !jpeg::has_end_mark(bytes) {
        drop(decoder);
        let image = without_end_mark(bytes, limits)?;
        note("the mark of the end is missing; all pixels are there".to_string());
        image
    } else {
        DynamicImage::from_decoder(decoder)?
    };
    if matches!(with_end, Cow::Owned(_)) {
        note("the chunk of the end is missing; all pixels are there".to_string());
    }
    image.apply_orientation(orientation);
    Ok(image)
}

/// Reads the header of an image.
fn decoder<'a>(
    bytes: &'a [u8],
    format: ImageFormat,
    limits: &ImageLimits,
) -> ImageResult<impl ImageDecoder + 'a> {
    let mut reader = ImageReader::with_format(io::Cursor::new(bytes), format);
    let mut of_decoder = Limits::no_limits();
    // Some decoders hold an image twice, in another layout or as a canvas and a frame.
    of_decoder.max_alloc = Some(limits.max_image_bytes.saturating_mul(2));
    reader.limits(of_decoder);
    reader.into_decoder()
}

fn check_size(limits: &ImageLimits, width: u32, height: u32, bytes: u64) -> Result<(), DecodeError> {
    if width.max(height) > limits.max_side || bytes > limits.max_image_bytes {
        return Err(DecodeError::TooLarge(Some((width, height, bytes))));
    }
    Ok(())
}

fn check_compression(packed_len: u64, bytes: &[u8]) -> Result<(), DecodeError> {
    if packed_len > MAX_COMPRESSION * bytes.len() as u64 {
        return Err(DecodeError::Declared(packed_len));
    }
    Ok(())
}

/// Returns whether a BMP file is shorter than the rows that its header declares. Those of a
/// compressed image may have any length.
fn lacks_rows(bytes: &[u8]) -> bool {
    let number = |at: usize| Some(i32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let (Some(width), Some(height), Some(planes_and_bits), Some(compression)) =
        (number(18), number(22), number(26), number(30))
    else {
        return false;
    };
    let bits = u64::from(planes_and_bits as u32 >> 16);
    let row = (u64::from(width.unsigned_abs()) * bits).div_ceil(32) * 4;
    let has_header = number(14).is_some_and(|len| len >= 40);
    let len = row.saturating_mul(u64::from(height.unsigned_abs()));
    has_header && matches!(compression, 0 | 3 | 6) && len > bytes.len() as u64
}

/// How many other bytes are tried after a JPEG file without the mark of its end. A few may decode
/// to the same pixels by chance.
const TRIALS: usize = 8;

/// Decodes a JPEG file that does not have the mark of its end, if all pixels are there.
///
/// The decoder goes on after the last byte as if others followed. So pixels are missing exactly if
/// they depend on the bytes that follow.
fn without_end_mark(bytes: &[u8], limits: &ImageLimits) -> Result<DynamicImage, DecodeError> {
    if !jpeg::has_every_scan(bytes) {
        return Err(DecodeError::Truncated);
    }
    let mut rng = Rng::seed(0);
    let mut decode_with_others = || {
        let following: [u8; 64] = std::array::from_fn(|_| rng.bits() as u8);
        let bytes = jpeg::with_end_mark(bytes, following);
        let decoder = decoder(&bytes, ImageFormat::Jpeg, limits)?;
        DynamicImage::from_decoder(decoder)
    };
    let image = decode_with_others()?;
    for _ in 0..TRIALS {
        if decode_with_others()? != image {
            return Err(DecodeError::Truncated);
        }
    }
    Ok(image)
}
