//! Random crops of the padded image.

use super::Transform;
use crate::{Error, Result, Rng};

/// Pads the image with zeros on all sides and crops it to its own size at a random place, as
/// torchvision's `RandomCrop(size, padding)` does.
///
/// The image is shifted by up to `padding` pixels along each axis, each shift with the same
/// probability (He et al. 2015, section 4.2, with a padding of 4).
///
/// ```
/// use skipgrad::{Rng, data::{RandomCrop, Transform}};
/// let mut pixels = [1.0; 16];
/// RandomCrop::with_padding(1).apply(&mut pixels, [4, 4, 1], &mut Rng::seed(2));
/// assert!([9.0, 12.0, 16.0].contains(&pixels.iter().sum::<f32>()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RandomCrop {
    /// Number of zero pixels that are added on each side, below the height and width of the image.
    pub padding: usize,
}

impl RandomCrop {
    /// Creates the transform with this many pixels of padding on each side.
    pub fn with_padding(padding: usize) -> RandomCrop {
        RandomCrop { padding }
    }
}

impl Transform for RandomCrop {
    fn apply(&self, pixels: &mut [f32], shape: [usize; 3], rng: &mut Rng) {
        let offset = |rng: &mut Rng| rng.below(2 * self.padding + 1) as isize - self.padding as isize;
        let (rows, columns) = (offset(rng), offset(rng));
        shift(pixels, shape, rows, columns);
    }

    fn check(&self, [h, w, _]: [usize; 3]) -> Result<()> {
        if self.padding >= h.min(w) {
            let expected = format!("a padding below {}, the size of the image", h.min(w));
            return Err(Error::argument("random_crop", "padding", expected, self.padding));
        }
        Ok(())
    }
}

/// Replaces the image by a crop that begins `rows` further down and `columns` further right; pixels
/// outside of the image are zero.
fn shift(pixels: &mut [f32], [h, w, c]: [usize; 3], rows: isize, columns: isize) {
    let stride = w * c;
    let kept = w.saturating_sub(columns.unsigned_abs()) * c;
    let (from, to) = if columns >= 0 { (stride - kept, 0) } else { (0, stride - kept) };
    let mut row = |y: usize| {
        let start = y * stride;
        match y.checked_add_signed(rows).filter(|&source| source < h) {
            Some(source) => {
                let source = source * stride + from;
                pixels.copy_within(source..source + kept, start + to);
                pixels[start..start + to].fill(0.0);
                pixels[start + to + kept..start + stride].fill(0.0);
            }
            None => pixels[start..start + stride].fill(0.0),
        }
    };
    // The order follows the direction, so that every row is read before it is overwritten.
    if rows >= 0 { (0..h).for_each(&mut row) } else { (0..h).rev().for_each(&mut row) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// An image whose pixel at row y, column x, channel k is 100 (y + 1) + 10 (x + 1) + k.
    fn numbered([h, w, c]: [usize; 3]) -> Vec<f32> {
        let pixel = |i: usize| 100 * (i / (w * c) + 1) + 10 * (i / c % w + 1) + i % c;
        (0..h * w * c).map(|i| pixel(i) as f32).collect()
    }

    #[test]
    fn a_shift_equals_padding_and_cropping_by_hand() {
        for shape @ [h, w, c] in [[3, 3, 1], [4, 5, 3], [5, 2, 2], [1, 7, 1]] {
            let image = numbered(shape);
            let pad = (h.min(w) - 1) as isize;
            for (rows, columns) in (-pad..=pad).flat_map(|y| (-pad..=pad).map(move |x| (y, x))) {
                let mut shifted = image.clone();
                shift(&mut shifted, shape, rows, columns);
                for (i, &value) in shifted.iter().enumerate() {
                    let (y, x) = ((i / (w * c)) as isize + rows, (i / c % w) as isize + columns);
                    let inside = (0..h as isize).contains(&y) && (0..w as isize).contains(&x);
                    let expected =
                        if inside { image[(y as usize * w + x as usize) * c + i % c] } else { 0.0 };
                    assert_eq!(value, expected, "{shape:?} by {rows}, {columns} at {i}");
                }
            }
        }
    }

    #[test]
    fn a_shift_of_a_small_image() {
        let mut image = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
        shift(&mut image, [3, 3, 1], 1, -1);
        assert_eq!(image, [0.0, 4.0, 5.0, 0.0, 7.0, 8.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn crops_reach_both_ends_and_everything_between() {
        let mut rng = Rng::seed(3);
        let mut seen = BTreeSet::new();
        for _ in 0..2000 {
            // The only bright pixel is in the middle of 9 x 9: its place after the crop tells the
            // shift.
            let mut image = vec![0.0; 81];
            image[40] = 1.0;
            RandomCrop::with_padding(4).apply(&mut image, [9, 9, 1], &mut rng);
            seen.insert(image.iter().position(|&x| x == 1.0).unwrap());
        }
        assert_eq!(seen, (0..81).collect());
    }

    #[test]
    fn a_padding_as_large_as_the_image_is_an_error() {
        let error = RandomCrop::with_padding(6).check([8, 6, 3]).unwrap_err().to_string();
        assert!(error.contains("a padding below 6, the size of the image, found 6"), "{error}");
    }
}
