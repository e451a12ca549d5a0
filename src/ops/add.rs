//! Element-wise sum, `y = a + b`. Backward keeps nothing: both gradients are `dy`.

use super::expect_shape;
use crate::{
    Result, Tensor,
    autograd::{Cost, GradientMemory, Var},
    kernels::{self, Isa},
};

impl<'t> Var<'t> {
    /// Returns the element-wise sum of two values of the same shape, such as the end of a residual
    /// block.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the shapes differ; nothing is
    /// broadcast.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape};
    /// let tape = Tape::eval();
    /// let a = tape.input(Tensor::new([2], [1.0, 2.0])?);
    /// let b = tape.input(Tensor::full([2], 10.0)?);
    /// assert_eq!(a.add(&b)?.value().data(), [11.0, 12.0]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn add(&self, other: &Var<'t>) -> Result<Var<'t>> {
        Var::expect_one_tape("add", &[self, other])?;
        if let Err(error) = expect_shape("add", "other", self.shape(), other.shape()) {
            return self.tape().recover(error, Some(*self.shape()));
        }
        Ok(Var::op("add", [self, other], *self.shape(), |[a, b]| {
            let sum = Tensor::build(*a.shape(), |y| kernels::add(Isa::active(), a.data(), b.data(), y));
            (sum, |dy: Tensor, needs: [bool; 2]| [needs[0].then(|| dy.clone()), needs[1].then_some(dy)])
        })
        .costs(|| Cost { gradients: vec![GradientMemory::View; 2], ..Cost::default() }))
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        Rng, Tensor,
        autograd::{Tape, gradient_check},
    };

    #[test]
    fn gradients_agree_with_differences() {
        let mut rng = Rng::seed(1);
        let inputs = [0, 1].map(|_| Tensor::normal([2, 3, 5], 1.0, &mut rng).unwrap());
        gradient_check(&inputs, |v| v[0].add(&v[1])).unwrap().within(1e-4).unwrap();
        gradient_check(&inputs[..1], |v| v[0].add(&v[0])).unwrap().within(1e-4).unwrap();
    }

    #[test]
    fn nothing_is_broadcast() {
        let tape = Tape::eval();
        let (a, b) = (tape.input(Tensor::zeros([2, 3]).unwrap()), tape.input(Tensor::zeros([3]).unwrap()));
        assert_eq!(a.add(&b).unwrap_err().to_string(), "add: other: expected [2, 3], found [3]");
    }
}
