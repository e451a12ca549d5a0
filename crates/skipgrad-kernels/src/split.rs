//! How work is divided: by its size alone, never by the number of threads, so that results do not
//! depend on the machine.

use std::ops::Range;

/// A range of `total` items divided evenly into `parts`, each a multiple of `unit` (except the
/// last).
#[derive(Clone, Copy)]
pub(crate) struct Split {
    /// The number of items.
    pub(super) total: usize,
    unit: usize,
    /// The number of parts, at least one.
    pub(crate) parts: usize,
}

impl Split {
    /// Divides `total` items into at least `parts` parts (as far as there are that many units) of
    /// at most `most` items (but at least one unit) each.
    pub(crate) fn new(total: usize, unit: usize, most: usize, parts: usize) -> Split {
        let units = total.div_ceil(unit);
        let fewest = units.div_ceil((most / unit).max(1));
        Split { total, unit, parts: fewest.max(parts.min(units)).max(1) }
    }

    /// Returns the items of a part.
    pub(crate) fn range(&self, part: usize) -> Range<usize> {
        let units = self.total.div_ceil(self.unit);
        let end = |part: usize| (units * part / self.parts * self.unit).min(self.total);
        end(part)..end(part + 1)
    }

    /// Returns the length of the longest part.
    pub(crate) fn largest(&self) -> usize {
        (self.total.div_ceil(self.unit).div_ceil(self.parts) * self.unit).min(self.total)
    }
}

/// Returns the range moved up by an offset.
pub(crate) fn shifted(range: Range<usize>, by: usize) -> Range<usize> {
    range.start + by..range.end + by
}

/// A pointer to a matrix that many tasks write to, each to elements of its own.
#[derive(Clone, Copy)]
pub(crate) struct SyncMutPtr(pub(crate) *mut f32);
// SAFETY: only the address crosses threads. Every access through it is an `unsafe` block of its
// own, which must show that no other task accesses the same elements.
unsafe impl Send for SyncMutPtr {}
// SAFETY: a shared reference gives nothing but a copy of the address, see `Send`.
unsafe impl Sync for SyncMutPtr {}

impl SyncMutPtr {
    /// Returns the address of the element `index` places after the first.
    pub(crate) fn offset(self, index: usize) -> *mut f32 {
        self.0.wrapping_add(index)
    }
}
