//! The dense block (Huang et al. 2017, figure 1 and equation 2) as one operation, so that its maps
//! are never copied.
//!
//! By its definition, layer l reads the concatenation of all maps before it,
//!
//! ```text
//! x_l = H_l([x_0, x_1, ... x_(l-1)])
//! H_l = BN, ReLU, 1x1, BN, ReLU, 3x3,  or  BN, ReLU, 3x3
//! ```
//!
//! If it is computed like that (`concat`, `batch_norm`, `conv2d`), every layer copies the maps of
//! all layers before it and normalizes them again, and backward keeps each copy: L layers take
//! L²/2 times the memory of the maps of one. This operation takes memory in proportion to L:
//!
//! * All maps are in one tensor with the final width of the block, which is the result. A layer
//!   writes its own channels, and reads the channels before them in place, through the stride of a
//!   pixel.
//! * The mean and variance of a channel are computed once, by the layer that made it. The
//!   normalizations of the block differ only in gamma and beta.
//! * BN and ReLU are applied while a 1x1 convolution loads a block of pixels, forward and backward,
//!   so the normalized maps exist only in the cache.
//! * Backward adds to one tensor of gradients, from the last layer to the first. When it reaches a
//!   layer, the gradient of that layer's channels is complete, except for the contribution of the
//!   batch statistics. That contribution is a linear function of x for all normalizations together,
//!   see [`kernels::DenseGradient`](crate::kernels::DenseGradient), and is applied as the channels
//!   are read.
//!
//! In evaluation the second normalization is folded into the 1x1 convolution, and weights are
//! packed once: [`FoldedDenseBlock`].
//!
//! Backward keeps the maps, the output of the 1x1 convolution of each bottleneck, and vectors. The
//! inputs of the 3x3 convolutions are recomputed.

mod backward;
mod cost;
mod folded;
mod forward;
mod norm;
mod operands;

use super::{
    Algorithm, Conv2dOptions, Moments, expect_drop_probability, expect_eps, expect_images, expect_vector,
};
use crate::{
    At, Error, Result, Shape, ShapePattern, Tensor,
    autograd::{Mode, Var},
    kernels,
};
pub use folded::FoldedDenseBlock;
use forward::Forward;

/// A batch normalization inside [`Var::dense_block`]; its vectors have one element per input
/// channel.
#[derive(Clone, Debug)]
pub struct DenseBlockNorm<'t> {
    /// The scale of each channel.
    pub gamma: Var<'t>,
    /// The shift of each channel.
    pub beta: Var<'t>,
    /// The constant that is added to the variance, at least 0.
    pub eps: f32,
    /// A mean and a variance to normalize with, in evaluation and in layers whose statistics are
    /// frozen. Without them, the statistics of the batch are used.
    pub fixed: Option<(Tensor, Tensor)>,
}

/// One layer of [`Var::dense_block`], which reads C channels and adds k.
#[derive(Clone, Debug)]
pub struct DenseBlockLayer<'t> {
    /// The normalization of the input, which a ReLU follows.
    pub norm1: DenseBlockNorm<'t>,
    /// The weight `[1, 1, C, B]` of a bottleneck, if there is one, and the normalization of its
    /// output, which a ReLU follows.
    pub bottleneck: Option<(Var<'t>, DenseBlockNorm<'t>)>,
    /// The weight `[3, 3, B, k]`, or without a bottleneck `[3, 3, C, k]`, of a convolution with
    /// padding 1.
    pub weight: Var<'t>,
    /// The algorithm of the 3x3 convolution.
    pub algorithm: Algorithm,
    /// The probability in [0, 1) with which training drops each element of the output.
    pub dropout: f32,
}

/// The statistics that [`Var::dense_block`] computed or used.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DenseBlockMoments {
    /// The statistics that each layer used.
    pub layers: Vec<DenseBlockLayerMoments>,
    /// The statistics of the result, for a normalization after the block, or `None` if those of the
    /// first normalization of every layer are fixed.
    pub maps: Option<Moments>,
}

/// The statistics that a layer of [`Var::dense_block`] used.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DenseBlockLayerMoments {
    /// The statistics of the first normalization.
    pub norm1: Moments,
    /// The statistics of the second normalization, if the layer has a bottleneck.
    pub norm2: Option<Moments>,
}

impl<'t> Var<'t> {
    /// Appends to the input `[N, H, W, C]` the maps of every layer, each of which reads all
    /// channels before its own: `[N, H, W, C + k + k + ...]`. Returns the statistics, too.
    ///
    /// The result is that of `concat`, `batch_norm`, `relu`, `conv2d` and `dropout` (with the same
    /// random numbers), up to rounding.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the input does not have four axes, or a weight or a vector does
    /// not fit its input channels; [`Error::Argument`] if the input has no pixels or no channels,
    /// an eps is negative, a probability is not in [0, 1), or a channel has only one value and
    /// statistics are not fixed. The path of the error names the layer.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape};
    /// use skipgrad::ops::{Algorithm, DenseBlockLayer, DenseBlockNorm};
    /// let tape = Tape::eval();
    /// let x = tape.input(Tensor::full([1, 3, 3, 1], 2.0)?);
    /// let fixed = Some((Tensor::zeros([1])?, Tensor::full([1], 1.0)?));
    /// let one = tape.input(Tensor::full([1], 1.0)?);
    /// let (gamma, beta) = (one.clone(), one);
    /// let norm1 = DenseBlockNorm { gamma, beta, eps: 0.0, fixed };
    /// let weight = tape.input(Tensor::full([3, 3, 1, 1], 1.0)?);
    /// let algorithm = Algorithm::Auto;
    /// let layer = DenseBlockLayer { norm1, bottleneck: None, weight, algorithm, dropout: 0.0 };
    /// let (y, _) = x.dense_block(&[layer])?;
    /// assert_eq!(y.shape(), [1, 3, 3, 2]);
    /// // The pixel in the middle has x, and the sum of nine times x + 1.
    /// assert_eq!(y.value().data()[8..10], [2.0, 27.0]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn dense_block(&self, layers: &[DenseBlockLayer<'t>]) -> Result<(Var<'t>, DenseBlockMoments)> {
        if layers.is_empty() {
            return Ok((self.clone(), DenseBlockMoments { layers: vec![], maps: None }));
        }
        let mut operands = vec![self];
        layers.iter().for_each(|layer| operands.extend(layer.operands()));
        Var::expect_one_tape("dense_block", &operands)?;
        let [batch, height, width, inputs] = expect_images("dense_block", self.shape())?;
        if inputs == 0 {
            return Err(Error::argument("dense_block", "input", "at least one channel", self.shape()));
        }
        let mut channels = inputs;
        let mut convolutions = vec![];
        for (i, layer) in layers.iter().enumerate() {
            let convolution = layer.check([batch, height, width, channels]).at(format_args!("layer {i}"))?;
            channels = channels.saturating_add(convolution.out_channels);
            convolutions.push(convolution);
        }
        let shape = Shape::new(&[batch, height, width, channels])?;
        let tape = self.tape();
        let dropouts = layers
            .iter()
            .map(|layer| {
                let drops_elements = layer.dropout > 0.0 && tape.mode() == Mode::Train;
                drops_elements.then(|| (layer.dropout, tape.rng().bits()))
            })
            .collect();
        let recorded = operands.iter().any(|operand| operand.is_recorded());
        let mut moments = DenseBlockMoments { layers: vec![], maps: None };
        let y = Var::op_many("dense_block", &operands, shape, |values| {
            let forward = Forward::new(values[0], layers, shape, convolutions.clone(), dropouts, recorded);
            let (y, used, backward) = forward.run();
            moments = used;
            (y, move |dy: Tensor, needs: &[bool]| backward.gradients(dy, needs))
        });
        let y = y.costs(|| cost::cost(layers, &convolutions, &shape, recorded));
        Ok((y, moments))
    }
}

impl<'t> DenseBlockNorm<'t> {
    /// Checks that the vectors fit an input of this many rows and channels.
    fn check(&self, rows: usize, channels: usize) -> Result<()> {
        expect_vector("dense_block", "gamma", channels, self.gamma.shape())?;
        expect_vector("dense_block", "beta", channels, self.beta.shape())?;
        expect_eps("dense_block", self.eps)?;
        match &self.fixed {
            Some((mean, var)) => {
                expect_vector("dense_block", "mean", channels, mean.shape())?;
                expect_vector("dense_block", "var", channels, var.shape())
            }
            None if rows < 2 => {
                let expected = "more than one value per channel, to have a variance";
                Err(Error::argument("dense_block", "input", expected, rows))
            }
            None => Ok(()),
        }
    }
}

impl<'t> DenseBlockLayer<'t> {
    /// Checks that the layer fits an input, and returns the geometry of the 3x3 convolution.
    fn check(&self, input: [usize; 4]) -> Result<kernels::Conv2dGeometry> {
        let [batch, height, width, mut channels] = input;
        let rows = batch * height * width;
        self.norm1.check(rows, channels)?;
        if let Some((weight, norm2)) = &self.bottleneck {
            channels = check_weight(weight.shape(), 1, channels)?;
            norm2.check(rows, channels)?;
        }
        check_weight(self.weight.shape(), 3, channels)?;
        expect_drop_probability("dense_block", self.dropout)?;
        let options = Conv2dOptions::new().padding(1);
        options.geometry(&Shape::new(&[batch, height, width, channels])?, self.weight.shape())
    }

    /// Returns the operands, as inputs of [`Var::op_many`].
    fn operands(&self) -> Vec<&Var<'t>> {
        let mut operands = vec![&self.norm1.gamma, &self.norm1.beta];
        if let Some((weight, norm2)) = &self.bottleneck {
            operands.extend([weight, &norm2.gamma, &norm2.beta]);
        }
        operands.push(&self.weight);
        operands
    }
}

/// Checks that a weight is `[size, size, channels, at least 1]`, and returns its output channels.
fn check_weight(weight: &Shape, size: usize, channels: usize) -> Result<usize> {
    match weight[..] {
        [height, width, inputs, outputs]
            if [height, width, inputs] == [size, size, channels] && outputs > 0 =>
        {
            Ok(outputs)
        }
        _ => {
            let expected = ShapePattern::from([size, size, channels]).at_least(1);
            Err(Error::shape("dense_block", "weight", expected, weight))
        }
    }
}

/// Returns the sizes of images, after checking that they have this many channels.
fn check_channels(images: &Shape, channels: usize) -> Result<[usize; 4]> {
    let sizes = expect_images("dense_block", images)?;
    if sizes[3] == channels {
        Ok(sizes)
    } else {
        let expected = ShapePattern::from(["N", "H", "W"]).fixed(channels);
        Err(Error::shape("dense_block", "input", expected, images))
    }
}

/// Returns the shape of the maps with another number of channels, which was checked before.
fn with_channels(maps: &Tensor, channels: usize) -> Shape {
    let mut sizes = maps.shape().to_vec();
    sizes[3] = channels;
    Shape::new(&sizes).expect("the shape was checked")
}

#[cfg(test)]
mod tests;
