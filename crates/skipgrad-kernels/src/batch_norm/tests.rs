//! Batch normalization on every instruction set, against its formulas in f64.

use super::*;
use crate::rows::tests::{CHANNELS, ROWS};
use crate::testing::{Guarded, assert_close, bits, each_isa, normals, same_on_any_threads};
use std::array::from_fn;

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

/// The operands of a backward pass.
struct Case {
    channels: usize,
    x: Vec<f32>,
    dy: Vec<f32>,
    residual: Vec<f32>,
    /// The outputs of the ReLU, without and with the residual.
    y: [Vec<f32>; 2],
    /// The vectors scale, shift, mean, mean_dy and slope.
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

/// Asserts that `got` is the sum of the terms. The bound grows with the magnitudes of the terms,
/// as the rounding error does.
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
