//! The prediction of a network for one image.

use std::{cmp::Ordering, fmt, sync::Arc};

/// The prediction of a network for one image: a logit and a probability for each class.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    logits: Vec<f32>,
    probabilities: Vec<f32>,
    /// The classes, the most probable first.
    order: Vec<usize>,
    names: Arc<[String]>,
}

/// A class and its predicted probability; [`Prediction::top_k`] returns the most probable ones.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ClassProbability<'a> {
    /// Index of the class among the logits.
    pub class: usize,
    /// Name of the class in the preset of the predictor.
    pub name: &'a str,
    /// Probability of the class, in [0, 1].
    pub probability: f32,
}

impl Prediction {
    /// Creates a prediction from finite logits, of which there is at least one, and a name for
    /// each.
    pub(super) fn new(logits: Vec<f32>, names: Arc<[String]>) -> Prediction {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exps: Vec<f64> = logits.iter().map(|&logit| (f64::from(logit) - f64::from(max)).exp()).collect();
        let sum: f64 = exps.iter().sum();
        let mut order: Vec<usize> = (0..logits.len()).collect();
        // The sort is stable: of equal logits the lower class comes first, as in `Var::argmax`.
        order.sort_by(|&a, &b| logits[b].partial_cmp(&logits[a]).unwrap_or(Ordering::Equal));
        let probabilities = exps.into_iter().map(|exp| (exp / sum) as f32).collect();
        Prediction { logits, probabilities, order, names }
    }

    /// Returns the most probable class.
    pub fn best(&self) -> ClassProbability<'_> {
        self.class_probability(self.order[0])
    }

    /// Returns the `k` most probable classes, or all if there are fewer, the most probable first.
    /// Of classes with the same logit, the lower index comes first.
    pub fn top_k(&self, k: usize) -> impl ExactSizeIterator<Item = ClassProbability<'_>> {
        self.order[..k.min(self.order.len())].iter().map(|&class| self.class_probability(class))
    }

    /// Returns the output of the network, one logit per class.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Returns the probability of each class: the softmax of the logits, whose sum is 1.
    pub fn probabilities(&self) -> &[f32] {
        &self.probabilities
    }

    fn class_probability(&self, class: usize) -> ClassProbability<'_> {
        ClassProbability { class, name: &self.names[class], probability: self.probabilities[class] }
    }
}

/// Writes the five most probable classes.
impl fmt::Display for Prediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, class) in self.top_k(5).enumerate() {
            write!(f, "{}{class}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// Writes the name and the probability in percent, such as `tabby 28.1 %`.
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
    fn the_most_probable_come_first_and_equals_in_their_order() {
        let prediction = prediction(&[0.0, 3f32.ln(), -200.0, 3f32.ln(), 0.0]);
        let classes: Vec<usize> = prediction.top_k(9).map(|top| top.class).collect();
        assert_eq!(classes, [1, 3, 0, 4, 2]);
        assert!((prediction.best().probability - 0.375).abs() < 1e-6);
        assert_eq!(prediction.top_k(2).len(), 2);
        assert_eq!(
            prediction.to_string(),
            "class 1 37.5 %, class 3 37.5 %, class 0 12.5 %, class 4 12.5 %, class 2 0.0 %"
        );
    }

    #[test]
    fn huge_logits_do_not_overflow() {
        let prediction = prediction(&[f32::MAX, -f32::MAX, f32::MAX]);
        assert_eq!(prediction.probabilities(), [0.5, 0.0, 0.5]);
    }
}
