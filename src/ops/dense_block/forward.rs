//! The forward pass, from the first layer to the last.

use super::backward::{Backward, LayerBackward};
use super::norm::{Bottleneck, Norm};
use super::{DenseBlockLayer, DenseBlockLayerMoments, DenseBlockMoments, DenseBlockNorm, with_channels};
use crate::{
    Shape, Tensor,
    kernels::{self, ChannelView, ChannelViewMut, Isa},
    ops::{Moments, batch_norm::vector, dropout::drop_elements},
};

/// The state of the pass over the layers.
pub(super) struct Forward<'v> {
    layers: &'v [DenseBlockLayer<Tensor>],
    /// The geometry of the 3x3 convolution of each layer.
    convolutions: Vec<kernels::Conv2dGeometry>,
    /// The probability and the seed of each layer's dropout, if it has one.
    dropouts: Vec<Option<(f32, u64)>>,
    /// Whether a gradient flows back, so that backward may follow.
    recorded: bool,
    /// The number of channels of the input.
    inputs: usize,
    /// The maps of the input and of all layers, `[N, H, W, C + k + k ...]`.
    maps: Tensor,
    /// Whether the first normalization of some layer uses the statistics of the batch.
    needs_moments: bool,
    /// The mean and variance of the channels made so far, if `needs_moments`.
    mean: Vec<f32>,
    var: Vec<f32>,
}

impl<'v> Forward<'v> {
    pub(super) fn new(
        x: &Tensor,
        layers: &'v [DenseBlockLayer<Tensor>],
        shape: Shape,
        convolutions: Vec<kernels::Conv2dGeometry>,
        dropouts: Vec<Option<(f32, u64)>>,
        recorded: bool,
    ) -> Self {
        let (inputs, channels) = (x.shape().num_channels(), shape.num_channels());
        let maps = Tensor::build(shape, |maps| {
            kernels::put_channels(Isa::active(), x.data(), inputs, maps, channels, 0);
        });
        let (mean, var) = (vec![0.0; channels], vec![0.0; channels]);
        let needs_moments = layers.iter().any(|layer| layer.norm1.fixed.is_none());
        let mut forward =
            Forward { layers, convolutions, dropouts, recorded, inputs, maps, needs_moments, mean, var };
        if forward.needs_moments {
            forward.set_moments(kernels::moments(Isa::active(), x.data(), inputs), 0);
        }
        forward
    }

    /// Returns the maps, the statistics that the normalizations used, and what backward keeps.
    pub(super) fn run(mut self) -> (Tensor, DenseBlockMoments, Backward) {
        let (mut layers, mut backwards) = (vec![], vec![]);
        let mut channels = self.inputs;
        for i in 0..self.layers.len() {
            let (moments, backward) = self.layer(i, channels);
            channels += self.convolutions[i].out_channels;
            layers.push(moments);
            backwards.extend(backward);
        }
        let [mean, var] = [&self.mean, &self.var];
        let (width, count) = (self.maps.shape().num_channels(), self.maps.shape().num_rows());
        let vector = |all: &[f32]| Tensor::new([width], all).expect("one element per channel");
        let of_maps = self.needs_moments.then(|| Moments { mean: vector(mean), var: vector(var), count });
        let moments = DenseBlockMoments { layers, maps: of_maps };
        let maps = self.maps;
        let backward =
            Backward { maps: maps.clone(), inputs: self.inputs, mean: self.mean, layers: backwards };
        (maps, moments, backward)
    }

    /// Stores the mean and variance of new maps, whose first channel is `start`.
    fn set_moments(&mut self, (mean, var): (Vec<f64>, Vec<f64>), start: usize) {
        let set = |to: &mut [f32], from: Vec<f64>| {
            to[start..].iter_mut().zip(from).for_each(|(to, from)| *to = from as f32);
        };
        set(&mut self.mean, mean);
        set(&mut self.var, var);
    }

    /// Computes the maps of layer `i`, which reads `channels`.
    fn layer(&mut self, i: usize, channels: usize) -> (DenseBlockLayerMoments, Option<LayerBackward>) {
        let (isa, layer, convolution) = (Isa::active(), &self.layers[i], self.convolutions[i]);
        let norm1_moments = self.moments_of_maps(&layer.norm1);
        let norm1 = Norm::new(&layer.norm1, &norm1_moments);
        let features = ChannelView { data: self.maps.data(), row: self.mean.len(), channels };
        let inner = with_channels(&self.maps, convolution.in_channels);
        let weight = layer.weight.clone();
        let (norm2_moments, bottleneck) = match &layer.bottleneck {
            None => {
                let a = Tensor::build(inner, |a| kernels::activate(isa, features, norm1.relu(), a));
                self.convolve(i, &a, None, channels);
                (None, None)
            }
            Some((weight, norm2)) => {
                let (z, moments) = self.product(features, &norm1, weight, norm2, inner);
                let norm = Norm::new(norm2, &moments);
                self.convolve(i, &z, Some(&norm), channels);
                let weight = weight.clone();
                (Some(moments), Some(Bottleneck { weight, z, norm }))
            }
        };
        let algorithm = layer.algorithm;
        let backward = self.recorded.then(|| LayerBackward {
            channels,
            norm: norm1,
            bottleneck,
            convolution,
            weight,
            algorithm,
            dropout: self.dropouts[i],
        });
        (DenseBlockLayerMoments { norm1: norm1_moments, norm2: norm2_moments }, backward)
    }

    /// Computes the 3x3 convolution of layer `i`, of a normalized input if there is a `norm`, and
    /// writes it to the channels from `start` on.
    fn convolve(&mut self, i: usize, x: &Tensor, norm: Option<&Norm>, start: usize) {
        let (isa, layer, convolution) = (Isa::active(), &self.layers[i], self.convolutions[i]);
        let (algorithm, weight, channels) = (layer.algorithm, layer.weight.data(), convolution.out_channels);
        let within = norm.filter(|_| algorithm.takes_norm(&convolution)).map(Norm::relu);
        let normalized = norm.filter(|_| within.is_none()).map(|norm| norm.affine.apply(x, None, true));
        let x = normalized.as_ref().unwrap_or(x).data();
        let row = self.mean.len();
        let moments = match self.dropouts[i] {
            None => {
                let slot = ChannelViewMut { data: self.maps.data_mut(), row, first: start };
                algorithm.conv2d_into(isa, &convolution, x, within, weight, slot)
            }
            Some((p, seed)) => {
                // Dropout depends on the position of an element in the new maps alone.
                let mut new = Tensor::build(with_channels(&self.maps, channels), |y| {
                    algorithm.conv2d_into(
                        isa,
                        &convolution,
                        x,
                        within,
                        weight,
                        ChannelViewMut::whole(y, channels),
                    );
                });
                drop_elements(p, seed, &mut new);
                kernels::put_channels(isa, new.data(), channels, self.maps.data_mut(), row, start);
                kernels::moments(isa, new.data(), channels)
            }
        };
        if self.needs_moments {
            self.set_moments(moments, start);
        }
    }

    /// Computes the 1x1 convolution of a bottleneck and the statistics of the second normalization.
    fn product(
        &self,
        features: ChannelView<'_>,
        norm1: &Norm,
        weight: &Tensor,
        norm2: &DenseBlockNorm<Tensor>,
        shape: Shape,
    ) -> (Tensor, Moments) {
        let (isa, relu, weight) = (Isa::active(), norm1.relu(), weight.data());
        let mut moments = (vec![], vec![]);
        let z = Tensor::build(shape, |z| match norm2.fixed {
            Some(_) => kernels::activate_product(isa, features, relu, weight, z),
            None => moments = kernels::activate_product_moments(isa, features, relu, weight, z),
        });
        let moments = match &norm2.fixed {
            Some(fixed) => constant(fixed, shape.num_rows()),
            None => Moments::new(*norm2.gamma.shape(), moments, shape.num_rows()),
        };
        (z, moments)
    }

    /// Returns the statistics that the first normalization of a layer uses.
    fn moments_of_maps(&self, norm: &DenseBlockNorm<Tensor>) -> Moments {
        let count = self.maps.shape().num_rows();
        let first = |all: &[f32]| vector(*norm.gamma.shape(), |c| f64::from(all[c]));
        match &norm.fixed {
            Some(fixed) => constant(fixed, count),
            None => Moments { mean: first(&self.mean), var: first(&self.var), count },
        }
    }
}

/// Returns fixed statistics as moments of `count` values.
fn constant((mean, var): &(Tensor, Tensor), count: usize) -> Moments {
    Moments { mean: mean.clone(), var: var.clone(), count }
}
