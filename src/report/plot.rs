//! The plots of the page, as SVG. Their colors are fixed here; the style sheet of the page replaces
//! them where it is dark.

use crate::{
    Error, Result,
    train::{Calibration, History, Record},
};
use plotters::{coord::Shift, prelude::*};
use std::fmt::Display;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The colors of the first and of the second curve, and of what is between two values.
pub(super) const BLUE: RGBColor = RGBColor(31, 119, 180);
pub(super) const RED: RGBColor = RGBColor(214, 39, 40);

/// Width and height of a panel of the page, in pixels.
const PANEL: (u32, u32) = (480, 290);
/// Width and height of a document of curves, in pixels.
const DOCUMENT: (u32, u32) = (800, 1200);
/// The most epochs for which each value is marked by a point.
const MAX_POINTS: usize = 60;

/// A name and one value per epoch. A value that is not finite is left out.
type Curve = (&'static str, Vec<f32>);

/// A panel: its title and its curves.
struct Panel {
    title: &'static str,
    curves: Vec<Curve>,
}

fn panels(history: &History) -> [Panel; 4] {
    let column = |f: fn(&Record) -> f32| history.records.iter().map(f).collect::<Vec<f32>>();
    let both = |training, test| vec![("training", column(training)), ("test", column(test))];
    [
        Panel { title: "loss", curves: both(|r| r.train_loss, |r| r.test_loss) },
        Panel { title: "accuracy", curves: both(|r| r.train_accuracy, |r| r.test_accuracy) },
        Panel { title: "learning rate", curves: vec![("last step of the epoch", column(|r| r.lr))] },
        Panel {
            title: "images per second",
            curves: vec![("training", column(|r| r.images_per_second.unwrap_or(f32::NAN)))],
        },
    ]
}

/// Returns the curves of a training as an SVG document: loss, accuracy, learning rate and images
/// per second of each epoch, one below the other.
///
/// # Errors
/// [`Error::Argument`] if a plot cannot be drawn.
///
/// ```
/// use skipgrad::{report, train::History};
/// let csv = "epoch,seconds,lr,train_loss,train_accuracy,test_loss,test_accuracy,test_top5\n\
///     1,12.5,0.1,1.5,0.5,1.25,0.5625,0.9\n";
/// let svg = report::curves_to_svg(&csv.parse::<History>()?)?;
/// assert!(svg.starts_with("<svg") && svg.contains("learning rate"));
/// # Ok::<(), skipgrad::Error>(())
/// ```
pub fn curves_to_svg(history: &History) -> Result<String> {
    draw(DOCUMENT, |root| {
        root.fill(&WHITE).map_err(failed)?;
        let panels = panels(history);
        root.split_evenly((panels.len(), 1)).iter().zip(&panels).try_for_each(|(area, panel)| {
            let area = area.titled(panel.title, ("sans-serif", 18)).map_err(failed)?;
            curves(&area, &panel.curves)
        })
    })
}

/// Returns the title and the SVG of each panel of curves that has a value.
pub(super) fn curve_panels(history: &History) -> Result<Vec<(&'static str, String)>> {
    let has_values = |panel: &Panel| panel.curves.iter().any(|(_, ys)| ys.iter().any(|y| y.is_finite()));
    let drawn = panels(history).into_iter().filter(has_values).map(|panel| {
        let svg = draw(PANEL, |root| curves(root, &panel.curves))?;
        Ok((panel.title, svg))
    });
    drawn.collect()
}

/// Draws on an area of a size in pixels, and returns the SVG.
fn draw(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        draw(&root)?;
        root.present().map_err(failed)?;
    }
    Ok(svg)
}

fn failed(error: impl Display) -> Error {
    Error::argument("report", "plot", "values that can be drawn", error)
}

/// Draws curves over the epochs.
fn curves(area: &Area<'_>, curves: &[Curve]) -> Result<()> {
    let finite = curves.iter().flat_map(|(_, values)| values).copied().filter(|x| x.is_finite());
    let (low, high) = finite.fold((f32::MAX, f32::MIN), |(low, high), x| (low.min(x), high.max(x)));
    let (low, high) = if low > high { (0.0, 1.0) } else { (low, high) };
    let margin = if high > low { 0.05 * (high - low) } else { (0.05 * high.abs()).max(1e-3) };
    let epochs = curves.iter().map(|(_, values)| values.len()).max().unwrap_or(0).max(1);
    let epochs = i32::try_from(epochs).unwrap_or(i32::MAX - 1);
    // One more on each side, so that no point is at an edge.
    let x_range = 0..epochs + 1;
    let mut chart = ChartBuilder::on(area)
        .margin(8)
        .x_label_area_size(42)
        .y_label_area_size(66)
        .build_cartesian_2d(x_range, low - margin..high + margin)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .disable_x_mesh()
        .x_labels(11)
        .y_labels(6)
        .x_desc("epoch")
        .label_style(("sans-serif", 16))
        .axis_desc_style(("sans-serif", 16))
        .x_label_formatter(&|x| if (1..=epochs).contains(x) { x.to_string() } else { String::new() })
        .draw()
        .map_err(failed)?;
    for (i, (name, values)) in curves.iter().enumerate() {
        let color = [BLUE, RED][i % 2];
        let epochs = (1..).zip(values.iter().copied());
        let points = epochs.filter(|(_, y)| y.is_finite());
        let point_size = if values.len() <= MAX_POINTS { 2 } else { 0 };
        let series = LineSeries::new(points, color.stroke_width(2)).point_size(point_size);
        chart
            .draw_series(series)
            .map_err(failed)?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    // The title says what a single curve is.
    if curves.len() == 1 {
        return Ok(());
    }
    let mut labels = chart.configure_series_labels();
    labels.label_font(("sans-serif", 16)).border_style(BLACK.mix(0.3)).background_style(WHITE);
    labels.draw().map_err(failed)
}

/// Returns the reliability diagram (Guo et al. 2017, figure 1): the accuracy of each bin, and its
/// distance from the bin's confidence.
pub(super) fn reliability(calibration: &Calibration) -> Result<String> {
    draw(PANEL, |root| {
        let mut chart = unit_chart(root, 1.0, "accuracy")?;
        let bins = calibration.bins();
        let width = 1.0 / bins.len() as f32;
        let counted = || bins.iter().zip((0u16..).map(f32::from)).filter(|(bin, _)| bin.images > 0);
        let bar = |i: f32, from: f32, to: f32| [(i * width, from), ((i + 1.0) * width, to)];
        let bars = counted().map(|(bin, i)| Rectangle::new(bar(i, 0.0, bin.accuracy()), BLUE.filled()));
        chart.draw_series(bars).map_err(failed)?;
        let gaps = counted()
            .map(|(bin, i)| Rectangle::new(bar(i, bin.accuracy(), bin.confidence()), RED.mix(0.4).filled()));
        chart.draw_series(gaps).map_err(failed)?;
        let edges = counted()
            .map(|(bin, i)| Rectangle::new(bar(i, 0.0, bin.accuracy()), BLACK.mix(0.5).stroke_width(1)));
        chart.draw_series(edges).map_err(failed)?;
        let diagonal = LineSeries::new([(0.0, 0.0), (1.0, 1.0)], BLACK.mix(0.6).stroke_width(1));
        chart.draw_series(diagonal).map_err(failed)?;
        Ok(())
    })
}

/// Returns the histogram of the confidences.
pub(super) fn confidences(calibration: &Calibration) -> Result<String> {
    draw(PANEL, |root| {
        let bins = calibration.bins();
        let images = calibration.images().max(1) as f32;
        let largest = bins.iter().map(|bin| bin.images).max().unwrap_or(0) as f32 / images;
        let mut chart = unit_chart(root, (1.05 * largest).max(0.01), "fraction of the images")?;
        let width = 1.0 / bins.len() as f32;
        let bars = bins.iter().zip((0u16..).map(f32::from)).map(|(bin, i)| {
            let top = bin.images as f32 / images;
            Rectangle::new([(i * width, 0.0), ((i + 1.0) * width, top)], BLUE.filled())
        });
        chart.draw_series(bars).map_err(failed)?;
        let line =
            |x: f32, color: RGBColor| LineSeries::new([(x, 0.0), (x, 1.05 * largest)], color.stroke_width(2));
        let legend =
            |color: RGBColor| move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2));
        let confidence = line(calibration.confidence(), RED);
        chart.draw_series(confidence).map_err(failed)?.label("mean confidence").legend(legend(RED));
        let accuracy = line(calibration.accuracy(), BLACK);
        chart.draw_series(accuracy).map_err(failed)?.label("accuracy").legend(legend(BLACK));
        let mut labels = chart.configure_series_labels();
        labels.position(SeriesLabelPosition::UpperLeft).label_font(("sans-serif", 16));
        labels.border_style(BLACK.mix(0.3)).background_style(WHITE).draw().map_err(failed)
    })
}

type UnitChart<'a, 'b> = ChartContext<
    'a,
    SVGBackend<'b>,
    Cartesian2d<plotters::coord::types::RangedCoordf32, plotters::coord::types::RangedCoordf32>,
>;

/// Returns a chart over confidences from 0 to 1.
fn unit_chart<'a, 'b>(root: &'a Area<'b>, high: f32, description: &str) -> Result<UnitChart<'a, 'b>> {
    let mut chart = ChartBuilder::on(root)
        .margin(8)
        .margin_right(14)
        .x_label_area_size(42)
        .y_label_area_size(66)
        .build_cartesian_2d(0f32..1f32, 0f32..high)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .disable_x_mesh()
        .x_labels(6)
        .y_labels(6)
        .x_desc("confidence")
        .y_desc(description)
        .label_style(("sans-serif", 16))
        .axis_desc_style(("sans-serif", 16))
        .draw()
        .map_err(failed)?;
    Ok(chart)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;

    #[test]
    fn what_is_not_finite_leaves_a_plot() {
        let csv = "epoch,seconds,lr,train_loss,train_accuracy,test_loss,test_accuracy,test_top5\n";
        assert!(curve_panels(&csv.parse().unwrap()).unwrap().is_empty());
        assert!(curves_to_svg(&csv.parse().unwrap()).unwrap().ends_with("</svg>\n"));
        let history: History =
            format!("{csv}1,1,0,NaN,0.5,inf,0.5,0.5\n2,1,0,1,0.5,inf,0.5,0.5\n").parse().unwrap();
        let panels = curve_panels(&history).unwrap();
        assert_eq!(
            panels.iter().map(|panel| panel.0).collect::<Vec<_>>(),
            ["loss", "accuracy", "learning rate"]
        );
        assert!(panels.iter().all(|(_, svg)| !svg.contains("NaN") && !svg.contains("inf")));
    }

    #[test]
    fn calibrations_are_drawn() {
        let mut calibration = Calibration::new(5).unwrap();
        for svg in [reliability(&calibration).unwrap(), confidences(&calibration).unwrap()] {
            assert!(svg.starts_with("<svg") && !svg.contains("NaN"), "{svg}");
        }
        calibration.add(&Tensor::new([2, 2], [1.0, 0.0, 5.0, 0.0]).unwrap(), &[0, 1]).unwrap();
        // Two bars, two gaps and two edges.
        assert_eq!(reliability(&calibration).unwrap().matches("<rect").count(), 6);
    }
}
