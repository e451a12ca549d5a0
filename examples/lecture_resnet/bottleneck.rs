//! The arithmetic of the bottleneck (He et al. 2015, figure 5), counted by `summary`, and a drawing
//! of it.

use skipgrad::{
    graph::Summary,
    nn::{Sequential, conv1x1, conv3x3},
    prelude::*,
};
use std::fmt::Write as _;

/// Convolutions one after the other, and what they cost.
pub(crate) struct Piece {
    pub(crate) title: &'static str,
    /// What each convolution is, such as `3x3, 64`, and its output channels.
    layers: Vec<(String, usize)>,
    pub(crate) summary: Summary,
}

/// Counts the pieces on images of 56 x 56 pixels, as in the stage of ResNet-50 with 256 channels.
pub(crate) fn pieces() -> Result<Vec<Piece>> {
    let rng = &mut Rng::seed(0);
    let wide = |rng: &mut Rng| conv3x3(256, 256).build(rng);
    let one = Sequential::new().push(wide(rng)?);
    let two = Sequential::new().push(wide(rng)?).push(wide(rng)?);
    let bottleneck = Sequential::new()
        .push(conv1x1(256, 64).build(rng)?)
        .push(conv3x3(64, 64).build(rng)?)
        .push(conv1x1(64, 256).build(rng)?);
    [("one 3x3", one), ("two 3x3, a basic block", two), ("a bottleneck", bottleneck)]
        .into_iter()
        .map(|(title, net)| {
            let weights = net.export();
            let layer = |name: &String| match weights[name].shape()[..] {
                [out, _, height, width] => (format!("{height}x{width}, {out}"), out),
                _ => (name.clone(), 0),
            };
            let layers = weights.keys().map(layer).collect();
            Ok(Piece { title, layers, summary: net.summary(&[1, 56, 56, 256])? })
        })
        .collect()
}

/// Returns the pieces as text.
pub(crate) fn table(pieces: &[Piece]) -> String {
    let mut text = String::from("At 256 channels, on 56 x 56 pixels:\n");
    for Piece { title, layers, summary } in pieces {
        let _ = writeln!(
            text,
            "  {title:24} {:>9} parameters, {:>13} multiply-adds",
            grouped(summary.parameters as u64),
            grouped(summary.multiply_adds)
        );
        for ((what, _), layer) in layers.iter().zip(&summary.layers) {
            let _ = writeln!(text, "    {what:22} {:>9}", grouped(layer.parameters as u64));
        }
    }
    text
}

/// The width and the height of the drawing of a piece, and the height of a box, in pixels.
const PIECE: (usize, usize) = (300, 420);
const BOX: usize = 40;

/// Draws the pieces side by side: boxes as wide as their output has channels, and below them the
/// parameters as a bar.
pub(crate) fn to_svg(pieces: &[Piece]) -> String {
    let (width, height) = (PIECE.0 * pieces.len(), PIECE.1);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" font-family=\"Helvetica, Arial, sans-serif\" font-size=\"15\" text-anchor=\"middle\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let most = pieces.iter().map(|piece| piece.summary.parameters).max().unwrap_or(1).max(1);
    for (i, piece) in pieces.iter().enumerate() {
        draw(&mut svg, piece, i * PIECE.0 + PIECE.0 / 2, most);
    }
    svg.push_str("</svg>\n");
    svg
}

/// Draws a piece around a vertical line.
fn draw(svg: &mut String, piece: &Piece, x: usize, most: usize) {
    let Piece { title, layers, summary } = piece;
    let mut channels = summary.input.num_channels();
    let _ = writeln!(svg, "<text x=\"{x}\" y=\"28\" font-size=\"18\" font-weight=\"bold\">{title}</text>");
    let mut y = 52;
    for ((what, out), layer) in layers.iter().zip(&summary.layers) {
        arrow(svg, x, y, channels);
        channels = *out;
        let (top, width) = (y + 28, 60 + channels * 150 / 256);
        let _ = writeln!(
            svg,
            "<rect x=\"{}\" y=\"{top}\" width=\"{width}\" height=\"{BOX}\" rx=\"5\" fill=\"#dbe9f6\" \
             stroke=\"#3b6ea5\"/>\n<text x=\"{x}\" y=\"{}\">{what}</text>\n\
             <text x=\"{x}\" y=\"{}\" font-size=\"12\" fill=\"#456\">{}</text>",
            x - width / 2,
            top + 17,
            top + 33,
            grouped(layer.parameters as u64)
        );
        y = top + BOX;
    }
    arrow(svg, x, y, channels);
    let (bar, length) = (PIECE.1 - 72, (summary.parameters * 260).div_ceil(most));
    let _ = writeln!(
        svg,
        "<rect x=\"{}\" y=\"{bar}\" width=\"{length}\" height=\"16\" fill=\"#c2701c\"/>\n\
         <text x=\"{x}\" y=\"{}\" font-weight=\"bold\">{} parameters</text>\n\
         <text x=\"{x}\" y=\"{}\" font-size=\"13\" fill=\"#555\">{} million multiply-adds</text>",
        x - length / 2,
        bar + 36,
        grouped(summary.parameters as u64),
        bar + 56,
        grouped(summary.multiply_adds / 1_000_000),
    );
}

/// Draws an arrow to the next box, with the number of channels that it stands for.
fn arrow(svg: &mut String, x: usize, y: usize, channels: usize) {
    let _ = writeln!(
        svg,
        "<path d=\"M{x} {y} v22\" stroke=\"#666\"/><path d=\"M{x} {} l-4 -8 h8 z\" fill=\"#666\"/>\n\
         <text x=\"{}\" y=\"{}\" font-size=\"12\" fill=\"#666\" text-anchor=\"start\">{channels} channels</text>",
        y + 28,
        x + 8,
        y + 17
    );
}

/// Formats a number in groups of three digits.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    groups.map(|group| String::from_utf8_lossy(group)).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bottleneck_costs_a_tenth_of_one_convolution() {
        let pieces = pieces().unwrap();
        let parameters: Vec<usize> = pieces.iter().map(|piece| piece.summary.parameters).collect();
        assert_eq!(parameters, [589_824, 1_179_648, 16_384 + 36_864 + 16_384]);
        let text = table(&pieces);
        assert!(text.contains("69,632") && text.contains("1,179,648") && text.contains("1x1, 64 "), "{text}");
        let svg = to_svg(&pieces);
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && svg.contains("69,632 parameters"));
    }
}
