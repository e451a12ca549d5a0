//! The settings of a training, and how those of a resumed one differ.

use super::{Distillation, EarlyStopping, Ema, Loss, OnDivergence};
use crate::{
    Error, Precision, Result,
    optim::{NamedSettings, Plateau, Schedule, null_as_infinity},
};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;

/// The settings of a training that hold for all of its steps and are part of its checkpoints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Settings {
    /// Name of the model, as in [`models::build`](crate::models::build). The trainer does not use
    /// it.
    pub model: String,
    /// Number of passes over the training images.
    pub epochs: usize,
    /// Learning rate of every step.
    pub schedule: Schedule,
    /// Seed of the random numbers of a step, which are keyed by (seed, epoch, batch).
    pub seed: u64,
    /// Fraction of each target that is spread over all classes, in [0, 1).
    pub label_smoothing: f32,
    /// Largest Euclidean norm of all gradients together, if they are clipped.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_or_infinity")]
    pub clip_norm: Option<f32>,
    /// Number of parts in which a batch is computed, at least 1.
    pub micro_batches: usize,
    /// What happens when a value is not finite.
    #[serde(default)]
    pub on_divergence: OnDivergence,
    /// The type in which convolutions and linear layers multiply, also in evaluations.
    #[serde(default)]
    pub precision: Precision,
    /// How weights and statistics are averaged, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ema: Option<Ema>,
    /// The loss that is minimized.
    #[serde(default)]
    pub loss: Loss,
    /// How much is learned from a teacher, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distillation: Option<Distillation>,
    /// When the training ends before all epochs are finished, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<EarlyStopping>,
    /// How the learning rate is reduced where the test loss does not fall, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plateau: Option<Plateau>,
}

fn some_or_infinity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f32>, D::Error> {
    null_as_infinity(deserializer).map(Some)
}

impl Settings {
    /// Checks that the settings are in range.
    pub(super) fn check(&self) -> Result<()> {
        if self.micro_batches == 0 {
            return Err(Error::argument("train", "micro_batches", "at least 1", 0));
        }
        if let Some(norm) = self.clip_norm.filter(|norm| norm.is_nan() || *norm <= 0.0) {
            return Err(Error::argument("train", "clip_norm", "more than 0", norm));
        }
        if !(0.0..1.0).contains(&self.label_smoothing) {
            let found = self.label_smoothing;
            return Err(Error::argument("train", "label_smoothing", "at least 0 and below 1", found));
        }
        if let Some(ema) = &self.ema {
            ema.check()?;
        }
        if let Some(distillation) = &self.distillation {
            distillation.check()?;
        }
        if let Some(early_stopping) = &self.early_stopping {
            early_stopping.check()?;
        }
        if let Some(plateau) = &self.plateau {
            plateau.check()?;
        }
        self.on_divergence.check()
    }
}

/// A setting that differs from the one that a checkpoint was written with.
///
/// ```
/// use skipgrad::train::Change;
/// let change = Change::new("epochs", 30, 60);
/// assert_eq!(change.to_string(), "epochs: 30 before, 60 now");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Change {
    /// The name of the setting: `epochs`, `weight_decay`, `test images`.
    pub name: String,
    /// The value in the checkpoint.
    pub before: String,
    /// The value from now on.
    pub now: String,
}

impl Change {
    /// Makes a change from values that can be displayed.
    pub fn new(name: impl Into<String>, before: impl fmt::Display, now: impl fmt::Display) -> Change {
        Change { name: name.into(), before: before.to_string(), now: now.to_string() }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} before, {} now", self.name, self.before, self.now)
    }
}

/// Which settings the caller of a trainer asked for. The number of epochs and the schedule are
/// always asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Requested {
    pub(super) model: bool,
    pub(super) seed: bool,
    pub(super) label_smoothing: bool,
    pub(super) clip_norm: bool,
    pub(super) micro_batches: bool,
    pub(super) on_divergence: bool,
    pub(super) precision: bool,
    pub(super) ema: bool,
    pub(super) loss: bool,
    pub(super) distillation: bool,
    pub(super) early_stopping: bool,
    pub(super) plateau: bool,
}

impl Requested {
    /// Everything is asked for.
    pub(super) const ALL: Requested = Requested {
        model: true,
        seed: true,
        label_smoothing: true,
        clip_norm: true,
        micro_batches: true,
        on_divergence: true,
        precision: true,
        ema: true,
        loss: true,
        distillation: true,
        early_stopping: true,
        plateau: true,
    };

    /// Returns the settings of a resumed training, those that were asked for and otherwise the
    /// checkpoint's, and what changes.
    ///
    /// # Errors
    /// [`Error::Argument`] for another name of the model and another seed than the checkpoint's.
    pub(super) fn resume(self, asked: &Settings, saved: &Settings) -> Result<(Settings, Vec<Change>)> {
        if self.model && !saved.model.is_empty() && asked.model != saved.model {
            return Err(refused("model_name", format!("{:?}", saved.model), format!("{:?}", asked.model)));
        }
        if self.seed && asked.seed != saved.seed {
            return Err(refused("seed", saved.seed, asked.seed));
        }
        let (mut now, mut changes) = (saved.clone(), vec![]);
        if self.model {
            now.model.clone_from(&asked.model);
        }
        let mut change = |name: &str, before: &dyn fmt::Debug, now: &dyn fmt::Debug| {
            changes.push(Change::new(name, format_args!("{before:?}"), format_args!("{now:?}")));
        };
        macro_rules! take {
            ($($field:ident if $requested:expr;)+) => {$(
                if $requested && asked.$field != saved.$field {
                    change(stringify!($field), &saved.$field, &asked.$field);
                    now.$field = asked.$field.clone();
                }
            )+};
        }
        take! {
            epochs if true;
            schedule if true;
            label_smoothing if self.label_smoothing;
            clip_norm if self.clip_norm;
            micro_batches if self.micro_batches;
            on_divergence if self.on_divergence;
            precision if self.precision;
            ema if self.ema;
            loss if self.loss;
            distillation if self.distillation;
            early_stopping if self.early_stopping;
            plateau if self.plateau;
        }
        Ok((now, changes))
    }
}

/// Returns the error for a setting that a resumed training cannot change.
fn refused(argument: &'static str, saved: impl fmt::Display, asked: impl fmt::Display) -> Error {
    let expected = format!("{saved}, which the checkpoint was written with");
    Error::argument("resume", argument, expected, asked)
}

/// Returns how the settings of an optimizer differ from those in a checkpoint; nothing if the
/// checkpoint has none.
pub(super) fn optimizer_changes(before: &NamedSettings, now: &NamedSettings) -> Vec<Change> {
    if before.is_empty() {
        return vec![];
    }
    let names = before.keys().chain(now.keys().filter(|name| !before.contains_key(*name)));
    let value = |settings: &NamedSettings, name: &str| settings.get(name).cloned().unwrap_or("none".into());
    let changes = names.map(|name| Change::new(name.clone(), value(before, name), value(now, name)));
    changes.filter(|change| change.before != change.now).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            model: "resnet20".into(),
            epochs: 30,
            schedule: Schedule::constant(0.1),
            seed: 1,
            label_smoothing: 0.1,
            clip_norm: None,
            micro_batches: 1,
            on_divergence: OnDivergence::Stop,
            precision: Precision::F32,
            ema: None,
            loss: Loss::CrossEntropy,
            distillation: None,
            early_stopping: None,
            plateau: None,
        }
    }

    #[test]
    fn what_was_not_asked_for_is_the_checkpoints() {
        let asked = Settings { label_smoothing: 0.0, model: String::new(), seed: 0, ..settings() };
        let (now, changes) = Requested::default().resume(&asked, &settings()).unwrap();
        assert_eq!((now, changes), (settings(), vec![]));
    }

    #[test]
    fn what_was_asked_for_is_taken_and_said() {
        let asked = Settings {
            epochs: 60,
            schedule: Schedule::constant(0.2),
            label_smoothing: 0.0,
            clip_norm: Some(1.0),
            micro_batches: 2,
            on_divergence: OnDivergence::SkipStep { max_consecutive: 3 },
            precision: Precision::Bf16,
            ema: Some(Ema::new(0.9)),
            loss: Loss::BceWithLogits { pos_weight: None },
            distillation: Some(Distillation::new(2.0)),
            early_stopping: Some(EarlyStopping::new(3)),
            plateau: Some(Plateau::new()),
            ..settings()
        };
        let (now, changes) = Requested::ALL.resume(&asked, &settings()).unwrap();
        assert_eq!(now, asked);
        let names: Vec<&str> = changes.iter().map(|change| &*change.name).collect();
        assert_eq!(
            names,
            [
                "epochs",
                "schedule",
                "label_smoothing",
                "clip_norm",
                "micro_batches",
                "on_divergence",
                "precision",
                "ema",
                "loss",
                "distillation",
                "early_stopping",
                "plateau"
            ]
        );
        assert_eq!(changes[3].to_string(), "clip_norm: None before, Some(1.0) now");
    }

    #[test]
    fn another_model_and_another_seed_are_refused_by_name() {
        let error = |asked: Settings| Requested::ALL.resume(&asked, &settings()).unwrap_err().to_string();
        assert_eq!(
            error(Settings { model: "resnet32".into(), ..settings() }),
            "resume: model_name: expected \"resnet20\", which the checkpoint was written with, found \"resnet32\""
        );
        assert_eq!(
            error(Settings { seed: 2, ..settings() }),
            "resume: seed: expected 1, which the checkpoint was written with, found 2"
        );
    }

    #[test]
    fn settings_of_an_optimizer_are_compared_by_name() {
        let settings = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect::<NamedSettings>()
        };
        let before = settings(&[("momentum", "0.9"), ("optimizer", "sgd")]);
        let now = settings(&[("betas", "[0.9, 0.999]"), ("optimizer", "adamw")]);
        let changes: Vec<String> = optimizer_changes(&before, &now).iter().map(Change::to_string).collect();
        assert_eq!(
            changes,
            [
                "momentum: 0.9 before, none now",
                "optimizer: sgd before, adamw now",
                "betas: none before, [0.9, 0.999] now"
            ]
        );
        assert!(optimizer_changes(&NamedSettings::new(), &now).is_empty(), "an old checkpoint has none");
    }
}
