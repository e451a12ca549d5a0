//! Convolution in bf16, in all three directions: activations and weights are rounded to bf16, if
//! they are not of that type, and multiplied by an [`Engine`], and sums are f32.
//!
//! The engines multiply tiles of 16 rows that lie at one distance from each other. So a task copies
//! the lines that it needs of some images, with zeros around them, into a `map`, in which what a
//! tap reads for neighboring outputs is neighboring, too: a tile is 16 outputs, and another tap
//! moves it. The matrix of patches is never made.
//!
//! An infinite or NaN value reaches what its definition says, except that in the weight gradient it
//! reaches all taps of its channel, and that narrow groups are merged (see `groups`).

mod correlation;
mod map;
mod weight_gradient;

use super::Conv2dGeometry;
use super::forward::{axes, group_weights};
use super::groups::{merged, with_spread};
use super::input_gradient::{phase_grid, phase_weights, phases};
use crate::{Bf16, ChannelViewMut, Element, Engine, Epilogue, grid::Grid};
use correlation::{Correlation, Packing};
use map::Source;

pub use weight_gradient::conv2d_weight_gradient;

/// Convolves x `[N, H, W, C]` with w `[KH, KW, C/groups, OC]` into y `[N, OH, OW, OC]`; x and y may
/// be bf16 or f32.
///
/// # Panics
/// If a slice does not fit the geometry, or the geometry has no output.
///
/// ```
/// use skipgrad_kernels::{Bf16, Conv2dGeometry, Engine, Epilogue, bf16};
/// let sizes = Conv2dGeometry {
///     batch: 1, height: 2, width: 2, in_channels: 1, out_channels: 1,
///     kernel: [1, 2], stride: [1, 1],
///     padding: [[0, 0], [0, 0]], dilation: [1, 1], groups: 1,
/// };
/// let (x, mut y) = ([1.0, 2.0, 3.0, 4.0].map(Bf16::from_f32), [0.0_f32; 2]); // y: [1, 2, 1, 1]
/// bf16::conv2d(Engine::active(), &sizes, &x, &[10.0, 1.0], Epilogue::default(), &mut y);
/// assert_eq!(y, [12.0, 34.0]);
/// ```
pub fn conv2d<X: Element, Y: Element>(
    engine: Engine,
    sizes: &Conv2dGeometry,
    x: &[X],
    w: &[f32],
    epilogue: Epilogue<'_, Y>,
    y: &mut [Y],
) {
    sizes.check(x.len(), w.len(), y.len());
    epilogue.check(sizes.out_channels, y.len());
    with_spread(sizes, w, |sizes, w| {
        for group in 0..sizes.groups {
            let product = forward(sizes, x, epilogue, group, [sizes.out_channels, 0]);
            product.run(engine, &group_weights(sizes, w, group), y);
        }
    });
}

/// Returns the product that computes y of a group, where pixels of y are `row` elements apart and
/// begin at `first`.
fn forward<'a, X: Element, Y: Element>(
    sizes: &Conv2dGeometry,
    x: &'a [X],
    epilogue: Epilogue<'a, Y>,
    group: usize,
    [row, first]: [usize; 2],
) -> Correlation<'a, X, Y> {
    let (grid, columns) = ([sizes.out_height(), sizes.out_width()], sizes.group_out());
    let stride = [grid[0] * grid[1], grid[1], 1].map(|pixels| pixels * row);
    let bias = epilogue.bias.map(|bias| &bias[group * columns..][..columns]);
    Correlation {
        source: source(sizes, x, group),
        axes: axes(sizes),
        columns,
        c: Grid { size: [sizes.batch, grid[0], grid[1]], stride, start: first + group * columns },
        epilogue: Epilogue { bias, ..epilogue },
    }
}

/// Returns the number of elements that [`pack`] makes of the weights of a convolution.
pub fn packed_len(sizes: &Conv2dGeometry) -> usize {
    let wide = merged(sizes);
    wide.groups * packing(&wide).len()
}

/// Rounds w `[KH, KW, C/groups, OC]` and packs it for [`conv2d_packed`]. The result depends on the
/// size of the kernel, its channels and groups, not on the size or the number of images.
///
/// # Panics
/// If a slice does not fit the geometry.
pub fn pack(sizes: &Conv2dGeometry, w: &[f32], packed: &mut [Bf16]) {
    assert!(
        w.len() == sizes.w_len() && packed.len() == packed_len(sizes),
        "a slice does not fit the geometry"
    );
    with_spread(sizes, w, |sizes, w| {
        let packing = packing(sizes);
        for (group, packed) in packed.chunks_exact_mut(packing.len().max(1)).enumerate() {
            packing.pack(&group_weights(sizes, w, group), packed);
        }
    });
}

/// Returns how the weights of a group are packed.
fn packing(sizes: &Conv2dGeometry) -> Packing {
    Packing::new(&axes(sizes), sizes.group_in(), sizes.group_out())
}

/// Convolves as [`conv2d`] with weights that [`pack`] packed.
///
/// # Panics
/// If a slice does not fit the geometry, or the geometry has no output.
///
/// ```
/// use skipgrad_kernels::{Bf16, Conv2dGeometry, Engine, Epilogue, bf16};
/// let sizes = Conv2dGeometry {
///     batch: 1, height: 1, width: 2, in_channels: 1, out_channels: 1,
///     kernel: [1, 2], stride: [1, 1],
///     padding: [[0, 0], [0, 0]], dilation: [1, 1], groups: 1,
/// };
/// let mut packed = vec![Bf16::default(); bf16::packed_len(&sizes)];
/// bf16::pack(&sizes, &[10.0, 1.0], &mut packed);
/// let mut y = [0.0];
/// for (x, sum) in [([1.0, 2.0], 12.0), ([3.0, 4.0], 34.0)] {
///     bf16::conv2d_packed(Engine::active(), &sizes, &x, &packed, Epilogue::default(), &mut y);
///     assert_eq!(y, [sum]);
/// }
/// ```
pub fn conv2d_packed<X: Element, Y: Element>(
    engine: Engine,
    sizes: &Conv2dGeometry,
    x: &[X],
    packed: &[Bf16],
    epilogue: Epilogue<'_, Y>,
    y: &mut [Y],
) {
    epilogue.check(sizes.out_channels, y.len());
    packed_groups(engine, sizes, x, packed, epilogue, [sizes.out_channels, 0], y);
}

/// Convolves as [`conv2d_packed`] without an epilogue into channels of a wider matrix.
///
/// # Panics
/// In the cases in which [`conv2d_packed`] does.
pub fn conv2d_packed_into<X: Element>(
    engine: Engine,
    sizes: &Conv2dGeometry,
    x: &[X],
    packed: &[Bf16],
    y: ChannelViewMut<'_>,
) {
    y.check(sizes.batch * sizes.out_height() * sizes.out_width(), sizes.out_channels);
    packed_groups(engine, sizes, x, packed, Epilogue::default(), [y.row, y.first], y.data);
}

fn packed_groups<X: Element, Y: Element>(
    engine: Engine,
    sizes: &Conv2dGeometry,
    x: &[X],
    packed: &[Bf16],
    epilogue: Epilogue<'_, Y>,
    rows: [usize; 2],
    y: &mut [Y],
) {
    sizes.check(x.len(), sizes.w_len(), sizes.y_len());
    assert!(packed.len() == packed_len(sizes), "a slice does not fit the geometry");
    let wide = merged(sizes);
    for (group, packed) in packed.chunks_exact(packing(&wide).len().max(1)).enumerate() {
        forward(&wide, x, epilogue, group, rows).run_packed(engine, packed, y);
    }
}

/// Computes the gradient dx `[N, H, W, C]` of [`conv2d`] with respect to its input, from dy `[N,
/// OH, OW, OC]` and w `[KH, KW, C/groups, OC]`. Input pixels that no output pixel depends on get
/// zeros.
///
/// # Panics
/// If a slice does not fit the geometry, or the geometry has no output.
///
/// ```
/// use skipgrad_kernels::{Bf16, Conv2dGeometry, Engine, bf16};
/// let sizes = Conv2dGeometry {
///     batch: 1, height: 1, width: 3, in_channels: 1, out_channels: 1,
///     kernel: [1, 2], stride: [1, 1],
///     padding: [[0, 0], [0, 0]], dilation: [1, 1], groups: 1,
/// };
/// let (dy, mut dx) = ([1.0, 2.0].map(Bf16::from_f32), [Bf16::default(); 3]); // dx: [1, 1, 3, 1]
/// bf16::conv2d_input_gradient(Engine::active(), &sizes, &dy, &[10.0, 1.0], &mut dx);
/// assert_eq!(dx.map(Bf16::to_f32), [10.0, 21.0, 2.0]);
/// ```
pub fn conv2d_input_gradient<T: Element>(
    engine: Engine,
    sizes: &Conv2dGeometry,
    dy: &[T],
    w: &[f32],
    dx: &mut [T],
) {
    sizes.check(dx.len(), w.len(), dy.len());
    with_spread(sizes, w, |sizes, w| {
        for phases in phases(sizes) {
            for group in 0..sizes.groups {
                let source = Source {
                    data: dy,
                    images: sizes.batch,
                    size: [sizes.out_height(), sizes.out_width()],
                    pixel: sizes.out_channels,
                    first: group * sizes.group_out(),
                    channels: sizes.group_out(),
                };
                Correlation {
                    source,
                    axes: phases.each_ref().map(|phase| phase.axis.clone()),
                    columns: sizes.group_in(),
                    c: phase_grid(sizes, group, &phases),
                    epilogue: Epilogue::default(),
                }
                .run(engine, &phase_weights(sizes, group, &phases, w), dx);
            }
        }
    });
}

/// Returns the input channels of a group.
fn source<'a, X>(sizes: &Conv2dGeometry, x: &'a [X], group: usize) -> Source<'a, X> {
    let channels = sizes.group_in();
    Source {
        data: x,
        images: sizes.batch,
        size: sizes.in_size(),
        pixel: sizes.in_channels,
        first: group * channels,
        channels,
    }
}

#[cfg(test)]
mod tests;
