//! The loops that all kernels of pooling share.

use super::{Pool2d, Span};
use crate::parallel::{PIECE, for_each_piece};
use crate::rows::{Columns, over_columns};
use crate::simd::Simd;
use crate::{Isa, Task};

/// The source pixels of a pixel of the result: rows and columns of an image.
#[derive(Clone, Copy)]
pub(super) struct Window {
    pub(super) image: usize,
    pub(super) rows: Span,
    pub(super) columns: Span,
}

/// The computation of a pixel of the result.
pub(super) trait Gather: Copy + Send + Sync {
    /// Returns `L` channels of the pixel, from `channel` on, and their positions, which are
    /// discarded if the caller needs none. Mark it `#[inline(always)]`.
    fn gather<const L: usize>(self, window: Window, channel: usize) -> ([f32; L], [u16; L]);
}

/// A map `[image, row, column, channel]` that a [`Gather`] reads.
#[derive(Clone, Copy)]
pub(super) struct Map<'a, T> {
    data: &'a [T],
    height: usize,
    width: usize,
    channels: usize,
}

impl<T> Map<'_, T> {
    /// Returns `L` channels of a pixel, from `channel` on.
    #[inline(always)]
    pub(super) fn at<const L: usize>(
        &self,
        image: usize,
        row: usize,
        column: usize,
        channel: usize,
    ) -> &[T; L] {
        let start = ((image * self.height + row) * self.width + column) * self.channels + channel;
        self.data[start..].first_chunk().expect("a pixel inside the map")
    }
}

impl<'a, T> Map<'a, T> {
    /// Returns the map of the input's size.
    pub(super) fn input(pool: &Pool2d, data: &'a [T]) -> Map<'a, T> {
        assert_eq!(data.len(), pool.input_len(), "an input of the pooling's size");
        Map { data, height: pool.height, width: pool.width, channels: pool.channels }
    }

    /// Returns the map of the result's size.
    pub(super) fn output(pool: &Pool2d, data: &'a [T]) -> Map<'a, T> {
        assert_eq!(data.len(), pool.output_len(), "an output of the pooling's size");
        Map { data, height: pool.out_height(), width: pool.out_width(), channels: pool.channels }
    }
}

/// Computes the result of a gather, whose rows and columns have these spans, in parallel.
pub(super) fn run<G: Gather>(
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
    for_each_piece((out, positions), row * (PIECE / row).max(1), |start, (out, positions)| {
        isa.dispatch(Rows { channels, spans, gather, first_row: start / row, out, positions });
    });
}

/// The task that computes some rows of the result, where the rows of all images are numbered in
/// order.
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
                let window =
                    Window { image: row / rows.len(), rows: rows[row % rows.len()], columns: *column };
                over_columns(self.channels, &mut Pixel { all: &mut self, window, pixel });
                pixel += 1;
            }
        }
    }
}

/// A pixel of these rows, and its source pixels.
struct Pixel<'a, 'b, G> {
    all: &'a mut Rows<'b, G>,
    window: Window,
    pixel: usize,
}

impl<G: Gather> Columns for Pixel<'_, '_, G> {
    #[inline(always)]
    fn columns<const L: usize>(&mut self, channel: usize) {
        let (values, indices) = self.all.gather.gather::<L>(self.window, channel);
        let start = self.pixel * self.all.channels + channel;
        self.all.out[start..start + L].copy_from_slice(&values);
        if let Some(positions) = &mut self.all.positions {
            positions[start..start + L].copy_from_slice(&indices);
        }
    }
}
