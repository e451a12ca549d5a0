//! One error type for the whole crate: structured, so that a program can act on it, and worded, so that a person can.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong because of what a caller, a file or a configuration says.
///
/// Errors that arise inside a network carry the path of the module (`layer3.0.downsample.0`), in the names that the
/// weights files use; [`Error::path`] reads it back.
///
/// ```
/// use skipgrad::{Error, Tensor};
/// let error = Tensor::zeros([2, 3]).unwrap().reshape([4]).unwrap_err();
/// assert!(matches!(error, Error::Argument { op: "reshape", .. }));
/// assert_eq!(error.to_string(), "reshape: shape: expected 6 elements, found [4]");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument does not fit: a shape, a range, a configuration.
    #[error("{op}: {argument}: expected {expected}, found {found}")]
    Argument {
        /// The operation that refused.
        op: &'static str,
        /// The argument's name.
        argument: &'static str,
        /// What would have been accepted.
        expected: String,
        /// What was passed.
        found: String,
    },
    /// An error inside a module of a network.
    #[error("{path}: {source}")]
    Module {
        /// Where, in the names of the weights file: `layer3.0.conv1`.
        path: String,
        /// What went wrong there.
        source: Box<Error>,
    },
    /// The memory for a tensor could not be had.
    #[error("out of memory: a buffer of {bytes} bytes could not be allocated")]
    OutOfMemory {
        /// The size asked for.
        bytes: usize,
    },
    /// Training produced a value that is not finite; the model is as it was before that step.
    ///
    /// A smaller learning rate, a longer warmup or clipped gradients are the usual remedies.
    #[error(
        "train: {what} is not finite in epoch {epoch}, batch {batch}, at a learning rate of {learning_rate}"
    )]
    Diverged {
        /// The epoch, counted from 1 as in [`Step`](crate::train::Step).
        epoch: usize,
        /// The batch of that epoch, counted from 1.
        batch: usize,
        /// The quantity that is not finite, and its value: `loss (NaN)`, `gradient norm (inf)`.
        what: String,
        /// The learning rate of the step.
        learning_rate: f32,
    },
    /// `backward` found nothing to differentiate: the recording was consumed before, or no parameter reached the value.
    #[error("backward: {reason}")]
    NotRecorded {
        /// Which of the two.
        reason: &'static str,
    },
    /// A parameter of the model got no gradient: the loss never reached it.
    #[error("{name}: no gradient: the loss does not depend on this parameter")]
    NoGradient {
        /// The parameter's path.
        name: String,
    },
    /// Named tensors do not fit a model; everything that is wrong is listed, and the model is unchanged.
    #[error("{}", StateMismatch { file, missing, unexpected, misshapen, nearest })]
    State {
        /// The file that the tensors are from, if they are from one.
        file: Option<PathBuf>,
        /// Names that the model has and the file has not.
        missing: Vec<String>,
        /// Names that the file has and the model has not.
        unexpected: Vec<String>,
        /// Name, the model's shape and the file's, in the file's layout.
        misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
        /// Of missing names, the unexpected one that is spelled most like it, where one is much like it.
        nearest: BTreeMap<String, String>,
    },
    /// Everything that does not fit in a network, each with its place; see [`ModuleExt::check`](crate::nn::ModuleExt::check).
    #[error("{} {}: {}", faults.len(), if faults.len() == 1 { "fault" } else { "faults" }, listed(faults))]
    Faults {
        /// In the order in which a pass comes upon them.
        faults: Vec<Error>,
    },
    /// A name that no table has.
    #[error("unknown {kind} {name:?}; known are: {}", known.join(", "))]
    UnknownName {
        /// What was looked up: `model`, `schedule`.
        kind: &'static str,
        /// The name asked for.
        name: String,
        /// The names there are.
        known: Vec<&'static str>,
    },
    /// A name that no module of a network has, or more than one.
    #[error("no single module {name:?}; nearest are: {}", nearest.join(", "))]
    UnknownModule {
        /// The name asked for.
        name: String,
        /// The paths of modules whose names are most like it.
        nearest: Vec<String>,
    },
    /// A file whose content is not what it must be.
    #[error("{}: {at}: expected {expected}, found {found}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The place in it: `record 17`, `header`.
        at: String,
        /// What must stand there.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried: `read`, `create`.
        action: &'static str,
        /// The system's word.
        source: io::Error,
    },
}

impl Error {
    /// An [`Error::Argument`], from anything that can be shown.
    pub fn argument(
        op: &'static str,
        argument: &'static str,
        expected: impl fmt::Display,
        found: impl fmt::Display,
    ) -> Error {
        Error::Argument { op, argument, expected: expected.to_string(), found: found.to_string() }
    }

    /// An [`Error::Io`] about `path`.
    pub fn io(path: impl Into<PathBuf>, action: &'static str, source: io::Error) -> Error {
        Error::Io { path: path.into(), action, source }
    }

    /// Builds an [`Error::Malformed`] about the file at `path`. Text that a hostile file may have
    /// chosen (`at` and `found`) is cut after 300 characters.
    pub fn malformed(
        path: impl Into<PathBuf>,
        at: impl fmt::Display,
        expected: impl fmt::Display,
        found: impl fmt::Display,
    ) -> Error {
        let (at, found) = (truncated(at.to_string()), truncated(found.to_string()));
        Error::Malformed { path: path.into(), at, expected: expected.to_string(), found }
    }

    /// An [`Error::State`] from its lists, or nothing where they are empty.
    pub(crate) fn state(
        missing: Vec<String>,
        unexpected: Vec<String>,
        misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
    ) -> Option<Error> {
        let fits = missing.is_empty() && unexpected.is_empty() && misshapen.is_empty();
        let nearest = nearest(&missing, &unexpected);
        (!fits).then_some(Error::State { file: None, missing, unexpected, misshapen, nearest })
    }

    /// Says which file, if any, the tensors of an [`Error::State`] are from; other errors stay as they are.
    pub(crate) fn with_file(mut self, path: Option<&Path>) -> Error {
        if let Error::State { file, .. } = &mut self {
            *file = path.map(Path::to_path_buf);
        }
        self
    }

    /// The path of the module where the error arose, if it arose inside one.
    ///
    /// ```
    /// use skipgrad::{At, Error, Result};
    /// let error = Error::argument("conv2d", "input", "3 channels", "1");
    /// let error = Err::<(), _>(error).at("conv1").at("0").at("layer1").unwrap_err();
    /// assert_eq!(error.path(), Some("layer1.0.conv1"));
    /// assert_eq!(error.to_string(), "layer1.0.conv1: conv2d: input: expected 3 channels, found 1");
    /// ```
    pub fn path(&self) -> Option<&str> {
        match self {
            Error::Module { path, .. } => Some(path),
            _ => None,
        }
    }
}

/// The first 300 characters of a text, and an ellipsis where there are more.
fn truncated(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(300) {
        text.truncate(end);
        text.push_str("...");
    }
    text
}

fn listed(faults: &[Error]) -> String {
    faults.iter().map(Error::to_string).collect::<Vec<_>>().join("; ")
}

/// Says where in a network a result was computed: a container puts its child's name in front of the child's error.
///
/// See [`Error::path`] for an example.
pub trait At {
    /// The same result; an error's path begins with `name`.
    fn at(self, name: impl fmt::Display) -> Self;
}

impl<T> At for Result<T> {
    fn at(self, name: impl fmt::Display) -> Self {
        self.map_err(|error| match error {
            Error::Module { path, source } => Error::Module { path: format!("{name}.{path}"), source },
            error => Error::Module { path: name.to_string(), source: Box::new(error) },
        })
    }
}

/// The pairs of names that are compared at most, and their length in bytes: enough for two networks of a hundred layers, a
/// blink for a file that was made to be slow.
const COMPARED: (usize, usize) = (100_000, 200);

/// For each missing name the unexpected one at the least edit distance, where that is at most half of its length.
fn nearest(missing: &[String], unexpected: &[String]) -> BTreeMap<String, String> {
    let short = |name: &&String| name.len() <= COMPARED.1;
    let candidates: Vec<&String> = unexpected.iter().filter(short).collect();
    let compared = missing.iter().filter(short).take(COMPARED.0 / candidates.len().max(1));
    let pairs = compared.filter_map(|name| {
        let distances = candidates.iter().map(|&other| (strsim::levenshtein(name, other), other));
        let (distance, other) = distances.min()?;
        (2 * distance <= name.len()).then(|| (name.clone(), other.clone()))
    });
    pairs.collect()
}

/// The file and the lists of [`Error::State`] as one sentence.
struct StateMismatch<'a> {
    file: &'a Option<PathBuf>,
    missing: &'a [String],
    unexpected: &'a [String],
    misshapen: &'a [(String, Vec<usize>, Vec<usize>)],
    nearest: &'a BTreeMap<String, String>,
}

impl fmt::Display for StateMismatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = self.file {
            write!(f, "{}: ", file.display())?;
        }
        write!(f, "the tensors do not fit the model")?;
        for (i, name) in self.missing.iter().enumerate() {
            write!(f, "{}{name}", if i == 0 { "; missing: " } else { ", " })?;
            if let Some(nearest) = self.nearest.get(name) {
                write!(f, " (nearest: {nearest})")?;
            }
        }
        if !self.unexpected.is_empty() {
            write!(f, "; unexpected: {}", self.unexpected.join(", "))?;
        }
        for (name, expected, found) in self.misshapen {
            write!(f, "; {name}: expected {expected:?}, found {found:?}")?;
        }
        Ok(())
    }
}
