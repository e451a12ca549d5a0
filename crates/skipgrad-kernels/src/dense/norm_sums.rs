//! The sums of a norm's gradient, taken while the gradient after its ReLU is in the cache.

use super::NormRelu;
use crate::batch_norm::BatchNormSums;
use crate::epilogue::{Block, BlockVisitor};
use crate::prefetch::{Cache, prefetch_row};
use crate::simd::Simd;
use crate::{Isa, Task};

/// The input of a convolution before its normalization and ReLU, `[rows, channels]`.
#[derive(Clone, Copy, Debug)]
pub struct Normalized<'a> {
    /// The values.
    pub x: &'a [f32],
    /// The normalization and the ReLU.
    pub norm: NormRelu<'a>,
    /// The mean that the normalization subtracts, `[channels]`.
    pub mean: &'a [f32],
}

/// The visitor that sums g and g (x - mean) over the rows of each block, where g is the block's
/// element if the ReLU passed x, and zero otherwise. C has the layout of x.
pub(crate) struct NormSums<'a>(pub(crate) Normalized<'a>);

/// The sums of a block.
pub(crate) struct BlockSums {
    /// The first column of the block.
    first: usize,
    sums: [Vec<f64>; 2],
}

/// Adds the sums of blocks in their order.
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

/// The rows that are summed in f32.
const ROWS: usize = 128;
/// The columns whose sums are kept at once.
const COLUMNS: usize = 128;
/// The lanes of the shortest vectors.
const MIN_LANES: usize = 4;
/// How many rows in advance a row is prefetched.
const PREFETCH_DISTANCE: usize = 8;

impl Normalized<'_> {
    /// Panics unless it has `rows` rows and these channels.
    pub(crate) fn check(&self, rows: usize, channels: usize) {
        assert!(self.x.len() == rows * channels && self.mean.len() == channels, "as many rows in both");
        self.norm.check(channels);
    }
}

impl BlockVisitor for NormSums<'_> {
    type Output = BlockSums;
    unsafe fn visit(&self, isa: Isa, block: &Block<'_>) -> BlockSums {
        let mut sums = [vec![0.0; block.columns.len()], vec![0.0; block.columns.len()]];
        for offsets in block.offsets.chunks(ROWS) {
            isa.dispatch(SumRows { input: self.0, block, offsets, sums: &mut sums });
        }
        BlockSums { first: block.columns.start, sums }
    }
}

/// The task of [`NormSums`] for some rows of a block, which only [`BlockVisitor::visit`] makes and
/// whose contract it relies on.
struct SumRows<'a, 'b> {
    input: Normalized<'a>,
    block: &'a Block<'a>,
    offsets: &'a [usize],
    sums: &'b mut [Vec<f64>; 2],
}

impl Task for SumRows<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let SumRows { input: Normalized { x, norm, mean }, block: Block { columns, .. }, offsets, .. } = self;
        const { assert!(S::LANES >= MIN_LANES) };
        assert!([norm.scale, norm.shift, mean].iter().all(|vector| vector.len() >= columns.end));
        assert!(offsets.iter().all(|offset| offset + columns.end <= x.len()));
        for first in columns.clone().step_by(COLUMNS) {
            let range = first..columns.end.min(first + COLUMNS);
            let mut found = [[simd.splat(0.0); COLUMNS / MIN_LANES]; 2];
            for (i, offset) in offsets.iter().enumerate() {
                if let Some(next) = offsets.get(i + PREFETCH_DISTANCE) {
                    prefetch_row(Cache::L1, x.as_ptr().wrapping_add(next + range.start), range.len());
                }
                let (whole, rest) = (range.len() / S::LANES, range.len() % S::LANES);
                for v in 0..whole {
                    let sums = found.each_mut().map(|found| &mut found[v]);
                    // SAFETY: the columns are the block's, which `visit` guarantees, and the
                    // asserts show that x and the vectors have them.
                    unsafe { self.add(simd, *offset, range.start + v * S::LANES, S::LANES, sums) };
                }
                if rest > 0 {
                    let sums = found.each_mut().map(|found| &mut found[whole]);
                    // SAFETY: the last `rest` columns of the range are the block's, too.
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

impl SumRows<'_, '_> {
    /// Adds `count` columns of a row (at most a vector) to the sums.
    ///
    /// # Safety
    /// C and x must be readable at `count` columns of the row, and the vectors must have these
    /// columns.
    #[inline(always)]
    unsafe fn add<S: Simd>(
        &self,
        simd: S,
        offset: usize,
        column: usize,
        count: usize,
        [sum_g, sum_deviation]: [&mut S::Vector; 2],
    ) {
        let Normalized { x, norm, mean } = self.input;
        // SAFETY: the caller guarantees `count` elements from `column` on in the row and the
        // vectors.
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
