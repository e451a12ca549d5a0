//! Pooling over windows of pixels, each channel by itself, as PyTorch: the largest, the mean, and the mean of the whole image.
//!
//! Backward of the maximum keeps, for each output, the position of the largest in its window (2 bytes), and not the input: its
//! gradient goes there. The means keep sizes: each pixel gets its share of the gradient of every window that it is in.

use super::expect_images;
use crate::{
    Error, Result, Shape, Tensor,
    autograd::{Cost, Var},
    kernels::{self, Isa, Pool2d},
};

/// The settings of [`Var::max_pool2d`] and [`Var::avg_pool2d`]; the default is 2 x 2 with stride 2, which halves an image.
/// Pairs are (rows, columns).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool2dOptions {
    /// Pixels of a window, at least 1; at most 65535 in all.
    pub kernel: [usize; 2],
    /// Pixels from one window to the next, at least 1.
    pub stride: [usize; 2],
    /// Pixels added on both sides, at most half the kernel: -inf for the maximum, 0 for the mean.
    pub padding: [usize; 2],
    /// Whether the mean divides by the whole window (PyTorch's default) or by its pixels inside of the image.
    pub count_include_pad: bool,
    /// Whether sizes are rounded up: a last window may reach beyond the padded image, if it begins inside of the image or of the
    /// padding in front of it (PyTorch's `ceil_mode`).
    pub ceil: bool,
}

impl Default for Pool2dOptions {
    fn default() -> Pool2dOptions {
        Pool2dOptions {
            kernel: [2, 2],
            stride: [2, 2],
            padding: [0, 0],
            count_include_pad: true,
            ceil: false,
        }
    }
}

impl<'t> Var<'t> {
    /// The largest of each window of `[N, H, W, C]`: `[N, OH, OW, C]`, where OH = (H + 2 padding - kernel) / stride + 1, rounded
    /// down (or up, if `ceil`). The gradient goes to the first of equals.
    ///
    /// # Errors
    /// [`Error::Argument`] if the input has not four axes or no pixels, a size or stride is zero, the padding is larger than half
    /// the kernel, or the kernel larger than the padded image or 65535 pixels.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape, ops::Pool2dOptions};
    /// let tape = Tape::eval();
    /// let x = tape.input(Tensor::from_fn([1, 2, 4, 1], |i| i as f32)?);
    /// assert_eq!(x.max_pool2d(&Pool2dOptions::default())?.value().data(), [5.0, 7.0]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn max_pool2d(&self, options: &Pool2dOptions) -> Result<Var<'t>> {
        let (pool, shape) = match options.geometry("max_pool2d", self.shape()) {
            Ok(sizes) => sizes,
            Err(error) => return self.tape().recover(error, options.inferred_shape(self.shape())),
        };
        let recording = self.tape().is_recording();
        Ok(Var::op("max_pool2d", [self], shape, |[x]| {
            let mut argmax = vec![0; if recording { shape.num_elements() } else { 0 }];
            let y = Tensor::build(shape, |y| {
                let argmax = recording.then_some(&mut argmax[..]);
                kernels::max_pool2d(Isa::active(), &pool, x.data(), y, argmax);
            });
            let shape = *x.shape();
            (y, move |dy: Tensor, _| {
                [Some(Tensor::build(shape, |dx| {
                    kernels::max_pool2d_backward(Isa::active(), &pool, &argmax, dy.data(), dx);
                }))]
            })
        })
        .costs(Cost::default)
        .settings(|| Windows::of(&pool, true)))
    }

    /// The mean of each window of `[N, H, W, C]`: `[N, OH, OW, C]`, sized as [`Var::max_pool2d`]'s.
    ///
    /// # Errors
    /// As [`Var::max_pool2d`], and if sizes are rounded up and padding counts: how much of a window beyond the padding would, is
    /// for nobody to guess.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape, ops::Pool2dOptions};
    /// let tape = Tape::eval();
    /// let x = tape.input(Tensor::from_fn([1, 2, 4, 1], |i| i as f32)?);
    /// assert_eq!(x.avg_pool2d(&Pool2dOptions::default())?.value().data(), [2.5, 4.5]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn avg_pool2d(&self, options: &Pool2dOptions) -> Result<Var<'t>> {
        let (pool, shape) = match options.geometry("avg_pool2d", self.shape()) {
            Ok(sizes) => sizes,
            Err(error) => return self.tape().recover(error, options.inferred_shape(self.shape())),
        };
        let whole = options.count_include_pad;
        if whole && options.ceil {
            return Err(Error::argument(
                "avg_pool2d",
                "count_include_pad",
                "false, since sizes are rounded up",
                true,
            ));
        }
        Ok(Var::op("avg_pool2d", [self], shape, |[x]| {
            let y = Tensor::build(shape, |y| {
                kernels::avg_pool2d(Isa::active(), &pool, whole, x.data(), y);
            });
            let shape = *x.shape();
            (y, move |dy: Tensor, _| {
                [Some(Tensor::build(shape, |dx| {
                    kernels::avg_pool2d_backward(Isa::active(), &pool, whole, dy.data(), dx);
                }))]
            })
        })
        .costs(Cost::default)
        .settings(|| Windows::of(&pool, whole)))
    }

    /// The mean of each channel over all pixels of an image: `[N, H, W, C]` to `[N, C]`, in front of a classifier.
    ///
    /// # Errors
    /// [`Error::Argument`] if the input has not four axes or no pixels.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape};
    /// let tape = Tape::eval();
    /// let x = tape.input(Tensor::from_fn([1, 2, 2, 2], |i| i as f32)?);
    /// assert_eq!(x.global_avg_pool()?.value().data(), [3.0, 4.0]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn global_avg_pool(&self) -> Result<Var<'t>> {
        let [batch, _, _, channels] = expect_images("global_avg_pool", self.shape())?;
        let shape = Shape::new(&[batch, channels])?;
        Ok(Var::op("global_avg_pool", [self], shape, |[x]| {
            let y = Tensor::build(shape, |y| {
                kernels::global_avg_pool(Isa::active(), batch, channels, x.data(), y);
            });
            let shape = *x.shape();
            (y, move |dy: Tensor, _| {
                [Some(Tensor::build(shape, |dx| {
                    kernels::global_avg_pool_backward(Isa::active(), batch, channels, dy.data(), dx);
                }))]
            })
        })
        .costs(Cost::default))
    }
}

/// What translators must know of a pooling.
#[cfg_attr(not(feature = "onnx"), allow(dead_code, reason = "for translators only"))]
pub(crate) struct Windows {
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    /// Before and behind the image, in rows and in columns, where no window reaches beyond.
    pub(crate) padding: [[usize; 2]; 2],
    pub(crate) count_include_pad: bool,
}

impl Windows {
    fn of(pool: &Pool2d, count_include_pad: bool) -> Windows {
        Windows { kernel: pool.kernel, stride: pool.stride, padding: pool.padding, count_include_pad }
    }
}

impl Pool2dOptions {
    /// The shape that the output would have if the input fitted.
    fn inferred_shape(&self, x: &Shape) -> Option<Shape> {
        let &[batch, height, width, channels] = &x[..] else {
            return None;
        };
        let [height, width] = [height.div_ceil(self.stride[0].max(1)), width.div_ceil(self.stride[1].max(1))];
        Shape::new(&[batch, height, width, channels]).ok()
    }

    /// The kernels' sizes and the output's shape; refuses whatever does not fit.
    fn geometry(&self, op: &'static str, x: &Shape) -> Result<(Pool2d, Shape)> {
        let [batch, height, width, channels] = expect_images(op, x)?;
        let Pool2dOptions { kernel, stride, padding, .. } = *self;
        let refuse = |argument, expected: &str, found: [usize; 2]| {
            Err(Error::argument(op, argument, expected, format_args!("{found:?}")))
        };
        if kernel.contains(&0) {
            return refuse("kernel", "at least 1", kernel);
        }
        if kernel[0].checked_mul(kernel[1]).is_none_or(|size| size > usize::from(u16::MAX)) {
            return refuse("kernel", "at most 65535 pixels", kernel);
        }
        if stride.contains(&0) {
            return refuse("stride", "at least 1", stride);
        }
        if padding[0] > kernel[0] / 2 || padding[1] > kernel[1] / 2 {
            return refuse("padding", &format!("at most half the kernel {kernel:?}"), padding);
        }
        let padded = [height + 2 * padding[0], width + 2 * padding[1]];
        // A window that begins where the image does may be larger than the image, if sizes are rounded up.
        let reaches = |axis: usize| kernel[axis].saturating_sub(padded[axis]);
        if [0, 1].iter().any(|&axis| reaches(axis) > 0 && !(self.ceil && reaches(axis) < stride[axis])) {
            return refuse("kernel", &format!("at most the padded image {padded:?}"), kernel);
        }
        // A stride beyond the image moves no window into it; cut short, it cannot overflow in the kernels.
        let stride = [0, 1].map(|axis| stride[axis].min(padded[axis]));
        let padding = [0, 1].map(|axis| {
            let Some(room) = padded[axis].checked_sub(kernel[axis]) else {
                return [padding[axis], padding[axis] + reaches(axis)];
            };
            let rest = room % stride[axis];
            let begins_inside = room - rest + stride[axis] < padded[axis] - padding[axis];
            let one_more = self.ceil && rest > 0 && begins_inside;
            [padding[axis], padding[axis] + if one_more { stride[axis] - rest } else { 0 }]
        });
        let pool = Pool2d { batch, height, width, channels, kernel, stride, padding };
        Ok((pool, Shape::new(&[batch, pool.out_height(), pool.out_width(), channels])?))
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
        padding: [1, 1],
        count_include_pad: true,
        ceil: false,
    };

    #[test]
    fn gradients_agree_with_differences() {
        // Numbers of a window lie 0.2 apart and a difference moves one by at most 0.0625, so the largest stays the largest.
        let x =
            Tensor::from_fn([1, 3, 3, 1], |i| [0.1, 0.9, -0.5, 0.5, -0.9, 0.3, -0.3, 0.7, -0.7][i]).unwrap();
        gradient_check(&[x], |v| v[0].max_pool2d(&OVERLAPPING)).unwrap().within(1e-4).unwrap();
        let x = [Tensor::normal([2, 5, 4, 3], 1.0, &mut Rng::seed(1)).unwrap()];
        for count_include_pad in [true, false] {
            let options = Pool2dOptions { count_include_pad, ..OVERLAPPING };
            gradient_check(&x, |v| v[0].avg_pool2d(&options)).unwrap().within(1e-4).unwrap();
        }
        let up = Pool2dOptions { ceil: true, count_include_pad: false, ..Default::default() };
        gradient_check(&x, |v| v[0].avg_pool2d(&up)).unwrap().within(1e-4).unwrap();
        gradient_check(&x, |v| v[0].global_avg_pool()).unwrap().within(1e-4).unwrap();
    }

    #[test]
    fn values_by_hand() {
        let tape = Tape::eval();
        let x = tape.input(Tensor::new([1, 2, 2, 1], [-1.0, -2.0, -3.0, -5.0]).unwrap());
        let options = Pool2dOptions { padding: [1, 1], count_include_pad: false, ..Default::default() };
        let largest = x.max_pool2d(&options).unwrap();
        assert_eq!(largest.value().data(), [-1.0, -2.0, -3.0, -5.0], "padding is -inf, not 0");
        assert_eq!(x.avg_pool2d(&options).unwrap().value().data(), [-1.0, -2.0, -3.0, -5.0]);
        let options = Pool2dOptions { count_include_pad: true, ..options };
        assert_eq!(x.avg_pool2d(&options).unwrap().value().data(), [-0.25, -0.5, -0.75, -1.25]);
    }

    #[test]
    fn sizes_rounded_up() {
        let tape = Tape::eval();
        let x = tape.input(Tensor::from_fn([1, 3, 5, 1], |i| i as f32).unwrap());
        let up = Pool2dOptions { ceil: true, count_include_pad: false, ..Default::default() };
        assert_eq!(x.avg_pool2d(&up).unwrap().value().data(), [3.0, 5.0, 6.5, 10.5, 12.5, 14.0]);
        assert_eq!(x.max_pool2d(&up).unwrap().value().data(), [6.0, 8.0, 9.0, 11.0, 13.0, 14.0]);
        // torch.nn.functional.max_pool2d(torch.zeros(1, 1, size, size), kernel, stride, padding, ceil_mode=True)
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
            let options =
                Pool2dOptions { kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 2], ..up };
            assert_eq!(
                x.max_pool2d(&options).unwrap().shape()[1],
                expected,
                "{size} {kernel} {stride} {padding}"
            );
        }
        let padding_counts = Pool2dOptions { count_include_pad: true, ..up };
        assert!(x.avg_pool2d(&padding_counts).unwrap_err().to_string().contains("rounded up"));
    }

    #[test]
    fn the_first_of_equals_takes_the_gradient_of_every_window_it_wins() {
        let tape = Tape::train(Rng::seed(0));
        let x = tape.watch(Tensor::new([1, 1, 4, 1], [2.0, 7.0, 7.0, 1.0]).unwrap());
        let options = Pool2dOptions { kernel: [1, 3], stride: [1, 1], ..Default::default() };
        let y = x.max_pool2d(&options).unwrap();
        assert_eq!(y.value().data(), [7.0, 7.0]);
        assert_eq!(y.sum().backward().unwrap().grad_of(&x).unwrap().data(), [0.0, 2.0, 0.0, 0.0]);
    }

    #[test]
    fn refusals_name_the_argument_and_what_would_fit() {
        let tape = Tape::eval();
        let x = tape.input(Tensor::zeros([1, 4, 5, 2]).unwrap());
        let message = |options: Pool2dOptions| x.max_pool2d(&options).unwrap_err().to_string();
        let default = Pool2dOptions::default();
        assert_eq!(
            message(Pool2dOptions { kernel: [0, 2], ..default }),
            "max_pool2d: kernel: expected at least 1, found [0, 2]"
        );
        assert_eq!(
            message(Pool2dOptions { stride: [2, 0], ..default }),
            "max_pool2d: stride: expected at least 1, found [2, 0]"
        );
        assert_eq!(
            message(Pool2dOptions { padding: [0, 2], ..default }),
            "max_pool2d: padding: expected at most half the kernel [2, 2], found [0, 2]"
        );
        assert_eq!(
            message(Pool2dOptions { kernel: [7, 3], padding: [1, 1], ..default }),
            "max_pool2d: kernel: expected at most the padded image [6, 7], found [7, 3]"
        );
        assert!(message(Pool2dOptions { kernel: [usize::MAX, 2], ..default }).contains("65535"));
        let far = Pool2dOptions { stride: [1 << 63, usize::MAX], ..default };
        gradient_check(&[x.value().clone()], |v| v[0].avg_pool2d(&far)).unwrap().within(1e-4).unwrap();
        let error = tape.input(Tensor::zeros([4, 5, 2]).unwrap()).avg_pool2d(&default).unwrap_err();
        assert_eq!(error.to_string(), "avg_pool2d: input: expected [N, H, W, C], found [4, 5, 2]");
        let empty = tape.input(Tensor::zeros([1, 0, 3, 2]).unwrap());
        for error in [empty.global_avg_pool().unwrap_err(), empty.max_pool2d(&default).unwrap_err()] {
            assert!(error.to_string().contains("at least one pixel, found [1, 0, 3, 2]"), "{error}");
        }
    }
}
