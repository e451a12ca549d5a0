//! What happens to the sums of a product before they leave the registers (bias, shortcut, ReLU: [`Epilogue`]), and what is found out
//! about a block of them while it is in the cache ([`BlockVisitor`]): each saves a pass over memory.

use super::Isa;
use super::simd::{LINE, Simd, prefetch_early};
use super::split::SyncMutPtr;
use std::ops::Range;

/// What is done with each block of C as soon as its sums are complete.
pub(crate) trait BlockVisitor: Sync {
    /// What it finds out about a block.
    type Output: Send;

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
    pub(crate) c: SyncMutPtr,
}

impl Block<'_> {
    /// Asks for the cache lines of one of so many parts of the block, which will be written soon: a part of a line is written once
    /// the rest has come.
    pub(super) fn ask(&self, part: usize, parts: usize) {
        let share = self.offsets.len().div_ceil(parts);
        for offset in self.offsets.iter().skip(part * share).take(share) {
            let lines = self.columns.clone().step_by(LINE).chain([self.columns.end - 1]);
            lines.for_each(|column| prefetch_early(self.c.offset(offset + column)));
        }
    }
}

/// Nothing.
impl BlockVisitor for () {
    type Output = ();
    unsafe fn apply(&self, _: Isa, _: &Block<'_>) {}
}

/// What becomes of each sum of a convolution before it is written: `sum + bias + residual`, and `max(·, 0)` of that.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// One number a channel, `[OC]`.
    pub bias: Option<&'a [f32]>,
    /// A number for each sum, in the shape of the result.
    pub residual: Option<&'a [f32]>,
    /// Whether a ReLU follows.
    pub relu: bool,
}

impl Epilogue<'_> {
    /// Whether it leaves the sums as they are.
    pub(super) fn is_identity(&self) -> bool {
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

/// An [`Epilogue`] for the columns of a product, which are the channels from `first` on. The residual lies as C does.
#[derive(Clone, Copy, Default)]
pub(super) struct ColumnEpilogue<'a> {
    pub(super) epilogue: Epilogue<'a>,
    /// The channel of column 0.
    pub(super) first: usize,
    /// Where column 0 is in a row of C.
    pub(super) at: usize,
}

impl ColumnEpilogue<'_> {
    /// It for the columns from `column` on.
    #[inline(always)]
    pub(super) fn from(self, column: usize) -> Self {
        ColumnEpilogue { first: self.first + column, at: self.at + column, ..self }
    }

    /// The bias of a vector of columns from `column` on.
    #[inline(always)]
    pub(super) fn bias<S: Simd>(&self, simd: S, column: usize) -> Option<S::Vector> {
        self.epilogue.bias_at(simd, self.first + column, S::LANES)
    }

    /// The end of the sums from `column` on in the row that is at `row` of C.
    #[inline(always)]
    pub(super) fn of<S: Simd>(
        &self,
        simd: S,
        sum: S::Vector,
        bias: Option<S::Vector>,
        row: usize,
        column: usize,
    ) -> S::Vector {
        let at = row + self.at + column;
        assert!(self.epilogue.residual.is_none_or(|residual| at + S::LANES <= residual.len()));
        // SAFETY: a vector of the residual lies within it.
        unsafe { self.epilogue.of(simd, sum, bias, at, S::LANES) }
    }

    /// The end of the sum in `column` of the row that is at `row` of C.
    pub(super) fn of_one(&self, sum: f32, row: usize, column: usize) -> f32 {
        let Epilogue { bias, residual, relu } = self.epilogue;
        let sum = sum + bias.map_or(0.0, |bias| bias[self.first + column]);
        let sum = sum + residual.map_or(0.0, |residual| residual[row + self.at + column]);
        if relu && sum <= 0.0 { 0.0 } else { sum }
    }
}
