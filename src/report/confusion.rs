//! The confusion matrix as a heat map, and the pairs of classes that are confused most.

use super::{evaluation::Evaluation, format::percent, picture::Picture};
use crate::{Result, train::ConfusionMatrix};
use maud::{Markup, html};

/// The most classes whose matrix is a table of counts; that of more is a picture.
const MAX_TABLE: usize = 20;
/// The most pairs that are listed.
const MAX_PAIRS: usize = 10;

/// Returns the section of the confusion matrix.
pub(super) fn section(evaluation: &Evaluation) -> Result<Markup> {
    let confusions = evaluation.confusions();
    Ok(html! {
        section id="confusion" {
            h2 { "Confusion matrix" }
            @match &evaluation.confusion {
                None => p { "There are too many classes for a matrix." },
                Some(confusion) => {
                    p.note {
                        "A row is a true class, a column a predicted one. The color is the share of the row's \
                         images: blue where they are right, red where not (shares of mistakes by their square \
                         root, so that few are seen)."
                    }
                    div.matrix-and-pairs {
                        div.scroll {
                            @if confusion.num_classes() <= MAX_TABLE {
                                (table(evaluation, confusion))
                            } @else {
                                (picture(confusion)?)
                            }
                        }
                        @if !confusions.is_empty() { (pairs(evaluation, confusion, &confusions)) }
                    }
                }
            }
        }
    })
}

/// Returns how strongly a cell is colored, in [0, 1].
fn shade(confusion: &ConfusionMatrix, label: usize, class: usize) -> f32 {
    let share = confusion.count(label, class) as f32 / confusion.support(label).max(1) as f32;
    if label == class { share } else { share.sqrt() }
}

fn table(evaluation: &Evaluation, confusion: &ConfusionMatrix) -> Markup {
    let classes = 0..confusion.num_classes();
    html! {
        table.confusion {
            thead {
                tr {
                    th scope="col" { span.corner { "true \\ predicted" } }
                    @for class in classes.clone() {
                        th.class scope="col" { span { (evaluation.name(class)) } }
                    }
                }
            }
            tbody {
                @for label in classes.clone() {
                    tr {
                        th scope="row" { (evaluation.name(label)) }
                        @for class in classes.clone() { (cell(evaluation, confusion, label, class)) }
                    }
                }
            }
        }
    }
}

fn cell(evaluation: &Evaluation, confusion: &ConfusionMatrix, label: usize, class: usize) -> Markup {
    let (count, shade) = (confusion.count(label, class), shade(confusion, label, class));
    let kind = match (label == class, shade > 0.6) {
        (true, true) => "right strong",
        (true, false) => "right",
        (false, true) => "wrong strong",
        (false, false) => "wrong",
    };
    html! {
        td.(kind) style={ "--share:" (format!("{shade:.3}")) }
            title={ (count) " of " (confusion.support(label)) ": " (evaluation.name(label)) " predicted to be "
                (evaluation.name(class)) } {
            @if count > 0 { (count) }
        }
    }
}

fn picture(confusion: &ConfusionMatrix) -> Result<Markup> {
    let size = confusion.num_classes();
    let shares: Vec<f32> = (0..size * size).map(|i| shade(confusion, i / size, i % size)).collect();
    let url = Picture::shares(&shares, size).to_url()?;
    Ok(html! {
        img.matrix src=(url) width=(size) height=(size) alt={ "the confusion matrix of " (size) " classes" };
    })
}

fn pairs(
    evaluation: &Evaluation,
    confusion: &ConfusionMatrix,
    confusions: &[(usize, usize, usize)],
) -> Markup {
    html! {
        div.scroll {
            table.numbers.confused {
                caption { "Confused most" }
                thead {
                    tr {
                        th scope="col" { "true" }
                        th scope="col" { "predicted" }
                        th scope="col" { "images" }
                        th scope="col" { "of the class" }
                    }
                }
                tbody {
                    @for &(label, class, count) in confusions.iter().take(MAX_PAIRS) {
                        tr {
                            td { (evaluation.name(label)) }
                            td { (evaluation.name(class)) }
                            td { (count) }
                            td { (percent(count as f32 / confusion.support(label) as f32)) }
                        }
                    }
                }
            }
        }
    }
}
