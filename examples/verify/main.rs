//! Do we compute what PyTorch computes? Forward, gradients and running statistics of a network, in evaluation and in training, beside
//! a file of references that `reference.py` wrote, tensor by tensor.
//!
//! ```sh
//! python examples/verify/reference.py --model resnet50 --random resnet50.safetensors --out reference.safetensors
//! cargo run --release --example verify -- --model resnet50 --weights resnet50.safetensors --reference reference.safetensors
//! ```
//!
//! The exit status is 1 if any difference exceeds the tolerance, and 2 if nothing can be compared.

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

/// Compares a network with what PyTorch computes.
///
/// A difference is the largest of a tensor, relative to the tensor's largest value. Beside it stands how far PyTorch's own float32 is
/// from its float64, which the references are: gradients of a deep network in training cannot be had much more exactly.
#[derive(Parser)]
struct Options {
    /// The network, by name.
    #[arg(long)]
    model: String,
    /// A safetensors file, or with the feature `pth` one of PyTorch's (.pth, .pt, .th).
    #[arg(long)]
    weights: PathBuf,
    /// What `reference.py` wrote with the same weights.
    #[arg(long)]
    reference: PathBuf,
    /// The largest difference that is none, relative to the largest value of a tensor.
    #[arg(long, default_value_t = 1e-3)]
    tolerance: f64,
    /// Also takes for none what is at most this many times PyTorch's own float32's difference.
    #[arg(long, default_value_t = 0.0)]
    float32: f64,
    /// Only the sums of a pass, not every tensor.
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

/// Whether all is as it should be.
fn run(options: &Options) -> Result<bool> {
    let file = WeightsFile::open(&options.reference)?;
    let model = model(options, &file)?;
    let mut good = true;
    for (mode, name) in [(Mode::Eval, "evaluation"), (Mode::Train, "training")] {
        let rows = compare(&*model, &file, mode)?;
        for (kind, what) in KINDS {
            let rows: Vec<&Row> = rows.iter().filter(|row| row.kind == kind).collect();
            if !rows.is_empty() {
                good &= show(options, &format!("{name}, {what}"), &rows);
            }
        }
    }
    Ok(good)
}

const KINDS: [(Kind, &str); 4] = [
    (Kind::Activation, "activations"),
    (Kind::Output, "outputs"),
    (Kind::Gradient, "gradients"),
    (Kind::Statistic, "running statistics"),
];

/// The network with its weights, for the reference's images and classes.
fn model(options: &Options, file: &WeightsFile) -> Result<Box<dyn Model>> {
    let last = |name: &str| file.shape(name).and_then(|shape| shape.last().copied());
    let mut sizes = ModelOptions::default();
    sizes.channels = last("images").unwrap_or(sizes.channels);
    sizes.classes = last("eval/logits").unwrap_or(sizes.classes);
    let mut model = models::build(&options.model, &sizes, &mut Rng::seed(0))?;
    io::load(&mut model, &options.weights)?;
    Ok(model)
}

/// Prints a table, and says whether nothing in it is too large.
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
            println!("  {:width$}{}{mark}", row.name, numbers(row));
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
                    "  (where an input of a ReLU is zero but for a rounding, gradients jump: try other images, too)"
                );
            }
            false
        }
    }
}

fn numbers(row: &Row) -> String {
    let own = row.float32.map_or_else(String::new, |own| format!("{own:.1e}"));
    format!("  {:>9.2e}  {:>10.1e}  {:>9.1e}  {own:>9}", row.largest, row.difference, row.relative())
}

/// What is no number is the worst.
fn order(difference: f64) -> f64 {
    if difference.is_nan() { f64::INFINITY } else { difference }
}
