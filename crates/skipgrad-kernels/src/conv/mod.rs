//! Convolution in all three directions, channels last.
//!
//! With x `[N, H, W, C]`, w `[KH, KW, C/groups, OC]` and y `[N, OH, OW, OC]`, channels of one group
//! only:
//!
//! ```text
//! y[n, oy, ox, o] = sum over ky, kx, c of
//!     x[n, oy*sy - top + ky*dy, ox*sx - left + kx*dx, c] * w[ky, kx, c, o]
//! ```
//!
//! where x is zero outside of the image. (As in every deep-learning library this is a correlation:
//! the kernel is not flipped.) Gather the x that one output pixel needs into a row, a *patch*, and
//! the sum is a matrix product, `patches [N*OH*OW, KH*KW*C] * w [KH*KW*C, OC]`. All three
//! directions are such products:
//!
//! * forward: patches of x times w;
//! * input gradient: patches of dy times w transposed. With a stride, input pixels whose
//!   coordinates agree modulo the stride are reached by the same subset of the taps, so each such
//!   phase is a product of its own, into every s-th pixel;
//! * weight gradient: patches of x, transposed, times dy: a sum over all pixels of outer products.
//!
//! The matrix of patches would be KH*KW times as large as x, so it is never made: the engine in
//! `product` packs small blocks of it (see `patches`), which stay in the cache while they are
//! multiplied. [`im2col`] makes the whole matrix, for illustration and for tests.
//!
//! 3x3 convolutions of stride 1 have a faster algorithm with fewer multiplications (see
//! `winograd`), which [`Algorithm`] chooses where it pays.

mod algorithm;
pub mod bf16;
mod forward;
mod groups;
mod im2col;
mod input_gradient;
mod packed;
mod patches;
mod weight_gradient;
mod winograd;

pub use algorithm::Algorithm;
pub use forward::{conv2d, conv2d_with};
pub use im2col::{col2im, im2col};
pub use input_gradient::conv2d_input_gradient;
pub use packed::Packing;
pub use weight_gradient::conv2d_weight_gradient;

/// The sizes of a convolution over `[N, H, W, C]` with weights `[KH, KW, C/groups, OC]`. Pairs are
/// (vertical, horizontal).
///
/// Output channels come in `groups` equal blocks; block g reads input channel block g.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dGeometry {
    /// Number of images, N.
    pub batch: usize,
    /// Number of lines of an input image, H.
    pub height: usize,
    /// Number of pixels of an input line, W.
    pub width: usize,
    /// Number of input channels, C, a multiple of `groups`.
    pub in_channels: usize,
    /// Number of output channels, OC, a multiple of `groups`.
    pub out_channels: usize,
    /// Size of the kernel, KH and KW, each at least 1.
    pub kernel: [usize; 2],
    /// Input pixels from one output pixel to the next, each at least 1.
    pub stride: [usize; 2],
    /// Zeros around each image: `[[top, bottom], [left, right]]`.
    pub padding: [[usize; 2]; 2],
    /// Input pixels from one tap to the next, each at least 1.
    pub dilation: [usize; 2],
    /// Number of blocks of channels that do not mix, at least 1.
    pub groups: usize,
}

impl Conv2dGeometry {
    /// The geometry of a product of `[rows, in]` with `[in, out]`: a convolution of images of one
    /// pixel.
    pub fn of_pixels(rows: usize, in_channels: usize, out_channels: usize) -> Conv2dGeometry {
        Conv2dGeometry {
            batch: rows,
            height: 1,
            width: 1,
            in_channels,
            out_channels,
            kernel: [1; 2],
            stride: [1; 2],
            padding: [[0; 2]; 2],
            dilation: [1; 2],
            groups: 1,
        }
    }

    /// Returns the number of lines of an output image, OH.
    ///
    /// # Panics
    /// If the dilated kernel is larger than the padded image.
    pub fn out_height(&self) -> usize {
        self.out_size(0)
    }

    /// Returns the number of pixels of an output line, OW.
    ///
    /// # Panics
    /// If the dilated kernel is larger than the padded image.
    pub fn out_width(&self) -> usize {
        self.out_size(1)
    }

    fn out_size(&self, axis: usize) -> usize {
        let padded = self.in_size()[axis] + self.padding[axis][0] + self.padding[axis][1];
        let kernel = (self.kernel[axis] - 1) * self.dilation[axis] + 1;
        assert!(kernel <= padded, "the kernel is larger than the padded image");
        (padded - kernel) / self.stride[axis] + 1
    }

    fn in_size(&self) -> [usize; 2] {
        [self.height, self.width]
    }

    /// Returns the number of elements of x.
    fn x_len(&self) -> usize {
        self.batch * self.height * self.width * self.in_channels
    }

    /// Returns the number of elements of w.
    fn w_len(&self) -> usize {
        self.kernel[0] * self.kernel[1] * self.group_in() * self.out_channels
    }

    /// Returns the number of elements of y.
    fn y_len(&self) -> usize {
        self.batch * self.out_height() * self.out_width() * self.out_channels
    }

    /// Returns the number of input channels of a group.
    fn group_in(&self) -> usize {
        self.in_channels / self.groups
    }

    /// Returns the number of output channels of a group.
    fn group_out(&self) -> usize {
        self.out_channels / self.groups
    }

    /// Asserts that the geometry is valid and that slices of these lengths fit it.
    fn check(&self, x: usize, w: usize, y: usize) {
        assert!(self.kernel.iter().chain(&self.stride).chain(&self.dilation).all(|&size| size > 0));
        assert!(self.groups > 0, "no groups");
        assert!(
            self.in_channels.is_multiple_of(self.groups) && self.out_channels.is_multiple_of(self.groups),
            "uneven groups"
        );
        assert!(
            x == self.x_len() && w == self.w_len() && y == self.y_len(),
            "a slice does not fit the geometry"
        );
    }
}

#[cfg(test)]
mod tests;
