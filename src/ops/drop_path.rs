//! Stochastic depth (Huang et al. 2016) sample by sample: `y[n] = x[n] m[n] / (1 - p)`, where each
//! m is 0 with probability p and 1 otherwise. On the residual branch of a block it drops the whole
//! block for a sample. Backward keeps the factor of each sample.

use super::expect_drop_probability;
use crate::{
    Error, Result, Shape, Tensor,
    autograd::{Cost, Fault, GradientMemory, Input, Kind, Mode, Op, Var},
    kernels::{self, Isa},
};

struct DropPath {
    /// The factor of each sample: 0 or 1 / (1 - p).
    factors: Vec<f32>,
}

impl DropPath {
    /// Returns the number of elements of a sample.
    fn size(&self, elements: usize) -> usize {
        (elements / self.factors.len().max(1)).max(1)
    }
}

impl Op for DropPath {
    type Context = ();

    fn name(&self) -> &'static str {
        "drop_path"
    }

    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
        let x = inputs[0].shape();
        let samples = self.factors.len();
        match x.first() {
            Some(&found) if found == samples => Ok(*x),
            Some(&found) => Err(Error::argument("drop_path", "input", samples, found).into()),
            None => Err(Error::shape("drop_path", "input", ["N", "..."], x).into()),
        }
    }

    fn forward(&self, inputs: &[Input<'_>], shape: Shape) -> (Tensor, ()) {
        let (x, size) = (inputs[0].value().data(), self.size(shape.num_elements()));
        let y = Tensor::build(shape, |y| {
            for ((y, x), &factor) in y.chunks_mut(size).zip(x.chunks(size)).zip(&self.factors) {
                if factor == 0.0 {
                    kernels::fill(Isa::active(), 0.0, y);
                } else {
                    kernels::scale(Isa::active(), factor, x, y);
                }
            }
        });
        (y, ())
    }

    fn backward(&self, (): (), mut dy: Tensor, _: &[bool]) -> Vec<Option<Tensor>> {
        let size = self.size(dy.shape().num_elements());
        for (dy, &factor) in dy.data_mut().chunks_mut(size).zip(&self.factors) {
            if factor == 0.0 {
                kernels::fill(Isa::active(), 0.0, dy);
            } else {
                kernels::scale_in_place(Isa::active(), factor, dy);
            }
        }
        vec![Some(dy)]
    }

    fn cost(&self, _: &[Input<'_>], _: Shape) -> Cost {
        Cost::default().gradients([GradientMemory::InPlace])
    }

    fn kind(&self, _: &[Input<'_>]) -> Kind {
        Kind::Training
    }
}

impl<'t> Var<'t> {
    /// Sets each sample of `[N, ...]` to 0 with probability `p` and scales the others by 1 / (1 -
    /// p). In evaluation mode it is the identity. The random numbers come from the tape.
    ///
    /// # Errors
    /// [`Error::Argument`] if `p` is not in [0, 1); [`Error::ShapeMismatch`] if there is no axis.
    ///
    /// ```
    /// use skipgrad::{Rng, Tensor, autograd::Tape};
    /// let tape = Tape::train(Rng::seed(0));
    /// let y = tape.input(Tensor::full([100, 2], 1.0)?).drop_path(0.5)?;
    /// let mut samples = y.value().data().chunks(2);
    /// assert!(samples.all(|sample| sample == [0.0, 0.0] || sample == [2.0, 2.0]));
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn drop_path(&self, p: f32) -> Result<Var<'t>> {
        expect_drop_probability("drop_path", p)?;
        let Some(&samples) = self.shape().first() else {
            return Err(Error::shape("drop_path", "input", ["N", "..."], self.shape()));
        };
        if p == 0.0 || self.tape().mode() == Mode::Eval {
            return Ok(self.clone());
        }
        let mut rng = self.tape().rng();
        let scale = 1.0 / (1.0 - p);
        let factors = (0..samples).map(|_| if rng.chance(p) { 0.0 } else { scale }).collect();
        DropPath { factors }.apply(&[self])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Rng,
        autograd::{Tape, gradient_check},
    };

    #[test]
    fn gradients_agree_with_differences() {
        let x = Tensor::normal([6, 2, 3], 1.0, &mut Rng::seed(1)).unwrap();
        gradient_check(&[x], |v| v[0].drop_path(0.5)).unwrap().within(1e-4).unwrap();
    }

    #[test]
    fn whole_samples_are_dropped_at_the_rate_p() {
        let tape = Tape::train(Rng::seed(3));
        let x = Tensor::full([10_000, 3], 3.0).unwrap();
        let y = tape.input(x).drop_path(0.25).unwrap();
        let samples = y.value().data().chunks(3);
        assert!(samples.clone().all(|s| s == [0.0; 3] || s == [4.0; 3]));
        let dropped = samples.filter(|s| s[0] == 0.0).count();
        assert!((2_350..2_650).contains(&dropped), "{dropped}");
    }

    #[test]
    fn a_dropped_sample_is_0_even_where_the_branch_overflowed() {
        let tape = Tape::train(Rng::seed(3));
        let x = tape.watch(Tensor::full([64, 2], f32::INFINITY).unwrap());
        let y = x.drop_path(0.5).unwrap();
        assert!(y.value().data().iter().all(|y| !y.is_nan()));
    }

    #[test]
    fn nothing_is_dropped_in_evaluation_or_at_p_0() {
        let value = Tensor::full([10, 2], 1.0).unwrap();
        assert_eq!(Tape::eval().input(value.clone()).drop_path(0.9).unwrap().value(), &value);
        assert_eq!(Tape::train(Rng::seed(0)).input(value.clone()).drop_path(0.0).unwrap().value(), &value);
    }

    #[test]
    fn errors_name_the_argument() {
        let tape = Tape::eval();
        let x = tape.input(Tensor::scalar(0.0));
        assert!(x.drop_path(1.0).unwrap_err().to_string().contains("p: expected a probability in [0, 1)"));
        let error = x.drop_path(0.5).unwrap_err();
        assert_eq!(error.to_string(), "drop_path: input: expected [N, ...], found []");
    }
}
