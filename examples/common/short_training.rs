//! Trainings of a few hundred steps: their images, their batches, and their progress.

use indicatif::{ProgressBar, ProgressStyle};
use skipgrad::{
    Result,
    data::{Batch, Cifar10, Images, Loader, SyntheticShapes},
};
use std::{
    io::IsTerminal,
    path::Path,
    time::{Duration, Instant},
};

/// Returns the training and the test images of CIFAR-10's folder, or synthetic ones, of both at
/// most as many as are asked for.
pub(crate) fn images(cifar10: Option<&Path>, most: [usize; 2], seed: u64) -> Result<(Images, Images)> {
    let (train, test) = match cifar10 {
        Some(folder) => Cifar10::open(folder).map(|data| (data.train(), data.test()))?,
        None => {
            let [train, test] = [0, 1].map(|split| most[split].min(SyntheticShapes::SIZES[split]));
            let data = SyntheticShapes::with_sizes(train, test, seed)?;
            (data.train(), data.test())
        }
    };
    Ok((train.take(most[0]), test.take(most[1])))
}

/// Returns the batches of the first steps, from as many epochs as they take.
pub(crate) fn batches(loader: &Loader, steps: usize) -> Result<impl Iterator<Item = Result<Batch>>> {
    let epochs = steps.div_ceil(loader.num_batches().max(1)) as u64;
    let epochs = (0..epochs).map(|epoch| loader.epoch(epoch)).collect::<Result<Vec<_>>>()?;
    Ok(epochs.into_iter().flatten().take(steps))
}

/// Time between two plain lines.
const PAUSE: Duration = Duration::from_secs(10);

/// Shows the steps of several trainings, one after the other: a bar on a terminal, lines elsewhere.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    begin: Instant,
    shown: Instant,
    /// Work, in any unit, such as multiply-adds.
    done: f64,
    total: f64,
}

impl Progress {
    /// Begins with the work of all trainings together.
    pub(crate) fn new(total: f64) -> Progress {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{prefix} [{bar:24}] {msg}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(1000).with_style(style.progress_chars("=> "))
        });
        let now = Instant::now();
        Progress { bar, begin: now, shown: now, done: 0.0, total }
    }

    /// Shows a step, which did a part of the work for some images since it began.
    pub(crate) fn step(&mut self, training: &str, message: &str, work: f64, images: usize, begin: Instant) {
        self.done += work;
        let rate = images as f64 / begin.elapsed().as_secs_f64();
        let left = self.begin.elapsed().as_secs_f64() * (self.total / self.done - 1.0).max(0.0);
        let text = format!("{message}, {rate:.0} images/s, left: {}", time(left as u64));
        if let Some(bar) = &self.bar {
            bar.set_prefix(training.to_string());
            bar.set_position((1000.0 * self.done / self.total) as u64);
            bar.set_message(text);
        } else if self.shown.elapsed() >= PAUSE {
            self.shown = Instant::now();
            println!("{training}: {text}");
        }
    }

    /// Prints a line above the bar.
    pub(crate) fn println(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| println!("{line}")),
            None => println!("{line}"),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Formats seconds as `12 s` or `3:05`.
fn time(seconds: u64) -> String {
    match seconds / 60 {
        0 => format!("{seconds} s"),
        minutes => format!("{minutes}:{:02}", seconds % 60),
    }
}
