//! Sums, in an order that depends on the problem alone, and the addition of a bias to rows.

use super::parallel::PIECE;
use super::rows::{Strip, Terms, add_terms, lanes, map_ranges, update_rows, whole_rows};
use super::simd::Simd;
use super::{Isa, Task};
use rayon::prelude::*;

/// The number of partial sums of [`sum`] and [`sum_of_squares`], one per lane.
const LANES: usize = 32;

/// Returns the sum of all elements, added in f64 and rounded once.
///
/// ```
/// use skipgrad_kernels::{Isa, sum};
/// assert_eq!(sum(Isa::active(), &[1e8, 1.0, -1e8]), 1.0);
/// ```
pub fn sum(isa: Isa, x: &[f32]) -> f32 {
    sum_of(isa, x, |x| x) as f32
}

/// Returns the sum of the squares of all elements, in f64.
pub fn sum_of_squares(isa: Isa, x: &[f32]) -> f64 {
    sum_of(isa, x, |x| x * x)
}

/// Returns the sum of `f` of every element: the pieces are summed in parallel and added in order.
fn sum_of(isa: Isa, x: &[f32], f: impl Fn(f64) -> f64 + Copy + Send + Sync) -> f64 {
    if x.len() <= PIECE {
        return isa.dispatch(Sum { x, f });
    }
    let partial: Vec<f64> = x.par_chunks(PIECE).map(|x| isa.dispatch(Sum { x, f })).collect();
    partial.into_iter().fold(0.0, |total, part| total + part)
}

/// The task of [`sum_of`] for a piece.
struct Sum<'a, F> {
    x: &'a [f32],
    f: F,
}

impl<F: Fn(f64) -> f64> Task for Sum<'_, F> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f64 {
        let mut lanes = [0.0; LANES];
        let (whole, rest) = self.x.as_chunks::<LANES>();
        for x in whole {
            for (lane, &x) in lanes.iter_mut().zip(x) {
                *lane += (self.f)(f64::from(x));
            }
        }
        for (lane, &x) in lanes.iter_mut().zip(rest) {
            *lane += (self.f)(f64::from(x));
        }
        lanes.into_iter().fold(0.0, |total, lane| total + lane)
    }
}

/// Computes `out[c] = Σ x[r, c]` over the rows of `x[rows, channels]`, where `channels =
/// out.len()`: the gradient of a bias.
///
/// # Panics
/// If x does not consist of whole rows.
pub fn column_sums(isa: Isa, x: &[f32], out: &mut [f32]) {
    let totals = column_totals(isa, x, out.len());
    for (out, total) in out.iter_mut().zip(totals) {
        *out = total as f32;
    }
}

/// Returns the sums of [`column_sums`] before they are rounded.
pub(super) fn column_totals(isa: Isa, x: &[f32], channels: usize) -> Vec<f64> {
    let rows = whole_rows(x.len(), channels);
    let parts = map_ranges(rows, channels, |range| {
        isa.dispatch(ColumnTotals { x: &x[range.start * channels..range.end * channels], channels })
    });
    add_vectors(parts, channels)
}

/// Adds vectors `[channels]` in their order.
pub(super) fn add_vectors(parts: Vec<Vec<f64>>, channels: usize) -> Vec<f64> {
    parts.into_iter().fold(vec![0.0; channels], |mut totals, part| {
        totals.iter_mut().zip(part).for_each(|(total, part)| *total += part);
        totals
    })
}

/// The task that sums the columns of a matrix on one thread.
pub(super) struct ColumnTotals<'a> {
    pub(super) x: &'a [f32],
    pub(super) channels: usize,
}

impl Task for ColumnTotals<'_> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Vec<f64> {
        let strip = Strip::new(self.channels);
        let mut totals = vec![0.0; self.channels];
        let mut sums = [vec![0.0; strip.width()]];
        for block in strip.blocks(self.x.len()) {
            add_terms(&self, block, &mut sums);
            strip.drain(&mut sums[0], &mut totals);
        }
        totals
    }
}

impl Terms<1> for ColumnTotals<'_> {
    #[inline(always)]
    fn terms<const L: usize>(&self, at: usize, _: usize) -> [[f32; L]; 1] {
        [*lanes(self.x, at)]
    }
}

/// Computes `y[r, c] += bias[c]` for `y[rows, channels]`.
///
/// # Panics
/// If y does not consist of whole rows.
pub fn add_bias_rows(isa: Isa, bias: &[f32], y: &mut [f32]) {
    update_rows(isa, bias.len(), y, [], [bias], |y, [], [bias]| y + bias);
}

/// Adds the vectors that `partial` consists of, each as long as `to`, to it in order.
pub(super) fn add_in_order(partial: &[f32], to: &mut [f32]) {
    const PIECE: usize = 1024;
    if partial.is_empty() {
        return;
    }
    let len = to.len();
    to.par_chunks_mut(PIECE).enumerate().for_each(|(i, to)| {
        for partial in partial.chunks_exact(len) {
            to.iter_mut().zip(&partial[i * PIECE..]).for_each(|(to, x)| *to += x);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::rows::tests::{CHANNELS, ROWS};
    use super::super::testing::{Guarded, LENGTHS, assert_close, each_isa, normals, same_on_any_threads};
    use super::*;

    #[test]
    fn sums_are_those_of_f64() {
        for isa in each_isa() {
            for n in LENGTHS {
                let x = normals(n, 3);
                let wanted: f64 = x.iter().map(|&x| f64::from(x)).sum();
                let squares: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
                assert_close(&[sum(isa, &x)], &[wanted], 1e-7, "sum");
                assert!((sum_of_squares(isa, &x) - squares).abs() <= 1e-12 * squares.max(1.0));
            }
        }
    }

    #[test]
    fn columns_are_summed_and_rows_get_their_bias() {
        for isa in each_isa() {
            for channels in CHANNELS {
                for rows in ROWS {
                    let x = normals(rows * channels, 1);
                    let mut out = Guarded::new(channels);
                    column_sums(isa, &x, &mut out);
                    for c in 0..channels {
                        let column = || x.iter().skip(c).step_by(channels).map(|&x| f64::from(x));
                        let error = (f64::from(out[c]) - column().sum::<f64>()).abs();
                        assert!(error <= 2e-7 * column().map(f64::abs).sum::<f64>(), "{rows} {channels} {c}");
                    }

                    let bias = normals(channels, 2);
                    let mut y = Guarded::from(&x);
                    add_bias_rows(isa, &bias, &mut y);
                    assert!((0..y.len()).all(|i| y[i] == x[i] + bias[i % channels]), "{rows} {channels}");
                }
            }
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let x = normals(64 * 9001, 1);
        same_on_any_threads(|| {
            let mut out = vec![0.0; 66];
            column_sums(Isa::active(), &x, &mut out[..64]);
            out[64] = sum(Isa::active(), &x);
            out[65] = sum_of_squares(Isa::active(), &x) as f32;
            out
        });
    }
}
