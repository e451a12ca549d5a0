//! Which way a convolution is computed.

use super::forward::convolve;
use super::{Conv2dGeometry, conv2d_input_gradient, conv2d_weight_gradient, conv2d_with, winograd};
use crate::dense::{TakeSums, add_blocks};
use crate::moments::{TakeMoments, merge_blocks};
use crate::{
    Activation, BatchNormSums, ChannelViewMut, Epilogue, Isa, NormRelu, Normalized, batch_norm_sums,
};

/// How a convolution is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// By Winograd's algorithm where that is possible and was measured to be faster, otherwise directly. It needs a quarter
    /// of the multiplications, and its error is up to about 2e-6 of the largest number of the result. It is for 3x3 kernels of
    /// stride 1, without dilation and groups, and at least 12 000 tiles (of 4x4 outputs) times channels, at least 16 tiles and 12 channels.
    #[default]
    Auto,
    /// By the sums as they are defined.
    Direct,
}

impl Algorithm {
    /// y of a convolution: [`conv2d_with`].
    ///
    /// # Panics
    /// As that.
    ///
    /// ```
    /// use skipgrad_kernels::{Algorithm, Conv2dGeometry, Epilogue, Isa};
    /// let sizes = Conv2dGeometry {
    ///     batch: 2, height: 16, width: 16, in_channels: 16, out_channels: 16, kernel: [3, 3], stride: [1, 1],
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

    /// [`Algorithm::conv2d`], and mean and biased variance of every channel of y, in f64 as [`moments`](crate::moments) gives
    /// them: taken while y is in the cache, which saves a pass over it.
    ///
    /// # Panics
    /// As [`Algorithm::conv2d`].
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

    /// dx of a convolution: [`conv2d_input_gradient`].
    ///
    /// # Panics
    /// As that.
    pub fn input_gradient(self, isa: Isa, sizes: &Conv2dGeometry, dy: &[f32], w: &[f32], dx: &mut [f32]) {
        if self.winograd(sizes) {
            winograd::input_gradient(isa, sizes, dy, w, &(), dx);
        } else {
            conv2d_input_gradient(isa, sizes, dy, w, dx);
        }
    }

    /// [`Algorithm::input_gradient`] of a convolution of something normalized, and the sums of that norm's gradient as
    /// [`batch_norm_sums`] gives them, where possible taken while dx is in the cache.
    ///
    /// # Panics
    /// As [`Algorithm::input_gradient`], and if what was normalized does not fit.
    pub fn input_gradient_sums(
        self,
        isa: Isa,
        sizes: &Conv2dGeometry,
        dy: &[f32],
        w: &[f32],
        behind: Normalized<'_>,
        dx: &mut [f32],
    ) -> BatchNormSums {
        let Normalized { x, norm: NormRelu { scale, shift }, mean } = behind;
        behind.check(sizes.batch * sizes.height * sizes.width, sizes.in_channels);
        if self.winograd(sizes) {
            let blocks = winograd::input_gradient(isa, sizes, dy, w, &TakeSums(behind), dx);
            return add_blocks(sizes.in_channels, blocks);
        }
        conv2d_input_gradient(isa, sizes, dy, w, dx);
        batch_norm_sums(isa, x, dx, mean, Activation::ReluOf { scale, shift })
    }

    /// dw of a convolution: [`conv2d_weight_gradient`].
    ///
    /// # Panics
    /// As that.
    pub fn weight_gradient(self, isa: Isa, sizes: &Conv2dGeometry, x: &[f32], dy: &[f32], dw: &mut [f32]) {
        if self.winograd(sizes) {
            winograd::weight_gradient(isa, sizes, x, None, dy, dw);
        } else {
            conv2d_weight_gradient(isa, sizes, x, dy, dw);
        }
    }

    /// Whether the convolution has a form for an input that is to be normalized: [`Algorithm::conv2d_into`].
    pub fn takes_norm(self, sizes: &Conv2dGeometry) -> bool {
        self.winograd(sizes)
    }

    /// y of the convolution of x, or with a norm of `max(x * scale + shift, 0)`, in which the zeros around the image are zeros behind
    /// the norm; y goes to the channels of a slot. Returns the moments of y as [`Algorithm::conv2d_moments`]. The normalized
    /// numbers are never in memory as a whole.
    ///
    /// # Panics
    /// As [`conv2d`](super::conv2d), and if there is a norm without that [`Algorithm::takes_norm`].
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
        assert!(norm.is_none(), "this convolution has no form for a norm");
        let blocks = convolve(isa, sizes, x, w, Epilogue::default(), |first| TakeMoments { first }, y);
        merge_blocks(sizes.out_channels, blocks)
    }

    /// dw of [`Algorithm::conv2d_into`] with a norm.
    ///
    /// # Panics
    /// As that.
    pub fn weight_gradient_of_norm(
        self,
        isa: Isa,
        sizes: &Conv2dGeometry,
        x: &[f32],
        norm: NormRelu<'_>,
        dy: &[f32],
        dw: &mut [f32],
    ) {
        assert!(self.takes_norm(sizes), "this convolution has no form for a norm");
        winograd::weight_gradient(isa, sizes, x, Some(norm), dy, dw);
    }

    fn winograd(self, sizes: &Conv2dGeometry) -> bool {
        self == Algorithm::Auto && winograd::possible(sizes) && winograd::worthwhile(sizes)
    }
}
