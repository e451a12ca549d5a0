//! The gradient of normalized features, where that of what follows them is there.

use super::add::AddBlock;
use super::{ChannelView, NormRelu};
use crate::Isa;
use crate::batch_norm::BatchNormSums;
use crate::split::{Split, SyncMutPtr};
use rayon::prelude::*;

/// Most rows of a block: what a block works with, and what it fetches ahead, is to fit a second-level cache of 512 KiB.
pub(super) const BLOCK: usize = 64;
/// Fewest rows of a chunk.
const FEWEST_ROWS: usize = 2 * BLOCK;
/// Tasks wanted.
const TASKS: usize = 16;

/// Rows, shared out.
pub(super) fn chunks_of_rows(rows: usize) -> Split {
    Split::new(rows, 1, usize::MAX, TASKS.min(rows / FEWEST_ROWS))
}

/// Features behind a normalization and a ReLU, whose gradient is asked for.
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
    /// From da `[rows, channels]`, the gradient behind the ReLU: adds `scale * g` to dx, which lies as the features do, and returns Σg
    /// and Σg (x - mean), where g is the gradient in front of the ReLU. What batch statistics add to dx is the caller's to apply,
    /// see [`StatisticsGradient`](super::StatisticsGradient).
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
                    // SAFETY: chunks do not share rows, and `check` compared dx with x.
                    unsafe { block.compute(isa, &mut totals) };
                }
                totals
            })
            .collect();
        merge(sums.iter(), &Split::new(channels, 1, usize::MAX, 1), channels)
    }

    /// Asserts what both forms rest on; returns the number of rows.
    pub(super) fn check(&self, dx: &[f32]) -> usize {
        let rows = self.x.num_rows();
        self.norm.check(self.x.channels);
        assert_eq!(self.mean.len(), self.x.channels, "one number a channel");
        assert_eq!(dx.len(), self.x.data.len(), "dx lies as the features do");
        rows
    }
}

/// Sums of tasks, in the order chunk after chunk, part after part of the channels.
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
