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
//! pixels. The arithmetic is that of
//! [`kernels::conv2d`](crate::kernels::conv2d) and its two gradients, or Winograd's, see
//! [`Algorithm`], or that of [`kernels::bf16`](crate::kernels::bf16).

mod options;

use super::{Moments, expect_vector, linear::column_sums};
use crate::{
    Result, Shape, Tensor,
    autograd::{Cost, Fault, Input, Kind, Op, Saved, Var, apply_with},
    kernels::{self, Conv2dGeometry, Engine, Epilogue, Isa, bf16},
};

pub use crate::kernels::Algorithm;
pub use options::{Conv2dOptions, Padding, Pair};

struct Conv2d {
    options: Conv2dOptions,
    /// Whether the mean and the variance of each channel of the output are computed, too.
    takes_moments: bool,
    /// Whether operands are rounded to bf16.
    is_bf16: bool,
}

/// What backward needs.
struct Context {
    x: Saved,
    w: Tensor,
    geometry: Conv2dGeometry,
    moments: Option<MeanAndVariance>,
}

impl Op for Conv2d {
    type Context = Context;

    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
        let (x, w) = (inputs[0].shape(), inputs[1].shape());
        let geometry = self.options.geometry(x, w);
        let geometry = geometry.map_err(|error| Fault::new(error, self.options.inferred_shape(x, w)))?;
        let Conv2dGeometry { batch, out_channels, .. } = geometry;
        let shape = Shape::new(&[batch, geometry.out_height(), geometry.out_width(), out_channels])?;
        if let Some(bias) = inputs.get(2) {
            expect_vector("conv2d", "bias", out_channels, bias.shape())
                .map_err(|error| Fault::new(error, shape))?;
        }
        Ok(shape)
    }

    fn forward(&self, inputs: &[Input<'_>], shape: Shape) -> (Tensor, Context) {
        let (x, w) = (inputs[0].value(), inputs[1].value());
        let geometry = self.geometry(x.shape(), w.shape());
        log::debug!("conv2d of {} with {} uses {}", x.shape(), w.shape(), self.algorithm_name(&geometry));
        let bias = inputs.get(2).map(|bias| bias.value().data());
        let mut moments = None;
        let y = Tensor::build(shape, |y| moments = self.compute(&geometry, x.data(), w.data(), bias, y));
        (y, Context { x: inputs[0].save(), w: w.clone(), geometry, moments })
    }

    fn backward(&self, context: Context, dy: Tensor, needs: &[bool]) -> Vec<Option<Tensor>> {
        let Context { x, w, geometry, .. } = context;
        let (algorithm, isa) = (self.options.algorithm, Isa::active());
        let dx = needs[0].then(|| {
            Tensor::build(*x.shape(), |dx| match self.is_bf16 {
                true => bf16::conv2d_input_gradient(Engine::active(), &geometry, dy.data(), w.data(), dx),
                false => algorithm.input_gradient(isa, &geometry, dy.data(), w.data(), dx),
            })
        });
        let dw = needs[1].then(|| {
            Tensor::build(*w.shape(), |dw| {
                let x = x.value();
                match self.is_bf16 {
                    true => {
                        bf16::conv2d_weight_gradient(Engine::active(), &geometry, x.data(), dy.data(), dw);
                    }
                    false => algorithm.weight_gradient(isa, &geometry, x.data(), dy.data(), dw),
                }
            })
        });
        vec![dx, dw, needs.get(2).is_some_and(|needs| *needs).then(|| column_sums(&dy))]
    }

    fn cost(&self, inputs: &[Input<'_>], shape: Shape) -> Cost {
        let (x, w) = (inputs[0], inputs[1]);
        Cost::default()
            .multiply_adds(multiply_adds(&shape, w.shape()))
            .save_input(x.save())
            .save_input(w.value().clone())
    }

    fn kind(&self, inputs: &[Input<'_>]) -> Kind {
        let Conv2dGeometry { stride, padding, dilation, groups, .. } =
            self.geometry(inputs[0].shape(), inputs[1].shape());
        let is_direct = self.options.algorithm == Algorithm::Direct;
        Kind::Conv2d { stride, padding, dilation, groups, is_direct }
    }
}

impl Conv2d {
    /// Computes the output and, if they are wanted, its moments.
    fn compute(
        &self,
        geometry: &Conv2dGeometry,
        x: &[f32],
        w: &[f32],
        bias: Option<&[f32]>,
        y: &mut [f32],
    ) -> Option<MeanAndVariance> {
        let (algorithm, isa) = (self.options.algorithm, Isa::active());
        let epilogue = Epilogue { bias, ..Epilogue::default() };
        if self.is_bf16 {
            bf16::conv2d(Engine::active(), geometry, x, w, epilogue, y);
            return self.takes_moments.then(|| kernels::moments(isa, y, geometry.out_channels));
        }
        if self.takes_moments {
            return Some(algorithm.conv2d_moments(isa, geometry, x, w, epilogue, y));
        }
        algorithm.conv2d(isa, geometry, x, w, epilogue, y);
        None
    }

    fn algorithm_name(&self, geometry: &Conv2dGeometry) -> &'static str {
        match self.is_bf16 {
            true => "bf16",
            false if self.options.algorithm.takes_norm(geometry) => "Winograd's algorithm",
            false => "the direct algorithm",
        }
    }

    /// Returns the geometry of an input and a weight that [`Op::output_shape`] accepted.
    fn geometry(&self, x: &Shape, w: &Shape) -> Conv2dGeometry {
        match self.options.geometry(x, w) {
            Ok(geometry) => geometry,
            Err(error) => unreachable!("the input was checked: {error}"),
        }
    }
}

impl<'t> Var<'t> {
    /// Convolves `[N, H, W, C]` with the weight `[KH, KW, C/groups, OC]` and adds the bias `[OC]`
    /// if there is one: `[N, OH, OW, OC]`, where OH = (H + top + bottom - (dilation (KH - 1) + 1))
    /// / stride + 1, rounded down.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the input or the weight does not
    /// have four axes, or the channels of the input, the weight and the bias do not fit;
    /// [`Error::Argument`](crate::Error::Argument) if the input has no pixels, a stride, a dilation
    /// or a size of the kernel is zero, the groups do not divide the channels of the input and of
    /// the output, or the kernel is larger than the padded image.
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
        let inputs: Vec<&Var<'t>> = [self, weight].into_iter().chain(bias).collect();
        let is_bf16 = self.tape().is_bf16();
        Conv2d { options: *options, takes_moments: false, is_bf16 }.apply(&inputs)
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
        let inputs: Vec<&Var<'t>> = [self, weight].into_iter().chain(bias).collect();
        let op = Conv2d { options: *options, takes_moments: true, is_bf16: self.tape().is_bf16() };
        let (y, moments) = apply_with(op, &inputs, |context| context.moments.clone())?;
        let (channels, count) = (Shape::new(&[y.shape().num_channels()])?, y.shape().num_rows());
        // A meta pass computes no moments.
        let moments = moments.flatten().unwrap_or_else(|| (vec![0.0; channels[0]], vec![0.0; channels[0]]));
        Ok((y, Moments::new(channels, moments, count)))
    }
}

/// Returns the number of multiply-adds of a convolution by its definition, from the shapes of its
/// output and its weight.
pub(super) fn multiply_adds(output: &Shape, weight: &Shape) -> u64 {
    output.num_elements() as u64 * (weight.num_elements() / weight.num_channels().max(1)) as u64
}

/// The mean and the variance of each channel.
type MeanAndVariance = (Vec<f64>, Vec<f64>);

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
