//! The memory that tensors live in: 64-byte aligned, and recycled through a process-wide pool.
//!
//! A training step allocates gigabytes. The first write to a fresh page costs a page fault and a zeroing by the kernel,
//! several times the price of writing memory that the process already has. So memory is taken from the system in large
//! regions, of which tensors get parts (see `arena`), small and large ones apart. What lies where in a step is the same in
//! the next, and the pages that were ever written are about as many as the peak of a step needs.

mod arena;

use arena::Arena;
use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    collections::BTreeMap,
    ops::{Deref, DerefMut},
    ptr::NonNull,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Bytes: a cache line, and the width of the widest vector.
const ALIGNMENT: usize = 64;
/// Up to so many bytes a buffer is small.
const SMALL: usize = 64 << 10;
/// Sizes of large buffers are multiples of a page, which is all the same to them and leaves fewer odd ends.
const PAGE: usize = 4096;
/// The least and the most bytes of a region of large buffers; between them a region is as large as all before it. Pages that
/// are never written cost nothing.
const REGION: [usize; 2] = [32 << 20, 1 << 30];
/// Bytes of a region of small buffers.
const SMALL_REGION: usize = 1 << 20;

/// An owned run of initialized numbers.
pub struct Storage {
    start: NonNull<f32>,
    len: usize,
}

// SAFETY: a storage owns its memory exclusively, like a `Box<[f32]>`.
unsafe impl Send for Storage {}
// SAFETY: through a shared storage memory can only be read, like a `Box<[f32]>`.
unsafe impl Sync for Storage {}

/// The bytes that a buffer of `len` numbers takes, not 0.
#[inline]
pub fn rounded(len: usize) -> usize {
    let bytes = (len * size_of::<f32>()).max(1);
    bytes.next_multiple_of(if bytes > SMALL { PAGE } else { ALIGNMENT })
}

impl Storage {
    /// Memory for `len` numbers; what they are is unspecified. `None` if the system has no memory.
    pub fn allocate(len: usize) -> Option<Storage> {
        Some(Storage { start: pool().take(rounded(len))?, len })
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        let surplus = pool().put(self.start, rounded(self.len));
        drop(surplus);
    }
}

impl Deref for Storage {
    type Target = [f32];
    #[inline]
    fn deref(&self) -> &[f32] {
        // SAFETY: the memory holds at least `len` numbers, initialized (zeroed when allocated), and is this storage's until it is
        // dropped.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Storage {
    #[inline]
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

/// Memory from the system.
struct Region {
    /// What the allocator gave, aligned as it pleased, and how it is given back.
    memory: NonNull<u8>,
    layout: Layout,
    /// The first cache line.
    start: NonNull<u8>,
}

// SAFETY: a region owns its memory exclusively.
unsafe impl Send for Region {}

impl Region {
    /// `bytes`, not 0. Asked for without an alignment, since the allocator would write to memory it has to align, and zeros that are not
    /// written take no memory.
    fn allocate(bytes: usize) -> Option<Region> {
        let layout = Layout::from_size_align(bytes.checked_add(ALIGNMENT)?, 1).ok()?;
        // SAFETY: the size is not 0.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        // SAFETY: the memory is longer than `bytes` by an alignment.
        let start = unsafe { memory.add(memory.align_offset(ALIGNMENT)) };
        Some(Region { memory, layout, start })
    }

    fn address(&self) -> usize {
        self.start.addr().get()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: `memory` came from the allocator with this layout and is freed once, here.
        unsafe { dealloc(self.memory.as_ptr(), self.layout) };
    }
}

/// Bytes held by tensors, as [`stats`] found them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// In tensors that exist.
    pub live: usize,
    /// Kept for tensors to come. The part of it that no tensor has had yet takes no memory.
    pub pooled: usize,
    /// The most that was live at once since the start or [`reset_peak`].
    pub peak: usize,
    /// How often memory was taken from the system rather than from the pool.
    pub fresh: u64,
}

struct Pool {
    small: Arena,
    large: Arena,
    /// By address.
    regions: BTreeMap<usize, Region>,
    stats: Stats,
    limit: Option<usize>,
}

static POOL: Mutex<Pool> = Mutex::new(Pool::new());

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    const fn new() -> Pool {
        Pool {
            small: Arena::new(),
            large: Arena::new(),
            regions: BTreeMap::new(),
            stats: Stats { live: 0, pooled: 0, peak: 0, fresh: 0 },
            limit: None,
        }
    }

    fn arena(&mut self, bytes: usize) -> &mut Arena {
        if bytes > SMALL { &mut self.large } else { &mut self.small }
    }

    /// Memory for a tensor.
    fn take(&mut self, bytes: usize) -> Option<NonNull<f32>> {
        let address = match self.arena(bytes).take(bytes) {
            Some(address) => address,
            None => {
                self.grow(bytes)?;
                self.arena(bytes).take(bytes)?
            }
        };
        let stats = &mut self.stats;
        stats.pooled -= bytes;
        stats.live += bytes;
        stats.peak = stats.peak.max(stats.live);
        let (start, region) = self.regions.range(..=address).next_back()?;
        // SAFETY: the arena gave an address within the region that begins last before it.
        Some(unsafe { region.start.add(address - start) }.cast())
    }

    /// Takes a region from the system that `bytes` fit in: a generous one, or, under a limit or if there is no memory for
    /// that, one of just the size.
    fn grow(&mut self, bytes: usize) -> Option<()> {
        let size = match self.limit {
            _ if bytes <= SMALL => SMALL_REGION,
            Some(_) => bytes,
            None => bytes.max(self.large.size().clamp(REGION[0], REGION[1])),
        };
        let of_size = |size: usize| Some((Region::allocate(size)?, size));
        let (region, size) = of_size(size).or_else(|| of_size(bytes)).or_else(|| {
            drop(self.give_up());
            of_size(bytes)
        })?;
        self.stats.fresh += 1;
        self.stats.pooled += size;
        let address = region.address();
        self.regions.insert(address, region);
        self.arena(bytes).add(address, size);
        Some(())
    }

    /// Takes memory back; returns what goes back to the system, to be freed when the lock is released.
    fn put(&mut self, start: NonNull<f32>, bytes: usize) -> Vec<Region> {
        self.stats.live -= bytes;
        self.stats.pooled += bytes;
        self.arena(bytes).put(start.addr().get(), bytes);
        match self.limit {
            Some(limit) if self.stats.live + self.stats.pooled > limit => self.give_up(),
            _ => vec![],
        }
    }

    /// Removes the regions that no tensor is in.
    fn give_up(&mut self) -> Vec<Region> {
        let addresses = [self.small.give_up(), self.large.give_up()].concat();
        let regions: Vec<Region> =
            addresses.iter().filter_map(|address| self.regions.remove(address)).collect();
        self.stats.pooled = self.small.size() + self.large.size() - self.stats.live;
        regions
    }
}

/// How much memory tensors hold, in bytes, whole process.
///
/// ```
/// use skipgrad_kernels::memory::{self, Storage};
/// let before = memory::stats().live;
/// let storage = Storage::allocate(1_000_000);
/// assert!(memory::stats().live >= before + 4_000_000);
/// # drop(storage);
/// ```
pub fn stats() -> Stats {
    pool().stats
}

/// Starts a new measurement of [`Stats::peak`] at what is live now.
pub fn reset_peak() {
    let mut pool = pool();
    pool.stats.peak = pool.stats.live;
}

/// Gives the regions of the pool that no tensor is in back to the system.
pub fn trim() {
    let surplus = pool().give_up();
    drop(surplus);
}

/// Bounds live and pooled memory together: from now on each tensor gets memory of its own from the system if the pool has
/// none, and what is free is given back when there are more than `bytes`. `None`, the default, keeps what the peak needed.
pub fn set_limit(bytes: Option<usize>) {
    let mut pool = pool();
    pool.limit = bytes;
    let surplus = match bytes {
        Some(limit) if pool.stats.live + pool.stats.pooled > limit => pool.give_up(),
        _ => vec![],
    };
    drop(pool);
    drop(surplus);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_initialized_and_recycled() {
        for len in [0, 1, 15, 16, 17, 1000, 70_001, 3 << 20] {
            let mut storage = Storage::allocate(len).unwrap();
            assert_eq!(storage.len(), len);
            assert_eq!(storage.as_ptr() as usize % ALIGNMENT, 0);
            storage.fill(1.0);
            assert!(storage.iter().all(|&x| x == 1.0));
            assert!(rounded(len) >= len * 4 && rounded(len).is_multiple_of(ALIGNMENT));
            assert!(rounded(len) <= (len * 4).next_multiple_of(64) * 9 / 8 + 64);
        }
    }

    #[test]
    fn a_pool_of_its_own_counts_and_uses_what_it_has() {
        let mut pool = Pool::new();
        let buffers =
            [3 << 20, 1 << 20, 4096 + SMALL, 64, 128].map(|bytes| (pool.take(bytes).unwrap(), bytes));
        assert_eq!(pool.stats.fresh, 2, "a region for the large, one for the small");
        let live: usize = buffers.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!((pool.stats.live, pool.stats.peak), (live, live));
        assert_eq!(pool.stats.live + pool.stats.pooled, REGION[0] + SMALL_REGION);
        for (start, bytes) in buffers {
            assert!(pool.put(start, bytes).is_empty());
        }
        let all = pool.take(REGION[0]).unwrap();
        assert_eq!((pool.stats.fresh, pool.stats.live, pool.stats.peak), (2, REGION[0], REGION[0]));
        let more = pool.take(SMALL + 64).unwrap();
        assert_eq!(pool.stats.fresh, 3);
        pool.put(all, REGION[0]);
        assert_eq!(pool.give_up().len(), 2, "one is in use");
        assert_eq!(pool.stats.pooled, REGION[0] - (SMALL + 64));
        pool.put(more, SMALL + 64);
        assert_eq!(pool.give_up().len(), 1);
        assert_eq!((pool.stats.live, pool.stats.pooled, pool.regions.len()), (0, 0, 0));
    }

    #[test]
    fn a_limited_pool_gives_back_what_exceeds() {
        let mut pool = Pool { limit: Some(10 << 20), ..Pool::new() };
        let buffers: Vec<_> = (0..4).map(|_| pool.take(4 << 20).unwrap()).collect();
        assert_eq!((pool.stats.fresh, pool.stats.live, pool.stats.pooled), (4, 16 << 20, 0));
        let freed: usize = buffers.into_iter().map(|start| pool.put(start, 4 << 20).len()).sum();
        assert_eq!((freed, pool.stats.live, pool.stats.pooled), (2, 0, 8 << 20));
    }
}
