//! The mean and the variance of every channel of a matrix, in one pass over memory and without loss
//! of precision.

use super::epilogue::{Block, BlockVisitor};
use super::rows::{Strip, Terms, add_terms, lanes, map_ranges, whole_rows};
use super::simd::Simd;
use super::{Isa, Task};
use std::array::from_fn;
use std::collections::BTreeMap;

/// The number of rows of a block whose mean is subtracted from the block before it is summed.
const SHIFT_ROWS: usize = 8;
/// The maximum number of rows of a product's block that are summed in f32, as deviations from the
/// first of them.
const MOST_BLOCK_ROWS: usize = 128;
/// The number of vectors of such rows that are summed at once.
const VECTORS: usize = 4;

/// Returns the mean and the biased variance of every channel of `x[rows, channels]`, in f64; zeros
/// if there are no rows.
///
/// The result is precise however far the mean is from zero. A block of rows is summed as d = x - s
/// and d², where s is the mean of the block's first eight rows. Since (mean - s)² is at most the
/// block's sum of squared deviations divided by eight, Σd² is at most 1 + rows / 8 times that
/// sum: the subtraction that leads to it loses three digits at the very worst and usually none.
/// Blocks are merged in order by the formula of Chan, Golub and LeVeque (1983).
///
/// # Panics
/// If x does not consist of whole rows.
///
/// ```
/// use skipgrad_kernels::{Isa, moments};
/// let x = [1.0, 10.0, 3.0, 30.0]; // two rows of two channels
/// let (mean, variance) = moments(Isa::active(), &x, 2);
/// assert_eq!((mean, variance), (vec![2.0, 20.0], vec![1.0, 100.0]));
/// ```
pub fn moments(isa: Isa, x: &[f32], channels: usize) -> (Vec<f64>, Vec<f64>) {
    let rows = whole_rows(x.len(), channels);
    let parts = map_ranges(rows, channels, |range| {
        isa.dispatch(RangeMoments { x: &x[range.start * channels..range.end * channels], channels })
    });
    let mut all = Moments::empty(channels);
    for part in parts {
        all.merge(part.rows, &part.mean, &part.squares);
    }
    let rows = all.rows.max(1) as f64;
    (all.mean, all.squares.into_iter().map(|squares| squares / rows).collect())
}

/// The means of some rows and the sums of squared deviations from them, `[channels]`.
pub(crate) struct Moments {
    rows: usize,
    mean: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    /// Returns the moments of no rows.
    fn empty(channels: usize) -> Moments {
        Moments { rows: 0, mean: vec![0.0; channels], squares: vec![0.0; channels] }
    }

    /// Adds the moments of further rows.
    #[inline(always)]
    fn merge(&mut self, rows: usize, mean: &[f64], squares: &[f64]) {
        let share = rows as f64 / (self.rows + rows) as f64;
        let weight = self.rows as f64 * share;
        let of_block = mean.iter().zip(squares);
        for ((mean, squares), (m, s)) in self.mean.iter_mut().zip(&mut self.squares).zip(of_block) {
            let distance = m - *mean;
            *mean += distance * share;
            *squares += s + distance * distance * weight;
        }
        self.rows += rows;
    }
}

/// The [`Moments`] of a block's columns, whose first one is `first`.
pub(crate) struct BlockMoments {
    first: usize,
    moments: Moments,
}

/// Returns the mean and the biased variance of each of `channels` from the moments of blocks, which
/// are merged in the given order; zeros for channels without blocks.
pub(super) fn merge_blocks(channels: usize, blocks: Vec<BlockMoments>) -> (Vec<f64>, Vec<f64>) {
    let mut merged: BTreeMap<usize, Moments> = BTreeMap::new();
    for BlockMoments { first, moments: Moments { rows, mean, squares } } in blocks {
        merged.entry(first).or_insert_with(|| Moments::empty(mean.len())).merge(rows, &mean, &squares);
    }
    let (mut mean, mut variance) = (vec![0.0; channels], vec![0.0; channels]);
    for (first, moments) in merged {
        let columns = first..first + moments.mean.len();
        let rows = moments.rows.max(1) as f64;
        mean[columns.clone()].copy_from_slice(&moments.mean);
        variance[columns].iter_mut().zip(moments.squares).for_each(|(var, squares)| *var = squares / rows);
    }
    (mean, variance)
}

/// The visitor that computes the moments of a product's blocks while they are in the cache.
pub(super) struct TakeMoments {
    /// The channel of the product's first column.
    pub(super) first: usize,
}

impl BlockVisitor for TakeMoments {
    type Output = BlockMoments;
    unsafe fn visit(&self, isa: Isa, block: &Block<'_>) -> BlockMoments {
        let mut moments = Moments::empty(block.columns.len());
        for offsets in block.offsets.chunks(MOST_BLOCK_ROWS) {
            let part = isa.dispatch(RowsMoments { block, offsets });
            moments.merge(offsets.len(), &part.mean, &part.squares);
        }
        BlockMoments { first: self.first + block.columns.start, moments }
    }
}

/// The task that computes the [`Moments`] of some rows of a block, which only
/// [`BlockVisitor::visit`] makes and whose contract it relies on.
struct RowsMoments<'a> {
    block: &'a Block<'a>,
    offsets: &'a [usize],
}

impl Task for RowsMoments<'_> {
    type Output = Moments;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Moments {
        let columns = self.block.columns.len();
        let mut moments = Moments { rows: self.offsets.len(), ..Moments::empty(columns) };
        let mut column = 0;
        while column < columns {
            // Take no more vectors at once than there are, so that none is empty.
            column += match (columns - column).div_ceil(S::LANES) {
                1 => self.of_columns::<S, 1>(simd, column, &mut moments),
                2 | 3 => self.of_columns::<S, 2>(simd, column, &mut moments),
                _ => self.of_columns::<S, VECTORS>(simd, column, &mut moments),
            };
        }
        moments
    }
}

impl RowsMoments<'_> {
    /// Computes the moments of `V` vectors of columns from `column` on, the last of which may be
    /// partial, and returns the number of columns.
    #[inline(always)]
    fn of_columns<S: Simd, const V: usize>(&self, simd: S, column: usize, moments: &mut Moments) -> usize {
        let RowsMoments { block: Block { columns, c, .. }, offsets } = *self;
        let width = (columns.len() - column).min(V * S::LANES);
        let load = |offset: usize| {
            from_fn::<_, V, _>(|v| {
                let count = if v + 1 < V { S::LANES } else { width - v * S::LANES };
                let from = c.offset(offset + columns.start + column + v * S::LANES);
                // SAFETY: `visit` guarantees that the block's columns may be read in each of its
                // rows, and these `count` columns are among them: `width` ends at the last one.
                unsafe { simd.load_up_to(from, count) }
            })
        };
        let shift = load(offsets[0]);
        let mut sums = [[simd.splat(0.0); 2]; V];
        for &offset in offsets {
            let x = load(offset);
            for v in 0..V {
                let d = simd.sub(x[v], shift[v]);
                sums[v] = [simd.add(sums[v][0], d), simd.mul_add(d, d, sums[v][1])];
            }
        }
        let rows = offsets.len() as f64;
        for v in 0..V {
            let [shift, sum, squares] = [shift[v], sums[v][0], sums[v][1]].map(|x| simd.to_array(x));
            for lane in 0..S::LANES.min(width - v * S::LANES) {
                let (sum, squares) = (f64::from(sum[lane]), f64::from(squares[lane]));
                let distance = sum / rows;
                let exact = squares - sum * distance;
                let at = column + v * S::LANES + lane;
                moments.squares[at] = if exact < 0.0 { 0.0 } else { exact };
                moments.mean[at] = f64::from(shift[lane]) + distance;
            }
        }
        width
    }
}

/// The task that computes the [`Moments`] of some rows on one thread.
struct RangeMoments<'a> {
    x: &'a [f32],
    channels: usize,
}

impl Task for RangeMoments<'_> {
    type Output = Moments;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Moments {
        let (x, c) = (self.x, self.channels);
        let strip = Strip::new(c);
        let mut moments = Moments::empty(c);
        let mut sums = [vec![0.0; strip.width()], vec![0.0; strip.width()]];
        let (mut mean, mut deviations) = (vec![0.0; c], vec![0.0; c]);
        for block in strip.blocks(x.len()) {
            let rows = block.len() / c;
            let shift = mean_of_first_rows(&x[block.clone()], c);
            add_terms(&Deviations { x, shift: &strip.repeat(&shift) }, block, &mut sums);
            mean.fill(0.0);
            deviations.fill(0.0);
            strip.drain(&mut sums[0], &mut mean);
            strip.drain(&mut sums[1], &mut deviations);
            for ((mean, deviations), &shift) in mean.iter_mut().zip(&mut deviations).zip(&shift) {
                let distance = *mean / rows as f64;
                let exact = *deviations - *mean * distance;
                *deviations = if exact < 0.0 { 0.0 } else { exact };
                *mean = f64::from(shift) + distance;
            }
            moments.merge(rows, &mean, &deviations);
        }
        moments
    }
}

/// Returns the mean of the first [`SHIFT_ROWS`] rows.
#[inline(always)]
fn mean_of_first_rows(x: &[f32], channels: usize) -> Vec<f32> {
    let mut mean = vec![0.0; channels];
    let rows = x.chunks(channels).take(SHIFT_ROWS);
    let share = 1.0 / rows.len() as f32;
    for row in rows {
        for (mean, x) in mean.iter_mut().zip(row) {
            *mean += share * x;
        }
    }
    mean
}

/// The terms x - shift and (x - shift)².
struct Deviations<'a> {
    x: &'a [f32],
    shift: &'a [f32],
}

impl Terms<2> for Deviations<'_> {
    #[inline(always)]
    fn terms<const L: usize>(&self, at: usize, column: usize) -> [[f32; L]; 2] {
        let (x, shift) = (lanes::<L>(self.x, at), lanes::<L>(self.shift, column));
        let d = from_fn(|l| x[l] - shift[l]);
        [d, from_fn(|l| d[l] * d[l])]
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::tests::{CHANNELS, ROWS};
    use super::super::testing::{bits, each_isa, normals, same_on_any_threads};
    use super::*;

    /// Returns the mean and the biased variance of every column, by two passes in f64.
    fn naive_moments(x: &[f32], channels: usize) -> (Vec<f64>, Vec<f64>) {
        let rows = (x.len() / channels).max(1) as f64;
        let column = |c: usize| x.iter().skip(c).step_by(channels).map(|&x| f64::from(x));
        let mean: Vec<f64> = (0..channels).map(|c| column(c).sum::<f64>() / rows).collect();
        let variance =
            (0..channels).map(|c| column(c).map(|x| (x - mean[c]).powi(2)).sum::<f64>() / rows).collect();
        (mean, variance)
    }

    fn close(got: &[f64], wanted: &[f64], tolerance: f64, what: &str) {
        for (c, (got, wanted)) in got.iter().zip(wanted).enumerate() {
            assert!(
                (got - wanted).abs() <= tolerance * wanted.abs().max(1.0),
                "{what} [{c}]: {got} {wanted}"
            );
        }
    }

    #[test]
    fn moments_are_those_of_two_passes_in_f64() {
        for isa in each_isa() {
            for channels in CHANNELS {
                for rows in ROWS {
                    let x = normals(rows * channels, 1);
                    let (mean, variance) = moments(isa, &x, channels);
                    let wanted = naive_moments(&x, channels);
                    close(&mean, &wanted.0, 1e-6, "mean");
                    close(&variance, &wanted.1, 3e-6, "variance");
                }
            }
        }
    }

    #[test]
    fn a_mean_of_ten_thousand_costs_no_precision() {
        for isa in each_isa() {
            for channels in [3, 16, 200] {
                let x: Vec<f32> = normals(5000 * channels, 5).into_iter().map(|x| x + 1e4).collect();
                let (mean, variance) = moments(isa, &x, channels);
                let wanted = naive_moments(&x, channels);
                close(&mean, &wanted.0, 1e-10, "mean");
                close(&variance, &wanted.1, 3e-6, "variance");
            }
        }
    }

    #[test]
    fn an_outlier_of_200_deviations_in_the_first_rows_costs_no_more_than_three_digits() {
        let mut x = normals(40_000, 5);
        x[2] = 1e6;
        let (mean, variance) = moments(Isa::active(), &x, 1);
        let wanted = naive_moments(&x, 1);
        assert!((mean[0] - wanted.0[0]).abs() < 1e-6 * wanted.1[0].sqrt(), "{mean:?} {wanted:?}");
        assert!((variance[0] / wanted.1[0] - 1.0).abs() < 1e-4, "{variance:?} {wanted:?}");
    }

    #[test]
    fn one_row_has_no_variance_and_nan_is_not_hidden() {
        let (mean, variance) = moments(Isa::active(), &[1.5, -2.0, 7.0], 3);
        assert_eq!((mean, variance), (vec![1.5, -2.0, 7.0], vec![0.0; 3]));
        let (mean, variance) = moments(Isa::active(), &[1.0, f32::NAN, 2.0, 3.0], 2);
        assert_eq!((mean[0], variance[0]), (1.5, 0.25));
        assert!(mean[1].is_nan() && variance[1].is_nan());
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let x = normals(12_345 * 20, 1);
        same_on_any_threads(|| {
            let (mean, variance) = moments(Isa::active(), &x, 20);
            [bits(&mean), bits(&variance)].concat()
        });
    }
}
