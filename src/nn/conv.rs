//! The convolution with its weight.

use super::{
    Module,
    init::{Fan, kaiming_conv},
};
use crate::{
    Error, Result, Rng, Tensor,
    autograd::{Param, Tape, Var},
    ops::{Conv2dOptions, Moments, Padding},
    state,
};

pub use crate::ops::Pair;

/// A convolution of `[N, H, W, C]` to `[N, H', W', OC]`: see [`Var::conv2d`].
///
/// State: `weight` and, if asked for, `bias`.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::{State, Tape}, nn::{Conv2d, Module}};
/// let conv = Conv2d::builder(3, 64, 7).stride(2).padding(3).build(&mut Rng::seed(0))?;
/// let tape = Tape::eval();
/// let y = conv.forward(&tape.input(Tensor::zeros([1, 32, 30, 3])?))?;
/// assert_eq!(y.shape(), [1, 16, 15, 64]);
/// assert_eq!(conv.export()["weight"].shape(), [64, 3, 7, 7]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Conv2d {
    /// `[KH, KW, C/groups, OC]`.
    pub weight: Param,
    /// `[OC]`.
    pub bias: Option<Param>,
    /// Stride, padding, dilation, groups.
    pub options: Conv2dOptions,
}
state!(Conv2d { weight, bias });

impl Conv2d {
    /// Begins a convolution from `inputs` to `outputs` channels with a kernel of this size (`3`, or `[3, 1]`): stride 1,
    /// no padding, no dilation, one group, no bias, Kaiming-normal weights by fan-out.
    pub fn builder(inputs: usize, outputs: usize, kernel: impl Into<Pair>) -> Conv2dBuilder {
        Conv2dBuilder {
            inputs,
            outputs,
            kernel: kernel.into(),
            options: Conv2dOptions::default(),
            bias: false,
            fan: Fan::default(),
        }
    }

    /// The number of input channels.
    pub fn inputs(&self) -> usize {
        self.weight.value().shape()[2] * self.options.groups
    }

    /// The number of output channels.
    pub fn outputs(&self) -> usize {
        self.weight.value().shape().num_channels()
    }
}

impl Conv2d {
    /// [`Module::forward`], and the moments of each channel of the result; see [`Var::conv2d_moments`].
    ///
    /// # Errors
    /// As [`Module::forward`].
    pub fn forward_moments<'t>(&self, x: &Var<'t>) -> Result<(Var<'t>, Moments)> {
        let (weight, bias) = self.variables(x.tape());
        x.conv2d_moments(&weight, bias.as_ref(), &self.options)
    }

    fn variables<'t>(&self, tape: &'t Tape) -> (Var<'t>, Option<Var<'t>>) {
        (tape.param(&self.weight), self.bias.as_ref().map(|bias| tape.param(bias)))
    }
}

impl Module for Conv2d {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let (weight, bias) = self.variables(x.tape());
        x.conv2d(&weight, bias.as_ref(), &self.options)
    }
}

/// A 3x3 convolution that keeps the size at stride 1: padding 1.
pub fn conv3x3(inputs: usize, outputs: usize) -> Conv2dBuilder {
    Conv2d::builder(inputs, outputs, 3).padding(1)
}

/// A 1x1 convolution.
pub fn conv1x1(inputs: usize, outputs: usize) -> Conv2dBuilder {
    Conv2d::builder(inputs, outputs, 1)
}

/// A convolution to be: see [`Conv2d::builder`].
#[derive(Clone, Debug)]
#[must_use = "`build` makes the convolution"]
pub struct Conv2dBuilder {
    inputs: usize,
    outputs: usize,
    kernel: Pair,
    options: Conv2dOptions,
    bias: bool,
    fan: Fan,
}

impl Conv2dBuilder {
    /// Steps of the window in pixels.
    pub fn stride(mut self, stride: impl Into<Pair>) -> Self {
        self.options.stride = stride.into().0;
        self
    }

    /// Zero pixels on both sides.
    pub fn padding(self, padding: impl Into<Pair>) -> Self {
        self.pad(Padding::Zeros(padding.into().0))
    }

    /// Any padding: each side on its own, or `Same`.
    pub fn pad(mut self, padding: Padding) -> Self {
        self.options.padding = padding;
        self
    }

    /// Distance in pixels between the kernel's taps.
    pub fn dilation(mut self, dilation: impl Into<Pair>) -> Self {
        self.options.dilation = dilation.into().0;
        self
    }

    /// Splits inputs and outputs into groups that do not see each other.
    pub fn groups(mut self, groups: usize) -> Self {
        self.options.groups = groups;
        self
    }

    /// Adds a bias, which begins at zero.
    pub fn with_bias(mut self) -> Self {
        self.bias = true;
        self
    }

    /// Which side the initialization keeps at variance 1.
    pub fn fan(mut self, fan: Fan) -> Self {
        self.fan = fan;
        self
    }

    /// Makes the convolution.
    ///
    /// # Errors
    /// [`Error::Argument`] if a number is zero that may not be, or the groups do not divide both numbers of channels.
    pub fn build(self, rng: &mut Rng) -> Result<Conv2d> {
        let Conv2dBuilder { inputs, outputs, kernel: Pair(kernel), options, bias, fan } = self;
        let positive = |argument, numbers: [usize; 2]| match numbers.contains(&0) {
            true => Err(Error::argument("conv2d", argument, "positive numbers", format_args!("{numbers:?}"))),
            false => Ok(()),
        };
        positive("channels", [inputs, outputs])?;
        positive("kernel", kernel)?;
        positive("stride", options.stride)?;
        positive("dilation", options.dilation)?;
        let groups = options.groups;
        if groups == 0 || inputs % groups != 0 || outputs % groups != 0 {
            let expected = format!("a divisor of {inputs} and {outputs}");
            return Err(Error::argument("conv2d", "groups", expected, groups));
        }
        let shape = [kernel[0], kernel[1], inputs / groups, outputs];
        Ok(Conv2d {
            weight: Param::conv(kaiming_conv(shape, fan, rng)?),
            bias: bias.then(|| Tensor::zeros([outputs])).transpose()?.map(Param::new),
            options,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::State;

    #[test]
    fn each_setting_arrives() {
        let conv = Conv2d::builder(4, 6, [3, 1])
            .stride([2, 1])
            .padding([1, 0])
            .dilation([1, 2])
            .groups(2)
            .with_bias()
            .build(&mut Rng::seed(0))
            .unwrap();
        assert_eq!(conv.weight.value().shape(), [3, 1, 2, 6]);
        assert_eq!(conv.num_parameters(), 3 * 2 * 6 + 6);
        assert_eq!((conv.inputs(), conv.outputs()), (4, 6));
        let tape = Tape::eval();
        let y = conv.forward(&tape.input(Tensor::zeros([2, 5, 5, 4]).unwrap())).unwrap();
        assert_eq!(y.shape(), [2, 3, 5, 6]);
    }

    #[test]
    fn absurd_settings_are_refused_at_once() {
        let error = |builder: Conv2dBuilder| builder.build(&mut Rng::seed(0)).unwrap_err().to_string();
        assert_eq!(error(conv3x3(0, 4)), "conv2d: channels: expected positive numbers, found [0, 4]");
        assert_eq!(error(conv3x3(3, 4).groups(2)), "conv2d: groups: expected a divisor of 3 and 4, found 2");
        for builder in [
            Conv2d::builder(3, 4, 0),
            conv1x1(3, 4).stride(0),
            conv1x1(3, 4).dilation([1, 0]),
            conv1x1(3, 4).groups(0),
            Conv2d::builder(usize::MAX, 2, 3),
        ] {
            assert!(builder.clone().build(&mut Rng::seed(0)).is_err(), "{builder:?}");
        }
    }
}
