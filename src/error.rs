//! The one error type of the crate: structured, so that a program can act on it, and worded, so
//! that a person can.

mod advice;

use crate::{Shape, ShapePattern};
use advice::{NotInState, how_to_name, suggested};
use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};

/// The `Result` of the crate, whose error is [`Error`] unless another is given.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong because of an argument, a file, a configuration or the system.
///
/// Errors that arise inside a network carry the path of the module (`layer3.0.downsample.0`), in
/// the names that weights files use; [`Error::path`] returns it.
///
/// ```
/// use skipgrad::{Error, Tensor, autograd::Tape};
/// let tape = Tape::eval();
/// let a = tape.input(Tensor::zeros([2, 3])?);
/// let error = a.matmul(&a).unwrap_err();
/// assert_eq!(error.to_string(), "matmul: other: expected [3, N], found [2, 3]");
/// let Error::ShapeMismatch { expected, found, .. } = error else { panic!() };
/// assert!(found == [2, 3] && expected.matches(&[3, 7]));
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument does not fit: a range, a number, a configuration.
    #[error("{op}: {argument}: expected {expected}, found {found}")]
    Argument {
        /// The operation that returned the error.
        op: &'static str,
        /// The name of the argument.
        argument: &'static str,
        /// A description of what would have been accepted.
        expected: String,
        /// The value that was passed.
        found: String,
    },
    /// A tensor has another shape than an operation or a layer accepts.
    #[error("{op}: {argument}: expected {expected}, found {found}")]
    ShapeMismatch {
        /// The operation that returned the error.
        op: &'static str,
        /// The name of the tensor among the arguments.
        argument: &'static str,
        /// The shapes that would have been accepted.
        expected: ShapePattern,
        /// The shape of the tensor that was passed.
        found: Shape,
    },
    /// An error inside a module of a network.
    #[error("{path}: {source}")]
    Module {
        /// The path of the module, in the names of the weights file: `layer3.0.conv1`.
        path: String,
        /// The error that arose there.
        source: Box<Error>,
    },
    /// The memory for a tensor could not be allocated.
    #[error("out of memory: a buffer of {bytes} bytes could not be allocated")]
    OutOfMemory {
        /// The size of the allocation that failed.
        bytes: usize,
    },
    /// Training produced a value that is not finite, which no checkpoint has.
    ///
    /// If that was found before a step (the loss, the norm of gradients, running statistics), the
    /// model is as it was before that step. A smaller learning rate, a longer warmup or clipped
    /// gradients are the usual remedies; see also
    /// [`OnDivergence`](crate::train::OnDivergence).
    #[error(
        "train: {what} is not finite in epoch {epoch}, batch {batch}, at a learning rate of \
         {learning_rate}; {}",
        good(checkpoint.as_deref())
    )]
    Diverged {
        /// The epoch, counted from 1 as in [`Step`](crate::train::Step).
        epoch: usize,
        /// The batch of that epoch, counted from 1; the last one if an evaluation found it.
        batch: usize,
        /// The quantity that is not finite, and its value: `loss (NaN)`, `gradient norm (inf)`,
        /// `bn1.running_var (inf)`, `test loss (NaN)`.
        what: String,
        /// The learning rate of the step.
        learning_rate: f32,
        /// The last good checkpoint, if there is one.
        checkpoint: Option<PathBuf>,
    },
    /// `backward` found nothing to differentiate: the recording was consumed before, or the value
    /// does not depend on any parameter.
    #[error("backward: {reason}")]
    NotRecorded {
        /// A sentence that says which of the two it was.
        reason: &'static str,
    },
    /// A parameter of the model has no gradient, since the loss does not depend on it.
    #[error("{name}: no gradient: the loss does not depend on this parameter")]
    NoGradient {
        /// The path of the parameter.
        name: String,
    },
    /// A pass met a trainable parameter, or a buffer with a new value, that the state of the model
    /// does not name, so that it would be neither trained nor saved.
    ///
    /// A field has `#[state(skip)]`, a hand-written `visit` leaves it out, or the pass read a copy,
    /// which is another parameter.
    #[error("{op}: {}", NotInState { kind, shape, after: after.as_deref() })]
    NotInState {
        /// What it is: `trainable parameter` or `buffer`.
        kind: &'static str,
        /// The operation that read it first.
        op: &'static str,
        /// The sizes of its axes in memory.
        shape: Vec<usize>,
        /// The name of the parameter that was read before it, if that is known and there is one.
        after: Option<String>,
    },
    /// The inputs of an operation are on different tapes.
    #[error("{op}: the inputs are on different tapes: put all values of a pass on one, that of `x.tape()`")]
    DifferentTapes {
        /// The operation that returned the error.
        op: &'static str,
    },
    /// Named tensors do not fit a model. Every mismatch is listed, and the model is unchanged.
    #[error("{}", StateMismatch { file, missing, unexpected, misshapen, nearest })]
    State {
        /// The file that the tensors are from, if they are from one.
        file: Option<PathBuf>,
        /// Names that the model has and the file has not.
        missing: Vec<String>,
        /// Names that the file has and the model has not.
        unexpected: Vec<String>,
        /// For each tensor of the wrong shape its name, the model's shape and the file's shape, in
        /// the layout of the file.
        misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
        /// For each missing name the unexpected name that is spelled most like it, if one is
        /// similar.
        nearest: BTreeMap<String, String>,
    },
    /// Everything that does not fit in a network, each error with the path of its module; see
    /// [`ModuleExt::check`](crate::graph::ModuleExt::check).
    #[error("{} {}: {}", faults.len(), if faults.len() == 1 { "fault" } else { "faults" }, listed(faults))]
    Faults {
        /// The errors, in the order in which a forward pass meets them.
        faults: Vec<Error>,
    },
    /// A name that is not in the table where it was looked up.
    #[error("unknown {kind} {name:?}{}; known are: {}", suggested(name, known), known.join(", "))]
    UnknownName {
        /// The kind of thing that was looked up: `model`, `schedule`.
        kind: &'static str,
        /// The name that was looked up.
        name: String,
        /// The names in the table.
        known: Vec<&'static str>,
    },
    /// A name that no module of a network has, or more than one.
    #[error("no single module {name:?}; nearest are: {}{}", nearest.join(", "), how_to_name(*has_state))]
    UnknownModule {
        /// The name that was looked up.
        name: String,
        /// The paths of the modules whose names are most similar.
        nearest: Vec<String>,
        /// Whether the network has parameters or buffers below this name. Then the module did not
        /// run, or a hand-written `forward` called it without its name.
        has_state: bool,
    },
    /// A file whose content is not valid.
    #[error("{}: {at}: expected {expected}, found {found}", path.display())]
    Malformed {
        /// The path of the file.
        path: PathBuf,
        /// The place in the file: `record 17`, `header`.
        at: String,
        /// A description of what a valid file has there.
        expected: String,
        /// What the file has there.
        found: String,
    },
    /// The operating system returned an error.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The path of the file or folder.
        path: PathBuf,
        /// The action that failed: `read`, `create`.
        action: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl Error {
    /// Returns an [`Error::Argument`] from values that can be displayed.
    pub fn argument(
        op: &'static str,
        argument: &'static str,
        expected: impl fmt::Display,
        found: impl fmt::Display,
    ) -> Error {
        Error::Argument { op, argument, expected: expected.to_string(), found: found.to_string() }
    }

    /// Returns an [`Error::ShapeMismatch`].
    pub fn shape(
        op: &'static str,
        argument: &'static str,
        expected: impl Into<ShapePattern>,
        found: &Shape,
    ) -> Error {
        Error::ShapeMismatch { op, argument, expected: expected.into(), found: *found }
    }

    /// Returns the error of the module at `path`, whatever path it had before; an empty path is the
    /// whole network's.
    pub(crate) fn in_module(self, path: String) -> Error {
        let source = match self {
            Error::Module { source, .. } => source,
            error => Box::new(error),
        };
        if path.is_empty() { *source } else { Error::Module { path, source } }
    }

    /// Returns an [`Error::Io`] about `path`.
    pub fn io(path: impl Into<PathBuf>, action: &'static str, source: io::Error) -> Error {
        Error::Io { path: path.into(), action, source }
    }

    /// Returns an [`Error::Malformed`] about the file at `path`. Text that a hostile file may have
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

    /// Returns an [`Error::State`] from its lists, or `None` if all of them are empty.
    pub(crate) fn state(
        missing: Vec<String>,
        unexpected: Vec<String>,
        misshapen: Vec<(String, Vec<usize>, Vec<usize>)>,
    ) -> Option<Error> {
        let fits = missing.is_empty() && unexpected.is_empty() && misshapen.is_empty();
        let nearest = nearest(&missing, &unexpected);
        (!fits).then_some(Error::State { file: None, missing, unexpected, misshapen, nearest })
    }

    /// Sets the file that the tensors of an [`Error::State`] are from. Other errors are returned
    /// unchanged.
    pub(crate) fn with_file(mut self, path: Option<&Path>) -> Error {
        if let Error::State { file, .. } = &mut self {
            *file = path.map(Path::to_path_buf);
        }
        self
    }

    /// Returns the path of the module where the error arose, if it arose inside one.
    ///
    /// ```
    /// use skipgrad::{At, Error, Result};
    /// let error = Error::argument("conv2d", "input", "3 maps", "1");
    /// let error = Err::<(), _>(error).at("conv1").at("0").at("layer1").unwrap_err();
    /// assert_eq!(error.path(), Some("layer1.0.conv1"));
    /// assert_eq!(error.to_string(), "layer1.0.conv1: conv2d: input: expected 3 maps, found 1");
    /// ```
    pub fn path(&self) -> Option<&str> {
        match self {
            Error::Module { path, .. } => Some(path),
            _ => None,
        }
    }
}

/// Returns the first 300 characters of a text, followed by an ellipsis if there are more.
fn truncated(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(300) {
        text.truncate(end);
        text.push_str("...");
    }
    text
}

/// Says which checkpoint can be resumed from.
fn good(checkpoint: Option<&Path>) -> String {
    match checkpoint {
        Some(path) => {
            format!("the last good checkpoint is {}; resume from it at a lower learning rate", path.display())
        }
        None => "no checkpoint was written; begin again at a lower learning rate".to_string(),
    }
}

fn listed(faults: &[Error]) -> String {
    faults.iter().map(Error::to_string).collect::<Vec<_>>().join("; ")
}

/// Adds to an error where in a network it arose: a container prefixes the path of the error with
/// the name of its child.
///
/// See [`Error::path`] for an example.
pub trait At {
    /// Returns the same result, with `name` as the first component of an error's path.
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

/// The largest number of pairs of names that are compared, and the largest length of a name in
/// bytes.
///
/// That is enough for two networks of a hundred layers, and bounds the time that a file made to be
/// slow can take.
const COMPARED: (usize, usize) = (100_000, 200);

/// Returns for each missing name the unexpected name at the smallest edit distance, if that
/// distance is at most half the length of the missing name.
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

/// Displays the file and the lists of [`Error::State`] as one sentence.
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
