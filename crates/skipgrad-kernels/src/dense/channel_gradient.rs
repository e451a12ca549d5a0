//! The gradient of a layer's own channels.

use super::ChannelView;
use crate::parallel::{PIECE, RowsMut, for_each_piece};
use crate::prefetch::{Cache, prefetch_row};
use crate::simd::Simd;
use crate::{Isa, Task};
use std::ops::Range;

/// The gradient that reaches x through the batch statistics of all norms that share them: `offset +
/// slope (x - mean)`, with one value of each per channel.
#[derive(Clone, Copy, Debug)]
pub struct StatisticsGradient<'a> {
    /// The gradient at the mean.
    pub offset: &'a [f32],
    /// The change of the gradient per unit of x.
    pub slope: &'a [f32],
    /// The mean of x.
    pub mean: &'a [f32],
}

/// Computes the gradient of the channels of one layer, from matrices `[rows, row]` of the gradient
/// and of the maps: `out[r, i] = dx[r, c] + offset[i] + slope[i] (x[r, c] - mean[i])`, where c is
/// the i-th of `channels`.
///
/// # Panics
/// If a slice does not fit.
pub fn channel_gradient(
    isa: Isa,
    dx: &[f32],
    x: ChannelView<'_>,
    channels: Range<usize>,
    statistics: StatisticsGradient<'_>,
    out: &mut [f32],
) {
    let (rows, width) = (x.num_rows(), channels.len());
    assert!(channels.end <= x.channels && dx.len() == x.data.len() && out.len() == rows * width);
    assert!(
        [statistics.offset, statistics.slope, statistics.mean].iter().all(|vector| vector.len() == width)
    );
    if out.is_empty() {
        return;
    }
    let out = RowsMut { data: out, width };
    for_each_piece(out, (PIECE / x.row).max(1), |first, out| {
        let start = first * x.row + channels.start;
        isa.dispatch(ReadChannels { dx, x, start, statistics, width, out: out.data });
    });
}

/// How many rows in advance a row is prefetched.
const PREFETCH_DISTANCE: usize = 12;

/// The task of [`channel_gradient`] for some rows.
struct ReadChannels<'a, 'b> {
    dx: &'a [f32],
    x: ChannelView<'a>,
    /// The position of the channels of the first row.
    start: usize,
    statistics: StatisticsGradient<'a>,
    width: usize,
    out: &'b mut [f32],
}

impl Task for ReadChannels<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let ReadChannels { dx, x, start, statistics, width, out } = self;
        let StatisticsGradient { offset, slope, mean } = statistics;
        let rows = out.len() / width;
        assert!(rows > 0 && start + (rows - 1) * x.row + width <= dx.len().min(x.data.len()));
        assert!(
            out.len() == rows * width && [offset, slope, mean].iter().all(|vector| vector.len() == width)
        );
        // In whole vectors, the last columns first: what is written after a row belongs to the next
        // one, where it is written later.
        for column in (0..width).step_by(S::LANES).rev() {
            let count = (width - column).min(S::LANES);
            // SAFETY: the asserts show that `count` elements from `column` on are within the
            // vectors and within each row of x, dx and `out`; a whole vector is stored only where
            // it ends within `out`.
            unsafe {
                let load = |from: &[f32], at: usize| simd.load_up_to(from.as_ptr().add(at), count);
                let [offset, slope, mean] = [offset, slope, mean].map(|vector| load(vector, column));
                for row in 0..rows {
                    let from = start + row * x.row + column;
                    // These are short pieces of distant rows, which the hardware does not prefetch.
                    for matrix in [x.data, dx] {
                        let next = matrix.as_ptr().wrapping_add(from + PREFETCH_DISTANCE * x.row);
                        prefetch_row(Cache::L1, next, count);
                    }
                    let rest = simd.mul_add(slope, simd.sub(load(x.data, from), mean), offset);
                    let (to, value) = (row * width + column, simd.add(load(dx, from), rest));
                    let count = if to + S::LANES <= out.len() { S::LANES } else { count };
                    simd.store_up_to(out.as_mut_ptr().add(to), value, count);
                }
            }
        }
    }
}
