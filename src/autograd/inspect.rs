//! A look at every operation of a pass, as PyTorch's forward hooks.

use super::{kind::Kind, op::Input, state::State, tape::Tape};
use crate::Tensor;

/// An operation that a pass has just computed.
pub(crate) struct Computed<'a> {
    /// What the operation is.
    pub(crate) kind: Kind,
    /// The path of the module that called it.
    pub(crate) path: String,
    pub(crate) inputs: &'a [Input<'a>],
    pub(crate) output: &'a Tensor,
}

pub(super) type Inspector = Box<dyn Fn(&Computed<'_>)>;

impl Tape {
    /// Returns the same tape, which computes every module of `root` as it is defined, not fused,
    /// and shows each operation to `inspector`.
    pub(crate) fn inspect(
        self,
        root: &(impl State + ?Sized),
        inspector: impl Fn(&Computed<'_>) + 'static,
    ) -> Tape {
        let mut tape = self.capture_all(root);
        tape.inspector = Some(Box::new(inspector));
        tape
    }

    /// Shows an operation to the inspector, if there is one.
    pub(super) fn show(&self, kind: impl FnOnce() -> Kind, inputs: &[Input<'_>], output: &Tensor) {
        if let Some(inspector) = &self.inspector {
            inspector(&Computed { kind: kind(), path: self.path(), inputs, output });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rng, blocks::BasicBlock, nn::Module};
    use std::{cell::RefCell, rc::Rc};

    #[test]
    fn a_fused_block_shows_the_operations_of_its_definition() {
        let block = BasicBlock::new(2, 2, &mut Rng::seed(0)).unwrap();
        let seen = Rc::new(RefCell::new(vec![]));
        let inspector = {
            let seen = seen.clone();
            move |op: &Computed<'_>| {
                assert_eq!(op.inputs[0].shape(), op.output.shape());
                seen.borrow_mut().push((op.path.clone(), format!("{:?}", op.kind)));
            }
        };
        let tape = Tape::train(Rng::seed(1)).recording(false).inspect(&block, inspector);
        let x = Tensor::uniform([2, 4, 4, 2], 0.0, 1.0, &mut Rng::seed(2)).unwrap();
        block.forward(&tape.input(x)).unwrap();
        let seen = seen.borrow();
        let paths: Vec<&str> = seen.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["conv1", "bn1", "", "conv2", "bn2", "", ""]);
        let kinds: Vec<&str> = seen.iter().map(|(_, kind)| kind.split(' ').next().unwrap()).collect();
        assert_eq!(kinds, ["Conv2d", "BatchNorm", "Relu", "Conv2d", "BatchNorm", "Add", "Relu"]);
    }
}
