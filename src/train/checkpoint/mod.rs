//! Checkpoints: a training in one file, from which it continues as if it had never stopped.
//!
//! The file is in the safetensors format. It holds the model's tensors under `model.`, the
//! optimizer's under `optimizer.`, and the settings, the position and the history as texts in its
//! metadata. Where a training may go back to the beginning of an epoch, the state at that time is
//! under `rollback.model.` and `rollback.optimizer.`. Averages of the weights are under `ema.` and
//! `rollback.ema.`. Random numbers are keyed by the seed and the position, so no other random state
//! is needed.

mod text;

use super::{History, ModelEma, Settings, ema::check_fit, loader_info::LoaderInfo};
use crate::{
    Error, Result,
    autograd::{NamedTensors, State},
    io,
    optim::{NamedSettings, Optimizer},
};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The position of a training: the number of epochs and batches that are finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// Number of finished epochs.
    pub epoch: usize,
    /// Number of finished batches of the next epoch.
    pub batch: usize,
}

/// Sums over the finished batches of the current epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Sums {
    /// Number of images in steps that were not skipped.
    pub(super) images: usize,
    pub(super) correct: usize,
    pub(super) loss: f64,
    pub(super) seconds: f64,
    #[serde(default)]
    pub(super) skipped_steps: usize,
    #[serde(default)]
    pub(super) skipped_images: usize,
}

/// Everything that changes from step to step, apart from the model and the optimizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Progress {
    pub(super) position: Position,
    pub(super) sums: Sums,
    /// The training loader, once there was one. In formats 1 and 2 it is called `loader`.
    #[serde(alias = "loader")]
    pub(super) train: Option<LoaderInfo>,
    /// The test loader, once there was one.
    #[serde(default)]
    pub(super) test: Option<LoaderInfo>,
    /// Factor of the schedule's learning rate, which rollbacks reduce.
    #[serde(default = "one")]
    pub(super) lr_scale: f32,
    /// Number of rollbacks so far.
    #[serde(default)]
    pub(super) rollbacks: usize,
    /// Number of steps that were skipped since the last one that was not.
    #[serde(default)]
    pub(super) consecutive_skipped: usize,
    /// Number of updates of the average of the weights, if there is one.
    #[serde(default)]
    pub(super) ema_updates: usize,
    #[serde(skip)]
    pub(super) history: History,
}

fn one() -> f32 {
    1.0
}

impl Default for Progress {
    fn default() -> Progress {
        Progress {
            position: Position::default(),
            sums: Sums::default(),
            train: None,
            test: None,
            lr_scale: 1.0,
            rollbacks: 0,
            consecutive_skipped: 0,
            ema_updates: 0,
            history: History::default(),
        }
    }
}

/// A state of a training: everything that changes from step to step.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) progress: Progress,
    model: NamedTensors,
    optimizer: NamedTensors,
    /// The averages of the weights; none if the training has none.
    ema: NamedTensors,
}

impl Snapshot {
    pub(super) fn capture(
        progress: &Progress,
        ema: Option<&ModelEma>,
        model: &dyn State,
        optimizer: &dyn Optimizer,
    ) -> Snapshot {
        Snapshot {
            progress: progress.clone(),
            model: model.export(),
            optimizer: optimizer.export(),
            ema: ema.map(|ema| ema.tensors().clone()).unwrap_or_default(),
        }
    }

    /// Returns the number of finished epochs.
    pub(super) fn epoch(&self) -> usize {
        self.progress.position.epoch
    }

    /// Copies the weights into a model, and returns the averages.
    ///
    /// # Errors
    /// [`Error::State`] if the snapshot is of another model, which is unchanged then.
    pub(super) fn load_model(self, model: &mut dyn State) -> Result<NamedTensors> {
        model.import(self.model)?;
        Ok(self.ema)
    }

    /// Restores the model and the optimizer, and returns the progress and the averages.
    ///
    /// # Errors
    /// [`Error::State`] if the snapshot is of another model or optimizer; neither is changed then.
    pub(super) fn restore(
        self,
        model: &mut dyn State,
        optimizer: &mut dyn Optimizer,
    ) -> Result<(Progress, NamedTensors)> {
        let before = model.export();
        if !self.ema.is_empty() {
            check_fit(&self.ema, &before)?;
        }
        model.import(self.model)?;
        if let Err(error) = optimizer.import(model, self.optimizer) {
            model.import(before)?;
            return Err(error);
        }
        Ok((self.progress, self.ema))
    }
}

/// The state of a training after one of its steps: settings, position, history, model and
/// optimizer.
///
/// ```no_run
/// use skipgrad::{Rng, models::{self, ModelOptions}, train::Checkpoint};
/// let checkpoint = Checkpoint::read("out/best.checkpoint")?;
/// let name = &checkpoint.settings().model;
/// let mut model = models::build(name, &ModelOptions::classes(10), &mut Rng::seed(0))?;
/// checkpoint.load_model(&mut model)?;
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The file that the checkpoint was read from.
    file: Option<PathBuf>,
    settings: Settings,
    optimizer_settings: NamedSettings,
    state: Snapshot,
    /// The state that the training may go back to, if it is another one.
    rollback: Option<Snapshot>,
}

/// What the texts of a checkpoint say.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Header {
    pub(super) settings: Settings,
    pub(super) optimizer_settings: NamedSettings,
    pub(super) progress: Progress,
    pub(super) rollback: Option<Progress>,
}

/// The prefixes of the names of tensors, in the order in which a name is compared with them.
const ROLLBACK_MODEL: &str = "rollback.model.";
const ROLLBACK_OPTIMIZER: &str = "rollback.optimizer.";
const ROLLBACK_EMA: &str = "rollback.ema.";
const MODEL: &str = "model.";
const OPTIMIZER: &str = "optimizer.";
const EMA: &str = "ema.";
const PREFIXES: [&str; 6] = [ROLLBACK_MODEL, ROLLBACK_OPTIMIZER, ROLLBACK_EMA, MODEL, OPTIMIZER, EMA];

impl Checkpoint {
    pub(super) fn capture(
        settings: &Settings,
        progress: &Progress,
        rollback: Option<&Snapshot>,
        ema: Option<&ModelEma>,
        model: &dyn State,
        optimizer: &dyn Optimizer,
    ) -> Checkpoint {
        Checkpoint {
            file: None,
            settings: settings.clone(),
            optimizer_settings: optimizer.settings(model),
            state: Snapshot::capture(progress, ema, model, optimizer),
            rollback: rollback.cloned(),
        }
    }

    /// Reads a checkpoint.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Malformed`] if it is not a checkpoint, is
    /// truncated or has another version.
    pub fn read(path: impl AsRef<Path>) -> Result<Checkpoint> {
        let path = path.as_ref();
        let file = io::WeightsFile::open(path)?;
        let header = text::decode(path, file.metadata())?;
        let mut tensors: [NamedTensors; 6] = Default::default();
        for (name, tensor) in file.read_all()? {
            let found = PREFIXES.iter().zip(&mut tensors);
            match found.filter_map(|(prefix, to)| Some((name.strip_prefix(prefix)?, to))).next() {
                Some((name, to)) => to.insert(name.to_string(), tensor),
                None => return Err(Error::malformed(path, "names", "model.* or optimizer.*", name)),
            };
        }
        let [rollback_model, rollback_optimizer, rollback_ema, model, optimizer, ema] = tensors;
        let rollback = header.rollback.map(|progress| Snapshot {
            progress,
            model: rollback_model,
            optimizer: rollback_optimizer,
            ema: rollback_ema,
        });
        Ok(Checkpoint {
            file: Some(path.to_path_buf()),
            settings: header.settings,
            optimizer_settings: header.optimizer_settings,
            state: Snapshot { progress: header.progress, model, optimizer, ema },
            rollback,
        })
    }

    /// Reads what the texts of a checkpoint say, and none of its tensors.
    ///
    /// # Errors
    /// As [`Checkpoint::read`].
    pub(super) fn read_header(path: &Path) -> Result<Header> {
        text::decode(path, io::WeightsFile::open(path)?.metadata())
    }

    /// Writes the checkpoint atomically: at every moment the path holds the old file or the new
    /// one.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let none = NamedTensors::new();
        let rollback = self.rollback.as_ref();
        let parts = [
            rollback.map_or(&none, |state| &state.model),
            rollback.map_or(&none, |state| &state.optimizer),
            rollback.map_or(&none, |state| &state.ema),
            &self.state.model,
            &self.state.optimizer,
            &self.state.ema,
        ];
        let named = PREFIXES.iter().zip(parts).flat_map(|(prefix, tensors)| {
            tensors.iter().map(move |(name, tensor)| (format!("{prefix}{name}"), tensor.clone()))
        });
        let header = Header {
            settings: self.settings.clone(),
            optimizer_settings: self.optimizer_settings.clone(),
            progress: self.state.progress.clone(),
            rollback: rollback.map(|state| state.progress.clone()),
        };
        io::write(path, &named.collect(), &text::encode(&header))
    }

    /// Returns the settings of the training.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the settings of the optimizer; none if an older version wrote the checkpoint.
    pub fn optimizer_settings(&self) -> &NamedSettings {
        &self.optimizer_settings
    }

    /// Returns the position of the training.
    pub fn position(&self) -> Position {
        self.state.progress.position
    }

    /// Returns the records of all finished epochs.
    pub fn history(&self) -> &History {
        &self.state.progress.history
    }

    /// Returns the state of the training.
    pub(super) fn into_snapshot(self) -> Snapshot {
        self.state
    }

    /// Copies the checkpoint's weights and statistics into a model.
    ///
    /// # Errors
    /// [`Error::State`] that names the file and lists everything that does not fit if the
    /// checkpoint is of another model; the model is unchanged then.
    pub fn load_model(&self, model: &mut (impl State + ?Sized)) -> Result<()> {
        model.import(self.state.model.clone()).map_err(|error| error.with_file(self.file.as_deref()))
    }

    /// Returns the averages of the weights and statistics ([`Trainer::ema`](super::Trainer::ema)),
    /// by name; none if the training had no average.
    pub fn ema(&self) -> Option<&NamedTensors> {
        Some(&self.state.ema).filter(|ema| !ema.is_empty())
    }

    /// Copies the averages of the weights and statistics into a model.
    ///
    /// # Errors
    /// [`Error::Argument`] if the checkpoint has none; [`Error::State`] that names the file and
    /// lists everything that does not fit if the checkpoint is of another model. The model is
    /// unchanged then.
    pub fn load_ema(&self, model: &mut (impl State + ?Sized)) -> Result<()> {
        match self.ema() {
            Some(ema) => model.import(ema.clone()).map_err(|error| error.with_file(self.file.as_deref())),
            None => {
                let expected = "a checkpoint of a training with Trainer::ema";
                Err(Error::argument("checkpoint", "ema", expected, "one without averages"))
            }
        }
    }

    /// Restores the model and the optimizer, and returns the progress, the averages, and the state
    /// that the training may go back to.
    ///
    /// # Errors
    /// [`Error::State`] that names the file if the checkpoint is of another model or optimizer;
    /// neither is changed then.
    pub(super) fn restore(
        self,
        model: &mut dyn State,
        optimizer: &mut dyn Optimizer,
    ) -> Result<(Progress, NamedTensors, Option<Snapshot>)> {
        let named = |error: Error| error.with_file(self.file.as_deref());
        let (progress, ema) = self.state.restore(model, optimizer).map_err(named)?;
        Ok((progress, ema, self.rollback))
    }
}
