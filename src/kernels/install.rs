//! Where work runs.

/// Runs `f` on a thread of the caller's pool. A thread that is not of the pool sleeps whenever it asks the pool for something, and is
/// woken again; a sequence of small kernels spends a good part of its time so, unless it moves to the pool as a whole. A pass through
/// a network takes a few percent less time so.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::Tape, kernels::install, models::ResNet, nn::Module};
/// let model = ResNet::cifar(18, 10, &mut Rng::seed(0))?;
/// let images = Tensor::zeros([1, 32, 32, 3])?;
/// let logits = install(|| model.forward(&Tape::eval().input(images)).map(|y| y.value().clone()))?;
/// assert_eq!(logits.shape().num_elements(), 10);
/// # Ok::<(), skipgrad::Error>(())
/// ```
pub fn install<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    rayon::scope(|_| f())
}
