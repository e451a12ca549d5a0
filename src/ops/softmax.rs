//! Softmax over the last axis, `y = exp(x) / Σ exp(x)`, and its logarithm, `y = x - ln Σ exp(x)`.
//! The maximum of a row is subtracted first, so nothing overflows. Backward keeps y:
//!
//! ```text
//! softmax      dx = y (dy - Σ dy y)
//! log_softmax  dx = dy - exp(y) Σ dy
//! ```

use crate::{
    Error, Result, Tensor,
    autograd::{Cost, Var},
    kernels::{self, Isa},
};

/// A kernel from rows of logits to rows of outputs; the number is that of classes.
type Forward = fn(Isa, usize, &[f32], &mut [f32]);
/// A kernel from rows of outputs and of their gradients to rows of gradients of the inputs.
type Backward = fn(Isa, usize, &[f32], &[f32], &mut [f32]);

impl<'t> Var<'t> {
    /// Returns exp(x) / Σ exp(x) over the last axis of `[..., K]`: probabilities that add up to 1.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if there is no axis.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape};
    /// let tape = Tape::eval();
    /// let y = tape.input(Tensor::new([1, 2], [0.0, 3f32.ln()])?).softmax()?;
    /// assert!((y.value().data()[1] - 0.75).abs() < 1e-6);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn softmax(&self) -> Result<Var<'t>> {
        self.along_rows("softmax", kernels::softmax, kernels::softmax_backward)
    }

    /// Returns the logarithm of [`Var::softmax`], which is exact where probabilities are too small
    /// for `f32`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if there is no axis.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape};
    /// let tape = Tape::eval();
    /// let y = tape.input(Tensor::new([1, 2], [0.0, 500.0])?).log_softmax()?;
    /// assert_eq!(y.value().data(), [-500.0, 0.0]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn log_softmax(&self) -> Result<Var<'t>> {
        self.along_rows("log_softmax", kernels::log_softmax, kernels::log_softmax_backward)
    }

    fn along_rows(&self, op: &'static str, forward: Forward, backward: Backward) -> Result<Var<'t>> {
        let Some(&classes) = self.shape().last() else {
            return Err(Error::shape(op, "input", ["...", "K"], self.shape()));
        };
        Ok(Var::op(op, [self], *self.shape(), |[x]| {
            let y = Tensor::build(*x.shape(), |y| forward(Isa::active(), classes, x.data(), y));
            let saved = y.clone();
            (y, move |dy: Tensor, _| {
                [Some(Tensor::build(*dy.shape(), |dx| {
                    backward(Isa::active(), classes, saved.data(), dy.data(), dx);
                }))]
            })
        })
        .costs(|| Cost { saves_output: true, ..Cost::default() }))
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
        let x = [Tensor::normal([3, 2, 5], 1.0, &mut Rng::seed(1)).unwrap()];
        gradient_check(&x, |v| v[0].softmax()).unwrap().within(1e-3).unwrap();
        gradient_check(&x, |v| v[0].log_softmax()).unwrap().within(1e-3).unwrap();
    }

    #[test]
    fn values_are_those_of_f64() {
        let x = Tensor::normal([7, 19], 5.0, &mut Rng::seed(2)).unwrap();
        let tape = Tape::eval();
        let var = tape.input(x.clone());
        let (y, log) = (var.softmax().unwrap(), var.log_softmax().unwrap());
        for (row, x) in x.data().chunks(19).enumerate() {
            let sum: f64 = x.iter().map(|&x| f64::from(x).exp()).sum();
            for (k, &x) in x.iter().enumerate() {
                let exact = f64::from(x) - sum.ln();
                assert!((f64::from(log.value().view()[[row, k]]) - exact).abs() < 1e-5);
                assert!((f64::from(y.value().view()[[row, k]]) - exact.exp()).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn huge_logits_do_not_overflow() {
        let tape = Tape::eval();
        let x = tape.input(Tensor::new([2], [1e30, -1e30]).unwrap());
        assert_eq!(x.softmax().unwrap().value().data(), [1.0, 0.0]);
        assert_eq!(x.log_softmax().unwrap().value().data()[0], 0.0);
    }

    #[test]
    fn there_must_be_an_axis() {
        let tape = Tape::eval();
        let error = tape.input(Tensor::scalar(0.0)).softmax().unwrap_err();
        assert_eq!(error.to_string(), "softmax: input: expected [..., K], found []");
        assert_eq!(tape.input(Tensor::zeros([2, 0]).unwrap()).softmax().unwrap().shape(), [2, 0]);
    }
}
