//! Images in another size: bilinear interpolation that does not alias.
//!
//! Where an image becomes larger this is the usual interpolation between neighbors. Where it becomes smaller, the triangle of
//! its weights is widened to the distance of the new pixels, so that every old pixel counts: what PIL computes, and torchvision
//! with `antialias`. Columns come first, then rows, each a sum of a few neighbors with weights that depend on the place alone.
//! A part of the result costs that part and no more, so the size that it is a part of may be any.
//!
//! PIL computes with whole numbers: weights are multiples of 2^-22. So are ours, and their sums over bytes, in `f64`, are exact: what
//! is rounded to bytes is PIL's result to the bit. (Since its version 13 PIL takes rows first for some pictures that become lower; that may
//! differ by one.)

use std::ops::Range;

/// What is made of what: pixels of `from`, a box of the image, become an image of `size`, of which `part` is wanted. All are
/// rows and columns.
#[derive(Clone, Debug)]
pub(super) struct Resample {
    pub(super) from: [Range<usize>; 2],
    pub(super) size: [usize; 2],
    pub(super) part: [Range<usize>; 2],
}

/// The weights' unit.
const UNIT: f64 = 1.0 / (1 << 22) as f64;

/// The neighbors of a new pixel along one axis: the first of them, and their weights, whose sum is 1.
type Neighbors = (usize, Vec<f64>);

impl Resample {
    /// The wanted part `[rows, columns, C]` of an image of `width` columns of `c` channels. `store` sees every sum of columns and
    /// every sum of rows before it is kept.
    pub(super) fn run<T: Copy + Into<f32>>(
        &self,
        pixels: &[T],
        [width, c]: [usize; 2],
        store: impl Fn(f64) -> f32,
        out: &mut [f32],
    ) {
        let [rows, columns] = [0, 1].map(|axis| self.neighbors(axis));
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return };
        let (top, bottom) = (first.0, last.0 + last.1.len());
        let stride = columns.len() * c;
        let mut sums = vec![0.0f64; stride];
        let keep = |sums: &mut [f64], row: &mut [f32]| {
            row.iter_mut().zip(sums).for_each(|(x, sum)| *x = store(std::mem::take(sum)));
        };
        let mut narrow = vec![0.0; (bottom - top) * stride];
        for (y, row) in (top..bottom).zip(narrow.chunks_exact_mut(stride)) {
            let source = &pixels[y * width * c..(y + 1) * width * c];
            for (sums, (begin, weights)) in sums.chunks_exact_mut(c).zip(&columns) {
                for (pixel, weight) in source[begin * c..].chunks_exact(c).zip(weights) {
                    for (sum, &x) in sums.iter_mut().zip(pixel) {
                        *sum += weight * f64::from(x.into());
                    }
                }
            }
            keep(&mut sums, row);
        }
        for (out, (begin, weights)) in out.chunks_exact_mut(stride).zip(&rows) {
            for (row, weight) in narrow[(begin - top) * stride..].chunks_exact(stride).zip(weights) {
                sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += weight * f64::from(x));
            }
            keep(&mut sums, out);
        }
    }

    fn neighbors(&self, axis: usize) -> Vec<Neighbors> {
        let (from, size) = (&self.from[axis], self.size[axis]);
        let distance = from.len() as f64 / size as f64;
        let reach = distance.max(1.0);
        let of = |i: usize| {
            let center = (i as f64 + 0.5) * distance;
            let begin = (center - reach + 0.5).max(0.0) as usize;
            let end = ((center + reach + 0.5) as usize).min(from.len());
            // In PIL's order: what is rounded next may lie on the border.
            let weight = |j: usize| (1.0 - ((j as f64 - center + 0.5) * (1.0 / reach)).abs()).max(0.0);
            let scale = 1.0 / (begin..end).map(weight).sum::<f64>();
            (from.start + begin, (begin..end).map(|j| (weight(j) * scale / UNIT).round() * UNIT).collect())
        };
        self.part[axis].clone().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(from: [usize; 2], size: [usize; 2]) -> Resample {
        Resample { from: from.map(|n| 0..n), size, part: size.map(|n| 0..n) }
    }

    fn run(resample: &Resample, pixels: &[f32], shape: [usize; 2]) -> Vec<f32> {
        let mut out = vec![f32::NAN; resample.part[0].len() * resample.part[1].len() * shape[1]];
        resample.run(pixels, shape, |x| x as f32, &mut out);
        out
    }

    #[test]
    fn the_same_size_is_the_same_image() {
        let pixels: Vec<f32> = (0..24).map(|x| x as f32).collect();
        assert_eq!(run(&whole([3, 4], [3, 4]), &pixels, [4, 2]), pixels);
    }

    #[test]
    fn smaller_images_weigh_all_their_pixels() {
        // Twice as coarse: a triangle of reach 2 over the distances 0.5 and 1.5, cut off and made whole at the edges.
        let out = run(&whole([1, 4], [1, 2]), &[0.0, 1.0, 0.0, 0.0], [4, 1]);
        assert!((out[0] - 0.75 / 1.75).abs() < 1e-6 && (out[1] - 0.25 / 1.75).abs() < 1e-6, "{out:?}");
    }

    #[test]
    fn larger_images_interpolate() {
        assert_eq!(run(&whole([1, 2], [1, 4]), &[0.0, 1.0], [2, 1]), [0.0, 0.25, 0.75, 1.0]);
        assert_eq!(run(&whole([2, 1], [4, 1]), &[0.0, 1.0], [1, 1]), [0.0, 0.25, 0.75, 1.0]);
    }

    #[test]
    fn a_part_is_that_of_the_whole_and_costs_no_more() {
        let pixels: Vec<f32> = (0..7 * 5 * 3).map(|i| ((i * 37) % 101) as f32).collect();
        let size = [11, 4];
        let all = run(&whole([7, 5], size), &pixels, [5, 3]);
        let part = run(&Resample { part: [2..9, 1..3], ..whole([7, 5], size) }, &pixels, [5, 3]);
        let expected: Vec<f32> =
            (2..9).flat_map(|y| all[(y * 4 + 1) * 3..(y * 4 + 3) * 3].to_vec()).collect();
        assert_eq!(part, expected);
        let vast = Resample { from: [0..1, 0..1], size: [1 << 40; 2], part: [1 << 39..(1 << 39) + 2, 7..9] };
        assert_eq!(run(&vast, &[5.0], [1, 1]), [5.0; 4]);
    }

    #[test]
    fn a_box_of_an_image_is_as_an_image() {
        let pixels: Vec<f32> = (0..6 * 5).map(|i| ((i * 37) % 101) as f32).collect();
        let cut: Vec<f32> = (1..4).flat_map(|y| pixels[y * 5 + 2..y * 5 + 5].to_vec()).collect();
        let boxed = Resample { from: [1..4, 2..5], ..whole([3, 3], [2, 7]) };
        assert_eq!(run(&boxed, &pixels, [5, 1]), run(&whole([3, 3], [2, 7]), &cut, [3, 1]));
    }
}
