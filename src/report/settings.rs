//! The settings of a training as names and values.

use super::{Report, format::grouped};
use crate::{Result, graph::ModuleExt as _, train::LoaderInfo};

/// Returns the settings of the model and of the training, and what the program has added.
pub(super) fn settings(report: &Report<'_>) -> Vec<(String, String)> {
    let settings = report.trainer.settings();
    let mut rows: Vec<(String, String)> = vec![];
    let mut row = |name: &str, value: String| rows.push((name.into(), value));
    row("model", if settings.model.is_empty() { "without a name".into() } else { settings.model.clone() });
    row("parameters", grouped(report.model.num_parameters() as u64));
    if let Ok(multiply_adds) = multiply_adds(report) {
        row("multiply-adds of an image", grouped(multiply_adds));
    }
    row("epochs", settings.epochs.to_string());
    row("schedule", debug(&settings.schedule.curve));
    row("warmup steps", settings.schedule.warmup_steps.to_string());
    for (name, value) in report.trainer.optimizer_settings() {
        if !value.is_empty() {
            row(&name.replace('_', " "), value.clone());
        }
    }
    row("label smoothing", settings.label_smoothing.to_string());
    row(
        "largest norm of the gradient",
        settings.clip_norm.map_or("not limited".into(), |norm| norm.to_string()),
    );
    row("micro-batches", settings.micro_batches.to_string());
    row("if not finite", debug(&settings.on_divergence));
    row("precision", settings.precision.to_string());
    row("seed", settings.seed.to_string());
    for (name, info) in ["training", "test"].into_iter().zip(report.trainer.loaders()) {
        if let Some(info) = info {
            rows.extend(loader(name, info));
        }
    }
    rows.extend(report.settings.iter().cloned());
    rows
}

/// Returns the multiply-adds of one test image.
fn multiply_adds(report: &Report<'_>) -> Result<u64> {
    let [h, w, c] = report.test.dataset().image_shape();
    Ok(report.model.summary(&[1, h, w, c])?.multiply_adds)
}

fn loader(name: &str, info: &LoaderInfo) -> Vec<(String, String)> {
    let mut rows = vec![
        (format!("{name} images"), grouped(info.images as u64)),
        (format!("{name} batch size"), info.batch_size.to_string()),
    ];
    if let Some(details) = &info.details {
        let [h, w, c] = details.image_shape;
        rows.push((format!("{name} image"), format!("{h} x {w} x {c}")));
        rows.push((format!("{name} classes"), details.classes.len().to_string()));
        let order =
            if details.shuffle { format!("shuffled, seed {}", details.seed) } else { "as stored".into() };
        rows.push((format!("{name} order"), order));
        rows.push((format!("{name} transforms"), transforms(&details.transform)));
        rows.push((format!("{name} batch transform"), details.batch_transform.clone()));
    }
    rows
}

/// Returns the transforms without the name of the list that they are in.
fn transforms(debug: &str) -> String {
    let list = debug.strip_prefix("Compose([").and_then(|rest| rest.strip_suffix("])"));
    match list.unwrap_or(debug) {
        "" => "none".into(),
        list => list.into(),
    }
}

fn debug(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Compose, RandomHorizontalFlip};

    #[test]
    fn transforms_are_a_list() {
        let compose = Compose::new().then(RandomHorizontalFlip);
        assert_eq!(transforms(&format!("{compose:?}")), "RandomHorizontalFlip");
        assert_eq!(transforms(&format!("{:?}", Compose::new())), "none");
        assert_eq!(transforms("else"), "else");
    }
}
