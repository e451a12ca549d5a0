//! What happened in every epoch.

use crate::{Error, Result, io};
use std::{fmt::Write, path::Path, str::FromStr};

/// One epoch of a training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record {
    /// The epoch, counted from 1.
    pub epoch: usize,
    /// The time of its training steps, in seconds; evaluation is not in it.
    pub seconds: f64,
    /// The learning rate of its last step.
    pub lr: f32,
    /// The mean loss of its steps, label smoothing included.
    pub train_loss: f32,
    /// The part of its images that were right when they were trained on, in [0, 1].
    pub train_accuracy: f32,
    /// The mean loss on the test images, without smoothing.
    pub test_loss: f32,
    /// The part of the test images that are right, in [0, 1].
    pub test_accuracy: f32,
    /// The part of the test images whose class is among the first five, in [0, 1].
    pub test_top5: f32,
}

/// Every epoch of a training, as a table.
///
/// ```
/// use skipgrad::train::{History, Record};
/// let record = Record { epoch: 1, seconds: 12.5, lr: 0.1, train_loss: 1.5, train_accuracy: 0.5,
///     test_loss: 1.25, test_accuracy: 0.5625, test_top5: 0.9 };
/// let history = History { records: vec![record] };
/// assert_eq!(history.to_csv().lines().last(), Some("1,12.5,0.1,1.5,0.5,1.25,0.5625,0.9"));
/// assert_eq!(history.to_csv().parse::<History>()?, history);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// One record an epoch, in order.
    pub records: Vec<Record>,
}

const HEADER: &str = "epoch,seconds,lr,train_loss,train_accuracy,test_loss,test_accuracy,test_top5";

impl History {
    /// The epoch of the highest test accuracy, the first of equals.
    pub fn best(&self) -> Option<&Record> {
        self.records.iter().reduce(|best, r| if r.test_accuracy > best.test_accuracy { r } else { best })
    }

    /// The table as text: a header, then one line an epoch. Numbers read back as they were.
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

/// Reads what [`History::to_csv`] writes.
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
    let refuse = || Error::argument("history", "record", format_args!("numbers for {HEADER}"), line);
    let fields: Vec<&str> = line.split(',').collect();
    let [epoch, seconds, rest @ ..] = &fields[..] else { return Err(refuse()) };
    let rest: Vec<f32> = rest.iter().map(|x| x.parse()).collect::<Result<_, _>>().map_err(|_| refuse())?;
    let [lr, train_loss, train_accuracy, test_loss, test_accuracy, test_top5] = rest[..] else {
        return Err(refuse());
    };
    Ok(Record {
        epoch: epoch.parse().map_err(|_| refuse())?,
        seconds: seconds.parse().map_err(|_| refuse())?,
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
    fn other_tables_are_refused() {
        assert!("".parse::<History>().is_err());
        for line in ["1,2,3", "1,2,3,4,5,6,7,8,9", "x,2,3,4,5,6,7,8", "1,2,3,4,5,6,7,eight"] {
            let error = format!("{HEADER}\n{line}\n").parse::<History>().unwrap_err();
            assert!(error.to_string().ends_with(&format!("found {line}")), "{error}");
        }
    }
}
