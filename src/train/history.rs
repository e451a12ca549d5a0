//! The history of a training: one record per epoch.

use crate::{Error, Result, io};
use std::{fmt::Write, path::Path, str::FromStr};

/// The metrics of one epoch of a training.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Record {
    /// Epoch, counted from 1.
    pub epoch: usize,
    /// Duration of the training steps in seconds, without the evaluation.
    pub seconds: f64,
    /// Learning rate of the last step.
    pub lr: f32,
    /// Mean loss of the training images, with label smoothing.
    pub train_loss: f32,
    /// Fraction of the training images that were classified correctly in training, in [0, 1].
    pub train_accuracy: f32,
    /// Mean loss of the test images, without label smoothing.
    pub test_loss: f32,
    /// Top-1 accuracy on the test images, in [0, 1].
    pub test_accuracy: f32,
    /// Top-5 accuracy on the test images, in [0, 1].
    pub test_top5: f32,
    /// Number of steps that were skipped because a value was not finite.
    pub skipped_steps: usize,
    /// Number of times that the epoch was begun again at a lower learning rate because a value was
    /// not finite.
    pub rollbacks: usize,
    /// Number of training images that could not be read and were left out.
    pub unreadable: usize,
    /// Number of test images that could not be read and were left out.
    pub test_unreadable: usize,
    /// Training images per second, without the evaluation; `None` if an older version wrote the
    /// record.
    pub images_per_second: Option<f32>,
    /// [`weights_hash`](super::weights_hash) of the model after the epoch; `None` if an older
    /// version wrote the record.
    pub weights_hash: Option<u64>,
    /// Mean loss of the test images with the averaged weights, if the training has an average.
    pub ema_test_loss: Option<f32>,
    /// Top-1 accuracy on the test images with the averaged weights, in [0, 1].
    pub ema_test_accuracy: Option<f32>,
}

impl Record {
    /// Returns the accuracy by which epochs are compared: that of the averaged weights if there
    /// are any, and else that of the weights.
    fn best_accuracy(&self) -> f32 {
        self.ema_test_accuracy.unwrap_or(self.test_accuracy)
    }
}

/// The records of all epochs of a training, which can be written and read as a CSV table.
///
/// ```
/// use skipgrad::train::History;
/// let csv = "epoch,seconds,lr,train_loss,train_accuracy,test_loss,test_accuracy,test_top5,\
///     skipped_steps,rollbacks,unreadable,test_unreadable,images_per_second,weights_hash,\
///     ema_test_loss,ema_test_accuracy\n\
///     1,12.5,0.1,1.5,0.5,1.25,0.5625,0.9,0,0,3,1,4000,00c0ffee00c0ffee,,\n";
/// let history: History = csv.parse()?;
/// assert_eq!(history.best().map(|record| record.test_accuracy), Some(0.5625));
/// assert_eq!(history.records[0].images_per_second, Some(4000.0));
/// assert_eq!(history.to_csv(), csv);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct History {
    /// One record per epoch, in order.
    pub records: Vec<Record>,
}

/// The columns, in the groups in which they were added: every header that was ever written is that
/// of the first groups.
const COLUMNS: [&str; 4] = [
    "epoch,seconds,lr,train_loss,train_accuracy,test_loss,test_accuracy,test_top5",
    ",skipped_steps,rollbacks,unreadable,test_unreadable",
    ",images_per_second,weights_hash",
    ",ema_test_loss,ema_test_accuracy",
];

impl History {
    /// Returns the record of the highest test accuracy, and the first of them if several are equal.
    /// If the weights are averaged, the accuracy is that of the average.
    pub fn best(&self) -> Option<&Record> {
        self.records.iter().reduce(|best, r| if r.best_accuracy() > best.best_accuracy() { r } else { best })
    }

    /// Returns the table as CSV, a header and one line per epoch. Parsing it gives the same
    /// numbers.
    pub fn to_csv(&self) -> String {
        let mut text = COLUMNS.concat() + "\n";
        for r in &self.records {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{}",
                r.epoch,
                r.seconds,
                r.lr,
                r.train_loss,
                r.train_accuracy,
                r.test_loss,
                r.test_accuracy,
                r.test_top5,
                r.skipped_steps,
                r.rollbacks,
                r.unreadable,
                r.test_unreadable,
                r.images_per_second.map_or(String::new(), |rate| rate.to_string()),
                r.weights_hash.map_or(String::new(), |hash| format!("{hash:016x}")),
                r.ema_test_loss.map_or(String::new(), |loss| loss.to_string()),
                r.ema_test_accuracy.map_or(String::new(), |accuracy| accuracy.to_string()),
            );
        }
        text
    }

    /// Writes the table to a file, atomically.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<()> {
        io::write_atomically(path, self.to_csv().as_bytes())
    }
}

/// Parses the table that [`History::to_csv`] returns, also one of an older version, which has fewer
/// columns.
impl FromStr for History {
    type Err = Error;

    fn from_str(text: &str) -> Result<History> {
        let mut lines = text.lines();
        let header = lines.next().unwrap_or_default();
        let Some(groups) = (1..=COLUMNS.len()).find(|&groups| COLUMNS[..groups].concat() == header) else {
            let expected = COLUMNS.concat();
            return Err(Error::argument("history", "header", expected, format_args!("{header:?}")));
        };
        let columns = COLUMNS[..groups].concat().split(',').count();
        Ok(History { records: lines.map(|line| record(line, columns)).collect::<Result<_>>()? })
    }
}

/// Parses a record of the first `columns` columns.
fn record(line: &str, columns: usize) -> Result<Record> {
    let error =
        || Error::argument("history", "record", format_args!("numbers for {}", COLUMNS.concat()), line);
    let parsed = (line.split(',').count() == columns).then(|| parse(&mut line.split(','))).flatten();
    parsed.ok_or_else(error)
}

/// Parses the fields of a record. Where the fields end, what is left has no value.
fn parse<'a>(fields: &mut impl Iterator<Item = &'a str>) -> Option<Record> {
    Some(Record {
        epoch: fields.next()?.parse().ok()?,
        seconds: fields.next()?.parse().ok()?,
        lr: fields.next()?.parse().ok()?,
        train_loss: fields.next()?.parse().ok()?,
        train_accuracy: fields.next()?.parse().ok()?,
        test_loss: fields.next()?.parse().ok()?,
        test_accuracy: fields.next()?.parse().ok()?,
        test_top5: fields.next()?.parse().ok()?,
        skipped_steps: fields.next().unwrap_or("0").parse().ok()?,
        rollbacks: fields.next().unwrap_or("0").parse().ok()?,
        unreadable: fields.next().unwrap_or("0").parse().ok()?,
        test_unreadable: fields.next().unwrap_or("0").parse().ok()?,
        images_per_second: optional(fields.next(), |rate| rate.parse().ok())?,
        weights_hash: optional(fields.next(), |hash| u64::from_str_radix(hash, 16).ok())?,
        ema_test_loss: optional(fields.next(), |loss| loss.parse().ok())?,
        ema_test_accuracy: optional(fields.next(), |accuracy| accuracy.parse().ok())?,
    })
}

/// Parses a field that may be missing or empty. The outer `None` is an error.
fn optional<T>(field: Option<&str>, parse: impl FnOnce(&str) -> Option<T>) -> Option<Option<T>> {
    match field {
        None | Some("") => Some(None),
        Some(text) => parse(text).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(epoch: usize, test_accuracy: f32) -> Record {
        Record {
            epoch,
            seconds: 1.0 / 3.0,
            lr: 1e-7,
            train_loss: 0.1 + 0.2,
            train_accuracy: 0.5,
            test_loss: f32::INFINITY,
            test_accuracy,
            test_top5: 1.0,
            skipped_steps: 2,
            rollbacks: 1,
            unreadable: epoch,
            test_unreadable: 7,
            images_per_second: Some(1.0 / 3.0),
            weights_hash: Some(epoch as u64),
            ema_test_loss: Some(1.0 / 3.0),
            ema_test_accuracy: None,
        }
    }

    #[test]
    fn numbers_read_back_as_they_were() {
        let history = History { records: vec![record(1, 0.1), record(2, 0.7)] };
        assert_eq!(history.to_csv().parse::<History>().unwrap(), history);
        assert_eq!(History::default().to_csv().parse::<History>().unwrap(), History::default());
    }

    #[test]
    fn the_best_is_the_first_of_the_highest() {
        let records = vec![record(1, 0.5), record(2, 0.7), record(3, 0.7), record(4, 0.6)];
        assert_eq!(History { records: records.clone() }.best().unwrap().epoch, 2);
        let averaged = |(r, accuracy): (&Record, f32)| Record { ema_test_accuracy: Some(accuracy), ..*r };
        let records = records.iter().zip([0.1, 0.2, 0.3, 0.3]).map(averaged).collect();
        assert_eq!(History { records }.best().unwrap().epoch, 3, "averages are compared if there are any");
        assert!(History::default().best().is_none());
    }

    #[test]
    fn other_tables_are_errors() {
        assert!("".parse::<History>().is_err());
        for line in ["1,2,3", "1,2,3,4,5,6,7,8,9", "x,2,3,4,5,6,7,8", "1,2,3,4,5,6,7,eight"] {
            let [old, with_counts, with_rates, all] = [1, 2, 3, 4].map(|groups| COLUMNS[..groups].concat());
            for (header, counts) in
                [(old, ""), (with_counts, ",0,0,0,0"), (with_rates, ",0,0,0,0,,"), (all, ",0,0,0,0,,,,")]
            {
                let error = format!("{header}\n{line}{counts}\n").parse::<History>().unwrap_err();
                assert!(error.to_string().ends_with(&format!("found {line}{counts}")), "{error}");
            }
        }
        for rest in [
            "",
            ",0,0,0",
            ",0,0,0,-1,,,,",
            ",0,0,0,0",
            ",0,0,0,0,x,,,",
            ",0,0,0,0,,x,,",
            ",0,0,0,0,,,x,",
            ",0,0,0,0,,,,x",
            ",0,0,0,0,,,,,",
        ] {
            let text = format!("{}\n1,2,3,4,5,6,7,8{rest}\n", COLUMNS.concat());
            assert!(text.parse::<History>().is_err(), "{rest}");
        }
    }

    #[test]
    fn tables_of_older_versions_are_read() {
        let old = format!("{}\n1,0.3333333333333333,0.1,2,0.25,1,0.125,0.5\n", COLUMNS[0]);
        let record = old.parse::<History>().unwrap().records[0];
        assert_eq!((record.epoch, record.test_top5, record.unreadable), (1, 0.5, 0));
        let with_counts = format!("{}\n1,2,3,4,5,6,7,8,9,10,11,12\n", COLUMNS[..2].concat());
        let history: History = with_counts.parse().unwrap();
        let record = history.records[0];
        assert_eq!((record.test_unreadable, record.images_per_second, record.weights_hash), (12, None, None));
        assert_eq!(history.to_csv().parse::<History>().unwrap(), history);
    }
}
