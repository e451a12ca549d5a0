//! Pooling of `x[N, H, W, C]` over windows of pixels, for every channel.
//!
//! All four kernels, also the gradients, are gathers: each element of the result is computed from
//! the few source pixels that contribute to it, so results are written once, threads share nothing,
//! and sums have one order. The loops are
//!
//! ```text
//! for every row of the result, in parallel            (of all images)
//!   for every pixel of the row
//!     for 16 (then 8, 4, 1) of its channels           in registers
//!       for every row and column that contribute to the pixel
//! ```
//!
//! The source pixels of a pixel are a range of rows times a range of columns ([`Span`]), computed
//! once per row and once per column.

mod avg;
mod gather;
mod max;

pub use avg::{avg_pool2d, avg_pool2d_backward};
pub use max::{max_pool2d, max_pool2d_backward};

/// The sizes of a pooling of `x[batch, height, width, channels]`; pairs are (vertical, horizontal).
///
/// ```
/// use skipgrad_kernels::{Isa, Pool2d, max_pool2d};
/// let pool = Pool2d {
///     batch: 1,
///     height: 2,
///     width: 4,
///     channels: 1,
///     kernel: [2, 2],
///     stride: [2, 2],
///     padding: [[0, 0]; 2],
/// };
/// let mut y = [0.0; 2];
/// max_pool2d(Isa::active(), &pool, &[1.0, 2.0, 5.0, 6.0, 3.0, 4.0, 8.0, 7.0], &mut y, None);
/// assert_eq!(y, [4.0, 8.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool2d {
    /// Number of images.
    pub batch: usize,
    /// Number of rows of an image.
    pub height: usize,
    /// Number of columns of an image.
    pub width: usize,
    /// Number of channels.
    pub channels: usize,
    /// Rows and columns of a window, which may have at most 65 535 pixels.
    pub kernel: [usize; 2],
    /// Rows and columns from one window to the next, at least 1.
    pub stride: [usize; 2],
    /// Padding rows above and below the image, and padding columns left and right of it.
    pub padding: [[usize; 2]; 2],
}

impl Pool2d {
    /// Returns the number of rows of the result, (height + padding - kernel) / stride + 1, or 0
    /// where the window is larger than the padded image.
    pub fn out_height(&self) -> usize {
        self.out_size(0, self.height)
    }

    /// Returns the number of columns of the result.
    pub fn out_width(&self) -> usize {
        self.out_size(1, self.width)
    }

    /// Returns the number of elements of x.
    pub fn input_len(&self) -> usize {
        self.batch * self.height * self.width * self.channels
    }

    /// Returns the number of elements of the result.
    pub fn output_len(&self) -> usize {
        self.batch * self.out_height() * self.out_width() * self.channels
    }

    fn out_size(&self, axis: usize, size: usize) -> usize {
        let [before, after] = self.padding[axis];
        let last = (size + before + after).checked_sub(self.kernel[axis]);
        last.map_or(0, |last| last / self.stride[axis] + 1)
    }

    fn assert_valid(&self) {
        assert!(self.stride.iter().all(|&s| s > 0), "a stride of 0");
        assert!(
            self.kernel[0] * self.kernel[1] <= usize::from(u16::MAX),
            "a window of more than 65535 pixels"
        );
    }

    /// Returns the rows (axis 0) or columns (axis 1) of x that contribute to each one of the
    /// result.
    fn forward_spans(&self, axis: usize) -> Vec<Span> {
        let size = [self.height, self.width][axis];
        let (kernel, before) = (self.kernel[axis], self.padding[axis][0]);
        let span = |out: usize| {
            let start = out * self.stride[axis];
            let first = before.saturating_sub(start).min(kernel);
            let end = (size + before).saturating_sub(start).min(kernel);
            let len = end.saturating_sub(first);
            Span { source: (start + first).saturating_sub(before), position: first, len, step: 1 }
        };
        (0..self.out_size(axis, size)).map(span).collect()
    }

    /// Returns the rows or columns of the result to which each one of x contributes.
    fn backward_spans(&self, axis: usize) -> Vec<Span> {
        let size = [self.height, self.width][axis];
        let (kernel, stride, before) = (self.kernel[axis], self.stride[axis], self.padding[axis][0]);
        let outputs = self.out_size(axis, size);
        let span = |at: usize| {
            let at = at + before;
            let first = (at + 1).saturating_sub(kernel).div_ceil(stride);
            let end = outputs.min(at / stride + 1);
            let len = end.saturating_sub(first);
            Span { source: first, position: at.saturating_sub(first * stride), len, step: -(stride as isize) }
        };
        (0..size).map(span).collect()
    }
}

/// The source pixels of a pixel along an axis: `source`, `source + 1`, …, at the positions
/// `position`, `position + step`, … of their common window or of their windows.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Span {
    source: usize,
    position: usize,
    len: usize,
    step: isize,
}

impl Span {
    /// Returns the source pixels and their positions.
    #[inline(always)]
    fn pixels(self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.len)
            .map(move |i| (self.source + i, self.position.wrapping_add_signed(i as isize * self.step)))
    }
}

#[cfg(test)]
mod tests;
