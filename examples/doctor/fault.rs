//! Faults to be planted.

use clap::ValueEnum;
use skipgrad::{
    Result, Rng,
    autograd::{State, StateMut},
    data::Images,
    models::Model,
    train::FindingKind,
};

/// A fault to be planted.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Fault {
    /// The labels are shuffled, and the images are not.
    ShuffledLabels,
    /// The images are not normalized.
    UnnormalizedImages,
    /// The learning rate is 100 times as high.
    HighLearningRate,
    /// The classifier is frozen.
    FrozenHead,
    /// The weights of a convolution are zero.
    ZeroConvolution,
    /// 95 % of the images are of one class.
    ImbalancedLabels,
    /// A bias of -10 before a ReLU.
    DeadRelu,
}

impl Fault {
    /// Returns what a diagnosis is to find.
    pub(crate) fn finding(self) -> FindingKind {
        match self {
            Fault::ShuffledLabels => FindingKind::ShuffledLabels,
            Fault::UnnormalizedImages => FindingKind::UnnormalizedInputs,
            Fault::HighLearningRate => FindingKind::HighLearningRate,
            Fault::FrozenHead => FindingKind::FrozenHead,
            Fault::ZeroConvolution => FindingKind::ZeroConvolution,
            Fault::ImbalancedLabels => FindingKind::ImbalancedLabels,
            Fault::DeadRelu => FindingKind::DeadRelus,
        }
    }

    /// Plants the fault, and says where.
    pub(crate) fn plant(
        self,
        images: &mut Images,
        lr: &mut f32,
        model: &mut dyn Model,
        rng: &mut Rng,
    ) -> Result<String> {
        Ok(match self {
            Fault::ShuffledLabels => {
                let mut labels = images.labels(0..images.len())?.to_vec();
                rng.shuffle(&mut labels);
                *images = relabeled(images, labels)?;
                "shuffled labels".to_string()
            }
            Fault::ImbalancedLabels => {
                let labels = images.labels(0..images.len())?;
                let labels = labels.iter().map(|&label| if rng.chance(0.95) { 3 } else { label }).collect();
                *images = relabeled(images, labels)?;
                "95 % of the images have the label 3".to_string()
            }
            Fault::UnnormalizedImages => "images without `Normalize`".to_string(),
            Fault::HighLearningRate => {
                *lr *= 100.0;
                format!("a learning rate of {lr}")
            }
            Fault::FrozenHead => {
                model.classifier_mut().freeze("*")?;
                "a frozen classifier".to_string()
            }
            Fault::ZeroConvolution => fill(model, 4, "conv1.weight", 0.0),
            Fault::DeadRelu => fill(model, 1, "1.bias", -10.0),
        })
    }
}

/// The most images that get other labels: they are copied.
const RELABELED: usize = 10_000;

/// Returns the first images with other labels.
fn relabeled(images: &Images, mut labels: Vec<usize>) -> Result<Images> {
    labels.truncate(RELABELED);
    Images::new(images.images(0..labels.len())?, labels, images.classes())
}

/// Fills the last of the parameters of this rank whose names end so, and returns its name.
fn fill(model: &mut dyn Model, rank: usize, ending: &str, value: f32) -> String {
    let mut last = String::new();
    model.visit("", &mut |name, state| {
        if name.ends_with(ending) && state.value().shape().rank() == rank {
            last = name.to_string();
        }
    });
    model.visit_mut("", &mut |name, state| {
        if let StateMut::Param(param) = state
            && name == last
        {
            param.value_mut().data_mut().fill(value);
        }
    });
    format!("{last} is {value}")
}
