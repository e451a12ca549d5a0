//! Focal loss of logits, the mean over all elements (Lin et al. 2017, "Focal loss for dense object
//! detection", equation 5), as torchvision's `sigmoid_focal_loss`:
//!
//! ```text
//! loss = 1/(N K) Σ a q^gamma bce(x, t)         q = (1 - t) p + t (1 - p), p = sigmoid(x)
//! dx = a (q^gamma (p - t) + gamma q^(gamma - 1) bce (1 - 2 t) p (1 - p)) dloss / (N K)
//! ```
//!
//! q is the probability of the wrong answer: what the network knows already counts little. a is
//! alpha for a target of 1 and 1 - alpha for one of 0. Forward computes the gradient, too, and
//! saves it for backward.

use super::{expect_element_targets, per_element};
use crate::{
    Error, Result, Shape, Tensor,
    autograd::{Cost, Fault, GradientMemory, Input, Kind, Op, Var},
};

/// The options of [`Var::focal_loss`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct FocalOptions {
    /// Weight of the targets of 1, in [0, 1]; those of 0 have the rest. With `None` all have the
    /// weight 1. It is 0.25 by default.
    pub alpha: Option<f32>,
    /// Exponent of the probability of the wrong answer, at least 0; 2 by default. With 0 and
    /// without alpha, the loss is the binary cross entropy.
    pub gamma: f32,
}

impl FocalOptions {
    /// Creates the options of the paper: alpha 0.25, gamma 2.
    pub fn new() -> FocalOptions {
        FocalOptions { alpha: Some(0.25), gamma: 2.0 }
    }

    /// Sets the weight of the targets of 1, in [0, 1]; with `None` all have the weight 1.
    #[must_use]
    pub fn alpha(self, alpha: impl Into<Option<f32>>) -> FocalOptions {
        FocalOptions { alpha: alpha.into(), ..self }
    }

    /// Sets the exponent of the probability of the wrong answer, at least 0.
    #[must_use]
    pub fn gamma(self, gamma: f32) -> FocalOptions {
        FocalOptions { gamma, ..self }
    }
}

impl Default for FocalOptions {
    fn default() -> FocalOptions {
        FocalOptions::new()
    }
}

struct FocalLoss {
    targets: Tensor,
    options: FocalOptions,
}

impl FocalLoss {
    fn check(&self, logits: &Shape) -> Result<()> {
        expect_element_targets("focal_loss", logits, &self.targets)?;
        let FocalOptions { alpha, gamma } = self.options;
        if let Some(alpha) = alpha.filter(|alpha| !(0.0..=1.0).contains(alpha)) {
            return Err(Error::argument("focal_loss", "alpha", "a number in [0, 1]", alpha));
        }
        if !(gamma >= 0.0 && gamma.is_finite()) {
            return Err(Error::argument("focal_loss", "gamma", "a finite number of at least 0", gamma));
        }
        Ok(())
    }
}

impl Op for FocalLoss {
    /// The gradient of the logits for a gradient of the loss of 1.
    type Context = Tensor;

    fn name(&self) -> &'static str {
        "focal_loss"
    }

    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
        self.check(inputs[0].shape()).map_err(|error| Fault::new(error, Shape::scalar()))?;
        Ok(Shape::scalar())
    }

    fn forward(&self, inputs: &[Input<'_>], _: Shape) -> (Tensor, Tensor) {
        let FocalOptions { alpha, gamma } = self.options;
        let gamma = f64::from(gamma);
        per_element(inputs[0].value(), &self.targets, |_, x, t| {
            let weight =
                alpha.map_or(1.0, |alpha| f64::from(alpha) * t + (1.0 - f64::from(alpha)) * (1.0 - t));
            let (p, not_p) = (1.0 / (1.0 + (-x).exp()), 1.0 / (1.0 + x.exp()));
            let bce = (1.0 - t) * x + (-x.abs()).exp().ln_1p() + (-x).max(0.0);
            let wrong = (1.0 - t) * p + t * not_p;
            let factor = wrong.powf(gamma);
            // Where the answer is certain, p (1 - p) is 0 too.
            let slope = if wrong > 0.0 { gamma * wrong.powf(gamma - 1.0) } else { 0.0 };
            let gradient = factor * (p - t) + slope * bce * (1.0 - 2.0 * t) * p * not_p;
            (weight * factor * bce, weight * gradient)
        })
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
    /// Returns the focal loss of logits `[N, K]` with targets `[N, K]` in [0, 1], the mean over all
    /// elements, of shape `[]`, in nats. No gradient flows into the targets.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the input is not `[N, K]` or the targets have another shape;
    /// [`Error::Argument`] if there is no element, a target or alpha is not in [0, 1], or gamma is
    /// negative.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape, ops::FocalOptions};
    /// let tape = Tape::eval();
    /// let x = tape.input(Tensor::new([1, 1], [3f32.ln()])?);
    /// let loss = x.focal_loss(&Tensor::full([1, 1], 1.0)?, &FocalOptions::new())?;
    /// assert!((loss.item() - 0.25 * 0.25f32.powi(2) * (4.0 / 3f32).ln()).abs() < 1e-7);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn focal_loss(&self, targets: &Tensor, options: &FocalOptions) -> Result<Var<'t>> {
        FocalLoss { targets: targets.clone(), options: *options }.apply(&[self])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rng, autograd::Tape, ops::BceOptions};

    fn logits_and_targets() -> (Tensor, Tensor) {
        let mut rng = Rng::seed(1);
        let x = Tensor::normal([3, 4], 3.0, &mut rng).unwrap();
        (x, Tensor::from_fn([3, 4], |i| f32::from(u8::from(i % 3 == 0))).unwrap())
    }

    #[test]
    fn values_are_those_of_f64() {
        let (x, t) = logits_and_targets();
        let exact = |i: usize| {
            let p = 1.0 / (1.0 + (-f64::from(x.data()[i])).exp());
            let (p, weight) = if t.data()[i] == 1.0 { (p, 0.75f64) } else { (1.0 - p, 0.25) };
            -weight * (1.0 - p).powf(1.5) * p.ln()
        };
        let exact = (0..12).map(exact).sum::<f64>() / 12.0;
        let options = FocalOptions::new().alpha(0.75).gamma(1.5);
        let loss = f64::from(Tape::eval().input(x).focal_loss(&t, &options).unwrap().item());
        assert!((loss - exact).abs() < 1e-6 * exact, "{loss} {exact}");
    }

    #[test]
    fn without_gamma_and_alpha_it_is_the_binary_cross_entropy() {
        let (x, t) = logits_and_targets();
        let tape = Tape::train(Rng::seed(0));
        let [a, b] = [tape.watch(x.clone()), tape.watch(x)];
        let focal = a.focal_loss(&t, &FocalOptions::new().alpha(None).gamma(0.0)).unwrap();
        let bce = b.bce_with_logits(&t, &BceOptions::new()).unwrap();
        assert_eq!(focal.item(), bce.item());
        let updates = focal.add(&bce).unwrap().backward().unwrap();
        let [a, b] = [updates.grad_of(&a).unwrap(), updates.grad_of(&b).unwrap()];
        assert!(a.data().iter().zip(b.data()).all(|(a, b)| (a - b).abs() < 1e-7), "{a} {b}");
    }

    #[test]
    fn huge_logits_give_finite_losses_and_gradients() {
        for gamma in [0.0, 0.5, 2.0] {
            let tape = Tape::train(Rng::seed(0));
            let x = tape.watch(Tensor::new([1, 4], [1e5, -1e5, 1e5, -1e5]).unwrap());
            let targets = Tensor::new([1, 4], [0.0, 0.0, 1.0, 1.0]).unwrap();
            let loss = x.focal_loss(&targets, &FocalOptions::new().alpha(None).gamma(gamma)).unwrap();
            assert_eq!(loss.item(), 5e4);
            let updates = loss.backward().unwrap();
            assert_eq!(updates.grad_of(&x).unwrap().data(), [0.25, 0.0, 0.0, -0.25], "{gamma}");
        }
    }

    #[test]
    fn errors_name_the_argument() {
        let tape = Tape::eval();
        let x = tape.input(Tensor::zeros([2, 3]).unwrap());
        let zeros = Tensor::zeros([2, 3]).unwrap();
        let says = |targets: &Tensor, options: FocalOptions| {
            x.focal_loss(targets, &options).unwrap_err().to_string()
        };
        let options = FocalOptions::new();
        assert_eq!(
            says(&zeros, options.alpha(1.5)),
            "focal_loss: alpha: expected a number in [0, 1], found 1.5"
        );
        assert!(says(&zeros, options.gamma(-1.0)).contains("gamma"));
        assert!(says(&Tensor::zeros([3, 2]).unwrap(), options).contains("targets: expected [2, 3]"));
    }
}
