//! The result of a diagnosis: what was measured, and what follows.

use super::finding::{Finding, FindingKind, Severity};
use std::fmt;

/// The result of [`diagnose`](super::diagnose): findings, the checks with their verdicts, and what
/// was measured.
///
/// It is displayed as the table of the checks, and the findings below it. With `{:#}` the tables of
/// layers and ReLUs are between them.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Diagnosis {
    /// What was found, in the order in which it should be repaired; empty if all is well.
    pub findings: Vec<Finding>,
    /// Every check with what it measured and its verdict.
    pub checks: Vec<Check>,
    /// The number of images that were looked at.
    pub images: usize,
    /// The pixels of each channel.
    pub channels: Vec<ChannelStats>,
    /// The number of images of each class.
    pub class_counts: Vec<usize>,
    /// The ReLUs, in the order of a pass.
    pub relus: Vec<ReluStats>,
    /// The layers with weights, in the order of the model's state.
    pub layers: Vec<LayerStats>,
    /// The loss before the first step, in nats.
    pub initial_loss: Option<f32>,
    /// The loss of one batch before each step of the attempt to memorize it.
    pub overfit_losses: Vec<f32>,
    /// How well the labels of images are predicted that were held out of a short training.
    pub held_out: Option<HeldOut>,
}

/// A check of a [`Diagnosis`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Check {
    /// The name, such as `gradients`.
    pub name: &'static str,
    /// What was measured, in words.
    pub measured: String,
    /// The verdict, in words.
    pub verdict: String,
    /// Whether the check found nothing; `None` if there was nothing to measure.
    pub passed: Option<bool>,
}

/// The pixels of a channel, as the model gets them.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ChannelStats {
    /// The mean.
    pub mean: f64,
    /// The standard deviation.
    pub std: f64,
    /// The smallest value.
    pub min: f32,
    /// The largest value.
    pub max: f32,
}

/// A ReLU of the model, before the first step.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReluStats {
    /// The path of the module whose output it reads.
    pub after: String,
    /// The number of channels.
    pub channels: usize,
    /// The number of channels that are zero for every pixel of every image, although their input
    /// varies: no gradient reaches what is before them.
    pub dead: usize,
    /// The share of all values that are zero, in [0, 1]; about one half is usual.
    pub zeros: f64,
}

/// A layer with weights.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LayerStats {
    /// The path of the module.
    pub path: String,
    /// The number of weights, without biases.
    pub weights: usize,
    /// The Euclidean norm of the weights.
    pub weight_norm: f64,
    /// The norm of their gradient before each of the first steps; empty if they are frozen.
    pub gradient_norms: Vec<f64>,
    /// The norm of what one step of the optimizer changes, divided by that of the weights; `None`
    /// if they are frozen or zero.
    pub update_ratio: Option<f64>,
}

/// How well a short training predicts the labels of images that were held out of it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct HeldOut {
    /// The number of images that were held out.
    pub images: usize,
    /// The number of steps.
    pub steps: usize,
    /// The mean loss of the images, in nats.
    pub loss: f64,
    /// The mean loss that they have if their labels are exchanged among them at random.
    pub loss_of_exchanged: f64,
    /// By how many standard deviations of a random exchange the loss is lower.
    pub score: f64,
}

impl Diagnosis {
    /// Returns whether nothing was found.
    pub fn is_healthy(&self) -> bool {
        self.findings.is_empty()
    }

    /// Returns the first finding of a kind.
    pub fn finding(&self, kind: FindingKind) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.kind() == kind)
    }

    pub(super) fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Adds a check that measured something.
    pub(super) fn check(&mut self, name: &'static str, measured: String, passed: bool, verdict: &str) {
        self.checks.push(Check { name, measured, verdict: verdict.to_string(), passed: Some(passed) });
    }

    /// Adds a check that could not measure anything.
    pub(super) fn skip(&mut self, name: &'static str, reason: &str) {
        self.checks.push(Check {
            name,
            measured: "-".to_string(),
            verdict: format!("not measured: {reason}"),
            passed: None,
        });
    }

    fn fmt_layers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |x: Option<f64>| x.map_or("-".to_string(), |x| format!("{x:.2e}"));
        let mut lines = vec![["layer", "weights", "norm", "gradient", "update ratio"].map(String::from)];
        for layer in &self.layers {
            let gradient = layer.gradient_norms.first().copied();
            let [norm, gradient, ratio] = [Some(layer.weight_norm), gradient, layer.update_ratio].map(number);
            lines.push([layer.path.clone(), layer.weights.to_string(), norm, gradient, ratio]);
        }
        write_table(f, &lines, true)?;
        writeln!(f)?;
        let mut lines = vec![["ReLU after", "channels", "dead", "zeros"].map(String::from)];
        for ReluStats { after, channels, dead, zeros } in &self.relus {
            lines.push([after.clone(), channels.to_string(), dead.to_string(), percent(*zeros)]);
        }
        write_table(f, &lines, true)?;
        writeln!(f)
    }
}

/// Writes the checks as a table, and the findings.
impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = vec![["check", "measured", "verdict"].map(String::from)];
        let line = |check: &Check| [check.name.to_string(), check.measured.clone(), check.verdict.clone()];
        lines.extend(self.checks.iter().map(line));
        write_table(f, &lines, false)?;
        writeln!(f)?;
        if f.alternate() {
            self.fmt_layers(f)?;
        }
        let errors = self.findings.iter().filter(|finding| finding.severity() == Severity::Error).count();
        match (errors, self.findings.len() - errors) {
            (0, 0) => return write!(f, "No findings."),
            (errors, warnings) => {
                write!(f, "{}, {}:", counted(errors, "error"), counted(warnings, "warning"))?
            }
        }
        self.findings.iter().try_for_each(|finding| write!(f, "\n- {finding}"))
    }
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Returns a share in percent.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// Writes lines with aligned columns, of which all but the first are numbers or none are.
fn write_table<const N: usize>(
    f: &mut fmt::Formatter<'_>,
    lines: &[[String; N]],
    numbers: bool,
) -> fmt::Result {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    for line in lines {
        let mut text = String::new();
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            text += &match numbers && column > 0 {
                true => format!("{gap}{cell:>width$}"),
                false => format!("{gap}{cell:width$}"),
            };
        }
        writeln!(f, "{}", text.trim_end())?;
    }
    Ok(())
}
