//! The dense block (Huang et al. 2017, figure 1 and equation 2) as one operation, so that its maps are never copied.
//!
//! By its definition, layer l reads the concatenation of all maps before it,
//!
//! ```text
//! x_l = H_l([x_0, x_1, ... x_(l-1)])      H_l = BN, ReLU, 1x1, BN, ReLU, 3x3,  or  BN, ReLU, 3x3
//! ```
//!
//! and computed so (`concat`, `batch_norm`, `conv2d`), every layer copies what all others made, normalizes it once more, and
//! backward keeps each copy: for L layers L²/2 times the maps of one. Here it is done otherwise.
//!
//! * All maps lie in one tensor of the block's final width, which is the result. A layer writes its own channels into their
//!   slot and reads those before it where they lie, through the stride of a pixel.
//! * Mean and variance of a channel are computed once, by the layer that made it. The norms of the block differ in gamma and
//!   beta only.
//! * BN and ReLU are applied while a 1x1 convolution fetches a block of pixels, in either direction, so the normalized maps
//!   exist only in the cache.
//! * Backward adds to one tensor of gradients, from the last layer to the first. When it comes to a layer, the gradient of that
//!   layer's channels is complete; but for what batch statistics contribute, which for all norms together is a line in x,
//!   see [`kernels::DenseGradient`](crate::kernels::DenseGradient), applied as the channels are read.
//!
//! In evaluation the second norm is folded into the 1x1 convolution, and weights are packed once: [`FoldedDenseBlock`].
//!
//! Backward keeps the maps, for each bottleneck what its 1x1 convolution gave, and vectors: memory in proportion to the layers.
//! What stands in front of the 3x3 convolutions is computed again.

mod backward;
mod cost;
mod folded;
mod forward;

use super::{
    Algorithm, Conv2dOptions, Moments, Padding, expect_drop_probability, expect_eps, expect_images,
    expect_vector,
};
use crate::{
    At, Error, Result, Shape, ShapePattern, Tensor,
    autograd::{Mode, Var},
    kernels,
};
pub use folded::FoldedDenseBlock;
use forward::Forward;

/// A batch normalization inside of [`Var::dense_block`]; its vectors have a number for each channel that it reads.
#[derive(Clone, Debug)]
pub struct DenseBlockNorm<'t> {
    /// The factor of each channel.
    pub gamma: Var<'t>,
    /// The offset of each channel.
    pub beta: Var<'t>,
    /// What is added to the variance, at least 0.
    pub eps: f32,
    /// Mean and variance to be used as constants: evaluation, or frozen layers. Without them, the batch's.
    pub given: Option<(Tensor, Tensor)>,
}

/// One layer of [`Var::dense_block`], which reads C channels and makes k.
#[derive(Clone, Debug)]
pub struct DenseBlockLayer<'t> {
    /// The normalization of what comes in, in front of a ReLU.
    pub norm1: DenseBlockNorm<'t>,
    /// In the bottleneck form the weight `[1, 1, C, B]`, and the normalization of its result, in front of a ReLU.
    pub bottleneck: Option<(Var<'t>, DenseBlockNorm<'t>)>,
    /// The weight `[3, 3, B, k]`, or without a bottleneck `[3, 3, C, k]`; the image is padded with a zero on each side.
    pub weight: Var<'t>,
    /// How the 3x3 convolution is computed.
    pub algorithm: Algorithm,
    /// The probability in [0, 1) with which training drops each new value.
    pub dropout: f32,
}

/// The statistics that [`Var::dense_block`] found out.
#[derive(Clone, Debug)]
pub struct DenseBlockMoments {
    /// What each layer used.
    pub layers: Vec<DenseBlockLayerMoments>,
    /// Those of the result, for a norm behind the block; nothing where no layer's first norm uses the batch's.
    pub maps: Option<Moments>,
}

/// The statistics that a layer of [`Var::dense_block`] used.
#[derive(Clone, Debug)]
pub struct DenseBlockLayerMoments {
    /// Those of its first norm.
    pub norm1: Moments,
    /// Those of a bottleneck's second norm.
    pub norm2: Option<Moments>,
}

impl<'t> Var<'t> {
    /// The input `[N, H, W, C]` and, beside it in the channels, the new maps of every layer, each of which reads all channels before
    /// its own: `[N, H, W, C + k + k + ...]`. Returns the statistics, too.
    ///
    /// The result is that of `concat`, `batch_norm`, `relu`, `conv2d` and `dropout` (which draws the same numbers), up to rounding.
    ///
    /// # Errors
    /// [`Error::Argument`] if the input has not four axes, no pixels or no channels; if a weight or a vector does not fit the
    /// channels that it meets; if an eps is negative, or a probability not in [0, 1); and, for a norm without given
    /// statistics, if a channel has only one value. Errors of a layer say which.
    ///
    /// ```
    /// use skipgrad::{Tensor, autograd::Tape, ops::{Algorithm, DenseBlockLayer, DenseBlockNorm}};
    /// let tape = Tape::eval();
    /// let x = tape.input(Tensor::full([1, 3, 3, 1], 2.0)?);
    /// let given = Some((Tensor::zeros([1])?, Tensor::full([1], 1.0)?));
    /// let (gamma, beta) = (tape.input(Tensor::full([1], 1.0)?), tape.input(Tensor::full([1], 1.0)?));
    /// let norm1 = DenseBlockNorm { gamma, beta, eps: 0.0, given };
    /// let weight = tape.input(Tensor::full([3, 3, 1, 1], 1.0)?);
    /// let layer = DenseBlockLayer { norm1, bottleneck: None, weight, algorithm: Algorithm::Auto, dropout: 0.0 };
    /// let (y, _) = x.dense_block(&[layer])?;
    /// assert_eq!(y.shape(), [1, 3, 3, 2]);
    /// assert_eq!(y.value().data()[8..10], [2.0, 27.0]); // the pixel in the middle: x, and the sum of nine times x + 1
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn dense_block(&self, layers: &[DenseBlockLayer<'t>]) -> Result<(Var<'t>, DenseBlockMoments)> {
        if layers.is_empty() {
            return Ok((self.clone(), DenseBlockMoments { layers: vec![], maps: None }));
        }
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
        let drops = layers
            .iter()
            .map(|layer| {
                let drops = layer.dropout > 0.0 && tape.mode() == Mode::Train;
                drops.then(|| (layer.dropout, tape.rng().bits()))
            })
            .collect();
        let mut operands = vec![self];
        layers.iter().for_each(|layer| operands.extend(layer.operands()));
        let recorded = operands.iter().any(|operand| operand.is_recorded());
        let mut moments = DenseBlockMoments { layers: vec![], maps: None };
        let y = Var::op_many("dense_block", &operands, shape, |values| {
            let forward = Forward::new(values[0], layers, shape, convolutions.clone(), drops, recorded);
            let (y, used, rule) = forward.run();
            moments = used;
            (y, move |dy: Tensor, needs: &[bool]| rule.gradients(dy, needs))
        });
        let y = y.costs(|| cost::cost(layers, &convolutions, &shape, recorded));
        Ok((y, moments))
    }
}

impl<'t> DenseBlockNorm<'t> {
    /// Refuses what does not fit an input of so many rows and channels.
    fn check(&self, rows: usize, channels: usize) -> Result<()> {
        expect_vector("dense_block", "gamma", channels, self.gamma.shape())?;
        expect_vector("dense_block", "beta", channels, self.beta.shape())?;
        expect_eps("dense_block", self.eps)?;
        match &self.given {
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
    /// Refuses what does not fit an input; returns the sizes of the 3x3 convolution.
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
        let options = Conv2dOptions { padding: Padding::Zeros([1, 1]), ..Conv2dOptions::default() };
        options.geometry(&Shape::new(&[batch, height, width, channels])?, self.weight.shape())
    }

    /// What a gradient may be wanted of, in the order of [`Var::op_many`].
    fn operands(&self) -> Vec<&Var<'t>> {
        let mut operands = vec![&self.norm1.gamma, &self.norm1.beta];
        if let Some((weight, norm2)) = &self.bottleneck {
            operands.extend([weight, &norm2.gamma, &norm2.beta]);
        }
        operands.push(&self.weight);
        operands
    }
}

/// Refuses a weight that is not `[size, size, channels, at least 1]`; returns its output channels.
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

/// The sizes of images that have these channels; refuses others.
fn check_channels(images: &Shape, channels: usize) -> Result<[usize; 4]> {
    let sizes = expect_images("dense_block", images)?;
    if sizes[3] == channels {
        Ok(sizes)
    } else {
        let expected = ShapePattern::from(["N", "H", "W"]).fixed(channels);
        Err(Error::shape("dense_block", "input", expected, images))
    }
}

/// The shape of the maps with other channels; the sizes of the convolutions were made from such shapes.
fn with_channels(maps: &Tensor, channels: usize) -> Shape {
    let mut sizes = maps.shape().to_vec();
    sizes[3] = channels;
    Shape::new(&sizes).expect("a shape that was checked")
}

#[cfg(test)]
mod tests;
