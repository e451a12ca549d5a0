//! From the last layer to the first.

use super::{DenseBlockNorm, with_channels};
use crate::{
    Tensor,
    autograd::Var,
    kernels::{
        self, Algorithm, BatchNormSums, DenseGradient, Features, Isa, Line, NormGradient, NormRelu,
        Normalised,
    },
    ops::{
        Moments,
        batch_norm::{Affine, vector},
        dropout::drop_elements,
    },
};

/// A normalisation as a multiplication and an addition.
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
    pub(super) convolution: kernels::Conv2d,
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
        kernels::on_pool(|| self.sweep(dy, needs))
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
        // Popped, so that what a layer kept is free for those before it.
        while let Some(layer) = self.layers.pop() {
            let end = layer.operand + layer.operands();
            if !needs[..end].contains(&true) {
                break;
            }
            let below = needs[..layer.operand].contains(&true);
            let first = layer.operand;
            for (i, gradient) in
                layer.gradients(&mut sweep, &needs[first..end], below).into_iter().enumerate()
            {
                results[first + i] = gradient;
            }
        }
        results[0] = needs[0].then(|| sweep.take(0, self.inputs));
        results
    }
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
        let line = Line { offset: &offset, slope: &slope, mean: &self.mean[slot.clone()] };
        Tensor::build(with_channels(&self.maps, width), |out| {
            kernels::take_slot(
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
    fn features(&self, channels: usize) -> Features<'_> {
        Features { data: self.maps.data(), row: self.mean.len(), channels }
    }

    /// Adds to the gradient of the maps what reaches them through a norm and what stands behind it: `add` adds what does not
    /// rest on statistics and returns the sums.
    fn add_through(
        &mut self,
        norm: &Norm,
        add: impl FnOnce(DenseGradient<'_>, &mut [f32]) -> BatchNormSums,
    ) -> BatchNormSums {
        let mean = &norm.affine.mean;
        let x = Features { data: self.maps.data(), row: self.mean.len(), channels: mean.data().len() };
        let gradient = DenseGradient { x, norm: norm.relu(), mean: mean.data() };
        let sums = add(gradient, self.gradient.data_mut());
        let [offset, slope] = norm.line(&sums, self.maps.shape().rows());
        self.offset.iter_mut().zip(offset).for_each(|(all, offset)| *all += offset);
        self.slope.iter_mut().zip(slope).for_each(|(all, slope)| *all += slope);
        sums
    }
}

impl LayerRule {
    /// How many operands it has.
    fn operands(&self) -> usize {
        if self.bottleneck.is_some() { 6 } else { 3 }
    }

    /// The gradients of its operands; `below` says whether any is needed of what it reads.
    fn gradients(self, sweep: &mut Sweep, needs: &[bool], below: bool) -> Vec<Option<Tensor>> {
        let mut dy = sweep.take(self.channels, self.convolution.out_channels);
        if let Some((p, seed)) = self.drops {
            drop_elements(p, seed, &mut dy);
        }
        let (operands, last) = (needs.len(), needs.len() - 1);
        let mut results = vec![None; operands];
        results[last] = needs[last].then(|| self.weight_gradient(sweep, &dy));
        if !below && !needs[..last].contains(&true) {
            return results;
        }
        let isa = Isa::active();
        let (convolution, weight) = (&self.convolution, self.weight.data());
        let mut sums = None;
        let da =
            Tensor::build(with_channels(&sweep.maps, convolution.in_channels), |da| match &self.bottleneck {
                Some(bottleneck) => {
                    let behind = bottleneck.behind();
                    let found =
                        self.algorithm.input_gradient_sums(isa, convolution, dy.data(), weight, behind, da);
                    sums = Some(found);
                }
                None => self.algorithm.input_gradient(isa, convolution, dy.data(), weight, da),
            });
        drop(dy);
        let sums = match self.bottleneck.as_ref().zip(sums) {
            Some((bottleneck, sums)) => {
                let line = bottleneck.line(&sums);
                let of_sums = bottleneck.norm.affine.gradients(&sums);
                (results[3], results[4]) = (needs[3].then_some(of_sums.0), needs[4].then_some(of_sums.1));
                if !below && !needs[..3].contains(&true) {
                    return results;
                }
                let weight = &bottleneck.weight;
                let mut dw = needs[2].then(|| Tensor::build(*weight.shape(), |_| ()));
                let sums = sweep.add_through(&self.norm, |gradient, dx| {
                    let mean = bottleneck.norm.affine.mean.data();
                    let line = Line { offset: line[0].data(), slope: line[1].data(), mean };
                    let norm = bottleneck.norm.relu();
                    let dz = NormGradient { z: bottleneck.z.data(), da: da.data(), norm, line };
                    gradient.of_product(isa, weight.data(), &dz, dw.as_mut().map(Tensor::data_mut), dx)
                });
                results[2] = dw;
                sums
            }
            None => sweep.add_through(&self.norm, |gradient, dx| gradient.of_activation(isa, da.data(), dx)),
        };
        let of_sums = self.norm.affine.gradients(&sums);
        (results[0], results[1]) = (needs[0].then_some(of_sums.0), needs[1].then_some(of_sums.1));
        results
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
                        let channels = z.shape().channels();
                        (Features { data: z.data(), row: channels, channels }, norm)
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
    /// What batch statistics of so many rows add to the gradient of what is normalised: offset and slope, see [`Line`].
    fn line(&self, sums: &BatchNormSums, rows: usize) -> [Vec<f64>; 2] {
        let Affine { scale, inverse_std, .. } = &self.affine;
        let shares =
            scale.data().iter().map(|&scale| if self.given { 0.0 } else { -f64::from(scale) / rows as f64 });
        let offset = shares.clone().zip(&sums.dy).map(|(share, dy)| share * dy).collect();
        let slopes = shares.zip(&sums.dy_deviation).zip(inverse_std.data());
        [offset, slopes.map(|((share, sum), &inverse)| share * sum * f64::from(inverse).powi(2)).collect()]
    }
}

impl Bottleneck {
    /// What the 3x3 convolution stands behind.
    fn behind(&self) -> Normalised<'_> {
        Normalised { x: self.z.data(), norm: self.norm.relu(), mean: self.norm.affine.mean.data() }
    }

    /// What batch statistics add to the gradient of z, from the sums of the second norm.
    fn line(&self, sums: &BatchNormSums) -> [Tensor; 2] {
        let line = self.norm.line(sums, self.z.shape().rows());
        line.map(|line| vector(*self.norm.affine.mean.shape(), |c| line[c]))
    }
}
