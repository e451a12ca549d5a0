//! The curves of the errors, and the gradients of the layers, as an SVG file.

use super::nets::{Net, Point};
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};
use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const SIZE: (u32, u32) = (1000, 840);
const FONT: &str = "sans-serif";

/// Draws the networks into a file of the folder, and returns its path.
pub(crate) fn write(nets: &[Net], folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let path = folder.join("why_residual.svg");
    draw(nets, &path)?;
    Ok(path)
}

fn draw(nets: &[Net], path: &Path) -> Result<()> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (above, below) = root.split_vertically(420);
    let panels = above.split_evenly((1, 2));
    errors(&panels[0], "error on training images (%)", nets, |point| point.train)?;
    errors(&panels[1], "error on test images (%)", nets, |point| point.test)?;
    gradients(&below, nets)?;
    root.present()?;
    Ok(())
}

/// Plain networks are red and residual ones blue; the deeper one is darker.
fn color(nets: &[Net], index: usize) -> RGBColor {
    let net = &nets[index];
    let deeper = nets.iter().filter(|other| other.is_residual == net.is_residual && other.work > net.work);
    match (net.is_residual, deeper.count()) {
        (false, 0) => RGBColor(178, 24, 43),
        (false, _) => RGBColor(244, 148, 120),
        (true, 0) => RGBColor(33, 102, 172),
        (true, _) => RGBColor(116, 180, 220),
    }
}

fn errors(area: &Panel, title: &str, nets: &[Net], of: fn(&Point) -> f32) -> Result<()> {
    let steps = nets.iter().map(|net| net.last().step).max().unwrap_or(0).max(1);
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 19))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(44)
        .build_cartesian_2d(0.0..steps as f32 * 1.02, 0f32..100.0)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(BLACK.mix(0.12))
        .x_desc("step")
        .x_labels(7)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .label_style((FONT, 14))
        .draw()?;
    for (i, net) in nets.iter().enumerate() {
        let style = color(nets, i).stroke_width(3);
        let points = net.points.iter().map(|point| (point.step as f32, 100.0 * of(point)));
        chart
            .draw_series(LineSeries::new(points, style))?
            .label(&net.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .label_font((FONT, 15))
        .border_style(BLACK.mix(0.3))
        .background_style(WHITE)
        .draw()?;
    Ok(())
}

/// Draws a point for every layer, within its stage, so that networks of any depth have one axis.
fn gradients(area: &Panel, nets: &[Net]) -> Result<()> {
    let norms = || nets.iter().flat_map(|net| &net.gradients).map(|gradient| gradient.norm);
    let finite = norms().filter(|norm| norm.is_finite() && *norm > 0.0);
    let (low, high) = finite.fold((f64::MAX, f64::MIN), |(low, high), x| (low.min(x), high.max(x)));
    let (low, high) = if low > high { (0.1, 10.0) } else { (low / 2.0, high * 4.0) };
    let blocks = nets.first().map_or(0, |net| net.model.stages.len());
    let mut chart = ChartBuilder::on(area)
        .caption("norm of the gradient of each layer, before the first step", (FONT, 19))
        .margin(12)
        .x_label_area_size(24)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..(blocks + 2) as f64, (low..high).log_scale())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .bold_line_style(BLACK.mix(0.12))
        .x_labels(0)
        .x_desc("from the input to the output of the network")
        .y_label_formatter(&|y| format!("{y}"))
        .label_style((FONT, 14))
        .draw()?;
    let name = |stage: usize| match stage {
        0 => "conv1".to_string(),
        stage if stage > blocks => "fc".to_string(),
        stage => format!("layer{stage}"),
    };
    let top = Pos::new(HPos::Center, VPos::Top);
    for stage in 0..blocks + 2 {
        let x = stage as f64;
        chart.draw_series([PathElement::new([(x, low), (x, high)], BLACK.mix(0.2))])?;
        let style = (FONT, 15).into_font().color(&BLACK.mix(0.7)).pos(top);
        chart.draw_series([Text::new(name(stage), (x + 0.5, high * 0.9), style)])?;
    }
    for (i, net) in nets.iter().enumerate() {
        let color = color(nets, i);
        chart.draw_series(LineSeries::new(positions(net), color.stroke_width(2)))?;
        chart.draw_series(positions(net).into_iter().map(|at| Circle::new(at, 3, color.filled())))?;
    }
    Ok(())
}

/// Returns the place of each layer, spread over its stage, and the norm of its gradient.
fn positions(net: &Net) -> Vec<(f64, f64)> {
    let of = |stage| net.gradients.iter().filter(move |gradient| gradient.stage == stage);
    let stage = |stage| {
        let count = of(stage).count() as f64;
        of(stage)
            .enumerate()
            .map(move |(i, gradient)| (stage as f64 + (i as f64 + 0.5) / count, gradient.norm))
    };
    (0..net.model.stages.len() + 2)
        .flat_map(stage)
        .filter(|(_, norm)| norm.is_finite() && *norm > 0.0)
        .collect()
}
