//! The block in evaluation, where mean and variance are constants.

use super::{DenseBlockLayer, DenseBlockNorm, check_channels, with_channels};
use crate::{
    At, Error, Result, Shape, Tensor,
    kernels::{self, ChannelView, ChannelViewMut, Conv2dGeometry, Isa, Packing},
    ops::{Conv2dOptions, Padding, batch_norm::Affine, folded_conv2d::FoldedWeight},
};

/// The layers of [`Var::dense_block`](crate::autograd::Var::dense_block) for evaluation: the second norm of a bottleneck is folded
/// into the weight of its 1x1 convolution, and all weights are brought into the order that the kernels read when they are first
/// needed, and used from then on. Threads may share it.
///
/// It is a function of tensors: no gradient flows through.
///
/// ```
/// use skipgrad::{Tensor, autograd::Tape, ops::{Algorithm, DenseBlockLayer, DenseBlockNorm, FoldedDenseBlock}};
/// let tape = Tape::eval();
/// let given = Some((Tensor::zeros([1])?, Tensor::full([1], 1.0)?));
/// let (gamma, beta) = (tape.input(Tensor::full([1], 1.0)?), tape.input(Tensor::full([1], 1.0)?));
/// let norm1 = DenseBlockNorm { gamma, beta, eps: 0.0, given };
/// let weight = tape.input(Tensor::full([3, 3, 1, 1], 1.0)?);
/// let layer = DenseBlockLayer { norm1, bottleneck: None, weight, algorithm: Algorithm::Auto, dropout: 0.0 };
/// let block = FoldedDenseBlock::new(1, &[layer])?;
/// let y = block.apply(&Tensor::full([1, 3, 3, 1], 2.0)?)?;
/// assert_eq!(y.data()[8..10], [2.0, 27.0]); // the pixel in the middle: x, and the sum of nine times x + 1
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
    /// The 1x1 convolution with the second norm in it, and what that adds.
    bottleneck: Option<(FoldedWeight, Tensor)>,
    weight: FoldedWeight,
}

/// A layer's convolutions, of maps of some size.
struct Convolutions<'a> {
    bottleneck: Option<&'a Tensor>,
    sizes: Conv2dGeometry,
    packing: Packing,
    packed: &'a Tensor,
}

impl FoldedDenseBlock {
    /// Of layers of which the first reads so many channels. Weights are shared, not copied; dropout is training's.
    ///
    /// # Errors
    /// [`Error::Argument`] as [`Var::dense_block`](crate::autograd::Var::dense_block) for weights and vectors that do not fit, and
    /// if a norm has no given statistics.
    pub fn new(inputs: usize, layers: &[DenseBlockLayer<'_>]) -> Result<FoldedDenseBlock> {
        let mut channels = inputs;
        let mut folded = vec![];
        for (i, layer) in layers.iter().enumerate() {
            let convolution = layer.check([1, 1, 1, channels]).at(format_args!("layer {i}"))?;
            folded.push(Layer::new(layer).at(format_args!("layer {i}"))?);
            channels = channels.saturating_add(convolution.out_channels);
        }
        Ok(FoldedDenseBlock { inputs, layers: folded })
    }

    /// The block of `[N, H, W, C]`: `[N, H, W, C + k + k + ...]`.
    ///
    /// # Errors
    /// [`Error::Argument`] if the input has not four axes, no pixels, or other channels.
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
        let options = Conv2dOptions { algorithm: layer.algorithm, ..Conv2dOptions::default() };
        let bottleneck = match &layer.bottleneck {
            None => None,
            Some((weight, norm2)) => {
                let Affine { scale, shift, .. } = affine(norm2)?;
                Some((FoldedWeight::new(weight.value(), Some(scale), options), shift))
            }
        };
        let options = Conv2dOptions { padding: Padding::Zeros([1, 1]), ..options };
        let weight = FoldedWeight::new(layer.weight.value(), None, options);
        Ok(Layer { norm: affine(&layer.norm1)?, bottleneck, weight })
    }

    /// Packed for maps of this shape; `images` makes the shape of others.
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

/// The norm as a multiplication and an addition.
fn affine(norm: &DenseBlockNorm<'_>) -> Result<Affine> {
    let Some((mean, var)) = &norm.given else {
        return Err(Error::argument("dense_block", "given", "mean and variance for every norm", "none"));
    };
    Ok(Affine::new([norm.gamma.value(), norm.beta.value()], [mean, var], norm.eps))
}
