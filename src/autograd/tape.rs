//! The tape, the values on it, and the entry point through which they are made.

use super::{
    inspect::Inspector,
    meta::Meta,
    param::{Buffer, Param, StateId},
    saved::Recompute,
    scope::{Capture, FaultSite},
    state::StateRef,
};
use crate::{Precision, Rng, Shape, Tensor};
use std::{
    cell::{Cell, RefCell},
    fmt,
};

/// The purpose of a pass, on which batch normalization and dropout depend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// Training: normalization with the statistics of the batch, and random dropout.
    Train,
    /// Evaluation: normalization with the running statistics, and nothing random.
    Eval,
}

/// The backward function of an operation: from the gradient of its output, and which inputs need
/// one, to the gradients of its inputs.
pub(super) type Backward = Box<dyn FnOnce(Tensor, &[bool]) -> Vec<Option<Tensor>>>;

/// The origin of a value on the tape.
pub(super) enum Node {
    /// A parameter or a watched input.
    Leaf { id: StateId, is_param: bool },
    /// Another value, whose gradient is retained.
    RetainGrad { id: StateId, input: usize },
    /// The output of an operation; inputs that need a gradient have a node.
    Op { name: &'static str, inputs: Vec<Option<(usize, Shape)>>, backward: Backward },
}

/// One pass through a network: its mode, the recording for [`Var::backward`], and the buffer
/// updates that modules observe.
///
/// A tape stays on its thread, and a `Var` cannot outlive it:
///
/// ```compile_fail
/// use skipgrad::{Tensor, autograd::Tape};
/// let escaped = {
///     let tape = Tape::eval();
///     tape.input(Tensor::scalar(1.0))
/// };
/// escaped.item();
/// ```
pub struct Tape {
    mode: Mode,
    recording: bool,
    precision: Precision,
    rng: RefCell<Rng>,
    pub(super) nodes: RefCell<Vec<Node>>,
    pub(super) consumed: Cell<bool>,
    pub(super) observed: RefCell<Vec<(StateId, Tensor)>>,
    /// The state of a meta tape.
    pub(super) meta: Option<Meta>,
    /// The state of a pass that is captured, for feature maps and summaries.
    pub(super) capture: RefCell<Option<Capture>>,
    /// What is shown every operation of the pass.
    pub(super) inspector: Option<Inspector>,
    /// Where the latest error arose.
    pub(super) fault: RefCell<Option<FaultSite>>,
}

impl Tape {
    /// Makes a tape in training mode that records; `rng` is the source of the random numbers of
    /// dropout and stochastic depth.
    pub fn train(rng: Rng) -> Tape {
        Tape::new(Mode::Train, true, rng)
    }

    /// Makes a tape in evaluation mode that records nothing.
    pub fn eval() -> Tape {
        Tape::new(Mode::Eval, false, Rng::seed(0))
    }

    /// Makes a tape on which nothing is computed, as on PyTorch's meta device: values have a shape
    /// and no elements, and the cost of the pass is added up. It records in training mode and does
    /// not in evaluation mode.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::{Mode, Tape}};
    /// let tape = Tape::meta(Mode::Train);
    /// let x = tape.placeholder(&[1000, 1000, 1000])?;
    /// let y = x.relu().add(&x)?;
    /// assert!(y.shape() == [1000, 1000, 1000] && y.value().data().is_empty());
    /// assert!(y.add(&y.sum()).is_err());
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn meta(mode: Mode) -> Tape {
        Tape { meta: Some(Meta::default()), ..Tape::new(mode, mode == Mode::Train, Rng::seed(0)) }
    }

    fn new(mode: Mode, recording: bool, rng: Rng) -> Tape {
        Tape {
            mode,
            recording,
            precision: Precision::F32,
            rng: RefCell::new(rng),
            nodes: RefCell::default(),
            consumed: Cell::new(false),
            observed: RefCell::default(),
            meta: None,
            capture: RefCell::default(),
            inspector: None,
            fault: RefCell::default(),
        }
    }

    /// Turns recording on or off: on for gradients in evaluation mode (saliency, frozen
    /// statistics), off for statistics in training mode without the memory of a recording.
    pub fn recording(self, on: bool) -> Tape {
        Tape { recording: on, ..self }
    }

    /// Sets the type in which the operations multiply; [`Precision::F32`] by default.
    pub fn precision(self, precision: Precision) -> Tape {
        Tape { precision, ..self }
    }

    /// Returns whether convolutions and linear layers multiply in bf16.
    pub fn is_bf16(&self) -> bool {
        self.precision.is_bf16()
    }

    /// Returns the mode.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Returns whether operations are recorded.
    pub fn is_recording(&self) -> bool {
        self.recording
    }

    /// Puts a value without a gradient on the tape, such as images.
    pub fn input(&self, value: Tensor) -> Var<'_> {
        Var { value, node: None, id: None, recompute: None, tape: self }
    }

    /// Puts a value with a gradient on the tape (`requires_grad` in PyTorch). After `backward`,
    /// [`Updates::grad_of`](super::Updates::grad_of) returns the gradient.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape};
    /// let tape = Tape::eval().recording(true);
    /// let x = tape.watch(Tensor::new([2], [3.0, 4.0])?);
    /// let updates = x.mul(&x)?.sum().backward()?;
    /// assert_eq!(updates.grad_of(&x).unwrap().data(), [6.0, 8.0]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn watch(&self, value: Tensor) -> Var<'_> {
        self.leaf(value, StateId::fresh(), false)
    }

    /// Puts the value of a parameter on the tape. No gradient flows to a parameter that is not
    /// trainable.
    pub fn param(&self, param: &Param) -> Var<'_> {
        if param.is_trainable() {
            if let Some(meta) = &self.meta {
                meta.meet(StateRef::Param(param), self.path());
            }
            self.leaf(param.value().clone(), param.id(), true)
        } else {
            Var { id: Some(param.id()), ..self.input(param.value().clone()) }
        }
    }

    fn leaf(&self, value: Tensor, id: StateId, is_param: bool) -> Var<'_> {
        let node = self.recording.then(|| self.push(Node::Leaf { id, is_param }));
        Var { value, node, id: Some(id), recompute: None, tape: self }
    }

    /// Puts the value of a buffer on the tape, such as a running mean. No gradient flows to it.
    pub fn buffer(&self, buffer: &Buffer) -> Var<'_> {
        Var { id: Some(buffer.id()), ..self.input(buffer.value().clone()) }
    }

    /// Records the new value of a buffer. It becomes part of the [`Updates`](super::Updates),
    /// unless the buffer is frozen.
    pub fn observe(&self, buffer: &Buffer, value: Tensor) {
        if buffer.is_frozen() {
            return;
        }
        let value = match &self.meta {
            Some(meta) => {
                meta.meet(StateRef::Buffer(buffer), self.path());
                meta.tensor(*value.shape())
            }
            None => value,
        };
        self.observed.borrow_mut().push((buffer.id(), value));
    }

    /// Returns a new stream of random numbers for one operation.
    pub fn rng(&self) -> Rng {
        self.rng.borrow_mut().split()
    }

    pub(super) fn push(&self, node: Node) -> usize {
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(node);
        nodes.len() - 1
    }
}

/// A value on a tape. Cloning shares the value.
#[derive(Clone)]
pub struct Var<'t> {
    pub(super) value: Tensor,
    pub(super) node: Option<usize>,
    /// The identity of a parameter or a watched value, and on a meta tape of every value.
    pub(super) id: Option<StateId>,
    pub(super) recompute: Option<Recompute>,
    pub(super) tape: &'t Tape,
}

/// Shows the value and whether it is recorded.
impl fmt::Debug for Var<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Var").field("value", &self.value).field("recorded", &self.node.is_some()).finish()
    }
}

impl<'t> Var<'t> {
    /// Returns the value.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// Returns the shape of the value.
    pub fn shape(&self) -> &Shape {
        self.value.shape()
    }

    /// Returns the tape that the value is on.
    pub fn tape(&self) -> &'t Tape {
        self.tape
    }

    /// Returns whether a gradient flows back from the value.
    pub fn is_recorded(&self) -> bool {
        self.node.is_some()
    }

    /// Returns the only element, such as that of a loss; see [`Tensor::item`].
    pub fn item(&self) -> f32 {
        self.value.item()
    }

    /// Returns the index of the largest element of each row; see [`Tensor::argmax`].
    pub fn argmax(&self) -> Vec<usize> {
        self.value.argmax()
    }

    /// Returns the same value with its gradient retained: after `backward`,
    /// [`Updates::grad_of`](super::Updates::grad_of) returns the gradient of this intermediate
    /// value.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape};
    /// let tape = Tape::eval().recording(true);
    /// let x = tape.watch(Tensor::scalar(3.0));
    /// let y = x.scale(2.0).retain_grad();
    /// let updates = y.mul(&y)?.backward()?;
    /// assert_eq!(updates.grad_of(&y).unwrap().item(), 12.0);
    /// assert_eq!(updates.grad_of(&x).unwrap().item(), 24.0);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn retain_grad(self) -> Var<'t> {
        if self.tape.meta.is_some() {
            return self;
        }
        let id = StateId::fresh();
        let node = self.tape.recording.then(|| match self.node {
            Some(node) => self.tape.push(Node::RetainGrad { id, input: node }),
            None => self.tape.push(Node::Leaf { id, is_param: false }),
        });
        Var { node, id: Some(id), ..self }
    }

    /// Returns the same value without its history: no gradient flows through it.
    pub fn detach(&self) -> Var<'t> {
        // A meta pass goes on to know which value it is.
        let id = self.id.filter(|_| self.tape.meta.is_some());
        Var { id, ..self.tape.input(self.value.clone()) }
    }

    /// Returns the identity of a parameter, a watched value, or a value of a meta pass.
    pub(crate) fn id(&self) -> Option<StateId> {
        self.id
    }
}
