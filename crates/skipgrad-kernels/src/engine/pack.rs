//! Packing of B: pairs of k side by side, as the engines multiply them.

use super::block::{BLOCK, TILE};
use crate::Bf16;
use crate::pack::UnpackedB;
use rayon::prelude::*;

/// The number of k that an engine multiplies at once.
pub(crate) const STEP: usize = 32;

/// Returns the number of elements of a block of columns.
pub(crate) fn panel_len(taps: usize, steps: usize) -> usize {
    taps * steps * STEP * BLOCK
}

/// Returns the number of elements of the packed B with this number of columns.
pub(crate) fn packed_len(taps: usize, steps: usize, columns: usize) -> usize {
    columns.div_ceil(BLOCK) * panel_len(taps, steps)
}

/// Rounds and packs the taps of B, `merged` of which lie in the steps of one:
/// `[columns / BLOCK][taps / merged][steps][2 tiles][STEP / 2 pairs][TILE columns][2]`.
/// Zeros follow the last k of a tap and the last column.
pub(crate) fn pack(b: &UnpackedB<'_>, merged: usize, columns: usize, packed: &mut [Bf16]) {
    let (taps, steps) = (b.taps.len() / merged.max(1), (merged * b.depth).div_ceil(STEP));
    assert_eq!(packed.len(), packed_len(taps, steps, columns));
    packed.par_chunks_mut(panel_len(taps, steps).max(1)).enumerate().for_each(|(panel, to)| {
        let first = panel * BLOCK;
        let width = BLOCK.min(columns - first);
        for (at, to) in to.chunks_exact_mut(STEP * BLOCK).enumerate() {
            let (tap, step) = (at / steps, at % steps);
            for k in 0..STEP {
                let (part, depth) = ((step * STEP + k) / b.depth.max(1), (step * STEP + k) % b.depth.max(1));
                let row =
                    (part < merged).then(|| b.taps[tap * merged + part] + depth * b.row + first * b.column);
                for j in 0..BLOCK {
                    let x = row.filter(|_| j < width).map_or(0.0, |row| b.data[row + j * b.column]);
                    to[(j / TILE * (STEP / 2) + k / 2) * 2 * TILE + j % TILE * 2 + k % 2] = Bf16::from_f32(x);
                }
            }
        }
    });
}
