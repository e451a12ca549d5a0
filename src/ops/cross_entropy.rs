//! Cross entropy of logits with targets, the mean over the batch, as PyTorch's `cross_entropy`:
//!
//! ```text
//! loss = -1/N Σ_n Σ_k t[n, k] log_softmax(x[n, ·])[k]
//! dx = (softmax(x) Σ_k t - t) dloss / N
//! ```
//!
//! where t is one-hot for class indices, and smoothed to (1 - s) t + s / K (Szegedy et al. 2016,
//! section 7). Forward has loaded everything that the gradient needs, so it computes the gradient,
//! too, and saves it for backward.

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
}

#[derive(Clone, Copy, Debug)]
enum TargetKind<'a> {
    Classes(&'a [usize]),
    Soft(&'a Tensor),
}

impl<'a> Targets<'a> {
    /// Makes targets from the class of each row, N of them, each below K.
    pub fn classes(labels: &'a [usize]) -> Targets<'a> {
        Targets { kind: TargetKind::Classes(labels), smoothing: 0.0 }
    }

    /// Makes targets from a weight for each class of each row, `[N, K]`. Usually the weights of a
    /// row add up to 1 (mixed images, the probabilities of a teacher). No gradient flows into them.
    pub fn soft(weights: &'a Tensor) -> Targets<'a> {
        Targets { kind: TargetKind::Soft(weights), smoothing: 0.0 }
    }

    /// Smooths the targets t to (1 - smoothing) t + smoothing / K, with smoothing in [0, 1).
    pub fn smoothed(self, smoothing: f32) -> Targets<'a> {
        Targets { smoothing, ..self }
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
        CrossEntropy { target, smoothing: targets.smoothing }
    }

    /// Checks the targets for logits of `[rows, classes]`.
    fn check(&self, rows: usize, classes: usize) -> Result<()> {
        let invalid = |argument, expected: String, found: String| {
            Err(Error::argument("cross_entropy", argument, expected, found))
        };
        if !(0.0..1.0).contains(&self.smoothing) {
            return invalid("smoothing", "a number in [0, 1)".into(), self.smoothing.to_string());
        }
        match &self.target {
            Target::Classes(labels) if labels.len() != rows => {
                invalid("labels", format!("{rows}, one for each row"), labels.len().to_string())
            }
            Target::Classes(labels) => match labels.iter().position(|&label| label >= classes) {
                Some(row) => invalid(
                    "labels",
                    format!("classes below {classes}"),
                    format!("{} in row {row}", labels[row]),
                ),
                None => Ok(()),
            },
            Target::Soft(weights) if weights.shape() != [rows, classes] => {
                Err(Error::shape("cross_entropy", "targets", [rows, classes], weights.shape()))
            }
            Target::Soft(_) => Ok(()),
        }
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
        let [rows, classes] = logits[..] else {
            let error = Error::shape("cross_entropy", "logits", ["N", "K"], logits);
            return Err(Fault::new(error, Shape::scalar()));
        };
        if rows == 0 || classes == 0 {
            let expected = "at least one row and one class";
            let error = Error::argument("cross_entropy", "logits", expected, logits);
            return Err(Fault::new(error, Shape::scalar()));
        }
        self.check(rows, classes).map_err(|error| Fault::new(error, Shape::scalar()))?;
        Ok(Shape::scalar())
    }

    fn forward(&self, inputs: &[Input<'_>], _: Shape) -> (Tensor, Tensor) {
        let x = inputs[0].value();
        let target = match &self.target {
            Target::Classes(labels) => kernels::Target::Classes(labels),
            Target::Soft(weights) => kernels::Target::Weights(weights.data()),
        };
        let [rows, classes] = [x.shape().num_rows(), x.shape().num_channels()];
        let mut losses = vec![0.0; rows];
        let gradient = Tensor::build(*x.shape(), |gradient| {
            let (isa, smoothing) = (Isa::active(), self.smoothing);
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
        Cost::default().save_intermediate(*inputs[0].shape()).gradients([GradientMemory::Intermediate])
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
    /// if there is no row or no class, there are not N labels, a label is not below K, or the
    /// smoothing is not in [0, 1).
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

    #[test]
    fn gradients_agree_with_differences() {
        let (x, soft) = ([logits(1.0)], soft());
        for smoothing in [0.0, 0.1] {
            for targets in [Targets::classes(&LABELS), Targets::soft(&soft)] {
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
        let error = tape.input(Tensor::zeros([4]).unwrap()).cross_entropy(&LABELS).unwrap_err();
        assert_eq!(error.to_string(), "cross_entropy: logits: expected [N, K], found [4]");
        let error = tape.input(Tensor::zeros([0, 5]).unwrap()).cross_entropy(&[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cross_entropy: logits: expected at least one row and one class, found [0, 5]"
        );
    }
}
