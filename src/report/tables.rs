//! The tables of the page: classes, epochs, and pairs of names and values.

use super::{
    evaluation::Evaluation,
    format::{duration, grouped, percent, short},
};
use crate::train::{ConfusionMatrix, History, Record};
use maud::{Markup, html};

/// The most rows of a table that is open from the start.
const MAX_OPEN: usize = 30;

/// Returns a table, which has to be unfolded if it is long.
fn unfoldable(rows: usize, summary: &str, table: &Markup) -> Markup {
    html! {
        @if rows <= MAX_OPEN {
            div.scroll { (table) }
        } @else {
            details {
                summary { (summary) }
                div.scroll { (table) }
            }
        }
    }
}

/// Returns a number for readers, with all of its digits for programs.
fn number(value: f32, text: &str) -> Markup {
    html! { data value=(value) { (text) } }
}

/// Returns the section of the classes.
pub(super) fn classes(evaluation: &Evaluation) -> Markup {
    let Some(confusion) = &evaluation.confusion else { return html! {} };
    let rows = confusion.num_classes();
    html! {
        section id="classes" {
            h2 { "Classes" }
            (unfoldable(rows, &format!("All {rows} classes"), &class_table(evaluation, confusion)))
        }
    }
}

fn class_table(evaluation: &Evaluation, confusion: &ConfusionMatrix) -> Markup {
    let score = |score: f32| html! { td { (number(score, &percent(score))) } };
    html! {
        table.numbers {
            thead {
                tr {
                    th scope="col" { "class" }
                    th scope="col" { "precision" }
                    th scope="col" { "recall" }
                    th scope="col" { "F1" }
                    th scope="col" { "support" }
                }
            }
            tbody {
                @for class in 0..confusion.num_classes() {
                    tr {
                        th scope="row" { (evaluation.name(class)) }
                        (score(confusion.precision(class)))
                        (score(confusion.recall(class)))
                        (score(confusion.f1(class)))
                        td { (confusion.support(class)) }
                    }
                }
            }
            tfoot { (mean_row(confusion)) }
        }
    }
}

/// Returns the row of the means over the classes.
fn mean_row(confusion: &ConfusionMatrix) -> Markup {
    let classes = 0..confusion.num_classes();
    let mean = |score: &dyn Fn(usize) -> f32| {
        let scores: Vec<f32> = classes.clone().map(score).filter(|score| score.is_finite()).collect();
        percent(scores.iter().sum::<f32>() / scores.len() as f32)
    };
    html! {
        tr {
            th scope="row" { "mean" }
            td { (mean(&|class| confusion.precision(class))) }
            td { (mean(&|class| confusion.recall(class))) }
            td { (mean(&|class| confusion.f1(class))) }
            td { (classes.clone().map(|class| confusion.support(class)).sum::<usize>()) }
        }
    }
}

/// Returns the section of the epochs.
pub(super) fn epochs(history: &History) -> Markup {
    let rows = history.records.len();
    html! {
        section id="epochs" {
            h2 { "Epochs" }
            @if rows == 0 {
                p { "No epoch is finished." }
            } @else {
                p.note {
                    "Seconds and images per second are those of the training steps, without the evaluation. \
                     Two trainings whose hashes of the weights are the same are the same to the bit."
                }
                (unfoldable(rows, &format!("All {rows} epochs"), &epoch_table(history)))
            }
        }
    }
}

type Count = fn(&Record) -> usize;

/// The counts of an epoch that are usually 0, and are shown if one is not.
const COUNTS: [(&str, Count); 4] = [
    ("skipped steps", |r| r.skipped_steps),
    ("rollbacks", |r| r.rollbacks),
    ("unreadable", |r| r.unreadable),
    ("test unreadable", |r| r.test_unreadable),
];

fn epoch_table(history: &History) -> Markup {
    let records = &history.records;
    let best = history.best().map(|best| best.epoch);
    let has_count = |count: &&(&str, Count)| records.iter().any(|record| count.1(record) > 0);
    let counts: Vec<_> = COUNTS.iter().filter(has_count).collect();
    html! {
        table.numbers {
            thead {
                tr {
                    th scope="col" { "epoch" }
                    @for name in ["learning rate", "training loss", "training accuracy", "test loss",
                        "test accuracy", "test top-5", "seconds", "images/s", "weights"] {
                        th scope="col" { (name) }
                    }
                    @for (name, _) in &counts { th scope="col" { (name) } }
                }
            }
            tbody {
                @for record in records {
                    tr.best[best == Some(record.epoch)] {
                        th scope="row" { (record.epoch) }
                        (epoch_cells(record))
                        @for (_, count) in &counts { td { (count(record)) } }
                    }
                }
            }
        }
    }
}

fn epoch_cells(record: &Record) -> Markup {
    let value = |x: f32| number(x, &short(x));
    let fraction = |x: f32| number(x, &percent(x));
    html! {
        td { (value(record.lr)) }
        td { (value(record.train_loss)) }
        td { (fraction(record.train_accuracy)) }
        td { (value(record.test_loss)) }
        td { (fraction(record.test_accuracy)) }
        td { (fraction(record.test_top5)) }
        td { data value=(record.seconds) { (format!("{:.1}", record.seconds)) } }
        td { @if let Some(rate) = record.images_per_second { (number(rate, &short(rate))) } }
        td { @if let Some(hash) = record.weights_hash { code { (format!("{hash:016x}")) } } }
    }
}

/// Returns a table of names and values.
pub(super) fn pairs(caption: &str, rows: &[(String, String)]) -> Markup {
    html! {
        div.scroll {
            table.pairs {
                caption { (caption) }
                tbody {
                    @for (name, value) in rows {
                        tr { th scope="row" { (name) } td { (value) } }
                    }
                }
            }
        }
    }
}

/// Returns the tiles at the top of the page: a name, a value and what belongs to it.
pub(super) fn tiles(evaluation: &Evaluation, history: &History) -> Markup {
    let metrics = &evaluation.metrics;
    let tile = |name: &str, value: String, note: String| {
        html! { div.tile { div.name { (name) } div.value { (value) } div.note { (note) } } }
    };
    let seconds: f64 = history.records.iter().map(|record| record.seconds).sum();
    let calibration = &evaluation.calibration;
    let images = grouped(metrics.images as u64);
    html! {
        div.tiles {
            (tile("test accuracy", percent(metrics.accuracy()), format!("{} of {images} images", metrics.top1)))
            (tile("test loss", short(metrics.loss()), "mean cross-entropy, in nats".into()))
            (tile("calibration error", percent(calibration.expected_error()), "expected, of 15 bins".into()))
            @if let Some(best) = history.best() {
                (tile("best epoch", best.epoch.to_string(), percent(best.ema_test_accuracy.unwrap_or(best.test_accuracy))))
                (tile("training time", duration(seconds), format!("{} epochs", history.records.len())))
            }
            @if let Some(rate) = history.records.last().and_then(|last| last.images_per_second) {
                (tile("images per second", short(rate), "in the last epoch".into()))
            }
        }
    }
}
