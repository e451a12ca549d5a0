//! Software prefetching: what a later block reads is fetched while this one is multiplied.
//!
//! A pass over a large matrix that copies a block of rows into a panel and multiplies it waits for
//! memory first, then computes, then waits again: the hardware prefetchers see short pieces of
//! distant rows, and only when these are read. A product that is told what comes next prefetches a
//! few cache lines of it with each of its tiles.

use std::ops::Range;

/// Elements of a cache line.
pub(crate) const LINE: usize = 16;

/// A level of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cache {
    /// The first level, for data that is used within a few hundred instructions.
    L1,
    /// The second level, for data that is used later and must not displace what is in use.
    L2,
}

/// Prefetches the cache line of `p`. Any address is allowed.
#[inline(always)]
pub(crate) fn prefetch(cache: Cache, p: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has the instruction, and it never faults, whatever the
    // address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
        match cache {
            Cache::L1 => _mm_prefetch::<_MM_HINT_T0>(p.cast()),
            Cache::L2 => _mm_prefetch::<_MM_HINT_T1>(p.cast()),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (cache, p);
}

/// Prefetches all cache lines of `len` contiguous elements, the first of which is at `first`.
#[inline(always)]
pub(crate) fn prefetch_row(cache: Cache, first: *const f32, len: usize) {
    let mut line = 0;
    while line < num_lines(len) {
        prefetch_line(cache, first, len, line);
        line += 1;
    }
}

/// Returns how many cache lines `len` contiguous elements lie in at most, as they may start within
/// a line.
#[inline(always)]
fn num_lines(len: usize) -> usize {
    if len == 0 { 0 } else { len.div_ceil(LINE) + 1 }
}

/// Prefetches one of the [`num_lines`] cache lines of `len` contiguous elements.
#[inline(always)]
fn prefetch_line(cache: Cache, first: *const f32, len: usize, line: usize) {
    prefetch(cache, first.wrapping_add((line * LINE).min(len - 1)));
}

/// Columns of some rows of a matrix that are read soon, prefetched a few cache lines at a time.
#[derive(Clone, Debug)]
pub(crate) struct Prefetcher {
    /// The first column of the first row.
    first: *const f32,
    /// Elements from one row to the next.
    row_stride: usize,
    /// Number of rows.
    rows: usize,
    /// Number of columns.
    columns: usize,
    /// The next row to prefetch.
    row: usize,
    /// The next cache line of that row.
    line: usize,
    /// Cache lines per step.
    lines_per_step: usize,
}

impl Prefetcher {
    /// Prefetches `rows` x `columns` of a matrix with `row_stride` elements from one row to the
    /// next.
    pub(crate) fn new(
        matrix: *const f32,
        row_stride: usize,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> Prefetcher {
        let first = matrix.wrapping_add(rows.start * row_stride + columns.start);
        let rows = if columns.is_empty() { 0 } else { rows.len() };
        Prefetcher { first, row_stride, rows, columns: columns.len(), row: 0, line: 0, lines_per_step: 0 }
    }

    /// Spreads the cache lines evenly over `steps` calls of [`Prefetcher::step`].
    pub(crate) fn spread_over(&mut self, steps: usize) {
        self.lines_per_step = (self.rows * num_lines(self.columns)).div_ceil(steps.max(1));
    }

    /// Prefetches the cache lines of one step into the second-level cache.
    #[inline(always)]
    pub(crate) fn step(&mut self) {
        for _ in 0..self.lines_per_step {
            if self.row == self.rows {
                return;
            }
            let first = self.first.wrapping_add(self.row * self.row_stride);
            prefetch_line(Cache::L2, first, self.columns, self.line);
            self.line += 1;
            if self.line == num_lines(self.columns) {
                (self.row, self.line) = (self.row + 1, 0);
            }
        }
    }
}
