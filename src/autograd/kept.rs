//! What backward keeps of a value: the value, or how it is computed again.

use super::tape::Var;
use crate::{Shape, Tensor};
use std::rc::Rc;

/// How a value can be computed again, in how many passes over memory.
#[derive(Clone)]
pub(super) struct Again {
    passes: usize,
    compute: Rc<dyn Fn() -> Tensor>,
}

/// What a rule for gradients keeps of an operation's input, see [`Var::keep`].
#[derive(Clone)]
pub struct Kept {
    shape: Shape,
    content: Content,
}

#[derive(Clone)]
enum Content {
    Value(Tensor),
    Again(Again),
}

/// The value itself.
impl From<Tensor> for Kept {
    fn from(value: Tensor) -> Kept {
        Kept { shape: *value.shape(), content: Content::Value(value) }
    }
}

impl Kept {
    /// The sizes of the value's axes.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The passes over memory that it takes to compute the value: 0 if it is held.
    pub fn passes(&self) -> usize {
        match &self.content {
            Content::Value(_) => 0,
            Content::Again(again) => again.passes,
        }
    }

    /// The value.
    pub fn value(&self) -> Tensor {
        match &self.content {
            Content::Value(value) => value.clone(),
            Content::Again(again) => (again.compute)(),
        }
    }
}

impl<'t> Var<'t> {
    /// Says how the value can be computed again, to the bit, in so many passes over memory and from what is kept anyway. Operations
    /// that need their input in backward then need not hold it in memory until then, if they keep it by [`Var::keep`]. Nothing
    /// happens where nothing is recorded.
    pub fn computed_again_by(self, passes: usize, compute: impl Fn() -> Tensor + 'static) -> Var<'t> {
        let again = self.is_recorded().then(|| match &self.tape.dry {
            Some(dry) => Again { passes, compute: Rc::new(dry.again(passes, *self.shape(), compute)) },
            None => Again { passes, compute: Rc::new(compute) },
        });
        Var { again, ..self }
    }

    /// What a rule for gradients should capture of an input that it needs: the value, or how it is computed again.
    ///
    /// ```
    /// use skipgrad::{Rng, Tensor, autograd::Tape};
    /// let tape = Tape::train(Rng::seed(0));
    /// let x = tape.watch(Tensor::scalar(3.0));
    /// let y = x.scale(2.0).computed_again_by(1, || Tensor::scalar(6.0));
    /// let kept = y.keep();
    /// drop(y); // and with it its memory
    /// assert_eq!(kept.value().item(), 6.0);
    /// ```
    pub fn keep(&self) -> Kept {
        let content = match &self.again {
            Some(again) => Content::Again(again.clone()),
            None => Content::Value(self.value.clone()),
        };
        Kept { shape: *self.shape(), content }
    }
}
