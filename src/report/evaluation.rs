//! What the network does with the test images, which the page shows.

use crate::{
    Precision, Result, Tensor,
    data::{Batch, Loader},
    nn::Module,
    train::{Calibration, ConfusionMatrix, Metrics, confidence, for_each_batch, probability},
};

/// The number of bins of the calibration, as in Guo et al. 2017, section 2.
const BINS: usize = 15;

/// The most classes for which a confusion matrix is counted, which takes memory for each pair.
const MAX_CLASSES: usize = 1000;

/// The result of an evaluation.
pub(super) struct Evaluation {
    pub(super) metrics: Metrics,
    pub(super) calibration: Calibration,
    /// `None` if there are too many classes.
    pub(super) confusion: Option<ConfusionMatrix>,
    /// The mistakes of the highest confidence, that one first.
    pub(super) mistakes: Vec<Mistake>,
    /// The number of all mistakes.
    pub(super) num_mistakes: usize,
    names: Vec<String>,
}

/// An image that was classified wrongly.
pub(super) struct Mistake {
    /// Index of the image in the dataset.
    pub(super) index: usize,
    pub(super) label: usize,
    pub(super) class: usize,
    /// The probability of the predicted class.
    pub(super) confidence: f64,
    /// The probability of the true class.
    pub(super) label_probability: f64,
    /// The image as the network saw it, `[H, W, C]`.
    pub(super) input: Vec<f32>,
}

impl Evaluation {
    /// Evaluates a model on all images of a loader, and keeps this many mistakes.
    pub(super) fn new(
        precision: Precision,
        model: &dyn Module,
        loader: &Loader,
        mistakes: usize,
    ) -> Result<Evaluation> {
        let mut evaluation = Evaluation {
            metrics: Metrics::default(),
            calibration: Calibration::new(BINS)?,
            confusion: None,
            mistakes: vec![],
            num_mistakes: 0,
            names: loader.dataset().classes().to_vec(),
        };
        let (mut predictions, mut labels) = (vec![], vec![]);
        for_each_batch(precision, model, loader, |batch, logits| {
            evaluation.metrics.add(logits, &batch.labels)?;
            evaluation.calibration.add(logits, &batch.labels)?;
            evaluation.add_mistakes(batch, logits, mistakes);
            predictions.extend(logits.argmax());
            labels.extend_from_slice(&batch.labels);
            Ok(())
        })?;
        evaluation.metrics.unreadable = loader.num_samples().saturating_sub(evaluation.metrics.images);
        let largest = predictions.iter().chain(&labels).max().map_or(0, |&class| class + 1);
        let classes = largest.max(evaluation.names.len());
        if classes <= MAX_CLASSES {
            let mut confusion = ConfusionMatrix::new(classes);
            confusion.add(&predictions, &labels)?;
            evaluation.confusion = Some(confusion);
        }
        evaluation.num_mistakes = evaluation.metrics.images - evaluation.metrics.top1;
        Ok(evaluation)
    }

    /// Keeps the mistakes of a batch that are among the most confident ones so far.
    fn add_mistakes(&mut self, batch: &Batch, logits: &Tensor, most: usize) {
        let num_classes = logits.shape().num_channels().max(1);
        let size = batch.images.data().len() / batch.labels.len().max(1);
        for (i, (logits, &label)) in logits.data().chunks_exact(num_classes).zip(&batch.labels).enumerate() {
            let Some((class, confidence)) = confidence(logits) else { continue };
            // Of equal confidences the first one is kept.
            let rank = self.mistakes.partition_point(|mistake| mistake.confidence >= confidence);
            if class == label || rank >= most {
                continue;
            }
            let mistake = Mistake {
                index: batch.indices[i],
                label,
                class,
                confidence,
                label_probability: probability(logits, label),
                input: batch.images.data()[i * size..][..size].to_vec(),
            };
            self.mistakes.insert(rank, mistake);
            self.mistakes.truncate(most);
        }
    }

    /// Returns the name of a class.
    pub(super) fn name(&self, class: usize) -> String {
        self.names.get(class).cloned().unwrap_or_else(|| format!("class {class}"))
    }

    /// Returns the pairs of classes that are confused, a label, a prediction and how often, the
    /// most frequent pair first.
    pub(super) fn confusions(&self) -> Vec<(usize, usize, usize)> {
        let Some(confusion) = &self.confusion else { return vec![] };
        let classes = 0..confusion.num_classes();
        let pairs = classes.clone().flat_map(|label| classes.clone().map(move |class| (label, class)));
        let counted = pairs.map(|(label, class)| (label, class, confusion.count(label, class)));
        let mut confused: Vec<_> =
            counted.filter(|(label, class, count)| label != class && *count > 0).collect();
        confused.sort_by_key(|(_, _, count)| std::cmp::Reverse(*count));
        confused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Rng,
        autograd::State,
        data::Images,
        nn::{Flatten, Linear, Sequential},
    };

    /// A network of two classes, for which the brightness of the only pixel, times ten, is the
    /// logit of the second class, and that of the first class is 5.
    fn model() -> Sequential {
        let mut model = Sequential::new().push(Flatten).push(Linear::new(1, 2, &mut Rng::seed(0)).unwrap());
        let mut tensors = model.export();
        for (name, tensor) in &mut tensors {
            let values = if name.ends_with("bias") { [5.0, 0.0] } else { [0.0, 10.0] };
            *tensor = Tensor::new(tensor.shape(), values).unwrap();
        }
        model.import(tensors).unwrap();
        model
    }

    #[test]
    fn mistakes_come_by_their_confidence() {
        let pixels = Tensor::new([5, 1, 1, 1], [0.9, 0.2, 1.0, 0.6, 0.0]).unwrap();
        let images = Images::new(pixels, vec![0, 1, 0, 1, 1], ["dark", "bright"]).unwrap();
        let loader = Loader::new(images.clone(), 2);
        let evaluate = |most| Evaluation::new(Precision::F32, &model(), &loader, most).unwrap();
        let evaluation = evaluate(3);
        let found: Vec<_> = evaluation.mistakes.iter().map(|m| (m.index, m.label, m.class)).collect();
        assert_eq!(found, [(2, 0, 1), (4, 1, 0), (0, 0, 1)]);
        assert_eq!((evaluation.num_mistakes, evaluation.metrics.images), (4, 5));
        assert_eq!(evaluation.mistakes[0].input, [1.0]);
        let sum = evaluation.mistakes[0].confidence + evaluation.mistakes[0].label_probability;
        assert!((sum - 1.0).abs() < 1e-9);
        assert_eq!(evaluation.confusions(), [(0, 1, 2), (1, 0, 2)]);
        assert_eq!((evaluation.name(1), evaluation.name(7)), ("bright".into(), "class 7".into()));
        assert!(evaluate(0).mistakes.is_empty());
    }
}
