//! The convolution with its weight.

use super::{
    Module,
    init::{Fan, kaiming_conv},
};
use crate::{
    Error, Result, Rng, Tensor,
    autograd::{Param, State, Tape, Var},
    ops::{Conv2dOptions, Moments, Padding},
};

pub use crate::ops::Pair;

/// A convolution of `[N, H, W, C]` to `[N, H', W', OC]`; see [`Var::conv2d`].
///
/// Its state is `weight` and, if it is built with one, `bias`.
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
#[derive(Clone, Debug, State)]
pub struct Conv2d {
    /// The weight, `[KH, KW, C/groups, OC]`.
    pub weight: Param,
    /// The bias, `[OC]`, if the layer has one.
    pub bias: Option<Param>,
    /// Stride, padding, dilation, groups and algorithm.
    #[state(skip)]
    pub options: Conv2dOptions,
}

impl Conv2d {
    /// Makes a convolution with a kernel of this size (`3`, or `[3, 1]`) and the default settings:
    /// see [`Conv2d::builder`].
    ///
    /// # Errors
    /// As [`Conv2dBuilder::build`].
    pub fn new(
        in_channels: usize,
        out_channels: usize,
        kernel: impl Into<Pair>,
        rng: &mut Rng,
    ) -> Result<Conv2d> {
        Conv2d::builder(in_channels, out_channels, kernel).build(rng)
    }

    /// Begins a convolution with a kernel of this size (`3`, or `[3, 1]`). The defaults are stride
    /// 1, no padding, no dilation, one group, no bias, and Kaiming-normal weights by fan-out.
    pub fn builder(in_channels: usize, out_channels: usize, kernel: impl Into<Pair>) -> Conv2dBuilder {
        Conv2dBuilder {
            in_channels,
            out_channels,
            kernel: kernel.into(),
            options: Conv2dOptions::default(),
            bias: false,
            fan: Fan::default(),
        }
    }

    /// Returns the number of input channels.
    pub fn in_channels(&self) -> usize {
        self.weight.value().shape()[2] * self.options.groups
    }

    /// Returns the number of output channels.
    pub fn out_channels(&self) -> usize {
        self.weight.value().shape().num_channels()
    }

    /// Returns the output of [`Module::forward`], and the moments of each of its channels; see
    /// [`Var::conv2d_moments`].
    ///
    /// # Errors
    /// As [`Module::forward`].
    pub fn forward_moments<'t>(&self, x: &Var<'t>) -> Result<(Var<'t>, Moments)> {
        let tape = x.tape();
        tape.enter(self, || {
            let (weight, bias) = self.variables(tape);
            x.conv2d_moments(&weight, bias.as_ref(), &self.options)
        })
    }

    fn variables<'t>(&self, tape: &'t Tape) -> (Var<'t>, Option<Var<'t>>) {
        (tape.param(&self.weight), self.bias.as_ref().map(|bias| tape.param(bias)))
    }
}

impl Module for Conv2d {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let tape = x.tape();
        tape.enter(self, || {
            let (weight, bias) = self.variables(tape);
            x.conv2d(&weight, bias.as_ref(), &self.options)
        })
    }
}

/// Begins a 3x3 convolution that keeps the size at stride 1: its padding is 1.
pub fn conv3x3(in_channels: usize, out_channels: usize) -> Conv2dBuilder {
    Conv2d::builder(in_channels, out_channels, 3).padding(1)
}

/// Begins a 1x1 convolution.
pub fn conv1x1(in_channels: usize, out_channels: usize) -> Conv2dBuilder {
    Conv2d::builder(in_channels, out_channels, 1)
}

/// The settings of a [`Conv2d`]; see [`Conv2d::builder`].
#[derive(Clone, Debug)]
#[must_use = "`build` makes the convolution"]
pub struct Conv2dBuilder {
    in_channels: usize,
    out_channels: usize,
    kernel: Pair,
    options: Conv2dOptions,
    bias: bool,
    fan: Fan,
}

impl Conv2dBuilder {
    /// Sets the steps of the window, in pixels.
    pub fn stride(mut self, stride: impl Into<Pair>) -> Self {
        self.options.stride = stride.into().0;
        self
    }

    /// Sets the padding: `1` or `[1, 0]` zero pixels on both sides of rows and columns, or any
    /// [`Padding`].
    pub fn padding(mut self, padding: impl Into<Padding>) -> Self {
        self.options.padding = padding.into();
        self
    }

    /// Sets the distance between the kernel's taps, in pixels.
    pub fn dilation(mut self, dilation: impl Into<Pair>) -> Self {
        self.options.dilation = dilation.into().0;
        self
    }

    /// Sets the number of groups of channels; outputs see the inputs of their own group only.
    pub fn groups(mut self, groups: usize) -> Self {
        self.options.groups = groups;
        self
    }

    /// Sets whether the convolution has a bias, which begins at zero; it has none by default.
    pub fn bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }

    /// Sets which side the initialization keeps at variance 1.
    pub fn fan(mut self, fan: Fan) -> Self {
        self.fan = fan;
        self
    }

    /// Makes the convolution.
    ///
    /// # Errors
    /// [`Error::Argument`] if channels, kernel, stride, dilation or groups are zero, or the groups
    /// do not divide both numbers of channels.
    pub fn build(self, rng: &mut Rng) -> Result<Conv2d> {
        let Conv2dBuilder { in_channels, out_channels, kernel: Pair(kernel), options, bias, fan } = self;
        let positive = |argument, numbers: [usize; 2]| match numbers.contains(&0) {
            true => Err(Error::argument("conv2d", argument, "positive numbers", format_args!("{numbers:?}"))),
            false => Ok(()),
        };
        positive("channels", [in_channels, out_channels])?;
        positive("kernel", kernel)?;
        positive("stride", options.stride)?;
        positive("dilation", options.dilation)?;
        let groups = options.groups;
        if groups == 0 || in_channels % groups != 0 || out_channels % groups != 0 {
            let expected = format!("a divisor of {in_channels} and {out_channels}");
            return Err(Error::argument("conv2d", "groups", expected, groups));
        }
        let shape = [kernel[0], kernel[1], in_channels / groups, out_channels];
        Ok(Conv2d {
            weight: Param::conv(kaiming_conv(shape, fan, rng)?),
            bias: bias.then(|| Tensor::zeros([out_channels])).transpose()?.map(Param::new),
            options,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_arrives() {
        let conv = Conv2d::builder(4, 6, [3, 1])
            .stride([2, 1])
            .padding([1, 0])
            .dilation([1, 2])
            .groups(2)
            .bias(true)
            .build(&mut Rng::seed(0))
            .unwrap();
        assert_eq!(conv.weight.value().shape(), [3, 1, 2, 6]);
        assert_eq!(conv.num_parameters(), 3 * 2 * 6 + 6);
        assert_eq!((conv.in_channels(), conv.out_channels()), (4, 6));
        let tape = Tape::eval();
        let y = conv.forward(&tape.input(Tensor::zeros([2, 5, 5, 4]).unwrap())).unwrap();
        assert_eq!(y.shape(), [2, 3, 5, 6]);
    }

    #[test]
    fn impossible_settings_are_rejected() {
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
