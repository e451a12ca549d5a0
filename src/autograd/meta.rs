//! A pass on shapes alone: nothing is computed, and its cost is added up.
//!
//! On a meta tape, [`Op::apply`] does not call [`Op::forward`]. The output is a tensor without
//! elements, whose bytes count for as long as it exists. The tensors in the [`Cost`] of an
//! operation are allocated and freed in the same way, by the same backward sweep as on any tape. So
//! the bytes that count at any time are those that would be live, and their maximum is the peak
//! memory of the pass.

use super::{
    kind::Kind,
    op::{AnyOp, Fault, Input, Op},
    param::StateId,
    saved::{Recompute, Saved},
    tape::{Backward, Node, Tape, Var},
    unnamed::Met,
};
use crate::{Error, Result, Shape, Tensor, tensor::MemoryTracker};
use std::{cell::RefCell, collections::BTreeSet, sync::Arc};

/// The cost of an operation besides its inputs and its output; see [`Op::cost`]. The default is an
/// operation that saves nothing and multiplies nothing.
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
    /// The input whose memory the output shares, if it is a view.
    pub view_of: Option<Tensor>,
    /// How backward computes the output again, if [`Op::recompute`] says that it can.
    pub recompute: Option<RecomputeCost>,
}

/// The cost of computing an output again in backward.
#[derive(Clone)]
#[non_exhaustive]
pub struct RecomputeCost {
    /// The number of passes over memory.
    pub passes: usize,
    /// What it is computed from.
    pub saved: Vec<Saved>,
}

impl Cost {
    /// Returns the cost of an operation that saves its inputs and its output, the most that it can.
    pub fn saving_everything(inputs: &[Input<'_>]) -> Cost {
        let saved_inputs = inputs.iter().map(|input| input.value().clone().into()).collect();
        Cost { saved_inputs, saves_output: true, ..Cost::default() }
    }

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

    /// Says that the output can be computed again, in this number of passes over memory, from
    /// what is `saved`.
    pub fn recompute(self, passes: usize, saved: Vec<Saved>) -> Cost {
        Cost { recompute: Some(RecomputeCost { passes, saved }), ..self }
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
pub(crate) struct Operation {
    /// The operation itself.
    pub(crate) op: Arc<dyn AnyOp>,
    /// What it is to those who read a graph.
    pub(crate) kind: Kind,
    /// The path of the module that called it, if the pass is captured.
    pub(crate) path: String,
    /// The inputs.
    pub(crate) inputs: Vec<Operand>,
    /// The identity of the output.
    pub(crate) output: StateId,
    /// The shape of the output.
    pub(crate) shape: Shape,
    /// The number of products that are added to a sum.
    pub(crate) multiply_adds: u64,
    /// The live bytes of the tensors that it made, when the operations were taken.
    pub(crate) live_bytes: usize,
    tag: usize,
}

/// An input of an operation.
#[derive(Clone)]
pub(crate) enum Operand {
    /// The output of another operation, or a placeholder.
    Computed(Option<StateId>),
    /// A parameter, or another tensor with elements.
    Given(Option<StateId>, Tensor),
}

impl Operand {
    pub(crate) fn of(var: &Var<'_>) -> Operand {
        match var.value.is_meta() {
            true => Operand::Computed(var.id),
            false => Operand::Given(var.id, var.value.clone()),
        }
    }
}

/// The state of a meta tape.
pub(super) struct Meta {
    tracker: MemoryTracker,
    /// The tag of tensors that no operation made: inputs, gradients, updates.
    tag: usize,
    pub(super) operations: RefCell<Vec<Operation>>,
    /// The trainable parameters and the observed buffers, in the order of the pass.
    pub(super) met: RefCell<Vec<Met>>,
    /// The faults so far, if the pass collects them instead of ending at the first.
    faults: Option<RefCell<Vec<Error>>>,
    /// The values whose shape is not known since a fault; what is computed from them is not either.
    unknown: RefCell<BTreeSet<StateId>>,
}

impl Default for Meta {
    fn default() -> Meta {
        let tracker = MemoryTracker::default();
        let tag = tracker.new_tag();
        let (operations, met, unknown) = Default::default();
        Meta { tracker, tag, operations, met, faults: None, unknown }
    }
}

impl Meta {
    /// Makes a tensor without elements that belongs to no operation.
    pub(super) fn tensor(&self, shape: Shape) -> Tensor {
        Tensor::meta(shape, &self.tracker, self.tag)
    }

    /// Returns the way to recompute a value, in which each pass makes a tensor of its size, and the
    /// last one is the value. `captured` exists for as long.
    pub(super) fn recompute<C: 'static>(&self, passes: usize, shape: Shape, captured: C) -> Recompute {
        let (tracker, tag) = (self.tracker.clone(), self.tag);
        Recompute::new(passes, move || {
            let _captured = &captured;
            let mut all: Vec<Tensor> =
                (0..passes.max(1)).map(|_| Tensor::meta(shape, &tracker, tag)).collect();
            all.swap_remove(0)
        })
    }

    /// Records an operation, as [`Op::apply`] runs it on other tapes. After a fault, a pass that
    /// collects faults goes on with the shape that the output would have.
    pub(super) fn apply<'t, O: Op>(&self, op: O, inputs: &[&Var<'t>]) -> Result<Var<'t>> {
        let operands: Vec<Input<'_>> = inputs.iter().map(|input| Input::of(input)).collect();
        let is_unknown = |input: &&Var<'_>| input.id.is_some_and(|id| self.unknown.borrow().contains(&id));
        let from_unknown = inputs.iter().any(is_unknown);
        match Op::output_shape(&op, &operands) {
            Ok(shape) => {
                let y = self.record(op, inputs, &operands, shape);
                Ok(if from_unknown { self.with_unknown_shape(y) } else { y })
            }
            Err(fault) => self.recover(fault, from_unknown, inputs[0]),
        }
    }

    /// Goes on after a fault, if the pass collects them. What does not fit a value of unknown shape
    /// is no fault of its own.
    fn recover<'t>(&self, fault: Fault, from_unknown: bool, input: &Var<'t>) -> Result<Var<'t>> {
        let (error, inferred_shape) = fault.into_parts();
        let Some(faults) = &self.faults else { return Err(error) };
        if !from_unknown {
            faults.borrow_mut().push(error.in_module(input.tape.path()));
        }
        let y = input.tape.placeholder(&inferred_shape.unwrap_or(*input.shape()))?;
        let is_unknown = from_unknown || inferred_shape.is_none();
        Ok(if is_unknown { self.with_unknown_shape(y) } else { y })
    }

    fn with_unknown_shape<'t>(&self, y: Var<'t>) -> Var<'t> {
        self.unknown.borrow_mut().extend(y.id);
        y
    }

    /// Records an operation whose inputs fit.
    fn record<'t, O: Op>(&self, op: O, inputs: &[&Var<'t>], operands: &[Input<'_>], shape: Shape) -> Var<'t> {
        let tape = inputs[0].tape;
        let (tag, output, name) = (self.tracker.new_tag(), StateId::fresh(), Op::name(&op));
        let cost = Op::cost(&op, operands, shape);
        self.operations.borrow_mut().push(Operation {
            kind: Op::kind(&op, operands),
            op: Arc::new(op),
            path: tape.path(),
            inputs: inputs.iter().map(|input| Operand::of(input)).collect(),
            output,
            shape,
            multiply_adds: cost.multiply_adds,
            live_bytes: 0,
            tag,
        });
        let view = cost.view_of.as_ref().and_then(|shown| shown.reshape(shape).ok());
        let value = view.unwrap_or_else(|| Tensor::meta(shape, &self.tracker, tag));
        let _workspace: Vec<Tensor> =
            cost.forward_workspace.iter().map(|shape| self.tensor(*shape)).collect();
        if operands.iter().all(|input| !input.needs_gradient()) {
            drop(cost.saved_intermediates.iter().map(|shape| self.tensor(*shape)).collect::<Vec<_>>());
            return Var { value, node: None, id: Some(output), recompute: None, tape };
        }
        let recompute = cost.recompute.clone();
        let recompute = recompute.map(|RecomputeCost { passes, saved }| self.recompute(passes, shape, saved));
        let inputs: Vec<_> = inputs.iter().map(|v| v.node.map(|id| (id, *v.shape()))).collect();
        let backward = self.backward(cost, tag, &inputs, &value);
        let node = Some(tape.push(Node::Op { name, inputs, backward }));
        Var { value, node, id: Some(output), recompute, tape }
    }

    /// Returns a backward function that takes the memory of an operation's.
    fn backward(
        &self,
        cost: Cost,
        operation: usize,
        inputs: &[Option<(usize, Shape)>],
        output: &Tensor,
    ) -> Backward {
        let (tracker, tag) = (self.tracker.clone(), self.tag);
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

    /// Makes a meta tape collect the faults of operations: after each, the pass goes on with the
    /// shape that the output would have if everything fitted. If that is not known either, what is
    /// computed from the output is not checked.
    pub(crate) fn collect_faults(mut self) -> Tape {
        if let Some(meta) = &mut self.meta {
            meta.faults = Some(RefCell::default());
        }
        self
    }

    /// Returns whether this is a meta tape that collects faults.
    pub(crate) fn collects_faults(&self) -> bool {
        self.meta.as_ref().is_some_and(|meta| meta.faults.is_some())
    }

    /// Returns the faults of a meta tape that collects them.
    pub(crate) fn faults(&self) -> Vec<Error> {
        let faults = self.meta.as_ref().and_then(|meta| meta.faults.as_ref());
        faults.map_or(vec![], RefCell::take)
    }

    /// Takes the operations of a meta pass so far.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        let Some(meta) = &self.meta else { return vec![] };
        let with_bytes = |operation: Operation| {
            let live_bytes = meta.tracker.live_bytes_of(operation.tag);
            Operation { live_bytes, ..operation }
        };
        meta.operations.take().into_iter().map(with_bytes).collect()
    }

    /// Returns the live bytes of a meta pass now, and their peak.
    pub(crate) fn bytes(&self) -> [usize; 2] {
        self.meta.as_ref().map_or([0; 2], |meta| [meta.tracker.live(), meta.tracker.peak()])
    }
}
