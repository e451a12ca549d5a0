//! Where tiles lie in images, how they are read in strips, and how one of them is written.

use super::transforms::Transform;
use super::{INPUTS, OUTPUTS};
use crate::prefetch::{Cache, prefetch};
use crate::simd::Simd;
use std::array::from_fn;
use std::ops::Range;

/// The size of an image, `[height, width, channels]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Image {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) channels: usize,
    /// Elements from one pixel to the next.
    pub(super) pixel: usize,
}

impl Image {
    /// An image whose pixels are contiguous.
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
    /// The pixels of a line of a tile.
    outputs: usize,
}

impl Tiles {
    /// The tiles of `outputs` x `outputs` that cover the outputs, `height` x `width`.
    pub(super) fn covering(images: usize, height: usize, width: usize, outputs: usize) -> Tiles {
        let [lines, columns] = [height, width].map(|size| size.div_ceil(outputs));
        Tiles { images, lines, columns, outputs }
    }

    /// Returns the number of tiles.
    pub(super) fn count(&self) -> usize {
        self.images * self.lines * self.columns
    }

    /// Divides `tiles` into strips of at most [`STRIP`] tiles that lie side by side.
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

    /// Returns the pixels of tiles that lie side by side: `size` x `size` of each, which start
    /// `before` (vertically, horizontally) the first output.
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

    /// Returns where the pixels of some tiles of outputs start, of those inside of the image.
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

/// The most tiles of a strip: the cache lines that are read and written for a vector of channels
/// are to stay in the first-level cache until the next vector of them is.
const STRIP: usize = 4;
/// The most columns of pixels of a strip.
const STRIP_COLUMNS: usize = (STRIP - 1) * OUTPUTS + INPUTS;

/// The pixels of tiles side by side in an image, some of which may lie outside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// The position of its first pixel, which may lie outside of the image.
    first: isize,
    /// Elements from one line to the next.
    line: usize,
    /// Elements from one pixel to the next.
    pixel: usize,
    /// Number of columns of pixels.
    width: usize,
    /// Columns from one tile to the next.
    step: usize,
    /// The first of its lines inside of the image, and the first after those.
    rows: [usize; 2],
    /// The first of its columns inside of the image, and the first after those.
    columns: [usize; 2],
}

/// Channels of an image, at most a vector of them.
#[derive(Clone, Copy)]
pub(super) struct Channels {
    /// The first of the channels in the first pixel of the first image.
    pub(super) first: *const f32,
    /// The number of channels.
    pub(super) count: usize,
    /// The distance, from each element that is read, of the one to prefetch, if any.
    pub(super) prefetch: Option<isize>,
}

/// The destination of the values of tiles at the points.
#[derive(Clone, Copy)]
pub(super) struct PointPanels {
    /// The element of the first point of the first tile.
    pub(super) first: *mut f32,
    /// Elements from one tile to the next.
    pub(super) tile: usize,
    /// Elements from one point to the next.
    pub(super) point: usize,
}

/// A buffer for the columns of pixels of a strip, each transformed to its values at `P` points.
pub(super) struct StripColumns<S: Simd, const P: usize>([[S::Vector; P]; STRIP_COLUMNS]);

impl<S: Simd, const P: usize> StripColumns<S, P> {
    #[inline(always)]
    pub(super) fn new(simd: S) -> Self {
        StripColumns([[simd.splat(0.0); P]; STRIP_COLUMNS])
    }
}

impl Window {
    /// Transforms tiles of `I` x `I` pixels to their values at `P` x `P` points. Pixels inside of
    /// the image are passed through `map`; those outside are zero. Neighboring tiles share columns
    /// of pixels, each of which is transformed once, into `columns`.
    ///
    /// # Safety
    /// `channels.first` must point into images of the size that the window was made for, with at
    /// least these channels. A whole vector must be writable at every tile and point of `to`.
    #[inline(always)]
    pub(super) unsafe fn transform<S, T, const I: usize, const P: usize>(
        &self,
        simd: S,
        channels: Channels,
        map: impl Fn(S::Vector) -> S::Vector,
        columns: &mut StripColumns<S, P>,
        to: PointPanels,
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
                    if let Some(distance) = channels.prefetch {
                        prefetch(Cache::L1, from.wrapping_offset(distance));
                    }
                    // SAFETY: `rows` and `columns` are the lines and columns inside of the image,
                    // and the caller guarantees that it has the channels.
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
                    // SAFETY: the caller guarantees a whole vector at every tile and point.
                    unsafe { simd.store(first.wrapping_add((i * P + j) * to.point), value) };
                }
            }
        }
    }

    /// Writes `channels` (at most a vector) of those pixels of a row that are inside of the image.
    /// `epilogue` maps each value and its position to what is written.
    ///
    /// # Safety
    /// `images` must point to images of the size that the window was made for, in whose pixels
    /// these channels are writable.
    #[inline(always)]
    pub(super) unsafe fn write<S: Simd, const O: usize>(
        &self,
        simd: S,
        images: *mut f32,
        channels: Range<usize>,
        row: usize,
        values: [S::Vector; O],
        epilogue: impl Fn(S::Vector, usize) -> S::Vector,
    ) {
        if self.rows[0] <= row && row < self.rows[1] {
            let first = self.first + (row * self.line + channels.start) as isize;
            for (column, value) in values.into_iter().enumerate() {
                if self.columns[0] <= column && column < self.columns[1] {
                    let at = (first + (column * self.pixel) as isize) as usize;
                    let (to, value) = (images.wrapping_add(at), epilogue(value, at));
                    // SAFETY: `rows` and `columns` are the lines and columns inside of the image,
                    // whose channels the caller guarantees.
                    unsafe { simd.store_up_to(to, value, channels.len()) };
                }
            }
        }
    }
}
