//! Product with a constant, `y = alpha x`. Backward keeps alpha.

use super::apply_to_any;
use crate::{
    Result, Shape, Tensor,
    autograd::{Cost, Fault, GradientMemory, Input, Kind, Op, Var},
    kernels::{self, Isa},
};

struct Scale {
    alpha: f32,
}

impl Op for Scale {
    type Context = ();

    fn name(&self) -> &'static str {
        "scale"
    }

    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
        Ok(*inputs[0].shape())
    }

    fn forward(&self, inputs: &[Input<'_>], shape: Shape) -> (Tensor, ()) {
        let x = inputs[0].value();
        (Tensor::build(shape, |y| kernels::scale(Isa::active(), self.alpha, x.data(), y)), ())
    }

    fn backward(&self, (): (), mut dy: Tensor, _: &[bool]) -> Vec<Option<Tensor>> {
        dy.scale(self.alpha);
        vec![Some(dy)]
    }

    fn cost(&self, _: &[Input<'_>], _: Shape) -> Cost {
        Cost::default().gradients([GradientMemory::InPlace])
    }

    fn kind(&self, _: &[Input<'_>]) -> Kind {
        Kind::Scale(self.alpha)
    }
}

impl<'t> Var<'t> {
    /// Multiplies every element by the constant `alpha`.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape};
    /// let tape = Tape::eval();
    /// assert_eq!(tape.input(Tensor::scalar(3.0)).scale(-0.5).item(), -1.5);
    /// ```
    pub fn scale(&self, alpha: f32) -> Var<'t> {
        apply_to_any(Scale { alpha }, self)
    }
}

#[cfg(test)]
mod tests {
    use crate::{Rng, Tensor, autograd::gradient_check};

    #[test]
    fn gradients_agree_with_differences() {
        let x = Tensor::normal([2, 9], 1.0, &mut Rng::seed(1)).unwrap();
        gradient_check(&[x], |v| Ok(v[0].scale(-2.5))).unwrap().within(1e-4).unwrap();
    }
}
