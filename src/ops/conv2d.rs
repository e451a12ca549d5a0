//! Two-dimensional convolution (as in every deep-learning library a correlation: the kernel is not flipped),
//!
//! ```text
//! y[n, oy, ox, o] = b[o] + sum over ky, kx, c of  x[n, oy sy - top + ky dy, ox sx - left + kx dx, c] w[ky, kx, c, o]
//! ```
//!
//! with x zero outside of the image, and with groups each block of output channels reading its block of input channels.
//! Backward keeps w and x, or how x is computed again: dx is dy convolved with w turned round, dw is x correlated with dy, db the sum of dy over all
//! pixels. The arithmetic is [`kernels::conv2d`] and its two gradients, or Winograd's algorithm, see [`Algorithm`].

use super::{Moments, expect_images, expect_vector, linear::column_sums};
use crate::{
    Error, Result, Shape, ShapePattern, Tensor,
    autograd::{Cost, Saved, Var},
    kernels::{self, Epilogue, Isa},
};
use std::fmt;

pub use crate::kernels::Algorithm;

/// How an image is padded with zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Padding {
    /// So many rows above and below, so many columns left and right: `Zeros([1, 1])` keeps the size under a 3 x 3 kernel.
    Zeros([usize; 2]),
    /// Each side by itself.
    Sides {
        /// Rows above.
        top: usize,
        /// Rows below.
        bottom: usize,
        /// Columns left.
        left: usize,
        /// Columns right.
        right: usize,
    },
    /// As much as makes the output `ceil(input / stride)`; where that is odd, the extra row or column is at the bottom or
    /// right, as in TensorFlow (and in PyTorch, which has it for stride 1 only).
    Same,
}

/// The settings of [`Var::conv2d`]; the default is stride 1, no padding, no dilation, one group, and the algorithm that was
/// measured to be the fastest. Pairs are (rows, columns).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dOptions {
    /// Input pixels from one output pixel to the next, at least 1.
    pub stride: [usize; 2],
    /// Zeros around the image.
    pub padding: Padding,
    /// Input pixels from one tap of the kernel to the next, at least 1.
    pub dilation: [usize; 2],
    /// Blocks of channels that do not mix; divides the input's and the output's channels.
    pub groups: usize,
    /// How it is computed, which changes the rounding of the result and nothing else.
    pub algorithm: Algorithm,
}

impl Default for Conv2dOptions {
    fn default() -> Conv2dOptions {
        Conv2dOptions {
            stride: [1, 1],
            padding: Padding::Zeros([0, 0]),
            dilation: [1, 1],
            groups: 1,
            algorithm: Algorithm::Auto,
        }
    }
}

impl<'t> Var<'t> {
    /// Convolves `[N, H, W, C]` with the weight `[KH, KW, C/groups, OC]` and adds the bias `[OC]` if there is one:
    /// `[N, OH, OW, OC]`, where OH = (H + top + bottom - (dilation (KH - 1) + 1)) / stride + 1, rounded down.
    ///
    /// # Errors
    /// [`Error::Argument`] if the input has not four axes or no pixels, the weight not its channels, the bias not the weight's; if a stride,
    /// a dilation or a size of the kernel is zero; if the groups do not divide both numbers of channels; if the kernel is
    /// larger than the padded image.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape, ops::{Conv2dOptions, Padding}};
    /// let tape = Tape::eval();
    /// let image = tape.input(Tensor::from_fn([1, 3, 3, 1], |i| i as f32)?);
    /// let blur = tape.input(Tensor::full([3, 3, 1, 1], 1.0)?);
    /// let y = image.conv2d(&blur, None, &Conv2dOptions { padding: Padding::Same, ..Default::default() })?;
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

    /// [`Var::conv2d`], and the moments of each channel of the result, taken while it is in the cache: for a batch normalization
    /// that follows, see [`BatchNorm::batch`](super::BatchNorm::batch).
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
        // A meta pass has none.
        let moments = moments.unwrap_or_else(|| (vec![0.0; channels[0]], vec![0.0; channels[0]]));
        Ok((y, Moments::new(channels, moments, count)))
    }

    /// The convolution, and perhaps mean and variance of each channel.
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
            saves: vec![self.save(), weight.value().clone().into()],
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

/// Of a convolution whose output and weight have these shapes, by its definition.
pub(super) fn multiply_adds(output: &Shape, weight: &Shape) -> u64 {
    output.num_elements() as u64 * (weight.num_elements() / weight.num_channels().max(1)) as u64
}

/// Of each channel.
type MeanAndVariance = (Vec<f64>, Vec<f64>);

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
    /// The kernels' sizes for an input and a weight; refuses whatever does not fit.
    pub(super) fn geometry(&self, x: &Shape, w: &Shape) -> Result<kernels::Conv2dGeometry> {
        let [batch, height, width, in_channels] = expect_images("conv2d", x)?;
        let &[kernel_height, kernel_width, _, out_channels] = &w[..] else {
            return Err(Error::shape("conv2d", "weight", ["KH", "KW", "C/groups", "OC"], w));
        };
        let kernel = [kernel_height, kernel_width];
        for (argument, sizes) in [("stride", self.stride), ("dilation", self.dilation), ("weight", kernel)] {
            if sizes.contains(&0) {
                return Err(refuse(argument, "at least 1", format_args!("{sizes:?}")));
            }
        }
        self.check_channels(x, w)?;
        let too_large = || {
            refuse(
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
            // A stride beyond the image moves no tap into it; cut short, it cannot overflow in the kernels.
            stride: [0, 1].map(|axis| self.stride[axis].min(padded[axis])),
            padding: [vertical, horizontal].map(|sides| [sides.before, sides.behind]),
            dilation: self.dilation,
            groups: self.groups,
        })
    }

    /// The shape that the output would have if the input fitted.
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

    /// Refuses groups that do not divide the channels, and a weight of other channels than the input's.
    fn check_channels(&self, x: &Shape, w: &Shape) -> Result<()> {
        let (channels, group_channels, out_channels) = (x[3], w[2], w[3]);
        if self.groups == 0 {
            return Err(refuse("groups", "at least 1", 0));
        }
        for (whose, channels) in [("input", channels), ("output", out_channels)] {
            if !channels.is_multiple_of(self.groups) {
                let expected = format!("a divisor of the {whose}'s channels");
                return Err(refuse("groups", &expected, format_args!("{} of {channels}", self.groups)));
            }
        }
        // Said of the input: in a network the weight is the layer's, and what came in is the surprise.
        if group_channels.checked_mul(self.groups) != Some(channels) {
            let groups = if self.groups == 1 { String::new() } else { format!(" in {} groups", self.groups) };
            let expected = ShapePattern::from(["N", "H", "W"])
                .fixed(group_channels.saturating_mul(self.groups))
                .with_context(format!("for the weight {w}{groups}"));
            return Err(Error::shape("conv2d", "input", expected, x));
        }
        Ok(())
    }

    /// Input pixels from the first tap of the kernel to the last, if that can be counted.
    fn reach(&self, axis: usize, kernel: [usize; 2]) -> Option<usize> {
        (kernel[axis] - 1).checked_mul(self.dilation[axis])?.checked_add(1)
    }

    /// The padding of an axis of `size` pixels, if the padded size can be counted.
    fn sides(&self, axis: usize, size: usize, kernel: [usize; 2]) -> Option<Sides> {
        let [before, behind] = match self.padding {
            Padding::Zeros(zeros) => [zeros[axis]; 2],
            Padding::Sides { top, bottom, left, right } => [[top, bottom], [left, right]][axis],
            Padding::Same => {
                let last = (size.div_ceil(self.stride[axis]) - 1) * self.stride[axis];
                let total = last.checked_add(self.reach(axis, kernel)?)?.saturating_sub(size);
                [total / 2, total - total / 2]
            }
        };
        Some(Sides { before, behind, padded: size.checked_add(before)?.checked_add(behind)? })
    }
}

/// Zeros before and behind an axis, and its size with them.
#[derive(Clone, Copy)]
struct Sides {
    before: usize,
    behind: usize,
    padded: usize,
}

fn refuse(argument: &'static str, expected: &str, found: impl fmt::Display) -> Error {
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
        let y = x.conv2d(&w, None, &Conv2dOptions { groups: 2, ..Default::default() }).unwrap();
        assert_eq!(y.value().data(), [10.0, 200.0, 30.0, 400.0]);
    }

    #[test]
    fn gradients_agree_with_differences() {
        let mut rng = Rng::seed(3);
        let mut normal = |shape: &[usize]| Tensor::normal(shape, 1.0, &mut rng).unwrap();
        let options = Conv2dOptions {
            stride: [2, 1],
            padding: Padding::Sides { top: 1, bottom: 0, left: 2, right: 1 },
            dilation: [1, 2],
            groups: 2,
            ..Default::default()
        };
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
            let options = Conv2dOptions { algorithm, padding: Padding::Same, ..Default::default() };
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
        let stride = |stride, padding| Conv2dOptions { stride: [stride; 2], padding, ..Default::default() };
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
    fn refusals_name_the_argument_and_what_would_fit() {
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
            error(&x, &[7, 3, 4, 2], Conv2dOptions { padding: Padding::Zeros([0, 1]), ..default }),
            "conv2d: kernel: expected at most the padded image, 5 x 7, found 7 x 3"
        );
        assert_eq!(
            error(&x, &[3, 3, 4, 2], Conv2dOptions { stride: [1, 0], ..default }),
            "conv2d: stride: expected at least 1, found [1, 0]"
        );
        assert!(error(&x, &[3, 3, 4, 2], Conv2dOptions { dilation: [0, 1], ..default }).contains("dilation"));
        assert!(error(&x, &[0, 3, 4, 2], default).contains("weight: expected at least 1, found [0, 3]"));
        assert!(error(&x, &[3, 3, 4, 2], Conv2dOptions { groups: 0, ..default }).contains("groups"));
        assert_eq!(
            error(&x, &[3, 3, 1, 6], Conv2dOptions { groups: 3, ..default }),
            "conv2d: groups: expected a divisor of the input's channels, found 3 of 4"
        );
        assert_eq!(
            error(&x, &[3, 3, 2, 5], Conv2dOptions { groups: 2, ..default }),
            "conv2d: groups: expected a divisor of the output's channels, found 2 of 5"
        );
        let tape = Tape::eval();
        let zeros = |shape: &[usize]| tape.input(Tensor::zeros(shape).unwrap());
        let error = zeros(&x).conv2d(&zeros(&[3, 3, 4, 2]), Some(&zeros(&[4])), &default).unwrap_err();
        assert_eq!(error.to_string(), "conv2d: bias: expected [2], found [4]");
    }

    #[test]
    fn absurd_sizes_are_refused_and_do_not_overflow() {
        let (x, w) = ([1, 5, 5, 1], [3, 3, 1, 1]);
        let default = Conv2dOptions::default();
        for padding in [usize::MAX, usize::MAX / 2, 1 << 60] {
            assert!(
                output(&x, &w, Conv2dOptions { padding: Padding::Zeros([padding, 0]), ..default }).is_err()
            );
        }
        let dilation = [usize::MAX, 1];
        assert!(error(&x, &w, Conv2dOptions { dilation, ..default }).contains("kernel"));
        assert!(
            error(&x, &w, Conv2dOptions { dilation, padding: Padding::Same, ..default }).contains("padding")
        );
        for stride in [usize::MAX, 1 << 63] {
            let options = Conv2dOptions { stride: [stride; 2], ..default };
            let inputs = [Tensor::full(x, 1.0).unwrap(), Tensor::full(w, 1.0).unwrap()];
            gradient_check(&inputs, |v| v[0].conv2d(&v[1], None, &options)).unwrap().within(1e-4).unwrap();
            let same = Conv2dOptions { padding: Padding::Same, ..options };
            assert_eq!(output(&x, &w, same).unwrap(), [1, 1, 1, 1]);
        }
        let far = Conv2dOptions { padding: Padding::Zeros([1 << 20; 2]), stride: [1 << 20; 2], ..default };
        assert_eq!(output(&x, &w, far).unwrap(), [1, 3, 3, 1]);
    }
}
