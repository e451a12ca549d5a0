//! Forward and input gradient: the sum over channels of tiles of the input times tiles of the weights.
//!
//! ```text
//! for each block of the tiles, part of the output channels             in parallel
//!   for each block of the input channels
//!     V = B^T d B for the tiles and these channels                     a panel a point [tiles, channels]
//!     U = G g G^T for these channels and outputs, or found ready       a packed factor a point [channels, outputs]
//!     for each point:  M[point] += V[point] * U[point]                 see `microkernel`; asks for a part of y
//!   y = A^T M A, and its end: bias, residual, ReLU
//! ```
//!
//! V and M of a task fill about a second-level cache, and what goes through it is used at once. U is streamed, once a task:
//! a block is as many tiles as that needs to be cheap, which is more where there are more channels. U is computed ahead and
//! shared, unless all tiles are one block: then only one task needs each part of it, and computes it. Output channels are
//! split where there are too few tiles to keep the cores busy, though every part transforms the inputs anew, for which the
//! products take ten times as long. All splits depend on the sizes alone.

mod exchange;

use self::exchange::WriteTiles;
use super::inputs::Inputs;
use super::tiles::{Image, Tiles};
use super::transforms::{F, Filtering};
use super::weights::Weights;
use super::{INPUTS, OUTPUTS, spread};
use crate::Isa;
use crate::conv::Conv2dGeometry;
use crate::dense::{ChannelViewMut, NormRelu};
use crate::epilogue::{Block, BlockVisitor, Epilogue};
use crate::microkernel::{Layout, PanelProduct, RowMajor, Start, TileShape};
use crate::moments::{TakeMoments, merge_blocks};
use crate::scratch;
use crate::split::{Split, SyncMutPtr};
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

/// y of the convolution, and what the epilogue finds out about the ended blocks.
pub(in super::super) fn forward<E: BlockVisitor>(
    isa: Isa,
    sizes: &Conv2dGeometry,
    x: &[f32],
    w: &[f32],
    epilogue: Epilogue<'_>,
    visitor: &E,
    y: &mut [f32],
) -> Vec<E::Output> {
    let y = ChannelViewMut::whole(y, sizes.out_channels);
    convolution::<INPUTS, OUTPUTS>(sizes, x, U::Of(weights(sizes, w)), epilogue).compute(isa, visitor, y)
}

/// y of the convolution of x, of the normalized x if there is a norm, and mean and biased variance of every channel of y, in f64,
/// taken while y is in the cache.
pub(in super::super) fn forward_into(
    isa: Isa,
    sizes: &Conv2dGeometry,
    x: &[f32],
    norm: Option<NormRelu<'_>>,
    w: &[f32],
    y: ChannelViewMut<'_>,
) -> (Vec<f64>, Vec<f64>) {
    let mut convolution =
        convolution::<INPUTS, OUTPUTS>(sizes, x, U::Of(weights(sizes, w)), Epilogue::default());
    convolution.inputs.norm = norm;
    let blocks = convolution.compute(isa, &TakeMoments { first: 0 }, y);
    merge_blocks(sizes.out_channels, blocks)
}

/// y of the convolution, with weights that [`pack`] made.
pub(in super::super) fn forward_packed<const I: usize, const O: usize>(
    isa: Isa,
    sizes: &Conv2dGeometry,
    x: &[f32],
    packed: &[f32],
    epilogue: Epilogue<'_>,
    y: ChannelViewMut<'_>,
) where
    F: Filtering<I, O>,
{
    convolution(sizes, x, U::Ready(packed), epilogue).compute(isa, &(), y);
}

/// How many numbers [`pack`] makes for tiles of `I` x `I` inputs.
pub(in super::super) fn packed_len<const I: usize>(isa: Isa, sizes: &Conv2dGeometry) -> usize {
    I * I * sizes.in_channels * sizes.out_channels.next_multiple_of(TileShape::of(isa).lanes)
}

/// Transforms all weights on the calling thread, for [`forward_packed`].
pub(in super::super) fn pack<const I: usize, const O: usize>(
    isa: Isa,
    sizes: &Conv2dGeometry,
    w: &[f32],
    packed: &mut [f32],
) where
    F: Filtering<I, O>,
{
    let (inputs, outputs) = (sizes.in_channels, sizes.out_channels);
    for (depth, piece) in blocks_of_depth(inputs, packed_len::<I>(isa, sizes) / inputs.max(1), packed) {
        weights(sizes, w).transform::<I, O>(isa, depth, 0..outputs, piece);
    }
}

fn weights<'a>(sizes: &Conv2dGeometry, w: &'a [f32]) -> Weights<'a> {
    Weights { w, channels: [sizes.in_channels, sizes.out_channels], turned: false }
}

fn convolution<'a, const I: usize, const O: usize>(
    sizes: &Conv2dGeometry,
    x: &'a [f32],
    u: U<'a>,
    epilogue: Epilogue<'a>,
) -> Convolution<'a, I, O> {
    let (height, width) = (sizes.out_height(), sizes.out_width());
    Convolution {
        inputs: Inputs {
            x,
            norm: None,
            image: Image::new(sizes.height, sizes.width, sizes.in_channels),
            before: sizes.padding.map(|[before, _]| before as isize),
            tiles: Tiles::covering(sizes.batch, height, width, O),
        },
        u,
        epilogue,
        to: Image::new(height, width, sizes.out_channels),
    }
}

/// dx of the convolution: dy convolved with the kernel turned round; and what the epilogue finds out about its blocks.
pub(in super::super) fn input_gradient<E: BlockVisitor>(
    isa: Isa,
    sizes: &Conv2dGeometry,
    dy: &[f32],
    w: &[f32],
    visitor: &E,
    dx: &mut [f32],
) -> Vec<E::Output> {
    Convolution::<INPUTS, OUTPUTS> {
        inputs: Inputs {
            x: dy,
            norm: None,
            image: Image::new(sizes.out_height(), sizes.out_width(), sizes.out_channels),
            before: sizes.padding.map(|[before, _]| 2 - before as isize),
            tiles: Tiles::covering(sizes.batch, sizes.height, sizes.width, OUTPUTS),
        },
        u: U::Of(Weights { turned: true, ..weights(sizes, w) }),
        epilogue: Epilogue::default(),
        to: Image::new(sizes.height, sizes.width, sizes.in_channels),
    }
    .compute(isa, visitor, ChannelViewMut::whole(dx, sizes.in_channels))
}

/// The weights at the points.
enum U<'a> {
    /// To be transformed.
    Of(Weights<'a>),
    /// Transformed: blocks of the depth, in each [point][input channel][output channel], packed as the products want it.
    Ready(&'a [f32]),
}

/// The blocks of the input channels, and the place of each in `ready`, where a channel has `numbers`.
fn blocks_of_depth(inputs: usize, numbers: usize, ready: &mut [f32]) -> Vec<(Range<usize>, &mut [f32])> {
    let split = Split::new(inputs, 1, DEPTH, 1);
    let mut rest = ready;
    let blocks = (0..split.parts).map(|block| {
        let depth = split.range(block);
        let (piece, after) = std::mem::take(&mut rest).split_at_mut(depth.len() * numbers);
        rest = after;
        (depth, piece)
    });
    blocks.collect()
}

/// By tiles of `I` x `I` inputs and `O` x `O` outputs.
struct Convolution<'a, const I: usize, const O: usize> {
    inputs: Inputs<'a>,
    u: U<'a>,
    epilogue: Epilogue<'a>,
    to: Image,
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
        let fewest = Split::new(tiles, tile.rows, most, 1).parts;
        // Few parts are made even, for cores come so; what cannot be split by tiles, by output channels.
        let even = if fewest > 1 && fewest < TASKS { fewest.next_multiple_of(2) } else { fewest };
        let tiles = Split::new(tiles, tile.rows, most, even);
        let wanted = TASKS.div_ceil(tiles.parts).min(columns / FEWEST_COLUMNS);
        let wanted = if tiles.parts == 1 { wanted.max(2) } else { wanted };
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

impl<const I: usize, const O: usize> Convolution<'_, I, O>
where
    F: Filtering<I, O>,
{
    const POINTS: usize = I * I;

    /// Computes it into the channels of a slot, for which there is no residual unless the slot is all of y.
    fn compute<E: BlockVisitor>(mut self, isa: Isa, visitor: &E, y: ChannelViewMut<'_>) -> Vec<E::Output> {
        self.to.pixel = y.row;
        let Inputs { image, tiles: all, .. } = self.inputs;
        let (tiles, depth, columns) = (all.count(), image.channels, self.to.channels);
        if tiles == 0 || columns == 0 {
            return vec![];
        }
        assert!(depth > 0, "no channels to sum over");
        self.inputs.check();
        y.check(all.images * self.to.height * self.to.width, columns);
        self.epilogue.check(columns, y.data.len());
        let plan = Plan::new(isa, tiles, depth, columns);
        let ready = Self::POINTS * depth * plan.padded(columns);
        match &self.u {
            U::Ready(u) => {
                assert!(u.len() >= ready, "weights that do not fit the geometry");
                self.parts(isa, &plan, Some(u), visitor, y)
            }
            U::Of(_) if plan.tiles.parts == 1 => self.parts(isa, &plan, None, visitor, y),
            U::Of(weights) => scratch::with(ready, |ready| {
                let blocks = blocks_of_depth(depth, Self::POINTS * plan.padded(columns), ready);
                blocks.into_par_iter().with_max_len(1).for_each(|(depth, piece)| {
                    weights.transform::<I, O>(isa, depth, 0..columns, piece);
                });
                self.parts(isa, &plan, Some(ready), visitor, y)
            }),
        }
    }

    /// All blocks of the tiles and parts of the output channels, with the transformed weights, if they are.
    fn parts<E: BlockVisitor>(
        &self,
        isa: Isa,
        plan: &Plan,
        ready: Option<&[f32]>,
        visitor: &E,
        y: ChannelViewMut<'_>,
    ) -> Vec<E::Output> {
        let y = SyncMutPtr(y.data[y.first..].as_mut_ptr());
        let tasks = (0..plan.tiles.parts * plan.columns.parts).into_par_iter().with_max_len(1).map(|task| {
            let tiles = plan.tiles.range(task / plan.columns.parts);
            let columns = plan.columns.range(task % plan.columns.parts);
            let offsets = self.inputs.tiles.pixels(tiles.clone(), self.to);
            let block = Block { columns, offsets: &offsets, c: y };
            // SAFETY: tasks differ in their tiles or their channels, and tiles do not share outputs.
            unsafe {
                self.task(isa, plan, tiles, ready, &block);
                visitor.apply(isa, &block)
            }
        });
        tasks.collect()
    }

    /// A block of tiles, a part of the output channels: a block of y.
    ///
    /// # Safety
    /// No other task may have the same tile and channel; the sizes are those that `compute` asserts.
    unsafe fn task(&self, isa: Isa, plan: &Plan, tiles: Range<usize>, ready: Option<&[f32]>, y: &Block<'_>) {
        let columns = y.columns.clone();
        let width = plan.padded(columns.len());
        let (v_panel, m_row) = (spread(tiles.len() * RowMajor::PITCH), spread(width));
        let m_panel = spread(tiles.len() * m_row);
        let mut offsets = [0; 192];
        let offsets = &mut offsets[..tiles.len()];
        offsets.iter_mut().enumerate().for_each(|(tile, offset)| *offset = tile * m_row);
        let u_here = if ready.is_none() { Self::POINTS * plan.depth.largest() * width } else { 0 };
        scratch::with(Self::POINTS * v_panel, |v| {
            scratch::with(Self::POINTS * m_panel, |m| {
                scratch::with(u_here, |u_here| {
                    for block in 0..plan.depth.parts {
                        let depth = plan.depth.range(block);
                        self.inputs.read::<RowMajor, I, O>(isa, tiles.clone(), depth.clone(), v_panel, v);
                        // U of the block, and the numbers of a point.
                        let (u, u_point) = match (ready, &self.u) {
                            (None, U::Of(weights)) => {
                                weights.transform::<I, O>(isa, depth.clone(), columns.clone(), u_here);
                                (&*u_here, depth.len() * width)
                            }
                            (ready, _) => {
                                let padded = plan.padded(self.to.channels);
                                let block = Self::POINTS * depth.start * padded + depth.len() * columns.start;
                                (&ready.unwrap_or_default()[block..], depth.len() * padded)
                            }
                        };
                        for point in 0..Self::POINTS {
                            let product = PanelProduct::<RowMajor> {
                                panel: &v[point * v_panel..][..v_panel],
                                pitch: RowMajor::PITCH,
                                depth: depth.len(),
                                b: &u[point * u_point..][..depth.len() * width],
                                then: u.get((point + 1) * u_point..).unwrap_or_default(),
                                columns: width,
                                offsets,
                                start: if block == 0 { Start::Zero } else { Start::Add },
                                end: None,
                                layout: PhantomData,
                            };
                            let m = &mut m[point * m_panel..][..m_panel];
                            if block + 1 == plan.depth.parts {
                                y.ask(point, Self::POINTS);
                            }
                            // SAFETY: `width` numbers from each offset lie within the panel, which is this task's.
                            unsafe { product.compute(isa, m.as_mut_ptr()) };
                        }
                    }
                    let write =
                        WriteTiles { convolution: self, tiles, channels: columns, m, m_row, m_panel, y: y.c };
                    // SAFETY: as promised by the caller.
                    unsafe { write.compute(isa) };
                });
            });
        });
    }
}
