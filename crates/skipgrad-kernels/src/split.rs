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
pub(crate) struct SyncMutPtr<T = f32>(pub(crate) *mut T);

// Derived, they would need `T: Copy`.
impl<T> Clone for SyncMutPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for SyncMutPtr<T> {}

// SAFETY: only the address crosses threads. Every access through it is an `unsafe` block of its
// own, which must show that no other task accesses the same elements.
unsafe impl<T: Send> Send for SyncMutPtr<T> {}
// SAFETY: a shared reference gives nothing but a copy of the address, see `Send`.
unsafe impl<T: Send> Sync for SyncMutPtr<T> {}

impl<T> SyncMutPtr<T> {
    /// Returns the address of the element `index` places after the first.
    pub(crate) fn offset(self, index: usize) -> *mut T {
        self.0.wrapping_add(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The parts are the whole in order, begin at multiples of the unit, and are as many and as
        /// short as was asked for.
        #[test]
        fn parts_are_the_whole(
            total in 0_usize..300, unit in 1_usize..20, most in 1_usize..100, parts in 1_usize..40,
        ) {
            let split = Split::new(total, unit, most, parts);
            let units = total.div_ceil(unit);
            let longest = most.max(unit);
            prop_assert!(split.parts >= parts.min(units).max(1));
            prop_assert!(split.parts <= units.max(1));
            let mut end = 0;
            for part in 0..split.parts {
                let range = split.range(part);
                prop_assert_eq!(range.start, end);
                prop_assert!(range.start.is_multiple_of(unit) && range.len() <= longest);
                prop_assert!(range.len() <= split.largest());
                end = range.end;
            }
            prop_assert_eq!(end, total);
        }
    }

    #[test]
    fn parts_by_hand() {
        let split = Split::new(10, 4, 8, 1);
        assert_eq!((split.parts, split.largest()), (2, 8));
        assert_eq!([split.range(0), split.range(1)], [0..4, 4..10]);
        assert_eq!((Split::new(10, 4, 100, 1).parts, Split::new(10, 4, 100, 7).parts), (1, 3));
        assert_eq!((Split::new(0, 4, 8, 3).parts, Split::new(0, 4, 8, 3).range(0)), (1, 0..0));
        assert_eq!(Split::new(3, 4, 8, 3).largest(), 3);
    }

    #[test]
    fn ranges_and_pointers_are_shifted() {
        assert_eq!(shifted(2..5, 10), 12..15);
        let mut elements = [0.0, 1.0, 2.0];
        let pointer = SyncMutPtr(elements.as_mut_ptr());
        assert_eq!(pointer.offset(2), &raw mut elements[2]);
    }
}
