//! Where work runs.

/// Runs `f` on a thread of the caller's pool. A thread that is not of the pool sleeps whenever it asks the pool for something, and is
/// woken again; a sequence of small kernels spends a good part of its time so, unless it moves to the pool as a whole.
///
/// ```
/// let threads = skipgrad::kernels::on_pool(rayon::current_thread_index);
/// assert!(threads.is_some());
/// ```
pub fn on_pool<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    rayon::scope(|_| f())
}
