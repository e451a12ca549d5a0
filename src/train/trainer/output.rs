//! The folder of a training: which files it has, and what is written when.

use super::{Trainer, run::Run};
use crate::{
    Error, Result,
    train::{Checkpoint, History, Position, Record},
};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Name of the file that holds the checkpoint before [`Trainer::LAST`] until the epoch of the
/// latter is evaluated.
const PREVIOUS: &str = "previous.checkpoint";

/// The folder of a training.
#[derive(Debug)]
pub(super) struct Output {
    folder: PathBuf,
    /// Whether this training has written into it.
    is_own: bool,
    /// Whether [`Trainer::LAST`] may be resumed from: its epoch was evaluated, or is not finished.
    is_last_good: bool,
}

impl Output {
    pub(super) fn new(folder: PathBuf) -> Output {
        Output { folder, is_own: false, is_last_good: true }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Says that the training goes on from another state than the one that it has written.
    pub(super) fn disown(&mut self) {
        self.is_own = false;
    }

    /// Checks that nothing of another training would be overwritten, for a training that was
    /// resumed from a checkpoint or not and is at a position.
    ///
    /// # Errors
    /// [`Error::Argument`] if the folder has the results of another training, or of one that is
    /// further than this one; [`Error::Io`] if its files cannot be read.
    pub(super) fn check(
        &mut self,
        resumed_from: Option<&Path>,
        position: Position,
        history: &History,
    ) -> Result<()> {
        if self.is_own || !self.folder.is_dir() {
            return Ok(());
        }
        self.is_own = resumed_from.and_then(Path::parent).is_some_and(|parent| {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            matches!((parent.canonicalize(), self.folder.canonicalize()), (Ok(a), Ok(b)) if a == b)
        });
        let last = self.path(Trainer::LAST);
        let last = if last.exists() { Some(Checkpoint::read_header(&last)?.progress.position) } else { None };
        let written = self.path(Trainer::HISTORY);
        let written = match fs::read_to_string(&written) {
            Ok(text) => text
                .parse::<History>()
                .map_err(|e| Error::malformed(&written, "history", "the history of a training", e))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => History::default(),
            Err(error) => return Err(Error::io(&written, "read", error)),
        };
        let found = match last {
            Some(last) if last > Position::default() => {
                format!("one that is at epoch {}, batch {}", last.epoch, last.batch)
            }
            _ if !written.records.is_empty() => format!("one of {} epochs", written.records.len()),
            _ if self.path(Trainer::BEST).exists() => Trainer::BEST.to_string(),
            _ => return Ok(()),
        };
        let refused = |expected: &str| {
            let found = format!("{found} in {}", self.folder.display());
            Err(Error::argument("train", "folder", expected, found))
        };
        if !self.is_own {
            return refused(
                "a folder without another training: choose a new one, or continue that training with \
                 Trainer::resume and its last.checkpoint",
            );
        }
        // As text, since a loss that is NaN equals nothing.
        if last.is_some_and(|last| last > position) || !history.to_csv().starts_with(&written.to_csv()) {
            return refused(&format!(
                "a folder whose training is not ahead of this one, which is at epoch {}, batch {}: choose a new \
                 one, or resume from last.checkpoint",
                position.epoch, position.batch
            ));
        }
        Ok(())
    }

    /// Creates the folder.
    fn create(&self) -> Result<()> {
        fs::create_dir_all(&self.folder).map_err(|e| Error::io(&self.folder, "create", e))
    }

    /// Returns the checkpoint from which the training can be resumed.
    pub(super) fn good_checkpoint(&self) -> Option<PathBuf> {
        let last = self.is_last_good.then(|| self.path(Trainer::LAST));
        last.into_iter().chain([self.path(Trainer::BEST)]).find(|path| path.exists())
    }

    /// Returns whether [`Trainer::LAST`] is the state at a position.
    fn is_last_at(&self, position: Position) -> bool {
        let last = Checkpoint::read_header(&self.path(Trainer::LAST));
        last.is_ok_and(|header| header.progress.position == position)
    }

    /// Holds the checkpoint before the one of a position that is about to be written.
    fn hold_previous(&self, position: Position) -> Result<()> {
        let (last, previous) = (self.path(Trainer::LAST), self.path(PREVIOUS));
        if !last.exists() || self.is_last_at(position) {
            return Ok(());
        }
        remove(&previous)?;
        // A second name of the file costs nothing. Where there are no hard links, a copy does.
        let held = fs::hard_link(&last, &previous).or_else(|_| fs::copy(&last, &previous).map(drop));
        held.map_err(|e| Error::io(&previous, "create", e))
    }

    /// Replaces [`Trainer::LAST`] by the checkpoint before it, if it is the one of this position,
    /// whose test loss is not finite.
    pub(super) fn restore_previous(&mut self, position: Position) -> Result<()> {
        let (last, previous) = (self.path(Trainer::LAST), self.path(PREVIOUS));
        if !self.is_last_at(position) {
            return Ok(());
        }
        self.is_last_good = previous.exists();
        if self.is_last_good {
            fs::rename(&previous, &last).map_err(|e| Error::io(&last, "replace", e))?;
        }
        Ok(())
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(path, "remove", error)),
        _ => Ok(()),
    }
}

impl Run<'_> {
    /// Creates the folder, if there is to be one, and writes the state before the first step: what
    /// cannot be written is then found at once, and there is always a checkpoint to go back to.
    pub(super) fn begin_output(&mut self) -> Result<()> {
        let Some(output) = &mut self.trainer.output else {
            log::debug!("the trainer has no folder: no checkpoint and no history is written");
            return Ok(());
        };
        output.create()?;
        let is_new = !output.is_own;
        output.is_own = true;
        let history = output.path(Trainer::HISTORY);
        self.trainer.progress.history.write(history)?;
        // Weights that are not finite are reported by the first step, with its loss.
        if is_new && self.check_state().is_ok() { self.write(Trainer::LAST) } else { Ok(()) }
    }

    /// Saves the current state as [`Trainer::LAST`], if it is finite. If the steps of an epoch are
    /// finished, the checkpoint before it is held until the evaluation.
    pub(super) fn save_last(&mut self) -> Result<()> {
        self.check_state()?;
        if self.is_trained()
            && let Some(output) = &self.trainer.output
        {
            output.hold_previous(self.trainer.progress.position)?;
        }
        self.write(Trainer::LAST)
    }

    /// Saves the state and the history after an epoch that was evaluated.
    pub(super) fn save_epoch(&mut self, record: &Record) -> Result<()> {
        let history = &self.trainer.progress.history;
        if history.best().is_some_and(|best| best.epoch == record.epoch) {
            log::info!("epoch {} has the best test accuracy so far, {}", record.epoch, record.test_accuracy);
            self.remember_best();
            self.write(Trainer::BEST)?;
        }
        self.write(Trainer::LAST)?;
        let Some(output) = &self.trainer.output else { return Ok(()) };
        self.trainer.progress.history.write(output.path(Trainer::HISTORY))?;
        remove(&output.path(PREVIOUS))
    }

    /// Writes a checkpoint, if there is a folder.
    fn write(&mut self, name: &str) -> Result<()> {
        let Trainer { settings, progress, rollback, ema, output, .. } = &mut *self.trainer;
        let Some(output) = output else { return Ok(()) };
        // The state that began the epoch is this one.
        let rollback = rollback.as_ref().filter(|_| progress.position.batch > 0);
        let path = output.path(name);
        let (model, optimizer, ema) = (&*self.model, &*self.optimizer, ema.as_ref());
        Checkpoint::capture(settings, progress, rollback, ema, model, optimizer).write(&path)?;
        output.is_last_good |= name == Trainer::LAST;
        log::debug!("wrote {}", path.display());
        Ok(())
    }
}
