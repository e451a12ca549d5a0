//! The backward sweep.

use super::{
    tape::{Node, Var},
    unnamed::Reader,
    updates::Updates,
};
use crate::{Error, Result, Tensor};
use std::collections::BTreeMap;

impl Var<'_> {
    /// Computes the gradients of this value, a loss of one element, with respect to every parameter
    /// and watched input that it depends on.
    ///
    /// The recording of the tape is consumed: each backward function runs once and is freed with
    /// the tensors it saved, so memory shrinks during the sweep. The result also has the buffer
    /// updates that modules observed on the tape.
    ///
    /// # Errors
    /// [`Error::Argument`] if the value does not have exactly one element; [`Error::ShapeMismatch`]
    /// if an operation returns a gradient of the wrong shape; [`Error::NotRecorded`] if nothing was
    /// recorded or the recording was consumed before.
    pub fn backward(&self) -> Result<Updates> {
        if self.shape().num_elements() != 1 {
            return Err(Error::argument("backward", "loss", "one element", self.shape()));
        }
        self.backward_from(Tensor::full(self.shape(), 1.0)?)
    }

    /// Computes the gradients of a value of any shape from the gradient of that value (a
    /// vector-Jacobian product); see [`Var::backward`].
    ///
    /// # Errors
    /// As [`Var::backward`], and [`Error::ShapeMismatch`] if `gradient` does not have the shape of
    /// the value.
    pub fn backward_from(&self, gradient: Tensor) -> Result<Updates> {
        if gradient.shape() != self.shape() {
            return Err(Error::shape("backward", "gradient", self.shape(), gradient.shape()));
        }
        if self.tape.consumed.get() {
            return Err(Error::NotRecorded { reason: "the recording was consumed by an earlier backward" });
        }
        let Some(root) = self.node else {
            return Err(Error::NotRecorded {
                reason: "nothing trainable was recorded on the way to this value",
            });
        };
        let gradient = self.tape.meta.as_ref().map_or(gradient, |meta| meta.tensor(*self.shape()));
        self.tape.consumed.set(true);
        let mut nodes = self.tape.nodes.take();
        nodes.truncate(root + 1);
        let mut gradients: Vec<Option<Tensor>> = vec![None; nodes.len()];
        gradients[root] = Some(gradient);
        let mut updates = Updates::of(self.tape.observed.take());
        let mut readers: BTreeMap<usize, &'static str> = BTreeMap::new();
        while let Some(node) = nodes.pop() {
            let Some(gradient) = gradients.pop().flatten() else { continue };
            match node {
                Node::Leaf { id, is_param } => {
                    updates.add_gradient(id, gradient);
                    if is_param {
                        let operation = readers.remove(&nodes.len()).unwrap_or("param");
                        updates.readers.insert(id, Reader { operation, node: nodes.len() });
                    }
                }
                Node::RetainGrad { id, input } => {
                    updates.add_gradient(id, gradient.clone());
                    add(&mut gradients[input], gradient);
                }
                Node::Op { name, inputs, backward } => {
                    let needs: Vec<bool> = inputs.iter().map(Option::is_some).collect();
                    let results = backward(gradient, &needs);
                    for (input, result) in inputs.into_iter().zip(results) {
                        let (Some((id, shape)), Some(result)) = (input, result) else { continue };
                        if *result.shape() != shape {
                            return Err(Error::shape(name, "gradient", &shape, result.shape()));
                        }
                        // The sweep meets the first operation that read a parameter last.
                        if matches!(nodes[id], Node::Leaf { is_param: true, .. }) {
                            readers.insert(id, name);
                        }
                        add(&mut gradients[id], result);
                    }
                }
            }
        }
        Ok(updates)
    }
}

/// Adds a gradient to the sum of the gradients so far.
fn add(sum: &mut Option<Tensor>, gradient: Tensor) {
    match sum {
        Some(sum) => sum.axpy(1.0, &gradient),
        empty => *empty = Some(gradient),
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        Error, Rng, Tensor,
        autograd::{Param, Tape, Var},
    };

    fn double<'t>(x: &Var<'t>) -> Var<'t> {
        Var::op("double", [x], *x.shape(), |[x]| {
            let mut y = x.clone();
            y.scale(2.0);
            (y, |mut dy: Tensor, _| {
                dy.scale(2.0);
                [Some(dy)]
            })
        })
        .unwrap()
    }

    #[test]
    fn a_value_used_twice_gets_both_gradients() {
        let tape = Tape::train(Rng::seed(0));
        let x = tape.watch(Tensor::scalar(1.0));
        let y = Var::op("sum", [&double(&x), &x], *x.shape(), |[a, b]| {
            (Tensor::scalar(a.item() + b.item()), |dy: Tensor, _| [Some(dy.clone()), Some(dy)])
        })
        .unwrap();
        assert_eq!((y.item(), y.backward().unwrap().grad_of(&x).unwrap().item()), (3.0, 3.0));
    }

    #[test]
    fn what_cannot_be_differentiated_says_so() {
        let tape = Tape::train(Rng::seed(0));
        let x = tape.watch(Tensor::scalar(1.0));
        let y = double(&x);
        assert!(y.backward().is_ok());
        assert!(matches!(y.backward(), Err(Error::NotRecorded { .. })), "twice");
        let tape = Tape::train(Rng::seed(0));
        assert!(matches!(
            double(&tape.input(Tensor::scalar(1.0))).backward(),
            Err(Error::NotRecorded { .. })
        ));
        let pair = tape.watch(Tensor::zeros([2]).unwrap());
        assert!(pair.backward().unwrap_err().to_string().contains("expected one element, found [2]"));
    }

    #[test]
    fn a_gradient_of_the_wrong_shape_is_an_error_that_names_the_op() {
        let tape = Tape::train(Rng::seed(0));
        let x = tape.watch(Tensor::zeros([2]).unwrap());
        let wrong = Var::op("wrong", [&x], crate::Shape::scalar(), |_| {
            (Tensor::scalar(0.0), |dy: Tensor, _| [Some(dy)])
        })
        .unwrap();
        assert_eq!(wrong.backward().unwrap_err().to_string(), "wrong: gradient: expected [2], found []");
    }

    #[test]
    fn nothing_is_recorded_or_kept_without_need() {
        let param = Param::new(Tensor::scalar(1.0));
        let tape = Tape::eval();
        double(&double(&tape.param(&param)));
        assert!(tape.nodes.borrow().is_empty());
        let tape = Tape::train(Rng::seed(0));
        let y = double(&tape.param(&param));
        y.backward().unwrap();
        drop(y);
        assert!(param.value().is_unique(), "backward released the weights: an update is in place");
    }

    #[test]
    fn ten_thousand_operations_on_a_small_stack() {
        let run = || {
            let tape = Tape::train(Rng::seed(0));
            let x = tape.watch(Tensor::scalar(1.0));
            let y = (0..10_000).fold(x.clone(), |y, _| {
                Var::op("same", [&y], *y.shape(), |[y]| (y.clone(), |dy: Tensor, _| [Some(dy)])).unwrap()
            });
            y.backward().unwrap().grad_of(&x).unwrap().item()
        };
        let thread = std::thread::Builder::new().stack_size(256 << 10).spawn(run).unwrap();
        assert_eq!(thread.join().unwrap(), 1.0);
    }
}
