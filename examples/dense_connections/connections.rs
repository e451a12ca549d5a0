//! The connections of a dense block, its channels and its memory, beside those of a sum.

use super::{
    options::Options,
    svg::{
        Anchor::{End, Middle, Start},
        Svg,
    },
};
use std::fmt::Write as _;

/// What a block of some layers has and takes.
pub(crate) struct LayerCost {
    /// The channels after the last layer: input and new ones, side by side.
    pub(crate) channels: usize,
    /// Parameters of the dense block, and of as many layers whose outputs are added.
    pub(crate) parameters: [usize; 2],
    /// Bytes of a training pass with its images, activations and gradients: of the dense block as
    /// it is computed, of the same by its definition, and of the layers that are added.
    pub(crate) memory: [usize; 3],
}

/// Colors of the input and of the layers.
const COLORS: [&str; 9] =
    ["#7f7f7f", "#4477aa", "#66ccee", "#228833", "#ccbb44", "#ee8866", "#cc3377", "#8855aa", "#aa7744"];
/// Names and colors of the three kinds of memory.
const KINDS: [(&str, &str); 3] =
    [("concatenated in place", "#4477aa"), ("with copies", "#99bbdd"), ("sum", "#cc6655")];
const INK: &str = "#333";
const PALE: &str = "#888";
const MIB: f64 = (1 << 20) as f64;

/// Returns the color of what a layer made; 0 is the input.
fn color(source: usize) -> &'static str {
    match source {
        0 => COLORS[0],
        source => COLORS[1 + (source - 1) % (COLORS.len() - 1)],
    }
}

/// Returns the costs as text.
pub(crate) fn table(options: &Options, costs: &[LayerCost]) -> String {
    let Options { channels, growth, batch, .. } = options;
    let width = costs.last().map_or(0, |cost| cost.channels);
    let mut text = format!(
        "A dense block of {} layers: {channels} input channels and growth rate {growth}, against a sum at \
         {width} channels.\nMemory: a training pass of {batch} images of 32 x 32, planned.\n\n\
         layer   reads   new   after | parameters:    concat       sum | MiB: in place   copied      sum\n",
        costs.len()
    );
    for (i, LayerCost { channels: after, parameters, memory }) in costs.iter().enumerate() {
        let [in_place, copied, sum] = memory.map(|bytes| bytes as f64 / MIB);
        let _ = writeln!(
            text,
            "{:>5} {:>7} {growth:>5} {after:>7} | {:>21} {:>9} | {in_place:>13.1} {copied:>8.1} {sum:>8.1}",
            i + 1,
            after - growth,
            parameters[0],
            parameters[1],
        );
    }
    text
}

/// Draws the connections, the channels and the memory.
pub(crate) fn to_svg(options: &Options, costs: &[LayerCost]) -> String {
    let mut svg = Svg::new([1090.0, 690.0]);
    concatenation(&mut svg, 40.0, options, costs);
    sum(&mut svg, 580.0, costs);
    let memory = |cost: &LayerCost| cost.memory.map(|bytes| bytes as f64 / MIB).to_vec();
    let title = format!("memory of a training pass of {} images, MiB", options.batch);
    bars(&mut svg, [40.0, 450.0], &title, &costs.iter().map(memory).collect::<Vec<_>>(), &KINDS);
    let parameters = |cost: &LayerCost| cost.parameters.map(|count| count as f64 / 1000.0).to_vec();
    let kinds = [("concatenation", KINDS[0].1), KINDS[2]];
    let parameters = costs.iter().map(parameters).collect::<Vec<_>>();
    bars(&mut svg, [580.0, 450.0], "thousand parameters", &parameters, &kinds);
    svg.finish()
}

/// Returns where a layer lies, of `count` in a panel that begins at `left`; 0 is the input.
fn place(left: f64, count: usize, layer: usize) -> f64 {
    left + 30.0 + layer as f64 * 420.0 / count.max(1) as f64
}

/// The top of the boxes of layers, and their height.
const ROW: f64 = 178.0;
const BOX: f64 = 28.0;
/// The distance of an addition from the layer before it.
const PLUS: f64 = 28.0;
/// The top of the bars below the layers, and the greatest height of a bar.
const BARS: f64 = 232.0;
const TALLEST: f64 = 150.0;

/// Draws the layers, the arcs between all of them, and what each reads.
fn concatenation(svg: &mut Svg, left: f64, options: &Options, costs: &[LayerCost]) {
    let count = costs.len();
    let at = |layer| place(left, count, layer);
    svg.text([left, 26.0], 18.0, Start, INK, "Concatenation: every layer reads all before it");
    for to in 1..=count {
        for from in 0..to {
            let [begin, end] = [at(from), at(to)];
            let rise = ROW - 14.0 - 118.0 * (to - from) as f64 / count as f64;
            let shift = 3.0 * (from as f64 - (to - 1) as f64 / 2.0);
            let end = end + shift;
            svg.path(
                &format!(
                    "M{begin:.1} {ROW} C{begin:.1} {rise:.1} {end:.1} {rise:.1} {end:.1} {:.1}",
                    ROW - 6.0
                ),
                color(from),
                1.8,
            );
            svg.head([end, ROW], color(from));
        }
    }
    layers(svg, at, count);
    let most = costs.last().map_or(1, |cost| cost.channels).max(1) as f64;
    for layer in 0..=count {
        let parts = (0..=layer).map(|source| if source == 0 { options.channels } else { options.growth });
        let mut y = BARS;
        for (source, channels) in parts.enumerate() {
            let height = TALLEST * channels as f64 / most;
            svg.rect([at(layer) - 15.0, y], [30.0, height - 1.0], color(source));
            y += height;
        }
        let channels = options.channels + layer * options.growth;
        svg.text([at(layer), y + 15.0], 13.0, Middle, INK, &channels.to_string());
    }
    svg.text(
        [left, BARS + TALLEST + 36.0],
        13.0,
        Start,
        PALE,
        "channels after each layer, by the layer that made them",
    );
}

/// Draws the boxes of the input and of the layers.
fn layers(svg: &mut Svg, at: impl Fn(usize) -> f64, count: usize) {
    for layer in 0..=count {
        svg.rect([at(layer) - 17.0, ROW], [34.0, BOX], color(layer));
        let name = if layer == 0 { "in".to_string() } else { layer.to_string() };
        svg.text([at(layer), ROW + 19.0], 14.0, Middle, "white", &name);
    }
}

/// Draws the layers with shortcuts around them, and what each reads: always as much, and mixed.
fn sum(svg: &mut Svg, left: f64, costs: &[LayerCost]) {
    let (count, red) = (costs.len(), KINDS[2].1);
    let at = |layer| place(left, count, layer);
    svg.text([left, 26.0], 18.0, Start, INK, "Sum: every layer adds to what was before");
    let (middle, rise) = (ROW + BOX / 2.0, ROW - 52.0);
    svg.path(&format!("M{} {middle} H{}", at(0), at(count) + PLUS), PALE, 1.5);
    for layer in 1..=count {
        let begin = if layer == 1 { at(0) } else { at(layer - 1) + PLUS };
        let end = at(layer) + PLUS;
        svg.path(
            &format!("M{begin:.1} {middle} C{begin:.1} {rise} {end:.1} {rise} {end:.1} {:.1}", middle - 12.0),
            red,
            1.8,
        );
        svg.head([end, middle - 7.0], red);
    }
    layers(svg, at, count);
    for layer in 1..=count {
        let center = [at(layer) + PLUS, middle];
        svg.circle(center, 7.0, "white", red);
        svg.text([center[0], middle + 5.0], 15.0, Middle, red, "+");
    }
    let channels = costs.last().map_or(0, |cost| cost.channels);
    for layer in 0..=count {
        for source in 0..=layer {
            let width = 30.0 / (layer + 1) as f64;
            svg.rect([at(layer) - 15.0 + source as f64 * width, BARS], [width, TALLEST], color(source));
        }
        svg.text([at(layer), BARS + TALLEST + 15.0], 13.0, Middle, INK, &channels.to_string());
    }
    let caption = "channels after each layer: every one is a mix of all layers";
    svg.text([left, BARS + TALLEST + 36.0], 13.0, Start, PALE, caption);
}

/// Draws a group of bars for the blocks of 1, 2, ... layers.
fn bars(svg: &mut Svg, [left, top]: [f64; 2], title: &str, groups: &[Vec<f64>], kinds: &[(&str, &str)]) {
    let most = groups.iter().flatten().copied().fold(f64::MIN_POSITIVE, f64::max);
    let (width, height) = (440.0, 130.0);
    let (base, group) = (top + 50.0 + height, width / groups.len().max(1) as f64);
    svg.text([left, top + 6.0], 16.0, Start, INK, title);
    let mut x = left;
    for (name, color) in kinds {
        svg.rect([x, top + 18.0], [12.0, 12.0], color);
        svg.text([x + 17.0, top + 29.0], 13.0, Start, INK, name);
        x += 34.0 + 6.6 * name.len() as f64;
    }
    for (i, values) in groups.iter().enumerate() {
        let bar = group * 0.86 / values.len().max(1) as f64;
        for (j, (value, (_, color))) in values.iter().zip(kinds).enumerate() {
            let (x, tall) = (left + i as f64 * group + j as f64 * bar, height * value / most);
            svg.rect([x, base - tall], [bar - 1.0, tall], color);
            if i + 1 == groups.len() {
                svg.text([x + bar / 2.0, base - tall - 4.0], 11.0, Middle, INK, &format!("{value:.0}"));
            }
        }
        svg.text([left + (i as f64 + 0.43) * group, base + 17.0], 13.0, Middle, INK, &(i + 1).to_string());
    }
    svg.path(&format!("M{left} {base} h{width}"), PALE, 1.0);
    svg.text([left + width, base + 34.0], 13.0, End, PALE, "layers");
}
