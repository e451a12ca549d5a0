//! The backward pass, from the last layer to the first.

use super::{
    norm::{Bottleneck, Norm},
    operands::Operands,
    with_channels,
};
use crate::{
    Tensor,
    kernels::{
        self, Algorithm, BatchNormSums, ChannelView, Isa, NormGradient, ProductGradient, StatisticsGradient,
    },
    ops::dropout::drop_elements,
};
use std::ops::Range;

/// The gradients of the operands of a layer, as far as they are needed.
type Gradients = Operands<Option<Tensor>>;

/// What backward keeps of a layer.
pub(super) struct LayerBackward {
    /// The number of channels that the layer reads.
    pub(super) channels: usize,
    /// The first normalization.
    pub(super) norm: Norm,
    pub(super) bottleneck: Option<Bottleneck>,
    /// The geometry of the 3x3 convolution.
    pub(super) convolution: kernels::Conv2dGeometry,
    pub(super) weight: Tensor,
    pub(super) algorithm: Algorithm,
    /// The probability and the seed of the dropout, if there is one.
    pub(super) dropout: Option<(f32, u64)>,
}

/// What backward keeps of the block.
pub(super) struct Backward {
    /// The maps of the input and of all layers: the output.
    pub(super) maps: Tensor,
    /// The number of channels of the input.
    pub(super) inputs: usize,
    /// The mean of each channel, where a normalization uses the statistics of the batch.
    pub(super) mean: Vec<f32>,
    pub(super) layers: Vec<LayerBackward>,
}

impl Backward {
    /// Returns the gradients of all operands that need one.
    pub(super) fn gradients(self, dy: Tensor, needs: &[bool]) -> Vec<Option<Tensor>> {
        crate::install(|| self.sweep(dy, needs))
    }

    fn sweep(self, dy: Tensor, needs: &[bool]) -> Vec<Option<Tensor>> {
        let channels = self.mean.len();
        let mut sweep = Sweep {
            maps: self.maps,
            gradient: dy,
            mean: self.mean,
            offset: vec![0.0; channels],
            slope: vec![0.0; channels],
            layers: vec![],
        };
        let has_bottleneck: Vec<bool> = self.layers.iter().map(|layer| layer.bottleneck.is_some()).collect();
        let mut steps = vec![];
        let mut needs = needs.iter().copied();
        let input_needs = needs.next().unwrap_or_default();
        let mut below = input_needs;
        for (index, layer) in self.layers.into_iter().enumerate() {
            let needs = Operands::take(layer.bottleneck.is_some(), &mut needs);
            // The first layers are left out for as long as nothing up to them needs a gradient.
            if below || needs.any_before_weight() || needs.weight {
                steps.push(Step { index, layer, needs, below });
                below = true;
            }
        }
        sweep.layers.resize_with(has_bottleneck.len(), Gradients::default);
        while !steps.is_empty() {
            let widths = steps.iter().map(|step| step.layer.convolution.in_channels);
            let group = steps.split_off(steps.len() - group_len(widths));
            sweep.group(group);
        }
        let input = input_needs.then(|| sweep.take(0, self.inputs));
        let layers = sweep.layers.into_iter().zip(has_bottleneck);
        let layers = layers.flat_map(|(gradients, has_bottleneck)| gradients.into_inputs(has_bottleneck));
        [input].into_iter().chain(layers).collect()
    }
}

/// The most columns of products whose gradients are computed together, so that the gradients of
/// their weights stay in the cache, too.
const MAX_GROUP_COLUMNS: usize = 256;

/// Returns how many of the last layers share a pass over the channels that all of them read;
/// `widths` are the input channels of their 3x3 convolutions.
pub(super) fn group_len(widths: impl DoubleEndedIterator<Item = usize>) -> usize {
    let mut columns = 0;
    let fits = |width: &usize| {
        columns += width;
        columns <= MAX_GROUP_COLUMNS
    };
    widths.rev().take_while(fits).count().max(1)
}

/// The state of the sweep over the layers.
struct Sweep {
    maps: Tensor,
    /// The gradient of all maps. It is complete for those that no remaining layer reads, except for
    /// the contribution of the statistics.
    gradient: Tensor,
    mean: Vec<f32>,
    /// The contribution of batch statistics to the gradient of each channel is
    /// `offset + slope (x - mean)`.
    offset: Vec<f64>,
    slope: Vec<f64>,
    /// The gradients of the operands of each layer.
    layers: Vec<Gradients>,
}

impl Sweep {
    /// Returns the complete gradient of `width` channels, the first of which is `start`.
    fn take(&self, start: usize, width: usize) -> Tensor {
        let channels = start..start + width;
        let [offset, slope] = [&self.offset, &self.slope]
            .map(|all| all[channels.clone()].iter().map(|&x| x as f32).collect::<Vec<_>>());
        let statistics =
            StatisticsGradient { offset: &offset, slope: &slope, mean: &self.mean[channels.clone()] };
        Tensor::build(with_channels(&self.maps, width), |out| {
            kernels::channel_gradient(
                Isa::active(),
                self.gradient.data(),
                self.view(self.mean.len()),
                channels,
                statistics,
                out,
            );
        })
    }

    /// Returns a view of the first channels of the maps.
    fn view(&self, channels: usize) -> ChannelView<'_> {
        ChannelView { data: self.maps.data(), row: self.mean.len(), channels }
    }

    /// Computes the gradients of the last layers.
    ///
    /// Each layer needs the complete gradient of the maps that it made. So the contribution of the
    /// later layers of the group to those is added at once, and their contribution to the channels
    /// that all layers of the group read is added in one pass at the end.
    fn group(&mut self, mut steps: Vec<Step>) {
        let shared = steps[0].layer.channels;
        let mut products = vec![];
        // Each step is consumed, so that what a layer kept is free for the layers before it.
        while let Some(step) = steps.pop() {
            let mut product = step.gradients(self);
            if let Some(product) = &mut product {
                self.add_products(shared..product.num_channels(), std::slice::from_mut(product));
            }
            products.extend(product);
        }
        self.add_products(0..shared, &mut products);
        for product in products {
            let index = product.index;
            product.gradients(&mut self.layers[index]);
        }
    }

    /// Adds to the gradient of some channels of the maps the contribution of products that read
    /// them, and to the gradients of the products' operands the contribution of these channels.
    fn add_products(&mut self, channels: Range<usize>, products: &mut [Product]) {
        if channels.is_empty() {
            return;
        }
        let x = self.maps.data();
        let mut of_products: Vec<_> =
            products.iter_mut().map(|product| product.kernel(x, self.mean.len())).collect();
        let (isa, dx) = (Isa::active(), self.gradient.data_mut());
        let sums = kernels::product_gradients(isa, channels.clone(), &mut of_products, dx);
        for (product, sums) in products.iter_mut().zip(sums) {
            self.add_statistics_gradient(&product.norm, channels.clone(), &sums);
            product.sums.dy[channels.clone()].copy_from_slice(&sums.dy);
            product.sums.dy_deviation[channels.clone()].copy_from_slice(&sums.dy_deviation);
        }
    }

    /// Adds to the gradient of the maps the contribution of a normalization and a ReLU, from the
    /// gradient of their output.
    fn add_activation(&mut self, norm: &Norm, da: &Tensor) -> BatchNormSums {
        let gradient = norm.gradient_of(self.maps.data(), self.mean.len());
        let sums = gradient.of_activation(Isa::active(), da.data(), self.gradient.data_mut());
        self.add_statistics_gradient(norm, 0..norm.num_channels(), &sums);
        sums
    }

    /// Adds the contribution of the batch statistics of a normalization to the gradient of some
    /// channels.
    fn add_statistics_gradient(&mut self, norm: &Norm, channels: Range<usize>, sums: &BatchNormSums) {
        let terms = norm.statistics_gradient(channels.clone(), sums, self.maps.shape().num_rows());
        for (all, terms) in [&mut self.offset, &mut self.slope].into_iter().zip(terms) {
            all[channels.clone()].iter_mut().zip(terms).for_each(|(all, term)| *all += term);
        }
    }
}

/// A bottleneck's 1x1 convolution and the normalization before it. Their gradients are complete
/// when all channels that the convolution reads have contributed.
struct Product {
    /// The index of the layer.
    index: usize,
    needs: Operands<bool>,
    /// The first normalization, and its sums over the channels so far.
    norm: Norm,
    sums: BatchNormSums,
    bottleneck: Bottleneck,
    /// The gradient of the output of the second normalization and its ReLU.
    da: Tensor,
    /// The contribution of the second normalization's batch statistics to the gradient of its
    /// input: offset and slope.
    statistics: [Tensor; 2],
    /// The gradient of the weight, if it is needed.
    dw: Option<Tensor>,
}

impl Product {
    /// Returns the number of channels that the product reads.
    fn num_channels(&self) -> usize {
        self.norm.num_channels()
    }

    /// Returns the operands for the kernel; the maps have `row` channels.
    fn kernel<'a>(&'a mut self, maps: &'a [f32], row: usize) -> ProductGradient<'a> {
        let Bottleneck { weight, z, norm } = &self.bottleneck;
        let [offset, slope] = self.statistics.each_ref().map(Tensor::data);
        let line = StatisticsGradient { offset, slope, mean: norm.affine.mean.data() };
        ProductGradient {
            features: self.norm.gradient_of(maps, row),
            w: weight.data(),
            dz: NormGradient { z: z.data(), da: self.da.data(), norm: norm.relu(), statistics: line },
            dw: self.dw.as_mut().map(Tensor::data_mut),
        }
    }

    /// Sets the gradients of the first normalization and of the weight, after all channels
    /// contributed.
    fn gradients(self, gradients: &mut Gradients) {
        let (dgamma, dbeta) = self.norm.affine.gradients(&self.sums);
        gradients.gamma1 = self.needs.gamma1.then_some(dgamma);
        gradients.beta1 = self.needs.beta1.then_some(dbeta);
        gradients.bottleneck_weight = self.dw;
    }
}

/// The backward pass of one layer.
struct Step {
    /// The index of the layer.
    index: usize,
    layer: LayerBackward,
    needs: Operands<bool>,
    /// Whether something that the layer reads needs a gradient.
    below: bool,
}

impl Step {
    /// Computes the gradients of the layer's operands, except for those of the product of a
    /// bottleneck, which is returned.
    fn gradients(self, sweep: &mut Sweep) -> Option<Product> {
        let Step { index, mut layer, needs, below } = self;
        let mut dy = sweep.take(layer.channels, layer.convolution.out_channels);
        if let Some((p, seed)) = layer.dropout {
            drop_elements(p, seed, &mut dy);
        }
        sweep.layers[index].weight = needs.weight.then(|| layer.weight_gradient(sweep, &dy));
        if !below && !needs.any_before_weight() {
            return None;
        }
        let isa = Isa::active();
        let (convolution, weight) = (&layer.convolution, layer.weight.data());
        let input = with_channels(&sweep.maps, convolution.in_channels);
        let Some(bottleneck) = layer.bottleneck.take() else {
            let da = Tensor::build(input, |da| {
                layer.algorithm.input_gradient(isa, convolution, dy.data(), weight, da);
            });
            let (dgamma, dbeta) = layer.norm.affine.gradients(&sweep.add_activation(&layer.norm, &da));
            sweep.layers[index].gamma1 = needs.gamma1.then_some(dgamma);
            sweep.layers[index].beta1 = needs.beta1.then_some(dbeta);
            return None;
        };
        let mut sums = None;
        let da = Tensor::build(input, |da| {
            let x = bottleneck.normalized();
            sums = Some(layer.algorithm.input_gradient_sums(isa, convolution, dy.data(), weight, x, da));
        });
        let sums = sums?;
        let (dgamma, dbeta) = bottleneck.norm.affine.gradients(&sums);
        sweep.layers[index].gamma2 = needs.gamma2.then_some(dgamma);
        sweep.layers[index].beta2 = needs.beta2.then_some(dbeta);
        if !below && !needs.any_of_product() {
            return None;
        }
        let zeros = vec![0.0; layer.channels];
        let dw = needs.bottleneck_weight.then(|| Tensor::build(*bottleneck.weight.shape(), |_| ()));
        Some(Product {
            index,
            needs,
            norm: layer.norm,
            sums: BatchNormSums { dy: zeros.clone(), dy_deviation: zeros },
            statistics: bottleneck.statistics_gradient(&sums),
            dw,
            bottleneck,
            da,
        })
    }
}

impl LayerBackward {
    /// Computes the gradient of the weight of the 3x3 convolution.
    fn weight_gradient(&self, sweep: &Sweep, dy: &Tensor) -> Tensor {
        let (isa, convolution) = (Isa::active(), &self.convolution);
        Tensor::build(*self.weight.shape(), |dw| match &self.bottleneck {
            Some(Bottleneck { z, norm, .. }) if self.algorithm.takes_norm(convolution) => {
                self.algorithm.weight_gradient_of_norm(
                    isa,
                    convolution,
                    z.data(),
                    norm.relu(),
                    dy.data(),
                    dw,
                );
            }
            bottleneck => {
                let (x, norm) = match bottleneck {
                    Some(Bottleneck { z, norm, .. }) => {
                        let channels = z.shape().num_channels();
                        (ChannelView { data: z.data(), row: channels, channels }, norm)
                    }
                    None => (sweep.view(self.channels), &self.norm),
                };
                let a = Tensor::build(with_channels(&sweep.maps, x.channels), |a| {
                    kernels::activate(isa, x, norm.relu(), a);
                });
                self.algorithm.weight_gradient(isa, convolution, a.data(), dy.data(), dw);
            }
        })
    }
}
