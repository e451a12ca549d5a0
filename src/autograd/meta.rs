//! A pass on shapes alone: nothing is computed, and its cost is added up.
//!
//! On a meta tape, [`Var::op`] does not call the closure that computes. The output is a tensor
//! without elements, whose bytes count for as long as it exists. The tensors in the [`Cost`] of an
//! operation are allocated and freed in the same way, by the same backward sweep as on any tape. So
//! the bytes that count at any time are those that would be live, and their maximum is the peak
//! memory of the pass.

use super::{
    param::StateId,
    saved::Saved,
    tape::{Backward, Node, Tape, Var},
    unnamed::Met,
};
use crate::{Error, Result, Shape, Tensor, tensor::MemoryTracker};
use std::{
    any::Any,
    cell::{Cell, RefCell},
};

/// The cost of an operation besides its inputs and its output; see [`Var::costs`]. The default is
/// an operation that saves nothing and multiplies nothing.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Cost {
    /// The number of products that are added to a sum.
    pub multiply_adds: u64,
    /// The inputs that are saved for backward: values, or the results of [`Var::save`].
    pub saved_inputs: Vec<Saved>,
    /// Whether the output is saved for backward.
    pub saves_output: bool,
    /// The shapes of other tensors that forward computes and saves for backward.
    pub saved_intermediates: Vec<Shape>,
    /// The shapes of temporary tensors of forward.
    pub forward_workspace: Vec<Shape>,
    /// The shapes of temporary tensors of backward, besides gradients and recomputed inputs.
    pub backward_workspace: Vec<Shape>,
    /// The memory of the gradient of each input; [`GradientMemory::New`] for inputs beyond the end.
    pub gradients: Vec<GradientMemory>,
    /// The shapes of packed weights, which the first pass makes and the model keeps.
    pub packed_weights: Vec<Shape>,
    /// The input whose memory the output shares, if it is a view.
    pub view_of: Option<Tensor>,
}

impl Cost {
    /// Sets the number of products that are added to a sum.
    pub fn multiply_adds(self, multiply_adds: u64) -> Cost {
        Cost { multiply_adds, ..self }
    }

    /// Adds an input that is saved for backward: a value, or the result of [`Var::save`].
    pub fn save_input(mut self, input: impl Into<Saved>) -> Cost {
        self.saved_inputs.push(input.into());
        self
    }

    /// Says that the output is saved for backward.
    pub fn save_output(self) -> Cost {
        Cost { saves_output: true, ..self }
    }

    /// Adds another tensor that forward computes and saves for backward.
    pub fn save_intermediate(mut self, shape: Shape) -> Cost {
        self.saved_intermediates.push(shape);
        self
    }

    /// Adds a temporary tensor of forward.
    pub fn forward_workspace(mut self, shape: Shape) -> Cost {
        self.forward_workspace.push(shape);
        self
    }

    /// Adds a temporary tensor of backward.
    pub fn backward_workspace(mut self, shape: Shape) -> Cost {
        self.backward_workspace.push(shape);
        self
    }

    /// Sets the memory of the gradient of each input.
    pub fn gradients(self, gradients: impl Into<Vec<GradientMemory>>) -> Cost {
        Cost { gradients: gradients.into(), ..self }
    }
}

/// The memory of the gradient of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GradientMemory {
    /// The gradient is a new tensor.
    New,
    /// The gradient overwrites that of the output.
    InPlace,
    /// The gradient is that of the output, or a view of it.
    View,
    /// The gradient is the first of [`Cost::saved_intermediates`] that no other input took, since
    /// forward computed most of it.
    Intermediate,
}

/// An operation of a meta pass.
#[cfg_attr(not(feature = "onnx"), allow(dead_code, reason = "some of it is for translators only"))]
pub(crate) struct Operation {
    /// The name of the operation.
    pub(crate) name: &'static str,
    /// The path of the module that called it, if the pass is captured.
    pub(crate) path: String,
    /// The inputs.
    pub(crate) inputs: Vec<Operand>,
    /// The argument of [`Var::settings`], if it was called.
    pub(crate) settings: Option<Box<dyn Any>>,
    /// The identity of the output.
    pub(crate) output: StateId,
    /// The shape of the output.
    pub(crate) shape: Shape,
    /// The number of products that are added to a sum.
    pub(crate) multiply_adds: u64,
    tag: usize,
}

/// An input of an operation.
#[cfg_attr(not(feature = "onnx"), allow(dead_code, reason = "some of it is for translators only"))]
pub(crate) enum Operand {
    /// The output of another operation, or a placeholder.
    Computed(Option<StateId>, Shape),
    /// A parameter, or another tensor with elements.
    Given(Option<StateId>, Tensor),
}

impl Operand {
    /// Returns the sizes of its axes.
    #[cfg(feature = "onnx")]
    pub(crate) fn shape(&self) -> &Shape {
        match self {
            Operand::Computed(_, shape) => shape,
            Operand::Given(_, value) => value.shape(),
        }
    }

    fn of(var: &Var<'_>) -> Operand {
        match var.value.is_meta() {
            true => Operand::Computed(var.id, *var.shape()),
            false => Operand::Given(var.id, var.value.clone()),
        }
    }
}

impl Operation {
    /// Returns the parameters among the inputs.
    pub(crate) fn params(&self) -> impl Iterator<Item = StateId> {
        self.inputs.iter().filter_map(|input| match input {
            Operand::Given(id, _) => *id,
            Operand::Computed(..) => None,
        })
    }
}

/// The state of a meta tape.
pub(super) struct Meta {
    tracker: MemoryTracker,
    /// The tag of tensors that no operation made: inputs, gradients, updates.
    tag: usize,
    pub(super) operations: RefCell<Vec<Operation>>,
    packed: RefCell<Vec<Tensor>>,
    /// The trainable parameters and the observed buffers, in the order of the pass.
    pub(super) met: RefCell<Vec<Met>>,
    /// The number of errors that can still be recovered from.
    recoveries: Cell<usize>,
}

impl Default for Meta {
    fn default() -> Meta {
        let tracker = MemoryTracker::default();
        let tag = tracker.new_tag();
        let (operations, packed, met) = Default::default();
        Meta { tracker, tag, operations, packed, met, recoveries: Cell::new(0) }
    }
}

impl Meta {
    /// Makes a tensor without elements that belongs to no operation.
    pub(super) fn tensor(&self, shape: Shape) -> Tensor {
        Tensor::meta(shape, &self.tracker, self.tag)
    }

    /// Replaces the closure that recomputes a value: each pass makes a tensor of its size, and the
    /// last one is the value. The closure is not called, but the tensors that it captured exist.
    pub(super) fn recompute<C: 'static>(
        &self,
        passes: usize,
        shape: Shape,
        compute: C,
    ) -> impl Fn() -> Tensor + use<C> {
        let (tracker, tag) = (self.tracker.clone(), self.tag);
        move || {
            let _captured = &compute;
            let mut all: Vec<Tensor> =
                (0..passes.max(1)).map(|_| Tensor::meta(shape, &tracker, tag)).collect();
            all.swap_remove(0)
        }
    }

    /// Records [`Var::op_many`] on a meta tape. An operation without [`Var::costs`] is assumed to
    /// save all of its inputs and its output.
    pub(super) fn op<'t>(&self, name: &'static str, inputs: &[&Var<'t>], shape: Shape) -> Var<'t> {
        let tape = inputs[0].tape;
        let tag = self.tracker.new_tag();
        let output = StateId::fresh();
        self.operations.borrow_mut().push(Operation {
            name,
            path: tape.path(),
            inputs: inputs.iter().map(|input| Operand::of(input)).collect(),
            settings: None,
            output,
            shape,
            multiply_adds: 0,
            tag,
        });
        let value = Tensor::meta(shape, &self.tracker, tag);
        let node = inputs.iter().any(|v| v.node.is_some()).then(|| {
            let saved_inputs = inputs.iter().map(|v| v.value.clone().into()).collect();
            let cost = Cost { saved_inputs, saves_output: true, ..Cost::default() };
            let inputs: Vec<_> = inputs.iter().map(|v| v.node.map(|id| (id, *v.shape()))).collect();
            let backward = self.backward(cost, &inputs, &value);
            tape.push(Node::Op { name, inputs, backward })
        });
        Var { value, node, id: Some(output), recompute: None, tape }
    }

    /// Returns a backward function that takes the memory of an operation's.
    fn backward(&self, cost: Cost, inputs: &[Option<(usize, Shape)>], output: &Tensor) -> Backward {
        let (tracker, tag) = (self.tracker.clone(), self.tag);
        let operation = output.tag().unwrap_or(tag);
        let inputs: Vec<Option<Shape>> = inputs.iter().map(|input| input.map(|(_, shape)| shape)).collect();
        let output = cost.saves_output.then(|| output.clone());
        let mut intermediates: Vec<Tensor> =
            cost.saved_intermediates.iter().map(|shape| Tensor::meta(*shape, &tracker, operation)).collect();
        Box::new(move |mut dy: Tensor, _| {
            let meta = |shape: Shape| Tensor::meta(shape, &tracker, tag);
            let mut gradient = |(i, shape): (usize, Shape)| match cost.gradients.get(i) {
                Some(GradientMemory::InPlace) => {
                    dy.data_mut();
                    Some(dy.clone())
                }
                // A view has another shape, but the same number of elements.
                Some(GradientMemory::View) => dy.reshape(shape).ok(),
                Some(GradientMemory::Intermediate) if !intermediates.is_empty() => {
                    Some(intermediates.remove(0))
                }
                Some(GradientMemory::New | GradientMemory::Intermediate) | None => Some(meta(shape)),
            };
            let gradients = inputs.iter().enumerate().map(|(i, shape)| gradient((i, (*shape)?))).collect();
            // After the gradients: the peak of recomputing an input may be larger than the input.
            let saved: Vec<Tensor> = cost.saved_inputs.iter().map(Saved::value).collect();
            let used: Vec<Tensor> = cost.backward_workspace.iter().copied().map(meta).collect();
            drop((saved, used, output, intermediates));
            gradients
        })
    }

    /// Changes the record of the operation that made a value.
    fn amend(&self, var: &Var<'_>, change: impl FnOnce(&mut Operation)) {
        let mut operations = self.operations.borrow_mut();
        operations.iter_mut().rev().find(|operation| Some(operation.output) == var.id).map(change);
    }

    /// Replaces the assumed cost of the operation that made a value.
    fn set_cost(&self, var: &mut Var<'_>, cost: Cost) {
        self.amend(var, |operation| operation.multiply_adds = cost.multiply_adds);
        if let Some(view) = cost.view_of.as_ref().and_then(|shown| shown.reshape(var.shape()).ok()) {
            var.value = view;
        }
        self.packed.borrow_mut().extend(cost.packed_weights.iter().map(|shape| self.tensor(*shape)));
        let _used: Vec<Tensor> = cost.forward_workspace.iter().map(|shape| self.tensor(*shape)).collect();
        let mut nodes = var.tape.nodes.borrow_mut();
        match var.node.and_then(|id| nodes.get_mut(id)) {
            Some(Node::Op { inputs, backward, .. }) => *backward = self.backward(cost, inputs, &var.value),
            _ => drop(cost.saved_intermediates.iter().map(|shape| self.tensor(*shape)).collect::<Vec<_>>()),
        }
    }
}

impl<'t> Var<'t> {
    /// Declares the cost of the operation that made this value, for meta passes. On other tapes
    /// `cost` is not called.
    ///
    /// Call it on the result of [`Var::op`], before the result is used. Without it, a meta pass
    /// assumes that an operation saves its inputs and its output and multiplies nothing.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::{Cost, GradientMemory, Mode, Tape, Var}};
    /// /// Element-wise negation, which saves nothing.
    /// fn negate<'t>(x: &Var<'t>) -> Var<'t> {
    ///     Var::op("negate", [x], *x.shape(), |[x]| {
    ///         let mut y = x.clone();
    ///         y.scale(-1.0);
    ///         (y, |mut dy: Tensor, _| {
    ///             dy.scale(-1.0);
    ///             [Some(dy)]
    ///         })
    ///     })
    ///     .costs(|| Cost::default().gradients([GradientMemory::InPlace]))
    /// }
    /// let tape = Tape::meta(Mode::Train);
    /// let x = tape.placeholder(&[1 << 20])?;
    /// assert_eq!(negate(&x).shape(), [1 << 20]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn costs(mut self, cost: impl FnOnce() -> Cost) -> Var<'t> {
        if let Some(meta) = &self.tape.meta {
            meta.set_cost(&mut self, cost());
        }
        self
    }

    /// Records the settings of the operation that made this value, for translators of meta passes.
    /// On other tapes `settings` is not called.
    pub(crate) fn settings<S: Any>(self, settings: impl FnOnce() -> S) -> Var<'t> {
        if let Some(meta) = &self.tape.meta {
            meta.amend(&self, |operation| operation.settings = Some(Box::new(settings())));
        }
        self
    }

    /// Returns the identity of this value, if it is a parameter, a watched value or part of a meta
    /// pass.
    #[cfg(feature = "onnx")]
    pub(crate) fn id(&self) -> Option<StateId> {
        self.id
    }
}

/// Methods of meta tapes.
impl Tape {
    /// Returns whether this is a meta tape, on which nothing is computed.
    pub fn is_meta(&self) -> bool {
        self.meta.is_some()
    }

    /// Returns a value of this shape without elements, such as the images of a meta pass.
    ///
    /// # Errors
    /// [`Error::Argument`] if the shape is not valid (see [`Shape::new`]) or this is not a meta
    /// tape.
    pub fn placeholder(&self, shape: &[usize]) -> Result<Var<'_>> {
        match &self.meta {
            Some(meta) => {
                Ok(Var { id: Some(StateId::fresh()), ..self.input(meta.tensor(Shape::new(shape)?)) })
            }
            None => Err(Error::argument("placeholder", "tape", "a meta tape", "one that computes")),
        }
    }

    /// Recovers from the error of an operation, so that one meta pass can report several errors, as
    /// a compiler does.
    ///
    /// An operation whose arguments do not fit returns the result of this method. On a meta tape
    /// that collects errors, that is a value of `inferred_shape`, the shape that the output would
    /// have if the arguments fitted. Otherwise, or if no such shape is known, it is the error.
    ///
    /// # Errors
    /// `error`, if it is not recovered from.
    pub fn recover(&self, error: Error, inferred_shape: Option<Shape>) -> Result<Var<'_>> {
        match (&self.meta, inferred_shape) {
            (Some(meta), Some(shape)) if meta.recoveries.get() > 0 => {
                meta.recoveries.set(meta.recoveries.get() - 1);
                self.placeholder(&shape)
            }
            _ => Err(error),
        }
    }

    /// Makes the next `errors` errors of a meta tape recoverable.
    pub(crate) fn with_error_recovery(self, errors: usize) -> Tape {
        self.meta.iter().for_each(|meta| meta.recoveries.set(errors));
        self
    }

    /// Returns the number of errors that can still be recovered from.
    pub(crate) fn recoveries(&self) -> usize {
        self.meta.as_ref().map_or(0, |meta| meta.recoveries.get())
    }

    /// Returns the operations of a meta pass so far, each with the live bytes of the tensors it
    /// made.
    pub(crate) fn operations(&self) -> Vec<(Operation, usize)> {
        let Some(meta) = &self.meta else { return vec![] };
        let with_bytes = |operation: Operation| {
            let bytes = meta.tracker.live_bytes_of(operation.tag);
            (operation, bytes)
        };
        meta.operations.take().into_iter().map(with_bytes).collect()
    }

    /// Returns the live bytes of a meta pass now, and their peak.
    pub(crate) fn bytes(&self) -> [usize; 2] {
        self.meta.as_ref().map_or([0; 2], |meta| [meta.tracker.live(), meta.tracker.peak()])
    }
}
