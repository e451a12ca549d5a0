//! Passes of a model over images, and the images.

use crate::{
    Result, Rng, Tensor,
    autograd::{StateRef, Tape, Updates},
    data::Batch,
    install,
    nn::Module,
};

/// Images and their labels.
#[derive(Clone)]
pub(super) struct Sample {
    pub(super) images: Tensor,
    pub(super) labels: Vec<usize>,
}

impl Sample {
    /// Returns the first images of a batch, at most `count`.
    pub(super) fn first_of(batch: &Batch, count: usize) -> Result<Sample> {
        Sample { images: batch.images.clone(), labels: batch.labels.clone() }.take(count)
    }

    /// Returns the first images, at most `count`.
    pub(super) fn take(&self, count: usize) -> Result<Sample> {
        let count = count.min(self.labels.len());
        Ok(Sample { images: self.images.slice_rows(0..count)?, labels: self.labels[..count].to_vec() })
    }

    /// Splits a batch into parts of about the same size, at most `size` images each, so that none
    /// is of one image unless the batch is.
    pub(super) fn split(batch: &Batch, size: usize) -> Result<Vec<Sample>> {
        let count = batch.labels.len();
        let size = count.div_ceil(count.div_ceil(size).max(1)).max(1);
        let part = |(i, labels): (usize, &[usize])| {
            let images = batch.images.slice_rows(i * size..i * size + labels.len())?;
            Ok(Sample { images, labels: labels.to_vec() })
        };
        batch.labels.chunks(size).enumerate().map(part).collect()
    }
}

/// Returns the loss of a training pass, and its gradients and new statistics.
pub(super) fn gradients(model: &dyn Module, sample: &Sample, rng: Rng) -> Result<(f32, Updates)> {
    install(|| {
        let tape = Tape::train(rng);
        let loss = tape.input(sample.images.clone()).apply(model)?.cross_entropy(&sample.labels)?;
        Ok((loss.item(), loss.backward()?))
    })
}

/// Returns the logits of a pass as in training, with the statistics of the batch.
pub(super) fn logits(model: &dyn Module, images: &Tensor, rng: Rng) -> Result<Tensor> {
    install(|| {
        let tape = Tape::train(rng).recording(false);
        Ok(tape.input(images.clone()).apply(model)?.value().clone())
    })
}

/// Returns the path of the module of a parameter.
pub(super) fn module_path(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(path, _)| path)
}

/// Returns whether the state is a parameter that is trained.
pub(super) fn is_trained(state: &StateRef<'_>) -> bool {
    matches!(state, StateRef::Param(param) if param.is_trainable())
}

/// Returns the path of a module as sentences have it.
pub(super) fn named(path: &str) -> String {
    if path.is_empty() { "the model".to_string() } else { format!("`{path}`") }
}

/// Returns a few paths as sentences have them.
pub(super) fn listed(paths: &[String]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<String> = paths.iter().take(SHOWN).map(|path| named(path)).collect();
    match paths.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Returns the Euclidean norm.
pub(super) fn norm(tensor: &Tensor) -> f64 {
    tensor.sum_of_squares().sqrt()
}
