//! Memory and arithmetic at the same time: what a later block reads is fetched while this one is multiplied.
//!
//! A pass over a large matrix that copies a block of rows into a panel and multiplies it waits for memory first, then
//! computes, then waits again: the hardware's own prefetchers see short pieces of distant rows, and only when they are read.
//! A product that is told what comes next asks for a few cache lines of it with each of its tiles.

use super::simd::{LINE, prefetch_early};
use std::ops::Range;

/// Columns of some rows of a matrix, which will be read soon.
#[derive(Clone, Debug)]
pub(crate) struct Prefetcher {
    /// Where the columns of the first row start.
    first: *const f32,
    /// Numbers from a row to the next.
    row: usize,
    /// How many rows.
    rows: usize,
    /// How many columns.
    columns: usize,
    /// The row that is being asked for, and the numbers of it that were.
    at: [usize; 2],
    /// Cache lines that are asked for at once.
    lines: usize,
}

impl Prefetcher {
    /// Of a matrix with so many numbers from a row to the next.
    pub(crate) fn new(
        matrix: *const f32,
        row: usize,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> Prefetcher {
        let first = matrix.wrapping_add(rows.start * row + columns.start);
        Prefetcher { first, row, rows: rows.len(), columns: columns.len(), at: [0, 0], lines: 0 }
    }

    /// Has so many calls of [`Prefetcher::fetch`] ask for all of it.
    pub(crate) fn share(&mut self, calls: usize) {
        self.lines = (self.rows * (self.columns.div_ceil(LINE) + 1)).div_ceil(calls.max(1));
    }

    /// Asks for the next lines, if there are more.
    #[inline(always)]
    pub(crate) fn fetch(&mut self) {
        for _ in 0..self.lines {
            let [row, at] = self.at;
            if row == self.rows {
                return;
            }
            let from = self.first.wrapping_add(row * self.row);
            // The last number, too, which may lie in a line of its own.
            prefetch_early(from.wrapping_add(at.min(self.columns.saturating_sub(1))));
            self.at = if at < self.columns { [row, at + LINE] } else { [row + 1, 0] };
        }
    }
}

/// Asks for the first `len` of `numbers`, or as many as there are.
#[inline(always)]
pub(super) fn fetch(numbers: &[f32], len: usize) {
    for line in numbers[..len.min(numbers.len())].chunks(LINE) {
        prefetch_early(line.as_ptr());
    }
}
