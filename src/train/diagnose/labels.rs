//! Whether the labels are in range and the classes balanced.

use super::{
    diagnosis::{Diagnosis, percent},
    finding::{Finding, FindingKind, Severity},
};
use crate::data::Loader;

const NAME: &str = "labels";

/// How often the largest class may have the odds that it has if all classes are as frequent.
const ODDS: f64 = 5.0;

/// The least number of images of a class to be expected for its absence to say something.
const EXPECTED: f64 = 20.0;

/// What the labels are fit for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Labels {
    /// Any check.
    Balanced,
    /// A loss, but a constant prediction is nearly as good as any.
    Imbalanced,
    /// No loss.
    Invalid,
}

/// Judges the labels of some images for a model of `logits` outputs.
pub(super) fn judge(labels: &[usize], logits: usize, loader: &Loader, diagnosis: &mut Diagnosis) -> Labels {
    let names = loader.dataset().classes();
    let classes = if names.is_empty() { logits } else { names.len() };
    if let Some(&label) = labels.iter().filter(|&&label| label >= logits).max() {
        let found = labels.iter().filter(|&&label| label >= logits).count();
        let message = format!(
            "{found} of {} labels are not below {logits}, the number of the model's outputs; the largest is \
             {label}. Give the model an output for every class, and count classes from 0.",
            labels.len()
        );
        diagnosis.add(Finding::new(FindingKind::InvalidLabels, Severity::Error, label as f64, message));
        diagnosis.check(NAME, format!("{logits} outputs, labels up to {label}"), false, "out of range");
        return Labels::Invalid;
    }
    let mut counts = vec![0; classes.max(labels.iter().max().map_or(0, |label| label + 1))];
    labels.iter().for_each(|&label| counts[label] += 1);
    let is_balanced = judge_balance(&counts, labels.len(), loader, diagnosis);
    diagnosis.class_counts = counts;
    if is_balanced { Labels::Balanced } else { Labels::Imbalanced }
}

fn judge_balance(counts: &[usize], images: usize, loader: &Loader, diagnosis: &mut Diagnosis) -> bool {
    let (n, classes) = (images as f64, counts.len());
    let (most, &count) = counts.iter().enumerate().max_by_key(|(_, count)| **count).unwrap_or((0, &0));
    let share = count as f64 / n;
    let absent = counts.iter().filter(|&&count| count == 0).count();
    let low = least_share(share, n);
    let is_dominated = classes < 2 || low * (classes - 1) as f64 > ODDS * (1.0 - low);
    let is_incomplete = absent > 0 && n / classes as f64 >= EXPECTED;
    let least = counts.iter().min().copied().unwrap_or(0) as f64 / n;
    let shares = format!("{} to {}", percent(least), percent(share));
    let measured = format!("{classes} classes with {shares} of {images} images");
    if !is_dominated && !is_incomplete {
        diagnosis.check(NAME, measured, true, "in range and balanced");
        return true;
    }
    let name = loader.dataset().classes().get(most).map_or(format!("{most}"), |name| format!("`{name}`"));
    let mut message = format!("Class {name} has {} of {images} images", percent(share));
    if absent > 0 {
        message += &format!(", and {absent} of {classes} classes do not occur");
    }
    message += match loader.is_shuffled() {
        false => {
            ". The loader does not shuffle, so the first batches may be of one class only: call \
             `Loader::shuffle`. If the dataset is so, compare the accuracy with that share, "
        }
        true => ". Always predicting it is right as often: compare the accuracy with that share, ",
    };
    message += "look at the recall of each class, and collect or repeat images of the rare ones.";
    diagnosis.add(Finding::new(FindingKind::ImbalancedLabels, Severity::Warning, share, message));
    diagnosis.check(
        NAME,
        measured,
        false,
        if is_dominated { "one class dominates" } else { "classes are missing" },
    );
    false
}

/// Returns the share that a class has at least, given that in a sample of `n`: the lower bound of
/// Wilson (1927), three standard deviations away, which holds for small samples, too.
fn least_share(share: f64, n: f64) -> f64 {
    const Z: f64 = 3.0;
    let spread = (share * (1.0 - share) / n + (Z / (2.0 * n)).powi(2)).sqrt();
    (share + Z * Z / (2.0 * n) - Z * spread) / (1.0 + Z * Z / n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_sample_says_little_and_a_large_one_what_it_shows() {
        assert!((least_share(1.0, 2.0) - 0.182).abs() < 1e-3);
        assert!((least_share(0.95, 1e6) - 0.95).abs() < 1e-3);
        assert!(least_share(0.0, 10.0).abs() < 1e-12);
    }
}
