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
    /// `batch` has the images that were read, of `planned` ones. The first that was skipped was so
    /// because of `first_error`.
    pub(super) fn new(batch: Batch, planned: usize, first_error: Option<Error>) -> Planned {
        let num_skipped = planned - batch.labels.len();
        Planned { batch, planned, num_skipped, first_error }
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
            _ => Batch {
                images: concat_rows(&head.images, &tail.images)?,
                labels: [head.labels, tail.labels].concat(),
                indices: [head.indices, tail.indices].concat(),
                targets: match (head.targets, tail.targets) {
                    (Some(head), Some(tail)) => Some(concat_rows(&head, &tail)?),
                    _ => None,
                },
            },
        };
        Ok(Planned { batch, planned, num_skipped, first_error })
    }

    /// Returns the images that were read; the number of those that were skipped; and the error of
    /// the first of these.
    pub(super) fn into_parts(self) -> (Batch, usize, Option<Error>) {
        (self.batch, self.num_skipped, self.first_error)
    }
}

/// Returns the rows of two tensors of the same shape but for the number of rows.
fn concat_rows(head: &Tensor, tail: &Tensor) -> Result<Tensor> {
    let mut shape = head.shape().to_vec();
    shape[0] += tail.shape()[0];
    let mut rows = Tensor::zeros(&shape)?;
    let (before, after) = rows.data_mut().split_at_mut(head.data().len());
    before.copy_from_slice(head.data());
    after.copy_from_slice(tail.data());
    Ok(rows)
}
