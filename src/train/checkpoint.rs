//! A training on disk: one file from which it goes on as if it had never stopped.
//!
//! The file is safetensors: the model's tensors under `model.`, what the optimizer remembers under `optimizer.`, and one text,
//! `checkpoint`, with a line for each number and the history behind them. Everything random is keyed by the seed and the
//! position, so those two are the random state.

use super::History;
use crate::{
    Error, Result,
    autograd::{NamedTensors, State},
    data::Loader,
    io,
    optim::{Optimizer, Schedule},
};
use std::{
    collections::BTreeMap,
    fmt::Write,
    path::{Path, PathBuf},
    str::FromStr,
};

/// What is the same in every step of a training, and kept in its checkpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The model's name, as a person or [`models::build`](crate::models::build) knows it; nothing else looks at it.
    pub model: String,
    /// How often the training images are gone through.
    pub epochs: usize,
    /// The learning rate of every step.
    pub schedule: Schedule,
    /// Where everything random in a step comes from, keyed by (seed, epoch, batch).
    pub seed: u64,
    /// How much of each target is spread over all classes, in [0, 1).
    pub label_smoothing: f32,
    /// The largest Euclidean norm of all gradients together.
    pub clip_norm: Option<f32>,
    /// The parts that a batch is computed in, at least 1.
    pub micro_batches: usize,
}

/// How far a training is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Epochs that are finished.
    pub epoch: usize,
    /// Batches of the next epoch that are finished.
    pub batch: usize,
}

/// The sums of the epoch that is running.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sums {
    pub(super) images: usize,
    pub(super) right: usize,
    pub(super) loss: f64,
    pub(super) seconds: f64,
}

/// Everything that changes from step to step, but for the model and the optimizer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Progress {
    pub(super) position: Position,
    pub(super) sums: Sums,
    pub(super) history: History,
    /// Images of an epoch and of a batch: another loader would not go on with the same batches.
    pub(super) data: Option<[usize; 2]>,
}

impl Progress {
    pub(super) fn of_loader(loader: &Loader) -> [usize; 2] {
        [loader.num_samples(), loader.batch_size()]
    }
}

/// A training as it stood after some step.
///
/// ```no_run
/// use skipgrad::{Rng, models::{self, ModelOptions}, train::Checkpoint};
/// let checkpoint = Checkpoint::read("out/best.checkpoint")?;
/// let mut model = models::build(&checkpoint.settings().model, &ModelOptions::classes(10), &mut Rng::seed(0))?;
/// checkpoint.load_model(&mut model)?;
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The file that it was read from.
    file: Option<PathBuf>,
    settings: Settings,
    progress: Progress,
    model: NamedTensors,
    optimizer: NamedTensors,
}

const FORMAT: usize = 1;
const TEXT: &str = "checkpoint";
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
    /// [`Error::Io`] if the file cannot be read; [`Error::Malformed`] if it is no checkpoint, is cut short, or of another
    /// version.
    pub fn read(path: impl AsRef<Path>) -> Result<Checkpoint> {
        let path = path.as_ref();
        let file = io::WeightsFile::open(path)?;
        let (tensors, metadata) = (file.read_all()?, file.metadata());
        let Some(text) = metadata.get(TEXT) else {
            return Err(malformed(path, "header", "the text of a checkpoint", "none"));
        };
        let (settings, progress) = parse(path, text)?;
        let mut checkpoint = Checkpoint {
            file: Some(path.to_path_buf()),
            settings,
            progress,
            model: NamedTensors::new(),
            optimizer: NamedTensors::new(),
        };
        for (name, tensor) in tensors {
            if let Some(name) = name.strip_prefix(MODEL) {
                checkpoint.model.insert(name.to_string(), tensor);
            } else if let Some(name) = name.strip_prefix(OPTIMIZER) {
                checkpoint.optimizer.insert(name.to_string(), tensor);
            } else {
                return Err(malformed(path, "names", "model.* or optimizer.*", &name));
            }
        }
        Ok(checkpoint)
    }

    /// Writes the checkpoint, atomically: at every moment the path holds the old file or the new.
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
        let text = text(&self.settings, &self.progress);
        io::write(path, &tensors, &io::Metadata::from([(TEXT.to_string(), text)]))
    }

    /// What the training was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How far the training was.
    pub fn position(&self) -> Position {
        self.progress.position
    }

    /// The epochs until then.
    pub fn history(&self) -> &History {
        &self.progress.history
    }

    /// Takes the weights and statistics into a model.
    ///
    /// # Errors
    /// [`Error::State`] that names the file and lists everything that does not fit, if the checkpoint is of another model;
    /// the model is unchanged then.
    pub fn load_model(&self, model: &mut (impl State + ?Sized)) -> Result<()> {
        model.import(self.model.clone()).map_err(|error| error.with_file(self.file.as_deref()))
    }

    /// Takes everything up where it was.
    ///
    /// # Errors
    /// [`Error::State`] that names the file if the checkpoint is of another model or optimizer; neither is changed then.
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

fn malformed(path: &Path, at: &str, expected: &str, found: &str) -> Error {
    Error::Malformed {
        path: path.to_path_buf(),
        at: at.to_string(),
        expected: expected.to_string(),
        found: found.to_string(),
    }
}

/// The text of a checkpoint: lines of a key and a value, then the history as a table.
fn text(settings: &Settings, progress: &Progress) -> String {
    let Settings { model, epochs, schedule, seed, label_smoothing, clip_norm, micro_batches } = settings;
    let Progress { position, sums, history, data } = progress;
    let [images, batch_size] = data.unwrap_or_default();
    let lines = [
        ("format", FORMAT.to_string()),
        ("model", model.replace(['\n', '\r'], " ")),
        ("epochs", epochs.to_string()),
        ("schedule", schedule.to_string()),
        ("seed", seed.to_string()),
        ("label_smoothing", label_smoothing.to_string()),
        ("clip_norm", clip_norm.map_or("none".to_string(), |norm| norm.to_string())),
        ("micro_batches", micro_batches.to_string()),
        ("images", images.to_string()),
        ("batch_size", batch_size.to_string()),
        ("epoch", position.epoch.to_string()),
        ("batch", position.batch.to_string()),
        ("sum.images", sums.images.to_string()),
        ("sum.right", sums.right.to_string()),
        ("sum.loss", sums.loss.to_string()),
        ("sum.seconds", sums.seconds.to_string()),
    ];
    let mut text = String::new();
    for (key, value) in lines {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{key} {value}");
    }
    text + HISTORY + &history.to_csv()
}

/// What stands between the lines and the history.
const HISTORY: &str = "\n";

fn parse(path: &Path, text: &str) -> Result<(Settings, Progress)> {
    let (lines, history) = text.split_once("\n\n").unwrap_or((text, ""));
    let lines: BTreeMap<&str, &str> = lines.lines().filter_map(|line| line.split_once(' ')).collect();
    let lines = Lines { path, lines };
    let format: usize = lines.get("format")?;
    if format != FORMAT {
        return Err(malformed(path, "format", &FORMAT.to_string(), &format.to_string()));
    }
    let clip_norm = match lines.text("clip_norm")? {
        "none" => None,
        _ => Some(lines.get("clip_norm")?),
    };
    let settings = Settings {
        model: lines.text("model")?.to_string(),
        epochs: lines.get("epochs")?,
        schedule: lines.get("schedule")?,
        seed: lines.get("seed")?,
        label_smoothing: lines.get("label_smoothing")?,
        clip_norm,
        micro_batches: lines.get("micro_batches")?,
    };
    let progress = Progress {
        position: Position { epoch: lines.get("epoch")?, batch: lines.get("batch")? },
        sums: Sums {
            images: lines.get("sum.images")?,
            right: lines.get("sum.right")?,
            loss: lines.get("sum.loss")?,
            seconds: lines.get("sum.seconds")?,
        },
        history: history.parse().map_err(|e: Error| malformed(path, TEXT, "a history", &e.to_string()))?,
        data: Some([lines.get("images")?, lines.get("batch_size")?]),
    };
    Ok((settings, progress))
}

/// The lines of a checkpoint's text by key.
struct Lines<'a> {
    path: &'a Path,
    lines: BTreeMap<&'a str, &'a str>,
}

impl<'a> Lines<'a> {
    fn text(&self, key: &str) -> Result<&'a str> {
        let found = self.lines.get(key).copied();
        found.ok_or_else(|| malformed(self.path, TEXT, &format!("a line for {key}"), "none"))
    }

    fn get<T: FromStr>(&self, key: &str) -> Result<T> {
        let text = self.text(key)?;
        text.parse().map_err(|_| malformed(self.path, TEXT, &format!("a value for {key}"), text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Record;

    fn settings() -> Settings {
        Settings {
            model: "a net of\nmine".to_string(),
            epochs: 5,
            schedule: Schedule::one_cycle(0.4, 1950).warm_up(3),
            seed: u64::MAX,
            label_smoothing: 0.1,
            clip_norm: Some(1.5),
            micro_batches: 2,
        }
    }

    fn progress() -> Progress {
        let record = Record {
            epoch: 1,
            seconds: 1.0 / 3.0,
            lr: 0.1,
            train_loss: 2.0,
            train_accuracy: 0.25,
            test_loss: f32::NAN,
            test_accuracy: 0.125,
            test_top5: 0.5,
        };
        Progress {
            position: Position { epoch: 1, batch: 17 },
            sums: Sums { images: 2176, right: 99, loss: 0.1 + 0.2, seconds: 1e-9 },
            history: History { records: vec![record] },
            data: Some([50_000, 128]),
        }
    }

    #[test]
    fn text_and_back_is_the_same() {
        let text = text(&settings(), &progress());
        let (read_settings, read_progress) = parse(Path::new("x"), &text).unwrap();
        assert_eq!(read_settings, Settings { model: "a net of mine".into(), ..settings() });
        // The record holds a NaN, which equals nothing.
        assert_eq!(format!("{read_progress:?}"), format!("{:?}", progress()));
        let fresh = Progress { data: Some([0, 0]), ..Progress::default() };
        let plain = Settings { model: String::new(), clip_norm: None, ..settings() };
        let again = parse(Path::new("x"), &super::text(&plain, &fresh)).unwrap();
        assert_eq!(again, (plain, fresh));
    }

    #[test]
    fn a_damaged_text_names_the_line() {
        let text = text(&settings(), &progress());
        let refused = |text: &str, expected: &str| {
            let error = parse(Path::new("a.checkpoint"), text).unwrap_err().to_string();
            assert!(error.starts_with("a.checkpoint: ") && error.contains(expected), "{error}");
        };
        refused("", "a line for format, found none");
        refused(&text.replace("format 1", "format 2"), "expected 1, found 2");
        refused(&text.replace("seed 1", "seed -"), "a value for seed, found -8446744073709551615");
        refused(&text.replace("one-cycle", "two-cycle"), "a value for schedule, found two-cycle");
        refused(&text.replace("\nbatch 17", ""), "a line for batch, found none");
        refused(&text[..text.len() - 8], "a history");
    }
}
