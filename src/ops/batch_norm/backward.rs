//! The gradients of a batch normalization.

use super::{Forward, Moments, affine::vector};
use crate::{
    Tensor,
    autograd::Saved,
    kernels::{self, Activation, BatchNormGradient, BatchNormSums, Isa},
};

/// What backward keeps.
pub(super) struct Backward {
    pub(super) forward: Forward,
    /// The output, if the mask of the ReLU is taken from it instead of being recomputed.
    pub(super) output: Option<Tensor>,
    /// Whether the statistics are constants.
    pub(super) is_fixed: bool,
    /// The mean and variance that forward normalized with.
    pub(super) moments: Moments,
}

impl Backward {
    /// Returns the gradients of x, gamma, beta and the residual, as far as they are needed.
    pub(super) fn gradients(&self, mut dy: Tensor, needs: [bool; 4]) -> [Option<Tensor>; 4] {
        let [x_needs, gamma_needs, beta_needs, residual_needs] = needs;
        let Forward { x, affine, .. } = &self.forward;
        let residual = self.residual_of_mask();
        let activation = self.activation(residual.as_ref());
        let sums_need = gamma_needs || beta_needs || (x_needs && !self.is_fixed);
        let sums = sums_need.then(|| {
            let mean = affine.mean.data();
            kernels::batch_norm_sums(Isa::active(), x.data(), dy.data(), mean, activation)
        });
        let (dgamma, dbeta) = sums.as_ref().map(|sums| affine.gradients(sums)).unzip();
        let (dgamma, dbeta) = (dgamma.filter(|_| gamma_needs), dbeta.filter(|_| beta_needs));
        let sums = sums.filter(|_| !self.is_fixed);
        if !residual_needs {
            if x_needs {
                self.input_gradient(sums, activation, dy.data_mut(), None);
            }
            return [x_needs.then_some(dy), dgamma, dbeta, None];
        }
        let dx = Tensor::build(*x.shape(), |dx| {
            self.input_gradient(sums, activation, dy.data_mut(), Some(dx));
        });
        [x_needs.then_some(dx), dgamma, dbeta, Some(dy)]
    }

    /// Returns the residual, if the mask of the ReLU is recomputed from it.
    fn residual_of_mask(&self) -> Option<Tensor> {
        let needed = self.forward.relu && self.output.is_none();
        self.forward.residual.as_ref().filter(|_| needed).map(Saved::value)
    }

    /// Returns the activation, with what its mask is computed from.
    fn activation<'a>(&'a self, residual: Option<&'a Tensor>) -> Activation<'a> {
        let (scale, shift) = (self.forward.affine.scale.data(), self.forward.affine.shift.data());
        match (&self.output, residual) {
            _ if !self.forward.relu => Activation::None,
            (Some(y), _) => Activation::Relu(y.data()),
            (None, None) => Activation::ReluOf { scale, shift },
            (None, Some(residual)) => Activation::ReluOfSum { scale, shift, residual: residual.data() },
        }
    }

    /// Writes dx to `dx`, or over `dy` if `dx` is `None`; with `dx`, `dy` becomes the gradient of
    /// the residual. The statistics are constants if `sums` is `None`.
    fn input_gradient(
        &self,
        sums: Option<BatchNormSums>,
        activation: Activation<'_>,
        dy: &mut [f32],
        dx: Option<&mut [f32]>,
    ) {
        let Forward { x, affine, .. } = &self.forward;
        let (isa, m, x, scale) = (Isa::active(), x.shape().num_rows() as f64, x.data(), affine.scale.data());
        let Some(sums) = sums else {
            return kernels::batch_norm_frozen_dx(isa, x, scale, activation, dy, dx);
        };
        let (channels, mean, inverse_std) =
            (*affine.mean.shape(), affine.mean.data(), affine.inverse_std.data());
        let mean_dy = vector(channels, |c| sums.dy[c] / m);
        let slope = vector(channels, |c| sums.dy_deviation[c] / m * f64::from(inverse_std[c]).powi(2));
        let gradient = BatchNormGradient { scale, mean, mean_dy: mean_dy.data(), slope: slope.data() };
        kernels::batch_norm_dx(isa, x, gradient, activation, dy, dx);
    }
}
