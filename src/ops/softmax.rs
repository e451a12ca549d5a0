//! Softmax over the last axis, `y = exp(x) / Σ exp(x)`, and its logarithm, `y = x - ln Σ exp(x)`.
//! The maximum of a row is subtracted first, so nothing overflows. Backward keeps y:
//!
//! ```text
//! softmax      dx = y (dy - Σ dy y)
//! log_softmax  dx = dy - exp(y) Σ dy
//! ```

use crate::{
    Error, Result, Shape, Tensor,
    autograd::{Cost, Fault, Input, Kind, Op, Var},
    kernels::{self, Isa},
};

/// A softmax, or its logarithm.
struct Softmax {
    log: bool,
}

impl Op for Softmax {
    /// The output.
    type Context = Tensor;

    fn name(&self) -> &'static str {
        if self.log { "log_softmax" } else { "softmax" }
    }

    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
        let x = inputs[0].shape();
        if x.rank() > 0 { Ok(*x) } else { Err(Error::shape(self.name(), "input", ["...", "K"], x).into()) }
    }

    fn forward(&self, inputs: &[Input<'_>], shape: Shape) -> (Tensor, Tensor) {
        let forward = if self.log { kernels::log_softmax } else { kernels::softmax };
        let (x, classes) = (inputs[0].value(), shape.num_channels());
        let y = Tensor::build(shape, |y| forward(Isa::active(), classes, x.data(), y));
        (y.clone(), y)
    }

    fn backward(&self, y: Tensor, dy: Tensor, _: &[bool]) -> Vec<Option<Tensor>> {
        let backward = if self.log { kernels::log_softmax_backward } else { kernels::softmax_backward };
        let classes = y.shape().num_channels();
        vec![Some(Tensor::build(*y.shape(), |dx| {
            backward(Isa::active(), classes, y.data(), dy.data(), dx);
        }))]
    }

    fn cost(&self, _: &[Input<'_>], _: Shape) -> Cost {
        Cost::default().save_output()
    }

    fn kind(&self, _: &[Input<'_>]) -> Kind {
        if self.log { Kind::LogSoftmax } else { Kind::Softmax }
    }
}

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
        Softmax { log: false }.apply(&[self])
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
        Softmax { log: true }.apply(&[self])
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
