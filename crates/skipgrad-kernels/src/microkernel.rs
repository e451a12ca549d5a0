//! The microkernel, the innermost loops of every matrix product: a few rows of A times a few packed
//! vectors of B, in a micro-tile that fits the registers.
//!
//! ```text
//! for each tile of columns (TILE_VECTORS vectors; its part of B stays in the L1 cache)
//!   for each tile of rows (TILE_ROWS rows; the panel streams from the L2 cache)
//!     accumulators = 0                                  all in registers
//!     for each k:  accumulator[row][vector] += A[row, k] (one element, broadcast) * B[k, vector]
//!     C = accumulators                                  or C += them
//! ```
//!
//! The two outer loops are in `panel`.
//!
//! Every tile height up to the full one is compiled: rows are shared evenly among as few tiles as
//! can hold them, and a tile does the work of its own rows only. Columns are padded with zeros to
//! whole vectors in B, never in C.

use super::epilogue::ColumnEpilogue;
use super::panel::Layout;
use super::prefetch::{Cache, prefetch_row};
use super::simd::Simd;
use super::{Isa, Task};
use std::marker::PhantomData;

/// The largest micro-tile of any instruction set.
const MAX_TILE_ROWS: usize = 14;
const MAX_TILE_COLUMNS: usize = 32;

/// The factor of C in `C = A * B + beta * C`, as in BLAS.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Beta {
    /// C is overwritten, whatever it holds.
    Zero,
    /// The product is added to C.
    One,
}

impl Beta {
    /// Returns zero for the first block of a sum and one for those that are added to it.
    pub(crate) fn of_block(index: usize) -> Beta {
        if index == 0 { Beta::Zero } else { Beta::One }
    }
}

/// The micro-tile of an instruction set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TileShape {
    /// Number of rows.
    pub(crate) rows: usize,
    /// Number of columns.
    pub(crate) columns: usize,
    /// Lanes of a vector.
    pub(crate) lanes: usize,
}

impl TileShape {
    /// Returns the micro-tile of `isa`.
    pub(crate) fn of(isa: Isa) -> TileShape {
        struct Query;
        impl Task for Query {
            type Output = TileShape;
            #[inline(always)]
            fn run<S: Simd>(self, _: S) -> TileShape {
                TileShape { rows: S::TILE_ROWS, columns: S::TILE_VECTORS * S::LANES, lanes: S::LANES }
            }
        }
        isa.dispatch(Query)
    }
}

/// Repeats the body for each row, or for each vector of a row, without a loop: one that the
/// compiler left rolled would keep the accumulators in memory, and iterators would make it work for
/// minutes on all the tiles.
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

/// One micro-tile.
pub(super) struct Tile<'a, L> {
    /// The first row of A.
    pub(super) a: *const f32,
    /// Elements from one row of the panel to the next.
    pub(super) pitch: usize,
    /// Number of terms of each sum.
    pub(super) depth: usize,
    /// The packed columns of B.
    pub(super) b: *const f32,
    /// The tile's first column of C.
    pub(super) c: *mut f32,
    /// The position in C of each row.
    pub(super) offsets: &'a [usize],
    /// Columns of the last vector.
    pub(super) last: usize,
    /// Whether the product is added to C.
    pub(super) beta: Beta,
    /// What is applied to the sums, if these are complete.
    pub(super) epilogue: Option<ColumnEpilogue<'a>>,
    pub(super) layout: PhantomData<L>,
}

impl<L: Layout> Tile<'_, L> {
    /// Calls the tile that was compiled for this number of rows and vectors.
    ///
    /// # Safety
    /// A and B must be readable over the tile; C must be readable and writable at each offset, in
    /// `last` columns of the last vector and in all columns of the others.
    #[inline(always)]
    pub(super) unsafe fn select<S: Simd>(self, simd: S, vectors: usize) {
        macro_rules! tiles {
            ($($vectors:literal: $($rows:literal)*;)*) => {
                match (vectors, self.offsets.len()) {
                    $($(($vectors, $rows) => {
                        if const { $rows <= S::TILE_ROWS && $vectors <= S::TILE_VECTORS } {
                            // SAFETY: the contract is this function's own, and the match shows that
                            // the tile has exactly these rows and vectors.
                            unsafe { self.compute::<S, $rows, $vectors>(simd) }
                        }
                    })*)*
                    (_, 0) => {}
                    _ => unreachable!("no instruction set has so large a tile"),
                }
            };
        }
        const {
            assert!(S::TILE_ROWS <= MAX_TILE_ROWS && S::TILE_VECTORS <= 3);
            assert!(S::TILE_VECTORS * S::LANES <= MAX_TILE_COLUMNS);
        }
        tiles! {
            1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14;
            2: 1 2 3 4 5 6 7 8 9 10 11 12 13 14;
            3: 1 2 3 4 5 6 7 8;
        }
    }

    /// Computes the tile of `ROWS` rows and `VECTORS` vectors.
    ///
    /// # Safety
    /// The contract is that of [`Tile::select`], for exactly `ROWS` rows and `VECTORS` vectors.
    #[inline(always)]
    unsafe fn compute<S: Simd, const ROWS: usize, const VECTORS: usize>(self, simd: S) {
        let offsets = self.offsets;
        assert!(offsets.len() == ROWS);
        if let Beta::One = self.beta {
            // C is to be in the cache by the time that the sums are complete.
            each!(row < ROWS: |row| {
                prefetch_row(Cache::L1, self.c.wrapping_add(offsets[row]), VECTORS * S::LANES);
            });
        }
        let (row_step, depth_step) = if L::TRANSPOSED { (1, L::PITCH) } else { (self.pitch, 1) };
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
            // SAFETY: C is readable and writable in the columns of the tile.
            return unsafe { self.finish_part(simd, sums) };
        }
        if let Beta::One = self.beta {
            each!(row < ROWS: |row| {
                // SAFETY: C is readable in the columns of the tile, which are whole vectors.
                each!(vector < VECTORS: |v| unsafe {
                    sums[row][v] = simd.add(simd.load(self.c.add(offsets[row] + v * S::LANES)), sums[row][v]);
                });
            });
        }
        if let Some(epilogue) = self.epilogue {
            each!(vector < VECTORS: |v| {
                let bias = epilogue.bias(simd, v * S::LANES);
                each!(row < ROWS: |row| {
                    sums[row][v] = epilogue.apply(simd, sums[row][v], bias, offsets[row], v * S::LANES);
                });
            });
        }
        each!(row < ROWS: |row| {
            // SAFETY: C is writable in the columns of the tile, which are whole vectors.
            each!(vector < VECTORS: |v| unsafe {
                simd.store(self.c.add(offsets[row] + v * S::LANES), sums[row][v]);
            });
        });
    }

    /// Stores the sums of a tile whose last vector is only a part of one.
    ///
    /// # Safety
    /// The contract is that of [`Tile::compute`].
    #[inline(always)]
    unsafe fn finish_part<S: Simd, const ROWS: usize, const VECTORS: usize>(
        self,
        simd: S,
        sums: [[S::Vector; VECTORS]; ROWS],
    ) {
        let mut stored = [[0.0; MAX_TILE_COLUMNS]; MAX_TILE_ROWS];
        each!(row < ROWS: |row| {
            // SAFETY: a row of `stored` holds the columns of the largest tile.
            each!(vector < VECTORS: |v| unsafe {
                simd.store(stored[row].as_mut_ptr().add(v * S::LANES), sums[row][v]);
            });
        });
        let columns = (VECTORS - 1) * S::LANES + self.last;
        // SAFETY: C is readable and writable in the columns of the tile.
        unsafe { finish(&stored[..ROWS], columns, self.beta, self.epilogue, self.c, self.offsets) };
    }
}

/// Writes the sums of a tile element by element.
///
/// # Safety
/// `columns` elements from `c` must be readable and writable at each offset.
#[inline(never)]
unsafe fn finish(
    sums: &[[f32; MAX_TILE_COLUMNS]],
    columns: usize,
    beta: Beta,
    epilogue: Option<ColumnEpilogue<'_>>,
    c: *mut f32,
    offsets: &[usize],
) {
    for (sums, &offset) in sums.iter().zip(offsets) {
        // SAFETY: the caller guarantees `columns` elements at each offset, which are used for no
        // longer than this iteration.
        let c = unsafe { std::slice::from_raw_parts_mut(c.add(offset), columns) };
        match beta {
            Beta::Zero => c.copy_from_slice(&sums[..columns]),
            Beta::One => c.iter_mut().zip(sums).for_each(|(c, sum)| *c += sum),
        }
        if let Some(epilogue) = epilogue {
            let columns = c.iter_mut().enumerate();
            columns.for_each(|(column, c)| *c = epilogue.apply_to_element(*c, offset, column));
        }
    }
}
