//! The gradient of a product of normalised features, in one pass over them.
//!
//! ```text
//! for each chunk of the rows, part of the channels                          in parallel
//!   for each block of the chunk
//!     dz of the block, from what is behind the second norm                  a panel
//!     A = max(x * scale + shift, 0) of the block and part                   a panel, as in the forward direction
//!     dw += A^T * dz
//!     dA = dz * w^T                                                         into the cache
//!     g = dA where A > 0
//!     dx += scale * g;   Σg;   Σg (x - mean)
//! dw and the sums: those of the chunks, in order
//! ```
//!
//! x and dx are read once and dx is written once, whatever the width of dz; neither dz nor dA is ever in memory as a whole. All splits depend
//! on the sizes alone.

use super::activate::fill;
use super::add::AddBlock;
use super::norm_gradient::NormGradient;
use super::{Features, NormRelu};
use crate::kernels::ahead::Ahead;
use crate::kernels::batch_norm::BatchNormSums;
use crate::kernels::microkernel::{DepthMajor, Layout, PanelProduct, RowMajor, Start, TileShape};
use crate::kernels::pack::{Factor, Pack};
use crate::kernels::reduce::add_in_order;
use crate::kernels::split::{Output, Split, shifted};
use crate::kernels::{Isa, scratch};
use rayon::prelude::*;
use std::marker::PhantomData;
use std::ops::Range;

/// Most rows of a block: what a block works with, and what it fetches ahead, is to fit a second-level cache of 512 KiB.
const BLOCK: usize = 64;
/// Most channels of a part.
const PART: usize = DepthMajor::WIDTH;
/// Fewest rows of a chunk.
const FEWEST_ROWS: usize = 2 * BLOCK;
/// Tasks wanted.
const TASKS: usize = 16;

/// Features behind a normalisation and a ReLU, whose gradient is asked for.
#[derive(Clone, Copy, Debug)]
pub struct DenseGradient<'a> {
    /// The features.
    pub x: Features<'a>,
    /// The normalisation and the ReLU.
    pub norm: NormRelu<'a>,
    /// The mean that the normalisation subtracts, `[channels]`.
    pub mean: &'a [f32],
}

impl DenseGradient<'_> {
    /// The gradient of [`activate_product`](super::activate_product), from dz `[rows, columns]` of its result, w
    /// `[channels, columns]`: adds `scale * g` to dx, which lies as the features do, writes dw if it is wanted and returns Σg
    /// and Σg (x - mean), where g is the gradient in front of the ReLU. What batch statistics add to dx is the caller's
    /// to apply, see [`Line`](super::Line).
    ///
    /// # Panics
    /// If a slice does not fit, or there are no channels.
    pub fn of_product(
        &self,
        isa: Isa,
        w: &[f32],
        dz: &NormGradient<'_>,
        dw: Option<&mut [f32]>,
        dx: &mut [f32],
    ) -> BatchNormSums {
        let (rows, channels) = (self.check(dx), self.x.channels);
        assert!(channels > 0 && w.len().is_multiple_of(channels), "whole rows of weights");
        let columns = w.len() / channels;
        dz.check(rows, columns);
        assert!(dw.as_ref().is_none_or(|dw| dw.len() == w.len()), "dw is like w");
        let tile = TileShape::of(isa);
        let chunks = Split::new(rows, 1, usize::MAX, TASKS.min(rows / FEWEST_ROWS));
        let parts = Split::new(channels, tile.columns, PART, 1);
        let wanted = dw.is_some();
        let nothing: &mut [f32] = &mut [];
        let dw = dw.unwrap_or(nothing);
        if rows == 0 {
            dw.fill(0.0);
        }
        let width = channels.next_multiple_of(tile.lanes);
        let packed_w = columns * width;
        scratch::with(packed_w + (chunks.parts - 1) * dw.len(), |memory| {
            let (packed_w, partial) = memory.split_at_mut(packed_w);
            let steps = Split::new(columns, tile.columns, RowMajor::WIDTH, 1);
            let pass = Pass {
                gradient: self,
                dz,
                columns,
                steps,
                packed_w: pack(isa, w, steps, [columns, channels, width], packed_w),
                tile,
                dx: Output(dx.as_mut_ptr()),
            };
            let (to_dw, to_partial, len) = (Output(dw.as_mut_ptr()), Output(partial.as_mut_ptr()), dw.len());
            let sums: Vec<[Vec<f64>; 2]> = (0..chunks.parts * parts.parts)
                .into_par_iter()
                .with_max_len(1)
                .map(|task| {
                    let (chunk, part) = (task / parts.parts, task % parts.parts);
                    let to = match chunk {
                        0 => to_dw,
                        _ => Output(to_partial.offset((chunk - 1) * len)),
                    };
                    // SAFETY: tasks differ in their rows or their channels, and each chunk has a dw of its own.
                    unsafe { pass.task(isa, chunks.range(chunk), parts.range(part), wanted.then_some(to)) }
                })
                .collect();
            add_in_order(partial, dw);
            merge(sums, &parts, channels)
        })
    }

    /// The same where da `[rows, channels]`, the gradient behind the ReLU, is there already.
    ///
    /// # Panics
    /// As [`DenseGradient::of_product`].
    pub fn of_activation(&self, isa: Isa, da: &[f32], dx: &mut [f32]) -> BatchNormSums {
        let (rows, channels) = (self.check(dx), self.x.channels);
        assert_eq!(da.len(), rows * channels, "as many rows in both");
        let chunks = Split::new(rows, 1, usize::MAX, TASKS.min(rows / FEWEST_ROWS));
        let dx = Output(dx.as_mut_ptr());
        let sums: Vec<[Vec<f64>; 2]> = (0..chunks.parts)
            .into_par_iter()
            .with_max_len(1)
            .map(|chunk| {
                let mut totals = [vec![0.0; channels], vec![0.0; channels]];
                let chunk = chunks.range(chunk);
                for start in chunk.clone().step_by(BLOCK) {
                    let rows = start..chunk.end.min(start + BLOCK);
                    let da = &da[rows.start * channels..rows.end * channels];
                    let block =
                        AddBlock { gradient: self, rows, channels: 0..channels, da, da_row: channels, dx };
                    // SAFETY: chunks do not share rows, and `check` compared dx with x.
                    unsafe { block.compute(isa, &mut totals) };
                }
                totals
            })
            .collect();
        merge(sums, &Split::new(channels, 1, usize::MAX, 1), channels)
    }

    /// Asserts what both forms rest on; returns the number of rows.
    fn check(&self, dx: &[f32]) -> usize {
        let rows = self.x.rows();
        self.norm.check(self.x.channels);
        assert_eq!(self.mean.len(), self.x.channels, "one number a channel");
        assert_eq!(dx.len(), self.x.data.len(), "dx lies as the features do");
        rows
    }
}

/// Sums of tasks, in the order chunk after chunk, part after part of the channels.
fn merge(sums: Vec<[Vec<f64>; 2]>, parts: &Split, channels: usize) -> BatchNormSums {
    let mut all = [vec![0.0; channels], vec![0.0; channels]];
    for (task, sums) in sums.into_iter().enumerate() {
        let part = parts.range(task % parts.parts);
        for (all, sums) in all.iter_mut().zip(sums) {
            all[part.clone()].iter_mut().zip(sums).for_each(|(all, sum)| *all += sum);
        }
    }
    let [dy, dy_deviation] = all;
    BatchNormSums { dy, dy_deviation }
}

/// Packs w transposed, step after step of dz's columns, `width` numbers for each.
fn pack<'a>(
    isa: Isa,
    w: &[f32],
    steps: Split,
    [columns, channels, width]: [usize; 3],
    packed: &'a mut [f32],
) -> &'a [f32] {
    let factor = Factor::matrix(w, columns, 1, columns);
    for step in 0..steps.parts {
        let depth = steps.range(step);
        let packed = &mut packed[depth.start * width..depth.end * width];
        isa.dispatch(Pack { factor: &factor, depth, columns: 0..channels, packed });
    }
    packed
}

/// What all tasks share.
struct Pass<'a> {
    gradient: &'a DenseGradient<'a>,
    dz: &'a NormGradient<'a>,
    /// Numbers of a row of dz.
    columns: usize,
    /// The steps of sums over them: as many as a panel has room for.
    steps: Split,
    /// w transposed.
    packed_w: &'a [f32],
    tile: TileShape,
    dx: Output,
}

/// What a task works with.
struct Memory<'a> {
    /// A of a block of rows.
    a: &'a mut [f32],
    /// dz of it, a panel for each step.
    dz: &'a mut [f32],
    /// dz of it, packed.
    packed: &'a mut [f32],
    /// dA of it.
    da: &'a mut [f32],
    /// Numbers from a row of dA to the next.
    da_row: usize,
}

impl Pass<'_> {
    /// A chunk of the rows, a part of the channels.
    ///
    /// # Safety
    /// No other task may have the same rows and channels, nor the same channels of `dw`, which is like w.
    unsafe fn task(
        &self,
        isa: Isa,
        chunk: Range<usize>,
        part: Range<usize>,
        dw: Option<Output>,
    ) -> [Vec<f64>; 2] {
        let blocks = Split::new(chunk.len(), 1, BLOCK, 1);
        let da_row = part.len().next_multiple_of(16) + 16;
        let most = blocks.largest();
        let lens = [
            DepthMajor::panel_len(part.len(), most),
            self.steps.parts * most * RowMajor::PITCH,
            most * self.columns.next_multiple_of(16),
            most * da_row,
        ];
        let mut totals = [vec![0.0; part.len()], vec![0.0; part.len()]];
        scratch::with(lens.iter().sum(), |memory| {
            let (a, rest) = memory.split_at_mut(lens[0]);
            let (dz, rest) = rest.split_at_mut(lens[1]);
            let (packed, da) = rest.split_at_mut(lens[2]);
            let mut memory = Memory { a, dz, packed, da, da_row };
            for block in 0..blocks.parts {
                let rows = shifted(blocks.range(block), chunk.start);
                if rows.is_empty() {
                    break;
                }
                for (step, panel) in memory.dz.chunks_exact_mut(most * RowMajor::PITCH).enumerate() {
                    self.dz.fill(isa, rows.clone(), self.steps.range(step), panel);
                }
                let DenseGradient { x, norm, .. } = *self.gradient;
                let next = rows.end..(rows.end + most).min(chunk.end);
                if let Some(dw) = dw {
                    fill::<DepthMajor>(isa, x, norm, rows.clone(), part.clone(), memory.a);
                    let start = if block == 0 { Start::Zero } else { Start::Add };
                    // SAFETY: as promised.
                    unsafe { self.add_to_dw(isa, &mut memory, rows.clone(), part.clone(), start, dw) };
                }
                let ahead = |matrix: &[f32], row: usize, columns: Range<usize>| {
                    Ahead::new(matrix.as_ptr(), row, next.clone(), columns)
                };
                let mut ahead = [
                    ahead(x.data, x.row, part.clone()),
                    ahead(self.dz.z, self.columns, 0..self.columns),
                    ahead(self.dz.da, self.columns, 0..self.columns),
                ];
                self.multiply_by_w(isa, &mut memory, rows.len(), part.clone(), &mut ahead);
                let (da, da_row) = (&*memory.da, memory.da_row);
                let (gradient, channels) = (self.gradient, part.clone());
                let add = AddBlock { gradient, rows, channels, da, da_row, dx: self.dx };
                // SAFETY: as promised; `check` compared dx with x.
                unsafe { add.compute(isa, &mut totals) };
            }
        });
        totals
    }

    /// `dw += A^T dz` of a block of rows.
    ///
    /// # Safety
    /// The rows `part` of `dw` are this task's.
    unsafe fn add_to_dw(
        &self,
        isa: Isa,
        memory: &mut Memory<'_>,
        rows: Range<usize>,
        part: Range<usize>,
        start: Start,
        dw: Output,
    ) {
        let columns = self.columns;
        let mut dx = [Ahead::new(self.dx.0, self.gradient.x.row, rows.clone(), part.clone())];
        let rows = rows.len();
        let panel_len = memory.dz.len() / self.steps.parts;
        for (step, panel) in memory.dz.chunks_exact(panel_len).enumerate() {
            let columns = self.steps.range(step);
            let factor = Factor::matrix(panel, rows, RowMajor::PITCH, 1);
            let packed = &mut memory.packed[rows * columns.start..];
            isa.dispatch(Pack { factor: &factor, depth: 0..rows, columns: 0..columns.len(), packed });
        }
        let mut offsets = [0; PART];
        let offsets = &mut offsets[..part.len()];
        offsets.iter_mut().zip(part).for_each(|(offset, channel)| *offset = channel * columns);
        let product = PanelProduct::<DepthMajor> {
            panel: memory.a,
            pitch: DepthMajor::PITCH,
            depth: rows,
            b: memory.packed,
            then: &[],
            columns,
            offsets,
            start,
            end: None,
            layout: PhantomData,
        };
        // SAFETY: the rows are this task's, as promised, and dw is like w, which has these channels and columns.
        unsafe { product.compute_fetching(isa, dw.offset(0), &mut dx) };
    }

    /// `dA = dz w^T` of a block of rows and a part of the channels.
    fn multiply_by_w(
        &self,
        isa: Isa,
        memory: &mut Memory<'_>,
        rows: usize,
        part: Range<usize>,
        ahead: &mut [Ahead],
    ) {
        let mut offsets = [0; BLOCK];
        let offsets = &mut offsets[..rows];
        offsets.iter_mut().enumerate().for_each(|(row, offset)| *offset = row * memory.da_row);
        let width = self.gradient.x.channels.next_multiple_of(self.tile.lanes);
        let padded = part.len().next_multiple_of(self.tile.lanes);
        assert!(memory.da_row >= padded && memory.da.len() >= rows * memory.da_row);
        let panel_len = memory.dz.len() / self.steps.parts;
        for (step, panel) in memory.dz.chunks_exact(panel_len).enumerate() {
            let depth = self.steps.range(step);
            let product = PanelProduct::<RowMajor> {
                panel,
                pitch: RowMajor::PITCH,
                depth: depth.len(),
                b: &self.packed_w[depth.start * width + depth.len() * part.start..],
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
