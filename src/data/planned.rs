//! What is left of a planned batch after images that cannot be read were skipped.

use super::Batch;
use crate::{Error, Result, Tensor};

/// Fewest images of a batch that was to have more: the variance of one image of one pixel, which
/// batch normalization of a network's last maps needs, is not defined.
const MIN_BATCH: usize = 2;

/// The images that were read of one planned batch, or of several in turn.
pub(super) struct Planned {
    batch: Batch,
    /// The number of images that the largest of the planned batches was to have.
    planned: usize,
    num_skipped: usize,
    first_error: Option<Error>,
}

impl Planned {
    /// `images` starts with the images that were read, one per label and index. The other rows are
    /// those of images that were skipped, the first of them because of `first_error`.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(super) fn new(
        images: Tensor,
        labels: Vec<usize>,
        indices: Vec<usize>,
        first_error: Option<Error>,
    ) -> Result<Planned> {
        let planned = images.shape()[0];
        let num_skipped = planned - labels.len();
        let images = if num_skipped > 0 { images.slice_rows(0..labels.len())? } else { images };
        Ok(Planned { batch: Batch { images, labels, indices }, planned, num_skipped, first_error })
    }

    /// Returns whether skipped images left none, or fewer than a batch should have. A batch that
    /// was planned so small is not too small.
    pub(super) fn is_too_small(&self) -> bool {
        self.batch.labels.len() < self.planned.min(MIN_BATCH)
    }

    /// Appends the images of the planned batch that follows.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(super) fn join(self, next: Planned) -> Result<Planned> {
        let planned = self.planned.max(next.planned);
        let num_skipped = self.num_skipped + next.num_skipped;
        let first_error = self.first_error.or(next.first_error);
        let (head, tail) = (self.batch, next.batch);
        let batch = match (head.labels.len(), tail.labels.len()) {
            (0, _) => tail,
            (_, 0) => head,
            (n, m) => {
                let [_, h, w, c] = head.images.shape().nhwc("loader", "images")?;
                let mut images = Tensor::zeros([n + m, h, w, c])?;
                let (before, after) = images.data_mut().split_at_mut(head.images.data().len());
                before.copy_from_slice(head.images.data());
                after.copy_from_slice(tail.images.data());
                let labels = [head.labels, tail.labels].concat();
                Batch { images, labels, indices: [head.indices, tail.indices].concat() }
            }
        };
        Ok(Planned { batch, planned, num_skipped, first_error })
    }

    /// Returns the images that were read; the number of those that were skipped; and the error of
    /// the first of these.
    pub(super) fn into_parts(self) -> (Batch, usize, Option<Error>) {
        (self.batch, self.num_skipped, self.first_error)
    }
}
