//! The tables of densely connected networks, and the settings of one.

use super::super::ModelOptions;
use crate::{Error, Result, blocks::StemKind};

/// A column of table 1.
struct Row {
    name: &'static str,
    depth: usize,
    growth: usize,
    layers: [usize; 4],
}

#[rustfmt::skip]
const IMAGENET: [Row; 4] = [
    Row { name: "densenet121", depth: 121, growth: 32, layers: [6, 12, 24, 16] },
    Row { name: "densenet161", depth: 161, growth: 48, layers: [6, 12, 36, 24] },
    Row { name: "densenet169", depth: 169, growth: 32, layers: [6, 12, 32, 32] },
    Row { name: "densenet201", depth: 201, growth: 32, layers: [6, 12, 48, 32] },
];

/// Rows of table 2: name, depth, growth rate, and whether it is a DenseNet-BC.
const CIFAR: [(&str, usize, usize, bool); 3] = [
    ("densenet_bc100_k12", 100, 12, true),
    ("densenet_bc190_k40", 190, 40, true),
    ("densenet40_k12", 40, 12, false),
];

pub(in crate::models) fn names() -> impl Iterator<Item = &'static str> {
    IMAGENET.iter().map(|row| row.name).chain(CIFAR.iter().map(|row| row.0))
}

/// The settings of a densely connected network.
///
/// ```
/// use skipgrad::{Rng, autograd::State, models::{DenseNet, DenseNetConfig}};
/// let config = DenseNetConfig::bc(100, 12, 5)?.layers([2, 2]).width(8).growth_rate(4);
/// let tiny = DenseNet::new(&config, &mut Rng::seed(0))?;
/// assert!(tiny.export().contains_key("features.transition1.conv.weight"));
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DenseNetConfig {
    /// The number of channels of the images.
    pub channels: usize,
    /// The number of classes.
    pub classes: usize,
    /// The kind of the first layers.
    pub stem: StemKind,
    /// The output channels of the stem.
    pub width: usize,
    /// The new channels of each layer, k in the paper.
    pub growth_rate: usize,
    /// The number of layers of each dense block; a transition lies between two blocks.
    pub layers: Vec<usize>,
    /// Whether the layers have a bottleneck, a 1x1 convolution (the B of BC).
    pub bottleneck: bool,
    /// The ratio of a transition's output channels to its input channels, in (0, 1]: theta in the
    /// paper, below 1 the C of BC.
    pub compression: f32,
    /// The probability with which training drops new values; see [`ModelOptions::dropout`].
    pub dropout: f32,
}

impl DenseNetConfig {
    /// Returns the settings of DenseNet-121, -161, -169 or -201 for ImageNet.
    ///
    /// # Errors
    /// [`Error::UnknownName`] for another depth.
    pub fn imagenet(depth: usize, classes: usize) -> Result<DenseNetConfig> {
        match IMAGENET.iter().find(|row| row.depth == depth) {
            Some(row) => Ok(DenseNetConfig { classes, ..row.config() }),
            None => {
                let known = IMAGENET.iter().map(|row| row.name).collect();
                Err(Error::UnknownName { kind: "DenseNet", name: format!("densenet{depth}"), known })
            }
        }
    }

    /// Returns the settings of DenseNet-BC for CIFAR: three blocks of `(depth - 4) / 6`
    /// bottlenecks, with half of the channels after each transition.
    ///
    /// # Errors
    /// [`Error::Argument`] for a depth that is not 10, 16, 22 and so on.
    pub fn bc(depth: usize, growth_rate: usize, classes: usize) -> Result<DenseNetConfig> {
        let layers = layers_per_block(depth, 6, "6n + 4: 10, 16, 22, ...")?;
        let plain = DenseNetConfig::three_blocks(layers, growth_rate, classes);
        Ok(DenseNetConfig {
            width: growth_rate.saturating_mul(2),
            bottleneck: true,
            compression: 0.5,
            ..plain
        })
    }

    /// Returns the settings of DenseNet for CIFAR, without bottlenecks and compression: three
    /// blocks of `(depth - 4) / 3` layers.
    ///
    /// # Errors
    /// [`Error::Argument`] for a depth that is not 7, 10, 13 and so on.
    pub fn plain(depth: usize, growth_rate: usize, classes: usize) -> Result<DenseNetConfig> {
        let layers = layers_per_block(depth, 3, "3n + 4: 7, 10, 13, ...")?;
        Ok(DenseNetConfig::three_blocks(layers, growth_rate, classes))
    }

    fn three_blocks(layers: usize, growth_rate: usize, classes: usize) -> DenseNetConfig {
        DenseNetConfig {
            channels: 3,
            classes,
            stem: StemKind::Bare,
            width: 16,
            growth_rate,
            layers: vec![layers; 3],
            bottleneck: false,
            compression: 1.0,
            dropout: 0.0,
        }
    }

    /// Sets the number of channels of the images.
    pub fn channels(self, channels: usize) -> DenseNetConfig {
        DenseNetConfig { channels, ..self }
    }

    /// Sets the number of classes.
    pub fn classes(self, classes: usize) -> DenseNetConfig {
        DenseNetConfig { classes, ..self }
    }

    /// Sets the kind of the first layers.
    pub fn stem(self, stem: StemKind) -> DenseNetConfig {
        DenseNetConfig { stem, ..self }
    }

    /// Sets the output channels of the stem.
    pub fn width(self, width: usize) -> DenseNetConfig {
        DenseNetConfig { width, ..self }
    }

    /// Sets the new channels of each layer.
    pub fn growth_rate(self, growth_rate: usize) -> DenseNetConfig {
        DenseNetConfig { growth_rate, ..self }
    }

    /// Sets the number of layers of each dense block.
    pub fn layers(self, layers: impl Into<Vec<usize>>) -> DenseNetConfig {
        DenseNetConfig { layers: layers.into(), ..self }
    }

    /// Sets whether the layers have a bottleneck.
    pub fn bottleneck(self, bottleneck: bool) -> DenseNetConfig {
        DenseNetConfig { bottleneck, ..self }
    }

    /// Sets the ratio of a transition's output channels to its input channels.
    pub fn compression(self, compression: f32) -> DenseNetConfig {
        DenseNetConfig { compression, ..self }
    }

    /// Sets the probability with which training drops new values.
    pub fn dropout(self, dropout: f32) -> DenseNetConfig {
        DenseNetConfig { dropout, ..self }
    }

    pub(in crate::models) fn named(name: &str) -> Option<DenseNetConfig> {
        if let Some(row) = IMAGENET.iter().find(|row| row.name == name) {
            return Some(row.config());
        }
        let &(_, depth, growth, bc) = CIFAR.iter().find(|row| row.0 == name)?;
        if bc { DenseNetConfig::bc(depth, growth, 10) } else { DenseNetConfig::plain(depth, growth, 10) }.ok()
    }

    pub(in crate::models) fn with(self, options: &ModelOptions) -> Result<DenseNetConfig> {
        if options.drop_path != 0.0 {
            return Err(Error::argument("densenet", "drop_path", "0, it is a ResNet's", options.drop_path));
        }
        if options.zero_init_residual {
            return Err(Error::argument("densenet", "zero_init_residual", "false, it is a ResNet's", true));
        }
        let stem = match options.stem {
            Some(StemKind::Cifar) => StemKind::Bare,
            other => other.unwrap_or(self.stem),
        };
        let ModelOptions { channels, classes, dropout, .. } = *options;
        Ok(DenseNetConfig { channels, classes, stem, dropout, ..self })
    }

    /// Returns the output channels of a transition.
    pub(super) fn compressed(&self, channels: usize) -> usize {
        (channels as f64 * f64::from(self.compression)) as usize
    }
}

fn layers_per_block(depth: usize, layers: usize, expected: &'static str) -> Result<usize> {
    match depth.checked_sub(4) {
        Some(rest) if rest > 0 && rest.is_multiple_of(layers) => Ok(rest / layers),
        _ => Err(Error::argument("densenet", "depth", expected, depth)),
    }
}

impl Row {
    fn config(&self) -> DenseNetConfig {
        DenseNetConfig {
            channels: 3,
            classes: 1000,
            stem: StemKind::ImageNet,
            width: 2 * self.growth,
            growth_rate: self.growth,
            layers: self.layers.to_vec(),
            bottleneck: true,
            compression: 0.5,
            dropout: 0.0,
        }
    }
}
