//! Element-wise product, `y = a b`. Backward keeps both factors: da = dy b, db = dy a.

use super::same_shape;
use crate::{
    Result, Shape, Tensor,
    autograd::{Cost, Fault, GradientMemory, Input, Kind, Op, Var},
    kernels::{self, Isa},
};

struct Mul;

impl Op for Mul {
    /// The factors.
    type Context = [Tensor; 2];

    fn name(&self) -> &'static str {
        "mul"
    }

    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
        same_shape("mul", "other", inputs)
    }

    fn forward(&self, inputs: &[Input<'_>], _: Shape) -> (Tensor, [Tensor; 2]) {
        let [a, b] = [inputs[0], inputs[1]].map(|factor| factor.value().clone());
        (product(&a, &b), [a, b])
    }

    fn backward(&self, [a, b]: [Tensor; 2], mut dy: Tensor, needs: &[bool]) -> Vec<Option<Tensor>> {
        let da = needs[0].then(|| product(&dy, &b));
        let db = needs[1].then(|| {
            kernels::mul_in_place(Isa::active(), a.data(), dy.data_mut());
            dy
        });
        vec![da, db]
    }

    fn cost(&self, inputs: &[Input<'_>], _: Shape) -> Cost {
        let gradients = match inputs[1].needs_gradient() {
            true => vec![GradientMemory::New, GradientMemory::InPlace],
            false => vec![],
        };
        Cost { saves_output: false, gradients, ..Cost::saving_everything(inputs) }
    }

    fn kind(&self, _: &[Input<'_>]) -> Kind {
        Kind::Mul
    }
}

fn product(a: &Tensor, b: &Tensor) -> Tensor {
    Tensor::build(*a.shape(), |y| kernels::mul(Isa::active(), a.data(), b.data(), y))
}

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
        Mul.apply(&[self, other])
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
