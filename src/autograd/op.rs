//! Operations: all that the tape, a meta pass and a graph know about one.

use super::{
    kind::Kind,
    meta::Cost,
    saved::{Recompute, Saved},
    tape::{Node, Var},
};
use crate::{Error, Result, Shape, Tensor};
use std::ptr;

/// An operation on tensors, as a `torch.autograd.Function`: the one place that says what it
/// computes, its gradient, what it costs, and what a graph may do with it.
///
/// A value holds the settings, such as a stride; the inputs come with each call. [`Op::apply`] runs
/// the operation on a tape. [`Var::op`] makes a small operation from closures.
///
/// ```
/// use skipgrad::{Result, Rng, Shape, Tensor};
/// use skipgrad::autograd::{Cost, Fault, GradientMemory, Input, Kind, Op, Tape};
///
/// /// Leaky ReLU (Maas et al. 2013): y = x where x > 0, and slope x elsewhere.
/// struct LeakyRelu { slope: f32 }
///
/// impl LeakyRelu {
///     fn factor(&self, x: f32) -> f32 { if x > 0.0 { 1.0 } else { self.slope } }
/// }
///
/// impl Op for LeakyRelu {
///     type Context = Tensor;
///     fn name(&self) -> &'static str { "leaky_relu" }
///     fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
///         Ok(*inputs[0].shape())
///     }
///     fn forward(&self, inputs: &[Input<'_>], shape: Shape) -> (Tensor, Tensor) {
///         let x = inputs[0].value();
///         let y = Tensor::build(shape, |y| {
///             y.iter_mut().zip(x.data()).for_each(|(y, &x)| *y = self.factor(x) * x);
///         });
///         (y, x.clone())
///     }
///     fn backward(&self, x: Tensor, mut dy: Tensor, _: &[bool]) -> Vec<Option<Tensor>> {
///         dy.data_mut().iter_mut().zip(x.data()).for_each(|(d, &x)| *d *= self.factor(x));
///         vec![Some(dy)]
///     }
///     fn cost(&self, inputs: &[Input<'_>], _: Shape) -> Cost {
///         Cost::default().save_input(inputs[0].save()).gradients([GradientMemory::InPlace])
///     }
///     fn kind(&self, _: &[Input<'_>]) -> Kind { Kind::Custom(None) }
/// }
///
/// let tape = Tape::train(Rng::seed(0));
/// let x = tape.watch(Tensor::new([2], [3.0, -4.0])?);
/// let y = LeakyRelu { slope: 0.5 }.apply(&[&x])?;
/// assert_eq!(y.value().data(), [3.0, -2.0]);
/// assert_eq!(y.sum().backward()?.grad_of(&x).unwrap().data(), [1.0, 0.5]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
pub trait Op: Send + Sync + 'static {
    /// What forward keeps for backward (the `ctx` of PyTorch). It is freed as soon as backward ran.
    type Context: 'static;

    /// Returns the name, as errors and summaries show it.
    fn name(&self) -> &'static str;

    /// Returns the shape of the output. There is at least one input.
    ///
    /// # Errors
    /// Returns what does not fit. [`Op::forward`] cannot fail, so everything is checked here.
    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault>;

    /// Computes the output, of the shape that [`Op::output_shape`] returned, and what backward
    /// needs.
    fn forward(&self, inputs: &[Input<'_>], shape: Shape) -> (Tensor, Self::Context);

    /// Returns the gradient of each input from `dy`, that of the output; `needs` says which inputs
    /// need one.
    fn backward(&self, context: Self::Context, dy: Tensor, needs: &[bool]) -> Vec<Option<Tensor>>;

    /// Returns the cost of the operation, with the shape of its output.
    fn cost(&self, inputs: &[Input<'_>], shape: Shape) -> Cost;

    /// Returns what the operation is to those who read a graph.
    fn kind(&self, inputs: &[Input<'_>]) -> Kind;

    /// Returns how backward can compute the output again from what was saved, if operations that
    /// need it should not save it; see [`Var::rematerialize_with`].
    fn recompute(&self, _context: &Self::Context) -> Option<Recompute> {
        None
    }

    /// Runs the operation on the tape of the inputs.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no input; [`Error::DifferentTapes`]; what
    /// [`Op::output_shape`] returns.
    ///
    /// # Panics
    /// Panics if [`Op::forward`] makes another shape, or if memory runs out.
    fn apply<'t>(self, inputs: &[&Var<'t>]) -> Result<Var<'t>>
    where
        Self: Sized,
    {
        apply_with(self, inputs, |_| ()).map(|(y, _)| y)
    }
}

/// An input of an operation.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    value: &'a Tensor,
    recompute: Option<&'a Recompute>,
    needs_gradient: bool,
}

impl<'a> Input<'a> {
    pub(super) fn of(var: &'a Var<'_>) -> Input<'a> {
        let Var { value, recompute, node, .. } = var;
        Input { value, recompute: recompute.as_ref(), needs_gradient: node.is_some() }
    }

    /// Returns the value, which has no elements in a meta pass.
    pub fn value(&self) -> &'a Tensor {
        self.value
    }

    /// Returns the shape of the value.
    pub fn shape(&self) -> &'a Shape {
        self.value.shape()
    }

    /// Returns whether backward needs the gradient of this input.
    pub fn needs_gradient(&self) -> bool {
        self.needs_gradient
    }

    /// Saves the value for backward: the value, or the way to recompute it.
    pub fn save(&self) -> Saved {
        Saved::new(self.value, self.recompute)
    }
}

/// A value without a history.
impl<'a> From<&'a Tensor> for Input<'a> {
    fn from(value: &'a Tensor) -> Input<'a> {
        Input { value, recompute: None, needs_gradient: false }
    }
}

/// What does not fit, and the shape that the output would have if it did.
#[derive(Debug)]
pub struct Fault(Box<(Error, Option<Shape>)>);

impl Fault {
    /// Makes a fault after which a pass that collects faults goes on with this shape, if it is
    /// known.
    pub fn new(error: Error, inferred_shape: impl Into<Option<Shape>>) -> Fault {
        Fault(Box::new((error, inferred_shape.into())))
    }

    /// Returns what does not fit, and the shape that the output would have.
    pub fn into_parts(self) -> (Error, Option<Shape>) {
        *self.0
    }
}

/// The shape of the output is not known.
impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::new(error, None)
    }
}

/// An operation whose type is erased: what a graph can do with it.
pub(crate) trait AnyOp: Send + Sync {
    fn name(&self) -> &'static str;
    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault>;
    fn compute(&self, inputs: &[Input<'_>]) -> Result<Tensor>;
    fn kind(&self, inputs: &[Input<'_>]) -> Kind;
}

impl<O: Op> AnyOp for O {
    fn name(&self) -> &'static str {
        Op::name(self)
    }

    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
        Op::output_shape(self, inputs)
    }

    fn compute(&self, inputs: &[Input<'_>]) -> Result<Tensor> {
        let shape = Op::output_shape(self, inputs).map_err(|fault| fault.into_parts().0)?;
        Ok(self.forward(inputs, shape).0)
    }

    fn kind(&self, inputs: &[Input<'_>]) -> Kind {
        Op::kind(self, inputs)
    }
}

/// Runs an operation, and returns also what `observe` reads from the context: `None` in a meta
/// pass, which has no context.
pub(crate) fn apply_with<'t, O: Op, A>(
    op: O,
    inputs: &[&Var<'t>],
    observe: impl FnOnce(&O::Context) -> A,
) -> Result<(Var<'t>, Option<A>)> {
    let name = Op::name(&op);
    let Some(tape) = inputs.first().map(|input| input.tape) else {
        return Err(Error::argument(name, "inputs", "at least one", "none"));
    };
    if inputs.iter().any(|input| !ptr::eq(input.tape, tape)) {
        return Err(Error::DifferentTapes { op: name });
    }
    if let Some(meta) = &tape.meta {
        return meta.apply(op, inputs).map(|y| (y, None));
    }
    let operands: Vec<Input<'_>> = inputs.iter().map(|input| Input::of(input)).collect();
    let shape = Op::output_shape(&op, &operands).map_err(|fault| fault.into_parts().0)?;
    let (value, context) = op.forward(&operands, shape);
    assert_eq!(*value.shape(), shape, "{name}: forward made another shape than it announced");
    tape.show(|| Op::kind(&op, &operands), &operands, &value);
    let observed = observe(&context);
    let is_recorded = operands.iter().any(Input::needs_gradient);
    let recompute = if is_recorded { op.recompute(&context) } else { None };
    let node = is_recorded.then(|| {
        let inputs = inputs.iter().map(|v| v.node.map(|id| (id, *v.shape()))).collect();
        let backward = Box::new(move |dy: Tensor, needs: &[bool]| op.backward(context, dy, needs));
        tape.push(Node::Op { name, inputs, backward })
    });
    Ok((Var { value, node, id: None, recompute, tape }, Some(observed)))
}
