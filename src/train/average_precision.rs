//! Average precision of classifiers that may find several classes in an image, or none.

use crate::{Error, Result, Tensor};

/// The average precision of each class over all images that were added: the area below its curve of
/// precision over recall, as scikit-learn's `average_precision_score` computes it:
///
/// ```text
/// AP = Σ_n (R[n] - R[n - 1]) P[n]
/// ```
///
/// P and R are the precision and the recall if all images with at least the n-th highest score are
/// taken for positive. Equal scores count together. The mean over the classes is known as mAP.
///
/// ```
/// use skipgrad::{Tensor, train::AveragePrecision};
/// let mut precision = AveragePrecision::new(1);
/// let scores = Tensor::new([4, 1], [0.1, 0.4, 0.35, 0.8])?;
/// precision.add(&scores, &Tensor::new([4, 1], [0.0, 0.0, 1.0, 1.0])?)?;
/// assert!((precision.of_class(0) - 0.8333).abs() < 1e-4); // as in scikit-learn's example
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct AveragePrecision {
    /// The score of each image for a class, and whether it is of that class.
    answers: Vec<Vec<(f32, bool)>>,
}

impl AveragePrecision {
    /// Creates the metric for `classes` classes, without images.
    pub fn new(classes: usize) -> AveragePrecision {
        AveragePrecision { answers: vec![vec![]; classes] }
    }

    /// Adds the images of a batch: scores `[N, K]`, such as logits, and targets `[N, K]`, each 0 or
    /// 1. Their order alone matters.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for another shape; [`Error::Argument`] for another target, and for
    /// a score that is NaN. Nothing is added then.
    pub fn add(&mut self, scores: &Tensor, targets: &Tensor) -> Result<()> {
        let classes = self.answers.len();
        let images = scores.shape().first().copied().unwrap_or(0);
        for (argument, tensor) in [("scores", scores), ("targets", targets)] {
            if tensor.shape() != [images, classes] {
                return Err(Error::shape("average_precision", argument, [images, classes], tensor.shape()));
            }
        }
        if let Some(target) = targets.data().iter().find(|&&target| target != 0.0 && target != 1.0) {
            return Err(Error::argument("average_precision", "targets", "0 or 1", target));
        }
        if scores.data().iter().any(|score| score.is_nan()) {
            return Err(Error::argument("average_precision", "scores", "numbers", f32::NAN));
        }
        for (i, (&score, &target)) in scores.data().iter().zip(targets.data()).enumerate() {
            self.answers[i % classes].push((score, target == 1.0));
        }
        Ok(())
    }

    /// Returns the average precision of a class in [0, 1]; NaN if no image is of the class, or if
    /// there is no such class.
    pub fn of_class(&self, class: usize) -> f32 {
        let mut answers = self.answers.get(class).cloned().unwrap_or_default();
        answers.sort_by(|a, b| b.0.total_cmp(&a.0));
        let positives = answers.iter().filter(|answer| answer.1).count();
        let (mut taken, mut found, mut area) = (0, 0, 0.0);
        for equal in answers.chunk_by(|a, b| a.0 == b.0) {
            let more = equal.iter().filter(|answer| answer.1).count();
            (taken, found) = (taken + equal.len(), found + more);
            area += more as f64 * found as f64 / taken as f64;
        }
        (area / positives as f64) as f32
    }

    /// Returns the mean of the average precisions of all classes that have images (mAP), in [0, 1];
    /// NaN without any.
    pub fn mean(&self) -> f32 {
        let all = (0..self.answers.len()).map(|class| self.of_class(class));
        let known: Vec<f32> = all.filter(|precision| !precision.is_nan()).collect();
        known.iter().sum::<f32>() / known.len() as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(metric: &mut AveragePrecision, rows: &[[f32; 2]], targets: &[[f32; 2]]) -> Result<()> {
        let tensor = |rows: &[[f32; 2]]| Tensor::new([rows.len(), 2], rows.concat());
        metric.add(&tensor(rows)?, &tensor(targets)?)
    }

    #[test]
    fn areas_by_hand() {
        let mut metric = AveragePrecision::new(2);
        assert!(metric.of_class(0).is_nan() && metric.mean().is_nan() && metric.of_class(5).is_nan());
        // In two batches. Class 0, from the highest score: yes, no, yes, yes: 1/3 (1 + 2/3 + 3/4).
        add(&mut metric, &[[4.0, 0.0], [1.0, 0.0]], &[[1.0, 0.0], [1.0, 0.0]]).unwrap();
        add(&mut metric, &[[3.0, 0.0], [2.0, 0.0]], &[[0.0, 0.0], [1.0, 0.0]]).unwrap();
        assert!((metric.of_class(0) - 29.0 / 36.0).abs() < 1e-6);
        assert!(metric.of_class(1).is_nan(), "no image is of class 1");
        assert_eq!(metric.mean(), metric.of_class(0));
    }

    #[test]
    fn equal_scores_count_together_in_any_order() {
        // Two of three at the same score: the precision is 2/3 for both.
        for order in [[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]] {
            let mut metric = AveragePrecision::new(2);
            let targets = order.map(|target| [target, 1.0]);
            add(&mut metric, &[[0.5, -1.0]; 3], &targets).unwrap();
            assert_eq!(metric.of_class(0), 2.0 / 3.0);
            assert_eq!(metric.of_class(1), 1.0);
            assert!((metric.mean() - 5.0 / 6.0).abs() < 1e-6);
        }
    }

    #[test]
    fn errors_name_the_argument_and_nothing_is_added() {
        let mut metric = AveragePrecision::new(2);
        let mut error = |rows: &[[f32; 2]], targets: &[[f32; 2]]| {
            add(&mut metric, rows, targets).unwrap_err().to_string()
        };
        assert_eq!(
            error(&[[0.0; 2]; 2], &[[0.0; 2]]),
            "average_precision: targets: expected [2, 2], found [1, 2]"
        );
        assert!(error(&[[0.0; 2]], &[[0.5, 0.0]]).contains("targets: expected 0 or 1, found 0.5"));
        assert!(error(&[[0.0, f32::NAN]], &[[0.0; 2]]).contains("scores: expected numbers, found NaN"));
        assert_eq!(metric, AveragePrecision::new(2));
    }
}
