//! Matrix products, blocked for the caches and divided among threads: the engine of `gemm` and of
//! all three directions of a convolution.
//!
//! ```text
//! for each part of the rows, of the columns, of the depth             in parallel
//!   for each block of the depth (KC)
//!     pack that block of B, unless all of B was packed before
//!     for each block of the rows (MC)
//!       pack that block of A into a panel                             second-level cache
//!       C[block] += panel * B, then the epilogue                      see `panel` and `epilogue`
//!       after the last block of the depth: visit C[block]             see `epilogue`
//! ```
//!
//! A is whatever can pack a panel ([`AOperand`]): a matrix, or the patches of an image, which
//! therefore never exist as a whole. Two shapes of work occur. With rows of A in the panel, B is
//! small (weights), shared by all blocks and packed once, before. With columns of A in the panel
//! (an outer product: weight gradients, where the depth is all the pixels of a batch), B is large
//! and packed where it is used, and if C is too small to give every core a block, the depth is
//! divided into parts whose sums are added in order. All splits depend on the sizes alone, never on
//! the threads.

use super::blocking::{Blocking, TaskRange, TaskSplit};
use super::epilogue::{Block, BlockVisitor, ColumnEpilogue};
use super::grid::Grid;
use super::microkernel::{Beta, TileShape};
use super::pack::{BOperand, PackB, packed_blocks, packed_len};
use super::panel::{Layout, PanelProduct};
use super::prefetch::Prefetcher;
use super::split::{Split, SyncMutPtr, shifted};
use super::{Isa, scratch};
use rayon::prelude::*;
use std::ops::Range;

/// The left operand of a product, which need not exist as a whole.
pub(crate) trait AOperand: Sync {
    /// The layout of its panels.
    type Layout: Blocking;

    /// Packs `rows` x `depth` into the start of `panel`. The elements after each row of the panel,
    /// within the pitch, may be overwritten.
    fn pack(&self, isa: Isa, rows: Range<usize>, depth: Range<usize>, panel: &mut [f32]);

    /// Returns `rows` x `depth`, and the elements from one row to the next, where they need not be
    /// packed because the layout reads along rows and the rows lie in memory.
    fn in_place(&self, _rows: Range<usize>, _depth: Range<usize>) -> Option<(&[f32], usize)> {
        None
    }

    /// Returns a prefetcher for what [`AOperand::pack`] reads of `rows` x `depth`, if that pays.
    fn prefetch(&self, _rows: Range<usize>, _depth: Range<usize>) -> Option<Prefetcher> {
        None
    }
}

/// The product `C = epilogue(A * B + beta * C)`.
pub(crate) struct Product<'a, A, V = ()> {
    columns: usize,
    depth: usize,
    a: A,
    b: BOperand<'a>,
    c: Grid,
    beta: Beta,
    epilogue: ColumnEpilogue<'a>,
    visitor: V,
}

impl<'a, A> Product<'a, A> {
    /// The product of A `[rows of c, depth]` and B `[depth, columns]`, which overwrites C.
    pub(crate) fn new(a: A, b: BOperand<'a>, c: Grid, [depth, columns]: [usize; 2]) -> Self {
        let epilogue = ColumnEpilogue::default();
        Product { columns, depth, a, b, c, beta: Beta::Zero, epilogue, visitor: () }
    }

    /// Sets whether the product is added to C.
    pub(crate) fn beta(self, beta: Beta) -> Self {
        Product { beta, ..self }
    }

    /// Sets what is applied to complete sums, only where B is packed before the product.
    pub(crate) fn epilogue(self, epilogue: ColumnEpilogue<'a>) -> Self {
        Product { epilogue, ..self }
    }

    /// Sets the visitor of complete blocks of C, only where B is packed before the product.
    pub(crate) fn visitor<V>(self, visitor: V) -> Product<'a, A, V> {
        let Product { columns, depth, a, b, c, beta, epilogue, visitor: () } = self;
        Product { columns, depth, a, b, c, beta, epilogue, visitor }
    }
}

/// One block of a task: a panel of A times packed columns of B.
struct BlockProduct<'a> {
    rows: Range<usize>,
    columns: Range<usize>,
    depth: Range<usize>,
    /// B, packed.
    b: &'a [f32],
    /// The packed columns that are read next.
    next_b: &'a [f32],
    beta: Beta,
    /// Whether the sums are complete, and an epilogue and a visitor may follow.
    complete: bool,
    /// The rows of the C that the task writes to.
    c: Grid,
}

impl<A: AOperand, V: BlockVisitor> Product<'_, A, V> {
    /// Computes the product and returns what the visitor returned for each block, in order.
    pub(crate) fn compute(&self, isa: Isa, c: &mut [f32]) -> Vec<V::Output> {
        Self::side_by_side(isa, std::slice::from_ref(self), c)
    }

    /// Computes products into columns of one C, in parallel, and returns what their visitors
    /// returned, product by product.
    ///
    /// # Panics
    /// Unless all products have the same rows, with the columns of each after those of the one
    /// before.
    pub(crate) fn side_by_side(isa: Isa, products: &[Self], c: &mut [f32]) -> Vec<V::Output> {
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
        let c = SyncMutPtr(c.as_mut_ptr());
        let outputs = products.par_iter().with_max_len(1).map(|product| {
            // SAFETY: `check` shows that the rows of all products together lie in C and do not
            // overlap, and the asserts above that the columns of different products do not; `c` is
            // borrowed mutably.
            unsafe { product.compute_at(isa, c) }
        });
        outputs.collect::<Vec<_>>().into_iter().flatten().collect()
    }

    /// Computes the product into C, of which it may be only some columns.
    ///
    /// # Safety
    /// The columns of all its rows must be valid for reading and writing and not overlap, and
    /// nobody else may access them during the call.
    unsafe fn compute_at(&self, isa: Isa, c: SyncMutPtr) -> Vec<V::Output> {
        let rows = self.c.num_rows();
        if rows == 0 || self.columns == 0 {
            return vec![];
        }
        let split = TaskSplit::new::<A::Layout>(TileShape::of(isa), rows, self.columns, self.depth);
        let len = packed_len::<A::Layout>(isa, self.columns, self.depth);
        match &self.b {
            BOperand::Packed(packed) => {
                assert!(A::Layout::PREPACK_B && packed.len() >= len, "B is too short");
                // SAFETY: the contract is this function's own.
                unsafe { self.all_tasks(isa, &split, packed, c) }
            }
            BOperand::Unpacked(b) => {
                b.check(self.columns, self.depth);
                scratch::with(len, |packed| {
                    packed_blocks::<A::Layout>(isa, self.columns, self.depth, packed)
                        .into_par_iter()
                        .with_max_len(1)
                        .for_each(|block| block.pack(isa, b, self.columns));
                    // SAFETY: the contract is this function's own.
                    unsafe { self.all_tasks(isa, &split, packed, c) }
                })
            }
        }
    }

    /// Runs all tasks, with B where it is packed already.
    ///
    /// # Safety
    /// The contract is that of [`Product::compute_at`].
    unsafe fn all_tasks(&self, isa: Isa, split: &TaskSplit, packed: &[f32], c: SyncMutPtr) -> Vec<V::Output> {
        let len = self.c.num_rows() * self.columns;
        scratch::with((split.depth.parts - 1) * len, |partial| {
            let to_partial = SyncMutPtr(partial.as_mut_ptr());
            let tasks = 0..split.tasks_per_part() * split.depth.parts;
            let outputs = tasks.into_par_iter().with_max_len(1).map(|index| {
                let task = split.task(index);
                let to = match task.part {
                    0 => c,
                    part => SyncMutPtr(to_partial.offset((part - 1) * len)),
                };
                // SAFETY: tasks of one part of the depth differ in their rows or columns, and each
                // part has a C of its own: the first one the caller's, which the caller guarantees,
                // each other one a `rows` x `columns` matrix in `partial`.
                unsafe { self.task(isa, split, &task, packed, to) }
            });
            let outputs: Vec<Option<V::Output>> = outputs.collect();
            // SAFETY: no task is running any more, and the caller guarantees C.
            unsafe { self.add_parts(partial, c) };
            outputs.into_iter().flatten().collect()
        })
    }

    /// Computes some rows, columns and depth, and returns what the visitor returned for a complete
    /// block: a task has only one where there is a visitor.
    ///
    /// # Safety
    /// These rows and columns must be valid for reading and writing in `c`, which is C for the
    /// first part of the depth and a matrix of all rows and columns for the others. Nobody else may
    /// access them during the call.
    unsafe fn task(
        &self,
        isa: Isa,
        split: &TaskSplit,
        task: &TaskRange,
        packed: &[f32],
        c: SyncMutPtr,
    ) -> Option<V::Output> {
        let blocks = Split::new(task.rows.len(), split.tile.rows, A::Layout::MC, 1);
        let steps = Split::new(task.depth.len(), 1, A::Layout::KC, 1);
        let grid = if task.part == 0 { self.c } else { Grid::matrix(self.c.num_rows(), self.columns) };
        let panel_len = A::Layout::panel_len(blocks.largest(), steps.largest());
        let b_len = if A::Layout::PREPACK_B { 0 } else { steps.largest() * split.padded(task.columns.len()) };
        scratch::with_buffers([panel_len, b_len], |[panel, b_buffer]| {
            let mut output = None;
            for step in 0..steps.parts {
                let depth = shifted(steps.range(step), task.depth.start);
                let (b, next_b) = self.packed_b(isa, split, task, depth.clone(), packed, b_buffer);
                let beta = match self.beta {
                    _ if step > 0 => Beta::One,
                    _ if task.part > 0 => Beta::Zero,
                    beta => beta,
                };
                for block in 0..blocks.parts {
                    let rows = shifted(blocks.range(block), task.rows.start);
                    let (depth, columns) = (depth.clone(), task.columns.clone());
                    let complete = A::Layout::PREPACK_B && step + 1 == steps.parts;
                    let block = BlockProduct { rows, columns, depth, b, next_b, beta, complete, c: grid };
                    // SAFETY: the block is part of the task, whose rows and columns the caller
                    // guarantees.
                    output = unsafe { self.block(isa, &block, panel, c) }.or(output);
                }
            }
            output
        })
    }

    /// Returns a block of B, packed, and the packed columns after it, which belong to the next
    /// task.
    fn packed_b<'b>(
        &self,
        isa: Isa,
        split: &TaskSplit,
        task: &TaskRange,
        depth: Range<usize>,
        packed: &'b [f32],
        buffer: &'b mut [f32],
    ) -> (&'b [f32], &'b [f32]) {
        let columns = task.columns.clone();
        match &self.b {
            BOperand::Unpacked(b) if !A::Layout::PREPACK_B => {
                isa.dispatch(PackB { b, depth, columns, packed: &mut *buffer });
                (buffer, &[])
            }
            _ => {
                let first = depth.start * split.padded(self.columns) + depth.len() * columns.start;
                packed[first..].split_at(depth.len() * split.padded(columns.len()))
            }
        }
    }

    /// Packs a panel of A and multiplies it. If the sums are complete, applies the epilogue and
    /// returns what the visitor returned.
    ///
    /// # Safety
    /// The contract is that of [`Product::task`], for the rows and columns of the block.
    unsafe fn block(
        &self,
        isa: Isa,
        block: &BlockProduct<'_>,
        panel: &mut [f32],
        c: SyncMutPtr,
    ) -> Option<V::Output> {
        let BlockProduct { rows, columns, depth, .. } = block;
        let offsets = block.c.offsets(rows.clone());
        // As a rule, the rows that follow are this thread's next ones.
        let next_rows = rows.end..(rows.end + rows.len()).min(self.c.num_rows());
        let mut prefetcher = self.a.prefetch(next_rows, depth.clone());
        let (panel, pitch) = match self.a.in_place(rows.clone(), depth.clone()) {
            Some(in_place) => in_place,
            None => {
                self.a.pack(isa, rows.clone(), depth.clone(), panel);
                (&*panel, A::Layout::PITCH)
            }
        };
        let has_epilogue = block.complete && !self.epilogue.epilogue.is_identity();
        let product = PanelProduct::<A::Layout>::new(panel, depth.len(), block.b, columns.len())
            .pitch(pitch)
            .next_b(block.next_b)
            .beta(block.beta)
            .epilogue(has_epilogue.then(|| self.epilogue.starting_at(columns.start)));
        // SAFETY: the caller guarantees the rows and columns of the block in `c`.
        unsafe { product.compute_at(isa, &offsets, c.offset(columns.start), prefetcher.as_mut_slice()) };
        block.complete.then(|| {
            let block = Block { columns: columns.clone(), offsets: &offsets, c };
            // SAFETY: the caller guarantees the rows and columns of the block in `c`.
            unsafe { self.visitor.visit(isa, &block) }
        })
    }

    /// Adds the sums of all parts of the depth but the first to C, in order.
    ///
    /// # Safety
    /// The contract is that of [`Product::compute_at`].
    unsafe fn add_parts(&self, partial: &[f32], c: SyncMutPtr) {
        if partial.is_empty() {
            return;
        }
        let (rows, columns) = (self.c.num_rows(), self.columns);
        (0..rows).into_par_iter().with_min_len(16).for_each(|row| {
            let offset = self.c.offsets(row..row + 1).max_offset();
            // SAFETY: the caller guarantees that the rows are valid and do not overlap, and each is
            // visited by one iteration only.
            let c = unsafe { std::slice::from_raw_parts_mut(c.offset(offset), columns) };
            for part in partial.chunks_exact(rows * columns) {
                for (c, x) in c.iter_mut().zip(&part[row * columns..][..columns]) {
                    *c += x;
                }
            }
        });
    }
}
