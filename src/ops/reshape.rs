//! The same elements in another shape. Nothing is copied, forward or backward; backward keeps the
//! shape.

use crate::{
    Error, Result, Shape, Tensor,
    autograd::{Cost, GradientMemory, Var},
};

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
        let elements = self.shape().num_elements();
        if shape.num_elements() != elements {
            return Err(Error::argument("reshape", "shape", format_args!("{elements} elements"), shape));
        }
        Ok(self.reshaped("reshape", shape))
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
        let Some((&first, rest)) = self.shape().split_first() else {
            return Err(Error::argument("flatten", "input", "at least one axis", self.shape()));
        };
        Ok(self.reshaped("flatten", Shape::new(&[first, rest.iter().product()])?))
    }

    fn reshaped(&self, name: &'static str, shape: Shape) -> Var<'t> {
        Var::op(name, [self], shape, |[x]| {
            let before = *x.shape();
            (with_shape(x, shape), move |dy: Tensor, _| [Some(with_shape(&dy, before))])
        })
        .costs(|| Cost {
            gradients: vec![GradientMemory::View],
            view_of: Some(self.value().clone()),
            ..Cost::default()
        })
    }
}

fn with_shape(x: &Tensor, shape: Shape) -> Tensor {
    match x.reshape(shape) {
        Ok(y) => y,
        Err(error) => unreachable!("the numbers of elements were compared before: {error}"),
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
