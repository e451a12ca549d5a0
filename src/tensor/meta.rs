//! Tensors without elements, whose bytes are counted instead of allocated.

use super::{Memory, Shape, Tensor};
use skipgrad_kernels::memory::rounded;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts the bytes that meta tensors would take of the pool, in total and for each tag. Clones
/// share the counters.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryTracker(Arc<Mutex<Counters>>);

#[derive(Debug, Default)]
struct Counters {
    live: usize,
    peak: usize,
    /// The live bytes of each tag.
    tags: Vec<usize>,
}

impl MemoryTracker {
    /// Returns a new tag, for [`Tensor::meta`].
    pub(crate) fn new_tag(&self) -> usize {
        let mut counters = self.counters();
        counters.tags.push(0);
        counters.tags.len() - 1
    }

    /// Returns the live bytes of a tag.
    pub(crate) fn live_bytes_of(&self, tag: usize) -> usize {
        self.counters().tags.get(tag).copied().unwrap_or(0)
    }

    /// Returns the live bytes of all tags.
    pub(crate) fn live(&self) -> usize {
        self.counters().live
    }

    /// Returns the peak of the live bytes.
    pub(crate) fn peak(&self) -> usize {
        self.counters().peak
    }

    /// Returns the counters, which are consistent whenever the lock is free.
    fn counters(&self) -> MutexGuard<'_, Counters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes that count as live for as long as the value exists.
#[derive(Debug)]
pub(super) struct Entry {
    tracker: MemoryTracker,
    tag: usize,
    bytes: usize,
}

impl Entry {
    fn new(tracker: &MemoryTracker, tag: usize, bytes: usize) -> Entry {
        let mut counters = tracker.counters();
        counters.live += bytes;
        counters.peak = counters.peak.max(counters.live);
        if let Some(live) = counters.tags.get_mut(tag) {
            *live += bytes;
        }
        drop(counters);
        Entry { tracker: tracker.clone(), tag, bytes }
    }

    /// Makes another entry with the same size and tag.
    pub(super) fn again(&self) -> Entry {
        Entry::new(&self.tracker, self.tag, self.bytes)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut counters = self.tracker.counters();
        counters.live -= self.bytes;
        if let Some(live) = counters.tags.get_mut(self.tag) {
            *live -= self.bytes;
        }
    }
}

impl Tensor {
    /// Makes a tensor of this shape without elements, whose bytes count under a tag.
    pub(crate) fn meta(shape: Shape, tracker: &MemoryTracker, tag: usize) -> Tensor {
        let entry = Entry::new(tracker, tag, rounded(shape.num_elements()));
        Tensor { shape, memory: Memory::Counted(Arc::new(entry)) }
    }

    /// Returns whether the tensor has a shape and no elements, as the values of a
    /// [meta tape](crate::autograd::Tape::meta) do: [`Tensor::data`] is empty then.
    pub fn is_meta(&self) -> bool {
        matches!(self.memory, Memory::Counted(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_count_as_the_pool_counts_them() {
        let tracker = MemoryTracker::default();
        let (a, b) = (tracker.new_tag(), tracker.new_tag());
        let shape = Shape::new(&[100, 1000]).unwrap();
        let x = Tensor::meta(shape, &tracker, a);
        assert_eq!((x.data().len(), x.shape(), x.is_meta()), (0, &shape, true));
        assert_eq!(tracker.live(), 401_408, "whole pages");
        let y = Tensor::meta(Shape::scalar(), &tracker, b);
        assert_eq!(
            (tracker.live_bytes_of(a), tracker.live_bytes_of(b), tracker.live()),
            (401_408, 64, 401_472)
        );

        let mut shared = x.reshape([1000, 100]).unwrap();
        assert_eq!(tracker.live(), 401_472);
        assert!(!x.is_unique());
        assert!(shared.data_mut().is_empty());
        assert_eq!(tracker.live_bytes_of(a), 2 * 401_408, "writing to shared memory copies it");
        drop((x, y));
        assert!(shared.is_unique());
        shared.data_mut();
        assert_eq!((tracker.live(), tracker.peak()), (401_408, 2 * 401_408 + 64));
        drop(shared);
        assert_eq!(tracker.live(), 0);
    }

    #[test]
    fn a_meta_tensor_can_be_displayed() {
        let tracker = MemoryTracker::default();
        let x = Tensor::meta(Shape::new(&[2, 3]).unwrap(), &tracker, tracker.new_tag());
        assert_eq!(format!("{x:?}"), "Tensor [2, 3] []");
        assert!(x.item().is_nan() && x.argmax().is_empty() && x.slice_rows(0..1).is_err());
    }
}
