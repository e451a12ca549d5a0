//! Progress of a training: one bar per epoch on a terminal, plain lines elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use skipgrad::train::{Record, Step};
use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

/// Time between two plain lines.
const PAUSE: Duration = Duration::from_secs(10);

/// Shows the progress of a training.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    terminal: bool,
    last: Instant,
}

impl Progress {
    /// Creates a display that uses bars if standard error is a terminal.
    pub(crate) fn new() -> Progress {
        Progress { bar: None, terminal: std::io::stderr().is_terminal(), last: Instant::now() }
    }

    /// Shows a step.
    pub(crate) fn step(&mut self, step: &Step) {
        let numbers = format!(
            "{:.0} images/s, loss {:.4}, accuracy {:.4}, lr {:.5}, left: {} of the epoch, {} in all",
            step.images_per_second,
            step.mean_loss,
            step.accuracy,
            step.lr,
            time(step.eta),
            time(step.total_eta)
        );
        if self.terminal {
            let bar = self.bar.get_or_insert_with(|| {
                let style = "{prefix} [{bar:24}] {pos}/{len} {msg}";
                let style =
                    ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
                ProgressBar::new(step.batches as u64).with_style(style.progress_chars("=> "))
            });
            bar.set_prefix(format!("epoch {}/{}", step.epoch, step.epochs));
            bar.set_message(numbers);
            bar.set_position(step.batch as u64);
        } else if self.last.elapsed() >= PAUSE {
            self.last = Instant::now();
            let Step { epoch, epochs, batch, batches, .. } = step;
            println!("epoch {epoch}/{epochs} batch {batch}/{batches}: {numbers}");
        }
    }

    /// Shows an epoch.
    pub(crate) fn epoch(&mut self, record: &Record, epochs: usize) {
        self.finish();
        println!(
            "epoch {}/{epochs}: training loss {:.4} accuracy {:.4}, test loss {:.4} accuracy {:.4}, {:.1} s",
            record.epoch,
            record.train_loss,
            record.train_accuracy,
            record.test_loss,
            record.test_accuracy,
            record.seconds
        );
    }

    /// Removes the bar.
    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// Formats a duration as `12 s`, `3:05` or `1:02:30`.
fn time(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest} s"),
        (0, _) => format!("{minutes}:{rest:02}"),
        _ => format!("{hours}:{minutes:02}:{rest:02}"),
    }
}
