//! The right factor of a product, and how it is packed: in the order in which `microkernel` reads it.

use super::Task;
use super::simd::Simd;
use std::ops::Range;

/// The right factor: `b[k, j] = data[taps[k / depth] + (k % depth) * row + j * column]`.
pub(crate) struct Factor<'a> {
    /// The numbers.
    pub(crate) data: &'a [f32],
    /// Where each tap's matrix starts. A plain matrix has one.
    pub(crate) taps: Vec<usize>,
    /// Rows of a tap's matrix.
    pub(crate) depth: usize,
    /// Numbers from a row to the next, within a tap.
    pub(crate) row: usize,
    /// Numbers from a column to the next.
    pub(crate) column: usize,
}

impl Factor<'_> {
    /// A matrix of `depth` rows.
    pub(crate) fn matrix(data: &[f32], depth: usize, row: usize, column: usize) -> Factor<'_> {
        Factor { data, taps: vec![0], depth, row, column }
    }

    /// Asserts that `depth` rows of `columns` columns lie within the data.
    pub(super) fn check(&self, columns: usize, depth: usize) {
        assert!(depth == self.taps.len() * self.depth, "A and B disagree on the depth");
        if depth > 0 {
            let extent = (self.depth - 1) * self.row + (columns - 1) * self.column;
            assert!(self.taps.iter().all(|tap| tap + extent < self.data.len()), "B is too short");
        }
    }
}

/// Packs `depth` x `columns` of B as `PanelProduct` wants it. Rests on [`Factor::check`].
pub(super) struct Pack<'a> {
    pub(super) factor: &'a Factor<'a>,
    pub(super) depth: Range<usize>,
    pub(super) columns: Range<usize>,
    pub(super) packed: &'a mut [f32],
}

impl Task for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Pack { factor, depth, columns, packed } = self;
        assert!(packed.len() >= depth.len() * columns.len().next_multiple_of(S::LANES));
        let mut k = depth.start;
        while k < depth.end {
            let (tap, row) = (k / factor.depth, k % factor.depth);
            let rows = (factor.depth - row).min(depth.end - k);
            let from = &factor.data[factor.taps[tap] + row * factor.row + columns.start * factor.column..];
            let to = Destination { first: k - depth.start, depth: depth.len(), packed: &mut *packed };
            if factor.column == 1 {
                to.copy(simd, from, factor.row, rows, columns.len());
            } else {
                to.gather::<S>(from, [factor.row, factor.column], rows, columns.len());
            }
            k += rows;
        }
    }
}

/// Rows from `first` on of a packed block.
struct Destination<'a> {
    first: usize,
    depth: usize,
    packed: &'a mut [f32],
}

impl Destination<'_> {
    /// Fills `rows` from rows that are contiguous and `stride` apart.
    #[inline(always)]
    fn copy<S: Simd>(self, simd: S, from: &[f32], stride: usize, rows: usize, columns: usize) {
        let tile = S::TILE_VECTORS * S::LANES;
        for row in 0..rows {
            let from = &from[row * stride..][..columns];
            for column in (0..columns).step_by(tile) {
                let count = (columns - column).min(tile);
                let width = count.next_multiple_of(S::LANES);
                let to = &mut self.packed[self.depth * column + (self.first + row) * width..][..width];
                for v in (0..count).step_by(S::LANES) {
                    // SAFETY: `from` reaches to the last of `count` columns, and `to` to the end of its vector.
                    unsafe {
                        let x = from.as_ptr().add(column + v);
                        let x = simd.load_up_to(x, (count - v).min(S::LANES));
                        simd.store(to.as_mut_ptr().add(v), x);
                    }
                }
            }
        }
    }

    /// Fills `rows` from any strides: a few rows of every column at a time, because in weights that are read as their
    /// transpose the numbers of a column are neighbors, and those of a row belong together in the packed block.
    #[inline(always)]
    fn gather<S: Simd>(
        self,
        from: &[f32],
        [row_stride, column_stride]: [usize; 2],
        rows: usize,
        columns: usize,
    ) {
        const ROWS: usize = 8;
        let tile = S::TILE_VECTORS * S::LANES;
        for start in (0..columns).step_by(tile) {
            let count = (columns - start).min(tile);
            let width = count.next_multiple_of(S::LANES);
            let to = &mut self.packed[self.depth * start + self.first * width..][..rows * width];
            for (block, to) in to.chunks_mut(ROWS * width).enumerate() {
                to.fill(0.0);
                for column in 0..count {
                    let from = &from[block * ROWS * row_stride + (start + column) * column_stride..];
                    for (row, to) in to.chunks_exact_mut(width).enumerate() {
                        to[column] = from[row * row_stride];
                    }
                }
            }
        }
    }
}
