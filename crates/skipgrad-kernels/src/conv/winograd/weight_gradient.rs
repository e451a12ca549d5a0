//! Weight gradient: the sum, over tiles, of tiles of x times tiles of dy.
//!
//! ```text
//! for each chunk of the tiles, part of the input and of the output channels         in parallel
//!   for each block of the chunk
//!     V = B^T d B for the block and these inputs                    36 panels [tiles, channels]
//!     Z = A dy A^T for the block and these outputs                  packed, 36 [tiles, channels]
//!     for each of 36 points:  P[point] += V[point]^T * Z[point]     see `products`
//!   dw of the chunk = G^T P G
//! dw = the sum over chunks, in order
//! ```
//!
//! P stays in the cache of the task, so channels are split into parts of at most 64 on either side;
//! every part transforms its tiles anew, which costs a fraction of the products. Where there are
//! few parts, the tiles are split into chunks, too: with 512 channels and few tiles there are 64
//! parts and one chunk, with 64 channels one part and 16 chunks. All splits depend on the sizes
//! alone.

use super::inputs::Inputs;
use super::products::{PerPoint, PointProducts};
use super::tiles::{Channels, Image, PointPanels, StripColumns, Tiles};
use super::transforms::{OutputGradientTransform, Transform, WeightGradientTransform};
use super::{INPUTS, OUTPUTS, POINTS, spread};
use crate::conv::Conv2dGeometry;
use crate::dense::NormRelu;
use crate::grid::RowOffsets;
use crate::microkernel::{Beta, TileShape};
use crate::panel::{DepthMajor, Layout};
use crate::reduce::add_in_order;
use crate::simd::Simd;
use crate::split::{Split, SyncMutPtr, shifted};
use crate::{Isa, Task, scratch};
use rayon::prelude::*;
use std::ops::Range;

/// The most channels of a part.
const PART: usize = 64;
/// The most tiles of a block.
const BLOCK: usize = 64;
/// The fewest tiles of a chunk.
const MIN_TILES: usize = 128;
/// The number of tasks wanted.
const TASKS: usize = 16;

/// Computes dw of the convolution of x, or of the normalized x if there is a norm.
pub(in super::super) fn weight_gradient(
    isa: Isa,
    sizes: &Conv2dGeometry,
    x: &[f32],
    norm: Option<NormRelu<'_>>,
    dy: &[f32],
    dw: &mut [f32],
) {
    let (height, width) = (sizes.out_height(), sizes.out_width());
    Gradient {
        inputs: Inputs {
            x,
            norm,
            image: Image::new(sizes.height, sizes.width, sizes.in_channels),
            before: sizes.padding.map(|[before, _]| before as isize),
            tiles: Tiles::covering(sizes.batch, height, width, OUTPUTS),
        },
        dy,
        outputs: Image::new(height, width, sizes.out_channels),
    }
    .compute(isa, dw);
}

/// The gradient of the weights.
struct Gradient<'a> {
    inputs: Inputs<'a>,
    dy: &'a [f32],
    outputs: Image,
}

/// How a gradient is divided into tasks.
struct GradientSplit {
    lanes: usize,
    tile_columns: usize,
    in_channels: Split,
    out_channels: Split,
    chunks: Split,
}

/// What one task computes.
struct TaskRange {
    tiles: Range<usize>,
    in_channels: Range<usize>,
    out_channels: Range<usize>,
}

impl GradientSplit {
    fn new(isa: Isa, tiles: usize, in_channels: usize, out_channels: usize) -> GradientSplit {
        let tile = TileShape::of(isa);
        let in_channels = Split::new(in_channels, tile.lanes, PART, 1);
        let out_channels = Split::new(out_channels, tile.columns, PART, 1);
        let chunks = (TASKS / (in_channels.parts * out_channels.parts)).min(tiles / MIN_TILES);
        GradientSplit {
            lanes: tile.lanes,
            tile_columns: tile.columns,
            in_channels,
            out_channels,
            chunks: Split::new(tiles, 1, usize::MAX, chunks),
        }
    }

    /// Returns the number of tasks of a chunk.
    fn tasks_per_chunk(&self) -> usize {
        self.in_channels.parts * self.out_channels.parts
    }

    /// Returns a task of a chunk.
    fn task(&self, chunk: usize, part: usize) -> TaskRange {
        TaskRange {
            tiles: self.chunks.range(chunk),
            in_channels: self.in_channels.range(part / self.out_channels.parts),
            out_channels: self.out_channels.range(part % self.out_channels.parts),
        }
    }
}

impl Gradient<'_> {
    fn compute(&self, isa: Isa, dw: &mut [f32]) {
        let Inputs { image, tiles: all, .. } = self.inputs;
        let (in_channels, out_channels) = (image.channels, self.outputs.channels);
        if dw.is_empty() {
            return;
        }
        self.inputs.check();
        assert!(self.dy.len() == all.images * self.outputs.height * self.outputs.width * out_channels);
        assert!(dw.len() == 9 * in_channels * out_channels);
        let split = GradientSplit::new(isa, all.count(), in_channels, out_channels);
        let len = dw.len();
        scratch::with((split.chunks.parts - 1) * len, |partial| {
            let (to_dw, to_partial) = (SyncMutPtr(dw.as_mut_ptr()), SyncMutPtr(partial.as_mut_ptr()));
            let tasks = 0..split.chunks.parts * split.tasks_per_chunk();
            tasks.into_par_iter().with_max_len(1).for_each(|task| {
                let (chunk, part) = (task / split.tasks_per_chunk(), task % split.tasks_per_chunk());
                let to = match chunk {
                    0 => to_dw,
                    chunk => SyncMutPtr(to_partial.offset((chunk - 1) * len)),
                };
                // SAFETY: tasks of a chunk differ in their channels, and each chunk has a dw of its
                // own, of `len` elements.
                unsafe { self.task(isa, &split, split.task(chunk, part), to) };
            });
            add_in_order(partial, dw);
        });
    }

    /// Computes dw of some tiles and of some channels on both sides.
    ///
    /// # Safety
    /// `dw` must have `9 * C * OC` elements, and nobody else may access these channels of it during
    /// the call.
    unsafe fn task(&self, isa: Isa, split: &GradientSplit, task: TaskRange, dw: SyncMutPtr) {
        let TaskRange { tiles, in_channels, out_channels } = task;
        let width = out_channels.len().next_multiple_of(split.lanes);
        let blocks = Split::new(tiles.len(), 1, BLOCK, 1);
        let v_panel = spread(blocks.largest() * DepthMajor::PITCH);
        let z_panel = spread(blocks.largest() * width);
        let (p_row, p_panel) = (spread(width), spread(in_channels.len() * spread(width)));
        let rows = RowOffsets::strided(in_channels.len(), p_row);
        let lens = [v_panel, z_panel, p_panel].map(|panel| POINTS * panel);
        scratch::with_buffers(lens, |[v, z, p]| {
            for block in 0..blocks.parts {
                let tiles = shifted(blocks.range(block), tiles.start);
                let (depth, channels) = (tiles.len(), in_channels.clone());
                self.inputs.transform::<DepthMajor, INPUTS, OUTPUTS>(
                    isa,
                    tiles.clone(),
                    channels,
                    v_panel,
                    v,
                );
                isa.dispatch(TransformDy {
                    gradient: self,
                    tiles,
                    channels: out_channels.clone(),
                    panel: z_panel,
                    tile_columns: split.tile_columns,
                    to: z,
                });
                let v = PerPoint { data: v, stride: v_panel };
                let z = PerPoint { data: z, stride: z_panel };
                let products = PointProducts::<DepthMajor>::new(v, z, [depth, width], Beta::of_block(block));
                for (point, p) in p.chunks_exact_mut(p_panel).enumerate() {
                    products.compute(isa, point, &rows, p);
                }
            }
            let channels = [self.inputs.image.channels, self.outputs.channels];
            let write = WriteDw { p, p_row, p_panel, in_channels, out_channels, channels, dw };
            // SAFETY: the caller guarantees the length of `dw` and the channels of this task.
            unsafe { write.write(isa) };
        });
    }
}

/// The transform `Z = A dy A^T` of some tiles and channels, packed for the products.
struct TransformDy<'a, 'b> {
    gradient: &'a Gradient<'a>,
    tiles: Range<usize>,
    channels: Range<usize>,
    /// Elements from one panel to the next.
    panel: usize,
    /// Columns of a micro-tile.
    tile_columns: usize,
    to: &'b mut [f32],
}

impl Task for TransformDy<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let TransformDy { gradient, tiles, channels, panel, tile_columns, to } = self;
        let padded = channels.len().next_multiple_of(S::LANES);
        assert!(tile_columns == S::TILE_VECTORS * S::LANES);
        assert!(panel >= tiles.len() * padded && to.len() >= POINTS * panel);
        assert!(tiles.end <= gradient.inputs.tiles.count() && channels.end <= gradient.outputs.channels);
        let depth = tiles.len();
        let mut columns = StripColumns::new(simd);
        let start = tiles.start;
        for strip in gradient.inputs.tiles.strips(tiles) {
            let row = strip.start - start;
            let window = gradient.inputs.tiles.window(strip, gradient.outputs, OUTPUTS, [0, 0]);
            for first in (0..channels.len()).step_by(S::LANES) {
                let from = Channels {
                    first: gradient.dy.as_ptr().wrapping_add(channels.start + first),
                    count: (channels.len() - first).min(S::LANES),
                    prefetch: None,
                };
                let column = first / tile_columns * tile_columns;
                let width = tile_columns.min(padded - column);
                let to = to[depth * column + row * width + first - column..].as_mut_ptr();
                let to = PointPanels { first: to, tile: width, point: panel };
                // SAFETY: `compute` asserts that dy has the images that the window is made for, and
                // the asserts above that they have the channels and that a panel holds all tiles
                // and the channels in whole vectors.
                unsafe {
                    window.transform::<S, OutputGradientTransform, OUTPUTS, INPUTS>(
                        simd,
                        from,
                        |x| x,
                        &mut columns,
                        to,
                    );
                }
            }
        }
    }
}

/// The transform `dw = G^T P G` of some channels.
struct WriteDw<'a> {
    p: &'a [f32],
    /// Elements from one input channel to the next.
    p_row: usize,
    /// Elements from one panel to the next.
    p_panel: usize,
    in_channels: Range<usize>,
    out_channels: Range<usize>,
    /// The numbers of channels, C and OC.
    channels: [usize; 2],
    dw: SyncMutPtr,
}

impl WriteDw<'_> {
    /// Writes the channels.
    ///
    /// # Safety
    /// `dw` must have `9 * C * OC` elements, and nobody else may access these channels of it during
    /// the call.
    unsafe fn write(self, isa: Isa) {
        isa.dispatch(WriteTask(self));
    }
}

/// The task of [`WriteDw::write`], which is the only place that makes one and whose contract it
/// relies on.
struct WriteTask<'a>(WriteDw<'a>);

impl Task for WriteTask<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let WriteDw { p, p_row, p_panel, in_channels, out_channels, channels, dw } = self.0;
        assert!(out_channels.len().next_multiple_of(S::LANES) <= p_row);
        assert!(in_channels.len() * p_row <= p_panel && POINTS * p_panel <= p.len());
        assert!(in_channels.end <= channels[0] && out_channels.end <= channels[1]);
        for row in 0..in_channels.len() {
            for first in (0..out_channels.len()).step_by(S::LANES) {
                let count = (out_channels.len() - first).min(S::LANES);
                let from = p.as_ptr().wrapping_add(row * p_row + first);
                let mut half = [[simd.splat(0.0); INPUTS]; 3];
                for j in 0..INPUTS {
                    let mut column = [simd.splat(0.0); INPUTS];
                    for (i, value) in column.iter_mut().enumerate() {
                        // SAFETY: the asserts show that a row of each of the panels holds the
                        // channels in whole vectors.
                        *value = unsafe { simd.load(from.add((i * INPUTS + j) * p_panel)) };
                    }
                    for (half, value) in half.iter_mut().zip(WeightGradientTransform::apply(simd, column)) {
                        half[j] = value;
                    }
                }
                for (ky, half) in half.iter().enumerate() {
                    for (kx, value) in WeightGradientTransform::apply(simd, *half).into_iter().enumerate() {
                        let channel = (ky * 3 + kx) * channels[0] + in_channels.start + row;
                        let to = dw.offset(channel * channels[1] + out_channels.start + first);
                        // SAFETY: the asserts show that the channels are within dw, whose length
                        // and exclusive use the caller of `write` guarantees.
                        unsafe { simd.store_first(to, value, count) };
                    }
                }
            }
        }
    }
}
