//! A range of the channels, and padding with channels of zeros (shortcut A of He et al. 2015,
//! section 4.1). Each is the gradient of the other; backward keeps shapes.

use crate::{
    Error, Result, Shape, Tensor,
    autograd::{Cost, Fault, Input, Kind, Op, Var},
    kernels::{self, Isa},
};
use std::ops::Range;

struct SliceChannels {
    range: Range<usize>,
}

impl Op for SliceChannels {
    /// The shape of the input.
    type Context = Shape;

    fn name(&self) -> &'static str {
        "slice_channels"
    }

    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
        let Range { start, end } = self.range;
        let (outer, channels) = split("slice_channels", inputs[0].shape())?;
        if start <= end && end <= channels {
            return Ok(Shape::new(&[outer, &[end - start]].concat())?);
        }
        let (expected, found) = (format_args!("a range in 0..{channels}"), format_args!("{start}..{end}"));
        let error = Error::argument("slice_channels", "range", expected, found);
        let inferred_shape = Shape::new(&[outer, &[end.saturating_sub(start)]].concat()).ok();
        Err(Fault::new(error, inferred_shape))
    }

    fn forward(&self, inputs: &[Input<'_>], shape: Shape) -> (Tensor, Shape) {
        (slice(inputs[0].value(), self.range.clone(), shape), *inputs[0].shape())
    }

    fn backward(&self, wide: Shape, dy: Tensor, _: &[bool]) -> Vec<Option<Tensor>> {
        vec![Some(pad(&dy, self.range.start, wide))]
    }

    fn cost(&self, _: &[Input<'_>], _: Shape) -> Cost {
        Cost::default()
    }

    fn kind(&self, _: &[Input<'_>]) -> Kind {
        Kind::SliceChannels(self.range.clone())
    }
}

struct PadChannels {
    before: usize,
    after: usize,
}

impl Op for PadChannels {
    /// The shape of the input.
    type Context = Shape;

    fn name(&self) -> &'static str {
        "pad_channels"
    }

    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
        let (outer, channels) = split("pad_channels", inputs[0].shape())?;
        let padded = self.before.saturating_add(channels).saturating_add(self.after);
        Ok(Shape::new(&[outer, &[padded]].concat())?)
    }

    fn forward(&self, inputs: &[Input<'_>], shape: Shape) -> (Tensor, Shape) {
        (pad(inputs[0].value(), self.before, shape), *inputs[0].shape())
    }

    fn backward(&self, narrow: Shape, dy: Tensor, _: &[bool]) -> Vec<Option<Tensor>> {
        vec![Some(slice(&dy, self.before..self.before + narrow.num_channels(), narrow))]
    }

    fn cost(&self, _: &[Input<'_>], _: Shape) -> Cost {
        Cost::default()
    }

    fn kind(&self, _: &[Input<'_>]) -> Kind {
        Kind::PadChannels([self.before, self.after])
    }
}

fn split<'s>(op: &'static str, shape: &'s Shape) -> Result<(&'s [usize], usize)> {
    match shape.split_last() {
        Some((&channels, outer)) => Ok((outer, channels)),
        None => Err(Error::shape(op, "input", ["...", "C"], shape)),
    }
}

fn slice(x: &Tensor, range: Range<usize>, shape: Shape) -> Tensor {
    let channels = x.shape().num_channels();
    Tensor::build(shape, |y| kernels::slice_channels(Isa::active(), x.data(), channels, range, y))
}

fn pad(x: &Tensor, before: usize, shape: Shape) -> Tensor {
    let [narrow, wide] = [x.shape(), &shape].map(Shape::num_channels);
    Tensor::build(shape, |y| kernels::pad_channels(Isa::active(), x.data(), narrow, before, y, wide))
}

impl<'t> Var<'t> {
    /// Returns the channels `range` of `[..., C]`: `[..., range.len()]`.
    ///
    /// # Errors
    /// [`Error::Argument`] if the range is not inside the last axis; [`Error::ShapeMismatch`] if
    /// there is no axis.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape};
    /// let tape = Tape::eval();
    /// let x = tape.input(Tensor::from_fn([2, 4], |i| i as f32)?);
    /// assert_eq!(x.slice_channels(1..3)?.value().data(), [1.0, 2.0, 5.0, 6.0]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn slice_channels(&self, range: Range<usize>) -> Result<Var<'t>> {
        SliceChannels { range }.apply(&[self])
    }

    /// Adds `before` channels of zeros before and `after` channels of zeros after those of `[...,
    /// C]`: `[..., before + C + after]`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if there is no axis; [`Error::Argument`] if the size of the result
    /// overflows.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape};
    /// let tape = Tape::eval();
    /// let x = tape.input(Tensor::full([2, 1], 5.0)?);
    /// assert_eq!(x.pad_channels(1, 2)?.value().data(), [0.0, 5.0, 0.0, 0.0, 0.0, 5.0, 0.0, 0.0]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn pad_channels(&self, before: usize, after: usize) -> Result<Var<'t>> {
        PadChannels { before, after }.apply(&[self])
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
        let x = [Tensor::normal([2, 3, 2, 5], 1.0, &mut Rng::seed(1)).unwrap()];
        gradient_check(&x, |v| v[0].slice_channels(1..4)).unwrap().within(1e-4).unwrap();
        gradient_check(&x, |v| v[0].slice_channels(0..5)).unwrap().within(1e-4).unwrap();
        gradient_check(&x, |v| v[0].pad_channels(2, 3)).unwrap().within(1e-4).unwrap();
        gradient_check(&x, |v| v[0].pad_channels(0, 0)).unwrap().within(1e-4).unwrap();
    }

    #[test]
    fn one_takes_back_the_other() {
        let tape = Tape::eval();
        let x = tape.input(Tensor::from_fn([3, 4], |i| i as f32).unwrap());
        assert_eq!(x.pad_channels(3, 1).unwrap().slice_channels(3..7).unwrap().value(), x.value());
        assert_eq!(x.slice_channels(2..2).unwrap().shape(), [3, 0]);
    }

    #[test]
    #[allow(clippy::reversed_empty_ranges)]
    fn errors_name_the_range() {
        let tape = Tape::eval();
        let x = tape.input(Tensor::zeros([2, 4]).unwrap());
        let error = x.slice_channels(2..5).unwrap_err();
        assert_eq!(error.to_string(), "slice_channels: range: expected a range in 0..4, found 2..5");
        assert!(x.slice_channels(3..2).is_err());
        assert!(x.pad_channels(usize::MAX, usize::MAX).is_err());
        let error = tape.input(Tensor::scalar(0.0)).pad_channels(1, 1).unwrap_err();
        assert_eq!(error.to_string(), "pad_channels: input: expected [..., C], found []");
    }
}
