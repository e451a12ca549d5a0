//! Metrics of a classifier: accuracy, mean loss and confusion matrix.

use crate::{
    Error, Precision, Result, Tensor,
    data::{Batch, Loader},
    inference::{InferenceModel, InferenceOptions},
    nn::Module,
};

/// Counts over classified images, from which accuracy and mean loss follow.
///
/// ```
/// use skipgrad::{Tensor, train::Metrics};
/// let mut metrics = Metrics::default();
/// metrics.add(&Tensor::new([2, 3], [0.0, 5.0, 1.0, 0.0, 0.0, 0.0])?, &[1, 2])?;
/// assert_eq!((metrics.images, metrics.top1, metrics.top5), (2, 1, 2));
/// assert_eq!(metrics.accuracy(), 0.5);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Metrics {
    /// Number of images.
    pub images: usize,
    /// Number of images whose class has the highest logit.
    pub top1: usize,
    /// Number of images whose class is among the five highest logits.
    pub top5: usize,
    /// Sum of the cross-entropies of the images, in nats.
    pub loss_sum: f64,
    /// Number of images that [`evaluate`] left out because they could not be read;
    /// [`Loader::unreadable`] says which and why.
    pub unreadable: usize,
}

impl Metrics {
    /// Adds the images of a batch: `logits` have the shape `[N, K]`, and `labels` are `N` classes
    /// below `K`.
    ///
    /// Of equal logits the one of the lower class counts as the higher, as in [`Tensor::argmax`].
    /// An image with a NaN logit counts as misclassified, and the loss is NaN then.
    ///
    /// # Errors
    /// [`Error::Argument`] if the logits have another shape or a label is not below `K`.
    pub fn add(&mut self, logits: &Tensor, labels: &[usize]) -> Result<()> {
        let classes = classes(logits, labels)?;
        for (row, &label) in logits.data().chunks_exact(classes.max(1)).zip(labels) {
            let rank = rank(row, label);
            self.images += 1;
            self.top1 += usize::from(rank < 1);
            self.top5 += usize::from(rank < 5);
            self.loss_sum += cross_entropy(row, label);
        }
        Ok(())
    }

    /// Returns the top-1 accuracy in [0, 1], the fraction of images whose class has the highest
    /// logit; NaN without images.
    pub fn accuracy(&self) -> f32 {
        self.top1 as f32 / self.images as f32
    }

    /// Returns the top-5 accuracy in [0, 1], the fraction of images whose class is among the five
    /// highest logits; NaN without images.
    pub fn top5_accuracy(&self) -> f32 {
        self.top5 as f32 / self.images as f32
    }

    /// Returns the mean cross-entropy in nats; NaN without images.
    pub fn loss(&self) -> f32 {
        (self.loss_sum / self.images as f64) as f32
    }
}

/// Checks that logits and labels fit together, and returns the number of classes.
pub(super) fn classes(logits: &Tensor, labels: &[usize]) -> Result<usize> {
    let [images, classes] = logits.shape()[..] else {
        return Err(Error::shape("metrics", "logits", ["N", "K"], logits.shape()));
    };
    if images != labels.len() {
        return Err(Error::argument("metrics", "labels", format!("{images} labels"), labels.len()));
    }
    match labels.iter().position(|&label| label >= classes) {
        Some(row) => {
            let (expected, found) =
                (format!("classes below {classes}"), format!("{} in row {row}", labels[row]));
            Err(Error::argument("metrics", "labels", expected, found))
        }
        None => Ok(classes),
    }
}

/// Returns the number of classes whose logits rank before that of the label.
fn rank(row: &[f32], label: usize) -> usize {
    if row.iter().any(|x| x.is_nan()) {
        return usize::MAX;
    }
    let mine = row[label];
    row.iter().enumerate().filter(|&(i, &x)| x > mine || (x == mine && i < label)).count()
}

/// Returns `log(sum exp(x)) - x[label]`.
fn cross_entropy(row: &[f32], label: usize) -> f64 {
    let largest = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = row.iter().map(|&x| (f64::from(x) - largest).exp()).sum();
    largest + sum.ln() - f64::from(row[label])
}

/// Evaluates a model on all images of a loader, in evaluation mode: it is compiled first.
///
/// The loader should neither shuffle nor augment the images nor drop the last batch. Images that
/// cannot be read are left out, counted in [`Metrics::unreadable`], and logged.
///
/// # Errors
/// Errors of the loader and of the model; [`Error::Argument`] if the model's output is not of the
/// shape `[N, K]` or a label is not below `K`.
///
/// ```
/// use skipgrad::{Rng, data::{Loader, SyntheticShapes}, nn::{Flatten, Linear, Sequential}};
/// use skipgrad::train::evaluate;
/// let test = Loader::new(SyntheticShapes::with_sizes(0, 50, 1)?.test(), 20);
/// let model = Sequential::new().push(Flatten).push(Linear::new(3072, 10, &mut Rng::seed(0))?);
/// let metrics = evaluate(&model, &test)?;
/// assert_eq!(metrics.images, 50);
/// println!("top-1 accuracy {:.4}, loss {:.4}", metrics.accuracy(), metrics.loss());
/// # Ok::<(), skipgrad::Error>(())
/// ```
pub fn evaluate(model: &dyn Module, loader: &Loader) -> Result<Metrics> {
    evaluate_in(Precision::F32, model, loader)
}

/// Evaluates a model as [`evaluate`], with convolutions and linear layers that multiply in this
/// precision.
///
/// # Errors
/// As [`evaluate`].
///
/// ```
/// use skipgrad::{Precision, Rng, data::{Loader, SyntheticShapes}, models::ResNet};
/// use skipgrad::train::{evaluate, evaluate_in};
/// let test = Loader::new(SyntheticShapes::with_sizes(0, 10, 1)?.test(), 10);
/// let model = ResNet::cifar_paper(20, 10, &mut Rng::seed(0))?;
/// let (f32, bf16) = (evaluate(&model, &test)?, evaluate_in(Precision::Bf16, &model, &test)?);
/// assert!((f32.loss() - bf16.loss()).abs() < 0.05);
/// # Ok::<(), skipgrad::Error>(())
/// ```
pub fn evaluate_in(precision: Precision, model: &dyn Module, loader: &Loader) -> Result<Metrics> {
    let mut metrics = Metrics::default();
    for_each_batch(precision, model, loader, |batch, logits| metrics.add(logits, &batch.labels))?;
    metrics.unreadable = loader.num_samples().saturating_sub(metrics.images);
    log_unreadable("evaluation", metrics.unreadable, loader);
    Ok(metrics)
}

/// Compiles a model in a precision, and calls `f` with every batch of a loader and the logits of
/// its images.
///
/// # Errors
/// Errors of the loader, of the model, and of `f`.
pub(crate) fn for_each_batch(
    precision: Precision,
    model: &dyn Module,
    loader: &Loader,
    mut f: impl FnMut(&Batch, &Tensor) -> Result<()>,
) -> Result<()> {
    let mut compiled = None;
    for batch in loader.epoch(0)? {
        let batch = batch?;
        let shape = batch.images.shape();
        let compiled = match compiled.take().filter(|compiled: &InferenceModel| compiled.fits(shape)) {
            Some(fitting) => compiled.insert(fitting),
            None => {
                let options = InferenceOptions::new(&shape[1..]).batch_size(shape[0]).precision(precision);
                compiled.insert(InferenceModel::compile(model, &options)?)
            }
        };
        f(&batch, &compiled.run(&batch.images)?)?;
    }
    Ok(())
}

/// The most images that one line of the log names.
const LOGGED: usize = 10;

/// Logs how many images of a pass over a loader could not be read, which, and why.
pub(super) fn log_unreadable(pass: &str, count: usize, loader: &Loader) {
    if count > 0 {
        let unreadable = loader.unreadable();
        let mut reasons: Vec<&str> = unreadable.iter().take(LOGGED).map(|(_, reason)| &**reason).collect();
        if unreadable.len() > LOGGED {
            reasons.push("...");
        }
        let reasons = reasons.join("; ");
        log::warn!("{pass}: {count} images could not be read and were left out; so far: {reasons}");
    }
}

/// A confusion matrix: how often images of one class were predicted to be of another.
///
/// ```
/// use skipgrad::train::ConfusionMatrix;
/// let mut confusion = ConfusionMatrix::new(3);
/// confusion.add(&[0, 1, 1], &[0, 1, 2])?;      // predictions, labels
/// assert_eq!((confusion.count(2, 1), confusion.recall(2), confusion.precision(1)), (1, 0.0, 0.5));
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfusionMatrix {
    classes: usize,
    counts: Vec<usize>,
}

impl ConfusionMatrix {
    /// Creates an empty matrix for `classes` classes.
    pub fn new(classes: usize) -> ConfusionMatrix {
        ConfusionMatrix { classes, counts: vec![0; classes * classes] }
    }

    /// Adds images by their predicted and their true classes.
    ///
    /// # Errors
    /// [`Error::Argument`] if the lengths differ or a class is out of range; nothing is counted
    /// then.
    pub fn add(&mut self, predictions: &[usize], labels: &[usize]) -> Result<()> {
        if predictions.len() != labels.len() {
            return Err(Error::argument("confusion", "predictions", labels.len(), predictions.len()));
        }
        if let Some(class) = predictions.iter().chain(labels).find(|&&class| class >= self.classes) {
            return Err(Error::argument("confusion", "class", format!("below {}", self.classes), class));
        }
        for (prediction, label) in predictions.iter().zip(labels) {
            self.counts[label * self.classes + prediction] += 1;
        }
        Ok(())
    }

    /// Returns the number of images of class `label` that were predicted to be of class
    /// `prediction`; 0 for classes out of range.
    pub fn count(&self, label: usize, prediction: usize) -> usize {
        let in_range = label < self.classes && prediction < self.classes;
        if in_range { self.counts[label * self.classes + prediction] } else { 0 }
    }

    /// Returns the number of classes.
    pub fn num_classes(&self) -> usize {
        self.classes
    }

    /// Returns the number of images of a class, which is called its support.
    pub fn support(&self, class: usize) -> usize {
        (0..self.classes).map(|prediction| self.count(class, prediction)).sum()
    }

    /// Returns the number of images that were predicted to be of a class.
    pub fn predicted(&self, class: usize) -> usize {
        (0..self.classes).map(|label| self.count(label, class)).sum()
    }

    /// Returns the recall of a class in [0, 1], the fraction of its images that were predicted to
    /// be of it; NaN if it has no images.
    pub fn recall(&self, class: usize) -> f32 {
        self.count(class, class) as f32 / self.support(class) as f32
    }

    /// Returns the precision of a class in [0, 1], the fraction of the images predicted to be of it
    /// that are; NaN if there are no such images.
    pub fn precision(&self, class: usize) -> f32 {
        self.count(class, class) as f32 / self.predicted(class) as f32
    }

    /// Returns the F1 score of a class in [0, 1], the harmonic mean of its precision and its
    /// recall: twice the correct predictions, divided by the images of the class and those that
    /// were predicted to be of it. NaN if there are neither.
    pub fn f1(&self, class: usize) -> f32 {
        2.0 * self.count(class, class) as f32 / (self.support(class) + self.predicted(class)) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_and_losses_by_hand() {
        let mut metrics = Metrics::default();
        let logits: Vec<f32> = vec![6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0];
        let seven = |rows: usize| Tensor::new([rows, 7], logits.repeat(rows)).unwrap();
        metrics.add(&seven(7), &[0, 1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!((metrics.images, metrics.top1, metrics.top5), (7, 1, 5));
        let total: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
        assert!((metrics.loss_sum - (7.0 * total.ln() - 21.0)).abs() < 1e-9);
        assert!((metrics.top5_accuracy() - 5.0 / 7.0).abs() < 1e-6);
    }

    #[test]
    fn equal_logits_go_to_the_lower_class_as_argmax_has_it() {
        let logits = Tensor::zeros([3, 3]).unwrap();
        let mut metrics = Metrics::default();
        metrics.add(&logits, &[0, 1, 2]).unwrap();
        let correct =
            logits.argmax().iter().zip([0, 1, 2]).filter(|(prediction, label)| *prediction == label).count();
        assert_eq!((metrics.top1, correct), (1, 1));
    }

    #[test]
    fn a_nan_logit_is_misclassified_and_makes_the_loss_nan() {
        let mut metrics = Metrics::default();
        metrics.add(&Tensor::full([2, 3], f32::NAN).unwrap(), &[0, 1]).unwrap();
        assert_eq!((metrics.top1, metrics.top5), (0, 0));
        assert!(metrics.loss().is_nan());
        let mut large = Metrics::default();
        large.add(&Tensor::new([1, 2], [1e30, -1e30]).unwrap(), &[0]).unwrap();
        assert_eq!(large.loss_sum, 0.0);
        assert!(Metrics::default().accuracy().is_nan());
    }

    #[test]
    fn errors_name_the_argument() {
        let says = |logits: Tensor, labels: &[usize], text: &str| {
            let error = Metrics::default().add(&logits, labels).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        };
        says(Tensor::zeros([3]).unwrap(), &[0], "expected [N, K], found [3]");
        says(Tensor::zeros([2, 0]).unwrap(), &[0, 0], "expected classes below 0, found 0 in row 0");
        says(Tensor::zeros([2, 3]).unwrap(), &[0], "expected 2 labels, found 1");
        says(Tensor::zeros([2, 3]).unwrap(), &[0, 3], "expected classes below 3, found 3 in row 1");
        let mut confusion = ConfusionMatrix::new(2);
        assert!(confusion.add(&[0], &[0, 1]).is_err() && confusion.add(&[0, 2], &[0, 1]).is_err());
        assert_eq!(confusion, ConfusionMatrix::new(2), "nothing is counted");
        assert!(confusion.recall(0).is_nan() && confusion.precision(5).is_nan());
    }

    #[test]
    fn fractions_by_hand() {
        let metrics = Metrics { images: 8, top1: 2, top5: 6, loss_sum: 4.0, unreadable: 0 };
        assert_eq!((metrics.accuracy(), metrics.top5_accuracy(), metrics.loss()), (0.25, 0.75, 0.5));
        let mut metrics = Metrics::default();
        for _ in 0..2 {
            metrics.add(&Tensor::new([1, 2], [0.0, 1.0]).unwrap(), &[1]).unwrap();
        }
        assert_eq!((metrics.images, metrics.top1, metrics.top5), (2, 2, 2));
        assert!((metrics.loss() - (1.0 + (-1.0f32).exp()).ln()).abs() < 1e-6);
    }

    #[test]
    fn confusions_by_hand() {
        let mut confusion = ConfusionMatrix::new(3);
        confusion.add(&[0, 1, 1, 2, 1], &[0, 1, 2, 2, 0]).unwrap();
        let counts: Vec<usize> = (0..9).map(|i| confusion.count(i / 3, i % 3)).collect();
        assert_eq!(counts, [1, 1, 0, 0, 1, 0, 0, 1, 1]);
        assert_eq!([0, 1, 2].map(|class| confusion.recall(class)), [0.5, 1.0, 0.5]);
        assert_eq!([0, 1, 2].map(|class| confusion.precision(class)), [1.0, 1.0 / 3.0, 1.0]);
        assert_eq!([0, 1, 2].map(|class| confusion.f1(class)), [2.0 / 3.0, 0.5, 2.0 / 3.0]);
        assert_eq!([0, 1, 2].map(|class| confusion.support(class)), [2, 1, 2]);
        assert_eq!([0, 1, 2].map(|class| confusion.predicted(class)), [1, 3, 1]);
        assert!(ConfusionMatrix::new(1).f1(0).is_nan());
        // Classes that there are not, one of which would be within the table.
        assert_eq!((confusion.count(0, 3), confusion.count(3, 0), confusion.count(1, 4)), (0, 0, 0));
    }

    #[test]
    fn evaluation_counts_every_image() {
        use crate::{Rng, data::SyntheticShapes, nn::Flatten, nn::Linear, nn::Sequential};
        let test = Loader::new(SyntheticShapes::with_sizes(0, 7, 1).unwrap().test(), 3);
        let model = Sequential::new().push(Flatten).push(Linear::new(3072, 10, &mut Rng::seed(0)).unwrap());
        let metrics = evaluate(&model, &test).unwrap();
        assert_eq!(metrics.images, 7);
        assert!(metrics.loss() > 0.0);
    }
}
