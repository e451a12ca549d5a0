//! Matrix products, blocked for the caches and split over threads: the engine under `gemm` and under all three directions
//! of a convolution.
//!
//! ```text
//! for each part of the rows, of the columns, of the depth             in parallel
//!   for each block of the depth
//!     pack that block of B, unless it was packed ahead
//!     for each block of the rows
//!       copy that block of A into a panel                             second-level cache
//!       C[block] += panel * B, and its end                            see `microkernel` and `visitor`
//!       after the last block of the depth: what C[block] says         see `visitor`
//! ```
//!
//! A is whatever can fill a panel ([`Panels`]): a matrix, or the patches of an image, which so never exist as a whole.
//! Two shapes of work occur. With rows of A in the panel, B is small (weights), shared by all blocks and packed ahead.
//! With columns of A in the panel (an outer product: weight gradients, where the depth is all the pixels of a batch), B is
//! large and packed where it is used, and if C is too small to give every core a block, the depth is split into parts whose
//! sums are added in order. All splits depend on the sizes alone, never on the threads.

use super::epilogue::{Block, BlockVisitor, ColumnEpilogue};
use super::grid::Grid;
use super::microkernel::{DepthMajor, Layout, PanelProduct, RowMajor, Start, TileShape};
use super::pack::{Factor, Pack};
use super::prefetch::Prefetcher;
use super::split::{Split, SyncMutPtr, shifted};
use super::{Isa, scratch};
use rayon::prelude::*;
use std::marker::PhantomData;
use std::ops::Range;

/// Columns below which splitting does not pay, because every part fills the panel anew.
const FEWEST_COLUMNS: usize = 64;
/// Most rows of a block, in either layout.
const MOST_ROWS: usize = 192;
const _: () = assert!(RowMajor::ROWS <= MOST_ROWS && DepthMajor::ROWS <= MOST_ROWS);
/// Tasks wanted, so that cores share a small product evenly.
const TASKS: usize = 32;
/// Multiplications of a product that is worth sharing.
const SHARED: usize = 1 << 19;
/// Tasks wanted where more of them cost memory, and time to add their sums.
const TASKS_WITH_SUMS: usize = 16;

/// The left factor, which is never needed as a whole.
pub(crate) trait Panels: Sync {
    /// How it lies in a panel.
    type Layout: PanelLayout;
    /// Copies `rows` x `depth` to the start of `panel`. What lies behind each of its rows, within the pitch, may be
    /// overwritten.
    fn fill(&self, isa: Isa, rows: Range<usize>, depth: Range<usize>, panel: &mut [f32]);
    /// `rows` x `depth`, and the numbers from a row to the next, where they need not be copied because the layout reads along rows
    /// and rows lie in memory.
    fn in_place(&self, _rows: Range<usize>, _depth: Range<usize>) -> Option<(&[f32], usize)> {
        None
    }
    /// What [`Panels::fill`] will read for `rows` x `depth`, if that is worth fetching ahead.
    fn ahead(&self, _rows: Range<usize>, _depth: Range<usize>) -> Option<Prefetcher> {
        None
    }
}

/// How a product is split, which follows from the layout of the panels: a panel and what is used with it of B are to fill
/// about half of a second-level cache of 512 KiB.
pub(crate) trait PanelLayout: Layout {
    /// Whether B is packed as a whole, ahead.
    const PREPACK_B: bool;
    /// Most rows of a block.
    const ROWS: usize;
    /// Most numbers of a block's depth.
    const DEPTH: usize;
    /// Most rows of a task, which may be several blocks that use the same B.
    const TASK_ROWS: usize;
    /// Most columns of a task.
    const TASK_COLUMNS: usize;
}

impl PanelLayout for RowMajor {
    const PREPACK_B: bool = true;
    const ROWS: usize = 112;
    const DEPTH: usize = Self::WIDTH;
    const TASK_ROWS: usize = Self::ROWS;
    const TASK_COLUMNS: usize = 256;
}

impl PanelLayout for DepthMajor {
    const PREPACK_B: bool = false;
    const ROWS: usize = Self::WIDTH;
    const DEPTH: usize = 192;
    const TASK_ROWS: usize = 576;
    const TASK_COLUMNS: usize = 256;
}

/// The right factor of a product.
pub(crate) enum Right<'a> {
    /// To be packed.
    Factor(Factor<'a>),
    /// What [`prepack`] made of it.
    Packed(&'a [f32]),
}

/// `c = a * b`, or added to what `start` says.
pub(crate) struct Product<'a, A, E = ()> {
    /// Columns of B and C.
    pub(crate) columns: usize,
    /// Columns of A, rows of B.
    pub(crate) depth: usize,
    /// The left factor.
    pub(crate) a: A,
    /// The right factor.
    pub(crate) b: Right<'a>,
    /// The rows of C.
    pub(crate) c: Grid,
    /// What the product is added to.
    pub(crate) start: Start,
    /// What becomes of complete sums; only where B is packed ahead.
    pub(crate) end: ColumnEpilogue<'a>,
    /// What is done with a block of them; only where B is packed ahead.
    pub(crate) visitor: E,
}

/// The splits of one product.
struct Plan {
    tile: TileShape,
    rows: Split,
    columns: Split,
    /// Parts of the depth whose sums are computed apart.
    parts: Split,
}

impl Plan {
    fn new<L: PanelLayout>(tile: TileShape, rows: usize, columns: usize, depth: usize) -> Plan {
        let rows = Split::new(rows, tile.rows, L::TASK_ROWS, 1);
        let wanted = (TASKS / rows.parts).min(columns / FEWEST_COLUMNS);
        let columns =
            Split::new(columns, tile.columns, L::TASK_COLUMNS, if L::PREPACK_B { wanted } else { 1 });
        let parts = if L::PREPACK_B { 1 } else { TASKS_WITH_SUMS / (rows.parts * columns.parts) };
        let rows = match rows.parts * columns.parts {
            // Two cores share a product of one small map, though both then read all of B.
            1 if L::PREPACK_B && rows.total * columns.total * depth >= SHARED => {
                Split::new(rows.total, tile.rows, L::TASK_ROWS, 2)
            }
            _ => rows,
        };
        Plan { tile, rows, columns, parts: Split::new(depth, 4 * L::DEPTH, usize::MAX, parts) }
    }

    fn tasks(&self) -> usize {
        self.rows.parts * self.columns.parts * self.parts.parts
    }
}

/// A block of the depth of B, and where it is packed.
struct Piece<'a> {
    depth: Range<usize>,
    packed: &'a mut [f32],
}

impl Piece<'_> {
    fn pack(self, isa: Isa, factor: &Factor, columns: usize) {
        isa.dispatch(Pack { factor, depth: self.depth, columns: 0..columns, packed: self.packed });
    }
}

/// How many numbers B is when it is packed ahead.
pub(crate) fn packed_len<L: PanelLayout>(isa: Isa, columns: usize, depth: usize) -> usize {
    if L::PREPACK_B { depth * columns.next_multiple_of(TileShape::of(isa).lanes) } else { 0 }
}

/// The blocks of the depth of B, each of which is packed as [`PanelProduct`] wants it.
fn prepacked_blocks<L: PanelLayout>(
    isa: Isa,
    columns: usize,
    depth: usize,
    packed: &mut [f32],
) -> Vec<Piece<'_>> {
    let width = columns.next_multiple_of(TileShape::of(isa).lanes);
    let blocks = Split::new(depth, 1, L::DEPTH, 1);
    let mut rest = packed;
    let mut pieces = Vec::with_capacity(blocks.parts);
    while !rest.is_empty() {
        let depth = blocks.range(pieces.len());
        let (packed, after) = rest.split_at_mut(depth.len() * width);
        pieces.push(Piece { depth, packed });
        rest = after;
    }
    pieces
}

/// Packs B on the calling thread, for many products with it; `packed` has [`packed_len`] numbers.
pub(crate) fn prepack<L: PanelLayout>(isa: Isa, factor: &Factor, columns: usize, packed: &mut [f32]) {
    let depth = factor.taps.len() * factor.depth;
    if columns == 0 {
        return;
    }
    factor.check(columns, depth);
    for piece in prepacked_blocks::<L>(isa, columns, depth, packed) {
        piece.pack(isa, factor, columns);
    }
}

impl<A: Panels, E: BlockVisitor> Product<'_, A, E> {
    /// Computes it, and returns what the epilogue found out about each block, in order.
    pub(crate) fn compute(&self, isa: Isa, c: &mut [f32]) -> Vec<E::Output> {
        Self::side_by_side(isa, std::slice::from_ref(self), c)
    }

    /// Computes products into columns of one C, at the same time, and returns what their epilogues found out, product by product.
    ///
    /// # Panics
    /// Unless all products have the same rows, with the columns of each behind those of the one before.
    pub(crate) fn side_by_side(isa: Isa, products: &[Self], c: &mut [f32]) -> Vec<E::Output> {
        let Some((first, last)) = products.first().zip(products.last()) else {
            return vec![];
        };
        for pair in products.windows(2) {
            assert!((pair[0].c.size, pair[0].c.stride) == (pair[1].c.size, pair[1].c.stride), "other rows");
            assert!(pair[0].c.start + pair[0].columns <= pair[1].c.start, "columns of C overlap");
        }
        if first.c.num_rows() > 0 {
            first.c.check(last.c.start + last.columns - first.c.start, c.len());
        }
        let to = SyncMutPtr(c.as_mut_ptr());
        let found = products.par_iter().with_max_len(1).map(|product| {
            // SAFETY: the asserts show that all rows lie in C, apart from one another.
            unsafe { product.compute_in_part(isa, to) }
        });
        found.collect::<Vec<_>>().into_iter().flatten().collect()
    }

    /// Computes it into C, of which it may be only a part.
    ///
    /// # Safety
    /// The columns of all its rows are valid for reading and writing and do not overlap, and nobody else accesses them meanwhile.
    unsafe fn compute_in_part(&self, isa: Isa, c: SyncMutPtr) -> Vec<E::Output> {
        let rows = self.c.num_rows();
        if rows == 0 || self.columns == 0 {
            return vec![];
        }
        let plan = Plan::new::<A::Layout>(TileShape::of(isa), rows, self.columns, self.depth);
        let len = packed_len::<A::Layout>(isa, self.columns, self.depth);
        match &self.b {
            Right::Packed(packed) => {
                assert!(A::Layout::PREPACK_B && packed.len() >= len, "B is too short");
                self.parts(isa, &plan, packed, c)
            }
            Right::Factor(factor) => {
                factor.check(self.columns, self.depth);
                scratch::with(len, |packed| {
                    let pieces = prepacked_blocks::<A::Layout>(isa, self.columns, self.depth, packed);
                    pieces
                        .into_par_iter()
                        .with_max_len(1)
                        .for_each(|piece| piece.pack(isa, factor, self.columns));
                    self.parts(isa, &plan, packed, c)
                })
            }
        }
    }

    /// All parts of the rows, of the columns and of the depth.
    fn parts(&self, isa: Isa, plan: &Plan, packed: &[f32], to_c: SyncMutPtr) -> Vec<E::Output> {
        let sums = self.c.num_rows() * self.columns;
        scratch::with((plan.parts.parts - 1) * sums, |partial| {
            let to_partial = SyncMutPtr(partial.as_mut_ptr());
            let tasks = (0..plan.tasks()).into_par_iter().with_max_len(1).map(|task| {
                let parts_of_c = plan.rows.parts * plan.columns.parts;
                let (part, task) = (task / parts_of_c, task % parts_of_c);
                // A thread's next task reads the larger factor's next part, and the smaller one's again.
                let (block, columns) = match self.columns > self.c.num_rows() {
                    true => (task % plan.rows.parts, task / plan.rows.parts),
                    false => (task / plan.columns.parts, task % plan.columns.parts),
                };
                let to = if part == 0 { to_c } else { SyncMutPtr(to_partial.offset((part - 1) * sums)) };
                self.task(isa, plan, [block, columns, part], packed, to)
            });
            let found: Vec<Option<E::Output>> = tasks.collect();
            self.add_parts(partial, to_c);
            found.into_iter().flatten().collect()
        })
    }

    /// One part of the rows, of the columns and of the depth.
    fn task(
        &self,
        isa: Isa,
        plan: &Plan,
        [rows, columns, part]: [usize; 3],
        packed: &[f32],
        to: SyncMutPtr,
    ) -> Option<E::Output> {
        let (rows, columns) = (plan.rows.range(rows), plan.columns.range(columns));
        let depth = plan.parts.range(part);
        let blocks = Split::new(rows.len(), plan.tile.rows, A::Layout::ROWS, 1);
        let steps = Split::new(depth.len(), 1, A::Layout::DEPTH, 1);
        let place = if part == 0 { self.c } else { Grid::matrix(self.c.num_rows(), self.columns) };
        let width = |columns: usize| columns.next_multiple_of(plan.tile.lanes);
        let panel = A::Layout::panel_len(blocks.largest(), steps.largest());
        let packed_here = if A::Layout::PREPACK_B { 0 } else { steps.largest() * width(columns.len()) };
        let mut found = None;
        scratch::with(panel, |panel| {
            scratch::with(packed_here, |packed_here| {
                for step in 0..steps.parts {
                    let depth = shifted(steps.range(step), depth.start);
                    // Behind these columns come those of the next task.
                    let (b, then) = match &self.b {
                        Right::Factor(factor) if !A::Layout::PREPACK_B => {
                            let (depth, columns) = (depth.clone(), columns.clone());
                            isa.dispatch(Pack { factor, depth, columns, packed: packed_here });
                            (&*packed_here, &[][..])
                        }
                        _ => {
                            let first = depth.start * width(self.columns) + depth.len() * columns.start;
                            packed[first..].split_at(depth.len() * width(columns.len()))
                        }
                    };
                    let start = match self.start {
                        _ if step > 0 => Start::Add,
                        _ if part > 0 => Start::Zero,
                        start => start,
                    };
                    for block in 0..blocks.parts {
                        let rows = shifted(blocks.range(block), rows.start);
                        let mut offsets = [0; MOST_ROWS];
                        let offsets = &mut offsets[..rows.len()];
                        place.offsets(rows.clone(), offsets);
                        let last = A::Layout::PREPACK_B && step + 1 == steps.parts;
                        // As a rule, the rows that follow are this thread's next ones.
                        let next = rows.end..(rows.end + rows.len()).min(self.c.num_rows());
                        let mut ahead = self.a.ahead(next, depth.clone());
                        let (panel, pitch) = match self.a.in_place(rows.clone(), depth.clone()) {
                            Some(in_place) => in_place,
                            None => {
                                self.a.fill(isa, rows, depth.clone(), panel);
                                (&*panel, A::Layout::PITCH)
                            }
                        };
                        let product = PanelProduct::<A::Layout> {
                            panel,
                            pitch,
                            depth: depth.len(),
                            b,
                            then,
                            columns: columns.len(),
                            offsets,
                            start,
                            end: (last && !self.end.epilogue.is_identity())
                                .then(|| self.end.from(columns.start)),
                            layout: PhantomData,
                        };
                        // SAFETY: rows lie in C and do not overlap, as `compute_in_part` was promised (the partial sums are a
                        // matrix of `rows` x `columns`), and no other task has the same rows, columns and part.
                        unsafe {
                            product.compute_fetching(isa, to.offset(columns.start), ahead.as_mut_slice());
                        }
                        if last {
                            let block = Block { columns: columns.clone(), offsets, c: to };
                            // SAFETY: as above.
                            found = Some(unsafe { self.visitor.apply(isa, &block) });
                        }
                    }
                }
            });
        });
        found
    }

    /// Adds the parts of the depth to C, in order.
    fn add_parts(&self, partial: &[f32], to: SyncMutPtr) {
        if partial.is_empty() {
            return;
        }
        let (rows, columns) = (self.c.num_rows(), self.columns);
        (0..rows).into_par_iter().with_min_len(16).for_each(|row| {
            let mut offset = [0];
            self.c.offsets(row..row + 1, &mut offset);
            // SAFETY: rows lie in C and do not overlap, as `compute_in_part` was promised, and each is added to once.
            let c = unsafe { std::slice::from_raw_parts_mut(to.offset(offset[0]), columns) };
            for part in partial.chunks_exact(rows * columns) {
                for (c, x) in c.iter_mut().zip(&part[row * columns..][..columns]) {
                    *c += x;
                }
            }
        });
    }
}
