//! The gradient of normalized features, from the gradient after their ReLU.

use super::add::AddBlock;
use super::{ChannelView, NormRelu};
use crate::Isa;
use crate::batch_norm::BatchNormSums;
use crate::split::{Split, SyncMutPtr};
use rayon::prelude::*;

/// The most rows of a block: the workspace of a block and the data prefetched meanwhile are to fit
/// a second-level cache of 512 KiB.
pub(super) const BLOCK: usize = 64;
/// The fewest rows of a chunk.
const MIN_ROWS: usize = 2 * BLOCK;
/// The number of tasks wanted.
const TASKS: usize = 16;

/// Divides rows among tasks.
pub(super) fn chunks_of_rows(rows: usize) -> Split {
    Split::new(rows, 1, usize::MAX, TASKS.min(rows / MIN_ROWS))
}

/// The features that a normalization and a ReLU read, whose gradient is wanted.
#[derive(Clone, Copy, Debug)]
pub struct DenseGradient<'a> {
    /// The features.
    pub x: ChannelView<'a>,
    /// The normalization and the ReLU.
    pub norm: NormRelu<'a>,
    /// The mean that the normalization subtracts, `[channels]`.
    pub mean: &'a [f32],
}

impl DenseGradient<'_> {
    /// Adds `scale * g` to dx, which has the layout of the features, and returns Σg and Σg (x -
    /// mean), where g is the gradient before the ReLU, computed from da `[rows, channels]`, the
    /// gradient after it. The caller applies the gradient through batch statistics, see
    /// [`StatisticsGradient`](super::StatisticsGradient).
    ///
    /// # Panics
    /// If a slice does not fit.
    pub fn of_activation(&self, isa: Isa, da: &[f32], dx: &mut [f32]) -> BatchNormSums {
        let (rows, channels) = (self.check(dx), self.x.channels);
        assert_eq!(da.len(), rows * channels, "as many rows in both");
        let chunks = chunks_of_rows(rows);
        let dx = SyncMutPtr(dx.as_mut_ptr());
        let sums: Vec<[Vec<f64>; 2]> = (0..chunks.parts)
            .into_par_iter()
            .with_max_len(1)
            .map(|chunk| {
                let mut totals = [vec![0.0; channels], vec![0.0; channels]];
                let chunk = chunks.range(chunk);
                for start in chunk.clone().step_by(BLOCK) {
                    let rows = start..chunk.end.min(start + BLOCK);
                    let da = &da[rows.start * channels..rows.end * channels];
                    let block =
                        AddBlock { gradient: self, rows, channels: 0..channels, da, da_row: channels, dx };
                    // SAFETY: `check` asserts that dx is as long as x, it is borrowed mutably, and
                    // chunks do not share rows.
                    unsafe { block.compute(isa, &mut totals) };
                }
                totals
            })
            .collect();
        merge(sums.iter(), &Split::new(channels, 1, usize::MAX, 1), channels)
    }

    /// Asserts that all slices fit, and returns the number of rows.
    pub(super) fn check(&self, dx: &[f32]) -> usize {
        let rows = self.x.num_rows();
        self.norm.check(self.x.channels);
        assert_eq!(self.mean.len(), self.x.channels, "one value per channel");
        assert_eq!(dx.len(), self.x.data.len(), "dx has the layout of the features");
        rows
    }
}

/// Adds the sums of tasks in their order: chunk after chunk, and in each part after part of the
/// channels.
pub(super) fn merge<'a>(
    sums: impl Iterator<Item = &'a [Vec<f64>; 2]>,
    parts: &Split,
    channels: usize,
) -> BatchNormSums {
    let mut all = [vec![0.0; channels], vec![0.0; channels]];
    for (task, sums) in sums.enumerate() {
        let part = parts.range(task % parts.parts);
        for (all, sums) in all.iter_mut().zip(sums) {
            all[part.clone()].iter_mut().zip(sums).for_each(|(all, sum)| *all += sum);
        }
    }
    let [dy, dy_deviation] = all;
    BatchNormSums { dy, dy_deviation }
}
