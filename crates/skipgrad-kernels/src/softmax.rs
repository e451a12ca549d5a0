//! Softmax over the last axis of `x[rows, classes]`, its logarithm, and the cross entropy.
//!
//! A row is computed by one thread: its maximum is subtracted, so that no exponential overflows,
//! and its sums are f64.

use super::elementwise::exp;
use super::parallel::{PIECE, RowsMut, for_each_piece};
use super::rows::whole_rows;
use super::simd::Simd;
use super::{Isa, Task};

/// The number of partial results for a row, one per lane.
const LANES: usize = 16;

/// Computes `y[r, k] = exp(x[r, k]) / Σ exp(x[r, ·])` for `x[rows, classes]`.
///
/// # Panics
/// If the rows are not whole or the lengths differ, as all kernels of this file do.
///
/// ```
/// use skipgrad_kernels::{Isa, softmax};
/// let mut y = [0.0; 2];
/// softmax(Isa::active(), 2, &[0.0, 3f32.ln()], &mut y);
/// assert!((y[0] - 0.25).abs() < 1e-7 && (y[1] - 0.75).abs() < 1e-7);
/// ```
pub fn softmax(isa: Isa, classes: usize, x: &[f32], y: &mut [f32]) {
    for_each_row(isa, classes, y, [x], Softmax);
}

/// Computes `dx = y * (dy - Σ dy y)`, where the sum is over a row and `y` is the output of
/// [`softmax`].
pub fn softmax_backward(isa: Isa, classes: usize, y: &[f32], dy: &[f32], dx: &mut [f32]) {
    for_each_row(isa, classes, dx, [y, dy], SoftmaxBackward);
}

/// Computes `y[r, k] = x[r, k] - ln Σ exp(x[r, ·])` for `x[rows, classes]`.
pub fn log_softmax(isa: Isa, classes: usize, x: &[f32], y: &mut [f32]) {
    for_each_row(isa, classes, y, [x], LogSoftmax);
}

/// Computes `dx = dy - exp(y) Σ dy`, where the sum is over a row and `y` is the output of
/// [`log_softmax`].
pub fn log_softmax_backward(isa: Isa, classes: usize, y: &[f32], dy: &[f32], dx: &mut [f32]) {
    for_each_row(isa, classes, dx, [y, dy], LogSoftmaxBackward);
}

/// The computation of a row of `y` from rows of `N` inputs.
trait RowMap<const N: usize>: Copy + Send + Sync {
    /// Computes a row. Mark it `#[inline(always)]`: a closure of this size would not be inlined
    /// into the function that is compiled for the instruction set.
    fn row(self, y: &mut [f32], inputs: [&[f32]; N]);
}

#[derive(Clone, Copy)]
struct Softmax;

impl RowMap<1> for Softmax {
    #[inline(always)]
    fn row(self, y: &mut [f32], [x]: [&[f32]; 1]) {
        let share = (1.0 / exponentials(x, row_max(x), y)) as f32;
        for y in y {
            *y *= share;
        }
    }
}

#[derive(Clone, Copy)]
struct SoftmaxBackward;

impl RowMap<2> for SoftmaxBackward {
    #[inline(always)]
    fn row(self, dx: &mut [f32], [y, dy]: [&[f32]; 2]) {
        let sum = row_sum([dy, y], |[dy, y]| f64::from(dy) * f64::from(y)) as f32;
        for ((dx, y), dy) in dx.iter_mut().zip(y).zip(dy) {
            *dx = y * (dy - sum);
        }
    }
}

#[derive(Clone, Copy)]
struct LogSoftmax;

impl RowMap<1> for LogSoftmax {
    #[inline(always)]
    fn row(self, y: &mut [f32], [x]: [&[f32]; 1]) {
        let max = row_max(x);
        let log_sum = exponentials(x, max, y).ln() as f32;
        for (y, x) in y.iter_mut().zip(x) {
            *y = (x - max) - log_sum;
        }
    }
}

#[derive(Clone, Copy)]
struct LogSoftmaxBackward;

impl RowMap<2> for LogSoftmaxBackward {
    #[inline(always)]
    fn row(self, dx: &mut [f32], [y, dy]: [&[f32]; 2]) {
        let sum = row_sum([dy], |[dy]| f64::from(dy)) as f32;
        for ((dx, y), dy) in dx.iter_mut().zip(y).zip(dy) {
            *dx = dy - exp(*y) * sum;
        }
    }
}

/// The target of [`cross_entropy`].
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// The class of every row, below the number of classes.
    Classes(&'a [usize]),
    /// A weight for every class of every row, `[rows, classes]`; the weights of a row usually add
    /// up to 1.
    Weights(&'a [f32]),
}

/// Computes the loss of every row of `logits[rows, classes]` and the gradient of the mean loss, as
/// PyTorch's `cross_entropy` does.
///
/// The result is `losses[r] = -Σ t[r, k] log_softmax(logits)[r, k]`, with the sum over k, where t
/// is the smoothed target, (1 - smoothing) target + smoothing / classes. The gradient is
/// `(softmax(logits) Σ t - t) / rows`.
///
/// # Panics
/// If a slice does not fit, or a class is not below `classes`.
///
/// ```
/// use skipgrad_kernels::{Isa, Target, cross_entropy};
/// let (mut losses, mut gradient) = ([0.0], [0.0; 2]);
/// let target = Target::Classes(&[1]);
/// cross_entropy(Isa::active(), 2, &[7.0, 7.0], target, 0.0, &mut losses, &mut gradient);
/// assert!((losses[0] - 2f32.ln()).abs() < 1e-7);
/// assert_eq!(gradient, [0.5, -0.5]);
/// ```
pub fn cross_entropy(
    isa: Isa,
    classes: usize,
    logits: &[f32],
    target: Target<'_>,
    smoothing: f32,
    losses: &mut [f32],
    gradient: &mut [f32],
) {
    let rows = whole_rows(logits.len(), classes);
    assert_eq!(logits.len(), gradient.len(), "a gradient as large as the logits");
    assert_eq!(losses.len(), rows, "a loss for every row");
    match target {
        Target::Classes(labels) => {
            assert!(labels.len() == rows && labels.iter().all(|&k| k < classes), "a class for every row");
        }
        Target::Weights(weights) => assert_eq!(weights.len(), logits.len(), "weights for every row"),
    }
    if logits.is_empty() {
        return losses.fill(0.0);
    }
    let share = 1.0 / rows as f64;
    let outputs = (losses, RowsMut { data: gradient, width: classes });
    for_each_piece(outputs, (PIECE / classes).max(1), |first, (losses, gradient)| {
        let range = first..first + losses.len();
        let elements = range.start * classes..range.end * classes;
        let logits = &logits[elements.clone()];
        let target = match target {
            Target::Classes(labels) => Target::Classes(&labels[range]),
            Target::Weights(weights) => Target::Weights(&weights[elements]),
        };
        let gradient = gradient.data;
        isa.dispatch(CrossEntropy { classes, logits, target, smoothing, share, losses, gradient });
    });
}

/// The task of [`cross_entropy`] for some rows.
struct CrossEntropy<'a> {
    classes: usize,
    logits: &'a [f32],
    target: Target<'a>,
    smoothing: f32,
    /// The weight of a row in the mean, 1 / rows.
    share: f64,
    losses: &'a mut [f32],
    gradient: &'a mut [f32],
}

impl Task for CrossEntropy<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let c = self.classes;
        let rows = self.logits.chunks(c).zip(self.gradient.chunks_mut(c)).zip(self.losses);
        for (r, ((x, gradient), loss)) in rows.enumerate() {
            let max = row_max(x);
            let sum = exponentials(x, max, gradient);
            let keep = 1.0 - f64::from(self.smoothing);
            let spread = f64::from(self.smoothing) / c as f64;
            let deviation = |x: f32| f64::from(x) - f64::from(max);
            // These are Σ t and Σ t (x - max) for the given target; smoothing adds to both.
            let (weight, product) = match self.target {
                Target::Classes(labels) => (1.0, deviation(x[labels[r]])),
                Target::Weights(weights) => {
                    let weights = &weights[r * c..(r + 1) * c];
                    let weight = row_sum([weights], |[t]| f64::from(t));
                    (weight, row_sum([weights, x], |[t, x]| f64::from(t) * deviation(x)))
                }
            };
            let weight = keep * weight + f64::from(self.smoothing);
            let even = if spread == 0.0 { 0.0 } else { spread * row_sum([x], |[x]| deviation(x)) };
            *loss = (weight * sum.ln() - (keep * product + even)) as f32;

            let (of_softmax, of_target) = ((weight / sum * self.share) as f32, (keep * self.share) as f32);
            let spread = (spread * self.share) as f32;
            match self.target {
                Target::Classes(labels) => {
                    for g in gradient.iter_mut() {
                        *g = of_softmax * *g - spread;
                    }
                    gradient[labels[r]] -= of_target;
                }
                Target::Weights(weights) => {
                    for (g, t) in gradient.iter_mut().zip(&weights[r * c..]) {
                        *g = of_softmax * *g - (of_target * t + spread);
                    }
                }
            }
        }
    }
}

/// Returns the maximum of a row. NaN is skipped here; the exponentials propagate it.
#[inline(always)]
fn row_max(x: &[f32]) -> f32 {
    let larger = |max: f32, x: f32| if x > max { x } else { max };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for x in whole {
        for l in 0..LANES {
            lanes[l] = larger(lanes[l], x[l]);
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |max, &x| larger(max, x))
}

/// Computes `y[k] = exp(x[k] - max)` and returns their sum.
#[inline(always)]
fn exponentials(x: &[f32], max: f32, y: &mut [f32]) -> f64 {
    for (y, x) in y.iter_mut().zip(x) {
        *y = exp(x - max);
    }
    row_sum([y], |[y]| f64::from(y))
}

/// Returns Σ f([a[k], b[k], …]), added in f64 and in an order that depends on the length alone.
#[inline(always)]
fn row_sum<const N: usize>(rows: [&[f32]; N], f: impl Fn([f32; N]) -> f64) -> f64 {
    let n = rows[0].len();
    let rows = rows.map(|row| row[..n].as_chunks::<LANES>());
    let mut lanes = [0.0; LANES];
    for i in 0..n / LANES {
        let whole = rows.map(|(whole, _)| whole[i]);
        for (l, lane) in lanes.iter_mut().enumerate() {
            *lane += f(whole.map(|row| row[l]));
        }
    }
    for (l, lane) in lanes[..n % LANES].iter_mut().enumerate() {
        *lane += f(rows.map(|(_, rest)| rest[l]));
    }
    lanes.into_iter().fold(0.0, |total, lane| total + lane)
}

/// Computes every row of `y`, in parallel.
fn for_each_row<const N: usize>(
    isa: Isa,
    classes: usize,
    y: &mut [f32],
    inputs: [&[f32]; N],
    map: impl RowMap<N>,
) {
    whole_rows(y.len(), classes);
    let n = y.len();
    assert!(inputs.iter().all(|x| x.len() == n), "operands of one length");
    if n == 0 {
        return;
    }
    for_each_piece(y, classes * (PIECE / classes).max(1), |start, y| {
        let inputs = inputs.map(|x| &x[start..start + y.len()]);
        isa.dispatch(EachRow { classes, y, inputs, map });
    });
}

/// The task of [`for_each_row`] for some rows.
struct EachRow<'a, M, const N: usize> {
    classes: usize,
    y: &'a mut [f32],
    inputs: [&'a [f32]; N],
    map: M,
}

impl<M: RowMap<N>, const N: usize> Task for EachRow<'_, M, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (r, y) in self.y.chunks_mut(self.classes).enumerate() {
            let row = r * self.classes..(r + 1) * self.classes;
            self.map.row(y, self.inputs.map(|x| &x[row.clone()]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guarded, assert_close, each_isa, normals, same_on_any_threads};
    use super::*;

    /// Numbers of rows and of classes. The last pair is more than a thread takes at once.
    const SIZES: [(usize, usize); 10] =
        [(0, 3), (1, 1), (2, 7), (5, 10), (3, 15), (3, 16), (4, 17), (2, 33), (1, 1000), (331, 100)];

    fn naive_log_softmax(x: &[f32], classes: usize) -> Vec<f64> {
        let row = |x: &[f32]| {
            let max = x.iter().fold(f64::NEG_INFINITY, |max, &x| max.max(x.into()));
            let log_sum = x.iter().map(|&x| (f64::from(x) - max).exp()).sum::<f64>().ln();
            x.iter().map(|&x| f64::from(x) - max - log_sum).collect::<Vec<_>>()
        };
        x.chunks(classes).flat_map(row).collect()
    }

    #[test]
    fn softmax_and_its_logarithm_are_those_of_f64() {
        for isa in each_isa() {
            for (rows, classes) in SIZES {
                // These values are so large that exponentials without the shift would overflow.
                let x: Vec<f32> = normals(rows * classes, 1).iter().map(|x| 300.0 + 10.0 * x).collect();
                let dy = normals(x.len(), 2);
                let log = naive_log_softmax(&x, classes);
                let soft: Vec<f64> = log.iter().map(|y| y.exp()).collect();
                let row = |i: usize| i / classes * classes..(i / classes + 1) * classes;

                let (mut y, mut dx) = (Guarded::new(x.len()), Guarded::new(x.len()));
                softmax(isa, classes, &x, &mut y);
                assert_close(&y, &soft, 1e-6, "softmax");
                softmax_backward(isa, classes, &y, &dy, &mut dx);
                let inner = |i: usize| row(i).map(|k| f64::from(dy[k]) * soft[k]).sum::<f64>();
                let wanted: Vec<f64> =
                    (0..x.len()).map(|i| soft[i] * (f64::from(dy[i]) - inner(i))).collect();
                assert_close(&dx, &wanted, 1e-6, "softmax gradient");

                log_softmax(isa, classes, &x, &mut y);
                assert_close(&y, &log, 1e-6, "log softmax");
                log_softmax_backward(isa, classes, &y, &dy, &mut dx);
                let total = |i: usize| row(i).map(|k| f64::from(dy[k])).sum::<f64>();
                let wanted: Vec<f64> = (0..x.len()).map(|i| f64::from(dy[i]) - soft[i] * total(i)).collect();
                assert_close(&dx, &wanted, 2e-6, "log softmax gradient");
            }
        }
    }

    #[test]
    fn cross_entropy_is_its_formula_for_classes_and_weights() {
        for isa in each_isa() {
            for (rows, classes) in SIZES {
                let x: Vec<f32> = normals(rows * classes, 1).iter().map(|x| 5.0 * x).collect();
                let log = naive_log_softmax(&x, classes);
                let labels: Vec<usize> = (0..rows).map(|r| r * 7 % classes).collect();
                let weights: Vec<f32> = normals(x.len(), 3).into_iter().map(f32::abs).collect();
                for smoothing in [0.0, 0.1] {
                    for target in [Target::Classes(&labels), Target::Weights(&weights)] {
                        let t = |i: usize| {
                            let hard = match target {
                                Target::Classes(labels) => f64::from(labels[i / classes] == i % classes),
                                Target::Weights(weights) => f64::from(weights[i]),
                            };
                            hard * (1.0 - f64::from(smoothing)) + f64::from(smoothing) / classes as f64
                        };
                        let row = |r: usize| r * classes..(r + 1) * classes;
                        let losses: Vec<f64> =
                            (0..rows).map(|r| -row(r).map(|i| t(i) * log[i]).sum::<f64>()).collect();
                        let gradient: Vec<f64> = (0..x.len())
                            .map(|i| {
                                let weight: f64 = row(i / classes).map(t).sum();
                                (log[i].exp() * weight - t(i)) / rows as f64
                            })
                            .collect();
                        let (mut got, mut dx) = (Guarded::new(rows), Guarded::new(x.len()));
                        cross_entropy(isa, classes, &x, target, smoothing, &mut got, &mut dx);
                        assert_close(&got, &losses, 1e-6, "loss");
                        let largest = gradient.iter().fold(0.0f64, |max, g| max.max(g.abs()));
                        for (got, wanted) in dx.iter().zip(&gradient) {
                            assert!((f64::from(*got) - wanted).abs() <= 1e-6 * largest, "{got} {wanted}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn infinities_and_nan_are_as_in_pytorch() {
        let mut y = [0.0; 3];
        softmax(Isa::active(), 3, &[f32::NEG_INFINITY, 0.0, 0.0], &mut y);
        assert_eq!(y, [0.0, 0.5, 0.5]);
        softmax(Isa::active(), 3, &[0.0, f32::NAN, 0.0], &mut y);
        assert!(y.iter().all(|y| y.is_nan()));
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let (rows, classes) = (999, 100);
        let x = normals(rows * classes, 1);
        let labels: Vec<usize> = (0..rows).map(|r| r % classes).collect();
        same_on_any_threads(|| {
            let (mut losses, mut gradient) = (vec![0.0; rows], vec![0.0; x.len()]);
            let target = Target::Classes(&labels);
            cross_entropy(Isa::active(), classes, &x, target, 0.1, &mut losses, &mut gradient);
            [losses, gradient].concat()
        });
    }
}
