//! The memory of a training step of DenseNet-BC (k = 12) by its depth, and a picture of it.
//!
//! ```sh
//! cargo bench -p skipgrad-benches --bench densenet_memory -- \
//!     --svg memory.svg --beside PyTorch=pytorch.csv
//! ```
//!
//! prints one line `DEPTH MIB` per depth, for 16 images of 32 x 32: the process's peak resident set
//! after three steps, minus the resident set before the model was built (Linux only). `--svg` draws
//! them; `--beside NAME=FILE` adds the curve of another library from lines of `DEPTH,MIB`.

mod process;

use plotters::prelude::*;
use process::status;
use skipgrad::{
    Rng, Tensor,
    autograd::Tape,
    models::DenseNet,
    nn::Module,
    optim::{Optimizer, Sgd},
};
use std::{error::Error, path::Path, process::Command};

type Result<T> = std::result::Result<T, Box<dyn Error>>;
/// Depth and MiB.
type Point = (f64, f64);

const DEPTHS: [usize; 3] = [40, 100, 190];
const GROWTH: usize = 12;
const BATCH: usize = 16;

fn main() -> Result<()> {
    let (mut svg, mut curves) = (None, vec![]);
    // Cargo passes `--bench` of its own accord.
    let mut arguments = std::env::args().skip(1).filter(|a| a != "--bench");
    while let Some(argument) = arguments.next() {
        let value = arguments.next().ok_or(format!("{argument}: a value is missing"))?;
        match argument.as_str() {
            "--one" => {
                println!("{}", measure(value.parse()?)?);
                return Ok(());
            }
            "--svg" => svg = Some(value),
            "--beside" => {
                let (name, file) = value.split_once('=').ok_or("--beside NAME=FILE")?;
                curves.push((name.to_string(), read(Path::new(file))?));
            }
            _ => return Err(format!("no option {argument}; there are: --svg --beside").into()),
        }
    }
    let mut ours = vec![];
    for depth in DEPTHS {
        let one = Command::new(std::env::current_exe()?).args(["--one", &depth.to_string()]).output()?;
        let mib: f64 = String::from_utf8(one.stdout)?.trim().parse()?;
        println!("{depth} {mib}");
        ours.push((depth as f64, mib));
    }
    curves.insert(0, ("skipgrad".to_string(), ours));
    match svg {
        Some(path) => draw(&curves, Path::new(&path)),
        None => Ok(()),
    }
}

/// MiB of three steps.
fn measure(depth: usize) -> Result<u64> {
    let before = status("VmRSS").ok_or("only Linux says how much is resident")?;
    let mut rng = Rng::seed(0);
    let mut model = DenseNet::bc(depth, GROWTH, 10, &mut rng)?;
    let mut sgd = Sgd::new(0.01).momentum(0.9).weight_decay(5e-4);
    let images = Tensor::normal([BATCH, 32, 32, 3], 1.0, &mut rng)?;
    let labels: Vec<usize> = (0..BATCH).map(|_| rng.below(10)).collect();
    for _ in 0..3 {
        let tape = Tape::train(rng.split());
        let loss = model.forward(&tape.input(images.clone()))?.cross_entropy(&labels)?;
        sgd.step(&mut model, loss.backward()?)?;
    }
    let peak = status("VmHWM").ok_or("only Linux says what was resident at most")?;
    Ok(peak.saturating_sub(before) / 1024)
}

fn read(file: &Path) -> Result<Vec<Point>> {
    let point = |line: &str| -> Result<Point> {
        let (depth, mib) = line.split_once(',').ok_or("expected lines of DEPTH,MIB")?;
        Ok((depth.trim().parse()?, mib.trim().parse()?))
    };
    std::fs::read_to_string(file)?.lines().map(point).collect()
}

fn draw(curves: &[(String, Vec<Point>)], path: &Path) -> Result<()> {
    let most = curves.iter().flat_map(|(_, points)| points).fold(1.0, |most: f64, point| most.max(point.1));
    let root = SVGBackend::new(path, (640, 400)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("Memory of a training step, DenseNet-BC (k = 12), 16 images", ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..200.0, 0.0..1.05 * most)?;
    let (x, y) = ("layers", "MiB");
    chart.configure_mesh().light_line_style(WHITE).x_desc(x).y_desc(y).draw()?;
    for ((name, points), color) in
        curves.iter().zip([RGBColor(31, 119, 180), RGBColor(214, 39, 40), RGBColor(44, 160, 44)])
    {
        chart
            .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)).point_size(4))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    let labels = chart.configure_series_labels();
    let mut labels = labels;
    labels
        .position(SeriesLabelPosition::UpperLeft)
        .border_style(BLACK.mix(0.3))
        .background_style(WHITE)
        .draw()?;
    root.present()?;
    Ok(())
}
