//! Rectified linear unit, `y = max(x, 0)` (Nair and Hinton 2010). Backward keeps y, which the next
//! operation keeps anyway: dx = dy where y > 0, else 0.

use super::apply_to_any;
use crate::{
    Result, Shape, Tensor,
    autograd::{Cost, Fault, GradientMemory, Input, Kind, Op, Var},
    kernels::{self, Isa},
};

struct Relu;

impl Op for Relu {
    /// The output.
    type Context = Tensor;

    fn name(&self) -> &'static str {
        "relu"
    }

    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
        Ok(*inputs[0].shape())
    }

    fn forward(&self, inputs: &[Input<'_>], shape: Shape) -> (Tensor, Tensor) {
        let x = inputs[0].value();
        let y = Tensor::build(shape, |y| kernels::relu(Isa::active(), x.data(), y));
        (y.clone(), y)
    }

    fn backward(&self, y: Tensor, mut dy: Tensor, _: &[bool]) -> Vec<Option<Tensor>> {
        kernels::relu_backward_in_place(Isa::active(), y.data(), dy.data_mut());
        vec![Some(dy)]
    }

    fn cost(&self, _: &[Input<'_>], _: Shape) -> Cost {
        Cost::default().save_output().gradients([GradientMemory::InPlace])
    }

    fn kind(&self, _: &[Input<'_>]) -> Kind {
        Kind::Relu
    }
}

impl<'t> Var<'t> {
    /// Returns max(x, 0), element by element. The gradient at 0 is 0 and NaN stays NaN, as in
    /// PyTorch.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape};
    /// let tape = Tape::eval().recording(true);
    /// let x = tape.watch(Tensor::new([3], [-1.0, 0.0, 2.0])?);
    /// let y = x.relu();
    /// assert_eq!(y.value().data(), [0.0, 0.0, 2.0]);
    /// assert_eq!(y.sum().backward()?.grad_of(&x).unwrap().data(), [0.0, 0.0, 1.0]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn relu(&self) -> Var<'t> {
        apply_to_any(Relu, self)
    }
}

#[cfg(test)]
mod tests {
    use crate::{Rng, Tensor, autograd::gradient_check};

    #[test]
    fn gradients_agree_with_differences() {
        let mut x = Tensor::normal([3, 11], 1.0, &mut Rng::seed(1)).unwrap();
        x.data_mut().iter_mut().for_each(|x| *x += 0.2 * x.signum());
        gradient_check(&[x], |v| Ok(v[0].relu())).unwrap().within(1e-4).unwrap();
    }
}
