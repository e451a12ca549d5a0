//! Running a whole pass on a thread of the pool.

/// Runs `f` on a thread of the current rayon pool and returns its result, as
/// `ThreadPool::install` does for a pool that the caller has made.
///
/// A thread outside the pool sleeps at every kernel it calls and is woken again. A sequence of
/// small kernels spends a noticeable part of its time on that, unless it moves to the pool as a
/// whole: a pass through a network takes a few percent less time.
/// [`Trainer`](crate::train::Trainer), [`evaluate`](crate::train::evaluate) and
/// [`Predictor`](crate::predict::Predictor) call it themselves.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::Tape, install, models::ResNet, nn::Module};
/// let model = ResNet::cifar(18, 10, &mut Rng::seed(0))?;
/// let images = Tensor::zeros([1, 32, 32, 3])?;
/// let logits = install(|| model.forward(&Tape::eval().input(images)).map(|y| y.value().clone()))?;
/// assert_eq!(logits.shape().num_elements(), 10);
/// # Ok::<(), skipgrad::Error>(())
/// ```
pub fn install<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    rayon::scope(|_| f())
}
