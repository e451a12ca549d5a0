//! Scratch memory of a thread: aligned, kept between calls, so that a kernel in a training loop allocates nothing.
//!
//! A thread owns a stack of buffers. Taking one removes it from the stack, so calls may nest: a thread that waits for
//! rayon inside [`with`] may run another kernel in the meantime, which takes the next buffer.

use std::cell::RefCell;

/// A cache line of numbers.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct CacheLine([f32; 16]);

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<CacheLine>>> = const { RefCell::new(Vec::new()) };
}

/// Lends `len` numbers, 64-byte aligned, to `f`. What they hold is unspecified.
pub(crate) fn with<T>(len: usize, f: impl FnOnce(&mut [f32]) -> T) -> T {
    let mut lines = BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default();
    let wanted = len.div_ceil(16);
    if lines.len() < wanted {
        // Replaced rather than grown: nobody wants the old contents copied.
        lines = vec![CacheLine([0.0; 16]); wanted];
    }
    // SAFETY: the vector holds at least `len` initialized numbers in a row (`CacheLine` is `repr(C)`, without padding), and is
    // borrowed mutably for as long as the slice lives.
    let result = f(unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast::<f32>(), len) });
    BUFFERS.with_borrow_mut(|buffers| buffers.push(lines));
    result
}

#[cfg(test)]
mod tests {
    use super::with;

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
}
