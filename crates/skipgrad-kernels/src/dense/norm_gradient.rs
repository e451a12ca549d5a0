//! The gradient before a norm and a ReLU, computed from the one after them a block at a time.

use super::{NormRelu, StatisticsGradient};
use crate::panel::{Layout, RowMajor};
use crate::simd::Simd;
use crate::{Isa, Task};
use std::ops::Range;

/// The gradient of z `[rows, columns]`, from that of `max(z * scale + shift, 0)`:
///
/// ```text
/// dz = scale da + offset + slope (z - mean)      where z * scale + shift > 0
/// dz =            offset + slope (z - mean)      elsewhere
/// ```
#[derive(Clone, Copy, Debug)]
pub struct NormGradient<'a> {
    /// The values before the norm.
    pub z: &'a [f32],
    /// The gradient after the ReLU.
    pub da: &'a [f32],
    /// The normalization and the ReLU.
    pub norm: NormRelu<'a>,
    /// The gradient through the batch statistics, all zeros where mean and variance are constants.
    pub statistics: StatisticsGradient<'a>,
}

impl NormGradient<'_> {
    /// Asserts that it is the gradient of a matrix of this size.
    pub(super) fn check(&self, rows: usize, columns: usize) {
        assert!(self.z.len() == rows * columns && self.da.len() == self.z.len(), "as many rows in all");
        self.norm.check(columns);
        let StatisticsGradient { offset, slope, mean } = self.statistics;
        assert!([offset, slope, mean].iter().all(|vector| vector.len() == columns), "one value per column");
    }

    /// Packs `rows` x `columns` of dz into a panel, in whole vectors. The caller has called
    /// [`NormGradient::check`].
    pub(super) fn pack(&self, isa: Isa, rows: Range<usize>, columns: Range<usize>, panel: &mut [f32]) {
        assert!(columns.end <= self.norm.scale.len() && columns.len() <= RowMajor::WIDTH);
        assert!(rows.end * self.norm.scale.len() <= self.z.len());
        assert!(panel.len() >= rows.len() * RowMajor::PITCH);
        isa.dispatch(PackTask { gradient: self, rows, columns, panel });
    }
}

/// The rows that are computed together.
const ROWS: usize = 4;

/// The task of [`NormGradient::pack`].
struct PackTask<'a, 'b> {
    gradient: &'a NormGradient<'a>,
    rows: Range<usize>,
    columns: Range<usize>,
    panel: &'b mut [f32],
}

impl Task for PackTask<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let PackTask { gradient: NormGradient { z, da, norm, statistics }, rows, columns, panel } = self;
        let width = norm.scale.len();
        let vectors = [norm.scale, norm.shift, statistics.offset, statistics.slope, statistics.mean];
        // Several rows at once, so that the vectors are loaded less often.
        for at in (0..rows.len()).step_by(ROWS) {
            let some = at..rows.len().min(at + ROWS);
            for first in (0..columns.len()).step_by(S::LANES) {
                let (column, count) = (columns.start + first, (columns.len() - first).min(S::LANES));
                // SAFETY: `check` and `pack` assert that `count` elements from `column` on are
                // within the vectors and each of the rows of z and da, and that the panel has the
                // rows, which have space for a vector after `WIDTH` elements.
                unsafe {
                    let [scale, shift, offset, slope, mean] =
                        vectors.map(|vector| simd.load_up_to(vector.as_ptr().add(column), count));
                    for at in some.clone() {
                        let from = (rows.start + at) * width + column;
                        let z = simd.load_up_to(z.as_ptr().add(from), count);
                        let da = simd.load_up_to(da.as_ptr().add(from), count);
                        let g = simd.relu_backward(simd.mul_add(z, scale, shift), da);
                        let rest = simd.mul_add(slope, simd.sub(z, mean), offset);
                        let to = panel.as_mut_ptr().add(at * RowMajor::PITCH + first);
                        simd.store(to, simd.mul_add(scale, g, rest));
                    }
                }
            }
        }
    }
}
