//! Where a network begins.

use super::ConvNorm;
use crate::{
    At, Result, Rng,
    autograd::{Slot, SlotMut, State, Var, join},
    nn::{BatchNorm2d, Conv2d, MaxPool2d, Module, conv3x3, init::Fan},
};

/// Which stem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StemKind {
    /// 7x7 convolution of stride 2, BN, ReLU, 3x3 max-pooling of stride 2: a quarter of the edge (He et al. 2015, table 1;
    /// Huang et al. 2017, table 1).
    ImageNet,
    /// 3x3 convolution, BN, ReLU: the edge stays (He et al. 2015, section 4.2).
    Cifar,
    /// 3x3 convolution and nothing else: a dense layer begins with its own BN and ReLU (Huang et al. 2017, section 4.2).
    Bare,
}

/// The first layers of a network, from `[N, H, W, channels]` to `[N, H', W', width]`.
///
/// State: the convolution and, except in a bare stem, the norm, under two names that are its own to choose; `conv` and
/// `norm` if nothing is said.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::Tape, blocks::Stem, nn::Module};
/// let mut rng = Rng::seed(0);
/// let tape = Tape::eval();
/// let x = tape.input(Tensor::zeros([1, 32, 32, 3])?);
/// assert_eq!(Stem::imagenet(3, 64).build(&mut rng)?.forward(&x)?.shape()[..], [1, 8, 8, 64]);
/// assert_eq!(Stem::cifar(3, 16).build(&mut rng)?.forward(&x)?.shape()[..], [1, 32, 32, 16]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Stem {
    /// The convolution, and perhaps a norm.
    pub layer: StemLayer,
    /// The pooling.
    pub pool: Option<MaxPool2d>,
}

/// What a stem begins with.
#[derive(Clone, Debug)]
pub enum StemLayer {
    /// A convolution, and its name.
    Conv(Box<Conv2d>, &'static str),
    /// A convolution and a norm, which a ReLU follows.
    ConvNorm(Box<ConvNorm>),
}

impl Stem {
    /// Begins a [`StemKind::ImageNet`].
    pub fn imagenet(channels: usize, width: usize) -> StemBuilder {
        StemBuilder::new(StemKind::ImageNet, channels, width)
    }

    /// Begins a [`StemKind::Cifar`].
    pub fn cifar(channels: usize, width: usize) -> StemBuilder {
        StemBuilder::new(StemKind::Cifar, channels, width)
    }

    /// Begins a [`StemKind::Bare`].
    pub fn bare(channels: usize, width: usize) -> StemBuilder {
        StemBuilder::new(StemKind::Bare, channels, width)
    }

    /// The convolution, to be changed.
    pub fn conv_mut(&mut self) -> &mut Conv2d {
        match &mut self.layer {
            StemLayer::Conv(conv, _) => conv,
            StemLayer::ConvNorm(layer) => &mut layer.conv,
        }
    }

    /// The norm, to be changed, if there is one.
    pub fn norm_mut(&mut self) -> Option<&mut BatchNorm2d> {
        match &mut self.layer {
            StemLayer::Conv(..) => None,
            StemLayer::ConvNorm(layer) => Some(&mut layer.norm),
        }
    }
}

impl Module for Stem {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let y = match &self.layer {
            StemLayer::Conv(conv, name) => conv.forward(x).at(*name)?,
            StemLayer::ConvNorm(layer) => layer.relu(x)?,
        };
        match &self.pool {
            Some(pool) => pool.forward(&y).at("maxpool"),
            None => Ok(y),
        }
    }
}

impl State for Stem {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, Slot<'_>)) {
        match &self.layer {
            StemLayer::Conv(conv, name) => conv.visit(&join(path, name), f),
            StemLayer::ConvNorm(layer) => layer.visit(path, f),
        }
    }
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, SlotMut<'_>)) {
        match &mut self.layer {
            StemLayer::Conv(conv, name) => conv.visit_mut(&join(path, name), f),
            StemLayer::ConvNorm(layer) => layer.visit_mut(path, f),
        }
    }
}

/// A stem to be: see [`Stem`].
#[derive(Clone, Debug)]
#[must_use = "`build` makes the stem"]
pub struct StemBuilder {
    kind: StemKind,
    channels: usize,
    width: usize,
    names: [&'static str; 2],
    fan: Fan,
}

impl StemBuilder {
    /// A stem of this kind for images of `channels` channels, to maps of `width`.
    pub fn new(kind: StemKind, channels: usize, width: usize) -> StemBuilder {
        StemBuilder { kind, channels, width, names: ["conv", "norm"], fan: Fan::default() }
    }

    /// The names of convolution and norm.
    pub fn named(mut self, conv: &'static str, norm: &'static str) -> Self {
        self.names = [conv, norm];
        self
    }

    /// How the convolution is initialised; by fan-out if nothing is said.
    pub fn fan(mut self, fan: Fan) -> Self {
        self.fan = fan;
        self
    }

    /// Makes the stem.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) if a number is zero; the error's path is the convolution's name.
    pub fn build(self, rng: &mut Rng) -> Result<Stem> {
        let StemBuilder { kind, channels, width, names, fan } = self;
        let conv = match kind {
            StemKind::ImageNet => Conv2d::builder(channels, width, 7).stride(2).padding(3),
            StemKind::Cifar | StemKind::Bare => conv3x3(channels, width),
        };
        let conv = conv.fan(fan);
        let layer = match kind {
            StemKind::Bare => StemLayer::Conv(Box::new(conv.build(rng).at(names[0])?), names[0]),
            _ => {
                let layer = ConvNorm::new(conv, rng).at(names[0])?.named(names[0], names[1]);
                StemLayer::ConvNorm(Box::new(layer))
            }
        };
        let pool = (kind == StemKind::ImageNet).then(|| MaxPool2d::new(3).stride(2).padding(1));
        Ok(Stem { layer, pool })
    }
}
