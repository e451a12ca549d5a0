//! The names of classes in a text file, one a line.

use crate::{
    Error, Result,
    io::{FileKind, WeightsFile, head, open_regular_file, write_atomically},
};
use std::{
    io::{Read, Seek},
    path::Path,
};

/// The largest file that is read, in bytes: a hundred thousand long names have less.
const MAX_LEN: u64 = 16 << 20;

/// What some editors write before UTF-8 text.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Reads the names of classes from a text file, such as `classes.txt`: one a line, in the order of
/// the logits.
///
/// The text is UTF-8. A byte order mark at the beginning, white space around names, the line ends
/// of Windows, and empty lines at the end are not part of any name.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Malformed`] if it is not text, has no name,
/// has an empty line before the last name, or is larger than 16 MiB. A file that is something else
/// is named by its [`FileKind`].
///
/// ```
/// use skipgrad::data::read_class_names;
/// # let path = std::env::temp_dir().join(format!("skipgrad-classes-{}.txt", std::process::id()));
/// std::fs::write(&path, "\u{feff}cat\r\ngreat dane\r\n\r\n").unwrap();
/// assert_eq!(read_class_names(&path)?, ["cat", "great dane"]);
/// std::fs::write(&path, "cat\n\ndog\n").unwrap();
/// let error = read_class_names(&path).unwrap_err().to_string();
/// assert!(error.ends_with("line 2: expected the name of a class, found an empty line"));
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), skipgrad::Error>(())
/// ```
pub fn read_class_names(path: impl AsRef<Path>) -> Result<Vec<String>> {
    let path = path.as_ref();
    let text = read_text(path, MAX_LEN, |kind| kind == FileKind::Text, "the names of classes, one a line")?;
    let mut names: Vec<String> = text.lines().map(|line| line.trim().to_string()).collect();
    let last = names.iter().rposition(|name| !name.is_empty()).map_or(0, |last| last + 1);
    names.truncate(last);
    match names.iter().position(String::is_empty) {
        Some(line) => {
            let at = format!("line {}", line + 1);
            Err(Error::malformed(path, at, "the name of a class", "an empty line"))
        }
        None if names.is_empty() => {
            Err(Error::malformed(path, "text", "the name of at least one class", "empty lines only"))
        }
        None => Ok(names),
    }
}

/// Reads the names of classes as [`read_class_names`] does, of which there must be one for each
/// output of the classifier in `weights`.
///
/// # Errors
/// As [`read_class_names`]; [`Error::Malformed`] about the file of names if it has more or fewer.
/// Weights whose classifier has no usual name ([`WeightsFile::num_classes`]) fit any number.
///
/// ```
/// use skipgrad::{Tensor, data::read_class_names_for, io::{self, WeightsFile}};
/// # let folder = std::env::temp_dir().join(format!("skipgrad-names-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder).unwrap();
/// let tensors = [("fc.weight".to_string(), Tensor::zeros([2, 8])?)].into();
/// io::write(folder.join("model.safetensors"), &tensors, &Default::default())?;
/// let weights = WeightsFile::open(folder.join("model.safetensors"))?;
/// std::fs::write(folder.join("classes.txt"), "cat\ndog\nbird\n").unwrap();
/// let error = read_class_names_for(folder.join("classes.txt"), &weights).unwrap_err().to_string();
/// assert!(error.contains("classes.txt: names: expected 2") && error.ends_with("found 3"));
/// # std::fs::remove_dir_all(&folder).unwrap();
/// # Ok::<(), skipgrad::Error>(())
/// ```
pub fn read_class_names_for(path: impl AsRef<Path>, weights: &WeightsFile) -> Result<Vec<String>> {
    let path = path.as_ref();
    let names = read_class_names(path)?;
    check_count(path, "names", names.len(), weights)?;
    Ok(names)
}

/// Checks that a file has as many names of classes as the classifier in `weights` has outputs.
pub(super) fn check_count(path: &Path, at: &str, names: usize, weights: &WeightsFile) -> Result<()> {
    match weights.num_classes() {
        Some(outputs) if outputs != names => {
            let expected = format!("{outputs}, one for each output of {}", weights.path().display());
            Err(Error::malformed(path, at, expected, names))
        }
        _ => Ok(()),
    }
}

/// Writes the names of classes to a text file, one a line, atomically: see
/// [`write_atomically`](crate::io::write_atomically).
///
/// # Errors
/// [`Error::Argument`] if there is no name, or one that would not be read back: it is empty, has
/// more than one line, or white space around it; [`Error::Io`] if the file cannot be written.
///
/// ```
/// use skipgrad::data::{read_class_names, write_class_names};
/// # let path = std::env::temp_dir().join(format!("skipgrad-write-{}.txt", std::process::id()));
/// write_class_names(&path, &["cat", "great dane"])?;
/// assert_eq!(read_class_names(&path)?, ["cat", "great dane"]);
/// assert!(write_class_names(&path, &["cat", ""]).is_err());
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), skipgrad::Error>(())
/// ```
pub fn write_class_names(path: impl AsRef<Path>, names: &[impl AsRef<str>]) -> Result<()> {
    let mut text = String::new();
    for name in names.iter().map(AsRef::as_ref) {
        if name.is_empty() || name.trim() != name || name.contains(['\n', '\r', BYTE_ORDER_MARK]) {
            let expected = "names of one line, without white space around them";
            return Err(Error::argument("write_class_names", "names", expected, format_args!("{name:?}")));
        }
        text.push_str(name);
        text.push('\n');
    }
    if text.is_empty() {
        return Err(Error::argument("write_class_names", "names", "at least one name", "none"));
    }
    write_atomically(path, text.as_bytes())
}

/// Reads a text file of at most `max_len` bytes, without its byte order mark.
///
/// # Errors
/// [`Error::Io`]; [`Error::Malformed`] if it is not UTF-8, larger, or not of an `allowed` kind.
pub(super) fn read_text(
    path: &Path,
    max_len: u64,
    allowed: impl Fn(FileKind) -> bool,
    expected: &str,
) -> Result<String> {
    let read_error = |error| Error::io(path, "read", error);
    let (mut file, size) = open_regular_file(path)?;
    let kind = FileKind::of(path, &head(path, &mut file)?);
    if !allowed(kind) {
        return Err(kind.error(path, expected));
    }
    if size > max_len {
        return Err(Error::malformed(path, "size", format_args!("at most {max_len} bytes"), size));
    }
    let mut bytes = vec![];
    file.rewind().and_then(|()| file.take(max_len).read_to_end(&mut bytes)).map_err(read_error)?;
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let at = format!("byte {}", error.utf8_error().valid_up_to());
        Error::malformed(path, at, "UTF-8 text", "other bytes")
    })?;
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len_utf8());
    }
    Ok(text)
}
