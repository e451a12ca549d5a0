//! Binary cross entropy of logits with targets, the mean over all elements, as PyTorch's
//! `binary_cross_entropy_with_logits`:
//!
//! ```text
//! loss = -1/(N K) Σ p[k] t log sigmoid(x) + (1 - t) log(1 - sigmoid(x))
//! dx = ((1 - t) - (1 + (p[k] - 1) t) sigmoid(-x)) dloss / (N K)
//! ```
//!
//! Each class of an image is a question of its own, so that an image may have several, or none. p
//! weighs the positive answers. Forward computes the gradient, too, and saves it for backward.

use super::{expect_element_targets, per_element};
use crate::{
    Error, Result, Shape, Tensor,
    autograd::{Cost, Fault, GradientMemory, Input, Kind, Op, Var},
};

/// The options of [`Var::bce_with_logits`].
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct BceOptions {
    /// Weight of the positive targets of each class, K finite numbers of at least 0; by default 1.
    pub pos_weight: Option<Vec<f32>>,
}

impl BceOptions {
    /// Creates the options without weights.
    pub fn new() -> BceOptions {
        BceOptions::default()
    }

    /// Sets the weight of the positive targets of each class: for a class that three of four images
    /// are without, a weight of 3 makes both answers count as much.
    #[must_use]
    pub fn pos_weight(self, pos_weight: impl Into<Vec<f32>>) -> BceOptions {
        BceOptions { pos_weight: Some(pos_weight.into()) }
    }
}

struct BceWithLogits {
    targets: Tensor,
    options: BceOptions,
}

impl BceWithLogits {
    fn check(&self, logits: &Shape) -> Result<()> {
        expect_element_targets("bce_with_logits", logits, &self.targets)?;
        let Some(weights) = &self.options.pos_weight else { return Ok(()) };
        let invalid = |expected: String, found: &dyn std::fmt::Display| {
            Err(Error::argument("bce_with_logits", "pos_weight", expected, found))
        };
        let classes = logits.num_channels();
        if weights.len() != classes {
            return invalid(format!("{classes}, one for each class"), &weights.len());
        }
        match weights.iter().find(|weight| !(weight.is_finite() && **weight >= 0.0)) {
            Some(weight) => invalid("finite numbers of at least 0".to_string(), weight),
            None => Ok(()),
        }
    }
}

impl Op for BceWithLogits {
    /// The gradient of the logits for a gradient of the loss of 1.
    type Context = Tensor;

    fn name(&self) -> &'static str {
        "bce_with_logits"
    }

    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
        self.check(inputs[0].shape()).map_err(|error| Fault::new(error, Shape::scalar()))?;
        Ok(Shape::scalar())
    }

    fn forward(&self, inputs: &[Input<'_>], _: Shape) -> (Tensor, Tensor) {
        let classes = inputs[0].shape().num_channels();
        per_element(inputs[0].value(), &self.targets, |i, x, t| {
            let weight =
                self.options.pos_weight.as_ref().map_or(1.0, |weights| f64::from(weights[i % classes]));
            let positive = 1.0 + (weight - 1.0) * t;
            // log(1 + exp(-x)), and sigmoid(-x), without overflow.
            let softplus = (-x.abs()).exp().ln_1p() + (-x).max(0.0);
            ((1.0 - t) * x + positive * softplus, (1.0 - t) - positive / (1.0 + x.exp()))
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
    /// Returns the binary cross entropy of logits `[N, K]` with targets `[N, K]` in [0, 1], the
    /// mean over all elements, of shape `[]`, in nats. No gradient flows into the targets.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the input is not `[N, K]` or the targets have another shape;
    /// [`Error::Argument`] if there is no element, a target is not in [0, 1], or there are not K
    /// weights of at least 0.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape, ops::BceOptions};
    /// let tape = Tape::eval();
    /// let x = tape.input(Tensor::new([1, 2], [0.0, 3f32.ln()])?);
    /// let targets = Tensor::new([1, 2], [1.0, 0.0])?;
    /// let loss = x.bce_with_logits(&targets, &BceOptions::new().pos_weight([3.0, 1.0]))?;
    /// assert!((loss.item() - (3.0 * 2f32.ln() + 4f32.ln()) / 2.0).abs() < 1e-6);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn bce_with_logits(&self, targets: &Tensor, options: &BceOptions) -> Result<Var<'t>> {
        BceWithLogits { targets: targets.clone(), options: options.clone() }.apply(&[self])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Rng, autograd::Tape};

    #[test]
    fn values_are_those_of_f64() {
        let mut rng = Rng::seed(1);
        let x = Tensor::normal([3, 4], 3.0, &mut rng).unwrap();
        let t = Tensor::uniform([3, 4], 0.0, 1.0, &mut rng).unwrap();
        let weights = [0.5f32, 1.0, 2.0, 0.0];
        let exact = |i: usize| {
            let sigmoid = 1.0 / (1.0 + (-f64::from(x.data()[i])).exp());
            let (t, weight) = (f64::from(t.data()[i]), f64::from(weights[i % 4]));
            -(weight * t * sigmoid.ln() + (1.0 - t) * (1.0 - sigmoid).ln())
        };
        let exact = (0..12).map(exact).sum::<f64>() / 12.0;
        let tape = Tape::eval();
        let options = BceOptions::new().pos_weight(weights);
        let loss = f64::from(tape.input(x).bce_with_logits(&t, &options).unwrap().item());
        assert!((loss - exact).abs() < 1e-6 * exact, "{loss} {exact}");
    }

    #[test]
    fn huge_logits_give_finite_losses_and_gradients() {
        let tape = Tape::train(Rng::seed(0));
        let x = tape.watch(Tensor::new([1, 4], [1e5, -1e5, 1e5, -1e5]).unwrap());
        let targets = Tensor::new([1, 4], [0.0, 0.0, 1.0, 1.0]).unwrap();
        let loss = x.bce_with_logits(&targets, &BceOptions::new()).unwrap();
        assert_eq!(loss.item(), 5e4);
        assert_eq!(loss.backward().unwrap().grad_of(&x).unwrap().data(), [0.25, 0.0, 0.0, -0.25]);
    }

    #[test]
    fn errors_name_the_argument() {
        let tape = Tape::eval();
        let x = tape.input(Tensor::zeros([2, 3]).unwrap());
        let says = |targets: &Tensor, options: &BceOptions| {
            x.bce_with_logits(targets, options).unwrap_err().to_string()
        };
        let (zeros, plain) = (Tensor::zeros([2, 3]).unwrap(), BceOptions::new());
        assert_eq!(
            says(&Tensor::zeros([3]).unwrap(), &plain),
            "bce_with_logits: targets: expected [2, 3], found [3]"
        );
        assert_eq!(
            says(&Tensor::full([2, 3], 1.5).unwrap(), &plain),
            "bce_with_logits: targets: expected numbers in [0, 1], found 1.5"
        );
        assert!(says(&Tensor::full([2, 3], f32::NAN).unwrap(), &plain).contains("found NaN"));
        assert!(says(&zeros, &plain.clone().pos_weight([1.0])).contains("expected 3, one for each class"));
        assert!(says(&zeros, &plain.pos_weight([1.0, -1.0, 1.0])).contains("at least 0, found -1"));
        let empty = Tensor::zeros([0, 3]).unwrap();
        let error = tape.input(empty.clone()).bce_with_logits(&empty, &BceOptions::new()).unwrap_err();
        assert!(error.to_string().contains("logits: expected at least one row and one class"), "{error}");
    }
}
