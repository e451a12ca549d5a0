//! The gradients of products of normalized features, in one pass over them.
//!
//! Layers of a dense block read the same features. Taken together, the features are read, and their gradient is read and
//! written, once for all of them:
//!
//! ```text
//! for each chunk of the rows, part of the channels                          in parallel
//!   for each block of the chunk
//!     for each product
//!       dz of the block, from what is behind the second norm                a panel
//!       A = max(x * scale + shift, 0) of the block and part                 a panel, as in the forward direction
//!       dw += A^T * dz
//!       dA = dz * w^T                                                       into the cache
//!       g = dA where A > 0
//!       dx += scale * g;   Σg;   Σg (x - mean)
//! dw and the sums: those of the chunks, in order
//! ```
//!
//! Neither dz nor dA is ever in memory as a whole. All splits depend on the sizes alone.

use super::activate::fill;
use super::add::AddBlock;
use super::gradient::{BLOCK, DenseGradient, chunks_of_rows, merge};
use super::norm_gradient::NormGradient;
use crate::batch_norm::BatchNormSums;
use crate::microkernel::{DepthMajor, Layout, PanelProduct, RowMajor, Start, TileShape};
use crate::pack::{Factor, Pack};
use crate::prefetch::Prefetcher;
use crate::reduce::add_in_order;
use crate::split::{Split, SyncMutPtr, shifted};
use crate::{Isa, scratch};
use rayon::prelude::*;
use std::marker::PhantomData;
use std::ops::Range;

/// Most channels of a part.
const PART: usize = DepthMajor::WIDTH;

/// A product of normalized features, see [`activate_product`](super::activate_product), whose gradient is asked for.
#[derive(Debug)]
pub struct ProductGradient<'a> {
    /// The features and their normalization.
    pub features: DenseGradient<'a>,
    /// The right factor, `[channels, columns]`.
    pub w: &'a [f32],
    /// The gradient of the product, `[rows, columns]`.
    pub dz: NormGradient<'a>,
    /// Where the gradient of w goes, if it is wanted.
    pub dw: Option<&'a mut [f32]>,
}

impl ProductGradient<'_> {
    fn columns(&self) -> usize {
        self.w.len() / self.features.x.channels
    }

    /// Asserts that everything fits.
    fn check(&self, dx: &[f32]) {
        let (rows, channels) = (self.features.check(dx), self.features.x.channels);
        assert!(channels > 0 && self.w.len().is_multiple_of(channels), "whole rows of weights");
        self.dz.check(rows, self.columns());
        assert!(self.dw.as_ref().is_none_or(|dw| dw.len() == self.w.len()), "dw is like w");
    }
}

/// What products of the same features have to do with some of the `channels`: adds `scale * g` to these channels of dx, which lies as
/// the features do, writes these rows of every dw that is wanted and returns, for each product, Σg and Σg (x - mean) of these
/// channels, where g is the gradient in front of its ReLU. What batch statistics add to dx is the caller's to apply, see
/// [`StatisticsGradient`](super::StatisticsGradient).
///
/// # Panics
/// If a slice does not fit, a product did not read these channels, or they did not read the same features.
///
/// ```
/// use skipgrad_kernels::{DenseGradient, ChannelView, Isa, StatisticsGradient, NormGradient, NormRelu, ProductGradient, product_gradients};
/// // A row of one feature, times 3: what comes behind is linear with a slope of 2 where z = 3 x is positive.
/// let (x, z, da) = ([5.0], [15.0], [2.0]);
/// let norm = NormRelu { scale: &[1.0], shift: &[0.0] };
/// let line = StatisticsGradient { offset: &[0.0], slope: &[0.0], mean: &[0.0] };
/// let features = DenseGradient { x: ChannelView { data: &x, row: 1, channels: 1 }, norm, mean: &[1.0] };
/// let (mut dw, mut dx) = ([0.0], [100.0]);
/// let dz = NormGradient { z: &z, da: &da, norm, line };
/// let product = ProductGradient { features, w: &[3.0], dz, dw: Some(&mut dw) };
/// let sums = product_gradients(Isa::active(), 0..1, &mut [product], &mut dx);
/// assert_eq!((dw, dx), ([10.0], [106.0]));
/// assert_eq!((&sums[0].dy[..], &sums[0].dy_deviation[..]), (&[6.0][..], &[24.0][..]));
/// ```
pub fn product_gradients(
    isa: Isa,
    channels: Range<usize>,
    products: &mut [ProductGradient<'_>],
    dx: &mut [f32],
) -> Vec<BatchNormSums> {
    let Some(x) = products.first().map(|product| product.features.x) else {
        return vec![];
    };
    assert!(!channels.is_empty(), "no channels");
    for product in &*products {
        product.check(dx);
        let of = product.features.x;
        assert!(of.row == x.row && std::ptr::eq(of.data, x.data), "the same features");
        assert!(channels.end <= of.channels, "channels that the product read");
    }
    let (tile, chunks) = (TileShape::of(isa), chunks_of_rows(x.num_rows()));
    let parts = Split::new(channels.len(), tile.columns, PART, 1);
    let width = channels.len().next_multiple_of(tile.lanes);
    let memory = products.iter().map(|product| {
        let more_chunks = if product.dw.is_some() { chunks.parts - 1 } else { 0 };
        product.columns() * (width + more_chunks * channels.len())
    });
    scratch::with(memory.sum(), |mut memory| {
        let (mut passes, mut partials) = (vec![], vec![]);
        for product in products.iter_mut() {
            let columns = product.columns();
            let of_channels = channels.start * columns..channels.end * columns;
            let nothing: &mut [f32] = &mut [];
            let (wanted, dw) = match product.dw.as_deref_mut() {
                Some(dw) => (true, &mut dw[of_channels.clone()]),
                None => (false, nothing),
            };
            if x.num_rows() == 0 {
                dw.fill(0.0);
            }
            let (packed_w, rest) = memory.split_at_mut(columns * width);
            let (partial, rest) = rest.split_at_mut((chunks.parts - 1) * dw.len());
            memory = rest;
            let steps = Split::new(columns, tile.columns, RowMajor::WIDTH, 1);
            pack(isa, &product.w[of_channels], steps, [columns, channels.len(), width], packed_w);
            passes.push(Pass {
                features: product.features,
                channels: &channels,
                dz: product.dz,
                columns,
                steps,
                packed_w,
                width,
                lanes: tile.lanes,
                dw: wanted.then_some([SyncMutPtr(dw.as_mut_ptr()), SyncMutPtr(partial.as_mut_ptr())]),
                dx: SyncMutPtr(dx.as_mut_ptr()),
            });
            partials.push((partial, dw));
        }
        let sums: Vec<_> = (0..chunks.parts * parts.parts)
            .into_par_iter()
            .with_max_len(1)
            .map(|task| {
                let (chunk, part) = (task / parts.parts, task % parts.parts);
                let (rows, part) = (chunks.range(chunk), parts.range(part));
                // SAFETY: tasks differ in their rows or their channels, and each chunk has a dw of its own; `check` compared
                // dx with x.
                unsafe { run_task(isa, &passes, chunk, rows, part) }
            })
            .collect();
        partials.into_iter().for_each(|(partial, dw)| add_in_order(partial, dw));
        let of_product = |i: usize| sums.iter().map(move |sums| &sums[i]);
        (0..passes.len()).map(|i| merge(of_product(i), &parts, channels.len())).collect()
    })
}

/// Packs rows of w transposed, step after step of dz's columns, `width` numbers for each.
fn pack(isa: Isa, w: &[f32], steps: Split, [columns, channels, width]: [usize; 3], packed: &mut [f32]) {
    let factor = Factor::matrix(w, columns, 1, columns);
    for step in 0..steps.parts {
        let depth = steps.range(step);
        let packed = &mut packed[depth.start * width..depth.end * width];
        isa.dispatch(Pack { factor: &factor, depth, columns: 0..channels, packed });
    }
}

/// What all tasks share of a product.
struct Pass<'a> {
    features: DenseGradient<'a>,
    /// The channels in question.
    channels: &'a Range<usize>,
    dz: NormGradient<'a>,
    /// Numbers of a row of dz.
    columns: usize,
    /// The steps of sums over them: as many as a panel has module for.
    steps: Split,
    /// w transposed, of the channels in question.
    packed_w: &'a [f32],
    /// Numbers for each row of it.
    width: usize,
    /// Numbers in a vector.
    lanes: usize,
    /// If dw is wanted, that of the first chunk, and those of the others one after the other.
    dw: Option<[SyncMutPtr; 2]>,
    dx: SyncMutPtr,
}

/// A block of a chunk's rows, a part of the channels in question.
struct Block {
    chunk: usize,
    rows: Range<usize>,
    part: Range<usize>,
    /// Whether it is the first of its chunk.
    first: bool,
}

/// What a task works with.
struct Memory<'a> {
    /// A of a block of rows.
    a: &'a mut [f32],
    /// dz of it, a panel for each step.
    dz: &'a mut [f32],
    /// Numbers of such a panel.
    dz_panel: usize,
    /// dz of it, packed.
    packed: &'a mut [f32],
    /// dA of it.
    da: &'a mut [f32],
    /// Numbers from a row of dA to the next.
    da_row: usize,
}

/// A chunk of the rows, a part of the channels in question; the sums of each product.
///
/// # Safety
/// No other task may have the same rows and channels, nor the same channels of the same dw; dx is as long as x.
unsafe fn run_task(
    isa: Isa,
    passes: &[Pass<'_>],
    chunk: usize,
    rows: Range<usize>,
    part: Range<usize>,
) -> Vec<[Vec<f64>; 2]> {
    let blocks = Split::new(rows.len(), 1, BLOCK, 1);
    let most = blocks.largest();
    let most_of = |of: fn(&Pass<'_>) -> usize| passes.iter().map(of).max().unwrap_or_default();
    let (dz_panel, da_row) = (most * RowMajor::PITCH, part.len().next_multiple_of(16) + 16);
    let lens = [
        DepthMajor::panel_len(part.len(), most),
        most_of(|pass| pass.steps.parts) * dz_panel,
        most * most_of(|pass| pass.columns).next_multiple_of(16),
        most * da_row,
    ];
    let mut totals = vec![[vec![0.0; part.len()], vec![0.0; part.len()]]; passes.len()];
    if rows.is_empty() {
        return totals;
    }
    scratch::with(lens.iter().sum(), |memory| {
        let (a, rest) = memory.split_at_mut(lens[0]);
        let (dz, rest) = rest.split_at_mut(lens[1]);
        let (packed, da) = rest.split_at_mut(lens[2]);
        let mut memory = Memory { a, dz, dz_panel, packed, da, da_row };
        for i in 0..blocks.parts {
            let block = Block {
                chunk,
                rows: shifted(blocks.range(i), rows.start),
                part: part.clone(),
                first: i == 0,
            };
            let next = block.rows.end..(block.rows.end + most).min(rows.end);
            for (i, (pass, totals)) in passes.iter().zip(&mut totals).enumerate() {
                // The first product brings x and dx of the block into the cache for all of them.
                let dx = pass.ahead_of_dx(if i == 0 { block.rows.clone() } else { 0..0 }, &part);
                let ahead = match passes.get(i + 1) {
                    Some(following) => following.ahead(block.rows.clone(), 0..0, &part),
                    None => passes[0].ahead(next.clone(), next.clone(), &part),
                };
                // SAFETY: as promised.
                unsafe { pass.block(isa, &block, &mut memory, dx, ahead, totals) };
            }
        }
    });
    totals
}

impl Pass<'_> {
    /// A part of the channels in question, as numbers of channels.
    fn channels(&self, part: &Range<usize>) -> Range<usize> {
        shifted(part.clone(), self.channels.start)
    }

    /// dx of some rows, to be fetched.
    fn ahead_of_dx(&self, rows: Range<usize>, part: &Range<usize>) -> Prefetcher {
        Prefetcher::new(self.dx.0, self.features.x.row, rows, self.channels(part))
    }

    /// dz of some rows and x of others, to be fetched.
    fn ahead(&self, rows: Range<usize>, rows_of_x: Range<usize>, part: &Range<usize>) -> [Prefetcher; 3] {
        let x = self.features.x;
        let dz =
            |matrix: &[f32]| Prefetcher::new(matrix.as_ptr(), self.columns, rows.clone(), 0..self.columns);
        [
            Prefetcher::new(x.data.as_ptr(), x.row, rows_of_x, self.channels(part)),
            dz(self.dz.z),
            dz(self.dz.da),
        ]
    }

    /// A block; adds the sums to `totals`, and meanwhile fetches.
    ///
    /// # Safety
    /// As [`run_task`].
    unsafe fn block(
        &self,
        isa: Isa,
        block: &Block,
        memory: &mut Memory<'_>,
        dx: Prefetcher,
        mut ahead: [Prefetcher; 3],
        totals: &mut [Vec<f64>; 2],
    ) {
        let (rows, channels) = (block.rows.clone(), self.channels(&block.part));
        for (step, panel) in memory.dz.chunks_exact_mut(memory.dz_panel).take(self.steps.parts).enumerate() {
            self.dz.fill(isa, rows.clone(), self.steps.range(step), panel);
        }
        if let Some([first, others]) = self.dw {
            let DenseGradient { x, norm, .. } = self.features;
            fill::<DepthMajor>(isa, x, norm, rows.clone(), channels.clone(), memory.a);
            let dw = match block.chunk {
                0 => first.offset(0),
                chunk => others.offset((chunk - 1) * self.channels.len() * self.columns),
            };
            // SAFETY: as promised.
            unsafe { self.add_to_dw(isa, block, memory, dx, dw) };
        }
        self.multiply_by_w(isa, block, memory, &mut ahead);
        let (da, da_row) = (&*memory.da, memory.da_row);
        let add = AddBlock { gradient: &self.features, rows, channels, da, da_row, dx: self.dx };
        // SAFETY: as promised.
        unsafe { add.compute(isa, totals) };
    }

    /// `dw += A^T dz` of a block.
    ///
    /// # Safety
    /// The rows of `dw` for this part of the channels are this task's.
    unsafe fn add_to_dw(
        &self,
        isa: Isa,
        block: &Block,
        memory: &mut Memory<'_>,
        dx: Prefetcher,
        dw: *mut f32,
    ) {
        let (rows, columns) = (block.rows.len(), self.columns);
        for (step, panel) in memory.dz.chunks_exact(memory.dz_panel).take(self.steps.parts).enumerate() {
            let columns = self.steps.range(step);
            let factor = Factor::matrix(panel, rows, RowMajor::PITCH, 1);
            let packed = &mut memory.packed[rows * columns.start..];
            isa.dispatch(Pack { factor: &factor, depth: 0..rows, columns: 0..columns.len(), packed });
        }
        let mut offsets = [0; PART];
        let offsets = &mut offsets[..block.part.len()];
        offsets.iter_mut().zip(block.part.clone()).for_each(|(offset, row)| *offset = row * columns);
        let product = PanelProduct::<DepthMajor> {
            panel: memory.a,
            pitch: DepthMajor::PITCH,
            depth: rows,
            b: memory.packed,
            then: &[],
            columns,
            offsets,
            start: if block.first { Start::Zero } else { Start::Add },
            end: None,
            layout: PhantomData,
        };
        // SAFETY: the rows are this task's, as promised, and dw has these rows and columns.
        unsafe { product.compute_fetching(isa, dw, &mut [dx]) };
    }

    /// `dA = dz w^T` of a block.
    fn multiply_by_w(&self, isa: Isa, block: &Block, memory: &mut Memory<'_>, ahead: &mut [Prefetcher]) {
        let rows = block.rows.len();
        let mut offsets = [0; BLOCK];
        let offsets = &mut offsets[..rows];
        offsets.iter_mut().enumerate().for_each(|(row, offset)| *offset = row * memory.da_row);
        let padded = block.part.len().next_multiple_of(self.lanes);
        assert!(memory.da_row >= padded && memory.da.len() >= rows * memory.da_row);
        for (step, panel) in memory.dz.chunks_exact(memory.dz_panel).take(self.steps.parts).enumerate() {
            let depth = self.steps.range(step);
            let product = PanelProduct::<RowMajor> {
                panel,
                pitch: RowMajor::PITCH,
                depth: depth.len(),
                b: &self.packed_w[depth.start * self.width + depth.len() * block.part.start..],
                then: &[],
                // Whole vectors: the part is the last one or a multiple of the tile, and B is padded.
                columns: padded,
                offsets,
                start: if step == 0 { Start::Zero } else { Start::Add },
                end: None,
                layout: PhantomData,
            };
            let ahead = if step == 0 { &mut *ahead } else { &mut [] };
            // SAFETY: the rows lie within `da`, see the assert.
            unsafe { product.compute_fetching(isa, memory.da.as_mut_ptr(), ahead) };
        }
    }
}
