//! A sheet of test images with the predictions of the network, as SVG.

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
/// Size of an image, and width and height of the cell that holds it and its caption, in pixels.
const EDGE: usize = 64;
const CELL: (usize, usize) = (96, 100);

/// Draws the first test images with the predicted classes: correct ones are framed green, wrong
/// ones red with the true class below.
pub(crate) fn samples(model: &dyn Module, images: &Images, transform: &Compose, path: &Path) -> Result<()> {
    let images = images.take(COLUMNS * ROWS);
    let predictions = predict(model, &images, transform)?;
    let labels = images.labels(0..images.len())?;
    let names = images.classes();
    let rows = predictions.len().div_ceil(COLUMNS);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" \
         font-family=\"sans-serif\" font-size=\"11\" text-anchor=\"middle\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        COLUMNS * CELL.0,
        rows * CELL.1
    );
    for (i, (&class, &label)) in predictions.iter().zip(labels).enumerate() {
        let (x, y) = (i % COLUMNS * CELL.0 + (CELL.0 - EDGE) / 2, i / COLUMNS * CELL.1 + 4);
        let color = if class == label { "#2a2" } else { "#d22" };
        let picture = png(&images, i)?;
        writeln!(
            svg,
            "<image x=\"{x}\" y=\"{y}\" width=\"{EDGE}\" height=\"{EDGE}\" style=\"image-rendering:pixelated\" \
             href=\"data:image/png;base64,{picture}\"/>\
             <rect x=\"{x}\" y=\"{y}\" width=\"{EDGE}\" height=\"{EDGE}\" fill=\"none\" stroke=\"{color}\" \
             stroke-width=\"3\"/>"
        )?;
        let (middle, below) = (x + EDGE / 2, y + EDGE + 13);
        writeln!(svg, "<text x=\"{middle}\" y=\"{below}\" fill=\"{color}\">{}</text>", names[class])?;
        if class != label {
            let below = below + 12;
            writeln!(svg, "<text x=\"{middle}\" y=\"{below}\" fill=\"#666\">not {}</text>", names[label])?;
        }
    }
    svg.push_str("</svg>\n");
    skipgrad::io::write_atomically(path, svg.as_bytes())?;
    Ok(())
}

fn predict(model: &dyn Module, images: &Images, transform: &Compose) -> SkipgradResult<Vec<usize>> {
    if images.is_empty() {
        return Ok(vec![]);
    }
    let loader = skipgrad::data::Loader::new(images.clone(), images.len()).transform(transform.eval());
    let mut predictions = vec![];
    for batch in loader.epoch(0)? {
        let tape = Tape::eval();
        predictions.extend(model.forward(&tape.input(batch?.images))?.argmax());
    }
    Ok(predictions)
}

/// Encodes an image as PNG in Base64.
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
