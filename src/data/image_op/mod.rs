//! Operations on the colors and the geometry of images, with the arithmetic of PIL.

mod affine;
mod color;
mod histogram;

pub(super) use affine::check_fill;
pub use affine::{Affine, Interpolation};
#[cfg(feature = "image")]
pub(super) use color::luma;

use super::Transform;
use crate::{Error, Result, Rng};

/// An operation on an image of bytes, with its parameters: what torchvision's functional transforms
/// compute for an image of PIL.
///
/// The random transforms ([`ColorJitter`](super::ColorJitter),
/// [`TrivialAugmentWide`](super::TrivialAugmentWide), [`RandAugment`](super::RandAugment),
/// [`RandomAffine`](super::RandomAffine)) draw operations and apply them. As in torchvision's
/// references, pixels are bytes here: values in [0, 1] are multiplied by 255, rounded, and divided
/// by 255 afterward. So an operation comes before [`Normalize`](super::Normalize), and it needs 3
/// channels, red, green and blue, or 1.
///
/// An operation is a [`Transform`] too, one that is not random.
///
/// ```
/// use skipgrad::{Rng, data::{ImageOp, Transform}};
/// let mut pixels = [0.0, 0.2, 0.4, 1.0];
/// ImageOp::Solarize(102.0).apply(&mut pixels, [2, 2, 1], &mut Rng::seed(0));
/// assert_eq!(pixels, [0.0, 0.2, 0.6, 0.0]); // from 102 / 255 on, inverted
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ImageOp {
    /// The image as it is.
    Identity,
    /// Multiplies all pixels by a factor of at least 0 (`adjust_brightness`).
    AdjustBrightness(f32),
    /// Scales the distances from the mean gray of the image by a factor of at least 0
    /// (`adjust_contrast`).
    AdjustContrast(f32),
    /// Scales the distances from the gray of each pixel by a factor of at least 0
    /// (`adjust_saturation`). An image of one channel stays as it is.
    AdjustSaturation(f32),
    /// Turns the hue by a fraction of the color circle in [-0.5, 0.5] (`adjust_hue`). An image of
    /// one channel stays as it is.
    AdjustHue(f32),
    /// Scales the distances from a smoothed image by a factor of at least 0: 0 is blurred, 2 is
    /// sharpened (`adjust_sharpness`).
    AdjustSharpness(f32),
    /// Keeps this many of the highest bits of every byte, from 0 to 8 (`posterize`).
    Posterize(u32),
    /// Inverts the bytes that are not below a threshold in [0, 256] (`solarize`).
    Solarize(f32),
    /// Stretches each channel so that its darkest byte becomes 0 and its lightest 255
    /// (`autocontrast`).
    AutoContrast,
    /// Makes all bytes of a channel about equally frequent (`equalize`).
    Equalize,
    /// Inverts all bytes (`invert`).
    Invert,
    /// Rotates, scales, shears and translates (`affine`, `rotate`).
    Affine(Affine),
}

impl ImageOp {
    /// Applies the operation to an image `[H, W, C]` of bytes.
    pub(super) fn apply_to_bytes(&self, pixels: &mut [u8], shape @ [_, _, c]: [usize; 3]) {
        match *self {
            ImageOp::Identity => {}
            ImageOp::AdjustBrightness(factor) => color::adjust_brightness(pixels, factor),
            ImageOp::AdjustContrast(factor) => color::adjust_contrast(pixels, c, factor),
            ImageOp::AdjustSaturation(factor) => color::adjust_saturation(pixels, c, factor),
            ImageOp::AdjustHue(factor) => color::adjust_hue(pixels, c, factor),
            ImageOp::AdjustSharpness(factor) => color::adjust_sharpness(pixels, shape, factor),
            ImageOp::Posterize(bits) => {
                let dropped = 8 - bits.min(8);
                pixels.iter_mut().for_each(|x| *x = (u32::from(*x) >> dropped << dropped) as u8);
            }
            ImageOp::Solarize(threshold) => {
                pixels.iter_mut().filter(|x| f32::from(**x) >= threshold).for_each(|x| *x = 255 - *x);
            }
            ImageOp::AutoContrast => histogram::autocontrast(pixels, c),
            ImageOp::Equalize => histogram::equalize(pixels, c),
            ImageOp::Invert => pixels.iter_mut().for_each(|x| *x = 255 - *x),
            ImageOp::Affine(affine) => affine.apply_to_bytes(pixels, shape),
        }
    }
}

/// Applies operations one after the other to an image `[H, W, C]` with values in [0, 1].
pub(super) fn apply_all(ops: &[ImageOp], pixels: &mut [f32], shape: [usize; 3]) {
    if ops.iter().all(|op| *op == ImageOp::Identity) {
        return;
    }
    let mut bytes: Vec<u8> = pixels.iter().map(|x| (x * 255.0).round() as u8).collect();
    ops.iter().for_each(|op| op.apply_to_bytes(&mut bytes, shape));
    pixels.iter_mut().zip(bytes).for_each(|(x, byte)| *x = f32::from(byte) / 255.0);
}

/// Checks that images of a transform have the channels that operations know.
pub(super) fn check_channels(op: &'static str, [_, _, c]: [usize; 3]) -> Result<()> {
    if c == 1 || c == 3 { Ok(()) } else { Err(Error::argument(op, "channels", "1 or 3", c)) }
}

impl Transform for ImageOp {
    fn apply(&self, pixels: &mut [f32], shape: [usize; 3], _rng: &mut Rng) {
        apply_all(&[*self], pixels, shape);
    }

    fn is_random(&self) -> bool {
        false
    }

    fn check(&self, shape: [usize; 3]) -> Result<()> {
        check_channels("image_op", shape)?;
        let error = |argument, expected, found: &dyn std::fmt::Display| {
            Err(Error::argument("image_op", argument, expected, found))
        };
        match *self {
            ImageOp::AdjustBrightness(factor)
            | ImageOp::AdjustContrast(factor)
            | ImageOp::AdjustSaturation(factor)
            | ImageOp::AdjustSharpness(factor)
                if !(factor >= 0.0 && factor.is_finite()) =>
            {
                error("factor", "a finite number of at least 0", &factor)
            }
            ImageOp::AdjustHue(factor) if !(-0.5..=0.5).contains(&factor) => {
                error("hue", "a fraction of the color circle in [-0.5, 0.5]", &factor)
            }
            ImageOp::Posterize(bits) if bits > 8 => error("bits", "at most 8", &bits),
            ImageOp::Solarize(threshold) if !(0.0..=256.0).contains(&threshold) => {
                error("threshold", "a number in [0, 256]", &threshold)
            }
            ImageOp::Affine(affine) => affine.check(),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(op: ImageOp, pixels: &[u8], shape: [usize; 3]) -> Vec<u8> {
        let mut pixels = pixels.to_vec();
        op.apply_to_bytes(&mut pixels, shape);
        pixels
    }

    #[test]
    fn bytes_by_hand() {
        let gray = |op| applied(op, &[0, 50, 100, 200], [2, 2, 1]);
        assert_eq!(gray(ImageOp::Posterize(2)), [0, 0, 64, 192]);
        assert_eq!((gray(ImageOp::Posterize(0)), gray(ImageOp::Posterize(8))[1]), (vec![0; 4], 50));
        assert_eq!(gray(ImageOp::Invert), [255, 205, 155, 55]);
        assert_eq!(gray(ImageOp::AdjustBrightness(1.5)), [0, 75, 150, 255]);
        // The mean is 87.5, which is rounded to 88.
        assert_eq!(gray(ImageOp::AdjustContrast(0.0)), [88; 4]);
        // 200 becomes 254.99..., which PIL rounds down too.
        assert_eq!(gray(ImageOp::AutoContrast), [0, 63, 127, 254]);
        assert_eq!(gray(ImageOp::AdjustHue(0.3)), [0, 50, 100, 200]);
        let red = [200, 100, 100];
        assert_eq!(applied(ImageOp::AdjustHue(0.5), &red, [1, 1, 3]), [100, 200, 199]);
        assert_eq!(applied(ImageOp::AdjustSaturation(0.0), &red, [1, 1, 3]), [130; 3]);
    }

    #[test]
    fn what_does_nothing_changes_no_bit() {
        let image = [0.123_456, 0.7, 0.999];
        let mut pixels = image;
        ImageOp::Identity.apply(&mut pixels, [1, 1, 3], &mut Rng::seed(0));
        assert_eq!(pixels, image);
        let bytes: Vec<u8> = (0..=255).collect();
        for op in [
            ImageOp::AdjustBrightness(1.0),
            ImageOp::AdjustSharpness(1.0),
            ImageOp::Affine(Affine::new()),
            ImageOp::Affine(Affine::new().interpolation(Interpolation::Bilinear)),
            ImageOp::AutoContrast,
        ] {
            assert_eq!(applied(op, &bytes, [16, 16, 1]), bytes, "{op:?}");
        }
    }

    #[test]
    fn parameters_out_of_range_are_errors() {
        let error = |op: ImageOp| op.check([8, 8, 3]).unwrap_err().to_string();
        assert_eq!(
            error(ImageOp::AdjustContrast(-0.5)),
            "image_op: factor: expected a finite number of at least 0, found -0.5"
        );
        assert!(error(ImageOp::AdjustBrightness(f32::NAN)).contains("found NaN"));
        assert!(error(ImageOp::AdjustHue(0.6)).contains("hue"));
        assert!(error(ImageOp::Posterize(9)).contains("bits: expected at most 8, found 9"));
        assert!(error(ImageOp::Solarize(-1.0)).contains("threshold"));
        assert!(error(ImageOp::Affine(Affine::new().scale(0.0))).contains("scale"));
        let two = ImageOp::Equalize.check([8, 8, 2]).unwrap_err().to_string();
        assert_eq!(two, "image_op: channels: expected 1 or 3, found 2");
        ImageOp::Equalize.check([1, 1, 1]).unwrap();
    }
}
