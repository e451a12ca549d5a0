//! What backward keeps of a value: the value, or how it is computed again.

use super::tape::Var;
use crate::{Shape, Tensor};
use std::rc::Rc;

/// How a value can be computed again, in how many passes over memory.
#[derive(Clone)]
pub(super) struct Recompute {
    passes: usize,
    compute: Rc<dyn Fn() -> Tensor>,
}

/// What a rule for gradients keeps of an operation's input, see [`Var::save`].
#[derive(Clone)]
pub struct Saved {
    shape: Shape,
    content: Content,
}

#[derive(Clone)]
enum Content {
    Value(Tensor),
    Recompute(Recompute),
}

/// The value itself.
impl From<Tensor> for Saved {
    fn from(value: Tensor) -> Saved {
        Saved { shape: *value.shape(), content: Content::Value(value) }
    }
}

impl Saved {
    /// The sizes of the value's axes.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The passes over memory that it takes to compute the value: 0 if it is held.
    pub fn passes(&self) -> usize {
        match &self.content {
            Content::Value(_) => 0,
            Content::Recompute(recompute) => recompute.passes,
        }
    }

    /// The value.
    pub fn value(&self) -> Tensor {
        match &self.content {
            Content::Value(value) => value.clone(),
            Content::Recompute(recompute) => (recompute.compute)(),
        }
    }
}

impl<'t> Var<'t> {
    /// Says how the value can be computed again, to the bit, in so many passes over memory and from what is kept anyway. Operations
    /// that need their input in backward then need not hold it in memory until then, if they keep it by [`Var::save`]. Nothing
    /// happens where nothing is recorded.
    pub fn rematerialize_with(self, passes: usize, compute: impl Fn() -> Tensor + 'static) -> Var<'t> {
        let recompute = self.is_recorded().then(|| match &self.tape.meta {
            Some(meta) => {
                Recompute { passes, compute: Rc::new(meta.recompute(passes, *self.shape(), compute)) }
            }
            None => Recompute { passes, compute: Rc::new(compute) },
        });
        Var { recompute, ..self }
    }

    /// What a rule for gradients should capture of an input that it needs: the value, or how it is computed again.
    ///
    /// ```
    /// use skipgrad::{Rng, Tensor, autograd::Tape};
    /// let tape = Tape::train(Rng::seed(0));
    /// let x = tape.watch(Tensor::scalar(3.0));
    /// let y = x.scale(2.0).rematerialize_with(1, || Tensor::scalar(6.0));
    /// let saved = y.save();
    /// drop(y); // and with it its memory
    /// assert_eq!(saved.value().item(), 6.0);
    /// ```
    pub fn save(&self) -> Saved {
        let content = match &self.recompute {
            Some(recompute) => Content::Recompute(recompute.clone()),
            None => Content::Value(self.value.clone()),
        };
        Saved { shape: *self.shape(), content }
    }
}
