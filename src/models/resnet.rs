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
//!
//! With the blocks of table 1 and another stem, block or width:
//!
//! * ResNeXt (Xie et al. 2017, "Aggregated residual transformations for deep neural networks"), C x d: the 3x3 convolutions of a
//!   bottleneck in C groups of d channels in the first stage, twice as many in the next.
//! * Wide ResNet-50-2 and -101-2 (Zagoruyko and Komodakis 2016, "Wide residual networks", table 8): twice the channels in the 3x3
//!   convolutions of a bottleneck.
//! * ResNet-D (He et al. 2018, "Bag of tricks for image classification with convolutional neural networks", figure 2): a stem of three
//!   3x3 convolutions, and means in front of projections.
//! * Pre-activation networks (He et al. 2016, "Identity mappings in deep residual networks"): norms and ReLUs in front of the
//!   convolutions. As in timm, the stride of a bottleneck sits on its 3x3.
//!
//! On CIFAR, WRN-d-k (Zagoruyko and Komodakis 2016, table 1; pre-activation, d = 6n + 4 layers):
//!
//! | output     | 32x32       | 16x16 | 8x8 |
//! |------------|-------------|-------|-----|
//! | layers     | 1 + 2n      | 2n    | 2n  |
//! | channels   | 16, then 16k | 32k  | 64k |

use super::{Model, ModelOptions, classify};
use crate::{
    At, Error, Result, Rng,
    autograd::{Slot, SlotMut, State, Var, join},
    blocks::{BlockKind, PreActNames, ResBlock, ResBlockBuilder, ShortcutKind, Stem, StemBuilder, StemKind},
    nn::{BatchNorm2d, Linear, Module, init::Fan},
};
use BlockKind::{Basic, Bottleneck, PreActBasic, PreActBottleneck};

/// A column of table 1, and what differs from it.
struct Row {
    name: &'static str,
    kind: BlockKind,
    blocks: [usize; 4],
    stem: StemKind,
    shortcut: ShortcutKind,
    groups: usize,
    width_per_group: usize,
}

/// As table 1 has it.
const fn row(name: &'static str, kind: BlockKind, blocks: [usize; 4]) -> Row {
    let (stem, shortcut) = (StemKind::ImageNet, ShortcutKind::Project);
    Row { name, kind, blocks, stem, shortcut, groups: 1, width_per_group: 64 }
}

/// With the stem for small images.
const fn cifar(row: Row) -> Row {
    Row { stem: StemKind::Cifar, ..row }
}

/// In `groups` groups, the width in proportion to `width_per_group`.
const fn grouped(groups: usize, width_per_group: usize, row: Row) -> Row {
    Row { groups, width_per_group, ..row }
}

/// ResNet-D.
const fn d(row: Row) -> Row {
    Row { stem: StemKind::Deep, shortcut: ShortcutKind::PoolProject, ..row }
}

const BLOCKS18: [usize; 4] = [2, 2, 2, 2];
const BLOCKS34: [usize; 4] = [3, 4, 6, 3];
const BLOCKS50: [usize; 4] = [3, 4, 6, 3];
const BLOCKS101: [usize; 4] = [3, 4, 23, 3];
const BLOCKS152: [usize; 4] = [3, 8, 36, 3];

const TABLE: [Row; 22] = [
    row("resnet18", Basic, BLOCKS18),
    row("resnet34", Basic, BLOCKS34),
    row("resnet50", Bottleneck, BLOCKS50),
    row("resnet101", Bottleneck, BLOCKS101),
    row("resnet152", Bottleneck, BLOCKS152),
    cifar(row("resnet18_cifar", Basic, BLOCKS18)),
    cifar(row("resnet34_cifar", Basic, BLOCKS34)),
    cifar(row("resnet50_cifar", Bottleneck, BLOCKS50)),
    cifar(row("resnet101_cifar", Bottleneck, BLOCKS101)),
    cifar(row("resnet152_cifar", Bottleneck, BLOCKS152)),
    grouped(32, 4, row("resnext50_32x4d", Bottleneck, BLOCKS50)),
    grouped(32, 8, row("resnext101_32x8d", Bottleneck, BLOCKS101)),
    grouped(64, 4, row("resnext101_64x4d", Bottleneck, BLOCKS101)),
    grouped(1, 128, row("wide_resnet50_2", Bottleneck, BLOCKS50)),
    grouped(1, 128, row("wide_resnet101_2", Bottleneck, BLOCKS101)),
    d(row("resnet50d", Bottleneck, BLOCKS50)),
    d(row("resnet101d", Bottleneck, BLOCKS101)),
    row("resnetv2_18", PreActBasic, BLOCKS18),
    row("resnetv2_34", PreActBasic, BLOCKS34),
    row("resnetv2_50", PreActBottleneck, BLOCKS50),
    row("resnetv2_101", PreActBottleneck, BLOCKS101),
    row("resnetv2_152", PreActBottleneck, BLOCKS152),
];

/// Channels of the 3x3 convolutions of table 1.
const WIDTHS: [usize; 4] = [64, 128, 256, 512];

/// Section 4.2: names and depths, 6n + 2.
const CIFAR: [(&str, usize); 5] =
    [("resnet20", 20), ("resnet32", 32), ("resnet44", 44), ("resnet56", 56), ("resnet110", 110)];

/// WRN-d-k: name, d, k.
const WIDE: [(&str, usize, usize); 2] = [("wrn16_4", 16, 4), ("wrn28_10", 28, 10)];

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    let small = CIFAR.iter().map(|row| row.0).chain(WIDE.iter().map(|row| row.0));
    TABLE.iter().map(|row| row.name).chain(small)
}

/// The names of the stem, of the stages and of the last norm in weights files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Naming {
    /// `conv1`, `bn1`, `layer1.0`: torchvision's.
    #[default]
    Torchvision,
    /// `stem.conv`, `stages.0.blocks.0`, `norm`: timm's of pre-activation networks.
    Timm,
    /// `conv1`, `block1.layer.0`, `bn1`: those of wide residual networks for CIFAR in PyTorch.
    Wide,
}

impl Naming {
    /// Of the stem: what its names begin with, its convolution, its norm.
    const fn stem(self) -> [&'static str; 3] {
        match self {
            Naming::Torchvision | Naming::Wide => ["", "conv1", "bn1"],
            Naming::Timm => ["stem", "conv", "norm"],
        }
    }

    fn stage(self, index: usize) -> String {
        match self {
            Naming::Torchvision => format!("layer{}", index + 1),
            Naming::Timm => format!("stages.{index}.blocks"),
            Naming::Wide => format!("block{}.layer", index + 1),
        }
    }

    const fn norm(self) -> &'static str {
        match self {
            Naming::Torchvision | Naming::Wide => "bn1",
            Naming::Timm => "norm",
        }
    }

    const fn block(self) -> PreActNames {
        match self {
            Naming::Torchvision | Naming::Timm => PreActNames::Timm,
            Naming::Wide => PreActNames::Wide,
        }
    }
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
    /// The stem's maps; if nothing is said, the first stage's channels over the block's
    /// [`expansion`](BlockKind::expansion).
    pub width: Option<usize>,
    /// The block of all stages.
    pub kind: BlockKind,
    /// Output channels and number of blocks of each stage. Every stage but the first halves the edge.
    pub stages: Vec<(usize, usize)>,
    /// The shortcut where a stage changes the shape.
    pub shortcut: ShortcutKind,
    /// See [`BlockOptions::groups`](crate::blocks::BlockOptions::groups).
    pub groups: usize,
    /// See [`BlockOptions::width_per_group`](crate::blocks::BlockOptions::width_per_group).
    pub width_per_group: usize,
    /// See [`ModelOptions::zero_last_gamma`].
    pub zero_last_gamma: bool,
    /// See [`ModelOptions::drop_path`].
    pub drop_path: f32,
    /// How convolutions are initialised; by fan-in, the classifier is Kaiming-normal too.
    pub fan: Fan,
    /// The classifier's name in weights files.
    pub head: &'static str,
    /// The other names in weights files.
    pub naming: Naming,
}

impl ResNetConfig {
    /// ResNet-18, -34, -50, -101 or -152 for ImageNet, initialised as torchvision's.
    ///
    /// # Errors
    /// [`Error::UnknownName`] for another depth.
    pub fn imagenet(depth: usize, classes: usize) -> Result<ResNetConfig> {
        let (name, plain) = (format!("resnet{depth}"), &TABLE[..5]);
        match plain.iter().find(|row| row.name == name) {
            Some(row) => Ok(ResNetConfig { classes, ..row.config() }),
            None => {
                let known = plain.iter().map(|row| row.name).collect();
                Err(Error::UnknownName { kind: "ResNet", name, known })
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
            classes,
            stages: vec![(16, blocks), (32, blocks), (64, blocks)],
            shortcut: ShortcutKind::Pad,
            fan: Fan::In,
            head: "linear",
            ..cifar(row("", Basic, [0; 4])).config()
        })
    }

    /// WRN-`depth`-`factor` for CIFAR (Zagoruyko and Komodakis 2016): pre-activation blocks of 16, 32 and 64 channels times a
    /// factor, k in the paper.
    ///
    /// # Errors
    /// [`Error::Argument`] for a depth that is not 10, 16, 22 and so on.
    pub fn wide(depth: usize, factor: usize, classes: usize) -> Result<ResNetConfig> {
        if depth < 10 || depth % 6 != 4 {
            return Err(Error::argument("resnet", "depth", "6n + 4: 10, 16, 22, ...", depth));
        }
        let stage = |channels: usize| (factor.saturating_mul(channels), (depth - 4) / 6);
        Ok(ResNetConfig {
            classes,
            width: Some(16),
            stages: vec![stage(16), stage(32), stage(64)],
            naming: Naming::Wide,
            head: "fc",
            ..cifar(row("", PreActBasic, [0; 4])).config()
        })
    }

    pub(super) fn named(name: &str) -> Option<ResNetConfig> {
        if let Some(row) = TABLE.iter().find(|row| row.name == name) {
            return Some(row.config());
        }
        if let Some(&(_, depth, factor)) = WIDE.iter().find(|row| row.0 == name) {
            return ResNetConfig::wide(depth, factor, 10).ok();
        }
        let &(_, depth) = CIFAR.iter().find(|row| row.0 == name)?;
        ResNetConfig::cifar_paper(depth, 10).ok()
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
    fn config(&self) -> ResNetConfig {
        let outputs = WIDTHS.map(|width| width * self.kind.expansion());
        let (naming, head) =
            if self.kind.is_preact() { (Naming::Timm, "head.fc") } else { (Naming::Torchvision, "fc") };
        ResNetConfig {
            channels: 3,
            classes: 1000,
            stem: self.stem,
            width: None,
            kind: self.kind,
            stages: outputs.into_iter().zip(self.blocks).collect(),
            shortcut: self.shortcut,
            groups: self.groups,
            width_per_group: self.width_per_group,
            zero_last_gamma: false,
            drop_path: 0.0,
            fan: Fan::Out,
            head,
            naming,
        }
    }
}

/// A residual network: a stem, stages of blocks, a last norm if its blocks begin with theirs, a classifier.
///
/// `[N, H, W, channels]` to `[N, classes]`, for images of any size that leaves a pixel. State: torchvision's names
/// (`conv1`, `bn1`, `layer1.0.conv1`, `layer2.0.downsample.0`, `fc`; the classifier of the CIFAR networks is `linear`), and for
/// networks that torchvision has not those of where they are published, see [`Naming`].
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
    /// What follows the last of pre-activation blocks, in front of a ReLU.
    pub norm: Option<BatchNorm2d>,
    /// The classifier.
    pub head: Linear,
    head_name: &'static str,
    naming: Naming,
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

    /// The wide network WRN-`depth`-`factor` for images of 32 x 32 (the paper has 16-4, 28-10 and others).
    ///
    /// # Errors
    /// [`Error::Argument`] for a depth that is not 6n + 4, no channels or no classes.
    pub fn wide(depth: usize, factor: usize, classes: usize, rng: &mut Rng) -> Result<ResNet> {
        ResNet::new(&ResNetConfig::wide(depth, factor, classes)?, rng)
    }

    /// Any residual network.
    ///
    /// # Errors
    /// [`Error::Argument`], with the path of the layer, for numbers that make no network.
    pub fn new(config: &ResNetConfig, rng: &mut Rng) -> Result<ResNet> {
        let ResNetConfig { kind, fan, naming, ref stages, .. } = *config;
        let Some(&(first, _)) = stages.first() else {
            return Err(Error::argument("resnet", "stages", "at least one", 0));
        };
        let mut inputs = config.width.unwrap_or(first / kind.expansion());
        let [above_stem, conv, norm] = naming.stem();
        let stem = StemBuilder::new(config.stem, config.channels, inputs).named(conv, norm).fan(fan);
        let stem = if kind.is_preact() { stem.without_norm() } else { stem };
        let stem = below(above_stem, stem.build(rng))?;
        let depth: usize = stages.iter().map(|(_, blocks)| blocks).sum();
        let drop_path = |blocks: usize| config.drop_path * blocks as f32 / depth as f32;
        let mut above = 0;
        let mut build = |(i, &(outputs, blocks)): (usize, &(usize, usize))| {
            let stage = ResBlockBuilder::new(kind, inputs, outputs, blocks)
                .stride(if i == 0 { 1 } else { 2 })
                .shortcut(config.shortcut)
                .zero_last_gamma(config.zero_last_gamma)
                .drop_path(drop_path(above + 1), drop_path(above + blocks))
                .groups(config.groups, config.width_per_group)
                .names(naming.block())
                .fan(fan)
                .build(rng)
                .at(naming.stage(i));
            (inputs, above) = (outputs, above + blocks);
            stage
        };
        let stages = stages.iter().enumerate().map(&mut build).collect::<Result<_>>()?;
        let norm = kind.is_preact().then(|| BatchNorm2d::new(inputs)).transpose()?;
        let head = match fan {
            Fan::In => Linear::kaiming(inputs, config.classes, rng),
            Fan::Out => Linear::new(inputs, config.classes, rng),
        };
        Ok(ResNet { stem, stages, norm, head: head.at(config.head)?, head_name: config.head, naming })
    }
}

/// A result's error below a name, if there is one.
fn below<T>(name: &str, result: Result<T>) -> Result<T> {
    if name.is_empty() { result } else { result.at(name) }
}

impl Module for ResNet {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        classify(&self.forward_features(x)?, &self.head, self.head_name)
    }
}

impl Model for ResNet {
    fn forward_features<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let stem = below(self.naming.stem()[0], self.stem.forward(x))?;
        let mut stages = self.stages.iter().enumerate();
        let maps = stages.try_fold(stem, |x, (i, stage)| stage.forward(&x).at(self.naming.stage(i)))?;
        match &self.norm {
            Some(norm) => norm.relu(&maps).at(self.naming.norm()),
            None => Ok(maps),
        }
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
        let naming = self.naming;
        self.stem.visit(&stem_path(path, naming), f);
        self.stages.iter().enumerate().for_each(|(i, stage)| stage.visit(&join(path, naming.stage(i)), f));
        self.norm.visit(&join(path, naming.norm()), f);
        self.head.visit(&join(path, self.head_name), f);
    }
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, SlotMut<'_>)) {
        let naming = self.naming;
        self.stem.visit_mut(&stem_path(path, naming), f);
        self.stages
            .iter_mut()
            .enumerate()
            .for_each(|(i, stage)| stage.visit_mut(&join(path, naming.stage(i)), f));
        self.norm.visit_mut(&join(path, naming.norm()), f);
        self.head.visit_mut(&join(path, self.head_name), f);
    }
}

fn stem_path(path: &str, naming: Naming) -> String {
    match naming.stem()[0] {
        "" => path.to_string(),
        name => join(path, name),
    }
}
