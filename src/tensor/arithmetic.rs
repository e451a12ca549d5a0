//! In-place arithmetic for autograd and the optimizers; everything differentiable is an operation
//! of `ops`.

use super::Tensor;
use crate::kernels::{self, Isa};

impl Tensor {
    /// Adds `alpha * x` to this tensor, element by element.
    ///
    /// # Panics
    /// Panics if the shapes differ.
    pub fn axpy(&mut self, alpha: f32, x: &Tensor) {
        assert_eq!(self.shape(), x.shape(), "axpy: the shapes must be equal");
        kernels::axpy(Isa::active(), alpha, x.data(), self.data_mut());
    }

    /// Multiplies every element by `alpha`.
    pub fn scale(&mut self, alpha: f32) {
        kernels::scale_in_place(Isa::active(), alpha, self.data_mut());
    }

    /// Returns the sum of the squares of the elements, in `f64` and in a fixed order.
    pub fn sum_of_squares(&self) -> f64 {
        kernels::sum_of_squares(Isa::active(), self.data())
    }
}
