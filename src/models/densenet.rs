//! Densely connected networks (Huang et al. 2017, "Densely connected convolutional networks").
//!
//! On ImageNet (table 1; layers of each dense block, each BN-ReLU-1x1-BN-ReLU-3x3; k = 32, for 161 k = 48):
//!
//! | stage         | output  | 121                             | 169 | 201 | 161 |
//! |---------------|---------|---------------------------------|-----|-----|-----|
//! | convolution   | 112x112 | 7x7, 2k maps, stride 2          |     |     |     |
//! | dense block 1 | 56x56   | 3x3 max-pool, 6                 | 6   | 6   | 6   |
//! | dense block 2 | 28x28   | 1x1, 2x2 average pool, 12       | 12  | 12  | 12  |
//! | dense block 3 | 14x14   | 1x1, 2x2 average pool, 24       | 32  | 48  | 36  |
//! | dense block 4 | 7x7     | 1x1, 2x2 average pool, 16       | 32  | 32  | 24  |
//! |               | 1x1     | average pool, 1000-d fc         |     |     |     |
//!
//! On CIFAR-10 (section 4.1): three blocks of the same number of layers at 32x32, 16x16 and 8x8. DenseNet: (L - 4) / 3 layers
//! behind 16 maps. DenseNet-BC: (L - 4) / 6 bottlenecks behind 2k maps, transitions that halve the maps.

use super::{Model, ModelOptions, classify};
use crate::{
    At, Error, Result, Rng,
    autograd::{State, StateMut, StateRef, Var, join},
    blocks::{DenseBlock, Stem, StemBuilder, StemKind, Transition},
    nn::{BatchNorm2d, Linear, Module, init::Fan},
};

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

/// Rows of table 2: name, depth, growth, whether BC.
const CIFAR: [(&str, usize, usize, bool); 3] = [
    ("densenet_bc100_k12", 100, 12, true),
    ("densenet_bc190_k40", 190, 40, true),
    ("densenet40_k12", 40, 12, false),
];

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    IMAGENET.iter().map(|row| row.name).chain(CIFAR.iter().map(|row| row.0))
}

/// What distinguishes one densely connected network from another.
///
/// ```
/// use skipgrad::{Rng, autograd::State, models::{DenseNet, DenseNetConfig}};
/// let config = DenseNetConfig { layers: vec![2, 2], width: 8, growth: 4, ..DenseNetConfig::bc(100, 12, 5)? };
/// let tiny = DenseNet::new(&config, &mut Rng::seed(0))?;
/// assert!(tiny.export().contains_key("features.transition1.conv.weight"));
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DenseNetConfig {
    /// The images' channels.
    pub channels: usize,
    /// The number of classes.
    pub classes: usize,
    /// The first layers.
    pub stem: StemKind,
    /// The stem's maps.
    pub width: usize,
    /// New maps of a layer, k in the paper.
    pub growth: usize,
    /// The number of layers of each dense block; a transition lies between any two.
    pub layers: Vec<usize>,
    /// Whether layers have the 1x1 convolution (the B of BC).
    pub bottleneck: bool,
    /// The share of maps that a transition keeps, in (0, 1]: theta in the paper, below 1 the C of BC.
    pub compression: f32,
    /// See [`ModelOptions::dropout`].
    pub dropout: f32,
}

impl DenseNetConfig {
    /// DenseNet-121, -161, -169 or -201 for ImageNet.
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

    /// DenseNet-BC for CIFAR: three blocks of `(depth - 4) / 6` bottlenecks, half of the maps kept between them.
    ///
    /// # Errors
    /// [`Error::Argument`] for a depth that is not 10, 16, 22 and so on.
    pub fn bc(depth: usize, growth: usize, classes: usize) -> Result<DenseNetConfig> {
        let layers = layers_per_block(depth, 6, "6n + 4: 10, 16, 22, ...")?;
        let plain = DenseNetConfig::three_blocks(layers, growth, classes);
        Ok(DenseNetConfig { width: growth.saturating_mul(2), bottleneck: true, compression: 0.5, ..plain })
    }

    /// DenseNet for CIFAR, without bottlenecks and compression: three blocks of `(depth - 4) / 3` layers.
    ///
    /// # Errors
    /// [`Error::Argument`] for a depth that is not 7, 10, 13 and so on.
    pub fn plain(depth: usize, growth: usize, classes: usize) -> Result<DenseNetConfig> {
        let layers = layers_per_block(depth, 3, "3n + 4: 7, 10, 13, ...")?;
        Ok(DenseNetConfig::three_blocks(layers, growth, classes))
    }

    fn three_blocks(layers: usize, growth: usize, classes: usize) -> DenseNetConfig {
        DenseNetConfig {
            channels: 3,
            classes,
            stem: StemKind::Bare,
            width: 16,
            growth,
            layers: vec![layers; 3],
            bottleneck: false,
            compression: 1.0,
            dropout: 0.0,
        }
    }

    pub(super) fn named(name: &str) -> Option<DenseNetConfig> {
        if let Some(row) = IMAGENET.iter().find(|row| row.name == name) {
            return Some(row.config());
        }
        let &(_, depth, growth, bc) = CIFAR.iter().find(|row| row.0 == name)?;
        if bc { DenseNetConfig::bc(depth, growth, 10) } else { DenseNetConfig::plain(depth, growth, 10) }.ok()
    }

    pub(super) fn with(self, options: &ModelOptions) -> Result<DenseNetConfig> {
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

    /// How many of `maps` a transition keeps.
    fn compressed(&self, maps: usize) -> usize {
        (maps as f64 * f64::from(self.compression)) as usize
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
            growth: self.growth,
            layers: self.layers.to_vec(),
            bottleneck: true,
            compression: 0.5,
            dropout: 0.0,
        }
    }
}

/// A densely connected network: a stem, dense blocks with transitions between them, a norm, a classifier.
///
/// `[N, H, W, channels]` to `[N, classes]`, for images of any size that leaves a pixel (each transition halves the edge,
/// rounded down). State: torchvision's names (`features.conv0`, `features.denseblock1.denselayer1.norm1`,
/// `features.transition1.norm`, `features.norm5`, `classifier`). Weights are initialized as torchvision's.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::{State, Tape}, models::{DenseNet, Model}, nn::Module};
/// let model = DenseNet::bc(100, 12, 10, &mut Rng::seed(0))?;
/// assert_eq!(model.num_parameters(), 769_162);
/// let tape = Tape::eval();
/// let images = tape.input(Tensor::zeros([2, 8, 8, 3])?);
/// assert_eq!(model.forward_features(&images)?.shape(), [2, 2, 2, 342]);
/// assert_eq!(model.forward(&images)?.shape(), [2, 10]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DenseNet {
    /// The first layers.
    pub stem: Stem,
    /// `denseblock1`, `denseblock2` and so on.
    pub blocks: Vec<DenseBlock>,
    /// `transition1` and so on, one fewer than blocks.
    pub transitions: Vec<Transition>,
    /// The norm behind the last block; torchvision's name for it is `norm5` whatever the number of blocks.
    pub norm: BatchNorm2d,
    /// The classifier.
    pub classifier: Linear,
}

impl DenseNet {
    /// DenseNet-121, -161, -169 or -201, as torchvision's, for images of 224 x 224 or so.
    ///
    /// # Errors
    /// [`Error::UnknownName`] for another depth, [`Error::Argument`] for no classes.
    pub fn imagenet(depth: usize, classes: usize, rng: &mut Rng) -> Result<DenseNet> {
        DenseNet::new(&DenseNetConfig::imagenet(depth, classes)?, rng)
    }

    /// DenseNet-BC for images of 32 x 32: the paper has depth and growth (100, 12), (250, 24), (190, 40).
    ///
    /// # Errors
    /// [`Error::Argument`] for a depth that is not 6n + 4, no growth or no classes.
    pub fn bc(depth: usize, growth: usize, classes: usize, rng: &mut Rng) -> Result<DenseNet> {
        DenseNet::new(&DenseNetConfig::bc(depth, growth, classes)?, rng)
    }

    /// DenseNet without bottlenecks and compression for images of 32 x 32: the paper has depth and growth (40, 12),
    /// (100, 12), (100, 24).
    ///
    /// # Errors
    /// [`Error::Argument`] for a depth that is not 3n + 4, no growth or no classes.
    pub fn plain(depth: usize, growth: usize, classes: usize, rng: &mut Rng) -> Result<DenseNet> {
        DenseNet::new(&DenseNetConfig::plain(depth, growth, classes)?, rng)
    }

    /// Any densely connected network.
    ///
    /// # Errors
    /// [`Error::Argument`], with the path of the layer, for numbers that make no network.
    pub fn new(config: &DenseNetConfig, rng: &mut Rng) -> Result<DenseNet> {
        if config.layers.is_empty() {
            return Err(Error::argument("densenet", "layers", "at least one block", 0));
        }
        if !(config.compression > 0.0 && config.compression <= 1.0) {
            return Err(Error::argument("densenet", "compression", "a share in (0, 1]", config.compression));
        }
        let stem = StemBuilder::new(config.stem, config.channels, config.width)
            .named("conv0", "norm0")
            .fan(Fan::In)
            .build(rng)
            .at("features")?;
        let begin = if config.bottleneck { DenseBlock::bottleneck } else { DenseBlock::plain };
        let below = |name: String| join("features", name);
        let (mut blocks, mut transitions) = (vec![], vec![]);
        let mut maps = config.width;
        for (i, &layers) in config.layers.iter().enumerate() {
            if i > 0 {
                let kept = config.compressed(maps);
                transitions.push(Transition::new(maps, kept, rng).at(below(transition_name(i - 1)))?);
                maps = kept;
            }
            let block = begin(maps, config.growth, layers)
                .dropout(config.dropout)
                .build(rng)
                .at(below(block_name(i)))?;
            maps = block.outputs();
            blocks.push(block);
        }
        let mut classifier = Linear::new(maps, config.classes, rng).at("classifier")?;
        classifier.bias.value_mut().data_mut().fill(0.0);
        Ok(DenseNet { stem, blocks, transitions, norm: BatchNorm2d::new(maps)?, classifier })
    }
}

fn block_name(index: usize) -> String {
    format!("denseblock{}", index + 1)
}

fn transition_name(index: usize) -> String {
    format!("transition{}", index + 1)
}

impl Module for DenseNet {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        classify(&self.forward_features(x)?, &self.classifier, "classifier")
    }
}

impl Model for DenseNet {
    fn forward_features<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let tape = x.tape();
        // The last ReLU is behind what torchvision calls the features.
        let apart = tape.captures("features");
        let maps = tape.scope("features", || {
            let (mut x, mut moments) = (self.stem.forward(x)?, None);
            for (i, block) in self.blocks.iter().enumerate() {
                (x, moments) = tape.scope(block_name(i), || block.forward_moments(&x))?;
                if let Some(transition) = self.transitions.get(i) {
                    let moments = moments.take();
                    x = tape.scope(transition_name(i), || transition.forward_with(&x, moments.as_ref()))?;
                }
            }
            self.norm.apply_as("norm5", &x, moments.as_ref(), None, !apart)
        })?;
        Ok(if apart { maps.relu() } else { maps })
    }
    fn classifier(&self) -> &Linear {
        &self.classifier
    }
    fn classifier_mut(&mut self) -> &mut Linear {
        &mut self.classifier
    }
}

impl State for DenseNet {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, StateRef<'_>)) {
        let features = join(path, "features");
        self.stem.visit(&features, f);
        for (i, block) in self.blocks.iter().enumerate() {
            block.visit(&join(&features, block_name(i)), f);
            self.transitions.get(i).iter().for_each(|t| t.visit(&join(&features, transition_name(i)), f));
        }
        self.norm.visit(&join(&features, "norm5"), f);
        self.classifier.visit(&join(path, "classifier"), f);
    }
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, StateMut<'_>)) {
        let features = join(path, "features");
        self.stem.visit_mut(&features, f);
        for (i, block) in self.blocks.iter_mut().enumerate() {
            block.visit_mut(&join(&features, block_name(i)), f);
            if let Some(transition) = self.transitions.get_mut(i) {
                transition.visit_mut(&join(&features, transition_name(i)), f);
            }
        }
        self.norm.visit_mut(&join(&features, "norm5"), f);
        self.classifier.visit_mut(&join(path, "classifier"), f);
    }
}
