//! The weight gradient: patches of x, transposed, times dy. A panel holds the patches of a few
//! pixels, and the tile's rows are neighbors in a patch, so nothing is ever transposed.

use super::Conv2dGeometry;
use super::forward::{axes, source};
use super::groups::with_collected;
use super::patches::Patches;
use crate::Isa;
use crate::grid::Grid;
use crate::pack::{BOperand, UnpackedB};
use crate::panel::DepthMajor;
use crate::product::Product;

/// Computes the gradient dw `[KH, KW, C/groups, OC]` of [`conv2d`](super::conv2d) with respect to
/// its weights, from x `[N, H, W, C]` and dy `[N, OH, OW, OC]`.
///
/// # Panics
/// If a slice does not fit the geometry, or the geometry has no output.
///
/// ```
/// use skipgrad_kernels::{Conv2dGeometry, Isa, conv2d_weight_gradient};
/// let sizes = Conv2dGeometry {
///     batch: 1, height: 1, width: 3, in_channels: 1, out_channels: 1,
///     kernel: [1, 2], stride: [1, 1],
///     padding: [[0, 0], [0, 0]], dilation: [1, 1], groups: 1,
/// };
/// let mut dw = [0.0; 2]; // [1, 2, 1, 1]
/// conv2d_weight_gradient(Isa::active(), &sizes, &[1.0, 2.0, 3.0], &[10.0, 1.0], &mut dw);
/// assert_eq!(dw, [12.0, 23.0]);
/// ```
pub fn conv2d_weight_gradient(isa: Isa, sizes: &Conv2dGeometry, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    sizes.check(x.len(), dw.len(), dy.len());
    with_collected(sizes, dw, |sizes, dw| all_groups(isa, sizes, x, dy, dw));
}

fn all_groups(isa: Isa, sizes: &Conv2dGeometry, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let axes = axes(sizes);
    let (channels, group_out) = (sizes.out_channels, sizes.group_out());
    let pixels = sizes.batch * axes[0].grid * axes[1].grid;
    let rows = dw.len() / channels.max(1);
    let product = |group| {
        let first = group * group_out;
        let a = Patches::<DepthMajor>::new(source(sizes, x, group), &axes);
        let b = UnpackedB { data: dy, taps: vec![first], depth: pixels, row: channels, column: 1 };
        let c = Grid { start: first, ..Grid::matrix(rows, channels) };
        Product::new(a, BOperand::Unpacked(b), c, [pixels, group_out])
    };
    Product::side_by_side(isa, &(0..sizes.groups).map(product).collect::<Vec<_>>(), dw);
}
