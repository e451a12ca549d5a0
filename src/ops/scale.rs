//! Product with a constant, `y = alpha x`. Backward keeps alpha.

use crate::{
    Tensor,
    autograd::{Cost, GradientMemory, Var},
    kernels::{self, Isa},
};

impl<'t> Var<'t> {
    /// Multiplies every element by the constant `alpha`.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape};
    /// let tape = Tape::eval();
    /// assert_eq!(tape.input(Tensor::scalar(3.0)).scale(-0.5).item(), -1.5);
    /// ```
    pub fn scale(&self, alpha: f32) -> Var<'t> {
        Var::op("scale", [self], *self.shape(), |[x]| {
            let y = Tensor::build(*x.shape(), |y| kernels::scale(Isa::active(), alpha, x.data(), y));
            (y, move |mut dy: Tensor, _| {
                dy.scale(alpha);
                [Some(dy)]
            })
        })
        .costs(|| Cost { gradients: vec![GradientMemory::InPlace], ..Cost::default() })
        .settings(|| alpha)
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
