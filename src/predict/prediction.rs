//! What a network takes a picture for.

use std::{cmp::Ordering, fmt, sync::Arc};

/// What a network takes a picture for: a probability for every class.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    logits: Vec<f32>,
    probabilities: Vec<f32>,
    /// The classes, the likeliest first.
    order: Vec<usize>,
    names: Arc<[String]>,
}

/// A class and how likely it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassProbability<'a> {
    /// Its number, by which the logits are ordered.
    pub class: usize,
    /// Its name.
    pub name: &'a str,
    /// How likely the network thinks it, in [0, 1].
    pub probability: f32,
}

impl Prediction {
    /// From finite logits, at least one, and as many names.
    pub(super) fn new(logits: Vec<f32>, names: Arc<[String]>) -> Prediction {
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers: Vec<f64> =
            logits.iter().map(|&logit| (f64::from(logit) - f64::from(most)).exp()).collect();
        let sum: f64 = powers.iter().sum();
        let mut order: Vec<usize> = (0..logits.len()).collect();
        // A stable sort: of equal logits the lower class comes first, as everywhere.
        order.sort_by(|&a, &b| logits[b].partial_cmp(&logits[a]).unwrap_or(Ordering::Equal));
        let probabilities = powers.into_iter().map(|power| (power / sum) as f32).collect();
        Prediction { logits, probabilities, order, names }
    }

    /// The likeliest class.
    pub fn best(&self) -> ClassProbability<'_> {
        self.class_probability(self.order[0])
    }

    /// The `k` likeliest classes, or all if there are fewer, the likeliest first; among equals the lower class.
    pub fn top(&self, k: usize) -> impl ExactSizeIterator<Item = ClassProbability<'_>> {
        self.order[..k.min(self.order.len())].iter().map(|&class| self.class_probability(class))
    }

    /// The network's output, a number a class.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// The probabilities, one a class, whose sum is 1: the softmax of the logits.
    pub fn probabilities(&self) -> &[f32] {
        &self.probabilities
    }

    fn class_probability(&self, class: usize) -> ClassProbability<'_> {
        ClassProbability { class, name: &self.names[class], probability: self.probabilities[class] }
    }
}

/// The five likeliest classes.
impl fmt::Display for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, guess) in self.top(5).enumerate() {
            write!(f, "{}{guess}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Display for ClassProbability<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:.1} %", self.name, 100.0 * self.probability)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prediction(logits: &[f32]) -> Prediction {
        let names = (0..logits.len()).map(|i| format!("class {i}")).collect();
        Prediction::new(logits.to_vec(), names)
    }

    #[test]
    fn the_likeliest_come_first_and_equals_in_their_order() {
        let prediction = prediction(&[0.0, 3f32.ln(), -200.0, 3f32.ln(), 0.0]);
        let classes: Vec<usize> = prediction.top(9).map(|guess| guess.class).collect();
        assert_eq!(classes, [1, 3, 0, 4, 2]);
        assert!((prediction.best().probability - 0.375).abs() < 1e-6);
        assert_eq!(prediction.top(2).len(), 2);
        assert_eq!(
            prediction.to_string(),
            "class 1 37.5 %, class 3 37.5 %, class 0 12.5 %, class 4 12.5 %, class 2 0.0 %"
        );
    }

    #[test]
    fn huge_logits_are_no_trouble() {
        let prediction = prediction(&[f32::MAX, -f32::MAX, f32::MAX]);
        assert_eq!(prediction.probabilities(), [0.5, 0.0, 0.5]);
    }
}
