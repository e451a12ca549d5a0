//! The fully connected layer.

use super::{
    Module,
    init::{kaiming_linear, uniform_fan_in},
};
use crate::{
    Error, Result, Rng, Tensor,
    autograd::{Param, Var},
    state,
};

/// A linear map of `[N, in]` to `[N, out]`, with a bias: see [`Var::linear`].
///
/// State: `weight` (`[in, out]` in memory, `[out, in]` in files) and `bias`.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::Tape, nn::{Linear, Module}};
/// let mut linear = Linear::new(2, 3, &mut Rng::seed(0))?;
/// linear.weight.value_mut().data_mut().copy_from_slice(&[1.0, 2.0, 3.0, 10.0, 20.0, 30.0]);
/// linear.bias.value_mut().data_mut().fill(0.5);
/// let tape = Tape::eval();
/// let y = linear.forward(&tape.input(Tensor::new([1, 2], [1.0, -1.0])?))?;
/// assert_eq!(y.value().data(), [-8.5, -17.5, -26.5]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Linear {
    /// `[in, out]`.
    pub weight: Param,
    /// `[out]`.
    pub bias: Param,
}
state!(Linear { weight, bias });

impl Linear {
    /// Weight and bias uniform in `±1 / sqrt(in)`, as PyTorch's default.
    ///
    /// # Errors
    /// [`Error::Argument`] if a number is zero or their product absurd.
    pub fn new(inputs: usize, outputs: usize, rng: &mut Rng) -> Result<Linear> {
        positive([inputs, outputs])?;
        Ok(Linear {
            weight: Param::linear(uniform_fan_in(&[inputs, outputs], inputs, rng)?),
            bias: Param::new(uniform_fan_in(&[outputs], inputs, rng)?),
        })
    }

    /// Weight normal with variance `2 / in` (Kaiming), bias zero.
    ///
    /// # Errors
    /// As [`Linear::new`].
    pub fn kaiming(inputs: usize, outputs: usize, rng: &mut Rng) -> Result<Linear> {
        positive([inputs, outputs])?;
        Ok(Linear {
            weight: Param::linear(kaiming_linear([inputs, outputs], rng)?),
            bias: Param::new(Tensor::zeros([outputs])?),
        })
    }

    /// The number of outputs: the classes of a classifier.
    pub fn outputs(&self) -> usize {
        self.bias.value().shape().num_channels()
    }
}

fn positive(sizes: [usize; 2]) -> Result<()> {
    if sizes.contains(&0) {
        let expected = "positive numbers of inputs and outputs";
        return Err(Error::argument("linear", "sizes", expected, format_args!("{sizes:?}")));
    }
    Ok(())
}

impl Module for Linear {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let tape = x.tape();
        x.linear(&tape.param(&self.weight), Some(&tape.param(&self.bias)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_classes_is_an_error() {
        let error = Linear::new(4, 0, &mut Rng::seed(0)).unwrap_err().to_string();
        assert_eq!(error, "linear: sizes: expected positive numbers of inputs and outputs, found [4, 0]");
        assert!(Linear::kaiming(0, 4, &mut Rng::seed(0)).is_err());
    }

    #[test]
    fn the_two_beginnings() {
        let linear = Linear::new(100, 50, &mut Rng::seed(0)).unwrap();
        assert!(
            linear.weight.value().data().iter().chain(linear.bias.value().data()).all(|w| w.abs() <= 0.1)
        );
        let kaiming = Linear::kaiming(100, 50, &mut Rng::seed(0)).unwrap();
        let largest = kaiming.weight.value().data().iter().fold(0f32, |m, w| m.max(w.abs()));
        assert!(largest > 0.3, "a normal distribution with deviation 0.14 has tails: {largest}");
        assert!(kaiming.bias.value().data().iter().all(|&b| b == 0.0));
        assert_eq!(kaiming.outputs(), 50);
    }
}
