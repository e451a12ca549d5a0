//! The first layers of a network.

use super::ConvNorm;
use crate::{
    At, Result, Rng,
    autograd::{State, Var},
    nn::{BatchNorm2d, Conv2d, Conv2dBuilder, MaxPool2d, Module, conv3x3, init::Fan},
};

/// The kind of a [`Stem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StemKind {
    /// A 7x7 convolution of stride 2, BN, ReLU, and 3x3 max-pooling of stride 2, which divide the
    /// edge by four (He et al. 2015, table 1; Huang et al. 2017, table 1).
    ImageNet,
    /// As [`StemKind::ImageNet`] with three 3x3 convolutions in place of the 7x7, each with BN and
    /// ReLU; the first has stride 2, and the first two half the channels (He et al. 2018, "Bag of
    /// tricks for image classification with convolutional neural networks", ResNet-C and -D).
    Deep,
    /// A 3x3 convolution, BN and ReLU, which keep the edge (He et al. 2015, section 4.2).
    Cifar,
    /// A 3x3 convolution alone: a dense layer begins with its own BN and ReLU (Huang et al. 2017,
    /// section 4.2).
    Bare,
}

/// The first layers of a network, from `[N, H, W, in_channels]` to `[N, H', W', width]`.
///
/// Its state is `conv` and, unless the stem is bare, `norm`. In a deep stem, `conv` holds all
/// convolutions and the norms between them, numbered as timm does: `conv.0`, `conv.1` (a norm),
/// `conv.3`, `conv.4` (a norm) and `conv.6`.
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
#[derive(Clone, Debug, State)]
pub struct Stem {
    /// The convolutions and norms.
    #[state(flatten)]
    pub layers: StemLayers,
    /// The pooling, if the kind has one.
    #[state(skip)]
    pub pool: Option<MaxPool2d>,
}

/// The convolutions of a [`Stem`].
#[derive(Clone, Debug, State)]
#[non_exhaustive]
pub enum StemLayers {
    /// One convolution.
    Single(StemLayer),
    /// Three convolutions.
    Deep {
        /// The first convolution, which strides, and its norm.
        #[state(flatten(conv = "conv.0", norm = "conv.1"))]
        conv1: Box<ConvNorm>,
        /// The second convolution and its norm.
        #[state(flatten(conv = "conv.3", norm = "conv.4"))]
        conv2: Box<ConvNorm>,
        /// The third convolution.
        #[state(flatten(conv = "conv.6"))]
        conv3: StemLayer,
    },
}

/// The last convolution of a [`Stem`], with or without a norm.
#[derive(Clone, Debug, State)]
#[non_exhaustive]
pub enum StemLayer {
    /// A convolution alone.
    Conv {
        /// The convolution.
        conv: Box<Conv2d>,
    },
    /// A convolution, a norm and a ReLU.
    ConvNorm(Box<ConvNorm>),
}

impl Stem {
    /// Begins a stem of [`StemKind::ImageNet`].
    pub fn imagenet(in_channels: usize, width: usize) -> StemBuilder {
        Stem::builder(StemKind::ImageNet, in_channels, width)
    }

    /// Begins a stem of [`StemKind::Cifar`].
    pub fn cifar(in_channels: usize, width: usize) -> StemBuilder {
        Stem::builder(StemKind::Cifar, in_channels, width)
    }

    /// Begins a stem of [`StemKind::Bare`].
    pub fn bare(in_channels: usize, width: usize) -> StemBuilder {
        Stem::builder(StemKind::Bare, in_channels, width)
    }

    /// Begins a stem of any kind for images of `in_channels` channels, with `width` output
    /// channels.
    pub fn builder(kind: StemKind, in_channels: usize, width: usize) -> StemBuilder {
        StemBuilder { kind, in_channels, width, fan: Fan::default(), norm: kind != StemKind::Bare }
    }

    /// Returns the convolution that reads the images, to be changed.
    pub fn conv_mut(&mut self) -> &mut Conv2d {
        match &mut self.layers {
            StemLayers::Single(StemLayer::Conv { conv }) => conv,
            StemLayers::Single(StemLayer::ConvNorm(layer)) => &mut layer.conv,
            StemLayers::Deep { conv1, .. } => &mut conv1.conv,
        }
    }

    /// Returns the last norm, to be changed, if there is one.
    pub fn norm_mut(&mut self) -> Option<&mut BatchNorm2d> {
        match &mut self.layers {
            StemLayers::Single(StemLayer::ConvNorm(layer))
            | StemLayers::Deep { conv3: StemLayer::ConvNorm(layer), .. } => Some(&mut layer.norm),
            _ => None,
        }
    }
}

impl Module for Stem {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let tape = x.tape();
        tape.enter(self, || {
            let y = match &self.layers {
                StemLayers::Single(StemLayer::Conv { conv }) => conv.forward(x)?,
                StemLayers::Single(StemLayer::ConvNorm(layer)) => layer.forward_relu(x)?,
                StemLayers::Deep { conv1, conv2, conv3 } => {
                    // Each input is dropped before the next convolution runs.
                    let mut layers = [conv1, conv2].into_iter();
                    let x = layers.try_fold(x.clone(), |x, layer| layer.forward_relu(&x))?;
                    conv3.forward(&x)?
                }
            };
            match &self.pool {
                Some(pool) => tape.scope("maxpool", || pool.forward(&y)),
                None => Ok(y),
            }
        })
    }
}

impl Module for StemLayer {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        match self {
            StemLayer::Conv { conv } => conv.forward(x),
            StemLayer::ConvNorm(layer) => layer.forward_relu(x),
        }
    }
}

impl StemLayer {
    fn new(conv: Conv2dBuilder, norm: bool, rng: &mut Rng) -> Result<StemLayer> {
        Ok(match norm {
            true => StemLayer::ConvNorm(Box::new(ConvNorm::new(conv, rng)?)),
            false => StemLayer::Conv { conv: Box::new(conv.build(rng)?) },
        })
    }
}

/// The settings of a [`Stem`]; see [`Stem::builder`].
#[derive(Clone, Debug)]
#[must_use = "`build` makes the stem"]
pub struct StemBuilder {
    kind: StemKind,
    in_channels: usize,
    width: usize,
    fan: Fan,
    norm: bool,
}

impl StemBuilder {
    /// Sets how the convolutions are initialized; by fan-out by default.
    pub fn fan(mut self, fan: Fan) -> Self {
        self.fan = fan;
        self
    }

    /// Sets whether a norm and a ReLU follow the last convolution; blocks that begin with their own
    /// need none.
    pub fn norm(mut self, norm: bool) -> Self {
        self.norm = norm;
        self
    }

    /// Makes the stem.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) if a number of channels is zero; in a deep stem
    /// with the index of the convolution.
    pub fn build(self, rng: &mut Rng) -> Result<Stem> {
        let StemBuilder { kind, in_channels, width, fan, norm } = self;
        let layers = match kind {
            StemKind::Deep => {
                let half = width / 2;
                let conv1 = ConvNorm::new(conv3x3(in_channels, half).stride(2).fan(fan), rng);
                let conv1 = Box::new(conv1.at("0")?);
                let conv2 = Box::new(ConvNorm::new(conv3x3(half, half).fan(fan), rng).at("3")?);
                let conv3 = StemLayer::new(conv3x3(half, width).fan(fan), norm, rng).at("6")?;
                StemLayers::Deep { conv1, conv2, conv3 }
            }
            StemKind::ImageNet => {
                let conv = Conv2d::builder(in_channels, width, 7).stride(2).padding(3).fan(fan);
                StemLayers::Single(StemLayer::new(conv, norm, rng)?)
            }
            StemKind::Cifar | StemKind::Bare => {
                let conv = conv3x3(in_channels, width).fan(fan);
                StemLayers::Single(StemLayer::new(conv, norm, rng)?)
            }
        };
        let pools = matches!(kind, StemKind::ImageNet | StemKind::Deep);
        Ok(Stem { layers, pool: pools.then(|| MaxPool2d::new(3).stride(2).padding(1)) })
    }
}
