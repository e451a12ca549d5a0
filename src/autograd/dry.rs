//! A pass on shapes alone: nothing is computed, and what it would take is added up.
//!
//! On a dry tape the door that all operations go through does not call the closure that computes. An output is a tensor without
//! numbers, whose bytes count for as long as it exists. What an operation says that it keeps and needs, its [`Cost`], is held
//! and let go as on any tape, by the same sweep; so what counts at any time is what would be live, and the most of it is what
//! the pass would take.

use super::{
    kept::Kept,
    param::StateId,
    tape::{Backward, Node, Tape, Var},
};
use crate::{Error, Result, Shape, Tensor, tensor::Ledger};
use std::{
    any::Any,
    cell::{Cell, RefCell},
};

/// What an operation takes besides its inputs and its output: see [`Var::costs`]. The default keeps nothing.
#[derive(Clone, Default)]
pub struct Cost {
    /// Products that are added to a sum.
    pub multiply_adds: u64,
    /// Inputs that backward keeps: values, or what [`Var::keep`] gave.
    pub keeps: Vec<Kept>,
    /// Whether backward keeps the output.
    pub keeps_output: bool,
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

/// What a dry tape has seen of an operation.
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
    account: usize,
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
        match var.value.is_dry() {
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

/// What a dry tape has besides.
pub(super) struct Dry {
    ledger: Ledger,
    /// Of what no operation made: inputs, gradients, updates.
    account: usize,
    operations: RefCell<Vec<Operation>>,
    packed: RefCell<Vec<Tensor>>,
    /// How many refusals are left to be forgiven.
    forgives: Cell<usize>,
}

impl Default for Dry {
    fn default() -> Dry {
        let ledger = Ledger::default();
        let account = ledger.open_account();
        let (operations, packed) = Default::default();
        Dry { ledger, account, operations, packed, forgives: Cell::new(0) }
    }
}

impl Dry {
    /// On no operation's account.
    pub(super) fn tensor(&self, shape: Shape) -> Tensor {
        Tensor::dry(shape, &self.ledger, self.account)
    }

    /// What computes a value again, in place of what does it on other tapes: each pass makes a tensor of its size, and the last
    /// is the value. It is not called, but what it captured exists.
    pub(super) fn again<C: 'static>(
        &self,
        passes: usize,
        shape: Shape,
        compute: C,
    ) -> impl Fn() -> Tensor + use<C> {
        let (ledger, account) = (self.ledger.clone(), self.account);
        move || {
            let _captured = &compute;
            let mut all: Vec<Tensor> =
                (0..passes.max(1)).map(|_| Tensor::dry(shape, &ledger, account)).collect();
            all.swap_remove(0)
        }
    }

    /// [`Var::op_many`] on a dry tape. An operation that never says what it costs keeps all that it could.
    pub(super) fn op<'t>(&self, name: &'static str, inputs: &[&Var<'t>], shape: Shape) -> Var<'t> {
        let tape = inputs[0].tape;
        let account = self.ledger.open_account();
        let output = StateId::fresh();
        self.operations.borrow_mut().push(Operation {
            name,
            path: tape.path(),
            inputs: inputs.iter().map(|input| Operand::of(input)).collect(),
            settings: None,
            output,
            shape,
            multiply_adds: 0,
            account,
        });
        let value = Tensor::dry(shape, &self.ledger, account);
        let node = inputs.iter().any(|v| v.node.is_some()).then(|| {
            let keeps = inputs.iter().map(|v| v.value.clone().into()).collect();
            let cost = Cost { keeps, keeps_output: true, ..Cost::default() };
            let inputs: Vec<_> = inputs.iter().map(|v| v.node.map(|id| (id, *v.shape()))).collect();
            let backward = self.rule(cost, &inputs, &value);
            tape.push(Node::Op { name, inputs, backward })
        });
        Var { value, node, id: Some(output), again: None, tape }
    }

    /// A rule that takes the memory of an operation's.
    fn rule(&self, cost: Cost, inputs: &[Option<(usize, Shape)>], output: &Tensor) -> Backward {
        let (ledger, account) = (self.ledger.clone(), self.account);
        let operation = output.account().unwrap_or(account);
        let inputs: Vec<Option<Shape>> = inputs.iter().map(|input| input.map(|(_, shape)| shape)).collect();
        let output = cost.keeps_output.then(|| output.clone());
        let mut made: Vec<Tensor> =
            cost.makes.iter().map(|shape| Tensor::dry(*shape, &ledger, operation)).collect();
        Box::new(move |mut dy: Tensor, _| {
            let dry = |shape: Shape| Tensor::dry(shape, &ledger, account);
            let mut gradient = |(i, shape): (usize, Shape)| match cost.gradients.get(i) {
                Some(GradientMemory::InPlace) => {
                    dy.data_mut();
                    Some(dy.clone())
                }
                // The shapes of a view and of what it shows differ, and their numbers of elements do not.
                Some(GradientMemory::Shared) => dy.reshape(shape).ok(),
                Some(GradientMemory::Made) if !made.is_empty() => Some(made.remove(0)),
                Some(GradientMemory::New | GradientMemory::Made) | None => Some(dry(shape)),
            };
            let gradients = inputs.iter().enumerate().map(|(i, shape)| gradient((i, (*shape)?))).collect();
            // Behind the gradients: computing an input again may take more on the way than in the end.
            let kept: Vec<Tensor> = cost.keeps.iter().map(Kept::value).collect();
            let used: Vec<Tensor> = cost.backward.iter().copied().map(dry).collect();
            drop((kept, used, output, made));
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
    /// Says what the operation that made this value takes, for dry passes; elsewhere `cost` is not called. For the result of
    /// [`Var::op`], before anything else is done with it. Of an operation that says nothing, a dry pass assumes that it keeps its
    /// inputs and its output and multiplies nothing.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::{Cost, GradientMemory, Mode, Tape, Var}};
    /// /// Element-wise negation, which keeps nothing.
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
    /// let tape = Tape::dry(Mode::Train);
    /// let x = tape.placeholder(&[1 << 20])?;
    /// assert_eq!(negate(&x).shape()[..], [1 << 20]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn costs(mut self, cost: impl FnOnce() -> Cost) -> Var<'t> {
        if let Some(dry) = &self.tape.dry {
            dry.settle(&mut self, cost());
        }
        self
    }

    /// Says with which settings the operation that made this value ran, for translators of dry passes; elsewhere `settings` is not
    /// called.
    pub(crate) fn settings<S: Any>(self, settings: impl FnOnce() -> S) -> Var<'t> {
        if let Some(dry) = &self.tape.dry {
            dry.amend(&self, |operation| operation.settings = Some(Box::new(settings())));
        }
        self
    }

    /// Which value this is: a parameter, a watched one, or one of a dry pass.
    #[cfg(feature = "onnx")]
    pub(crate) fn id(&self) -> Option<StateId> {
        self.id
    }
}

/// Of dry tapes.
impl Tape {
    /// Whether nothing is computed on it.
    pub fn is_dry(&self) -> bool {
        self.dry.is_some()
    }

    /// A value of this shape without numbers: what stands for images on a dry tape.
    ///
    /// # Errors
    /// [`Error::Argument`] for an absurd shape, or if the tape is not dry.
    pub fn placeholder(&self, shape: &[usize]) -> Result<Var<'_>> {
        match &self.dry {
            Some(dry) => Ok(Var { id: Some(StateId::fresh()), ..self.input(dry.tensor(Shape::new(shape)?)) }),
            None => Err(Error::argument("placeholder", "tape", "a dry tape", "one that computes")),
        }
    }

    /// What an operation that refuses its arguments returns: the refusal, unless a dry pass looks for what else does not fit. Then
    /// it is a value of the shape that the output would have if all fitted.
    ///
    /// # Errors
    /// The refusal.
    pub fn forgive(&self, refusal: Error, assumed: Option<Shape>) -> Result<Var<'_>> {
        match (&self.dry, assumed) {
            (Some(dry), Some(shape)) if dry.forgives.get() > 0 => {
                dry.forgives.set(dry.forgives.get() - 1);
                self.placeholder(&shape)
            }
            _ => Err(refusal),
        }
    }

    /// The same dry tape, forgiving so many refusals.
    pub(crate) fn forgiving(self, refusals: usize) -> Tape {
        self.dry.iter().for_each(|dry| dry.forgives.set(refusals));
        self
    }

    /// How many refusals are left to be forgiven.
    pub(crate) fn forgives(&self) -> usize {
        self.dry.as_ref().map_or(0, |dry| dry.forgives.get())
    }

    /// The operations of a dry pass so far, each with the bytes that exist of what it made.
    pub(crate) fn operations(&self) -> Vec<(Operation, usize)> {
        let Some(dry) = &self.dry else { return vec![] };
        let with_bytes = |operation: Operation| {
            let bytes = dry.ledger.balance(operation.account);
            (operation, bytes)
        };
        dry.operations.take().into_iter().map(with_bytes).collect()
    }

    /// Bytes that exist now, and the most that did, of a dry pass.
    pub(crate) fn bytes(&self) -> [usize; 2] {
        self.dry.as_ref().map_or([0; 2], |dry| [dry.ledger.live(), dry.ledger.peak()])
    }
}
