//! What a dense block (Huang et al. 2017) needs so that its maps are never copied.
//!
//! All maps of a block lie in one matrix `[rows, channels of the output]`, a row a pixel. A layer reads the first C numbers of
//! each row ([`ChannelView`]), normalizes them, lets a ReLU follow ([`NormRelu`]) and multiplies by a weight. The normalized
//! numbers exist only where they are used: in the panel of a block of rows, which stays in the cache.
//!
//! * [`activate_product`] is that product;
//! * [`product_gradients`] are those of several such products of the same features: with respect to the weights, to gamma and
//!   beta, and, added to what a matrix like that of the maps already holds, to the maps; they start from the gradient behind the
//!   second norm ([`NormGradient`]);
//! * [`activate`] writes the normalized numbers down, for a convolution that has no form of its own here;
//! * [`ChannelViewMut`] is where a convolution writes a layer's own channels;
//! * [`take_slot`] reads a layer's own channels of the gradient, when all later layers have added theirs.
//!
//! # The gradient of a shared statistic
//!
//! With batch statistics, the gradient of a map x behind one norm is `scale (g - Σg / m - (x - mean) Σg(x - mean) / (m (var + eps)))`
//! (see [`BatchNormGradient`](super::BatchNormGradient)), where only `scale g` differs from pixel to pixel in a way of its own.
//! The rest is a line in x whose two numbers are known only after all pixels were seen. But all norms of a block that read a
//! channel share its mean, so their lines add up to one, and one pass over the channel, when its gradient is read, applies
//! them all: `dx = Σ over norms of scale g,  + offset + slope (x - mean)`.

mod activate;
mod add;
mod gradient;
mod norm_gradient;
mod product_gradient;
mod slot;
mod sums;

pub use activate::{activate, activate_product, activate_product_moments, activate_product_packed};
pub use gradient::DenseGradient;
pub use norm_gradient::NormGradient;
pub use product_gradient::{ProductGradient, product_gradients};
pub use slot::{StatisticsGradient, take_slot};
pub use sums::Normalized;
pub(super) use sums::{TakeSums, add_blocks};

/// The first `channels` numbers of each row of a matrix.
#[derive(Clone, Copy, Debug)]
pub struct ChannelView<'a> {
    /// The matrix.
    pub data: &'a [f32],
    /// The length of its rows.
    pub row: usize,
    /// How many numbers of a row are read.
    pub channels: usize,
}

impl ChannelView<'_> {
    /// How many rows there are. Panics unless they are whole and have the channels.
    fn num_rows(&self) -> usize {
        assert!(self.channels <= self.row, "as many channels as a row has numbers, or fewer");
        super::rows::whole_rows(self.data.len(), self.row)
    }
}

/// Neighboring channels of a matrix, to be written.
#[derive(Debug)]
pub struct ChannelViewMut<'a> {
    /// The matrix.
    pub data: &'a mut [f32],
    /// The length of its rows.
    pub row: usize,
    /// The first of the channels.
    pub first: usize,
}

impl<'a> ChannelViewMut<'a> {
    /// All channels of a matrix.
    pub fn whole(data: &'a mut [f32], channels: usize) -> ChannelViewMut<'a> {
        ChannelViewMut { data, row: channels, first: 0 }
    }

    /// Panics unless there are so many rows, each with the channels.
    pub(super) fn check(&self, rows: usize, channels: usize) {
        assert!(self.first + channels <= self.row, "as many channels as a row has numbers, or fewer");
        assert_eq!(self.data.len(), rows * self.row, "a slice does not fit the geometry");
    }
}

/// A normalization and a ReLU, `max(x * scale + shift, 0)`, with a number a channel in either vector.
#[derive(Clone, Copy, Debug)]
pub struct NormRelu<'a> {
    /// gamma / sqrt(var + eps).
    pub scale: &'a [f32],
    /// beta - mean * scale.
    pub shift: &'a [f32],
}

impl NormRelu<'_> {
    pub(super) fn check(&self, channels: usize) {
        assert!(self.scale.len() == channels && self.shift.len() == channels, "one number a channel");
    }
}

#[cfg(test)]
mod tests;
