//! Initial weights.

use crate::{Error, Result, Rng, Tensor};

/// The side of a layer that Kaiming's initialization keeps at variance 1 (He et al. 2015, "Delving
/// deep into rectifiers").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fan {
    /// The activations of the forward pass (equation 10): the number of inputs that an output sums.
    In,
    /// The gradients of the backward pass (equation 14): the number of outputs that an input
    /// reaches at stride 1.
    #[default]
    Out,
}

/// Returns a convolution's weight `[KH, KW, C/groups, OC]`, normal with mean 0 and variance `2 /
/// fan`.
///
/// The fan is `KH * KW * C/groups` for [`Fan::In`] and `KH * KW * OC` for [`Fan::Out`], as in
/// PyTorch's `kaiming_normal_`.
///
/// # Errors
/// [`Error::Argument`] if an axis is zero or the shape overflows.
///
/// ```
/// use skipgrad::{Rng, nn::init::{Fan, kaiming_conv}};
/// let weight = kaiming_conv([3, 3, 64, 64], Fan::Out, &mut Rng::seed(0))?;
/// let mean_square = weight.data().iter().map(|w| w * w).sum::<f32>() / weight.data().len() as f32;
/// assert!((mean_square * 576.0 / 2.0 - 1.0).abs() < 0.03);
/// # Ok::<(), skipgrad::Error>(())
/// ```
pub fn kaiming_conv(shape: [usize; 4], fan: Fan, rng: &mut Rng) -> Result<Tensor> {
    let [height, width, inputs, outputs] = shape;
    let channels = match fan {
        Fan::In => inputs,
        Fan::Out => outputs,
    };
    expect_not_empty("kaiming_conv", &shape)?;
    Tensor::normal(shape, gain(height.saturating_mul(width).saturating_mul(channels)), rng)
}

/// Returns a linear layer's weight `[in, out]`, normal with mean 0 and variance `2 / in`.
///
/// # Errors
/// As [`kaiming_conv`].
pub fn kaiming_linear(shape: [usize; 2], rng: &mut Rng) -> Result<Tensor> {
    expect_not_empty("kaiming_linear", &shape)?;
    Tensor::normal(shape, gain(shape[0]), rng)
}

/// Returns a tensor that is uniform in `±1 / sqrt(fan_in)`, as PyTorch's linear layers begin.
///
/// # Errors
/// [`Error::Argument`] if `fan_in` or an axis is zero, or the shape overflows.
pub fn uniform_fan_in(shape: &[usize], fan_in: usize, rng: &mut Rng) -> Result<Tensor> {
    expect_not_empty("uniform_fan_in", shape)?;
    expect_not_empty("uniform_fan_in", &[fan_in])?;
    let bound = 1.0 / (fan_in as f32).sqrt();
    Tensor::uniform(shape, -bound, bound, rng)
}

/// Returns the standard deviation that makes up for a ReLU, which halves the variance.
fn gain(fan: usize) -> f32 {
    (2.0 / fan as f32).sqrt()
}

fn expect_not_empty(op: &'static str, shape: &[usize]) -> Result<()> {
    if shape.contains(&0) {
        return Err(Error::argument(op, "shape", "positive sizes", format_args!("{shape:?}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(weight: &Tensor) -> f32 {
        (weight.data().iter().map(|w| w * w).sum::<f32>() / weight.data().len() as f32).sqrt()
    }

    #[test]
    fn the_side_decides_the_variance() {
        let mut rng = Rng::seed(3);
        let forward = kaiming_conv([3, 3, 32, 128], Fan::In, &mut rng).unwrap();
        let back = kaiming_conv([3, 3, 32, 128], Fan::Out, &mut rng).unwrap();
        assert!((spread(&forward) / spread(&back) - 2.0).abs() < 0.03);
        let linear = kaiming_linear([200, 100], &mut rng).unwrap();
        assert!((spread(&linear) - 0.1).abs() < 0.002);
    }

    #[test]
    fn the_uniform_bound_is_pytorchs() {
        let weight = uniform_fan_in(&[64, 100], 64, &mut Rng::seed(1)).unwrap();
        assert!(weight.data().iter().all(|w| w.abs() <= 0.125));
        assert!((spread(&weight) - 0.125 / 3f32.sqrt()).abs() < 0.002);
    }

    #[test]
    fn empty_weights_are_refused() {
        let error = kaiming_conv([3, 3, 0, 4], Fan::Out, &mut Rng::seed(0)).unwrap_err();
        assert_eq!(error.to_string(), "kaiming_conv: shape: expected positive sizes, found [3, 3, 0, 4]");
        assert!(uniform_fan_in(&[2], 0, &mut Rng::seed(0)).is_err());
    }
}
