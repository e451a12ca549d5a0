//! Mean squared error, `mean((x - t)²)` over all elements, as PyTorch's `mse_loss`. Backward keeps
//! x - t: dx = 2 (x - t) dy / n, dt = -dx.

use super::expect_shape;
use crate::{
    Result, Shape, Tensor,
    autograd::{Cost, GradientMemory, Var},
    kernels::{self, Isa},
};

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
        Var::expect_one_tape("mse", &[self, target])?;
        expect_shape("mse", "target", self.shape(), target.shape())?;
        Ok(Var::op("mse", [self, target], Shape::scalar(), |[x, t]| {
            let n = x.shape().num_elements() as f32;
            let mut difference =
                Tensor::build(*x.shape(), |d| kernels::sub(Isa::active(), x.data(), t.data(), d));
            let mean = (difference.sum_of_squares() / f64::from(n)) as f32;
            (Tensor::scalar(mean), move |dy: Tensor, needs: [bool; 2]| {
                difference.scale(2.0 * dy.item() / n);
                let dt = needs[1].then(|| {
                    let dx = difference.data();
                    Tensor::build(*difference.shape(), |dt| kernels::scale(Isa::active(), -1.0, dx, dt))
                });
                [needs[0].then_some(difference), dt]
            })
        })
        .costs(|| Cost {
            saved_intermediates: vec![*self.shape()],
            gradients: vec![GradientMemory::Intermediate],
            ..Cost::default()
        }))
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
