//! Whole networks: milliseconds a training step or an inference, and memory.
//!
//! ```sh
//! cargo bench -p skipgrad-benches --bench models -- r18c_train128,r20c_train128 --threads 2
//! ```
//!
//! prints one line `NAME median_ms min_ms memory_mib` per case; without names, it measures every
//! case. Each case runs in a process of its own: memory is the process's peak resident set minus
//! the resident set before the model was built (Linux; `-` elsewhere). `--precision bf16` measures
//! that precision. With `--faults`, one more column gives the page faults per step or inference,
//! not counting the first two.
//! A training step is forward, cross-entropy, backward and SGD (momentum 0.9, weight decay 5e-4).

mod process;

use process::status;
use skipgrad::{
    Precision, Result, Rng, Tensor,
    autograd::Tape,
    inference::{InferenceModel, InferenceOptions},
    install,
    models::{self, ModelOptions},
    nn::Module,
    optim::{Optimizer, Sgd},
};
use std::{
    process::Command,
    time::{Duration, Instant},
};

struct Case {
    name: &'static str,
    model: &'static str,
    batch: usize,
    size: usize,
    classes: usize,
    train: bool,
}

const fn case(
    name: &'static str,
    model: &'static str,
    [batch, size, classes]: [usize; 3],
    train: bool,
) -> Case {
    Case { name, model, batch, size, classes, train }
}

const CASES: [Case; 12] = [
    case("r18c_train128", "resnet18_cifar", [128, 32, 10], true),
    case("r20c_train128", "resnet20", [128, 32, 10], true),
    case("dbc100_train64", "densenet_bc100_k12", [64, 32, 10], true),
    case("r18_train16", "resnet18", [16, 224, 1000], true),
    case("r50_train8", "resnet50", [8, 224, 1000], true),
    case("d121_train8", "densenet121", [8, 224, 1000], true),
    case("r18c_infer128", "resnet18_cifar", [128, 32, 10], false),
    case("r18_infer1", "resnet18", [1, 224, 1000], false),
    case("r18_infer16", "resnet18", [16, 224, 1000], false),
    case("r50_infer1", "resnet50", [1, 224, 1000], false),
    case("r152_infer1", "resnet152", [1, 224, 1000], false),
    case("d121_infer1", "densenet121", [1, 224, 1000], false),
];

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    // Cargo passes `--bench` of its own accord.
    let mut arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let mut option = |name: &str| -> Option<String> {
        let at = arguments.iter().position(|a| a == name)?;
        arguments.drain(at..(at + 2).min(arguments.len())).nth(1)
    };
    let threads = option("--threads").map_or(Ok(0), |n| n.parse())?;
    let precision: Precision = option("--precision").map_or(Ok(Precision::F32), |p| p.parse())?;
    let one = option("--one");
    let with_faults = arguments.iter().any(|a| a == "--faults");
    arguments.retain(|a| a != "--faults");
    if let Some(name) = one {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
        let case = CASES.iter().find(|c| c.name == name).ok_or(name)?;
        let (columns, faults) = measure(case, precision)?;
        println!("{columns}{}", if with_faults { faults } else { String::new() });
        return Ok(());
    }
    let names = match arguments.first() {
        Some(list) => list.split(',').map(str::to_string).collect(),
        None => CASES.map(|c| c.name.to_string()).to_vec(),
    };
    for name in names {
        if !CASES.iter().any(|c| c.name == name) {
            return Err(format!("no case {name}; there are: {}", CASES.map(|c| c.name).join(" ")).into());
        }
        let exit = Command::new(std::env::current_exe()?)
            .args(["--one", &name, "--threads", &threads.to_string()])
            .args(["--precision", &precision.to_string()])
            .args(with_faults.then_some("--faults"))
            .status()?;
        if !exit.success() {
            return Err(format!("{name}: {exit}").into());
        }
    }
    Ok(())
}

/// The four columns, and the one about page faults.
fn measure(case: &Case, precision: Precision) -> Result<(String, String)> {
    let before = status("VmRSS");
    let mut on_this_thread = match case.train {
        true => training(case, precision)?,
        false => inference(case, precision)?,
    };
    let mut pass = || install(&mut on_this_thread);
    pass()?;
    pass()?;
    let faults_before = faults();
    let (start, mut times) = (Instant::now(), vec![]);
    while times.len() < 5 || (start.elapsed() < Duration::from_secs(4) && times.len() < 50) {
        let start = Instant::now();
        pass()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let faults = match (faults_before, faults()) {
        (Some(before), Some(after)) => format!(" {:.1}", (after - before) as f64 / times.len() as f64),
        _ => " -".to_string(),
    };
    times.sort_by(f64::total_cmp);
    let memory = match (before, status("VmHWM")) {
        (Some(before), Some(peak)) => format!("{}", peak.saturating_sub(before) / 1024),
        _ => "-".to_string(),
    };
    Ok((format!("{} {:.1} {:.1} {memory}", case.name, times[times.len() / 2], times[0]), faults))
}

/// A pass that is measured.
type Pass = Box<dyn FnMut() -> Result<()> + Send>;

/// Returns a training step.
fn training(case: &Case, precision: Precision) -> Result<Pass> {
    let mut rng = Rng::seed(0);
    let mut model = models::build(case.model, &ModelOptions::classes(case.classes), &mut rng)?;
    let images = Tensor::normal([case.batch, case.size, case.size, 3], 1.0, &mut rng)?;
    let labels: Vec<usize> = (0..case.batch).map(|_| rng.below(case.classes)).collect();
    let mut sgd = Sgd::new(0.01).momentum(0.9).weight_decay(5e-4);
    Ok(Box::new(move || {
        let tape = Tape::train(rng.split()).precision(precision);
        let loss = model.forward(&tape.input(images.clone()))?.cross_entropy(&labels)?;
        sgd.step(&mut model, loss.backward()?)
    }))
}

/// Returns a run of the compiled network, which is all that is kept of the model.
fn inference(case: &Case, precision: Precision) -> Result<Pass> {
    let mut rng = Rng::seed(0);
    let model = models::build(case.model, &ModelOptions::classes(case.classes), &mut rng)?;
    let images = Tensor::normal([case.batch, case.size, case.size, 3], 1.0, &mut rng)?;
    let options =
        InferenceOptions::new([case.size, case.size, 3]).batch_size(case.batch).precision(precision);
    let compiled = InferenceModel::compile(&model, &options)?;
    Ok(Box::new(move || compiled.run(&images).map(drop)))
}

/// Page faults of this process so far for which nothing was read from a disk.
fn faults() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // After the command's name, which may hold anything, come the fields from the third on; this is
    // the tenth.
    let (_, numbers) = stat.rsplit_once(')')?;
    numbers.split_whitespace().nth(7)?.parse().ok()
}
