//! Random changes of the colors.

use super::{
    ImageOp, Transform,
    image_op::{apply_all, check_channels},
};
use crate::{Error, Result, Rng};

/// Changes brightness, contrast, saturation and hue at random, in a random order, as torchvision's
/// `ColorJitter` does.
///
/// The factor of the first three is distributed uniformly from `max(0, 1 - x)` to `1 + x`, the turn
/// of the hue from `-hue` to `hue`, in fractions of the color circle. What is 0 is left out. The
/// transform comes before [`Normalize`](super::Normalize), as every [`ImageOp`].
///
/// ```
/// use skipgrad::{Rng, data::{ColorJitter, ImageOp, Transform}};
/// let jitter = ColorJitter::new().brightness(0.4);
/// let [ImageOp::AdjustBrightness(factor)] = jitter.draw(&mut Rng::seed(0))[..] else { panic!() };
/// assert!((0.6..=1.4).contains(&factor));
/// let mut pixels = [0.2; 3];
/// jitter.apply(&mut pixels, [1, 1, 3], &mut Rng::seed(0));
/// assert!((pixels[0] - 0.2 * factor).abs() < 1.0 / 255.0);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ColorJitter {
    /// How far the factor of the brightness is from 1 at most, at least 0.
    pub brightness: f32,
    /// How far the factor of the contrast is from 1 at most, at least 0.
    pub contrast: f32,
    /// How far the factor of the saturation is from 1 at most, at least 0.
    pub saturation: f32,
    /// Largest turn of the hue, in [0, 0.5].
    pub hue: f32,
}

impl ColorJitter {
    /// Creates the transform that changes nothing.
    pub fn new() -> ColorJitter {
        ColorJitter::default()
    }

    /// Sets how far the factor of the brightness is from 1 at most.
    #[must_use]
    pub fn brightness(self, brightness: f32) -> ColorJitter {
        ColorJitter { brightness, ..self }
    }

    /// Sets how far the factor of the contrast is from 1 at most.
    #[must_use]
    pub fn contrast(self, contrast: f32) -> ColorJitter {
        ColorJitter { contrast, ..self }
    }

    /// Sets how far the factor of the saturation is from 1 at most.
    #[must_use]
    pub fn saturation(self, saturation: f32) -> ColorJitter {
        ColorJitter { saturation, ..self }
    }

    /// Sets the largest turn of the hue, in [0, 0.5].
    #[must_use]
    pub fn hue(self, hue: f32) -> ColorJitter {
        ColorJitter { hue, ..self }
    }

    /// Draws the operations for one image, in the order in which they are applied.
    pub fn draw(&self, rng: &mut Rng) -> Vec<ImageOp> {
        let factor = |most: f32, rng: &mut Rng| rng.uniform_in([(1.0 - most).max(0.0), 1.0 + most]);
        let mut ops = vec![];
        if self.brightness > 0.0 {
            ops.push(ImageOp::AdjustBrightness(factor(self.brightness, rng)));
        }
        if self.contrast > 0.0 {
            ops.push(ImageOp::AdjustContrast(factor(self.contrast, rng)));
        }
        if self.saturation > 0.0 {
            ops.push(ImageOp::AdjustSaturation(factor(self.saturation, rng)));
        }
        if self.hue > 0.0 {
            ops.push(ImageOp::AdjustHue(rng.uniform_in([-self.hue, self.hue])));
        }
        rng.shuffle(&mut ops);
        ops
    }
}

impl Transform for ColorJitter {
    fn apply(&self, pixels: &mut [f32], shape: [usize; 3], rng: &mut Rng) {
        apply_all(&self.draw(rng), pixels, shape);
    }

    fn check(&self, shape: [usize; 3]) -> Result<()> {
        check_channels("color_jitter", shape)?;
        let ranges =
            [("brightness", self.brightness), ("contrast", self.contrast), ("saturation", self.saturation)];
        for (argument, value) in ranges {
            if !(value >= 0.0 && value.is_finite()) {
                let expected = "a finite number of at least 0";
                return Err(Error::argument("color_jitter", argument, expected, value));
            }
        }
        if !(0.0..=0.5).contains(&self.hue) {
            return Err(Error::argument("color_jitter", "hue", "a number in [0, 0.5]", self.hue));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn factors_fill_their_ranges_in_every_order() {
        let jitter = ColorJitter::new().brightness(0.4).contrast(2.0).saturation(0.1).hue(0.2);
        let mut rng = Rng::seed(4);
        let (mut orders, mut contrasts) = (BTreeSet::new(), vec![]);
        for _ in 0..500 {
            let ops = jitter.draw(&mut rng);
            orders.insert(ops.iter().map(|op| format!("{op:?}")[6..9].to_string()).collect::<Vec<_>>());
            for op in ops {
                match op {
                    ImageOp::AdjustBrightness(factor) => assert!((0.6..=1.4).contains(&factor)),
                    ImageOp::AdjustContrast(factor) => contrasts.push(factor),
                    ImageOp::AdjustSaturation(factor) => assert!((0.9..=1.1).contains(&factor)),
                    ImageOp::AdjustHue(turn) => assert!((-0.2..=0.2).contains(&turn)),
                    op => panic!("{op:?}"),
                }
            }
        }
        contrasts.sort_by(f32::total_cmp);
        assert_eq!(orders.len(), 24);
        assert!(contrasts[0] < 0.05 && (contrasts[250] - 1.5).abs() < 0.2 && contrasts[499] > 2.95);
    }

    #[test]
    fn ranges_are_checked() {
        let error = |jitter: ColorJitter, c| jitter.check([8, 8, c]).unwrap_err().to_string();
        assert_eq!(
            error(ColorJitter::new().hue(0.6), 3),
            "color_jitter: hue: expected a number in [0, 0.5], found 0.6"
        );
        assert!(error(ColorJitter::new().contrast(-1.0), 3).contains("contrast"));
        assert!(error(ColorJitter::new().brightness(f32::NAN), 3).contains("brightness"));
        assert!(error(ColorJitter::new(), 4).contains("channels: expected 1 or 3, found 4"));
    }
}
