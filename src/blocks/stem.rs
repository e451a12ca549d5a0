//! Where a network begins.

use super::ConvNorm;
use crate::{
    At, Result, Rng,
    autograd::{State, StateMut, StateRef, Var, join},
    nn::{BatchNorm2d, Conv2d, MaxPool2d, Module, conv3x3, init::Fan},
};
use std::borrow::Cow;

/// Which stem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StemKind {
    /// 7x7 convolution of stride 2, BN, ReLU, 3x3 max-pooling of stride 2: a quarter of the edge (He et al. 2015, table 1;
    /// Huang et al. 2017, table 1).
    ImageNet,
    /// Three 3x3 convolutions with BN and ReLU in place of the 7x7, the first of stride 2, the first two of half the maps (He et
    /// al. 2018, "Bag of tricks for image classification with convolutional neural networks", ResNet-C and -D).
    Deep,
    /// 3x3 convolution, BN, ReLU: the edge stays (He et al. 2015, section 4.2).
    Cifar,
    /// 3x3 convolution and nothing else: a dense layer begins with its own BN and ReLU (Huang et al. 2017, section 4.2).
    Bare,
}

/// The first layers of a network, from `[N, H, W, channels]` to `[N, H', W', width]`.
///
/// State: the convolution and, except in a bare stem, the norm, under two names that are its own to choose; `conv` and
/// `norm` if nothing is said. In a deep stem the former holds all convolutions and the norms between them, numbered as timm
/// does: `conv.0`, `conv.1` (a norm), `conv.3`, `conv.4`, `conv.6`.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::Tape, blocks::Stem, nn::Module};
/// let mut rng = Rng::seed(0);
/// let tape = Tape::eval();
/// let x = tape.input(Tensor::zeros([1, 32, 32, 3])?);
/// assert_eq!(Stem::imagenet(3, 64).build(&mut rng)?.forward(&x)?.shape(), [1, 8, 8, 64]);
/// assert_eq!(Stem::cifar(3, 16).build(&mut rng)?.forward(&x)?.shape(), [1, 32, 32, 16]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Stem {
    /// What a deep stem has before the last convolution.
    pub before: Vec<ConvNorm>,
    /// The last convolution, and perhaps a norm.
    pub layer: StemLayer,
    /// The pooling.
    pub pool: Option<MaxPool2d>,
}

/// What a stem begins with.
#[derive(Clone, Debug)]
pub enum StemLayer {
    /// A convolution, and its name.
    Conv(Box<Conv2d>, Cow<'static, str>),
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

    /// The convolution that reads the images, to be changed.
    pub fn conv_mut(&mut self) -> &mut Conv2d {
        match &mut self.layer {
            _ if !self.before.is_empty() => &mut self.before[0].conv,
            StemLayer::Conv(conv, _) => conv,
            StemLayer::ConvNorm(layer) => &mut layer.conv,
        }
    }

    /// The last norm, to be changed, if there is one.
    pub fn norm_mut(&mut self) -> Option<&mut BatchNorm2d> {
        match &mut self.layer {
            StemLayer::Conv(..) => None,
            StemLayer::ConvNorm(layer) => Some(&mut layer.norm),
        }
    }
}

impl Module for Stem {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let tape = x.tape();
        let x = self.before.iter().try_fold(x.clone(), |x, layer| layer.relu(&x))?;
        let y = match &self.layer {
            StemLayer::Conv(conv, name) => tape.scope(name, || conv.forward(&x))?,
            StemLayer::ConvNorm(layer) => layer.relu(&x)?,
        };
        drop(x);
        match &self.pool {
            Some(pool) => tape.scope("maxpool", || pool.forward(&y)),
            None => Ok(y),
        }
    }
}

impl State for Stem {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, StateRef<'_>)) {
        self.before.iter().for_each(|layer| layer.visit(path, f));
        match &self.layer {
            StemLayer::Conv(conv, name) => conv.visit(&join(path, name), f),
            StemLayer::ConvNorm(layer) => layer.visit(path, f),
        }
    }
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, StateMut<'_>)) {
        self.before.iter_mut().for_each(|layer| layer.visit_mut(path, f));
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
    norm: bool,
}

impl StemBuilder {
    /// A stem of this kind for images of `channels` channels, to maps of `width`.
    pub fn new(kind: StemKind, channels: usize, width: usize) -> StemBuilder {
        StemBuilder {
            kind,
            channels,
            width,
            names: ["conv", "norm"],
            fan: Fan::default(),
            norm: kind != StemKind::Bare,
        }
    }

    /// The names of convolution and norm.
    pub fn named(mut self, conv: &'static str, norm: &'static str) -> Self {
        self.names = [conv, norm];
        self
    }

    /// How the convolution is initialized; by fan-out if nothing is said.
    pub fn fan(mut self, fan: Fan) -> Self {
        self.fan = fan;
        self
    }

    /// Leaves the last norm and its ReLU out, for blocks that begin with their own.
    pub fn without_norm(mut self) -> Self {
        self.norm = false;
        self
    }

    /// Makes the stem.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) if a number is zero; the error's path is the convolution's name.
    pub fn build(self, rng: &mut Rng) -> Result<Stem> {
        let StemBuilder { kind, channels, width, names: [conv_name, norm_name], fan, norm } = self;
        let mut before = vec![];
        let mut name = Cow::Borrowed(conv_name);
        let conv = match kind {
            StemKind::ImageNet => Conv2d::builder(channels, width, 7).stride(2).padding(3),
            StemKind::Cifar | StemKind::Bare => conv3x3(channels, width),
            StemKind::Deep => {
                let half = width / 2;
                for (conv, place) in [(conv3x3(channels, half).stride(2), 0), (conv3x3(half, half), 3)] {
                    let [conv_path, norm_path] =
                        [place, place + 1].map(|place| format!("{conv_name}.{place}"));
                    let layer = ConvNorm::new(conv.fan(fan), rng).at(&conv_path)?;
                    before.push(layer.named(conv_path, norm_path));
                }
                name = format!("{conv_name}.6").into();
                conv3x3(half, width)
            }
        };
        let conv = conv.fan(fan);
        let layer = match norm {
            false => StemLayer::Conv(Box::new(conv.build(rng).at(&name)?), name),
            true => {
                let layer = ConvNorm::new(conv, rng).at(&name)?.named(name, norm_name);
                StemLayer::ConvNorm(Box::new(layer))
            }
        };
        let pools = matches!(kind, StemKind::ImageNet | StemKind::Deep);
        let pool = pools.then(|| MaxPool2d::new(3).stride(2).padding(1));
        Ok(Stem { before, layer, pool })
    }
}
