//! The transform `y = A^T M A` of values at the points to tiles of outputs.

use super::Convolution;
use crate::conv::winograd::transforms::{F, Filtering, Transform};
use crate::simd::Simd;
use crate::split::SyncMutPtr;
use crate::{Isa, Task};
use std::ops::Range;

/// The transform `y = A^T M A` and the epilogue of some tiles and channels.
pub(super) struct WriteTiles<'a, const I: usize, const O: usize> {
    pub(super) convolution: &'a Convolution<'a, I, O>,
    pub(super) tiles: Range<usize>,
    pub(super) channels: Range<usize>,
    pub(super) m: &'a [f32],
    /// Elements from one tile to the next.
    pub(super) m_row: usize,
    /// Elements from one panel to the next.
    pub(super) m_panel: usize,
    pub(super) y: SyncMutPtr,
}

impl<const I: usize, const O: usize> WriteTiles<'_, I, O>
where
    F: Filtering<I, O>,
{
    /// Writes the tiles.
    ///
    /// # Safety
    /// `y` must have the size of the convolution's result, and nobody else may access these tiles
    /// and channels of it during the call.
    pub(super) unsafe fn write(self, isa: Isa) {
        isa.dispatch(WriteTask(self));
    }
}

/// The task of [`WriteTiles::write`], which is the only place that makes one and whose contract it
/// relies on.
struct WriteTask<'a, const I: usize, const O: usize>(WriteTiles<'a, I, O>);

impl<const I: usize, const O: usize> Task for WriteTask<'_, I, O>
where
    F: Filtering<I, O>,
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let WriteTiles { convolution, tiles, channels, m, m_row, m_panel, y } = self.0;
        assert!(channels.len().next_multiple_of(S::LANES) <= m_row);
        assert!(tiles.len() * m_row <= m_panel && I * I * m_panel <= m.len());
        assert!(tiles.end <= convolution.inputs.tiles.count() && channels.end <= convolution.to.channels);
        for (row, tile) in tiles.enumerate() {
            let window = convolution.inputs.tiles.window(tile..tile + 1, convolution.to, O, [0, 0]);
            for first in (0..channels.len()).step_by(S::LANES) {
                let count = channels.len() - first;
                let from = m.as_ptr().wrapping_add(row * m_row + first);
                let mut half = [[simd.splat(0.0); I]; O];
                for j in 0..I {
                    let mut column = [simd.splat(0.0); I];
                    for (i, value) in column.iter_mut().enumerate() {
                        // SAFETY: the asserts show that a row of each of the `I * I` panels holds
                        // the channels in whole vectors.
                        *value = unsafe { simd.load(from.add((i * I + j) * m_panel)) };
                    }
                    for (half, value) in
                        half.iter_mut().zip(<F as Filtering<I, O>>::Outputs::apply(simd, column))
                    {
                        half[j] = value;
                    }
                }
                let channel = channels.start + first;
                let count = count.min(S::LANES);
                let bias = convolution.epilogue.bias_at(simd, channel, count);
                for (i, half) in half.iter().enumerate() {
                    let values = <F as Filtering<I, O>>::Outputs::apply(simd, *half);
                    // SAFETY: the caller guarantees that y has the images that the window is made
                    // for, and that nobody else accesses the tile. A residual has the size of y,
                    // see `Epilogue::check`.
                    unsafe {
                        window.write(simd, y.offset(0), channel..channel + count, i, values, |value, at| {
                            convolution.epilogue.apply(simd, value, bias, at, count)
                        });
                    }
                }
            }
        }
    }
}
