//! Average pooling.

use super::Pool2d;
use super::gather::{Gather, Map, Window, run};
use crate::Isa;

/// Computes the mean `y` of each window. Padding counts as zeros if `count_include_pad` (PyTorch's
/// default), else not at all.
///
/// # Panics
/// If the sizes do not fit.
pub fn avg_pool2d(isa: Isa, pool: &Pool2d, count_include_pad: bool, x: &[f32], y: &mut [f32]) {
    pool.assert_valid();
    assert_eq!(y.len(), pool.output_len(), "an output of the pooling's size");
    let spans = [pool.forward_spans(0), pool.forward_spans(1)];
    let size = count_include_pad.then_some((pool.kernel[0] * pool.kernel[1]) as f32);
    run(isa, pool.channels, [&spans[0], &spans[1]], Mean { x: Map::input(pool, x), size }, y, None);
}

#[derive(Clone, Copy)]
struct Mean<'a> {
    x: Map<'a, f32>,
    /// The divisor of every window; if `None`, it is the number of its pixels inside the image.
    size: Option<f32>,
}

impl Gather for Mean<'_> {
    #[inline(always)]
    fn gather<const L: usize>(self, window: Window, channel: usize) -> ([f32; L], [u16; L]) {
        let Window { image, rows, columns } = window;
        let mut sum = [0.0; L];
        for (row, _) in rows.pixels() {
            for (column, _) in columns.pixels() {
                let x = self.x.at::<L>(image, row, column, channel);
                for l in 0..L {
                    sum[l] += x[l];
                }
            }
        }
        let size = self.size.unwrap_or((rows.len * columns.len).max(1) as f32);
        (sum.map(|sum| sum / size), [0; L])
    }
}

/// Computes `dx`, for every element of x the sum of `dy` / size over the windows that contain it,
/// with `count_include_pad` as in [`avg_pool2d`].
///
/// # Panics
/// If the sizes do not fit.
pub fn avg_pool2d_backward(isa: Isa, pool: &Pool2d, count_include_pad: bool, dy: &[f32], dx: &mut [f32]) {
    pool.assert_valid();
    assert_eq!(dx.len(), pool.input_len(), "an input of the pooling's size");
    let spans = [pool.backward_spans(0), pool.backward_spans(1)];
    let sizes = |axis: usize| -> Vec<f32> {
        let inside = pool.forward_spans(axis);
        inside.iter().map(|s| if count_include_pad { pool.kernel[axis] } else { s.len } as f32).collect()
    };
    let (heights, widths) = (sizes(0), sizes(1));
    let gather = MeanBackward { dy: Map::output(pool, dy), heights: &heights, widths: &widths };
    run(isa, pool.channels, [&spans[0], &spans[1]], gather, dx, None);
}

#[derive(Clone, Copy)]
struct MeanBackward<'a> {
    dy: Map<'a, f32>,
    heights: &'a [f32],
    widths: &'a [f32],
}

impl Gather for MeanBackward<'_> {
    #[inline(always)]
    fn gather<const L: usize>(self, window: Window, channel: usize) -> ([f32; L], [u16; L]) {
        let Window { image, rows, columns } = window;
        let mut sum = [0.0; L];
        for (row, _) in rows.pixels() {
            for (column, _) in columns.pixels() {
                let dy = self.dy.at::<L>(image, row, column, channel);
                let share = 1.0 / (self.heights[row] * self.widths[column]);
                for l in 0..L {
                    sum[l] += dy[l] * share;
                }
            }
        }
        (sum, [0; L])
    }
}
