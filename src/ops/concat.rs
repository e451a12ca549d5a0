//! Concatenation along the last axis, the channels: `y = [x0, x1, ...]`, the connection of a
//! DenseNet (Huang et al. 2017, equation 2). Backward keeps the numbers of channels: every gradient
//! is a slice of dy.

use crate::{
    Error, Result, Shape, ShapePattern, Tensor,
    autograd::{Cost, Fault, Input, Kind, Op, Var},
    kernels::{self, Isa},
};

struct Concat;

impl Op for Concat {
    /// The shapes of the inputs.
    type Context = Vec<Shape>;

    fn name(&self) -> &'static str {
        "concat"
    }

    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
        let first = inputs[0].shape();
        let Some((_, outer)) = first.split_last() else {
            return Err(Error::shape("concat", "inputs", ["...", "C"], first).into());
        };
        let channels = inputs.iter().map(|input| input.shape().num_channels());
        let channels = channels.fold(0, usize::saturating_add);
        let shape = Shape::new(&[outer, &[channels]].concat())?;
        let fits = |x: &&Shape| x.split_last().is_some_and(|(_, axes)| axes == outer);
        match inputs.iter().map(Input::shape).find(|x| !fits(x)) {
            None => Ok(shape),
            Some(found) => {
                let expected = ShapePattern::from(outer).named("C");
                Err(Fault::new(Error::shape("concat", "inputs", expected, found), shape))
            }
        }
    }

    fn forward(&self, inputs: &[Input<'_>], shape: Shape) -> (Tensor, Vec<Shape>) {
        let shapes: Vec<Shape> = inputs.iter().map(|input| *input.shape()).collect();
        let parts: Vec<(&[f32], usize)> =
            inputs.iter().map(|input| (input.value().data(), input.shape().num_channels())).collect();
        (Tensor::build(shape, |y| kernels::concat_channels(Isa::active(), &parts, y)), shapes)
    }

    fn backward(&self, shapes: Vec<Shape>, dy: Tensor, needs: &[bool]) -> Vec<Option<Tensor>> {
        let (channels, mut start) = (dy.shape().num_channels(), 0);
        let gradient = |(shape, &needed): (&Shape, &bool)| {
            let range = start..start + shape.num_channels();
            start = range.end;
            needed.then(|| {
                Tensor::build(*shape, |dx| {
                    kernels::slice_channels(Isa::active(), dy.data(), channels, range, dx);
                })
            })
        };
        shapes.iter().zip(needs).map(gradient).collect()
    }

    fn cost(&self, _: &[Input<'_>], _: Shape) -> Cost {
        Cost::default()
    }

    fn kind(&self, _: &[Input<'_>]) -> Kind {
        Kind::Concat
    }
}

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
        Concat.apply(inputs)
    }
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
