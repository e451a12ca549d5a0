//! Pictures as PNG in Base64, which a page can hold.

use crate::{Error, Result};
use base64::prelude::{BASE64_STANDARD, Engine};

/// The longest side of a picture on the page, in pixels; larger ones are scaled down.
const MAX_SIDE: usize = 96;

/// The bytes of a picture, `[H, W, C]`.
#[derive(Debug, PartialEq)]
pub(super) struct Picture {
    pub(super) height: usize,
    pub(super) width: usize,
    channels: usize,
    bytes: Vec<u8>,
}

impl Picture {
    /// Makes a picture of an image `[H, W, C]` with values in [0, 1], and scales it down if it is
    /// large. Of two channels, and of more than three, the first one or the first three are shown.
    pub(super) fn new(image: &[f32], [height, width, channels]: [usize; 3]) -> Picture {
        let scale = height.max(width).div_ceil(MAX_SIDE).max(1);
        let (rows, columns) = ((height / scale).max(1), (width / scale).max(1));
        let shown = if channels >= 3 { 3 } else { 1 };
        let mut bytes = Vec::with_capacity(rows * columns * shown);
        for (y, x) in (0..rows).flat_map(|y| (0..columns).map(move |x| (y, x))) {
            for channel in 0..shown {
                let block = (y * scale..height.min((y + 1) * scale))
                    .flat_map(|y| (x * scale..width.min((x + 1) * scale)).map(move |x| y * width + x));
                let (sum, count) = block.fold((0.0, 0), |(sum, count), pixel| {
                    (sum + image[pixel * channels + channel], count + 1)
                });
                bytes.push((sum / count as f32 * 255.0).round() as u8);
            }
        }
        Picture { height: rows, width: columns, channels: shown, bytes }
    }

    /// Makes a picture of a heat map, row by row with values in [0, 1]: from transparent through
    /// yellow to red.
    pub(super) fn heat(heat: &[f32], [height, width]: [usize; 2]) -> Picture {
        let color = |&heat: &f32| {
            let heat = heat.clamp(0.0, 1.0);
            [255, (255.0 * (1.0 - heat).min(0.85)).round() as u8, 0, (217.0 * heat).round() as u8]
        };
        Picture { height, width, channels: 4, bytes: heat.iter().flat_map(color).collect() }
    }

    /// Makes a picture of values in [0, 1], row by row: the shares of a confusion matrix, correct
    /// ones blue, others red.
    pub(super) fn shares(shares: &[f32], size: usize) -> Picture {
        let color = |(i, &share): (usize, &f32)| {
            let [r, g, b] = if i / size == i % size { [31, 119, 180] } else { [214, 39, 40] };
            [r, g, b, (255.0 * share.clamp(0.0, 1.0)).round() as u8]
        };
        let bytes = shares.iter().enumerate().flat_map(color).collect();
        Picture { height: size, width: size, channels: 4, bytes }
    }

    /// Returns the picture as a `data:` URL.
    ///
    /// # Errors
    /// [`Error::Argument`] if the picture cannot be encoded.
    pub(super) fn to_url(&self) -> Result<String> {
        let png = self.png().map_err(|error| Error::argument("report", "picture", "pixels", error))?;
        Ok(format!("data:image/png;base64,{}", BASE64_STANDARD.encode(png)))
    }

    fn png(&self) -> Result<Vec<u8>, png::EncodingError> {
        let mut file = vec![];
        let mut encoder = png::Encoder::new(&mut file, self.width as u32, self.height as u32);
        encoder.set_color(match self.channels {
            1 => png::ColorType::Grayscale,
            3 => png::ColorType::Rgb,
            _ => png::ColorType::Rgba,
        });
        encoder.set_compression(png::Compression::High);
        encoder.write_header()?.write_image_data(&self.bytes)?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pixels_are_bytes() {
        let picture = Picture::new(&[0.0, 0.5, 1.0, 2.0, f32::NAN, -1.0], [1, 2, 3]);
        assert_eq!((picture.channels, &picture.bytes[..]), (3, &[0, 128, 255, 255, 0, 0][..]));
        let two = Picture::new(&[1.0, 0.0, 0.0, 1.0], [1, 2, 2]);
        assert_eq!((two.channels, &two.bytes[..]), (1, &[255, 0][..]));
        let five = Picture::new(&[0.0, 0.2, 0.4, 0.6, 0.8], [1, 1, 5]);
        assert_eq!(five.bytes, [0, 51, 102]);
    }

    #[test]
    fn large_pictures_are_averaged() {
        let size = 2 * MAX_SIDE;
        let image: Vec<f32> = (0..size * size).map(|i| f32::from(u8::from(i % 2 == 0))).collect();
        let picture = Picture::new(&image, [size, size, 1]);
        assert_eq!((picture.height, picture.width), (MAX_SIDE, MAX_SIDE));
        assert!(picture.bytes.iter().all(|&byte| byte == 128));
        let narrow = Picture::new(&vec![1.0; 300], [300, 1, 1]);
        assert_eq!((narrow.height, narrow.width), (75, 1));
    }

    #[test]
    fn a_url_holds_a_png() {
        let url = Picture::heat(&[0.0, 1.0], [1, 2]).to_url().unwrap();
        let png = BASE64_STANDARD.decode(url.strip_prefix("data:image/png;base64,").unwrap()).unwrap();
        assert!(png.starts_with(b"\x89PNG"));
        let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        let mut pixels = vec![0; 8];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!((pixels[3], &pixels[4..]), (0, &[255, 0, 0, 217][..]));
        assert_eq!(Picture::shares(&[1.0, 0.0, 0.0, 0.5], 2).bytes[..4], [31, 119, 180, 255]);
    }
}
