//! Errors and memory of a pass, found without computing anything.

use crate::{
    Error, Result,
    autograd::{Mode, StateRef, Tape},
    nn::Module,
};

/// The memory that a pass takes, in bytes as [`memory::stats`](crate::memory::stats) counts them;
/// see [`ModuleExt::plan`](super::ModuleExt::plan).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// The parameters and buffers.
    pub model: usize,
    /// The parameters that are trained, of which an optimizer keeps up to two copies.
    pub trained: usize,
    /// What exists at the end of the forward pass besides the model, the images and the output: in
    /// training the activations that the backward pass needs.
    pub kept: usize,
    /// The peak of the pass without the model: images, activations and gradients.
    pub pass: usize,
}

impl Plan {
    /// Returns the peak of a training step with an optimizer that keeps `optimizer` tensors for
    /// each parameter: 0 for plain SGD, 1 with momentum, 2 for Adam and AdamW.
    pub fn peak(&self, optimizer: usize) -> usize {
        self.model + optimizer * self.trained + self.pass
    }
}

/// Finds all errors of a training pass: after each, the pass goes on.
pub(super) fn check<M: Module + ?Sized>(module: &M, shape: &[usize]) -> Result<()> {
    let tape = Tape::meta(Mode::Train).collect_faults().track_paths(module);
    let result = tape.placeholder(shape)?.apply(module);
    // An error that no operation raised ends the pass.
    let faults = tape.faults().into_iter().chain(result.err()).chain(tape.unnamed(module));
    let faults: Vec<Error> = faults.collect();
    if faults.is_empty() { Ok(()) } else { Err(Error::Faults { faults }) }
}

pub(super) fn plan<M: Module + ?Sized>(module: &M, shape: &[usize], mode: Mode) -> Result<Plan> {
    let (mut model, mut trained) = (0, 0);
    module.visit("", &mut |_, slot| {
        let bytes = slot.value().bytes();
        model += bytes;
        if let StateRef::Param(param) = slot
            && param.is_trainable()
        {
            trained += bytes;
        }
    });
    let tape = Tape::meta(mode).track_paths(module);
    let images = tape.placeholder(shape)?;
    let [before, _] = tape.bytes();
    let y = images.apply(module)?;
    tape.unnamed(module).into_iter().next().map_or(Ok(()), Err)?;
    let [after, _] = tape.bytes();
    let output = if y.value().is_unique() { y.value().bytes() } else { 0 };
    if y.is_recorded() {
        y.sum().backward()?;
    }
    let [_, pass] = tape.bytes();
    Ok(Plan { model, trained, kept: after - before - output, pass })
}

/// Doubles until it does not fit, then halves the range.
pub(super) fn largest_batch<M: Module + ?Sized>(
    module: &M,
    image: &[usize],
    mode: Mode,
    fits: &dyn Fn(&Plan) -> bool,
) -> Result<usize> {
    const MOST: usize = 1 << 20;
    let fits = |batch: usize| plan(module, &[&[batch], image].concat(), mode).map(|plan| fits(&plan));
    let (mut fitting, mut failing) = (0, 1);
    loop {
        match fits(failing) {
            Ok(true) if failing < MOST => (fitting, failing) = (failing, 2 * failing),
            Ok(true) => return Ok(failing),
            Ok(false) => break,
            // A batch of one may be too small for batch statistics.
            Err(_) if failing == 1 => failing = 2,
            Err(error) => return Err(error),
        }
    }
    while failing - fitting > 1 {
        let middle = fitting + (failing - fitting) / 2;
        match fits(middle) {
            Ok(true) => fitting = middle,
            Ok(false) => failing = middle,
            Err(_) if fitting == 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(fitting)
}
