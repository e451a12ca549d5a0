//! The page: its head, its sections, and the plots.

use super::{
    Report, confusion,
    evaluation::Evaluation,
    format::{grouped, percent},
    machine,
    mistakes::{self, Explained},
    plot, settings, tables,
};
use crate::{Result, train::weights_hash};
use maud::{DOCTYPE, Markup, PreEscaped, html};

/// The style sheet, which is part of the page.
const STYLE: &str = include_str!("page.css");

/// Nothing is fetched, whatever a browser does with the page: pictures are `data:` URLs, and styles
/// are in the page.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'";

/// Returns the page.
pub(super) fn page(
    report: &Report<'_>,
    evaluation: &Evaluation,
    explained: &[Explained],
    layer: Option<&str>,
) -> Result<Markup> {
    let history = report.trainer.history();
    Ok(html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                // Otherwise a browser asks the server for an icon.
                link rel="icon" href="data:,";
                title { (report.title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (report.title) }
                    p.note { (subtitle(report)) }
                }
                main {
                    (tables::tiles(evaluation, history))
                    (unreadable(report, evaluation))
                    (findings(report))
                    (curves(report)?)
                    (confusion::section(evaluation)?)
                    (tables::classes(evaluation))
                    (mistakes::section(evaluation, explained, layer)?)
                    (calibration(evaluation)?)
                    (tables::epochs(history))
                    (details(report))
                }
                footer { p.note { "Written by skipgrad " (env!("CARGO_PKG_VERSION")) "." } }
            }
        }
    })
}

/// Says what was trained, and of which epoch the evaluated weights are.
fn subtitle(report: &Report<'_>) -> Markup {
    let hash = weights_hash(report.model);
    let records = &report.trainer.history().records;
    let epoch = records.iter().rev().find(|record| record.weights_hash == Some(hash));
    html! {
        (grouped(report.model.num_parameters() as u64)) " parameters, "
        (records.len()) " of " (report.trainer.settings().epochs) " epochs. Evaluated with the weights "
        @match epoch {
            Some(record) => { "of epoch " (record.epoch) },
            None => { code { (format!("{hash:016x}")) } ", which are not those of an epoch" },
        }
        "."
    }
}

/// Says how many test images could not be read.
fn unreadable(report: &Report<'_>, evaluation: &Evaluation) -> Markup {
    const LISTED: usize = 10;
    let list = report.test.unreadable();
    html! {
        @if evaluation.metrics.unreadable > 0 {
            section id="unreadable" {
                h2 { "Unreadable images" }
                p { (evaluation.metrics.unreadable) " test images could not be read and were left out." }
                ul { @for (_, reason) in list.iter().take(LISTED) { li { (reason) } } }
            }
        }
    }
}

fn findings(report: &Report<'_>) -> Markup {
    html! {
        @if let Some(findings) = &report.findings {
            section id="findings" {
                h2 { "Findings of the diagnosis" }
                @if findings.is_empty() {
                    p { "The diagnosis has found nothing." }
                } @else {
                    ul { @for finding in findings { li { (finding) } } }
                }
            }
        }
    }
}

fn figure(caption: &str, svg: &str) -> Markup {
    html! { figure.plot { figcaption { (caption) } (PreEscaped(svg)) } }
}

fn curves(report: &Report<'_>) -> Result<Markup> {
    let panels = plot::curve_panels(report.trainer.history())?;
    Ok(html! {
        @if !panels.is_empty() {
            section id="curves" {
                h2 { "Curves" }
                div.plots { @for (title, svg) in &panels { (figure(title, svg)) } }
            }
        }
    })
}

fn calibration(evaluation: &Evaluation) -> Result<Markup> {
    let calibration = &evaluation.calibration;
    let (confidence, accuracy) = (calibration.confidence(), calibration.accuracy());
    let verdict = if confidence > accuracy { "more" } else { "less" };
    Ok(html! {
        @if calibration.images() > 0 {
            section id="calibration" {
                h2 { "Calibration" }
                p.note {
                    "Confidence is the probability of the predicted class (Guo et al. 2017). On average the \
                     network is " (verdict) " confident, " (percent(confidence)) ", than it is accurate, "
                    (percent(accuracy)) ". The expected calibration error is "
                    data value=(calibration.expected_error()) { (percent(calibration.expected_error())) }
                    ", the largest of a bin " (percent(calibration.maximum_error()))
                    ". Blue is the accuracy of the images in a bin, red its distance from their mean confidence."
                }
                div.plots {
                    (figure("reliability", &plot::reliability(calibration)?))
                    (figure("confidences", &plot::confidences(calibration)?))
                }
            }
        }
    })
}

fn details(report: &Report<'_>) -> Markup {
    html! {
        section id="details" {
            h2 { "Settings and machine" }
            div.details {
                (tables::pairs("Settings", &settings::settings(report)))
                div {
                    (tables::pairs("Machine", &machine::machine()))
                    (tables::pairs("Versions", &machine::versions()))
                }
            }
        }
    }
}
