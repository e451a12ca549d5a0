//! The sheet of predictions: an SVG of the pictures with their likeliest classes.

use base64::prelude::{BASE64_STANDARD, Engine};
use image::{DynamicImage, ImageFormat};
use skipgrad::predict::Prediction;
use std::{error::Error, fmt::Write as _, io::Cursor, path::Path};

/// The size that a picture is scaled to and the width of a cell of the sheet, in pixels.
const EDGE: u32 = 220;
const CELL: u32 = 300;

/// A picture on the sheet: scaled down, so that large ones need not stay in memory.
pub(crate) struct Cell {
    name: String,
    /// The larger side of the picture, in pixels.
    side: u32,
    /// The picture of at most twice [`EDGE`] a side, as PNG.
    png: Vec<u8>,
    prediction: Prediction,
}

impl Cell {
    pub(crate) fn new(
        name: String,
        picture: &DynamicImage,
        prediction: Prediction,
    ) -> Result<Cell, Box<dyn Error>> {
        let side = picture.width().max(picture.height());
        let mut png = Cursor::new(vec![]);
        let small = if side <= 2 * EDGE {
            picture.to_rgb8()
        } else {
            picture.thumbnail(2 * EDGE, 2 * EDGE).to_rgb8()
        };
        small.write_to(&mut png, ImageFormat::Png)?;
        Ok(Cell { name, side, png: png.into_inner(), prediction })
    }
}

/// Draws the pictures in rows of three, each with bars for the probabilities of its `top` likeliest
/// classes.
pub(crate) fn svg(cells: &[Cell], top: usize) -> Result<String, Box<dyn Error>> {
    let columns = cells.len().clamp(1, 3) as u32;
    let height = EDGE + 50 + 20 * top as u32;
    let rows = (cells.len() as u32).div_ceil(columns);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        columns * CELL,
        rows * height
    );
    for (i, Cell { name, side, png, prediction }) in (0..).zip(cells) {
        let (left, y) = (i % columns * CELL + 12, i / columns * height + 10);
        let rendering = if *side <= 64 { "pixelated" } else { "auto" };
        writeln!(
            svg,
            "<image x=\"{left}\" y=\"{y}\" width=\"{EDGE}\" height=\"{EDGE}\" preserveAspectRatio=\"xMinYMid\" \
             style=\"image-rendering:{rendering}\" href=\"data:image/png;base64,{}\"/>",
            BASE64_STANDARD.encode(png)
        )?;
        let title =
            escaped(Path::new(name).file_name().map_or(name.into(), |name| name.to_string_lossy()).as_ref());
        writeln!(svg, "<text x=\"{left}\" y=\"{}\" fill=\"#666\">{title}</text>", y + EDGE + 17)?;
        for (row, class) in (0..).zip(prediction.top_k(top)) {
            let y = y + EDGE + 24 + 20 * row;
            let width = (class.probability * (CELL - 24) as f32).max(1.0);
            let label = escaped(&format!("{:.1} % {}", 100.0 * class.probability, class.name));
            writeln!(
                svg,
                "<rect x=\"{left}\" y=\"{y}\" width=\"{width:.1}\" height=\"18\" fill=\"#9cf\"/>\
                 <text x=\"{}\" y=\"{}\">{label}</text>",
                left + 4,
                y + 14
            )?;
        }
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
