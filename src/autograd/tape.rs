//! The tape, the values on it, and the entry point through which they are made.

use super::{
    meta::Meta,
    param::{Buffer, Param, StateId},
    saved::Recompute,
    scope::{Capture, Fault},
};
use crate::{Rng, Shape, Tensor};
use std::{
    cell::{Cell, RefCell},
    fmt,
};

/// What a pass is for: some layers (batch normalization, dropout) compute differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Statistics of the batch, random dropping.
    Train,
    /// Statistics kept by the model, nothing random.
    Eval,
}

/// A rule: from the gradient of a value to those of the inputs that need one.
pub(super) type Backward = Box<dyn FnOnce(Tensor, &[bool]) -> Vec<Option<Tensor>>>;

/// How a value on the tape was made.
pub(super) enum Node {
    /// A parameter or a watched input.
    Leaf(StateId),
    /// Another value, whose gradient is wanted on the way.
    RetainGrad { id: StateId, input: usize },
    /// By an operation; inputs that need a gradient have a node.
    Op { name: &'static str, inputs: Vec<Option<(usize, Shape)>>, backward: Backward },
}

/// One pass through a network: its mode, what it records for [`Var::backward`], and what modules observe on the way.
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
    rng: RefCell<Rng>,
    pub(super) nodes: RefCell<Vec<Node>>,
    pub(super) consumed: Cell<bool>,
    pub(super) observed: RefCell<Vec<(StateId, Tensor)>>,
    /// Of a meta tape.
    pub(super) meta: Option<Meta>,
    /// Of a tape whose pass somebody follows.
    pub(super) capture: RefCell<Option<Capture>>,
    /// Where the latest error arose.
    pub(super) fault: RefCell<Option<Fault>>,
}

impl Tape {
    /// A tape that records, in training mode; `rng` is where dropout and its kin take their numbers from.
    pub fn train(rng: Rng) -> Tape {
        Tape::new(Mode::Train, true, rng)
    }

    /// A tape that records nothing, in evaluation mode.
    pub fn eval() -> Tape {
        Tape::new(Mode::Eval, false, Rng::seed(0))
    }

    /// A tape on which nothing is computed: values have a shape and no numbers, and what a pass would take is added up. It records
    /// in training mode and does not in evaluation mode. [`Module`](crate::nn::Module)'s `check`, `summary` and `plan` are made of it.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::{Mode, Tape}};
    /// let tape = Tape::meta(Mode::Train);
    /// let x = tape.placeholder(&[1000, 1000, 1000])?;
    /// let y = x.relu().add(&x)?;
    /// assert_eq!((&y.shape()[..], y.value().data().len()), (&[1000, 1000, 1000][..], 0));
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
            rng: RefCell::new(rng),
            nodes: RefCell::default(),
            consumed: Cell::new(false),
            observed: RefCell::default(),
            meta: None,
            capture: RefCell::default(),
            fault: RefCell::default(),
        }
    }

    /// The same tape with recording on or off: gradients in evaluation mode (saliency, frozen statistics), or statistics
    /// in training mode without the memory of a recording.
    pub fn recording(self, on: bool) -> Tape {
        Tape { recording: on, ..self }
    }

    /// The mode.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether operations are recorded.
    pub fn is_recording(&self) -> bool {
        self.recording
    }

    /// A value without a gradient: images.
    pub fn input(&self, value: Tensor) -> Var<'_> {
        Var { value, node: None, id: None, recompute: None, tape: self }
    }

    /// A value whose gradient is wanted: [`Updates::grad_of`](super::Updates::grad_of) reads it after `backward`.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape};
    /// let tape = Tape::eval().recording(true);
    /// let x = tape.watch(Tensor::new([2], vec![3.0, 4.0])?);
    /// let updates = x.mul(&x)?.sum().backward()?;
    /// assert_eq!(updates.grad_of(&x).unwrap().data(), [6.0, 8.0]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn watch(&self, value: Tensor) -> Var<'_> {
        self.leaf(value, StateId::fresh())
    }

    /// The value of a parameter. No gradient flows to a parameter that is not trainable.
    pub fn param(&self, param: &Param) -> Var<'_> {
        if param.is_trainable() {
            self.leaf(param.value().clone(), param.id())
        } else {
            Var { id: Some(param.id()), ..self.input(param.value().clone()) }
        }
    }

    fn leaf(&self, value: Tensor, id: StateId) -> Var<'_> {
        let node = self.recording.then(|| self.push(Node::Leaf(id)));
        Var { value, node, id: Some(id), recompute: None, tape: self }
    }

    /// Asks for a buffer's new value; it becomes part of the [`Updates`](super::Updates), unless the buffer is frozen.
    pub fn observe(&self, buffer: &Buffer, value: Tensor) {
        if buffer.is_frozen() {
            return;
        }
        let value = self.meta.as_ref().map_or(value.clone(), |meta| meta.tensor(*value.shape()));
        self.observed.borrow_mut().push((buffer.id(), value));
    }

    /// A stream of random numbers of its own for one operation.
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
    /// Of a parameter or a watched value; on a meta tape, of any.
    pub(super) id: Option<StateId>,
    pub(super) recompute: Option<Recompute>,
    pub(super) tape: &'t Tape,
}

/// The value, and whether a gradient flows back from it.
impl fmt::Debug for Var<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Var").field("value", &self.value).field("recorded", &self.node.is_some()).finish()
    }
}

impl<'t> Var<'t> {
    /// The value.
    pub fn value(&self) -> &Tensor {
        &self.value
    }

    /// The sizes of its axes.
    pub fn shape(&self) -> &Shape {
        self.value.shape()
    }

    /// The tape it is on.
    pub fn tape(&self) -> &'t Tape {
        self.tape
    }

    /// Whether a gradient flows back from it.
    pub fn is_recorded(&self) -> bool {
        self.node.is_some()
    }

    /// The value of a loss; see [`Tensor::item`].
    pub fn item(&self) -> f32 {
        self.value.item()
    }

    /// The index of the largest element of each row; see [`Tensor::argmax`].
    pub fn argmax(&self) -> Vec<usize> {
        self.value.argmax()
    }

    /// The same value, whose gradient [`Updates::grad_of`](super::Updates::grad_of) reads after `backward`, wherever else it flows.
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
        let id = StateId::fresh();
        let node = self.tape.recording.then(|| match self.node {
            Some(node) => self.tape.push(Node::RetainGrad { id, input: node }),
            None => self.tape.push(Node::Leaf(id)),
        });
        Var { node, id: Some(id), ..self }
    }

    /// The same value without its history: no gradient flows through.
    pub fn detach(&self) -> Var<'t> {
        self.tape.input(self.value.clone())
    }

    /// The entry point that every operation goes through, the library's and a user's.
    ///
    /// `shape` is the output's. `forward` gets the inputs' values and returns the output and the rule for the gradients:
    /// a closure from the output's gradient, and which inputs need one, to theirs. What the rule captures is what training
    /// remembers of this operation. Check the inputs before: `forward` cannot fail. On a meta tape it is not called; what it would
    /// take, [`Var::costs`] may say.
    ///
    /// ```
    /// use skipgrad::{Rng, Tensor, autograd::{Tape, Var}};
    /// /// Element-wise cube: dx = 3 x^2 dy.
    /// fn cube<'t>(x: &Var<'t>) -> Var<'t> {
    ///     Var::op("cube", [x], *x.shape(), |[x]| {
    ///         let y = Tensor::build(*x.shape(), |y| y.iter_mut().zip(x.data()).for_each(|(y, x)| *y = x * x * x));
    ///         let x = x.clone();
    ///         (y, move |mut dy: Tensor, _| {
    ///             dy.data_mut().iter_mut().zip(x.data()).for_each(|(d, x)| *d *= 3.0 * x * x);
    ///             [Some(dy)]
    ///         })
    ///     })
    /// }
    /// let tape = Tape::train(Rng::seed(0));
    /// let x = tape.watch(Tensor::scalar(2.0));
    /// let y = cube(&x);
    /// assert_eq!((y.item(), y.backward()?.grad_of(&x).unwrap().item()), (8.0, 12.0));
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    ///
    /// # Panics
    /// If `forward` returns a value of another shape, or the inputs are on different tapes.
    #[track_caller]
    pub fn op<const N: usize, B>(
        name: &'static str,
        inputs: [&Var<'t>; N],
        shape: Shape,
        forward: impl FnOnce([&Tensor; N]) -> (Tensor, B),
    ) -> Var<'t>
    where
        B: FnOnce(Tensor, [bool; N]) -> [Option<Tensor>; N] + 'static,
    {
        Var::op_many(name, &inputs, shape, |values| {
            let (value, backward) = forward(std::array::from_fn(|i| values[i]));
            (value, |grad: Tensor, needs: &[bool]| backward(grad, std::array::from_fn(|i| needs[i])).into())
        })
    }

    /// [`Var::op`] for a number of inputs that is known only at run time, such as a concatenation's.
    ///
    /// # Panics
    /// As [`Var::op`], and if there is no input.
    #[track_caller]
    pub fn op_many<B>(
        name: &'static str,
        inputs: &[&Var<'t>],
        shape: Shape,
        forward: impl FnOnce(&[&Tensor]) -> (Tensor, B),
    ) -> Var<'t>
    where
        B: FnOnce(Tensor, &[bool]) -> Vec<Option<Tensor>> + 'static,
    {
        let tape = inputs[0].tape;
        assert!(
            inputs.iter().all(|v| std::ptr::eq(v.tape, tape)),
            "{name}: the inputs are on different tapes"
        );
        if let Some(meta) = &tape.meta {
            return meta.op(name, inputs, shape);
        }
        let values: Vec<&Tensor> = inputs.iter().map(|v| &v.value).collect();
        let (value, backward) = forward(&values);
        assert_eq!(*value.shape(), shape, "{name}: forward made another shape than it announced");
        let node = inputs.iter().any(|v| v.node.is_some()).then(|| {
            let inputs = inputs.iter().map(|v| v.node.map(|id| (id, *v.shape()))).collect();
            tape.push(Node::Op { name, inputs, backward: Box::new(backward) })
        });
        Var { value, node, id: None, recompute: None, tape }
    }
}
