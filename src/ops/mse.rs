//! Mean squared error, `mean((x - t)²)` over all elements, as PyTorch's `mse_loss`. Backward keeps
//! x - t: dx = 2 (x - t) dy / n, dt = -dx.

use super::same_shape;
use crate::{
    Result, Shape, Tensor,
    autograd::{Cost, Fault, GradientMemory, Input, Kind, Op, Var},
    kernels::{self, Isa},
};

struct Mse;

impl Op for Mse {
    /// The differences x - t.
    type Context = Tensor;

    fn name(&self) -> &'static str {
        "mse"
    }

    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
        match same_shape("mse", "target", inputs) {
            Ok(_) => Ok(Shape::scalar()),
            Err(fault) => Err(Fault::new(fault.into_parts().0, Shape::scalar())),
        }
    }

    fn forward(&self, inputs: &[Input<'_>], _: Shape) -> (Tensor, Tensor) {
        let (x, t) = (inputs[0].value(), inputs[1].value());
        let difference = Tensor::build(*x.shape(), |d| kernels::sub(Isa::active(), x.data(), t.data(), d));
        let n = x.shape().num_elements() as f32;
        (Tensor::scalar((difference.sum_of_squares() / f64::from(n)) as f32), difference)
    }

    fn backward(&self, mut difference: Tensor, dy: Tensor, needs: &[bool]) -> Vec<Option<Tensor>> {
        difference.scale(2.0 * dy.item() / difference.shape().num_elements() as f32);
        let dt = needs[1].then(|| {
            let dx = difference.data();
            Tensor::build(*difference.shape(), |dt| kernels::scale(Isa::active(), -1.0, dx, dt))
        });
        vec![needs[0].then_some(difference), dt]
    }

    fn cost(&self, inputs: &[Input<'_>], _: Shape) -> Cost {
        Cost::default().save_intermediate(*inputs[0].shape()).gradients([GradientMemory::Intermediate])
    }

    fn kind(&self, _: &[Input<'_>]) -> Kind {
        Kind::Training
    }
}

impl<'t> Var<'t> {
    /// Returns the mean over all elements of (x - target)², of shape `[]`. The target has the
    /// shape of x and may have a gradient.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the shapes differ.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape};
    /// let tape = Tape::eval();
    /// let x = tape.input(Tensor::new([2], [1.0, 5.0])?);
    /// let t = tape.input(Tensor::full([2], 2.0)?);
    /// assert_eq!(x.mse(&t)?.item(), 5.0);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn mse(&self, target: &Var<'t>) -> Result<Var<'t>> {
        Mse.apply(&[self, target])
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
        let inputs = [0, 1].map(|_| Tensor::normal([3, 5], 1.0, &mut rng).unwrap());
        gradient_check(&inputs, |v| v[0].mse(&v[1])).unwrap().within(1e-4).unwrap();
    }

    #[test]
    fn the_target_has_the_shape_of_the_input() {
        let tape = Tape::eval();
        let (x, t) = (tape.input(Tensor::zeros([2, 1]).unwrap()), tape.input(Tensor::zeros([2]).unwrap()));
        assert_eq!(x.mse(&t).unwrap_err().to_string(), "mse: target: expected [2, 1], found [2]");
    }
}
