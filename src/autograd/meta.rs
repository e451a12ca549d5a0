//! A pass on shapes alone: nothing is computed, and what it would take is added up.
//!
//! On a meta tape the entry point that all operations go through does not call the closure that computes. An output is a tensor without
//! numbers, whose bytes count for as long as it exists. What an operation says that it keeps and needs, its [`Cost`], is held
//! and let go as on any tape, by the same sweep; so what counts at any time is what would be live, and the most of it is what
//! the pass would take.

use super::{
    param::StateId,
    saved::Saved,
    tape::{Backward, Node, Tape, Var},
};
use crate::{Error, Result, Shape, Tensor, tensor::MemoryTracker};
use std::{
    any::Any,
    cell::{Cell, RefCell},
};

/// What an operation takes besides its inputs and its output: see [`Var::costs`]. The default keeps nothing.
#[derive(Clone, Default)]
pub struct Cost {
    /// Products that are added to a sum.
    pub multiply_adds: u64,
    /// Inputs that backward keeps: values, or what [`Var::save`] gave.
    pub saves: Vec<Saved>,
    /// Whether backward keeps the output.
    pub saves_output: bool,
    /// What else forward makes and backward keeps.
    pub makes: Vec<Shape>,
    /// Tensors that exist while forward runs, and no longer.
    pub forward: Vec<Shape>,
    /// Tensors that exist while backward runs, beside the gradients and inputs that are computed again.
    pub backward: Vec<Shape>,
    /// Where the gradient of each input is; new for those not said.
    pub gradients: Vec<GradientMemory>,
    /// What the first pass makes and the model holds from then on: packed weights.
    pub packs: Vec<Shape>,
    /// The input whose memory the output shares, if it does.
    pub view_of: Option<Tensor>,
}

/// Where a rule leaves the gradient of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GradientMemory {
    /// In memory of its own.
    New,
    /// In that of the output's gradient, which it replaces.
    InPlace,
    /// In that of the output's gradient, which it is.
    Shared,
    /// In the first of [`Cost::makes`] that no other input took: forward computed most of it.
    Made,
}

/// What a meta tape has seen of an operation.
#[cfg_attr(not(feature = "onnx"), allow(dead_code, reason = "some of it is for translators only"))]
pub(crate) struct Operation {
    /// Its name.
    pub(crate) name: &'static str,
    /// The path of the module that ran it, if the pass is followed.
    pub(crate) path: String,
    /// Its inputs.
    pub(crate) inputs: Vec<Operand>,
    /// What [`Var::settings`] said.
    pub(crate) settings: Option<Box<dyn Any>>,
    /// The output.
    pub(crate) output: StateId,
    /// The output's.
    pub(crate) shape: Shape,
    /// Products that are added to a sum.
    pub(crate) multiply_adds: u64,
    tag: usize,
}

/// An input of an operation.
#[cfg_attr(not(feature = "onnx"), allow(dead_code, reason = "some of it is for translators only"))]
pub(crate) enum Operand {
    /// What an operation made, or stands for images.
    Computed(Option<StateId>, Shape),
    /// A parameter, or another tensor with numbers.
    Given(Option<StateId>, Tensor),
}

impl Operand {
    /// The sizes of its axes.
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
    /// The parameters among its inputs.
    pub(crate) fn params(&self) -> impl Iterator<Item = StateId> {
        self.inputs.iter().filter_map(|input| match input {
            Operand::Given(id, _) => *id,
            Operand::Computed(..) => None,
        })
    }
}

/// What a meta tape has besides.
pub(super) struct Meta {
    tracker: MemoryTracker,
    /// Of what no operation made: inputs, gradients, updates.
    tag: usize,
    operations: RefCell<Vec<Operation>>,
    packed: RefCell<Vec<Tensor>>,
    /// How many errors are left to be forgiven.
    recoveries: Cell<usize>,
}

impl Default for Meta {
    fn default() -> Meta {
        let tracker = MemoryTracker::default();
        let tag = tracker.new_tag();
        let (operations, packed) = Default::default();
        Meta { tracker, tag, operations, packed, recoveries: Cell::new(0) }
    }
}

impl Meta {
    /// On no operation's account.
    pub(super) fn tensor(&self, shape: Shape) -> Tensor {
        Tensor::meta(shape, &self.tracker, self.tag)
    }

    /// What computes a value again, in place of what does it on other tapes: each pass makes a tensor of its size, and the last
    /// is the value. It is not called, but what it captured exists.
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

    /// [`Var::op_many`] on a meta tape. An operation that never says what it costs keeps all that it could.
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
            let saves = inputs.iter().map(|v| v.value.clone().into()).collect();
            let cost = Cost { saves, saves_output: true, ..Cost::default() };
            let inputs: Vec<_> = inputs.iter().map(|v| v.node.map(|id| (id, *v.shape()))).collect();
            let backward = self.rule(cost, &inputs, &value);
            tape.push(Node::Op { name, inputs, backward })
        });
        Var { value, node, id: Some(output), recompute: None, tape }
    }

    /// A rule that takes the memory of an operation's.
    fn rule(&self, cost: Cost, inputs: &[Option<(usize, Shape)>], output: &Tensor) -> Backward {
        let (tracker, tag) = (self.tracker.clone(), self.tag);
        let operation = output.tag().unwrap_or(tag);
        let inputs: Vec<Option<Shape>> = inputs.iter().map(|input| input.map(|(_, shape)| shape)).collect();
        let output = cost.saves_output.then(|| output.clone());
        let mut made: Vec<Tensor> =
            cost.makes.iter().map(|shape| Tensor::meta(*shape, &tracker, operation)).collect();
        Box::new(move |mut dy: Tensor, _| {
            let meta = |shape: Shape| Tensor::meta(shape, &tracker, tag);
            let mut gradient = |(i, shape): (usize, Shape)| match cost.gradients.get(i) {
                Some(GradientMemory::InPlace) => {
                    dy.data_mut();
                    Some(dy.clone())
                }
                // The shapes of a view and of what it shows differ, and their numbers of elements do not.
                Some(GradientMemory::Shared) => dy.reshape(shape).ok(),
                Some(GradientMemory::Made) if !made.is_empty() => Some(made.remove(0)),
                Some(GradientMemory::New | GradientMemory::Made) | None => Some(meta(shape)),
            };
            let gradients = inputs.iter().enumerate().map(|(i, shape)| gradient((i, (*shape)?))).collect();
            // Behind the gradients: computing an input again may take more on the way than in the end.
            let saved: Vec<Tensor> = cost.saves.iter().map(Saved::value).collect();
            let used: Vec<Tensor> = cost.backward.iter().copied().map(meta).collect();
            drop((saved, used, output, made));
            gradients
        })
    }

    /// Changes what was noted of the operation that made a value.
    fn amend(&self, var: &Var<'_>, change: impl FnOnce(&mut Operation)) {
        let mut operations = self.operations.borrow_mut();
        operations.iter_mut().rev().find(|operation| Some(operation.output) == var.id).map(change);
    }

    /// Replaces what was assumed of the operation that made a value.
    fn settle(&self, var: &mut Var<'_>, cost: Cost) {
        self.amend(var, |operation| operation.multiply_adds = cost.multiply_adds);
        if let Some(view) = cost.view_of.as_ref().and_then(|shown| shown.reshape(var.shape()).ok()) {
            var.value = view;
        }
        self.packed.borrow_mut().extend(cost.packs.iter().map(|shape| self.tensor(*shape)));
        let _used: Vec<Tensor> = cost.forward.iter().map(|shape| self.tensor(*shape)).collect();
        let mut nodes = var.tape.nodes.borrow_mut();
        match var.node.and_then(|id| nodes.get_mut(id)) {
            Some(Node::Op { inputs, backward, .. }) => *backward = self.rule(cost, inputs, &var.value),
            _ => drop(cost.makes.iter().map(|shape| self.tensor(*shape)).collect::<Vec<_>>()),
        }
    }
}

impl<'t> Var<'t> {
    /// Says what the operation that made this value takes, for meta passes; elsewhere `cost` is not called. For the result of
    /// [`Var::op`], before anything else is done with it. Of an operation that says nothing, a meta pass assumes that it keeps its
    /// inputs and its output and multiplies nothing.
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
    ///     .costs(|| Cost { gradients: vec![GradientMemory::InPlace], ..Cost::default() })
    /// }
    /// let tape = Tape::meta(Mode::Train);
    /// let x = tape.placeholder(&[1 << 20])?;
    /// assert_eq!(negate(&x).shape(), [1 << 20]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn costs(mut self, cost: impl FnOnce() -> Cost) -> Var<'t> {
        if let Some(meta) = &self.tape.meta {
            meta.settle(&mut self, cost());
        }
        self
    }

    /// Says with which settings the operation that made this value ran, for translators of meta passes; elsewhere `settings` is not
    /// called.
    pub(crate) fn settings<S: Any>(self, settings: impl FnOnce() -> S) -> Var<'t> {
        if let Some(meta) = &self.tape.meta {
            meta.amend(&self, |operation| operation.settings = Some(Box::new(settings())));
        }
        self
    }

    /// Which value this is: a parameter, a watched one, or one of a meta pass.
    #[cfg(feature = "onnx")]
    pub(crate) fn id(&self) -> Option<StateId> {
        self.id
    }
}

/// Of meta tapes.
impl Tape {
    /// Whether nothing is computed on it.
    pub fn is_meta(&self) -> bool {
        self.meta.is_some()
    }

    /// A value of this shape without numbers: what stands for images on a meta tape.
    ///
    /// # Errors
    /// [`Error::Argument`] for an absurd shape, or if the tape is not dry.
    pub fn placeholder(&self, shape: &[usize]) -> Result<Var<'_>> {
        match &self.meta {
            Some(meta) => {
                Ok(Var { id: Some(StateId::fresh()), ..self.input(meta.tensor(Shape::new(shape)?)) })
            }
            None => Err(Error::argument("placeholder", "tape", "a meta tape", "one that computes")),
        }
    }

    /// What an operation that refuses its arguments returns: the error, unless a meta pass looks for what else does not fit. Then
    /// it is a value of the shape that the output would have if all fitted.
    ///
    /// # Errors
    /// The error.
    pub fn recover(&self, error: Error, inferred_shape: Option<Shape>) -> Result<Var<'_>> {
        match (&self.meta, inferred_shape) {
            (Some(meta), Some(shape)) if meta.recoveries.get() > 0 => {
                meta.recoveries.set(meta.recoveries.get() - 1);
                self.placeholder(&shape)
            }
            _ => Err(error),
        }
    }

    /// The same meta tape, forgiving so many errors.
    pub(crate) fn with_error_recovery(self, errors: usize) -> Tape {
        self.meta.iter().for_each(|meta| meta.recoveries.set(errors));
        self
    }

    /// How many errors are left to be forgiven.
    pub(crate) fn recoveries(&self) -> usize {
        self.meta.as_ref().map_or(0, |meta| meta.recoveries.get())
    }

    /// The operations of a meta pass so far, each with the bytes that exist of what it made.
    pub(crate) fn operations(&self) -> Vec<(Operation, usize)> {
        let Some(meta) = &self.meta else { return vec![] };
        let with_bytes = |operation: Operation| {
            let bytes = meta.tracker.live_bytes_of(operation.tag);
            (operation, bytes)
        };
        meta.operations.take().into_iter().map(with_bytes).collect()
    }

    /// Bytes that exist now, and the most that did, of a meta pass.
    pub(crate) fn bytes(&self) -> [usize; 2] {
        self.meta.as_ref().map_or([0; 2], |meta| [meta.tracker.live(), meta.tracker.peak()])
    }
}
