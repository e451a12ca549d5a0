//! What people would rather look at than read: curves of a training, and images with what the network takes them for.

use plotters::{coord::Shift, prelude::*};
use skipgrad::{
    Result as SkipgradResult,
    autograd::Tape,
    data::{Images, Pipeline},
    nn::Module,
    train::History,
};
use std::{error::Error, fmt::Write as _, path::Path};

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// A name and a value an epoch.
type Curve<'a> = (&'a str, Vec<f32>);

/// Draws loss, accuracy and learning rate by epoch, one below the other.
pub(crate) fn curves(history: &History, path: &Path) -> Result<()> {
    let column = |f: fn(&skipgrad::train::Record) -> f32| history.records.iter().map(f).collect::<Vec<f32>>();
    let root = SVGBackend::new(path, (800, 900)).into_drawing_area();
    root.fill(&WHITE)?;
    let panels = root.split_evenly((3, 1));
    let loss = [("training", column(|r| r.train_loss)), ("test", column(|r| r.test_loss))];
    panel(&panels[0], "loss", &loss)?;
    let accuracy = [("training", column(|r| r.train_accuracy)), ("test", column(|r| r.test_accuracy))];
    panel(&panels[1], "accuracy", &accuracy)?;
    panel(&panels[2], "learning rate", &[("last step of the epoch", column(|r| r.lr))])?;
    root.present()?;
    Ok(())
}

fn panel(area: &Panel, title: &str, curves: &[Curve]) -> Result<()> {
    let finite = curves.iter().flat_map(|(_, values)| values).copied().filter(|x| x.is_finite());
    let (low, high) = finite.fold((f32::MAX, f32::MIN), |(low, high), x| (low.min(x), high.max(x)));
    let (low, high) = if low > high { (0.0, 1.0) } else { (low, high) };
    let margin = 0.05 * (high - low).max(1e-3);
    let epochs = curves.iter().map(|(_, values)| values.len()).max().unwrap_or(1);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(10)
        .x_label_area_size(28)
        .y_label_area_size(56)
        .build_cartesian_2d(0.5f32..epochs as f32 + 0.5, low - margin..high + margin)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc("epoch")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .draw()?;
    for (i, (name, values)) in curves.iter().enumerate() {
        let colour = [RGBColor(31, 119, 180), RGBColor(214, 39, 40)][i % 2];
        let points =
            values.iter().enumerate().map(|(i, &y)| (i as f32 + 1.0, y)).filter(|(_, y)| y.is_finite());
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)).point_size(2))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart.configure_series_labels().border_style(BLACK.mix(0.3)).background_style(WHITE).draw()?;
    Ok(())
}

const COLUMNS: usize = 10;
const ROWS: usize = 5;
/// Screen pixels: an image's edge, and the cell that holds it and its caption.
const EDGE: usize = 64;
const CELL: (usize, usize) = (96, 100);

/// Draws the first test images with what the network takes them for: right ones framed green, wrong ones red with the
/// true class below.
pub(crate) fn samples(model: &dyn Module, images: &Images, steps: &Pipeline, path: &Path) -> Result<()> {
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
        let colour = if guess == label { "#2a2" } else { "#d22" };
        let picture = png(&images, i)?;
        writeln!(
            svg,
            "<image x=\"{x}\" y=\"{y}\" width=\"{EDGE}\" height=\"{EDGE}\" style=\"image-rendering:pixelated\" \
             href=\"data:image/png;base64,{picture}\"/>\
             <rect x=\"{x}\" y=\"{y}\" width=\"{EDGE}\" height=\"{EDGE}\" fill=\"none\" stroke=\"{colour}\" \
             stroke-width=\"3\"/>"
        )?;
        let (middle, below) = (x + EDGE / 2, y + EDGE + 13);
        writeln!(svg, "<text x=\"{middle}\" y=\"{below}\" fill=\"{colour}\">{}</text>", names[guess])?;
        if guess != label {
            let below = below + 12;
            writeln!(svg, "<text x=\"{middle}\" y=\"{below}\" fill=\"#666\">not {}</text>", names[label])?;
        }
    }
    svg.push_str("</svg>\n");
    skipgrad::io::write_atomically(path, svg.as_bytes())?;
    Ok(())
}

fn guess(model: &dyn Module, images: &Images, steps: &Pipeline) -> SkipgradResult<Vec<usize>> {
    if images.is_empty() {
        return Ok(vec![]);
    }
    let loader = skipgrad::data::Loader::new(images.clone(), images.len()).augment(steps.eval());
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
