//! Steps of optimizers: one pass over a parameter, its gradient and its state, with PyTorch's
//! formulas. Scalars are f64, as in PyTorch, and rounded to f32 only where they meet the elements:
//! 1 - beta would lose digits in f32.

use super::parallel::{PIECE, for_each_piece};
use super::simd::Simd;
use super::{Isa, Task};

/// The hyperparameters of a step of [`sgd`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdStep {
    /// The learning rate.
    pub lr: f64,
    /// The fraction of the velocity that is kept, in [0, 1).
    pub momentum: f64,
    /// The fraction of the gradient that is not added to the velocity, in [0, 1].
    pub dampening: f64,
    /// Whether to use Nesterov's momentum.
    pub nesterov: bool,
    /// The factor of the parameter that is added to the gradient (L2 penalty).
    pub weight_decay: f64,
    /// Whether this is the first step: the velocity is set to the gradient, without dampening.
    pub first: bool,
}

/// Takes a step of stochastic gradient descent, as PyTorch's `SGD` does: g = grad + weight_decay *
/// p; v = momentum * v + (1 - dampening) * g; p -= lr * v, or lr * (g + momentum * v) with
/// Nesterov's momentum, or lr * g without `velocity`.
///
/// # Panics
/// If the lengths differ.
///
/// ```
/// use skipgrad_kernels::{Isa, SgdStep, sgd};
/// let (momentum, dampening, weight_decay) = (0.0, 0.0, 0.0);
/// let step =
///     SgdStep { lr: 0.5, momentum, dampening, nesterov: false, weight_decay, first: true };
/// let mut parameter = [1.0, 2.0];
/// sgd(Isa::active(), step, &mut parameter, &[4.0, -4.0], None);
/// assert_eq!(parameter, [-1.0, 4.0]);
/// ```
pub fn sgd(isa: Isa, step: SgdStep, parameter: &mut [f32], gradient: &[f32], velocity: Option<&mut [f32]>) {
    assert_eq!(parameter.len(), gradient.len(), "operands of one length");
    let Some(velocity) = velocity else {
        return for_each_piece(parameter, PIECE, |start, p| {
            isa.dispatch(PlainSgd { step, g: &gradient[start..start + p.len()], p });
        });
    };
    assert_eq!(velocity.len(), gradient.len(), "operands of one length");
    for_each_piece([parameter, velocity], PIECE, |start, [p, v]| {
        isa.dispatch(Sgd { step, g: &gradient[start..start + p.len()], p, v });
    });
}

/// The task of [`sgd`] without a velocity, for a piece.
struct PlainSgd<'a> {
    step: SgdStep,
    p: &'a mut [f32],
    g: &'a [f32],
}

impl Task for PlainSgd<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (lr, decay) = (self.step.lr as f32, self.step.weight_decay as f32);
        for (p, g) in self.p.iter_mut().zip(self.g) {
            *p -= lr * (g + decay * *p);
        }
    }
}

/// The task of [`sgd`] with a velocity, for a piece.
struct Sgd<'a> {
    step: SgdStep,
    p: &'a mut [f32],
    v: &'a mut [f32],
    g: &'a [f32],
}

impl Task for Sgd<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let SgdStep { lr, momentum, dampening, nesterov, weight_decay, first } = self.step;
        let (lr, decay, momentum) = (lr as f32, weight_decay as f32, momentum as f32);
        let share = if first { 1.0 } else { (1.0 - dampening) as f32 };
        for ((p, v), g) in self.p.iter_mut().zip(self.v).zip(self.g) {
            let g = g + decay * *p;
            // Before the first step the velocity may be anything, even NaN, which 0 times it would
            // keep.
            let before = if first { 0.0 } else { *v };
            *v = momentum * before + share * g;
            *p -= lr * if nesterov { g + momentum * *v } else { *v };
        }
    }
}

/// The hyperparameters of a step of [`adamw`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// The learning rate.
    pub lr: f64,
    /// The decay rate of the mean of gradients, in [0, 1).
    pub beta1: f64,
    /// The decay rate of the mean of squared gradients, in [0, 1).
    pub beta2: f64,
    /// The constant that is added to the denominator.
    pub eps: f64,
    /// The decoupled weight decay: a step multiplies the parameter by 1 - lr * weight_decay.
    pub weight_decay: f64,
    /// The number of this step, counted from 1.
    pub step: u64,
}

/// Takes a step of AdamW (Loshchilov and Hutter 2019), as PyTorch does, with the moving averages
/// `m` of gradients and `v` of their squares, which are zeros before the first step: p -= lr *
/// weight_decay * p, then p -= lr * m̂ / (sqrt(v̂) + eps), where m̂ = m / (1 - beta1^step) and
/// v̂ = v / (1 - beta2^step).
///
/// # Panics
/// If the lengths differ, or `step.step` is 0.
pub fn adamw(
    isa: Isa,
    step: AdamWStep,
    parameter: &mut [f32],
    gradient: &[f32],
    m: &mut [f32],
    v: &mut [f32],
) {
    assert!(step.step > 0, "steps are counted from 1");
    assert_eq!(parameter.len(), gradient.len(), "operands of one length");
    assert!(m.len() == gradient.len() && v.len() == gradient.len(), "operands of one length");
    for_each_piece([parameter, m, v], PIECE, |start, [p, m, v]| {
        isa.dispatch(AdamW { step, g: &gradient[start..start + p.len()], p, m, v });
    });
}

/// The task of [`adamw`] for a piece.
struct AdamW<'a> {
    step: AdamWStep,
    p: &'a mut [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    g: &'a [f32],
}

impl Task for AdamW<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let AdamWStep { lr, beta1, beta2, eps, weight_decay, step } = self.step;
        let correction = |beta: f64| 1.0 - beta.powf(step as f64);
        let keep = (1.0 - lr * weight_decay) as f32;
        let size = (lr / correction(beta1)) as f32;
        let root = correction(beta2).sqrt() as f32;
        let (of_gradient, of_square) = ((1.0 - beta1) as f32, (1.0 - beta2) as f32);
        let (beta2, eps) = (beta2 as f32, eps as f32);
        for (((p, m), v), &g) in self.p.iter_mut().zip(self.m).zip(self.v).zip(self.g) {
            *m += of_gradient * (g - *m);
            *v = beta2 * *v + of_square * g * g;
            *p = keep * *p - size * (*m / (v.sqrt() / root + eps));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guarded, LENGTHS, assert_close, each_isa, normals, same_on_any_threads};
    use super::*;

    fn to_f64(x: &[f32]) -> Vec<f64> {
        x.iter().map(|&x| x.into()).collect()
    }

    #[test]
    fn sgd_takes_the_steps_of_its_formula() {
        for isa in each_isa() {
            for n in LENGTHS {
                for (momentum, dampening, nesterov) in
                    [(0.0, 0.0, false), (0.9, 0.0, false), (0.9, 0.0, true), (0.8, 0.3, false)]
                {
                    let mut p = Guarded::from(&normals(n, 1));
                    let mut v = Guarded::new(n);
                    let (mut wanted, mut velocity) = (to_f64(&p), vec![0.0; n]);
                    for t in 0..3 {
                        let gradient = normals(n, 10 + t);
                        let first = t == 0;
                        let step =
                            SgdStep { lr: 0.1, momentum, dampening, nesterov, weight_decay: 0.01, first };
                        let state = (momentum > 0.0).then_some(&mut v[..]);
                        sgd(isa, step, &mut p, &gradient, state);
                        for i in 0..n {
                            let g = f64::from(gradient[i]) + 0.01 * wanted[i];
                            velocity[i] =
                                if first { g } else { momentum * velocity[i] + (1.0 - dampening) * g };
                            let nesterov_step = g + momentum * velocity[i];
                            wanted[i] -= 0.1 * if nesterov { nesterov_step } else { velocity[i] };
                        }
                    }
                    assert_close(&p, &wanted, 1e-6, "parameter");
                    if momentum > 0.0 {
                        assert_close(&v, &velocity, 1e-6, "velocity");
                    }
                }
            }
        }
    }

    #[test]
    fn adamw_takes_the_steps_of_its_formula() {
        let (lr, beta1, beta2, eps, weight_decay) = (0.01, 0.9, 0.999, 1e-8, 0.1);
        for isa in each_isa() {
            for n in LENGTHS {
                let mut p = Guarded::from(&normals(n, 1));
                let (mut m, mut v) = (Guarded::from(&vec![0.0; n]), Guarded::from(&vec![0.0; n]));
                let (mut wanted, mut mean, mut square) = (to_f64(&p), vec![0.0; n], vec![0.0; n]);
                for step in 1..=5 {
                    let gradient = normals(n, 10 + step);
                    let hyperparameters = AdamWStep { lr, beta1, beta2, eps, weight_decay, step };
                    adamw(isa, hyperparameters, &mut p, &gradient, &mut m, &mut v);
                    for i in 0..n {
                        let g = f64::from(gradient[i]);
                        wanted[i] -= lr * weight_decay * wanted[i];
                        mean[i] = beta1 * mean[i] + (1.0 - beta1) * g;
                        square[i] = beta2 * square[i] + (1.0 - beta2) * g * g;
                        let corrected = |x: f64, beta: f64| x / (1.0 - beta.powi(step as i32));
                        wanted[i] -=
                            lr * corrected(mean[i], beta1) / (corrected(square[i], beta2).sqrt() + eps);
                    }
                }
                assert_close(&p, &wanted, 1e-6, "parameter");
                assert_close(&m, &mean, 1e-6, "mean");
                assert_close(&v, &square, 1e-6, "square");
            }
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let n = 3 * PIECE + 7;
        let gradient = normals(n, 2);
        same_on_any_threads(|| {
            let (mut p, mut m, mut v) = (normals(n, 1), vec![0.0; n], vec![0.0; n]);
            let step = AdamWStep { lr: 0.1, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0, step: 1 };
            adamw(Isa::active(), step, &mut p, &gradient, &mut m, &mut v);
            [p, m, v].concat()
        });
    }
}
