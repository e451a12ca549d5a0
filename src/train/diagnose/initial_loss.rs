//! Whether the loss before the first step is that of a model that knows nothing.

use super::{
    diagnosis::Diagnosis,
    finding::{Finding, FindingKind, Severity},
};

const NAME: &str = "initial loss";

/// How far the initial loss may be above that of equal probabilities: a number of nats, or this
/// many times that loss. The maps of a residual network grow with its depth, and its logits with
/// them, so that one nat is usual.
const MARGIN: [f64; 2] = [5.0, 2.0];

/// What is near enough to equal probabilities, in nats.
const NEAR: f64 = 1.0;

/// Judges the loss before the first step. Returns whether it is finite.
pub(super) fn judge(loss: f32, logits: usize, diagnosis: &mut Diagnosis) -> bool {
    let expected = (logits as f64).ln();
    let measured = format!("{loss:.3}; ln({logits}) is {expected:.3}");
    if !loss.is_finite() {
        let message = "The loss of the first batch is not finite, before any step. Look for weights or pixels \
                       that are very large or not numbers.";
        diagnosis.add(Finding::new(FindingKind::NotFinite, Severity::Error, loss.into(), message));
        diagnosis.check(NAME, measured, false, "not finite");
        return false;
    }
    let loss = f64::from(loss);
    let is_high = loss > expected + MARGIN[0].max(MARGIN[1] * expected);
    if is_high {
        let message = format!(
            "The loss before the first step is {loss:.2}, and ln({logits}) = {expected:.2} if all classes had the \
             same probability: the logits are large, and the first steps go into shrinking them. Initialize the \
             last layer with smaller weights, and look at what it gets."
        );
        diagnosis.add(Finding::new(FindingKind::HighInitialLoss, Severity::Warning, loss, message));
    }
    let verdict = match loss {
        _ if is_high => "too high",
        loss if loss < expected - NEAR => "lower: the model knows something",
        loss if loss > expected + NEAR => "not far above equal probabilities",
        _ => "as of equal probabilities",
    };
    diagnosis.check(NAME, measured, !is_high, verdict);
    true
}
