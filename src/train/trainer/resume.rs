//! Resuming from a checkpoint.

use super::{Trainer, output::Output};
use crate::{
    Error, Result,
    nn::Module,
    optim::Optimizer,
    train::{Change, Checkpoint, ModelEma, Position, checkpoint::Snapshot, settings::optimizer_changes},
};
use std::path::Path;

/// How a training was resumed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resumed {
    /// The position of the checkpoint.
    pub position: Position,
    /// The settings of the trainer and of the optimizer that were asked for and differ from those
    /// of the checkpoint. They hold from now on.
    pub changed: Vec<Change>,
}

impl Trainer {
    /// Resumes from a checkpoint: restores the weights and statistics of `model`, the state of
    /// `optimizer`, and the position and the history of the training.
    ///
    /// Settings that were asked for hold from now on, and the result says which of them differ from
    /// the checkpoint's: the number of epochs and the schedule in any case, and those of
    /// [`Trainer::label_smoothing`], [`Trainer::clip_norm`], [`Trainer::micro_batches`],
    /// [`Trainer::on_divergence`], [`Trainer::precision`], [`Trainer::ema`], [`Trainer::loss`],
    /// [`Trainer::distill`], [`Trainer::early_stopping`] and [`Trainer::reduce_on_plateau`] if they
    /// were called. An average that the checkpoint has not begins with its weights. What was not
    /// asked for is as in the checkpoint. A trainer [with the checkpoint's
    /// settings](Trainer::with_settings) changes nothing. The optimizer goes on with the settings
    /// that it has, and the result says which of them differ.
    ///
    /// The loaders are compared by [`Trainer::run`]. A training loader of other sizes, another
    /// order (seed, [`shuffle`](crate::data::Loader::shuffle),
    /// [`drop_last`](crate::data::Loader::drop_last)) or other classes is an error. Other pixels,
    /// by a fingerprint of a few images, other transforms, and another test loader are reported as
    /// [`Event::Changed`](crate::train::Event::Changed).
    ///
    /// # Errors
    /// As [`Checkpoint::read`]; [`Error::State`] if the checkpoint is of another model or
    /// optimizer; [`Error::Argument`] for another name of the model or another seed than the
    /// checkpoint's, and for fewer epochs than are begun. Nothing is changed then.
    ///
    /// ```no_run
    /// use skipgrad::{Rng, models::ResNet, optim::{Schedule, Sgd}, train::Trainer};
    /// let mut model = ResNet::cifar_paper(20, 10, &mut Rng::seed(0))?;
    /// let mut sgd = Sgd::new(0.1).momentum(0.9);
    /// let mut trainer = Trainer::new(60, Schedule::constant(0.01)).folder("runs/cifar10");
    /// let resumed = trainer.resume(&mut model, &mut sgd, "runs/cifar10/last.checkpoint")?;
    /// for change in resumed.changed {
    ///     println!("{change}"); // epochs: 30 before, 60 now
    /// }
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn resume(
        &mut self,
        model: &mut dyn Module,
        optimizer: &mut dyn Optimizer,
        path: impl AsRef<Path>,
    ) -> Result<Resumed> {
        let path = path.as_ref();
        let checkpoint = Checkpoint::read(path)?;
        let (settings, mut changed) = self.requested.resume(&self.settings, checkpoint.settings())?;
        let position = checkpoint.position();
        let begun = position.epoch + usize::from(position.batch > 0);
        if settings.epochs < begun {
            let expected = format!("at least {begun}, the epochs that are begun");
            return Err(Error::argument("resume", "epochs", expected, settings.epochs));
        }
        let before = checkpoint.optimizer_settings().clone();
        let averages;
        (self.progress, averages, self.rollback) = checkpoint.restore(model, optimizer)?;
        self.settings = settings;
        let averages = Some(averages).filter(|averages| !averages.is_empty());
        self.best = self.read_best(path);
        let ema = self.settings.ema.zip(averages);
        self.ema = ema.map(|(settings, averages)| ModelEma::from_tensors(settings, averages));
        self.resumed_from = Some(path.to_path_buf());
        self.output.iter_mut().for_each(Output::disown);
        changed.extend(optimizer_changes(&before, &optimizer.settings(model)));
        let Position { epoch, batch } = position;
        log::info!("resumed from {} after {epoch} epochs and {batch} batches", path.display());
        changed.iter().for_each(|change| log::info!("{change}"));
        Ok(Resumed { position, changed })
    }

    /// Reads the state after the best epoch, if the training may end early, from the folder of the
    /// checkpoint that it is resumed from.
    fn read_best(&self, path: &Path) -> Option<Snapshot> {
        self.settings.early_stopping.filter(|settings| settings.restore_best)?;
        let best = self.progress.history.best()?.epoch;
        let read = Checkpoint::read(path.with_file_name(Trainer::BEST)).ok()?.into_snapshot();
        Some(read).filter(|state| state.epoch() == best)
    }
}
