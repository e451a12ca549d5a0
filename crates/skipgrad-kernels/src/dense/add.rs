//! The last step of a block of rows: it adds to the gradient of the features while the block is in
//! the cache.

use super::gradient::DenseGradient;
use crate::simd::Simd;
use crate::split::SyncMutPtr;
use crate::{Isa, Task};
use std::ops::Range;

/// Adds `scale g` to some rows and channels of dx, and sums g and g (x - mean).
pub(super) struct AddBlock<'a> {
    pub(super) gradient: &'a DenseGradient<'a>,
    pub(super) rows: Range<usize>,
    pub(super) channels: Range<usize>,
    /// The gradient after the ReLU of these rows and channels.
    pub(super) da: &'a [f32],
    /// Elements from one row of `da` to the next.
    pub(super) da_row: usize,
    pub(super) dx: SyncMutPtr,
}

impl AddBlock<'_> {
    /// Adds to dx, and the sums to `totals`.
    ///
    /// # Safety
    /// `dx` must be as long as x, and nobody else may access these rows and channels of it during
    /// the call.
    pub(super) unsafe fn compute(self, isa: Isa, totals: &mut [Vec<f64>; 2]) {
        isa.dispatch(AddTask { block: self, totals });
    }
}

/// The task of [`AddBlock::compute`], which is the only place that makes one and whose contract it
/// relies on.
struct AddTask<'a, 'b> {
    block: AddBlock<'a>,
    totals: &'b mut [Vec<f64>; 2],
}

impl Task for AddTask<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let AddBlock { gradient: DenseGradient { x, norm, mean }, rows, channels, da, da_row, dx } =
            self.block;
        let count = channels.len();
        assert!(rows.end * x.row <= x.data.len() && channels.end <= x.channels && x.channels <= x.row);
        assert!([norm.scale, norm.shift, mean].iter().all(|vector| vector.len() >= channels.end));
        assert!(da_row >= count && da.len() >= rows.len().saturating_sub(1) * da_row + count);
        let block = AddRows {
            x: x.data.as_ptr().wrapping_add(rows.start * x.row + channels.start),
            dx: dx.offset(rows.start * x.row + channels.start),
            row: x.row,
            da: da.as_ptr(),
            da_row,
            rows: rows.len(),
            vectors: [norm.scale, norm.shift, mean]
                .map(|vector| vector.as_ptr().wrapping_add(channels.start)),
        };
        for first in (0..count).step_by(SUMS) {
            let columns = first..count.min(first + SUMS);
            let mut sums = [[0.0; SUMS]; 2];
            // SAFETY: the asserts show that the columns are within the rows of x and `da` and the
            // vectors; the caller of `compute` guarantees those of dx.
            unsafe { block.add(simd, columns.clone(), &mut sums) };
            for (totals, sums) in self.totals.iter_mut().zip(sums) {
                let totals = totals[columns.clone()].iter_mut();
                totals.zip(sums).for_each(|(total, sum)| *total += f64::from(sum));
            }
        }
    }
}

/// The columns whose sums are kept at once.
const SUMS: usize = 256;
/// The rows that are computed together, so that the vectors and the sums are loaded less often.
const ROWS: usize = 4;

/// The rows and vectors of a block from its first column on.
struct AddRows {
    x: *const f32,
    dx: *mut f32,
    /// Elements from one row of x and dx to the next.
    row: usize,
    da: *const f32,
    da_row: usize,
    rows: usize,
    /// Scale, shift and mean.
    vectors: [*const f32; 3],
}

impl AddRows {
    /// Adds all rows of some columns.
    ///
    /// # Safety
    /// These columns must be readable in every row and vector, and writable in dx.
    #[inline(always)]
    unsafe fn add<S: Simd>(&self, simd: S, columns: Range<usize>, sums: &mut [[f32; SUMS]; 2]) {
        assert!(columns.len() <= SUMS);
        for row in (0..self.rows).step_by(ROWS) {
            // SAFETY: the caller guarantees the columns of all rows, and the assert shows that each
            // has a sum.
            unsafe {
                match self.rows - row {
                    1 => self.add_rows::<S, 1>(simd, row, columns.clone(), sums),
                    2 => self.add_rows::<S, 2>(simd, row, columns.clone(), sums),
                    3 => self.add_rows::<S, 3>(simd, row, columns.clone(), sums),
                    _ => self.add_rows::<S, ROWS>(simd, row, columns.clone(), sums),
                }
            }
        }
    }

    /// Adds `R` rows of some columns.
    ///
    /// # Safety
    /// The contract is that of [`AddRows::add`], for at most as many columns as there are sums.
    #[inline(always)]
    unsafe fn add_rows<S: Simd, const R: usize>(
        &self,
        simd: S,
        row: usize,
        columns: Range<usize>,
        sums: &mut [[f32; SUMS]; 2],
    ) {
        let mut sums = sums.each_mut().map(|sums| sums.as_mut_ptr());
        let mut column = columns.start;
        // SAFETY: the caller guarantees the columns, of which these are `LANES` or the rest, and a
        // sum for each.
        unsafe {
            while column + S::LANES <= columns.end {
                self.add_vector::<S, R>(simd, row, column, S::LANES, sums);
                sums = [sums[0].add(S::LANES), sums[1].add(S::LANES)];
                column += S::LANES;
            }
            if column < columns.end {
                self.add_vector::<S, R>(simd, row, column, columns.end - column, sums);
            }
        }
    }

    /// Adds `R` rows of `count` columns (at most a vector).
    ///
    /// # Safety
    /// The contract is that of [`AddRows::add`], for `count` columns and sums.
    #[inline(always)]
    unsafe fn add_vector<S: Simd, const R: usize>(
        &self,
        simd: S,
        first: usize,
        column: usize,
        count: usize,
        [sum_g, sum_deviation]: [*mut f32; 2],
    ) {
        let [scale, shift, mean] = self.vectors;
        // SAFETY: the caller guarantees `count` columns of each row, of the vectors and of the
        // sums.
        unsafe {
            // Not with `map`, which would call a function that is not compiled for the instruction
            // set.
            let scale = simd.load_up_to(scale.add(column), count);
            let shift = simd.load_up_to(shift.add(column), count);
            let mean = simd.load_up_to(mean.add(column), count);
            let (mut g_sum, mut deviation_sum) = (simd.splat(0.0), simd.splat(0.0));
            for row in first..first + R {
                let x = simd.load_up_to(self.x.add(row * self.row + column), count);
                let da = simd.load_up_to(self.da.add(row * self.da_row + column), count);
                let to = self.dx.add(row * self.row + column);
                let g = simd.relu_backward(simd.mul_add(x, scale, shift), da);
                simd.store_up_to(to, simd.mul_add(scale, g, simd.load_up_to(to, count)), count);
                g_sum = simd.add(g_sum, g);
                deviation_sum = simd.mul_add(g, simd.sub(x, mean), deviation_sum);
            }
            for (sums, sum) in [(sum_g, g_sum), (sum_deviation, deviation_sum)] {
                simd.store_up_to(sums, simd.add(simd.load_up_to(sums, count), sum), count);
            }
        }
    }
}
