//! The gradients of the layers in the first steps.

use super::{
    diagnosis::{Diagnosis, LayerStats},
    finding::{Finding, FindingKind, Severity},
    initial_loss,
    options::DiagnoseOptions,
    pass::{Sample, gradients, is_trained, listed, module_path, named, norm},
    restored::Restored,
};
use crate::{
    Result, Rng,
    autograd::{StateRef, Updates},
    nn::Module,
    optim::{Adam, Optimizer},
};
use std::collections::BTreeMap;

pub(super) const NAME: &str = "gradients";

/// The number of steps whose gradients are measured. A block that begins as its shortcut, or a
/// classifier of zeros, lets none through before the first one.
const STEPS: usize = 4;

/// The learning rate of Adam for these steps.
const RATE: f32 = 1e-3;

/// How large the gradient of a layer may be beside that of the last one, and how small beside the
/// largest.
const EXPLODING: f64 = 100.0;
const VANISHING: f64 = 1e-4;

/// The gradients so far.
struct Measured {
    layers: Vec<LayerStats>,
    /// The trained parameters all of whose gradients were zero, by name; true if there was none at
    /// all.
    silent: BTreeMap<String, bool>,
}

/// Measures and judges the loss before the first step, and the gradients of the first steps.
/// Returns whether the model can be trained.
pub(super) fn judge(
    run: &mut Restored<'_>,
    sample: &Sample,
    logits: usize,
    options: &DiagnoseOptions,
    diagnosis: &mut Diagnosis,
) -> Result<bool> {
    let mut measured = Measured::new(&*run.model);
    let mut adam = Adam::new(RATE);
    let mut is_trainable = true;
    for step in 0..STEPS {
        options.show(NAME, step, STEPS);
        let (loss, updates) = gradients(&*run.model, sample, Rng::keyed(options.seed, 0, step as u64))?;
        if step == 0 {
            diagnosis.initial_loss = Some(loss);
            is_trainable = initial_loss::judge(loss, logits, diagnosis);
        }
        if !is_trainable || !loss.is_finite() {
            break;
        }
        measured.add(&*run.model, &updates);
        if step == 0 && measured.silent.values().any(|is_missing| *is_missing) {
            is_trainable = false;
            break;
        }
        adam.step(&mut *run.model, updates)?;
    }
    run.restore()?;
    match is_trainable || diagnosis.initial_loss.is_some_and(f32::is_finite) {
        true => measured.judge(diagnosis),
        false => diagnosis.skip(NAME, "the loss is not finite"),
    }
    diagnosis.layers = measured.layers;
    Ok(is_trainable)
}

impl Measured {
    fn new(model: &dyn Module) -> Measured {
        let (mut layers, mut silent) = (Vec::<LayerStats>::new(), BTreeMap::new());
        model.visit("", &mut |name, state| {
            if is_trained(&state) {
                silent.insert(name.to_string(), true);
            }
            let Some((path, elements)) = weight(name, &state) else { return };
            let norm = norm(state.value());
            match layers.iter_mut().find(|layer| layer.path == path) {
                Some(layer) => {
                    layer.weights += elements;
                    layer.weight_norm = layer.weight_norm.hypot(norm);
                }
                None => layers.push(LayerStats {
                    path: path.to_string(),
                    weights: elements,
                    weight_norm: norm,
                    gradient_norms: vec![],
                    update_ratio: None,
                }),
            }
        });
        Measured { layers, silent }
    }

    /// Adds the gradients of a step.
    fn add(&mut self, model: &dyn Module, updates: &Updates) {
        let mut norms: BTreeMap<&str, f64> = BTreeMap::new();
        let paths: Vec<String> = self.layers.iter().map(|layer| layer.path.clone()).collect();
        model.visit("", &mut |name, state| {
            let StateRef::Param(param) = state else { return };
            let Some(gradient) = updates.grad(param) else { return };
            let norm = norm(gradient);
            if norm == 0.0 {
                self.silent.entry(name.to_string()).and_modify(|is_missing| *is_missing = false);
            } else {
                self.silent.remove(name);
            }
            if let Some((path, _)) = weight(name, &state)
                && let Some(path) = paths.iter().find(|known| *known == path)
            {
                norms.entry(path).and_modify(|sum| *sum = sum.hypot(norm)).or_insert(norm);
            }
        });
        for layer in &mut self.layers {
            layer.gradient_norms.extend(norms.get(&*layer.path));
        }
    }

    fn judge(&self, diagnosis: &mut Diagnosis) {
        let trained: Vec<&LayerStats> =
            self.layers.iter().filter(|layer| !layer.gradient_norms.is_empty()).collect();
        let first = |layer: &&LayerStats| layer.gradient_norms[0];
        let [least, most] = [
            trained.iter().map(first).fold(f64::INFINITY, f64::min),
            trained.iter().map(first).fold(0.0, f64::max),
        ];
        let measured = match trained.is_empty() {
            true => "no layer with weights is trained".to_string(),
            false => format!("norms of {least:.1e} to {most:.1e} in {} layers", trained.len()),
        };
        let before = diagnosis.findings.len();
        let verdict = match (self.judge_silent(diagnosis), judge_size(&trained, diagnosis)) {
            (Some(verdict), _) => verdict,
            (None, true) => "neither vanishing nor exploding",
            (None, false) => "out of proportion",
        };
        diagnosis.check(NAME, measured, diagnosis.findings.len() == before, verdict);
    }

    /// Judges parameters without any gradient. Where a convolution is zero or a ReLU is dead, that
    /// is the reason, and was found.
    fn judge_silent(&self, diagnosis: &mut Diagnosis) -> Option<&'static str> {
        if self.silent.is_empty() {
            return None;
        }
        let mut paths: Vec<String> = self.silent.keys().map(|name| module_path(name).to_string()).collect();
        paths.dedup();
        let is_explained = |finding: &Finding| {
            let kinds = [FindingKind::ZeroConvolution, FindingKind::DeadRelus];
            finding.severity() == Severity::Error && kinds.contains(&finding.kind())
        };
        let is_missing = self.silent.values().any(|is_missing| *is_missing);
        if !is_missing && diagnosis.findings.iter().any(is_explained) {
            return Some("none where it is blocked, see the findings");
        }
        let what = match is_missing {
            true => "the loss does not depend on them. Freeze or remove them, or use them in `forward`",
            false => {
                "it is zero in each of the first steps. Look for a zero scale, a constant, or an activation that \
                 is never active between them and the loss"
            }
        };
        let message =
            format!("{} parameters get no gradient, in {}: {what}.", self.silent.len(), listed(&paths));
        let finding =
            Finding::new(FindingKind::NoGradient, Severity::Error, self.silent.len() as f64, message);
        diagnosis.add(finding.at(&paths[0]));
        Some("some layers get none")
    }
}

/// Judges the size of the gradients. Returns whether it is in proportion.
fn judge_size(trained: &[&LayerStats], diagnosis: &mut Diagnosis) -> bool {
    let Some(last) = trained.last() else { return true };
    let steps = trained.iter().map(|layer| layer.gradient_norms.len()).min().unwrap_or(0);
    let largest = |step: usize| trained.iter().map(|layer| layer.gradient_norms[step]).fold(0.0, f64::max);
    // Over the steps the most favorable one counts: a transient is none of the layer's.
    let growth = |layer: &LayerStats| {
        let ratio = |step: usize| layer.gradient_norms[step] / last.gradient_norms[step];
        (0..steps).map(ratio).fold(f64::INFINITY, f64::min)
    };
    // A layer after a zero scale begins without a gradient, and gets more with every step.
    let part = |layer: &LayerStats| {
        let parts = (0..steps).map(|step| layer.gradient_norms[step] / largest(step));
        if layer.gradient_norms[0] == 0.0 { 1.0 } else { parts.fold(0.0, f64::max) }
    };
    let mut is_fine = true;
    if let Some((layer, ratio)) = extreme(trained, growth, |ratio| ratio > EXPLODING) {
        let message = format!(
            "The gradient of {} is {ratio:.0} times as large as that of the last layer, {}: gradients grow on \
             their way back. Use shortcuts or normalizations, or fewer layers, and clip the gradient \
             (`Trainer::clip_norm`).",
            named(&layer.path),
            named(&last.path)
        );
        let kind = FindingKind::ExplodingGradients;
        diagnosis.add(Finding::new(kind, Severity::Warning, ratio, message).at(&layer.path));
        is_fine = false;
    }
    let shrunk = |ratio: f64| ratio > 0.0 && 1.0 / ratio > 1.0 / VANISHING;
    if let Some((layer, ratio)) = extreme(trained, |layer| 1.0 / part(layer), |inverse| shrunk(1.0 / inverse))
    {
        let message = format!(
            "The gradient of {} is {:.1e} of the largest: it gets next to nothing to learn from. Use shortcuts or \
             normalizations, ReLUs instead of activations that saturate, and an initialization for them \
             (`nn::init`).",
            named(&layer.path),
            1.0 / ratio
        );
        let kind = FindingKind::VanishingGradients;
        diagnosis.add(Finding::new(kind, Severity::Warning, 1.0 / ratio, message).at(&layer.path));
        is_fine = false;
    }
    is_fine
}

/// Returns the layer of the largest value, if that is out of range.
fn extreme<'a>(
    layers: &[&'a LayerStats],
    value: impl Fn(&LayerStats) -> f64,
    is_out: impl Fn(f64) -> bool,
) -> Option<(&'a LayerStats, f64)> {
    let values = layers.iter().map(|layer| (*layer, value(layer))).filter(|(_, value)| is_out(*value));
    values.max_by(|a, b| a.1.total_cmp(&b.1))
}

/// Returns the path of the layer and the number of weights, if a state has the weights of a layer.
pub(super) fn weight<'a>(name: &'a str, state: &StateRef<'_>) -> Option<(&'a str, usize)> {
    let shape = state.value().shape();
    let is_weight = matches!(state, StateRef::Param(_)) && shape.rank() >= 2;
    is_weight.then(|| (module_path(name), shape.num_elements()))
}
