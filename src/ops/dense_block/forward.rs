//! From the first layer to the last.

use super::backward::{Bottleneck, LayerRule, Norm, Rule};
use super::{DenseBlockLayer, DenseBlockMoments, DenseBlockNorm, with_channels};
use crate::{
    Shape, Tensor,
    kernels::{self, Ending, Features, Isa},
    ops::{
        Moments,
        batch_norm::{Affine, vector},
        dropout::drop_elements,
    },
};

/// The pass, and what it has made so far.
pub(super) struct Forward<'v, 't> {
    layers: &'v [DenseBlockLayer<'t>],
    /// Of the layers' 3x3 convolutions.
    convolutions: Vec<kernels::Conv2d>,
    /// Of the layers that drop, the probability and the seed.
    drops: Vec<Option<(f32, u64)>>,
    /// Whether backward may follow.
    recorded: bool,
    /// Input channels.
    inputs: usize,
    /// `[N, H, W, C + k + k ...]`.
    maps: Tensor,
    /// Mean and variance of the maps' channels, of those that a norm wants them of.
    mean: Vec<f32>,
    var: Vec<f32>,
}

/// The new maps of a layer, and mean and variance of their channels, if those came with them.
struct New {
    maps: Tensor,
    moments: Option<(Vec<f64>, Vec<f64>)>,
}

impl<'v, 't> Forward<'v, 't> {
    pub(super) fn new(
        x: &Tensor,
        layers: &'v [DenseBlockLayer<'t>],
        shape: Shape,
        convolutions: Vec<kernels::Conv2d>,
        drops: Vec<Option<(f32, u64)>>,
        recorded: bool,
    ) -> Self {
        let (inputs, channels) = (x.shape().channels(), shape.channels());
        let maps = Tensor::build(shape, |maps| {
            kernels::put_channels(Isa::active(), x.data(), inputs, maps, channels, 0);
        });
        let (mean, var) = (vec![0.0; channels], vec![0.0; channels]);
        let mut forward = Forward { layers, convolutions, drops, recorded, inputs, maps, mean, var };
        forward.observe(New { maps: x.clone(), moments: None }, 0, 0);
        forward
    }

    /// The maps, the statistics used, and what backward keeps.
    pub(super) fn run(mut self) -> (Tensor, Vec<DenseBlockMoments>, Rule) {
        let (mut moments, mut rules) = (vec![], vec![]);
        let (mut channels, mut operand) = (self.inputs, 1);
        for i in 0..self.layers.len() {
            let (mut new, used, rule) = self.layer(i, channels, operand);
            if let Some((p, seed)) = self.drops[i] {
                drop_elements(p, seed, &mut new.maps);
                new.moments = None;
            }
            let (width, row) = (new.maps.shape().channels(), self.mean.len());
            kernels::put_channels(Isa::active(), new.maps.data(), width, self.maps.data_mut(), row, channels);
            self.observe(new, i + 1, channels);
            channels += width;
            operand += self.layers[i].operands().len();
            moments.push(used);
            rules.extend(rule);
        }
        let maps = self.maps;
        let rule = Rule { maps: maps.clone(), inputs: self.inputs, mean: self.mean, layers: rules };
        (maps, moments, rule)
    }

    /// Notes mean and variance of new maps, whose first channel is `start`, if a layer from `next` on wants them.
    fn observe(&mut self, new: New, next: usize, start: usize) {
        if self.layers[next..].iter().any(|layer| layer.norm1.given.is_none()) {
            let (mean, var) = new.moments.unwrap_or_else(|| {
                kernels::moments(Isa::active(), new.maps.data(), new.maps.shape().channels())
            });
            let note = |to: &mut [f32], from: Vec<f64>| {
                to[start..].iter_mut().zip(from).for_each(|(to, from)| *to = from as f32);
            };
            note(&mut self.mean, mean);
            note(&mut self.var, var);
        }
    }

    /// The new maps, `[N, H, W, k]`, of a layer that reads `channels`; its first operand is number `operand`.
    fn layer(
        &self,
        i: usize,
        channels: usize,
        operand: usize,
    ) -> (New, DenseBlockMoments, Option<LayerRule>) {
        let (isa, layer, convolution) = (Isa::active(), &self.layers[i], self.convolutions[i]);
        let norm1_moments = self.moments_of_maps(&layer.norm1);
        let norm1 = Norm::new(&layer.norm1, &norm1_moments);
        let features = Features { data: self.maps.data(), row: self.mean.len(), channels };
        let inner = with_channels(&self.maps, convolution.in_channels);
        let weight = layer.weight.value().clone();
        let (new, norm2_moments, bottleneck) = match &layer.bottleneck {
            None => {
                let a = Tensor::build(inner, |a| kernels::activate(isa, features, norm1.relu(), a));
                (self.convolve(i, &a, None), None, None)
            }
            Some((weight, norm2)) => {
                let (z, moments, norm) = self.product(features, &norm1, weight.value(), norm2, inner);
                let new = self.convolve(i, &z, norm.as_ref());
                let weight = weight.value().clone();
                (new, Some(moments), norm.map(|norm| Bottleneck { weight, z, norm }))
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
        (new, DenseBlockMoments { norm1: norm1_moments, norm2: norm2_moments }, rule)
    }

    /// The 3x3 convolution of a layer, of a normalised input if there is a norm.
    fn convolve(&self, i: usize, x: &Tensor, norm: Option<&Norm>) -> New {
        let (isa, layer, convolution) = (Isa::active(), &self.layers[i], &self.convolutions[i]);
        let (algorithm, weight) = (layer.algorithm, layer.weight.value().data());
        let mut moments = None;
        let maps = Tensor::build(with_channels(&self.maps, convolution.out_channels), |y| match norm {
            Some(norm) if algorithm.takes_norm(convolution) => {
                let norm = norm.relu();
                moments = Some(algorithm.conv2d_of_norm(isa, convolution, x.data(), norm, weight, y));
            }
            _ => {
                let normalised = norm.map(|norm| norm.affine.apply(x, None, true));
                let x = normalised.as_ref().unwrap_or(x);
                algorithm.conv2d(isa, convolution, x.data(), weight, Ending::default(), y);
            }
        });
        New { maps, moments }
    }

    /// The product of a bottleneck layer, the statistics of the second norm, and that norm, unless it is folded into the product
    /// together with the ReLU.
    fn product(
        &self,
        features: Features<'_>,
        norm1: &Norm,
        weight: &Tensor,
        norm2: &DenseBlockNorm<'t>,
        shape: Shape,
    ) -> (Tensor, Moments, Option<Norm>) {
        let (isa, relu, count) = (Isa::active(), norm1.relu(), shape.rows());
        let product = |weight: &[f32], ending: Ending<'_>| {
            Tensor::build(shape, |z| kernels::activate_product(isa, features, relu, weight, ending, z))
        };
        let (z, moments) = match &norm2.given {
            Some(given) if !self.recorded => {
                // A constant affine map behind a product: its factors go into the weight, the rest is a bias.
                let moments = constant(given, count);
                let Affine { scale, shift, .. } = Norm::new(norm2, &moments).affine;
                let zeros = vec![0.0; scale.data().len()];
                let weight = Tensor::build(*weight.shape(), |w| {
                    kernels::normalise(isa, weight.data(), scale.data(), &zeros, None, false, w);
                });
                let ending = Ending { bias: Some(shift.data()), relu: true, ..Ending::default() };
                return (product(weight.data(), ending), moments, None);
            }
            Some(given) => (product(weight.data(), Ending::default()), constant(given, count)),
            None => {
                let mut moments = (vec![], vec![]);
                let z = Tensor::build(shape, |z| {
                    moments = kernels::activate_product_moments(isa, features, relu, weight.data(), z);
                });
                (z, Moments::new(*norm2.gamma.shape(), moments, count))
            }
        };
        let norm2 = Norm::new(norm2, &moments);
        (z, moments, Some(norm2))
    }

    /// The statistics that the first norm of a layer uses.
    fn moments_of_maps(&self, norm: &DenseBlockNorm<'t>) -> Moments {
        let count = self.maps.shape().rows();
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
