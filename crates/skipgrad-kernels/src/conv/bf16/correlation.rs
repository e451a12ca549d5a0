//! The product that a convolution and its input gradient are: what the taps of a map read, times
//! packed weights.

use super::map::{Map, MapAxis, Source, Window};
use crate::conv::patches::Axis;
use crate::engine::{self, BLOCK, STEP, Session, Sums, TILE, Tap, Walk};
use crate::grid::Grid;
use crate::pack::UnpackedB;
use crate::simd::Simd;
use crate::split::{Split, SyncMutPtr};
use crate::{Bf16, Element, Engine, Epilogue, Task};
use rayon::prelude::*;
use std::ops::Range;

/// The most elements of a map, 192 KiB, which leave room for weights in a second-level cache.
const MAP: usize = 96 << 10;
/// The fewest tasks, if there is as much to do.
const TASKS: usize = 16;

/// Sums over the taps of two axes, of one group.
pub(super) struct Correlation<'a, X, Y> {
    pub(super) source: Source<'a, X>,
    pub(super) axes: [Axis; 2],
    /// Number of channels of the result.
    pub(super) columns: usize,
    /// Where the result lies.
    pub(super) c: Grid,
    pub(super) epilogue: Epilogue<'a, Y>,
}

impl<X: Element, Y: Element> Correlation<'_, X, Y> {
    /// Packs the weights of each tap, the taps of a line together, and computes the result.
    pub(super) fn run(self, engine: Engine, b: &UnpackedB<'_>, c: &mut [Y]) {
        let packing = Packing::new(&self.axes, self.source.channels, self.columns);
        engine::with_scratch(packing.len(), |packed| {
            packing.pack(b, packed);
            self.run_packed(engine, packed, c);
        });
    }

    /// Computes the result with packed weights.
    pub(super) fn run_packed(self, engine: Engine, packed: &[Bf16], c: &mut [Y]) {
        if self.c.num_rows() == 0 || self.columns == 0 {
            return;
        }
        self.c.check(self.columns, c.len());
        let packing = Packing::new(&self.axes, self.source.channels, self.columns);
        if packing.taps * packing.steps == 0 {
            return self.without_taps(engine, c);
        }
        assert_eq!(packed.len(), packing.len(), "the weights were packed for another geometry");
        let Correlation { source, axes: [vertical, horizontal], columns, c: grid, epilogue } = self;
        let horizontal_map = match packing.merged {
            1 => MapAxis::new(&horizontal, source.size[1]),
            _ => MapAxis::merged(&horizontal),
        };
        let vertical_map = MapAxis::new(&vertical, source.size[0]);
        let map = Map::new(source, [vertical_map, horizontal_map]);
        let c = SyncMutPtr(c.as_mut_ptr());
        let product = Product { engine, map, packing, packed, grid, c, epilogue };
        let windows = product.map.windows(product.pixel(), MAP, TASKS);
        let column_parts = Split::new(columns, BLOCK, columns, TASKS.div_ceil(windows.len()));
        let tasks = windows.len() * column_parts.parts;
        (0..tasks).into_par_iter().with_max_len(1).for_each(|task| {
            let columns = column_parts.range(task % column_parts.parts);
            product.window(&windows[task / column_parts.parts], columns);
        });
    }

    /// Computes the result where all sums are empty.
    fn without_taps(&self, engine: Engine, c: &mut [Y]) {
        let c = SyncMutPtr(c.as_mut_ptr());
        let [images, lines, pixels] = self.c.size;
        for at in (0..images * lines * pixels).map(|i| [i / pixels / lines, i / pixels % lines, i % pixels]) {
            for first in (0..self.columns).step_by(BLOCK) {
                let width = BLOCK.min(self.columns - first);
                let (sums, outputs) = (&Sums::ZERO, &[Some(self.c.offset(at))][..]);
                let finish = Finish { sums, half: 0, outputs, first, width, epilogue: self.epilogue, c };
                engine.isa().dispatch(finish);
            }
        }
    }
}

/// The sizes of packed weights.
#[derive(Clone, Copy)]
pub(super) struct Packing {
    /// How many taps of a line are merged, so that few channels fill a step: all or one.
    merged: usize,
    /// Number of taps, those that are merged as one.
    taps: usize,
    /// Number of steps of a tap.
    steps: usize,
    columns: usize,
}

impl Packing {
    pub(super) fn new([vertical, horizontal]: &[Axis; 2], channels: usize, columns: usize) -> Packing {
        let line = horizontal.offsets.len();
        let is_fewer = (line * channels).div_ceil(STEP) < line * channels.div_ceil(STEP);
        let merged = if is_fewer { line } else { 1 };
        let taps = vertical.offsets.len() * line / merged;
        Packing { merged, taps, steps: (merged * channels).div_ceil(STEP), columns }
    }

    /// Returns the number of packed elements.
    pub(super) fn len(&self) -> usize {
        engine::packed_len(self.taps, self.steps, self.columns)
    }

    /// Packs the weights of each tap, the taps of a line together.
    pub(super) fn pack(&self, b: &UnpackedB<'_>, packed: &mut [Bf16]) {
        engine::pack(b, self.merged, self.columns, packed);
    }
}

/// A correlation whose weights are packed.
struct Product<'a, X, Y> {
    engine: Engine,
    map: Map<'a, X>,
    packing: Packing,
    packed: &'a [Bf16],
    grid: Grid,
    c: SyncMutPtr<Y>,
    epilogue: Epilogue<'a, Y>,
}

impl<X: Element, Y: Element> Product<'_, X, Y> {
    /// Returns the number of elements from a pixel of a map to the next. Pixels that are a power of
    /// two apart would share lines of the caches.
    fn pixel(&self) -> usize {
        let len = self.packing.steps * STEP;
        if len.is_multiple_of(256) { len + STEP } else { len }
    }

    /// Computes some columns of the outputs of a window.
    fn window(&self, window: &Window, columns: Range<usize>) {
        let pixel = self.pixel();
        let phase = self.map.phase_positions(window);
        let tap_positions: Vec<usize> =
            self.map.taps().iter().map(|(i, position)| i * phase + position).collect();
        let Packing { taps: num_taps, steps, columns: all_columns, .. } = self.packing;
        let panel = engine::panel_len(num_taps, steps);
        let outputs: Vec<Option<usize>> = (0..self.map.positions(window).next_multiple_of(TILE))
            .map(|number| self.map.output(window, number).map(|at| self.grid.offset(at)))
            .collect();
        let halves: Vec<usize> = (0..outputs.len())
            .step_by(TILE)
            .filter(|&first| outputs[first..first + TILE].iter().any(Option::is_some))
            .collect();
        engine::with_scratch(self.map.all_positions(window) * pixel, |map| {
            self.map.copy_pixels(self.engine.isa(), window, pixel, map);
            let session = self.engine.begin();
            let mut sums = Sums::ZERO;
            let walk = Walk { steps, row: pixel };
            let mut taps = Vec::with_capacity(num_taps);
            for first in columns.step_by(BLOCK) {
                let packed = &self.packed[first / BLOCK * panel..][..panel];
                for pair in halves.chunks(2) {
                    let pair = [pair[0], *pair.last().unwrap_or(&pair[0])];
                    taps.clear();
                    taps.extend(tap_positions.iter().enumerate().map(|(tap, position)| Tap {
                        a: pair.map(|half| map[(half + position) * pixel..].as_ptr()),
                        b: packed[tap * steps * STEP * BLOCK..].as_ptr(),
                    }));
                    self.block(&session, &taps, walk, &mut sums);
                    let width = BLOCK.min(all_columns - first);
                    for (half, &at) in pair.iter().enumerate().take(if pair[0] == pair[1] { 1 } else { 2 }) {
                        let outputs = &outputs[at..at + TILE];
                        let (sums, epilogue, c) = (&sums, self.epilogue, self.c);
                        let finish = Finish { sums, half, outputs, first, width, epilogue, c };
                        self.engine.isa().dispatch(finish);
                    }
                }
            }
        });
    }

    fn block(&self, session: &Session, taps: &[Tap], walk: Walk, sums: &mut Sums) {
        // SAFETY: a map has a step of positions after the last one that a tap reads for an output,
        // each of `pixel` elements, at least those of all steps, and the packed weights have all
        // steps of every tap.
        unsafe { session.block(taps, walk, sums, false) };
    }
}

/// Rounds and writes the sums of half a block.
struct Finish<'a, Y> {
    sums: &'a Sums,
    half: usize,
    /// Where the columns of each row begin in C.
    outputs: &'a [Option<usize>],
    /// The first column.
    first: usize,
    /// Number of columns.
    width: usize,
    epilogue: Epilogue<'a, Y>,
    /// It has `width` elements from `first` on after each of `outputs`, which nobody else accesses.
    c: SyncMutPtr<Y>,
}

impl<Y: Element> Task for Finish<'_, Y> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Epilogue { bias, residual, relu } = self.epilogue;
        let mut biases = [0.0; BLOCK];
        if let Some(bias) = bias {
            biases[..self.width].copy_from_slice(&bias[self.first..][..self.width]);
        }
        for (row, at) in self.outputs.iter().enumerate() {
            let Some(at) = at.map(|at| at + self.first) else { continue };
            let mut row = self.sums.row(self.half, row);
            if bias.is_some() {
                row.iter_mut().zip(biases).for_each(|(x, bias)| *x += bias);
            }
            if let Some(residual) = residual {
                let residual = &residual[at..][..self.width];
                row.iter_mut().zip(residual).for_each(|(x, residual)| *x += residual.to_f32());
            }
            if relu {
                row.iter_mut().for_each(|x| *x = if *x <= 0.0 { 0.0 } else { *x });
            }
            // SAFETY: whoever made the task guarantees that C has `width` elements from here on:
            // `run_packed` checked the grid, and no other task has the same window and columns.
            let to = unsafe { std::slice::from_raw_parts_mut(self.c.offset(at), self.width) };
            to.iter_mut().zip(row).for_each(|(to, x)| *to = Y::from_sum(x));
        }
    }
}
