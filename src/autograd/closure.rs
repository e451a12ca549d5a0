//! Operations from closures: the short way to an [`Op`].

use super::{
    kind::Kind,
    meta::Cost,
    op::{Fault, Input, Op},
    tape::Var,
};
use crate::{Result, Shape, Tensor};
use std::{array, marker::PhantomData};

/// An operation whose forward is a closure that returns backward as a closure.
struct Closure<F, B> {
    name: &'static str,
    /// The shapes of the inputs that the shape of the output is for.
    inputs: Vec<Shape>,
    output: Shape,
    forward: F,
    backward: PhantomData<fn() -> B>,
}

impl<F, B> Op for Closure<F, B>
where
    F: Fn(&[&Tensor]) -> (Tensor, B) + Send + Sync + 'static,
    B: FnOnce(Tensor, &[bool]) -> Vec<Option<Tensor>> + 'static,
{
    type Context = B;

    fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the shape that was given; for inputs of other shapes, only a run tells it.
    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
        if inputs.iter().map(Input::shape).eq(&self.inputs) {
            return Ok(self.output);
        }
        let value = |input: &Input<'_>| match input.value().is_meta() {
            true => Tensor::zeros(input.shape()),
            false => Ok(input.value().clone()),
        };
        let values = inputs.iter().map(value).collect::<Result<Vec<Tensor>>>()?;
        let (y, _) = (self.forward)(&values.iter().collect::<Vec<_>>());
        Ok(*y.shape())
    }

    fn forward(&self, inputs: &[Input<'_>], _: Shape) -> (Tensor, B) {
        (self.forward)(&inputs.iter().map(Input::value).collect::<Vec<_>>())
    }

    fn backward(&self, backward: B, dy: Tensor, needs: &[bool]) -> Vec<Option<Tensor>> {
        backward(dy, needs)
    }

    fn cost(&self, inputs: &[Input<'_>], _: Shape) -> Cost {
        Cost::saving_everything(inputs)
    }

    fn kind(&self, _: &[Input<'_>]) -> Kind {
        Kind::Custom(None)
    }
}

impl<'t> Var<'t> {
    /// Runs an operation that two closures define. [`Op`] is the way to an operation with settings,
    /// with a cost for memory plans, and with an ONNX node.
    ///
    /// `shape` is the shape of the output. `forward` gets the values of the inputs and returns the
    /// output and the backward function: a closure that gets the gradient of the output and a flag
    /// for each input, whether it needs a gradient, and returns the gradients of the inputs (`None`
    /// where none is needed). The tensors that the closure captures are saved for backward.
    ///
    /// Check the inputs before the call: `forward` cannot fail. It computes the same whenever it is
    /// called: a compiled network calls it again. A meta pass does not call it, and assumes that
    /// the inputs and the output are saved.
    ///
    /// # Errors
    /// [`Error::DifferentTapes`](crate::Error::DifferentTapes).
    ///
    /// # Panics
    /// Panics if `forward` returns a value of another shape, or if memory runs out.
    ///
    /// ```
    /// use skipgrad::{Result, Rng, Tensor, autograd::{Tape, Var}};
    /// /// Element-wise cube: dx = 3 x^2 dy.
    /// fn cube<'t>(x: &Var<'t>) -> Result<Var<'t>> {
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
    /// let y = cube(&x)?;
    /// assert_eq!((y.item(), y.backward()?.grad_of(&x).unwrap().item()), (8.0, 12.0));
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn op<const N: usize, B>(
        name: &'static str,
        inputs: [&Var<'t>; N],
        shape: Shape,
        forward: impl Fn([&Tensor; N]) -> (Tensor, B) + Send + Sync + 'static,
    ) -> Result<Var<'t>>
    where
        B: FnOnce(Tensor, [bool; N]) -> [Option<Tensor>; N] + 'static,
    {
        Var::op_many(name, &inputs, shape, move |values| {
            let (value, backward) = forward(array::from_fn(|i| values[i]));
            (value, |dy: Tensor, needs: &[bool]| backward(dy, array::from_fn(|i| needs[i])).into())
        })
    }

    /// Runs an operation with a number of inputs that is known only at run time; see [`Var::op`].
    ///
    /// # Errors
    /// As [`Var::op`], and [`Error::Argument`](crate::Error::Argument) if there is no input.
    ///
    /// # Panics
    /// As [`Var::op`].
    pub fn op_many<B>(
        name: &'static str,
        inputs: &[&Var<'t>],
        shape: Shape,
        forward: impl Fn(&[&Tensor]) -> (Tensor, B) + Send + Sync + 'static,
    ) -> Result<Var<'t>>
    where
        B: FnOnce(Tensor, &[bool]) -> Vec<Option<Tensor>> + 'static,
    {
        let shapes = inputs.iter().map(|input| *input.shape()).collect();
        let backward = PhantomData;
        Closure { name, inputs: shapes, output: shape, forward, backward }.apply(inputs)
    }
}
