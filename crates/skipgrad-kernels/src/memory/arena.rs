//! The bookkeeping of the free parts of memory regions. It deals with addresses only and touches no
//! memory.
//!
//! Allocation is best fit: the smallest free block that is large enough, the one with the lowest
//! address among equals, cut to size. A block that is freed is joined with its free neighbors in
//! the region, so that two small buffers can become a large one, and vice versa.

use std::collections::{BTreeMap, BTreeSet};

/// Regions of the address space, and their free blocks.
pub(super) struct Arena {
    /// The address and the size of each region.
    regions: BTreeMap<usize, usize>,
    /// The address and the size of each free block.
    by_address: BTreeMap<usize, usize>,
    /// The size and the address of each free block.
    by_size: BTreeSet<(usize, usize)>,
}

impl Arena {
    /// Returns an arena without regions.
    pub(super) const fn new() -> Arena {
        Arena { regions: BTreeMap::new(), by_address: BTreeMap::new(), by_size: BTreeSet::new() }
    }

    /// Adds a region, which is free.
    pub(super) fn add(&mut self, address: usize, bytes: usize) {
        self.regions.insert(address, bytes);
        self.insert(address, bytes);
    }

    /// Allocates `bytes` and returns their address, or `None` if no free block is large enough.
    pub(super) fn take(&mut self, bytes: usize) -> Option<usize> {
        let &(size, address) = self.by_size.range((bytes, 0)..).next()?;
        self.remove(address, size);
        if size > bytes {
            self.insert(address + bytes, size - bytes);
        }
        Some(address)
    }

    /// Frees a block that [`Arena::take`] returned.
    pub(super) fn put(&mut self, mut address: usize, mut bytes: usize) {
        let end = address + bytes;
        if let Some(&following) = self.by_address.get(&end)
            && !self.regions.contains_key(&end)
        {
            self.remove(end, following);
            bytes += following;
        }
        if let Some((&previous, &size)) = self.by_address.range(..address).next_back()
            && previous + size == address
            && !self.regions.contains_key(&address)
        {
            self.remove(previous, size);
            (address, bytes) = (previous, bytes + size);
        }
        self.insert(address, bytes);
    }

    /// Removes the regions that are entirely free and returns their addresses.
    pub(super) fn remove_unused(&mut self) -> Vec<usize> {
        let regions = &self.regions;
        let whole = self.by_address.iter().filter(|&(address, size)| regions.get(address) == Some(size));
        let whole: Vec<(usize, usize)> = whole.map(|(&address, &size)| (address, size)).collect();
        for &(address, size) in &whole {
            self.remove(address, size);
            self.regions.remove(&address);
        }
        whole.into_iter().map(|(address, _)| address).collect()
    }

    /// Returns the total number of bytes of all regions.
    pub(super) fn size(&self) -> usize {
        self.regions.values().sum()
    }

    /// Adds a free block.
    fn insert(&mut self, address: usize, bytes: usize) {
        self.by_address.insert(address, bytes);
        self.by_size.insert((bytes, address));
    }

    /// Removes a free block.
    fn remove(&mut self, address: usize, bytes: usize) {
        self.by_address.remove(&address);
        self.by_size.remove(&(bytes, address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

    #[test]
    fn the_smallest_block_that_fits_is_cut_and_neighbors_are_joined() {
        let mut arena = Arena::new();
        arena.add(1000, 100);
        arena.add(2000, 50);
        assert_eq!(arena.take(40), Some(2000), "the smaller region");
        assert_eq!([arena.take(60), arena.take(30)], [Some(1000), Some(1060)]);
        assert_eq!(arena.take(20), None);
        arena.put(1000, 60);
        assert_eq!(arena.take(61), None);
        arena.put(1060, 30);
        assert_eq!(arena.take(100), Some(1000), "three blocks are one again");
        assert_eq!(arena.size(), 150);
    }

    #[test]
    fn blocks_of_adjacent_regions_stay_apart_and_free_regions_are_removed() {
        let mut arena = Arena::new();
        arena.add(1000, 100);
        arena.add(1100, 100);
        let [a, b] = [arena.take(100), arena.take(100)].map(Option::unwrap);
        arena.put(b, 100);
        arena.put(a, 100);
        assert_eq!(arena.take(101), None);
        assert_eq!(arena.take(10), Some(1000));
        assert_eq!(arena.remove_unused(), [1100]);
        assert_eq!((arena.size(), arena.take(91)), (100, None));
        arena.put(1000, 10);
        assert_eq!((arena.remove_unused(), arena.size()), (vec![1000], 0));
    }

    #[test]
    fn buffers_never_overlap_and_all_comes_back() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut arena = Arena::new();
        arena.add(0, 5000);
        arena.add(5000, 3000);
        let mut taken: Vec<(usize, usize)> = vec![];
        for _ in 0..5000 {
            if rng.random_bool(0.55) {
                let bytes = rng.random_range(1..=400);
                if let Some(address) = arena.take(bytes) {
                    assert!(taken.iter().all(|&(a, b)| a + b <= address || address + bytes <= a));
                    assert!(address + bytes <= 8000 && (address >= 5000 || address + bytes <= 5000));
                    taken.push((address, bytes));
                }
            } else if !taken.is_empty() {
                let (address, bytes) = taken.swap_remove(rng.random_range(..taken.len()));
                arena.put(address, bytes);
            }
        }
        taken.into_iter().for_each(|(address, bytes)| arena.put(address, bytes));
        assert_eq!(arena.remove_unused(), [0, 5000]);
    }
}
