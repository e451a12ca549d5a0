//! Normalized features, in a panel or in memory.

use super::{ChannelView, NormRelu};
use crate::blocking::Blocking;
use crate::epilogue::{BlockVisitor, ColumnEpilogue, Epilogue};
use crate::grid::Grid;
use crate::moments::{TakeMoments, merge_blocks};
use crate::pack::{BOperand, UnpackedB};
use crate::panel::RowMajor;
use crate::parallel::{PIECE, RowsMut, for_each_piece};
use crate::prefetch::Prefetcher;
use crate::product::{AOperand, Product};
use crate::simd::Simd;
use crate::{Isa, Task};
use std::ops::Range;

/// Computes `y[r, c] = max(x[r, c] * scale[c] + shift[c], 0)` for `y[rows, channels]`.
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
    let y = RowsMut { data: y, width: channels };
    for_each_piece(y, (PIECE / channels).max(1), |first, y| {
        let rows = first..first + y.data.len() / channels;
        isa.dispatch(ActivateTask { x, norm, rows, channels: 0..channels, to: y.data, pitch: channels });
    });
}

/// Computes `y = max(x * scale + shift, 0) * w` for w `[channels, columns]`: the first half of a
/// bottleneck layer.
///
/// # Panics
/// If a slice does not fit, or there are no channels.
///
/// ```
/// use skipgrad_kernels::{ChannelView, Isa, NormRelu, activate_product};
/// // Two rows of three channels, of which two are read.
/// let x = ChannelView { data: &[1.0, -1.0, 7.0, 2.0, 3.0, 7.0], row: 3, channels: 2 };
/// let norm = NormRelu { scale: &[1.0, 2.0], shift: &[0.5, 0.0] };
/// let mut y = [0.0; 2];
/// activate_product(Isa::active(), x, norm, &[1.0, 10.0], &mut y);
/// assert_eq!(y, [1.5, 2.5 + 60.0]);
/// ```
pub fn activate_product(isa: Isa, x: ChannelView<'_>, norm: NormRelu<'_>, w: &[f32], y: &mut [f32]) {
    let (columns, w) = unpacked(x, w);
    multiply(isa, Activated { x, norm }, columns, w, y, ColumnEpilogue::default(), ());
}

/// Computes `y = max(max(x * scale + shift, 0) * w + bias, 0)`, where a second norm is folded into
/// w and the bias, and [`Packing::Direct`](crate::Packing::Direct) packed w for a 1x1 convolution.
///
/// # Panics
/// In the cases in which [`activate_product`] does.
pub fn activate_product_packed(
    isa: Isa,
    x: ChannelView<'_>,
    norm: NormRelu<'_>,
    packed: &[f32],
    bias: &[f32],
    y: &mut [f32],
) {
    let epilogue = Epilogue { bias: Some(bias), relu: true, ..Epilogue::default() };
    let epilogue = ColumnEpilogue { epilogue, ..ColumnEpilogue::default() };
    multiply(isa, Activated { x, norm }, bias.len(), BOperand::Packed(packed), y, epilogue, ());
}

/// Computes y as [`activate_product`] and returns the mean and the biased variance of every column
/// of y, as [`moments`](crate::moments) does. They are taken while y is in the cache, which saves a
/// pass over it.
///
/// # Panics
/// In the cases in which [`activate_product`] does, and if there are no rows.
pub fn activate_product_moments(
    isa: Isa,
    x: ChannelView<'_>,
    norm: NormRelu<'_>,
    w: &[f32],
    y: &mut [f32],
) -> (Vec<f64>, Vec<f64>) {
    assert!(!y.is_empty(), "moments of no rows");
    let (columns, w) = unpacked(x, w);
    let (epilogue, moments) = (ColumnEpilogue::default(), TakeMoments { first: 0 });
    merge_blocks(columns, multiply(isa, Activated { x, norm }, columns, w, y, epilogue, moments))
}

/// Returns the number of columns of w, and w as an operand.
fn unpacked<'a>(x: ChannelView<'_>, w: &'a [f32]) -> (usize, BOperand<'a>) {
    let channels = x.channels;
    assert!(channels > 0 && w.len().is_multiple_of(channels), "whole rows of weights");
    let columns = w.len() / channels;
    (columns, BOperand::Unpacked(UnpackedB::matrix(w, channels, columns, 1)))
}

/// Computes the product and returns what the visitor returned for its blocks.
fn multiply<V: BlockVisitor>(
    isa: Isa,
    a: Activated<'_>,
    columns: usize,
    w: BOperand<'_>,
    y: &mut [f32],
    epilogue: ColumnEpilogue<'_>,
    visitor: V,
) -> Vec<V::Output> {
    let (rows, channels) = (a.x.num_rows(), a.x.channels);
    a.norm.check(channels);
    assert!(channels > 0, "no channels to sum over");
    assert_eq!(y.len(), rows * columns, "as many rows in both");
    Product::new(a, w, Grid::matrix(rows, columns), [channels, columns])
        .epilogue(epilogue)
        .visitor(visitor)
        .compute(isa, y)
}

/// Normalized features as the left operand of a product.
struct Activated<'a> {
    x: ChannelView<'a>,
    norm: NormRelu<'a>,
}

impl AOperand for Activated<'_> {
    type Layout = RowMajor;

    fn pack(&self, isa: Isa, rows: Range<usize>, depth: Range<usize>, panel: &mut [f32]) {
        pack_panel::<RowMajor>(isa, self.x, self.norm, rows, depth, panel);
    }

    fn prefetch(&self, rows: Range<usize>, depth: Range<usize>) -> Option<Prefetcher> {
        Some(Prefetcher::new(self.x.data.as_ptr(), self.x.row, rows, depth))
    }
}

/// Packs normalized features into a panel whose rows are those of the features, in either layout.
pub(super) fn pack_panel<L: Blocking>(
    isa: Isa,
    x: ChannelView<'_>,
    norm: NormRelu<'_>,
    rows: Range<usize>,
    channels: Range<usize>,
    panel: &mut [f32],
) {
    assert!(channels.len() <= L::WIDTH);
    isa.dispatch(ActivateTask { x, norm, rows, channels, to: panel, pitch: L::PITCH });
}

/// The task that writes normalized features of `rows` and `channels` to rows of `to`, `pitch`
/// apart. It writes whole vectors, beyond the end of a row, if the pitch leaves space for that.
struct ActivateTask<'a, 'b> {
    x: ChannelView<'a>,
    norm: NormRelu<'a>,
    rows: Range<usize>,
    channels: Range<usize>,
    to: &'b mut [f32],
    pitch: usize,
}

/// The rows that are normalized together, so that the vectors of scales and shifts are loaded less
/// often.
const ROWS: usize = 4;

impl Task for ActivateTask<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let ActivateTask { x, norm, rows, channels, to, pitch } = self;
        let count = channels.len();
        let padded = count.next_multiple_of(S::LANES);
        if rows.is_empty() || count == 0 {
            return;
        }
        assert!(channels.end <= x.channels && x.channels <= x.row && rows.end * x.row <= x.data.len());
        assert!(norm.scale.len() >= channels.end && norm.shift.len() >= channels.end);
        let pads = pitch >= padded && to.len() >= (rows.len() - 1) * pitch + padded;
        assert!(pitch >= count && to.len() >= (rows.len() - 1) * pitch + count);
        let mut block = ActivateRows {
            from: x.data.as_ptr().wrapping_add(rows.start * x.row + channels.start),
            from_row: x.row,
            scale: norm.scale.as_ptr().wrapping_add(channels.start),
            shift: norm.shift.as_ptr().wrapping_add(channels.start),
            to: to.as_mut_ptr(),
            pitch,
            count,
            pads,
        };
        let mut row = 0;
        while row + ROWS <= rows.len() {
            // SAFETY: the asserts show that `ROWS` more rows of x, and the vectors, have the
            // channels, and that `to` has `count` elements of each row or, where `pads` is set,
            // whole vectors.
            unsafe { block.run::<S, ROWS>(simd) };
            block.skip(ROWS);
            row += ROWS;
        }
        while row < rows.len() {
            // SAFETY: the asserts show the same of one more row.
            unsafe { block.run::<S, 1>(simd) };
            block.skip(1);
            row += 1;
        }
    }
}

/// The next rows of an [`ActivateTask`].
struct ActivateRows {
    from: *const f32,
    from_row: usize,
    scale: *const f32,
    shift: *const f32,
    to: *mut f32,
    pitch: usize,
    /// The number of channels.
    count: usize,
    /// Whether the elements after a row of `to`, up to the end of its last vector, may be
    /// overwritten.
    pads: bool,
}

impl ActivateRows {
    /// Skips rows.
    fn skip(&mut self, rows: usize) {
        self.from = self.from.wrapping_add(rows * self.from_row);
        self.to = self.to.wrapping_add(rows * self.pitch);
    }

    /// Normalizes `R` rows.
    ///
    /// # Safety
    /// `count` elements of `R` rows and of the vectors must be readable, and as many of each row of
    /// `to` writable; if `pads` is set, up to the end of the last vector.
    #[inline(always)]
    unsafe fn run<S: Simd, const R: usize>(&self, simd: S) {
        let mut at = 0;
        while at + S::LANES <= self.count {
            // SAFETY: a whole vector from `at` on ends before `count`, which the caller guarantees.
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
            // SAFETY: the caller guarantees the `rest` last elements of each row and, if `pads` is
            // set, their whole vector.
            unsafe {
                let scale = simd.load_first(self.scale.add(at), rest);
                let shift = simd.load_first(self.shift.add(at), rest);
                for r in 0..R {
                    let x = simd.load_first(self.from.add(r * self.from_row + at), rest);
                    let y = simd.relu(simd.mul_add(x, scale, shift));
                    let to = self.to.add(r * self.pitch + at);
                    if self.pads { simd.store(to, y) } else { simd.store_first(to, y, rest) }
                }
            }
        }
    }
}
