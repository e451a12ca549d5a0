//! What is checked before the first step: nothing is written until all of it holds.

use super::{Trainer, run::Run};
use crate::{
    Error, Result, Shape, Tensor,
    autograd::{Mode, StateRef, Tape},
    data::Loader,
    graph::ModuleExt,
    nn::Module,
    train::{Event, ModelEma, Settings, ema::check_fit, loader_info::LoaderInfo, loss::Teacher},
};

impl Run<'_> {
    /// Checks everything that can be known, and then creates the folder.
    pub(super) fn prepare(&mut self) -> Result<()> {
        let settings = &self.trainer.settings;
        settings.check()?;
        if self.trainer.checkpoint_every == Some(0) {
            return Err(Error::argument("train", "checkpoint_every", "at least 1", 0));
        }
        check_loader("train", self.train)?;
        check_loader("test", self.test)?;
        self.check_classes()?;
        check_model(&*self.model, self.train, self.test, settings)?;
        self.check_teacher()?;
        self.check_learning_rates()?;
        self.check_loaders_again()?;
        self.begin_ema()?;
        let trainer = &mut *self.trainer;
        trainer.optimizer_settings = self.optimizer.settings(&*self.model);
        if let Some(output) = &mut trainer.output {
            let progress = &trainer.progress;
            output.check(trainer.resumed_from.as_deref(), progress.position, &progress.history)?;
        }
        self.begin_output()
    }

    /// Checks that there is a teacher if one is to be learned from, and that it has the logits of
    /// the model for a training image.
    fn check_teacher(&self) -> Result<()> {
        let teacher = match (&self.trainer.settings.distillation, &self.trainer.teacher) {
            (None, _) => return Ok(()),
            (Some(_), Some(Teacher(teacher))) => teacher,
            (Some(_), None) => {
                let expected = "a teacher, given by Trainer::distill, since the training began with one";
                return Err(Error::argument("train", "distillation", expected, "none"));
            }
        };
        let [h, w, c] = self.train.dataset().image_shape();
        let logits = Tape::meta(Mode::Eval).placeholder(&[1, h, w, c])?.apply(self.model)?.shape().to_vec();
        let found = teacher.run(&Tensor::zeros([1, h, w, c])?)?.shape().to_vec();
        if found != logits {
            let (expected, found) = (format!("logits {logits:?}, as the model's"), format!("{found:?}"));
            return Err(Error::argument("train", "teacher", expected, found));
        }
        Ok(())
    }

    /// Begins the average of the weights if there is to be one, and checks one that has begun.
    fn begin_ema(&mut self) -> Result<()> {
        let Trainer { settings, progress, ema, .. } = &mut *self.trainer;
        match (settings.ema, &ema) {
            (None, _) => *ema = None,
            (Some(_), Some(begun)) => check_fit(begun.tensors(), &self.model.export())?,
            (Some(settings), None) => {
                *ema = Some(ModelEma::new(settings, &*self.model)?);
                progress.ema_updates = 0;
            }
        }
        Ok(())
    }

    /// Checks that a label means the same in both loaders. A dataset may have no names.
    fn check_classes(&self) -> Result<()> {
        let [train, test] = [self.train, self.test].map(|loader| loader.dataset().classes());
        if train == test || train.is_empty() || test.is_empty() {
            return Ok(());
        }
        let first = train.iter().zip(test).position(|(a, b)| a != b).unwrap_or(train.len().min(test.len()));
        let name = |classes: &[String]| match classes.get(first) {
            Some(name) => format!("{} classes, class {first} of which is {name:?}", classes.len()),
            None => format!("{} classes", classes.len()),
        };
        let expected = format!("the classes of the training images, {}", name(train));
        Err(Error::argument("train", "test", expected, name(test)))
    }

    /// Checks the optimizer at the learning rate of the first step, and the learning rates of the
    /// other steps.
    fn check_learning_rates(&mut self) -> Result<()> {
        let (settings, progress) = (&self.trainer.settings, &self.trainer.progress);
        let batches = self.train.num_batches();
        let first = progress.position.epoch.saturating_mul(batches) + progress.position.batch;
        let before = self.optimizer.lr();
        self.optimizer.set_lr(self.trainer.lr(first));
        let checked = self.optimizer.check(&*self.model);
        // What is reported before the next step has the learning rate of the last one.
        let last = self.trainer.lr(first.saturating_sub(1));
        self.optimizer.set_lr(if checked.is_ok() { last } else { before });
        checked?;
        let steps = first..settings.epochs.saturating_mul(batches);
        let found = steps.map(|step| (step, settings.schedule.lr(step)));
        match found.into_iter().find(|(_, lr)| !lr.is_finite() || *lr < 0.0) {
            Some((step, lr)) => {
                let found = format!("{lr} at step {step}");
                let expected = "a finite learning rate of at least 0 at every step";
                Err(Error::argument("train", "schedule", expected, found))
            }
            None => Ok(()),
        }
    }

    /// Compares the loaders with those before the training was stopped, and reports what differs.
    fn check_loaders_again(&mut self) -> Result<()> {
        let [train, test] = [self.train, self.test].map(LoaderInfo::of);
        let progress = &mut self.trainer.progress;
        let mut changes = match &progress.train {
            Some(before) => before.resumed_by(&train)?,
            None => vec![],
        };
        if let Some(before) = &progress.test {
            changes.extend(before.test_changes(&test));
        }
        (progress.train, progress.test) = (Some(train), Some(test));
        for change in changes {
            log::warn!("{change}");
            self.tell(Event::Changed(change));
        }
        Ok(())
    }
}

/// Checks a loader, and says which of the two it is.
fn check_loader(name: &'static str, loader: &Loader) -> Result<()> {
    loader.check().map_err(|error| match error {
        Error::Argument { op, argument, expected, found } => {
            Error::argument("train", name, format_args!("{expected} ({op}: {argument})"), found)
        }
        error => error,
    })
}

/// Checks by meta passes that the model fits the images and the classes of both loaders, and that a
/// gradient reaches every parameter that is trained.
fn check_model(model: &dyn Module, train: &Loader, test: &Loader, settings: &Settings) -> Result<()> {
    let [h, w, c] = train.dataset().image_shape();
    for pass in passes(train, settings.micro_batches) {
        match model.check(&[pass.images, h, w, c]) {
            Ok(()) => {}
            // The error is one of the size alone if two images are enough.
            Err(error) if pass.images == 1 && model.check(&[2, h, w, c]).is_ok() => {
                return Err(Error::argument(
                    "train",
                    "train",
                    format!(
                        "at least 2 images {}: set Loader::drop_last(true), or another batch size or number of \
                         micro-batches",
                        pass.place
                    ),
                    format!("1 ({})", single(error)),
                ));
            }
            Err(error) => return Err(single(error)),
        }
    }
    check_gradients(model, train, settings)?;
    let [h, w, c] = test.dataset().image_shape();
    for pass in passes(test, 1) {
        let tape = Tape::meta(Mode::Eval);
        let logits = tape.placeholder(&[pass.images, h, w, c])?.apply(model)?;
        check_logits("test", logits.shape(), test)?;
    }
    Ok(())
}

/// Checks the logits of a training pass, and that a gradient reaches every parameter that is
/// trained.
fn check_gradients(model: &dyn Module, train: &Loader, settings: &Settings) -> Result<()> {
    let [h, w, c] = train.dataset().image_shape();
    let images = passes(train, 1)[0].images;
    let tape = Tape::meta(Mode::Train);
    let logits = tape.placeholder(&[images, h, w, c])?.apply(model)?;
    check_logits("training", logits.shape(), train)?;
    let labels = vec![settings.loss.some_label(); images];
    let updates = settings.loss.compute(&logits, &labels, None, settings.label_smoothing)?.backward()?;
    updates.check_named(model)?;
    let mut result = Ok(());
    model.visit("", &mut |name, slot| {
        if let StateRef::Param(param) = slot
            && param.is_trainable()
            && updates.grad(param).is_none()
            && result.is_ok()
        {
            result = Err(Error::NoGradient { name: name.to_string() });
        }
    });
    result
}

/// Checks that the model has a logit for every class.
fn check_logits(of: &str, shape: &Shape, loader: &Loader) -> Result<()> {
    let classes = loader.dataset().classes().len();
    match shape[..] {
        [_, logits] if logits > classes && loader.batch_transforms().is_some() => {
            let expected =
                format!("{classes} logits, since the targets of mixed images are weights of classes");
            Err(Error::argument("train", "model", expected, format_args!("{logits} logits")))
        }
        [_, logits] if logits >= classes => Ok(()),
        [_, logits] => {
            let expected = format!("logits for the {classes} classes of the {of} images");
            Err(Error::argument("train", "model", expected, format_args!("{logits} logits")))
        }
        _ => Err(Error::shape("cross_entropy", "logits", ["N", "K"], shape)),
    }
}

/// Returns the only fault of a list, as the pass itself would.
pub(in crate::train) fn single(error: Error) -> Error {
    match error {
        Error::Faults { mut faults } if faults.len() == 1 => faults.swap_remove(0),
        error => error,
    }
}

/// The size of a pass through the model, and where it occurs.
struct Pass {
    images: usize,
    place: String,
}

/// Returns the sizes of all passes of an epoch, the largest first.
fn passes(loader: &Loader, micro_batches: usize) -> Vec<Pass> {
    let samples = loader.num_samples();
    let full = loader.batch_size().min(samples);
    let last = samples % loader.batch_size();
    let mut passes = vec![];
    for (batch, name) in [(full, "batch"), (last, "last batch")] {
        let size = batch.div_ceil(micro_batches);
        if size == 0 {
            continue;
        }
        let rest = batch - (batch.div_ceil(size) - 1) * size;
        for images in [size, rest] {
            let place = match (images == batch, images == size) {
                (true, _) => format!("in the {name}"),
                (_, true) => format!("in every micro-batch of the {name} of {batch} images"),
                _ => format!("in a micro-batch of the {name} of {batch} images"),
            };
            passes.push(Pass { images, place });
        }
    }
    passes.sort_by_key(|pass| std::cmp::Reverse(pass.images));
    passes.dedup_by_key(|pass| pass.images);
    passes
}
