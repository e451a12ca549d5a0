//! The forward direction: patches of x times w.

use super::Conv2dGeometry;
use super::groups::with_spread;
use super::patches::{Axis, Patches, Source};
use crate::epilogue::{BlockVisitor, ColumnEpilogue, Epilogue};
use crate::grid::Grid;
use crate::pack::{BOperand, UnpackedB};
use crate::panel::RowMajor;
use crate::product::Product;
use crate::{ChannelViewMut, Isa};

/// Convolves x `[N, H, W, C]` with w `[KH, KW, C/groups, OC]` into y `[N, OH, OW, OC]`.
///
/// # Panics
/// If a slice does not fit the geometry, or the geometry has no output.
///
/// ```
/// use skipgrad_kernels::{Conv2dGeometry, Isa, conv2d};
/// let sizes = Conv2dGeometry {
///     batch: 1, height: 2, width: 2, in_channels: 1, out_channels: 1,
///     kernel: [1, 2], stride: [1, 1],
///     padding: [[0, 0], [0, 0]], dilation: [1, 1], groups: 1,
/// };
/// let mut y = [0.0; 2]; // [1, 2, 1, 1]
/// conv2d(Isa::active(), &sizes, &[1.0, 2.0, 3.0, 4.0], &[10.0, 1.0], &mut y);
/// assert_eq!(y, [12.0, 34.0]);
/// ```
pub fn conv2d(isa: Isa, sizes: &Conv2dGeometry, x: &[f32], w: &[f32], y: &mut [f32]) {
    conv2d_with(isa, sizes, x, w, Epilogue::default(), y);
}

/// Convolves as [`conv2d`] and applies an epilogue: a bias, a residual, a ReLU.
///
/// # Panics
/// In the cases in which [`conv2d`] does, and unless the bias has one value per channel and the
/// residual y's length.
pub fn conv2d_with(
    isa: Isa,
    sizes: &Conv2dGeometry,
    x: &[f32],
    w: &[f32],
    epilogue: Epilogue<'_>,
    y: &mut [f32],
) {
    convolve(isa, sizes, x, w, epilogue, |_| (), ChannelViewMut::whole(y, sizes.out_channels));
}

/// Convolves as [`conv2d_with`] into channels of a wider matrix, and returns what a visitor, made
/// for the first output channel of each group, returns for the blocks.
pub(super) fn convolve<V: BlockVisitor>(
    isa: Isa,
    sizes: &Conv2dGeometry,
    x: &[f32],
    w: &[f32],
    epilogue: Epilogue<'_>,
    visitor: impl Fn(usize) -> V,
    y: ChannelViewMut<'_>,
) -> Vec<V::Output> {
    sizes.check(x.len(), w.len(), sizes.y_len());
    epilogue.check(sizes.out_channels, y.data.len());
    with_spread(sizes, w, |sizes, w| {
        let weights = |group| BOperand::Unpacked(group_weights(sizes, w, group));
        all_groups(isa, sizes, x, weights, epilogue, visitor, y)
    })
}

/// Computes all groups, with the weights of each group and the visitor for its first output
/// channel. There is a residual only if the view is all of y.
pub(super) fn all_groups<'a, V: BlockVisitor>(
    isa: Isa,
    sizes: &Conv2dGeometry,
    x: &[f32],
    weights: impl Fn(usize) -> BOperand<'a>,
    epilogue: Epilogue<'_>,
    visitor: impl Fn(usize) -> V,
    y: ChannelViewMut<'_>,
) -> Vec<V::Output> {
    let [vertical, horizontal] = axes(sizes);
    let (row, group_out) = (y.row, sizes.group_out());
    let size = [sizes.batch, vertical.grid, horizontal.grid];
    y.check(size.iter().product(), sizes.out_channels);
    let product = |group| {
        let first = group * group_out;
        let a = Patches::<RowMajor>::new(source(sizes, x, group), &[vertical.clone(), horizontal.clone()]);
        let stride = [size[1] * size[2] * row, size[2] * row, row];
        let c = Grid { size, stride, start: y.first + first };
        let depth = sizes.kernel[0] * sizes.kernel[1] * sizes.group_in();
        Product::new(a, weights(group), c, [depth, group_out])
            .epilogue(ColumnEpilogue { epilogue, first, at: 0 })
            .visitor(visitor(first))
    };
    Product::side_by_side(isa, &(0..sizes.groups).map(product).collect::<Vec<_>>(), y.data)
}

/// Returns the weights of a group.
pub(super) fn group_weights<'a>(sizes: &Conv2dGeometry, w: &'a [f32], group: usize) -> UnpackedB<'a> {
    let (channels, group_in) = (sizes.out_channels, sizes.group_in());
    let first = group * sizes.group_out();
    let taps = (0..sizes.kernel[0] * sizes.kernel[1]).map(|tap| tap * group_in * channels + first);
    UnpackedB { data: w, taps: taps.collect(), depth: group_in, row: channels, column: 1 }
}

/// Returns the input channels of a group.
pub(super) fn source<'a>(sizes: &Conv2dGeometry, x: &'a [f32], group: usize) -> Source<'a> {
    let channels = sizes.group_in();
    Source { data: x, size: sizes.in_size(), pixel: sizes.in_channels, first: group * channels, channels }
}

/// Returns the input pixels that an output pixel depends on.
pub(super) fn axes(sizes: &Conv2dGeometry) -> [Axis; 2] {
    [0, 1].map(|axis| Axis {
        grid: sizes.out_size(axis),
        step: sizes.stride[axis],
        offsets: (0..sizes.kernel[axis])
            .map(|tap| (tap * sizes.dilation[axis]) as isize - sizes.padding[axis][0] as isize)
            .collect(),
    })
}
