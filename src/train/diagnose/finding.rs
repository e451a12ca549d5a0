//! What a diagnosis finds.

use std::fmt;

/// What a [`Finding`] is about, the kinds in the order in which they are to be repaired: one may be
/// the cause of those after it.
///
/// ```
/// use skipgrad::train::FindingKind;
/// assert_eq!(FindingKind::DeadRelus.to_string(), "dead-relus");
/// assert!(FindingKind::InvalidLabels < FindingKind::ShuffledLabels);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FindingKind {
    /// Pixels, the loss or a gradient are not finite.
    NotFinite,
    /// The channels of the images have not about mean 0 and deviation 1.
    UnnormalizedInputs,
    /// A label is not the index of a logit.
    InvalidLabels,
    /// One class has most of the images, or classes do not occur.
    ImbalancedLabels,
    /// Batches are too small for the statistics of a batch normalization.
    SmallBatches,
    /// No parameter is trained.
    NothingTrainable,
    /// The last layer is not trained, while layers before it are.
    FrozenHead,
    /// All weights of a convolution are zero.
    ZeroConvolution,
    /// Many channels of a ReLU are zero for all images.
    DeadRelus,
    /// A layer that should be trained gets no gradient.
    NoGradient,
    /// The gradient of a layer is very small beside that of others.
    VanishingGradients,
    /// The gradient of a layer is very large beside that of the last one.
    ExplodingGradients,
    /// The loss before the first step is far above that of equal probabilities.
    HighInitialLoss,
    /// One step changes most of the weights by as much as they are.
    HighLearningRate,
    /// One step changes the weights by next to nothing.
    LowLearningRate,
    /// The model cannot memorize one batch.
    CannotOverfit,
    /// The labels look unrelated to the images.
    ShuffledLabels,
}

impl FindingKind {
    /// Returns the name, such as `dead-relus`.
    pub fn as_str(self) -> &'static str {
        match self {
            FindingKind::NotFinite => "not-finite",
            FindingKind::UnnormalizedInputs => "unnormalized-inputs",
            FindingKind::InvalidLabels => "invalid-labels",
            FindingKind::ImbalancedLabels => "imbalanced-labels",
            FindingKind::SmallBatches => "small-batches",
            FindingKind::NothingTrainable => "nothing-trainable",
            FindingKind::FrozenHead => "frozen-head",
            FindingKind::ZeroConvolution => "zero-convolution",
            FindingKind::DeadRelus => "dead-relus",
            FindingKind::NoGradient => "no-gradient",
            FindingKind::VanishingGradients => "vanishing-gradients",
            FindingKind::ExplodingGradients => "exploding-gradients",
            FindingKind::HighInitialLoss => "high-initial-loss",
            FindingKind::HighLearningRate => "high-learning-rate",
            FindingKind::LowLearningRate => "low-learning-rate",
            FindingKind::CannotOverfit => "cannot-overfit",
            FindingKind::ShuffledLabels => "shuffled-labels",
        }
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How serious a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Severity {
    /// It may be meant; otherwise it costs accuracy.
    Warning,
    /// The training will fail, or teach the model nothing.
    Error,
}

impl Severity {
    /// Returns `warning` or `error`.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Something that a [`Diagnosis`](super::Diagnosis) found, with advice.
///
/// It is displayed as one line: `error: dead-relus at layer1.0.bn1: All 16 channels of ...`.
///
/// ```
/// use skipgrad::train::{Finding, FindingKind, Severity};
/// let message = "The last layer is frozen. Thaw it, unless that is meant.";
/// let finding = Finding::new(FindingKind::FrozenHead, Severity::Warning, 650.0, message).at("fc");
/// assert_eq!(finding.to_string(), format!("warning: frozen-head at fc: {message}"));
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    kind: FindingKind,
    severity: Severity,
    path: Option<String>,
    value: f64,
    message: String,
}

impl Finding {
    /// Makes a finding about the whole model or its data.
    pub fn new(kind: FindingKind, severity: Severity, value: f64, message: impl Into<String>) -> Finding {
        Finding { kind, severity, path: None, value, message: message.into() }
    }

    /// Sets the path of the module that the finding is about.
    #[must_use]
    pub fn at(self, path: impl Into<String>) -> Finding {
        Finding { path: Some(path.into()), ..self }
    }

    /// Returns what the finding is about.
    pub fn kind(&self) -> FindingKind {
        self.kind
    }

    /// Returns how serious it is.
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// Returns the path of the module, in the names of weights files, if it is about a single one.
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// Returns the measured value, of which the message says what it is: a share in [0, 1], a loss
    /// in nats, a ratio, a number of images.
    pub fn value(&self) -> f64 {
        self.value
    }

    /// Returns what was found and what to do about it, in whole sentences.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { kind, severity, path, message, .. } = self;
        write!(f, "{severity}: {kind}")?;
        if let Some(path) = path {
            write!(f, " at {path}")?;
        }
        write!(f, ": {message}")
    }
}
