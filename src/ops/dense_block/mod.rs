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
//! Backward keeps the maps, the output of the 1x1 convolution of each bottleneck, and vectors. The
//! inputs of the 3x3 convolutions are recomputed.

mod backward;
mod cost;
mod forward;
mod norm;
mod operands;

use super::{
    Algorithm, Conv2dOptions, Moments, expect_drop_probability, expect_eps, expect_images, expect_vector,
};
use crate::{
    At, Error, Result, Shape, ShapePattern, Tensor,
    autograd::{Cost, Fault, Input, Kind, Mode, Op, Var, apply_with},
    kernels::Conv2dGeometry,
};
use backward::Backward;
use forward::Forward;

/// A batch normalization inside [`Var::dense_block`]; its vectors, of type V, have one element per
/// input channel.
#[derive(Clone, Debug)]
pub struct DenseBlockNorm<V> {
    /// The scale of each channel.
    pub gamma: V,
    /// The shift of each channel.
    pub beta: V,
    /// The constant that is added to the variance, at least 0.
    pub eps: f32,
    /// A mean and a variance to normalize with, in evaluation and in layers whose statistics are
    /// frozen. Without them, the statistics of the batch are used.
    pub fixed: Option<(Tensor, Tensor)>,
}

/// One layer of [`Var::dense_block`], which reads C channels and adds k. Its parameters are of type
/// V.
#[derive(Clone, Debug)]
pub struct DenseBlockLayer<V> {
    /// The normalization of the input, which a ReLU follows.
    pub norm1: DenseBlockNorm<V>,
    /// The weight `[1, 1, C, B]` of a bottleneck, if there is one, and the normalization of its
    /// output, which a ReLU follows.
    pub bottleneck: Option<(V, DenseBlockNorm<V>)>,
    /// The weight `[3, 3, B, k]`, or without a bottleneck `[3, 3, C, k]`, of a convolution with
    /// padding 1.
    pub weight: V,
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
    pub fn dense_block(&self, layers: &[DenseBlockLayer<Var<'t>>]) -> Result<(Var<'t>, DenseBlockMoments)> {
        if layers.is_empty() {
            return Ok((self.clone(), DenseBlockMoments { layers: vec![], maps: None }));
        }
        let tape = self.tape();
        let dropout = |layer: &DenseBlockLayer<Var<'t>>| {
            let drops_elements = layer.dropout > 0.0 && tape.mode() == Mode::Train;
            drops_elements.then(|| (layer.dropout, tape.rng().bits()))
        };
        let op = DenseBlock {
            layers: layers.iter().map(DenseBlockLayer::values).collect(),
            dropouts: layers.iter().map(dropout).collect(),
        };
        let inputs: Vec<&Var<'t>> =
            std::iter::once(self).chain(layers.iter().flat_map(DenseBlockLayer::operands)).collect();
        let (y, moments) = apply_with(op, &inputs, |context| context.moments.clone())?;
        // A meta pass computes no moments.
        Ok((y, moments.unwrap_or(DenseBlockMoments { layers: vec![], maps: None })))
    }
}

/// The block as an operation on its input and the parameters of all layers.
struct DenseBlock {
    layers: Vec<DenseBlockLayer<Tensor>>,
    /// The probability and the seed of each layer's dropout, if it has one.
    dropouts: Vec<Option<(f32, u64)>>,
}

/// What forward keeps.
struct Context {
    backward: Backward,
    moments: DenseBlockMoments,
}

impl DenseBlock {
    /// Checks that the layers fit an input, and returns the geometry of their 3x3 convolutions.
    fn convolutions(&self, x: &Shape) -> Result<Vec<Conv2dGeometry>> {
        let [batch, height, width, inputs] = expect_images("dense_block", x)?;
        if inputs == 0 {
            return Err(Error::argument("dense_block", "input", "at least one channel", x));
        }
        let mut channels = inputs;
        let mut convolutions = vec![];
        for (i, layer) in self.layers.iter().enumerate() {
            let convolution = layer.check([batch, height, width, channels]).at(format_args!("layer {i}"))?;
            channels = channels.saturating_add(convolution.out_channels);
            convolutions.push(convolution);
        }
        Ok(convolutions)
    }

    /// Returns the geometry of the 3x3 convolutions for an input that was checked.
    fn checked(&self, x: &Shape) -> Vec<Conv2dGeometry> {
        match self.convolutions(x) {
            Ok(convolutions) => convolutions,
            Err(error) => unreachable!("the input was checked: {error}"),
        }
    }
}

impl Op for DenseBlock {
    type Context = Context;

    fn name(&self) -> &'static str {
        "dense_block"
    }

    fn output_shape(&self, inputs: &[Input<'_>]) -> Result<Shape, Fault> {
        let x = inputs[0].shape();
        let convolutions = self.convolutions(x)?;
        let new = convolutions.iter().map(|convolution| convolution.out_channels);
        let channels = new.fold(x.num_channels(), usize::saturating_add);
        Ok(Shape::new(&[x[0], x[1], x[2], channels])?)
    }

    fn forward(&self, inputs: &[Input<'_>], shape: Shape) -> (Tensor, Context) {
        let x = inputs[0].value();
        let is_recorded = inputs.iter().any(Input::needs_gradient);
        let (convolutions, dropouts) = (self.checked(x.shape()), self.dropouts.clone());
        let forward = Forward::new(x, &self.layers, shape, convolutions, dropouts, is_recorded);
        let (y, moments, backward) = forward.run();
        (y, Context { backward, moments })
    }

    fn backward(&self, context: Context, dy: Tensor, needs: &[bool]) -> Vec<Option<Tensor>> {
        context.backward.gradients(dy, needs)
    }

    fn cost(&self, inputs: &[Input<'_>], shape: Shape) -> Cost {
        let is_recorded = inputs.iter().any(Input::needs_gradient);
        cost::cost(&self.layers, &self.checked(inputs[0].shape()), &shape, is_recorded)
    }

    fn kind(&self, _: &[Input<'_>]) -> Kind {
        Kind::Training
    }
}

impl<'t> DenseBlockNorm<Var<'t>> {
    fn values(&self) -> DenseBlockNorm<Tensor> {
        let [gamma, beta] = [&self.gamma, &self.beta].map(|var| var.value().clone());
        DenseBlockNorm { gamma, beta, eps: self.eps, fixed: self.fixed.clone() }
    }
}

impl DenseBlockNorm<Tensor> {
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

impl<'t> DenseBlockLayer<Var<'t>> {
    fn values(&self) -> DenseBlockLayer<Tensor> {
        let bottleneck = self.bottleneck.as_ref();
        DenseBlockLayer {
            norm1: self.norm1.values(),
            bottleneck: bottleneck.map(|(weight, norm2)| (weight.value().clone(), norm2.values())),
            weight: self.weight.value().clone(),
            algorithm: self.algorithm,
            dropout: self.dropout,
        }
    }

    /// Returns the parameters, as inputs of the operation.
    fn operands(&self) -> Vec<&Var<'t>> {
        let mut operands = vec![&self.norm1.gamma, &self.norm1.beta];
        if let Some((weight, norm2)) = &self.bottleneck {
            operands.extend([weight, &norm2.gamma, &norm2.beta]);
        }
        operands.push(&self.weight);
        operands
    }
}

impl DenseBlockLayer<Tensor> {
    /// Checks that the layer fits an input, and returns the geometry of the 3x3 convolution.
    fn check(&self, input: [usize; 4]) -> Result<Conv2dGeometry> {
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

/// Returns the shape of the maps with another number of channels, which was checked before.
fn with_channels(maps: &Tensor, channels: usize) -> Shape {
    let mut sizes = maps.shape().to_vec();
    sizes[3] = channels;
    Shape::new(&sizes).expect("the shape was checked")
}

#[cfg(test)]
mod tests;
