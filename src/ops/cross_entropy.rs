//! Cross entropy of logits with targets, the mean over the batch, as PyTorch's `cross_entropy`:
//!
//! ```text
//! loss = -1/N Σ_n Σ_k t[n, k] log_softmax(x[n, ·])[k]
//! dx = (softmax(x) Σ_k t - t) dloss / N
//! ```
//!
//! where t is one-hot for class indices, and smoothed to (1 - s) t + s / K (Szegedy et al. 2016,
//! section 7). With weights w of the classes, t[n, k] is multiplied by w[k], and for class indices
//! N becomes the sum of the weights of the labels; rows whose label is ignored count nowhere.
//! Forward has loaded everything that the gradient needs, so it computes the gradient, too, and
//! saves it for backward.

use super::expect_logits;
use crate::{
    Error, Result, Shape, Tensor,
    autograd::{Cost, Fault, GradientMemory, Input, Kind, Op, Var},
    kernels::{self, Isa},
};

/// The targets of [`Var::cross_entropy`] for logits `[N, K]`: labels, from `&[usize]` or
/// `&Vec<usize>`, or class probabilities, from a `&Tensor`.
///
/// ```
/// use skipgrad::{Tensor, autograd::Tape, ops::Targets};
/// let tape = Tape::eval();
/// let logits = tape.input(Tensor::zeros([2, 4])?);
/// let loss = logits.cross_entropy(Targets::classes(&[1, 3]).smoothed(0.1))?;
/// assert!((loss.item() - 4f32.ln()).abs() < 1e-6);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Targets<'a> {
    kind: TargetKind<'a>,
    smoothing: f32,
    class_weights: Option<&'a [f32]>,
    ignore_index: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
enum TargetKind<'a> {
    Classes(&'a [usize]),
    Soft(&'a Tensor),
}

impl<'a> Targets<'a> {
    /// Makes targets from the class of each row, N of them, each below K.
    pub fn classes(labels: &'a [usize]) -> Targets<'a> {
        Targets::new(TargetKind::Classes(labels))
    }

    fn new(kind: TargetKind<'a>) -> Targets<'a> {
        Targets { kind, smoothing: 0.0, class_weights: None, ignore_index: None }
    }

    /// Makes targets from a weight for each class of each row, `[N, K]`. Usually the weights of a
    /// row add up to 1 (mixed images, the probabilities of a teacher). No gradient flows into them.
    pub fn soft(weights: &'a Tensor) -> Targets<'a> {
        Targets::new(TargetKind::Soft(weights))
    }

    /// Smooths the targets t to (1 - smoothing) t + smoothing / K, with smoothing in [0, 1).
    pub fn smoothed(self, smoothing: f32) -> Targets<'a> {
        Targets { smoothing, ..self }
    }

    /// Weighs the classes, K weights of at least 0 (`weight` in PyTorch): rare classes are often
    /// given large weights. For labels, the loss is divided by the sum of the weights of the
    /// labels; for class probabilities, by the number of rows. So it is in PyTorch.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape, ops::Targets};
    /// let tape = Tape::eval();
    /// let x = tape.input(Tensor::new([2, 2], [0.0, 0.0, 0.0, 3f32.ln()])?);
    /// let loss = x.cross_entropy(Targets::classes(&[0, 1]).class_weights(&[3.0, 1.0]))?;
    /// assert!((loss.item() - (3.0 * 2f32.ln() + (4.0 / 3f32).ln()) / 4.0).abs() < 1e-6);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn class_weights(self, class_weights: &'a [f32]) -> Targets<'a> {
        Targets { class_weights: Some(class_weights), ..self }
    }

    /// Leaves out the rows with this label, which need not be below K (`ignore_index` in PyTorch).
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape, ops::Targets};
    /// let tape = Tape::eval();
    /// let x = tape.input(Tensor::new([2, 2], [0.0, 0.0, 9.0, -9.0])?);
    /// let loss = x.cross_entropy(Targets::classes(&[0, 255]).ignore_index(255))?;
    /// assert!((loss.item() - 2f32.ln()).abs() < 1e-6);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn ignore_index(self, ignore_index: usize) -> Targets<'a> {
        Targets { ignore_index: Some(ignore_index), ..self }
    }
}

impl<'a> From<&'a [usize]> for Targets<'a> {
    fn from(labels: &'a [usize]) -> Targets<'a> {
        Targets::classes(labels)
    }
}

impl<'a, const N: usize> From<&'a [usize; N]> for Targets<'a> {
    fn from(labels: &'a [usize; N]) -> Targets<'a> {
        Targets::classes(labels)
    }
}

impl<'a> From<&'a Vec<usize>> for Targets<'a> {
    fn from(labels: &'a Vec<usize>) -> Targets<'a> {
        Targets::classes(labels)
    }
}

impl<'a> From<&'a Tensor> for Targets<'a> {
    fn from(weights: &'a Tensor) -> Targets<'a> {
        Targets::soft(weights)
    }
}

struct CrossEntropy {
    target: Target,
    smoothing: f32,
    class_weights: Option<Vec<f32>>,
    ignore_index: Option<usize>,
}

/// A target that the tape can keep.
enum Target {
    Classes(Vec<usize>),
    Soft(Tensor),
}

impl CrossEntropy {
    fn new(targets: Targets<'_>) -> CrossEntropy {
        let target = match targets.kind {
            TargetKind::Classes(labels) => Target::Classes(labels.to_vec()),
            TargetKind::Soft(weights) => Target::Soft(weights.clone()),
        };
        CrossEntropy {
            target,
            smoothing: targets.smoothing,
            class_weights: targets.class_weights.map(<[f32]>::to_vec),
            ignore_index: targets.ignore_index,
        }
    }

    /// Returns whether rows count differently.
    fn is_weighted(&self) -> bool {
        self.class_weights.is_some() || self.ignore_index.is_some()
    }

    fn is_ignored(&self, label: usize) -> bool {
        self.ignore_index == Some(label)
    }

    fn weight(&self, class: usize) -> f64 {
        self.class_weights.as_ref().map_or(1.0, |weights| f64::from(weights[class]))
    }

    /// Returns the number that the loss is divided by.
    fn divisor(&self, rows: usize) -> f64 {
        match &self.target {
            Target::Classes(labels) => {
                labels.iter().filter(|&&label| !self.is_ignored(label)).map(|&label| self.weight(label)).sum()
            }
            Target::Soft(_) => rows as f64,
        }
    }

    /// Returns the targets `[rows, classes]` with which the mean over the rows is the weighted
    /// loss.
    fn weighted_targets(&self, [rows, classes]: [usize; 2], targets: &mut [f32]) {
        let scale = rows as f64 / self.divisor(rows);
        let smoothing = f64::from(self.smoothing);
        for (n, row) in targets.chunks_exact_mut(classes).enumerate() {
            for (k, t) in row.iter_mut().enumerate() {
                let target = match &self.target {
                    Target::Classes(labels) if self.is_ignored(labels[n]) => {
                        *t = 0.0;
                        continue;
                    }
                    Target::Classes(labels) => f64::from(u8::from(labels[n] == k)),
                    Target::Soft(weights) => f64::from(weights.data()[n * classes + k]),
                };
                let smoothed = (1.0 - smoothing) * target + smoothing / classes as f64;
                *t = (self.weight(k) * smoothed * scale) as f32;
            }
        }
    }

    /// Checks the targets for logits of `[rows, classes]`.
    fn check(&self, rows: usize, classes: usize) -> Result<()> {
        let invalid = |argument, expected: String, found: String| {
            Err(Error::argument("cross_entropy", argument, expected, found))
        };
        if !(0.0..1.0).contains(&self.smoothing) {
            return invalid("smoothing", "a number in [0, 1)".into(), self.smoothing.to_string());
        }
        if let Some(weights) = &self.class_weights {
            if weights.len() != classes {
                let expected = format!("{classes}, one for each class");
                return invalid("class_weights", expected, weights.len().to_string());
            }
            if let Some(weight) = weights.iter().find(|weight| !(weight.is_finite() && **weight >= 0.0)) {
                let expected = "finite numbers of at least 0".to_string();
                return invalid("class_weights", expected, weight.to_string());
            }
        }
        match &self.target {
            Target::Classes(labels) => self.check_labels(labels, rows, classes),
            Target::Soft(weights) if weights.shape() != [rows, classes] => {
                Err(Error::shape("cross_entropy", "targets", [rows, classes], weights.shape()))
            }
            Target::Soft(_) if self.ignore_index.is_some() => {
                let expected = "labels, of which some are ignored".to_string();
                invalid("ignore_index", expected, "class probabilities".to_string())
            }
            Target::Soft(_) => Ok(()),
        }
    }

    fn check_labels(&self, labels: &[usize], rows: usize, classes: usize) -> Result<()> {
        let invalid = |expected: String, found: String| {
            Err(Error::argument("cross_entropy", "labels", expected, found))
        };
        if labels.len() != rows {
            return invalid(format!("{rows}, one for each row"), labels.len().to_string());
        }
        let is_wrong = |label: &usize| *label >= classes && !self.is_ignored(*label);
        if let Some(row) = labels.iter().position(is_wrong) {
            return invalid(format!("classes below {classes}"), format!("{} in row {row}", labels[row]));
        }
        if self.is_weighted() && self.divisor(rows) == 0.0 {
            let expected = "a label that is not ignored, of a class with a weight above 0".to_string();
            return invalid(expected, "none".to_string());
        }
        Ok(())
    }
}

impl Op for CrossEntropy {
    /// The gradient of the logits for a gradient of the loss of 1.
    type Context = Tensor;

    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
        let logits = inputs[0].shape();
        let checked = expect_logits("cross_entropy", logits)
            .and_then(|()| self.check(logits.num_rows(), logits.num_channels()));
        checked.map_err(|error| Fault::new(error, Shape::scalar()))?;
        Ok(Shape::scalar())
    }

    fn forward(&self, inputs: &[Input<'_>], _: Shape) -> (Tensor, Tensor) {
        let x = inputs[0].value();
        let [rows, classes] = [x.shape().num_rows(), x.shape().num_channels()];
        let weighted = self
            .is_weighted()
            .then(|| Tensor::build(*x.shape(), |targets| self.weighted_targets([rows, classes], targets)));
        let (target, smoothing) = match (&weighted, &self.target) {
            (Some(weighted), _) => (kernels::Target::Weights(weighted.data()), 0.0),
            (None, Target::Classes(labels)) => (kernels::Target::Classes(labels), self.smoothing),
            (None, Target::Soft(weights)) => (kernels::Target::Weights(weights.data()), self.smoothing),
        };
        let mut losses = vec![0.0; rows];
        let gradient = Tensor::build(*x.shape(), |gradient| {
            let isa = Isa::active();
            kernels::cross_entropy(isa, classes, x.data(), target, smoothing, &mut losses, gradient);
        });
        let mean = losses.iter().fold(0.0, |sum, &loss| sum + f64::from(loss)) / rows as f64;
        (Tensor::scalar(mean as f32), gradient)
    }

    fn backward(&self, mut gradient: Tensor, dy: Tensor, _: &[bool]) -> Vec<Option<Tensor>> {
        gradient.scale(dy.item());
        vec![Some(gradient)]
    }

    fn cost(&self, inputs: &[Input<'_>], _: Shape) -> Cost {
        let logits = *inputs[0].shape();
        let cost = Cost::default().save_intermediate(logits).gradients([GradientMemory::Intermediate]);
        if self.is_weighted() { cost.forward_workspace(logits) } else { cost }
    }

    fn kind(&self, _: &[Input<'_>]) -> Kind {
        Kind::Training
    }
}

impl<'t> Var<'t> {
    /// Returns the cross entropy of logits `[N, K]` with the targets, the mean over the rows, of
    /// shape `[]`, in nats.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the input or soft targets are not `[N, K]`; [`Error::Argument`]
    /// if there is no row or no class, there are not N labels, a label is not below K, the
    /// smoothing is not in [0, 1), there are not K weights of classes of at least 0, no label
    /// counts, or class probabilities come with a label to ignore.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape};
    /// let tape = Tape::eval();
    /// let logits = tape.input(Tensor::new([1, 2], [0.0, 3f32.ln()])?);
    /// assert!((logits.cross_entropy(&[0])?.item() - 4f32.ln()).abs() < 1e-6);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn cross_entropy<'a>(&self, targets: impl Into<Targets<'a>>) -> Result<Var<'t>> {
        CrossEntropy::new(targets.into()).apply(&[self])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Rng,
        autograd::{Tape, gradient_check},
    };

    const LABELS: [usize; 4] = [2, 0, 4, 4];

    fn logits(std: f32) -> Tensor {
        Tensor::normal([4, 5], std, &mut Rng::seed(1)).unwrap()
    }

    fn soft() -> Tensor {
        Tensor::uniform([4, 5], 0.0, 0.4, &mut Rng::seed(2)).unwrap()
    }

    fn exact(x: &Tensor, target: impl Fn(usize, usize) -> f64) -> f64 {
        let loss = |(n, x): (usize, &[f32])| -> f64 {
            let log_sum = x.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
            x.iter().enumerate().map(|(k, &x)| target(n, k) * (log_sum - f64::from(x))).sum()
        };
        x.data().chunks(5).enumerate().map(loss).sum::<f64>() / 4.0
    }

    #[test]
    fn values_are_those_of_f64() {
        let (x, soft) = (logits(3.0), soft());
        let tape = Tape::eval();
        let var = tape.input(x.clone());
        let one_hot = |n: usize, k: usize| if LABELS[n] == k { 1.0 } else { 0.0 };
        let weight = |n: usize, k: usize| f64::from(soft.data()[5 * n + k]);
        let close = |loss: Var, exact: f64| assert!((f64::from(loss.item()) - exact).abs() < 1e-6 * exact);
        close(var.cross_entropy(&LABELS).unwrap(), exact(&x, one_hot));
        close(var.cross_entropy(&soft).unwrap(), exact(&x, weight));
        let smoothed = Targets::classes(&LABELS).smoothed(0.2);
        close(var.cross_entropy(smoothed).unwrap(), exact(&x, |n, k| 0.8 * one_hot(n, k) + 0.04));
        let smoothed = Targets::soft(&soft).smoothed(0.2);
        close(var.cross_entropy(smoothed).unwrap(), exact(&x, |n, k| 0.8 * weight(n, k) + 0.04));
    }

    const WEIGHTS: [f32; 5] = [0.5, 1.0, 2.0, 0.0, 1.5];

    #[test]
    fn weighted_values_are_those_of_f64() {
        let (x, soft) = (logits(3.0), soft());
        let tape = Tape::eval();
        let var = tape.input(x.clone());
        let close = |targets: Targets, exact: f64| {
            let loss = f64::from(var.cross_entropy(targets).unwrap().item());
            assert!((loss - exact).abs() < 1e-6 * exact, "{loss} {exact}");
        };
        let weight = |k: usize| f64::from(WEIGHTS[k]);
        let one_hot = |n: usize, k: usize| if LABELS[n] == k { 1.0 } else { 0.0 };
        // The labels 2, 0, 4 and 4 have the weights 2, 0.5, 1.5 and 1.5; `exact` divides by 4.
        let classes = Targets::classes(&LABELS).class_weights(&WEIGHTS);
        close(classes, exact(&x, |n, k| weight(k) * one_hot(n, k)) * 4.0 / 5.5);
        let smoothed = exact(&x, |n, k| weight(k) * (0.8 * one_hot(n, k) + 0.04));
        close(classes.smoothed(0.2), smoothed * 4.0 / 5.5);
        let without_4 = exact(&x, |n, k| if n < 2 { weight(k) * one_hot(n, k) } else { 0.0 });
        close(classes.ignore_index(4), without_4 * 4.0 / 2.5);
        let labels = [2, 0, 9, 4];
        let plain = exact(&x, |n, k| if n == 2 { 0.0 } else { one_hot(n, k) }) * 4.0 / 3.0;
        close(Targets::classes(&labels).ignore_index(9), plain);
        let weights = |n: usize, k: usize| weight(k) * f64::from(soft.data()[5 * n + k]);
        close(Targets::soft(&soft).class_weights(&WEIGHTS), exact(&x, weights));
    }

    #[test]
    fn an_ignored_row_has_no_gradient() {
        let tape = Tape::train(Rng::seed(0));
        let x = tape.watch(logits(1.0));
        let targets = Targets::classes(&LABELS).ignore_index(0).smoothed(0.1);
        let updates = x.cross_entropy(targets).unwrap().backward().unwrap();
        let gradient = updates.grad_of(&x).unwrap();
        assert_eq!(gradient.data()[5..10], [0.0; 5]);
        assert!(gradient.data()[..5].iter().all(|&g| g != 0.0));
    }

    #[test]
    fn gradients_agree_with_differences() {
        let (x, soft) = ([logits(1.0)], soft());
        for smoothing in [0.0, 0.1] {
            for targets in [
                Targets::classes(&LABELS),
                Targets::soft(&soft),
                Targets::classes(&LABELS).class_weights(&WEIGHTS).ignore_index(0),
                Targets::soft(&soft).class_weights(&WEIGHTS),
            ] {
                let targets = targets.smoothed(smoothing);
                gradient_check(&x, |v| v[0].cross_entropy(targets)).unwrap().within(1e-3).unwrap();
            }
        }
    }

    #[test]
    fn the_gradient_of_a_scaled_loss_is_scaled() {
        let gradient = |alpha: f32| {
            let tape = Tape::train(Rng::seed(0));
            let x = tape.watch(logits(1.0));
            let updates = x.cross_entropy(&LABELS).unwrap().scale(alpha).backward().unwrap();
            updates.grad_of(&x).unwrap().clone()
        };
        let mut single = gradient(1.0);
        single.scale(4.0);
        assert_eq!(gradient(4.0), single);
    }

    #[test]
    fn huge_logits_give_finite_losses() {
        let tape = Tape::eval();
        let x = tape.input(Tensor::new([1, 2], [1e5, -1e5]).unwrap());
        assert_eq!(x.cross_entropy(&[1]).unwrap().item(), 2e5);
        assert_eq!(x.cross_entropy(&[0]).unwrap().item(), 0.0);
    }

    #[test]
    fn errors_name_the_argument() {
        let tape = Tape::eval();
        let x = tape.input(logits(1.0));
        let message = |targets: Targets| x.cross_entropy(targets).unwrap_err().to_string();
        assert_eq!(
            message(Targets::classes(&[0, 1, 5, 9])),
            "cross_entropy: labels: expected classes below 5, found 5 in row 2"
        );
        assert_eq!(
            message(Targets::classes(&[0])),
            "cross_entropy: labels: expected 4, one for each row, found 1"
        );
        let wrong = Tensor::zeros([5, 4]).unwrap();
        assert_eq!(message(Targets::soft(&wrong)), "cross_entropy: targets: expected [4, 5], found [5, 4]");
        for smoothing in [-0.1, 1.0, f32::NAN] {
            let message = message(Targets::classes(&LABELS).smoothed(smoothing));
            assert!(message.contains("smoothing: expected a number in [0, 1)"), "{message}");
        }
        let weighted = |weights: &[f32]| message(Targets::classes(&LABELS).class_weights(weights));
        assert_eq!(
            weighted(&[1.0; 4]),
            "cross_entropy: class_weights: expected 5, one for each class, found 4"
        );
        assert!(weighted(&[1.0, 1.0, -1.0, 1.0, 1.0]).contains("at least 0, found -1"));
        assert!(weighted(&[0.0, 1.0, 0.0, 1.0, 0.0]).contains("a label that is not ignored"));
        assert!(message(Targets::classes(&[3; 4]).ignore_index(3)).contains("found none"));
        assert!(message(Targets::soft(&soft()).ignore_index(3)).contains("found class probabilities"));
        let error = tape.input(Tensor::zeros([4]).unwrap()).cross_entropy(&LABELS).unwrap_err();
        assert_eq!(error.to_string(), "cross_entropy: logits: expected [N, K], found [4]");
        let error = tape.input(Tensor::zeros([0, 5]).unwrap()).cross_entropy(&[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cross_entropy: logits: expected at least one row and one class, found [0, 5]"
        );
    }
}
