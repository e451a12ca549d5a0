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

mod config;

pub(super) use config::names;
pub use config::{Naming, ResNetConfig};

use super::{Model, classify};
use crate::{
    At, Error, Result, Rng,
    autograd::{State, StateMut, StateRef, Var, join},
    blocks::{ResBlock, ResBlockBuilder, Stem, StemBuilder, StemKind},
    nn::{BatchNorm2d, Linear, Module, init::Fan},
};

/// A residual network: a stem, stages of blocks, a last norm if its blocks begin with theirs, a classifier.
///
/// `[N, H, W, channels]` to `[N, classes]`, for images of any size that leaves a pixel. State: torchvision's names
/// (`conv1`, `bn1`, `layer1.0.conv1`, `layer2.0.downsample.0`, `fc`; the classifier of the CIFAR networks is `linear`), and for
/// networks that torchvision has not those of where they are published, see [`Naming`].
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
                .zero_init_residual(config.zero_init_residual)
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
        let (tape, naming) = (x.tape(), self.naming);
        let stem = match naming.stem()[0] {
            "" => self.stem.forward(x)?,
            name => tape.scope(name, || self.stem.forward(x))?,
        };
        let mut stages = self.stages.iter().enumerate();
        let maps =
            stages.try_fold(stem, |x, (i, stage)| tape.scope(naming.stage(i), || stage.forward(&x)))?;
        match &self.norm {
            Some(norm) => norm.apply_as(naming.norm(), &maps, None, None, true),
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
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, StateRef<'_>)) {
        let naming = self.naming;
        self.stem.visit(&stem_path(path, naming), f);
        self.stages.iter().enumerate().for_each(|(i, stage)| stage.visit(&join(path, naming.stage(i)), f));
        self.norm.visit(&join(path, naming.norm()), f);
        self.head.visit(&join(path, self.head_name), f);
    }
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, StateMut<'_>)) {
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
