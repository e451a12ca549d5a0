//! Checkpoints: a training in one file, from which it continues as if it had never stopped.
//!
//! The file is in the safetensors format. It holds the model's tensors under `model.`, the
//! optimizer's under `optimizer.`, and the settings, the position and the history as texts in its
//! metadata. Random numbers are keyed by the seed and the position, so no other random state is
//! needed.

mod text;

use super::History;
use crate::{
    Error, Result,
    autograd::{NamedTensors, State},
    data::Loader,
    io,
    optim::{Optimizer, Schedule, null_as_infinity},
};
use serde::{Deserialize, Deserializer, Serialize};
use std::path::{Path, PathBuf};

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
}

fn some_or_infinity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f32>, D::Error> {
    null_as_infinity(deserializer).map(Some)
}

/// The position of a training: the number of epochs and batches that are finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Number of finished epochs.
    pub epoch: usize,
    /// Number of finished batches of the next epoch.
    pub batch: usize,
}

/// Sums over the finished batches of the current epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Sums {
    pub(super) images: usize,
    pub(super) correct: usize,
    pub(super) loss: f64,
    pub(super) seconds: f64,
}

/// The sizes of the training loader. A loader of other sizes would not continue with the same
/// batches.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct LoaderSizes {
    pub(super) images: usize,
    pub(super) batch_size: usize,
}

impl LoaderSizes {
    pub(super) fn of(loader: &Loader) -> LoaderSizes {
        LoaderSizes { images: loader.num_samples(), batch_size: loader.batch_size() }
    }
}

/// Everything that changes from step to step, apart from the model and the optimizer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Progress {
    pub(super) position: Position,
    pub(super) sums: Sums,
    /// Sizes of the training loader, once there was one.
    pub(super) loader: Option<LoaderSizes>,
    #[serde(skip)]
    pub(super) history: History,
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
    progress: Progress,
    model: NamedTensors,
    optimizer: NamedTensors,
}

const MODEL: &str = "model.";
const OPTIMIZER: &str = "optimizer.";

impl Checkpoint {
    pub(super) fn capture(
        settings: &Settings,
        progress: &Progress,
        model: &dyn State,
        optimizer: &dyn Optimizer,
    ) -> Checkpoint {
        Checkpoint {
            file: None,
            settings: settings.clone(),
            progress: progress.clone(),
            model: model.export(),
            optimizer: optimizer.export(),
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
        let (settings, progress) = text::decode(path, file.metadata())?;
        let mut checkpoint = Checkpoint {
            file: Some(path.to_path_buf()),
            settings,
            progress,
            model: NamedTensors::new(),
            optimizer: NamedTensors::new(),
        };
        for (name, tensor) in file.read_all()? {
            if let Some(name) = name.strip_prefix(MODEL) {
                checkpoint.model.insert(name.to_string(), tensor);
            } else if let Some(name) = name.strip_prefix(OPTIMIZER) {
                checkpoint.optimizer.insert(name.to_string(), tensor);
            } else {
                return Err(Error::malformed(path, "names", "model.* or optimizer.*", name));
            }
        }
        Ok(checkpoint)
    }

    /// Writes the checkpoint atomically: at every moment the path holds the old file or the new
    /// one.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        let prefixed = |prefix: &'static str, tensors: &NamedTensors| {
            let named = tensors.iter().map(|(name, t)| (format!("{prefix}{name}"), t.clone()));
            named.collect::<NamedTensors>()
        };
        let mut tensors = prefixed(MODEL, &self.model);
        tensors.append(&mut prefixed(OPTIMIZER, &self.optimizer));
        io::write(path, &tensors, &text::encode(&self.settings, &self.progress))
    }

    /// Returns the settings of the training.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the position of the training.
    pub fn position(&self) -> Position {
        self.progress.position
    }

    /// Returns the records of all finished epochs.
    pub fn history(&self) -> &History {
        &self.progress.history
    }

    /// Copies the checkpoint's weights and statistics into a model.
    ///
    /// # Errors
    /// [`Error::State`] that names the file and lists everything that does not fit if the
    /// checkpoint is of another model; the model is unchanged then.
    pub fn load_model(&self, model: &mut (impl State + ?Sized)) -> Result<()> {
        model.import(self.model.clone()).map_err(|error| error.with_file(self.file.as_deref()))
    }

    /// Restores the model and the optimizer, and returns the settings and the progress.
    ///
    /// # Errors
    /// [`Error::State`] that names the file if the checkpoint is of another model or optimizer;
    /// neither is changed then.
    pub(super) fn restore(
        self,
        model: &mut dyn State,
        optimizer: &mut dyn Optimizer,
    ) -> Result<(Settings, Progress)> {
        let named = |error: Error| error.with_file(self.file.as_deref());
        let before = model.export();
        model.import(self.model).map_err(named)?;
        if let Err(error) = optimizer.import(model, self.optimizer) {
            model.import(before)?;
            return Err(named(error));
        }
        Ok((self.settings, self.progress))
    }
}
