//! The tape, the values on it, and the entry point through which they are made.

use super::{
    meta::Meta,
    param::{Buffer, Param, StateId},
    saved::Recompute,
    scope::{Capture, Fault},
    state::StateRef,
};
use crate::{Error, Result, Rng, Shape, Tensor};
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
    rng: RefCell<Rng>,
    pub(super) nodes: RefCell<Vec<Node>>,
    pub(super) consumed: Cell<bool>,
    pub(super) observed: RefCell<Vec<(StateId, Tensor)>>,
    /// The state of a meta tape.
    pub(super) meta: Option<Meta>,
    /// The state of a pass that is captured, for feature maps and summaries.
    pub(super) capture: RefCell<Option<Capture>>,
    /// Where the latest error arose.
    pub(super) fault: RefCell<Option<Fault>>,
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
            rng: RefCell::new(rng),
            nodes: RefCell::default(),
            consumed: Cell::new(false),
            observed: RefCell::default(),
            meta: None,
            capture: RefCell::default(),
            fault: RefCell::default(),
        }
    }

    /// Turns recording on or off: on for gradients in evaluation mode (saliency, frozen
    /// statistics), off for statistics in training mode without the memory of a recording.
    pub fn recording(self, on: bool) -> Tape {
        Tape { recording: on, ..self }
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
        let id = StateId::fresh();
        let node = self.tape.recording.then(|| match self.node {
            Some(node) => self.tape.push(Node::RetainGrad { id, input: node }),
            None => self.tape.push(Node::Leaf { id, is_param: false }),
        });
        Var { node, id: Some(id), ..self }
    }

    /// Returns the same value without its history: no gradient flows through it.
    pub fn detach(&self) -> Var<'t> {
        self.tape.input(self.value.clone())
    }

    /// Runs an operation. Every operation, of the library and of a user, is defined by a call of
    /// this function, as by a `torch.autograd.Function`.
    ///
    /// `shape` is the shape of the output. `forward` gets the values of the inputs and returns the
    /// output and the backward function: a closure that gets the gradient of the output and a flag
    /// for each input, whether it needs a gradient, and returns the gradients of the inputs (`None`
    /// where none is needed). The tensors that the closure captures are saved for backward.
    ///
    /// Check the inputs before the call: `forward` cannot fail. On a meta tape `forward` is not
    /// called; [`Var::costs`] declares what it would cost.
    ///
    /// ```
    /// use skipgrad::{Rng, Tensor, autograd::{Tape, Var}};
    /// /// Element-wise cube: dx = 3 x^2 dy.
    /// fn cube<'t>(x: &Var<'t>) -> Var<'t> {
    ///     Var::op("cube", [x], *x.shape(), |[x]| {
    ///         let y = Tensor::build(*x.shape(), |y| {
    ///             y.iter_mut().zip(x.data()).for_each(|(y, x)| *y = x * x * x);
    ///         });
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
    /// Panics if `forward` returns a value of another shape, if the inputs are on different tapes
    /// ([`Var::expect_one_tape`] finds that before), or if memory runs out.
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

    /// Checks that the inputs of an operation are on one tape, before the operation runs. The
    /// operations of this crate check it themselves.
    ///
    /// # Errors
    /// [`Error::DifferentTapes`].
    ///
    /// ```
    /// use skipgrad::{Error, Rng, Tensor, autograd::Tape};
    /// let (train, eval) = (Tape::train(Rng::seed(0)), Tape::eval());
    /// let (x, y) = (train.input(Tensor::scalar(1.0)), eval.input(Tensor::scalar(2.0)));
    /// assert!(matches!(x.add(&y), Err(Error::DifferentTapes { op: "add" })));
    /// ```
    pub fn expect_one_tape(op: &'static str, inputs: &[&Var<'t>]) -> Result<()> {
        match inputs.windows(2).all(|pair| std::ptr::eq(pair[0].tape, pair[1].tape)) {
            true => Ok(()),
            false => Err(Error::DifferentTapes { op }),
        }
    }

    /// Runs an operation with a number of inputs that is known only at run time, such as a
    /// concatenation; see [`Var::op`].
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
