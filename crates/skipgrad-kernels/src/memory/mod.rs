//! The memory that tensors live in: 64-byte aligned, and recycled through a process-wide pool.
//!
//! A training step allocates gigabytes. The first write to a fresh page costs a page fault, and the
//! operating system fills the page with zeros: several times the cost of a write to memory that the
//! process already has. So memory is taken from the system in large regions, and tensors get parts
//! of them (see `arena`), with separate regions for small and for large tensors. Each training
//! step places its tensors where the step before did, so the process writes to about as many pages
//! as the peak of one step needs.

mod arena;

use arena::Arena;
use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    collections::BTreeMap,
    ops::{Deref, DerefMut},
    ptr::NonNull,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The alignment in bytes: a cache line, which is also the widest vector.
const ALIGNMENT: usize = 64;
/// The maximum number of bytes of a small buffer.
const SMALL: usize = 64 << 10;
/// The sizes of large buffers are multiples of this, a page: it costs them little and leaves fewer
/// fragments.
const PAGE: usize = 4096;
/// The minimum and the maximum number of bytes of a region of large buffers; between them a region
/// is as large as all earlier ones together. Pages that are never written cost nothing.
const REGION: [usize; 2] = [32 << 20, 1 << 30];
/// The number of bytes of a region of small buffers.
const SMALL_REGION: usize = 1 << 20;

/// An owned slice of initialized f32 elements from the pool, aligned to 64 bytes.
pub struct Storage {
    start: NonNull<f32>,
    len: usize,
}

// SAFETY: a storage owns its memory exclusively, like a `Box<[f32]>`.
unsafe impl Send for Storage {}
// SAFETY: a shared reference to a storage only reads its memory, like a `Box<[f32]>`.
unsafe impl Sync for Storage {}

/// Returns the number of bytes that a storage of `len` elements takes, at least 1.
#[inline]
pub fn rounded(len: usize) -> usize {
    let bytes = (len * size_of::<f32>()).max(1);
    bytes.next_multiple_of(if bytes > SMALL { PAGE } else { ALIGNMENT })
}

impl Storage {
    /// Returns memory for `len` elements, whose values are unspecified, or `None` if the system has
    /// none.
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
        // SAFETY: the pool gave `rounded(len)` bytes at `start`, which hold `len` elements. They
        // are initialized, since regions are zeroed when they are allocated, and belong to this
        // storage until it is dropped.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Storage {
    #[inline]
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: the memory holds `len` initialized elements that belong to this storage, as in
        // `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

/// A piece of memory from the system.
struct Region {
    /// The address that the allocator returned, with any alignment.
    memory: NonNull<u8>,
    /// The layout that the allocator needs to free it.
    layout: Layout,
    /// The first address that is aligned.
    start: NonNull<u8>,
}

// SAFETY: a region owns its memory exclusively, and any thread may free it.
unsafe impl Send for Region {}

impl Region {
    /// Returns a region of `bytes`. It is requested without an alignment: the allocator would write
    /// zeros to memory that it has to align, while pages that nobody writes to take no memory.
    fn allocate(bytes: usize) -> Option<Region> {
        let layout = Layout::from_size_align(bytes.checked_add(ALIGNMENT)?, 1).ok()?;
        // SAFETY: the size is at least `ALIGNMENT`, so it is not 0.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        // SAFETY: the memory is longer than `bytes` by `ALIGNMENT`, and the offset to the next
        // aligned address is less than that.
        let start = unsafe { memory.add(memory.align_offset(ALIGNMENT)) };
        Some(Region { memory, layout, start })
    }

    /// Returns the first aligned address.
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

/// The memory that tensors hold, in bytes, when [`stats`] was called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// The number of bytes of all existing tensors.
    pub live: usize,
    /// The number of bytes that the pool keeps for later tensors. Those that no tensor has used yet
    /// take no physical memory.
    pub pooled: usize,
    /// The maximum of `live` since the start of the process or the last [`reset_peak`].
    pub peak: usize,
    /// The number of times that memory was taken from the system rather than from the pool.
    pub fresh: u64,
}

/// The pool that storages take their memory from.
struct Pool {
    small: Arena,
    large: Arena,
    /// The regions by their addresses.
    regions: BTreeMap<usize, Region>,
    stats: Stats,
    /// The limit of live and pooled bytes together.
    limit: Option<usize>,
}

static POOL: Mutex<Pool> = Mutex::new(Pool::new());

/// Locks the pool of the process.
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

    /// Returns the arena for buffers of this size.
    fn arena(&mut self, bytes: usize) -> &mut Arena {
        if bytes > SMALL { &mut self.large } else { &mut self.small }
    }

    /// Returns memory of this size, or `None` if the system has none.
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
        // SAFETY: the arena only gives addresses within regions, and this region is the last one
        // that begins at or before the address, so the address is within it.
        Some(unsafe { region.start.add(address - start) }.cast())
    }

    /// Takes a region of at least `bytes` from the system: a larger one for later buffers, or one
    /// of exactly this size under a limit or if there is no memory for the larger one.
    fn grow(&mut self, bytes: usize) -> Option<()> {
        let size = match self.limit {
            _ if bytes <= SMALL => SMALL_REGION,
            Some(_) => bytes,
            None => bytes.max(self.large.size().clamp(REGION[0], REGION[1])),
        };
        let of_size = |size: usize| Some((Region::allocate(size)?, size));
        let (region, size) = of_size(size).or_else(|| of_size(bytes)).or_else(|| {
            drop(self.remove_unused());
            of_size(bytes)
        })?;
        self.stats.fresh += 1;
        self.stats.pooled += size;
        let address = region.address();
        self.regions.insert(address, region);
        self.arena(bytes).add(address, size);
        Some(())
    }

    /// Takes memory back and returns the regions that the caller must free, after it has released
    /// the lock.
    fn put(&mut self, start: NonNull<f32>, bytes: usize) -> Vec<Region> {
        self.stats.live -= bytes;
        self.stats.pooled += bytes;
        self.arena(bytes).put(start.addr().get(), bytes);
        match self.limit {
            Some(limit) if self.stats.live + self.stats.pooled > limit => self.remove_unused(),
            _ => vec![],
        }
    }

    /// Removes the regions without tensors and returns them.
    fn remove_unused(&mut self) -> Vec<Region> {
        let addresses = [self.small.remove_unused(), self.large.remove_unused()].concat();
        let regions: Vec<Region> =
            addresses.iter().filter_map(|address| self.regions.remove(address)).collect();
        self.stats.pooled = self.small.size() + self.large.size() - self.stats.live;
        regions
    }
}

/// Returns how much memory all tensors of the process hold.
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

/// Sets [`Stats::peak`] to the number of bytes that are live now.
pub fn reset_peak() {
    let mut pool = pool();
    pool.stats.peak = pool.stats.live;
}

/// Returns unused memory to the system: the regions of the pool in which no tensor lives.
pub fn trim() {
    let surplus = pool().remove_unused();
    drop(surplus);
}

/// Sets the limit of live and pooled memory together, in bytes.
///
/// With a limit, the pool takes no more from the system than a tensor needs, and returns unused
/// regions to the system, as [`trim`] does, if it exceeds the limit now or after a tensor is
/// dropped. Tensors that are alive may exceed the limit. `None`, the default, keeps what the peak
/// needed.
pub fn set_limit(bytes: Option<usize>) {
    let mut pool = pool();
    pool.limit = bytes;
    let surplus = match bytes {
        Some(limit) if pool.stats.live + pool.stats.pooled > limit => pool.remove_unused(),
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
        assert_eq!(pool.remove_unused().len(), 2, "one is in use");
        assert_eq!(pool.stats.pooled, REGION[0] - (SMALL + 64));
        pool.put(more, SMALL + 64);
        assert_eq!(pool.remove_unused().len(), 1);
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
