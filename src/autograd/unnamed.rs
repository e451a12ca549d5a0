//! State that a pass meets and that the model does not name: a field with `#[state(skip)]`, or one
//! that a hand-written visitor leaves out. It would be neither trained nor saved.

use super::{
    meta::{Meta, Operand},
    param::StateId,
    state::{State, StateRef},
    tape::Tape,
    updates::Updates,
};
use crate::{At, Error, Result, Shape};
use std::collections::BTreeMap;

/// A trainable parameter that a meta pass read, or a buffer for which it observed a value.
pub(super) struct Met {
    kind: &'static str,
    id: StateId,
    shape: Shape,
    /// The path of the module that ran, if the tape knows it.
    path: String,
    /// The operation before, whose statistics a buffer takes up.
    before: Option<&'static str>,
}

const PARAMETER: &str = "trainable parameter";
const BUFFER: &str = "buffer";

/// The first operation that read a parameter, of which backward found a gradient.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader {
    pub(super) operation: &'static str,
    /// The place of the parameter on the tape.
    pub(super) node: usize,
}

impl Meta {
    /// Takes note of a trainable parameter or of an observed buffer.
    pub(super) fn meet(&self, state: StateRef<'_>, path: String) {
        let shape = *state.value().shape();
        let (kind, before) = match state {
            StateRef::Param(_) => (PARAMETER, None),
            StateRef::Buffer(_) => (BUFFER, self.operations.borrow().last().map(|last| last.op.name())),
        };
        self.met.borrow_mut().push(Met { kind, id: state.id(), shape, path, before });
    }

    /// Returns the first operation that read a parameter.
    fn reader(&self, id: StateId) -> Option<&'static str> {
        let operations = self.operations.borrow();
        let reads = |operand: &Operand| matches!(operand, Operand::Given(Some(read), _) if *read == id);
        let first = operations.iter().find(|operation| operation.inputs.iter().any(reads));
        first.map(|operation| operation.op.name())
    }
}

fn names(model: &(impl State + ?Sized)) -> BTreeMap<StateId, String> {
    let mut names = BTreeMap::new();
    model.visit("", &mut |name, state| {
        names.entry(state.id()).or_insert_with(|| name.to_string());
    });
    names
}

impl Tape {
    /// Returns an error for each trainable parameter and each observed buffer that a meta pass met
    /// and the state of `model` does not name.
    pub(crate) fn unnamed(&self, model: &(impl State + ?Sized)) -> Vec<Error> {
        let Some(meta) = &self.meta else { return vec![] };
        let mut names = names(model);
        let mut errors = vec![];
        for Met { kind, id, shape, path, before } in meta.met.borrow().iter() {
            // A state that is met again is reported once.
            if names.insert(*id, String::new()).is_some() {
                continue;
            }
            let op = before.or_else(|| meta.reader(*id)).unwrap_or("param");
            let error = Err::<(), Error>(Error::NotInState { kind, op, shape: shape.to_vec(), after: None });
            let error = if path.is_empty() { error } else { error.at(path) };
            errors.extend(error.err());
        }
        errors
    }
}

impl Updates {
    /// Checks that every parameter with a gradient, and every buffer with an observed value, is in
    /// the state of `model`. Optimizers call it before a step: what a model's state leaves out
    /// would otherwise silently never be trained.
    ///
    /// A step that is meant for a part of what a pass read has a way to say so: freeze the rest,
    /// which then has no gradients and costs no backward pass, or take the updates of the part by
    /// [`Updates::split_off`].
    ///
    /// # Errors
    /// [`Error::NotInState`] about the first of them in the order of the pass.
    ///
    /// ```
    /// use skipgrad::{Rng, Tensor, autograd::{Param, Tape}};
    /// let (named, forgotten) = (Param::new(Tensor::scalar(2.0)), Param::new(Tensor::scalar(3.0)));
    /// let tape = Tape::train(Rng::seed(0));
    /// let updates = tape.param(&named).mul(&tape.param(&forgotten))?.backward()?;
    /// let error = updates.check_named(&named).unwrap_err().to_string();
    /// assert!(error.starts_with("mul: a trainable parameter of shape [] is not in"), "{error}");
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn check_named(&self, model: &(impl State + ?Sized)) -> Result<()> {
        let names = names(model);
        let unnamed = self.readers.iter().filter(|(id, _)| !names.contains_key(id));
        let unnamed = unnamed.filter_map(|(id, reader)| Some((*reader, self.gradients.get(id)?)));
        if let Some((reader, gradient)) = unnamed.min_by_key(|(reader, _)| reader.node) {
            let earlier = self.readers.iter().filter(|(_, other)| other.node < reader.node);
            let earlier = earlier.filter_map(|(id, other)| Some((other.node, names.get(id)?)));
            let after = earlier.max_by_key(|(node, _)| *node).map(|(_, name)| name.clone());
            let after = after.filter(|name| !name.is_empty());
            let (op, shape) = (reader.operation, gradient.shape().to_vec());
            return Err(Error::NotInState { kind: PARAMETER, op, shape, after });
        }
        match self.observed.iter().find(|(id, _)| !names.contains_key(id)) {
            None => Ok(()),
            Some((_, value)) => {
                let shape = value.shape().to_vec();
                Err(Error::NotInState { kind: BUFFER, op: "observe", shape, after: None })
            }
        }
    }

    /// Removes and returns the updates of a part of the model, so that an optimizer steps this part
    /// alone, or each part has an optimizer of its own.
    ///
    /// ```
    /// use skipgrad::{Rng, Tensor, autograd::{Param, Tape}, optim::{Adam, Optimizer, Sgd}};
    /// let mut body = Param::new(Tensor::scalar(2.0));
    /// let mut head = Param::new(Tensor::scalar(3.0));
    /// let tape = Tape::train(Rng::seed(0));
    /// let mut updates = tape.param(&body).mul(&tape.param(&head))?.backward()?;
    /// let of_head = updates.split_off(&head);
    /// Adam::new(0.1).step(&mut head, of_head)?;
    /// Sgd::new(0.1).step(&mut body, updates)?;
    /// assert!(head.value().item() < 3.0 && body.value().item() < 2.0);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn split_off(&mut self, part: &(impl State + ?Sized)) -> Updates {
        let mut of_part = Updates { passes: self.passes, ..Updates::default() };
        part.visit("", &mut |_, state| {
            let id = state.id();
            of_part.gradients.extend(self.gradients.remove_entry(&id));
            of_part.observed.extend(self.observed.remove_entry(&id));
            of_part.readers.extend(self.readers.remove_entry(&id));
        });
        of_part
    }
}
