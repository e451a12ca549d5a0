//! Event files, which TensorBoard reads (feature `tensorboard`).
//!
//! A file is a sequence of records in the format of `TFRecord`: the length of the data, its CRC,
//! the data, and its CRC. The data is a message `Event` of TensorFlow's `event.proto`.
//!
//! ```
//! use skipgrad::{data::{Loader, SyntheticShapes}, nn::{Flatten, Linear, Sequential}};
//! use skipgrad::{prelude::*, report::tensorboard::EventWriter, train::{Event, Trainer}};
//! let data = SyntheticShapes::with_sizes(16, 16, 0)?;
//! let (train, test) = (Loader::new(data.train(), 8), Loader::new(data.test(), 16));
//! let mut model = Sequential::new().push(Flatten).push(Linear::new(3072, 10, &mut Rng::seed(0))?);
//! let mut trainer = Trainer::new(2, Schedule::constant(0.01));
//! # let folder = std::env::temp_dir().join(format!("skipgrad-events-{}", std::process::id()));
//!
//! let mut events = EventWriter::create(&folder, trainer.position().epoch)?;
//! let mut written = Ok(());
//! trainer.run(&mut model, &mut Sgd::new(0.0), &train, &test, |event| {
//!     if let (Event::Epoch(record), true) = (event, written.is_ok()) {
//!         written = events.record(&record);
//!     }
//! })?;
//! written?; // then, in a shell: tensorboard --logdir runs
//! assert_eq!(std::fs::metadata(events.path()).unwrap().len(), 445); // bytes
//! # std::fs::remove_dir_all(&folder).unwrap();
//! # Ok::<(), skipgrad::Error>(())
//! ```

use crate::{Error, Result, train::Record};
use prost::{Message, Oneof};
use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// What the name of an event file begins with; the time in seconds follows.
const PREFIX: &str = "events.out.tfevents.";

/// The version of the format, since which a restart is an event.
const FILE_VERSION: &str = "brain.Event:2";

/// Writes scalars to an event file; see [the module](self) for an example.
///
/// Each training, and each time that it is resumed, has a file of its own, and TensorBoard reads
/// all files of a folder in turn. What a file says of epochs that are trained once more, since the
/// training was resumed from a checkpoint before them, is replaced.
#[derive(Debug)]
pub struct EventWriter {
    file: File,
    path: PathBuf,
}

impl EventWriter {
    /// Creates an event file in a folder, and the folder if it does not exist, for a training of
    /// which this many epochs are finished: 0, or [`Position::epoch`](crate::train::Position) after
    /// [`Trainer::resume`](crate::train::Trainer::resume).
    ///
    /// # Errors
    /// [`Error::Io`] if the folder or the file cannot be written.
    pub fn create(folder: impl AsRef<Path>, finished_epochs: usize) -> Result<EventWriter> {
        let folder = folder.as_ref();
        fs::create_dir_all(folder).map_err(|error| Error::io(folder, "create", error))?;
        // Files are read in the order of their names, so this one comes after those that there are.
        let seconds = (now() as u64).max(newest(folder)?.map_or(0, |newest| newest + 1));
        let path = folder.join(format!("{PREFIX}{seconds:010}.skipgrad.{}", std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let file = file.map_err(|error| Error::io(&path, "create", error))?;
        let mut writer = EventWriter { file, path };
        writer.write(0, Content::FileVersion(FILE_VERSION.into()))?;
        writer.write(finished_epochs + 1, Content::SessionLog(SessionLog { status: SessionLog::START }))?;
        Ok(writer)
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds the value of a scalar at a step, such as an epoch. A tag is a name, in which the part
    /// before a slash is that of a group: `loss/train`.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn scalar(&mut self, tag: impl Into<String>, step: usize, value: f32) -> Result<()> {
        let value = Value { tag: tag.into(), simple_value: Some(value) };
        self.write(step, Content::Summary(Summary { value: vec![value] }))
    }

    /// Adds the metrics of an epoch, at the step of its number: `loss/train`, `loss/test`,
    /// `accuracy/train`, `accuracy/test`, `accuracy/test_top5`, `learning_rate`,
    /// `images_per_second` and, of averaged weights, `loss/test_ema` and `accuracy/test_ema`.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn record(&mut self, record: &Record) -> Result<()> {
        let values = [
            ("loss/train", Some(record.train_loss)),
            ("loss/test", Some(record.test_loss)),
            ("accuracy/train", Some(record.train_accuracy)),
            ("accuracy/test", Some(record.test_accuracy)),
            ("accuracy/test_top5", Some(record.test_top5)),
            ("learning_rate", Some(record.lr)),
            ("images_per_second", record.images_per_second),
            ("loss/test_ema", record.ema_test_loss),
            ("accuracy/test_ema", record.ema_test_accuracy),
        ];
        let value = values
            .into_iter()
            .filter(|(_, value)| value.is_some())
            .map(|(tag, simple_value)| Value { tag: tag.into(), simple_value })
            .collect();
        self.write(record.epoch, Content::Summary(Summary { value }))
    }

    /// Writes an event in one call, so that a reader never waits for the rest of it.
    fn write(&mut self, step: usize, content: Content) -> Result<()> {
        let step = i64::try_from(step).unwrap_or(i64::MAX);
        let event = Event { wall_time: now(), step, content: Some(content) };
        let written = self.file.write_all(&framed(&event.encode_to_vec()));
        written.map_err(|error| Error::io(&self.path, "write", error))
    }
}

/// Returns the time in seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Returns the largest time in the names of the event files of a folder.
fn newest(folder: &Path) -> Result<Option<u64>> {
    let read = |error| Error::io(folder, "read", error);
    let mut newest = None;
    for entry in fs::read_dir(folder).map_err(read)? {
        let name = entry.map_err(read)?.file_name();
        let seconds =
            name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('.').next()?.parse().ok());
        newest = newest.max(seconds);
    }
    Ok(newest)
}

/// Returns the record of some data.
fn framed(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length), data, &masked_crc(data)].concat()
}

/// Returns the CRC-32C of some bytes, masked as in `TFRecord`: rotated, plus a constant.
fn masked_crc(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

/// `Event` of TensorFlow's `event.proto`, with the fields that are written.
#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "Content", tags = "3, 5, 7")]
    content: Option<Content>,
}

/// What an event is.
#[derive(Clone, PartialEq, Oneof)]
enum Content {
    /// The first event of a file.
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

/// Values of one step.
#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    /// Always there: otherwise a 0 would be no value.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// The start of a session: what was written of its step, and of later ones, before it is void.
#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

impl SessionLog {
    const START: i32 = 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crcs_are_masked() {
        // The check value of CRC-32C is 0xe3069283 (RFC 3720, appendix B.4).
        let crc = 0xe306_9283u32;
        let masked = crc.rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(masked_crc(b"123456789"), masked.to_le_bytes());
        assert_eq!(framed(b"abc").len(), 8 + 4 + 3 + 4);
    }

    #[test]
    fn zero_is_a_value() {
        let value = Value { tag: "a".into(), simple_value: Some(0.0) };
        assert_eq!(value.encode_to_vec(), [0x0a, 1, b'a', 0x15, 0, 0, 0, 0]);
    }

    #[test]
    fn a_new_file_comes_after_those_that_there_are() {
        let folder = std::env::temp_dir().join(format!("skipgrad-tensorboard-{}", std::process::id()));
        let names: Vec<_> = (0..3)
            .map(|epoch| EventWriter::create(&folder, epoch).unwrap().path().file_name().unwrap().to_owned())
            .collect();
        assert!(names.is_sorted() && names[0] != names[1] && names[1] != names[2], "{names:?}");
        fs::write(folder.join(format!("{PREFIX}9999999990.other")), "").unwrap();
        let last = EventWriter::create(&folder, 3).unwrap();
        assert!(last.path().to_str().unwrap().contains("9999999991"));
        let error = EventWriter::create(last.path(), 0).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
        fs::remove_dir_all(folder).unwrap();
    }
}
