//! Dense blocks and the transitions between them (Huang et al. 2017).

use super::{DenseLayer, DenseLayerBuilder, NormConv};
use crate::{
    At, Error, Result, Rng,
    autograd::{State, Tape, Var},
    nn::{AvgPool2d, Module, conv1x1, init::Fan},
    ops::Moments,
};

/// Layers of which each reads the channels of all before it (Huang et al. 2017, figure 1 and
/// equation 2): the output is the input and every layer's new channels, side by side.
///
/// Maps `[N, H, W, in]` to `[N, H, W, in + num_layers * growth_rate]`. Its state is `denselayer1`,
/// `denselayer2` and so on.
///
/// The block is computed in place; see [`Var::dense_block`]. A block with convolutions of other
/// settings is computed by [`DenseBlock::forward_by_concatenation`], and so is one of which inner
/// outputs are captured.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::Tape, blocks::DenseBlock, nn::Module};
/// let mut rng = Rng::seed(0);
/// let block = DenseBlock::bottleneck(16, 12, 3).build(&mut rng)?;
/// assert_eq!(block.out_channels(), 16 + 3 * 12);
/// let tape = Tape::eval();
/// let x = tape.input(Tensor::uniform([1, 4, 4, 16], 0.0, 1.0, &mut rng)?);
/// let y = block.forward(&x)?;
/// assert_eq!(y.shape(), [1, 4, 4, 52]);
/// assert_eq!(y.slice_channels(0..16)?.value(), x.value());
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug, State)]
pub struct DenseBlock {
    /// The layers, first to last.
    #[state(rename = "denselayer{n}")]
    pub layers: Vec<DenseLayer>,
    #[state(skip)]
    out_channels: usize,
}

impl Module for DenseBlock {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        self.forward_moments(x).map(|(y, _)| y)
    }
}

impl DenseBlock {
    /// Begins a block of `num_layers` bottleneck layers (DenseNet-B).
    pub fn bottleneck(in_channels: usize, growth_rate: usize, num_layers: usize) -> DenseBlockBuilder {
        DenseBlockBuilder { num_layers, layer: DenseLayer::bottleneck(in_channels, growth_rate) }
    }

    /// Begins a block of `num_layers` layers without a bottleneck.
    pub fn plain(in_channels: usize, growth_rate: usize, num_layers: usize) -> DenseBlockBuilder {
        DenseBlockBuilder { num_layers, layer: DenseLayer::plain(in_channels, growth_rate) }
    }

    /// Returns the number of output channels.
    pub fn out_channels(&self) -> usize {
        self.out_channels
    }

    /// Returns the output of [`Module::forward`] as the paper defines it, layer after layer with a
    /// concatenation after each. Up to rounding it is the same, but it takes longer, and in
    /// training as many copies of the channels as there are layers.
    ///
    /// # Errors
    /// As [`Module::forward`].
    ///
    /// ```
    /// use skipgrad::{Rng, Tensor, autograd::Tape, blocks::DenseBlock, nn::Module};
    /// let mut rng = Rng::seed(0);
    /// let block = DenseBlock::bottleneck(16, 12, 3).build(&mut rng)?;
    /// let tape = Tape::eval();
    /// let x = tape.input(Tensor::uniform([1, 4, 4, 16], 0.0, 1.0, &mut rng)?);
    /// let (y, defined) = (block.forward(&x)?, block.forward_by_concatenation(&x)?);
    /// let pairs = y.value().data().iter().zip(defined.value().data());
    /// assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-4));
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn forward_by_concatenation<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        x.tape().enter(self, || {
            self.layers.iter().try_fold(x.clone(), |maps, layer| {
                let new = layer.forward(&maps)?;
                Var::concat(&[&maps, &new])
            })
        })
    }

    /// Returns the output of [`Module::forward`] and, where they are by-products of the
    /// computation, the moments of each of its channels, for the norm that follows; see
    /// [`Transition::forward_with`].
    ///
    /// # Errors
    /// As [`Module::forward`].
    pub fn forward_moments<'t>(&self, x: &Var<'t>) -> Result<(Var<'t>, Option<Moments>)> {
        let tape = x.tape();
        tape.enter(self, || {
            if let Some(reason) = self.reason_to_concatenate(tape) {
                log::debug!("a dense block is computed by concatenation: {reason}");
                return Ok((self.forward_by_concatenation(x)?, None));
            }
            // By its definition, the block finds the same error and the layer where it arises.
            self.forward_in_place(x).or_else(|error| self.forward_by_concatenation(x).and(Err(error)))
        })
    }

    /// Returns why the block cannot be computed in place on this tape, if it cannot.
    fn reason_to_concatenate(&self, tape: &Tape) -> Option<&'static str> {
        if tape.captures_within() {
            return Some("outputs of its layers are captured");
        }
        if tape.collects_faults() {
            return Some("the faults of its layers are collected");
        }
        let is_fusible = self.layers.iter().all(DenseLayer::is_fusible);
        (!is_fusible).then_some("its convolutions have other settings than those of a dense layer")
    }

    fn forward_in_place<'t>(&self, x: &Var<'t>) -> Result<(Var<'t>, Option<Moments>)> {
        let tape = x.tape();
        let layers: Vec<_> = self.layers.iter().map(|layer| layer.operands(tape)).collect();
        let (y, moments) = x.dense_block(&layers)?;
        for (layer, moments) in self.layers.iter().zip(&moments.layers) {
            layer.observe(tape, moments);
        }
        Ok((y, moments.maps))
    }
}

/// The settings of a [`DenseBlock`]; see [`DenseBlock::bottleneck`] and [`DenseBlock::plain`].
#[derive(Clone, Debug)]
#[must_use = "`build` makes the block"]
pub struct DenseBlockBuilder {
    num_layers: usize,
    /// The first layer.
    layer: DenseLayerBuilder,
}

impl DenseBlockBuilder {
    /// Sets the probability in [0, 1) with which training drops each new value; 0 by default. The
    /// paper uses 0.2 where images are not augmented.
    pub fn dropout(mut self, p: f32) -> Self {
        self.layer.dropout = p;
        self
    }

    /// Makes the block.
    ///
    /// # Errors
    /// [`Error::Argument`] if a number is zero or overflows, or the probability is not in [0, 1).
    pub fn build(self, rng: &mut Rng) -> Result<DenseBlock> {
        let DenseBlockBuilder { num_layers, layer } = self;
        let DenseLayerBuilder { in_channels, growth_rate, dropout, .. } = layer;
        if num_layers == 0 {
            return Err(Error::argument("dense_block", "layers", "at least 1", 0));
        }
        if !(0.0..1.0).contains(&dropout) {
            return Err(Error::argument("dense_block", "dropout", "a probability in [0, 1)", dropout));
        }
        let new_channels = growth_rate.checked_mul(num_layers);
        let Some(out_channels) = new_channels.and_then(|new| in_channels.checked_add(new)) else {
            let expected = "a number of channels that does not overflow";
            return Err(Error::argument("dense_block", "growth", expected, growth_rate));
        };
        let layer = |i| {
            let in_channels = in_channels + i * growth_rate;
            let layer = DenseLayerBuilder { in_channels, ..layer.clone() };
            layer.build(rng).at(format_args!("denselayer{}", i + 1))
        };
        let layers = (0..num_layers).map(layer).collect::<Result<_>>()?;
        Ok(DenseBlock { layers, out_channels })
    }
}

/// The layers between two dense blocks (Huang et al. 2017, section 3, "Pooling layers"): BN, ReLU,
/// a 1x1 convolution to fewer channels, and 2x2 average pooling.
///
/// Maps `[N, H, W, in]` to `[N, H/2, W/2, out]`, rounded down. Its state is `norm` and `conv`.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::Tape, blocks::Transition, nn::Module};
/// let transition = Transition::new(64, 32, &mut Rng::seed(0))?;
/// let tape = Tape::eval();
/// let y = transition.forward(&tape.input(Tensor::zeros([1, 7, 8, 64])?))?;
/// assert_eq!(y.shape(), [1, 3, 4, 32]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug, State)]
pub struct Transition {
    /// BN, ReLU and the 1x1 convolution.
    #[state(flatten)]
    pub conv: NormConv,
}

impl Module for Transition {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        self.forward_with(x, None)
    }
}

impl Transition {
    /// Makes a transition. Weights are Kaiming-normal by fan-in, as torchvision's.
    ///
    /// # Errors
    /// [`Error::Argument`] if a number is zero.
    pub fn new(in_channels: usize, out_channels: usize, rng: &mut Rng) -> Result<Transition> {
        Ok(Transition { conv: NormConv::new(conv1x1(in_channels, out_channels).fan(Fan::In), rng)? })
    }

    /// Returns the output of [`Module::forward`], given the moments of the input if they are known,
    /// from [`DenseBlock::forward_moments`].
    ///
    /// # Errors
    /// As [`Module::forward`].
    ///
    /// ```
    /// use skipgrad::{Rng, Tensor, autograd::Tape, blocks::{DenseBlock, Transition}, nn::Module};
    /// let mut rng = Rng::seed(0);
    /// let block = DenseBlock::bottleneck(16, 12, 3).build(&mut rng)?;
    /// let transition = Transition::new(block.out_channels(), 26, &mut rng)?;
    /// let tape = Tape::train(Rng::seed(1));
    /// let x = tape.input(Tensor::uniform([2, 4, 4, 16], 0.0, 1.0, &mut rng)?);
    /// let (maps, moments) = block.forward_moments(&x)?;
    /// let y = transition.forward_with(&maps, moments.as_ref())?;
    /// assert_eq!(y.shape(), [2, 2, 2, 26]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn forward_with<'t>(&self, x: &Var<'t>, moments: Option<&Moments>) -> Result<Var<'t>> {
        let tape = x.tape();
        let pool = |x: &Var<'t>| tape.scope("pool", || AvgPool2d::new(2).forward(x));
        tape.enter(self, || {
            let activated = self.conv.activate(x, moments)?;
            // Pooling and convolution are linear, one over pixels and one over channels, so they
            // commute: after the pooling, the convolution has a quarter of the work.
            match tape.captures_within() {
                true => pool(&self.conv.conv.forward(&activated)?),
                false => self.conv.conv.forward(&pool(&activated)?),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tensor, autograd::Tape, ops::Padding};

    #[test]
    fn pooling_before_the_convolution_changes_nothing() {
        let mut rng = Rng::seed(2);
        let transition = Transition::new(6, 3, &mut rng).unwrap();
        let x = Tensor::normal([2, 5, 6, 6], 1.0, &mut rng).unwrap();
        let tape = Tape::train(Rng::seed(0));
        let fast = transition.forward(&tape.input(x.clone())).unwrap();
        let drawn = AvgPool2d::new(2).forward(&transition.conv.forward(&tape.input(x)).unwrap()).unwrap();
        for (a, b) in fast.value().data().iter().zip(drawn.value().data()) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }

    #[test]
    fn in_place_it_is_what_the_paper_defines() {
        let mut rng = Rng::seed(4);
        for builder in [DenseBlock::bottleneck(6, 5, 3), DenseBlock::plain(6, 16, 3)] {
            let mut block = builder.build(&mut rng).unwrap();
            let x = Tensor::normal([2, 17, 14, 6], 1.0, &mut rng).unwrap();
            for padding in [Padding::Zeros([1, 1]), Padding::Same] {
                let layer = &mut block.layers[1];
                // A layer with other settings than usual is concatenated.
                layer.second.as_mut().unwrap_or(&mut layer.first).conv.options.padding = padding;
                let tape = Tape::eval();
                let x = tape.input(x.clone());
                let (y, defined) = (block.forward(&x).unwrap(), block.forward_by_concatenation(&x).unwrap());
                assert!(padding != Padding::Same || y.value() == defined.value());
                let largest = defined.value().data().iter().fold(0.0f32, |most, x| most.max(x.abs()));
                for (a, b) in y.value().data().iter().zip(defined.value().data()) {
                    assert!((a - b).abs() <= 2e-5 * largest, "{a} {b} of {largest}");
                }
            }
        }
    }

    #[test]
    fn a_frozen_block_drops_in_training_all_the_same() {
        let mut block = DenseBlock::plain(4, 32, 1).dropout(0.5).build(&mut Rng::seed(4)).unwrap();
        block.layers[0].first.norm.freeze_statistics("*").unwrap();
        let x = Tensor::normal([4, 6, 6, 4], 1.0, &mut Rng::seed(5)).unwrap();
        let tape = Tape::train(Rng::seed(0)).recording(false);
        let y = block.forward(&tape.input(x)).unwrap();
        assert!(y.value().data().iter().filter(|&&y| y == 0.0).count() > 2000);
    }

    #[test]
    fn errors_say_which_layer() {
        let block = DenseBlock::plain(4, 2, 3).build(&mut Rng::seed(0)).unwrap();
        let tape = Tape::eval();
        let error = block.forward(&tape.input(Tensor::zeros([1, 4, 4, 5]).unwrap())).err().unwrap();
        assert_eq!(error.path(), Some("denselayer1.norm1"));
    }

    #[test]
    fn impossible_blocks_are_rejected() {
        let error = |block: DenseBlockBuilder| block.build(&mut Rng::seed(0)).unwrap_err().to_string();
        assert_eq!(error(DenseBlock::plain(4, 2, 0)), "dense_block: layers: expected at least 1, found 0");
        assert!(error(DenseBlock::plain(4, usize::MAX, 2)).contains("dense_block: growth"));
        assert!(error(DenseBlock::bottleneck(4, 0, 2)).starts_with("denselayer1: conv2d: channels"));
        assert!(error(DenseBlock::plain(4, 2, 2).dropout(1.5)).contains("dense_block: dropout"));
    }

    #[test]
    fn dropout_is_for_training() {
        let mut rng = Rng::seed(4);
        let block = DenseBlock::plain(4, 32, 1).dropout(0.5).build(&mut rng).unwrap();
        let x = Tensor::normal([4, 6, 6, 4], 1.0, &mut rng).unwrap();
        let zeros = |tape: Tape| {
            let y = block.forward(&tape.input(x.clone())).unwrap();
            y.slice_channels(4..36).unwrap().value().data().iter().filter(|&&y| y == 0.0).count()
        };
        assert!((2000..2600).contains(&zeros(Tape::train(Rng::seed(0)))));
        assert_eq!(zeros(Tape::eval()), 0);
    }
}
