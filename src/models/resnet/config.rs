//! The tables of residual networks, and the settings of one.

use super::super::ModelOptions;
use crate::{
    Error, Result, Rng,
    blocks::{BlockFactory, BlockKind, BlockSettings, ShortcutKind, StemKind},
    nn::{Module, init::Fan},
};
use BlockKind::{Basic, Bottleneck, PreActBasic, PreActBottleneck};

/// A column of table 1, or a network with other settings than table 1.
struct Row {
    name: &'static str,
    kind: BlockKind,
    blocks: [usize; 4],
    stem: StemKind,
    shortcut: ShortcutKind,
    groups: usize,
    width_per_group: usize,
}

/// Returns a network with the settings of table 1.
const fn row(name: &'static str, kind: BlockKind, blocks: [usize; 4]) -> Row {
    let (stem, shortcut) = (StemKind::ImageNet, ShortcutKind::Project);
    Row { name, kind, blocks, stem, shortcut, groups: 1, width_per_group: 64 }
}

/// Returns the network with the stem for small images.
const fn cifar(row: Row) -> Row {
    Row { stem: StemKind::Cifar, ..row }
}

/// Returns the network with `groups` groups of `width_per_group` channels in its 3x3 convolutions.
const fn grouped(groups: usize, width_per_group: usize, row: Row) -> Row {
    Row { groups, width_per_group, ..row }
}

/// Returns the network as a ResNet-D.
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

/// The channels of the 3x3 convolutions of table 1.
const WIDTHS: [usize; 4] = [64, 128, 256, 512];

/// The networks of section 4.2: name and depth, 6n + 2.
const CIFAR: [(&str, usize); 5] =
    [("resnet20", 20), ("resnet32", 32), ("resnet44", 44), ("resnet56", 56), ("resnet110", 110)];

/// The networks WRN-d-k: name, d and k.
const WIDE: [(&str, usize, usize); 2] = [("wrn16_4", 16, 4), ("wrn28_10", 28, 10)];

pub(in crate::models) fn names() -> impl Iterator<Item = &'static str> {
    let small = CIFAR.iter().map(|row| row.0).chain(WIDE.iter().map(|row| row.0));
    TABLE.iter().map(|row| row.name).chain(small)
}

/// The settings of a residual network.
///
/// ```
/// use skipgrad::{Rng, autograd::State, models::{ResNet, ResNetConfig}};
/// let config = ResNetConfig::cifar_paper(8, 10)?.stages([(8, 1), (16, 1), (32, 1)]);
/// assert_eq!(ResNet::new(&config, &mut Rng::seed(0))?.num_parameters(), 19_218);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ResNetConfig {
    /// The number of channels of the images.
    pub channels: usize,
    /// The number of classes.
    pub classes: usize,
    /// The kind of the first layers.
    pub stem: StemKind,
    /// The output channels of the stem; by default the first stage's over the block's
    /// [`expansion`](BlockKind::expansion).
    pub width: Option<usize>,
    /// The kind of the blocks of all stages.
    pub kind: BlockKind,
    /// The function that makes the blocks in place of those of the kind, which then says only the
    /// ratio of channels and whether a norm comes first.
    pub block: Option<BlockFactory>,
    /// The output channels and the number of blocks of each stage. Every stage but the first halves
    /// the edge.
    pub stages: Vec<(usize, usize)>,
    /// The kind of the shortcut where a stage changes the shape, or that no block has a shortcut.
    pub shortcut: ShortcutKind,
    /// The groups of a bottleneck's 3x3 convolution; see
    /// [`ResBlockBuilder::groups`](crate::blocks::ResBlockBuilder::groups).
    pub groups: usize,
    /// The channels of each of these groups; see
    /// [`ResBlockBuilder::width_per_group`](crate::blocks::ResBlockBuilder::width_per_group).
    pub width_per_group: usize,
    /// Whether each block begins as its shortcut; see [`ModelOptions::zero_init_residual`].
    pub zero_init_residual: bool,
    /// The probability that training skips the last block; see [`ModelOptions::drop_path`].
    pub drop_path: f32,
    /// How convolutions are initialized; with [`Fan::In`], the classifier is Kaiming-normal too.
    pub fan: Fan,
}

impl ResNetConfig {
    /// Returns the settings of ResNet-18, -34, -50, -101 or -152 for ImageNet, initialized as
    /// torchvision's.
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

    /// Returns the settings of the network of section 4.2 for CIFAR-10, of 6n + 2 layers,
    /// Kaiming-normal by fan-in.
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
            ..cifar(row("", Basic, [0; 4])).config()
        })
    }

    /// Returns the settings of WRN-`depth`-`factor` for CIFAR (Zagoruyko and Komodakis 2016):
    /// pre-activation blocks of 16, 32 and 64 channels times a factor, k in the paper.
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
            ..cifar(row("", PreActBasic, [0; 4])).config()
        })
    }

    /// Sets the number of channels of the images.
    pub fn channels(self, channels: usize) -> ResNetConfig {
        ResNetConfig { channels, ..self }
    }

    /// Sets the number of classes.
    pub fn classes(self, classes: usize) -> ResNetConfig {
        ResNetConfig { classes, ..self }
    }

    /// Sets the kind of the first layers.
    pub fn stem(self, stem: StemKind) -> ResNetConfig {
        ResNetConfig { stem, ..self }
    }

    /// Sets the output channels of the stem.
    pub fn width(self, width: usize) -> ResNetConfig {
        ResNetConfig { width: Some(width), ..self }
    }

    /// Sets the kind of the blocks of all stages.
    pub fn kind(self, kind: BlockKind) -> ResNetConfig {
        ResNetConfig { kind, ..self }
    }

    /// Sets a function that makes the blocks of all stages, in place of those of the kind; see
    /// [`ResBlockBuilder::block`](crate::blocks::ResBlockBuilder::block). The path of its errors
    /// names the stage and the block.
    ///
    /// ```
    /// use skipgrad::{Rng, autograd::State, blocks::BasicBlock};
    /// use skipgrad::models::{ResNet, ResNetConfig};
    /// // Blocks whose shortcuts are all projections of their own kind.
    /// let config = ResNetConfig::cifar_paper(8, 10)?.block(|settings, rng| {
    ///     BasicBlock::builder(settings.in_channels, settings.out_channels)
    ///         .stride(settings.stride)
    ///         .build(rng)
    /// });
    /// let model = ResNet::new(&config, &mut Rng::seed(0))?;
    /// assert!(model.export().contains_key("layer2.0.downsample.0.weight"));
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn block<M: Module + Clone + 'static>(
        self,
        make: impl Fn(BlockSettings, &mut Rng) -> Result<M> + Send + Sync + 'static,
    ) -> ResNetConfig {
        ResNetConfig { block: Some(BlockFactory::new(make)), ..self }
    }

    /// Sets the output channels and the number of blocks of each stage.
    pub fn stages(self, stages: impl Into<Vec<(usize, usize)>>) -> ResNetConfig {
        ResNetConfig { stages: stages.into(), ..self }
    }

    /// Sets the kind of the shortcut where a stage changes the shape, or that no block has one: a
    /// plain network, whose parameters have the same names and shapes.
    ///
    /// ```
    /// use skipgrad::{Rng, autograd::State, blocks::ShortcutKind};
    /// use skipgrad::models::{ResNet, ResNetConfig};
    /// let plain20 = ResNetConfig::cifar_paper(20, 10)?.shortcut(ShortcutKind::None);
    /// let plain20 = ResNet::new(&plain20, &mut Rng::seed(0))?;
    /// assert_eq!(plain20.num_parameters(), 269_722); // as ResNet-20
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn shortcut(self, shortcut: ShortcutKind) -> ResNetConfig {
        ResNetConfig { shortcut, ..self }
    }

    /// Sets the groups of a bottleneck's 3x3 convolution.
    pub fn groups(self, groups: usize) -> ResNetConfig {
        ResNetConfig { groups, ..self }
    }

    /// Sets the channels of each group of a bottleneck's 3x3 convolution.
    pub fn width_per_group(self, width_per_group: usize) -> ResNetConfig {
        ResNetConfig { width_per_group, ..self }
    }

    /// Sets whether each block begins as its shortcut.
    pub fn zero_init_residual(self, zero_init_residual: bool) -> ResNetConfig {
        ResNetConfig { zero_init_residual, ..self }
    }

    /// Sets the probability that training skips the last block.
    pub fn drop_path(self, drop_path: f32) -> ResNetConfig {
        ResNetConfig { drop_path, ..self }
    }

    /// Sets how the weights are initialized.
    pub fn fan(self, fan: Fan) -> ResNetConfig {
        ResNetConfig { fan, ..self }
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
        ResNetConfig {
            channels: 3,
            classes: 1000,
            stem: self.stem,
            width: None,
            kind: self.kind,
            block: None,
            stages: outputs.into_iter().zip(self.blocks).collect(),
            shortcut: self.shortcut,
            groups: self.groups,
            width_per_group: self.width_per_group,
            zero_init_residual: false,
            drop_path: 0.0,
            fan: Fan::Out,
        }
    }
}
