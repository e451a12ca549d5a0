//! Residual networks (He et al. 2015, "Deep residual learning for image recognition").
//!
//! On ImageNet (table 1; the number of blocks of each stage, with 3x3 convolutions of 64, 128, 256
//! and 512 channels):
//!
//! | stage   | output  | 18                    | 34 | 50                          | 101 | 152 |
//! |---------|---------|-----------------------|----|-----------------------------|-----|-----|
//! | conv1   | 112x112 | 7x7, 64, stride 2     |    |                             |     |     |
//! | conv2_x | 56x56   | 3x3 max-pool, 2 basic | 3  | 3x3 max-pool, 3 bottlenecks | 3   | 3   |
//! | conv3_x | 28x28   | 2                     | 4  | 4                           | 4   | 8   |
//! | conv4_x | 14x14   | 2                     | 6  | 6                           | 23  | 36  |
//! | conv5_x | 7x7     | 2                     | 3  | 3                           | 3   | 3   |
//! |         | 1x1     | average pool, fc      |    |                             |     |     |
//!
//! On CIFAR-10 (section 4.2; 6n + 2 layers, shortcuts without parameters):
//!
//! | output     | 32x32  | 16x16 | 8x8 |
//! |------------|--------|-------|-----|
//! | layers     | 1 + 2n | 2n    | 2n  |
//! | channels   | 16     | 32    | 64  |
//!
//! Plain networks, which the paper compares with, are these without their shortcuts
//! ([`ShortcutKind::None`](crate::blocks::ShortcutKind::None) in a [`ResNetConfig`]).
//!
//! Other networks have the stages of table 1 and another stem, block or width:
//!
//! * ResNeXt (Xie et al. 2017, "Aggregated residual transformations for deep neural networks"), C x
//!   d: the 3x3 convolutions of a bottleneck have C groups of d channels in the first stage, and
//!   twice as many channels in each stage that follows.
//! * Wide ResNet-50-2 and -101-2 (Zagoruyko and Komodakis 2016, "Wide residual networks", table 8):
//!   the 3x3 convolutions of a bottleneck have twice the channels.
//! * ResNet-D (He et al. 2018, "Bag of tricks for image classification with convolutional neural
//!   networks", figure 2): the stem has three 3x3 convolutions, and projections follow average
//!   pooling.
//! * Pre-activation networks (He et al. 2016, "Identity mappings in deep residual networks"): norms
//!   and ReLUs come before the convolutions. As in timm, a bottleneck strides in its 3x3
//!   convolution.
//!
//! On CIFAR, WRN-d-k (Zagoruyko and Komodakis 2016, table 1; pre-activation, d = 6n + 4 layers):
//!
//! | output     | 32x32       | 16x16 | 8x8 |
//! |------------|-------------|-------|-----|
//! | layers     | 1 + 2n      | 2n    | 2n  |
//! | channels   | 16, then 16k | 32k  | 64k |

mod config;

pub use config::ResNetConfig;
pub(super) use config::names;

use super::{Model, classify, named, norm_names};
use crate::{
    At, Error, Result, Rng,
    autograd::{State, Var},
    blocks::{Norms, ResBlock, Stem, StemKind},
    nn::{BatchNorm2d, Linear, Module, init::Fan},
};

/// A residual network: a stem, stages of blocks, a last norm if its blocks begin with theirs, and a
/// classifier.
///
/// Maps images `[N, H, W, channels]` of any size that leaves a pixel to logits `[N, classes]`. Its
/// state has torchvision's names (`conv1`, `bn1`, `layer1.0.conv1`, `layer2.0.downsample.0`, `fc`),
/// and so have the networks that torchvision lacks: the last norm of a pre-activation network is
/// `norm`. [`io`](crate::io) reads and writes the names of others.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::{State, Tape}, models::{Model, ResNet}, nn::Module};
/// let model = ResNet::cifar(18, 10, &mut Rng::seed(0))?;
/// assert_eq!(model.num_parameters(), 11_173_962);
/// let tape = Tape::eval();
/// let images = tape.input(Tensor::zeros([2, 16, 16, 3])?);
/// assert_eq!(model.forward_features(&images)?.shape(), [2, 2, 2, 512]);
/// assert_eq!(model.forward(&images)?.shape(), [2, 10]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, State)]
pub struct ResNet {
    /// The first layers.
    #[state(flatten(conv = "conv1", norm = "bn1"))]
    pub stem: Stem,
    /// The stages, `layer1`, `layer2` and so on.
    #[state(rename = "layer{n}")]
    pub stages: Vec<ResBlock>,
    /// The norm that follows the last of pre-activation blocks, before a ReLU.
    pub norm: Option<BatchNorm2d>,
    /// The classifier.
    pub fc: Linear,
}

impl Module for ResNet {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        x.tape().enter(self, || classify(&self.forward_features(x)?, &self.fc))
    }
}

impl Model for ResNet {
    fn forward_features<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        x.tape().enter(self, || {
            let x = self.stem.forward(x)?;
            let x = self.stages.iter().try_fold(x, |x, stage| stage.forward(&x))?;
            match &self.norm {
                Some(norm) => norm.forward_relu(&x),
                None => Ok(x),
            }
        })
    }
    fn classifier(&self) -> &Linear {
        &self.fc
    }
    fn classifier_mut(&mut self) -> &mut Linear {
        &mut self.fc
    }
    fn norms_mut(&mut self) -> Vec<(String, &mut BatchNorm2d)> {
        let names = norm_names(self);
        let mut norms = vec![];
        self.stem.norms_mut(&mut norms);
        self.stages.norms_mut(&mut norms);
        self.norm.norms_mut(&mut norms);
        named(&names, norms)
    }
}

impl ResNet {
    /// Makes ResNet-18, -34, -50, -101 or -152, as torchvision's, for images of about 224 x 224.
    ///
    /// # Errors
    /// [`Error::UnknownName`] for another depth, [`Error::Argument`] for no classes.
    pub fn imagenet(depth: usize, classes: usize, rng: &mut Rng) -> Result<ResNet> {
        ResNet::new(&ResNetConfig::imagenet(depth, classes)?, rng)
    }

    /// Makes the same network with a 3x3 stem without pooling, for images of 32 x 32.
    ///
    /// # Errors
    /// As [`ResNet::imagenet`].
    pub fn cifar(depth: usize, classes: usize, rng: &mut Rng) -> Result<ResNet> {
        ResNet::new(&ResNetConfig::imagenet(depth, classes)?.stem(StemKind::Cifar), rng)
    }

    /// Makes the paper's small network for images of 32 x 32: 6n + 2 layers of 16, 32 and 64
    /// channels (ResNet-20, -32, -44, -56, -110).
    ///
    /// # Errors
    /// [`Error::Argument`] for another depth or no classes.
    pub fn cifar_paper(depth: usize, classes: usize, rng: &mut Rng) -> Result<ResNet> {
        ResNet::new(&ResNetConfig::cifar_paper(depth, classes)?, rng)
    }

    /// Makes the wide network WRN-`depth`-`factor` for images of 32 x 32 (the paper has 16-4, 28-10
    /// and others).
    ///
    /// # Errors
    /// [`Error::Argument`] for a depth that is not 6n + 4, no channels or no classes.
    pub fn wide(depth: usize, factor: usize, classes: usize, rng: &mut Rng) -> Result<ResNet> {
        ResNet::new(&ResNetConfig::wide(depth, factor, classes)?, rng)
    }

    /// Makes any residual network.
    ///
    /// # Errors
    /// [`Error::Argument`], with the path of the layer, for settings that make no network.
    pub fn new(config: &ResNetConfig, rng: &mut Rng) -> Result<ResNet> {
        let ResNetConfig { kind, fan, ref stages, .. } = *config;
        let Some(&(first, _)) = stages.first() else {
            return Err(Error::argument("resnet", "stages", "at least one", 0));
        };
        let width = config.width.unwrap_or(first / kind.expansion());
        let stem = Stem::builder(config.stem, config.channels, width).fan(fan);
        let stem = if kind.is_preact() { stem.norm(false) } else { stem };
        let stem = stem.build(rng).at("conv1")?;
        let stages = build_stages(config, width, rng)?;
        let features = stages_width(config);
        let norm = kind.is_preact().then(|| BatchNorm2d::new(features)).transpose()?;
        let fc = Linear::builder(features, config.classes);
        let fc = if fan == Fan::In { fc.kaiming_normal() } else { fc };
        Ok(ResNet { stem, stages, norm, fc: fc.build(rng).at("fc")? })
    }
}

/// Returns the output channels of the last stage.
fn stages_width(config: &ResNetConfig) -> usize {
    config.stages.last().map_or(0, |&(channels, _)| channels)
}

/// Makes the stages, the first for `in_channels` channels. The drop probability rises from block to
/// block.
fn build_stages(config: &ResNetConfig, mut in_channels: usize, rng: &mut Rng) -> Result<Vec<ResBlock>> {
    let depth: usize = config.stages.iter().map(|(_, blocks)| blocks).sum();
    let drop_path = |blocks: usize| config.drop_path * blocks as f32 / depth as f32;
    let mut before = 0;
    let mut build = |(i, &(out_channels, blocks)): (usize, &(usize, usize))| {
        let stage = ResBlock::builder(config.kind, in_channels, out_channels, blocks)
            .stride(if i == 0 { 1 } else { 2 })
            .shortcut(config.shortcut)
            .zero_init_residual(config.zero_init_residual)
            .drop_path(drop_path(before + 1), drop_path(before + blocks))
            .groups(config.groups)
            .width_per_group(config.width_per_group)
            .fan(config.fan)
            .block_factory(config.block.clone())
            .build(rng)
            .at(format_args!("layer{}", i + 1));
        (in_channels, before) = (out_channels, before + blocks);
        stage
    };
    config.stages.iter().enumerate().map(&mut build).collect()
}
