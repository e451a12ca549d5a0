//! The options of a convolution, and the checks of its arguments.

use crate::{
    Error, Result, Shape, ShapePattern,
    kernels::{Algorithm, Conv2dGeometry},
    ops::expect_images,
};
use std::fmt;

/// A number for the rows and one for the columns of an image; `3` stands for `[3, 3]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair(pub [usize; 2]);

impl From<usize> for Pair {
    fn from(both: usize) -> Pair {
        Pair([both; 2])
    }
}

impl From<[usize; 2]> for Pair {
    fn from(each: [usize; 2]) -> Pair {
        Pair(each)
    }
}

/// The pixels around an image: zeros, or minus infinity for the maximum of a pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Padding {
    /// The same number of rows above and below, and of columns on the left and on the right:
    /// `Zeros([1, 1])` keeps the size under a 3 x 3 kernel.
    Zeros([usize; 2]),
    /// A number for each side.
    Sides {
        /// Rows above.
        top: usize,
        /// Rows below.
        bottom: usize,
        /// Columns on the left.
        left: usize,
        /// Columns on the right.
        right: usize,
    },
    /// As many pixels as make the size of the output `ceil(input / stride)`. If that number is odd,
    /// the extra row or column is at the bottom or on the right, as in TensorFlow (and in PyTorch,
    /// which supports it for stride 1 only).
    Same,
}

impl Padding {
    /// Returns the pixels before and after an axis of `size` pixels for windows that are `reach`
    /// pixels long; `None` if they overflow.
    pub(in crate::ops) fn sides(
        self,
        axis: usize,
        size: usize,
        stride: usize,
        reach: Option<usize>,
    ) -> Option<[usize; 2]> {
        Some(match self {
            Padding::Zeros(zeros) => [zeros[axis]; 2],
            Padding::Sides { top, bottom, left, right } => [[top, bottom], [left, right]][axis],
            Padding::Same => {
                let last = (size.div_ceil(stride) - 1) * stride;
                let total = last.checked_add(reach?)?.saturating_sub(size);
                [total / 2, total - total / 2]
            }
        })
    }
}

impl From<usize> for Padding {
    fn from(zeros: usize) -> Padding {
        Padding::Zeros([zeros; 2])
    }
}

impl From<[usize; 2]> for Padding {
    fn from(zeros: [usize; 2]) -> Padding {
        Padding::Zeros(zeros)
    }
}

/// The options of [`Var::conv2d`](crate::autograd::Var::conv2d). Pairs are (rows, columns).
///
/// ```
/// use skipgrad::ops::{Conv2dOptions, Padding};
/// let options = Conv2dOptions::new().stride(2).padding(1);
/// assert_eq!((options.stride, options.padding), ([2, 2], Padding::Zeros([1, 1])));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Conv2dOptions {
    /// The distance in input pixels between neighboring output pixels, at least 1.
    pub stride: [usize; 2],
    /// The zeros around the image.
    pub padding: Padding,
    /// The distance in input pixels between neighboring elements of the kernel, at least 1.
    pub dilation: [usize; 2],
    /// The number of blocks of channels that do not mix; it divides the channels of the input and
    /// of the output.
    pub groups: usize,
    /// The algorithm, which changes the rounding of the result and nothing else.
    pub algorithm: Algorithm,
}

impl Default for Conv2dOptions {
    fn default() -> Conv2dOptions {
        Conv2dOptions::new()
    }
}

impl Conv2dOptions {
    /// Stride 1, no padding, no dilation, one group, and the algorithm that was measured to be the
    /// fastest.
    pub const fn new() -> Conv2dOptions {
        Conv2dOptions {
            stride: [1, 1],
            padding: Padding::Zeros([0, 0]),
            dilation: [1, 1],
            groups: 1,
            algorithm: Algorithm::Auto,
        }
    }

    /// Sets the distance in input pixels between neighboring output pixels, at least 1.
    pub fn stride(self, stride: impl Into<Pair>) -> Self {
        Conv2dOptions { stride: stride.into().0, ..self }
    }

    /// Sets the zeros around the image: a number, a pair, or a [`Padding`].
    pub fn padding(self, padding: impl Into<Padding>) -> Self {
        Conv2dOptions { padding: padding.into(), ..self }
    }

    /// Sets the distance in input pixels between neighboring elements of the kernel, at least 1.
    pub fn dilation(self, dilation: impl Into<Pair>) -> Self {
        Conv2dOptions { dilation: dilation.into().0, ..self }
    }

    /// Sets the number of blocks of channels that do not mix.
    pub fn groups(self, groups: usize) -> Self {
        Conv2dOptions { groups, ..self }
    }

    /// Sets the algorithm.
    pub fn algorithm(self, algorithm: Algorithm) -> Self {
        Conv2dOptions { algorithm, ..self }
    }
}

impl Conv2dOptions {
    /// Checks an input and a weight, and returns the geometry of their convolution for the kernels.
    pub(in crate::ops) fn geometry(&self, x: &Shape, w: &Shape) -> Result<Conv2dGeometry> {
        let [batch, height, width, in_channels] = expect_images("conv2d", x)?;
        let &[kernel_height, kernel_width, _, out_channels] = &w[..] else {
            return Err(Error::shape("conv2d", "weight", ["KH", "KW", "C/groups", "OC"], w));
        };
        let kernel = [kernel_height, kernel_width];
        for (argument, sizes) in [("stride", self.stride), ("dilation", self.dilation), ("weight", kernel)] {
            if sizes.contains(&0) {
                return Err(invalid(argument, "at least 1", format_args!("{sizes:?}")));
            }
        }
        self.check_channels(x, w)?;
        let too_large = || {
            invalid(
                "padding",
                "a padded image that fits the address space",
                format_args!("{:?}", self.padding),
            )
        };
        let [Some(vertical), Some(horizontal)] =
            [self.sides(0, height, kernel), self.sides(1, width, kernel)]
        else {
            return Err(too_large());
        };
        let padded = [vertical, horizontal].map(|sides| sides.padded);
        Shape::new(&[batch, padded[0], padded[1], in_channels]).map_err(|_| too_large())?;
        if (0..2).any(|axis| self.reach(axis, kernel).is_none_or(|reach| reach > padded[axis])) {
            let expected = format_args!("at most the padded image, {} x {}", padded[0], padded[1]);
            let dilation = match self.dilation {
                [1, 1] => String::new(),
                dilation => format!(" with dilation {dilation:?}"),
            };
            let found = format_args!("{} x {}{dilation}", kernel[0], kernel[1]);
            return Err(Error::argument("conv2d", "kernel", expected, found));
        }
        Ok(Conv2dGeometry {
            batch,
            height,
            width,
            in_channels,
            out_channels,
            kernel,
            // A stride larger than the padded image acts like one of its size, which cannot
            // overflow.
            stride: [0, 1].map(|axis| self.stride[axis].min(padded[axis])),
            padding: [vertical, horizontal].map(|sides| [sides.before, sides.after]),
            dilation: self.dilation,
            groups: self.groups,
        })
    }

    /// Returns the shape that the output would have if the input fitted the weight, for error
    /// recovery.
    pub(super) fn inferred_shape(&self, x: &Shape, w: &Shape) -> Option<Shape> {
        let (&[batch, height, width, _], &[_, _, channels, outputs]) = (&x[..], &w[..]) else {
            return None;
        };
        let fitting = Shape::new(&[batch, height, width, channels.saturating_mul(self.groups)]).ok()?;
        let [height, width] = match self.geometry(&fitting, w) {
            Ok(sizes) => [sizes.out_height(), sizes.out_width()],
            Err(_) => [height.div_ceil(self.stride[0].max(1)), width.div_ceil(self.stride[1].max(1))],
        };
        Shape::new(&[batch, height, width, outputs]).ok()
    }

    /// Checks that the groups divide the channels, and that the channels of weight and input agree.
    fn check_channels(&self, x: &Shape, w: &Shape) -> Result<()> {
        let (channels, group_channels, out_channels) = (x[3], w[2], w[3]);
        if self.groups == 0 {
            return Err(invalid("groups", "at least 1", 0));
        }
        for (whose, channels) in [("input", channels), ("output", out_channels)] {
            if !channels.is_multiple_of(self.groups) {
                let expected = format!("a divisor of the {whose}'s channels");
                return Err(invalid("groups", &expected, format_args!("{} of {channels}", self.groups)));
            }
        }
        // The error names the input: in a network the weight is part of the layer and not in
        // question.
        if group_channels.checked_mul(self.groups) != Some(channels) {
            let groups = if self.groups == 1 { String::new() } else { format!(" in {} groups", self.groups) };
            let expected = ShapePattern::from(["N", "H", "W"])
                .fixed(group_channels.saturating_mul(self.groups))
                .with_context(format!("for the weight {w}{groups}"));
            return Err(Error::shape("conv2d", "input", expected, x));
        }
        Ok(())
    }

    /// Returns the size of the dilated kernel in input pixels, unless it overflows.
    fn reach(&self, axis: usize, kernel: [usize; 2]) -> Option<usize> {
        (kernel[axis] - 1).checked_mul(self.dilation[axis])?.checked_add(1)
    }

    /// Returns the padding of an axis of `size` pixels, unless the padded size overflows.
    fn sides(&self, axis: usize, size: usize, kernel: [usize; 2]) -> Option<Sides> {
        let reach = self.reach(axis, kernel);
        let [before, after] = self.padding.sides(axis, size, self.stride[axis], reach)?;
        Some(Sides { before, after, padded: size.checked_add(before)?.checked_add(after)? })
    }
}

/// The zeros before and after the pixels of an axis, and its padded size.
#[derive(Clone, Copy)]
struct Sides {
    before: usize,
    after: usize,
    padded: usize,
}

fn invalid(argument: &'static str, expected: &str, found: impl fmt::Display) -> Error {
    Error::argument("conv2d", argument, expected, found)
}
