//! Random squares of zeros.

use super::Transform;
use crate::Rng;

/// Sets a square around a random pixel to zero (DeVries and Taylor 2017, "Improved Regularization
/// of Convolutional Neural Networks with Cutout", with a length of 16 for CIFAR-10).
///
/// The part of the square that is outside of the image is cut off.
///
/// ```
/// use skipgrad::{Rng, data::{Cutout, Transform}};
/// let mut pixels = [1.0; 36];
/// Cutout::with_length(1).apply(&mut pixels, [6, 6, 1], &mut Rng::seed(0));
/// assert_eq!(pixels.iter().sum::<f32>(), 35.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cutout {
    /// Side of the square, in pixels.
    pub length: usize,
}

impl Cutout {
    /// Creates the transform with a square of this many pixels a side.
    pub fn with_length(length: usize) -> Cutout {
        Cutout { length }
    }
}

impl Transform for Cutout {
    fn apply(&self, pixels: &mut [f32], [h, w, c]: [usize; 3], rng: &mut Rng) {
        let span = |size: usize, rng: &mut Rng| {
            let center = rng.below(size);
            center.saturating_sub(self.length / 2)..center.saturating_add(self.length.div_ceil(2)).min(size)
        };
        let (rows, columns) = (span(h, rng), span(w, rng));
        for row in pixels.chunks_exact_mut(w * c).take(rows.end).skip(rows.start) {
            row[columns.start * c..columns.end * c].fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_cutout_is_a_square_that_the_edge_cuts_off() {
        let mut rng = Rng::seed(9);
        let mut sizes = BTreeSet::new();
        for _ in 0..500 {
            let mut image = vec![1.0; 7 * 5 * 2];
            Cutout::with_length(3).apply(&mut image, [7, 5, 2], &mut rng);
            let gone: Vec<usize> = (0..35).filter(|&i| image[2 * i] == 0.0).collect();
            assert!(gone.iter().all(|&i| image[2 * i + 1] == 0.0), "all channels");
            let rows: BTreeSet<usize> = gone.iter().map(|i| i / 5).collect();
            let columns: BTreeSet<usize> = gone.iter().map(|i| i % 5).collect();
            assert_eq!(gone.len(), rows.len() * columns.len(), "a rectangle");
            sizes.insert((rows.len(), columns.len()));
        }
        assert_eq!(sizes, [(2, 2), (2, 3), (3, 2), (3, 3)].into());
        let mut image = vec![1.0; 4];
        Cutout::with_length(usize::MAX).apply(&mut image, [2, 2, 1], &mut rng);
        assert_eq!(image, [0.0; 4]);
        Cutout::with_length(0).apply(&mut image, [2, 2, 1], &mut rng);
    }
}
