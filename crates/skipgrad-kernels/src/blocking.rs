//! How a matrix product is divided into blocks that fit the caches, and into tasks for the threads.

use super::grid::RowOffsets;
use super::microkernel::TileShape;
use super::panel::{DepthMajor, Layout, RowMajor};
use super::split::Split;
use std::ops::Range;

/// The fewest columns worth splitting off, because every part packs the panel anew.
const MIN_COLUMNS: usize = 64;
/// The number of tasks wanted, so that cores share a small product evenly.
const TASKS: usize = 32;
/// The multiplications of a product that is worth sharing.
const MIN_SHARED_WORK: usize = 1 << 19;
/// The number of tasks wanted where more of them cost memory, and time to add their sums.
const TASKS_WITH_SUMS: usize = 16;
const _: () = assert!(RowMajor::MC <= RowOffsets::MAX && DepthMajor::MC <= RowOffsets::MAX);

/// The block sizes of a product, which follow from the layout of the panels: a panel and what is
/// used of B with it are to fill about half of a second-level cache of 512 KiB.
pub(crate) trait Blocking: Layout {
    /// Whether B is packed as a whole, before the product.
    const PREPACK_B: bool;
    /// The most rows of a block.
    const MC: usize;
    /// The most depth of a block.
    const KC: usize;
    /// The most columns of a task.
    const NC: usize;
    /// The most rows of a task, which may be several blocks that use the same B.
    const TASK_ROWS: usize;
}

impl Blocking for RowMajor {
    const PREPACK_B: bool = true;
    const MC: usize = 112;
    const KC: usize = Self::WIDTH;
    const NC: usize = 256;
    const TASK_ROWS: usize = Self::MC;
}

impl Blocking for DepthMajor {
    const PREPACK_B: bool = false;
    const MC: usize = Self::WIDTH;
    const KC: usize = 192;
    const NC: usize = 256;
    const TASK_ROWS: usize = 576;
}

/// How one product is divided into tasks.
pub(super) struct TaskSplit {
    pub(super) tile: TileShape,
    pub(super) rows: Split,
    pub(super) columns: Split,
    /// The parts of the depth whose sums are computed apart.
    pub(super) depth: Split,
}

impl TaskSplit {
    /// Divides a product of these sizes.
    pub(super) fn new<L: Blocking>(tile: TileShape, rows: usize, columns: usize, depth: usize) -> TaskSplit {
        let rows = Split::new(rows, tile.rows, L::TASK_ROWS, 1);
        let wanted = if L::PREPACK_B { (TASKS / rows.parts).min(columns / MIN_COLUMNS) } else { 1 };
        let columns = Split::new(columns, tile.columns, L::NC, wanted);
        let parts = if L::PREPACK_B { 1 } else { TASKS_WITH_SUMS / (rows.parts * columns.parts) };
        let rows = match rows.parts * columns.parts {
            // Two cores share a product of one small map, though both then read all of B.
            1 if L::PREPACK_B && rows.total * columns.total * depth >= MIN_SHARED_WORK => {
                Split::new(rows.total, tile.rows, L::TASK_ROWS, 2)
            }
            _ => rows,
        };
        TaskSplit { tile, rows, columns, depth: Split::new(depth, 4 * L::KC, usize::MAX, parts) }
    }

    /// Returns the number of tasks that compute one part of the depth.
    pub(super) fn tasks_per_part(&self) -> usize {
        self.rows.parts * self.columns.parts
    }

    /// Returns a task. Successive tasks, which a thread takes in turn, read the next part of the
    /// larger operand and the smaller one again.
    pub(super) fn task(&self, index: usize) -> TaskRange {
        let (part, index) = (index / self.tasks_per_part(), index % self.tasks_per_part());
        let (row, column) = if self.columns.total > self.rows.total {
            (index % self.rows.parts, index / self.rows.parts)
        } else {
            (index / self.columns.parts, index % self.columns.parts)
        };
        TaskRange {
            part,
            rows: self.rows.range(row),
            columns: self.columns.range(column),
            depth: self.depth.range(part),
        }
    }

    /// Returns the number of columns including those that fill the last vector.
    pub(super) fn padded(&self, columns: usize) -> usize {
        columns.next_multiple_of(self.tile.lanes)
    }
}

/// What one task computes.
pub(super) struct TaskRange {
    /// Which part of the depth it sums over.
    pub(super) part: usize,
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
    pub(super) depth: Range<usize>,
}
