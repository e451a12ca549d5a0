//! The weight gradient: channels of x, transposed, times dy, over all outputs.
//!
//! The depth of the product are the numbers of outputs, 32 in a step. Rows of A are channels of the
//! map of a window, which another tap moves by a few elements; B are pairs of outputs of dy, with
//! zeros for the numbers that belong to no output. A task has some channels of x and of dy, so that
//! their sums stay in the cache, and goes over some of the windows; the sums of several tasks are
//! added in the order of the windows.

use super::Conv2dGeometry;
use super::map::{Map, MapAxis, Window};
use crate::conv::forward::axes;
use crate::conv::groups::with_collected;
use crate::engine::{self, BLOCK, STEP, Sums, TILE, Tap, Walk};
use crate::split::{Split, SyncMutPtr};
use crate::{Bf16, Element, Engine};
use rayon::prelude::*;
use std::ops::Range;

/// The most input and output channels of a task.
const CHANNELS: [usize; 2] = [64, 128];
/// The most elements of a transposed map, 128 KiB.
const MAP: usize = 64 << 10;
/// The fewest tasks, if there is as much to do.
const TASKS: usize = 16;

/// Computes the gradient dw `[KH, KW, C/groups, OC]` of [`conv2d`](super::conv2d) with respect to
/// its weights, from x `[N, H, W, C]` and dy `[N, OH, OW, OC]`.
///
/// # Panics
/// If a slice does not fit the geometry, or the geometry has no output.
///
/// ```
/// use skipgrad_kernels::{Bf16, Conv2dGeometry, Engine, bf16};
/// let sizes = Conv2dGeometry {
///     batch: 1, height: 1, width: 3, in_channels: 1, out_channels: 1,
///     kernel: [1, 2], stride: [1, 1],
///     padding: [[0, 0], [0, 0]], dilation: [1, 1], groups: 1,
/// };
/// let (x, dy) = ([1.0, 2.0, 3.0].map(Bf16::from_f32), [10.0, 1.0].map(Bf16::from_f32));
/// let mut dw = [0.0; 2]; // [1, 2, 1, 1]
/// bf16::conv2d_weight_gradient(Engine::active(), &sizes, &x, &dy, &mut dw);
/// assert_eq!(dw, [12.0, 23.0]);
/// ```
pub fn conv2d_weight_gradient<T: Element>(
    engine: Engine,
    sizes: &Conv2dGeometry,
    x: &[T],
    dy: &[T],
    dw: &mut [f32],
) {
    sizes.check(x.len(), dw.len(), dy.len());
    with_collected(sizes, dw, |sizes, dw| {
        for group in 0..sizes.groups {
            Product::new(engine, sizes, x, dy, group).run(dw);
        }
    });
}

/// The weight gradient of a group.
struct Product<'a, T> {
    engine: Engine,
    sizes: Conv2dGeometry,
    map: Map<'a, T>,
    dy: &'a [T],
    group: usize,
    /// What a task goes over at a time.
    windows: Vec<Window>,
    /// How input channels, output channels and windows are divided into tasks.
    splits: [Split; 3],
}

impl<'a, T: Element> Product<'a, T> {
    fn new(engine: Engine, sizes: &Conv2dGeometry, x: &'a [T], dy: &'a [T], group: usize) -> Self {
        let source = super::source(sizes, x, group);
        let [vertical, horizontal] = axes(sizes);
        let map_axes = [(&vertical, 0), (&horizontal, 1)].map(|(axis, i)| MapAxis::new(axis, source.size[i]));
        let map = Map::new(source, map_axes);
        let input = Split::new(sizes.group_in(), TILE, CHANNELS[0], 1);
        let output = Split::new(sizes.group_out(), BLOCK, CHANNELS[1], 1);
        let windows = map.windows(input.largest(), MAP, 1);
        let parts = TASKS.div_ceil(input.parts * output.parts).min(windows.len());
        let splits = [input, output, Split::new(windows.len(), 1, windows.len().max(1), parts)];
        Product { engine, sizes: *sizes, map, dy, group, windows, splits }
    }

    fn run(&self, dw: &mut [f32]) {
        let [input, output, windows] = &self.splits;
        let blocks = input.parts * output.parts;
        let parts: Vec<Vec<f32>> = (0..blocks * windows.parts)
            .into_par_iter()
            .with_max_len(1)
            .map(|task| {
                self.part(input.range(task % input.parts), self.output(task), windows.range(task / blocks))
            })
            .collect();
        let dw = SyncMutPtr(dw.as_mut_ptr());
        (0..blocks).into_par_iter().with_max_len(1).for_each(|block| {
            let parts: Vec<&[f32]> = parts.iter().skip(block).step_by(blocks).map(|part| &part[..]).collect();
            self.write(input.range(block % input.parts), self.output(block), &parts, dw);
        });
    }

    /// Returns the output channels of a task.
    fn output(&self, task: usize) -> Range<usize> {
        let [input, output, _] = &self.splits;
        output.range(task / input.parts % output.parts)
    }

    /// Returns the halves of the blocks of some input channels: a tap and a tile of channels.
    fn halves(&self, input: &Range<usize>) -> Vec<(usize, usize)> {
        let taps = self.sizes.kernel[0] * self.sizes.kernel[1];
        let tiles = input.len().div_ceil(TILE);
        (0..taps).flat_map(|tap| (0..tiles).map(move |tile| (tap, tile))).collect()
    }

    /// Returns the sums of some channels over some windows, `[halves / 2][output / BLOCK]` blocks.
    fn part(&self, input: Range<usize>, output: Range<usize>, windows: Range<usize>) -> Vec<f32> {
        let (halves, columns) = (self.halves(&input), output.len().div_ceil(BLOCK));
        let mut blocks = vec![Sums::ZERO; halves.len().div_ceil(2) * columns];
        let rows = input.len().next_multiple_of(TILE);
        for window in &self.windows[windows] {
            let steps = self.map.positions(window).div_ceil(STEP);
            let row = self.map.phase_positions(window);
            let tap_positions = self.map.taps();
            let lens = [self.map.all_positions(window) * rows, columns * steps * STEP * BLOCK];
            engine::with_scratch(lens[0], |map| {
                engine::with_scratch(lens[1], |pairs| {
                    self.map.copy_channels(self.engine.isa(), window, input.clone(), map);
                    self.pair_outputs(window, output.clone(), steps, pairs);
                    let session = self.engine.begin();
                    for (pair, blocks) in halves.chunks(2).zip(blocks.chunks_exact_mut(columns)) {
                        let a = [pair[0], *pair.last().unwrap_or(&pair[0])].map(|(tap, tile)| {
                            let (phase, position) = tap_positions[tap];
                            map[(phase * rows + tile * TILE) * row + position..].as_ptr()
                        });
                        for (block, b) in blocks.iter_mut().zip(pairs.chunks_exact(steps * STEP * BLOCK)) {
                            // SAFETY: a map has a step of positions in each of its rows, a multiple
                            // of a tile, after the last number of an output that a tap moves; the
                            // pairs have all steps.
                            unsafe {
                                session.block(&[Tap { a, b: b.as_ptr() }], Walk { steps, row }, block, true);
                            }
                        }
                    }
                });
            });
        }
        blocks.into_iter().flat_map(|block| block.0.into_iter().flatten().flatten().flatten()).collect()
    }

    /// Packs dy of the outputs of a window, `[output / BLOCK][steps][2 tiles][STEP / 2 pairs][TILE
    /// columns][2]`.
    fn pair_outputs(&self, window: &Window, output: Range<usize>, steps: usize, pairs: &mut [Bf16]) {
        pairs.fill(Bf16::default());
        let [lines, width] = [self.sizes.out_height(), self.sizes.out_width()];
        let first = self.group * self.sizes.group_out() + output.start;
        for number in 0..self.map.positions(window) {
            let Some([image, y, x]) = self.map.output(window, number) else { continue };
            let from = ((image * lines + y) * width + x) * self.sizes.out_channels + first;
            let (step, k) = (number / STEP, number % STEP);
            for (tile, from) in self.dy[from..from + output.len()].chunks(TILE).enumerate() {
                let to = ((tile / 2 * steps + step) * 2 + tile % 2) * STEP * TILE + k / 2 * 2 * TILE + k % 2;
                pairs[to..].iter_mut().step_by(2).zip(from).for_each(|(to, x)| *to = x.to_bf16());
            }
        }
    }

    /// Writes the sum of parts to the channels that they belong to.
    fn write(&self, input: Range<usize>, output: Range<usize>, parts: &[&[f32]], dw: SyncMutPtr) {
        let (columns, group_in) = (output.len().div_ceil(BLOCK), self.sizes.group_in());
        let first = self.group * self.sizes.group_out() + output.start;
        for (half, (tap, tile)) in self.halves(&input).into_iter().enumerate() {
            for channel in (input.start + tile * TILE..input.end).take(TILE) {
                let row = (channel - input.start) % TILE;
                let to = (tap * group_in + channel) * self.sizes.out_channels + first;
                // SAFETY: dw has `out_channels` elements for each channel of each tap, as `check`
                // found, and no other block has these input and output channels.
                let to = unsafe { std::slice::from_raw_parts_mut(dw.offset(to), output.len()) };
                for (column, to) in to.iter_mut().enumerate() {
                    let block = half / 2 * columns + column / BLOCK;
                    let tile = (block * 2 + half % 2) * 2 + column % BLOCK / TILE;
                    let at = (tile * TILE + row) * TILE + column % TILE;
                    *to = parts.iter().skip(1).fold(parts[0][at], |sum, part| sum + part[at]);
                }
            }
        }
    }
}
