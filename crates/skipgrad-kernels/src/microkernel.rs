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
//! A panel is read along its rows ([`RowMajor`]) or across them ([`DepthMajor`]). Its pitch is an odd number of cache lines, so
//! that no two rows of it compete for one set of the cache. Read along rows that lie in memory as a panel would, though with
//! another pitch, A need not be copied: a tile uses whole cache lines of its few rows at once.
//!
//! Every tile height up to the full one is compiled: rows are shared out evenly among as few tiles as can hold them, and
//! a tile does the work of its own rows only. Columns are padded with zeros to whole vectors in B, never in C.

use super::epilogue::ColumnEpilogue;
use super::prefetch::{Prefetcher, fetch};
use super::simd::{LINE, Simd, prefetch};
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
    /// Whether a row of the panel is a column of A.
    const ACROSS: bool;

    /// The length of a panel for `rows` rows of A, `depth` numbers deep.
    fn panel_len(rows: usize, depth: usize) -> usize {
        let (height, width) = if Self::ACROSS { (depth, rows) } else { (rows, depth) };
        assert!(width <= Self::WIDTH);
        height * Self::PITCH
    }
}

/// A row of the panel is a row of A. Its width is a divisor of the depth of usual convolutions, 9 times 32, 64, 128 ...
pub(crate) struct RowMajor;
impl Layout for RowMajor {
    const WIDTH: usize = 288;
    const ACROSS: bool = false;
}

/// A row of the panel is a column of A: the rows of an outer product.
pub(crate) struct DepthMajor;
impl Layout for DepthMajor {
    const WIDTH: usize = 192;
    const ACROSS: bool = true;
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
    /// Numbers from a row of the panel to the next: where A lies across it, the layout's.
    pub(crate) pitch: usize,
    /// The length of the sums.
    pub(crate) depth: usize,
    /// B: tile after tile of columns, each `[depth][width of the tile]`, the last one padded to whole vectors.
    pub(crate) b: &'a [f32],
    /// What will be read next, to be fetched ahead.
    pub(crate) then: &'a [f32],
    /// Columns of B and C.
    pub(crate) columns: usize,
    /// For each row, where it starts in C.
    pub(crate) offsets: &'a [usize],
    /// What the product is added to.
    pub(crate) start: Start,
    /// What becomes of the sums, if these are complete.
    pub(crate) end: Option<ColumnEpilogue<'a>>,
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
        // SAFETY: as promised.
        unsafe { self.compute_fetching(isa, c, &mut []) }
    }

    /// Computes it, and meanwhile fetches what comes after it.
    ///
    /// # Safety
    /// As [`PanelProduct::compute`].
    pub(crate) unsafe fn compute_fetching(self, isa: Isa, c: *mut f32, ahead: &mut [Prefetcher]) {
        isa.dispatch(Compute { product: self, c, ahead });
    }
}

/// [`PanelProduct::compute`], whose promise it rests on.
struct Compute<'a, L> {
    product: PanelProduct<'a, L>,
    c: *mut f32,
    ahead: &'a mut [Prefetcher],
}

impl<L: Layout> Task for Compute<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let PanelProduct { panel, pitch, depth, b, then, columns, offsets, start, end, .. } = self.product;
        let rows = offsets.len();
        if L::ACROSS {
            assert!(pitch == L::PITCH && panel.len() >= L::panel_len(rows, depth));
        } else {
            assert!(rows == 0 || panel.len() >= (rows - 1) * pitch + depth);
        }
        assert!(b.len() >= depth * columns.next_multiple_of(S::LANES));
        let tile_columns = S::TILE_VECTORS * S::LANES;
        let tiles = rows.div_ceil(S::TILE_ROWS).max(1);
        let (fewest, with_one_more) = (rows / tiles, rows % tiles);
        let rows_of = |tile: usize| fewest + usize::from(tile < with_one_more);
        self.ahead.iter_mut().for_each(|ahead| ahead.share(tiles * columns.div_ceil(tile_columns)));
        let mut column = 0;
        while column < columns {
            let width = tile_columns.min(columns - column);
            let vectors = width.div_ceil(S::LANES);
            // While a tile's part of B is in use, the next one's comes from wherever it is: a packed weight of an image, which meets
            // few rows, is read from memory.
            let next = if column + width < columns { &b[depth * (column + width)..] } else { then };
            let next = &next[..next.len().min(depth * width)];
            let share = next.len().div_ceil(tiles).next_multiple_of(LINE);
            let mut first = 0;
            for tile in 0..tiles {
                fetch(next.get(tile * share..).unwrap_or_default(), share);
                let end_of_tile = first + rows_of(tile);
                if column == 0 && pitch != L::PITCH {
                    // So do the rows of the next tile, where they were not copied.
                    for row in end_of_tile..(end_of_tile + rows_of(tile + 1)).min(rows) {
                        fetch(&panel[row * pitch..], depth);
                    }
                }
                let tile = Tile::<L> {
                    a: panel.as_ptr().wrapping_add(first * if L::ACROSS { 1 } else { pitch }),
                    pitch,
                    depth,
                    b: b.as_ptr().wrapping_add(depth * column),
                    c: self.c.wrapping_add(column),
                    offsets: &offsets[first..end_of_tile],
                    last: width - (vectors - 1) * S::LANES,
                    start,
                    end: end.map(|end| end.from(column)),
                    layout: PhantomData,
                };
                // SAFETY: the asserts above and the caller's promise are those of `Tile`.
                unsafe { tile.select(simd, vectors) };
                first = end_of_tile;
                self.ahead.iter_mut().for_each(Prefetcher::fetch);
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
    pitch: usize,
    depth: usize,
    b: *const f32,
    c: *mut f32,
    offsets: &'a [usize],
    /// Columns in the last vector.
    last: usize,
    start: Start,
    end: Option<ColumnEpilogue<'a>>,
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
                    (_, 0) => {}
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
        let (row_step, depth_step) = if L::ACROSS { (1, L::PITCH) } else { (self.pitch, 1) };
        let mut sums = [[simd.splat(0.0); VECTORS]; ROWS];
        let (mut a, mut b) = (self.a, self.b);
        for _ in 0..self.depth {
            let mut bs = [simd.splat(0.0); VECTORS];
            // SAFETY: B is readable over the tile.
            each!(vector < VECTORS: |v| bs[v] = unsafe { simd.load(b.add(v * S::LANES)) });
            each!(row < ROWS: |row| {
                // SAFETY: A is readable over the tile.
                let x = simd.splat(unsafe { *a.add(row * row_step) });
                each!(vector < VECTORS: |v| sums[row][v] = simd.mul_add(x, bs[v], sums[row][v]));
            });
            a = a.wrapping_add(depth_step);
            b = b.wrapping_add(VECTORS * S::LANES);
        }
        if self.last < S::LANES {
            let mut stored = [[0.0; MOST_COLUMNS]; MOST_ROWS];
            each!(row < ROWS: |row| {
                // SAFETY: a row holds the columns of the largest tile.
                each!(vector < VECTORS: |v| unsafe {
                    simd.store(stored[row].as_mut_ptr().add(v * S::LANES), sums[row][v]);
                });
            });
            let columns = (VECTORS - 1) * S::LANES + self.last;
            // SAFETY: C is readable and writable in the columns of the tile.
            unsafe { finish(&stored[..ROWS], columns, self.start, self.end, self.c, offsets) };
            return;
        }
        if let Start::Add = self.start {
            each!(row < ROWS: |row| {
                // SAFETY: C is readable in the columns of the tile, which are whole vectors.
                each!(vector < VECTORS: |v| unsafe {
                    sums[row][v] = simd.add(simd.load(self.c.add(offsets[row] + v * S::LANES)), sums[row][v]);
                });
            });
        }
        if let Some(end) = self.end {
            each!(vector < VECTORS: |v| {
                let bias = end.bias(simd, v * S::LANES);
                each!(row < ROWS: |row| sums[row][v] = end.of(simd, sums[row][v], bias, offsets[row], v * S::LANES));
            });
        }
        each!(row < ROWS: |row| {
            // SAFETY: C is writable in the columns of the tile, which are whole vectors.
            each!(vector < VECTORS: |v| unsafe {
                simd.store(self.c.add(offsets[row] + v * S::LANES), sums[row][v]);
            });
        });
    }
}

/// The rare end of a tile: part of a vector.
///
/// # Safety
/// `columns` numbers from `c` must be readable and writable at each offset.
#[inline(never)]
unsafe fn finish(
    sums: &[[f32; MOST_COLUMNS]],
    columns: usize,
    start: Start,
    end: Option<ColumnEpilogue<'_>>,
    c: *mut f32,
    offsets: &[usize],
) {
    for (sums, &offset) in sums.iter().zip(offsets) {
        // SAFETY: as promised.
        let c = unsafe { std::slice::from_raw_parts_mut(c.add(offset), columns) };
        match start {
            Start::Zero => c.copy_from_slice(&sums[..columns]),
            Start::Add => c.iter_mut().zip(sums).for_each(|(c, sum)| *c += sum),
        }
        if let Some(end) = end {
            c.iter_mut().enumerate().for_each(|(column, c)| *c = end.of_one(*c, offset, column));
        }
    }
}
