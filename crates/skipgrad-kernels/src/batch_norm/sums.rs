//! The sums over rows that the gradients of gamma, beta and x need.

use super::Activation;
use crate::elementwise::relu_backward;
use crate::reduce::add_vectors;
use crate::rows::{Strip, Terms, add_terms, lanes, map_ranges, whole_rows};
use crate::simd::Simd;
use crate::{Isa, Task};
use std::array::from_fn;
use std::ops::Range;

/// The sums of a backward pass, one of each per channel.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNormSums {
    /// Σ dy, where `dy` is the gradient before the activation: the gradient of beta.
    pub dy: Vec<f64>,
    /// Σ dy (x - mean), which times 1 / sqrt(var + eps) is the gradient of gamma.
    pub dy_deviation: Vec<f64>,
}

/// Returns the sums over rows that the gradients of gamma, beta and x need, for `x` and `dy`
/// `[rows, channels]` and `mean` `[channels]`.
///
/// # Panics
/// If a slice does not fit.
pub fn batch_norm_sums(
    isa: Isa,
    x: &[f32],
    dy: &[f32],
    mean: &[f32],
    activation: Activation<'_>,
) -> BatchNormSums {
    let strip = Strip::new(mean.len());
    match activation {
        Activation::None => masked_sums(isa, x, dy, mean, NoMask),
        Activation::Relu(y) => {
            assert_eq!(x.len(), y.len(), "operands of one length");
            masked_sums(isa, x, dy, mean, OutputMask(y))
        }
        Activation::ReluOf { scale, shift } => {
            let (scale, shift) = (&strip.repeat(scale), &strip.repeat(shift));
            masked_sums(isa, x, dy, mean, InputMask { scale, shift })
        }
        Activation::ReluOfSum { scale, shift, residual } => {
            assert_eq!(x.len(), residual.len(), "operands of one length");
            let (scale, shift) = (&strip.repeat(scale), &strip.repeat(shift));
            masked_sums(isa, x, dy, mean, ResidualMask { input: InputMask { scale, shift }, residual })
        }
    }
}

fn masked_sums(isa: Isa, x: &[f32], dy: &[f32], mean: &[f32], mask: impl Mask) -> BatchNormSums {
    let channels = mean.len();
    let rows = whole_rows(x.len(), channels);
    assert_eq!(x.len(), dy.len(), "operands of one length");
    let strip = Strip::new(channels);
    let mean = &strip.repeat(mean);
    let parts = map_ranges(rows, channels, |range| {
        let range = range.start * channels..range.end * channels;
        isa.dispatch(RangeSums { strip, channels, range, terms: Products { x, dy, mean, mask } })
    });
    let (dy, dy_deviation) = parts.into_iter().map(|sums| (sums.dy, sums.dy_deviation)).unzip();
    BatchNormSums { dy: add_vectors(dy, channels), dy_deviation: add_vectors(dy_deviation, channels) }
}

/// The backward pass of an [`Activation`]: zero where the activation's input is not above zero.
trait Mask: Copy + Send + Sync {
    /// Returns the gradient before the activation for elements whose position is `at` in the matrix
    /// and `column` in their strip. Mark it `#[inline(always)]`.
    fn apply<const L: usize>(self, at: usize, column: usize, x: &[f32; L], dy: &[f32; L]) -> [f32; L];
}

/// The mask of [`Activation::None`], which changes nothing.
#[derive(Clone, Copy)]
struct NoMask;

impl Mask for NoMask {
    #[inline(always)]
    fn apply<const L: usize>(self, _: usize, _: usize, _: &[f32; L], dy: &[f32; L]) -> [f32; L] {
        *dy
    }
}

/// The mask of [`Activation::Relu`].
#[derive(Clone, Copy)]
struct OutputMask<'a>(&'a [f32]);

impl Mask for OutputMask<'_> {
    #[inline(always)]
    fn apply<const L: usize>(self, at: usize, _: usize, _: &[f32; L], dy: &[f32; L]) -> [f32; L] {
        let y = lanes::<L>(self.0, at);
        from_fn(|l| relu_backward(y[l], dy[l]))
    }
}

/// The mask of [`Activation::ReluOf`], with vectors as wide as a strip.
#[derive(Clone, Copy)]
struct InputMask<'a> {
    scale: &'a [f32],
    shift: &'a [f32],
}

impl Mask for InputMask<'_> {
    #[inline(always)]
    fn apply<const L: usize>(self, _: usize, column: usize, x: &[f32; L], dy: &[f32; L]) -> [f32; L] {
        let (scale, shift) = (lanes::<L>(self.scale, column), lanes::<L>(self.shift, column));
        from_fn(|l| relu_backward(x[l] * scale[l] + shift[l], dy[l]))
    }
}

/// The mask of [`Activation::ReluOfSum`], with vectors as wide as a strip.
#[derive(Clone, Copy)]
struct ResidualMask<'a> {
    input: InputMask<'a>,
    residual: &'a [f32],
}

impl Mask for ResidualMask<'_> {
    #[inline(always)]
    fn apply<const L: usize>(self, at: usize, column: usize, x: &[f32; L], dy: &[f32; L]) -> [f32; L] {
        let InputMask { scale, shift } = self.input;
        let (scale, shift) = (lanes::<L>(scale, column), lanes::<L>(shift, column));
        let residual = lanes::<L>(self.residual, at);
        from_fn(|l| relu_backward(x[l] * scale[l] + shift[l] + residual[l], dy[l]))
    }
}

/// The task that computes the [`BatchNormSums`] of a range of elements.
struct RangeSums<'a, M> {
    strip: Strip,
    channels: usize,
    range: Range<usize>,
    terms: Products<'a, M>,
}

impl<M: Mask> Task for RangeSums<'_, M> {
    type Output = BatchNormSums;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> BatchNormSums {
        let (strip, start) = (self.strip, self.range.start);
        let mut totals =
            BatchNormSums { dy: vec![0.0; self.channels], dy_deviation: vec![0.0; self.channels] };
        let mut sums = [vec![0.0; strip.width()], vec![0.0; strip.width()]];
        for block in strip.blocks(self.range.len()) {
            add_terms(&self.terms, start + block.start..start + block.end, &mut sums);
            strip.drain(&mut sums[0], &mut totals.dy);
            strip.drain(&mut sums[1], &mut totals.dy_deviation);
        }
        totals
    }
}

/// The terms dy and dy (x - mean), where dy is the gradient before the activation.
struct Products<'a, M> {
    x: &'a [f32],
    dy: &'a [f32],
    mean: &'a [f32],
    mask: M,
}

impl<M: Mask> Terms<2> for Products<'_, M> {
    #[inline(always)]
    fn terms<const L: usize>(&self, at: usize, column: usize) -> [[f32; L]; 2] {
        let (x, mean) = (lanes::<L>(self.x, at), lanes::<L>(self.mean, column));
        let dy = self.mask.apply(at, column, x, lanes(self.dy, at));
        [dy, from_fn(|l| dy[l] * (x[l] - mean[l]))]
    }
}
