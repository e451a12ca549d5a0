//! Whether the probabilities of a classifier are as often right as they say.

use crate::{Error, Result, Tensor};

/// The calibration of a classifier: images in bins of their confidence, which is the probability of
/// the predicted class (Guo et al. 2017, "On calibration of modern neural networks", section 2).
///
/// ```
/// use skipgrad::{Tensor, train::Calibration};
/// let mut calibration = Calibration::new(10)?;
/// let ln3 = 3f32.ln(); // a probability of 0.75
/// calibration.add(&Tensor::new([2, 2], [ln3, 0.0, ln3, 0.0])?, &[0, 1])?;
/// let bin = calibration.bins()[7];
/// assert_eq!((bin.images, bin.accuracy()), (2, 0.5));
/// assert!((calibration.expected_error() - 0.25).abs() < 1e-6);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    bins: Vec<CalibrationBin>,
}

/// The images whose confidence is in one bin of a [`Calibration`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct CalibrationBin {
    /// Number of images.
    pub images: usize,
    /// Number of images that were classified correctly.
    pub correct: usize,
    /// Sum of the confidences of the images.
    pub confidence_sum: f64,
}

impl CalibrationBin {
    /// Returns the fraction of the images that were classified correctly, in [0, 1]; NaN without
    /// images.
    pub fn accuracy(&self) -> f32 {
        self.correct as f32 / self.images as f32
    }

    /// Returns the mean confidence of the images, in [0, 1]; NaN without images.
    pub fn confidence(&self) -> f32 {
        (self.confidence_sum / self.images as f64) as f32
    }

    /// Returns the difference between accuracy and confidence.
    fn gap(&self) -> f64 {
        (self.correct as f64 - self.confidence_sum).abs() / self.images.max(1) as f64
    }
}

impl Calibration {
    /// Creates a calibration without images, with `bins` bins of the same width in [0, 1].
    ///
    /// # Errors
    /// [`Error::Argument`] if `bins` is 0.
    pub fn new(bins: usize) -> Result<Calibration> {
        match bins {
            0 => Err(Error::argument("calibration", "bins", "at least 1", 0)),
            _ => Ok(Calibration { bins: vec![CalibrationBin::default(); bins] }),
        }
    }

    /// Adds the images of a batch: `logits` have the shape `[N, K]`, and `labels` are `N` classes
    /// below `K`. Images with a logit that is not finite have no confidence and are left out.
    ///
    /// # Errors
    /// [`Error::Argument`] if the logits have another shape or a label is not below `K`.
    pub fn add(&mut self, logits: &Tensor, labels: &[usize]) -> Result<()> {
        let classes = super::metrics::classes(logits, labels)?;
        for (row, &label) in logits.data().chunks_exact(classes.max(1)).zip(labels) {
            if let Some((class, confidence)) = confidence(row) {
                self.add_image(confidence, class == label);
            }
        }
        Ok(())
    }

    /// Adds an image by its confidence in [0, 1].
    fn add_image(&mut self, confidence: f64, is_correct: bool) {
        // A bin has the confidences up to and including its end (Guo et al. 2017, equation 1).
        let bin = (confidence * self.bins.len() as f64).ceil() as usize;
        let last = self.bins.len() - 1;
        let bin = &mut self.bins[bin.saturating_sub(1).min(last)];
        bin.images += 1;
        bin.correct += usize::from(is_correct);
        bin.confidence_sum += confidence;
    }

    /// Returns the bins, that of the lowest confidences first.
    pub fn bins(&self) -> &[CalibrationBin] {
        &self.bins
    }

    /// Returns the number of images.
    pub fn images(&self) -> usize {
        self.bins.iter().map(|bin| bin.images).sum()
    }

    /// Returns the mean confidence of all images, in [0, 1]; NaN without images.
    pub fn confidence(&self) -> f32 {
        (self.bins.iter().map(|bin| bin.confidence_sum).sum::<f64>() / self.images() as f64) as f32
    }

    /// Returns the accuracy of all images, in [0, 1]; NaN without images.
    pub fn accuracy(&self) -> f32 {
        self.bins.iter().map(|bin| bin.correct).sum::<usize>() as f32 / self.images() as f32
    }

    /// Returns the expected calibration error in [0, 1]: the mean over the images of the difference
    /// between accuracy and confidence of their bin (Guo et al. 2017, equation 5). NaN without
    /// images.
    pub fn expected_error(&self) -> f32 {
        let images = self.images() as f64;
        self.bins.iter().map(|bin| bin.gap() * bin.images as f64 / images).sum::<f64>() as f32
    }

    /// Returns the maximum calibration error in [0, 1]: the largest difference between accuracy and
    /// confidence of a bin that has images (Guo et al. 2017, equation 5); 0 without images.
    pub fn maximum_error(&self) -> f32 {
        self.bins.iter().filter(|bin| bin.images > 0).map(|bin| bin.gap()).fold(0.0, f64::max) as f32
    }
}

/// Returns the predicted class and its probability, or `None` if a logit is not finite. Of equal
/// logits the one of the lower class counts as the higher, as in [`Tensor::argmax`].
pub(crate) fn confidence(logits: &[f32]) -> Option<(usize, f64)> {
    if logits.is_empty() || logits.iter().any(|x| !x.is_finite()) {
        return None;
    }
    let class = (1..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best });
    Some((class, probability(logits, class)))
}

/// Returns the probability of a class, the softmax of finite logits.
pub(crate) fn probability(logits: &[f32], class: usize) -> f64 {
    let relative = |&x: &f32| (f64::from(x) - f64::from(logits[class])).exp();
    1.0 / logits.iter().map(relative).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The logits of two classes for a probability of the first one.
    fn logits(probability: f64) -> [f32; 2] {
        [(probability / (1.0 - probability)).ln() as f32, 0.0]
    }

    #[test]
    fn errors_by_hand() {
        let mut calibration = Calibration::new(10).unwrap();
        let rows = [logits(0.95), logits(0.95), logits(0.65), logits(0.35)].concat();
        calibration.add(&Tensor::new([4, 2], rows).unwrap(), &[0, 1, 0, 1]).unwrap();
        let images: Vec<usize> = calibration.bins().iter().map(|bin| bin.images).collect();
        assert_eq!(images, [0, 0, 0, 0, 0, 0, 2, 0, 0, 2]);
        // Two at 0.65, both correct; two at 0.95, one correct.
        let expected = 0.5 * 0.35 + 0.5 * 0.45;
        assert!((calibration.expected_error() - expected).abs() < 1e-5);
        assert!((calibration.maximum_error() - 0.45).abs() < 1e-5);
        assert!((calibration.confidence() - 0.8).abs() < 1e-5);
        assert_eq!((calibration.accuracy(), calibration.images()), (0.75, 4));
    }

    #[test]
    fn ends_of_bins_belong_to_them() {
        let bin = |confidence: f64| {
            let mut calibration = Calibration::new(4).unwrap();
            calibration.add_image(confidence, true);
            calibration.bins().iter().position(|bin| bin.images == 1).unwrap()
        };
        assert_eq!([0.0, 0.25, 0.26, 0.5, 0.75, 1.0].map(bin), [0, 0, 1, 1, 2, 3]);
    }

    #[test]
    fn what_is_not_finite_is_left_out() {
        let mut calibration = Calibration::new(1).unwrap();
        let rows = [f32::NAN, 0.0, f32::INFINITY, 0.0, 1e30, -1e30];
        calibration.add(&Tensor::new([3, 2], rows).unwrap(), &[0, 0, 0]).unwrap();
        assert_eq!((calibration.images(), calibration.accuracy(), calibration.confidence()), (1, 1.0, 1.0));
        assert_eq!(confidence(&[1.0, 1.0]), Some((0, 0.5)));
        assert_eq!(confidence(&[]), None);
        assert!(Calibration::new(0).is_err() && Calibration::new(3).unwrap().expected_error().is_nan());
    }
}
