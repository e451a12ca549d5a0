//! Dense blocks and the transitions between them (Huang et al. 2017).

use super::{
    DenseLayer, DenseLayerBuilder, NormConv,
    folding::{Folding, Origin},
};
use crate::{
    At, Error, Result, Rng,
    autograd::{Mode, State, Tape, Var},
    nn::{AvgPool2d, Module, conv1x1, init::Fan},
    ops::{DenseBlockLayer, FoldedDenseBlock, Moments},
};
use std::sync::Arc;

/// Layers of which each reads the channels of all before it (Huang et al. 2017, figure 1 and
/// equation 2): the output is the input and every layer's new channels, side by side.
///
/// Maps `[N, H, W, in]` to `[N, H, W, in + num_layers * growth_rate]`. Its state is `denselayer1`,
/// `denselayer2` and so on.
///
/// The block is computed in place; see [`Var::dense_block`]. Where the statistics are constant and
/// nothing is recorded, it uses weights that were folded and packed once, see [`FoldedDenseBlock`],
/// until a parameter, a statistic or a setting changes. A block with convolutions of other settings
/// is computed by [`DenseBlock::forward_by_concatenation`], and so is one of which inner outputs
/// are captured.
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
    #[state(skip)]
    folding: Folding<FoldedDenseBlock>,
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
            if tape.mode() == Mode::Train {
                self.folding.clear();
            }
            match self.constant_on(tape) {
                true => self.forward_folded(x),
                false => self.forward_in_place(x),
            }
            // By its definition, the block finds the same error and the layer where it arises.
            .or_else(|error| self.forward_by_concatenation(x).and(Err(error)))
        })
    }

    /// Returns why the block cannot be computed in place on this tape, if it cannot.
    fn reason_to_concatenate(&self, tape: &Tape) -> Option<&'static str> {
        if tape.captures_within() {
            return Some("outputs of its layers are captured");
        }
        if tape.recoveries() > 0 {
            return Some("its layers recover from errors");
        }
        let is_fusible = self.layers.iter().all(DenseLayer::is_fusible);
        (!is_fusible).then_some("its convolutions have other settings than those of a dense layer")
    }

    /// Returns whether folded weights compute the block on this tape. A meta tape has none to fold:
    /// the operation says what that would take.
    fn constant_on(&self, tape: &Tape) -> bool {
        let is_constant = self.layers.iter().all(|layer| layer.is_constant(tape));
        is_constant && !tape.is_recording() && !tape.is_meta()
    }

    fn forward_folded<'t>(&self, x: &Var<'t>) -> Result<(Var<'t>, Option<Moments>)> {
        let tape = x.tape();
        Ok((tape.input(self.folded(tape)?.apply(x.value())?), None))
    }

    fn forward_in_place<'t>(&self, x: &Var<'t>) -> Result<(Var<'t>, Option<Moments>)> {
        let tape = x.tape();
        let (y, moments) = x.dense_block(&self.operands(tape))?;
        for (layer, moments) in self.layers.iter().zip(&moments.layers) {
            layer.observe(tape, moments);
        }
        Ok((y, moments.maps))
    }

    fn folded(&self, tape: &Tape) -> Result<Arc<FoldedDenseBlock>> {
        let parts = self.layers.iter().flat_map(DenseLayer::parts);
        let origins = parts.map(|NormConv { conv, norm, .. }| Origin::of(conv, norm));
        self.folding.get_or_fold(origins, || {
            let in_channels = self.layers.first().map_or(0, |layer| layer.first.norm.num_channels());
            FoldedDenseBlock::new(in_channels, &self.operands(tape)).map(Arc::new)
        })
    }

    fn operands<'t>(&self, tape: &'t Tape) -> Vec<DenseBlockLayer<'t>> {
        self.layers.iter().map(|layer| layer.operands(tape)).collect()
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
        Ok(DenseBlock { layers, out_channels, folding: Folding::default() })
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
    use std::iter;

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

    /// Returns what evaluation computes with folded weights, and by the definition.
    fn outputs(block: &DenseBlock, x: &Tensor) -> [Tensor; 2] {
        let tape = Tape::eval();
        let x = tape.input(x.clone());
        [block.forward(&x), block.forward_by_concatenation(&x)].map(|y| y.unwrap().value().clone())
    }

    #[track_caller]
    fn assert_alike([folded, defined]: &[Tensor; 2]) {
        assert_eq!(folded.shape(), defined.shape());
        let largest = defined.data().iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        for (a, b) in folded.data().iter().zip(defined.data()) {
            assert!((a - b).abs() <= 2e-5 * largest, "{a} {b} of {largest}");
        }
    }

    #[test]
    fn a_change_is_folded_again() {
        let mut rng = Rng::seed(4);
        for builder in [DenseBlock::bottleneck(6, 5, 3), DenseBlock::plain(6, 16, 3)] {
            let mut block = builder.build(&mut rng).unwrap();
            let layers = block.layers.iter_mut();
            for part in layers.flat_map(|layer| iter::once(&mut layer.first).chain(&mut layer.second)) {
                let (channels, norm) = (part.norm.num_channels(), &mut part.norm);
                *norm.running_mean.value_mut() = Tensor::normal([channels], 0.3, &mut rng).unwrap();
                *norm.running_var.value_mut() = Tensor::uniform([channels], 0.5, 2.0, &mut rng).unwrap();
                *norm.bias.value_mut() = Tensor::normal([channels], 0.3, &mut rng).unwrap();
            }
            // Two sizes: weights are packed for either algorithm.
            let small = Tensor::normal([1, 5, 4, 6], 1.0, &mut rng).unwrap();
            let large = Tensor::normal([2, 17, 14, 6], 1.0, &mut rng).unwrap();
            let mut before = outputs(&block, &small);
            assert_alike(&before);
            assert_alike(&outputs(&block, &large));
            let changes: [fn(&mut NormConv); 6] = [
                |part| part.conv.weight.value_mut().scale(1.5),
                |part| part.norm.weight.value_mut().scale(-2.0),
                |part| part.norm.bias.value_mut().data_mut().fill(0.7),
                |part| part.norm.running_mean.value_mut().data_mut().fill(0.2),
                |part| part.norm.running_var.value_mut().scale(0.5),
                |part| part.norm.eps = 0.5,
            ];
            for change in changes {
                let layer = &mut block.layers[1];
                change(layer.second.as_mut().unwrap_or(&mut layer.first));
                let after = outputs(&block, &small);
                assert_alike(&after);
                assert_alike(&outputs(&block, &large));
                assert_ne!(after, before);
                before = after;
            }
            // A layer with other settings than usual is concatenated.
            let layer = &mut block.layers[1];
            layer.second.as_mut().unwrap_or(&mut layer.first).conv.options.padding = Padding::Same;
            let [other, defined] = outputs(&block, &small);
            assert!(other == defined);
            assert_alike(&[other, before[0].clone()]);
            assert_alike(&outputs(&block.clone(), &small));
        }
    }

    #[test]
    fn a_training_pass_drops_the_folded_weights() {
        let block = DenseBlock::bottleneck(6, 5, 2).build(&mut Rng::seed(6)).unwrap();
        let x = Tensor::zeros([2, 5, 4, 6]).unwrap();
        let weight = block.layers[1].first.conv.weight.value();
        block.forward(&Tape::eval().input(x.clone())).unwrap();
        assert!(!weight.is_unique());
        block.forward(&Tape::train(Rng::seed(0)).input(x)).unwrap();
        assert!(weight.is_unique(), "an update is in place");
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
