//! Concatenation along the last axis, the channels: `y = [x0, x1, ...]`, the connection of a
//! DenseNet (Huang et al. 2017, equation 2). Backward keeps the numbers of channels: every gradient
//! is a slice of dy.

use crate::{
    Error, Result, Shape, ShapePattern, Tensor,
    autograd::{Cost, Var},
    kernels::{self, Isa},
};

impl<'t> Var<'t> {
    /// Concatenates values along the last axis; all other axes must be the same.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is no input; [`Error::ShapeMismatch`] if an input has no axis
    /// or the other axes differ.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::{Tape, Var}};
    /// let tape = Tape::eval();
    /// let a = tape.input(Tensor::new([2, 1], [1.0, 2.0])?);
    /// let b = tape.input(Tensor::new([2, 2], [10.0, 20.0, 30.0, 40.0])?);
    /// assert_eq!(Var::concat(&[&a, &b])?.value().data(), [1.0, 10.0, 20.0, 2.0, 30.0, 40.0]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn concat(inputs: &[&Var<'t>]) -> Result<Var<'t>> {
        Var::expect_one_tape("concat", inputs)?;
        let shape = output_shape(inputs)?;
        let widths: Vec<usize> = inputs.iter().map(|x| x.shape().num_channels()).collect();
        Ok(Var::op_many("concat", inputs, shape, |values| {
            let parts: Vec<(&[f32], usize)> =
                values.iter().zip(&widths).map(|(x, &width)| (x.data(), width)).collect();
            let y = Tensor::build(shape, |y| kernels::concat_channels(Isa::active(), &parts, y));
            let shapes: Vec<Shape> = values.iter().map(|x| *x.shape()).collect();
            (y, move |dy: Tensor, needs: &[bool]| {
                let mut start = 0;
                let gradient = |(shape, &needed): (&Shape, &bool)| {
                    let range = start..start + shape.num_channels();
                    start = range.end;
                    needed.then(|| {
                        Tensor::build(*shape, |dx| {
                            let channels = dy.shape().num_channels();
                            kernels::slice_channels(Isa::active(), dy.data(), channels, range, dx);
                        })
                    })
                };
                shapes.iter().zip(needs).map(gradient).collect()
            })
        })
        .costs(Cost::default))
    }
}

fn output_shape(inputs: &[&Var<'_>]) -> Result<Shape> {
    let Some(first) = inputs.first() else {
        return Err(Error::argument("concat", "inputs", "at least one", "none"));
    };
    let Some((&first_channels, outer)) = first.shape().split_last() else {
        return Err(Error::shape("concat", "inputs", ["...", "C"], first.shape()));
    };
    let mut channels = first_channels;
    for input in &inputs[1..] {
        channels = match input.shape().split_last() {
            Some((&more, axes)) if axes == outer => channels.saturating_add(more),
            _ => {
                let expected = ShapePattern::from(outer).named("C");
                return Err(Error::shape("concat", "inputs", expected, input.shape()));
            }
        };
    }
    Shape::new(&[outer, &[channels]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Rng,
        autograd::{Tape, gradient_check},
    };

    #[test]
    fn gradients_agree_with_differences() {
        let mut rng = Rng::seed(1);
        let inputs = [3, 1, 5].map(|c| Tensor::normal([2, 3, 2, c], 1.0, &mut rng).unwrap());
        let check = gradient_check(&inputs, |v| Var::concat(&[&v[0], &v[1], &v[2]])).unwrap();
        check.within(1e-4).unwrap();
        let check = gradient_check(&inputs[..2], |v| Var::concat(&[&v[0], &v[1], &v[0]])).unwrap();
        check.within(1e-4).unwrap();
    }

    #[test]
    fn one_input_is_itself() {
        let tape = Tape::eval();
        let x = tape.input(Tensor::from_fn([2, 3], |i| i as f32).unwrap());
        assert_eq!(Var::concat(&[&x]).unwrap().value(), x.value());
    }

    #[test]
    fn all_axes_but_the_last_agree() {
        let tape = Tape::eval();
        let zeros = |shape: &[usize]| tape.input(Tensor::zeros(shape).unwrap());
        let message =
            |a: &[usize], b: &[usize]| Var::concat(&[&zeros(a), &zeros(b)]).unwrap_err().to_string();
        assert_eq!(message(&[2, 3, 4], &[2, 4, 4]), "concat: inputs: expected [2, 3, C], found [2, 4, 4]");
        assert_eq!(message(&[2, 3], &[]), "concat: inputs: expected [2, C], found []");
        assert_eq!(message(&[], &[2]), "concat: inputs: expected [..., C], found []");
        assert_eq!(
            Var::concat(&[]).unwrap_err().to_string(),
            "concat: inputs: expected at least one, found none"
        );
    }
}
