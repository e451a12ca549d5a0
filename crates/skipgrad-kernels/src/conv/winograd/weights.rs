//! `U = G g G^T`: the weights at the points, packed for the products.

use super::transforms::{F, Filtering, Transform};
use crate::simd::Simd;
use crate::{Isa, Task, scratch};
use std::ops::Range;

/// The weights `[3, 3, C, OC]`.
pub(super) struct Weights<'a> {
    pub(super) w: &'a [f32],
    /// C and OC.
    pub(super) channels: [usize; 2],
    /// Whether the kernel is turned round and its channels are exchanged.
    pub(super) turned: bool,
}

impl Weights<'_> {
    /// `U = G g G^T` of some channels, packed as the products want it.
    pub(super) fn transform<const I: usize, const O: usize>(
        &self,
        isa: Isa,
        depth: Range<usize>,
        columns: Range<usize>,
        to: &mut [f32],
    ) where
        F: Filtering<I, O>,
    {
        let [inputs, outputs] = self.channels;
        assert!(self.w.len() == 9 * inputs * outputs);
        if !self.turned {
            let from = &self.w[depth.start * outputs + columns.start..];
            let taps = Taps { from, tap: inputs * outputs, row: outputs };
            isa.dispatch(Transformed::<I, O> { taps, depth: depth.len(), columns: columns.len(), to });
            return;
        }
        let tap = depth.len() * columns.len();
        scratch::with(9 * tap, |turned| {
            for (index, turned) in turned.chunks_exact_mut(tap).enumerate() {
                let from = &self.w[((8 - index) * inputs + columns.start) * outputs + depth.start..];
                transpose(from, outputs, turned, columns.len());
            }
            let taps = Taps { from: turned, tap, row: columns.len() };
            isa.dispatch(Transformed::<I, O> { taps, depth: depth.len(), columns: columns.len(), to });
        });
    }
}

/// `to [rows, columns]` is the transpose of `from`, whose rows are `stride` apart: a few rows at a time, so that the lines
/// read are used up.
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

/// Nine matrices.
struct Taps<'a> {
    from: &'a [f32],
    /// Numbers from a tap to the next.
    tap: usize,
    /// Numbers from a row to the next.
    row: usize,
}

struct Transformed<'a, 'b, const I: usize, const O: usize> {
    taps: Taps<'a>,
    depth: usize,
    columns: usize,
    to: &'b mut [f32],
}

impl<const I: usize, const O: usize> Task for Transformed<'_, '_, I, O>
where
    F: Filtering<I, O>,
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Transformed { taps, depth, columns, to } = self;
        let point = depth * columns.next_multiple_of(S::LANES);
        assert!(depth > 0 && to.len() >= I * I * point);
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
                            // SAFETY: each tap has `depth` rows of `columns`, see the assert.
                            *weight = unsafe { simd.load_first(from.add((ky * 3 + kx) * taps.tap), count) };
                        }
                        for (half, value) in
                            half.iter_mut().zip(<F as Filtering<I, O>>::Weight::apply(simd, column))
                        {
                            half[kx] = value;
                        }
                    }
                    let to = to.as_mut_ptr().wrapping_add(depth * start + k * width + first);
                    for (i, half) in half.iter().enumerate() {
                        for (j, value) in
                            <F as Filtering<I, O>>::Weight::apply(simd, *half).into_iter().enumerate()
                        {
                            // SAFETY: there is module for the columns in whole vectors, see the assert.
                            unsafe { simd.store(to.add((i * I + j) * point), value) };
                        }
                    }
                }
            }
        }
    }
}
