//! The transform `U = G g G^T` of the weights to their values at the points, packed for the
//! products.

use super::transforms::{F, Filtering, Transform};
use crate::simd::Simd;
use crate::{Isa, Task, scratch};
use std::ops::Range;

/// The weights `[3, 3, C, OC]`.
pub(super) struct Weights<'a> {
    pub(super) w: &'a [f32],
    /// The numbers of channels, C and OC.
    pub(super) channels: [usize; 2],
    /// Whether the kernel is rotated by 180 degrees and its channels are exchanged.
    pub(super) rotated: bool,
}

impl Weights<'_> {
    /// Computes `U = G g G^T` of some channels, packed for the products, with the points `stride`
    /// elements apart.
    pub(super) fn transform<const I: usize, const O: usize>(
        &self,
        isa: Isa,
        depth: Range<usize>,
        columns: Range<usize>,
        to: &mut [f32],
        stride: usize,
    ) where
        F: Filtering<I, O>,
    {
        let [inputs, outputs] = self.channels;
        assert!(self.w.len() == 9 * inputs * outputs);
        if !self.rotated {
            let from = &self.w[depth.start * outputs + columns.start..];
            let taps = Taps { from, tap: inputs * outputs, row: outputs };
            let [depth, columns] = [depth.len(), columns.len()];
            isa.dispatch(TransformWeights::<I, O> { taps, depth, columns, to, stride });
            return;
        }
        let tap = depth.len() * columns.len();
        scratch::with(9 * tap, |rotated| {
            for (index, rotated) in rotated.chunks_exact_mut(tap).enumerate() {
                let from = &self.w[((8 - index) * inputs + columns.start) * outputs + depth.start..];
                transpose(from, outputs, rotated, columns.len());
            }
            let taps = Taps { from: rotated, tap, row: columns.len() };
            let [depth, columns] = [depth.len(), columns.len()];
            isa.dispatch(TransformWeights::<I, O> { taps, depth, columns, to, stride });
        });
    }
}

/// Writes the transpose of `from`, whose rows are `stride` apart, to `to [rows, columns]`: a few
/// rows at a time, so that all of a cache line that is read is used.
fn transpose(from: &[f32], stride: usize, to: &mut [f32], columns: usize) {
    const ROWS: usize = 8;
    for (block, to) in to.chunks_mut(ROWS * columns).enumerate() {
        for column in 0..columns {
            let from = &from[column * stride + block * ROWS..];
            for (to, from) in to.chunks_exact_mut(columns).zip(from) {
                to[column] = *from;
            }
        }
    }
}

/// The nine matrices of the taps.
struct Taps<'a> {
    from: &'a [f32],
    /// Elements from one tap to the next.
    tap: usize,
    /// Elements from one row to the next.
    row: usize,
}

/// The task of [`Weights::transform`].
struct TransformWeights<'a, 'b, const I: usize, const O: usize> {
    taps: Taps<'a>,
    depth: usize,
    columns: usize,
    to: &'b mut [f32],
    /// Elements from one point to the next.
    stride: usize,
}

impl<const I: usize, const O: usize> Task for TransformWeights<'_, '_, I, O>
where
    F: Filtering<I, O>,
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let TransformWeights { taps, depth, columns, to, stride } = self;
        let point = depth * columns.next_multiple_of(S::LANES);
        assert!(depth > 0 && stride >= point && to.len() >= (I * I - 1) * stride + point);
        assert!(taps.from.len() >= 8 * taps.tap + (depth - 1) * taps.row + columns);
        let tile = S::TILE_VECTORS * S::LANES;
        for start in (0..columns).step_by(tile) {
            let width = (columns - start).min(tile).next_multiple_of(S::LANES);
            for k in 0..depth {
                for first in (0..width).step_by(S::LANES) {
                    let count = (columns - start - first).min(S::LANES);
                    let from = taps.from.as_ptr().wrapping_add(k * taps.row + start + first);
                    let mut half = [[simd.splat(0.0); 3]; I];
                    for kx in 0..3 {
                        let mut column = [simd.splat(0.0); 3];
                        for (ky, weight) in column.iter_mut().enumerate() {
                            // SAFETY: the assert shows that each tap has `depth` rows of `columns`
                            // elements, of which `count` from `start + first` on exist.
                            *weight = unsafe { simd.load_first(from.add((ky * 3 + kx) * taps.tap), count) };
                        }
                        for (half, value) in
                            half.iter_mut().zip(<F as Filtering<I, O>>::Weights::apply(simd, column))
                        {
                            half[kx] = value;
                        }
                    }
                    let to = to.as_mut_ptr().wrapping_add(depth * start + k * width + first);
                    for (i, half) in half.iter().enumerate() {
                        for (j, value) in
                            <F as Filtering<I, O>>::Weights::apply(simd, *half).into_iter().enumerate()
                        {
                            // SAFETY: the assert shows that each point has `depth` rows of whole
                            // vectors.
                            unsafe { simd.store(to.add((i * I + j) * stride), value) };
                        }
                    }
                }
            }
        }
    }
}
