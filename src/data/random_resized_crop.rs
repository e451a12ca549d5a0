//! Random crops of any size and aspect ratio.

use super::{Crop, Transform, dataset::resize_box};
use crate::{Error, Result, Rng};
use std::ops::Range;

/// Crops a random box from the image and resizes it to the size of the image, as torchvision's
/// `RandomResizedCrop` does (Szegedy et al. 2015, "Going deeper with convolutions", section 6).
///
/// The area of the box is a fraction of the image's area, uniformly distributed in `scale`. Its
/// aspect ratio is distributed uniformly in its logarithm, in `ratio`. If ten such boxes do not fit
/// into the image, the largest box of an allowed aspect ratio is taken from the center.
///
/// Where it is the first transform of a [`Loader`](super::Loader), it crops images in their own
/// size: those of an `ImageFolder` are decoded, cropped and resized once, as in the recipes for
/// ImageNet. After another transform it sees them in the size that the dataset gives them, and
/// enlarges small boxes.
///
/// ```
/// use skipgrad::{Rng, data::{RandomResizedCrop, Transform}};
/// let mut pixels: Vec<f32> = (0..64).map(|i| i as f32 / 64.0).collect();
/// RandomResizedCrop::new().apply(&mut pixels, [8, 8, 1], &mut Rng::seed(1));
/// assert!(pixels[63] - pixels[0] < 63.0 / 64.0, "a part of the image");
/// assert_eq!(RandomResizedCrop::new().scale, [0.08, 1.0]);
/// assert_eq!(RandomResizedCrop::new().scale([0.3, 1.0]).scale, [0.3, 1.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct RandomResizedCrop {
    /// Least and largest area of the box as fractions of the image's area, above 0 and at most 1.
    pub scale: [f32; 2],
    /// Least and largest aspect ratio of the box, width divided by height, above 0.
    pub ratio: [f32; 2],
}

/// How many boxes are tried before the one from the center is taken.
const ATTEMPTS: usize = 10;

impl RandomResizedCrop {
    /// Creates the transform with a scale from 0.08 to 1 and an aspect ratio from 3/4 to 4/3.
    pub fn new() -> RandomResizedCrop {
        RandomResizedCrop { scale: [0.08, 1.0], ratio: [3.0 / 4.0, 4.0 / 3.0] }
    }

    /// Sets the least and the largest area of the box as fractions of the image's area. Fine-tuning
    /// often uses a least area of 0.3 or more.
    #[must_use]
    pub fn scale(self, scale: [f32; 2]) -> RandomResizedCrop {
        RandomResizedCrop { scale, ..self }
    }

    /// Sets the least and the largest aspect ratio of the box, width divided by height.
    #[must_use]
    pub fn ratio(self, ratio: [f32; 2]) -> RandomResizedCrop {
        RandomResizedCrop { ratio, ..self }
    }
}

impl Crop for RandomResizedCrop {
    fn draw(&self, [h, w]: [usize; 2], rng: &mut Rng) -> [Range<usize>; 2] {
        let sides = |height: f32, width: f32| [height.round() as usize, width.round() as usize];
        for _ in 0..ATTEMPTS {
            let area = (h * w) as f32 * rng.uniform_in(self.scale);
            let ratio = rng.uniform_in(self.ratio.map(f32::ln)).exp();
            let [height, width] = sides((area / ratio).sqrt(), (area * ratio).sqrt());
            if (1..=h).contains(&height) && (1..=w).contains(&width) {
                let (top, left) = (rng.below(h - height + 1), rng.below(w - width + 1));
                return [top..top + height, left..left + width];
            }
        }
        let ratio = (w as f32 / h as f32).clamp(self.ratio[0], self.ratio[1]);
        let [height, width] = sides((w as f32 / ratio).min(h as f32), (h as f32 * ratio).min(w as f32));
        let [height, width] = [height.clamp(1, h), width.clamp(1, w)];
        let (top, left) = ((h - height) / 2, (w - width) / 2);
        [top..top + height, left..left + width]
    }
}

impl Default for RandomResizedCrop {
    fn default() -> RandomResizedCrop {
        RandomResizedCrop::new()
    }
}

impl Transform for RandomResizedCrop {
    fn apply(&self, pixels: &mut [f32], shape @ [h, w, _]: [usize; 3], rng: &mut Rng) {
        let source = self.draw([h, w], rng);
        resize_box(pixels, shape, source);
    }

    fn as_crop(&self) -> Option<&dyn Crop> {
        Some(self)
    }

    fn check(&self, _shape: [usize; 3]) -> Result<()> {
        let error = |argument, expected: &str, found: [f32; 2]| {
            Err(Error::argument("random_resized_crop", argument, expected, format_args!("{found:?}")))
        };
        match (self.scale, self.ratio) {
            ([low, high], _) if !(low > 0.0 && low <= high && high <= 1.0) => {
                error("scale", "two ascending numbers above 0 and at most 1", self.scale)
            }
            (_, [low, high]) if !(low > 0.0 && low <= high && high.is_finite()) => {
                error("ratio", "two ascending finite numbers above 0", self.ratio)
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_have_the_given_area_and_ratio() {
        let crop = RandomResizedCrop::new().scale([0.2, 0.5]);
        let mut rng = Rng::seed(3);
        let mut areas = vec![];
        for _ in 0..500 {
            let [rows, columns] = crop.draw([200, 300], &mut rng);
            assert!(rows.end <= 200 && columns.end <= 300);
            areas.push((rows.len() * columns.len()) as f32 / 60_000.0);
            let ratio = columns.len() as f32 / rows.len() as f32;
            assert!((0.73..1.36).contains(&ratio), "{ratio}");
        }
        areas.sort_by(f32::total_cmp);
        assert!(areas[0] > 0.19 && areas[499] < 0.51 && (areas[250] - 0.35).abs() < 0.03, "{areas:?}");
    }

    #[test]
    fn if_no_box_fits_the_largest_is_taken_from_the_center() {
        let whole = RandomResizedCrop::new().scale([1.0, 1.0]);
        assert_eq!(whole.draw([10, 100], &mut Rng::seed(0)), [0..10, 43..56]);
        assert_eq!(whole.draw([1, 1], &mut Rng::seed(0)), [0..1, 0..1]);
    }

    #[test]
    fn the_whole_image_stays_as_it_is() {
        let whole = RandomResizedCrop { scale: [1.0, 1.0], ratio: [1.0, 1.0] };
        let image: Vec<f32> = (0..75).map(|i| i as f32 / 75.0).collect();
        let mut pixels = image.clone();
        whole.apply(&mut pixels, [5, 5, 3], &mut Rng::seed(0));
        assert_eq!(pixels, image);
    }

    #[test]
    fn ranges_that_do_not_rise_are_an_error() {
        let check = |scale, ratio| RandomResizedCrop { scale, ratio }.check([8, 8, 3]);
        assert!(check([0.5, 1.0], [1.0, 1.0]).is_ok());
        for scale in [[0.0, 1.0], [0.5, 0.4], [0.5, 1.1], [f32::NAN, 1.0]] {
            assert!(check(scale, [1.0, 1.0]).unwrap_err().to_string().contains("scale"));
        }
        for ratio in [[0.0, 1.0], [2.0, 1.0], [1.0, f32::INFINITY]] {
            assert!(check([1.0, 1.0], ratio).unwrap_err().to_string().contains("ratio"));
        }
    }
}
