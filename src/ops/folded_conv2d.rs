//! A convolution with the batch normalization that follows it folded into its weight, for
//! evaluation. Where mean and variance are constants, `norm(conv(x, w))` is `conv(x, w scale) +
//! shift` with
//!
//! ```text
//! scale = gamma / sqrt(var + eps)      shift = beta + (bias - mean) scale
//! ```
//!
//! for each output channel. The folded weights are packed into the order that the kernels read,
//! once, when they are first needed. The shift, a residual and a ReLU are applied while a result is
//! in the cache.
//!
//! Backward keeps y, if there is a ReLU. With g = dy where the ReLU passed a positive value and 0
//! elsewhere, dresidual = g, and dx is g convolved with the folded weights rotated by 180 degrees.
//! Folded weights cannot be trained: [`Var::conv2d`] and [`Var::batch_norm`] with fixed statistics
//! are the same function with all gradients, and the tests compare the two.

mod weight;

pub(super) use weight::FoldedWeight;

use super::batch_norm::Affine;
use super::{Conv2dOptions, conv2d::multiply_adds, expect_eps, expect_shape, expect_vector};
use crate::{
    Error, Result, Shape, Tensor,
    autograd::{Cost, GradientMemory, Var},
    kernels::{self, Conv2dGeometry, Epilogue, Isa},
};
use std::{iter, sync::Arc};

/// The constants of a batch normalization in evaluation, `[C]` each.
#[derive(Clone, Copy, Debug)]
pub struct Normalization<'a> {
    /// The scale.
    pub gamma: &'a Tensor,
    /// The shift.
    pub beta: &'a Tensor,
    /// The running mean.
    pub mean: &'a Tensor,
    /// The running variance.
    pub var: &'a Tensor,
    /// The constant that is added to the variance, at least 0.
    pub eps: f32,
}

/// A convolution and a batch normalization as one operation, for evaluation. Threads may share it.
///
/// ```
/// use skipgrad::{Tensor, autograd::Tape, ops::{Conv2dOptions, FoldedConv2d, Normalization}};
/// let [gamma, beta, mean, var] = [3.0, 0.5, 10.0, 4.0].map(|x| Tensor::full([1], x).unwrap());
/// let norm = Normalization { gamma: &gamma, beta: &beta, mean: &mean, var: &var, eps: 0.0 };
/// let weight = Tensor::full([1, 1, 1, 1], 2.0)?;
/// let conv = FoldedConv2d::new(&weight, None, Conv2dOptions::default(), norm)?;
/// let tape = Tape::eval();
/// let x = tape.input(Tensor::new([1, 1, 2, 1], [6.0, 1.0])?);
/// let y = conv.apply(&x, None, true)?; // relu(3 (2 x - 10) / 2 + 0.5)
/// assert_eq!(y.value().data(), [3.5, 0.0]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Debug)]
pub struct FoldedConv2d {
    weight: FoldedWeight,
    shift: Tensor,
}

impl FoldedConv2d {
    /// Folds a convolution with the weight `[KH, KW, C/groups, OC]` and the bias `[OC]`, if there
    /// is one, and a normalization of its output. The weight is shared, not copied.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the weight does not have four axes or a vector is not `[OC]`;
    /// [`Error::Argument`] if eps is negative.
    pub fn new(
        weight: &Tensor,
        bias: Option<&Tensor>,
        options: Conv2dOptions,
        norm: Normalization<'_>,
    ) -> Result<Arc<FoldedConv2d>> {
        let &[_, _, _, channels] = &weight.shape()[..] else {
            return Err(Error::shape("conv2d", "weight", ["KH", "KW", "C/groups", "OC"], weight.shape()));
        };
        if let Some(bias) = bias {
            expect_vector("conv2d", "bias", channels, bias.shape())?;
        }
        for (argument, vector) in
            [("gamma", norm.gamma), ("beta", norm.beta), ("mean", norm.mean), ("var", norm.var)]
        {
            expect_vector("batch_norm", argument, channels, vector.shape())?;
        }
        expect_eps("batch_norm", norm.eps)?;
        let Affine { scale, mut shift, .. } =
            Affine::new([norm.gamma, norm.beta], [norm.mean, norm.var], norm.eps);
        if let Some(bias) = bias {
            let scaled = bias.data().iter().zip(scale.data()).map(|(bias, scale)| bias * scale);
            shift.data_mut().iter_mut().zip(scaled).for_each(|(shift, bias)| *shift += bias);
        }
        log::debug!("folded the normalization after a convolution with {} into its weight", weight.shape());
        Ok(Arc::new(FoldedConv2d { weight: FoldedWeight::new(weight, Some(scale), options), shift }))
    }

    /// Computes `norm(conv(x))` of `[N, H, W, C]`: `[N, OH, OW, OC]`, then adds the residual, which
    /// has the shape of the result, if there is one, and applies a ReLU, if `relu`.
    ///
    /// # Errors
    /// As [`Var::conv2d`], and [`Error::ShapeMismatch`] if the residual has another shape.
    pub fn apply<'t>(
        self: &Arc<Self>,
        x: &Var<'t>,
        residual: Option<&Var<'t>>,
        relu: bool,
    ) -> Result<Var<'t>> {
        Var::expect_one_tape("conv2d", &[x, residual.unwrap_or(x)])?;
        let sizes = self.weight.sizes(x.shape())?;
        let shape = Shape::new(&[sizes.batch, sizes.out_height(), sizes.out_width(), sizes.out_channels])?;
        if let Some(residual) = residual {
            expect_shape("conv2d", "residual", &shape, residual.shape())?;
        }
        let (packing, packed_shape) = self.weight.packing(&sizes)?;
        let inputs: Vec<&Var<'t>> = iter::once(x).chain(residual).collect();
        Ok(Var::op_many("folded_conv2d", &inputs, shape, |values| {
            let residual = values.get(1).map(|residual| residual.data());
            let packed = self.weight.packed_as(packing, packed_shape, &sizes);
            let epilogue = Epilogue { bias: Some(self.shift.data()), residual, relu };
            let y = Tensor::build(shape, |y| {
                packing.conv2d(Isa::active(), &sizes, values[0].data(), packed.data(), epilogue, y);
            });
            let (folded, mask, x_shape) = (self.clone(), relu.then(|| y.clone()), *values[0].shape());
            (y, move |mut dy: Tensor, needs: &[bool]| {
                if let Some(y) = &mask {
                    kernels::relu_backward_in_place(Isa::active(), y.data(), dy.data_mut());
                }
                let dx = needs[0].then(|| folded.input_gradient(&sizes, &dy, x_shape));
                vec![dx, needs.get(1).is_some_and(|needs| *needs).then_some(dy)]
            })
        })
        .costs(|| Cost {
            multiply_adds: multiply_adds(&shape, self.weight.shape()),
            saves_output: relu,
            forward_workspace: vec![*self.weight.shape()],
            backward_workspace: vec![*self.weight.shape()],
            gradients: vec![GradientMemory::New, GradientMemory::InPlace],
            packed_weights: vec![packed_shape],
            ..Cost::default()
        }))
    }

    fn input_gradient(&self, sizes: &Conv2dGeometry, dy: &Tensor, shape: Shape) -> Tensor {
        let w = self.weight.fold();
        Tensor::build(shape, |dx| {
            self.weight.options().algorithm.input_gradient(Isa::active(), sizes, dy.data(), w.data(), dx);
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Rng,
        autograd::Tape,
        ops::{Algorithm, BatchNorm, Padding},
    };

    #[test]
    fn it_is_the_convolution_and_the_normalization() {
        let mut rng = Rng::seed(1);
        let options = [
            (Conv2dOptions::new().padding(Padding::Same), [3, 3, 20, 24], 16),
            (Conv2dOptions::new().padding(Padding::Same).algorithm(Algorithm::Direct), [3, 3, 20, 24], 16),
            (Conv2dOptions::new().stride([2, 1]).groups(4), [2, 3, 5, 8], 7),
            (Conv2dOptions::default(), [1, 1, 20, 3], 5),
        ];
        for (options, weight, edge) in options {
            let mut normal = |shape: &[usize]| Tensor::normal(shape, 1.0, &mut rng).unwrap();
            let (x, weight) = (normal(&[2, edge, edge, 20]), normal(&weight));
            let channels = weight.shape()[3];
            let [gamma, beta, mean, bias] = [(); 4].map(|()| normal(&[channels]));
            let var = Tensor::uniform([channels], 0.5, 2.0, &mut rng).unwrap();
            for bias in [None, Some(&bias)] {
                let norm = Normalization { gamma: &gamma, beta: &beta, mean: &mean, var: &var, eps: 0.1 };
                let folded = FoldedConv2d::new(&weight, bias, options, norm).unwrap();
                let tape = Tape::eval();
                let input = |t: &Tensor| tape.input(t.clone());
                let sums = input(&x).conv2d(&input(&weight), bias.map(input).as_ref(), &options).unwrap();
                let residual = input(&Tensor::normal(sums.shape(), 1.0, &mut rng).unwrap());
                for residual in [None, Some(&residual)] {
                    for relu in [false, true] {
                        let (gamma, beta) = (input(&gamma), input(&beta));
                        let given = Some((&mean, &var));
                        let plain = BatchNorm::new(&gamma, &beta)
                            .statistics(given)
                            .residual(residual)
                            .relu(relu)
                            .eps(0.1);
                        let (want, _) = sums.batch_norm(&plain).unwrap();
                        let got = folded.apply(&input(&x), residual, relu).unwrap();
                        let again = folded.apply(&input(&x), residual, relu).unwrap();
                        assert_eq!(got.value(), again.value());
                        let largest = want.value().data().iter().fold(0.0, |m: f32, x| m.max(x.abs()));
                        for (got, want) in got.value().data().iter().zip(want.value().data()) {
                            assert!((got - want).abs() <= 1e-5 * largest, "{got} {want} of {largest}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let vector = Tensor::full([2], 1.0).unwrap();
        let norm = Normalization { gamma: &vector, beta: &vector, mean: &vector, var: &vector, eps: 0.0 };
        let error = |weight: &[usize], norm| {
            let weight = Tensor::zeros(weight).unwrap();
            FoldedConv2d::new(&weight, None, Conv2dOptions::default(), norm).unwrap_err().to_string()
        };
        assert_eq!(error(&[1, 1, 3, 4], norm), "batch_norm: gamma: expected [4], found [2]");
        assert_eq!(error(&[3, 4], norm), "conv2d: weight: expected [KH, KW, C/groups, OC], found [3, 4]");
        let negative = Normalization { eps: -1.0, ..norm };
        assert_eq!(
            error(&[1, 1, 3, 2], negative),
            "batch_norm: eps: expected a number of at least 0, found -1"
        );

        let weight = Tensor::zeros([1, 1, 3, 2]).unwrap();
        let folded = FoldedConv2d::new(&weight, None, Conv2dOptions::default(), norm).unwrap();
        let tape = Tape::eval();
        let [x, other] = [(); 2].map(|()| tape.input(Tensor::zeros([1, 2, 2, 3]).unwrap()));
        let error = folded.apply(&x, Some(&other), true).unwrap_err().to_string();
        assert_eq!(error, "conv2d: residual: expected [1, 2, 2, 2], found [1, 2, 2, 3]");
    }
}
