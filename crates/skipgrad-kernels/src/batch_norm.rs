//! Batch normalization (Ioffe and Szegedy 2015) of `x[rows, channels]`, where the rows are all pixels of all images.
//!
//! Each kernel reads its tensors once. In training, with m(·) the mean over rows, x̂ = (x - m(x)) / sqrt(var(x) + eps) and
//! y = gamma x̂ + beta, the gradient is (their section 3, simplified)
//!
//! ```text
//! dgamma = Σ dy x̂      dbeta = Σ dy      dx = gamma / sqrt(var + eps) * (dy - m(dy) - x̂ m(dy x̂))
//! ```
//!
//! which takes one pass for the sums ([`batch_norm_sums`]) and one for dx ([`batch_norm_dx`]). A ReLU behind the
//! normalization costs no pass of its own: both apply it to `dy` as they read it ([`Activation`]).

use super::elementwise::{positive_part, relu_backward, relu_backward_in_place};
use super::reduce::add_vectors;
use super::rows::{Strip, Terms, add_terms, lanes, map_ranges, piece_of_strips, update_rows, whole_rows};
use super::simd::Simd;
use super::{Isa, Task};
use rayon::prelude::*;
use std::array::from_fn;
use std::ops::Range;

/// `y[r, c] = x[r, c] * scale[c] + shift[c]`, plus `residual[r, c]` if there is one, then `max(·, 0)` if `relu`.
///
/// With scale = gamma / sqrt(var + eps) and shift = beta - mean * scale this is batch normalization.
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

/// What follows the normalization, and how the gradient kernels know where its gradient is zero.
#[derive(Clone, Copy, Debug)]
pub enum Activation<'a> {
    /// Nothing: `dy` is the gradient of the normalized numbers.
    None,
    /// A ReLU, whose output `y[rows, channels]` is given.
    Relu(&'a [f32]),
    /// A ReLU right behind `x * scale + shift`, which is computed again rather than read: a third of the traffic less.
    ReluOf {
        /// As [`normalize`] had it.
        scale: &'a [f32],
        /// As [`normalize`] had it.
        shift: &'a [f32],
    },
    /// A ReLU behind `x * scale + shift + residual`, likewise.
    ReluOfSum {
        /// As [`normalize`] had it.
        scale: &'a [f32],
        /// As [`normalize`] had it.
        shift: &'a [f32],
        /// As [`normalize`] had it.
        residual: &'a [f32],
    },
}

/// An [`Activation`] at work: `at` is a place in the matrix, `column` in the strip.
trait Mask: Copy + Send + Sync {
    /// The gradient in front of the activation.
    fn mask<const L: usize>(self, at: usize, column: usize, x: &[f32; L], dy: &[f32; L]) -> [f32; L];
}

/// [`Activation::None`].
#[derive(Clone, Copy)]
struct Open;

impl Mask for Open {
    #[inline(always)]
    fn mask<const L: usize>(self, _: usize, _: usize, _: &[f32; L], dy: &[f32; L]) -> [f32; L] {
        *dy
    }
}

/// [`Activation::Relu`].
#[derive(Clone, Copy)]
struct ByOutput<'a>(&'a [f32]);

impl Mask for ByOutput<'_> {
    #[inline(always)]
    fn mask<const L: usize>(self, at: usize, _: usize, _: &[f32; L], dy: &[f32; L]) -> [f32; L] {
        let y = lanes::<L>(self.0, at);
        from_fn(|l| relu_backward(y[l], dy[l]))
    }
}

/// [`Activation::ReluOf`], with vectors a strip wide.
#[derive(Clone, Copy)]
struct ByInput<'a> {
    scale: &'a [f32],
    shift: &'a [f32],
}

impl Mask for ByInput<'_> {
    #[inline(always)]
    fn mask<const L: usize>(self, _: usize, column: usize, x: &[f32; L], dy: &[f32; L]) -> [f32; L] {
        let (scale, shift) = (lanes::<L>(self.scale, column), lanes::<L>(self.shift, column));
        from_fn(|l| relu_backward(x[l] * scale[l] + shift[l], dy[l]))
    }
}

/// [`Activation::ReluOfSum`], with vectors a strip wide.
#[derive(Clone, Copy)]
struct BySum<'a> {
    normalized: ByInput<'a>,
    residual: &'a [f32],
}

impl Mask for BySum<'_> {
    #[inline(always)]
    fn mask<const L: usize>(self, at: usize, column: usize, x: &[f32; L], dy: &[f32; L]) -> [f32; L] {
        let ByInput { scale, shift } = self.normalized;
        let (scale, shift) = (lanes::<L>(scale, column), lanes::<L>(shift, column));
        let residual = lanes::<L>(self.residual, at);
        from_fn(|l| relu_backward(x[l] * scale[l] + shift[l] + residual[l], dy[l]))
    }
}

/// The sums of a backward pass, a number a channel.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNormSums {
    /// Σ dy, with `dy` behind the mask of the activation: the gradient of beta.
    pub dy: Vec<f64>,
    /// Σ dy (x - mean): times 1 / sqrt(var + eps) it is the gradient of gamma.
    pub dy_deviation: Vec<f64>,
}

/// The sums over rows that the gradients of gamma, beta and x need; `x`, `dy`: `[rows, channels]`, `mean`: `[channels]`.
pub fn batch_norm_sums(
    isa: Isa,
    x: &[f32],
    dy: &[f32],
    mean: &[f32],
    activation: Activation<'_>,
) -> BatchNormSums {
    match activation {
        Activation::None => masked_sums(isa, x, dy, mean, Open),
        Activation::Relu(y) => {
            assert_eq!(x.len(), y.len(), "operands of one length");
            masked_sums(isa, x, dy, mean, ByOutput(y))
        }
        Activation::ReluOf { scale, shift } => {
            let strip = Strip::new(mean.len());
            let (scale, shift) = (&strip.repeat(scale), &strip.repeat(shift));
            masked_sums(isa, x, dy, mean, ByInput { scale, shift })
        }
        Activation::ReluOfSum { scale, shift, residual } => {
            assert_eq!(x.len(), residual.len(), "operands of one length");
            let strip = Strip::new(mean.len());
            let (scale, shift) = (&strip.repeat(scale), &strip.repeat(shift));
            masked_sums(isa, x, dy, mean, BySum { normalized: ByInput { scale, shift }, residual })
        }
    }
}

fn masked_sums(isa: Isa, x: &[f32], dy: &[f32], mean: &[f32], mask: impl Mask) -> BatchNormSums {
    let channels = mean.len();
    let rows = whole_rows(x.len(), channels);
    assert_eq!(x.len(), dy.len(), "operands of one length");
    let strip = Strip::new(channels);
    let mean = &strip.repeat(mean);
    let parts = map_ranges(rows, channels, |range| {
        let range = range.start * channels..range.end * channels;
        isa.dispatch(RangeSums { strip, channels, range, terms: Products { x, dy, mean, mask } })
    });
    let (dy, dy_deviation) = parts.into_iter().map(|sums| (sums.dy, sums.dy_deviation)).unzip();
    BatchNormSums { dy: add_vectors(dy, channels), dy_deviation: add_vectors(dy_deviation, channels) }
}

/// [`BatchNormSums`] of some rows on one thread.
struct RangeSums<'a, M> {
    strip: Strip,
    channels: usize,
    range: Range<usize>,
    terms: Products<'a, M>,
}

impl<M: Mask> Task for RangeSums<'_, M> {
    type Output = BatchNormSums;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> BatchNormSums {
        let (strip, start) = (self.strip, self.range.start);
        let mut totals =
            BatchNormSums { dy: vec![0.0; self.channels], dy_deviation: vec![0.0; self.channels] };
        let mut sums = [vec![0.0; strip.width()], vec![0.0; strip.width()]];
        for block in strip.blocks(self.range.len()) {
            add_terms(&self.terms, start + block.start..start + block.end, &mut sums);
            strip.drain(&mut sums[0], &mut totals.dy);
            strip.drain(&mut sums[1], &mut totals.dy_deviation);
        }
        totals
    }
}

/// dy, masked, and dy (x - mean).
struct Products<'a, M> {
    x: &'a [f32],
    dy: &'a [f32],
    mean: &'a [f32],
    mask: M,
}

impl<M: Mask> Terms<2> for Products<'_, M> {
    #[inline(always)]
    fn terms<const L: usize>(&self, at: usize, column: usize) -> [[f32; L]; 2] {
        let (x, mean) = (lanes::<L>(self.x, at), lanes::<L>(self.mean, column));
        let dy = self.mask.mask(at, column, x, lanes(self.dy, at));
        [dy, from_fn(|l| dy[l] * (x[l] - mean[l]))]
    }
}

/// The gradient of x in training: `dx = scale * (dy - mean_dy - (x - mean) * slope)`, with `dy` behind the mask of the
/// activation and all vectors `[channels]`.
#[derive(Clone, Copy, Debug)]
pub struct BatchNormGradient<'a> {
    /// gamma / sqrt(var + eps).
    pub scale: &'a [f32],
    /// The mean of x over the batch.
    pub mean: &'a [f32],
    /// Σ dy / rows.
    pub mean_dy: &'a [f32],
    /// Σ dy (x - mean) / rows / (var + eps).
    pub slope: &'a [f32],
}

/// Writes [`BatchNormGradient`]'s dx for `x[rows, channels]`, and the gradient of a residual that was added.
///
/// With `dx`: `dx` is written there and `dy` becomes the gradient of the residual, which is `dy` behind the mask. With `None`:
/// dx is written over `dy`, the least traffic.
pub fn batch_norm_dx(
    isa: Isa,
    x: &[f32],
    gradient: BatchNormGradient<'_>,
    activation: Activation<'_>,
    dy: &mut [f32],
    dx: Option<&mut [f32]>,
) {
    let BatchNormGradient { scale, mean, mean_dy, slope } = gradient;
    let c = scale.len();
    let vectors = [scale, mean, mean_dy, slope];
    let formula = |dy: f32, x: f32, [scale, mean, mean_dy, slope]: [f32; 4]| {
        scale * (dy - mean_dy - (x - mean) * slope)
    };
    match (dx, activation) {
        (Some(dx), _) => mask_and_derive(isa, c, x, activation, dy, dx, |range, dy, dx| {
            update_rows(isa, c, dx, [dy, &x[range]], vectors, |_, [dy, x], v| formula(dy, x, v));
        }),
        (None, Activation::None) => {
            update_rows(isa, c, dy, [x], vectors, |dy, [x], v| formula(dy, x, v));
        }
        (None, Activation::Relu(y)) => {
            update_rows(isa, c, dy, [x, y], vectors, |dy, [x, y], v| formula(relu_backward(y, dy), x, v));
        }
        (None, Activation::ReluOf { scale: a, shift: b }) => {
            let vectors = [scale, mean, mean_dy, slope, a, b];
            update_rows(isa, c, dy, [x], vectors, |dy, [x], [scale, mean, mean_dy, slope, a, b]| {
                formula(relu_backward(x * a + b, dy), x, [scale, mean, mean_dy, slope])
            });
        }
        (None, Activation::ReluOfSum { scale: a, shift: b, residual }) => {
            let vectors = [scale, mean, mean_dy, slope, a, b];
            let operands = [x, residual];
            update_rows(isa, c, dy, operands, vectors, |dy, [x, r], [scale, mean, mean_dy, slope, a, b]| {
                formula(relu_backward(x * a + b + r, dy), x, [scale, mean, mean_dy, slope])
            });
        }
    }
}

/// Puts the mask of the activation on `dy` and calls `derive` for dx, piece by piece, so that the second step finds its numbers
/// in the cache.
fn mask_and_derive(
    isa: Isa,
    channels: usize,
    x: &[f32],
    activation: Activation<'_>,
    dy: &mut [f32],
    dx: &mut [f32],
    derive: impl Fn(Range<usize>, &[f32], &mut [f32]) + Sync,
) {
    assert_eq!(dy.len(), dx.len(), "operands of one length");
    let size = piece_of_strips(channels);
    dy.par_chunks_mut(size).zip(dx.par_chunks_mut(size)).enumerate().for_each(|(i, (dy, dx))| {
        let range = i * size..i * size + dy.len();
        match activation {
            Activation::None => {}
            Activation::Relu(y) => relu_backward_in_place(isa, &y[range.clone()], dy),
            Activation::ReluOf { scale, shift } => {
                let x = &x[range.clone()];
                update_rows(isa, channels, dy, [x], [scale, shift], |dy, [x], [a, b]| {
                    relu_backward(x * a + b, dy)
                });
            }
            Activation::ReluOfSum { scale, shift, residual } => {
                let operands = [&x[range.clone()], &residual[range.clone()]];
                update_rows(isa, channels, dy, operands, [scale, shift], |dy, [x, r], [a, b]| {
                    relu_backward(x * a + b + r, dy)
                });
            }
        }
        derive(range, dy, dx);
    });
}

/// The gradient of x where mean and variance are constants (evaluation, frozen layers): `dx = scale * dy` with `dy` behind the
/// mask of the activation. Reads `x` only for [`Activation::ReluOf`] and
/// [`Activation::ReluOfSum`]; it may be empty otherwise.
///
/// `dy` and `dx` as in [`batch_norm_dx`].
pub fn batch_norm_frozen_dx(
    isa: Isa,
    x: &[f32],
    scale: &[f32],
    activation: Activation<'_>,
    dy: &mut [f32],
    dx: Option<&mut [f32]>,
) {
    let (c, gamma) = (scale.len(), scale);
    match (dx, activation) {
        (Some(dx), _) => mask_and_derive(isa, c, x, activation, dy, dx, |_, dy, dx| {
            update_rows(isa, c, dx, [dy], [gamma], |_, [dy], [g]| g * dy);
        }),
        (None, Activation::None) => update_rows(isa, c, dy, [], [gamma], |dy, [], [g]| g * dy),
        (None, Activation::Relu(y)) => {
            update_rows(isa, c, dy, [y], [gamma], |dy, [y], [g]| relu_backward(y, g * dy));
        }
        (None, Activation::ReluOf { scale, shift }) => {
            update_rows(isa, c, dy, [x], [gamma, scale, shift], |dy, [x], [g, a, b]| {
                relu_backward(x * a + b, g * dy)
            });
        }
        (None, Activation::ReluOfSum { scale, shift, residual }) => {
            update_rows(isa, c, dy, [x, residual], [gamma, scale, shift], |dy, [x, r], [g, a, b]| {
                relu_backward(x * a + b + r, g * dy)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::tests::{CHANNELS, ROWS};
    use super::super::testing::{Guarded, assert_close, bits, each_isa, normals, same_on_any_threads};
    use super::*;

    #[test]
    fn normalize_is_its_formula_in_every_combination() {
        for isa in each_isa() {
            for channels in CHANNELS {
                for rows in ROWS {
                    let n = rows * channels;
                    let (x, r) = (normals(n, 1), normals(n, 2));
                    let (scale, shift) = (normals(channels, 3), normals(channels, 4));
                    for residual in [None, Some(&r[..])] {
                        for relu in [false, true] {
                            let wanted: Vec<f64> = (0..n)
                                .map(|i| {
                                    let c = i % channels;
                                    let y = f64::from(x[i]) * f64::from(scale[c]) + f64::from(shift[c]);
                                    let y = y + residual.map_or(0.0, |r| f64::from(r[i]));
                                    if relu { y.max(0.0) } else { y }
                                })
                                .collect();
                            let mut y = Guarded::new(n);
                            normalize(isa, &x, &scale, &shift, residual, relu, &mut y);
                            assert_close(&y, &wanted, 1e-6, "normalize");
                        }
                    }
                }
            }
        }
    }

    /// What a backward pass starts from, and the formulas in f64.
    struct Case {
        channels: usize,
        x: Vec<f32>,
        dy: Vec<f32>,
        residual: Vec<f32>,
        /// Behind the ReLU, without and with the residual.
        y: [Vec<f32>; 2],
        /// scale, shift, mean, mean_dy, slope
        vectors: [Vec<f32>; 5],
    }

    impl Case {
        fn new(rows: usize, channels: usize) -> Case {
            let n = rows * channels;
            let vectors = from_fn(|k| normals(channels, 10 + k as u64));
            let [x, dy, residual] = [1, 2, 3].map(|seed| normals(n, seed));
            let y = [None, Some(&residual[..])].map(|residual| {
                let mut y = vec![0.0; n];
                normalize(Isa::Portable, &x, &vectors[0], &vectors[1], residual, true, &mut y);
                y
            });
            Case { channels, x, dy, residual, y, vectors }
        }

        fn activations(&self) -> [Activation<'_>; 5] {
            let ([scale, shift, ..], residual) = (&self.vectors, &self.residual);
            let [y, of_sum] = &self.y;
            [
                Activation::None,
                Activation::Relu(y),
                Activation::ReluOf { scale, shift },
                Activation::Relu(of_sum),
                Activation::ReluOfSum { scale, shift, residual },
            ]
        }

        fn masked(&self, activation: Activation<'_>) -> Vec<f64> {
            let y = match activation {
                Activation::None => &vec![1.0; self.dy.len()],
                Activation::Relu(y) => y,
                Activation::ReluOf { .. } => &self.y[0][..],
                Activation::ReluOfSum { .. } => &self.y[1],
            };
            self.dy.iter().zip(y).map(|(&dy, &y)| if y > 0.0 { f64::from(dy) } else { 0.0 }).collect()
        }

        fn dx(&self, activation: Activation<'_>, frozen: bool) -> Vec<f64> {
            let masked = self.masked(activation).into_iter().enumerate();
            masked
                .map(|(i, dy)| {
                    let [scale, _, mean, mean_dy, slope] =
                        self.vectors.each_ref().map(|v| f64::from(v[i % self.channels]));
                    let inner = dy - mean_dy - (f64::from(self.x[i]) - mean) * slope;
                    scale * if frozen { dy } else { inner }
                })
                .collect()
        }
    }

    /// Rounding grows with the sizes of the terms, however small their sum.
    #[track_caller]
    fn close_sum(got: f64, terms: impl Iterator<Item = f64> + Clone) {
        let error = (got - terms.clone().sum::<f64>()).abs();
        assert!(error <= 3e-7 * terms.map(f64::abs).sum::<f64>(), "error {error}");
    }

    #[test]
    fn the_sums_are_those_of_f64() {
        for isa in each_isa() {
            for channels in CHANNELS {
                for rows in ROWS {
                    let case = Case::new(rows, channels);
                    for activation in case.activations() {
                        let masked = case.masked(activation);
                        let got = batch_norm_sums(isa, &case.x, &case.dy, &case.vectors[2], activation);
                        for c in 0..channels {
                            let mean = f64::from(case.vectors[2][c]);
                            let dy = || masked.iter().skip(c).step_by(channels).copied();
                            let x = case.x.iter().skip(c).step_by(channels).map(|&x| f64::from(x) - mean);
                            let products: Vec<f64> = dy().zip(x).map(|(dy, x)| dy * x).collect();
                            close_sum(got.dy[c], dy());
                            close_sum(got.dy_deviation[c], products.into_iter());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn dx_is_its_formula_and_the_residual_gets_the_masked_gradient() {
        for isa in each_isa() {
            for channels in CHANNELS {
                for rows in ROWS {
                    let case = Case::new(rows, channels);
                    let [scale, _, mean, mean_dy, slope] = case.vectors.each_ref().map(|v| &v[..]);
                    let gradient = BatchNormGradient { scale, mean, mean_dy, slope };
                    for activation in case.activations() {
                        for frozen in [false, true] {
                            let run = |dy: &mut [f32], dx: Option<&mut [f32]>| match frozen {
                                false => batch_norm_dx(isa, &case.x, gradient, activation, dy, dx),
                                true => batch_norm_frozen_dx(isa, &case.x, scale, activation, dy, dx),
                            };
                            let wanted = case.dx(activation, frozen);
                            let mut in_place = Guarded::from(&case.dy);
                            run(&mut in_place, None);
                            assert_close(&in_place, &wanted, 3e-6, "dx in place");
                            let (mut dy, mut dx) = (Guarded::from(&case.dy), Guarded::new(case.dy.len()));
                            run(&mut dy, Some(&mut dx));
                            assert_eq!(dx[..], in_place[..]);
                            assert_close(&dy, &case.masked(activation), 0.0, "masked dy");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let case = Case::new(12_345, 20);
        let [scale, _, mean, mean_dy, slope] = case.vectors.each_ref().map(|v| &v[..]);
        let gradient = BatchNormGradient { scale, mean, mean_dy, slope };
        let isa = Isa::active();
        same_on_any_threads(|| {
            let sums = batch_norm_sums(isa, &case.x, &case.dy, mean, Activation::Relu(&case.y[0]));
            let mut dx = case.dy.clone();
            batch_norm_dx(isa, &case.x, gradient, Activation::Relu(&case.y[0]), &mut dx, None);
            [dx, bits(&sums.dy), bits(&sums.dy_deviation)].concat()
        });
    }
}
