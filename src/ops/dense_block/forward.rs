//! From the first layer to the last.

use super::backward::{Bottleneck, LayerRule, Norm, Rule};
use super::{DenseBlockLayer, DenseBlockLayerMoments, DenseBlockMoments, DenseBlockNorm, with_channels};
use crate::{
    Shape, Tensor,
    kernels::{self, ChannelView, ChannelViewMut, Isa},
    ops::{Moments, batch_norm::vector, dropout::drop_elements},
};

/// The pass, and what it has made so far.
pub(super) struct Forward<'v, 't> {
    layers: &'v [DenseBlockLayer<'t>],
    /// Of the layers' 3x3 convolutions.
    convolutions: Vec<kernels::Conv2dGeometry>,
    /// Of the layers that drop, the probability and the seed.
    drops: Vec<Option<(f32, u64)>>,
    /// Whether backward may follow.
    recorded: bool,
    /// Input channels.
    inputs: usize,
    /// `[N, H, W, C + k + k ...]`.
    maps: Tensor,
    /// Whether a first norm uses the batch's statistics.
    observes: bool,
    /// Then mean and variance of the maps' channels so far.
    mean: Vec<f32>,
    var: Vec<f32>,
}

impl<'v, 't> Forward<'v, 't> {
    pub(super) fn new(
        x: &Tensor,
        layers: &'v [DenseBlockLayer<'t>],
        shape: Shape,
        convolutions: Vec<kernels::Conv2dGeometry>,
        drops: Vec<Option<(f32, u64)>>,
        recorded: bool,
    ) -> Self {
        let (inputs, channels) = (x.shape().num_channels(), shape.num_channels());
        let maps = Tensor::build(shape, |maps| {
            kernels::put_channels(Isa::active(), x.data(), inputs, maps, channels, 0);
        });
        let (mean, var) = (vec![0.0; channels], vec![0.0; channels]);
        let observes = layers.iter().any(|layer| layer.norm1.given.is_none());
        let mut forward =
            Forward { layers, convolutions, drops, recorded, inputs, maps, observes, mean, var };
        if forward.observes {
            forward.note(kernels::moments(Isa::active(), x.data(), inputs), 0);
        }
        forward
    }

    /// The maps, the statistics used, and what backward keeps.
    pub(super) fn run(mut self) -> (Tensor, DenseBlockMoments, Rule) {
        let (mut layers, mut rules) = (vec![], vec![]);
        let (mut channels, mut operand) = (self.inputs, 1);
        for i in 0..self.layers.len() {
            let (used, rule) = self.layer(i, channels, operand);
            channels += self.convolutions[i].out_channels;
            operand += self.layers[i].operands().len();
            layers.push(used);
            rules.extend(rule);
        }
        let [mean, var] = [&self.mean, &self.var];
        let (width, count) = (self.maps.shape().num_channels(), self.maps.shape().num_rows());
        let vector = |all: &[f32]| Tensor::new([width], all).expect("as many numbers as channels");
        let of_maps = self.observes.then(|| Moments { mean: vector(mean), var: vector(var), count });
        let moments = DenseBlockMoments { layers, maps: of_maps };
        let maps = self.maps;
        let rule = Rule { maps: maps.clone(), inputs: self.inputs, mean: self.mean, layers: rules };
        (maps, moments, rule)
    }

    /// Notes mean and variance of maps, whose first channel is `start`.
    fn note(&mut self, (mean, var): (Vec<f64>, Vec<f64>), start: usize) {
        let note = |to: &mut [f32], from: Vec<f64>| {
            to[start..].iter_mut().zip(from).for_each(|(to, from)| *to = from as f32);
        };
        note(&mut self.mean, mean);
        note(&mut self.var, var);
    }

    /// Makes the new maps of a layer that reads `channels`; its first operand is number `operand`.
    fn layer(
        &mut self,
        i: usize,
        channels: usize,
        operand: usize,
    ) -> (DenseBlockLayerMoments, Option<LayerRule>) {
        let (isa, layer, convolution) = (Isa::active(), &self.layers[i], self.convolutions[i]);
        let norm1_moments = self.moments_of_maps(&layer.norm1);
        let norm1 = Norm::new(&layer.norm1, &norm1_moments);
        let features = ChannelView { data: self.maps.data(), row: self.mean.len(), channels };
        let inner = with_channels(&self.maps, convolution.in_channels);
        let weight = layer.weight.value().clone();
        let (norm2_moments, bottleneck) = match &layer.bottleneck {
            None => {
                let a = Tensor::build(inner, |a| kernels::activate(isa, features, norm1.relu(), a));
                self.convolve(i, &a, None, channels);
                (None, None)
            }
            Some((weight, norm2)) => {
                let (z, moments) = self.product(features, &norm1, weight.value(), norm2, inner);
                let norm = Norm::new(norm2, &moments);
                self.convolve(i, &z, Some(&norm), channels);
                let weight = weight.value().clone();
                (Some(moments), Some(Bottleneck { weight, z, norm }))
            }
        };
        let algorithm = layer.algorithm;
        let rule = self.recorded.then(|| LayerRule {
            operand,
            channels,
            norm: norm1,
            bottleneck,
            convolution,
            weight,
            algorithm,
            drops: self.drops[i],
        });
        (DenseBlockLayerMoments { norm1: norm1_moments, norm2: norm2_moments }, rule)
    }

    /// The 3x3 convolution of a layer, of a normalized input if there is a norm, into the channels from `start` on.
    fn convolve(&mut self, i: usize, x: &Tensor, norm: Option<&Norm>, start: usize) {
        let (isa, layer, convolution) = (Isa::active(), &self.layers[i], self.convolutions[i]);
        let (algorithm, weight, channels) =
            (layer.algorithm, layer.weight.value().data(), convolution.out_channels);
        let within = norm.filter(|_| algorithm.takes_norm(&convolution)).map(Norm::relu);
        let normalized = norm.filter(|_| within.is_none()).map(|norm| norm.affine.apply(x, None, true));
        let x = normalized.as_ref().unwrap_or(x).data();
        let row = self.mean.len();
        let moments = match self.drops[i] {
            None => {
                let slot = ChannelViewMut { data: self.maps.data_mut(), row, first: start };
                algorithm.conv2d_into(isa, &convolution, x, within, weight, slot)
            }
            Some((p, seed)) => {
                // What is dropped depends on where a number is in the new maps by themselves.
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
        if self.observes {
            self.note(moments, start);
        }
    }

    /// The product of a bottleneck layer, and the statistics of the second norm.
    fn product(
        &self,
        features: ChannelView<'_>,
        norm1: &Norm,
        weight: &Tensor,
        norm2: &DenseBlockNorm<'t>,
        shape: Shape,
    ) -> (Tensor, Moments) {
        let (isa, relu, weight) = (Isa::active(), norm1.relu(), weight.data());
        let mut moments = (vec![], vec![]);
        let z = Tensor::build(shape, |z| match norm2.given {
            Some(_) => kernels::activate_product(isa, features, relu, weight, z),
            None => moments = kernels::activate_product_moments(isa, features, relu, weight, z),
        });
        let moments = match &norm2.given {
            Some(given) => constant(given, shape.num_rows()),
            None => Moments::new(*norm2.gamma.shape(), moments, shape.num_rows()),
        };
        (z, moments)
    }

    /// The statistics that the first norm of a layer uses.
    fn moments_of_maps(&self, norm: &DenseBlockNorm<'t>) -> Moments {
        let count = self.maps.shape().num_rows();
        let first = |all: &[f32]| vector(*norm.gamma.shape(), |c| f64::from(all[c]));
        match &norm.given {
            Some(given) => constant(given, count),
            None => Moments { mean: first(&self.mean), var: first(&self.var), count },
        }
    }
}

/// Statistics that were given.
fn constant((mean, var): &(Tensor, Tensor), count: usize) -> Moments {
    Moments { mean: mean.clone(), var: var.clone(), count }
}
