//! The sums of a norm's gradient, taken while the gradient behind its ReLU is in the cache.

use super::NormRelu;
use crate::batch_norm::BatchNormSums;
use crate::epilogue::{Block, BlockVisitor};
use crate::simd::{LINE, Simd, prefetch};
use crate::{Isa, Task};

/// What was normalized, `[rows, channels]`, in front of a ReLU and a convolution.
#[derive(Clone, Copy, Debug)]
pub struct Normalized<'a> {
    /// The numbers.
    pub x: &'a [f32],
    /// The normalization and the ReLU.
    pub norm: NormRelu<'a>,
    /// The mean that the normalization subtracts, `[channels]`.
    pub mean: &'a [f32],
}

/// Sums, over the rows of each block, of g and g (x - mean), where g is the block's number if the ReLU let x through. The block's
/// matrix lies as x does.
pub(crate) struct TakeSums<'a>(pub(crate) Normalized<'a>);

/// Those of a block, from a column on.
pub(crate) struct BlockSums {
    first: usize,
    sums: [Vec<f64>; 2],
}

/// Sums of blocks, added in their order.
pub(crate) fn add_blocks(channels: usize, blocks: Vec<BlockSums>) -> BatchNormSums {
    let mut all = [vec![0.0; channels], vec![0.0; channels]];
    for BlockSums { first, sums } in blocks {
        for (all, sums) in all.iter_mut().zip(sums) {
            all[first..].iter_mut().zip(sums).for_each(|(all, sum)| *all += sum);
        }
    }
    let [dy, dy_deviation] = all;
    BatchNormSums { dy, dy_deviation }
}

/// Rows that are summed in f32.
const ROWS: usize = 128;
/// Columns whose sums are kept at once.
const COLUMNS: usize = 128;
/// Lanes of the shortest vectors.
const FEWEST_LANES: usize = 4;
/// Rows before which one is asked for.
const PREFETCH_DISTANCE: usize = 8;

impl Normalized<'_> {
    /// Panics unless it has so many rows.
    pub(crate) fn check(&self, rows: usize, channels: usize) {
        assert!(self.x.len() == rows * channels && self.mean.len() == channels, "as many rows in both");
        self.norm.check(channels);
    }
}

impl BlockVisitor for TakeSums<'_> {
    type Output = BlockSums;
    unsafe fn apply(&self, isa: Isa, block: &Block<'_>) -> BlockSums {
        let mut sums = [vec![0.0; block.columns.len()], vec![0.0; block.columns.len()]];
        for offsets in block.offsets.chunks(ROWS) {
            isa.dispatch(Sum { of: self.0, block, offsets, sums: &mut sums });
        }
        BlockSums { first: block.columns.start, sums }
    }
}

/// Some rows of a block; rests on the promise of [`BlockVisitor::apply`], and that x is as long as the block's matrix.
struct Sum<'a, 'b> {
    of: Normalized<'a>,
    block: &'a Block<'a>,
    offsets: &'a [usize],
    sums: &'b mut [Vec<f64>; 2],
}

impl Task for Sum<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Sum { of: Normalized { x, norm, mean }, block: Block { columns, .. }, offsets, .. } = self;
        const { assert!(S::LANES >= FEWEST_LANES) };
        assert!([norm.scale, norm.shift, mean].iter().all(|vector| vector.len() >= columns.end));
        assert!(offsets.iter().all(|offset| offset + columns.end <= x.len()));
        for first in columns.clone().step_by(COLUMNS) {
            let range = first..columns.end.min(first + COLUMNS);
            let mut found = [[simd.splat(0.0); COLUMNS / FEWEST_LANES]; 2];
            for (i, offset) in offsets.iter().enumerate() {
                if let Some(next) = offsets.get(i + PREFETCH_DISTANCE) {
                    (range.clone()).step_by(LINE).for_each(|at| prefetch(x.as_ptr().wrapping_add(next + at)));
                }
                let (whole, rest) = (range.len() / S::LANES, range.len() % S::LANES);
                for v in 0..whole {
                    let sums = found.each_mut().map(|found| &mut found[v]);
                    // SAFETY: the numbers are the block's, and those of x and of the vectors are there, see the asserts.
                    unsafe { self.add(simd, *offset, range.start + v * S::LANES, S::LANES, sums) };
                }
                if rest > 0 {
                    let sums = found.each_mut().map(|found| &mut found[whole]);
                    // SAFETY: as above.
                    unsafe { self.add(simd, *offset, range.start + whole * S::LANES, rest, sums) };
                }
            }
            for (sums, found) in self.sums.iter_mut().zip(found) {
                let sums = &mut sums[range.start - columns.start..][..range.len()];
                for (sums, found) in sums.chunks_mut(S::LANES).zip(found) {
                    let found = simd.to_array(found);
                    sums.iter_mut().zip(found).for_each(|(sum, found)| *sum += f64::from(found));
                }
            }
        }
    }
}

impl Sum<'_, '_> {
    /// A vector of columns of a row, or the first `count` of it.
    ///
    /// # Safety
    /// The block's matrix, x and the vectors have these columns.
    #[inline(always)]
    unsafe fn add<S: Simd>(
        &self,
        simd: S,
        offset: usize,
        column: usize,
        count: usize,
        [sum_g, sum_deviation]: [&mut S::Vector; 2],
    ) {
        let Normalized { x, norm, mean } = self.of;
        // SAFETY: as promised.
        unsafe {
            let scale = simd.load_up_to(norm.scale.as_ptr().add(column), count);
            let shift = simd.load_up_to(norm.shift.as_ptr().add(column), count);
            let mean = simd.load_up_to(mean.as_ptr().add(column), count);
            let x = simd.load_up_to(x.as_ptr().add(offset + column), count);
            let dy = simd.load_up_to(self.block.c.offset(offset + column), count);
            let g = simd.relu_backward(simd.mul_add(x, scale, shift), dy);
            *sum_g = simd.add(*sum_g, g);
            *sum_deviation = simd.mul_add(g, simd.sub(x, mean), *sum_deviation);
        }
    }
}
