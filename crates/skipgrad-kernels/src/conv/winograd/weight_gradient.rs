//! Weight gradient: the sum over tiles of tiles of x times tiles of dy.
//!
//! ```text
//! for each chunk of the tiles, part of the input channels, part of the output channels      in parallel
//!   for each block of the chunk
//!     V = B^T d B for the block and these inputs                       36 panels [tiles, channels]
//!     Z = A dy A^T for the block and these outputs                     36 packed factors [tiles, channels]
//!     for each of 36 points:  P[point] += V[point]^T * Z[point]        see `microkernel`
//!   dw of the chunk = G^T P G
//! dw = the sum over chunks, in order
//! ```
//!
//! P stays with the task, so channels are split into parts of at most 64 on either side; every part transforms its tiles
//! anew, which costs a fraction of the products. Where there are few parts, the tiles are split into chunks, too: with 512
//! channels and few tiles there are 64 parts and one chunk, with 64 channels one part and 16 chunks. All splits depend on
//! the sizes alone.

use super::inputs::Inputs;
use super::tiles::{Channels, Columns, Image, Panels, Tiles};
use super::transforms::{OutputGradient, Transform, WeightGradient};
use super::{INPUTS, OUTPUTS, POINTS, spread};
use crate::conv::Conv2dGeometry;
use crate::dense::NormRelu;
use crate::microkernel::{DepthMajor, Layout, PanelProduct, Start, TileShape};
use crate::reduce::add_in_order;
use crate::simd::Simd;
use crate::split::{Split, SyncMutPtr};
use crate::{Isa, Task, scratch};
use rayon::prelude::*;
use std::marker::PhantomData;
use std::ops::Range;

/// Most channels of a part.
const PART: usize = 64;
/// Most tiles of a block.
const BLOCK: usize = 64;
/// Fewest tiles of a chunk.
const FEWEST_TILES: usize = 128;
/// Tasks wanted.
const TASKS: usize = 16;

/// dw of the convolution, of the normalized x if there is a norm.
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
        to: Image::new(height, width, sizes.out_channels),
    }
    .compute(isa, dw);
}

struct Gradient<'a> {
    inputs: Inputs<'a>,
    dy: &'a [f32],
    to: Image,
}

/// How a gradient is split.
struct Plan {
    lanes: usize,
    tile_columns: usize,
    inputs: Split,
    outputs: Split,
    chunks: Split,
}

impl Gradient<'_> {
    fn compute(&self, isa: Isa, dw: &mut [f32]) {
        let Inputs { image, tiles: all, .. } = self.inputs;
        let (tiles, inputs, outputs) = (all.count(), image.channels, self.to.channels);
        if dw.is_empty() {
            return;
        }
        self.inputs.check();
        assert!(self.dy.len() == all.images * self.to.height * self.to.width * outputs);
        assert!(dw.len() == 9 * inputs * outputs);
        let tile = TileShape::of(isa);
        let (in_parts, out_parts) =
            (Split::new(inputs, tile.lanes, PART, 1), Split::new(outputs, tile.columns, PART, 1));
        let chunks = (TASKS / (in_parts.parts * out_parts.parts)).min(tiles / FEWEST_TILES);
        let plan = Plan {
            lanes: tile.lanes,
            tile_columns: tile.columns,
            inputs: in_parts,
            outputs: out_parts,
            chunks: Split::new(tiles, 1, usize::MAX, chunks),
        };
        scratch::with((plan.chunks.parts - 1) * dw.len(), |partial| {
            let (to_dw, to_partial) = (SyncMutPtr(dw.as_mut_ptr()), SyncMutPtr(partial.as_mut_ptr()));
            let parts = plan.inputs.parts * plan.outputs.parts;
            (0..plan.chunks.parts * parts).into_par_iter().with_max_len(1).for_each(|task| {
                let (chunk, part) = (task / parts, task % parts);
                let inputs = plan.inputs.range(part / plan.outputs.parts);
                let outputs = plan.outputs.range(part % plan.outputs.parts);
                let to = match chunk.checked_sub(1) {
                    None => to_dw,
                    Some(chunk) => {
                        SyncMutPtr(to_partial.offset(chunk * 9 * image.channels * self.to.channels))
                    }
                };
                // SAFETY: tasks of a chunk differ in their channels, and each chunk has a dw of its own.
                unsafe { self.task(isa, &plan, plan.chunks.range(chunk), inputs, outputs, to) };
            });
            add_in_order(partial, dw);
        });
    }

    /// A chunk of the tiles, a part of the channels on both sides.
    ///
    /// # Safety
    /// No other task may have the same channels of `dw`, which has module for all.
    unsafe fn task(
        &self,
        isa: Isa,
        plan: &Plan,
        tiles: Range<usize>,
        inputs: Range<usize>,
        outputs: Range<usize>,
        dw: SyncMutPtr,
    ) {
        let width = outputs.len().next_multiple_of(plan.lanes);
        let blocks = Split::new(tiles.len(), 1, BLOCK, 1);
        let v_panel = spread(blocks.largest() * DepthMajor::PITCH);
        let z_panel = spread(blocks.largest() * width);
        let (p_row, p_panel) = (spread(width), spread(inputs.len() * spread(width)));
        let mut offsets = [0; DepthMajor::WIDTH];
        let offsets = &mut offsets[..inputs.len()];
        offsets.iter_mut().enumerate().for_each(|(row, offset)| *offset = row * p_row);
        scratch::with(POINTS * v_panel, |v| {
            scratch::with(POINTS * z_panel, |z| {
                scratch::with(POINTS * p_panel, |p| {
                    for block in 0..blocks.parts {
                        let range = blocks.range(block);
                        let range = tiles.start + range.start..tiles.start + range.end;
                        let (tiles, channels) = (range.clone(), inputs.clone());
                        self.inputs.read::<DepthMajor, INPUTS, OUTPUTS>(isa, tiles, channels, v_panel, v);
                        isa.dispatch(ReadDy {
                            gradient: self,
                            tiles: range.clone(),
                            channels: outputs.clone(),
                            panel: z_panel,
                            tile_columns: plan.tile_columns,
                            to: z,
                        });
                        for point in 0..POINTS {
                            let product = PanelProduct::<DepthMajor> {
                                panel: &v[point * v_panel..][..v_panel],
                                pitch: DepthMajor::PITCH,
                                depth: range.len(),
                                b: &z[point * z_panel..][..z_panel],
                                then: &[],
                                columns: width,
                                offsets,
                                start: if block == 0 { Start::Zero } else { Start::Add },
                                end: None,
                                layout: PhantomData,
                            };
                            let p = &mut p[point * p_panel..][..p_panel];
                            // SAFETY: `width` numbers from each offset lie within the panel, which is this task's.
                            unsafe { product.compute(isa, p.as_mut_ptr()) };
                        }
                    }
                    let channels = [self.inputs.image.channels, self.to.channels];
                    let write = WriteDw { p, p_row, p_panel, inputs, outputs, channels, dw };
                    // SAFETY: as promised by the caller.
                    unsafe { write.compute(isa) };
                });
            });
        });
    }
}

/// `Z = A dy A^T` of some tiles and channels, packed as the products want it.
struct ReadDy<'a, 'b> {
    gradient: &'a Gradient<'a>,
    tiles: Range<usize>,
    channels: Range<usize>,
    /// Numbers from a panel to the next.
    panel: usize,
    /// Columns of a register tile.
    tile_columns: usize,
    to: &'b mut [f32],
}

impl Task for ReadDy<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let ReadDy { gradient, tiles, channels, panel, tile_columns, to } = self;
        let padded = channels.len().next_multiple_of(S::LANES);
        assert!(tile_columns == S::TILE_VECTORS * S::LANES);
        assert!(panel >= tiles.len() * padded && to.len() >= POINTS * panel);
        assert!(tiles.end <= gradient.inputs.tiles.count() && channels.end <= gradient.to.channels);
        let depth = tiles.len();
        let mut columns = Columns::new(simd);
        let start = tiles.start;
        for strip in gradient.inputs.tiles.strips(tiles) {
            let row = strip.start - start;
            let window = gradient.inputs.tiles.window(strip, gradient.to, OUTPUTS, [0, 0]);
            for first in (0..channels.len()).step_by(S::LANES) {
                let from = Channels {
                    first: gradient.dy.as_ptr().wrapping_add(channels.start + first),
                    count: (channels.len() - first).min(S::LANES),
                    ahead: None,
                };
                let column = first / tile_columns * tile_columns;
                let width = tile_columns.min(padded - column);
                let to = to[depth * column + row * width + first - column..].as_mut_ptr();
                let to = Panels { first: to, tile: width, point: panel };
                // SAFETY: `compute` asserts that dy has the images that the window is made for; channels are in range. A panel
                // has module for all tiles and the channels in whole vectors, see the asserts.
                unsafe {
                    window.transform::<S, OutputGradient, OUTPUTS, INPUTS>(
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

/// `dw = G^T P G` of some channels.
struct WriteDw<'a> {
    p: &'a [f32],
    /// Numbers from an input channel to the next.
    p_row: usize,
    /// Numbers from a panel to the next.
    p_panel: usize,
    inputs: Range<usize>,
    outputs: Range<usize>,
    /// C and OC.
    channels: [usize; 2],
    dw: SyncMutPtr,
}

impl WriteDw<'_> {
    /// Computes it.
    ///
    /// # Safety
    /// `dw` has module for `[3, 3, C, OC]`, and nobody else may access these channels of it meanwhile.
    unsafe fn compute(self, isa: Isa) {
        isa.dispatch(Write(self));
    }
}

/// [`WriteDw::compute`], whose promise it rests on.
struct Write<'a>(WriteDw<'a>);

impl Task for Write<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let WriteDw { p, p_row, p_panel, inputs, outputs, channels, dw } = self.0;
        assert!(outputs.len().next_multiple_of(S::LANES) <= p_row);
        assert!(inputs.len() * p_row <= p_panel && POINTS * p_panel <= p.len());
        assert!(inputs.end <= channels[0] && outputs.end <= channels[1]);
        for row in 0..inputs.len() {
            for first in (0..outputs.len()).step_by(S::LANES) {
                let count = (outputs.len() - first).min(S::LANES);
                let from = p.as_ptr().wrapping_add(row * p_row + first);
                let mut half = [[simd.splat(0.0); INPUTS]; 3];
                for j in 0..INPUTS {
                    let mut column = [simd.splat(0.0); INPUTS];
                    for (i, value) in column.iter_mut().enumerate() {
                        // SAFETY: a row of a panel holds the channels in whole vectors, see the asserts.
                        *value = unsafe { simd.load(from.add((i * INPUTS + j) * p_panel)) };
                    }
                    for (half, value) in half.iter_mut().zip(WeightGradient::apply(simd, column)) {
                        half[j] = value;
                    }
                }
                for (ky, half) in half.iter().enumerate() {
                    for (kx, value) in WeightGradient::apply(simd, *half).into_iter().enumerate() {
                        let channel = (ky * 3 + kx) * channels[0] + inputs.start + row;
                        let to = dw.offset(channel * channels[1] + outputs.start + first);
                        // SAFETY: the channels are within dw, and nobody else's, as promised.
                        unsafe { simd.store_first(to, value, count) };
                    }
                }
            }
        }
    }
}
