//! Max pooling.

use super::Pool2d;
use super::gather::{Gather, Map, Window, run};
use crate::Isa;
use std::hint::select_unpredictable;

/// Computes the maximum `y` of each window and, if given, the position `argmax` of the maximum in
/// the window (`row * kernel[1] + column`).
///
/// As in PyTorch, padding is -inf, the first of equal elements wins, and NaN is larger than any
/// number. The maximum of a window with padding alone is -inf.
///
/// # Panics
/// If the sizes do not fit.
pub fn max_pool2d(isa: Isa, pool: &Pool2d, x: &[f32], y: &mut [f32], argmax: Option<&mut [u16]>) {
    pool.assert_valid();
    assert_eq!(y.len(), pool.output_len(), "an output of the pooling's size");
    assert!(argmax.as_ref().is_none_or(|a| a.len() == y.len()), "a position for every output");
    let spans = [pool.forward_spans(0), pool.forward_spans(1)];
    let gather = Max { x: Map::input(pool, x), kernel: pool.kernel };
    run(isa, pool.channels, [&spans[0], &spans[1]], gather, y, argmax);
}

#[derive(Clone, Copy)]
struct Max<'a> {
    x: Map<'a, f32>,
    kernel: [usize; 2],
}

impl Gather for Max<'_> {
    #[inline(always)]
    fn gather<const L: usize>(self, window: Window, channel: usize) -> ([f32; L], [u16; L]) {
        let Window { image, rows, columns } = window;
        let [height, width] = self.kernel;
        let empty = rows.len == 0 || columns.len == 0;
        // No position in a window is equal to the window's size, so that nothing receives the
        // gradient of an empty window.
        let first = if empty { height * width } else { rows.position * width + columns.position };
        let (mut best, mut index) = ([f32::NEG_INFINITY; L], [first as u32; L]);
        for (row, i) in rows.pixels() {
            for (column, j) in columns.pixels() {
                let x = self.x.at::<L>(image, row, column, channel);
                let position = (i * width + j) as u32;
                for l in 0..L {
                    let larger = x[l] > best[l] || x[l].is_nan();
                    best[l] = select_unpredictable(larger, x[l], best[l]);
                    index[l] = select_unpredictable(larger, position, index[l]);
                }
            }
        }
        (best, index.map(|i| i as u16))
    }
}

/// Computes `dx`, for every element of x the sum of `dy` over the windows whose maximum it was,
/// according to the `argmax` of [`max_pool2d`].
///
/// # Panics
/// If the sizes do not fit.
pub fn max_pool2d_backward(isa: Isa, pool: &Pool2d, argmax: &[u16], dy: &[f32], dx: &mut [f32]) {
    pool.assert_valid();
    assert_eq!(dx.len(), pool.input_len(), "an input of the pooling's size");
    let spans = [pool.backward_spans(0), pool.backward_spans(1)];
    let gather = MaxBackward {
        argmax: Map::output(pool, argmax),
        dy: Map::output(pool, dy),
        kernel_width: pool.kernel[1],
    };
    run(isa, pool.channels, [&spans[0], &spans[1]], gather, dx, None);
}

#[derive(Clone, Copy)]
struct MaxBackward<'a> {
    argmax: Map<'a, u16>,
    dy: Map<'a, f32>,
    kernel_width: usize,
}

impl Gather for MaxBackward<'_> {
    #[inline(always)]
    fn gather<const L: usize>(self, window: Window, channel: usize) -> ([f32; L], [u16; L]) {
        let Window { image, rows, columns } = window;
        let mut sum = [0.0; L];
        for (row, i) in rows.pixels() {
            for (column, j) in columns.pixels() {
                let position = (i * self.kernel_width + j) as u32;
                let argmax = self.argmax.at::<L>(image, row, column, channel);
                let dy = self.dy.at::<L>(image, row, column, channel);
                for l in 0..L {
                    sum[l] += select_unpredictable(u32::from(argmax[l]) == position, dy[l], 0.0);
                }
            }
        }
        (sum, [0; L])
    }
}
