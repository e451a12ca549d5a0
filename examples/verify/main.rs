//! Compares a network with PyTorch: activations, gradients and running statistics, in evaluation
//! and in training mode, tensor by tensor, with a reference file that `reference.py` wrote.
//!
//! ```sh
//! python examples/verify/reference.py --model resnet50 --random resnet50.safetensors \
//!     --out reference.safetensors
//! cargo run --release --example verify -- --model resnet50 --weights resnet50.safetensors \
//!     --reference reference.safetensors
//! ```
//!
//! The exit status is 1 if a difference exceeds the tolerance, and 2 if the comparison fails.

mod compare;

use clap::Parser;
use compare::{Kind, Row, compare};
use skipgrad::{
    Result, Rng,
    autograd::Mode,
    io::{self, WeightsFile},
    models::{self, Model, ModelOptions},
};
use std::{path::PathBuf, process::ExitCode};

/// Compares a network with PyTorch.
///
/// The difference of a tensor is that of its worst element, relative to the largest value of the
/// tensor. The last column is the same difference between PyTorch's own float32 and float64, which
/// is the reference: it shows how exact the gradients of a deep network can be in float32.
#[derive(Parser)]
struct Options {
    /// Name of the network.
    #[arg(long)]
    model: String,
    /// Weights: safetensors, or with the feature `pth` a PyTorch file (.pth, .pt, .th).
    #[arg(long)]
    weights: PathBuf,
    /// Reference file that `reference.py` wrote for the same weights.
    #[arg(long)]
    reference: PathBuf,
    /// Largest accepted difference, relative to the largest value of the tensor.
    #[arg(long, default_value_t = 1e-3)]
    tolerance: f64,
    /// Accept also differences of at most this multiple of those of PyTorch's own float32.
    #[arg(long, default_value_t = 0.0)]
    float32: f64,
    /// Print one line per kind of tensor instead of one line per tensor.
    #[arg(long)]
    brief: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("verify: {error}");
            ExitCode::from(2)
        }
    }
}

/// Compares both modes, and returns whether all differences are accepted.
fn run(options: &Options) -> Result<bool> {
    let file = WeightsFile::open(&options.reference)?;
    let model = model(options, &file)?;
    let mut accepted = true;
    for (mode, name) in [(Mode::Eval, "evaluation"), (Mode::Train, "training")] {
        let rows = compare(&*model, &file, mode)?;
        for (kind, what) in KINDS {
            let rows: Vec<&Row> = rows.iter().filter(|row| row.kind == kind).collect();
            if !rows.is_empty() {
                accepted &= show(options, &format!("{name}, {what}"), &rows);
            }
        }
    }
    Ok(accepted)
}

const KINDS: [(Kind, &str); 4] = [
    (Kind::Activation, "activations"),
    (Kind::Output, "outputs"),
    (Kind::Gradient, "gradients"),
    (Kind::Statistic, "running statistics"),
];

/// Builds the network for the reference's channels and classes, and loads its weights.
fn model(options: &Options, file: &WeightsFile) -> Result<Box<dyn Model>> {
    let last = |name: &str| file.shape(name).and_then(|shape| shape.last().copied());
    let mut sizes = ModelOptions::default();
    sizes.channels = last("images").unwrap_or(sizes.channels);
    sizes.classes = last("eval/logits").unwrap_or(sizes.classes);
    let mut model = models::build(&options.model, &sizes, &mut Rng::seed(0))?;
    io::load(&mut model, &options.weights)?;
    Ok(model)
}

/// Prints a table, and returns whether all of its differences are accepted.
fn show(options: &Options, title: &str, rows: &[&Row]) -> bool {
    let exceeds =
        |row: &Row| row.exceeds(options.tolerance.max(options.float32 * row.float32.unwrap_or(0.0)));
    println!("\n{title}");
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    if !options.brief {
        println!(
            "  {:width$}  {:>9}  {:>10}  {:>9}  {:>9}",
            "", "largest", "difference", "relative", "PyTorch's"
        );
        for row in rows {
            let mark = if exceeds(row) { "  <- exceeds" } else { "" };
            println!("  {:width$}{}{mark}", row.name, columns(row));
        }
    }
    let Some(worst) = rows.iter().max_by(|a, b| order(a.relative()).total_cmp(&order(b.relative()))) else {
        return true;
    };
    let own = rows.iter().filter_map(|row| row.float32).fold(0.0, f64::max);
    println!(
        "  worst of {}: {:.1e} at {}; PyTorch's float32: {own:.1e}",
        rows.len(),
        worst.relative(),
        worst.name
    );
    match rows.iter().find(|row| exceeds(row)) {
        None => true,
        Some(first) => {
            let count = rows.iter().filter(|row| exceeds(row)).count();
            println!("  EXCEEDED by {count}, first at {}", first.name);
            if first.kind == Kind::Gradient {
                println!(
                    "  (the gradient of a ReLU jumps where its input is within rounding of zero: try other images, too)"
                );
            }
            false
        }
    }
}

fn columns(row: &Row) -> String {
    let own = row.float32.map_or_else(String::new, |own| format!("{own:.1e}"));
    format!("  {:>9.2e}  {:>10.1e}  {:>9.1e}  {own:>9}", row.largest, row.difference, row.relative())
}

/// Orders NaN after all numbers.
fn order(difference: f64) -> f64 {
    if difference.is_nan() { f64::INFINITY } else { difference }
}
