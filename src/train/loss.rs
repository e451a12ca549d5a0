//! The loss that a trainer minimizes.

use crate::{
    Error, Result, Tensor,
    autograd::Var,
    inference::InferenceModel,
    ops::{BceOptions, FocalOptions, Targets},
};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt, sync::Arc};

/// The loss that a [`Trainer`](super::Trainer) minimizes. Labels are one-hot targets for those
/// losses that ask about each class apart; mixed images have their own targets. The loss of
/// [`Metrics`](super::Metrics) is the cross entropy, whatever is minimized.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Loss {
    /// The cross entropy ([`Var::cross_entropy`]).
    #[default]
    CrossEntropy,
    /// The cross entropy with a weight for each class ([`Targets::class_weights`]).
    WeightedCrossEntropy {
        /// Weight of each class, K numbers of at least 0, and above 0 for a label of each batch.
        class_weights: Vec<f32>,
    },
    /// The binary cross entropy ([`Var::bce_with_logits`]), as in the recipe of Wightman et al.
    /// 2021, "ResNet strikes back". It is a mean over images and classes.
    BceWithLogits {
        /// Weight of the positive targets of each class, K numbers of at least 0.
        pos_weight: Option<Vec<f32>>,
    },
    /// The focal loss ([`Var::focal_loss`]). It is a mean over images and classes.
    Focal {
        /// Weight of the targets of 1, in [0, 1].
        alpha: Option<f32>,
        /// Exponent of the probability of the wrong answer, at least 0.
        gamma: f32,
    },
}

impl Loss {
    /// Computes the loss of logits `[N, K]` for N labels or, of mixed images, for targets `[N, K]`.
    ///
    /// # Errors
    /// The errors of the operation.
    pub(super) fn compute<'t>(
        &self,
        logits: &Var<'t>,
        labels: &[usize],
        mixed: Option<&Tensor>,
        smoothing: f32,
    ) -> Result<Var<'t>> {
        let classes = || mixed.map_or(Targets::classes(labels), Targets::soft).smoothed(smoothing);
        let answers = || answers(logits, labels, mixed, smoothing);
        match self {
            Loss::CrossEntropy => logits.cross_entropy(classes()),
            Loss::WeightedCrossEntropy { class_weights } => {
                logits.cross_entropy(classes().class_weights(class_weights))
            }
            Loss::BceWithLogits { pos_weight } => {
                logits.bce_with_logits(&*answers()?, &BceOptions { pos_weight: pos_weight.clone() })
            }
            Loss::Focal { alpha, gamma } => {
                logits.focal_loss(&*answers()?, &FocalOptions { alpha: *alpha, gamma: *gamma })
            }
        }
    }

    /// Returns a label that counts.
    pub(super) fn some_label(&self) -> usize {
        match self {
            Loss::WeightedCrossEntropy { class_weights } => {
                class_weights.iter().position(|&weight| weight > 0.0).unwrap_or(0)
            }
            _ => 0,
        }
    }
}

/// Returns the targets `[N, K]` of losses that ask about each class apart, smoothed.
fn answers<'a>(
    logits: &Var<'_>,
    labels: &[usize],
    mixed: Option<&'a Tensor>,
    smoothing: f32,
) -> Result<Cow<'a, Tensor>> {
    let classes = logits.shape().num_channels();
    if let Some(mixed) = mixed
        && smoothing == 0.0
    {
        return Ok(Cow::Borrowed(mixed));
    }
    let target = |i: usize| match mixed {
        Some(mixed) => mixed.data().get(i).copied().unwrap_or(0.0),
        None => f32::from(u8::from(labels.get(i / classes) == Some(&(i % classes)))),
    };
    let smoothed = |i: usize| (1.0 - smoothing) * target(i) + smoothing / classes as f32;
    Ok(Cow::Owned(Tensor::from_fn([labels.len(), classes], smoothed)?))
}

/// How much a [`Trainer`](super::Trainer) learns from a teacher
/// ([`Trainer::distill`](super::Trainer::distill)).
///
/// ```
/// use skipgrad::train::Distillation;
/// let distillation = Distillation::new(4.0).alpha(0.9);
/// assert_eq!((distillation.temperature, distillation.alpha), (4.0, 0.9));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Distillation {
    /// What the logits of both networks are divided by, above 0.
    pub temperature: f32,
    /// Fraction of the loss that is the divergence from the teacher, in [0, 1]; the rest is that of
    /// the labels.
    pub alpha: f32,
}

impl Distillation {
    /// Creates the settings with a temperature, above 0, and half of the loss from the teacher.
    pub fn new(temperature: f32) -> Distillation {
        Distillation { temperature, alpha: 0.5 }
    }

    /// Sets the fraction of the loss that is the divergence from the teacher, in [0, 1].
    #[must_use]
    pub fn alpha(self, alpha: f32) -> Distillation {
        Distillation { alpha, ..self }
    }

    /// Checks that the settings are in range.
    pub(super) fn check(&self) -> Result<()> {
        if !(self.temperature > 0.0 && self.temperature.is_finite()) {
            let expected = "a finite number above 0";
            return Err(Error::argument("distillation", "temperature", expected, self.temperature));
        }
        if !(0.0..=1.0).contains(&self.alpha) {
            return Err(Error::argument("distillation", "alpha", "a number in [0, 1]", self.alpha));
        }
        Ok(())
    }
}

/// A network to learn from.
#[derive(Clone)]
pub(super) struct Teacher(pub(super) Arc<InferenceModel>);

impl fmt::Debug for Teacher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Teacher")
    }
}
