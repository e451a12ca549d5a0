//! The sums of a norm's gradient, taken while the gradient behind its ReLU is in the cache.

use super::NormRelu;
use crate::kernels::batch_norm::BatchNormSums;
use crate::kernels::epilogue::{Block, Epilogue};
use crate::kernels::simd::{LINE, Simd, prefetch};
use crate::kernels::{Isa, Task};

/// What was normalised, `[rows, channels]`, in front of a ReLU and a convolution.
#[derive(Clone, Copy, Debug)]
pub struct Normalised<'a> {
    /// The numbers.
    pub x: &'a [f32],
    /// The normalisation and the ReLU.
    pub norm: NormRelu<'a>,
    /// The mean that the normalisation subtracts, `[channels]`.
    pub mean: &'a [f32],
}

/// Sums, over the rows of each block, of g and g (x - mean), where g is the block's number if the ReLU let x through. The block's
/// matrix lies as x does.
pub(crate) struct TakeSums<'a>(pub(crate) Normalised<'a>);

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
const AHEAD: usize = 8;

impl Normalised<'_> {
    /// Panics unless it has so many rows.
    pub(crate) fn check(&self, rows: usize, channels: usize) {
        assert!(self.x.len() == rows * channels && self.mean.len() == channels, "as many rows in both");
        self.norm.check(channels);
    }
}

impl Epilogue for TakeSums<'_> {
    type Output = BlockSums;
    unsafe fn apply(&self, isa: Isa, block: &Block<'_>) -> BlockSums {
        let mut sums = [vec![0.0; block.columns.len()], vec![0.0; block.columns.len()]];
        for offsets in block.offsets.chunks(ROWS) {
            isa.dispatch(Sum { of: self.0, block, offsets, sums: &mut sums });
        }
        BlockSums { first: block.columns.start, sums }
    }
}

/// Some rows of a block; rests on the promise of [`Epilogue::apply`], and that x is as long as the block's matrix.
struct Sum<'a, 'b> {
    of: Normalised<'a>,
    block: &'a Block<'a>,
    offsets: &'a [usize],
    sums: &'b mut [Vec<f64>; 2],
}

impl Task for Sum<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Sum { of: Normalised { x, norm, mean }, block: Block { columns, c, .. }, offsets, sums } = self;
        const { assert!(S::LANES >= FEWEST_LANES) };
        assert!([norm.scale, norm.shift, mean].iter().all(|vector| vector.len() >= columns.end));
        assert!(offsets.iter().all(|offset| offset + columns.end <= x.len()));
        for first in columns.clone().step_by(COLUMNS) {
            let range = first..columns.end.min(first + COLUMNS);
            let mut found = [[simd.splat(0.0); COLUMNS / FEWEST_LANES]; 2];
            for (i, offset) in offsets.iter().enumerate() {
                if let Some(next) = offsets.get(i + AHEAD) {
                    (range.clone()).step_by(LINE).for_each(|at| prefetch(x.as_ptr().wrapping_add(next + at)));
                }
                for (v, column) in range.clone().step_by(S::LANES).enumerate() {
                    let count = (range.end - column).min(S::LANES);
                    // SAFETY: the numbers are the block's, and those of x and of the vectors are there, see the asserts.
                    unsafe {
                        let load = |from: &[f32], at: usize| simd.load_up_to(from.as_ptr().add(at), count);
                        let [scale, shift, mean] =
                            [norm.scale, norm.shift, mean].map(|vector| load(vector, column));
                        let x = load(x, offset + column);
                        let dy = simd.load_up_to(c.offset(offset + column), count);
                        let g = simd.gate(simd.mul_add(x, scale, shift), dy);
                        found[0][v] = simd.add(found[0][v], g);
                        found[1][v] = simd.mul_add(g, simd.sub(x, mean), found[1][v]);
                    }
                }
            }
            for (sums, found) in sums.iter_mut().zip(found) {
                let sums = &mut sums[range.start - columns.start..][..range.len()];
                for (sums, found) in sums.chunks_mut(S::LANES).zip(found) {
                    let found = simd.to_array(found);
                    sums.iter_mut().zip(found).for_each(|(sum, found)| *sum += f64::from(found));
                }
            }
        }
    }
}
