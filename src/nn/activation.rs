//! Layers without state that keep or flatten the shape.

use super::Module;
use crate::{
    Result,
    autograd::{State, Var},
    ops::expect_drop_probability,
};

/// The rectified linear unit: the larger of each element and zero.
#[derive(Clone, Copy, Debug, Default, State)]
pub struct Relu;

impl Module for Relu {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        Ok(x.relu())
    }
}

/// Flattens `[N, ...]` to `[N, rest]`, channels fastest.
#[derive(Clone, Copy, Debug, Default, State)]
pub struct Flatten;

impl Module for Flatten {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        x.flatten()
    }
}

/// Dropout: in training, sets each element to zero with probability `p` and scales the others by
/// `1 / (1 - p)`; in evaluation, returns its input.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::Tape, nn::{Dropout, Module}};
/// let dropout = Dropout::new(0.25)?;
/// let tape = Tape::train(Rng::seed(0));
/// let y = dropout.forward(&tape.input(Tensor::full([1000], 3.0)?))?;
/// assert!(y.value().data().iter().all(|&y| y == 0.0 || y == 4.0));
/// let dropped = y.value().data().iter().filter(|&&y| y == 0.0).count();
/// assert!((200..300).contains(&dropped));
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug, State)]
pub struct Dropout {
    #[state(skip)]
    p: f32,
}

impl Dropout {
    /// Makes a layer that drops elements with probability `p` in [0, 1).
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for another `p`.
    pub fn new(p: f32) -> Result<Dropout> {
        expect_drop_probability("dropout", p)?;
        Ok(Dropout { p })
    }
}

impl Module for Dropout {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        x.dropout(self.p)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_probabilities_drop() {
        for p in [-0.1, 1.0, f32::NAN] {
            assert!(Dropout::new(p).is_err(), "{p}");
        }
    }
}
