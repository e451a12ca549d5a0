//! Running a whole pass on a thread of the pool.

/// Runs `f` on a thread of the current rayon pool and returns its result, as `ThreadPool::install`
/// does for an explicit pool.
///
/// A thread outside the pool sleeps and wakes up again for every kernel that it calls. If a pass
/// through a network runs on a thread of the pool instead, it takes a few percent less time.
/// [`Trainer`](crate::train::Trainer), [`evaluate`](crate::train::evaluate) and
/// [`Predictor`](crate::predict::Predictor) call this function themselves.
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
