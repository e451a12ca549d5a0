//! The memory that tensors live in: 64-byte aligned, and recycled through a process-wide pool.
//!
//! A training step allocates gigabytes. The first write to a fresh page costs a page fault and a zeroing by the kernel,
//! several times the price of writing memory that the process already has, so a dropped buffer goes back to the pool and
//! the next one of about its size takes it over. The pool keeps no more than lets live and pooled bytes together stay
//! a little above the most that was ever live at once (`SLACK`), so the process holds about what its peak needs.
#![allow(unsafe_code)]

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    collections::BTreeMap,
    mem::ManuallyDrop,
    ops::{Deref, DerefMut},
    ptr::NonNull,
    sync::Mutex,
};

/// Bytes: a cache line, and the width of the widest vector.
const ALIGNMENT: usize = 64;
/// How far live and pooled bytes may exceed the peak of live bytes: an eighth of it and 32 MiB.
const SLACK: (usize, usize) = (8, 32 << 20);

/// An owned run of initialised numbers.
pub(crate) struct Storage {
    memory: ManuallyDrop<Block>,
    len: usize,
}

/// An allocation; `bytes` is its size, a multiple of `ALIGNMENT` and not 0.
struct Block {
    start: NonNull<f32>,
    bytes: usize,
}

// SAFETY: a block owns its memory exclusively, like a `Box<[f32]>`.
unsafe impl Send for Block {}
// SAFETY: through a shared block memory can only be read, like a `Box<[f32]>`.
unsafe impl Sync for Block {}

impl Block {
    fn layout(bytes: usize) -> Option<Layout> {
        Layout::from_size_align(bytes, ALIGNMENT).ok()
    }

    fn allocate(bytes: usize) -> Option<Block> {
        // SAFETY: the size is not 0 (see `rounded`).
        let start = unsafe { alloc_zeroed(Block::layout(bytes)?) };
        Some(Block { start: NonNull::new(start)?.cast(), bytes })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(layout) = Block::layout(self.bytes) {
            // SAFETY: `start` came from the allocator with this layout and is freed once, here.
            unsafe { dealloc(self.start.as_ptr().cast(), layout) };
        }
    }
}

/// The size that a buffer of `len` numbers takes: whole cache lines, and for large ones a grid of eighths of powers of
/// two, so that buffers of nearly equal size can take each other's place.
fn rounded(len: usize) -> usize {
    let bytes = (len * size_of::<f32>()).max(1);
    let step = (bytes.next_power_of_two() / 16).clamp(ALIGNMENT, 1 << 20);
    bytes.div_ceil(step) * step
}

impl Storage {
    /// Memory for `len` numbers; what they are is unspecified. `None` if the system has no memory.
    pub(crate) fn allocate(len: usize) -> Option<Storage> {
        let bytes = rounded(len);
        let recycled = pool().take(bytes);
        let fresh = recycled.is_none();
        let memory = match recycled {
            Some(block) => block,
            None => Block::allocate(bytes).or_else(|| {
                trim();
                Block::allocate(bytes)
            })?,
        };
        pool().live(memory.bytes, fresh);
        Some(Storage { memory: ManuallyDrop::new(memory), len })
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        // SAFETY: `memory` is not used again: this is `drop`.
        let block = unsafe { ManuallyDrop::take(&mut self.memory) };
        let surplus = pool().put(block);
        drop(surplus);
    }
}

impl Deref for Storage {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // SAFETY: the block holds at least `len` numbers, initialised (zeroed when allocated), and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.memory.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Storage {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.memory.start.as_ptr(), self.len) }
    }
}

/// Bytes held by tensors, as [`stats`] found them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// In tensors that exist.
    pub live: usize,
    /// Kept for tensors to come.
    pub pooled: usize,
    /// The most that was live at once since the start or [`reset_peak`].
    pub peak: usize,
    /// How often memory was taken from the system rather than from the pool.
    pub fresh: u64,
}

struct Pool {
    free: BTreeMap<usize, Vec<Block>>,
    stats: Stats,
    /// The most that was ever live: the pool's measure of what is worth keeping.
    high_water: usize,
    limit: Option<usize>,
}

static POOL: Mutex<Pool> = Mutex::new(Pool {
    free: BTreeMap::new(),
    stats: Stats { live: 0, pooled: 0, peak: 0, fresh: 0 },
    high_water: 0,
    limit: None,
});

fn pool() -> std::sync::MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Pool {
    /// The smallest free block that holds `bytes` and wastes less than a quarter.
    fn take(&mut self, bytes: usize) -> Option<Block> {
        let (&size, blocks) = self.free.range_mut(bytes..=bytes + bytes / 4).next()?;
        let block = blocks.pop();
        if blocks.is_empty() {
            self.free.remove(&size);
        }
        self.stats.pooled -= block.as_ref().map_or(0, |b| b.bytes);
        block
    }

    /// Counts a block that goes out to a tensor; `fresh` if it came from the system.
    fn live(&mut self, bytes: usize, fresh: bool) {
        let stats = &mut self.stats;
        stats.fresh += u64::from(fresh);
        stats.live += bytes;
        stats.peak = stats.peak.max(stats.live);
        self.high_water = self.high_water.max(stats.live);
    }

    /// Takes a block back; returns those that go back to the system, to be freed when the lock is released.
    fn put(&mut self, block: Block) -> Vec<Block> {
        self.stats.live -= block.bytes;
        self.stats.pooled += block.bytes;
        self.free.entry(block.bytes).or_default().push(block);
        let kept = self.limit.unwrap_or(self.high_water + self.high_water / SLACK.0 + SLACK.1);
        self.shrink(kept.saturating_sub(self.stats.live))
    }

    /// Removes the largest free blocks until at most `bytes` are pooled.
    fn shrink(&mut self, bytes: usize) -> Vec<Block> {
        let mut surplus = vec![];
        while self.stats.pooled > bytes
            && let Some(mut largest) = self.free.last_entry()
        {
            if let Some(block) = largest.get_mut().pop() {
                self.stats.pooled -= block.bytes;
                surplus.push(block);
            }
            if largest.get().is_empty() {
                largest.remove();
            }
        }
        surplus
    }
}

/// How much memory tensors hold, in bytes, whole process.
///
/// ```
/// use skipgrad::{Tensor, memory};
/// let before = memory::stats().live;
/// let tensor = Tensor::zeros([1000, 1000])?;
/// assert!(memory::stats().live >= before + 4_000_000);
/// # drop(tensor);
/// # Ok::<(), skipgrad::Error>(())
/// ```
pub fn stats() -> Stats {
    pool().stats
}

/// Starts a new measurement of [`Stats::peak`] at what is live now.
pub fn reset_peak() {
    let mut pool = pool();
    pool.stats.peak = pool.stats.live;
}

/// Gives every pooled byte back to the system.
pub fn trim() {
    let mut pool = pool();
    pool.high_water = pool.stats.live;
    let surplus = pool.shrink(0);
    drop(pool);
    drop(surplus);
}

/// Bounds live and pooled memory together: what exceeds `bytes` is not pooled but given back at once. `None`, the
/// default, keeps a little more than the most that was ever live.
pub fn set_limit(bytes: Option<usize>) {
    let mut pool = pool();
    pool.limit = bytes;
    let kept = bytes.unwrap_or(usize::MAX).saturating_sub(pool.stats.live);
    let surplus = pool.shrink(kept);
    drop(pool);
    drop(surplus);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligned_initialised_and_recycled() {
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
    fn a_pool_of_its_own_counts_and_stays_bounded() {
        let mut pool =
            Pool { free: BTreeMap::new(), stats: Stats::default(), high_water: 0, limit: Some(3 * 4096) };
        let blocks: Vec<Block> = (0..8).map(|_| Block::allocate(4096).unwrap()).collect();
        blocks.iter().for_each(|b| pool.live(b.bytes, true));
        assert_eq!((pool.stats.peak, pool.stats.fresh), (8 * 4096, 8));
        let freed: usize = blocks.into_iter().map(|b| pool.put(b).len()).sum();
        assert_eq!((freed, pool.stats.live, pool.stats.pooled), (5, 0, 3 * 4096));
        assert!(
            pool.take(4096 - 64).is_some_and(|b| b.bytes == 4096),
            "a slightly smaller request takes the block"
        );
        assert!(pool.take(2048).is_none(), "half a block would be wasted");
        pool.shrink(0);
        assert_eq!(pool.stats.pooled, 0);
    }
}
