//! What one step of the optimizer changes, at its learning rate.

use super::{
    diagnosis::Diagnosis,
    finding::{Finding, FindingKind, Severity},
    gradients::weight,
    options::DiagnoseOptions,
    pass::{Sample, gradients, norm},
    restored::Restored,
};
use crate::{Result, Rng};
use std::collections::BTreeMap;

pub(super) const NAME: &str = "learning rate";

/// The range of the median over the layers of the norm of the update divided by that of the
/// weights.
const RATIO: [f64; 2] = [1e-6, 0.5];

/// Makes one step and judges by how much it changes the weights.
pub(super) fn judge(
    run: &mut Restored<'_>,
    sample: &Sample,
    options: &DiagnoseOptions,
    diagnosis: &mut Diagnosis,
) -> Result<()> {
    let lr = run.optimizer.lr();
    if lr == 0.0 {
        diagnosis.skip(NAME, "it is 0; give the optimizer the highest one of the schedule");
        return Ok(());
    }
    options.show(NAME, 0, 1);
    let (_, updates) = gradients(&*run.model, sample, Rng::keyed(options.seed, 0, 0))?;
    run.optimizer.step(&mut *run.model, updates)?;
    let mut norms: BTreeMap<String, [f64; 2]> = BTreeMap::new();
    run.compare(|name, state, before| {
        let Some((path, _)) = weight(name, &state) else { return };
        let mut change = state.value().clone();
        change.axpy(-1.0, before);
        let [all_change, all_before] = norms.entry(path.to_string()).or_default();
        (*all_change, *all_before) = (all_change.hypot(norm(&change)), all_before.hypot(norm(before)));
    });
    run.restore()?;
    for layer in diagnosis.layers.iter_mut().filter(|layer| !layer.gradient_norms.is_empty()) {
        let known = norms.get(&layer.path).filter(|[_, before]| *before > 0.0);
        layer.update_ratio = known.map(|[change, before]| change / before);
    }
    judge_ratio(lr, diagnosis);
    Ok(())
}

fn judge_ratio(lr: f32, diagnosis: &mut Diagnosis) {
    let mut ratios: Vec<f64> = diagnosis.layers.iter().filter_map(|layer| layer.update_ratio).collect();
    ratios.sort_by(f64::total_cmp);
    let Some(&median) = ratios.get(ratios.len() / 2) else {
        diagnosis.skip(NAME, "no layer with weights is trained");
        return;
    };
    let measured = format!(
        "{lr}: a step changes weights by {:.1e} to {:.1e}, median {median:.1e}",
        ratios[0],
        ratios[ratios.len() - 1]
    );
    let change = format!(
        "At the learning rate {lr}, one step changes the weights of the median layer by {median:.1e} of their norm"
    );
    let is_fine = if median.is_nan() || median > RATIO[1] {
        let message = format!(
            "{change}: it replaces what they were. About 1e-3 is usual, and 1e-1 the most at the start. Take a rate \
             that is {} times lower, or a warmup (`Schedule::warmup`).",
            factor(median / 1e-2)
        );
        diagnosis.add(Finding::new(FindingKind::HighLearningRate, Severity::Error, median, message));
        false
    } else if median < RATIO[0] {
        let message = format!("{change}: they hardly move. About 1e-3 is usual. Take a higher rate.");
        diagnosis.add(Finding::new(FindingKind::LowLearningRate, Severity::Warning, median, message));
        false
    } else {
        true
    };
    let verdict = match is_fine {
        true => "weights change by a small part",
        false if median < RATIO[0] => "too low",
        false => "too high",
    };
    diagnosis.check(NAME, measured, is_fine, verdict);
}

/// Returns a factor as a power of ten.
fn factor(ratio: f64) -> f64 {
    10f64.powf(ratio.log10().round().clamp(1.0, 9.0))
}
