//! A layer of a dense block.

use super::NormConv;
use crate::{
    Result, Rng,
    autograd::{State, Tape, Var},
    nn::{BatchNorm2d, Conv2d, Conv2dBuilder, Module, conv1x1, conv3x3, init::Fan},
    ops::{Conv2dOptions, DenseBlockLayer, DenseBlockLayerMoments, DenseBlockNorm, Padding},
};

/// One layer of a dense block, from all channels so far to `growth_rate` new ones (Huang et al.
/// 2017, section 3): BN, ReLU and a 3x3 convolution, in the bottleneck form after BN, ReLU and a
/// 1x1 convolution to `4 * growth_rate` channels.
///
/// Maps `[N, H, W, in]` to `[N, H, W, growth_rate]`. Its state is `norm1`, `conv1` and, with a
/// bottleneck, `norm2`, `conv2`.
///
/// ```
/// use skipgrad::{Rng, autograd::State, blocks::DenseLayer};
/// let mut rng = Rng::seed(0);
/// let layer = DenseLayer::bottleneck(64, 32).build(&mut rng)?;
/// assert_eq!(layer.export()["conv1.weight"].shape(), [128, 64, 1, 1]);
/// assert_eq!(layer.export()["conv2.weight"].shape(), [32, 128, 3, 3]);
/// let layer = DenseLayer::plain(64, 32).build(&mut rng)?;
/// assert_eq!(layer.export()["conv1.weight"].shape(), [32, 64, 3, 3]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug, State)]
pub struct DenseLayer {
    /// The 1x1 convolution, or without a bottleneck the 3x3.
    #[state(flatten(norm = "norm1", conv = "conv1"))]
    pub first: NormConv,
    /// The 3x3 convolution after a bottleneck.
    #[state(flatten(norm = "norm2", conv = "conv2"))]
    pub second: Option<NormConv>,
    /// The probability in [0, 1) with which training drops each new value; 0 by default.
    #[state(skip)]
    pub dropout: f32,
}

impl Module for DenseLayer {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        x.tape().enter(self, || {
            let mut y = self.first.forward(x)?;
            if let Some(second) = &self.second {
                y = second.forward(&y)?;
            }
            if self.dropout == 0.0 { Ok(y) } else { y.dropout(self.dropout) }
        })
    }
}

impl DenseLayer {
    /// The ratio of a bottleneck's channels to the growth rate.
    pub const EXPANSION: usize = 4;

    /// Begins a layer with a bottleneck: BN, ReLU, 1x1, BN, ReLU, 3x3.
    pub fn bottleneck(in_channels: usize, growth_rate: usize) -> DenseLayerBuilder {
        DenseLayerBuilder { in_channels, growth_rate, bottleneck: true, dropout: 0.0 }
    }

    /// Begins a layer without a bottleneck: BN, ReLU, 3x3.
    pub fn plain(in_channels: usize, growth_rate: usize) -> DenseLayerBuilder {
        DenseLayerBuilder { in_channels, growth_rate, bottleneck: false, dropout: 0.0 }
    }

    /// Returns whether its convolutions have the settings that [`DenseLayerBuilder::build`] gives
    /// them, which are those that [`Var::dense_block`] computes.
    pub(super) fn is_fusible(&self) -> bool {
        let is_usual = |conv: &Conv2d, padding: Padding| {
            let algorithm = conv.options.algorithm;
            let usual = Conv2dOptions { padding, algorithm, ..Conv2dOptions::default() };
            conv.options == usual && conv.bias.is_none()
        };
        let padding = Padding::Zeros([1, 1]);
        match &self.second {
            None => is_usual(&self.first.conv, padding),
            Some(second) => {
                is_usual(&self.first.conv, Padding::Zeros([0, 0])) && is_usual(&second.conv, padding)
            }
        }
    }

    /// Returns the layer as an operand of [`Var::dense_block`].
    pub(super) fn operands<'t>(&self, tape: &'t Tape) -> DenseBlockLayer<Var<'t>> {
        let last = self.second.as_ref().unwrap_or(&self.first);
        let bottleneck = self
            .second
            .as_ref()
            .map(|second| (tape.param(&self.first.conv.weight), operands_of_norm(&second.norm, tape)));
        DenseBlockLayer {
            norm1: operands_of_norm(&self.first.norm, tape),
            bottleneck,
            weight: tape.param(&last.conv.weight),
            algorithm: last.conv.options.algorithm,
            dropout: self.dropout,
        }
    }

    /// Has its norms observe the statistics that [`Var::dense_block`] used for them.
    pub(super) fn observe(&self, tape: &Tape, moments: &DenseBlockLayerMoments) {
        let second = self.second.as_ref().zip(moments.norm2.as_ref());
        let norms = [Some((&self.first, &moments.norm1)), second];
        for (NormConv { norm, .. }, moments) in norms.into_iter().flatten() {
            if !norm.uses_running_moments(tape) {
                norm.observe(tape, moments);
            }
        }
    }
}

/// Returns the norm as an operand of [`Var::dense_block`].
fn operands_of_norm<'t>(norm: &BatchNorm2d, tape: &'t Tape) -> DenseBlockNorm<Var<'t>> {
    DenseBlockNorm {
        gamma: tape.param(&norm.weight),
        beta: tape.param(&norm.bias),
        eps: norm.eps,
        fixed: norm
            .uses_running_moments(tape)
            .then(|| (norm.running_mean.value().clone(), norm.running_var.value().clone())),
    }
}

/// The settings of a [`DenseLayer`]; see [`DenseLayer::bottleneck`] and [`DenseLayer::plain`].
#[derive(Clone, Debug)]
#[must_use = "`build` makes the layer"]
pub struct DenseLayerBuilder {
    pub(super) in_channels: usize,
    pub(super) growth_rate: usize,
    pub(super) bottleneck: bool,
    pub(super) dropout: f32,
}

impl DenseLayerBuilder {
    /// Sets the probability in [0, 1) with which training drops each new value; 0 by default.
    pub fn dropout(mut self, p: f32) -> Self {
        self.dropout = p;
        self
    }

    /// Makes the layer. Weights are Kaiming-normal by fan-in, as torchvision's.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) if a number is zero.
    pub fn build(self, rng: &mut Rng) -> Result<DenseLayer> {
        let DenseLayerBuilder { in_channels, growth_rate, bottleneck, dropout } = self;
        let mut layer = |conv: Conv2dBuilder| NormConv::new(conv.fan(Fan::In), rng);
        if !bottleneck {
            let first = layer(conv3x3(in_channels, growth_rate))?;
            return Ok(DenseLayer { first, second: None, dropout });
        }
        let width = growth_rate.saturating_mul(DenseLayer::EXPANSION);
        let first = layer(conv1x1(in_channels, width))?;
        let second = Some(layer(conv3x3(width, growth_rate))?);
        Ok(DenseLayer { first, second, dropout })
    }
}
