//! From the last layer to the first.

use super::{DenseBlockNorm, with_channels};
use crate::{
    Tensor,
    autograd::Var,
    kernels::{
        self, Algorithm, BatchNormSums, ChannelView, DenseGradient, Isa, NormGradient, NormRelu, Normalized,
        ProductGradient, StatisticsGradient,
    },
    ops::{
        Moments,
        batch_norm::{Affine, vector},
        dropout::drop_elements,
    },
};
use std::ops::Range;

/// A normalization as a multiplication and an addition.
pub(super) struct Norm {
    pub(super) affine: Affine,
    /// Whether the statistics are constants.
    given: bool,
}

impl Norm {
    pub(super) fn new(norm: &DenseBlockNorm<'_>, moments: &Moments) -> Norm {
        let affine =
            Affine::new([&norm.gamma, &norm.beta].map(Var::value), [&moments.mean, &moments.var], norm.eps);
        Norm { affine, given: norm.given.is_some() }
    }

    pub(super) fn relu(&self) -> NormRelu<'_> {
        self.affine.relu()
    }
}

/// What backward keeps of a bottleneck.
pub(super) struct Bottleneck {
    /// Of the 1x1 convolution.
    pub(super) weight: Tensor,
    /// Its result.
    pub(super) z: Tensor,
    /// The second norm.
    pub(super) norm: Norm,
}

/// What backward keeps of a layer.
pub(super) struct LayerRule {
    /// The number of its first operand.
    pub(super) operand: usize,
    /// Channels that it reads.
    pub(super) channels: usize,
    /// The first norm.
    pub(super) norm: Norm,
    pub(super) bottleneck: Option<Bottleneck>,
    /// The 3x3 convolution.
    pub(super) convolution: kernels::Conv2dGeometry,
    pub(super) weight: Tensor,
    pub(super) algorithm: Algorithm,
    /// Probability and seed.
    pub(super) drops: Option<(f32, u64)>,
}

/// What backward keeps.
pub(super) struct Rule {
    /// All maps.
    pub(super) maps: Tensor,
    /// Channels of the input.
    pub(super) inputs: usize,
    /// The mean of each channel, where a norm uses the batch's.
    pub(super) mean: Vec<f32>,
    pub(super) layers: Vec<LayerRule>,
}

impl Rule {
    /// The gradients of all operands that need one.
    pub(super) fn gradients(self, dy: Tensor, needs: &[bool]) -> Vec<Option<Tensor>> {
        crate::install(|| self.sweep(dy, needs))
    }

    fn sweep(mut self, dy: Tensor, needs: &[bool]) -> Vec<Option<Tensor>> {
        let channels = self.mean.len();
        let mut sweep = Sweep {
            maps: self.maps,
            gradient: dy,
            mean: self.mean,
            offset: vec![0.0; channels],
            slope: vec![0.0; channels],
        };
        let mut results = vec![None; needs.len()];
        let unneeded = |layer: &&LayerRule| !needs[..layer.operands().end].contains(&true);
        let mut layers = self.layers.split_off(self.layers.iter().take_while(unneeded).count());
        while !layers.is_empty() {
            let widths = layers.iter().map(|layer| layer.convolution.in_channels);
            let group = layers.split_off(layers.len() - taken_together(widths));
            sweep.group(group, needs, &mut results);
        }
        results[0] = needs[0].then(|| sweep.take(0, self.inputs));
        results
    }
}

/// Most columns of products whose gradients are taken together: their dw is to stay in the cache, too.
const COLUMNS: usize = 256;

/// How many of the last layers, whose 3x3 convolutions read so many channels, share a pass over what all of them read.
pub(super) fn taken_together(widths: impl DoubleEndedIterator<Item = usize>) -> usize {
    let mut columns = 0;
    let fits = |width: &usize| {
        columns += width;
        columns <= COLUMNS
    };
    widths.rev().take_while(fits).count().max(1)
}

/// The sweep over the layers.
struct Sweep {
    maps: Tensor,
    /// Of all maps; complete for those that no remaining layer reads, but for the lines.
    gradient: Tensor,
    mean: Vec<f32>,
    /// What batch statistics add to the gradient of each channel: `offset + slope (x - mean)`.
    offset: Vec<f64>,
    slope: Vec<f64>,
}

impl Sweep {
    /// The complete gradient of `width` channels from `start` on.
    fn take(&self, start: usize, width: usize) -> Tensor {
        let slot = start..start + width;
        let [offset, slope] = [&self.offset, &self.slope]
            .map(|line| line[slot.clone()].iter().map(|&x| x as f32).collect::<Vec<_>>());
        let line = StatisticsGradient { offset: &offset, slope: &slope, mean: &self.mean[slot.clone()] };
        Tensor::build(with_channels(&self.maps, width), |out| {
            kernels::channel_gradient(
                Isa::active(),
                self.gradient.data(),
                self.features(self.mean.len()),
                slot,
                line,
                out,
            );
        })
    }

    /// The first channels of the maps.
    fn features(&self, channels: usize) -> ChannelView<'_> {
        ChannelView { data: self.maps.data(), row: self.mean.len(), channels }
    }

    /// Takes the last layers back. Each needs the gradient of what it made complete before, so what later layers of the group
    /// contribute to that is added at once; what they contribute to the channels that all of them read, in one pass at the end.
    fn group(&mut self, mut layers: Vec<LayerRule>, needs: &[bool], results: &mut [Option<Tensor>]) {
        let shared = layers[0].channels;
        let mut products = vec![];
        // Popped, so that what a layer kept is free for those before it.
        while let Some(layer) = layers.pop() {
            let below = needs[..layer.operands().start].contains(&true);
            let operands = layer.operands();
            let mut product = layer.gradients(self, &needs[operands.clone()], below, &mut results[operands]);
            if let Some(product) = &mut product {
                self.add_products(shared..product.num_channels(), std::slice::from_mut(product));
            }
            products.extend(product);
        }
        self.add_products(0..shared, &mut products);
        for product in products {
            let first = product.operand;
            product.gradients(&needs[first..], &mut results[first..]);
        }
    }

    /// Adds to the gradient of some channels of the maps what reaches them through products, and to the products' gradients
    /// what these channels contribute.
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
            self.add_line(&product.norm, channels.clone(), &sums);
            product.sums.dy[channels.clone()].copy_from_slice(&sums.dy);
            product.sums.dy_deviation[channels.clone()].copy_from_slice(&sums.dy_deviation);
        }
    }

    /// Adds to the gradient of the maps what reaches them through a normalization and a ReLU, from the gradient behind.
    fn add_activation(&mut self, norm: &Norm, da: &Tensor) -> BatchNormSums {
        let gradient = norm.gradient_of(self.maps.data(), self.mean.len());
        let sums = gradient.of_activation(Isa::active(), da.data(), self.gradient.data_mut());
        self.add_line(norm, 0..norm.num_channels(), &sums);
        sums
    }

    /// Notes what the batch statistics of a norm add to the gradient of some channels.
    fn add_line(&mut self, norm: &Norm, channels: Range<usize>, sums: &BatchNormSums) {
        let line = norm.line(channels.clone(), sums, self.maps.shape().num_rows());
        for (all, line) in [&mut self.offset, &mut self.slope].into_iter().zip(line) {
            all[channels.clone()].iter_mut().zip(line).for_each(|(all, line)| *all += line);
        }
    }
}

/// The product of a bottleneck layer, whose gradient is complete but for some of the channels that it read.
struct Product {
    /// The number of the layer's first operand.
    operand: usize,
    /// The first norm, and its sums.
    norm: Norm,
    sums: BatchNormSums,
    bottleneck: Bottleneck,
    /// The gradient behind the second norm, and what batch statistics add in front of it: offset and slope.
    da: Tensor,
    line: [Tensor; 2],
    /// The gradient of the weight, if it is wanted.
    dw: Option<Tensor>,
}

impl Product {
    /// Channels that it read.
    fn num_channels(&self) -> usize {
        self.norm.num_channels()
    }

    /// For the kernel; the maps have `row` channels.
    fn kernel<'a>(&'a mut self, maps: &'a [f32], row: usize) -> ProductGradient<'a> {
        let Bottleneck { weight, z, norm } = &self.bottleneck;
        let [offset, slope] = self.line.each_ref().map(Tensor::data);
        let line = StatisticsGradient { offset, slope, mean: norm.affine.mean.data() };
        ProductGradient {
            features: self.norm.gradient_of(maps, row),
            w: weight.data(),
            dz: NormGradient { z: z.data(), da: self.da.data(), norm: norm.relu(), statistics: line },
            dw: self.dw.as_mut().map(Tensor::data_mut),
        }
    }

    /// Those of the first norm and of the weight, when all channels have contributed.
    fn gradients(self, needs: &[bool], results: &mut [Option<Tensor>]) {
        let (dgamma, dbeta) = self.norm.affine.gradients(&self.sums);
        (results[0], results[1]) = (needs[0].then_some(dgamma), needs[1].then_some(dbeta));
        results[2] = self.dw;
    }
}

impl LayerRule {
    /// The numbers of its operands.
    fn operands(&self) -> Range<usize> {
        self.operand..self.operand + if self.bottleneck.is_some() { 6 } else { 3 }
    }

    /// The gradients of its operands but for those of the product, which is returned; `below` says whether any is needed of
    /// what it reads.
    fn gradients(
        mut self,
        sweep: &mut Sweep,
        needs: &[bool],
        below: bool,
        results: &mut [Option<Tensor>],
    ) -> Option<Product> {
        let mut dy = sweep.take(self.channels, self.convolution.out_channels);
        if let Some((p, seed)) = self.drops {
            drop_elements(p, seed, &mut dy);
        }
        let last = needs.len() - 1;
        results[last] = needs[last].then(|| self.weight_gradient(sweep, &dy));
        if !below && !needs[..last].contains(&true) {
            return None;
        }
        let isa = Isa::active();
        let (convolution, weight) = (&self.convolution, self.weight.data());
        let inner = with_channels(&sweep.maps, convolution.in_channels);
        let Some(bottleneck) = self.bottleneck.take() else {
            let da = Tensor::build(inner, |da| {
                self.algorithm.input_gradient(isa, convolution, dy.data(), weight, da);
            });
            let (dgamma, dbeta) = self.norm.affine.gradients(&sweep.add_activation(&self.norm, &da));
            (results[0], results[1]) = (needs[0].then_some(dgamma), needs[1].then_some(dbeta));
            return None;
        };
        let mut sums = None;
        let da = Tensor::build(inner, |da| {
            let behind = bottleneck.behind();
            sums = Some(self.algorithm.input_gradient_sums(isa, convolution, dy.data(), weight, behind, da));
        });
        let sums = sums?;
        let (dgamma, dbeta) = bottleneck.norm.affine.gradients(&sums);
        (results[3], results[4]) = (needs[3].then_some(dgamma), needs[4].then_some(dbeta));
        if !below && !needs[..3].contains(&true) {
            return None;
        }
        let zeros = vec![0.0; self.channels];
        Some(Product {
            operand: self.operand,
            norm: self.norm,
            sums: BatchNormSums { dy: zeros.clone(), dy_deviation: zeros },
            line: bottleneck.line(&sums),
            dw: needs[2].then(|| Tensor::build(*bottleneck.weight.shape(), |_| ())),
            bottleneck,
            da,
        })
    }

    /// Of the 3x3 convolution.
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
                    None => (sweep.features(self.channels), &self.norm),
                };
                let a = Tensor::build(with_channels(&sweep.maps, x.channels), |a| {
                    kernels::activate(isa, x, norm.relu(), a);
                });
                self.algorithm.weight_gradient(isa, convolution, a.data(), dy.data(), dw);
            }
        })
    }
}

impl Norm {
    fn num_channels(&self) -> usize {
        self.affine.scale.data().len()
    }

    /// The maps that it normalizes, which have `row` channels, with it.
    fn gradient_of<'a>(&'a self, maps: &'a [f32], row: usize) -> DenseGradient<'a> {
        let x = ChannelView { data: maps, row, channels: self.num_channels() };
        DenseGradient { x, norm: self.relu(), mean: self.affine.mean.data() }
    }

    /// What batch statistics of so many rows add to the gradient of some channels of what is normalized: offset and slope, see [`StatisticsGradient`].
    fn line(&self, channels: Range<usize>, sums: &BatchNormSums, rows: usize) -> [Vec<f64>; 2] {
        let [scale, inverse_std] =
            [&self.affine.scale, &self.affine.inverse_std].map(|all| &all.data()[channels.clone()]);
        let shares =
            scale.iter().map(|&scale| if self.given { 0.0 } else { -f64::from(scale) / rows as f64 });
        let offset = shares.clone().zip(&sums.dy).map(|(share, dy)| share * dy).collect();
        let slopes = shares.zip(&sums.dy_deviation).zip(inverse_std);
        [offset, slopes.map(|((share, sum), &inverse)| share * sum * f64::from(inverse).powi(2)).collect()]
    }
}

impl Bottleneck {
    /// What the 3x3 convolution stands behind.
    fn behind(&self) -> Normalized<'_> {
        Normalized { x: self.z.data(), norm: self.norm.relu(), mean: self.norm.affine.mean.data() }
    }

    /// What batch statistics add to the gradient of z, from the sums of the second norm.
    fn line(&self, sums: &BatchNormSums) -> [Tensor; 2] {
        let line = self.norm.line(0..self.norm.num_channels(), sums, self.z.shape().num_rows());
        line.map(|line| vector(*self.norm.affine.mean.shape(), |c| line[c]))
    }
}
