//! The fully connected layer.

use super::{
    Module,
    init::{kaiming_linear, uniform_fan_in},
};
use crate::{
    Error, Result, Rng, Tensor,
    autograd::{Param, State, Var},
};

/// A linear map of `[N, in]` to `[N, out]`, with a bias unless it is built without; see
/// [`Var::linear`].
///
/// Its state is `weight` (`[in, out]` in memory, `[out, in]` in files) and `bias`.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::Tape, nn::{Linear, Module}};
/// let mut linear = Linear::builder(2, 3).bias(false).build(&mut Rng::seed(0))?;
/// linear.weight.value_mut().data_mut().copy_from_slice(&[1.0, 2.0, 3.0, 10.0, 20.0, 30.0]);
/// let tape = Tape::eval();
/// let y = linear.forward(&tape.input(Tensor::new([1, 2], vec![1.0, -1.0])?))?;
/// assert_eq!(y.value().data(), [-9.0, -18.0, -27.0]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug, State)]
pub struct Linear {
    /// The weight, `[in, out]`.
    pub weight: Param,
    /// The bias, `[out]`, if the layer has one.
    pub bias: Option<Param>,
}

impl Linear {
    /// Makes a layer with a bias; weight and bias are uniform in `±1 / sqrt(in)`, as PyTorch's
    /// default.
    ///
    /// # Errors
    /// As [`LinearBuilder::build`].
    pub fn new(in_features: usize, out_features: usize, rng: &mut Rng) -> Result<Linear> {
        Linear::builder(in_features, out_features).build(rng)
    }

    /// Begins a layer with settings other than those of [`Linear::new`].
    pub fn builder(in_features: usize, out_features: usize) -> LinearBuilder {
        LinearBuilder { in_features, out_features, bias: true, kaiming: false }
    }

    /// Returns the number of input features.
    pub fn in_features(&self) -> usize {
        self.weight.value().shape()[0]
    }

    /// Returns the number of output features: the classes of a classifier.
    pub fn out_features(&self) -> usize {
        self.weight.value().shape().num_channels()
    }
}

impl Module for Linear {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let tape = x.tape();
        tape.enter(self, || {
            let bias = self.bias.as_ref().map(|bias| tape.param(bias));
            x.linear(&tape.param(&self.weight), bias.as_ref())
        })
    }
}

/// The settings of a [`Linear`] layer; see [`Linear::builder`].
#[derive(Clone, Debug)]
#[must_use = "`build` makes the layer"]
pub struct LinearBuilder {
    in_features: usize,
    out_features: usize,
    bias: bool,
    kaiming: bool,
}

impl LinearBuilder {
    /// Sets whether the layer has a bias; it has by default.
    pub fn bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }

    /// Makes the weight normal with variance `2 / in` (He et al. 2015, "Delving deep into
    /// rectifiers") and the bias zero.
    pub fn kaiming_normal(mut self) -> Self {
        self.kaiming = true;
        self
    }

    /// Makes the layer.
    ///
    /// # Errors
    /// [`Error::Argument`] if a number of features is zero or their product overflows.
    pub fn build(self, rng: &mut Rng) -> Result<Linear> {
        let LinearBuilder { in_features, out_features, bias, kaiming } = self;
        let sizes = [in_features, out_features];
        if sizes.contains(&0) {
            let expected = "positive numbers of inputs and outputs";
            return Err(Error::argument("linear", "sizes", expected, format_args!("{sizes:?}")));
        }
        let (weight, bias) = match kaiming {
            true => (kaiming_linear(sizes, rng)?, bias.then(|| Tensor::zeros([out_features]))),
            false => (
                uniform_fan_in(&sizes, in_features, rng)?,
                bias.then(|| uniform_fan_in(&[out_features], in_features, rng)),
            ),
        };
        Ok(Linear { weight: Param::linear(weight), bias: bias.transpose()?.map(Param::new) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_classes_is_an_error() {
        let error = Linear::new(4, 0, &mut Rng::seed(0)).unwrap_err().to_string();
        assert_eq!(error, "linear: sizes: expected positive numbers of inputs and outputs, found [4, 0]");
        assert!(Linear::builder(0, 4).kaiming_normal().build(&mut Rng::seed(0)).is_err());
    }

    #[test]
    fn the_two_initializations() {
        let linear = Linear::new(100, 50, &mut Rng::seed(0)).unwrap();
        let bias = linear.bias.as_ref().unwrap().value().data();
        assert!(linear.weight.value().data().iter().chain(bias).all(|w| w.abs() <= 0.1));
        let kaiming = Linear::builder(100, 50).kaiming_normal().build(&mut Rng::seed(0)).unwrap();
        let largest = kaiming.weight.value().data().iter().fold(0f32, |m, w| m.max(w.abs()));
        assert!(largest > 0.3, "a normal distribution with deviation 0.14 has tails: {largest}");
        assert!(kaiming.bias.as_ref().unwrap().value().data().iter().all(|&b| b == 0.0));
        assert_eq!([kaiming.in_features(), kaiming.out_features()], [100, 50]);
    }

    #[test]
    fn a_layer_without_a_bias_has_one_parameter() {
        let linear = Linear::builder(3, 2).bias(false).build(&mut Rng::seed(0)).unwrap();
        assert_eq!(linear.export().into_keys().collect::<Vec<_>>(), ["weight"]);
    }
}
