//! The largest of a window.

use super::Pool2d;
use super::gather::{Gather, Map, Reach, run};
use crate::Isa;
use std::hint::select_unpredictable;

/// `y` = the largest number of each window, and `argmax` its position in the window (`row * kernel[1] + column`), if asked for.
///
/// As in PyTorch: padding is -inf, the first of equals wins, and NaN is larger than any number. A window that holds padding
/// alone gives -inf. Panics if the sizes do not fit, as all kernels of this file do.
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
    fn gather<const L: usize>(self, reach: Reach, channel: usize) -> ([f32; L], [u16; L]) {
        let Reach { image, rows, columns } = reach;
        let [height, width] = self.kernel;
        let empty = rows.len == 0 || columns.len == 0;
        // No position of a window is equal to its size, so the gradient of an empty window goes nowhere.
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

/// `dx` = the sum of `dy` over the windows in which a number was the largest, by [`max_pool2d`]'s `argmax`.
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
    fn gather<const L: usize>(self, reach: Reach, channel: usize) -> ([f32; L], [u16; L]) {
        let Reach { image, rows, columns } = reach;
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
