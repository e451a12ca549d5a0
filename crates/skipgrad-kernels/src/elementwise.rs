//! Elementwise arithmetic: one pass over memory, whose bandwidth is the only limit.
//!
//! Every kernel is one call of [`update`], which cuts the slices into pieces of [`PIECE`] elements
//! for the threads and runs a plain loop over each piece, compiled for the instruction set. Nothing
//! is reassociated or fused, so that the results are the same bits on every instruction set.

use super::parallel::{PIECE, for_each_piece};
use super::simd::Simd;
use super::{Isa, Task};
use std::hint::select_unpredictable;

/// The formula of an element. Short formulas are closures. A long one must be a type whose `at` is
/// `#[inline(always)]`, because a closure of that size is not inlined into the function that is
/// compiled for the instruction set.
trait Formula<const N: usize>: Copy + Send + Sync {
    /// Returns the new value of an element `y`, from the elements `x` of the inputs.
    fn at(self, y: f32, x: [f32; N]) -> f32;
}

impl<F: Fn(f32, [f32; N]) -> f32 + Copy + Send + Sync, const N: usize> Formula<N> for F {
    #[inline(always)]
    fn at(self, y: f32, x: [f32; N]) -> f32 {
        self(y, x)
    }
}

/// Computes `y[i] = f(y[i], [x0[i], x1[i], …])`, in parallel.
fn update<const N: usize>(
    isa: Isa,
    y: &mut [f32],
    inputs: [&[f32]; N],
    f: impl Fn(f32, [f32; N]) -> f32 + Copy + Send + Sync,
) {
    update_by(isa, y, inputs, f);
}

/// Computes [`update`] with any formula.
fn update_by<const N: usize>(isa: Isa, y: &mut [f32], inputs: [&[f32]; N], f: impl Formula<N>) {
    let n = y.len();
    assert!(inputs.iter().all(|x| x.len() == n), "operands of one length");
    for_each_piece(y, PIECE, |start, y| {
        let inputs = inputs.map(|x| &x[start..start + y.len()]);
        isa.dispatch(Update { y, inputs, f });
    });
}

/// The task of [`update`] for a piece.
struct Update<'a, F, const N: usize> {
    y: &'a mut [f32],
    inputs: [&'a [f32]; N],
    f: F,
}

impl<F: Formula<N>, const N: usize> Task for Update<'_, F, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        // The slices are cut to one length so that the loop needs no checks of bounds.
        let inputs = self.inputs.map(|x| &x[..self.y.len()]);
        for (i, y) in self.y.iter_mut().enumerate() {
            *y = self.f.at(*y, inputs.map(|x| x[i]));
        }
    }
}

// The `+ 0.0` below changes nothing but -0.0 and is there for speed. Without it, where the result
// overwrites its operand, the choice between 0 and the loaded value becomes a masked store
// (`vmaskmovps`), which takes many cycles on some processors.

/// Returns max(x, 0); NaN stays NaN, as in PyTorch.
#[inline(always)]
pub(super) fn positive_part(x: f32) -> f32 {
    let x = x + 0.0;
    if x < 0.0 { 0.0 } else { x }
}

/// Returns the gradient of a ReLU's input from its output (or input) `y` and the gradient `dy` of
/// its output: zero where y <= 0, else dy, also where y is NaN, as in PyTorch.
#[inline(always)]
pub(super) fn relu_backward(y: f32, dy: f32) -> f32 {
    let dy = dy + 0.0;
    if y <= 0.0 { 0.0 } else { dy }
}

/// Sets every element of `y` to `value`.
pub fn fill(isa: Isa, value: f32, y: &mut [f32]) {
    update(isa, y, [], |_, []| value);
}

/// Computes `out = x + y`.
///
/// # Panics
/// If the lengths differ, as all kernels of this file do.
///
/// ```
/// use skipgrad_kernels::{Isa, add};
/// let mut out = [0.0; 3];
/// add(Isa::active(), &[1.0, 2.0, 3.0], &[10.0, 20.0, 30.0], &mut out);
/// assert_eq!(out, [11.0, 22.0, 33.0]);
/// ```
pub fn add(isa: Isa, x: &[f32], y: &[f32], out: &mut [f32]) {
    update(isa, out, [x, y], |_, [x, y]| x + y);
}

/// Computes `out = x - y`.
pub fn sub(isa: Isa, x: &[f32], y: &[f32], out: &mut [f32]) {
    update(isa, out, [x, y], |_, [x, y]| x - y);
}

/// Computes `out = x * y`.
pub fn mul(isa: Isa, x: &[f32], y: &[f32], out: &mut [f32]) {
    update(isa, out, [x, y], |_, [x, y]| x * y);
}

/// Computes `y *= x`.
pub fn mul_in_place(isa: Isa, x: &[f32], y: &mut [f32]) {
    update(isa, y, [x], |y, [x]| y * x);
}

/// Computes `y += alpha * x`.
pub fn axpy(isa: Isa, alpha: f32, x: &[f32], y: &mut [f32]) {
    update(isa, y, [x], move |y, [x]| y + alpha * x);
}

/// Computes `out = alpha * x`.
pub fn scale(isa: Isa, alpha: f32, x: &[f32], out: &mut [f32]) {
    update(isa, out, [x], move |_, [x]| alpha * x);
}

/// Computes `y *= alpha`.
pub fn scale_in_place(isa: Isa, alpha: f32, y: &mut [f32]) {
    update(isa, y, [], move |y, []| alpha * y);
}

/// Computes `y = max(x, 0)`; NaN stays NaN, as in PyTorch.
pub fn relu(isa: Isa, x: &[f32], y: &mut [f32]) {
    update(isa, y, [x], |_, [x]| positive_part(x));
}

/// Overwrites `dy` with the gradient of the input of [`relu`]: `dy` where the output `y` is above
/// zero (or NaN), else 0.
pub fn relu_backward_in_place(isa: Isa, y: &[f32], dy: &mut [f32]) {
    update(isa, dy, [y], |dy, [y]| relu_backward(y, dy));
}

/// Computes `y = 1 / (1 + exp(-x))`.
pub fn sigmoid(isa: Isa, x: &[f32], y: &mut [f32]) {
    update_by(isa, y, [x], Sigmoid);
}

#[derive(Clone, Copy)]
struct Sigmoid;

impl Formula<1> for Sigmoid {
    #[inline(always)]
    fn at(self, _: f32, [x]: [f32; 1]) -> f32 {
        1.0 / (1.0 + exp(-x))
    }
}

/// Overwrites `dy` with the gradient of the input of [`sigmoid`]: `dy * y * (1 - y)`, where `y` is
/// the output.
pub fn sigmoid_backward_in_place(isa: Isa, y: &[f32], dy: &mut [f32]) {
    update(isa, dy, [y], |dy, [y]| dy * y * (1.0 - y));
}

/// Returns e^x to about one unit in the last place, by arithmetic that vectorizes and gives the
/// same bits on every machine (the system's `expf` does neither). Subnormal results and overflow
/// are handled; NaN gives NaN.
///
/// The argument is reduced to x = n ln 2 + r with |r| <= ln 2 / 2, where Taylor's polynomial of
/// degree 7 is exact to 6e-9.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Beyond these limits the result is 0 or infinite anyway.
    let x = select_unpredictable(x < -105.0, -105.0, x);
    let x = select_unpredictable(x > 90.0, 90.0, x);
    // Adding 1.5 * 2^23 rounds to an integer and leaves that integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // The two parts add up to ln 2; n times the first (9 bits times 15) is exact.
    const LN_2_HIGH: f32 = 0.693_145_75;
    const LN_2_LOW: f32 = (std::f64::consts::LN_2 - LN_2_HIGH as f64) as f32;
    let r = (x - n * LN_2_HIGH) - n * LN_2_LOW;
    let mut sum = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5] {
        sum = sum * r + coefficient;
    }
    let sum = (sum * r * r + r) + 1.0;
    // 2^n is a product of two powers, since n is in -152..=130.
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let half = n >> 1;
    sum * power_of_two(half) * power_of_two(n - half)
}

/// Returns 2^n for n in -126..=127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) << 23) as u32)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guarded, LENGTHS, each_isa, normals, same_on_any_threads};
    use super::*;

    type Kernel<const N: usize> = fn(Isa, [&[f32]; N], &mut [f32]);

    /// Compares a kernel with `f` in f64 at every length. The output starts with random values, for
    /// the kernels that update it.
    fn check<const N: usize>(kernel: Kernel<N>, f: fn(f64, [f64; N]) -> f64, tolerance: f64) {
        for isa in each_isa() {
            for n in LENGTHS {
                let inputs: [Vec<f32>; N] = std::array::from_fn(|k| normals(n, k as u64));
                let before = normals(n, 99);
                let mut out = Guarded::from(&before);
                kernel(isa, inputs.each_ref().map(|x| &x[..]), &mut out);
                for i in 0..n {
                    let wanted = f(before[i].into(), std::array::from_fn(|k| inputs[k][i].into()));
                    let error = (f64::from(out[i]) - wanted).abs();
                    assert!(
                        error <= tolerance * wanted.abs().max(1.0),
                        "{isa:?} {n} {i}: {} {wanted}",
                        out[i]
                    );
                }
            }
        }
    }

    #[test]
    fn every_kernel_computes_its_formula() {
        fn ramp(x: f64) -> f64 {
            x.max(0.0)
        }
        fn relu_gradient(y: f64, dy: f64) -> f64 {
            if y > 0.0 { dy } else { 0.0 }
        }
        fn sigmoid_gradient(y: f64, dy: f64) -> f64 {
            dy * y * (1.0 - y)
        }
        check::<0>(|isa, [], y| fill(isa, 2.5, y), |_, []| 2.5, 0.0);
        check::<2>(|isa, [x, y], out| add(isa, x, y, out), |_, [x, y]| x + y, 1e-7);
        check::<2>(|isa, [x, y], out| sub(isa, x, y, out), |_, [x, y]| x - y, 1e-7);
        check::<2>(|isa, [x, y], out| mul(isa, x, y, out), |_, [x, y]| x * y, 1e-7);
        check::<1>(|isa, [x], y| mul_in_place(isa, x, y), |y, [x]| y * x, 1e-7);
        check::<1>(|isa, [x], y| axpy(isa, 0.5, x, y), |y, [x]| y + 0.5 * x, 1e-7);
        check::<1>(|isa, [x], y| scale(isa, -3.0, x, y), |_, [x]| -3.0 * x, 1e-7);
        check::<0>(|isa, [], y| scale_in_place(isa, -3.0, y), |y, []| -3.0 * y, 1e-7);
        check::<1>(|isa, [x], y| relu(isa, x, y), |_, [x]| ramp(x), 0.0);
        check::<1>(|isa, [y], dy| relu_backward_in_place(isa, y, dy), |dy, [y]| relu_gradient(y, dy), 0.0);
        check::<1>(|isa, [x], y| sigmoid(isa, x, y), |_, [x]| 1.0 / (1.0 + (-x).exp()), 2e-7);
        check::<1>(
            |isa, [y], dy| sigmoid_backward_in_place(isa, y, dy),
            |dy, [y]| sigmoid_gradient(y, dy),
            3e-7,
        );
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let x = normals(3 * PIECE + 5, 1);
        same_on_any_threads(|| {
            let mut y = x.clone();
            axpy(Isa::active(), 0.3, &x, &mut y);
            sigmoid(Isa::active(), &x, &mut y[..x.len()]);
            y
        });
    }

    #[test]
    fn nan_passes_through_relu_and_its_gradient() {
        for isa in each_isa() {
            let (mut y, mut dx) = ([0.0; 9], [3.0; 9]);
            relu(isa, &[f32::NAN; 9], &mut y);
            relu_backward_in_place(isa, &[f32::NAN; 9], &mut dx);
            assert!(y.iter().all(|y| y.is_nan()) && dx == [3.0; 9]);
        }
    }

    #[test]
    fn exp_is_right_to_two_units_in_the_last_place_from_underflow_to_overflow() {
        let mut worst: f64 = 0.0;
        for i in 0..400_000 {
            let x = -104.0 + i as f32 * (193.0 / 400_000.0);
            let wanted = f64::from(x).exp();
            let got = f64::from(exp(x));
            if wanted > f64::from(f32::MAX) * 1.0001 {
                assert_eq!(got, f64::INFINITY, "{x}");
            } else if wanted < f64::from(f32::MAX) {
                // The unit is the spacing of f32 near the result; subnormals are 2^-149 apart.
                let unit = f64::from(wanted as f32).abs() * 2f64.powi(-23);
                worst = worst.max((got - wanted).abs() / unit.max(2f64.powi(-149)));
            }
        }
        assert!(worst < 2.0, "{worst} units");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    #[should_panic(expected = "operands of one length")]
    fn a_short_operand_is_an_error() {
        add(Isa::active(), &[1.0; 3], &[1.0; 2], &mut [0.0; 3]);
    }
}
