//! 3x3 convolution of stride 1 by Winograd's minimal filtering, F(4x4, 3x3), with a quarter of the
//! multiplications (A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural Networks",
//! 2015, arXiv:1509.09308, sections 4.1 to 4.3).
//!
//! # The mathematics
//!
//! Four outputs of a filter of three taps, `y[i] = sum over k of d[i + k] * g[k]`, are coefficients
//! of a product of polynomials. That product is determined by its values at six points, here 0,
//! 2/3, -2/3, 3/2, -3/2 and infinity: evaluate both factors there, multiply six pairs of values
//! instead of twelve, and interpolate. In two dimensions, with a tile of 6x6 inputs `d`, a kernel
//! `g` and a tile of 4x4 outputs,
//!
//! ```text
//! y = A^T [ (G g G^T) * (B^T d B) ] A           * is element by element: 36 products, not 144
//!
//!       1    0 -97/36      0 1 0             1      0      0
//!       0 -3/2   -9/4    2/3 1 0        -27/65 -18/65 -12/65          1 3/2  3/2 4/9  4/9 0
//! B^T = 0  3/2   -9/4   -2/3 1 0    G = -27/65  18/65 -12/65    A^T = 0   1   -1 2/3 -2/3 0
//!       0 -2/3   -4/9    3/2 1 0         18/65  27/65 81/130          0 2/3  2/3   1    1 0
//!       0  2/3   -4/9   -3/2 1 0         18/65 -27/65 81/130          0 4/9 -4/9 3/2 -3/2 1
//!       0    1      0 -97/36 0 1             0      0      1
//! ```
//!
//! (Rows of G and columns of A^T may be scaled against each other; so scaled, A^T takes the fewest
//! operations.)
//!
//! Sums over input channels may be taken before `A^T . A`, because that is linear. So at each of
//! the 36 points there is a matrix product over channels, `V [tiles, C] * U [C, OC]`, and nearly
//! all time is spent in those.
//!
//! * forward: as above;
//! * input gradient: the same with the kernel rotated by 180 degrees, its channels exchanged, and
//!   `2 - padding` zeros;
//! * weight gradient: by transposing the maps, `dw = G^T [ sum over tiles of (B^T d B) * (A dy A^T)
//!   ] G`, where at each point the sum is a product `V^T [C, tiles] * Z [tiles, OC]`. A and G are
//!   scaled otherwise there: A's row of a point p is `1 p p^2 p^3`.
//!
//! Where weights are transformed in advance, for inference, there is F(2x2, 3x3), too: 16 points
//! for four outputs, so four ninths of the multiplications, but also fewer weights to read for a
//! small image, see [`fastest_packed`].
//!
//! ```text
//!       1  0 -1  0            1    0    0
//! B^T = 0  1  1  0      G =  1/2  1/2  1/2      A^T = 1  1  1  0
//!       0 -1  1  0           1/2 -1/2  1/2            0  1 -1 -1
//!       0  1  0 -1            0    0    1
//! ```
//!
//! Images need not be multiples of a tile: pixels of a tile outside of the image are zero when read
//! and dropped when written. Files: `transforms` has the maps, `tiles` where tiles lie, `inputs`
//! and `weights` their transforms, `products` the matrix products, `forward` and `weight_gradient`
//! the loop nests.
//!
//! # The error
//!
//! Intermediate values are larger than the results and cancel, but their rounding errors remain.
//! How much larger depends on the points. With the usual ones, 0, 1, -1, 2, -2 and infinity, the
//! rows of `B^T` and of `A^T` have sums of absolute values up to 10 and 19; with these up to 5.4
//! and 4.9, for as many operations. Among points that come with their negatives, which saves
//! operations, those near 2/3 and 3/2 are the best.
//!
//! The rounding errors do not shrink where an output happens to be small: the error is to be
//! compared with the largest output, not with each. For uniformly random values and 16 to 512
//! channels, the largest error was measured to be 8e-7 to 2.3e-6 of the largest output, the most
//! where it is the largest of two million; with the usual points it is 3e-6 to 9e-6, directly 3e-7
//! to 6e-7. Root mean squares are 5e-7 to 8e-7, with the usual points 1.0e-6 to 1.8e-6, directly
//! 2e-7 to 3e-7. The tests allow at most 3e-6. [`Algorithm::Direct`](super::Algorithm::Direct)
//! gives the direct sums nevertheless.

mod forward;
mod inputs;
mod products;
mod tiles;
mod transforms;
mod weight_gradient;
mod weights;

pub(super) use forward::{forward, forward_into, forward_packed, input_gradient, pack, packed_len};
pub(super) use weight_gradient::weight_gradient;

use super::Conv2dGeometry;
use crate::prefetch::LINE;

/// The number of points of a tile, 6x6.
const POINTS: usize = INPUTS * INPUTS;
/// The pixels of a line of a tile of inputs.
const INPUTS: usize = 6;
/// The pixels of a line of a tile of outputs.
const OUTPUTS: usize = 4;

/// Returns whether the algorithm can compute this convolution.
pub(super) fn possible(sizes: &Conv2dGeometry) -> bool {
    sizes.kernel == [3, 3] && sizes.stride == [1, 1] && sizes.dilation == [1, 1] && sizes.groups == 1
}

/// Returns whether the algorithm pays: it was measured to be faster for at least 16 tiles (fewer do
/// not pay for the transform of the weights) and 12 channels on both sides. Small problems, of
/// fewer than 12 000 tiles times channels, are computed directly all the same: there is little time
/// to save, and a network in training mode on two or three images amplifies any rounding error, as
/// its batch statistics rest on few pixels.
pub(super) fn worthwhile(sizes: &Conv2dGeometry) -> bool {
    let (tiles, channels) = extent(sizes);
    tiles >= 16 && channels >= 12 && tiles * channels >= 12_000
}

/// Returns the size of the tiles of outputs, 4 or 2, that is fastest if the weights are transformed
/// already, or none if the direct sums are faster.
///
/// The weights of inference are read from memory once per image. Each serves for as many
/// multiplications as there are tiles, and reading it takes about as long as [`READ_COST`] of
/// those. Larger tiles need fewer multiplications, but more weights.
pub(super) fn fastest_packed(sizes: &Conv2dGeometry) -> Option<usize> {
    let (height, width) = (sizes.out_height(), sizes.out_width());
    let cost = |outputs: usize| {
        let points = (outputs + 2).pow(2);
        points * ((sizes.batch * height.div_ceil(outputs) * width.div_ceil(outputs)).max(READ_COST))
    };
    let direct = 9 * (sizes.batch * height * width).max(READ_COST);
    let outputs = if cost(4) <= cost(2) { 4 } else { 2 };
    (extent(sizes).1 >= 16 && cost(outputs) < direct).then_some(outputs)
}

/// The multiplications that take about as long as reading a weight from memory.
const READ_COST: usize = 20;

/// Returns the number of tiles, and of channels on the side that has fewer.
fn extent(sizes: &Conv2dGeometry) -> (usize, usize) {
    let tiles = sizes.batch * sizes.out_height().div_ceil(OUTPUTS) * sizes.out_width().div_ceil(OUTPUTS);
    (tiles, sizes.in_channels.min(sizes.out_channels))
}

/// Pads the size of each of 36 panels, so that the same element of all of them does not lie in few
/// sets of a cache.
fn spread(panel: usize) -> usize {
    (panel.div_ceil(LINE) | 1) * LINE
}

#[cfg(test)]
mod tests;
