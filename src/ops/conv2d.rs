//! Two-dimensional convolution; as in every deep-learning library a cross-correlation, since the
//! kernel is not flipped:
//!
//! ```text
//! y[n, oy, ox, o] = b[o] + sum over ky, kx, c of
//!                   x[n, oy sy - top + ky dy, ox sx - left + kx dx, c] w[ky, kx, c, o]
//! ```
//!
//! where x is zero outside of the image, and with groups each block of output channels reads its
//! block of input channels. Backward keeps w, and x or the way to recompute it: dx is dy convolved
//! with w rotated by 180 degrees, dw is x correlated with dy, and db is the sum of dy over all
//! pixels. The arithmetic is that of [`kernels::conv2d`] and its two gradients, or Winograd's, see
//! [`Algorithm`].

use super::{Moments, expect_images, expect_vector, linear::column_sums};
use crate::{
    Error, Result, Shape, ShapePattern, Tensor,
    autograd::{Cost, Saved, Var},
    kernels::{self, Epilogue, Isa},
};
use std::fmt;

pub use crate::kernels::Algorithm;

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

/// The zeros around an image.
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
    /// As many zeros as make the size of the output `ceil(input / stride)`. If that number is odd,
    /// the extra row or column is at the bottom or on the right, as in TensorFlow (and in PyTorch,
    /// which supports it for stride 1 only).
    Same,
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

/// The options of [`Var::conv2d`]. Pairs are (rows, columns).
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

impl<'t> Var<'t> {
    /// Convolves `[N, H, W, C]` with the weight `[KH, KW, C/groups, OC]` and adds the bias `[OC]`
    /// if there is one: `[N, OH, OW, OC]`, where OH = (H + top + bottom - (dilation (KH - 1) + 1))
    /// / stride + 1, rounded down.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the input or the weight does not have four axes, or the channels
    /// of the input, the weight and the bias do not fit; [`Error::Argument`] if the input has no
    /// pixels, a stride, a dilation or a size of the kernel is zero, the groups do not divide the
    /// channels of the input and of the output, or the kernel is larger than the padded image.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape, ops::{Conv2dOptions, Padding}};
    /// let tape = Tape::eval();
    /// let image = tape.input(Tensor::from_fn([1, 3, 3, 1], |i| i as f32)?);
    /// let blur = tape.input(Tensor::full([3, 3, 1, 1], 1.0)?);
    /// let y = image.conv2d(&blur, None, &Conv2dOptions::new().padding(Padding::Same))?;
    /// assert_eq!(y.value().data(), [8.0, 15.0, 12.0, 21.0, 36.0, 27.0, 20.0, 33.0, 24.0]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn conv2d(
        &self,
        weight: &Var<'t>,
        bias: Option<&Var<'t>>,
        options: &Conv2dOptions,
    ) -> Result<Var<'t>> {
        self.convolve(weight, bias, options, false).map(|(y, _)| y)
    }

    /// Computes [`Var::conv2d`] and the moments of each channel of the result, which are taken
    /// while the result is in the cache. They are for a batch normalization that follows, see
    /// [`Statistics::Precomputed`](super::Statistics::Precomputed).
    ///
    /// # Errors
    /// As [`Var::conv2d`].
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape, ops::Conv2dOptions};
    /// let tape = Tape::eval();
    /// let x = tape.input(Tensor::new([1, 1, 2, 1], [1.0, 3.0])?);
    /// let weight = tape.input(Tensor::full([1, 1, 1, 1], 10.0)?);
    /// let (_, moments) = x.conv2d_moments(&weight, None, &Conv2dOptions::default())?;
    /// assert_eq!((moments.mean.item(), moments.var.item(), moments.count), (20.0, 100.0, 2));
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn conv2d_moments(
        &self,
        weight: &Var<'t>,
        bias: Option<&Var<'t>>,
        options: &Conv2dOptions,
    ) -> Result<(Var<'t>, Moments)> {
        let (y, moments) = self.convolve(weight, bias, options, true)?;
        let (channels, count) = (Shape::new(&[y.shape().num_channels()])?, y.shape().num_rows());
        // A meta pass computes no moments.
        let moments = moments.unwrap_or_else(|| (vec![0.0; channels[0]], vec![0.0; channels[0]]));
        Ok((y, Moments::new(channels, moments, count)))
    }

    /// Computes the convolution and, if `take_moments`, the mean and variance of each channel.
    fn convolve(
        &self,
        weight: &Var<'t>,
        bias: Option<&Var<'t>>,
        options: &Conv2dOptions,
        take_moments: bool,
    ) -> Result<(Var<'t>, Option<MeanAndVariance>)> {
        let sizes = match options.geometry(self.shape(), weight.shape()) {
            Ok(sizes) => sizes,
            Err(error) => {
                let inferred_shape = options.inferred_shape(self.shape(), weight.shape());
                return self.tape().recover(error, inferred_shape).map(|y| (y, None));
            }
        };
        if let Some(bias) = bias {
            expect_vector("conv2d", "bias", sizes.out_channels, bias.shape())?;
        }
        let shape = Shape::new(&[sizes.batch, sizes.out_height(), sizes.out_width(), sizes.out_channels])?;
        log::debug!(
            "conv2d of {} with {} uses {}",
            self.shape(),
            weight.shape(),
            if options.algorithm.takes_norm(&sizes) {
                "Winograd's algorithm"
            } else {
                "the direct algorithm"
            }
        );
        let (algorithm, saved, mut moments) = (options.algorithm, self.save(), None);
        let inputs: Vec<&Var<'t>> = [self, weight].into_iter().chain(bias).collect();
        let y = Var::op_many("conv2d", &inputs, shape, |values| {
            let (x, w, isa) = (values[0].data(), values[1].data(), Isa::active());
            let epilogue = Epilogue { bias: values.get(2).map(|bias| bias.data()), ..Epilogue::default() };
            let y = Tensor::build(shape, |y| match take_moments {
                true => moments = Some(algorithm.conv2d_moments(isa, &sizes, x, w, epilogue, y)),
                false => algorithm.conv2d(isa, &sizes, x, w, epilogue, y),
            });
            let w = values[1].clone();
            (y, move |dy: Tensor, needs: &[bool]| {
                let [dx, dw] = gradients(algorithm, &sizes, &saved, &w, &dy, [needs[0], needs[1]]);
                vec![dx, dw, needs.get(2).is_some_and(|needs| *needs).then(|| column_sums(&dy))]
            })
        })
        .costs(|| Cost {
            multiply_adds: multiply_adds(&shape, weight.shape()),
            saved_inputs: vec![self.save(), weight.value().clone().into()],
            ..Cost::default()
        })
        .settings(|| {
            let [[top, bottom], [left, right]] = sizes.padding;
            Conv2dOptions {
                stride: sizes.stride,
                padding: Padding::Sides { top, bottom, left, right },
                ..*options
            }
        });
        Ok((y, moments))
    }
}

/// Returns the number of multiply-adds of a convolution by its definition, from the shapes of its
/// output and its weight.
pub(super) fn multiply_adds(output: &Shape, weight: &Shape) -> u64 {
    output.num_elements() as u64 * (weight.num_elements() / weight.num_channels().max(1)) as u64
}

/// The mean and the variance of each channel.
type MeanAndVariance = (Vec<f64>, Vec<f64>);

/// Computes the gradients of the input and of the weight, as far as they are needed.
fn gradients(
    algorithm: Algorithm,
    geometry: &kernels::Conv2dGeometry,
    x: &Saved,
    w: &Tensor,
    dy: &Tensor,
    needs: [bool; 2],
) -> [Option<Tensor>; 2] {
    let isa = Isa::active();
    let dx = needs[0].then(|| {
        Tensor::build(*x.shape(), |dx| {
            algorithm.input_gradient(isa, geometry, dy.data(), w.data(), dx);
        })
    });
    let dw = needs[1].then(|| {
        Tensor::build(*w.shape(), |dw| {
            algorithm.weight_gradient(isa, geometry, x.value().data(), dy.data(), dw);
        })
    });
    [dx, dw]
}

impl Conv2dOptions {
    /// Checks an input and a weight, and returns the geometry of their convolution for the kernels.
    pub(super) fn geometry(&self, x: &Shape, w: &Shape) -> Result<kernels::Conv2dGeometry> {
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
        Ok(kernels::Conv2dGeometry {
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
    fn inferred_shape(&self, x: &Shape, w: &Shape) -> Option<Shape> {
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
        let [before, after] = match self.padding {
            Padding::Zeros(zeros) => [zeros[axis]; 2],
            Padding::Sides { top, bottom, left, right } => [[top, bottom], [left, right]][axis],
            Padding::Same => {
                let last = (size.div_ceil(self.stride[axis]) - 1) * self.stride[axis];
                let total = last.checked_add(self.reach(axis, kernel)?)?.saturating_sub(size);
                [total / 2, total - total / 2]
            }
        };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Rng,
        autograd::{Tape, gradient_check},
    };

    fn output(x: &[usize], w: &[usize], options: Conv2dOptions) -> Result<Vec<usize>> {
        let tape = Tape::eval();
        let (x, w) = (tape.input(Tensor::zeros(x)?), tape.input(Tensor::zeros(w)?));
        Ok(x.conv2d(&w, None, &options)?.shape().to_vec())
    }

    fn error(x: &[usize], w: &[usize], options: Conv2dOptions) -> String {
        output(x, w, options).unwrap_err().to_string()
    }

    #[test]
    fn values_by_hand() {
        let tape = Tape::eval();
        // Two images of one row; a kernel that takes differences of neighbors, with a bias.
        let x = tape.input(Tensor::new([2, 1, 3, 1], [1.0, 4.0, 9.0, 2.0, 2.0, 5.0]).unwrap());
        let w = tape.input(Tensor::new([1, 2, 1, 1], [-1.0, 1.0]).unwrap());
        let b = tape.input(Tensor::new([1], [0.5]).unwrap());
        let y = x.conv2d(&w, Some(&b), &Conv2dOptions::default()).unwrap();
        assert_eq!(y.value(), &Tensor::new([2, 1, 2, 1], [3.5, 5.5, 0.5, 3.5]).unwrap());
        // Groups: each channel has its own factor.
        let x = tape.input(Tensor::new([1, 1, 2, 2], [1.0, 2.0, 3.0, 4.0]).unwrap());
        let w = tape.input(Tensor::new([1, 1, 1, 2], [10.0, 100.0]).unwrap());
        let y = x.conv2d(&w, None, &Conv2dOptions::new().groups(2)).unwrap();
        assert_eq!(y.value().data(), [10.0, 200.0, 30.0, 400.0]);
    }

    #[test]
    fn gradients_agree_with_differences() {
        let mut rng = Rng::seed(3);
        let mut normal = |shape: &[usize]| Tensor::normal(shape, 1.0, &mut rng).unwrap();
        let options = Conv2dOptions::new()
            .stride([2, 1])
            .padding(Padding::Sides { top: 1, bottom: 0, left: 2, right: 1 })
            .dilation([1, 2])
            .groups(2);
        let inputs = [normal(&[2, 5, 4, 4]), normal(&[3, 2, 2, 6]), normal(&[6])];
        let check = gradient_check(&inputs, |v| v[0].conv2d(&v[1], Some(&v[2]), &options)).unwrap();
        check.within(1e-4).unwrap();
        let check = gradient_check(&inputs[..2], |v| v[0].conv2d(&v[1], None, &options)).unwrap();
        check.within(1e-4).unwrap();
    }

    #[test]
    fn algorithms_agree() {
        let mut rng = Rng::seed(4);
        let inputs =
            [[16, 31, 30, 16], [3, 3, 16, 16]].map(|shape| Tensor::normal(shape, 1.0, &mut rng).unwrap());
        let [auto, direct] = [Algorithm::Auto, Algorithm::Direct].map(|algorithm| {
            let tape = Tape::train(Rng::seed(1));
            let [x, w] = inputs.clone().map(|input| tape.watch(input));
            let options = Conv2dOptions::new().algorithm(algorithm).padding(Padding::Same);
            let y = x.conv2d(&w, None, &options).unwrap();
            let value = y.value().clone();
            let updates = y.mul(&y).unwrap().sum().backward().unwrap();
            [value, updates.grad_of(&x).unwrap().clone(), updates.grad_of(&w).unwrap().clone()]
        });
        assert_ne!(auto[0], direct[0], "this is large enough for Winograd's algorithm");
        for (auto, direct) in auto.iter().zip(&direct) {
            let largest = direct.data().iter().fold(0.0, |m: f32, x| m.max(x.abs()));
            for (a, b) in auto.data().iter().zip(direct.data()) {
                assert!((a - b).abs() <= 1e-5 * largest, "{a} {b} of {largest}");
            }
        }
    }

    #[test]
    fn output_sizes() {
        let stride = |stride, padding| Conv2dOptions::new().stride([stride; 2]).padding(padding);
        let stem = stride(2, Padding::Zeros([3, 3]));
        assert_eq!(output(&[1, 224, 224, 3], &[7, 7, 3, 4], stem).unwrap(), [1, 112, 112, 4]);
        for (size, kernel, s) in [(5, 3, 2), (6, 3, 2), (6, 4, 1), (7, 2, 3), (1, 3, 2), (5, 1, 4)] {
            let same =
                output(&[1, size, size, 1], &[kernel, kernel, 1, 1], stride(s, Padding::Same)).unwrap();
            assert_eq!(same[1], size.div_ceil(s), "{size} {kernel} {s}");
        }
        assert_eq!(output(&[0, 4, 4, 3], &[3, 3, 3, 2], Conv2dOptions::default()).unwrap(), [0, 2, 2, 2]);
    }

    #[test]
    fn errors_name_the_argument_and_what_would_fit() {
        let x = [1, 5, 5, 4];
        let default = Conv2dOptions::default();
        assert_eq!(
            error(&[5, 5, 4], &[3, 3, 4, 2], default),
            "conv2d: input: expected [N, H, W, C], found [5, 5, 4]"
        );
        assert_eq!(
            error(&[1, 0, 5, 4], &[3, 3, 4, 2], default),
            "conv2d: input: expected images of at least one pixel, found [1, 0, 5, 4]"
        );
        assert_eq!(
            error(&x, &[3, 4, 2], default),
            "conv2d: weight: expected [KH, KW, C/groups, OC], found [3, 4, 2]"
        );
        assert_eq!(
            error(&x, &[3, 3, 3, 2], default),
            "conv2d: input: expected [N, H, W, 3] for the weight [3, 3, 3, 2], found [1, 5, 5, 4]"
        );
        assert_eq!(
            error(&x, &[7, 3, 4, 2], default.padding([0, 1])),
            "conv2d: kernel: expected at most the padded image, 5 x 7, found 7 x 3"
        );
        assert_eq!(
            error(&x, &[3, 3, 4, 2], default.stride([1, 0])),
            "conv2d: stride: expected at least 1, found [1, 0]"
        );
        assert!(error(&x, &[3, 3, 4, 2], default.dilation([0, 1])).contains("dilation"));
        assert!(error(&x, &[0, 3, 4, 2], default).contains("weight: expected at least 1, found [0, 3]"));
        assert!(error(&x, &[3, 3, 4, 2], default.groups(0)).contains("groups"));
        assert_eq!(
            error(&x, &[3, 3, 1, 6], default.groups(3)),
            "conv2d: groups: expected a divisor of the input's channels, found 3 of 4"
        );
        assert_eq!(
            error(&x, &[3, 3, 2, 5], default.groups(2)),
            "conv2d: groups: expected a divisor of the output's channels, found 2 of 5"
        );
        let tape = Tape::eval();
        let zeros = |shape: &[usize]| tape.input(Tensor::zeros(shape).unwrap());
        let error = zeros(&x).conv2d(&zeros(&[3, 3, 4, 2]), Some(&zeros(&[4])), &default).unwrap_err();
        assert_eq!(error.to_string(), "conv2d: bias: expected [2], found [4]");
    }

    #[test]
    fn overflowing_sizes_are_errors() {
        let (x, w) = ([1, 5, 5, 1], [3, 3, 1, 1]);
        let default = Conv2dOptions::default();
        for padding in [usize::MAX, usize::MAX / 2, 1 << 60] {
            assert!(output(&x, &w, default.padding([padding, 0])).is_err());
        }
        let dilation = [usize::MAX, 1];
        assert!(error(&x, &w, default.dilation(dilation)).contains("kernel"));
        assert!(error(&x, &w, default.dilation(dilation).padding(Padding::Same)).contains("padding"));
        for stride in [usize::MAX, 1 << 63] {
            let options = default.stride([stride; 2]);
            let inputs = [Tensor::full(x, 1.0).unwrap(), Tensor::full(w, 1.0).unwrap()];
            gradient_check(&inputs, |v| v[0].conv2d(&v[1], None, &options)).unwrap().within(1e-4).unwrap();
            let same = options.padding(Padding::Same);
            assert_eq!(output(&x, &w, same).unwrap(), [1, 1, 1, 1]);
        }
        let far = default.padding([1 << 20; 2]).stride([1 << 20; 2]);
        assert_eq!(output(&x, &w, far).unwrap(), [1, 3, 3, 1]);
    }
}
