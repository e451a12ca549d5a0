//! Which parts of some regions of memory are free. Only addresses are handled here, no memory is touched.
//!
//! Taking is by best fit: the smallest free run that is large enough, the lowest of those, cut to size. A run that comes back is
//! joined with its free neighbors in the region, so that what was two small buffers can be a large one, and the other way round.

use std::collections::{BTreeMap, BTreeSet};

/// Regions of the address space, and what of them is free.
pub(super) struct Arena {
    /// Address and size of each region.
    regions: BTreeMap<usize, usize>,
    /// Address and size of each free run.
    by_address: BTreeMap<usize, usize>,
    /// Size and address of each free run.
    by_size: BTreeSet<(usize, usize)>,
}

impl Arena {
    pub(super) const fn new() -> Arena {
        Arena { regions: BTreeMap::new(), by_address: BTreeMap::new(), by_size: BTreeSet::new() }
    }

    /// Makes a region, all of it free.
    pub(super) fn add(&mut self, address: usize, bytes: usize) {
        self.regions.insert(address, bytes);
        self.insert(address, bytes);
    }

    /// Takes `bytes` at an address, if there is a free run of them.
    pub(super) fn take(&mut self, bytes: usize) -> Option<usize> {
        let &(size, address) = self.by_size.range((bytes, 0)..).next()?;
        self.remove(address, size);
        if size > bytes {
            self.insert(address + bytes, size - bytes);
        }
        Some(address)
    }

    /// Puts back what was taken.
    pub(super) fn put(&mut self, mut address: usize, mut bytes: usize) {
        let end = address + bytes;
        if let Some(&behind) = self.by_address.get(&end)
            && !self.regions.contains_key(&end)
        {
            self.remove(end, behind);
            bytes += behind;
        }
        if let Some((&before, &size)) = self.by_address.range(..address).next_back()
            && before + size == address
            && !self.regions.contains_key(&address)
        {
            self.remove(before, size);
            (address, bytes) = (before, bytes + size);
        }
        self.insert(address, bytes);
    }

    /// Gives up the regions that are wholly free, and returns their addresses.
    pub(super) fn give_up(&mut self) -> Vec<usize> {
        let regions = &self.regions;
        let whole = self.by_address.iter().filter(|&(address, size)| regions.get(address) == Some(size));
        let whole: Vec<(usize, usize)> = whole.map(|(&address, &size)| (address, size)).collect();
        for &(address, size) in &whole {
            self.remove(address, size);
            self.regions.remove(&address);
        }
        whole.into_iter().map(|(address, _)| address).collect()
    }

    /// Bytes of all regions.
    pub(super) fn size(&self) -> usize {
        self.regions.values().sum()
    }

    fn insert(&mut self, address: usize, bytes: usize) {
        self.by_address.insert(address, bytes);
        self.by_size.insert((bytes, address));
    }

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
    fn the_smallest_run_that_fits_is_cut_and_neighbors_are_joined() {
        let mut arena = Arena::new();
        arena.add(1000, 100);
        arena.add(2000, 50);
        assert_eq!(arena.take(40), Some(2000), "the smaller region");
        assert_eq!([arena.take(60), arena.take(30)], [Some(1000), Some(1060)]);
        assert_eq!(arena.take(20), None);
        arena.put(1000, 60);
        assert_eq!(arena.take(61), None);
        arena.put(1060, 30);
        assert_eq!(arena.take(100), Some(1000), "three runs are one again");
        assert_eq!(arena.size(), 150);
    }

    #[test]
    fn runs_of_neighboring_regions_stay_apart_and_free_regions_can_be_given_up() {
        let mut arena = Arena::new();
        arena.add(1000, 100);
        arena.add(1100, 100);
        let [a, b] = [arena.take(100), arena.take(100)].map(Option::unwrap);
        arena.put(b, 100);
        arena.put(a, 100);
        assert_eq!(arena.take(101), None);
        assert_eq!(arena.take(10), Some(1000));
        assert_eq!(arena.give_up(), [1100]);
        assert_eq!((arena.size(), arena.take(91)), (100, None));
        arena.put(1000, 10);
        assert_eq!((arena.give_up(), arena.size()), (vec![1000], 0));
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
        assert_eq!(arena.give_up(), [0, 5000]);
    }
}
