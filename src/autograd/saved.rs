//! Values saved for backward, or the way to recompute them.

use super::tape::Var;
use crate::{Shape, Tensor};
use std::rc::Rc;

/// The way to recompute a value, and the number of passes over memory that it takes.
#[derive(Clone)]
pub struct Recompute {
    passes: usize,
    compute: Rc<dyn Fn() -> Tensor>,
}

impl Recompute {
    /// Makes the way to recompute a value, bit for bit, from tensors that are saved anyway.
    pub fn new(passes: usize, compute: impl Fn() -> Tensor + 'static) -> Recompute {
        Recompute { passes, compute: Rc::new(compute) }
    }
}

/// An input of an operation, saved for backward: the value, or the way to recompute it. See
/// [`Var::save`].
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

/// Saves the value itself.
impl From<Tensor> for Saved {
    fn from(value: Tensor) -> Saved {
        Saved { shape: *value.shape(), content: Content::Value(value) }
    }
}

impl Saved {
    pub(super) fn new(value: &Tensor, recompute: Option<&Recompute>) -> Saved {
        let content = match recompute {
            Some(recompute) => Content::Recompute(recompute.clone()),
            None => Content::Value(value.clone()),
        };
        Saved { shape: *value.shape(), content }
    }

    /// Returns the shape of the value.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Returns the number of passes over memory that it takes to recompute the value, or 0 if it is
    /// saved.
    pub fn passes(&self) -> usize {
        match &self.content {
            Content::Value(_) => 0,
            Content::Recompute(recompute) => recompute.passes,
        }
    }

    /// Returns the value, after recomputing it if it was not saved.
    pub fn value(&self) -> Tensor {
        match &self.content {
            Content::Value(value) => value.clone(),
            Content::Recompute(recompute) => (recompute.compute)(),
        }
    }
}

impl<'t> Var<'t> {
    /// Declares how the value can be recomputed in backward, bit for bit, from tensors that are
    /// saved anyway (as activation checkpointing does for a whole layer).
    ///
    /// `passes` is the number of passes over memory that `compute` takes. Operations that need this
    /// value in their backward, and save it with [`Var::save`], then do not keep it in memory.
    /// Nothing happens if the value is not recorded.
    pub fn rematerialize_with(self, passes: usize, compute: impl Fn() -> Tensor + 'static) -> Var<'t> {
        let recompute = self.is_recorded().then(|| match &self.tape.meta {
            Some(meta) => meta.recompute(passes, *self.shape(), compute),
            None => Recompute::new(passes, compute),
        });
        Var { recompute, ..self }
    }

    /// Saves the value for a backward function that needs it: the value, or the way to recompute
    /// it.
    ///
    /// ```
    /// use skipgrad::{Rng, Tensor, autograd::Tape};
    /// let tape = Tape::train(Rng::seed(0));
    /// let x = tape.watch(Tensor::scalar(3.0));
    /// let y = x.scale(2.0).rematerialize_with(1, || Tensor::scalar(6.0));
    /// let saved = y.save();
    /// drop(y); // frees the memory of the value
    /// assert_eq!(saved.value().item(), 6.0);
    /// ```
    pub fn save(&self) -> Saved {
        Saved::new(&self.value, self.recompute.as_ref())
    }
}
