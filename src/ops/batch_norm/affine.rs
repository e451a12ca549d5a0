//! A normalization as one multiplication and one addition per element.

use crate::{
    Shape, Tensor,
    kernels::{self, BatchNormSums, Isa, NormRelu},
};

/// A normalization in the form `y = x scale + shift`; each vector has one element per channel.
#[derive(Clone, Debug)]
pub(crate) struct Affine {
    /// The mean that is subtracted.
    pub(in crate::ops) mean: Tensor,
    /// 1 / sqrt(var + eps).
    pub(in crate::ops) inverse_std: Tensor,
    /// gamma / sqrt(var + eps).
    pub(crate) scale: Tensor,
    /// beta - mean scale.
    pub(crate) shift: Tensor,
}

impl Affine {
    pub(crate) fn new([gamma, beta]: [&Tensor; 2], [mean, var]: [&Tensor; 2], eps: f32) -> Affine {
        let channels = *mean.shape();
        let saved = mean.clone();
        let [gamma, beta, mean, var] = [gamma, beta, mean, var].map(Tensor::data);
        let inverse_std = |c: usize| 1.0 / (f64::from(var[c]) + f64::from(eps)).sqrt();
        let scale = |c: usize| f64::from(gamma[c]) * inverse_std(c);
        Affine {
            mean: saved,
            inverse_std: vector(channels, inverse_std),
            scale: vector(channels, scale),
            shift: vector(channels, |c| f64::from(beta[c]) - f64::from(mean[c]) * scale(c)),
        }
    }

    /// Returns the vectors of `relu(x scale + shift)` for kernels.
    pub(crate) fn relu(&self) -> NormRelu<'_> {
        NormRelu { scale: self.scale.data(), shift: self.shift.data() }
    }

    /// Returns the gradients of gamma and beta.
    pub(in crate::ops) fn gradients(&self, sums: &BatchNormSums) -> (Tensor, Tensor) {
        let (channels, inverse_std) = (*self.inverse_std.shape(), self.inverse_std.data());
        let dgamma = vector(channels, |c| sums.dy_deviation[c] * f64::from(inverse_std[c]));
        (dgamma, vector(channels, |c| sums.dy[c]))
    }

    /// Computes `x scale + shift`, then adds the residual and applies the ReLU, if there are any.
    pub(in crate::ops) fn apply(&self, x: &Tensor, residual: Option<&Tensor>, relu: bool) -> Tensor {
        let residual = residual.map(Tensor::data);
        let (scale, shift) = (self.scale.data(), self.shift.data());
        Tensor::build(*x.shape(), |y| {
            kernels::normalize(Isa::active(), x.data(), scale, shift, residual, relu, y);
        })
    }
}

/// Returns a vector with one element per channel, computed in `f64` and rounded once.
pub(in crate::ops) fn vector(channels: Shape, value: impl Fn(usize) -> f64) -> Tensor {
    Tensor::build(channels, |out| out.iter_mut().enumerate().for_each(|(c, out)| *out = value(c) as f32))
}
