//! Memory and arithmetic at the same time: what a later block reads is fetched while this one is multiplied.
//!
//! A pass over a large matrix that copies a block of rows into a panel and multiplies it waits for memory first, then
//! computes, then waits again: the hardware's own prefetchers see short pieces of distant rows, and only when they are read.
//! A product that is told what comes next asks for a few cache lines of it with each of its tiles.

use super::simd::prefetch_early;
use std::ops::Range;

/// Numbers of a cache line.
const LINE: usize = 16;

/// Columns of some rows of a matrix, which will be read soon.
#[derive(Clone, Debug)]
pub(crate) struct Ahead {
    /// The matrix.
    pub(crate) matrix: *const f32,
    /// Numbers from a row to the next.
    pub(crate) row: usize,
    /// Which rows.
    pub(crate) rows: Range<usize>,
    /// Which columns.
    pub(crate) columns: Range<usize>,
}

impl Ahead {
    /// Asks for one of so many parts of it.
    #[inline(always)]
    pub(crate) fn fetch(&self, part: usize, parts: usize) {
        let row = |part: usize| self.rows.start + self.rows.len() * part / parts;
        for row in row(part)..row(part + 1) {
            let from = self.matrix.wrapping_add(row * self.row + self.columns.start);
            let within = from.addr() / size_of::<f32>() % LINE;
            for at in (0..within + self.columns.len()).step_by(LINE) {
                prefetch_early(from.wrapping_sub(within).wrapping_add(at));
            }
        }
    }
}
