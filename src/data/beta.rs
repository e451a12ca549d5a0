//! The beta distribution of the weights of mixed images.

use crate::{Error, Result, Rng};

/// Returns a number of the distribution Beta(alpha, alpha), in [0, 1].
pub(super) fn beta(alpha: f32, rng: &mut Rng) -> f64 {
    let [a, b] = [0, 1].map(|_| log_gamma_variate(f64::from(alpha), rng));
    // As a logistic function of the logarithms: for a small alpha, both variates may underflow.
    1.0 / (1.0 + (b - a).exp())
}

/// Returns the logarithm of a number of the distribution Gamma(shape, 1) (Marsaglia and Tsang 2000,
/// "A simple method for generating gamma variables"). A shape below 1 is reached from one more, by
/// a power of a uniform number.
fn log_gamma_variate(shape: f64, rng: &mut Rng) -> f64 {
    let uniform = |rng: &mut Rng| ((rng.bits() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    let boost = if shape < 1.0 { uniform(rng).ln() / shape } else { 0.0 };
    let d = if shape < 1.0 { shape + 1.0 } else { shape } - 1.0 / 3.0;
    loop {
        let x = f64::from(rng.normal());
        let v = (1.0 + x / (9.0 * d).sqrt()).powi(3);
        if v > 0.0 && uniform(rng).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return (d * v).ln() + boost;
        }
    }
}

/// Checks the parameters of a beta distribution.
pub(super) fn check_alpha(op: &'static str, alpha: f32) -> Result<()> {
    if alpha > 0.0 && alpha.is_finite() {
        return Ok(());
    }
    Err(Error::argument(op, "alpha", "a finite number above 0", alpha))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_those_of_the_distribution() {
        for alpha in [0.1, 0.2, 0.8, 1.0, 2.5] {
            let mut rng = Rng::seed(3);
            let n = 40_000;
            let numbers: Vec<f64> = (0..n).map(|_| beta(alpha, &mut rng)).collect();
            assert!(numbers.iter().all(|x| (0.0..=1.0).contains(x)));
            let mean = numbers.iter().sum::<f64>() / f64::from(n);
            let variance = numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n);
            let expected = 0.25 / (2.0 * f64::from(alpha) + 1.0);
            assert!((mean - 0.5).abs() < 0.01 && (variance / expected - 1.0).abs() < 0.03, "{alpha}");
        }
    }

    #[test]
    fn a_tiny_alpha_gives_0_or_1() {
        let mut rng = Rng::seed(4);
        let numbers: Vec<f64> = (0..200).map(|_| beta(1e-6, &mut rng)).collect();
        assert!(numbers.iter().all(|&x| x.min(1.0 - x) < 1e-9));
        assert!((70..130).contains(&numbers.iter().filter(|&&x| x > 0.5).count()));
    }

    #[test]
    fn parameters_out_of_range_are_errors() {
        let error = |alpha| check_alpha("mixup", alpha).unwrap_err().to_string();
        assert_eq!(error(0.0), "mixup: alpha: expected a finite number above 0, found 0");
        assert!(error(f32::NAN).contains("NaN") && error(f32::INFINITY).contains("inf"));
    }
}
