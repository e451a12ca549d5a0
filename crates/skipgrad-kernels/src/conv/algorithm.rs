//! The choice between the direct sums and Winograd's algorithm.

use super::forward::convolve;
use super::{Conv2dGeometry, conv2d_input_gradient, conv2d_weight_gradient, conv2d_with, winograd};
use crate::dense::{NormSums, add_blocks};
use crate::moments::{TakeMoments, merge_blocks};
use crate::{
    Activation, BatchNormSums, ChannelViewMut, Epilogue, Isa, NormRelu, Normalized, batch_norm_sums,
};

/// The algorithm of a convolution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Algorithm {
    /// Winograd's algorithm where that is possible and was measured to be faster, otherwise the
    /// direct sums. It needs a quarter of the multiplications, and its error is up to about 2e-6 of
    /// the largest value of the result. It is taken for 3x3 kernels of stride 1 without dilation
    /// and groups, with at least 16 tiles (of 4x4 outputs), 12 channels, and 12 000 tiles times
    /// channels.
    #[default]
    Auto,
    /// The sums as they are defined.
    Direct,
}

impl Algorithm {
    /// Computes y of a convolution, as [`conv2d_with`].
    ///
    /// # Panics
    /// In the cases in which [`conv2d_with`] does.
    ///
    /// ```
    /// use skipgrad_kernels::{Algorithm, Conv2dGeometry, Epilogue, Isa};
    /// let sizes = Conv2dGeometry {
    ///     batch: 2, height: 16, width: 16, in_channels: 16, out_channels: 16,
    ///     kernel: [3, 3], stride: [1, 1],
    ///     padding: [[1, 1], [1, 1]], dilation: [1, 1], groups: 1,
    /// };
    /// let (x, w) = (vec![0.5; 2 * 16 * 16 * 16], vec![0.25; 9 * 16 * 16]);
    /// let mut y = vec![0.0; x.len()]; // [2, 16, 16, 16]
    /// let epilogue = Epilogue { bias: Some(&[1.0; 16]), ..Epilogue::default() };
    /// Algorithm::Auto.conv2d(Isa::active(), &sizes, &x, &w, epilogue, &mut y);
    /// assert!((y[(3 * 16 + 5) * 16] - (1.0 + 9.0 * 16.0 * 0.125)).abs() < 1e-4);
    /// ```
    pub fn conv2d(
        self,
        isa: Isa,
        sizes: &Conv2dGeometry,
        x: &[f32],
        w: &[f32],
        epilogue: Epilogue<'_>,
        y: &mut [f32],
    ) {
        if self.winograd(sizes) {
            winograd::forward(isa, sizes, x, w, epilogue, &(), y);
        } else {
            conv2d_with(isa, sizes, x, w, epilogue, y);
        }
    }

    /// Computes y as [`Algorithm::conv2d`] and returns the mean and the biased variance of every
    /// channel of y, in f64 as [`moments`](crate::moments) does. They are taken while y is in the
    /// cache, which saves a pass over it.
    ///
    /// # Panics
    /// In the cases in which [`Algorithm::conv2d`] does.
    pub fn conv2d_moments(
        self,
        isa: Isa,
        sizes: &Conv2dGeometry,
        x: &[f32],
        w: &[f32],
        epilogue: Epilogue<'_>,
        y: &mut [f32],
    ) -> (Vec<f64>, Vec<f64>) {
        let blocks = match self.winograd(sizes) {
            true => winograd::forward(isa, sizes, x, w, epilogue, &TakeMoments { first: 0 }, y),
            false => {
                let y = ChannelViewMut::whole(y, sizes.out_channels);
                convolve(isa, sizes, x, w, epilogue, |first| TakeMoments { first }, y)
            }
        };
        merge_blocks(sizes.out_channels, blocks)
    }

    /// Computes dx of a convolution, as [`conv2d_input_gradient`].
    ///
    /// # Panics
    /// In the cases in which [`conv2d_input_gradient`] does.
    pub fn input_gradient(self, isa: Isa, sizes: &Conv2dGeometry, dy: &[f32], w: &[f32], dx: &mut [f32]) {
        if self.winograd(sizes) {
            winograd::input_gradient(isa, sizes, dy, w, &(), dx);
        } else {
            conv2d_input_gradient(isa, sizes, dy, w, dx);
        }
    }

    /// Computes dx as [`Algorithm::input_gradient`] for a convolution whose input was normalized,
    /// and returns the sums of that norm's gradient as [`batch_norm_sums`] does. Where possible,
    /// they are taken while dx is in the cache.
    ///
    /// # Panics
    /// In the cases in which [`Algorithm::input_gradient`] does, and if `normalized` does not fit.
    pub fn input_gradient_sums(
        self,
        isa: Isa,
        sizes: &Conv2dGeometry,
        dy: &[f32],
        w: &[f32],
        normalized: Normalized<'_>,
        dx: &mut [f32],
    ) -> BatchNormSums {
        let Normalized { x, norm: NormRelu { scale, shift }, mean } = normalized;
        normalized.check(sizes.batch * sizes.height * sizes.width, sizes.in_channels);
        if self.winograd(sizes) {
            let blocks = winograd::input_gradient(isa, sizes, dy, w, &NormSums(normalized), dx);
            return add_blocks(sizes.in_channels, blocks);
        }
        conv2d_input_gradient(isa, sizes, dy, w, dx);
        batch_norm_sums(isa, x, dx, mean, Activation::ReluOf { scale, shift })
    }

    /// Computes dw of a convolution, as [`conv2d_weight_gradient`].
    ///
    /// # Panics
    /// In the cases in which [`conv2d_weight_gradient`] does.
    pub fn weight_gradient(self, isa: Isa, sizes: &Conv2dGeometry, x: &[f32], dy: &[f32], dw: &mut [f32]) {
        if self.winograd(sizes) {
            winograd::weight_gradient(isa, sizes, x, None, dy, dw);
        } else {
            conv2d_weight_gradient(isa, sizes, x, dy, dw);
        }
    }

    /// Returns whether [`Algorithm::conv2d_into`] can normalize the input of this convolution.
    pub fn takes_norm(self, sizes: &Conv2dGeometry) -> bool {
        self.winograd(sizes)
    }

    /// Computes y of the convolution of x into channels of a wider matrix, and returns the moments
    /// of y as [`Algorithm::conv2d_moments`] does. With a norm, the convolution is of `max(x *
    /// scale + shift, 0)`, padded with zeros after the norm; the normalized values are never in
    /// memory as a whole.
    ///
    /// # Panics
    /// In the cases in which [`conv2d`](super::conv2d) does, and if there is a norm though
    /// [`Algorithm::takes_norm`] returns false.
    pub fn conv2d_into(
        self,
        isa: Isa,
        sizes: &Conv2dGeometry,
        x: &[f32],
        norm: Option<NormRelu<'_>>,
        w: &[f32],
        y: ChannelViewMut<'_>,
    ) -> (Vec<f64>, Vec<f64>) {
        if self.winograd(sizes) {
            return winograd::forward_into(isa, sizes, x, norm, w, y);
        }
        assert!(norm.is_none(), "this convolution cannot normalize its input");
        let blocks = convolve(isa, sizes, x, w, Epilogue::default(), |first| TakeMoments { first }, y);
        merge_blocks(sizes.out_channels, blocks)
    }

    /// Computes dw of [`Algorithm::conv2d_into`] with a norm.
    ///
    /// # Panics
    /// If a slice does not fit the geometry, or [`Algorithm::takes_norm`] returns false.
    pub fn weight_gradient_of_norm(
        self,
        isa: Isa,
        sizes: &Conv2dGeometry,
        x: &[f32],
        norm: NormRelu<'_>,
        dy: &[f32],
        dw: &mut [f32],
    ) {
        assert!(self.takes_norm(sizes), "this convolution cannot normalize its input");
        winograd::weight_gradient(isa, sizes, x, Some(norm), dy, dw);
    }

    /// Returns whether it takes Winograd's algorithm for this geometry.
    fn winograd(self, sizes: &Conv2dGeometry) -> bool {
        self == Algorithm::Auto && winograd::possible(sizes) && winograd::worthwhile(sizes)
    }
}
