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
}

/// The records of all epochs of a training, which can be written and read as a CSV table.
///
/// ```
/// use skipgrad::train::History;
/// let csv = "epoch,seconds,lr,train_loss,train_accuracy,test_loss,test_accuracy,test_top5
/// 1,12.5,0.1,1.5,0.5,1.25,0.5625,0.9
/// ";
/// let history: History = csv.parse()?;
/// assert_eq!(history.best().map(|record| record.test_accuracy), Some(0.5625));
/// assert_eq!(history.to_csv(), csv);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct History {
    /// One record per epoch, in order.
    pub records: Vec<Record>,
}

const HEADER: &str = "epoch,seconds,lr,train_loss,train_accuracy,test_loss,test_accuracy,test_top5";

impl History {
    /// Returns the record of the highest test accuracy, and the first of them if several are equal.
    pub fn best(&self) -> Option<&Record> {
        self.records.iter().reduce(|best, r| if r.test_accuracy > best.test_accuracy { r } else { best })
    }

    /// Returns the table as CSV, a header and one line per epoch. Parsing it gives the same
    /// numbers.
    pub fn to_csv(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for r in &self.records {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{},{},{},{},{},{},{},{}",
                r.epoch,
                r.seconds,
                r.lr,
                r.train_loss,
                r.train_accuracy,
                r.test_loss,
                r.test_accuracy,
                r.test_top5
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

/// Parses the table that [`History::to_csv`] returns.
impl FromStr for History {
    type Err = Error;

    fn from_str(text: &str) -> Result<History> {
        let mut lines = text.lines();
        let header = lines.next().unwrap_or_default();
        if header != HEADER {
            return Err(Error::argument("history", "header", HEADER, format_args!("{header:?}")));
        }
        Ok(History { records: lines.map(record).collect::<Result<_>>()? })
    }
}

fn record(line: &str) -> Result<Record> {
    let error = || Error::argument("history", "record", format_args!("numbers for {HEADER}"), line);
    let fields: Vec<&str> = line.split(',').collect();
    let [epoch, seconds, rest @ ..] = &fields[..] else { return Err(error()) };
    let rest: Vec<f32> = rest.iter().map(|x| x.parse()).collect::<Result<_, _>>().map_err(|_| error())?;
    let [lr, train_loss, train_accuracy, test_loss, test_accuracy, test_top5] = rest[..] else {
        return Err(error());
    };
    Ok(Record {
        epoch: epoch.parse().map_err(|_| error())?,
        seconds: seconds.parse().map_err(|_| error())?,
        lr,
        train_loss,
        train_accuracy,
        test_loss,
        test_accuracy,
        test_top5,
    })
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
        assert_eq!(History { records }.best().unwrap().epoch, 2);
        assert!(History::default().best().is_none());
    }

    #[test]
    fn other_tables_are_errors() {
        assert!("".parse::<History>().is_err());
        for line in ["1,2,3", "1,2,3,4,5,6,7,8,9", "x,2,3,4,5,6,7,8", "1,2,3,4,5,6,7,eight"] {
            let error = format!("{HEADER}\n{line}\n").parse::<History>().unwrap_err();
            assert!(error.to_string().ends_with(&format!("found {line}")), "{error}");
        }
    }
}
