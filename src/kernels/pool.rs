//! Pooling of `x[N, H, W, C]` over windows of pixels, every channel by itself.
//!
//! All four kernels, the gradients too, are gathers: each number of the result is made from the few pixels that reach it, so
//! results are written once, threads share nothing, and sums have one order. The loops are
//!
//! ```text
//! for every row of the result, in parallel            (of all images)
//!   for every pixel of the row
//!     for 16 (then 8, 4, 1)    of its channels          in registers
//!       for every row and column that reach the pixel
//! ```
//!
//! Which pixels reach a pixel is a product of the two axes ([`Span`]), found once a row and once a column.

use super::elementwise::PIECE;
use super::rows::{Columns, over_columns};
use super::simd::Simd;
use super::{Isa, Task};
use rayon::prelude::*;
use std::hint::select_unpredictable;

/// Sizes of a pooling of `x[batch, height, width, channels]`; pairs are (vertical, horizontal).
///
/// ```
/// use skipgrad::kernels::{Isa, Pool2d, max_pool2d};
/// let pool = Pool2d {
///     batch: 1, height: 2, width: 4, channels: 1, kernel: [2, 2], stride: [2, 2], padding: [[0, 0]; 2],
/// };
/// let mut y = [0.0; 2];
/// max_pool2d(Isa::active(), &pool, &[1.0, 2.0, 5.0, 6.0, 3.0, 4.0, 8.0, 7.0], &mut y, None);
/// assert_eq!(y, [4.0, 8.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool2d {
    /// Images.
    pub batch: usize,
    /// Rows of an image.
    pub height: usize,
    /// Columns of an image.
    pub width: usize,
    /// Channels of a pixel.
    pub channels: usize,
    /// Rows and columns of a window, at most 65 535 pixels together.
    pub kernel: [usize; 2],
    /// Rows and columns from a window to the next, at least 1.
    pub stride: [usize; 2],
    /// Rows above and below the image, columns left and right of it.
    pub padding: [[usize; 2]; 2],
}

impl Pool2d {
    /// Rows of the result: (height + padding - kernel) / stride + 1, or 0 where the window is larger than the padded image.
    pub fn out_height(&self) -> usize {
        self.out_size(0, self.height)
    }

    /// Columns of the result.
    pub fn out_width(&self) -> usize {
        self.out_size(1, self.width)
    }

    /// Numbers in x.
    pub fn input_len(&self) -> usize {
        self.batch * self.height * self.width * self.channels
    }

    /// Numbers in the result.
    pub fn output_len(&self) -> usize {
        self.batch * self.out_height() * self.out_width() * self.channels
    }

    fn out_size(&self, axis: usize, size: usize) -> usize {
        let [before, after] = self.padding[axis];
        let room = (size + before + after).checked_sub(self.kernel[axis]);
        room.map_or(0, |room| room / self.stride[axis] + 1)
    }

    fn assert_valid(&self) {
        assert!(self.stride.iter().all(|&s| s > 0), "a stride of 0");
        assert!(
            self.kernel[0] * self.kernel[1] <= usize::from(u16::MAX),
            "a window of more than 65535 pixels"
        );
    }

    /// For every row (axis 0) or column (axis 1) of the result, what reaches it.
    fn forward_spans(&self, axis: usize) -> Vec<Span> {
        let size = [self.height, self.width][axis];
        let (kernel, before) = (self.kernel[axis], self.padding[axis][0]);
        let span = |out: usize| {
            let start = out * self.stride[axis];
            let first = before.saturating_sub(start).min(kernel);
            let end = (size + before).saturating_sub(start).min(kernel);
            let len = end.saturating_sub(first);
            Span { source: (start + first).saturating_sub(before), position: first, len, step: 1 }
        };
        (0..self.out_size(axis, size)).map(span).collect()
    }

    /// For every row or column of x, the rows or columns of the result that it reaches.
    fn backward_spans(&self, axis: usize) -> Vec<Span> {
        let size = [self.height, self.width][axis];
        let (kernel, stride, before) = (self.kernel[axis], self.stride[axis], self.padding[axis][0]);
        let outputs = self.out_size(axis, size);
        let span = |at: usize| {
            let at = at + before;
            let first = (at + 1).saturating_sub(kernel).div_ceil(stride);
            let end = outputs.min(at / stride + 1);
            let len = end.saturating_sub(first);
            Span { source: first, position: at.saturating_sub(first * stride), len, step: -(stride as isize) }
        };
        (0..size).map(span).collect()
    }
}

/// What reaches a pixel along an axis: pixels `source`, `source + 1`, …, at the positions `position`, `position + step`, … of
/// their common window or of their windows.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Span {
    source: usize,
    position: usize,
    len: usize,
    step: isize,
}

impl Span {
    #[inline(always)]
    fn pixels(self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.len)
            .map(move |i| (self.source + i, self.position.wrapping_add_signed(i as isize * self.step)))
    }
}

/// How `L` channels of a pixel of the result are made; `image` is the image's number, `channel` the first of the channels.
/// The second array is kept where positions are asked for.
trait Gather: Copy + Send + Sync {
    fn gather<const L: usize>(
        self,
        image: usize,
        rows: Span,
        columns: Span,
        channel: usize,
    ) -> ([f32; L], [u16; L]);
}

/// A map `[image, row, column, channel]` that a [`Gather`] reads.
#[derive(Clone, Copy)]
struct Map<'a, T> {
    data: &'a [T],
    height: usize,
    width: usize,
    channels: usize,
}

impl<T> Map<'_, T> {
    #[inline(always)]
    fn at<const L: usize>(&self, image: usize, row: usize, column: usize, channel: usize) -> &[T; L] {
        let start = ((image * self.height + row) * self.width + column) * self.channels + channel;
        self.data[start..].first_chunk().expect("a pixel inside of the map")
    }
}

impl<'a, T> Map<'a, T> {
    fn input(pool: &Pool2d, data: &'a [T]) -> Map<'a, T> {
        assert_eq!(data.len(), pool.input_len(), "an input of the pooling's size");
        Map { data, height: pool.height, width: pool.width, channels: pool.channels }
    }

    fn output(pool: &Pool2d, data: &'a [T]) -> Map<'a, T> {
        assert_eq!(data.len(), pool.output_len(), "an output of the pooling's size");
        Map { data, height: pool.out_height(), width: pool.out_width(), channels: pool.channels }
    }
}

/// Makes the result of a gather, with the spans of its rows and columns, in parallel.
fn run<G: Gather>(
    isa: Isa,
    channels: usize,
    spans: [&[Span]; 2],
    gather: G,
    out: &mut [f32],
    positions: Option<&mut [u16]>,
) {
    let row = spans[1].len() * channels;
    if row == 0 || out.is_empty() {
        return;
    }
    let size = row * (PIECE / row).max(1);
    let piece = |i: usize, out: &mut [f32], positions: Option<&mut [u16]>| {
        isa.dispatch(Rows { channels, spans, gather, first_row: i * size / row, out, positions });
    };
    match positions {
        _ if out.len() <= size => piece(0, out, positions),
        None => out.par_chunks_mut(size).enumerate().for_each(|(i, out)| piece(i, out, None)),
        Some(positions) => {
            let pieces = out.par_chunks_mut(size).zip(positions.par_chunks_mut(size)).enumerate();
            pieces.for_each(|(i, (out, positions))| piece(i, out, Some(positions)));
        }
    }
}

/// Some rows of a result, of all images one below the other.
struct Rows<'a, G> {
    channels: usize,
    spans: [&'a [Span]; 2],
    gather: G,
    first_row: usize,
    out: &'a mut [f32],
    positions: Option<&'a mut [u16]>,
}

impl<G: Gather> Task for Rows<'_, G> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, _: S) {
        let [rows, columns] = self.spans;
        let mut pixel = 0;
        while pixel * self.channels < self.out.len() {
            let row = self.first_row + pixel / columns.len();
            for column in columns {
                let at = (row / rows.len(), rows[row % rows.len()], *column);
                over_columns(self.channels, &mut Pixel { all: &mut self, at, pixel });
                pixel += 1;
            }
        }
    }
}

/// A pixel of these rows, and what reaches it in which image.
struct Pixel<'a, 'b, G> {
    all: &'a mut Rows<'b, G>,
    at: (usize, Span, Span),
    pixel: usize,
}

impl<G: Gather> Columns for Pixel<'_, '_, G> {
    #[inline(always)]
    fn columns<const L: usize>(&mut self, channel: usize) {
        let (image, rows, columns) = self.at;
        let (values, indices) = self.all.gather.gather::<L>(image, rows, columns, channel);
        let start = self.pixel * self.all.channels + channel;
        self.all.out[start..start + L].copy_from_slice(&values);
        if let Some(positions) = &mut self.all.positions {
            positions[start..start + L].copy_from_slice(&indices);
        }
    }
}

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
    fn gather<const L: usize>(
        self,
        image: usize,
        rows: Span,
        columns: Span,
        channel: usize,
    ) -> ([f32; L], [u16; L]) {
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
    fn gather<const L: usize>(
        self,
        image: usize,
        rows: Span,
        columns: Span,
        channel: usize,
    ) -> ([f32; L], [u16; L]) {
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

/// `y` = the mean of each window; padding counts as zeros if `count_include_pad` (PyTorch's default), else not at all.
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
    /// Of every window; its pixels inside of the image if `None`.
    size: Option<f32>,
}

impl Gather for Mean<'_> {
    #[inline(always)]
    fn gather<const L: usize>(
        self,
        image: usize,
        rows: Span,
        columns: Span,
        channel: usize,
    ) -> ([f32; L], [u16; L]) {
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

/// `dx` = the sum of `dy` / size over the windows that a number is in; `count_include_pad` as in [`avg_pool2d`].
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
    fn gather<const L: usize>(
        self,
        image: usize,
        rows: Span,
        columns: Span,
        channel: usize,
    ) -> ([f32; L], [u16; L]) {
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

#[cfg(test)]
mod tests {
    use super::super::testing::{Guarded, assert_close, each_isa, normals, same_on_any_threads};
    use super::*;

    fn pools() -> Vec<Pool2d> {
        let mut pools = Vec::new();
        for channels in [1, 3, 7, 8, 16, 24, 33] {
            for (height, width) in [(1, 1), (5, 7), (8, 8), (9, 4)] {
                for (kernel, stride, padding) in [
                    ([1, 1], [1, 1], [[0, 0], [0, 0]]),
                    ([2, 2], [2, 2], [[0, 0], [0, 0]]),
                    ([3, 3], [2, 2], [[1, 1], [1, 1]]),
                    ([3, 2], [1, 3], [[1, 0], [0, 1]]),
                    ([2, 5], [3, 1], [[0, 3], [2, 2]]),
                    ([2, 2], [1, 1], [[3, 3], [3, 3]]),
                ] {
                    pools.push(Pool2d { batch: 2, height, width, channels, kernel, stride, padding });
                }
            }
        }
        pools
    }

    /// Calls `f(output, position, input)` for every pair of numbers where the window of one holds the other, in window order.
    fn for_each_pair(pool: &Pool2d, mut f: impl FnMut(usize, usize, usize)) {
        let p = pool;
        for n in 0..p.batch {
            for oh in 0..p.out_height() {
                for ow in 0..p.out_width() {
                    for position in 0..p.kernel[0] * p.kernel[1] {
                        let h = (oh * p.stride[0] + position / p.kernel[1]).wrapping_sub(p.padding[0][0]);
                        let w = (ow * p.stride[1] + position % p.kernel[1]).wrapping_sub(p.padding[1][0]);
                        if h < p.height && w < p.width {
                            for c in 0..p.channels {
                                let y = ((n * p.out_height() + oh) * p.out_width() + ow) * p.channels + c;
                                let x = ((n * p.height + h) * p.width + w) * p.channels + c;
                                f(y, position, x);
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn max_pool_is_the_first_largest_of_each_window_and_its_gradient_goes_there() {
        for isa in each_isa() {
            for pool in pools() {
                // Small integers, so that there are many equals.
                let x: Vec<f32> = normals(pool.input_len(), 1).into_iter().map(f32::round).collect();
                let dy = normals(pool.output_len(), 2);
                let mut best = vec![(f32::NEG_INFINITY, u16::MAX, 0); dy.len()];
                for_each_pair(&pool, |y, position, i| {
                    if x[i] > best[y].0 {
                        best[y] = (x[i], position as u16, i);
                    }
                });
                let mut gradient = vec![0.0; x.len()];
                for (&(_, position, i), &dy) in best.iter().zip(&dy) {
                    if position < u16::MAX {
                        gradient[i] += f64::from(dy);
                    }
                }
                let (mut y, mut argmax) = (Guarded::new(dy.len()), vec![7; dy.len()]);
                max_pool2d(isa, &pool, &x, &mut y, Some(&mut argmax));
                for (o, &(value, position, _)) in best.iter().enumerate() {
                    assert_eq!(y[o], value, "{isa:?} {pool:?}");
                    assert!(position == u16::MAX || argmax[o] == position, "{isa:?} {pool:?}");
                }
                let mut again = Guarded::new(dy.len());
                max_pool2d(isa, &pool, &x, &mut again, None);
                assert_eq!(y[..], again[..]);
                let mut dx = Guarded::new(x.len());
                max_pool2d_backward(isa, &pool, &argmax, &dy, &mut dx);
                assert_close(&dx, &gradient, 1e-6, "max gradient");
            }
        }
    }

    #[test]
    fn average_pool_is_the_mean_of_each_window_and_its_gradient_is_shared() {
        for isa in each_isa() {
            for pool in pools() {
                for count_include_pad in [false, true] {
                    let x = normals(pool.input_len(), 1);
                    let dy = normals(pool.output_len(), 2);
                    let (mut sums, mut counts) = (vec![0.0; dy.len()], vec![0.0f64; dy.len()]);
                    for_each_pair(&pool, |y, _, i| {
                        sums[y] += f64::from(x[i]);
                        counts[y] += 1.0;
                    });
                    for count in &mut counts {
                        let full = (pool.kernel[0] * pool.kernel[1]) as f64;
                        *count = if count_include_pad { full } else { count.max(1.0) };
                    }
                    let means: Vec<f64> = sums.iter().zip(&counts).map(|(sum, count)| sum / count).collect();
                    let mut gradient = vec![0.0; x.len()];
                    for_each_pair(&pool, |y, _, i| gradient[i] += f64::from(dy[y]) / counts[y]);

                    let (mut y, mut dx) = (Guarded::new(dy.len()), Guarded::new(x.len()));
                    avg_pool2d(isa, &pool, count_include_pad, &x, &mut y);
                    assert_close(&y, &means, 1e-6, "mean");
                    avg_pool2d_backward(isa, &pool, count_include_pad, &dy, &mut dx);
                    assert_close(&dx, &gradient, 1e-6, "mean gradient");
                }
            }
        }
    }

    #[test]
    fn nan_is_larger_than_any_number_and_a_window_of_infinities_has_a_position() {
        let pool = Pool2d {
            batch: 1,
            height: 1,
            width: 4,
            channels: 1,
            kernel: [1, 2],
            stride: [1, 2],
            padding: [[0, 0]; 2],
        };
        for isa in each_isa() {
            let (mut y, mut argmax) = ([0.0; 2], [9; 2]);
            let x = [f32::NEG_INFINITY, f32::NEG_INFINITY, f32::NAN, 1.0];
            max_pool2d(isa, &pool, &x, &mut y, Some(&mut argmax));
            assert!(y[0] == f32::NEG_INFINITY && y[1].is_nan());
            assert_eq!(argmax, [0, 0]);
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let pool = Pool2d {
            batch: 5,
            height: 40,
            width: 40,
            channels: 24,
            kernel: [3, 3],
            stride: [2, 2],
            padding: [[1, 1]; 2],
        };
        let x = normals(pool.input_len(), 1);
        let isa = Isa::active();
        same_on_any_threads(|| {
            let (mut y, mut argmax) = (vec![0.0; pool.output_len()], vec![0; pool.output_len()]);
            let mut dx = vec![0.0; x.len()];
            max_pool2d(isa, &pool, &x, &mut y, Some(&mut argmax));
            max_pool2d_backward(isa, &pool, &argmax, &y, &mut dx);
            [y, dx].concat()
        });
    }
}
