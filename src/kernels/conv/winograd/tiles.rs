//! Where tiles lie in images, and how a tile is read and written.

use super::transforms::{F, Filtering, Transform};
use crate::kernels::dense::NormRelu;
use crate::kernels::simd::{Simd, prefetch};
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

    /// The pixels of a tile in a batch of images: `size` x `size` of them, so many `before` the first output.
    #[inline(always)]
    pub(super) fn window(&self, tile: usize, image: Image, size: usize, before: [isize; 2]) -> Window {
        let (line, column) = (tile / self.columns, tile % self.columns);
        let (index, line) = (line / self.lines, line % self.lines);
        let y = (line * self.outputs) as isize - before[0];
        let x = (column * self.outputs) as isize - before[1];
        let first = (index * image.height) as isize + y;
        let inside = |start: isize, len: usize| {
            let bound = |edge: isize| (edge - start).clamp(0, size as isize) as usize;
            [bound(0), bound(len as isize)]
        };
        Window {
            first: (first * image.width as isize + x) * image.pixel as isize,
            line: image.width * image.pixel,
            pixel: image.pixel,
            rows: inside(y, image.height),
            columns: inside(x, image.width),
        }
    }

    /// Where the pixels of some tiles of outputs start, those inside of the image.
    pub(super) fn pixels(&self, tiles: Range<usize>, image: Image, offsets: &mut Vec<usize>) {
        for tile in tiles {
            let Window { first, line, pixel, rows, columns } = self.window(tile, image, self.outputs, [0, 0]);
            for row in rows[0]..rows[1] {
                let start = first as usize + row * line;
                offsets.extend((columns[0]..columns[1]).map(|column| start + column * pixel));
            }
        }
    }
}

/// Columns of inputs that a tile shares with the next one: the taps of the kernel less one.
const SHARED: usize = 2;

/// The pixels of a tile in an image, some of which may lie outside.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Where its first pixel is, or would be.
    first: isize,
    /// Numbers from a line to the next.
    line: usize,
    /// Numbers from a pixel to the next.
    pixel: usize,
    /// From which of its lines to before which it is inside of the image.
    rows: [usize; 2],
    /// From which of its columns to before which it is inside of the image.
    columns: [usize; 2],
}

impl Window {
    /// The `count` channels from the first on (at most a vector) of every pixel, behind `map` where it is inside of the image,
    /// transformed along the columns.
    ///
    /// # Safety
    /// `image` is where the image starts that the window was made for, plus the first of the channels; `count` channels
    /// are readable.
    #[inline(always)]
    pub(super) unsafe fn read<S, T, const I: usize, const O: usize>(
        &self,
        simd: S,
        image: *const f32,
        count: usize,
        map: impl Fn(S::Vector) -> S::Vector,
    ) -> [[S::Vector; I]; O]
    where
        S: Simd,
        T: Transform<I, O>,
    {
        let mut half = [[simd.splat(0.0); I]; O];
        for column in 0..I {
            let mut pixels = [simd.splat(0.0); I];
            if self.columns[0] <= column && column < self.columns[1] {
                let from = image.wrapping_offset(self.first + (column * self.pixel) as isize);
                for (row, pixel) in pixels.iter_mut().enumerate() {
                    if self.rows[0] <= row && row < self.rows[1] {
                        let from = from.wrapping_add(row * self.line);
                        // SAFETY: the pixel lies inside of the image.
                        *pixel = map(unsafe { simd.load_up_to(from, count.min(S::LANES)) });
                    }
                }
            }
            let values = T::apply(simd, pixels);
            for (half, value) in half.iter_mut().zip(values) {
                half[column] = value;
            }
        }
        half
    }

    /// Asks for a cache line of each pixel that the tile on the left of this one has not. `image` is where the image starts,
    /// plus the first of the channels.
    #[inline(always)]
    pub(super) fn prefetch(&self, image: *const f32) {
        for row in self.rows[0]..self.rows[1] {
            for column in self.columns[0].max(SHARED)..self.columns[1] {
                let at = self.first + (row * self.line + column * self.pixel) as isize;
                prefetch(image.wrapping_offset(at));
            }
        }
    }

    /// [`Window::read`] for the transform of the inputs, of normalised pixels if there is a norm, in which the first of the
    /// channels is number `channel`.
    ///
    /// # Safety
    /// As [`Window::read`].
    #[inline(always)]
    pub(super) unsafe fn read_inputs<S, const I: usize, const O: usize>(
        &self,
        simd: S,
        image: *const f32,
        count: usize,
        norm: Option<NormRelu<'_>>,
        channel: usize,
    ) -> [[S::Vector; I]; I]
    where
        S: Simd,
        F: Filtering<I, O>,
    {
        let Some(norm) = norm else {
            // SAFETY: as promised.
            return unsafe { self.read::<S, <F as Filtering<I, O>>::Input, I, I>(simd, image, count, |x| x) };
        };
        let vector = |numbers: &[f32]| {
            let numbers = &numbers[channel..channel + count.min(S::LANES)];
            // SAFETY: the slice has as many numbers.
            unsafe { simd.load_up_to(numbers.as_ptr(), numbers.len()) }
        };
        let (scale, shift) = (vector(norm.scale), vector(norm.shift));
        let map = |x| simd.relu(simd.mul_add(x, scale, shift));
        // SAFETY: as promised.
        unsafe { self.read::<S, <F as Filtering<I, O>>::Input, I, I>(simd, image, count, map) }
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
