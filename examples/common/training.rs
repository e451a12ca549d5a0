//! Training that Ctrl-C stops and `--resume` continues, with its progress shown.

use crate::progress::Progress;
use clap::{Args, ValueEnum};
use skipgrad::{
    Precision,
    data::Loader,
    nn::Module,
    optim::{Curve, Optimizer, Schedule},
    report::Report,
    train::{
        self, Checkpoint, DiagnoseOptions, Diagnosis, Divergence, Ema, Event, Outcome, Record, Settings,
        Trainer,
    },
};
use std::{
    error::Error,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The options of a training. What is not given is as in the checkpoint if the training is resumed,
/// and otherwise as the example's [`Recipe`] says.
#[derive(Args)]
pub(crate) struct TrainingOptions {
    /// Number of epochs.
    #[arg(long)]
    epochs: Option<usize>,
    /// Highest learning rate of the schedule.
    #[arg(long)]
    lr: Option<f32>,
    /// Learning-rate schedule.
    #[arg(long, value_enum)]
    schedule: Option<Kind>,
    /// Fraction of each target that is spread over all classes.
    #[arg(long)]
    label_smoothing: Option<f32>,
    /// Average the weights over the steps, and evaluate the average too.
    #[arg(long)]
    model_ema: bool,
    /// Decay of the average, which a warmup leads to.
    #[arg(long, default_value_t = 0.999)]
    model_ema_decay: f64,
    /// Seed of all random numbers.
    #[arg(long)]
    seed: Option<u64>,
    /// Type in which convolutions and linear layers multiply: f32, bf16, or auto for bf16 where the
    /// processor has matrix units for it; f32 by default.
    #[arg(long)]
    precision: Option<Precision>,
    /// Resume from the last checkpoint in `--out`. Options that are given again hold from now on.
    #[arg(long)]
    resume: bool,
    /// Look for mistakes in data, network and learning rate before the first step; the report lists
    /// what is found.
    #[arg(long)]
    diagnose: bool,
    /// Write event files for TensorBoard into the folder `tensorboard` of `--out`.
    #[cfg(feature = "tensorboard")]
    #[arg(long)]
    tensorboard: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    Cosine,
    OneCycle,
    Step,
}

/// What an example does unless its options say otherwise.
pub(crate) struct Recipe {
    pub(crate) epochs: usize,
    pub(crate) lr: f32,
    pub(crate) label_smoothing: f32,
}

/// Returns the output folder. Instead of the default it is the first of `runs/x`, `runs/x-2`,
/// `runs/x-3` and so on that holds no training or, to resume, the last one that holds one.
pub(crate) fn output_folder(options: &TrainingOptions, out: &Path, default: &str) -> PathBuf {
    if out != Path::new(default) {
        return out.to_path_buf();
    }
    let folder = |run: usize| if run == 1 { default.to_string() } else { format!("{default}-{run}") };
    let mut runs = (1..).map(|run| PathBuf::from(folder(run)));
    let taken = runs.by_ref().take_while(|folder| folder.join(Trainer::LAST).exists()).count();
    PathBuf::from(folder(if options.resume { taken.max(1) } else { taken + 1 }))
}

/// A training that begins or is resumed.
pub(crate) struct Session<'a> {
    options: &'a TrainingOptions,
    recipe: Recipe,
    folder: &'a Path,
    /// The settings of the checkpoint that is resumed from.
    saved: Option<Settings>,
}

impl<'a> Session<'a> {
    /// Reads the checkpoint if there is one to resume from. Checkpoints are written to `folder`.
    pub(crate) fn open(
        options: &'a TrainingOptions,
        recipe: Recipe,
        folder: &'a Path,
    ) -> Result<Session<'a>> {
        let mut session = Session { options, recipe, folder, saved: None };
        if options.resume {
            session.saved = Some(Checkpoint::read(session.last())?.settings().clone());
        }
        Ok(session)
    }

    /// Returns the seed of all random numbers.
    pub(crate) fn seed(&self) -> u64 {
        self.options.seed.or(self.saved.as_ref().map(|saved| saved.seed)).unwrap_or_default()
    }

    /// Returns the name of the network: the one that is given, or the checkpoint's, or the default.
    pub(crate) fn model(&self, given: Option<&str>, default: &str) -> String {
        let saved = self.saved.as_ref().map(|saved| saved.model.as_str());
        given.or(saved).unwrap_or(default).to_string()
    }

    fn last(&self) -> PathBuf {
        self.folder.join(Trainer::LAST)
    }

    /// Looks for mistakes if that is asked for, and prints what it finds. Model and optimizer
    /// remain as they are, except for the learning rate, which the schedule sets anyway.
    pub(crate) fn diagnose(
        &self,
        model: &mut dyn Module,
        optimizer: &mut dyn Optimizer,
        train: &Loader,
    ) -> Result<Option<Diagnosis>> {
        if !self.options.diagnose || self.options.resume {
            return Ok(None);
        }
        println!("looking for mistakes ...");
        optimizer.set_lr(self.options.lr.unwrap_or(self.recipe.lr));
        let diagnosis = train::diagnose(model, optimizer, train, &DiagnoseOptions::new().seed(self.seed()))?;
        println!("{diagnosis}");
        Ok(Some(diagnosis))
    }

    /// Trains, and shows the progress. Returns `None` if Ctrl-C stopped the training, and says then
    /// how to resume it.
    pub(crate) fn train(
        &self,
        name: &str,
        model: &mut dyn Module,
        optimizer: &mut dyn Optimizer,
        [train, test]: [&Loader; 2],
    ) -> Result<Option<Trainer>> {
        let mut trainer = self.trainer(train.num_batches()).seed(self.seed()).model_name(name);
        trainer = trainer.folder(self.folder).stop(stop_on_ctrl_c()?);
        if self.options.resume {
            let resumed = trainer.resume(model, optimizer, self.last())?;
            println!(
                "resumed after {} epochs and {} batches",
                resumed.position.epoch, resumed.position.batch
            );
            resumed.changed.iter().for_each(|change| println!("changed: {change}"));
        }
        let epochs = trainer.settings().epochs;
        let mut progress = Progress::new();
        let mut events = Events::new(self, trainer.position().epoch)?;
        let outcome = trainer.run(model, optimizer, train, test, |event| match event {
            Event::Step(step) => progress.step(&step),
            Event::Epoch(record) => {
                progress.epoch(&record, epochs);
                events.record(&record);
            }
            Event::Changed(change) => println!("changed: {change}"),
            Event::Diverged(Divergence { epoch, batch, what, recovery, .. }) => {
                println!("epoch {epoch}/{epochs} batch {batch}: {what} is not finite: {recovery:?}");
            }
            _ => {}
        });
        progress.finish();
        let outcome = outcome.map_err(|error| match error {
            skipgrad::Error::Argument { argument: "folder", found, .. } => format!(
                "--out is the folder of another training ({found}): --resume continues it, and another --out begins anew"
            )
            .into(),
            error => Box::<dyn Error>::from(error),
        })?;
        if let Outcome::Stopped(at) = outcome {
            let last = self.last();
            println!(
                "stopped after {} epochs and {} batches; {} is written",
                at.epoch,
                at.batch,
                last.display()
            );
            println!("to resume: the same command with --resume");
            return Ok(None);
        }
        Ok(Some(trainer))
    }

    /// Returns a trainer with the settings that are given, and otherwise those of the checkpoint or
    /// of the recipe.
    fn trainer(&self, batches: usize) -> Trainer {
        let (options, recipe) = (self.options, &self.recipe);
        let saved = self.saved.as_ref();
        let epochs = options.epochs.or(saved.map(|saved| saved.epochs)).unwrap_or(recipe.epochs);
        let (kind, lr) = saved.map_or((Kind::OneCycle, recipe.lr), |saved| kind(&saved.schedule));
        let schedule = match saved {
            Some(saved) if options.epochs.is_none() && options.lr.is_none() && options.schedule.is_none() => {
                saved.schedule.clone()
            }
            _ => options.schedule.unwrap_or(kind).schedule(options.lr.unwrap_or(lr), epochs * batches),
        };
        let smoothing = options.label_smoothing.or(saved.map(|saved| saved.label_smoothing));
        let precision = options.precision.or(saved.map(|saved| saved.precision));
        let trainer = Trainer::new(epochs, schedule)
            .label_smoothing(smoothing.unwrap_or(recipe.label_smoothing))
            .precision(precision.unwrap_or_default());
        match options.model_ema {
            true => trainer.ema(Ema::new(options.model_ema_decay).warmup(true)),
            false => trainer,
        }
    }
}

/// The event files of a training, if they are asked for.
struct Events {
    #[cfg(feature = "tensorboard")]
    writer: Option<skipgrad::report::tensorboard::EventWriter>,
}

impl Events {
    #[cfg(feature = "tensorboard")]
    fn new(session: &Session<'_>, finished_epochs: usize) -> Result<Events> {
        use skipgrad::report::tensorboard::EventWriter;
        let create = || EventWriter::create(session.folder.join("tensorboard"), finished_epochs);
        Ok(Events { writer: session.options.tensorboard.then(create).transpose()? })
    }

    #[cfg(not(feature = "tensorboard"))]
    fn new(_: &Session<'_>, _: usize) -> Result<Events> {
        Ok(Events {})
    }

    /// Adds an epoch. Where that fails, the training goes on without events.
    fn record(&mut self, _record: &Record) {
        #[cfg(feature = "tensorboard")]
        if let Some(writer) = &mut self.writer
            && let Err(error) = writer.record(_record)
        {
            eprintln!("no more events: {error}");
            self.writer = None;
        }
    }
}

/// Writes the report of a training to a folder, and says where it is.
pub(crate) fn write_report(
    mut report: Report<'_>,
    diagnosis: Option<&Diagnosis>,
    folder: &Path,
) -> Result<()> {
    if let Some(diagnosis) = diagnosis {
        report = report.findings(&diagnosis.findings);
    }
    let path = folder.join(Report::FILE_NAME);
    println!("evaluating for the report ...");
    let metrics = report.write(&path)?;
    println!("report: {}", path.display());
    println!("test accuracy {:.4} ({}/{})", metrics.accuracy(), metrics.top1, metrics.images);
    Ok(())
}

impl Kind {
    fn schedule(self, lr: f32, steps: usize) -> Schedule {
        match self {
            Kind::Cosine => Schedule::cosine(lr, steps).warmup(steps / 20),
            Kind::OneCycle => Schedule::one_cycle(lr, steps),
            Kind::Step => Schedule::multi_step(lr, &[steps / 2, steps * 3 / 4], 0.1),
        }
    }
}

/// Returns the kind of a schedule that [`Kind::schedule`] made, and its highest learning rate.
fn kind(schedule: &Schedule) -> (Kind, f32) {
    match schedule.curve {
        Curve::Cosine { lr, .. } => (Kind::Cosine, lr),
        Curve::MultiStep { lr, .. } => (Kind::Step, lr),
        Curve::OneCycle { max_lr, .. } => (Kind::OneCycle, max_lr),
        _ => (Kind::OneCycle, schedule.lr(0)),
    }
}

/// Returns a flag that the first Ctrl-C sets; the second one ends the program at once.
fn stop_on_ctrl_c() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\nstopping after this step; once more to stop at once");
    })?;
    Ok(stop)
}
