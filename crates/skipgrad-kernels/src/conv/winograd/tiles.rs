//! Where tiles lie in images, how they are read in strips, and how one is written.

use super::transforms::Transform;
use super::{INPUTS, OUTPUTS};
use crate::simd::{Simd, prefetch};
use std::array::from_fn;
use std::ops::Range;

/// The size of an image: `[height, width, channels]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Image {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    /// Numbers from a pixel to the next.
    pub(super) pixel: usize,
}

impl Image {
    /// One whose pixels lie side by side.
    pub(super) fn new(height: usize, width: usize, channels: usize) -> Image {
        Image { height, width, channels, pixel: channels }
    }
}

/// The tiles of a batch, counted image by image and line by line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tiles {
    pub(super) images: usize,
    pub(super) lines: usize,
    pub(super) columns: usize,
    /// Pixels of a tile in a line.
    outputs: usize,
}

impl Tiles {
    /// The tiles of `outputs` x `outputs` that cover the outputs, `height` x `width`.
    pub(super) fn covering(images: usize, height: usize, width: usize, outputs: usize) -> Tiles {
        let [lines, columns] = [height, width].map(|size| size.div_ceil(outputs));
        Tiles { images, lines, columns, outputs }
    }

    pub(super) fn count(&self) -> usize {
        self.images * self.lines * self.columns
    }

    /// Those of `tiles` that lie side by side in a line, strip after strip, at most [`STRIP`] of them in one.
    #[inline(always)]
    pub(super) fn strips(&self, tiles: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let (columns, mut rest) = (self.columns, tiles);
        std::iter::from_fn(move || {
            let line = (rest.start / columns + 1) * columns;
            let strip = rest.start..rest.end.min(line).min(rest.start + STRIP);
            rest.start = strip.end;
            (!strip.is_empty()).then_some(strip)
        })
    }

    /// The pixels of tiles that lie side by side in a batch of images: `size` x `size` of each, so many `before` the first output.
    #[inline(always)]
    pub(super) fn window(
        &self,
        tiles: Range<usize>,
        image: Image,
        size: usize,
        before: [isize; 2],
    ) -> Window {
        let (line, column) = (tiles.start / self.columns, tiles.start % self.columns);
        let (index, line) = (line / self.lines, line % self.lines);
        let y = (line * self.outputs) as isize - before[0];
        let x = (column * self.outputs) as isize - before[1];
        let first = (index * image.height) as isize + y;
        let width = (tiles.len() - 1) * self.outputs + size;
        let inside = |start: isize, size: usize, len: usize| {
            let bound = |edge: isize| (edge - start).clamp(0, size as isize) as usize;
            [bound(0), bound(len as isize)]
        };
        Window {
            first: (first * image.width as isize + x) * image.pixel as isize,
            line: image.width * image.pixel,
            pixel: image.pixel,
            width,
            step: self.outputs,
            rows: inside(y, size, image.height),
            columns: inside(x, width, image.width),
        }
    }

    /// Where the pixels of some tiles of outputs start, those inside of the image.
    pub(super) fn pixels(&self, tiles: Range<usize>, image: Image) -> Vec<usize> {
        let mut offsets = Vec::with_capacity(tiles.len() * self.outputs * self.outputs);
        for tile in tiles {
            let window = self.window(tile..tile + 1, image, self.outputs, [0, 0]);
            let Window { first, line, pixel, rows, columns, .. } = window;
            for row in rows[0]..rows[1] {
                let start = first as usize + row * line;
                offsets.extend((columns[0]..columns[1]).map(|column| start + column * pixel));
            }
        }
        offsets
    }
}

/// Most tiles of a strip: what is read and written for a vector of channels, and again for the next one of the same cache lines,
/// is to stay in the first-level cache.
const STRIP: usize = 4;
/// Most columns of pixels of a strip.
const STRIP_COLUMNS: usize = (STRIP - 1) * OUTPUTS + INPUTS;

/// The pixels of tiles side by side in an image, some of which may lie outside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Where its first pixel is, or would be.
    first: isize,
    /// Numbers from a line to the next.
    line: usize,
    /// Numbers from a pixel to the next.
    pixel: usize,
    /// Columns of pixels.
    width: usize,
    /// Columns from a tile to the next.
    step: usize,
    /// From which of its lines to before which it is inside of the image.
    rows: [usize; 2],
    /// From which of its columns to before which it is inside of the image.
    columns: [usize; 2],
}

/// Channels of an image, at most a vector of them.
#[derive(Clone, Copy)]
pub(super) struct Channels {
    /// Where the image starts, plus the first of the channels.
    pub(super) first: *const f32,
    pub(super) count: usize,
    /// How far behind each number the one is whose cache line is to be asked for, if any is.
    pub(super) ahead: Option<isize>,
}

/// Where the values of tiles at the points go.
#[derive(Clone, Copy)]
pub(super) struct Panels {
    /// The first point of the first tile.
    pub(super) first: *mut f32,
    /// Numbers from a tile to the next.
    pub(super) tile: usize,
    /// Numbers from a point to the next.
    pub(super) point: usize,
}

/// Columns of pixels of a strip, each transformed to its values at `P` points.
pub(super) struct Columns<S: Simd, const P: usize>([[S::Vector; P]; STRIP_COLUMNS]);

impl<S: Simd, const P: usize> Columns<S, P> {
    #[inline(always)]
    pub(super) fn new(simd: S) -> Self {
        Columns([[simd.splat(0.0); P]; STRIP_COLUMNS])
    }
}

impl Window {
    /// Transforms tiles of `I` x `I` pixels to their values at `P` x `P` points, pixels behind `map` where they are inside of the
    /// image, zero outside. Neighboring tiles share columns of pixels, each of which is transformed once; `columns` is module for
    /// them.
    ///
    /// # Safety
    /// The image is the one that the window was made for, and has the channels. A whole vector is writable at every tile and
    /// point of the panels.
    #[inline(always)]
    pub(super) unsafe fn transform<S, T, const I: usize, const P: usize>(
        &self,
        simd: S,
        channels: Channels,
        map: impl Fn(S::Vector) -> S::Vector,
        columns: &mut Columns<S, P>,
        to: Panels,
    ) where
        S: Simd,
        T: Transform<I, P>,
    {
        let columns = &mut columns.0[..self.width];
        columns[..self.columns[0]].fill([simd.splat(0.0); P]);
        columns[self.columns[1]..].fill([simd.splat(0.0); P]);
        for column in self.columns[0]..self.columns[1] {
            let from = channels.first.wrapping_offset(self.first + (column * self.pixel) as isize);
            let mut pixels = [simd.splat(0.0); I];
            for (row, pixel) in pixels.iter_mut().enumerate() {
                if self.rows[0] <= row && row < self.rows[1] {
                    let from = from.wrapping_add(row * self.line);
                    if let Some(ahead) = channels.ahead {
                        prefetch(from.wrapping_offset(ahead));
                    }
                    // SAFETY: the pixel lies inside of the image.
                    *pixel = map(unsafe { simd.load_up_to(from, channels.count) });
                }
            }
            columns[column] = T::apply(simd, pixels);
        }
        for (tile, columns) in columns.windows(I).step_by(self.step).enumerate() {
            let first = to.first.wrapping_add(tile * to.tile);
            let rows: [[S::Vector; I]; P] = from_fn(|i| from_fn(|j| columns[j][i]));
            for (i, row) in rows.into_iter().enumerate() {
                for (j, value) in T::apply(simd, row).into_iter().enumerate() {
                    // SAFETY: as promised.
                    unsafe { simd.store(first.wrapping_add((i * P + j) * to.point), value) };
                }
            }
        }
    }

    /// Writes `channels` (at most a vector) of a row of pixels, those inside of the image, each as
    /// `end` makes it of the value and its place.
    ///
    /// # Safety
    /// `images` is what the window was made for, and the channels of its pixels are writable.
    #[inline(always)]
    pub(super) unsafe fn write<S: Simd, const O: usize>(
        &self,
        simd: S,
        images: *mut f32,
        channels: Range<usize>,
        row: usize,
        values: [S::Vector; O],
        end: impl Fn(S::Vector, usize) -> S::Vector,
    ) {
        if self.rows[0] <= row && row < self.rows[1] {
            let first = self.first + (row * self.line + channels.start) as isize;
            for (column, value) in values.into_iter().enumerate() {
                if self.columns[0] <= column && column < self.columns[1] {
                    let at = (first + (column * self.pixel) as isize) as usize;
                    let (to, value) = (images.wrapping_add(at), end(value, at));
                    // SAFETY: the pixel lies inside of the image.
                    unsafe { simd.store_up_to(to, value, channels.len()) };
                }
            }
        }
    }
}
