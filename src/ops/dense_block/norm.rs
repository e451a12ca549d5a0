//! The normalizations of a layer, and their share of the backward pass.

use super::DenseBlockNorm;
use crate::{
    Tensor,
    kernels::{BatchNormSums, ChannelView, DenseGradient, NormRelu, Normalized},
    ops::{
        Moments,
        batch_norm::{Affine, vector},
    },
};
use std::ops::Range;

/// A normalization as a multiplication and an addition.
pub(super) struct Norm {
    pub(super) affine: Affine,
    /// Whether the statistics are constants.
    is_fixed: bool,
}

impl Norm {
    pub(super) fn new(norm: &DenseBlockNorm<Tensor>, moments: &Moments) -> Norm {
        let affine = Affine::new([&norm.gamma, &norm.beta], [&moments.mean, &moments.var], norm.eps);
        Norm { affine, is_fixed: norm.fixed.is_some() }
    }

    pub(super) fn relu(&self) -> NormRelu<'_> {
        self.affine.relu()
    }

    /// Returns the number of channels.
    pub(super) fn num_channels(&self) -> usize {
        self.affine.scale.data().len()
    }

    /// Returns the normalization together with the maps that it normalizes, which have `row`
    /// channels.
    pub(super) fn gradient_of<'a>(&'a self, maps: &'a [f32], row: usize) -> DenseGradient<'a> {
        let x = ChannelView { data: maps, row, channels: self.num_channels() };
        DenseGradient { x, norm: self.relu(), mean: self.affine.mean.data() }
    }

    /// Returns the contribution of batch statistics over `rows` values to the gradient of some
    /// channels of the input: offset and slope, as for `StatisticsGradient`.
    pub(super) fn statistics_gradient(
        &self,
        channels: Range<usize>,
        sums: &BatchNormSums,
        rows: usize,
    ) -> [Vec<f64>; 2] {
        let [scale, inverse_std] =
            [&self.affine.scale, &self.affine.inverse_std].map(|all| &all.data()[channels.clone()]);
        let shares =
            scale.iter().map(|&scale| if self.is_fixed { 0.0 } else { -f64::from(scale) / rows as f64 });
        let offset = shares.clone().zip(&sums.dy).map(|(share, dy)| share * dy).collect();
        let slopes = shares.zip(&sums.dy_deviation).zip(inverse_std);
        [offset, slopes.map(|((share, sum), &inverse)| share * sum * f64::from(inverse).powi(2)).collect()]
    }
}

/// What backward keeps of a bottleneck.
pub(super) struct Bottleneck {
    /// The weight of the 1x1 convolution.
    pub(super) weight: Tensor,
    /// The output of the 1x1 convolution.
    pub(super) z: Tensor,
    /// The second normalization.
    pub(super) norm: Norm,
}

impl Bottleneck {
    /// Returns the second normalization and its input, the output of the 1x1 convolution.
    pub(super) fn normalized(&self) -> Normalized<'_> {
        Normalized { x: self.z.data(), norm: self.norm.relu(), mean: self.norm.affine.mean.data() }
    }

    /// Returns the contribution of batch statistics to the gradient of z: offset and slope.
    pub(super) fn statistics_gradient(&self, sums: &BatchNormSums) -> [Tensor; 2] {
        let (channels, rows) = (0..self.norm.num_channels(), self.z.shape().num_rows());
        let terms = self.norm.statistics_gradient(channels, sums, rows);
        terms.map(|terms| vector(*self.norm.affine.mean.shape(), |c| terms[c]))
    }
}
