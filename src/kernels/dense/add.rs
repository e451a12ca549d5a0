//! What a block adds to the gradient of the features, while it is in the cache.

use super::gradient::DenseGradient;
use crate::kernels::product::Output;
use crate::kernels::simd::Simd;
use crate::kernels::{Isa, Task};
use std::ops::Range;

/// The end of a block: `dx += scale g` and the sums.
pub(super) struct AddBlock<'a> {
    pub(super) gradient: &'a DenseGradient<'a>,
    pub(super) rows: Range<usize>,
    pub(super) channels: Range<usize>,
    /// The gradient behind the ReLU, of these rows and channels.
    pub(super) da: &'a [f32],
    /// Numbers from a row of it to the next.
    pub(super) da_row: usize,
    pub(super) dx: Output,
}

impl AddBlock<'_> {
    /// Computes it, and adds the sums to `totals`.
    ///
    /// # Safety
    /// Nobody else may access these rows and channels of `dx`, which is as long as x.
    pub(super) unsafe fn compute(self, isa: Isa, totals: &mut [Vec<f64>; 2]) {
        isa.dispatch(Add { block: self, totals });
    }
}

/// [`AddBlock::compute`], whose promise it rests on.
struct Add<'a, 'b> {
    block: AddBlock<'a>,
    totals: &'b mut [Vec<f64>; 2],
}

impl Task for Add<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let AddBlock { gradient: DenseGradient { x, norm, mean }, rows, channels, da, da_row, dx } =
            self.block;
        let count = channels.len();
        assert!(rows.end * x.row <= x.data.len() && channels.end <= x.channels && x.channels <= x.row);
        assert!([norm.scale, norm.shift, mean].iter().all(|vector| vector.len() >= channels.end));
        assert!(da_row >= count && da.len() >= rows.len().saturating_sub(1) * da_row + count);
        let columns = Columns {
            x: x.data.as_ptr().wrapping_add(rows.start * x.row + channels.start),
            dx: dx.offset(rows.start * x.row + channels.start),
            row: x.row,
            da: da.as_ptr(),
            da_row,
            rows: rows.len(),
            vectors: [norm.scale, norm.shift, mean]
                .map(|vector| vector.as_ptr().wrapping_add(channels.start)),
        };
        let mut at = 0;
        while at < count {
            let width = if at + 2 * S::LANES <= count { 2 * S::LANES } else { S::LANES.min(count - at) };
            let mut sums = [[0.0; 32]; 2];
            // SAFETY: `width` columns from `at` on are within rows and vectors, see the asserts; dx is the caller's promise.
            unsafe {
                match width {
                    width if width == 2 * S::LANES => columns.add::<S, 2>(simd, at, S::LANES, &mut sums),
                    width => columns.add::<S, 1>(simd, at, width, &mut sums),
                }
            }
            for (totals, sums) in self.totals.iter_mut().zip(sums) {
                totals[at..at + width].iter_mut().zip(sums).for_each(|(total, sum)| *total += f64::from(sum));
            }
            at += width;
        }
    }
}

/// Columns of a block, of which a vector or two are taken at once through all rows.
struct Columns {
    x: *const f32,
    dx: *mut f32,
    /// Numbers from a row of both to the next.
    row: usize,
    da: *const f32,
    da_row: usize,
    rows: usize,
    /// Scale, shift and mean.
    vectors: [*const f32; 3],
}

impl Columns {
    /// `V` vectors, of the last of which `last` numbers count.
    ///
    /// # Safety
    /// These numbers are readable in every row and vector, and writable in dx.
    #[inline(always)]
    unsafe fn add<S: Simd, const V: usize>(
        &self,
        simd: S,
        at: usize,
        last: usize,
        sums: &mut [[f32; 32]; 2],
    ) {
        let count = |v: usize| if v + 1 == V { last } else { S::LANES };
        let mut constants = [[simd.splat(0.0); V]; 3];
        for (constants, vector) in constants.iter_mut().zip(self.vectors) {
            for (v, constant) in constants.iter_mut().enumerate() {
                // SAFETY: as promised.
                *constant = unsafe { simd.load_up_to(vector.add(at + v * S::LANES), count(v)) };
            }
        }
        let [scale, shift, mean] = constants;
        let mut sum = [[simd.splat(0.0); V]; 2];
        for row in 0..self.rows {
            for v in 0..V {
                let column = at + v * S::LANES;
                // SAFETY: as promised.
                unsafe {
                    let x = simd.load_up_to(self.x.add(row * self.row + column), count(v));
                    let da = simd.load_up_to(self.da.add(row * self.da_row + column), count(v));
                    let g = simd.gate(simd.mul_add(x, scale[v], shift[v]), da);
                    let to = self.dx.add(row * self.row + column);
                    let dx = simd.mul_add(scale[v], g, simd.load_up_to(to, count(v)));
                    simd.store_up_to(to, dx, count(v));
                    sum[0][v] = simd.add(sum[0][v], g);
                    sum[1][v] = simd.mul_add(g, simd.sub(x, mean[v]), sum[1][v]);
                }
            }
        }
        for (sums, sum) in sums.iter_mut().zip(sum) {
            for (v, sum) in sum.into_iter().enumerate() {
                sums[v * S::LANES..][..S::LANES].copy_from_slice(&simd.to_array(sum)[..S::LANES]);
            }
        }
    }
}
