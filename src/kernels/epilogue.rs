//! What happens to a block of a product while it is in the cache: the pass over memory that a bias, a shortcut or a ReLU
//! would cost by itself is saved.

use super::product::Output;
use super::simd::Simd;
use super::{Isa, Task};
use std::ops::Range;

/// What is done with each block of C as soon as its sums are complete.
pub(crate) trait Epilogue: Sync {
    /// What it finds out about a block.
    type Output: Send;
    /// Whether it does anything at all.
    const ACTIVE: bool = true;

    /// Calls it for a block.
    ///
    /// # Safety
    /// The numbers of the block are valid for reading and writing, and nobody else accesses them meanwhile.
    unsafe fn apply(&self, isa: Isa, block: &Block<'_>) -> Self::Output;
}

/// Rows and columns of a product C.
pub(crate) struct Block<'a> {
    /// Which columns.
    pub(crate) columns: Range<usize>,
    /// For each row, where its column 0 is in C.
    pub(crate) offsets: &'a [usize],
    /// C.
    pub(crate) c: Output,
}

/// Nothing.
impl Epilogue for () {
    type Output = ();
    const ACTIVE: bool = false;
    unsafe fn apply(&self, _: Isa, _: &Block<'_>) {}
}

/// One after the other; what the second finds out counts.
impl<A: Epilogue, B: Epilogue> Epilogue for (A, B) {
    type Output = B::Output;
    const ACTIVE: bool = A::ACTIVE || B::ACTIVE;
    unsafe fn apply(&self, isa: Isa, block: &Block<'_>) -> B::Output {
        // SAFETY: as promised by the caller.
        unsafe {
            self.0.apply(isa, block);
            self.1.apply(isa, block)
        }
    }
}

/// What becomes of each sum of a convolution before it is written: `sum + bias + residual`, and `max(·, 0)` of that.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ending<'a> {
    /// One number a channel, `[OC]`.
    pub bias: Option<&'a [f32]>,
    /// A number for each sum, in the shape of the result.
    pub residual: Option<&'a [f32]>,
    /// Whether a ReLU follows.
    pub relu: bool,
}

impl Ending<'_> {
    /// Whether it leaves the sums as they are.
    pub(super) fn is_nothing(&self) -> bool {
        self.bias.is_none() && self.residual.is_none() && !self.relu
    }

    /// Asserts that it fits a result of `len` numbers in `channels`.
    pub(super) fn check(&self, channels: usize, len: usize) {
        assert!(self.bias.is_none_or(|bias| bias.len() == channels), "one bias a channel");
        assert!(
            self.residual.is_none_or(|residual| residual.len() == len),
            "a residual of the result's shape"
        );
    }

    /// The end of the first `count` lanes of `sum`, which belongs at `at` of the result.
    ///
    /// # Safety
    /// `count` numbers from `bias`, if there is one, and from `at` in the residual are readable; `count <= LANES`.
    #[inline(always)]
    pub(super) unsafe fn of<S: Simd>(
        &self,
        simd: S,
        sum: S::Vector,
        bias: Option<S::Vector>,
        at: usize,
        count: usize,
    ) -> S::Vector {
        let mut sum = sum;
        if let Some(bias) = bias {
            sum = simd.add(sum, bias);
        }
        if let Some(residual) = self.residual {
            let from = residual.as_ptr().wrapping_add(at);
            // SAFETY: as promised.
            sum = simd.add(sum, unsafe { simd.load_up_to(from, count) });
        }
        if self.relu { simd.relu(sum) } else { sum }
    }

    /// The bias of `count` channels (at most a vector) from `channel` on.
    #[inline(always)]
    pub(super) fn bias_at<S: Simd>(&self, simd: S, channel: usize, count: usize) -> Option<S::Vector> {
        self.bias.map(|bias| {
            let bias = &bias[channel..channel + count];
            // SAFETY: the slice has `count` numbers.
            unsafe { simd.load_up_to(bias.as_ptr(), count) }
        })
    }
}

/// An [`Ending`] for a product whose columns are the channels from `first` on. The residual lies as C does.
pub(super) struct EndOfChannels<'a> {
    pub(super) ending: Ending<'a>,
    pub(super) first: usize,
}

impl Epilogue for EndOfChannels<'_> {
    type Output = ();
    unsafe fn apply(&self, isa: Isa, block: &Block<'_>) {
        if !self.ending.is_nothing() {
            isa.dispatch(End { end: self, block });
        }
    }
}

/// [`EndOfChannels::apply`], whose promise it rests on.
struct End<'a> {
    end: &'a EndOfChannels<'a>,
    block: &'a Block<'a>,
}

impl Task for End<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let End { end: EndOfChannels { ending, first }, block: Block { columns, offsets, c, .. } } = self;
        for column in columns.clone().step_by(S::LANES) {
            let count = (columns.end - column).min(S::LANES);
            let bias = ending.bias_at(simd, first + column, count);
            for offset in *offsets {
                let at = offset + column;
                let to = c.offset(at);
                // SAFETY: the numbers are the block's, and the residual, checked by `Ending::check`, is as long as C.
                unsafe {
                    let sum = ending.of(simd, simd.load_up_to(to, count), bias, at, count);
                    simd.store_up_to(to, sum, count);
                }
            }
        }
    }
}
