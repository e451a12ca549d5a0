//! The networks that are compared, and what is measured of each.

use clap::Parser;
use skipgrad::{Result, autograd::StateRef, blocks::ShortcutKind, models::ResNetConfig, prelude::*};
use std::{
    fmt::{self, Write as _},
    path::PathBuf,
};

/// The number of points of a curve.
const POINTS: usize = 12;

/// Trains plain and residual networks of two depths, and draws how their errors fall.
#[derive(Parser)]
pub(crate) struct Options {
    /// Folder of CIFAR-10's binary version; by default synthetic images are used.
    #[arg(long, env = "SKIPGRAD_CIFAR10")]
    pub(crate) data: Option<PathBuf>,
    /// Numbers of layers, each 6n + 2.
    #[arg(long, value_delimiter = ',', default_values_t = [20, 56])]
    pub(crate) depths: Vec<usize>,
    /// Number of training steps of each network.
    #[arg(long, default_value_t = 520)]
    pub(crate) steps: usize,
    /// Batch size.
    #[arg(long, default_value_t = 32)]
    pub(crate) batch: usize,
    /// Learning rate, which falls to zero as a cosine.
    #[arg(long, default_value_t = 0.02)]
    pub(crate) lr: f32,
    /// Number of test images.
    #[arg(long, default_value_t = 1000)]
    pub(crate) test_images: usize,
    /// Seed of all random numbers.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Output folder.
    #[arg(long, default_value = "runs/why_residual")]
    pub(crate) out: PathBuf,
}

/// The errors of a network after some steps, in [0, 1].
#[derive(Clone, Copy)]
pub(crate) struct Point {
    pub(crate) step: usize,
    /// On the training images since the point before.
    pub(crate) train: f32,
    pub(crate) test: f32,
}

/// The gradient of a layer.
pub(crate) struct Gradient {
    /// The stage: 0 is the first convolution, then come those of blocks, and the classifier.
    pub(crate) stage: usize,
    pub(crate) norm: f64,
}

/// A network and what was measured of it.
pub(crate) struct Net {
    pub(crate) name: String,
    pub(crate) is_residual: bool,
    pub(crate) model: ResNet,
    /// The multiply-adds of an image, to estimate the time.
    pub(crate) work: f64,
    /// The gradients of the convolutions and of the classifier before the first step.
    pub(crate) gradients: Vec<Gradient>,
    pub(crate) points: Vec<Point>,
    /// The number of training images since the last point, and of those that were classified
    /// correctly.
    seen: usize,
    correct: usize,
}

/// Makes the plain and the residual network of each depth.
pub(crate) fn build(options: &Options) -> Result<Vec<Net>> {
    let kinds = [("plain", ShortcutKind::None), ("ResNet", ShortcutKind::Pad)];
    let all = kinds.iter().flat_map(|kind| options.depths.iter().map(move |&depth| (kind, depth)));
    all.map(|(&(name, shortcut), depth)| {
        let config = ResNetConfig::cifar_paper(depth, 10)?.shortcut(shortcut);
        let model = ResNet::new(&config, &mut Rng::seed(options.seed))?;
        let work = model.summary(&[1, 32, 32, 3])?.multiply_adds as f64;
        let (name, is_residual) = (format!("{name}-{depth}"), shortcut != ShortcutKind::None);
        Ok(Net { name, is_residual, model, work, gradients: vec![], points: vec![], seen: 0, correct: 0 })
    })
    .collect()
}

/// The norms of the gradients of the convolutions and of the classifier, first to last.
pub(crate) fn gradient_norms(model: &ResNet, updates: &Updates) -> Vec<Gradient> {
    let mut gradients = vec![];
    model.visit("", &mut |name, state| {
        let StateRef::Param(param) = state else { return };
        let is_layer = param.value().shape().len() > 1; // not a scale or a bias
        if let Some(gradient) = updates.grad(param).filter(|_| is_layer) {
            let number = name.strip_prefix("layer").and_then(|rest| rest.split('.').next()?.parse().ok());
            let stage = number.unwrap_or(if name.starts_with("fc") { model.stages.len() + 1 } else { 0 });
            let squares = gradient.data().iter().map(|&g| f64::from(g) * f64::from(g));
            gradients.push(Gradient { stage, norm: squares.sum::<f64>().sqrt() });
        }
    });
    gradients
}

impl Net {
    /// Counts the training images that are classified correctly.
    pub(crate) fn count(&mut self, classes: &[usize], labels: &[usize]) {
        self.seen += labels.len();
        self.correct += classes.iter().zip(labels).filter(|(class, label)| class == label).count();
    }

    /// Returns whether a point of the curve follows this step.
    pub(crate) fn has_point(&self, step: usize, steps: usize) -> bool {
        step.is_multiple_of(steps.div_ceil(POINTS)) || step == steps
    }

    /// Adds a point to the curves.
    pub(crate) fn add_point(&mut self, step: usize, test_accuracy: f32) {
        let train = 1.0 - self.correct as f32 / self.seen.max(1) as f32;
        self.points.push(Point { step, train, test: 1.0 - test_accuracy });
        (self.seen, self.correct) = (0, 0);
    }

    /// Returns the errors after the last step.
    pub(crate) fn last(&self) -> Point {
        self.points.last().copied().unwrap_or(Point { step: 0, train: f32::NAN, test: f32::NAN })
    }

    /// Returns the norm of the gradient of each stage, of all its convolutions together.
    pub(crate) fn stages(&self) -> Vec<f64> {
        let of = |stage| self.gradients.iter().filter(move |g| g.stage == stage).map(|g| g.norm * g.norm);
        (0..self.model.stages.len() + 2).map(|stage| of(stage).sum::<f64>().sqrt()).collect()
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Point { train, test, .. } = self.last();
        write!(
            f,
            "{}: error {:.1} % in training, {:.1} % on test images",
            self.name,
            100.0 * train,
            100.0 * test
        )
    }
}

/// Returns a table of the networks.
pub(crate) fn table(nets: &[Net]) -> String {
    let mut table = String::from(
        "\n           |   parameters |  error: training    test | norm of the gradient before the first \
         step\n           |              |                          |",
    );
    let stages = nets.first().map_or(0, |net| net.model.stages.len());
    let names =
        ["conv1".into()].into_iter().chain((1..=stages).map(|i| format!("layer{i}"))).chain(["fc".into()]);
    names.for_each(|name| write!(table, " {name:>8}").unwrap_or_default());
    for net in nets {
        let Point { train, test, .. } = net.last();
        let (parameters, [train, test]) =
            (net.model.num_parameters(), [train, test].map(|error| 100.0 * error));
        let _ = write!(table, "\n{:10} | {parameters:>12} | {train:>14.1} % {test:>5.1} % |", net.name);
        net.stages().iter().for_each(|norm| write!(table, " {norm:>8.3}").unwrap_or_default());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::{compare, picture, short_training};
    use super::*;
    use skipgrad::cpu::Isa;

    fn nets(arguments: &[&str]) -> Result<Vec<Net>> {
        let options = Options::parse_from(["why_residual"].iter().chain(arguments));
        let most = [options.batch.saturating_mul(options.steps), options.test_images];
        let (train, test) = short_training::images(None, most, options.seed)?;
        compare(&options, train, test)
    }

    #[test]
    fn a_short_run_measures_everything_and_draws_it() {
        let folder = tempfile::tempdir().unwrap();
        let nets = nets(&["--depths", "8,14", "--steps", "2", "--batch", "8", "--test-images", "8"]).unwrap();
        let names: Vec<&str> = nets.iter().map(|net| &net.name[..]).collect();
        assert_eq!(names, ["plain-8", "plain-14", "ResNet-8", "ResNet-14"]);
        for net in &nets {
            assert_eq!(net.points.len(), 2);
            assert_eq!(net.stages().len(), 5);
            assert!(net.stages().iter().all(|norm| norm.is_finite() && *norm > 0.0));
        }
        assert_eq!(nets.iter().map(|net| net.gradients.len()).collect::<Vec<_>>(), [8, 14, 8, 14]);
        let svg = std::fs::read_to_string(picture::write(&nets, folder.path()).unwrap()).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(names.iter().all(|name| svg.contains(name)));
        assert!(table(&nets).lines().count() == 7);
    }

    /// Shortcuts keep the gradient, whatever the seed and the instruction set.
    #[test]
    fn the_gradient_of_a_deep_plain_network_grows_on_its_way_back() {
        for seed in ["0", "1", "2"] {
            let small = ["--depths", "56", "--steps", "1", "--batch", "16", "--test-images", "4"];
            let nets = nets(&[&small[..], &["--seed", seed]].concat()).unwrap();
            let [plain, residual] = [&nets[0], &nets[1]].map(|net| {
                let stages = net.stages();
                stages[0] / stages[4]
            });
            println!("{}, seed {seed}: {plain:.1} plain, {residual:.2} residual", Isa::active().name());
            assert!(plain > 50.0 && residual < 10.0, "seed {seed}: {plain} and {residual}");
        }
    }

    /// The recipe of the example, with its defaults. `SKIPGRAD_ISA` chooses the instruction set; it
    /// takes minutes for each seed.
    #[test]
    #[ignore = "trains twelve networks"]
    fn depth_harms_plain_networks_alone_for_every_seed() {
        for seed in ["0", "1", "2"] {
            let nets = nets(&["--seed", seed]).unwrap();
            println!("{}, seed {seed}:\n{}", Isa::active().name(), table(&nets));
            let [shallow, deep, _, residual] = [0, 1, 2, 3].map(|net| nets[net].last());
            assert!(deep.train > shallow.train + 0.1 && deep.test > shallow.test + 0.1, "seed {seed}");
            assert!(deep.train > residual.train + 0.2 && deep.test > residual.test + 0.2, "seed {seed}");
        }
    }
}
