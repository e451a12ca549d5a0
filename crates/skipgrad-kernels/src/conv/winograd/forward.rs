//! Forward and input gradient: the sum over channels of tiles of the input times tiles of the
//! weights.
//!
//! ```text
//! for each block of the tiles, part of the output channels        in parallel
//!   for each block of the input channels
//!     V = B^T d B for the tiles and these channels                panels [tiles, channels]
//!     U = G g G^T for these channels, unless it is ready          packed [channels, outputs]
//!     for each point:  M[point] += V[point] * U[point]            see `products`; prefetches y
//!   y = A^T M A, and the epilogue: bias, residual, ReLU
//! ```
//!
//! V and M of a task fill about a second-level cache, and are used at once. U is streamed, once per
//! task: a block has as many tiles as make that cheap, which is more where there are more channels.
//! U is computed in advance and shared, unless all tiles are one block: then only one task needs
//! each part of it, and computes it. Output channels are split where there are too few tiles to
//! keep the cores busy, though every part transforms the inputs anew, which takes a tenth of the
//! time of the products. All splits depend on the sizes alone.

mod exchange;

use self::exchange::WriteTiles;
use super::inputs::Inputs;
use super::products::{PerPoint, PointProducts};
use super::tiles::{Image, Tiles};
use super::transforms::{F, Filtering};
use super::weights::Weights;
use super::{INPUTS, OUTPUTS, spread};
use crate::Isa;
use crate::conv::Conv2dGeometry;
use crate::dense::{ChannelViewMut, NormRelu};
use crate::epilogue::{Block, BlockVisitor, Epilogue};
use crate::grid::RowOffsets;
use crate::microkernel::{Beta, TileShape};
use crate::moments::{TakeMoments, merge_blocks};
use crate::panel::{Layout, RowMajor};
use crate::prefetch::LINE;
use crate::scratch;
use crate::split::{Split, SyncMutPtr};
use rayon::prelude::*;
use std::ops::Range;

/// The most input channels of a block.
const KC: usize = 64;
/// The most output channels of a task.
const NC: usize = 128;
/// The fewest output channels worth splitting off.
const MIN_COLUMNS: usize = 64;
/// The number of tasks wanted.
const TASKS: usize = 16;

/// Computes y of the convolution and returns what the visitor returned for its blocks.
pub(in super::super) fn forward<V: BlockVisitor>(
    isa: Isa,
    sizes: &Conv2dGeometry,
    x: &[f32],
    w: &[f32],
    epilogue: Epilogue<'_>,
    visitor: &V,
    y: &mut [f32],
) -> Vec<V::Output> {
    let y = ChannelViewMut::whole(y, sizes.out_channels);
    convolution::<INPUTS, OUTPUTS>(sizes, x, U::Untransformed(weights(sizes, w)), epilogue)
        .compute(isa, visitor, y)
}

/// Computes y of the convolution of x, or of the normalized x if there is a norm. Returns the mean
/// and the biased variance of every channel of y, in f64, taken while y is in the cache.
pub(in super::super) fn forward_into(
    isa: Isa,
    sizes: &Conv2dGeometry,
    x: &[f32],
    norm: Option<NormRelu<'_>>,
    w: &[f32],
    y: ChannelViewMut<'_>,
) -> (Vec<f64>, Vec<f64>) {
    let mut convolution =
        convolution::<INPUTS, OUTPUTS>(sizes, x, U::Untransformed(weights(sizes, w)), Epilogue::default());
    convolution.inputs.norm = norm;
    let blocks = convolution.compute(isa, &TakeMoments { first: 0 }, y);
    merge_blocks(sizes.out_channels, blocks)
}

/// Computes y of the convolution with weights that [`pack`] transformed.
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
    convolution(sizes, x, U::Transformed(packed), epilogue).compute(isa, &(), y);
}

/// Returns the number of elements that [`pack`] writes for tiles of `I` x `I` inputs.
pub(in super::super) fn packed_len<const I: usize>(isa: Isa, sizes: &Conv2dGeometry) -> usize {
    let padded = sizes.out_channels.next_multiple_of(TileShape::of(isa).lanes);
    transformed_len::<I>(&depth_split(sizes.in_channels), padded)
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
    let padded = sizes.out_channels.next_multiple_of(TileShape::of(isa).lanes);
    for (depth, block) in depth_blocks::<I>(&depth_split(sizes.in_channels), padded, packed) {
        let stride = point_stride(depth.len(), padded);
        weights(sizes, w).transform::<I, O>(isa, depth, 0..sizes.out_channels, block, stride);
    }
}

/// Returns the weights of the forward direction.
fn weights<'a>(sizes: &Conv2dGeometry, w: &'a [f32]) -> Weights<'a> {
    Weights { w, channels: [sizes.in_channels, sizes.out_channels], rotated: false }
}

/// Returns the convolution of the forward direction.
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

/// Computes dx of the convolution, as dy convolved with the rotated kernel, and returns what the
/// visitor returned for its blocks.
pub(in super::super) fn input_gradient<V: BlockVisitor>(
    isa: Isa,
    sizes: &Conv2dGeometry,
    dy: &[f32],
    w: &[f32],
    visitor: &V,
    dx: &mut [f32],
) -> Vec<V::Output> {
    Convolution::<INPUTS, OUTPUTS> {
        inputs: Inputs {
            x: dy,
            norm: None,
            image: Image::new(sizes.out_height(), sizes.out_width(), sizes.out_channels),
            before: sizes.padding.map(|[before, _]| 2 - before as isize),
            tiles: Tiles::covering(sizes.batch, sizes.height, sizes.width, OUTPUTS),
        },
        u: U::Untransformed(Weights { rotated: true, ..weights(sizes, w) }),
        epilogue: Epilogue::default(),
        to: Image::new(sizes.height, sizes.width, sizes.in_channels),
    }
    .compute(isa, visitor, ChannelViewMut::whole(dx, sizes.in_channels))
}

/// The weights, before or after their transform.
enum U<'a> {
    /// Weights that are transformed for this convolution.
    Untransformed(Weights<'a>),
    /// Transformed weights: for each block of the depth `[point][input channel][output channel]`,
    /// packed.
    Transformed(&'a [f32]),
}

/// Returns the blocks of the input channels.
fn depth_split(inputs: usize) -> Split {
    Split::new(inputs, 1, KC, 1)
}

/// Returns the number of elements from one point to the next in the transformed weights of a block:
/// a line more than there are, since the points of a weight would otherwise mostly be a power of
/// two apart, all in few sets of a cache, where each store evicts another.
fn point_stride(depth: usize, padded: usize) -> usize {
    depth * padded + LINE
}

/// Returns the number of elements of the transformed weights.
fn transformed_len<const I: usize>(split: &Split, padded: usize) -> usize {
    I * I * (split.range(split.parts.max(1) - 1).end * padded + split.parts * LINE)
}

/// Returns the blocks of the input channels and the part of `transformed` that belongs to each.
fn depth_blocks<'t, const I: usize>(
    split: &Split,
    padded: usize,
    transformed: &'t mut [f32],
) -> Vec<(Range<usize>, &'t mut [f32])> {
    let mut rest = transformed;
    let blocks = (0..split.parts).map(|block| {
        let depth = split.range(block);
        let len = I * I * point_stride(depth.len(), padded);
        let (block, after) = std::mem::take(&mut rest).split_at_mut(len);
        rest = after;
        (depth, block)
    });
    blocks.collect()
}

/// A convolution by tiles of `I` x `I` inputs and `O` x `O` outputs.
struct Convolution<'a, const I: usize, const O: usize> {
    inputs: Inputs<'a>,
    u: U<'a>,
    epilogue: Epilogue<'a>,
    to: Image,
}

/// How a convolution is divided into tasks and blocks.
struct ForwardSplit {
    lanes: usize,
    tiles: Split,
    columns: Split,
    depth: Split,
}

impl ForwardSplit {
    fn new(isa: Isa, tiles: usize, depth: usize, columns: usize) -> ForwardSplit {
        let tile = TileShape::of(isa);
        let most = (depth.min(columns) / 4).clamp(24, 128).next_multiple_of(tile.rows);
        let fewest = Split::new(tiles, tile.rows, most, 1).parts;
        // A small number of parts is made even, as numbers of cores are; where there are too few
        // tiles, output channels are split.
        let even = if fewest > 1 && fewest < TASKS { fewest.next_multiple_of(2) } else { fewest };
        let tiles = Split::new(tiles, tile.rows, most, even);
        let wanted = TASKS.div_ceil(tiles.parts).min(columns / MIN_COLUMNS);
        let wanted = if tiles.parts == 1 { wanted.max(2) } else { wanted };
        ForwardSplit {
            lanes: tile.lanes,
            tiles,
            columns: Split::new(columns, tile.columns, NC, wanted),
            depth: depth_split(depth),
        }
    }

    /// Returns the number of output channels with those that fill the last vector.
    fn padded(&self, columns: usize) -> usize {
        columns.next_multiple_of(self.lanes)
    }
}

impl<const I: usize, const O: usize> Convolution<'_, I, O>
where
    F: Filtering<I, O>,
{
    const POINTS: usize = I * I;

    /// Computes the convolution into channels of a wider matrix. There is a residual only if the
    /// view is all of y.
    fn compute<V: BlockVisitor>(mut self, isa: Isa, visitor: &V, y: ChannelViewMut<'_>) -> Vec<V::Output> {
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
        let split = ForwardSplit::new(isa, tiles, depth, columns);
        let padded = split.padded(columns);
        let len = transformed_len::<I>(&split.depth, padded);
        match &self.u {
            U::Transformed(u) => {
                assert!(u.len() >= len, "weights that do not fit the geometry");
                self.all_tasks(isa, &split, Some(u), visitor, y)
            }
            U::Untransformed(_) if split.tiles.parts == 1 => self.all_tasks(isa, &split, None, visitor, y),
            U::Untransformed(weights) => scratch::with(len, |u| {
                let blocks = depth_blocks::<I>(&split.depth, padded, u);
                blocks.into_par_iter().with_max_len(1).for_each(|(depth, block)| {
                    let stride = point_stride(depth.len(), padded);
                    weights.transform::<I, O>(isa, depth, 0..columns, block, stride);
                });
                self.all_tasks(isa, &split, Some(u), visitor, y)
            }),
        }
    }

    /// Runs all tasks, with the transformed weights unless each task transforms its own.
    fn all_tasks<V: BlockVisitor>(
        &self,
        isa: Isa,
        split: &ForwardSplit,
        u: Option<&[f32]>,
        visitor: &V,
        y: ChannelViewMut<'_>,
    ) -> Vec<V::Output> {
        let y = SyncMutPtr(y.data[y.first..].as_mut_ptr());
        let tasks =
            (0..split.tiles.parts * split.columns.parts).into_par_iter().with_max_len(1).map(|task| {
                let tiles = split.tiles.range(task / split.columns.parts);
                let columns = split.columns.range(task % split.columns.parts);
                let offsets = self.inputs.tiles.pixels(tiles.clone(), self.to);
                let block = Block { columns, offsets: &offsets, c: y };
                // SAFETY: `compute` checked the size of y, which is borrowed mutably. Tasks differ
                // in their tiles or their channels, and tiles do not share outputs.
                unsafe {
                    self.task(isa, split, tiles, u, &block);
                    visitor.visit(isa, &block)
                }
            });
        tasks.collect()
    }

    /// Computes a block of y: some tiles and output channels.
    ///
    /// # Safety
    /// `y` must have the size that `compute` checks, and nobody else may access these tiles and
    /// channels during the call.
    unsafe fn task(
        &self,
        isa: Isa,
        split: &ForwardSplit,
        tiles: Range<usize>,
        u: Option<&[f32]>,
        y: &Block<'_>,
    ) {
        let width = split.padded(y.columns.len());
        let (v_panel, m_row) = (spread(tiles.len() * RowMajor::PITCH), spread(width));
        let m_panel = spread(tiles.len() * m_row);
        let rows = RowOffsets::strided(tiles.len(), m_row);
        let u_len = if u.is_none() { Self::POINTS * point_stride(split.depth.largest(), width) } else { 0 };
        let lens = [Self::POINTS * v_panel, Self::POINTS * m_panel, u_len];
        scratch::with_buffers(lens, |[v, m, u_buffer]| {
            for block in 0..split.depth.parts {
                let depth = split.depth.range(block);
                self.inputs.transform::<RowMajor, I, O>(isa, tiles.clone(), depth.clone(), v_panel, v);
                let u = self.u_of_block(isa, split, block, y.columns.clone(), u, u_buffer);
                let v = PerPoint { data: v, stride: v_panel };
                let products =
                    PointProducts::<RowMajor>::new(v, u, [depth.len(), width], Beta::of_block(block))
                        .stream_b();
                for point in 0..Self::POINTS {
                    if block + 1 == split.depth.parts {
                        y.prefetch(point, Self::POINTS);
                    }
                    products.compute(isa, point, &rows, &mut m[point * m_panel..][..m_panel]);
                }
            }
            let channels = y.columns.clone();
            let tiles = WriteTiles { convolution: self, tiles, channels, m, m_row, m_panel, y: y.c };
            // SAFETY: the caller guarantees the size of `y`, and the tiles and channels of this
            // task.
            unsafe { tiles.write(isa) };
        });
    }

    /// Returns the transformed weights of some channels, of which `buffer` has the space if they
    /// are not transformed yet.
    fn u_of_block<'b>(
        &self,
        isa: Isa,
        split: &ForwardSplit,
        block: usize,
        columns: Range<usize>,
        transformed: Option<&'b [f32]>,
        buffer: &'b mut [f32],
    ) -> PerPoint<'b> {
        let depth = split.depth.range(block);
        match (transformed, &self.u) {
            (None, U::Untransformed(weights)) => {
                let stride = point_stride(depth.len(), split.padded(columns.len()));
                weights.transform::<I, O>(isa, depth, columns, buffer, stride);
                PerPoint { data: buffer, stride }
            }
            (transformed, _) => {
                let padded = split.padded(self.to.channels);
                let of_block = Self::POINTS * (depth.start * padded + block * LINE);
                let first = of_block + depth.len() * columns.start;
                let stride = point_stride(depth.len(), padded);
                PerPoint { data: &transformed.unwrap_or_default()[first..], stride }
            }
        }
    }
}
