//! What the engine and the optimizers need of tensors in place; everything differentiable is an op.

use super::Tensor;

impl Tensor {
    /// Adds `alpha * x` to this tensor, element by element.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn axpy(&mut self, alpha: f32, x: &Tensor) {
        assert_eq!(self.shape(), x.shape(), "axpy: the shapes must be equal");
        for (y, x) in self.data_mut().iter_mut().zip(x.data()) {
            *y += alpha * x;
        }
    }

    /// Multiplies every element by `alpha`.
    pub fn scale(&mut self, alpha: f32) {
        for y in self.data_mut() {
            *y *= alpha;
        }
    }

    /// The sum of the squares of the elements, in `f64` and in a fixed order.
    pub fn sum_of_squares(&self) -> f64 {
        self.data().iter().map(|&x| f64::from(x) * f64::from(x)).sum()
    }
}
