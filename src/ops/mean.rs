//! The mean of all elements. Backward keeps the shape: every element gets dy / n.

use super::apply_to_any;
use crate::{
    Result, Shape, Tensor,
    autograd::{Cost, Fault, Input, Kind, Op, Var},
    kernels::{self, Isa},
};

struct Mean;

impl Op for Mean {
    /// The shape of the input.
    type Context = Shape;

    fn name(&self) -> &'static str {
        "mean"
    }

    fn output_shape(&self, _: &[Input<'_>]) -> Result<Shape, Fault> {
        Ok(Shape::scalar())
    }

    fn forward(&self, inputs: &[Input<'_>], _: Shape) -> (Tensor, Shape) {
        let x = inputs[0].value();
        let mean = kernels::sum(Isa::active(), x.data()) / x.shape().num_elements() as f32;
        (Tensor::scalar(mean), *x.shape())
    }

    fn backward(&self, shape: Shape, dy: Tensor, _: &[bool]) -> Vec<Option<Tensor>> {
        let share = dy.item() / shape.num_elements() as f32;
        vec![Some(Tensor::build(shape, |dx| kernels::fill(Isa::active(), share, dx)))]
    }

    fn cost(&self, _: &[Input<'_>], _: Shape) -> Cost {
        Cost::default()
    }

    fn kind(&self, _: &[Input<'_>]) -> Kind {
        Kind::Mean
    }
}

impl<'t> Var<'t> {
    /// Returns the mean of all elements, of shape `[]`, summed in a fixed order; NaN if there are
    /// none.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape};
    /// let tape = Tape::eval();
    /// assert_eq!(tape.input(Tensor::new([4], [1.0, 2.0, 3.0, 6.0])?).mean().item(), 3.0);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn mean(&self) -> Var<'t> {
        apply_to_any(Mean, self)
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
        let x = Tensor::normal([2, 3, 4], 1.0, &mut Rng::seed(1)).unwrap();
        gradient_check(&[x], |v| Ok(v[0].mean())).unwrap().within(1e-4).unwrap();
    }

    #[test]
    fn of_nothing_it_is_nan() {
        let tape = Tape::eval();
        assert!(tape.input(Tensor::zeros([0]).unwrap()).mean().item().is_nan());
    }
}
