//! Forward and input gradient: the sum over channels of tiles of the input times tiles of the weights.
//!
//! ```text
//! for each block of the tiles, part of the output channels             in parallel
//!   for each block of the input channels
//!     V = B^T d B for the tiles and these channels                     36 panels [tiles, channels]
//!     U = G g G^T for these channels and outputs, or found ready       36 packed factors [channels, outputs]
//!     for each of 36 points:  M[point] += V[point] * U[point]          see `microkernel`
//!   y = A^T M A, and its end: bias, residual, ReLU
//! ```
//!
//! V and M of a task fill about a second-level cache, and what goes through it is used at once. U is streamed, once a task:
//! a block is as many tiles as that needs to be cheap, which is more where there are more channels. U is computed ahead and
//! shared, unless all tiles are one block: then only one task needs each part of it, and computes it. Output channels are
//! split where there are too few tiles to keep the cores busy, though every part transforms the inputs anew, for which the
//! products take ten times as long. All splits depend on the sizes alone.

use super::tiles::{Image, Tiles};
use super::transforms::{Input, Output, Transform};
use super::weights::Weights;
use super::{INPUTS, OUTPUTS, POINTS, spread};
use crate::kernels::conv::Conv2d;
use crate::kernels::epilogue::Ending;
use crate::kernels::microkernel::{Layout, PanelProduct, RowMajor, Start, TileShape};
use crate::kernels::product::{Output as Shared, Split};
use crate::kernels::simd::Simd;
use crate::kernels::{Isa, Task, scratch};
use rayon::prelude::*;
use std::marker::PhantomData;
use std::ops::Range;

/// Most input channels of a block.
const DEPTH: usize = 64;
/// Most output channels of a task.
const TASK_COLUMNS: usize = 128;
/// Fewest output channels of a part.
const FEWEST_COLUMNS: usize = 64;
/// Tasks wanted.
const TASKS: usize = 16;

/// y of the convolution.
pub(in super::super) fn forward(
    isa: Isa,
    sizes: &Conv2d,
    x: &[f32],
    w: &[f32],
    ending: Ending<'_>,
    y: &mut [f32],
) {
    let (height, width) = (sizes.out_height(), sizes.out_width());
    Convolution {
        x,
        from: Image { height: sizes.height, width: sizes.width, channels: sizes.in_channels },
        before: sizes.padding.map(|[before, _]| before as isize),
        weights: Weights { w, channels: [sizes.in_channels, sizes.out_channels], turned: false },
        ending,
        to: Image { height, width, channels: sizes.out_channels },
        tiles: Tiles::covering(sizes.batch, height, width),
    }
    .compute(isa, y);
}

/// dx of the convolution: dy convolved with the kernel turned round.
pub(in super::super) fn input_gradient(isa: Isa, sizes: &Conv2d, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    Convolution {
        x: dy,
        from: Image { height: sizes.out_height(), width: sizes.out_width(), channels: sizes.out_channels },
        before: sizes.padding.map(|[before, _]| 2 - before as isize),
        weights: Weights { w, channels: [sizes.in_channels, sizes.out_channels], turned: true },
        ending: Ending::default(),
        to: Image { height: sizes.height, width: sizes.width, channels: sizes.in_channels },
        tiles: Tiles::covering(sizes.batch, sizes.height, sizes.width),
    }
    .compute(isa, dx);
}

struct Convolution<'a> {
    x: &'a [f32],
    from: Image,
    /// Zeros above and left of an image, or, below zero, pixels that no output sees.
    before: [isize; 2],
    weights: Weights<'a>,
    ending: Ending<'a>,
    to: Image,
    tiles: Tiles,
}

/// How a convolution is split.
struct Plan {
    lanes: usize,
    tiles: Split,
    columns: Split,
    depth: Split,
}

impl Plan {
    fn new(isa: Isa, tiles: usize, depth: usize, columns: usize) -> Plan {
        let tile = TileShape::of(isa);
        let most = (depth.min(columns) / 4).clamp(24, 128).next_multiple_of(tile.rows);
        let tiles = Split::new(tiles, tile.rows, most, 1);
        let wanted = TASKS.div_ceil(tiles.parts).min(columns / FEWEST_COLUMNS);
        Plan {
            lanes: tile.lanes,
            tiles,
            columns: Split::new(columns, tile.columns, TASK_COLUMNS, wanted),
            depth: Split::new(depth, 1, DEPTH, 1),
        }
    }

    /// Output channels with those that fill the last vector.
    fn padded(&self, columns: usize) -> usize {
        columns.next_multiple_of(self.lanes)
    }
}

impl Convolution<'_> {
    fn compute(&self, isa: Isa, y: &mut [f32]) {
        let (tiles, depth, columns) = (self.tiles.count(), self.from.channels, self.to.channels);
        if tiles == 0 || columns == 0 {
            return;
        }
        assert!(depth > 0, "no channels to sum over");
        assert!(self.x.len() == self.tiles.images * self.from.height * self.from.width * depth);
        assert!(y.len() == self.tiles.images * self.to.height * self.to.width * columns);
        self.ending.check(columns, y.len());
        let plan = Plan::new(isa, tiles, depth, columns);
        let ahead = if plan.tiles.parts > 1 { POINTS * depth * plan.padded(columns) } else { 0 };
        scratch::with(ahead, |ready| {
            self.transform_ahead(isa, &plan, ready);
            let (ready, y) = (&*ready, Shared(y.as_mut_ptr()));
            (0..plan.tiles.parts * plan.columns.parts).into_par_iter().with_max_len(1).for_each(|task| {
                let tiles = plan.tiles.range(task / plan.columns.parts);
                let columns = plan.columns.range(task % plan.columns.parts);
                // SAFETY: tasks differ in their tiles or their channels, and tiles do not share outputs.
                unsafe { self.task(isa, &plan, tiles, columns, ready, y) };
            });
        });
    }

    /// Transforms all weights, unless there is no room for them: block after block of the depth, part after part of the
    /// columns.
    fn transform_ahead(&self, isa: Isa, plan: &Plan, ready: &mut [f32]) {
        let mut pieces = Vec::new();
        let mut rest = ready;
        'pieces: for block in 0..plan.depth.parts {
            for part in 0..plan.columns.parts {
                if rest.is_empty() {
                    break 'pieces;
                }
                let (depth, columns) = (plan.depth.range(block), plan.columns.range(part));
                let (piece, after) = rest.split_at_mut(POINTS * depth.len() * plan.padded(columns.len()));
                pieces.push((depth, columns, piece));
                rest = after;
            }
        }
        pieces
            .into_par_iter()
            .with_max_len(1)
            .for_each(|(depth, columns, piece)| self.weights.transform(isa, depth, columns, piece));
    }

    /// A block of tiles, a part of the output channels.
    ///
    /// # Safety
    /// No other task may have the same tile and channel; the sizes are those that `compute` asserts.
    unsafe fn task(
        &self,
        isa: Isa,
        plan: &Plan,
        tiles: Range<usize>,
        columns: Range<usize>,
        ready: &[f32],
        y: Shared,
    ) {
        let width = plan.padded(columns.len());
        let (v_panel, m_row) = (spread(tiles.len() * RowMajor::PITCH), spread(width));
        let m_panel = spread(tiles.len() * m_row);
        let mut offsets = [0; 192];
        let offsets = &mut offsets[..tiles.len()];
        offsets.iter_mut().enumerate().for_each(|(tile, offset)| *offset = tile * m_row);
        let u_here = if ready.is_empty() { POINTS * plan.depth.largest() * width } else { 0 };
        scratch::with(POINTS * v_panel, |v| {
            scratch::with(POINTS * m_panel, |m| {
                scratch::with(u_here, |u_here| {
                    for block in 0..plan.depth.parts {
                        let depth = plan.depth.range(block);
                        isa.dispatch(ReadTiles {
                            convolution: self,
                            tiles: tiles.clone(),
                            channels: depth.clone(),
                            panel: v_panel,
                            to: v,
                        });
                        let u = if ready.is_empty() {
                            self.weights.transform(isa, depth.clone(), columns.clone(), u_here);
                            &*u_here
                        } else {
                            let before = depth.start * plan.padded(self.to.channels);
                            &ready[POINTS * (before + depth.len() * columns.start)..]
                        };
                        for point in 0..POINTS {
                            let product = PanelProduct::<RowMajor> {
                                panel: &v[point * v_panel..][..v_panel],
                                depth: depth.len(),
                                b: &u[point * depth.len() * width..][..depth.len() * width],
                                columns: width,
                                offsets,
                                start: if block == 0 { Start::Zero } else { Start::Add },
                                layout: PhantomData,
                            };
                            let m = &mut m[point * m_panel..][..m_panel];
                            // SAFETY: `width` numbers from each offset lie within the panel, which is this task's.
                            unsafe { product.compute(isa, m.as_mut_ptr()) };
                        }
                    }
                    let write =
                        WriteTiles { convolution: self, tiles, channels: columns, m, m_row, m_panel, y };
                    // SAFETY: as promised by the caller.
                    unsafe { write.compute(isa) };
                });
            });
        });
    }
}

/// `V = B^T d B` of some tiles and channels.
struct ReadTiles<'a, 'b> {
    convolution: &'a Convolution<'a>,
    tiles: Range<usize>,
    channels: Range<usize>,
    /// Numbers from a panel to the next.
    panel: usize,
    to: &'b mut [f32],
}

impl Task for ReadTiles<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let ReadTiles { convolution, tiles, channels, panel, to } = self;
        assert!(channels.len() <= RowMajor::WIDTH && RowMajor::PITCH >= RowMajor::WIDTH + S::LANES);
        assert!(panel >= tiles.len() * RowMajor::PITCH && to.len() >= POINTS * panel);
        assert!(tiles.end <= convolution.tiles.count() && channels.end <= convolution.from.channels);
        for (row, tile) in tiles.enumerate() {
            let window = convolution.tiles.window(tile, convolution.from, INPUTS, convolution.before);
            for first in (0..channels.len()).step_by(S::LANES) {
                let image = convolution.x.as_ptr().wrapping_add(channels.start + first);
                // SAFETY: `compute` asserts that x has the images that the window is made for; channels are in range.
                let half = unsafe { window.read::<S, Input, 6, 6>(simd, image, channels.len() - first) };
                let to = to.as_mut_ptr().wrapping_add(row * RowMajor::PITCH + first);
                for (i, half) in half.iter().enumerate() {
                    for (j, value) in Input::apply(simd, *half).into_iter().enumerate() {
                        // SAFETY: a row of a panel has room for the channels in whole vectors, see the asserts.
                        unsafe { simd.store(to.add((i * INPUTS + j) * panel), value) };
                    }
                }
            }
        }
    }
}

/// `y = A^T M A`, and its end, of some tiles and channels.
struct WriteTiles<'a> {
    convolution: &'a Convolution<'a>,
    tiles: Range<usize>,
    channels: Range<usize>,
    m: &'a [f32],
    /// Numbers from a tile to the next.
    m_row: usize,
    /// Numbers from a panel to the next.
    m_panel: usize,
    y: Shared,
}

impl WriteTiles<'_> {
    /// Computes it.
    ///
    /// # Safety
    /// Nobody else may access these tiles and channels of y meanwhile, which has the size that the geometry says.
    unsafe fn compute(self, isa: Isa) {
        isa.dispatch(Write(self));
    }
}

/// [`WriteTiles::compute`], whose promise it rests on.
struct Write<'a>(WriteTiles<'a>);

impl Task for Write<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let WriteTiles { convolution, tiles, channels, m, m_row, m_panel, y } = self.0;
        assert!(channels.len().next_multiple_of(S::LANES) <= m_row);
        assert!(tiles.len() * m_row <= m_panel && POINTS * m_panel <= m.len());
        assert!(tiles.end <= convolution.tiles.count() && channels.end <= convolution.to.channels);
        for (row, tile) in tiles.enumerate() {
            let window = convolution.tiles.window(tile, convolution.to, OUTPUTS, [0, 0]);
            for first in (0..channels.len()).step_by(S::LANES) {
                let count = channels.len() - first;
                let from = m.as_ptr().wrapping_add(row * m_row + first);
                let mut half = [[simd.splat(0.0); INPUTS]; OUTPUTS];
                for j in 0..INPUTS {
                    let mut column = [simd.splat(0.0); INPUTS];
                    for (i, value) in column.iter_mut().enumerate() {
                        // SAFETY: a row of a panel holds the channels in whole vectors, see the asserts.
                        *value = unsafe { simd.load(from.add((i * INPUTS + j) * m_panel)) };
                    }
                    for (half, value) in half.iter_mut().zip(Output::apply(simd, column)) {
                        half[j] = value;
                    }
                }
                let channel = channels.start + first;
                let count = count.min(S::LANES);
                let bias = convolution.ending.bias_at(simd, channel, count);
                for (i, half) in half.iter().enumerate() {
                    let values = Output::apply(simd, *half);
                    // SAFETY: y, and so a residual (see `Ending::check`), has the images that the window is made for, and
                    // nobody else has the tile.
                    unsafe {
                        window.write(simd, y.offset(0), channel, i, values, count, |value, at| {
                            convolution.ending.of(simd, value, bias, at, count)
                        });
                    }
                }
            }
        }
    }
}
