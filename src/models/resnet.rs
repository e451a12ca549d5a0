//! Residual networks (He et al. 2015, "Deep residual learning for image recognition").
//!
//! On ImageNet (table 1; `x n` blocks a stage, 3x3 convolutions of 64, 128, 256, 512 channels):
//!
//! | stage   | output  | 18                | 34         | 50                          | 101        | 152        |
//! |---------|---------|-------------------|------------|-----------------------------|------------|------------|
//! | conv1   | 112x112 | 7x7, 64, stride 2 |            |                             |            |            |
//! | conv2_x | 56x56   | 3x3 max-pool, 2 basic | 3      | 3x3 max-pool, 3 bottlenecks | 3          | 3          |
//! | conv3_x | 28x28   | 2                 | 4          | 4                           | 4          | 8          |
//! | conv4_x | 14x14   | 2                 | 6          | 6                           | 23         | 36         |
//! | conv5_x | 7x7     | 2                 | 3          | 3                           | 3          | 3          |
//! |         | 1x1     | average pool, 1000-d fc |      |                             |            |            |
//!
//! On CIFAR-10 (section 4.2; 6n + 2 layers, shortcuts without parameters):
//!
//! | output     | 32x32  | 16x16 | 8x8 |
//! |------------|--------|-------|-----|
//! | layers     | 1 + 2n | 2n    | 2n  |
//! | channels   | 16     | 32    | 64  |

use super::{Model, ModelOptions, classify};
use crate::{
    At, Error, Result, Rng,
    autograd::{Slot, SlotMut, State, Var, join},
    blocks::{BlockKind, ResBlock, ResBlockBuilder, ShortcutKind, Stem, StemBuilder, StemKind},
    nn::{Linear, Module, init::Fan},
};
use BlockKind::{Basic, Bottleneck};

/// A column of table 1: its names with the stem for ImageNet and for CIFAR, its depth, its blocks.
struct Row {
    names: [&'static str; 2],
    depth: usize,
    kind: BlockKind,
    blocks: [usize; 4],
}

#[rustfmt::skip]
const IMAGENET: [Row; 5] = [
    Row { names: ["resnet18", "resnet18_cifar"],   depth: 18,  kind: Basic,      blocks: [2, 2, 2, 2] },
    Row { names: ["resnet34", "resnet34_cifar"],   depth: 34,  kind: Basic,      blocks: [3, 4, 6, 3] },
    Row { names: ["resnet50", "resnet50_cifar"],   depth: 50,  kind: Bottleneck, blocks: [3, 4, 6, 3] },
    Row { names: ["resnet101", "resnet101_cifar"], depth: 101, kind: Bottleneck, blocks: [3, 4, 23, 3] },
    Row { names: ["resnet152", "resnet152_cifar"], depth: 152, kind: Bottleneck, blocks: [3, 8, 36, 3] },
];

/// Channels of the 3x3 convolutions of table 1.
const WIDTHS: [usize; 4] = [64, 128, 256, 512];

/// Section 4.2: names and depths, 6n + 2.
const CIFAR: [(&str, usize); 5] =
    [("resnet20", 20), ("resnet32", 32), ("resnet44", 44), ("resnet56", 56), ("resnet110", 110)];

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let with_stem = |stem: usize| IMAGENET.iter().map(move |row| row.names[stem]);
    with_stem(0).chain(with_stem(1)).chain(CIFAR.iter().map(|(name, _)| *name))
}

/// What distinguishes one residual network from another.
///
/// ```
/// use skipgrad::{Rng, autograd::State, models::{ResNet, ResNetConfig}};
/// let config = ResNetConfig { stages: vec![(8, 1), (16, 1), (32, 1)], ..ResNetConfig::cifar_paper(8, 10)? };
/// assert_eq!(ResNet::new(&config, &mut Rng::seed(0))?.parameters(), 19_218);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ResNetConfig {
    /// The images' channels.
    pub channels: usize,
    /// The number of classes.
    pub classes: usize,
    /// The first layers.
    pub stem: StemKind,
    /// The block of all stages.
    pub kind: BlockKind,
    /// Output channels and number of blocks of each stage. Every stage but the first halves the edge.
    pub stages: Vec<(usize, usize)>,
    /// The shortcut where a stage changes the shape.
    pub shortcut: ShortcutKind,
    /// See [`ModelOptions::zero_last_gamma`].
    pub zero_last_gamma: bool,
    /// See [`ModelOptions::drop_path`].
    pub drop_path: f32,
    /// How convolutions are initialised; by fan-in, the classifier is Kaiming-normal too.
    pub fan: Fan,
    /// The classifier's name in weights files.
    pub head: &'static str,
}

impl ResNetConfig {
    /// ResNet-18, -34, -50, -101 or -152 for ImageNet, initialised as torchvision's.
    ///
    /// # Errors
    /// [`Error::UnknownName`] for another depth.
    pub fn imagenet(depth: usize, classes: usize) -> Result<ResNetConfig> {
        match IMAGENET.iter().find(|row| row.depth == depth) {
            Some(row) => Ok(ResNetConfig { classes, ..row.config(StemKind::ImageNet) }),
            None => {
                let known = IMAGENET.iter().map(|row| row.names[0]).collect();
                Err(Error::UnknownName { kind: "ResNet", name: format!("resnet{depth}"), known })
            }
        }
    }

    /// The network of section 4.2 for CIFAR-10, of 6n + 2 layers, Kaiming-normal by fan-in.
    ///
    /// # Errors
    /// [`Error::Argument`] for a depth that is not 8, 14, 20 and so on.
    pub fn cifar_paper(depth: usize, classes: usize) -> Result<ResNetConfig> {
        if depth < 8 || depth % 6 != 2 {
            return Err(Error::argument("resnet", "depth", "6n + 2: 8, 14, 20, ...", depth));
        }
        let blocks = (depth - 2) / 6;
        Ok(ResNetConfig {
            channels: 3,
            classes,
            stem: StemKind::Cifar,
            kind: Basic,
            stages: vec![(16, blocks), (32, blocks), (64, blocks)],
            shortcut: ShortcutKind::Pad,
            zero_last_gamma: false,
            drop_path: 0.0,
            fan: Fan::In,
            head: "linear",
        })
    }

    pub(super) fn named(name: &str) -> Option<ResNetConfig> {
        let stems = [StemKind::ImageNet, StemKind::Cifar];
        let row = IMAGENET.iter().find_map(|row| {
            let stem = row.names.iter().position(|known| *known == name)?;
            Some(row.config(stems[stem]))
        });
        row.or_else(|| {
            let &(_, depth) = CIFAR.iter().find(|(known, _)| *known == name)?;
            ResNetConfig::cifar_paper(depth, 10).ok()
        })
    }

    pub(super) fn with(self, options: &ModelOptions) -> Result<ResNetConfig> {
        if options.dropout != 0.0 {
            return Err(Error::argument("resnet", "dropout", "0, it is a DenseNet's", options.dropout));
        }
        Ok(ResNetConfig {
            channels: options.channels,
            classes: options.classes,
            stem: options.stem.unwrap_or(self.stem),
            zero_last_gamma: options.zero_last_gamma,
            drop_path: options.drop_path,
            ..self
        })
    }
}

impl Row {
    fn config(&self, stem: StemKind) -> ResNetConfig {
        let outputs = WIDTHS.map(|width| width * self.kind.expansion());
        ResNetConfig {
            channels: 3,
            classes: 1000,
            stem,
            kind: self.kind,
            stages: outputs.into_iter().zip(self.blocks).collect(),
            shortcut: ShortcutKind::Project,
            zero_last_gamma: false,
            drop_path: 0.0,
            fan: Fan::Out,
            head: "fc",
        }
    }
}

/// A residual network: a stem, stages of blocks, a classifier.
///
/// `[N, H, W, channels]` to `[N, classes]`, for images of any size that leaves a pixel. State: torchvision's names
/// (`conv1`, `bn1`, `layer1.0.conv1`, `layer2.0.downsample.0`, `fc`; the classifier of the CIFAR networks is `linear`).
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::{State, Tape}, models::{Model, ResNet}, nn::Module};
/// let model = ResNet::cifar(18, 10, &mut Rng::seed(0))?;
/// assert_eq!(model.parameters(), 11_173_962);
/// let tape = Tape::eval();
/// let images = tape.input(Tensor::zeros([2, 16, 16, 3])?);
/// assert_eq!(model.forward_features(&images)?.shape()[..], [2, 2, 2, 512]);
/// assert_eq!(model.forward(&images)?.shape()[..], [2, 10]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ResNet {
    /// The first layers.
    pub stem: Stem,
    /// `layer1`, `layer2` and so on.
    pub stages: Vec<ResBlock>,
    /// The classifier.
    pub head: Linear,
    head_name: &'static str,
}

impl ResNet {
    /// ResNet-18, -34, -50, -101 or -152, as torchvision's, for images of 224 x 224 or so.
    ///
    /// # Errors
    /// [`Error::UnknownName`] for another depth, [`Error::Argument`] for no classes.
    pub fn imagenet(depth: usize, classes: usize, rng: &mut Rng) -> Result<ResNet> {
        ResNet::new(&ResNetConfig::imagenet(depth, classes)?, rng)
    }

    /// The same with a 3x3 stem without pooling, for images of 32 x 32.
    ///
    /// # Errors
    /// As [`ResNet::imagenet`].
    pub fn cifar(depth: usize, classes: usize, rng: &mut Rng) -> Result<ResNet> {
        let config = ResNetConfig { stem: StemKind::Cifar, ..ResNetConfig::imagenet(depth, classes)? };
        ResNet::new(&config, rng)
    }

    /// The paper's small network for images of 32 x 32: 6n + 2 layers of 16, 32 and 64 channels (ResNet-20, -32, -44, -56,
    /// -110).
    ///
    /// # Errors
    /// [`Error::Argument`] for another depth or no classes.
    pub fn cifar_paper(depth: usize, classes: usize, rng: &mut Rng) -> Result<ResNet> {
        ResNet::new(&ResNetConfig::cifar_paper(depth, classes)?, rng)
    }

    /// Any residual network.
    ///
    /// # Errors
    /// [`Error::Argument`], with the path of the layer, for numbers that make no network.
    pub fn new(config: &ResNetConfig, rng: &mut Rng) -> Result<ResNet> {
        let ResNetConfig { kind, fan, ref stages, .. } = *config;
        let Some(&(first, _)) = stages.first() else {
            return Err(Error::argument("resnet", "stages", "at least one", 0));
        };
        let mut inputs = first / kind.expansion();
        let stem = StemBuilder::new(config.stem, config.channels, inputs)
            .named("conv1", "bn1")
            .fan(fan)
            .build(rng)?;
        let depth: usize = stages.iter().map(|(_, blocks)| blocks).sum();
        let drop_path = |blocks: usize| config.drop_path * blocks as f32 / depth as f32;
        let mut above = 0;
        let mut build = |(i, &(outputs, blocks)): (usize, &(usize, usize))| {
            let stage = ResBlockBuilder::new(kind, inputs, outputs, blocks)
                .stride(if i == 0 { 1 } else { 2 })
                .shortcut(config.shortcut)
                .zero_last_gamma(config.zero_last_gamma)
                .drop_path(drop_path(above + 1), drop_path(above + blocks))
                .fan(fan)
                .build(rng)
                .at(stage_name(i));
            (inputs, above) = (outputs, above + blocks);
            stage
        };
        let stages = stages.iter().enumerate().map(&mut build).collect::<Result<_>>()?;
        let head = match fan {
            Fan::In => Linear::kaiming(inputs, config.classes, rng),
            Fan::Out => Linear::new(inputs, config.classes, rng),
        };
        Ok(ResNet { stem, stages, head: head.at(config.head)?, head_name: config.head })
    }
}

fn stage_name(index: usize) -> String {
    format!("layer{}", index + 1)
}

impl Module for ResNet {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        classify(&self.forward_features(x)?, &self.head, self.head_name)
    }
}

impl Model for ResNet {
    fn forward_features<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let stages = self.stages.iter().enumerate();
        stages
            .into_iter()
            .try_fold(self.stem.forward(x)?, |x, (i, stage)| stage.forward(&x).at(stage_name(i)))
    }
    fn classifier(&self) -> &Linear {
        &self.head
    }
    fn classifier_mut(&mut self) -> &mut Linear {
        &mut self.head
    }
}

impl State for ResNet {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, Slot<'_>)) {
        self.stem.visit(path, f);
        self.stages.iter().enumerate().for_each(|(i, stage)| stage.visit(&join(path, stage_name(i)), f));
        self.head.visit(&join(path, self.head_name), f);
    }
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, SlotMut<'_>)) {
        self.stem.visit_mut(path, f);
        self.stages
            .iter_mut()
            .enumerate()
            .for_each(|(i, stage)| stage.visit_mut(&join(path, stage_name(i)), f));
        self.head.visit_mut(&join(path, self.head_name), f);
    }
}
