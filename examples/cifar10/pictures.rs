//! What people would rather look at than read: images with what the network takes them for.

use skipgrad::{
    Result as SkipgradResult,
    autograd::Tape,
    data::{Compose, Images},
    nn::Module,
};
use std::{error::Error, fmt::Write as _, path::Path};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const COLUMNS: usize = 10;
const ROWS: usize = 5;
/// Screen pixels: an image's edge, and the cell that holds it and its caption.
const EDGE: usize = 64;
const CELL: (usize, usize) = (96, 100);

/// Draws the first test images with what the network takes them for: right ones framed green, wrong ones red with the
/// true class below.
pub(crate) fn samples(model: &dyn Module, images: &Images, steps: &Compose, path: &Path) -> Result<()> {
    let images = images.take(COLUMNS * ROWS);
    let guesses = guess(model, &images, steps)?;
    let labels = images.labels(0..images.len())?;
    let names = images.classes();
    let rows = guesses.len().div_ceil(COLUMNS);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" font-family=\"sans-serif\" \
         font-size=\"11\" text-anchor=\"middle\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        COLUMNS * CELL.0,
        rows * CELL.1
    );
    for (i, (&guess, &label)) in guesses.iter().zip(labels).enumerate() {
        let (x, y) = (i % COLUMNS * CELL.0 + (CELL.0 - EDGE) / 2, i / COLUMNS * CELL.1 + 4);
        let color = if guess == label { "#2a2" } else { "#d22" };
        let picture = png(&images, i)?;
        writeln!(
            svg,
            "<image x=\"{x}\" y=\"{y}\" width=\"{EDGE}\" height=\"{EDGE}\" style=\"image-rendering:pixelated\" \
             href=\"data:image/png;base64,{picture}\"/>\
             <rect x=\"{x}\" y=\"{y}\" width=\"{EDGE}\" height=\"{EDGE}\" fill=\"none\" stroke=\"{color}\" \
             stroke-width=\"3\"/>"
        )?;
        let (middle, below) = (x + EDGE / 2, y + EDGE + 13);
        writeln!(svg, "<text x=\"{middle}\" y=\"{below}\" fill=\"{color}\">{}</text>", names[guess])?;
        if guess != label {
            let below = below + 12;
            writeln!(svg, "<text x=\"{middle}\" y=\"{below}\" fill=\"#666\">not {}</text>", names[label])?;
        }
    }
    svg.push_str("</svg>\n");
    skipgrad::io::write_atomically(path, svg.as_bytes())?;
    Ok(())
}

fn guess(model: &dyn Module, images: &Images, steps: &Compose) -> SkipgradResult<Vec<usize>> {
    if images.is_empty() {
        return Ok(vec![]);
    }
    let loader = skipgrad::data::Loader::new(images.clone(), images.len()).transform(steps.eval());
    let mut guesses = vec![];
    for batch in loader.epoch(0)? {
        let tape = Tape::eval();
        guesses.extend(model.forward(&tape.input(batch?.images))?.argmax());
    }
    Ok(guesses)
}

/// An image as PNG in base 64.
fn png(images: &Images, index: usize) -> Result<String> {
    use base64::prelude::{BASE64_STANDARD, Engine};
    let [height, width, channels] = images.image_shape();
    let pixels = images.images(index..index + 1)?;
    let bytes: Vec<u8> = pixels.data().iter().map(|x| (x * 255.0).round() as u8).collect();
    let mut file = vec![];
    let mut encoder = png::Encoder::new(&mut file, width as u32, height as u32);
    encoder.set_color(if channels == 1 { png::ColorType::Grayscale } else { png::ColorType::Rgb });
    encoder.write_header()?.write_image_data(&bytes)?;
    Ok(BASE64_STANDARD.encode(file))
}
