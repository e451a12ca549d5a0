//! The matrix of patches, of which a block at a time is packed.
//!
//! Row (n, gy, gx) of the matrix belongs to a pixel of a grid over image n; column (ty, tx, c) is
//! channel c of the source pixel at `g * step + offset[t]`, or zero outside of the image. Taps that
//! are neighbors in a line of the image are neighbors in the row, too, so where channels are not
//! grouped a row is a few long *runs* of elements, each contiguous in the image: three runs for a
//! 3x3 kernel.
//!
//! ```text
//! for each run within the wanted columns
//!   for each line of the grid within the wanted rows
//!     pixels whose run leaves the image to the left, pixels inside, pixels at the right
//! ```

use crate::blocking::Blocking;
use crate::product::AOperand;
use crate::simd::Simd;
use crate::{Isa, Task};
use std::marker::PhantomData;
use std::ops::Range;

/// The source pixels of one axis for grid position g: `g * step + offset` for each tap.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    /// Number of grid positions.
    pub(super) grid: usize,
    /// Source pixels from one grid position to the next.
    pub(super) step: usize,
    /// One offset per tap.
    pub(super) offsets: Vec<isize>,
}

/// Channels of an image: `[images, height, width, pixel]`, of which `channels` from `first` on are
/// read.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) data: &'a [f32],
    pub(super) size: [usize; 2],
    pub(super) pixel: usize,
    pub(super) first: usize,
    pub(super) channels: usize,
}

/// The matrix of patches, or, where the layout is `DepthMajor`, its transpose.
pub(super) struct Patches<'a, L> {
    source: Source<'a>,
    grid: [usize; 2],
    step: [usize; 2],
    runs: Vec<Run>,
    layout: PhantomData<L>,
}

/// Columns of the matrix of patches that are contiguous in the image.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// The vertical offset of the pixels.
    y: isize,
    /// The horizontal offset of the first pixel.
    x: isize,
    /// Number of pixels.
    taps: usize,
    /// The first column.
    column: usize,
}

impl<'a, L: Blocking> Patches<'a, L> {
    pub(super) fn new(source: Source<'a>, [vertical, horizontal]: &[Axis; 2]) -> Patches<'a, L> {
        let together = source.channels == source.pixel;
        let mut runs: Vec<Run> = Vec::new();
        let mut column = 0;
        for &y in &vertical.offsets {
            for (i, &x) in horizontal.offsets.iter().enumerate() {
                match runs.last_mut() {
                    Some(run) if i > 0 && together && run.x + run.taps as isize == x => run.taps += 1,
                    _ => runs.push(Run { y, x, taps: 1, column }),
                }
                column += source.channels;
            }
        }
        Patches {
            source,
            grid: [vertical.grid, horizontal.grid],
            step: [vertical.step, horizontal.step],
            runs,
            layout: PhantomData,
        }
    }
}

impl<L: Blocking> AOperand for Patches<'_, L> {
    type Layout = L;

    fn pack(&self, isa: Isa, rows: Range<usize>, depth: Range<usize>, panel: &mut [f32]) {
        // A row of the panel is a grid pixel in either layout, but one is a row of the product, the
        // other a step of its depth.
        let (pixels, columns) = if L::TRANSPOSED { (depth, rows) } else { (rows, depth) };
        assert!(panel.len() >= pixels.len() * L::PITCH && columns.len() <= L::WIDTH);
        for run in &self.runs {
            let (start, end) = (run.column, run.column + run.taps * self.source.channels);
            let part = columns.start.max(start)..columns.end.min(end);
            if part.is_empty() || pixels.is_empty() {
                continue;
            }
            let copy = CopyRun {
                source: self.source,
                grid: self.grid,
                step: self.step,
                run: *run,
                part: part.start - start..part.end - start,
                pixels: pixels.clone(),
                to: &mut panel[part.start - columns.start..],
                pitch: L::PITCH,
            };
            isa.dispatch(copy);
        }
    }

    /// The patches of a 1x1 kernel of stride 1 are the pixels.
    fn in_place(&self, pixels: Range<usize>, channels: Range<usize>) -> Option<(&[f32], usize)> {
        let Source { data, size, pixel, first, .. } = self.source;
        let pointwise = matches!(self.runs[..], [Run { y: 0, x: 0, taps: 1, .. }]);
        let every = self.step == [1, 1] && self.grid == size;
        (!L::TRANSPOSED && pointwise && every)
            .then(|| (&data[pixels.start * pixel + first + channels.start..], pixel))
    }
}

/// Copies `part` of a run, for each of `pixels`, to rows of `to`.
struct CopyRun<'a, 'b> {
    source: Source<'a>,
    grid: [usize; 2],
    step: [usize; 2],
    run: Run,
    /// In elements from the start of the run.
    part: Range<usize>,
    pixels: Range<usize>,
    to: &'b mut [f32],
    pitch: usize,
}

impl Task for CopyRun<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let CopyRun { source, grid: [grid_height, grid_width], step, run, part, pixels, to, pitch } = self;
        let [height, width] = source.size;
        let inside = run.inside(width, step[1]);
        let first_pixel = pixels.start;
        let mut pixel = first_pixel;
        while pixel < pixels.end {
            let (line, first) = (pixel / grid_width, pixel % grid_width);
            let count = (grid_width - first).min(pixels.end - pixel);
            let to = &mut to[(pixel - first_pixel) * pitch..];
            let y = (line % grid_height * step[0]) as isize + run.y;
            if y < 0 || y >= height as isize {
                for row in 0..count {
                    zero(simd, &mut to[row * pitch..], part.len());
                }
            } else {
                let line_len = width * source.pixel;
                let line = &source.data[(line / grid_height * height + y as usize) * line_len..][..line_len];
                let middle = inside.start.clamp(first, first + count)..inside.end.clamp(first, first + count);
                let middle = middle.start..middle.end.max(middle.start);
                for gx in (first..middle.start).chain(middle.end..first + count) {
                    let to = &mut to[(gx - first) * pitch..];
                    let x = (gx * step[1]) as isize + run.x;
                    // From left to right, as each of the three may write beyond its end.
                    let valid = run.valid(x, width, source.channels, &part);
                    zero(simd, to, valid.start - part.start);
                    if !valid.is_empty() {
                        let from = x * source.pixel as isize + (source.first + valid.start) as isize;
                        let from = &line[from as usize..][..valid.len()];
                        copy(simd, from, 0, &mut to[valid.start - part.start..], 0, 1);
                    }
                    zero(simd, &mut to[valid.end - part.start..], part.end - valid.end);
                }
                if !middle.is_empty() {
                    let x = ((middle.start * step[1]) as isize + run.x) as usize;
                    let from_step = step[1] * source.pixel;
                    let from = &line[x * source.pixel + source.first + part.start..];
                    let from = &from[..(middle.len() - 1) * from_step + part.len()];
                    copy(
                        simd,
                        from,
                        from_step,
                        &mut to[(middle.start - first) * pitch..],
                        pitch,
                        middle.len(),
                    );
                }
            }
            pixel += count;
        }
    }
}

impl Run {
    /// Returns the grid positions for which the run lies within a line of `width` pixels.
    fn inside(&self, width: usize, step: usize) -> Range<usize> {
        let first = (-self.x).max(0) as usize;
        let last = width as isize - self.taps as isize - self.x;
        let end = if last < 0 { 0 } else { last as usize / step + 1 };
        first.div_ceil(step)..end
    }

    /// Returns which of `part` lies within a line of `width` pixels if the run starts at `x` of it,
    /// or the empty range at the end of `part`.
    fn valid(&self, x: isize, width: usize, channels: usize, part: &Range<usize>) -> Range<usize> {
        let tap =
            |at: isize| (at.clamp(0, self.taps as isize) as usize * channels).clamp(part.start, part.end);
        let (start, end) = (tap(-x), tap(width as isize - x));
        if start < end { start..end } else { part.end..part.end }
    }
}

/// Copies `count` pieces from `from`, `from_step` apart, the last of which ends where `from` does,
/// to `to`, `to_step` apart, in whole vectors: up to 15 elements after each copy are overwritten.
#[inline(always)]
fn copy<S: Simd>(simd: S, from: &[f32], from_step: usize, to: &mut [f32], to_step: usize, count: usize) {
    let len = from.len() - (count - 1) * from_step;
    assert!(to.len() >= (count - 1) * to_step + len.next_multiple_of(S::LANES));
    let whole = len / S::LANES * S::LANES;
    for piece in 0..count {
        let from = from.as_ptr().wrapping_add(piece * from_step);
        let to = to.as_mut_ptr().wrapping_add(piece * to_step);
        let mut i = 0;
        while i < whole {
            // SAFETY: each of the `count` pieces has `len` elements in `from`, and the assert shows
            // that it has room for whole vectors in `to`.
            unsafe { simd.store(to.add(i), simd.load(from.add(i))) };
            i += S::LANES;
        }
        if whole < len {
            // SAFETY: the last `len - whole` elements of the piece are within `from`, and their
            // vector within `to`.
            unsafe { simd.store(to.add(whole), simd.load_first(from.add(whole), len - whole)) };
        }
    }
}

/// Zeroes the first `len` elements of `to`, in whole vectors as [`copy`].
#[inline(always)]
fn zero<S: Simd>(simd: S, to: &mut [f32], len: usize) {
    assert!(to.len() >= len.next_multiple_of(S::LANES));
    for i in (0..len).step_by(S::LANES) {
        // SAFETY: the assert shows that `to` reaches to the end of the vector.
        unsafe { simd.store(to.as_mut_ptr().add(i), simd.splat(0.0)) };
    }
}
