//! How good a classifier is.

use crate::{Error, Result, Tensor, autograd::Tape, data::Loader, install, nn::Module};

/// Counts over classified images: the sums behind accuracy and mean loss.
///
/// ```
/// use skipgrad::{Tensor, train::Metrics};
/// let mut metrics = Metrics::default();
/// metrics.add(&Tensor::new([2, 3], vec![0.0, 5.0, 1.0, 0.0, 0.0, 0.0])?, &[1, 2])?;
/// assert_eq!((metrics.images, metrics.top1, metrics.top5), (2, 1, 2));
/// assert_eq!(metrics.accuracy(), 0.5);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Metrics {
    /// Images seen.
    pub images: usize,
    /// Images whose class had the highest logit.
    pub top1: usize,
    /// Images whose class was among the five highest.
    pub top5: usize,
    /// The sum of the images' cross-entropy, in nats.
    pub loss_sum: f64,
}

impl Metrics {
    /// Adds the images of a batch: `logits` `[N, K]`, and `N` classes below `K`.
    ///
    /// Among equal logits the lower class comes first, as in [`Tensor::argmax`]. An image with a logit that is not a
    /// number is wrong, and the loss is then not a number either.
    ///
    /// # Errors
    /// [`Error::Argument`] if the logits have another shape or a label has no class.
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

    /// The part of the images whose class had the highest logit, in [0, 1]; NaN without images.
    pub fn accuracy(&self) -> f32 {
        self.top1 as f32 / self.images as f32
    }

    /// The part of the images whose class was among the five highest, in [0, 1]; NaN without images.
    pub fn top5_accuracy(&self) -> f32 {
        self.top5 as f32 / self.images as f32
    }

    /// The mean cross-entropy in nats; NaN without images.
    pub fn loss(&self) -> f32 {
        (self.loss_sum / self.images as f64) as f32
    }
}

/// The number of classes, once logits and labels fit.
fn classes(logits: &Tensor, labels: &[usize]) -> Result<usize> {
    let [images, classes] = logits.shape()[..] else {
        return Err(Error::argument("metrics", "logits", "[N, K]", logits.shape()));
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

/// How many classes come before the label.
fn rank(row: &[f32], label: usize) -> usize {
    if row.iter().any(|x| x.is_nan()) {
        return usize::MAX;
    }
    let mine = row[label];
    row.iter().enumerate().filter(|&(i, &x)| x > mine || (x == mine && i < label)).count()
}

/// log(sum exp(x)) - x[label].
fn cross_entropy(row: &[f32], label: usize) -> f64 {
    let largest = f64::from(row.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = row.iter().map(|&x| (f64::from(x) - largest).exp()).sum();
    largest + sum.ln() - f64::from(row[label])
}

/// How a model does on one pass over a loader's images, in evaluation mode.
///
/// Give it a loader that neither shuffles nor varies images nor drops the last ones.
///
/// # Errors
/// Whatever the loader and the model refuse; [`Error::Argument`] if the model's output is not `[N, K]` or a label has no
/// class in it.
///
/// ```
/// use skipgrad::{Rng, data::{SyntheticShapes, Loader}, nn::{Flatten, Linear, Sequential}, train::evaluate};
/// let test = Loader::new(SyntheticShapes::with_sizes(0, 50, 1)?.test(), 20);
/// let model = Sequential::new().push(Flatten).push(Linear::new(3072, 10, &mut Rng::seed(0))?);
/// let metrics = evaluate(&model, &test)?;
/// assert_eq!(metrics.images, 50);
/// println!("top1 {}/{} top5 {} loss {:.4}", metrics.top1, metrics.images, metrics.top5, metrics.loss());
/// # Ok::<(), skipgrad::Error>(())
/// ```
pub fn evaluate(model: &dyn Module, loader: &Loader) -> Result<Metrics> {
    let mut metrics = Metrics::default();
    for batch in loader.epoch(0)? {
        let batch = batch?;
        let logits = install(|| Tape::eval().input(batch.images).apply(model).map(|y| y.value().clone()))?;
        metrics.add(&logits, &batch.labels)?;
    }
    Ok(metrics)
}

/// How often images of one class were taken for another.
///
/// ```
/// use skipgrad::train::Confusion;
/// let mut confusion = Confusion::new(3);
/// confusion.add(&[0, 1, 1], &[0, 1, 2])?;                        // guesses, labels
/// assert_eq!((confusion.count(2, 1), confusion.recall(2), confusion.precision(1)), (1, 0.0, 0.5));
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    counts: Vec<usize>,
}

impl Confusion {
    /// No images yet.
    pub fn new(classes: usize) -> Confusion {
        Confusion { classes, counts: vec![0; classes * classes] }
    }

    /// Adds images by their guessed and their true classes.
    ///
    /// # Errors
    /// [`Error::Argument`] if the lengths differ or a class is none; nothing is counted then.
    pub fn add(&mut self, guesses: &[usize], labels: &[usize]) -> Result<()> {
        if guesses.len() != labels.len() {
            return Err(Error::argument("confusion", "guesses", labels.len(), guesses.len()));
        }
        if let Some(class) = guesses.iter().chain(labels).find(|&&class| class >= self.classes) {
            return Err(Error::argument("confusion", "class", format!("below {}", self.classes), class));
        }
        for (guess, label) in guesses.iter().zip(labels) {
            self.counts[label * self.classes + guess] += 1;
        }
        Ok(())
    }

    /// How many images of class `label` were taken for class `guess`; 0 for classes that there are not.
    pub fn count(&self, label: usize, guess: usize) -> usize {
        let there = label < self.classes && guess < self.classes;
        if there { self.counts[label * self.classes + guess] } else { 0 }
    }

    /// The part of a class's images that were recognized, in [0, 1]; NaN if it has none.
    pub fn recall(&self, class: usize) -> f32 {
        let images: usize = (0..self.classes).map(|guess| self.count(class, guess)).sum();
        self.count(class, class) as f32 / images as f32
    }

    /// The part of the images taken for a class that are of it, in [0, 1]; NaN if there are none.
    pub fn precision(&self, class: usize) -> f32 {
        let images: usize = (0..self.classes).map(|label| self.count(label, class)).sum();
        self.count(class, class) as f32 / images as f32
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
        let right = logits.argmax().iter().zip([0, 1, 2]).filter(|(guess, label)| *guess == label).count();
        assert_eq!((metrics.top1, right), (1, 1));
    }

    #[test]
    fn what_is_no_number_is_wrong_and_shows_in_the_loss() {
        let mut metrics = Metrics::default();
        metrics.add(&Tensor::full([2, 3], f32::NAN).unwrap(), &[0, 1]).unwrap();
        assert_eq!((metrics.top1, metrics.top5), (0, 0));
        assert!(metrics.loss().is_nan());
        let mut large = Metrics::default();
        large.add(&Tensor::new([1, 2], vec![1e30, -1e30]).unwrap(), &[0]).unwrap();
        assert_eq!(large.loss_sum, 0.0);
        assert!(Metrics::default().accuracy().is_nan());
    }

    #[test]
    fn refusals_name_what_was_wrong() {
        let says = |logits: Tensor, labels: &[usize], text: &str| {
            let error = Metrics::default().add(&logits, labels).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        };
        says(Tensor::zeros([3]).unwrap(), &[0], "expected [N, K], found [3]");
        says(Tensor::zeros([2, 0]).unwrap(), &[0, 0], "expected classes below 0, found 0 in row 0");
        says(Tensor::zeros([2, 3]).unwrap(), &[0], "expected 2 labels, found 1");
        says(Tensor::zeros([2, 3]).unwrap(), &[0, 3], "expected classes below 3, found 3 in row 1");
        let mut confusion = Confusion::new(2);
        assert!(confusion.add(&[0], &[0, 1]).is_err() && confusion.add(&[0, 2], &[0, 1]).is_err());
        assert_eq!(confusion, Confusion::new(2), "nothing is counted");
        assert!(confusion.recall(0).is_nan() && confusion.precision(5).is_nan());
    }
}
