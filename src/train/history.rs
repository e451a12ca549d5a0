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
}

/// The records of all epochs of a training, which can be written and read as a CSV table.
///
/// ```
/// use skipgrad::train::History;
/// let csv = "epoch,seconds,lr,train_loss,train_accuracy,test_loss,test_accuracy,test_top5,\
///     skipped_steps,rollbacks,unreadable,test_unreadable\n\
///     1,12.5,0.1,1.5,0.5,1.25,0.5625,0.9,0,0,3,1\n";
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

const HEADER: &str = "epoch,seconds,lr,train_loss,train_accuracy,test_loss,test_accuracy,test_top5,\
    skipped_steps,rollbacks,unreadable,test_unreadable";

/// The header that version 0.1 wrote, without counts.
const HEADER_WITHOUT_COUNTS: &str =
    "epoch,seconds,lr,train_loss,train_accuracy,test_loss,test_accuracy,test_top5";

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
                "{},{},{},{},{},{},{},{},{},{},{},{}",
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
                r.test_unreadable
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

/// Parses the table that [`History::to_csv`] returns, also one of version 0.1, which has no counts.
impl FromStr for History {
    type Err = Error;

    fn from_str(text: &str) -> Result<History> {
        let mut lines = text.lines();
        let header = lines.next().unwrap_or_default();
        let counts = match header {
            HEADER => 4,
            HEADER_WITHOUT_COUNTS => 0,
            _ => return Err(Error::argument("history", "header", HEADER, format_args!("{header:?}"))),
        };
        Ok(History { records: lines.map(|line| record(line, counts)).collect::<Result<_>>()? })
    }
}

/// Parses a record that ends with this many counts.
fn record(line: &str, counts: usize) -> Result<Record> {
    let error = || Error::argument("history", "record", format_args!("numbers for {HEADER}"), line);
    let fields: Vec<&str> = line.split(',').collect();
    let [epoch, seconds, rest @ ..] = &fields[..] else { return Err(error()) };
    let Some((rest, counted)) = rest.split_at_checked(rest.len().saturating_sub(counts)) else {
        return Err(error());
    };
    let rest: Vec<f32> = rest.iter().map(|x| x.parse()).collect::<Result<_, _>>().map_err(|_| error())?;
    let mut counted =
        counted.iter().map(|x| x.parse()).collect::<Result<Vec<usize>, _>>().map_err(|_| error())?;
    counted.resize(4, 0);
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
        skipped_steps: counted[0],
        rollbacks: counted[1],
        unreadable: counted[2],
        test_unreadable: counted[3],
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
            skipped_steps: 2,
            rollbacks: 1,
            unreadable: epoch,
            test_unreadable: 7,
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
            for (header, counts) in [(HEADER_WITHOUT_COUNTS, ""), (HEADER, ",0,0,0,0")] {
                let error = format!("{header}\n{line}{counts}\n").parse::<History>().unwrap_err();
                assert!(error.to_string().ends_with(&format!("found {line}{counts}")), "{error}");
            }
        }
        for counts in ["", ",0,0,0", ",0,0,0,-1", ",0,0,0,0,0"] {
            assert!(format!("{HEADER}\n1,2,3,4,5,6,7,8{counts}\n").parse::<History>().is_err(), "{counts}");
        }
    }

    #[test]
    fn a_table_without_counts_is_read() {
        let text = format!("{HEADER_WITHOUT_COUNTS}\n1,0.3333333333333333,0.1,2,0.25,1,0.125,0.5\n");
        let record = text.parse::<History>().unwrap().records[0];
        assert_eq!((record.epoch, record.test_top5, record.unreadable), (1, 0.5, 0));
    }
}
