//! The matrix of patches as a whole, and the transposed map: for illustration and tests, as
//! [`conv2d`](super::conv2d) does without.

use super::Conv2dGeometry;
use rayon::prelude::*;

/// Gathers x `[N, H, W, C]` into patches: `[N*OH*OW, KH*KW*C]`, a row an output pixel, columns (ky,
/// kx, c), zero where a tap lies outside of the image. Times w `[KH*KW*C, OC]`, this is the
/// convolution. Groups are ignored.
///
/// # Panics
/// If a slice does not fit the geometry, or the geometry has no output.
///
/// ```
/// use skipgrad_kernels::{Conv2dGeometry, im2col};
/// let sizes = Conv2dGeometry {
///     batch: 1, height: 1, width: 3, in_channels: 1, out_channels: 1,
///     kernel: [1, 2], stride: [1, 1],
///     padding: [[0, 0], [0, 1]], dilation: [1, 1], groups: 1,
/// };
/// let mut patches = [0.0; 6]; // [3, 2]
/// im2col(&sizes, &[1.0, 2.0, 3.0], &mut patches);
/// assert_eq!(patches, [1.0, 2.0, 2.0, 3.0, 3.0, 0.0]);
/// ```
pub fn im2col(sizes: &Conv2dGeometry, x: &[f32], patches: &mut [f32]) {
    let row = check(sizes, x, patches);
    if row == 0 {
        return;
    }
    let channels = sizes.in_channels;
    patches.par_chunks_mut(row).with_min_len(16).enumerate().for_each(|(output, patch)| {
        for (tap, to) in patch.chunks_exact_mut(channels).enumerate() {
            match input_pixel(sizes, output, tap) {
                Some(pixel) => to.copy_from_slice(&x[pixel * channels..][..channels]),
                None => to.fill(0.0),
            }
        }
    });
}

/// Scatters patches back, the transpose of [`im2col`]: every element of x `[N, H, W, C]` becomes
/// the sum of the elements to which [`im2col`] copies it. Of dy times w transposed, this is the
/// input gradient of the convolution.
///
/// # Panics
/// In the cases in which [`im2col`] does.
///
/// ```
/// use skipgrad_kernels::{Conv2dGeometry, col2im};
/// let sizes = Conv2dGeometry {
///     batch: 1, height: 1, width: 3, in_channels: 1, out_channels: 1,
///     kernel: [1, 2], stride: [1, 1],
///     padding: [[0, 0], [0, 1]], dilation: [1, 1], groups: 1,
/// };
/// let mut x = [0.0; 3];
/// col2im(&sizes, &[1.0, 2.0, 2.0, 3.0, 3.0, 0.0], &mut x);
/// assert_eq!(x, [1.0, 4.0, 6.0]);
/// ```
pub fn col2im(sizes: &Conv2dGeometry, patches: &[f32], x: &mut [f32]) {
    let row = check(sizes, x, patches);
    x.fill(0.0);
    if row == 0 {
        return;
    }
    let (channels, outputs) = (sizes.in_channels, sizes.out_height() * sizes.out_width());
    let image = sizes.height * sizes.width * channels;
    x.par_chunks_mut(image).zip(patches.par_chunks(outputs * row)).for_each(|(x, patches)| {
        for (output, patch) in patches.chunks_exact(row).enumerate() {
            for (tap, from) in patch.chunks_exact(channels).enumerate() {
                if let Some(pixel) = input_pixel(sizes, output, tap) {
                    for (x, from) in x[pixel * channels..].iter_mut().zip(from) {
                        *x += from;
                    }
                }
            }
        }
    });
}

/// Returns the length of a patch, or zero where there is nothing to copy.
fn check(sizes: &Conv2dGeometry, x: &[f32], patches: &[f32]) -> usize {
    let row = sizes.kernel[0] * sizes.kernel[1] * sizes.in_channels;
    let rows = sizes.batch * sizes.out_height() * sizes.out_width();
    assert!(x.len() == sizes.x_len() && patches.len() == rows * row, "a slice does not fit the geometry");
    if x.is_empty() { 0 } else { row }
}

/// Returns the pixel of x, counted over all images, that a tap of an output pixel reads.
fn input_pixel(sizes: &Conv2dGeometry, output: usize, tap: usize) -> Option<usize> {
    let (line, ox) = (output / sizes.out_width(), output % sizes.out_width());
    let (image, oy) = (line / sizes.out_height(), line % sizes.out_height());
    let position = |axis: usize, o: usize, k: usize| {
        let padded = o * sizes.stride[axis] + k * sizes.dilation[axis];
        padded.checked_sub(sizes.padding[axis][0]).filter(|&i| i < sizes.in_size()[axis])
    };
    let y = position(0, oy, tap / sizes.kernel[1])?;
    let x = position(1, ox, tap % sizes.kernel[1])?;
    Some((image * sizes.height + y) * sizes.width + x)
}
