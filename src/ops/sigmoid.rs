//! Logistic function, `y = 1 / (1 + exp(-x))`. Backward keeps y: dx = dy y (1 - y).

use super::apply_to_any;
use crate::{
    Result, Shape, Tensor,
    autograd::{Cost, Fault, GradientMemory, Input, Kind, Op, Var},
    kernels::{self, Isa},
};

struct Sigmoid;

impl Op for Sigmoid {
    /// The output.
    type Context = Tensor;

    fn name(&self) -> &'static str {
        "sigmoid"
    }

    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
        Ok(*inputs[0].shape())
    }

    fn forward(&self, inputs: &[Input<'_>], shape: Shape) -> (Tensor, Tensor) {
        let x = inputs[0].value();
        let y = Tensor::build(shape, |y| kernels::sigmoid(Isa::active(), x.data(), y));
        (y.clone(), y)
    }

    fn backward(&self, y: Tensor, mut dy: Tensor, _: &[bool]) -> Vec<Option<Tensor>> {
        kernels::sigmoid_backward_in_place(Isa::active(), y.data(), dy.data_mut());
        vec![Some(dy)]
    }

    fn cost(&self, _: &[Input<'_>], _: Shape) -> Cost {
        Cost::default().save_output().gradients([GradientMemory::InPlace])
    }

    fn kind(&self, _: &[Input<'_>]) -> Kind {
        Kind::Sigmoid
    }
}

impl<'t> Var<'t> {
    /// Returns 1 / (1 + exp(-x)), element by element.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape};
    /// let tape = Tape::eval();
    /// assert_eq!(tape.input(Tensor::scalar(0.0)).sigmoid().item(), 0.5);
    /// ```
    pub fn sigmoid(&self) -> Var<'t> {
        apply_to_any(Sigmoid, self)
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
        let x = Tensor::normal([2, 13], 2.0, &mut Rng::seed(1)).unwrap();
        gradient_check(&[x], |v| Ok(v[0].sigmoid())).unwrap().within(1e-3).unwrap();
    }

    #[test]
    fn far_from_zero_it_saturates_and_stays_finite() {
        let tape = Tape::eval();
        let x = tape.input(Tensor::new([4], [-1000.0, -3.0, 3.0, 1000.0]).unwrap());
        let y = x.sigmoid();
        assert_eq!((y.value().data()[0], y.value().data()[3]), (0.0, 1.0));
        assert!((f64::from(y.value().data()[1]) - 1.0 / (1.0 + 3f64.exp())).abs() < 1e-8);
    }
}
