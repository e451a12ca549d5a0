//! A layer's own channels of the gradient.

use super::ChannelView;
use crate::elementwise::PIECE;
use crate::simd::{Simd, prefetch};
use crate::{Isa, Task};
use rayon::prelude::*;
use std::ops::Range;

/// What the norms that share a channel's statistics add to its gradient: `offset + slope (x - mean)`, a number a channel each.
#[derive(Clone, Copy, Debug)]
pub struct StatisticsGradient<'a> {
    /// What is added.
    pub offset: &'a [f32],
    /// What is added for each unit that x is above its mean.
    pub slope: &'a [f32],
    /// The mean.
    pub mean: &'a [f32],
}

/// `out[r, i] = dx[r, c] + offset[i] + slope[i] (x[r, c] - mean[i])` for c, the i-th of `channels`: the gradient of the channels
/// of one layer, from matrices `[rows, row]` of the gradient and of the maps.
///
/// # Panics
/// If a slice does not fit.
pub fn take_slot(
    isa: Isa,
    dx: &[f32],
    x: ChannelView<'_>,
    channels: Range<usize>,
    line: StatisticsGradient<'_>,
    out: &mut [f32],
) {
    let (rows, width) = (x.num_rows(), channels.len());
    assert!(channels.end <= x.channels && dx.len() == x.data.len() && out.len() == rows * width);
    assert!([line.offset, line.slope, line.mean].iter().all(|vector| vector.len() == width));
    if out.is_empty() {
        return;
    }
    let piece = (PIECE / x.row).max(1);
    out.par_chunks_mut(piece * width).enumerate().for_each(|(i, out)| {
        isa.dispatch(Take { dx, x, start: i * piece * x.row + channels.start, line, width, out });
    });
}

/// Rows before which one is asked for.
const PREFETCH_DISTANCE: usize = 12;

struct Take<'a, 'b> {
    dx: &'a [f32],
    x: ChannelView<'a>,
    /// Where the channels of the first row are.
    start: usize,
    line: StatisticsGradient<'a>,
    width: usize,
    out: &'b mut [f32],
}

impl Task for Take<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Take { dx, x, start, line: StatisticsGradient { offset, slope, mean }, width, out } = self;
        let rows = out.len() / width;
        assert!(rows > 0 && start + (rows - 1) * x.row + width <= dx.len().min(x.data.len()));
        assert!(
            out.len() == rows * width && [offset, slope, mean].iter().all(|vector| vector.len() == width)
        );
        // In whole vectors, the last columns first: what is written behind a row belongs to the next one, and is written there later.
        for column in (0..width).step_by(S::LANES).rev() {
            let count = (width - column).min(S::LANES);
            // SAFETY: the asserts say that `count` numbers from `column` on are within the vectors and each row.
            unsafe {
                let load = |from: &[f32], at: usize| simd.load_up_to(from.as_ptr().add(at), count);
                let [offset, slope, mean] = [offset, slope, mean].map(|vector| load(vector, column));
                for row in 0..rows {
                    let from = start + row * x.row + column;
                    // Short pieces of distant rows, which the hardware does not see coming.
                    for matrix in [x.data, dx] {
                        let next = matrix.as_ptr().wrapping_add(from + PREFETCH_DISTANCE * x.row);
                        prefetch(next);
                        prefetch(next.wrapping_add(count - 1));
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
