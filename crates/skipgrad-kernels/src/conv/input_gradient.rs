//! The input gradient: patches of dy times w transposed, phase by phase.
//!
//! Input pixel i is read by output pixel o through tap k where `i = o*s - pad + k*d`. Write `i =
//! g*s + phase`: then `o = g + (phase + pad - k*d) / s`, for the taps for which the division comes
//! out even. So all pixels of a phase see the same taps at the same offsets from g, as in a forward
//! convolution of stride 1. Taps are visited from the last to the first, so that their offsets
//! ascend and neighbors in dy are copied together. Phases that no tap reaches (a 1x1 kernel of
//! stride 2 has three) are products of depth zero, which write zeros.

use super::Conv2dGeometry;
use super::groups::with_spread;
use super::patches::{Axis, Patches, Source};
use crate::Isa;
use crate::grid::Grid;
use crate::pack::{BOperand, UnpackedB};
use crate::panel::RowMajor;
use crate::product::Product;

/// Computes the gradient dx `[N, H, W, C]` of [`conv2d`](super::conv2d) with respect to its input,
/// from dy `[N, OH, OW, OC]` and w `[KH, KW, C/groups, OC]`. Input pixels that no output pixel
/// depends on get zeros.
///
/// # Panics
/// If a slice does not fit the geometry, or the geometry has no output.
///
/// ```
/// use skipgrad_kernels::{Conv2dGeometry, Isa, conv2d_input_gradient};
/// let sizes = Conv2dGeometry {
///     batch: 1, height: 1, width: 3, in_channels: 1, out_channels: 1,
///     kernel: [1, 2], stride: [1, 1],
///     padding: [[0, 0], [0, 0]], dilation: [1, 1], groups: 1,
/// };
/// let mut dx = [0.0; 3]; // [1, 1, 3, 1]
/// conv2d_input_gradient(Isa::active(), &sizes, &[1.0, 2.0], &[10.0, 1.0], &mut dx);
/// assert_eq!(dx, [10.0, 21.0, 2.0]);
/// ```
pub fn conv2d_input_gradient(isa: Isa, sizes: &Conv2dGeometry, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    sizes.check(dx.len(), w.len(), dy.len());
    with_spread(sizes, w, |sizes, w| all_groups(isa, sizes, dy, w, dx));
}

fn all_groups(isa: Isa, sizes: &Conv2dGeometry, dy: &[f32], w: &[f32], dx: &mut [f32]) {
    for phases in phases(sizes) {
        let product = |group| {
            let channels = sizes.group_out();
            let source = Source {
                data: dy,
                size: [sizes.out_height(), sizes.out_width()],
                pixel: sizes.out_channels,
                first: group * channels,
                channels,
            };
            let a = Patches::<RowMajor>::new(source, &phases.each_ref().map(|phase| phase.axis.clone()));
            let b = phase_weights(sizes, group, &phases, w);
            let depth = b.taps.len() * channels;
            let c = phase_grid(sizes, group, &phases);
            Product::new(a, BOperand::Unpacked(b), c, [depth, sizes.group_in()])
        };
        Product::side_by_side(isa, &(0..sizes.groups).map(product).collect::<Vec<_>>(), dx);
    }
}

/// Returns the vertical and the horizontal phase of all groups of pixels that see the same taps.
pub(super) fn phases(sizes: &Conv2dGeometry) -> impl Iterator<Item = [Phase; 2]> {
    let [vertical, horizontal] = [0, 1].map(|axis| {
        let phases = 0..sizes.stride[axis].min(sizes.in_size()[axis]);
        phases.map(move |first| Phase::new(sizes, axis, first))
    });
    vertical.flat_map(move |y| horizontal.clone().map(move |x| [y.clone(), x]))
}

/// The input positions of an axis that agree modulo the stride.
#[derive(Clone)]
pub(super) struct Phase {
    /// The first of them.
    first: usize,
    /// The output positions that depend on them.
    pub(super) axis: Axis,
    /// The taps through which these do.
    taps: Vec<usize>,
}

impl Phase {
    fn new(sizes: &Conv2dGeometry, axis: usize, first: usize) -> Phase {
        let (size, stride) = (sizes.in_size()[axis], sizes.stride[axis]);
        let (offsets, taps) = (0..sizes.kernel[axis])
            .rev()
            .filter_map(|tap| {
                let distance =
                    (first + sizes.padding[axis][0]) as isize - (tap * sizes.dilation[axis]) as isize;
                (distance % stride as isize == 0).then_some((distance / stride as isize, tap))
            })
            .unzip();
        Phase { first, axis: Axis { grid: (size - first).div_ceil(stride), step: 1, offsets }, taps }
    }
}

/// Returns the weights of a group, transposed, through which the pixels of a phase are read.
pub(super) fn phase_weights<'a>(
    sizes: &Conv2dGeometry,
    group: usize,
    [vertical, horizontal]: &[Phase; 2],
    w: &'a [f32],
) -> UnpackedB<'a> {
    let (channels, group_out) = (sizes.out_channels, sizes.group_out());
    let tap = |ky, kx| (ky * sizes.kernel[1] + kx) * sizes.group_in() * channels + group * group_out;
    let taps = vertical.taps.iter().flat_map(|&ky| horizontal.taps.iter().map(move |&kx| tap(ky, kx)));
    UnpackedB { data: w, taps: taps.collect(), depth: group_out, row: 1, column: channels }
}

/// Returns where a group has dx of the pixels of a phase.
pub(super) fn phase_grid(sizes: &Conv2dGeometry, group: usize, [vertical, horizontal]: &[Phase; 2]) -> Grid {
    let (pixel, line) = (sizes.in_channels, sizes.width * sizes.in_channels);
    Grid {
        size: [sizes.batch, vertical.axis.grid, horizontal.axis.grid],
        stride: [sizes.height * line, sizes.stride[0] * line, sizes.stride[1] * pixel],
        start: vertical.first * line + horizontal.first * pixel + group * sizes.group_in(),
    }
}
