//! The most confident mistakes: the picture, and the regions that spoke for the predicted and for
//! the true class.

use super::{
    evaluation::{Evaluation, Mistake},
    format::percent,
    picture::Picture,
};
use crate::{
    Error, Result, Tensor,
    data::Loader,
    graph::{HeatMap, grad_cam},
    nn::Module,
};
use maud::{Markup, html};

/// The number of images of a Grad-CAM pass, which holds all activations in memory.
const AT_ONCE: usize = 4;

/// The pictures of a mistake.
pub(super) struct Explained {
    picture: Picture,
    /// What spoke for the predicted and for the true class, if Grad-CAM can tell.
    heat: Option<[Picture; 2]>,
}

/// Returns the pictures of each mistake. Without a layer there are no heat maps.
///
/// # Errors
/// Those of the dataset and of the model, and [`Error::UnknownModule`] for the layer.
pub(super) fn explain(
    model: &dyn Module,
    loader: &Loader,
    evaluation: &Evaluation,
    layer: Option<&str>,
) -> Result<Vec<Explained>> {
    let shape = loader.dataset().image_shape();
    let mut explained = vec![];
    for mistakes in evaluation.mistakes.chunks(AT_ONCE) {
        let mut heat = layer.map_or(Ok(vec![]), |layer| heat(model, mistakes, shape, layer))?.into_iter();
        for mistake in mistakes {
            let mut pixels = vec![0.0; shape.iter().product()];
            loader.dataset().read(mistake.index, &mut pixels)?;
            let picture = Picture::new(&pixels, shape);
            let size = [picture.height, picture.width];
            let heat = heat.next().map(|maps| maps.map(|map| Picture::heat(&map.resized(size), size)));
            explained.push(Explained { picture, heat });
        }
    }
    Ok(explained)
}

/// Returns the heat maps of each mistake for its predicted and for its true class; none if the
/// logits do not depend on the layer.
fn heat(
    model: &dyn Module,
    mistakes: &[Mistake],
    [h, w, c]: [usize; 3],
    layer: &str,
) -> Result<Vec<[HeatMap; 2]>> {
    let pixels = mistakes.iter().flat_map(|mistake| &mistake.input).copied().collect::<Vec<f32>>();
    let images = Tensor::new([mistakes.len(), h, w, c], pixels)?;
    let maps = |class: fn(&Mistake) -> usize| {
        let classes: Vec<usize> = mistakes.iter().map(class).collect();
        grad_cam(model, &images, layer, Some(&classes))
    };
    match (maps(|mistake| mistake.class), maps(|mistake| mistake.label)) {
        (Ok(predicted), Ok(label)) => Ok(predicted.into_iter().zip(label).map(Into::into).collect()),
        (Err(error @ Error::UnknownModule { .. }), _) => Err(error),
        (Err(error), _) | (_, Err(error)) => {
            log::warn!("report: no heat maps: {error}");
            Ok(vec![])
        }
    }
}

/// Returns the section of the mistakes.
pub(super) fn section(
    evaluation: &Evaluation,
    explained: &[Explained],
    layer: Option<&str>,
) -> Result<Markup> {
    let shown = evaluation.mistakes.iter().zip(explained).enumerate();
    let figures = shown.map(|(i, (mistake, explained))| figure(i, evaluation, mistake, explained));
    let figures = figures.collect::<Result<Vec<_>>>()?;
    let has_heat = explained.iter().any(|explained| explained.heat.is_some());
    Ok(html! {
        section id="mistakes" {
            h2 { "Most confident mistakes" }
            @if figures.is_empty() {
                p { "Every test image was classified correctly." }
            } @else {
                p.note {
                    "The " (figures.len()) " of " (evaluation.num_mistakes)
                    " mistakes that the network was surest of. Their labels may be wrong, too."
                    @if let (Some(layer), true) = (layer, has_heat) {
                        " The second picture of each shows what spoke for the predicted class, and the third \
                         what spoke for the true class: Grad-CAM (Selvaraju et al. 2017) at "
                        code { (layer) } "."
                    }
                }
                div.mistakes { @for figure in &figures { (figure) } }
            }
        }
    })
}

/// The width of a picture in the drawing of a mistake, and the gap to the next one.
const EDGE: usize = 100;
const GAP: usize = 4;

fn figure(i: usize, evaluation: &Evaluation, mistake: &Mistake, explained: &Explained) -> Result<Markup> {
    let Explained { picture, heat } = explained;
    let (class, label) = (evaluation.name(mistake.class), evaluation.name(mistake.label));
    let height = (EDGE * picture.height).div_ceil(picture.width);
    let maps = heat.iter().flatten().map(Picture::to_url).collect::<Result<Vec<_>>>()?;
    let width = (EDGE + GAP) * (maps.len() + 1) - GAP;
    // Large pictures are photographs; the pixels of small ones are to be seen.
    let class_name = if picture.width.max(picture.height) <= 64 { "pixelated" } else { "photo" };
    let id = format!("mistake-{i}");
    Ok(html! {
        figure {
            svg viewBox={ "0 0 " (width) " " (height) } role="img"
                aria-label={ "a picture of " (label) ", predicted to be " (class) } {
                image.(class_name) id=(id) width=(EDGE) height=(height) preserveAspectRatio="none"
                    href=(picture.to_url()?) {}
                @for (i, map) in maps.iter().enumerate() {
                    @let x = (EDGE + GAP) * (i + 1);
                    use href={ "#" (id) } x=(x) {}
                    image x=(x) width=(EDGE) height=(height) preserveAspectRatio="none" href=(map) {}
                }
            }
            figcaption {
                strong.wrong { (class) } " " (percent(mistake.confidence)) br;
                "is " strong.right { (label) } " " (percent(mistake.label_probability))
                span.index { " image " (mistake.index) }
            }
        }
    })
}
