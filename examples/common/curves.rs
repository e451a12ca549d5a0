//! Plots of the curves of a training.

use plotters::{coord::Shift, prelude::*};
use skipgrad::train::History;
use std::{error::Error, path::Path};

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// A name and one value per epoch.
type Curve<'a> = (&'a str, Vec<f32>);

/// Plots loss, accuracy and learning rate by epoch, one below the other, into an SVG file.
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
        let color = [RGBColor(31, 119, 180), RGBColor(214, 39, 40)][i % 2];
        let points =
            values.iter().enumerate().map(|(i, &y)| (i as f32 + 1.0, y)).filter(|(_, y)| y.is_finite());
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)).point_size(2))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    chart.configure_series_labels().border_style(BLACK.mix(0.3)).background_style(WHITE).draw()?;
    Ok(())
}
