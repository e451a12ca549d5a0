//! The right operand B of a product, and how it is packed: in the order in which the microkernel
//! reads it.

use super::blocking::Blocking;
use super::microkernel::TileShape;
use super::simd::Simd;
use super::split::Split;
use super::{Isa, Task};
use std::ops::Range;

/// The right operand of a product.
pub(crate) enum BOperand<'a> {
    /// A matrix that is packed for this product.
    Unpacked(UnpackedB<'a>),
    /// A matrix that [`prepack`] packed.
    Packed(&'a [f32]),
}

/// B as it lies in memory: `b[k, j] = data[taps[k / depth] + (k % depth) * row + j * column]`.
pub(crate) struct UnpackedB<'a> {
    /// The elements.
    pub(crate) data: &'a [f32],
    /// The first element of each tap's matrix. A plain matrix has one tap.
    pub(crate) taps: Vec<usize>,
    /// Number of rows of a tap's matrix.
    pub(crate) depth: usize,
    /// Elements from one row to the next, within a tap.
    pub(crate) row: usize,
    /// Elements from one column to the next.
    pub(crate) column: usize,
}

impl UnpackedB<'_> {
    /// A matrix of `depth` rows, with the elements from one row and one column to the next.
    pub(crate) fn matrix(data: &[f32], depth: usize, row: usize, column: usize) -> UnpackedB<'_> {
        UnpackedB { data, taps: vec![0], depth, row, column }
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

/// A block of the depth of B, and where it is packed.
pub(super) struct PackedBlock<'a> {
    depth: Range<usize>,
    packed: &'a mut [f32],
}

impl PackedBlock<'_> {
    /// Packs the block of `b`.
    pub(super) fn pack(self, isa: Isa, b: &UnpackedB, columns: usize) {
        isa.dispatch(PackB { b, depth: self.depth, columns: 0..columns, packed: self.packed });
    }
}

/// Returns the length of B when it is packed before the product.
pub(crate) fn packed_len<L: Blocking>(isa: Isa, columns: usize, depth: usize) -> usize {
    if L::PREPACK_B { depth * columns.next_multiple_of(TileShape::of(isa).lanes) } else { 0 }
}

/// Returns the blocks of the depth of B, to be packed for
/// [`PanelProduct`](super::panel::PanelProduct).
pub(super) fn packed_blocks<L: Blocking>(
    isa: Isa,
    columns: usize,
    depth: usize,
    packed: &mut [f32],
) -> Vec<PackedBlock<'_>> {
    let width = columns.next_multiple_of(TileShape::of(isa).lanes);
    let split = Split::new(depth, 1, L::KC, 1);
    let mut rest = packed;
    let mut blocks = Vec::with_capacity(split.parts);
    while !rest.is_empty() {
        let depth = split.range(blocks.len());
        let (packed, after) = rest.split_at_mut(depth.len() * width);
        blocks.push(PackedBlock { depth, packed });
        rest = after;
    }
    blocks
}

/// Packs B on the calling thread, for many products with it, into [`packed_len`] elements.
pub(crate) fn prepack<L: Blocking>(isa: Isa, b: &UnpackedB, columns: usize, packed: &mut [f32]) {
    let depth = b.taps.len() * b.depth;
    if columns == 0 {
        return;
    }
    b.check(columns, depth);
    for block in packed_blocks::<L>(isa, columns, depth, packed) {
        block.pack(isa, b, columns);
    }
}

/// Packs `depth` x `columns` of B for [`PanelProduct`](super::panel::PanelProduct). The caller
/// has called [`UnpackedB::check`].
pub(super) struct PackB<'a> {
    pub(super) b: &'a UnpackedB<'a>,
    pub(super) depth: Range<usize>,
    pub(super) columns: Range<usize>,
    pub(super) packed: &'a mut [f32],
}

impl Task for PackB<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let PackB { b, depth, columns, packed } = self;
        assert!(packed.len() >= depth.len() * columns.len().next_multiple_of(S::LANES));
        let mut k = depth.start;
        while k < depth.end {
            let (tap, row) = (k / b.depth, k % b.depth);
            let rows = (b.depth - row).min(depth.end - k);
            let from = &b.data[b.taps[tap] + row * b.row + columns.start * b.column..];
            let to = PackedRows { first: k - depth.start, depth: depth.len(), packed: &mut *packed };
            if b.column == 1 {
                to.copy(simd, from, b.row, rows, columns.len());
            } else {
                to.gather::<S>(from, [b.row, b.column], rows, columns.len());
            }
            k += rows;
        }
    }
}

/// The rows of a packed block from `first` on.
struct PackedRows<'a> {
    first: usize,
    depth: usize,
    packed: &'a mut [f32],
}

impl PackedRows<'_> {
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
                    // SAFETY: `from` has `columns >= column + count` elements, of which at most
                    // `count - v` are loaded; `to` has whole vectors.
                    unsafe {
                        let x = from.as_ptr().add(column + v);
                        let x = simd.load_up_to(x, (count - v).min(S::LANES));
                        simd.store(to.as_mut_ptr().add(v), x);
                    }
                }
            }
        }
    }

    /// Fills `rows` from any strides: a few rows of every column at a time, because in weights that
    /// are read as their transpose the elements of a column are neighbors, and those of a row
    /// belong together in the packed block.
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
