//! A model and an optimizer that are as before when the diagnosis ends, however it ends.

use crate::{
    Result, Tensor,
    autograd::{NamedTensors, StateMut, StateRef},
    nn::Module,
    optim::Optimizer,
};

/// Lends a model and an optimizer, and restores both to the bit. The values before are held by
/// sharing their memory, which the first step copies, so that a dry look costs nothing.
pub(super) struct Restored<'a> {
    pub(super) model: &'a mut dyn Module,
    pub(super) optimizer: &'a mut dyn Optimizer,
    /// The values of parameters and buffers in the order of a visit.
    values: Vec<Tensor>,
    state: NamedTensors,
}

impl<'a> Restored<'a> {
    pub(super) fn new(model: &'a mut dyn Module, optimizer: &'a mut dyn Optimizer) -> Restored<'a> {
        let mut values = vec![];
        model.visit("", &mut |_, state| values.push(state.value().clone()));
        let state = optimizer.export();
        Restored { model, optimizer, values, state }
    }

    /// Makes the model and the optimizer what they were.
    pub(super) fn restore(&mut self) -> Result<()> {
        self.restore_model();
        self.optimizer.import(&*self.model, self.state.clone())
    }

    fn restore_model(&mut self) {
        let mut values = self.values.iter();
        self.model.visit_mut("", &mut |_, state| {
            let Some(value) = values.next() else { return };
            match state {
                StateMut::Param(param) => *param.value_mut() = value.clone(),
                StateMut::Buffer(buffer) => *buffer.value_mut() = value.clone(),
            }
        });
    }

    /// Calls `f` with the name of every parameter and buffer, its state now and its value before.
    pub(super) fn compare(&self, mut f: impl FnMut(&str, StateRef<'_>, &Tensor)) {
        let mut values = self.values.iter();
        self.model.visit("", &mut |name, state| {
            if let Some(value) = values.next() {
                f(name, state, value);
            }
        });
    }
}

/// Restores after an error or a panic, too.
impl Drop for Restored<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.restore() {
            log::warn!("diagnose: the state of the optimizer is not restored: {error}");
        }
    }
}
