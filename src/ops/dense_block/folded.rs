//! The block in evaluation, where mean and variance are constants.

use super::{DenseBlockLayer, DenseBlockNorm, check_channels, with_channels};
use crate::{
    At, Error, Result, Shape, Tensor,
    kernels::{self, ChannelView, ChannelViewMut, Conv2dGeometry, Isa, Packing},
    ops::{Conv2dOptions, batch_norm::Affine, folded_conv2d::FoldedWeight},
};

/// The layers of [`Var::dense_block`](crate::autograd::Var::dense_block) for evaluation.
///
/// The second normalization of a bottleneck is folded into the weight of its 1x1 convolution. All
/// weights are packed into the order that the kernels read, once, when they are first needed.
/// Threads may share a folded block. It is a function of tensors: no gradient flows through it.
///
/// ```
/// use skipgrad::{Tensor, autograd::Tape};
/// use skipgrad::ops::{Algorithm, DenseBlockLayer, DenseBlockNorm, FoldedDenseBlock};
/// let tape = Tape::eval();
/// let fixed = Some((Tensor::zeros([1])?, Tensor::full([1], 1.0)?));
/// let one = tape.input(Tensor::full([1], 1.0)?);
/// let (gamma, beta) = (one.clone(), one);
/// let norm1 = DenseBlockNorm { gamma, beta, eps: 0.0, fixed };
/// let weight = tape.input(Tensor::full([3, 3, 1, 1], 1.0)?);
/// let algorithm = Algorithm::Auto;
/// let layer = DenseBlockLayer { norm1, bottleneck: None, weight, algorithm, dropout: 0.0 };
/// let block = FoldedDenseBlock::new(1, &[layer])?;
/// let y = block.apply(&Tensor::full([1, 3, 3, 1], 2.0)?)?;
/// // The pixel in the middle has x, and the sum of nine times x + 1.
/// assert_eq!(y.data()[8..10], [2.0, 27.0]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Debug)]
pub struct FoldedDenseBlock {
    inputs: usize,
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    norm: Affine,
    /// The 1x1 convolution with the second normalization folded in, and the shift of the latter.
    bottleneck: Option<(FoldedWeight, Tensor)>,
    weight: FoldedWeight,
}

/// The packed convolutions of a layer for maps of some size.
struct Convolutions<'a> {
    bottleneck: Option<&'a Tensor>,
    sizes: Conv2dGeometry,
    packing: Packing,
    packed: &'a Tensor,
}

impl FoldedDenseBlock {
    /// Folds layers, the first of which reads `inputs` channels. Weights are shared, not copied,
    /// and dropout does nothing, as always in evaluation.
    ///
    /// # Errors
    /// Those of [`Var::dense_block`](crate::autograd::Var::dense_block) for weights and vectors
    /// that do not fit, and [`Error::Argument`] if the statistics of a normalization are not fixed.
    pub fn new(inputs: usize, layers: &[DenseBlockLayer<'_>]) -> Result<FoldedDenseBlock> {
        let mut channels = inputs;
        let mut folded = vec![];
        for (i, layer) in layers.iter().enumerate() {
            let convolution = layer.check([1, 1, 1, channels]).at(format_args!("layer {i}"))?;
            folded.push(Layer::new(layer).at(format_args!("layer {i}"))?);
            channels = channels.saturating_add(convolution.out_channels);
        }
        log::debug!("folded a dense block of {} layers for evaluation", folded.len());
        Ok(FoldedDenseBlock { inputs, layers: folded })
    }

    /// Computes the block of `[N, H, W, C]`: `[N, H, W, C + k + k + ...]`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the input does not have four axes or C channels;
    /// [`Error::Argument`] if it has no pixels.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let [batch, height, width, _] = check_channels(x.shape(), self.inputs)?;
        let images = |channels: usize| Shape::new(&[batch, height, width, channels]);
        let mut channels = self.inputs;
        let mut convolutions = vec![];
        for layer in &self.layers {
            let convolution = layer.convolutions(&images(channels)?, images)?;
            channels += convolution.sizes.out_channels;
            convolutions.push(convolution);
        }
        let shape = images(channels)?;
        Ok(crate::install(|| self.compute(x, shape, &convolutions)))
    }

    fn compute(&self, x: &Tensor, shape: Shape, convolutions: &[Convolutions<'_>]) -> Tensor {
        let (isa, row) = (Isa::active(), shape.num_channels());
        let mut maps = Tensor::build(shape, |maps| {
            kernels::put_channels(isa, x.data(), self.inputs, maps, row, 0);
        });
        let mut channels = self.inputs;
        for (layer, Convolutions { bottleneck, sizes, packing, packed }) in
            self.layers.iter().zip(convolutions)
        {
            let inner = Tensor::build(with_channels(&maps, sizes.in_channels), |a| {
                let features = ChannelView { data: maps.data(), row, channels };
                let norm = layer.norm.relu();
                match (bottleneck, &layer.bottleneck) {
                    (Some(weight), Some((_, shift))) => {
                        let (weight, shift) = (weight.data(), shift.data());
                        kernels::activate_product_packed(isa, features, norm, weight, shift, a);
                    }
                    _ => kernels::activate(isa, features, norm, a),
                }
            });
            let slot = ChannelViewMut { data: maps.data_mut(), row, first: channels };
            packing.conv2d_into(isa, sizes, inner.data(), packed.data(), slot);
            channels += sizes.out_channels;
        }
        maps
    }
}

impl Layer {
    fn new(layer: &DenseBlockLayer<'_>) -> Result<Layer> {
        let options = Conv2dOptions::new().algorithm(layer.algorithm);
        let bottleneck = match &layer.bottleneck {
            None => None,
            Some((weight, norm2)) => {
                let Affine { scale, shift, .. } = affine(norm2)?;
                Some((FoldedWeight::new(weight.value(), Some(scale), options), shift))
            }
        };
        let options = options.padding(1);
        let weight = FoldedWeight::new(layer.weight.value(), None, options);
        Ok(Layer { norm: affine(&layer.norm1)?, bottleneck, weight })
    }

    /// Returns the packed convolutions for maps of this shape; `images` makes the shape of maps
    /// with another number of channels.
    fn convolutions(
        &self,
        maps: &Shape,
        images: impl Fn(usize) -> Result<Shape>,
    ) -> Result<Convolutions<'_>> {
        let (mut inner, mut bottleneck) = (*maps, None);
        if let Some((weight, _)) = &self.bottleneck {
            let sizes = weight.sizes(maps)?;
            inner = images(sizes.out_channels)?;
            bottleneck = Some(weight.packed(&sizes)?.1);
        }
        let sizes = self.weight.sizes(&inner)?;
        let (packing, packed) = self.weight.packed(&sizes)?;
        Ok(Convolutions { bottleneck, sizes, packing, packed })
    }
}

/// Returns a normalization with fixed statistics as a multiplication and an addition.
fn affine(norm: &DenseBlockNorm<'_>) -> Result<Affine> {
    let Some((mean, var)) = &norm.fixed else {
        return Err(Error::argument("dense_block", "fixed", "mean and variance for every norm", "none"));
    };
    Ok(Affine::new([norm.gamma.value(), norm.beta.value()], [mean, var], norm.eps))
}
