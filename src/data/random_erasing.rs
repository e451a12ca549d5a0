//! Random boxes without content.

use super::Transform;
use crate::{Error, Result, Rng};
use std::ops::Range;

/// Erases a random box of the image, as torchvision's `RandomErasing` does (Zhong et al. 2020,
/// "Random erasing data augmentation", algorithm 1).
///
/// The area of the box is a fraction of the image's area, distributed uniformly in `scale`; its
/// aspect ratio is distributed uniformly in its logarithm, in `ratio`. If ten such boxes are not
/// smaller than the image on both axes, nothing is erased. As in torchvision, the transform comes
/// after [`Normalize`](super::Normalize): 0 is then the mean color.
///
/// ```
/// use skipgrad::{Rng, data::{RandomErasing, Transform}};
/// let mut pixels = [1.0; 100];
/// let erasing = RandomErasing::new().p(1.0).scale([0.04, 0.04]).ratio([1.0, 1.0]);
/// erasing.apply(&mut pixels, [10, 10, 1], &mut Rng::seed(0));
/// assert_eq!(pixels.iter().sum::<f32>(), 96.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct RandomErasing {
    /// Probability that a box is erased, in [0, 1].
    pub p: f32,
    /// Least and largest area of the box as fractions of the image's area, in [0, 1].
    pub scale: [f32; 2],
    /// Least and largest aspect ratio of the box, height divided by width, above 0.
    pub ratio: [f32; 2],
    /// What the box is filled with.
    pub value: ErasingValue,
}

/// What [`RandomErasing`] fills a box with.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum ErasingValue {
    /// The same number in every channel of every pixel.
    Constant(f32),
    /// A number of the standard normal distribution for every channel of every pixel (`"random"` in
    /// torchvision, `pixel` in timm).
    Random,
}

/// How many boxes are tried.
const ATTEMPTS: usize = 10;

impl RandomErasing {
    /// Creates the transform with torchvision's defaults: probability 0.5, an area from 0.02 to
    /// 0.33, an aspect ratio from 0.3 to 3.3, and zeros.
    pub fn new() -> RandomErasing {
        let value = ErasingValue::Constant(0.0);
        RandomErasing { p: 0.5, scale: [0.02, 0.33], ratio: [0.3, 3.3], value }
    }

    /// Sets the probability that a box is erased, in [0, 1].
    #[must_use]
    pub fn p(self, p: f32) -> RandomErasing {
        RandomErasing { p, ..self }
    }

    /// Sets the least and the largest area of the box as fractions of the image's area.
    #[must_use]
    pub fn scale(self, scale: [f32; 2]) -> RandomErasing {
        RandomErasing { scale, ..self }
    }

    /// Sets the least and the largest aspect ratio of the box, height divided by width.
    #[must_use]
    pub fn ratio(self, ratio: [f32; 2]) -> RandomErasing {
        RandomErasing { ratio, ..self }
    }

    /// Sets what the box is filled with.
    #[must_use]
    pub fn value(self, value: ErasingValue) -> RandomErasing {
        RandomErasing { value, ..self }
    }

    /// Draws the rows and the columns of the box for one image of `h` rows and `w` columns, or
    /// `None` if nothing is erased.
    pub fn draw(&self, [h, w]: [usize; 2], rng: &mut Rng) -> Option<[Range<usize>; 2]> {
        if !rng.chance(self.p) {
            return None;
        }
        for _ in 0..ATTEMPTS {
            let area = (h * w) as f32 * rng.uniform_in(self.scale);
            let ratio = rng.uniform_in(self.ratio.map(f32::ln)).exp();
            let height = (area * ratio).sqrt().round_ties_even() as usize;
            let width = (area / ratio).sqrt().round_ties_even() as usize;
            if height < h && width < w {
                let (top, left) = (rng.below(h - height + 1), rng.below(w - width + 1));
                return Some([top..top + height, left..left + width]);
            }
        }
        None
    }
}

impl Default for RandomErasing {
    fn default() -> RandomErasing {
        RandomErasing::new()
    }
}

impl Transform for RandomErasing {
    fn apply(&self, pixels: &mut [f32], [h, w, c]: [usize; 3], rng: &mut Rng) {
        let Some([rows, columns]) = self.draw([h, w], rng) else { return };
        for row in pixels.chunks_exact_mut(w * c).take(rows.end).skip(rows.start) {
            for x in &mut row[columns.start * c..columns.end * c] {
                *x = match self.value {
                    ErasingValue::Constant(value) => value,
                    ErasingValue::Random => rng.normal(),
                };
            }
        }
    }

    fn check(&self, _shape: [usize; 3]) -> Result<()> {
        let error = |argument, expected: &str, found: &dyn std::fmt::Debug| {
            Err(Error::argument("random_erasing", argument, expected, format_args!("{found:?}")))
        };
        if !(0.0..=1.0).contains(&self.p) {
            return error("p", "a probability in [0, 1]", &self.p);
        }
        match (self.scale, self.ratio, self.value) {
            ([low, high], ..) if !(low >= 0.0 && low <= high && high <= 1.0) => {
                error("scale", "two ascending numbers in [0, 1]", &self.scale)
            }
            (_, [low, high], _) if !(low > 0.0 && low <= high && high.is_finite()) => {
                error("ratio", "two ascending finite numbers above 0", &self.ratio)
            }
            (.., ErasingValue::Constant(value)) if !value.is_finite() => {
                error("value", "a finite number", &value)
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_have_the_given_area_and_ratio_half_of_the_time() {
        let mut rng = Rng::seed(5);
        let boxes: Vec<_> =
            (0..2000).filter_map(|_| RandomErasing::new().draw([200, 300], &mut rng)).collect();
        assert!((900..1100).contains(&boxes.len()), "{}", boxes.len());
        for [rows, columns] in boxes {
            assert!(rows.end <= 200 && columns.end <= 300);
            let area = (rows.len() * columns.len()) as f32 / 60_000.0;
            let ratio = rows.len() as f32 / columns.len() as f32;
            assert!((0.019..0.335).contains(&area) && (0.29..3.4).contains(&ratio), "{area} {ratio}");
        }
    }

    #[test]
    fn a_box_as_large_as_the_image_is_never_erased() {
        let whole = RandomErasing::new().p(1.0).scale([1.0, 1.0]).ratio([1.0, 1.0]);
        assert_eq!(whole.draw([9, 9], &mut Rng::seed(0)), None);
        let mut pixel = [1.0];
        RandomErasing::new().p(1.0).apply(&mut pixel, [1, 1, 1], &mut Rng::seed(0));
        assert_eq!(pixel, [1.0]);
    }

    #[test]
    fn a_box_is_filled_with_noise_of_all_channels() {
        let mut pixels = vec![7.0; 40 * 40 * 3];
        let erasing = RandomErasing::new().p(1.0).value(ErasingValue::Random).scale([0.3, 0.3]);
        erasing.apply(&mut pixels, [40, 40, 3], &mut Rng::seed(3));
        let noise: Vec<f32> = pixels.into_iter().filter(|&x| x != 7.0).collect();
        let mean = noise.iter().sum::<f32>() / noise.len() as f32;
        let variance = noise.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / noise.len() as f32;
        assert!((1300..1600).contains(&noise.len()) && noise.len().is_multiple_of(3), "{}", noise.len());
        assert!(mean.abs() < 0.1 && (variance - 1.0).abs() < 0.15, "{mean} {variance}");
    }

    #[test]
    fn options_out_of_range_are_errors() {
        let error = |erasing: RandomErasing| erasing.check([8, 8, 3]).unwrap_err().to_string();
        assert_eq!(
            error(RandomErasing::new().p(1.5)),
            "random_erasing: p: expected a probability in [0, 1], found 1.5"
        );
        assert!(error(RandomErasing::new().scale([0.5, 0.4])).contains("scale"));
        assert!(error(RandomErasing::new().ratio([0.0, 1.0])).contains("ratio"));
        assert!(error(RandomErasing::new().value(ErasingValue::Constant(f32::NAN))).contains("value"));
    }
}
