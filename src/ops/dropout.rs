//! Dropout (Srivastava et al. 2014), scaled in training as in PyTorch: `y = x m / (1 - p)`, where
//! each m is 0 with probability p and 1 otherwise. Backward keeps a seed, from which the same m are
//! drawn again: dx = dy m / (1 - p).

use super::expect_drop_probability;
use crate::{
    Result, Rng, Shape, Tensor,
    autograd::{Cost, Fault, GradientMemory, Input, Kind, Mode, Op, Var},
};
use rayon::prelude::*;

/// The number of elements per random stream, so that the number of threads does not change the
/// result.
const BLOCK: usize = 1 << 14;

struct Dropout {
    p: f32,
    seed: u64,
}

impl Op for Dropout {
    type Context = ();

    fn name(&self) -> &'static str {
        "dropout"
    }

    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
        Ok(*inputs[0].shape())
    }

    fn forward(&self, inputs: &[Input<'_>], _: Shape) -> (Tensor, ()) {
        let mut y = inputs[0].value().clone();
        drop_elements(self.p, self.seed, &mut y);
        (y, ())
    }

    fn backward(&self, (): (), mut dy: Tensor, _: &[bool]) -> Vec<Option<Tensor>> {
        drop_elements(self.p, self.seed, &mut dy);
        vec![Some(dy)]
    }

    fn cost(&self, _: &[Input<'_>], _: Shape) -> Cost {
        Cost::default().gradients([GradientMemory::InPlace])
    }

    fn kind(&self, _: &[Input<'_>]) -> Kind {
        Kind::Training
    }
}

/// Drops and scales elements in place; the same seed drops the same elements.
pub(super) fn drop_elements(p: f32, seed: u64, x: &mut Tensor) {
    let scale = 1.0 / (1.0 - p);
    x.data_mut().par_chunks_mut(BLOCK).enumerate().for_each(|(block, x)| {
        let mut rng = Rng::keyed(seed, block as u64, 0);
        x.iter_mut().for_each(|x| *x = if rng.chance(p) { 0.0 } else { *x * scale });
    });
}

impl<'t> Var<'t> {
    /// Sets each element to 0 with probability `p` and scales the others by 1 / (1 - p). In
    /// evaluation mode it is the identity. The random numbers come from the tape.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) if `p` is not in [0, 1).
    ///
    /// ```
    /// use skipgrad::{Rng, Tensor, autograd::Tape};
    /// let tape = Tape::train(Rng::seed(0));
    /// let y = tape.input(Tensor::full([10_000], 1.0)?).dropout(0.25)?;
    /// assert!((y.mean().item() - 1.0).abs() < 0.02);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn dropout(&self, p: f32) -> Result<Var<'t>> {
        expect_drop_probability("dropout", p)?;
        if p == 0.0 || self.tape().mode() == Mode::Eval {
            return Ok(self.clone());
        }
        Dropout { p, seed: self.tape().rng().bits() }.apply(&[self])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::{Tape, gradient_check};

    #[test]
    fn gradients_agree_with_differences() {
        let x = Tensor::normal([4, 9], 1.0, &mut Rng::seed(1)).unwrap();
        gradient_check(&[x], |v| v[0].dropout(0.3)).unwrap().within(1e-4).unwrap();
    }

    #[test]
    fn a_share_of_p_is_dropped_and_the_rest_is_scaled() {
        let tape = Tape::train(Rng::seed(1));
        let y = tape.input(Tensor::full([100_000], 3.0).unwrap()).dropout(0.25).unwrap();
        let dropped = y.value().data().iter().filter(|&&y| y == 0.0).count();
        assert!((24_500..25_500).contains(&dropped), "{dropped}");
        assert!(y.value().data().iter().all(|&y| y == 0.0 || y == 4.0));
        let again = tape.input(Tensor::full([100_000], 3.0).unwrap()).dropout(0.25).unwrap();
        assert_ne!(y.value(), again.value(), "every use draws anew");
    }

    #[test]
    fn threads_do_not_change_what_is_dropped() {
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let tape = Tape::train(Rng::seed(1));
                tape.input(Tensor::full([3 * BLOCK + 7], 1.0).unwrap()).dropout(0.5).unwrap().value().clone()
            })
        };
        assert_eq!(run(1), run(3));
    }

    #[test]
    fn nothing_is_dropped_or_recorded_in_evaluation_or_at_p_0() {
        let value = Tensor::full([1000], 1.0).unwrap();
        let tape = Tape::eval().recording(true);
        assert_eq!(tape.input(value.clone()).dropout(0.9).unwrap().value(), &value);
        let tape = Tape::train(Rng::seed(0));
        let y = tape.input(value.clone()).dropout(0.0).unwrap();
        assert_eq!(y.value().data().as_ptr(), value.data().as_ptr());
    }

    #[test]
    fn p_is_a_probability_below_1() {
        let tape = Tape::eval();
        let x = tape.input(Tensor::scalar(0.0));
        for p in [-0.1, 1.0, f32::NAN] {
            let error = x.dropout(p).unwrap_err().to_string();
            assert_eq!(error, format!("dropout: p: expected a probability in [0, 1), found {p}"));
        }
    }
}
