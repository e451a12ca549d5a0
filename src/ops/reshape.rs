//! The same elements in another shape. Nothing is copied, forward or backward; backward keeps the
//! shape.

use crate::{
    Error, Result, Shape, Tensor,
    autograd::{Cost, Fault, GradientMemory, Input, Kind, Op, Var},
};

/// The same elements in the shape that was asked for.
struct Reshape {
    shape: Shape,
    /// Whether the first axis, that of the batch, is as long as the input's.
    keeps_batch: bool,
}

impl Op for Reshape {
    /// The shape of the input.
    type Context = Shape;

    fn name(&self) -> &'static str {
        "reshape"
    }

    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
        let (x, mut shape) = (inputs[0].shape(), self.shape.to_vec());
        if self.keeps_batch && x.rank() > 0 {
            shape[0] = x[0];
        }
        let shape = Shape::new(&shape)?;
        let elements = x.num_elements();
        if shape.num_elements() == elements {
            return Ok(shape);
        }
        let expected = format_args!("{elements} elements");
        let error = Error::argument("reshape", "shape", expected, self.shape);
        Err(Fault::new(error, self.shape))
    }

    fn forward(&self, inputs: &[Input<'_>], shape: Shape) -> (Tensor, Shape) {
        (with_shape(inputs[0].value(), shape), *inputs[0].shape())
    }

    fn backward(&self, before: Shape, dy: Tensor, _: &[bool]) -> Vec<Option<Tensor>> {
        vec![Some(with_shape(&dy, before))]
    }

    fn cost(&self, inputs: &[Input<'_>], _: Shape) -> Cost {
        cost_of_view(inputs)
    }

    fn kind(&self, _: &[Input<'_>]) -> Kind {
        Kind::Reshape
    }
}

/// The same elements with all axes but the first as one.
struct Flatten;

impl Op for Flatten {
    /// The shape of the input.
    type Context = Shape;

    fn name(&self) -> &'static str {
        "flatten"
    }

    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
        let Some((&first, rest)) = inputs[0].shape().split_first() else {
            let found = inputs[0].shape();
            return Err(Error::argument("flatten", "input", "at least one axis", found).into());
        };
        Ok(Shape::new(&[first, rest.iter().product()])?)
    }

    fn forward(&self, inputs: &[Input<'_>], shape: Shape) -> (Tensor, Shape) {
        (with_shape(inputs[0].value(), shape), *inputs[0].shape())
    }

    fn backward(&self, before: Shape, dy: Tensor, _: &[bool]) -> Vec<Option<Tensor>> {
        vec![Some(with_shape(&dy, before))]
    }

    fn cost(&self, inputs: &[Input<'_>], _: Shape) -> Cost {
        cost_of_view(inputs)
    }

    fn kind(&self, _: &[Input<'_>]) -> Kind {
        Kind::Flatten
    }
}

fn cost_of_view(inputs: &[Input<'_>]) -> Cost {
    let view_of = Some(inputs[0].value().clone());
    Cost { gradients: vec![GradientMemory::View], view_of, ..Cost::default() }
}

fn with_shape(x: &Tensor, shape: Shape) -> Tensor {
    match x.reshape(shape) {
        Ok(y) => y,
        Err(error) => unreachable!("the numbers of elements were compared before: {error}"),
    }
}

impl<'t> Var<'t> {
    /// Returns the same elements, in row-major order, in another shape.
    ///
    /// # Errors
    /// [`Error::Argument`] if the shape is not valid (see [`Shape::new`]) or has another number of
    /// elements.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape};
    /// let tape = Tape::eval();
    /// let x = tape.input(Tensor::from_fn([2, 6], |i| i as f32)?);
    /// assert_eq!(x.reshape([3, 4])?.value().view()[[1, 0]], 4.0);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn reshape(&self, shape: impl AsRef<[usize]>) -> Result<Var<'t>> {
        let shape = Shape::new(shape.as_ref())?;
        let keeps_batch = shape.first().is_some_and(|batch| self.shape().first() == Some(batch));
        Reshape { shape, keeps_batch }.apply(&[self])
    }

    /// Flattens `[N, ...]` to `[N, K]`: all axes but the first become one, in row-major order.
    ///
    /// Channels are the last axis, so the order differs from that of a network that flattens
    /// `[N, C, H, W]`.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no axis.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape};
    /// let tape = Tape::eval();
    /// let x = tape.input(Tensor::zeros([2, 3, 4, 5])?);
    /// assert_eq!(x.flatten()?.shape(), [2, 60]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn flatten(&self) -> Result<Var<'t>> {
        Flatten.apply(&[self])
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        Rng, Tensor,
        autograd::{Tape, gradient_check},
    };

    #[test]
    fn gradients_agree_with_differences() {
        let x = [Tensor::normal([2, 3, 4], 1.0, &mut Rng::seed(1)).unwrap()];
        gradient_check(&x, |v| v[0].reshape([4, 6])).unwrap().within(1e-4).unwrap();
        gradient_check(&x, |v| v[0].flatten()).unwrap().within(1e-4).unwrap();
    }

    #[test]
    fn memory_is_shared() {
        let tape = Tape::eval();
        let x = tape.input(Tensor::zeros([4, 2]).unwrap());
        let y = x.reshape([8]).unwrap();
        assert_eq!(x.value().data().as_ptr(), y.value().data().as_ptr());
    }

    #[test]
    fn errors_say_what_would_fit() {
        let tape = Tape::eval();
        let x = tape.input(Tensor::zeros([2, 3]).unwrap());
        let error = x.reshape([4]).unwrap_err();
        assert_eq!(error.to_string(), "reshape: shape: expected 6 elements, found [4]");
        assert!(x.reshape([usize::MAX, 2]).is_err());
        let error = tape.input(Tensor::scalar(1.0)).flatten().unwrap_err();
        assert_eq!(error.to_string(), "flatten: input: expected at least one axis, found []");
    }
}
