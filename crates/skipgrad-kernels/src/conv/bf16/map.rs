//! Maps: copies of parts of images, with zeros around them, in which taps are distances.
//!
//! Output g of an axis reads the source at `g * step + offset[t]`. With the least offset as origin,
//! tap t reads `origin + (g + shift[t]) * step + phase[t]`. So a map keeps the source positions of
//! each phase that a tap has together, and neighboring outputs read neighboring positions:
//!
//! ```text
//! [phases][images][lines][positions of a line]     and for each the elements of a pixel, or
//! [phases][channels][images][lines][positions]     for the weight gradient
//! ```
//!
//! The zeros after a line are those before the next one. Outputs are numbered as positions are, so
//! that some numbers at the end of a line, and some lines at the end of an image, belong to no
//! output.

use super::super::patches::Axis;
use crate::engine::{STEP, TILE};
use crate::simd::Simd;
use crate::split::Split;
use crate::{Bf16, Element, Isa, Task};
use std::ops::Range;

/// Channels of images `[images, size, pixel]`, of which `channels` from `first` on are read.
pub(super) struct Source<'a, T> {
    pub(super) data: &'a [T],
    pub(super) images: usize,
    pub(super) size: [usize; 2],
    pub(super) pixel: usize,
    pub(super) first: usize,
    pub(super) channels: usize,
}

impl<T> Source<'_, T> {
    /// Returns the channels of a pixel, or `None` outside of the image.
    #[inline(always)]
    fn pixel(&self, image: usize, y: usize, x: isize) -> Option<&[T]> {
        let x = usize::try_from(x).ok().filter(|&x| x < self.size[1])?;
        let at = ((image * self.size[0] + y) * self.size[1] + x) * self.pixel + self.first;
        Some(&self.data[at..at + self.channels])
    }
}

/// An axis of a map.
pub(super) struct MapAxis {
    /// Number of outputs.
    pub(super) grid: usize,
    step: usize,
    /// The source positions of output 0 in each phase: one, or where taps are merged one of each.
    phases: Vec<Vec<isize>>,
    /// The phase of each tap, and how many outputs it is moved by.
    taps: Vec<(usize, usize)>,
    /// The greatest of these.
    shift: usize,
    /// The number of zeros that a line has in common with the next one.
    shared: usize,
}

impl MapAxis {
    pub(super) fn new(axis: &Axis, size: usize) -> MapAxis {
        // A tap that reads zeros for all outputs may as well be just outside, which bounds the map.
        let reach = axis.grid.saturating_sub(1).saturating_mul(axis.step) as isize;
        let offsets: Vec<isize> =
            axis.offsets.iter().map(|&at| at.clamp(-reach - 1, size as isize)).collect();
        let origin = offsets.iter().copied().min().unwrap_or(0);
        let (mut starts, mut taps) = (vec![], vec![]);
        for offset in offsets {
            let distance = (offset - origin) as usize;
            let start = origin + (distance % axis.step) as isize;
            let phase = starts.iter().position(|&other| other == start).unwrap_or_else(|| {
                starts.push(start);
                starts.len() - 1
            });
            taps.push((phase, distance / axis.step));
        }
        let shift = taps.iter().map(|tap| tap.1).max().unwrap_or(0);
        let is_outside = |start: isize, at: usize| {
            let position = start + (at * axis.step) as isize;
            position < 0 || position >= size as isize
        };
        let positions = axis.grid + shift;
        let shared = starts.iter().map(|&start| {
            let before = (0..shift).take_while(|&at| is_outside(start, at)).count();
            let after = (0..shift).take_while(|&at| is_outside(start, positions - 1 - at)).count();
            before.min(after)
        });
        let shared = shared.min().unwrap_or(0);
        let phases = starts.into_iter().map(|start| vec![start]).collect();
        MapAxis { grid: axis.grid, step: axis.step, phases, taps, shift, shared }
    }

    /// An axis in which all taps are one, whose elements are those of all taps.
    pub(super) fn merged(axis: &Axis) -> MapAxis {
        MapAxis {
            grid: axis.grid,
            step: axis.step,
            phases: vec![axis.offsets.clone()],
            taps: vec![(0, 0)],
            shift: 0,
            shared: 0,
        }
    }

    /// Returns the number of positions from a line to the next.
    fn pitch(&self) -> usize {
        self.grid + self.shift - self.shared
    }

    /// Returns the source position of output `at` in a phase of one tap.
    fn source(&self, phase: usize, at: usize) -> isize {
        self.phases[phase][0] + (at * self.step) as isize
    }
}

/// Some lines of some images. Lines are part of an image only if there is one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) images: Range<usize>,
    /// Lines of outputs.
    pub(super) lines: Range<usize>,
}

/// What a task copies, and where its outputs read.
pub(super) struct Map<'a, T> {
    source: Source<'a, T>,
    axes: [MapAxis; 2],
}

impl<'a, T: Element> Map<'a, T> {
    pub(super) fn new(source: Source<'a, T>, axes: [MapAxis; 2]) -> Map<'a, T> {
        Map { source, axes }
    }

    /// Divides the outputs into windows, by their sizes alone: at least `parts`, if there are as
    /// many images or lines, whose maps have at most `most` elements, of which a position has
    /// `depth`.
    pub(super) fn windows(&self, depth: usize, most: usize, parts: usize) -> Vec<Window> {
        let (images, lines) = (self.source.images, self.axes[0].grid);
        if images == 0 {
            return vec![];
        }
        let image = self.all_positions(&Window { images: 0..1, lines: 0..lines }) * depth.max(1);
        if image <= most {
            let split = Split::new(images, 1, most / image, parts);
            return (0..split.parts).map(|i| Window { images: split.range(i), lines: 0..lines }).collect();
        }
        let split = Split::new(lines, 1, lines, image.div_ceil(most).max(parts.div_ceil(images)));
        let parts = (0..images).flat_map(|image| (0..split.parts).map(move |part| (image, part)));
        parts.map(|(image, part)| Window { images: image..image + 1, lines: split.range(part) }).collect()
    }

    /// Returns the number of elements that a pixel has without padding.
    pub(super) fn depth(&self) -> usize {
        self.source.channels * self.axes[1].phases.first().map_or(1, Vec::len)
    }

    /// Returns the number of lines of an image that a window needs.
    fn lines(&self, window: &Window) -> usize {
        let [vertical, _] = &self.axes;
        let shared = if window.lines.len() == vertical.grid { vertical.shared } else { 0 };
        window.lines.len() + vertical.shift - shared
    }

    /// Returns the number of positions of an image in a window: output (y, x) of the i-th image has
    /// the number `i * positions + y * pitch + x`.
    pub(super) fn image_positions(&self, window: &Window) -> usize {
        self.lines(window) * self.axes[1].pitch()
    }

    /// Returns the numbers of all outputs of a window, and of those between them.
    pub(super) fn positions(&self, window: &Window) -> usize {
        window.images.len() * self.image_positions(window)
    }

    /// Returns the number of positions of a phase: those of the outputs, as many as a tap may move
    /// them, and a step that a tile may read beyond the last one.
    pub(super) fn phase_positions(&self, window: &Window) -> usize {
        let [vertical, horizontal] = &self.axes;
        self.positions(window) + vertical.shift * horizontal.pitch() + horizontal.shift + STEP
    }

    fn num_phases(&self) -> usize {
        self.axes[0].phases.len() * self.axes[1].phases.len()
    }

    /// Returns the number of positions in a window, of all phases.
    pub(super) fn all_positions(&self, window: &Window) -> usize {
        self.num_phases() * self.phase_positions(window)
    }

    /// Returns for each tap its phase, and the position there that it reads for the first output of
    /// a window.
    pub(super) fn taps(&self) -> Vec<(usize, usize)> {
        let [vertical, horizontal] = &self.axes;
        let taps = vertical.taps.iter().flat_map(|y| horizontal.taps.iter().map(move |x| (y, x)));
        taps.map(|(y, x)| (y.0 * horizontal.phases.len() + x.0, y.1 * horizontal.pitch() + x.1)).collect()
    }

    /// Returns the image, line and place in the line of each number of an output, or `None` where
    /// it belongs to none.
    pub(super) fn output(&self, window: &Window, number: usize) -> Option<[usize; 3]> {
        let (pitch, image) = (self.axes[1].pitch(), self.image_positions(window));
        let [y, x] = [number % image / pitch, number % image % pitch];
        let is_inside = number < self.positions(window);
        let is_output = is_inside && y < window.lines.len() && x < self.axes[1].grid;
        is_output.then(|| [window.images.start + number / image, window.lines.start + y, x])
    }

    /// Calls `line` with the first position of each line of all phases, and where it comes from:
    /// image, line, and phase of the columns, or `None` for a line of zeros. Then calls it for what
    /// follows the last line of a phase, as for lines of zeros.
    fn each_line(&self, window: &Window, mut line: impl FnMut(Range<usize>, Option<[usize; 3]>)) {
        let [vertical, horizontal] = &self.axes;
        let (lines, pitch, len) = (self.lines(window), horizontal.pitch(), self.phase_positions(window));
        for phase in 0..self.num_phases() {
            let [y_phase, x_phase] = [phase / horizontal.phases.len(), phase % horizontal.phases.len()];
            let mut at = phase * len;
            for (image, y) in window.images.clone().flat_map(|image| (0..lines).map(move |y| (image, y))) {
                let y = vertical.source(y_phase, window.lines.start + y);
                let y = usize::try_from(y).ok().filter(|&y| y < self.source.size[0]);
                line(at..at + pitch, y.map(|y| [image, y, x_phase]));
                at += pitch;
            }
            line(at..(phase + 1) * len, None);
        }
    }

    /// Copies a window, pixel by pixel, each followed by zeros up to `pitch` elements.
    pub(super) fn copy_pixels(&self, isa: Isa, window: &Window, pitch: usize, to: &mut [Bf16]) {
        isa.dispatch(CopyPixels { map: self, window, pitch, to });
    }

    /// Copies channels of a window, position by position, each channel as many elements after the
    /// one before it as a phase has positions. Zeros follow the last channel up to a multiple of a
    /// tile.
    pub(super) fn copy_channels(&self, isa: Isa, window: &Window, channels: Range<usize>, to: &mut [Bf16]) {
        isa.dispatch(CopyChannels { map: self, window, channels, to });
    }
}

/// The arguments of [`Map::copy_pixels`].
struct CopyPixels<'a, T> {
    map: &'a Map<'a, T>,
    window: &'a Window,
    pitch: usize,
    to: &'a mut [Bf16],
}

impl<T: Element> Task for CopyPixels<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let CopyPixels { map: Map { source, axes }, window, pitch, to } = self;
        let (channels, depth) = (source.channels, self.map.depth());
        self.map.each_line(window, |positions, from| {
            let to = &mut to[positions.start * pitch..positions.end * pitch];
            let Some([image, y, phase]) = from else { return to.fill(Bf16::default()) };
            for (at, to) in to.chunks_exact_mut(pitch).enumerate() {
                let (taps, rest) = to.split_at_mut(depth);
                rest.fill(Bf16::default());
                for (tap, start) in axes[1].phases[phase].iter().enumerate() {
                    let to = &mut taps[tap * channels..][..channels];
                    match source.pixel(image, y, start + (at * axes[1].step) as isize) {
                        Some(from) => to.iter_mut().zip(from).for_each(|(to, x)| *to = x.to_bf16()),
                        None => to.fill(Bf16::default()),
                    }
                }
            }
        });
    }
}

/// The arguments of [`Map::copy_channels`].
struct CopyChannels<'a, T> {
    map: &'a Map<'a, T>,
    window: &'a Window,
    channels: Range<usize>,
    to: &'a mut [Bf16],
}

impl<T: Element> Task for CopyChannels<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let CopyChannels { map: Map { source, axes }, window, channels, to } = self;
        let (len, rows) = (self.map.phase_positions(window), channels.len().next_multiple_of(TILE));
        self.map.each_line(window, |positions, from| {
            let (phase, first) = (positions.start / len, positions.start % len);
            let rows = &mut to[phase * rows * len..][..rows * len];
            let Some([image, y, x_phase]) = from else {
                let lines = rows.chunks_exact_mut(len).map(|row| &mut row[first..first + positions.len()]);
                return lines.for_each(|line| line.fill(Bf16::default()));
            };
            for at in 0..positions.len() {
                let pixel = source.pixel(image, y, axes[1].source(x_phase, at));
                let pixel = pixel.map(|pixel| &pixel[channels.clone()]).unwrap_or_default();
                let values = pixel.iter().map(|x| x.to_bf16()).chain(std::iter::repeat(Bf16::default()));
                rows[first + at..].iter_mut().step_by(len).zip(values).for_each(|(to, x)| *to = x);
            }
        });
    }
}
