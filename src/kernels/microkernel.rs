//! The innermost loops of every matrix product: a panel of A times packed columns of B, in register tiles.
//!
//! ```text
//! for each tile of columns (TILE_VECTORS vectors; its part of B stays in the first-level cache)
//!   for each tile of rows (TILE_ROWS rows; the panel streams from the second-level cache)
//!     accumulators = 0                                  all in registers
//!     for each k:  accumulator[row][vector] += A[row, k] (one number, broadcast) * B[k, vector]
//!     C = accumulators                                  or C += them
//! ```
//!
//! The panel has a constant pitch, so that all rows of a tile are displacements from one pointer, which leaves the
//! registers to the accumulators; the pitch is an odd number of cache lines, so that no two rows of a tile compete for
//! one set of the cache. A panel is read along its rows ([`RowMajor`]) or across them ([`DepthMajor`]).
//!
//! Every tile height up to the full one is compiled: rows are shared out evenly among as few tiles as can hold them, and
//! a tile does the work of its own rows only. Columns are padded with zeros to whole vectors in B, never in C.

use super::simd::{Simd, prefetch};
use super::{Isa, Task};
use std::marker::PhantomData;

/// Numbers behind each row of a panel that a copy may overwrite, so that it can write whole vectors.
const SLACK: usize = 16;

/// How A lies in a panel.
pub(crate) trait Layout: Send + Sync + 'static {
    /// Numbers that a row of the panel can hold.
    const WIDTH: usize;
    /// Numbers from a row of the panel to the next.
    const PITCH: usize = Self::WIDTH + SLACK;
    /// Numbers from A[r, k] to A[r + 1, k].
    const ROW: usize;
    /// Numbers from A[r, k] to A[r, k + 1].
    const STEP: usize;

    /// The length of a panel for `rows` rows of A, `depth` numbers deep.
    fn panel_len(rows: usize, depth: usize) -> usize {
        let (height, width) = if Self::ROW == 1 { (depth, rows) } else { (rows, depth) };
        assert!(width <= Self::WIDTH);
        height * Self::PITCH
    }
}

/// A row of the panel is a row of A. Its width is a divisor of the depth of usual convolutions, 9 times 32, 64, 128 ...
pub(crate) struct RowMajor;
impl Layout for RowMajor {
    const WIDTH: usize = 288;
    const ROW: usize = Self::PITCH;
    const STEP: usize = 1;
}

/// A row of the panel is a column of A: the rows of an outer product.
pub(crate) struct DepthMajor;
impl Layout for DepthMajor {
    const WIDTH: usize = 192;
    const ROW: usize = 1;
    const STEP: usize = Self::PITCH;
}

const _: () = assert!(RowMajor::PITCH / 16 % 2 == 1 && DepthMajor::PITCH / 16 % 2 == 1);

/// The largest tile of any instruction set.
const MOST_ROWS: usize = 14;
const MOST_COLUMNS: usize = 32;

/// What a product is added to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    /// Nothing: C is overwritten.
    Zero,
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
    pub(crate) start: Start,
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
                    start,
                    layout: PhantomData,
                };
                // SAFETY: the asserts above and the caller's promise are those of `Tile`.
                unsafe { tile.select(simd, vectors) };
            }
            column += width;
        }
    }
}

/// The body for each row, or for each vector of a row, written out: a loop that the compiler left rolled would keep the
/// accumulators in memory, and iterators would make it work for minutes on all the tiles.
macro_rules! each {
    (row < $count:ident: |$index:ident| $body:expr) => {
        each!(0 1 2 3 4 5 6 7 8 9 10 11 12 13; $count, $index, $body)
    };
    (vector < $count:ident: |$index:ident| $body:expr) => {
        each!(0 1 2; $count, $index, $body)
    };
    ($($literal:literal)*; $count:ident, $index:ident, $body:expr) => {{
        $(if const { $literal < $count } {
            let $index = $literal;
            $body;
        })*
    }};
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
    start: Start,
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
                        if const { $rows <= S::TILE_ROWS && $vectors <= S::TILE_VECTORS } {
                            // SAFETY: as promised.
                            unsafe { self.compute::<S, $rows, $vectors>(simd) }
                        }
                    })*)*
                    _ => unreachable!("no instruction set has so large a tile"),
                }
            };
        }
        const {
            assert!(S::TILE_ROWS <= MOST_ROWS && S::TILE_VECTORS <= 3);
            assert!(S::TILE_VECTORS * S::LANES <= MOST_COLUMNS);
        }
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
        let offsets = self.offsets;
        assert!(offsets.len() == ROWS);
        if let Start::Add = self.start {
            // By the time that the sums are ready, C has come from wherever it is.
            each!(row < ROWS: |row| {
                prefetch(self.c.wrapping_add(offsets[row]));
                prefetch(self.c.wrapping_add(offsets[row] + VECTORS * S::LANES - 1));
            });
        }
        let mut sums = [[simd.splat(0.0); VECTORS]; ROWS];
        let (mut a, mut b) = (self.a, self.b);
        for _ in 0..self.depth {
            let mut bs = [simd.splat(0.0); VECTORS];
            // SAFETY: B is readable over the tile.
            each!(vector < VECTORS: |v| bs[v] = unsafe { simd.load(b.add(v * S::LANES)) });
            each!(row < ROWS: |row| {
                // SAFETY: A is readable over the tile.
                let x = simd.splat(unsafe { *a.add(row * L::ROW) });
                each!(vector < VECTORS: |v| sums[row][v] = simd.mul_add(x, bs[v], sums[row][v]));
            });
            a = a.wrapping_add(L::STEP);
            b = b.wrapping_add(VECTORS * S::LANES);
        }
        let whole = self.last == S::LANES;
        match self.start {
            Start::Zero if whole => each!(row < ROWS: |row| {
                // SAFETY: C is writable in the columns of the tile, which are whole vectors.
                each!(vector < VECTORS: |v| unsafe {
                    simd.store(self.c.add(offsets[row] + v * S::LANES), sums[row][v]);
                });
            }),
            Start::Add if whole => each!(row < ROWS: |row| {
                // SAFETY: C is readable and writable in the columns of the tile, which are whole vectors.
                each!(vector < VECTORS: |v| unsafe {
                    let c = self.c.add(offsets[row] + v * S::LANES);
                    simd.store(c, simd.add(simd.load(c), sums[row][v]));
                });
            }),
            start => {
                let mut stored = [[0.0; MOST_COLUMNS]; MOST_ROWS];
                each!(row < ROWS: |row| {
                    // SAFETY: a row holds the columns of the largest tile.
                    each!(vector < VECTORS: |v| unsafe {
                        simd.store(stored[row].as_mut_ptr().add(v * S::LANES), sums[row][v]);
                    });
                });
                let columns = (VECTORS - 1) * S::LANES + self.last;
                // SAFETY: C is readable and writable in the columns of the tile.
                unsafe { finish(&stored[..ROWS], columns, start, self.c, offsets) };
            }
        }
    }
}

/// The rare end of a tile: part of a vector.
///
/// # Safety
/// `columns` numbers from `c` must be readable and writable at each offset.
#[inline(never)]
unsafe fn finish(sums: &[[f32; MOST_COLUMNS]], columns: usize, start: Start, c: *mut f32, offsets: &[usize]) {
    for (sums, &offset) in sums.iter().zip(offsets) {
        // SAFETY: as promised.
        let c = unsafe { std::slice::from_raw_parts_mut(c.add(offset), columns) };
        match start {
            Start::Zero => c.copy_from_slice(&sums[..columns]),
            Start::Add => c.iter_mut().zip(sums).for_each(|(c, sum)| *c += sum),
        }
    }
}
