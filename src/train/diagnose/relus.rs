//! What the ReLUs of a model let through, and what its batch normalizations average over.

use super::{
    batches::NormSize,
    diagnosis::{Diagnosis, ReluStats, percent},
    finding::{Finding, FindingKind, Severity},
    pass::named,
};
use crate::{
    Result, Rng, Tensor,
    autograd::{Computed, Kind, Tape},
    install,
    nn::Module,
};
use std::{cell::RefCell, collections::HashMap, rc::Rc};

const NAME: &str = "ReLUs";

/// The share of dead channels of a ReLU that is worth a warning, and the share that is an error.
const DEAD: [f64; 2] = [1.0 / 3.0, 0.9];

/// What passes over images have shown so far.
#[derive(Default)]
pub(super) struct Activations {
    relus: Vec<Relu>,
    pub(super) norms: Vec<NormSize>,
}

/// A ReLU: the range of the input of each channel.
struct Relu {
    after: String,
    ranges: Vec<[f32; 2]>,
    zeros: usize,
    count: usize,
}

/// One pass: what it has shown, and the module that made each value, by its place in memory.
#[derive(Default)]
struct Look {
    activations: Activations,
    makers: HashMap<usize, String>,
}

impl Activations {
    /// Adds what a pass over images shows, as training begins it.
    pub(super) fn add(&mut self, model: &dyn Module, images: &Tensor, rng: Rng) -> Result<()> {
        let seen = install(|| {
            let look = Rc::new(RefCell::new(Look::default()));
            let inspector = {
                let look = look.clone();
                move |op: &Computed<'_>| look.borrow_mut().see(op)
            };
            let tape = Tape::train(rng).recording(false).inspect(model, inspector);
            tape.input(images.clone()).apply(model)?;
            Ok(look.take().activations)
        })?;
        self.norms = seen.norms;
        if self.relus.is_empty() {
            self.relus = seen.relus;
            return Ok(());
        }
        // A path that is chosen at random, as of stochastic depth, may leave out some.
        for relu in seen.relus {
            if let Some(before) = self.relus.iter_mut().find(|before| before.is_same(&relu)) {
                before.merge(&relu);
            }
        }
        Ok(())
    }

    /// Judges the ReLUs.
    pub(super) fn judge(&self, diagnosis: &mut Diagnosis) {
        diagnosis.relus = self.relus.iter().map(Relu::stats).collect();
        let [channels, dead] = diagnosis
            .relus
            .iter()
            .fold([0, 0], |[channels, dead], relu| [channels + relu.channels, dead + relu.dead]);
        if diagnosis.relus.is_empty() {
            diagnosis.skip(NAME, "the model has none");
            return;
        }
        let measured = format!("{dead} of {channels} channels in {} layers are dead", diagnosis.relus.len());
        let is_dead = |relu: &&ReluStats| share(relu) > DEAD[0];
        let found: Vec<Finding> = diagnosis.relus.iter().filter(is_dead).map(finding).collect();
        let verdict = match (dead, found.len()) {
            (0, _) => "all alive",
            (_, 0) => "most alive",
            _ => "dead layers",
        };
        diagnosis.check(NAME, measured, found.is_empty(), verdict);
        diagnosis.findings.extend(found);
    }
}

fn share(relu: &ReluStats) -> f64 {
    relu.dead as f64 / relu.channels.max(1) as f64
}

fn finding(relu: &ReluStats) -> Finding {
    let share = share(relu);
    let severity = if share >= DEAD[1] { Severity::Error } else { Severity::Warning };
    let message = format!(
        "Of the {} channels of the ReLU after {}, {} ({}) are zero for every pixel of every image, so that no \
         gradient gets through. Look at the bias before it, which may be far below zero, and at the \
         initialization of the weights.",
        relu.channels,
        named(&relu.after),
        relu.dead,
        percent(share)
    );
    Finding::new(FindingKind::DeadRelus, severity, share, message).at(&relu.after)
}

impl Look {
    /// Takes note of an operation.
    fn see(&mut self, op: &Computed<'_>) {
        let Some(x) = op.inputs.first().map(|input| input.value()) else { return };
        match op.kind {
            Kind::Relu => {
                let after = self.makers.get(&place(x)).unwrap_or(&op.path).clone();
                self.activations.relus.push(Relu::new(after, x));
            }
            // Of a fused ReLU, only the output is known, so that any channel of zeros is dead.
            Kind::BatchNorm { relu: true, .. } => {
                let mut relu = Relu::new(op.path.clone(), op.output);
                relu.ranges.iter_mut().for_each(|[low, _]| *low = f32::NEG_INFINITY);
                self.activations.relus.push(relu);
            }
            _ => {}
        }
        if let Kind::BatchNorm { is_fixed: false, .. } = op.kind {
            let images = x.shape().first().copied().unwrap_or(1).max(1);
            let pixels = x.shape().num_rows() / images;
            self.activations.norms.push(NormSize { path: op.path.clone(), pixels });
        }
        self.makers.insert(place(op.output), op.path.clone());
    }
}

/// Returns where the elements lie. Of several values that had this place, one by one, the latest
/// counts.
fn place(tensor: &Tensor) -> usize {
    tensor.data().as_ptr() as usize
}

impl Relu {
    fn new(after: String, x: &Tensor) -> Relu {
        let channels = x.shape().num_channels();
        let mut ranges = vec![[f32::INFINITY, f32::NEG_INFINITY]; channels];
        let mut zeros = 0;
        for pixel in x.data().chunks_exact(channels.max(1)) {
            for ([low, high], &x) in ranges.iter_mut().zip(pixel) {
                (*low, *high) = (low.min(x), high.max(x));
                zeros += usize::from(x <= 0.0);
            }
        }
        Relu { after, ranges, zeros, count: x.shape().num_elements() }
    }

    fn is_same(&self, other: &Relu) -> bool {
        self.after == other.after && self.ranges.len() == other.ranges.len()
    }

    fn merge(&mut self, other: &Relu) {
        for ([low, high], [other_low, other_high]) in self.ranges.iter_mut().zip(&other.ranges) {
            (*low, *high) = (low.min(*other_low), high.max(*other_high));
        }
        self.zeros += other.zeros;
        self.count += other.count;
    }

    /// Returns the statistics. A channel whose input does not vary is not dead but gets nothing:
    /// what is before it is zero.
    fn stats(&self) -> ReluStats {
        let is_dead = |[low, high]: &&[f32; 2]| *high <= 0.0 && low < high;
        ReluStats {
            after: self.after.clone(),
            channels: self.ranges.len(),
            dead: self.ranges.iter().filter(is_dead).count(),
            zeros: self.zeros as f64 / self.count.max(1) as f64,
        }
    }
}
