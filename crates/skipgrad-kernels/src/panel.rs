//! The product of a panel of A and packed columns of B: the one driver of the microkernel.
//!
//! A panel is read along its rows ([`RowMajor`]) or across them ([`DepthMajor`]). Its pitch is an
//! odd number of cache lines, so that no two rows of it compete for one set of the cache. Where the
//! rows of A already lie in memory as those of a panel do, though with another pitch, A need not be
//! copied: a tile uses whole cache lines of its few rows at once.

use super::epilogue::ColumnEpilogue;
use super::grid::RowOffsets;
use super::microkernel::{Beta, Tile};
use super::prefetch::{Cache, LINE, Prefetcher, prefetch_row};
use super::simd::Simd;
use super::{Isa, Task};
use std::marker::PhantomData;

/// Elements after each row of a panel that packing may overwrite, so that it can store whole
/// vectors.
const SLACK: usize = 16;

/// How A lies in a panel.
pub(crate) trait Layout: Send + Sync + 'static {
    /// Elements that a row of the panel can hold.
    const WIDTH: usize;
    /// Elements from one row of the panel to the next.
    const PITCH: usize = Self::WIDTH + SLACK;
    /// Whether a row of the panel is a column of A.
    const TRANSPOSED: bool;

    /// Returns the length of a panel for `rows` rows of A of length `depth`.
    fn panel_len(rows: usize, depth: usize) -> usize {
        let (height, width) = if Self::TRANSPOSED { (depth, rows) } else { (rows, depth) };
        assert!(width <= Self::WIDTH);
        height * Self::PITCH
    }
}

/// The layout in which a row of the panel is a row of A. Its width is a divisor of the depth of
/// usual convolutions, 9 times 32, 64, 128 ...
pub(crate) struct RowMajor;
impl Layout for RowMajor {
    const WIDTH: usize = 288;
    const TRANSPOSED: bool = false;
}

/// The layout in which a row of the panel is a column of A, for sums of outer products.
pub(crate) struct DepthMajor;
impl Layout for DepthMajor {
    const WIDTH: usize = 192;
    const TRANSPOSED: bool = true;
}

const _: () = assert!(RowMajor::PITCH / LINE % 2 == 1 && DepthMajor::PITCH / LINE % 2 == 1);

/// The product of a panel of A and packed columns of B: the one driver of the micro-tiles.
pub(crate) struct PanelProduct<'a, L> {
    panel: &'a [f32],
    pitch: usize,
    depth: usize,
    b: &'a [f32],
    next_b: &'a [f32],
    columns: usize,
    beta: Beta,
    epilogue: Option<ColumnEpilogue<'a>>,
    layout: PhantomData<L>,
}

impl<'a, L: Layout> PanelProduct<'a, L> {
    /// A product of `depth` terms that overwrites C.
    ///
    /// B is packed: tile after tile of `columns`, each `[depth][width of the tile]`, the last one
    /// padded to whole vectors.
    pub(crate) fn new(panel: &'a [f32], depth: usize, b: &'a [f32], columns: usize) -> Self {
        PanelProduct {
            panel,
            pitch: L::PITCH,
            depth,
            b,
            next_b: &[],
            columns,
            beta: Beta::Zero,
            epilogue: None,
            layout: PhantomData,
        }
    }

    /// Sets the elements from one row of the panel to the next, where that is not the layout's
    /// pitch.
    pub(crate) fn pitch(self, pitch: usize) -> Self {
        PanelProduct { pitch, ..self }
    }

    /// Sets the packed columns that are multiplied next, to be prefetched.
    pub(crate) fn next_b(self, next_b: &'a [f32]) -> Self {
        PanelProduct { next_b, ..self }
    }

    /// Sets whether the product is added to C.
    pub(crate) fn beta(self, beta: Beta) -> Self {
        PanelProduct { beta, ..self }
    }

    /// Sets what is applied to the sums, if these are complete.
    pub(crate) fn epilogue(self, epilogue: Option<ColumnEpilogue<'a>>) -> Self {
        PanelProduct { epilogue, ..self }
    }

    /// Computes the product into rows of `c`, and meanwhile prefetches what is needed after it.
    ///
    /// # Panics
    /// If a row does not lie within `c`, or an operand is too short.
    pub(crate) fn compute(self, isa: Isa, rows: &RowOffsets, c: &mut [f32], prefetchers: &mut [Prefetcher]) {
        assert!(rows.is_empty() || rows.max_offset() + self.columns <= c.len(), "C is too short");
        // SAFETY: the assert shows that `columns` elements from every offset lie
        // within `c`, which is borrowed mutably.
        unsafe { self.compute_at(isa, rows, c.as_mut_ptr(), prefetchers) }
    }

    /// Computes the product into rows of C, and meanwhile prefetches what is needed after it.
    ///
    /// # Safety
    /// For each offset in `rows`, `columns` elements from `c + offset` must be valid for reading
    /// and writing, and nobody else may access them during the call.
    ///
    /// # Panics
    /// If an operand is too short.
    pub(crate) unsafe fn compute_at(
        self,
        isa: Isa,
        rows: &[usize],
        c: *mut f32,
        prefetchers: &mut [Prefetcher],
    ) {
        isa.dispatch(Compute { product: self, offsets: rows, c, prefetchers });
    }
}

/// The task of [`PanelProduct::compute_at`], which is the only place that makes one and whose
/// contract it relies on.
struct Compute<'a, L> {
    product: PanelProduct<'a, L>,
    offsets: &'a [usize],
    c: *mut f32,
    prefetchers: &'a mut [Prefetcher],
}

impl<L: Layout> Task for Compute<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let PanelProduct { panel, pitch, depth, b, next_b, columns, beta, epilogue, .. } = self.product;
        let (offsets, rows) = (self.offsets, self.offsets.len());
        if L::TRANSPOSED {
            assert!(pitch == L::PITCH && panel.len() >= L::panel_len(rows, depth));
        } else {
            assert!(rows == 0 || panel.len() >= (rows - 1) * pitch + depth);
        }
        assert!(b.len() >= depth * columns.next_multiple_of(S::LANES));
        let tile_columns = S::TILE_VECTORS * S::LANES;
        let tiles = rows.div_ceil(S::TILE_ROWS).max(1);
        let (fewest, with_one_more) = (rows / tiles, rows % tiles);
        let rows_of = |tile: usize| fewest + usize::from(tile < with_one_more);
        let steps = tiles * columns.div_ceil(tile_columns);
        self.prefetchers.iter_mut().for_each(|prefetcher| prefetcher.spread_over(steps));
        let mut column = 0;
        while column < columns {
            let width = tile_columns.min(columns - column);
            let vectors = width.div_ceil(S::LANES);
            // While a tile's part of B is in use, the next one's is fetched: the packed weights of
            // an inference with few rows come from memory.
            let next = if column + width < columns { &b[depth * (column + width)..] } else { next_b };
            let next = &next[..next.len().min(depth * width)];
            let share = next.len().div_ceil(tiles).next_multiple_of(LINE);
            let mut first = 0;
            for tile in 0..tiles {
                let next = next.get(tile * share..).unwrap_or_default();
                prefetch_row(Cache::L2, next.as_ptr(), share.min(next.len()));
                let end_of_tile = first + rows_of(tile);
                if column == 0 && pitch != L::PITCH {
                    // The rows of the next tile are fetched, too, where they were not packed.
                    for row in end_of_tile..(end_of_tile + rows_of(tile + 1)).min(rows) {
                        prefetch_row(Cache::L2, panel[row * pitch..][..depth].as_ptr(), depth);
                    }
                }
                let tile = Tile::<L> {
                    a: panel.as_ptr().wrapping_add(first * if L::TRANSPOSED { 1 } else { pitch }),
                    pitch,
                    depth,
                    b: b.as_ptr().wrapping_add(depth * column),
                    c: self.c.wrapping_add(column),
                    offsets: &offsets[first..end_of_tile],
                    last: width - (vectors - 1) * S::LANES,
                    beta,
                    epilogue: epilogue.map(|epilogue| epilogue.starting_at(column)),
                    layout: PhantomData,
                };
                // SAFETY: the asserts above show that A and B are readable over the tile, and the
                // caller of `compute_at` guarantees C.
                unsafe { tile.select(simd, vectors) };
                first = end_of_tile;
                self.prefetchers.iter_mut().for_each(Prefetcher::step);
            }
            column += width;
        }
    }
}
