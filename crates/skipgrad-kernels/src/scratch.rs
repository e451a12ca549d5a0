//! The workspace of a kernel: aligned memory that each thread keeps between calls, so that a kernel
//! in a training loop allocates nothing.
//!
//! A thread owns a stack of buffers. Taking one removes it from the stack, so calls may nest: a
//! thread that waits for rayon inside [`with`] may run another kernel meanwhile, which takes the
//! next buffer.

use super::prefetch::LINE;
use std::cell::RefCell;

/// The elements of a cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct CacheLine([f32; LINE]);

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<CacheLine>>> = const { RefCell::new(Vec::new()) };
}

/// Lends `len` elements, aligned to 64 bytes, to `f`. Their values are unspecified.
pub(crate) fn with<T>(len: usize, f: impl FnOnce(&mut [f32]) -> T) -> T {
    let mut lines = BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default();
    let wanted = len.div_ceil(LINE);
    if lines.len() < wanted {
        // Replaced rather than grown, which would copy the old values.
        lines = vec![CacheLine([0.0; LINE]); wanted];
    }
    // SAFETY: the vector holds at least `len` initialized elements in a row (`CacheLine` is
    // `repr(C)` without padding), and is borrowed mutably for as long as the slice lives.
    let result = f(unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast::<f32>(), len) });
    BUFFERS.with_borrow_mut(|buffers| buffers.push(lines));
    result
}

/// Lends buffers of these lengths, each aligned to 64 bytes, to `f`. Their values are unspecified.
pub(crate) fn with_buffers<const N: usize, T>(lens: [usize; N], f: impl FnOnce([&mut [f32]; N]) -> T) -> T {
    let padded = lens.map(|len| len.next_multiple_of(LINE));
    with(padded.iter().sum(), |buffer| {
        let mut rest = buffer;
        f(std::array::from_fn(|i| {
            let (buffer, after) = std::mem::take(&mut rest).split_at_mut(padded[i]);
            rest = after;
            &mut buffer[..lens[i]]
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::{with, with_buffers};

    #[test]
    fn nested_buffers_are_aligned_and_apart() {
        with(100, |outer| {
            outer.fill(1.0);
            with(1000, |inner| {
                inner.fill(2.0);
                assert_eq!((outer.len(), inner.len()), (100, 1000));
                assert_eq!((outer.as_ptr().addr() % 64, inner.as_ptr().addr() % 64), (0, 0));
            });
            assert!(outer.iter().all(|&x| x == 1.0));
        });
    }

    #[test]
    fn memory_is_reused() {
        let first = with(64, |buffer| buffer.as_ptr().addr());
        assert_eq!(with(64, |buffer| buffer.as_ptr().addr()), first);
        assert_eq!(with(0, |buffer| buffer.len()), 0);
    }

    #[test]
    fn buffers_of_one_call_are_aligned_and_apart() {
        with_buffers([100, 0, 33], |[first, empty, last]| {
            first.fill(1.0);
            last.fill(2.0);
            assert_eq!((first.len(), empty.len(), last.len()), (100, 0, 33));
            assert_eq!((first.as_ptr().addr() % 64, last.as_ptr().addr() % 64), (0, 0));
            assert!(first.iter().all(|&x| x == 1.0));
        });
    }
}
