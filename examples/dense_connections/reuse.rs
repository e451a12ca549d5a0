//! Which of the layers before it a trained layer uses (Huang et al. 2017, figure 5).

use super::svg::{
    Anchor::{End, Middle, Start},
    Svg,
};
use skipgrad::{Tensor, models::DenseNet};
use std::fmt::Write as _;

/// The weights of a dense block by the layers that they read.
pub(crate) struct Reuse {
    pub(crate) title: String,
    /// For each layer, and for what follows the block: the mean absolute weight of the channels of
    /// the block's input and of each layer before, divided by that of all channels.
    pub(crate) layers: Vec<Vec<f64>>,
    /// What follows the block.
    pub(crate) next: &'static str,
}

/// Measures the blocks of a network.
pub(crate) fn measure(model: &DenseNet, growth: usize) -> Vec<Reuse> {
    let stages = model.features.stages.iter().enumerate();
    stages
        .map(|(i, stage)| {
            let convs: Vec<_> = stage.block.layers.iter().map(|layer| &layer.first.conv).collect();
            let (next, name) = match &stage.transition {
                Some(transition) => (transition.conv.conv.weight.value(), "transition"),
                None => (model.classifier.weight.value(), "classifier"),
            };
            let input = convs.first().map_or(0, |conv| conv.in_channels());
            let weights = convs.iter().map(|conv| conv.weight.value()).chain([next]);
            let layers = weights.map(|weight| by_source(weight, input, growth)).collect();
            Reuse { title: format!("dense block {}", i + 1), layers, next: name }
        })
        .collect()
}

/// Returns the mean absolute weight, `[..., C, out]`, of the channels of each source: the `input`
/// channels of the block, and then layers of `growth` channels. They are relative to the mean of
/// the whole weight, as a norm follows that undoes its scale.
fn by_source(weight: &Tensor, input: usize, growth: usize) -> Vec<f64> {
    let [.., channels, outputs] = weight.shape()[..] else { return vec![] };
    let source = |channel: usize| channel.checked_sub(input).map_or(0, |new| 1 + new / growth);
    let mut sums = vec![(0.0, 0.0); source(channels - 1) + 1];
    for (row, weights) in weight.data().chunks(outputs).enumerate() {
        let (sum, count) = &mut sums[source(row % channels)];
        *sum += weights.iter().map(|w| f64::from(w.abs())).sum::<f64>();
        *count += outputs as f64;
    }
    let total = sums.iter().fold((0.0, 0.0), |total, sum| (total.0 + sum.0, total.1 + sum.1));
    sums.iter().map(|(sum, count)| sum / count / (total.0 / total.1)).collect()
}

/// Returns the name of a source.
fn source_name(source: usize) -> String {
    if source == 0 { "input".into() } else { format!("layer {source}") }
}

/// Returns the weights as text: a line for each source, a column for each layer that reads it.
pub(crate) fn table(blocks: &[Reuse]) -> String {
    let mut text =
        String::from("Mean absolute weight by source, relative to the mean of the layer that reads:\n");
    for Reuse { title, layers, next } in blocks {
        let _ = write!(text, "\n{title:14}");
        (1..layers.len()).for_each(|layer| write!(text, " layer {layer:<2}").unwrap_or_default());
        let _ = writeln!(text, " {next}");
        for source in 0..layers.len() {
            let _ = write!(text, "from {:9}", source_name(source));
            for layer in layers {
                let _ = match layer.get(source) {
                    Some(value) => write!(text, " {value:<8.2}"),
                    None => write!(text, " {:8}", ""),
                };
            }
            text.truncate(text.trim_end().len());
            text.push('\n');
        }
    }
    text
}

/// The edge of a cell, and the space around the cells of a block.
const CELL: f64 = 42.0;
const LEFT: f64 = 74.0;
const TOP: f64 = 92.0;
const BELOW: f64 = 74.0;

/// Draws a heat map for each block, side by side.
pub(crate) fn to_svg(blocks: &[Reuse]) -> String {
    let cells = blocks.iter().map(|block| block.layers.len()).max().unwrap_or(0) as f64;
    let width = LEFT + cells * CELL + 22.0;
    let most = blocks.iter().flat_map(|block| &block.layers).flatten().copied().fold(1.5, f64::max);
    let mut svg = Svg::new([blocks.len() as f64 * width + 10.0, TOP + cells * CELL + BELOW]);
    let heading = "Feature reuse: mean absolute weight by source (row) and layer that reads it (column)";
    svg.text([16.0, 28.0], 18.0, Start, "#333", heading);
    for (i, block) in blocks.iter().enumerate() {
        heat_map(&mut svg, block, i as f64 * width + LEFT, most);
    }
    let y = TOP + cells * CELL + 48.0;
    for step in 0..40 {
        let value = most * f64::from(step) / 39.0;
        svg.rect([LEFT + 6.0 * f64::from(step), y], [6.0, 14.0], &color(value, most));
    }
    svg.text([LEFT - 8.0, y + 12.0], 12.0, End, "#666", "0");
    let end = format!("{most:.1} times the mean weight of the layer that reads; white is 1");
    svg.text([LEFT + 248.0, y + 12.0], 12.0, Start, "#666", &end);
    svg.finish()
}

fn heat_map(svg: &mut Svg, block: &Reuse, left: f64, most: f64) {
    let count = block.layers.len();
    let middle = left + count as f64 * CELL / 2.0;
    svg.text([middle, 58.0], 16.0, Middle, "#333", &block.title);
    for source in 0..count {
        let y = TOP + (source as f64 + 0.5) * CELL + 5.0;
        svg.text([left - 8.0, y], 13.0, End, "#333", &source_name(source));
    }
    for (i, layer) in block.layers.iter().enumerate() {
        let x = left + i as f64 * CELL;
        let name = if i + 1 == count { "next".to_string() } else { (i + 1).to_string() };
        svg.text([x + CELL / 2.0, TOP - 8.0], 13.0, Middle, "#333", &name);
        for (source, &value) in layer.iter().enumerate() {
            let y = TOP + source as f64 * CELL;
            svg.rect([x, y], [CELL - 1.0, CELL - 1.0], "#d0d0d0");
            svg.rect([x + 0.5, y + 0.5], [CELL - 2.0, CELL - 2.0], &color(value, most));
            let is_dark = value < 0.35 || value - 1.0 > 0.6 * (most - 1.0);
            let ink = if is_dark { "white" } else { "#333" };
            svg.text([x + CELL / 2.0, y + CELL / 2.0 + 4.0], 12.0, Middle, ink, &format!("{value:.2}"));
        }
    }
    let y = TOP + count as f64 * CELL + 18.0;
    svg.text([middle, y], 13.0, Middle, "#666", &format!("next: the {}", block.next));
}

/// Maps values to colors: 0 is blue, 1 is white, and `most` is red.
fn color(value: f64, most: f64) -> String {
    let (end, share) = match value < 1.0 {
        true => ([33.0, 102.0, 172.0], 1.0 - value),
        false => ([178.0, 24.0, 43.0], (value - 1.0) / (most - 1.0)),
    };
    let mix = |c: f64| (255.0 + share.clamp(0.0, 1.0) * (c - 255.0)).round() as u8;
    let [r, g, b] = end.map(mix);
    format!("#{r:02x}{g:02x}{b:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use skipgrad::{Result, Rng, models::DenseNetConfig};

    #[test]
    fn weights_are_told_apart_by_their_source() -> Result<()> {
        // Two kernel taps, an input of one channel and two layers of two, three outputs.
        let weight = Tensor::from_fn([1, 2, 5, 3], |i| [4.0, -1.0, 1.0, 0.0, -2.0][i / 3 % 5])?;
        let mean = 8.0 / 5.0;
        assert_eq!(by_source(&weight, 1, 2), [4.0 / mean, 1.0 / mean, 1.0 / mean]);
        Ok(())
    }

    #[test]
    fn an_untrained_network_prefers_no_source() -> Result<()> {
        let config = DenseNetConfig::plain(13, 12, 10)?;
        let blocks = measure(&DenseNet::new(&config, &mut Rng::seed(0))?, 12);
        assert_eq!(blocks.len(), 3);
        for Reuse { layers, .. } in &blocks {
            assert_eq!(layers.iter().map(Vec::len).collect::<Vec<_>>(), [1, 2, 3, 4]);
            assert!(layers.iter().flatten().all(|value| (value - 1.0).abs() < 0.12), "{layers:?}");
        }
        assert_eq!(table(&blocks).lines().count(), 1 + 3 * 6);
        let svg = to_svg(&blocks);
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && svg.contains("classifier"));
        assert_eq!([0.0, 1.0, 2.0].map(|value| color(value, 2.0)), ["#2166ac", "#ffffff", "#b2182b"]);
        Ok(())
    }
}
