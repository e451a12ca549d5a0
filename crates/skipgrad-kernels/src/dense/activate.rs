//! Normalized features, in a panel or in memory.

use super::{ChannelView, NormRelu};
use crate::elementwise::PIECE;
use crate::epilogue::{BlockVisitor, ColumnEpilogue, Epilogue};
use crate::grid::Grid;
use crate::microkernel::{RowMajor, Start};
use crate::moments::{TakeMoments, merge_blocks};
use crate::pack::Factor;
use crate::prefetch::Prefetcher;
use crate::product::{PanelLayout, Panels, Product, Right};
use crate::simd::Simd;
use crate::{Isa, Task};
use rayon::prelude::*;
use std::ops::Range;

/// `y[r, c] = max(x[r, c] * scale[c] + shift[c], 0)` for `y[rows, channels]`.
///
/// # Panics
/// If a slice does not fit.
pub fn activate(isa: Isa, x: ChannelView<'_>, norm: NormRelu<'_>, y: &mut [f32]) {
    let (rows, channels) = (x.num_rows(), x.channels);
    norm.check(channels);
    assert_eq!(y.len(), rows * channels, "as many rows in both");
    if y.is_empty() {
        return;
    }
    let piece = (PIECE / channels).max(1);
    y.par_chunks_mut(piece * channels).enumerate().for_each(|(i, y)| {
        let rows = i * piece..i * piece + y.len() / channels;
        isa.dispatch(Activate { x, norm, rows, channels: 0..channels, to: y, pitch: channels });
    });
}

/// `y = max(x * scale + shift, 0) * w` for w `[channels, columns]`: the first half of a bottleneck layer.
///
/// # Panics
/// If a slice does not fit, or there are no channels.
///
/// ```
/// use skipgrad_kernels::{ChannelView, Isa, NormRelu, activate_product};
/// let x = ChannelView { data: &[1.0, -1.0, 7.0, 2.0, 3.0, 7.0], row: 3, channels: 2 }; // two rows; the last channel is another's
/// let norm = NormRelu { scale: &[1.0, 2.0], shift: &[0.5, 0.0] };
/// let mut y = [0.0; 2];
/// activate_product(Isa::active(), x, norm, &[1.0, 10.0], &mut y);
/// assert_eq!(y, [1.5, 2.5 + 60.0]);
/// ```
pub fn activate_product(isa: Isa, x: ChannelView<'_>, norm: NormRelu<'_>, w: &[f32], y: &mut [f32]) {
    let (columns, w) = right(x, w);
    multiply(isa, Activated { x, norm }, columns, w, y, ColumnEpilogue::default(), ());
}

/// `y = max(max(x * scale + shift, 0) * w + bias, 0)`: with a norm folded into w and bias, and w packed, by
/// [`Packing::Direct`](crate::Packing::Direct) for a 1x1 convolution.
///
/// # Panics
/// As [`activate_product`].
pub fn activate_product_packed(
    isa: Isa,
    x: ChannelView<'_>,
    norm: NormRelu<'_>,
    packed: &[f32],
    bias: &[f32],
    y: &mut [f32],
) {
    let epilogue = Epilogue { bias: Some(bias), relu: true, ..Epilogue::default() };
    let end = ColumnEpilogue { epilogue, ..ColumnEpilogue::default() };
    multiply(isa, Activated { x, norm }, bias.len(), Right::Packed(packed), y, end, ());
}

/// [`activate_product`], and mean and biased variance of every column of y, as
/// [`moments`](crate::moments) gives them: taken while y is in the cache, which saves a pass over it.
///
/// # Panics
/// As [`activate_product`], and if there are no rows.
pub fn activate_product_moments(
    isa: Isa,
    x: ChannelView<'_>,
    norm: NormRelu<'_>,
    w: &[f32],
    y: &mut [f32],
) -> (Vec<f64>, Vec<f64>) {
    assert!(!y.is_empty(), "moments of something");
    let (columns, w) = right(x, w);
    let (end, moments) = (ColumnEpilogue::default(), TakeMoments { first: 0 });
    merge_blocks(columns, multiply(isa, Activated { x, norm }, columns, w, y, end, moments))
}

/// The columns of w, and w to be packed.
fn right<'a>(x: ChannelView<'_>, w: &'a [f32]) -> (usize, Right<'a>) {
    let channels = x.channels;
    assert!(channels > 0 && w.len().is_multiple_of(channels), "whole rows of weights");
    let columns = w.len() / channels;
    (columns, Right::Factor(Factor::matrix(w, channels, columns, 1)))
}

/// The product, and what its end finds out.
fn multiply<E: BlockVisitor>(
    isa: Isa,
    a: Activated<'_>,
    columns: usize,
    w: Right<'_>,
    y: &mut [f32],
    end: ColumnEpilogue<'_>,
    visitor: E,
) -> Vec<E::Output> {
    let (rows, channels) = (a.x.num_rows(), a.x.channels);
    a.norm.check(channels);
    assert!(channels > 0, "no channels to sum over");
    assert_eq!(y.len(), rows * columns, "as many rows in both");
    let product = Product {
        columns,
        depth: channels,
        a,
        b: w,
        c: Grid::matrix(rows, columns),
        start: Start::Zero,
        end,
        visitor,
    };
    product.compute(isa, y)
}

/// Normalized features as the left factor of a product.
struct Activated<'a> {
    x: ChannelView<'a>,
    norm: NormRelu<'a>,
}

impl Panels for Activated<'_> {
    type Layout = RowMajor;

    fn fill(&self, isa: Isa, rows: Range<usize>, depth: Range<usize>, panel: &mut [f32]) {
        fill::<RowMajor>(isa, self.x, self.norm, rows, depth, panel);
    }

    fn ahead(&self, rows: Range<usize>, depth: Range<usize>) -> Option<Prefetcher> {
        Some(Prefetcher::new(self.x.data.as_ptr(), self.x.row, rows, depth))
    }
}

/// Fills a panel whose rows are those of the features, whatever a product takes them for.
pub(super) fn fill<L: PanelLayout>(
    isa: Isa,
    x: ChannelView<'_>,
    norm: NormRelu<'_>,
    rows: Range<usize>,
    channels: Range<usize>,
    panel: &mut [f32],
) {
    assert!(channels.len() <= L::WIDTH);
    isa.dispatch(Activate { x, norm, rows, channels, to: panel, pitch: L::PITCH });
}

/// Writes normalized features of `rows` and `channels` to rows of `to`, `pitch` apart; in whole vectors, over their ends, if
/// the pitch leaves module.
struct Activate<'a, 'b> {
    x: ChannelView<'a>,
    norm: NormRelu<'a>,
    rows: Range<usize>,
    channels: Range<usize>,
    to: &'b mut [f32],
    pitch: usize,
}

/// Rows that are normalized together, so that the vectors of scales and shifts are loaded less often.
const ROWS: usize = 4;

impl Task for Activate<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Activate { x, norm, rows, channels, to, pitch } = self;
        let count = channels.len();
        let padded = count.next_multiple_of(S::LANES);
        if rows.is_empty() || count == 0 {
            return;
        }
        assert!(channels.end <= x.channels && x.channels <= x.row && rows.end * x.row <= x.data.len());
        assert!(norm.scale.len() >= channels.end && norm.shift.len() >= channels.end);
        let over = pitch >= padded && to.len() >= (rows.len() - 1) * pitch + padded;
        assert!(pitch >= count && to.len() >= (rows.len() - 1) * pitch + count);
        let mut block = Rows {
            from: x.data.as_ptr().wrapping_add(rows.start * x.row + channels.start),
            from_row: x.row,
            scale: norm.scale.as_ptr().wrapping_add(channels.start),
            shift: norm.shift.as_ptr().wrapping_add(channels.start),
            to: to.as_mut_ptr(),
            pitch,
            count,
            over,
        };
        let mut row = 0;
        while row + ROWS <= rows.len() {
            // SAFETY: the asserts above; `over` says whether there is module for whole vectors behind every row.
            unsafe { block.run::<S, ROWS>(simd) };
            block.skip(ROWS);
            row += ROWS;
        }
        while row < rows.len() {
            // SAFETY: as above.
            unsafe { block.run::<S, 1>(simd) };
            block.skip(1);
            row += 1;
        }
    }
}

/// Where a few rows come from and go to.
struct Rows {
    from: *const f32,
    from_row: usize,
    scale: *const f32,
    shift: *const f32,
    to: *mut f32,
    pitch: usize,
    /// Numbers of a row.
    count: usize,
    /// Whether what lies behind a row, to the end of its last vector, may be overwritten.
    over: bool,
}

impl Rows {
    fn skip(&mut self, rows: usize) {
        self.from = self.from.wrapping_add(rows * self.from_row);
        self.to = self.to.wrapping_add(rows * self.pitch);
    }

    /// # Safety
    /// `count` numbers of `R` rows, and of the vectors, must be readable, and of the destinations writable, with `over` up to
    /// the end of the last vector.
    #[inline(always)]
    unsafe fn run<S: Simd, const R: usize>(&self, simd: S) {
        let mut at = 0;
        while at + S::LANES <= self.count {
            // SAFETY: a whole vector lies within each row, as promised.
            unsafe {
                let (scale, shift) = (simd.load(self.scale.add(at)), simd.load(self.shift.add(at)));
                for r in 0..R {
                    let x = simd.load(self.from.add(r * self.from_row + at));
                    let y = simd.relu(simd.mul_add(x, scale, shift));
                    simd.store(self.to.add(r * self.pitch + at), y);
                }
            }
            at += S::LANES;
        }
        let rest = self.count - at;
        if rest > 0 {
            // SAFETY: the rest of each row lies within it, as promised, and so does the vector if `over`.
            unsafe {
                let scale = simd.load_first(self.scale.add(at), rest);
                let shift = simd.load_first(self.shift.add(at), rest);
                for r in 0..R {
                    let x = simd.load_first(self.from.add(r * self.from_row + at), rest);
                    let y = simd.relu(simd.mul_add(x, scale, shift));
                    let to = self.to.add(r * self.pitch + at);
                    if self.over { simd.store(to, y) } else { simd.store_first(to, y, rest) }
                }
            }
        }
    }
}
