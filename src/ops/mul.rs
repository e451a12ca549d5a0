//! Element-wise product, `y = a b`. Backward keeps both factors: da = dy b, db = dy a.

use super::expect_shape;
use crate::{
    Result, Tensor,
    autograd::{Cost, GradientMemory, Var},
    kernels::{self, Isa},
};

impl<'t> Var<'t> {
    /// Returns the element-wise product of two values of the same shape.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the shapes differ; nothing is
    /// broadcast.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape};
    /// let tape = Tape::eval();
    /// let x = tape.input(Tensor::new([2], [3.0, -2.0])?);
    /// assert_eq!(x.mul(&x)?.value().data(), [9.0, 4.0]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn mul(&self, other: &Var<'t>) -> Result<Var<'t>> {
        Var::expect_one_tape("mul", &[self, other])?;
        if let Err(error) = expect_shape("mul", "other", self.shape(), other.shape()) {
            return self.tape().recover(error, Some(*self.shape()));
        }
        Ok(Var::op("mul", [self, other], *self.shape(), |[a, b]| {
            let (a, b) = (a.clone(), b.clone());
            (product(&a, &b), move |mut dy: Tensor, needs: [bool; 2]| {
                let da = needs[0].then(|| product(&dy, &b));
                let db = needs[1].then(|| {
                    kernels::mul_in_place(Isa::active(), a.data(), dy.data_mut());
                    dy
                });
                [da, db]
            })
        })
        .costs(|| Cost {
            saved_inputs: [self, other].map(|factor| factor.value().clone().into()).into(),
            gradients: match other.is_recorded() {
                true => vec![GradientMemory::New, GradientMemory::InPlace],
                false => vec![],
            },
            ..Cost::default()
        }))
    }
}

fn product(a: &Tensor, b: &Tensor) -> Tensor {
    Tensor::build(*a.shape(), |y| kernels::mul(Isa::active(), a.data(), b.data(), y))
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
        let inputs = [0, 1].map(|_| Tensor::normal([3, 7], 1.0, &mut rng).unwrap());
        gradient_check(&inputs, |v| v[0].mul(&v[1])).unwrap().within(1e-4).unwrap();
        gradient_check(&inputs[..1], |v| v[0].mul(&v[0])).unwrap().within(1e-4).unwrap();
    }

    #[test]
    fn only_the_gradient_that_is_needed() {
        let tape = Tape::train(Rng::seed(0));
        let (a, b) =
            (tape.input(Tensor::full([2], 3.0).unwrap()), tape.watch(Tensor::full([2], 5.0).unwrap()));
        let updates = a.mul(&b).unwrap().sum().backward().unwrap();
        assert_eq!(updates.grad_of(&b).unwrap().data(), [3.0, 3.0]);
        assert!(updates.grad_of(&a).is_none());
    }

    #[test]
    fn nothing_is_broadcast() {
        let tape = Tape::eval();
        let (a, b) = (tape.input(Tensor::zeros([2]).unwrap()), tape.input(Tensor::zeros([]).unwrap()));
        assert_eq!(a.mul(&b).unwrap_err().to_string(), "mul: other: expected [2], found []");
    }
}
