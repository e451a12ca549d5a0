//! How work is shared out: by its size alone, never by the number of threads.

use std::ops::Range;

/// `total`, shared out evenly in multiples of `unit`.
#[derive(Clone, Copy)]
pub(crate) struct Split {
    pub(super) total: usize,
    unit: usize,
    pub(crate) parts: usize,
}

impl Split {
    /// At least `parts` parts, if there are so many units, each of at most `most` (a whole unit at least).
    pub(crate) fn new(total: usize, unit: usize, most: usize, parts: usize) -> Split {
        let units = total.div_ceil(unit);
        let fewest = units.div_ceil((most / unit).max(1));
        Split { total, unit, parts: fewest.max(parts.min(units)).max(1) }
    }

    pub(crate) fn range(&self, part: usize) -> Range<usize> {
        let units = self.total.div_ceil(self.unit);
        let end = |part: usize| (units * part / self.parts * self.unit).min(self.total);
        end(part)..end(part + 1)
    }

    /// The length of the longest part.
    pub(crate) fn largest(&self) -> usize {
        (self.total.div_ceil(self.unit).div_ceil(self.parts) * self.unit).min(self.total)
    }
}

pub(crate) fn shifted(range: Range<usize>, by: usize) -> Range<usize> {
    range.start + by..range.end + by
}

/// C, written to by many tasks in disjoint places.
#[derive(Clone, Copy)]
pub(crate) struct SyncMutPtr(pub(crate) *mut f32);
// SAFETY: a pointer may cross threads; whoever writes through it promises to write where no other task does.
unsafe impl Send for SyncMutPtr {}
// SAFETY: as above.
unsafe impl Sync for SyncMutPtr {}

impl SyncMutPtr {
    pub(crate) fn offset(self, numbers: usize) -> *mut f32 {
        self.0.wrapping_add(numbers)
    }
}
