//! A diagnosis before a long training: one file for each check.

mod batches;
mod diagnosis;
mod finding;
mod gradients;
mod held_out;
mod initial_loss;
mod inputs;
mod labels;
mod learning_rate;
mod options;
mod overfit;
mod pass;
mod relus;
mod restored;
mod weights;

pub use diagnosis::{ChannelStats, Check, Diagnosis, HeldOut, LayerStats, ReluStats};
pub use finding::{Finding, FindingKind, Severity};
pub use options::{CheckProgress, DiagnoseOptions};

use crate::{
    Error, Result, Rng,
    autograd::{Mode, Tape},
    data::Loader,
    graph::ModuleExt,
    nn::Module,
    optim::Optimizer,
    train::trainer::single,
};
use inputs::Inputs;
use labels::Labels;
use pass::Sample;
use relus::Activations;
use restored::Restored;

/// The most images of a pass that measures activations or gradients.
const IMAGES: usize = 64;

/// Looks for what most often makes a training fail, in seconds to minutes, before it takes hours.
///
/// It looks at a few batches of the training loader and makes a few steps:
///
/// | check | question |
/// |---|---|
/// | `inputs` | Has each channel about mean 0 and deviation 1? |
/// | `labels` | Are the labels in range, and the classes balanced? |
/// | `trained` | Which parameters are trained, and is the last layer among them? |
/// | `weights` | Are there convolutions of zeros? |
/// | `ReLUs` | Which share of their channels is never active? |
/// | `batch size` | Is it large enough for the statistics of batch normalizations? |
/// | `initial loss` | Is it near ln(classes)? |
/// | `gradients` | Does every layer get one, and is none vanishing or exploding? |
/// | `learning rate` | By which part does a step change the weights? |
/// | `one batch` | Can the model memorize it? |
/// | `held-out images` | Are their labels predicted better than by chance after some steps? |
///
/// [`FindingKind`] lists what may be found.
///
/// The last two and the gradients train for a few steps with [`Adam`](crate::optim::Adam), so that
/// they do not depend on the optimizer. The learning rate is that of `optimizer`, which should be
/// the highest of the schedule. Frozen parameters stay frozen.
///
/// Afterwards the model, its statistics and the optimizer are what they were, to the bit, also
/// after an error or a panic: the values before are held in memory and put back. The same seed
/// gives the same diagnosis with any number of threads.
///
/// # Errors
/// [`Error::Argument`] for options out of range; what the loader, the optimizer
/// ([`Optimizer::check`]) and the model ([`ModuleExt::check`]) report; [`Error::ShapeMismatch`] if
/// the model's output is not `[N, K]`.
///
/// ```
/// use skipgrad::{Rng, data::{Compose, Loader, Normalize, SyntheticShapes}};
/// use skipgrad::nn::{BatchNorm2d, GlobalAvgPool, Linear, Relu, Sequential, conv3x3};
/// use skipgrad::{optim::Sgd, train::{DiagnoseOptions, FindingKind, diagnose}};
/// let mut rng = Rng::seed(0);
/// let mut model = Sequential::new()
///     .push(conv3x3(3, 8).stride(4).build(&mut rng)?)
///     .push(BatchNorm2d::new(8)?)
///     .push(Relu)
///     .push(GlobalAvgPool)
///     .push(Linear::new(8, 10, &mut rng)?);
/// let data = SyntheticShapes::with_sizes(128, 0, 0)?;
/// let train = Loader::new(data.train(), 32).shuffle(0); // without `Normalize`
/// let options = DiagnoseOptions::new().batches(2).overfit_steps(0).held_out_steps(0);
/// let diagnosis = diagnose(&mut model, &mut Sgd::new(0.1), &train, &options)?;
/// println!("{diagnosis}");
/// let kinds: Vec<FindingKind> = diagnosis.findings.iter().map(|finding| finding.kind()).collect();
/// assert_eq!(kinds, [FindingKind::UnnormalizedInputs]);
///
/// let train = train.transform(Compose::new().then(Normalize::fit(&data.train())?));
/// assert!(diagnose(&mut model, &mut Sgd::new(0.1), &train, &options)?.is_healthy());
/// # Ok::<(), skipgrad::Error>(())
/// ```
pub fn diagnose(
    model: &mut dyn Module,
    optimizer: &mut dyn Optimizer,
    train: &Loader,
    options: &DiagnoseOptions,
) -> Result<Diagnosis> {
    options.check()?;
    train.check()?;
    optimizer.check(&*model)?;
    let mut diagnosis = Diagnosis::default();
    let mut run = Restored::new(model, optimizer);
    examine(&mut run, train, options, &mut diagnosis)?;
    run.restore()?;
    diagnosis.findings.sort_by_key(Finding::kind);
    Ok(diagnosis)
}

/// Runs all checks, those that train only if training is possible.
fn examine(
    run: &mut Restored<'_>,
    train: &Loader,
    options: &DiagnoseOptions,
    diagnosis: &mut Diagnosis,
) -> Result<()> {
    let logits = outputs(&*run.model, train)?;
    let misfit = misfit(&*run.model, train)?;
    let Some(seen) = look(run, train, misfit.is_none(), options)? else { return Ok(()) };
    diagnosis.images = seen.labels.len();
    let is_finite = seen.inputs.judge(diagnosis);
    let labels = labels::judge(&seen.labels, logits, train, diagnosis);
    let is_trained = weights::judge(&*run.model, train.dataset().image_shape(), diagnosis)?;
    match &misfit {
        Some(error) => batches::refuse(error, train, diagnosis),
        None => {
            seen.activations.judge(diagnosis);
            batches::judge(&seen.activations.norms, train, diagnosis);
        }
    }
    let obstacle = match (&misfit, is_finite, labels, is_trained) {
        (Some(_), ..) => Some("a pass of a batch fails"),
        (_, false, ..) => Some("the pixels are not finite"),
        (_, _, Labels::Invalid, _) => Some("labels are out of range"),
        (_, _, _, false) => Some("nothing is trained"),
        _ => None,
    };
    if let Some(reason) = obstacle {
        [gradients::NAME, learning_rate::NAME, overfit::NAME, held_out::NAME]
            .into_iter()
            .for_each(|name| diagnosis.skip(name, reason));
        return Ok(());
    }
    train_briefly(run, train, &seen.first, logits, labels, options, diagnosis)
}

/// Runs the checks that train.
fn train_briefly(
    run: &mut Restored<'_>,
    train: &Loader,
    sample: &Sample,
    logits: usize,
    labels: Labels,
    options: &DiagnoseOptions,
    diagnosis: &mut Diagnosis,
) -> Result<()> {
    if !gradients::judge(run, sample, logits, options, diagnosis)? {
        [learning_rate::NAME, overfit::NAME, held_out::NAME]
            .into_iter()
            .for_each(|name| diagnosis.skip(name, "a step is not possible"));
        return Ok(());
    }
    learning_rate::judge(run, sample, options, diagnosis)?;
    let is_memorized = overfit::judge(run, &sample.take(options.images_per_step)?, options, diagnosis)?;
    match (options.held_out_steps, labels, is_memorized) {
        (0, ..) => {}
        (_, Labels::Imbalanced, _) => diagnosis.skip(held_out::NAME, "the labels are not balanced"),
        (_, _, Some(false)) => diagnosis.skip(held_out::NAME, "not even one batch is learned"),
        _ => held_out::judge(run, train, logits, options, diagnosis)?,
    }
    Ok(())
}

/// What the first batches show.
struct FirstBatches {
    inputs: Inputs,
    labels: Vec<usize>,
    activations: Activations,
    first: Sample,
}

/// Looks at the first batches. Returns `None` if there are none.
fn look(
    run: &Restored<'_>,
    train: &Loader,
    is_fit: bool,
    options: &DiagnoseOptions,
) -> Result<Option<FirstBatches>> {
    let (mut inputs, mut labels, mut activations, mut first) =
        (Inputs::default(), vec![], Activations::default(), None);
    let batches = options.batches.min(train.num_batches());
    for (i, batch) in train.epoch(0)?.take(batches).enumerate() {
        options.show(inputs::NAME, i, batches);
        let batch = batch?;
        inputs.add(&batch.images);
        labels.extend_from_slice(&batch.labels);
        let sample = Sample::first_of(&batch, IMAGES)?;
        if is_fit && sample.labels.len() >= 2 {
            activations.add(&*run.model, &sample.images, Rng::keyed(options.seed, 4, i as u64))?;
        }
        first.get_or_insert(sample);
    }
    Ok(first.map(|first| FirstBatches { inputs, labels, activations, first }))
}

/// Returns the number of logits.
fn outputs(model: &dyn Module, train: &Loader) -> Result<usize> {
    let [h, w, c] = train.dataset().image_shape();
    let tape = Tape::meta(Mode::Train);
    let logits = tape.placeholder(&[2, h, w, c])?.apply(model)?;
    match logits.shape()[..] {
        [_, logits] => Ok(logits),
        _ => Err(Error::shape("cross_entropy", "logits", ["N", "K"], logits.shape())),
    }
}

/// Returns the error of a pass of a batch, if one of two images succeeds.
fn misfit(model: &dyn Module, train: &Loader) -> Result<Option<Error>> {
    let [h, w, c] = train.dataset().image_shape();
    let images = train.batch_size().min(train.num_samples());
    match model.check(&[images, h, w, c]) {
        Ok(()) => Ok(None),
        Err(error) if images == 1 && model.check(&[2, h, w, c]).is_ok() => Ok(Some(single(error))),
        Err(error) => Err(single(error)),
    }
}
