//! Comparison of gradients with finite differences.

use super::tape::{Tape, Var};
use crate::{Error, Result, Rng, Tensor};

/// The element whose analytic and numeric gradients differ most.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct GradientCheck {
    /// The index of the input.
    pub input: usize,
    /// The flat index of the element of that input.
    pub element: usize,
    /// The gradient that `backward` computed.
    pub analytic: f64,
    /// The gradient by finite differences.
    pub numeric: f64,
    /// |analytic - numeric|, relative to the largest gradient of that input, or to 1e-3 if that is
    /// larger.
    pub error: f64,
}

impl GradientCheck {
    /// Returns an error if `error` is not below `tolerance`.
    ///
    /// # Errors
    /// [`Error::Argument`] that names the element and both gradients.
    pub fn within(self, tolerance: f64) -> Result<()> {
        if self.error < tolerance {
            return Ok(());
        }
        let expected = format!("{} at element {} of input {}", self.numeric, self.element, self.input);
        Err(Error::argument("gradient_check", "gradient", expected, self.analytic))
    }
}

/// Compares the gradients of `f` with central differences, element by element of every input.
///
/// The output is contracted with fixed random weights in `f64`, so an output of any shape is
/// checked in one pass. The derivative is the five-point formula (with an error of fourth order in
/// the step, Abramowitz and Stegun 25.3.6), with a step of 2^-5 times max(1, |x|). Operations
/// compute in `f32`, so errors of about 1e-4 are normal; 1e-3 is a fair tolerance. Inputs must be
/// more than two steps away from kinks, such as the zero of a ReLU.
///
/// # Errors
/// The errors of `f` and those of [`Var::backward`].
///
/// ```
/// use skipgrad::{Tensor, autograd::gradient_check};
/// let x = Tensor::new([3], [0.5, -1.0, 2.0])?;
/// gradient_check(&[x.clone(), x], |v| v[0].mul(&v[1]))?.within(1e-3)?;
/// # Ok::<(), skipgrad::Error>(())
/// ```
pub fn gradient_check<F>(inputs: &[Tensor], f: F) -> Result<GradientCheck>
where
    F: for<'t> Fn(&[Var<'t>]) -> Result<Var<'t>>,
{
    let tape = Tape::train(Rng::seed(1));
    let vars: Vec<Var> = inputs.iter().map(|x| tape.watch(x.clone())).collect();
    let output = f(&vars)?;
    let weights = Tensor::normal(output.shape(), 1.0, &mut Rng::seed(2))?;
    let updates = output.backward_from(weights.clone())?;

    let contracted = |inputs: &[Tensor]| -> Result<f64> {
        let tape = Tape::train(Rng::seed(1)).recording(false);
        let vars: Vec<Var> = inputs.iter().map(|x| tape.input(x.clone())).collect();
        let output = f(&vars)?;
        Ok(output.value().data().iter().zip(weights.data()).map(|(&y, &w)| f64::from(y) * f64::from(w)).sum())
    };
    let mut worst = GradientCheck { input: 0, element: 0, analytic: 0.0, numeric: 0.0, error: 0.0 };
    for (input, x) in inputs.iter().enumerate() {
        let analytic =
            updates.grad_of(&vars[input]).map(Tensor::to_vec).unwrap_or_else(|| vec![0.0; x.data().len()]);
        let mut moved = inputs.to_vec();
        let mut numeric = Vec::with_capacity(analytic.len());
        for (element, &at) in x.data().iter().enumerate() {
            let step = f32::powi(2.0, -5) * at.abs().max(1.0);
            let mut value = |steps: f32| -> Result<f64> {
                moved[input].data_mut()[element] = at + steps * step;
                let value = contracted(&moved);
                moved[input].data_mut()[element] = at;
                value
            };
            let difference = 8.0 * (value(1.0)? - value(-1.0)?) - (value(2.0)? - value(-2.0)?);
            numeric.push(difference / (12.0 * f64::from(step)));
        }
        let largest = numeric.iter().fold(1e-3, |largest: f64, g| largest.max(g.abs()));
        for (element, (&analytic, &numeric)) in analytic.iter().zip(&numeric).enumerate() {
            let analytic = f64::from(analytic);
            let error = (analytic - numeric).abs() / largest;
            if error > worst.error || error.is_nan() {
                worst = GradientCheck { input, element, analytic, numeric, error };
            }
        }
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sine<'t>(x: &Var<'t>, slope: f32) -> Result<Var<'t>> {
        Var::op("sine", [x], *x.shape(), move |[x]| {
            let y = Tensor::build(*x.shape(), |y| y.iter_mut().zip(x.data()).for_each(|(y, x)| *y = x.sin()));
            let x = x.clone();
            (y, move |mut dy: Tensor, _| {
                dy.data_mut().iter_mut().zip(x.data()).for_each(|(d, x)| *d *= slope * x.cos());
                [Some(dy)]
            })
        })
    }

    #[test]
    fn a_right_gradient_passes_and_a_slightly_wrong_one_is_found() {
        let x = Tensor::new([3], [0.3, -1.7, 4.0]).unwrap();
        gradient_check(std::slice::from_ref(&x), |v| sine(&v[0], 1.0)).unwrap().within(1e-4).unwrap();
        let wrong = gradient_check(&[x], |v| sine(&v[0], 1.01)).unwrap();
        assert!(wrong.error > 5e-3, "{wrong:?}");
        assert!(wrong.within(1e-3).unwrap_err().to_string().contains("of input 0"));
    }

    #[test]
    fn an_input_that_is_ignored_has_gradient_zero() {
        let x = Tensor::scalar(1.0);
        assert!(gradient_check(&[x.clone(), x], |v| sine(&v[0], 1.0)).unwrap().error < 1e-4);
    }
}
