//! The innermost loops of every matrix product: a panel of A times packed columns of B, in register tiles.
//!
//! ```text
//! for each tile of columns (TILE_VECTORS vectors; its part of B stays in the first-level cache)
//!   for each tile of rows (TILE_ROWS rows; the panel streams from the second-level cache)
//!     accumulators = 0                                  all in registers
//!     for each k:  accumulator[row][vector] += A[row, k] (one number, broadcast) * B[k, vector]
//!     C = accumulators                                  or C += them, or plus a bias
//! ```
//!
//! The panel has a constant pitch, so that all rows of a tile are displacements from one pointer, which leaves the
//! registers to the accumulators; the pitch is an odd number of cache lines, so that no two rows of a tile compete for
//! one set of the cache. A panel is read along its rows ([`RowMajor`]) or across them ([`DepthMajor`]).
//!
//! Every tile height up to the full one is compiled: rows are shared out evenly among as few tiles as can hold them, and
//! a tile does the work of its own rows only. Columns are padded with zeros to whole vectors in B, never in C.

use super::simd::Simd;
use super::{Isa, Task};
use std::marker::PhantomData;

/// Columns that a panel can hold.
pub(crate) const PANEL_WIDTH: usize = 256;
/// Numbers from one row of a panel to the next. The slack lets a copy write whole vectors over the end of a row.
pub(crate) const PANEL_PITCH: usize = PANEL_WIDTH + 16;

/// How A lies in a panel.
pub(crate) trait Layout: Send + Sync + 'static {
    /// Numbers from A[r, k] to A[r + 1, k].
    const ROW: usize;
    /// Numbers from A[r, k] to A[r, k + 1].
    const STEP: usize;

    /// The length of a panel for `rows` rows of A, `depth` numbers deep.
    fn panel_len(rows: usize, depth: usize) -> usize {
        let (height, width) = if Self::ROW == 1 { (depth, rows) } else { (rows, depth) };
        assert!(width <= PANEL_WIDTH);
        height * PANEL_PITCH
    }
}

/// A row of the panel is a row of A.
pub(crate) struct RowMajor;
impl Layout for RowMajor {
    const ROW: usize = PANEL_PITCH;
    const STEP: usize = 1;
}

/// A row of the panel is a column of A: the rows of an outer product.
pub(crate) struct DepthMajor;
impl Layout for DepthMajor {
    const ROW: usize = 1;
    const STEP: usize = PANEL_PITCH;
}

/// What a product is added to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start<'a> {
    /// Nothing: C is overwritten.
    Zero,
    /// One number a column; C is overwritten.
    Bias(&'a [f32]),
    /// What C holds.
    Add,
}

/// The register tile of an instruction set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TileShape {
    /// Rows of a tile.
    pub(crate) rows: usize,
    /// Columns of a tile.
    pub(crate) columns: usize,
    /// Numbers in a vector.
    pub(crate) lanes: usize,
}

impl TileShape {
    /// The tile of `isa`.
    pub(crate) fn of(isa: Isa) -> TileShape {
        struct Ask;
        impl Task for Ask {
            type Output = TileShape;
            #[inline(always)]
            fn run<S: Simd>(self, _: S) -> TileShape {
                TileShape { rows: S::TILE_ROWS, columns: S::TILE_VECTORS * S::LANES, lanes: S::LANES }
            }
        }
        isa.dispatch(Ask)
    }
}

/// A panel times packed columns.
pub(crate) struct PanelProduct<'a, L> {
    /// A, `offsets.len()` rows, `depth` deep, laid out as `L`.
    pub(crate) panel: &'a [f32],
    /// The length of the sums.
    pub(crate) depth: usize,
    /// B: tile after tile of columns, each `[depth][width of the tile]`, the last one padded to whole vectors.
    pub(crate) b: &'a [f32],
    /// Columns of B and C.
    pub(crate) columns: usize,
    /// For each row, where it starts in C.
    pub(crate) offsets: &'a [usize],
    /// What the product is added to.
    pub(crate) start: Start<'a>,
    /// The panel's layout.
    pub(crate) layout: PhantomData<L>,
}

impl<L: Layout> PanelProduct<'_, L> {
    /// Computes it.
    ///
    /// # Safety
    /// For each of `offsets`, `columns` numbers from `c + offset` must be valid for reading and writing, and nobody else
    /// may access them meanwhile.
    pub(crate) unsafe fn compute(self, isa: Isa, c: *mut f32) {
        isa.dispatch(Compute { product: self, c });
    }
}

/// [`PanelProduct::compute`], whose promise it rests on.
struct Compute<'a, L> {
    product: PanelProduct<'a, L>,
    c: *mut f32,
}

impl<L: Layout> Task for Compute<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let PanelProduct { panel, depth, b, columns, offsets, start, .. } = self.product;
        let rows = offsets.len();
        assert!(panel.len() >= L::panel_len(rows, depth));
        assert!(b.len() >= depth * columns.next_multiple_of(S::LANES));
        if let Start::Bias(bias) = start {
            assert!(bias.len() == columns);
        }
        let tile_columns = S::TILE_VECTORS * S::LANES;
        let tiles = rows.div_ceil(S::TILE_ROWS);
        let mut column = 0;
        while column < columns {
            let width = tile_columns.min(columns - column);
            let vectors = width.div_ceil(S::LANES);
            for tile in 0..tiles {
                let first = rows * tile / tiles;
                let offsets = &offsets[first..rows * (tile + 1) / tiles];
                let tile = Tile::<L> {
                    a: panel.as_ptr().wrapping_add(first * L::ROW),
                    depth,
                    b: b.as_ptr().wrapping_add(depth * column),
                    c: self.c.wrapping_add(column),
                    offsets,
                    last: width - (vectors - 1) * S::LANES,
                    start: match start {
                        Start::Bias(bias) => Start::Bias(&bias[column..column + width]),
                        other => other,
                    },
                    layout: PhantomData,
                };
                // SAFETY: the asserts above and the caller's promise are those of `Tile`.
                unsafe { tile.select(simd, vectors) };
            }
            column += width;
        }
    }
}

/// One register tile.
struct Tile<'a, L> {
    a: *const f32,
    depth: usize,
    b: *const f32,
    c: *mut f32,
    offsets: &'a [usize],
    /// Columns in the last vector.
    last: usize,
    start: Start<'a>,
    layout: PhantomData<L>,
}

impl<L: Layout> Tile<'_, L> {
    /// Calls the tile that was compiled for this number of rows and vectors.
    ///
    /// # Safety
    /// A and B must be readable over the tile; C readable and writable at each offset, `last` columns of the last vector
    /// and all of the others.
    #[inline(always)]
    unsafe fn select<S: Simd>(self, simd: S, vectors: usize) {
        macro_rules! tiles {
            ($($vectors:literal: $($rows:literal)*;)*) => {
                match (vectors, self.offsets.len()) {
                    $($(($vectors, $rows) => {
                        if $rows <= S::TILE_ROWS && $vectors <= S::TILE_VECTORS {
                            // SAFETY: as promised.
                            unsafe { self.compute::<S, $rows, $vectors>(simd) }
                        }
                    })*)*
                    _ => unreachable!("no instruction set has so large a tile"),
                }
            };
        }
        const { assert!(S::TILE_ROWS <= 14 && S::TILE_VECTORS <= 3) };
        tiles! {
            1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14;
            2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14;
            3: 1 2 3 4 5 6 7 8;
        }
    }

    /// The tile of `ROWS` rows and `VECTORS` vectors.
    ///
    /// # Safety
    /// As [`Tile::select`], for exactly `ROWS` rows and `VECTORS` vectors.
    #[inline(always)]
    unsafe fn compute<S: Simd, const ROWS: usize, const VECTORS: usize>(self, simd: S) {
        let mut sums = [[simd.splat(0.0); VECTORS]; ROWS];
        let (mut a, mut b) = (self.a, self.b);
        for _ in 0..self.depth {
            let mut bs = [simd.splat(0.0); VECTORS];
            for (v, to) in bs.iter_mut().enumerate() {
                // SAFETY: B is readable over the tile.
                *to = unsafe { simd.load(b.add(v * S::LANES)) };
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                // SAFETY: A is readable over the tile.
                let x = simd.splat(unsafe { *a.add(r * L::ROW) });
                for (sum, b) in sums.iter_mut().zip(bs) {
                    *sum = simd.mul_add(x, b, *sum);
                }
            }
            a = a.wrapping_add(L::STEP);
            b = b.wrapping_add(VECTORS * S::LANES);
        }
        if let Start::Bias(bias) = self.start {
            for v in 0..VECTORS {
                let n = if v + 1 == VECTORS { self.last } else { S::LANES };
                // SAFETY: the bias holds one number a column of the tile.
                let bias = unsafe { simd.load_first(bias.as_ptr().add(v * S::LANES), n) };
                for sums in &mut sums {
                    sums[v] = simd.add(sums[v], bias);
                }
            }
        }
        let add = matches!(self.start, Start::Add);
        for (sums, &offset) in sums.iter().zip(self.offsets) {
            for (v, &sum) in sums.iter().enumerate() {
                // SAFETY: C is readable and writable in the columns of the tile: whole vectors, except for the last.
                unsafe {
                    let c = self.c.add(offset + v * S::LANES);
                    if v + 1 < VECTORS || self.last == S::LANES {
                        simd.store(c, if add { simd.add(simd.load(c), sum) } else { sum });
                    } else {
                        let sum = if add { simd.add(simd.load_first(c, self.last), sum) } else { sum };
                        simd.store_first(c, sum, self.last);
                    }
                }
            }
        }
    }
}
