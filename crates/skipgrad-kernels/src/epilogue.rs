//! What is done with the sums of a product before they leave the registers (bias, residual, ReLU:
//! [`Epilogue`]) and with a block of them while it is in the cache ([`BlockVisitor`]). Each saves a
//! pass over memory.

use super::Isa;
use super::prefetch::{Cache, prefetch_row};
use super::simd::Simd;
use super::split::SyncMutPtr;
use std::ops::Range;

/// What is computed from each block of C as soon as its sums are complete.
pub(crate) trait BlockVisitor: Sync {
    /// The result for one block.
    type Output: Send;

    /// Visits a block.
    ///
    /// # Safety
    /// The elements of the block must be valid for reading and writing, and nobody else may access
    /// them during the call.
    unsafe fn visit(&self, isa: Isa, block: &Block<'_>) -> Self::Output;
}

/// Rows and columns of a product C.
pub(crate) struct Block<'a> {
    /// The columns.
    pub(crate) columns: Range<usize>,
    /// The position in C of column 0 of each row.
    pub(crate) offsets: &'a [usize],
    /// The first element of C.
    pub(crate) c: SyncMutPtr,
}

impl Block<'_> {
    /// Prefetches one of `parts` equal parts of the block, which is written soon: a store to a part
    /// of a cache line waits for the rest of it.
    pub(super) fn prefetch(&self, part: usize, parts: usize) {
        let share = self.offsets.len().div_ceil(parts);
        for offset in self.offsets.iter().skip(part * share).take(share) {
            prefetch_row(Cache::L2, self.c.offset(offset + self.columns.start), self.columns.len());
        }
    }
}

/// The visitor that does nothing.
impl BlockVisitor for () {
    type Output = ();
    unsafe fn visit(&self, _: Isa, _: &Block<'_>) {}
}

/// What is applied to each sum of a convolution before it is written: `sum + bias + residual`, then
/// `max(·, 0)`. The result has elements of type T.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a, T = f32> {
    /// One value per channel, `[OC]`.
    pub bias: Option<&'a [f32]>,
    /// One value per sum, in the shape of the result.
    pub residual: Option<&'a [T]>,
    /// Whether a ReLU follows.
    pub relu: bool,
}

/// Nothing is applied.
impl<T> Default for Epilogue<'_, T> {
    fn default() -> Self {
        Epilogue { bias: None, residual: None, relu: false }
    }
}

impl<T> Epilogue<'_, T> {
    /// Returns whether it leaves the sums as they are.
    pub(super) fn is_identity(&self) -> bool {
        self.bias.is_none() && self.residual.is_none() && !self.relu
    }

    /// Asserts that it fits a result of `len` elements in `channels`.
    pub(super) fn check(&self, channels: usize, len: usize) {
        assert!(self.bias.is_none_or(|bias| bias.len() == channels), "one bias per channel");
        assert!(
            self.residual.is_none_or(|residual| residual.len() == len),
            "a residual of the result's shape"
        );
    }
}

impl Epilogue<'_> {
    /// Applies the epilogue to the first `count` lanes of `sum`, which is stored at position `at`
    /// of the result.
    ///
    /// # Safety
    /// `count` elements from `at` on must lie within the residual, if there is one, and
    /// `count <= LANES`.
    #[inline(always)]
    pub(super) unsafe fn apply<S: Simd>(
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
            // SAFETY: the caller guarantees that `count <= LANES` elements from `at` on lie within
            // the residual.
            sum = simd.add(sum, unsafe { simd.load_up_to(from, count) });
        }
        if self.relu { simd.relu(sum) } else { sum }
    }

    /// Returns the bias of `count` channels (at most a vector) from `channel` on.
    #[inline(always)]
    pub(super) fn bias_at<S: Simd>(&self, simd: S, channel: usize, count: usize) -> Option<S::Vector> {
        self.bias.map(|bias| {
            let bias = &bias[channel..channel + count];
            // SAFETY: the slice has `count` elements.
            unsafe { simd.load_up_to(bias.as_ptr(), count) }
        })
    }
}

/// An [`Epilogue`] for the columns of a product, which are the channels from `first` on. The
/// residual has the layout of C.
#[derive(Clone, Copy, Default)]
pub(super) struct ColumnEpilogue<'a> {
    pub(super) epilogue: Epilogue<'a>,
    /// The channel of column 0.
    pub(super) first: usize,
    /// The position of column 0 in a row of C.
    pub(super) at: usize,
}

impl ColumnEpilogue<'_> {
    /// Returns the epilogue whose column 0 is this one's `column`.
    #[inline(always)]
    pub(super) fn starting_at(self, column: usize) -> Self {
        ColumnEpilogue { first: self.first + column, at: self.at + column, ..self }
    }

    /// Returns the bias of a vector of columns from `column` on.
    #[inline(always)]
    pub(super) fn bias<S: Simd>(&self, simd: S, column: usize) -> Option<S::Vector> {
        self.epilogue.bias_at(simd, self.first + column, S::LANES)
    }

    /// Applies the epilogue to the sums from `column` on in the row whose offset in C is `row`.
    #[inline(always)]
    pub(super) fn apply<S: Simd>(
        &self,
        simd: S,
        sum: S::Vector,
        bias: Option<S::Vector>,
        row: usize,
        column: usize,
    ) -> S::Vector {
        let at = row + self.at + column;
        assert!(self.epilogue.residual.is_none_or(|residual| at + S::LANES <= residual.len()));
        // SAFETY: the assert shows that a vector from `at` on lies within the residual.
        unsafe { self.epilogue.apply(simd, sum, bias, at, S::LANES) }
    }

    /// Applies the epilogue to the sum in `column` of the row whose offset in C is `row`.
    pub(super) fn apply_to_element(&self, sum: f32, row: usize, column: usize) -> f32 {
        let Epilogue { bias, residual, relu } = self.epilogue;
        let sum = sum + bias.map_or(0.0, |bias| bias[self.first + column]);
        let sum = sum + residual.map_or(0.0, |residual| residual[row + self.at + column]);
        if relu && sum <= 0.0 { 0.0 } else { sum }
    }
}
