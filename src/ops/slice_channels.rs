//! A range of the channels, and padding with channels of zeros (shortcut A of He et al. 2015,
//! section 4.1). Each is the gradient of the other; backward keeps shapes.

use crate::{
    Error, Result, Shape, Tensor,
    autograd::{Cost, Var},
    kernels::{self, Isa},
};
use std::ops::Range;

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
        let (outer, channels) = split("slice_channels", self.shape())?;
        if range.start > range.end || range.end > channels {
            let expected = format_args!("a range in 0..{channels}");
            return Err(Error::argument("slice_channels", "range", expected, format_args!("{range:?}")));
        }
        let shape = Shape::new(&[outer, &[range.len()]].concat())?;
        let settings = range.clone();
        Ok(Var::op("slice_channels", [self], shape, |[x]| {
            let before = range.start;
            let wide = *x.shape();
            (slice(x, range, shape), move |dy: Tensor, _| [Some(pad(&dy, before, wide))])
        })
        .costs(Cost::default)
        .settings(|| settings))
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
        let (outer, channels) = split("pad_channels", self.shape())?;
        let padded = before.saturating_add(channels).saturating_add(after);
        let shape = Shape::new(&[outer, &[padded]].concat())?;
        Ok(Var::op("pad_channels", [self], shape, |[x]| {
            let narrow = *x.shape();
            (pad(x, before, shape), move |dy: Tensor, _| {
                [Some(slice(&dy, before..before + channels, narrow))]
            })
        })
        .costs(Cost::default)
        .settings(|| [before, after]))
    }
}

fn split<'s>(op: &'static str, shape: &'s Shape) -> Result<(&'s [usize], usize)> {
    match shape.split_last() {
        Some((&channels, outer)) => Ok((outer, channels)),
        None => Err(Error::shape(op, "input", ["...", "C"], shape)),
    }
}

fn slice(x: &Tensor, range: Range<usize>, shape: Shape) -> Tensor {
    Tensor::build(shape, |y| {
        kernels::slice_channels(Isa::active(), x.data(), x.shape().num_channels(), range, y);
    })
}

fn pad(x: &Tensor, before: usize, shape: Shape) -> Tensor {
    Tensor::build(shape, |y| {
        kernels::pad_channels(
            Isa::active(),
            x.data(),
            x.shape().num_channels(),
            before,
            y,
            shape.num_channels(),
        );
    })
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
        assert_eq!(error.to_string(), "channels: range: expected a range in 0..4, found 2..5");
        assert!(x.slice_channels(3..2).is_err());
        assert!(x.pad_channels(usize::MAX, usize::MAX).is_err());
        let error = tape.input(Tensor::scalar(0.0)).pad_channels(1, 1).unwrap_err();
        assert_eq!(error.to_string(), "pad_channels: input: expected [..., C], found []");
    }
}
