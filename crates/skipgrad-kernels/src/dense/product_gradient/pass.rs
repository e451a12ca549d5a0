//! The pass of one product over a block of rows.

use super::PART;
use crate::dense::activate::pack_panel;
use crate::dense::add::AddBlock;
use crate::dense::gradient::{BLOCK, DenseGradient};
use crate::dense::norm_gradient::NormGradient;
use crate::grid::RowOffsets;
use crate::microkernel::Beta;
use crate::pack::{PackB, UnpackedB};
use crate::panel::{DepthMajor, Layout, PanelProduct, RowMajor};
use crate::prefetch::{LINE, Prefetcher};
use crate::split::{Split, SyncMutPtr, shifted};
use crate::{Isa, scratch};
use std::ops::Range;

const _: () = assert!(PART <= RowOffsets::MAX && BLOCK <= RowOffsets::MAX);

/// What all tasks share of a product.
pub(super) struct Pass<'a> {
    pub(super) features: DenseGradient<'a>,
    /// The channels whose gradients are computed.
    pub(super) channels: &'a Range<usize>,
    pub(super) dz: NormGradient<'a>,
    /// The number of columns of dz.
    pub(super) columns: usize,
    /// The steps of sums over the columns of dz, of at most a panel's width.
    pub(super) steps: Split,
    /// The rows of these channels of w, transposed and packed.
    pub(super) packed_w: &'a [f32],
    /// The number of elements of a row of `packed_w`.
    pub(super) width: usize,
    /// The lanes of a vector.
    pub(super) lanes: usize,
    /// If dw is wanted, that of the first chunk, and those of the others one after the other.
    pub(super) dw: Option<[SyncMutPtr; 2]>,
    pub(super) dx: SyncMutPtr,
}

/// Some rows of a chunk and a part of the channels.
struct RowBlock {
    chunk: usize,
    rows: Range<usize>,
    part: Range<usize>,
    /// The index in its chunk.
    index: usize,
}

/// The workspace of a task, for a block of rows.
struct Workspace<'a> {
    /// A.
    a: &'a mut [f32],
    /// The panels of dz, one for each step.
    dz: &'a mut [f32],
    /// The number of elements of such a panel.
    dz_panel: usize,
    /// The packed dz.
    packed_dz: &'a mut [f32],
    /// dA.
    da: &'a mut [f32],
    /// Elements from one row of dA to the next.
    da_row: usize,
}

/// Computes a chunk of the rows and a part of the channels, and returns the sums of each product.
///
/// # Safety
/// dx must be as long as x. Nobody else may access these rows and channels of dx, nor these
/// channels of the chunk's dw, during the call.
pub(super) unsafe fn run_task(
    isa: Isa,
    passes: &[Pass<'_>],
    chunk: usize,
    rows: Range<usize>,
    part: Range<usize>,
) -> Vec<[Vec<f64>; 2]> {
    let blocks = Split::new(rows.len(), 1, BLOCK, 1);
    let most = blocks.largest();
    let max = |of: fn(&Pass<'_>) -> usize| passes.iter().map(of).max().unwrap_or_default();
    let (dz_panel, da_row) = (most * RowMajor::PITCH, part.len().next_multiple_of(LINE) + LINE);
    let lens = [
        DepthMajor::panel_len(part.len(), most),
        max(|pass| pass.steps.parts) * dz_panel,
        most * max(|pass| pass.columns).next_multiple_of(LINE),
        most * da_row,
    ];
    let mut totals = vec![[vec![0.0; part.len()], vec![0.0; part.len()]]; passes.len()];
    if rows.is_empty() {
        return totals;
    }
    scratch::with_buffers(lens, |[a, dz, packed_dz, da]| {
        let mut workspace = Workspace { a, dz, dz_panel, packed_dz, da, da_row };
        for index in 0..blocks.parts {
            let block_rows = shifted(blocks.range(index), rows.start);
            let block = RowBlock { chunk, rows: block_rows, part: part.clone(), index };
            let next = block.rows.end..(block.rows.end + most).min(rows.end);
            for (i, (pass, totals)) in passes.iter().zip(&mut totals).enumerate() {
                // The first product brings x and dx of the block into the cache for all of them.
                let dx = pass.prefetch_dx(if i == 0 { block.rows.clone() } else { 0..0 }, &part);
                let prefetchers = match passes.get(i + 1) {
                    Some(following) => following.prefetch(block.rows.clone(), 0..0, &part),
                    None => passes[0].prefetch(next.clone(), next.clone(), &part),
                };
                // SAFETY: the caller guarantees the rows and channels of the task, of which the
                // block is a part.
                unsafe { pass.block(isa, &block, &mut workspace, dx, prefetchers, totals) };
            }
        }
    });
    totals
}

impl Pass<'_> {
    /// Returns which channels of the features a part of `self.channels` is.
    fn channels(&self, part: &Range<usize>) -> Range<usize> {
        shifted(part.clone(), self.channels.start)
    }

    /// Returns a prefetcher for some rows of dx.
    fn prefetch_dx(&self, rows: Range<usize>, part: &Range<usize>) -> Prefetcher {
        Prefetcher::new(self.dx.0, self.features.x.row, rows, self.channels(part))
    }

    /// Returns prefetchers for what dz of some rows is computed from, and for other rows of x.
    fn prefetch(&self, rows: Range<usize>, rows_of_x: Range<usize>, part: &Range<usize>) -> [Prefetcher; 3] {
        let x = self.features.x;
        let dz =
            |matrix: &[f32]| Prefetcher::new(matrix.as_ptr(), self.columns, rows.clone(), 0..self.columns);
        [
            Prefetcher::new(x.data.as_ptr(), x.row, rows_of_x, self.channels(part)),
            dz(self.dz.z),
            dz(self.dz.da),
        ]
    }

    /// Computes a block, adds its sums to `totals`, and prefetches meanwhile.
    ///
    /// # Safety
    /// The contract is that of [`run_task`], for the rows of the block.
    unsafe fn block(
        &self,
        isa: Isa,
        block: &RowBlock,
        workspace: &mut Workspace<'_>,
        dx: Prefetcher,
        mut prefetchers: [Prefetcher; 3],
        totals: &mut [Vec<f64>; 2],
    ) {
        let (rows, channels) = (block.rows.clone(), self.channels(&block.part));
        let panels = workspace.dz.chunks_exact_mut(workspace.dz_panel).take(self.steps.parts);
        for (step, panel) in panels.enumerate() {
            self.dz.pack(isa, rows.clone(), self.steps.range(step), panel);
        }
        if let Some([first, others]) = self.dw {
            let DenseGradient { x, norm, .. } = self.features;
            pack_panel::<DepthMajor>(isa, x, norm, rows.clone(), channels.clone(), workspace.a);
            let dw = match block.chunk {
                0 => first.offset(0),
                chunk => others.offset((chunk - 1) * self.channels.len() * self.columns),
            };
            // SAFETY: the caller guarantees these channels of the chunk's dw.
            unsafe { self.add_to_dw(isa, block, workspace, dx, dw) };
        }
        self.multiply_by_w(isa, block, workspace, &mut prefetchers);
        let (da, da_row) = (&*workspace.da, workspace.da_row);
        let add = AddBlock { gradient: &self.features, rows, channels, da, da_row, dx: self.dx };
        // SAFETY: the caller guarantees the length of dx, and these rows and channels of it.
        unsafe { add.compute(isa, totals) };
    }

    /// Computes `dw += A^T dz` of a block.
    ///
    /// # Safety
    /// The rows of `dw` for this part of the channels must be valid for reading and writing, and
    /// nobody else may access them during the call.
    unsafe fn add_to_dw(
        &self,
        isa: Isa,
        block: &RowBlock,
        workspace: &mut Workspace<'_>,
        dx: Prefetcher,
        dw: *mut f32,
    ) {
        let rows = block.rows.len();
        let panels = workspace.dz.chunks_exact(workspace.dz_panel).take(self.steps.parts);
        for (step, panel) in panels.enumerate() {
            let columns = self.steps.range(step);
            let b = UnpackedB::matrix(panel, rows, RowMajor::PITCH, 1);
            let packed = &mut workspace.packed_dz[rows * columns.start..];
            isa.dispatch(PackB { b: &b, depth: 0..rows, columns: 0..columns.len(), packed });
        }
        let rows_of_dw = RowOffsets::strided(block.part.len(), self.columns);
        let product = PanelProduct::<DepthMajor>::new(workspace.a, rows, workspace.packed_dz, self.columns)
            .beta(Beta::of_block(block.index));
        let dw = dw.wrapping_add(block.part.start * self.columns);
        // SAFETY: the caller guarantees the rows of `dw` for this part of the channels, each of
        // which has these columns.
        unsafe { product.compute_at(isa, &rows_of_dw, dw, &mut [dx]) };
    }

    /// Computes `dA = dz w^T` of a block.
    fn multiply_by_w(
        &self,
        isa: Isa,
        block: &RowBlock,
        workspace: &mut Workspace<'_>,
        prefetchers: &mut [Prefetcher],
    ) {
        // Whole vectors: the part is the last one or a multiple of the tile, and B is padded.
        let padded = block.part.len().next_multiple_of(self.lanes);
        assert!(workspace.da_row >= padded, "a row of dA has space for whole vectors");
        let rows = RowOffsets::strided(block.rows.len(), workspace.da_row);
        let panels = workspace.dz.chunks_exact(workspace.dz_panel).take(self.steps.parts);
        for (step, panel) in panels.enumerate() {
            let depth = self.steps.range(step);
            let w = &self.packed_w[depth.start * self.width + depth.len() * block.part.start..];
            let prefetchers = if step == 0 { &mut *prefetchers } else { &mut [] };
            PanelProduct::<RowMajor>::new(panel, depth.len(), w, padded).beta(Beta::of_block(step)).compute(
                isa,
                &rows,
                workspace.da,
                prefetchers,
            );
        }
    }
}
