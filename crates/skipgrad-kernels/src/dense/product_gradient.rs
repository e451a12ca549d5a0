//! The gradients of products of normalized features, in one pass over the features.
//!
//! Layers of a dense block read the same features. Taken together, the features are read, and their
//! gradient is read and written, once for all of them:
//!
//! ```text
//! for each chunk of the rows, part of the channels                          in parallel
//!   for each block of the chunk
//!     for each product
//!       dz of the block, from the gradient after the second norm            a panel
//!       A = max(x * scale + shift, 0) of the block and part                 a panel
//!       dw += A^T * dz
//!       dA = dz * w^T                                                       into the cache
//!       g = dA where A > 0
//!       dx += scale * g;   Σg;   Σg (x - mean)
//! dw and the sums: those of the chunks, in order
//! ```
//!
//! Neither dz nor dA is ever in memory as a whole. All splits depend on the sizes alone.

mod pass;

use self::pass::{Pass, run_task};
use super::gradient::{DenseGradient, chunks_of_rows, merge};
use super::norm_gradient::NormGradient;
use crate::batch_norm::BatchNormSums;
use crate::microkernel::TileShape;
use crate::pack::{PackB, UnpackedB};
use crate::panel::{DepthMajor, Layout, RowMajor};
use crate::reduce::add_in_order;
use crate::split::{Split, SyncMutPtr};
use crate::{Isa, scratch};
use rayon::prelude::*;
use std::ops::Range;

/// The most channels of a part.
const PART: usize = DepthMajor::WIDTH;

/// A product of normalized features, see [`activate_product`](super::activate_product), whose
/// gradients are wanted.
#[derive(Debug)]
pub struct ProductGradient<'a> {
    /// The features and their normalization.
    pub features: DenseGradient<'a>,
    /// The right operand, `[channels, columns]`.
    pub w: &'a [f32],
    /// The gradient of the product, `[rows, columns]`.
    pub dz: NormGradient<'a>,
    /// The destination of the gradient of w, if it is wanted.
    pub dw: Option<&'a mut [f32]>,
}

impl ProductGradient<'_> {
    /// Returns the number of columns of w.
    fn num_columns(&self) -> usize {
        self.w.len() / self.features.x.channels
    }

    /// Asserts that all slices fit.
    fn check(&self, dx: &[f32]) {
        let (rows, channels) = (self.features.check(dx), self.features.x.channels);
        assert!(channels > 0 && self.w.len().is_multiple_of(channels), "whole rows of weights");
        self.dz.check(rows, self.num_columns());
        assert!(self.dw.as_ref().is_none_or(|dw| dw.len() == self.w.len()), "dw is like w");
    }
}

/// Computes the gradients of products of the same features with respect to some of the `channels`:
/// adds `scale * g` to these channels of dx, which has the layout of the features, writes these
/// rows of every dw that is wanted and returns, for each product, Σg and Σg (x - mean) of these
/// channels, where g is the gradient before its ReLU. The caller applies the gradient through batch
/// statistics, see [`StatisticsGradient`](super::StatisticsGradient).
///
/// # Panics
/// If a slice does not fit, a product did not read these channels, or the products did not read the
/// same features.
///
/// ```
/// use skipgrad_kernels::{
///     ChannelView, DenseGradient, Isa, NormGradient, NormRelu, ProductGradient,
///     StatisticsGradient, product_gradients,
/// };
/// // One row of one feature, times 3. The gradient of max(z, 0) is 2, where z = 3 x.
/// let (x, z, da) = ([5.0], [15.0], [2.0]);
/// let norm = NormRelu { scale: &[1.0], shift: &[0.0] };
/// let statistics = StatisticsGradient { offset: &[0.0], slope: &[0.0], mean: &[0.0] };
/// let x = ChannelView { data: &x, row: 1, channels: 1 };
/// let features = DenseGradient { x, norm, mean: &[1.0] };
/// let (mut dw, mut dx) = ([0.0], [100.0]);
/// let dz = NormGradient { z: &z, da: &da, norm, statistics };
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
    let Some(rows) = check_all(&channels, products, dx) else {
        return vec![];
    };
    let split = GradientSplit::new(isa, rows, channels.len());
    let workspace = products.iter().map(|product| split.workspace_len(product));
    scratch::with(workspace.sum(), |workspace| {
        let (mut passes, mut partials, mut rest) = (vec![], vec![], workspace);
        for product in products {
            let (buffer, after) = rest.split_at_mut(split.workspace_len(product));
            rest = after;
            let (pass, partial, dw) =
                split.pass(isa, &channels, product, buffer, SyncMutPtr(dx.as_mut_ptr()));
            if rows == 0 {
                dw.fill(0.0);
            }
            passes.push(pass);
            partials.push((partial, dw));
        }
        let (chunks, parts) = (split.chunks, split.parts);
        let tasks = (0..chunks.parts * parts.parts).into_par_iter().with_max_len(1).map(|task| {
            let (chunk, part) = (task / parts.parts, task % parts.parts);
            // SAFETY: `check_all` asserts that dx is as long as x, which is borrowed mutably. Tasks
            // differ in their rows or their channels, and each chunk has a dw of its own.
            unsafe { run_task(isa, &passes, chunk, chunks.range(chunk), parts.range(part)) }
        });
        let sums: Vec<_> = tasks.collect();
        partials.into_iter().for_each(|(partial, dw)| add_in_order(partial, dw));
        let of_product = |i: usize| sums.iter().map(move |sums| &sums[i]);
        (0..passes.len()).map(|i| merge(of_product(i), &parts, channels.len())).collect()
    })
}

/// Asserts that all products fit and returns the number of rows, or none if there are no products.
fn check_all(channels: &Range<usize>, products: &[ProductGradient<'_>], dx: &[f32]) -> Option<usize> {
    let x = products.first()?.features.x;
    assert!(!channels.is_empty(), "no channels");
    for product in products {
        product.check(dx);
        let other = product.features.x;
        assert!(other.row == x.row && std::ptr::eq(other.data, x.data), "the same features");
        assert!(channels.end <= other.channels, "channels that the product read");
    }
    Some(x.num_rows())
}

/// How the gradients are divided into tasks.
struct GradientSplit {
    tile: TileShape,
    chunks: Split,
    /// The parts of the channels.
    parts: Split,
    /// The number of channels, with those that fill the last vector.
    width: usize,
}

impl GradientSplit {
    fn new(isa: Isa, rows: usize, channels: usize) -> GradientSplit {
        let tile = TileShape::of(isa);
        GradientSplit {
            tile,
            chunks: chunks_of_rows(rows),
            parts: Split::new(channels, tile.columns, PART, 1),
            width: channels.next_multiple_of(tile.lanes),
        }
    }

    /// Returns the number of elements of w, packed, and of the parts of dw that are added at the
    /// end.
    fn workspace_len(&self, product: &ProductGradient<'_>) -> usize {
        let more_chunks = if product.dw.is_some() { self.chunks.parts - 1 } else { 0 };
        product.num_columns() * (self.width + more_chunks * self.parts.total)
    }

    /// Packs w and returns the pass of a product, the parts of dw that are to be added to it, and
    /// dw.
    fn pass<'a>(
        &self,
        isa: Isa,
        channels: &'a Range<usize>,
        product: &'a mut ProductGradient<'_>,
        workspace: &'a mut [f32],
        dx: SyncMutPtr,
    ) -> (Pass<'a>, &'a mut [f32], &'a mut [f32]) {
        let columns = product.num_columns();
        let rows_of_w = channels.start * columns..channels.end * columns;
        let (packed_w, partial) = workspace.split_at_mut(columns * self.width);
        let steps = Split::new(columns, self.tile.columns, RowMajor::WIDTH, 1);
        pack(isa, &product.w[rows_of_w.clone()], steps, [columns, channels.len(), self.width], packed_w);
        let wanted = product.dw.is_some();
        let dw = product.dw.as_deref_mut().map_or(&mut [][..], |dw| &mut dw[rows_of_w]);
        let pass = Pass {
            features: product.features,
            channels,
            dz: product.dz,
            columns,
            steps,
            packed_w,
            width: self.width,
            lanes: self.tile.lanes,
            dw: wanted.then_some([SyncMutPtr(dw.as_mut_ptr()), SyncMutPtr(partial.as_mut_ptr())]),
            dx,
        };
        (pass, partial, dw)
    }
}

/// Packs rows of w transposed, step after step of the columns of dz, `width` elements for each.
fn pack(isa: Isa, w: &[f32], steps: Split, [columns, channels, width]: [usize; 3], packed: &mut [f32]) {
    let b = UnpackedB::matrix(w, columns, 1, columns);
    for step in 0..steps.parts {
        let depth = steps.range(step);
        let packed = &mut packed[depth.start * width..depth.end * width];
        isa.dispatch(PackB { b: &b, depth, columns: 0..channels, packed });
    }
}
