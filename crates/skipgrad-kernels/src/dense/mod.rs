//! The kernels of a dense block (Huang et al. 2017), with which its feature maps are never copied.
//!
//! All maps of a block lie in one matrix `[rows, channels of the output]`, in which a row is a
//! pixel. A layer reads the first C channels ([`ChannelView`]), normalizes them, applies a ReLU
//! ([`NormRelu`]) and multiplies by a weight. The normalized values exist only where they are used:
//! in the panel of a block of rows, which stays in the cache.
//!
//! * [`activate_product`] computes that product;
//! * [`product_gradients`] computes the gradients of several such products of the same features
//!   with respect to the weights, to gamma and beta and to the maps, where it adds to what the
//!   matrix of the gradient already holds. It starts from the gradient after the second norm
//!   ([`NormGradient`]);
//! * [`activate`] writes the normalized values to memory, for a convolution that cannot normalize
//!   its input;
//! * [`ChannelViewMut`] has the channels to which a convolution writes a layer's own maps;
//! * [`channel_gradient`] reads a layer's own channels of the gradient, after all later layers have
//!   added theirs.
//!
//! # The gradient of a shared statistic
//!
//! With batch statistics, the gradient of a map x that one norm reads is
//! `scale (g - Σg / m - (x - mean) Σg(x - mean) / (m (var + eps)))`
//! (see [`BatchNormGradient`](super::BatchNormGradient)).
//! Only `scale g` can be computed pixel by pixel. The rest, the gradient through the statistics, is
//! a linear function of x whose two coefficients are known only after the last pixel. But all norms
//! of a block that read a channel share its mean, so these functions add up to one, and one pass
//! over the channel, when its gradient is read, applies them all:
//! `dx = (Σ over norms of scale g) + offset + slope (x - mean)` ([`StatisticsGradient`]).

mod activate;
mod add;
mod channel_gradient;
mod gradient;
mod norm_gradient;
mod norm_sums;
mod product_gradient;

pub use activate::{activate, activate_product, activate_product_moments, activate_product_packed};
pub use channel_gradient::{StatisticsGradient, channel_gradient};
pub use gradient::DenseGradient;
pub use norm_gradient::NormGradient;
pub use norm_sums::Normalized;
pub(super) use norm_sums::{NormSums, add_blocks};
pub use product_gradient::{ProductGradient, product_gradients};

/// The first channels of a matrix `[rows, row]`, to be read.
#[derive(Clone, Copy, Debug)]
pub struct ChannelView<'a> {
    /// The elements of the matrix.
    pub data: &'a [f32],
    /// The length of a row of the matrix.
    pub row: usize,
    /// The number of channels that are read.
    pub channels: usize,
}

impl ChannelView<'_> {
    /// Returns the number of rows. Panics unless they are whole and have the channels.
    fn num_rows(&self) -> usize {
        assert!(self.channels <= self.row, "at most as many channels as a row has elements");
        super::rows::whole_rows(self.data.len(), self.row)
    }
}

/// Neighboring channels of a matrix `[rows, row]`, to be written.
#[derive(Debug)]
pub struct ChannelViewMut<'a> {
    /// The elements of the matrix.
    pub data: &'a mut [f32],
    /// The length of a row of the matrix.
    pub row: usize,
    /// The first of the channels.
    pub first: usize,
}

impl<'a> ChannelViewMut<'a> {
    /// Returns a view of all channels of a matrix.
    pub fn whole(data: &'a mut [f32], channels: usize) -> ChannelViewMut<'a> {
        ChannelViewMut { data, row: channels, first: 0 }
    }

    /// Panics unless the matrix has exactly `rows` rows, each with the channels.
    pub(super) fn check(&self, rows: usize, channels: usize) {
        assert!(self.first + channels <= self.row, "at most as many channels as a row has elements");
        assert_eq!(self.data.len(), rows * self.row, "a slice does not fit the geometry");
    }
}

/// A normalization and a ReLU, `max(x * scale + shift, 0)`, with one scale and one shift per
/// channel.
#[derive(Clone, Copy, Debug)]
pub struct NormRelu<'a> {
    /// The scale, `gamma / sqrt(var + eps)`.
    pub scale: &'a [f32],
    /// The shift, `beta - mean * scale`.
    pub shift: &'a [f32],
}

impl NormRelu<'_> {
    /// Panics unless both vectors have one value per channel.
    pub(super) fn check(&self, channels: usize) {
        assert!(self.scale.len() == channels && self.shift.len() == channels, "one value per channel");
    }
}

#[cfg(test)]
mod tests;
