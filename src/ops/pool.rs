//! Pooling over windows of pixels, channel by channel, as in PyTorch: maximum, mean, and the mean
//! of the whole image.
//!
//! Backward of the maximum keeps the position of the maximum in each window (2 bytes per output),
//! and not the input: the gradient goes to that position. The means keep sizes: each pixel gets its
//! share of the gradient of every window that contains it.

use super::{Padding, Pair, expect_images};
use crate::{
    Error, Result, Shape, Tensor,
    autograd::{Cost, Fault, Input, Kind, Op, Var},
    kernels::{self, Isa, Pool2d},
};

/// The options of [`Var::max_pool2d`] and [`Var::avg_pool2d`], in the words of
/// `torch.nn.MaxPool2d`. The default is a 2 x 2 window with stride 2, which halves an image. Pairs
/// are (rows, columns).
///
/// ```
/// use skipgrad::ops::Pool2dOptions;
/// let options = Pool2dOptions::new(3).stride(2).padding(1);
/// assert_eq!((options.kernel, options.stride, options.padding), ([3, 3], [2, 2], 1.into()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pool2dOptions {
    /// The size of a window in pixels, at least 1; at most 65535 pixels in all.
    pub kernel: [usize; 2],
    /// The distance in pixels between neighboring windows, at least 1.
    pub stride: [usize; 2],
    /// The pixels around the image, -inf for the maximum and 0 for the mean: on both sides at most
    /// half the kernel, or on each side less than the kernel, or [`Padding::Same`], as Keras
    /// rounds.
    pub padding: Padding,
    /// Whether the mean divides by the size of the window (PyTorch's default) or by the number of
    /// its pixels inside the image.
    pub count_include_pad: bool,
    /// Whether sizes are rounded up: a last window may reach beyond the padded image, if it begins
    /// inside the image or the padding before it.
    pub ceil_mode: bool,
}

impl Default for Pool2dOptions {
    fn default() -> Pool2dOptions {
        Pool2dOptions::new(2)
    }
}

impl Pool2dOptions {
    /// A window of this size in pixels, a stride of the same size, and no padding.
    pub fn new(kernel: impl Into<Pair>) -> Pool2dOptions {
        let Pair(kernel) = kernel.into();
        Pool2dOptions {
            kernel,
            stride: kernel,
            padding: Padding::Zeros([0, 0]),
            count_include_pad: true,
            ceil_mode: false,
        }
    }

    /// Sets the distance in pixels between neighboring windows, at least 1.
    pub fn stride(self, stride: impl Into<Pair>) -> Self {
        Pool2dOptions { stride: stride.into().0, ..self }
    }

    /// Sets the pixels around the image: a number or a pair, at most half the kernel, or a
    /// [`Padding`].
    pub fn padding(self, padding: impl Into<Padding>) -> Self {
        Pool2dOptions { padding: padding.into(), ..self }
    }

    /// Sets whether the mean divides by the size of the window or by the number of its pixels
    /// inside the image.
    pub fn count_include_pad(self, count_include_pad: bool) -> Self {
        Pool2dOptions { count_include_pad, ..self }
    }

    /// Sets whether sizes are rounded up.
    pub fn ceil_mode(self, ceil_mode: bool) -> Self {
        Pool2dOptions { ceil_mode, ..self }
    }
}

/// Returns the shape of the output for an input, or the shape that it would have if the input
/// fitted.
fn output_shape(op: &'static str, options: &Pool2dOptions, x: &Shape) -> Result<Shape, Fault> {
    match options.geometry(op, x) {
        Ok(pool) => Ok(Shape::new(&[pool.batch, pool.out_height(), pool.out_width(), pool.channels])?),
        Err(error) => Err(Fault::new(error, options.inferred_shape(x))),
    }
}

/// Returns the geometry of an input that [`output_shape`] accepted.
fn geometry(op: &'static str, options: &Pool2dOptions, x: &Shape) -> Pool2d {
    match options.geometry(op, x) {
        Ok(pool) => pool,
        Err(error) => unreachable!("the input was checked: {error}"),
    }
}

struct MaxPool2d(Pool2dOptions);

/// What the backward pass of a maximum needs.
struct Maxima {
    /// The position of the maximum in each window.
    argmax: Vec<u16>,
    /// The shape of the input.
    input: Shape,
}

impl Op for MaxPool2d {
    type Context = Maxima;

    fn name(&self) -> &'static str {
        "max_pool2d"
    }

    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
        output_shape(self.name(), &self.0, inputs[0].shape())
    }

    fn forward(&self, inputs: &[Input<'_>], shape: Shape) -> (Tensor, Maxima) {
        let (x, is_recorded) = (inputs[0].value(), inputs[0].needs_gradient());
        let pool = geometry(self.name(), &self.0, x.shape());
        let mut argmax = vec![0; if is_recorded { shape.num_elements() } else { 0 }];
        let y = Tensor::build(shape, |y| {
            let argmax = is_recorded.then_some(&mut argmax[..]);
            kernels::max_pool2d(Isa::active(), &pool, x.data(), y, argmax);
        });
        (y, Maxima { argmax, input: *x.shape() })
    }

    fn backward(&self, Maxima { argmax, input }: Maxima, dy: Tensor, _: &[bool]) -> Vec<Option<Tensor>> {
        let pool = geometry(self.name(), &self.0, &input);
        vec![Some(Tensor::build(input, |dx| {
            kernels::max_pool2d_backward(Isa::active(), &pool, &argmax, dy.data(), dx);
        }))]
    }

    fn cost(&self, _: &[Input<'_>], _: Shape) -> Cost {
        Cost::default()
    }

    fn kind(&self, inputs: &[Input<'_>]) -> Kind {
        let Pool2d { kernel, stride, padding, .. } = geometry(self.name(), &self.0, inputs[0].shape());
        Kind::MaxPool2d { kernel, stride, padding }
    }
}

struct AvgPool2d(Pool2dOptions);

impl Op for AvgPool2d {
    /// The shape of the input.
    type Context = Shape;

    fn name(&self) -> &'static str {
        "avg_pool2d"
    }

    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
        let shape = output_shape(self.name(), &self.0, inputs[0].shape())?;
        if self.0.count_include_pad && self.0.ceil_mode {
            let expected = "false, since sizes are rounded up";
            let error = Error::argument(self.name(), "count_include_pad", expected, true);
            return Err(Fault::new(error, shape));
        }
        Ok(shape)
    }

    fn forward(&self, inputs: &[Input<'_>], shape: Shape) -> (Tensor, Shape) {
        let x = inputs[0].value();
        let pool = geometry(self.name(), &self.0, x.shape());
        let y = Tensor::build(shape, |y| {
            kernels::avg_pool2d(Isa::active(), &pool, self.0.count_include_pad, x.data(), y);
        });
        (y, *x.shape())
    }

    fn backward(&self, input: Shape, dy: Tensor, _: &[bool]) -> Vec<Option<Tensor>> {
        let pool = geometry(self.name(), &self.0, &input);
        vec![Some(Tensor::build(input, |dx| {
            kernels::avg_pool2d_backward(Isa::active(), &pool, self.0.count_include_pad, dy.data(), dx);
        }))]
    }

    fn cost(&self, _: &[Input<'_>], _: Shape) -> Cost {
        Cost::default()
    }

    fn kind(&self, inputs: &[Input<'_>]) -> Kind {
        let Pool2d { kernel, stride, padding, .. } = geometry(self.name(), &self.0, inputs[0].shape());
        Kind::AvgPool2d { kernel, stride, padding, count_include_pad: self.0.count_include_pad }
    }
}

struct GlobalAvgPool;

impl Op for GlobalAvgPool {
    /// The shape of the input.
    type Context = Shape;

    fn name(&self) -> &'static str {
        "global_avg_pool"
    }

    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
        let [batch, _, _, channels] = expect_images("global_avg_pool", inputs[0].shape())?;
        Ok(Shape::new(&[batch, channels])?)
    }

    fn forward(&self, inputs: &[Input<'_>], shape: Shape) -> (Tensor, Shape) {
        let x = inputs[0].value();
        let y = Tensor::build(shape, |y| {
            kernels::global_avg_pool(Isa::active(), shape[0], shape[1], x.data(), y);
        });
        (y, *x.shape())
    }

    fn backward(&self, input: Shape, dy: Tensor, _: &[bool]) -> Vec<Option<Tensor>> {
        let (batch, channels) = (dy.shape()[0], dy.shape()[1]);
        vec![Some(Tensor::build(input, |dx| {
            kernels::global_avg_pool_backward(Isa::active(), batch, channels, dy.data(), dx);
        }))]
    }

    fn cost(&self, _: &[Input<'_>], _: Shape) -> Cost {
        Cost::default()
    }

    fn kind(&self, _: &[Input<'_>]) -> Kind {
        Kind::GlobalAvgPool
    }
}

impl<'t> Var<'t> {
    /// Returns the maximum of each window of `[N, H, W, C]`: `[N, OH, OW, C]`, where OH = (H + 2
    /// padding - kernel) / stride + 1, rounded down (or up, in `ceil_mode`). The gradient goes to
    /// the first of several equal maxima.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the input does not have four axes; [`Error::Argument`] if it has
    /// no pixels, a size or a stride is zero, the padding is larger than half the kernel (that of a
    /// single side: not smaller than the kernel), or the kernel is larger than the padded image or
    /// than 65535 pixels.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape, ops::Pool2dOptions};
    /// let tape = Tape::eval();
    /// let x = tape.input(Tensor::from_fn([1, 2, 4, 1], |i| i as f32)?);
    /// assert_eq!(x.max_pool2d(&Pool2dOptions::default())?.value().data(), [5.0, 7.0]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn max_pool2d(&self, options: &Pool2dOptions) -> Result<Var<'t>> {
        MaxPool2d(*options).apply(&[self])
    }

    /// Returns the mean of each window of `[N, H, W, C]`: `[N, OH, OW, C]`, with the sizes of
    /// [`Var::max_pool2d`].
    ///
    /// # Errors
    /// As [`Var::max_pool2d`], and [`Error::Argument`] for `ceil_mode` with `count_include_pad`:
    /// libraries disagree on whether the pixels of a window beyond the padding count.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape, ops::Pool2dOptions};
    /// let tape = Tape::eval();
    /// let x = tape.input(Tensor::from_fn([1, 2, 4, 1], |i| i as f32)?);
    /// assert_eq!(x.avg_pool2d(&Pool2dOptions::default())?.value().data(), [2.5, 4.5]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn avg_pool2d(&self, options: &Pool2dOptions) -> Result<Var<'t>> {
        AvgPool2d(*options).apply(&[self])
    }

    /// Returns the mean of each channel over all pixels of an image: `[N, H, W, C]` to `[N, C]`,
    /// the last operation before a classifier.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the input does not have four axes; [`Error::Argument`] if it has
    /// no pixels.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape};
    /// let tape = Tape::eval();
    /// let x = tape.input(Tensor::from_fn([1, 2, 2, 2], |i| i as f32)?);
    /// assert_eq!(x.global_avg_pool()?.value().data(), [3.0, 4.0]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn global_avg_pool(&self) -> Result<Var<'t>> {
        GlobalAvgPool.apply(&[self])
    }
}

impl Pool2dOptions {
    /// Returns the shape that the output would have if the input fitted, for error recovery.
    fn inferred_shape(&self, x: &Shape) -> Option<Shape> {
        let &[batch, height, width, channels] = &x[..] else {
            return None;
        };
        let [height, width] = [height.div_ceil(self.stride[0].max(1)), width.div_ceil(self.stride[1].max(1))];
        Shape::new(&[batch, height, width, channels]).ok()
    }

    /// Checks an input, and returns the geometry for the kernels.
    fn geometry(&self, op: &'static str, x: &Shape) -> Result<Pool2d> {
        let [batch, height, width, channels] = expect_images(op, x)?;
        let Pool2dOptions { kernel, stride, .. } = *self;
        let invalid = |argument, expected: &str, found: [usize; 2]| {
            Err(Error::argument(op, argument, expected, format_args!("{found:?}")))
        };
        if kernel.contains(&0) {
            return invalid("kernel", "at least 1", kernel);
        }
        if kernel[0].checked_mul(kernel[1]).is_none_or(|size| size > usize::from(u16::MAX)) {
            return invalid("kernel", "at most 65535 pixels", kernel);
        }
        if stride.contains(&0) {
            return invalid("stride", "at least 1", stride);
        }
        let sides = self.sides(op, [height, width])?;
        let padded = [0, 1].map(|axis| [height, width][axis] + sides[axis][0] + sides[axis][1]);
        // In `ceil_mode`, a window that begins inside the image may be larger than the image.
        let reaches = |axis: usize| kernel[axis].saturating_sub(padded[axis]);
        if [0, 1].iter().any(|&axis| reaches(axis) > 0 && !(self.ceil_mode && reaches(axis) < stride[axis])) {
            return invalid("kernel", &format!("at most the padded image {padded:?}"), kernel);
        }
        // A stride larger than the padded image acts like one of its size, which cannot overflow.
        let stride = [0, 1].map(|axis| stride[axis].min(padded[axis]));
        let padding = [0, 1].map(|axis| {
            let [before, after] = sides[axis];
            let Some(room) = padded[axis].checked_sub(kernel[axis]) else {
                return [before, after + reaches(axis)];
            };
            let rest = room % stride[axis];
            let begins_inside = room - rest + stride[axis] < padded[axis] - after;
            let one_more = self.ceil_mode && rest > 0 && begins_inside;
            [before, after + if one_more { stride[axis] - rest } else { 0 }]
        });
        Ok(Pool2d { batch, height, width, channels, kernel, stride, padding })
    }

    /// Checks the padding, and returns the pixels before and after each axis. Every window then has
    /// a pixel of the image.
    fn sides(&self, op: &'static str, size: [usize; 2]) -> Result<[[usize; 2]; 2]> {
        let Pool2dOptions { kernel, stride, padding, .. } = *self;
        let invalid = |expected: String, found: &dyn std::fmt::Debug| {
            Err(Error::argument(op, "padding", expected, format_args!("{found:?}")))
        };
        if let Padding::Zeros(zeros) = padding
            && (0..2).any(|axis| zeros[axis] > kernel[axis] / 2)
        {
            return invalid(format!("at most half the kernel {kernel:?}"), &zeros);
        }
        let sides = [0, 1].map(|axis| padding.sides(axis, size[axis], stride[axis], Some(kernel[axis])));
        match sides {
            [Some(rows), Some(columns)]
                if rows.iter().all(|&side| side < kernel[0] || side == 0)
                    && columns.iter().all(|&side| side < kernel[1] || side == 0) =>
            {
                Ok([rows, columns])
            }
            _ => invalid(format!("less than the kernel {kernel:?} on each side"), &padding),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Rng,
        autograd::{Tape, gradient_check},
    };

    const OVERLAPPING: Pool2dOptions = Pool2dOptions {
        kernel: [3, 2],
        stride: [2, 1],
        padding: Padding::Zeros([1, 1]),
        count_include_pad: true,
        ceil_mode: false,
    };

    #[test]
    fn gradients_agree_with_differences() {
        // The elements of a window are 0.2 apart and a difference moves one by at most 0.0625, so
        // the maximum stays the maximum.
        let x =
            Tensor::from_fn([1, 3, 3, 1], |i| [0.1, 0.9, -0.5, 0.5, -0.9, 0.3, -0.3, 0.7, -0.7][i]).unwrap();
        gradient_check(&[x], |v| v[0].max_pool2d(&OVERLAPPING)).unwrap().within(1e-4).unwrap();
        let x = [Tensor::normal([2, 5, 4, 3], 1.0, &mut Rng::seed(1)).unwrap()];
        for count_include_pad in [true, false] {
            let options = OVERLAPPING.count_include_pad(count_include_pad);
            gradient_check(&x, |v| v[0].avg_pool2d(&options)).unwrap().within(1e-4).unwrap();
        }
        let up = Pool2dOptions::new(2).ceil_mode(true).count_include_pad(false);
        gradient_check(&x, |v| v[0].avg_pool2d(&up)).unwrap().within(1e-4).unwrap();
        gradient_check(&x, |v| v[0].global_avg_pool()).unwrap().within(1e-4).unwrap();
    }

    #[test]
    fn values_by_hand() {
        let tape = Tape::eval();
        let x = tape.input(Tensor::new([1, 2, 2, 1], [-1.0, -2.0, -3.0, -5.0]).unwrap());
        let options = Pool2dOptions::new(2).padding(1).count_include_pad(false);
        let largest = x.max_pool2d(&options).unwrap();
        assert_eq!(largest.value().data(), [-1.0, -2.0, -3.0, -5.0], "padding is -inf, not 0");
        assert_eq!(x.avg_pool2d(&options).unwrap().value().data(), [-1.0, -2.0, -3.0, -5.0]);
        let options = options.count_include_pad(true);
        assert_eq!(x.avg_pool2d(&options).unwrap().value().data(), [-0.25, -0.5, -0.75, -1.25]);
    }

    /// The oracle of [`Padding::Same`]: each window by its definition in Keras.
    fn same(x: &Tensor, kernel: usize, stride: usize, fold: impl Fn(&[f32]) -> f32) -> Vec<f32> {
        let (height, width) = (x.shape()[1], x.shape()[2]);
        let window = |index: usize, size: usize| {
            let total = ((size.div_ceil(stride) - 1) * stride + kernel).saturating_sub(size);
            let begin = (index * stride) as isize - (total / 2) as isize;
            let end = (begin + kernel as isize).min(size as isize) as usize;
            begin.max(0) as usize..end
        };
        let rows = (0..height.div_ceil(stride)).map(|row| window(row, height));
        rows.flat_map(|rows| {
            let columns = (0..width.div_ceil(stride)).map(move |column| window(column, width));
            columns.map(move |columns| (rows.clone(), columns))
        })
        .map(|(rows, columns)| {
            let pixels = rows.flat_map(|row| columns.clone().map(move |column| row * width + column));
            fold(&pixels.map(|pixel| x.data()[pixel]).collect::<Vec<f32>>())
        })
        .collect()
    }

    #[test]
    fn the_same_padding_is_that_of_keras() {
        let tape = Tape::eval();
        for ([height, width], kernel, stride) in [
            ([4, 5], 2, 2),
            ([5, 5], 3, 2),
            ([6, 7], 3, 2),
            ([5, 4], 3, 1),
            ([5, 4], 2, 1),
            ([7, 8], 2, 3),
            ([1, 2], 5, 2),
            ([6, 1], 4, 3),
        ] {
            let x = Tensor::normal([1, height, width, 1], 1.0, &mut Rng::seed(3)).unwrap();
            let options = Pool2dOptions::new(kernel).stride(stride).padding(Padding::Same);
            let largest = tape.input(x.clone()).max_pool2d(&options).unwrap();
            assert_eq!(largest.shape()[1..3], [height.div_ceil(stride), width.div_ceil(stride)]);
            let maximum = |window: &[f32]| window.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(largest.value().data(), same(&x, kernel, stride, maximum));
            let means = tape.input(x.clone()).avg_pool2d(&options.count_include_pad(false)).unwrap();
            let mean = |window: &[f32]| window.iter().sum::<f32>() / window.len() as f32;
            for (found, expected) in means.value().data().iter().zip(same(&x, kernel, stride, mean)) {
                assert!((found - expected).abs() < 1e-6, "{found} {expected}");
            }
        }
    }

    #[test]
    fn a_side_may_have_more_than_half_the_kernel_and_less_than_all_of_it() {
        let tape = Tape::eval();
        let x = tape.input(Tensor::from_fn([1, 2, 2, 1], |i| i as f32).unwrap());
        let sides = |left| Padding::Sides { top: 0, bottom: 0, left, right: 0 };
        let options = Pool2dOptions::new([2, 3]).stride(1).padding(sides(2));
        assert_eq!(x.max_pool2d(&options).unwrap().value().data(), [2.0, 3.0]);
        let error = x.max_pool2d(&options.padding(sides(3))).unwrap_err().to_string();
        assert!(error.starts_with("max_pool2d: padding: expected less than the kernel [2, 3]"), "{error}");
        let error = x.max_pool2d(&options.padding(sides(usize::MAX))).unwrap_err().to_string();
        assert!(error.contains("less than the kernel"), "{error}");
    }

    #[test]
    fn sizes_rounded_up() {
        let tape = Tape::eval();
        let x = tape.input(Tensor::from_fn([1, 3, 5, 1], |i| i as f32).unwrap());
        let up = Pool2dOptions::new(2).ceil_mode(true).count_include_pad(false);
        assert_eq!(x.avg_pool2d(&up).unwrap().value().data(), [3.0, 5.0, 6.5, 10.5, 12.5, 14.0]);
        assert_eq!(x.max_pool2d(&up).unwrap().value().data(), [6.0, 8.0, 9.0, 11.0, 13.0, 14.0]);
        // torch.nn.functional.max_pool2d(torch.zeros(1, 1, size, size), kernel, stride, padding,
        // ceil_mode=True)
        for (size, kernel, stride, padding, expected) in [
            (4, 2, 2, 0, 2),
            (5, 2, 2, 0, 3),
            (6, 3, 2, 1, 4),
            (7, 3, 2, 1, 4),
            (2, 2, 3, 1, 1),
            (5, 1, 3, 0, 2),
            (4, 1, 4, 0, 1),
            (1, 2, 2, 0, 1),
        ] {
            let x = tape.input(Tensor::zeros([1, size, size, 1]).unwrap());
            let options = Pool2dOptions::new(kernel).stride(stride).padding(padding).ceil_mode(true);
            assert_eq!(
                x.max_pool2d(&options).unwrap().shape()[1],
                expected,
                "{size} {kernel} {stride} {padding}"
            );
        }
        let padding_counts = up.count_include_pad(true);
        assert!(x.avg_pool2d(&padding_counts).unwrap_err().to_string().contains("rounded up"));
    }

    #[test]
    fn the_first_of_equals_takes_the_gradient_of_every_window_it_wins() {
        let tape = Tape::train(Rng::seed(0));
        let x = tape.watch(Tensor::new([1, 1, 4, 1], [2.0, 7.0, 7.0, 1.0]).unwrap());
        let options = Pool2dOptions::new([1, 3]).stride(1);
        let y = x.max_pool2d(&options).unwrap();
        assert_eq!(y.value().data(), [7.0, 7.0]);
        assert_eq!(y.sum().backward().unwrap().grad_of(&x).unwrap().data(), [0.0, 2.0, 0.0, 0.0]);
    }

    #[test]
    fn errors_name_the_argument_and_what_would_fit() {
        let tape = Tape::eval();
        let x = tape.input(Tensor::zeros([1, 4, 5, 2]).unwrap());
        let message = |options: Pool2dOptions| x.max_pool2d(&options).unwrap_err().to_string();
        let default = Pool2dOptions::default();
        assert_eq!(
            message(Pool2dOptions::new([0, 2])),
            "max_pool2d: kernel: expected at least 1, found [0, 2]"
        );
        assert_eq!(message(default.stride([2, 0])), "max_pool2d: stride: expected at least 1, found [2, 0]");
        assert_eq!(
            message(default.padding([0, 2])),
            "max_pool2d: padding: expected at most half the kernel [2, 2], found [0, 2]"
        );
        assert_eq!(
            message(Pool2dOptions::new([7, 3]).padding(1)),
            "max_pool2d: kernel: expected at most the padded image [6, 7], found [7, 3]"
        );
        assert!(message(Pool2dOptions::new([usize::MAX, 2])).contains("65535"));
        let far = default.stride([1 << 63, usize::MAX]);
        gradient_check(&[x.value().clone()], |v| v[0].avg_pool2d(&far)).unwrap().within(1e-4).unwrap();
        let error = tape.input(Tensor::zeros([4, 5, 2]).unwrap()).avg_pool2d(&default).unwrap_err();
        assert_eq!(error.to_string(), "avg_pool2d: input: expected [N, H, W, C], found [4, 5, 2]");
        let empty = tape.input(Tensor::zeros([1, 0, 3, 2]).unwrap());
        for error in [empty.global_avg_pool().unwrap_err(), empty.max_pool2d(&default).unwrap_err()] {
            assert!(error.to_string().contains("at least one pixel, found [1, 0, 3, 2]"), "{error}");
        }
    }
}
