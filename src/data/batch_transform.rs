//! Transforms of whole batches, which mix images and their targets.

use crate::{Error, Result, Rng, Tensor};
use std::{fmt, sync::Arc};

/// A transform of the images and the targets of a batch, which [`Loader::batch_transform`] applies
/// after the transforms of the single images.
///
/// Its random numbers are keyed by (seed, epoch, batch), so a seed gives the same bits with any
/// number of workers, also in an epoch that was resumed.
///
/// [`Loader::batch_transform`]: super::Loader::batch_transform
///
/// ```
/// use skipgrad::{Result, Rng, Tensor, data::{BatchTransform, Loader, SyntheticShapes}};
///
/// /// Makes every target uniform over the classes.
/// #[derive(Debug)]
/// struct Forget;
///
/// impl BatchTransform for Forget {
///     fn apply(&self, _: &mut Tensor, targets: &mut Tensor, _: &mut Rng) -> Result<()> {
///         let classes = targets.shape().num_channels() as f32;
///         targets.data_mut().fill(1.0 / classes);
///         Ok(())
///     }
/// }
///
/// let data = SyntheticShapes::with_sizes(8, 0, 1)?;
/// let batch = Loader::new(data.train(), 8).batch_transform(Forget).epoch(0)?.next().unwrap()?;
/// assert_eq!(batch.targets.unwrap().data()[..3], [0.1, 0.1, 0.1]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
pub trait BatchTransform: fmt::Debug + Send + Sync {
    /// Transforms the images `[N, H, W, C]`, without a zero, and the targets `[N, K]`, which are
    /// one-hot before the first transform.
    ///
    /// # Errors
    /// Any error, which ends the epoch.
    fn apply(&self, images: &mut Tensor, targets: &mut Tensor, rng: &mut Rng) -> Result<()>;

    /// Checks the options. The default implementation accepts all.
    ///
    /// # Errors
    /// [`Error::Argument`] with the option that is out of range.
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

/// Applies one of several transforms to a batch, each with the same probability, as torchvision's
/// `RandomChoice`, with which its references choose between [`Mixup`](super::Mixup) and
/// [`CutMix`](super::CutMix).
///
/// ```
/// use skipgrad::data::{BatchTransform, CutMix, Mixup, RandomChoice};
/// let choice = RandomChoice::new().or(Mixup::new(0.2)).or(CutMix::new(1.0));
/// assert!(choice.check().is_ok());
/// assert!(RandomChoice::new().check().is_err(), "nothing to choose from");
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RandomChoice {
    /// Probability that a transform is applied, in [0, 1].
    pub p: f32,
    transforms: Vec<Arc<dyn BatchTransform>>,
}

impl RandomChoice {
    /// Creates a choice among no transforms, of which one is always applied.
    pub fn new() -> RandomChoice {
        RandomChoice { p: 1.0, transforms: vec![] }
    }

    /// Adds a transform.
    #[must_use]
    pub fn or(mut self, transform: impl BatchTransform + 'static) -> RandomChoice {
        self.transforms.push(Arc::new(transform));
        self
    }

    /// Sets the probability that a transform is applied, in [0, 1] (`mixup_prob` in timm).
    #[must_use]
    pub fn p(self, p: f32) -> RandomChoice {
        RandomChoice { p, ..self }
    }
}

impl Default for RandomChoice {
    fn default() -> RandomChoice {
        RandomChoice::new()
    }
}

impl BatchTransform for RandomChoice {
    fn apply(&self, images: &mut Tensor, targets: &mut Tensor, rng: &mut Rng) -> Result<()> {
        if !rng.chance(self.p) {
            return Ok(());
        }
        match self.transforms.get(rng.below(self.transforms.len())) {
            Some(transform) => transform.apply(images, targets, rng),
            None => Ok(()),
        }
    }

    fn check(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.p) {
            return Err(Error::argument("random_choice", "p", "a probability in [0, 1]", self.p));
        }
        if self.transforms.is_empty() {
            return Err(Error::argument("random_choice", "transforms", "at least one", "none"));
        }
        self.transforms.iter().try_for_each(|transform| transform.check())
    }
}

/// Returns the targets `[N, classes]` of labels: 1 for the class of an image, 0 for the others.
///
/// # Errors
/// [`Error::Argument`] for a label that is not below the number of classes, and
/// [`Error::OutOfMemory`].
pub(super) fn one_hot(labels: &[usize], classes: usize) -> Result<Tensor> {
    if let Some(label) = labels.iter().find(|&&label| label >= classes) {
        return Err(Error::argument("loader", "label", format!("a class below {classes}"), label));
    }
    let mut targets = Tensor::zeros([labels.len(), classes])?;
    let rows = targets.data_mut().chunks_exact_mut(classes.max(1));
    rows.zip(labels).for_each(|(row, &label)| row[label] = 1.0);
    Ok(targets)
}

/// Returns the number of a row's partner among `rows`: the one before it, and for the first the
/// last, as torchvision has it.
pub(super) fn partner(row: usize, rows: usize) -> usize {
    if row == 0 { rows - 1 } else { row - 1 }
}

/// Weighs the rows of a tensor with `lambda`, and adds those of their partners with `1 - lambda`.
pub(super) fn blend_with_partners(tensor: &mut Tensor, lambda: f32) {
    let before = tensor.to_vec();
    let rows = tensor.shape().first().copied().unwrap_or(1).max(1);
    let len = before.len() / rows;
    for (row, values) in tensor.data_mut().chunks_exact_mut(len.max(1)).enumerate() {
        let other = &before[partner(row, rows) * len..][..len];
        values.iter_mut().zip(other).for_each(|(x, y)| *x = y * (1.0 - lambda) + *x * lambda);
    }
}
