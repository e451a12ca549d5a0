//! Layers without state that keep or flatten the shape.

use super::Module;
use crate::{Result, autograd::Var, ops::expect_drop_probability, state};

/// The larger of each element and zero.
#[derive(Clone, Copy, Debug, Default)]
pub struct Relu;
state!(Relu {});

impl Module for Relu {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        Ok(x.relu())
    }
}

/// `[N, ...]` to `[N, rest]`, channels fastest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flatten;
state!(Flatten {});

impl Module for Flatten {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        x.flatten()
    }
}

/// In training, each element is zero with probability `p` and else scaled by `1 / (1 - p)`; in evaluation, nothing happens.
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
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    p: f32,
}
state!(Dropout {});

impl Dropout {
    /// Drops with probability `p` in 0..1.
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
