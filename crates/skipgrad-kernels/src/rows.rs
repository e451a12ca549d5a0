//! The loops of the kernels that treat every channel of a matrix `[rows, channels]` separately.
//!
//! A row may be as short as 3 elements, which do not fill a vector. So several rows are taken at
//! once, as a *strip*, and the vectors `[channels]` are repeated as often: the inner loop then runs
//! over at least [`STRIP`] contiguous elements, whatever the number of channels. Sums over rows are
//! kept for the columns of a strip, and the rows of the strip are added at the end.
//!
//! A *block* of rows is summed in f32, blocks are added in f64, and a *range* of some blocks is one
//! task of a thread. All three depend on the problem alone and are merged in order, so the number
//! of threads does not change a bit.
//!
//! Loops with several outputs or many operands go over arrays of 16 elements ([`Columns`]), since
//! the compiler cannot prove that many slices are distinct and would not vectorize them.

use super::parallel::{PIECE, for_each_piece};
use super::simd::Simd;
use super::{Isa, Task};
use rayon::prelude::*;
use std::ops::Range;

/// The minimum width of a strip of rows that are shorter than this.
const STRIP: usize = 128;
/// The width of a strip of rows that are shorter than `STRIP` is a multiple of this, the number of
/// elements that an unrolled loop takes.
const MULTIPLE: usize = 32;
/// The minimum number of rows in a block, so that its end costs little.
const BLOCK_ROWS: usize = 128;
/// The minimum number of elements in a range.
const RANGE: usize = 4 * PIECE;
/// The maximum number of ranges.
const MAX_RANGES: usize = 64;
/// The number of strips that are added to the sums at once.
const STRIPS: usize = 4;

/// Several rows of a matrix taken as one.
#[derive(Clone, Copy)]
pub(super) struct Strip {
    channels: usize,
    rows: usize,
}

impl Strip {
    /// Returns the strip of rows with `channels` elements.
    pub(super) fn new(channels: usize) -> Strip {
        let rows = if channels == 0 || channels >= STRIP {
            1
        } else {
            let unit = MULTIPLE >> channels.trailing_zeros().min(MULTIPLE.trailing_zeros());
            unit * STRIP.div_ceil(unit * channels)
        };
        Strip { channels, rows }
    }

    /// Returns the number of elements in a strip, at least 1.
    pub(super) fn width(self) -> usize {
        (self.channels * self.rows).max(1)
    }

    /// Returns the number of rows in a block, which is summed in f32.
    pub(super) fn block_rows(self) -> usize {
        (PIECE / self.channels.max(1)).max(BLOCK_ROWS).next_multiple_of(self.rows)
    }

    /// Returns the blocks of a matrix of `len` elements.
    pub(super) fn blocks(self, len: usize) -> impl Iterator<Item = Range<usize>> {
        let block = self.block_rows() * self.channels.max(1);
        (0..len).step_by(block).map(move |start| start..len.min(start + block))
    }

    /// Returns a vector `[channels]`, repeated for every row of a strip.
    pub(super) fn repeat(self, vector: &[f32]) -> Vec<f32> {
        assert_eq!(vector.len(), self.channels, "one element per channel");
        if vector.is_empty() { vec![0.0] } else { vector.repeat(self.rows) }
    }

    /// Adds the rows of a strip of sums to `totals` and clears the sums.
    #[inline(always)]
    pub(super) fn drain(self, sums: &mut [f32], totals: &mut [f64]) {
        for row in sums.chunks_mut(self.channels.max(1)) {
            for (total, sum) in totals.iter_mut().zip(row) {
                *total += f64::from(*sum);
                *sum = 0.0;
            }
        }
    }
}

/// Returns the number of rows of a matrix of `len` elements, and panics unless they are whole.
pub(super) fn whole_rows(len: usize, channels: usize) -> usize {
    let rows = len.checked_div(channels).unwrap_or(0);
    assert_eq!(rows * channels, len, "whole rows of {channels} channels");
    rows
}

/// Returns the number of elements, in whole strips, that a thread takes at once where nothing is
/// summed.
pub(super) fn piece_of_strips(channels: usize) -> usize {
    PIECE.next_multiple_of(Strip::new(channels).width())
}

/// Calls `f` with the ranges of rows that are summed as one task each, in parallel, and returns the
/// results in order.
pub(super) fn map_ranges<R: Send>(
    rows: usize,
    channels: usize,
    f: impl Fn(Range<usize>) -> R + Send + Sync,
) -> Vec<R> {
    let block = Strip::new(channels).block_rows();
    let step = (RANGE / channels.max(1)).max(rows.div_ceil(MAX_RANGES)).next_multiple_of(block);
    let range = |i: usize| i * step..rows.min((i + 1) * step);
    match rows.div_ceil(step) {
        0 => Vec::new(),
        1 => vec![f(range(0))],
        ranges => (0..ranges).into_par_iter().map(|i| f(range(i))).collect(),
    }
}

/// The work on the columns of a strip or of a pixel.
pub(super) trait Columns {
    /// Does the work for `L` columns from `column` on. Mark it `#[inline(always)]`.
    fn columns<const L: usize>(&mut self, column: usize);
}

/// Does the work for `n` columns: 16 at once, then 8, then 4, then each of the rest.
#[inline(always)]
pub(super) fn over_columns(n: usize, work: &mut impl Columns) {
    let mut column = 0;
    while column + 16 <= n {
        work.columns::<16>(column);
        column += 16;
    }
    if column + 8 <= n {
        work.columns::<8>(column);
        column += 8;
    }
    if column + 4 <= n {
        work.columns::<4>(column);
        column += 4;
    }
    while column < n {
        work.columns::<1>(column);
        column += 1;
    }
}

/// Returns the `L` elements from `at` on.
#[inline(always)]
pub(super) fn lanes<const L: usize>(x: &[f32], at: usize) -> &[f32; L] {
    x[at..].first_chunk().expect("the slice has these columns")
}

/// The terms of `K` sums over rows.
pub(super) trait Terms<const K: usize> {
    /// Returns the terms of `L` elements, which begin at position `at` in the matrix and `column`
    /// in their strip. Mark it `#[inline(always)]`.
    fn terms<const L: usize>(&self, at: usize, column: usize) -> [[f32; L]; K];
}

/// Adds the terms of the elements in `range`, which starts with a strip, to sums as wide as a
/// strip.
#[inline(always)]
pub(super) fn add_terms<const K: usize>(
    terms: &impl Terms<K>,
    range: Range<usize>,
    sums: &mut [Vec<f32>; K],
) {
    let width = sums[0].len();
    let mut start = range.start;
    while start + STRIPS * width <= range.end {
        over_columns(width, &mut AddTerms::<_, K, STRIPS> { terms, start, width, sums });
        start += STRIPS * width;
    }
    while start < range.end {
        let n = width.min(range.end - start);
        over_columns(n, &mut AddTerms::<_, K, 1> { terms, start, width, sums });
        start += n;
    }
}

/// The addition of the terms of `R` strips from `start` on.
struct AddTerms<'a, T, const K: usize, const R: usize> {
    terms: &'a T,
    start: usize,
    width: usize,
    sums: &'a mut [Vec<f32>; K],
}

impl<T: Terms<K>, const K: usize, const R: usize> Columns for AddTerms<'_, T, K, R> {
    #[inline(always)]
    fn columns<const L: usize>(&mut self, column: usize) {
        let mut all = [[0.0; L]; K];
        for r in 0..R {
            let terms = self.terms.terms::<L>(self.start + r * self.width + column, column);
            for k in 0..K {
                for l in 0..L {
                    all[k][l] += terms[k][l];
                }
            }
        }
        for (sums, all) in self.sums.iter_mut().zip(all) {
            let sums: &mut [f32; L] = sums[column..].first_chunk_mut().expect("sums as wide as the strip");
            for l in 0..L {
                sums[l] += all[l];
            }
        }
    }
}

/// Matrices `[rows, channels]` and vectors `[channels]` that an update reads.
#[derive(Clone, Copy)]
pub(super) struct Operands<'a, const N: usize, const M: usize> {
    pub(super) matrices: [&'a [f32]; N],
    pub(super) vectors: [&'a [f32]; M],
}

/// Computes `y[r, c] = f(y[r, c], [x0[r, c], …], [v0[c], …])`, in parallel.
pub(super) fn update_rows<const N: usize, const M: usize>(
    isa: Isa,
    channels: usize,
    y: &mut [f32],
    matrices: [&[f32]; N],
    vectors: [&[f32]; M],
    f: impl Fn(f32, [f32; N], [f32; M]) -> f32 + Copy + Send + Sync,
) {
    let operands = (Operands { matrices, vectors }, Operands { matrices: [], vectors: [] });
    update_rows_by(isa, channels, y, operands, |y, x, v, [], []| f(y, x, v));
}

/// Computes [`update_rows`] with operands of two kinds, all of which `f` receives.
pub(super) fn update_rows_by<const N: usize, const M: usize, const P: usize, const Q: usize>(
    isa: Isa,
    channels: usize,
    y: &mut [f32],
    operands: (Operands<'_, N, M>, Operands<'_, P, Q>),
    f: impl Fn(f32, [f32; N], [f32; M], [f32; P], [f32; Q]) -> f32 + Copy + Send + Sync,
) {
    whole_rows(y.len(), channels);
    let n = y.len();
    let strip = Strip::new(channels);
    let (first, second) = operands;
    let mut matrices = first.matrices.iter().chain(&second.matrices);
    assert!(matrices.all(|x| x.len() == n), "operands of one length");
    let repeated = (first.vectors.map(|v| strip.repeat(v)), second.vectors.map(|v| strip.repeat(v)));
    for_each_piece(y, piece_of_strips(channels), |start, y| {
        let end = start + y.len();
        let operands = (
            Operands {
                matrices: first.matrices.map(|x| &x[start..end]),
                vectors: repeated.0.each_ref().map(|v| &v[..]),
            },
            Operands {
                matrices: second.matrices.map(|x| &x[start..end]),
                vectors: repeated.1.each_ref().map(|v| &v[..]),
            },
        );
        isa.dispatch(UpdateRows { width: strip.width(), y, operands, f });
    });
}

/// The task of [`update_rows_by`] for some strips, whose vectors are as wide as a strip.
struct UpdateRows<'a, F, const N: usize, const M: usize, const P: usize, const Q: usize> {
    width: usize,
    y: &'a mut [f32],
    operands: (Operands<'a, N, M>, Operands<'a, P, Q>),
    f: F,
}

impl<F, const N: usize, const M: usize, const P: usize, const Q: usize> Task for UpdateRows<'_, F, N, M, P, Q>
where
    F: Fn(f32, [f32; N], [f32; M], [f32; P], [f32; Q]) -> f32,
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (first, second) = self.operands;
        for (i, y) in self.y.chunks_mut(self.width).enumerate() {
            // The slices are cut to one length so that the loop needs no checks of bounds.
            let (n, start) = (y.len(), i * self.width);
            let (x, more_x) =
                (first.matrices.map(|x| &x[start..][..n]), second.matrices.map(|x| &x[start..][..n]));
            let (v, more_v) = (first.vectors.map(|v| &v[..n]), second.vectors.map(|v| &v[..n]));
            for (i, y) in y.iter_mut().enumerate() {
                *y = (self.f)(
                    *y,
                    x.map(|x| x[i]),
                    v.map(|v| v[i]),
                    more_x.map(|x| x[i]),
                    more_v.map(|v| v[i]),
                );
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Numbers of channels for every kind of strip: odd, even, a power of two, and a row as long as
    /// a strip.
    pub(crate) const CHANNELS: [usize; 13] = [1, 2, 3, 5, 7, 8, 12, 16, 31, 64, 100, 129, 512];
    /// Numbers of rows: zero, one, odd, more than a strip, more than a block (with few channels).
    pub(crate) const ROWS: [usize; 7] = [0, 1, 2, 7, 33, 130, 1025];

    #[test]
    fn a_strip_is_wide_and_a_multiple_of_the_unrolled_loop() {
        for channels in 1..2000 {
            let strip = Strip::new(channels);
            assert_eq!(strip.width(), channels * strip.rows);
            assert!(strip.width() >= STRIP, "{channels}");
            assert!(channels >= STRIP || strip.width().is_multiple_of(MULTIPLE), "{channels}");
            assert_eq!(strip.block_rows() % strip.rows, 0);
        }
    }

    #[test]
    fn ranges_cover_every_row_once_and_in_order() {
        for channels in [1, 3, 64, 4096] {
            for rows in [0, 1, 31, 5000, 40_000] {
                let ranges = map_ranges(rows, channels, |range| range);
                let all: Vec<usize> = ranges.into_iter().flatten().collect();
                assert_eq!(all, (0..rows).collect::<Vec<_>>());
            }
        }
    }
}
