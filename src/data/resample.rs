//! Bilinear resizing with antialiasing, as in PIL and in torchvision with `antialias`.
//!
//! Enlarging is the usual interpolation between neighbors. When an image is reduced, the triangle
//! of the weights is widened to the distance between new pixels, so that every source pixel counts.
//! A horizontal pass comes first, then a vertical pass; each new value is a sum of a few neighbors
//! with weights that depend on the position alone. Only a window of the result is computed, so the
//! cost does not depend on the size of the whole result.
//!
//! PIL computes with integers: its weights are multiples of 2^-22. The weights here are the same,
//! and their sums over bytes are exact in `f64`, so rounding to bytes gives PIL's result to the
//! bit. (Since version 13, PIL runs the vertical pass first for some images that are reduced in
//! height; there the results may differ by one.)

use std::ops::Range;

/// A resizing: the box `source` of an image is resized to `size`, and the pixels of `window` are
/// computed. Each of them has rows first, then columns.
#[derive(Clone, Debug)]
pub(super) struct Resample {
    pub(super) source: [Range<usize>; 2],
    pub(super) size: [usize; 2],
    pub(super) window: [Range<usize>; 2],
}

/// All weights are multiples of this.
const UNIT: f64 = 1.0 / (1 << 22) as f64;

/// The neighbors of a new pixel along one axis: index of the first, and their weights, whose sum is
/// 1.
type Neighbors = (usize, Vec<f64>);

impl Resample {
    /// Computes the window, `[rows, columns, C]`, from an image of `width` columns and `c`
    /// channels. `round` converts the sums of the horizontal and then of the vertical pass.
    pub(super) fn run<T: Copy + Into<f32>>(
        &self,
        pixels: &[T],
        [width, c]: [usize; 2],
        round: impl Fn(f64) -> f32,
        out: &mut [f32],
    ) {
        let [rows, columns] = [0, 1].map(|axis| self.neighbors(axis));
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return };
        let (top, bottom) = (first.0, last.0 + last.1.len());
        let stride = columns.len() * c;
        let mut sums = vec![0.0f64; stride];
        let store = |sums: &mut [f64], row: &mut [f32]| {
            row.iter_mut().zip(sums).for_each(|(x, sum)| *x = round(std::mem::take(sum)));
        };
        let mut horizontal = vec![0.0; (bottom - top) * stride];
        for (y, row) in (top..bottom).zip(horizontal.chunks_exact_mut(stride)) {
            let source = &pixels[y * width * c..(y + 1) * width * c];
            for (sums, (begin, weights)) in sums.chunks_exact_mut(c).zip(&columns) {
                for (pixel, weight) in source[begin * c..].chunks_exact(c).zip(weights) {
                    for (sum, &x) in sums.iter_mut().zip(pixel) {
                        *sum += weight * f64::from(x.into());
                    }
                }
            }
            store(&mut sums, row);
        }
        for (out, (begin, weights)) in out.chunks_exact_mut(stride).zip(&rows) {
            for (row, weight) in horizontal[(begin - top) * stride..].chunks_exact(stride).zip(weights) {
                sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += weight * f64::from(x));
            }
            store(&mut sums, out);
        }
    }

    /// Returns the neighbors of each pixel of the window along an axis.
    fn neighbors(&self, axis: usize) -> Vec<Neighbors> {
        let (source, size) = (&self.source[axis], self.size[axis]);
        let scale = source.len() as f64 / size as f64;
        let support = scale.max(1.0);
        let neighbors_of = |i: usize| {
            let center = (i as f64 + 0.5) * scale;
            let begin = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(source.len());
            // In PIL's order of operations: the next rounding may be close to a tie.
            let weight = |j: usize| (1.0 - ((j as f64 - center + 0.5) * (1.0 / support)).abs()).max(0.0);
            let norm = 1.0 / (begin..end).map(weight).sum::<f64>();
            let weights = (begin..end).map(|j| (weight(j) * norm / UNIT).round() * UNIT).collect();
            (source.start + begin, weights)
        };
        self.window[axis].clone().map(neighbors_of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(source: [usize; 2], size: [usize; 2]) -> Resample {
        Resample { source: source.map(|n| 0..n), size, window: size.map(|n| 0..n) }
    }

    fn run(resample: &Resample, pixels: &[f32], shape: [usize; 2]) -> Vec<f32> {
        let mut out = vec![f32::NAN; resample.window[0].len() * resample.window[1].len() * shape[1]];
        resample.run(pixels, shape, |x| x as f32, &mut out);
        out
    }

    #[test]
    fn the_same_size_is_the_same_image() {
        let pixels: Vec<f32> = (0..24).map(|x| x as f32).collect();
        assert_eq!(run(&whole([3, 4], [3, 4]), &pixels, [4, 2]), pixels);
    }

    #[test]
    fn reducing_weighs_all_pixels() {
        // Half the size: a triangle of support 2 over the distances 0.5 and 1.5, cut off at the
        // edges and normalized.
        let out = run(&whole([1, 4], [1, 2]), &[0.0, 1.0, 0.0, 0.0], [4, 1]);
        assert!((out[0] - 0.75 / 1.75).abs() < 1e-6 && (out[1] - 0.25 / 1.75).abs() < 1e-6, "{out:?}");
    }

    #[test]
    fn enlarging_interpolates() {
        assert_eq!(run(&whole([1, 2], [1, 4]), &[0.0, 1.0], [2, 1]), [0.0, 0.25, 0.75, 1.0]);
        assert_eq!(run(&whole([2, 1], [4, 1]), &[0.0, 1.0], [1, 1]), [0.0, 0.25, 0.75, 1.0]);
    }

    #[test]
    fn a_window_equals_that_of_the_whole_and_costs_no_more() {
        let pixels: Vec<f32> = (0..7 * 5 * 3).map(|i| ((i * 37) % 101) as f32).collect();
        let size = [11, 4];
        let all = run(&whole([7, 5], size), &pixels, [5, 3]);
        let window = run(&Resample { window: [2..9, 1..3], ..whole([7, 5], size) }, &pixels, [5, 3]);
        let expected: Vec<f32> =
            (2..9).flat_map(|y| all[(y * 4 + 1) * 3..(y * 4 + 3) * 3].to_vec()).collect();
        assert_eq!(window, expected);
        let vast =
            Resample { source: [0..1, 0..1], size: [1 << 40; 2], window: [1 << 39..(1 << 39) + 2, 7..9] };
        assert_eq!(run(&vast, &[5.0], [1, 1]), [5.0; 4]);
    }

    #[test]
    fn a_box_is_resized_like_an_image_of_its_own() {
        let pixels: Vec<f32> = (0..6 * 5).map(|i| ((i * 37) % 101) as f32).collect();
        let cut: Vec<f32> = (1..4).flat_map(|y| pixels[y * 5 + 2..y * 5 + 5].to_vec()).collect();
        let boxed = Resample { source: [1..4, 2..5], ..whole([3, 3], [2, 7]) };
        assert_eq!(run(&boxed, &pixels, [5, 1]), run(&whole([3, 3], [2, 7]), &cut, [3, 1]));
    }
}
