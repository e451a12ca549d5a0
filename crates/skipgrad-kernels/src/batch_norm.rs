//! Batch normalization (Ioffe and Szegedy 2015) of `x[rows, channels]`, where the rows are all
//! pixels of all images.
//!
//! Each kernel reads its tensors once. In training, with m(·) the mean over rows, x̂ = (x - m(x))
//! / sqrt(var(x) + eps) and y = gamma x̂ + beta, the gradient is (their section 3, simplified)
//!
//! ```text
//! dgamma = Σ dy x̂    dbeta = Σ dy    dx = gamma / sqrt(var + eps) * (dy - m(dy) - x̂ m(dy x̂))
//! ```
//!
//! which takes one pass for the sums ([`batch_norm_sums`]) and one for dx ([`batch_norm_dx`]). A
//! ReLU after the normalization costs no pass of its own: both kernels apply its backward pass to
//! `dy` as they read it ([`Activation`]).

mod sums;

pub use sums::{BatchNormSums, batch_norm_sums};

use super::Isa;
use super::elementwise::{positive_part, relu_backward, relu_backward_in_place};
use super::parallel::for_each_piece;
use super::rows::{Operands, piece_of_strips, update_rows, update_rows_by};
use std::ops::Range;

/// Computes `y[r, c] = x[r, c] * scale[c] + shift[c]`, plus `residual[r, c]` if there is one, then
/// `max(·, 0)` if `relu`.
///
/// With scale = gamma / sqrt(var + eps) and shift = beta - mean * scale this is batch
/// normalization.
///
/// # Panics
/// If a slice does not fit.
pub fn normalize(
    isa: Isa,
    x: &[f32],
    scale: &[f32],
    shift: &[f32],
    residual: Option<&[f32]>,
    relu: bool,
    y: &mut [f32],
) {
    let (c, vectors) = (scale.len(), [scale, shift]);
    match (residual, relu) {
        (None, false) => update_rows(isa, c, y, [x], vectors, |_, [x], [a, b]| x * a + b),
        (None, true) => update_rows(isa, c, y, [x], vectors, |_, [x], [a, b]| positive_part(x * a + b)),
        (Some(r), false) => update_rows(isa, c, y, [x, r], vectors, |_, [x, r], [a, b]| x * a + b + r),
        (Some(r), true) => {
            update_rows(isa, c, y, [x, r], vectors, |_, [x, r], [a, b]| positive_part(x * a + b + r));
        }
    }
}

/// The activation after the normalization, with what the gradient kernels need to tell where its
/// gradient is zero.
#[derive(Clone, Copy, Debug)]
pub enum Activation<'a> {
    /// No activation: `dy` is the gradient of the normalized elements.
    None,
    /// A ReLU whose output `y[rows, channels]` is given.
    Relu(&'a [f32]),
    /// A ReLU of `x * scale + shift`, which is recomputed rather than read: a third less memory
    /// traffic.
    ReluOf {
        /// The scale that [`normalize`] used, `[channels]`.
        scale: &'a [f32],
        /// The shift that [`normalize`] used, `[channels]`.
        shift: &'a [f32],
    },
    /// A ReLU of `x * scale + shift + residual`, which is recomputed, too.
    ReluOfSum {
        /// The scale that [`normalize`] used, `[channels]`.
        scale: &'a [f32],
        /// The shift that [`normalize`] used, `[channels]`.
        shift: &'a [f32],
        /// The residual that [`normalize`] added, `[rows, channels]`.
        residual: &'a [f32],
    },
}

/// The vectors of dx in training: `dx = scale * (dy - mean_dy - (x - mean) * slope)`, where `dy` is
/// the gradient before the activation. All are `[channels]`.
#[derive(Clone, Copy, Debug)]
pub struct BatchNormGradient<'a> {
    /// The vector gamma / sqrt(var + eps).
    pub scale: &'a [f32],
    /// The mean of x over the batch.
    pub mean: &'a [f32],
    /// The mean of dy, Σ dy / rows.
    pub mean_dy: &'a [f32],
    /// The vector Σ dy (x - mean) / rows / (var + eps).
    pub slope: &'a [f32],
}

/// Computes dx of [`BatchNormGradient`] for `x[rows, channels]`, and the gradient of a residual
/// that was added.
///
/// If `dx` is given, it receives the result, and `dy` becomes the gradient of the residual, which
/// is the gradient before the activation. Otherwise the result overwrites `dy`, which takes the
/// least memory traffic.
///
/// # Panics
/// If a slice does not fit.
pub fn batch_norm_dx(
    isa: Isa,
    x: &[f32],
    gradient: BatchNormGradient<'_>,
    activation: Activation<'_>,
    dy: &mut [f32],
    dx: Option<&mut [f32]>,
) {
    let BatchNormGradient { scale, mean, mean_dy, slope } = gradient;
    let channels = scale.len();
    let vectors = [scale, mean, mean_dy, slope];
    let formula = |dy: f32, [x]: [f32; 1], [scale, mean, mean_dy, slope]: [f32; 4]| {
        scale * (dy - mean_dy - (x - mean) * slope)
    };
    let backward = ActivationBackward { isa, channels, x, activation };
    match dx {
        None => backward.update(dy, vectors, |dy, _| dy, formula),
        Some(dx) => backward.update_then(dy, dx, |range, dy, dx| {
            update_rows(isa, channels, dx, [dy, &x[range]], vectors, |_, [dy, x], v| formula(dy, [x], v));
        }),
    }
}

/// Computes dx where mean and variance are constants (evaluation, frozen layers): `dx = scale *
/// dy`, where `dy` is the gradient before the activation.
///
/// `x` is read only for [`Activation::ReluOf`] and [`Activation::ReluOfSum`] and may be empty
/// otherwise. `dy` and `dx` are used as by [`batch_norm_dx`].
///
/// # Panics
/// If a slice does not fit.
pub fn batch_norm_frozen_dx(
    isa: Isa,
    x: &[f32],
    scale: &[f32],
    activation: Activation<'_>,
    dy: &mut [f32],
    dx: Option<&mut [f32]>,
) {
    let channels = scale.len();
    let backward = ActivationBackward { isa, channels, x, activation };
    match dx {
        None => backward.update(dy, [scale], |dy, [scale]| scale * dy, |dy, []: [f32; 0], _| dy),
        Some(dx) => backward.update_then(dy, dx, |_, dy, dx| {
            update_rows(isa, channels, dx, [dy], [scale], |_, [dy], [scale]| scale * dy);
        }),
    }
}

/// The backward pass of an activation, for rows of a matrix.
#[derive(Clone, Copy)]
struct ActivationBackward<'a> {
    isa: Isa,
    channels: usize,
    /// The input of the normalization; only a ReLU that is recomputed needs it.
    x: &'a [f32],
    activation: Activation<'a>,
}

impl ActivationBackward<'_> {
    /// Computes `dy = after(backward(before(dy, v)), x, v)` for every element, where `backward` is
    /// the backward pass of the activation and v the element's `vectors`. `after` receives x N
    /// times: once, or not at all where it does not need it.
    fn update<const N: usize, const M: usize>(
        self,
        dy: &mut [f32],
        vectors: [&[f32]; M],
        before: impl Fn(f32, [f32; M]) -> f32 + Copy + Send + Sync,
        after: impl Fn(f32, [f32; N], [f32; M]) -> f32 + Copy + Send + Sync,
    ) {
        let ActivationBackward { isa, channels: c, x, activation } = self;
        match activation {
            Activation::None => {
                update_rows(isa, c, dy, [x; N], vectors, |dy, x, v| after(before(dy, v), x, v))
            }
            Activation::Relu(y) => {
                let operands =
                    (Operands { matrices: [x; N], vectors }, Operands { matrices: [y], vectors: [] });
                update_rows_by(isa, c, dy, operands, |dy, x, v, [y], []| {
                    after(relu_backward(y, before(dy, v)), x, v)
                });
            }
            Activation::ReluOf { scale, shift } => {
                let affine = Operands { matrices: [], vectors: [scale, shift] };
                let operands = (Operands { matrices: [x], vectors }, affine);
                update_rows_by(isa, c, dy, operands, |dy, [x], v, [], [a, b]| {
                    after(relu_backward(x * a + b, before(dy, v)), [x; N], v)
                });
            }
            Activation::ReluOfSum { scale, shift, residual } => {
                let affine = Operands { matrices: [residual], vectors: [scale, shift] };
                let operands = (Operands { matrices: [x], vectors }, affine);
                update_rows_by(isa, c, dy, operands, |dy, [x], v, [r], [a, b]| {
                    after(relu_backward(x * a + b + r, before(dy, v)), [x; N], v)
                });
            }
        }
    }

    /// Applies the backward pass of the activation to `dy` and calls `derive` for dx, piece by
    /// piece, so that the second step finds its operands in the cache. `derive` receives the range
    /// of the piece and its elements of dy and dx.
    fn update_then(
        self,
        dy: &mut [f32],
        dx: &mut [f32],
        derive: impl Fn(Range<usize>, &[f32], &mut [f32]) + Sync,
    ) {
        assert_eq!(dy.len(), dx.len(), "operands of one length");
        for_each_piece([dy, dx], piece_of_strips(self.channels), |start, [dy, dx]| {
            let range = start..start + dy.len();
            let recompute = |dy: &mut [f32], activation: Activation<'_>| {
                let rows = ActivationBackward { x: &self.x[range.clone()], activation, ..self };
                rows.update(dy, [], |dy, []| dy, |dy, []: [f32; 0], []| dy);
            };
            match self.activation {
                Activation::None => {}
                Activation::Relu(y) => relu_backward_in_place(self.isa, &y[range.clone()], dy),
                Activation::ReluOf { .. } => recompute(dy, self.activation),
                Activation::ReluOfSum { scale, shift, residual } => {
                    let residual = &residual[range.clone()];
                    recompute(dy, Activation::ReluOfSum { scale, shift, residual });
                }
            }
            derive(range, dy, dx);
        });
    }
}

#[cfg(test)]
mod tests;
