//! Densely connected networks (Huang et al. 2017, "Densely connected convolutional networks").
//!
//! On ImageNet (table 1; the number of layers of each dense block, each BN-ReLU-1x1-BN-ReLU-3x3; k
//! = 32, for 161 k = 48):
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
//! On CIFAR-10 (section 4.1), three blocks have the same number of layers at 32x32, 16x16 and 8x8:
//! in a DenseNet (L - 4) / 3 layers, after a stem of 16 channels; in a DenseNet-BC (L - 4) / 6
//! bottlenecks, after a stem of 2k channels, with transitions that halve the channels.

mod config;

pub use config::DenseNetConfig;
pub(super) use config::names;

use super::{Model, classify, named, norm_names};
use crate::{
    At, Error, Result, Rng,
    autograd::{State, Var},
    blocks::{DenseBlock, Norms, Stem, Transition},
    nn::{BatchNorm2d, Fused, Linear, Module, init::Fan},
    ops::Moments,
};

/// A densely connected network: a stem, dense blocks with transitions between them, a norm, and a
/// classifier.
///
/// Maps images `[N, H, W, channels]` of any size that leaves a pixel (each transition halves the
/// edge, rounded down) to logits `[N, classes]`. Its state has torchvision's names
/// (`features.conv0`, `features.denseblock1.denselayer1.norm1`, `features.transition1.norm`,
/// `features.norm5`, `classifier`), and its weights are initialized as torchvision's.
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
#[derive(Clone, State)]
pub struct DenseNet {
    /// The layers before the last ReLU.
    pub features: DenseFeatures,
    /// The classifier.
    pub classifier: Linear,
}

/// The layers of a [`DenseNet`] before the last ReLU, the pooling and the classifier.
#[derive(Clone, Debug, State)]
pub struct DenseFeatures {
    /// The first layers.
    #[state(flatten(conv = "conv0", norm = "norm0"))]
    pub stem: Stem,
    /// The dense blocks `denseblock1`, `denseblock2` and so on, with the transitions `transition1`
    /// and so on that follow them.
    #[state(flatten(block = "denseblock{n}", transition = "transition{n}"))]
    pub stages: Vec<DenseStage>,
    /// The norm after the last block, which torchvision calls `norm5` whatever the number of
    /// blocks.
    #[state(rename = "norm5")]
    pub norm: BatchNorm2d,
}

/// A dense block, and the transition that follows it.
#[derive(Clone, Debug, State)]
pub struct DenseStage {
    /// The dense block.
    pub block: DenseBlock,
    /// The transition; the last block has none.
    pub transition: Option<Transition>,
}

impl Module for DenseNet {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        x.tape().enter(self, || classify(&self.forward_features(x)?, &self.classifier))
    }
}

impl Model for DenseNet {
    fn forward_features<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let tape = x.tape();
        tape.enter(self, || match tape.captures(&self.features) {
            true => Ok(self.features.forward(x)?.relu()),
            false => self.features.forward_norm(x, true),
        })
    }
    fn classifier(&self) -> &Linear {
        &self.classifier
    }
    fn classifier_mut(&mut self) -> &mut Linear {
        &mut self.classifier
    }
    fn norms_mut(&mut self) -> Vec<(String, &mut BatchNorm2d)> {
        let names = norm_names(self);
        let DenseFeatures { stem, stages, norm } = &mut self.features;
        let mut norms = vec![];
        stem.norms_mut(&mut norms);
        for DenseStage { block, transition } in stages {
            block.norms_mut(&mut norms);
            transition.norms_mut(&mut norms);
        }
        norm.norms_mut(&mut norms);
        named(&names, norms)
    }
}

impl Module for DenseFeatures {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        self.forward_norm(x, false)
    }
}

impl DenseFeatures {
    /// Returns the last norm's output, or the ReLU of it in the same pass over memory.
    fn forward_norm<'t>(&self, x: &Var<'t>, relu: bool) -> Result<Var<'t>> {
        x.tape().enter(self, || {
            let (mut x, mut moments) = (self.stem.forward(x)?, None);
            for DenseStage { block, transition } in &self.stages {
                (x, moments) = block.forward_moments(&x)?;
                if let Some(transition) = transition {
                    let moments: Option<Moments> = moments.take();
                    x = transition.forward_with(&x, moments.as_ref())?;
                }
            }
            self.norm.forward_fused(&x, Fused { moments: moments.as_ref(), residual: None, relu })
        })
    }
}

impl DenseNet {
    /// Makes DenseNet-121, -161, -169 or -201, as torchvision's, for images of about 224 x 224.
    ///
    /// # Errors
    /// [`Error::UnknownName`] for another depth, [`Error::Argument`] for no classes.
    pub fn imagenet(depth: usize, classes: usize, rng: &mut Rng) -> Result<DenseNet> {
        DenseNet::new(&DenseNetConfig::imagenet(depth, classes)?, rng)
    }

    /// Makes DenseNet-BC for images of 32 x 32: the paper has depth and growth rate (100, 12),
    /// (250, 24) and (190, 40).
    ///
    /// # Errors
    /// [`Error::Argument`] for a depth that is not 6n + 4, no growth or no classes.
    pub fn bc(depth: usize, growth_rate: usize, classes: usize, rng: &mut Rng) -> Result<DenseNet> {
        DenseNet::new(&DenseNetConfig::bc(depth, growth_rate, classes)?, rng)
    }

    /// Makes DenseNet without bottlenecks and compression for images of 32 x 32: the paper has
    /// depth and growth rate (40, 12), (100, 12) and (100, 24).
    ///
    /// # Errors
    /// [`Error::Argument`] for a depth that is not 3n + 4, no growth or no classes.
    pub fn plain(depth: usize, growth_rate: usize, classes: usize, rng: &mut Rng) -> Result<DenseNet> {
        DenseNet::new(&DenseNetConfig::plain(depth, growth_rate, classes)?, rng)
    }

    /// Makes any densely connected network.
    ///
    /// # Errors
    /// [`Error::Argument`], with the path of the layer, for settings that make no network.
    pub fn new(config: &DenseNetConfig, rng: &mut Rng) -> Result<DenseNet> {
        if config.layers.is_empty() {
            return Err(Error::argument("densenet", "layers", "at least one block", 0));
        }
        if !(config.compression > 0.0 && config.compression <= 1.0) {
            return Err(Error::argument("densenet", "compression", "a share in (0, 1]", config.compression));
        }
        let features = DenseFeatures::new(config, rng).at("features")?;
        let mut classifier =
            Linear::new(features.norm.num_channels(), config.classes, rng).at("classifier")?;
        if let Some(bias) = &mut classifier.bias {
            bias.value_mut().data_mut().fill(0.0);
        }
        Ok(DenseNet { features, classifier })
    }
}

impl DenseFeatures {
    fn new(config: &DenseNetConfig, rng: &mut Rng) -> Result<DenseFeatures> {
        let stem = Stem::builder(config.stem, config.channels, config.width).fan(Fan::In);
        let stem = stem.build(rng).at("conv0")?;
        let begin = if config.bottleneck { DenseBlock::bottleneck } else { DenseBlock::plain };
        let (mut stages, mut channels) = (vec![], config.width);
        for (i, &num_layers) in config.layers.iter().enumerate() {
            let block = begin(channels, config.growth_rate, num_layers).dropout(config.dropout);
            let block = block.build(rng).at(format_args!("denseblock{}", i + 1))?;
            channels = block.out_channels();
            let mut transition = None;
            if i + 1 < config.layers.len() {
                let kept = config.compressed(channels);
                let made = Transition::new(channels, kept, rng);
                transition = Some(made.at(format_args!("transition{}", i + 1))?);
                channels = kept;
            }
            stages.push(DenseStage { block, transition });
        }
        Ok(DenseFeatures { stem, stages, norm: BatchNorm2d::new(channels)? })
    }
}
