//! The tables of residual networks, and what a table says of a network.

use super::super::ModelOptions;
use crate::{
    Error, Result,
    blocks::{BlockKind, PreActNames, ShortcutKind, StemKind},
    nn::init::Fan,
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

pub(in crate::models) fn names() -> impl Iterator<Item = &'static str> {
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
    pub(super) const fn stem(self) -> [&'static str; 3] {
        match self {
            Naming::Torchvision | Naming::Wide => ["", "conv1", "bn1"],
            Naming::Timm => ["stem", "conv", "norm"],
        }
    }

    pub(super) fn stage(self, index: usize) -> String {
        match self {
            Naming::Torchvision => format!("layer{}", index + 1),
            Naming::Timm => format!("stages.{index}.blocks"),
            Naming::Wide => format!("block{}.layer", index + 1),
        }
    }

    pub(super) const fn norm(self) -> &'static str {
        match self {
            Naming::Torchvision | Naming::Wide => "bn1",
            Naming::Timm => "norm",
        }
    }

    pub(super) const fn block(self) -> PreActNames {
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
/// assert_eq!(ResNet::new(&config, &mut Rng::seed(0))?.num_parameters(), 19_218);
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
    /// See [`ModelOptions::zero_init_residual`].
    pub zero_init_residual: bool,
    /// See [`ModelOptions::drop_path`].
    pub drop_path: f32,
    /// How convolutions are initialized; by fan-in, the classifier is Kaiming-normal too.
    pub fan: Fan,
    /// The classifier's name in weights files.
    pub head: &'static str,
    /// The other names in weights files.
    pub naming: Naming,
}

impl ResNetConfig {
    /// ResNet-18, -34, -50, -101 or -152 for ImageNet, initialized as torchvision's.
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

    pub(in crate::models) fn named(name: &str) -> Option<ResNetConfig> {
        if let Some(row) = TABLE.iter().find(|row| row.name == name) {
            return Some(row.config());
        }
        if let Some(&(_, depth, factor)) = WIDE.iter().find(|row| row.0 == name) {
            return ResNetConfig::wide(depth, factor, 10).ok();
        }
        let &(_, depth) = CIFAR.iter().find(|row| row.0 == name)?;
        ResNetConfig::cifar_paper(depth, 10).ok()
    }

    pub(in crate::models) fn with(self, options: &ModelOptions) -> Result<ResNetConfig> {
        if options.dropout != 0.0 {
            return Err(Error::argument("resnet", "dropout", "0, it is a DenseNet's", options.dropout));
        }
        Ok(ResNetConfig {
            channels: options.channels,
            classes: options.classes,
            stem: options.stem.unwrap_or(self.stem),
            zero_init_residual: options.zero_init_residual,
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
            zero_init_residual: false,
            drop_path: 0.0,
            fan: Fan::Out,
            head,
            naming,
        }
    }
}
