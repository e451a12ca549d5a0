//! Where a network begins.

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
    /// The convolution.
    pub conv: Conv2d,
    /// The norm, which a ReLU follows.
    pub norm: Option<BatchNorm2d>,
    /// The pooling.
    pub pool: Option<MaxPool2d>,
    names: [&'static str; 2],
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
}

impl Module for Stem {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let mut y = self.conv.forward(x).at(self.names[0])?;
        if let Some(norm) = &self.norm {
            y = norm.relu(&y).at(self.names[1])?;
        }
        match &self.pool {
            Some(pool) => pool.forward(&y).at("maxpool"),
            None => Ok(y),
        }
    }
}

impl State for Stem {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, Slot<'_>)) {
        self.conv.visit(&join(path, self.names[0]), f);
        self.norm.visit(&join(path, self.names[1]), f);
    }
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, SlotMut<'_>)) {
        self.conv.visit_mut(&join(path, self.names[0]), f);
        self.norm.visit_mut(&join(path, self.names[1]), f);
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
        Ok(Stem {
            conv: conv.fan(fan).build(rng).at(names[0])?,
            norm: (kind != StemKind::Bare).then(|| BatchNorm2d::new(width)).transpose()?,
            pool: (kind == StemKind::ImageNet).then(|| MaxPool2d::new(3).stride(2).padding(1)),
            names,
        })
    }
}
