//! The sum of all elements. Backward keeps the shape: every element gets dy.

use super::apply_to_any;
use crate::{
    Result, Shape, Tensor,
    autograd::{Cost, Fault, Input, Kind, Op, Var},
    kernels::{self, Isa},
};

struct Sum;

impl Op for Sum {
    /// The shape of the input.
    type Context = Shape;

    fn name(&self) -> &'static str {
        "sum"
    }

    fn output_shape(&self, _: &[Input<'_>]) -> Result<Shape, Fault> {
        Ok(Shape::scalar())
    }

    fn forward(&self, inputs: &[Input<'_>], _: Shape) -> (Tensor, Shape) {
        let x = inputs[0].value();
        (Tensor::scalar(kernels::sum(Isa::active(), x.data())), *x.shape())
    }

    fn backward(&self, shape: Shape, dy: Tensor, _: &[bool]) -> Vec<Option<Tensor>> {
        vec![Some(Tensor::build(shape, |dx| kernels::fill(Isa::active(), dy.item(), dx)))]
    }

    fn cost(&self, _: &[Input<'_>], _: Shape) -> Cost {
        Cost::default()
    }

    fn kind(&self, _: &[Input<'_>]) -> Kind {
        Kind::Sum
    }
}

impl<'t> Var<'t> {
    /// Returns the sum of all elements, of shape `[]`, computed in `f64` in a fixed order and
    /// rounded once.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape};
    /// let tape = Tape::eval();
    /// assert_eq!(tape.input(Tensor::new([3], [1e8, 1.0, -1e8])?).sum().item(), 1.0);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn sum(&self) -> Var<'t> {
        apply_to_any(Sum, self)
    }
}

#[cfg(test)]
mod tests {
    use crate::{Rng, Tensor, autograd::gradient_check};

    #[test]
    fn gradients_agree_with_differences() {
        let x = Tensor::normal([2, 3, 4], 1.0, &mut Rng::seed(1)).unwrap();
        gradient_check(&[x], |v| Ok(v[0].sum())).unwrap().within(1e-4).unwrap();
    }
}
