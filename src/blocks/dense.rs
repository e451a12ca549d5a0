//! The blocks of Huang et al. 2017.

use super::NormConv;
use super::folding::{Folding, Origin};
use crate::{
    At, Error, Result, Rng,
    autograd::{Mode, State, StateMut, StateRef, Tape, Var, join},
    nn::{AvgPool2d, BatchNorm2d, Module, conv1x1, conv3x3, init::Fan},
    ops::{
        Conv2dOptions, DenseBlockLayer, DenseBlockLayerMoments, DenseBlockNorm, FoldedDenseBlock, Moments,
        Padding,
    },
    state,
};
use std::sync::Arc;

/// One layer of a dense block, from all maps so far to `growth` new ones (Huang et al. 2017, section 3): BN, ReLU and a 3x3
/// convolution, in the bottleneck form with BN, ReLU and a 1x1 convolution to `4 * growth` maps before.
///
/// `[N, H, W, in]` to `[N, H, W, growth]`. State: `norm1`, `conv1` and, with a bottleneck, `norm2`, `conv2`.
///
/// ```
/// use skipgrad::{Rng, autograd::State, blocks::DenseLayer};
/// let mut rng = Rng::seed(0);
/// let layer = DenseLayer::bottleneck(64, 32, &mut rng)?;
/// assert_eq!(layer.export()["conv1.weight"].shape(), [128, 64, 1, 1]);
/// assert_eq!(layer.export()["conv2.weight"].shape(), [32, 128, 3, 3]);
/// assert_eq!(DenseLayer::plain(64, 32, &mut rng)?.export()["conv1.weight"].shape(), [32, 64, 3, 3]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DenseLayer {
    /// The 1x1 convolution, or without a bottleneck the 3x3.
    pub first: NormConv,
    /// The 3x3 convolution behind a bottleneck.
    pub second: Option<NormConv>,
    /// The probability in [0, 1) with which training drops each new value; 0 unless set.
    pub dropout: f32,
}
state!(DenseLayer { ..first, ..second });

impl DenseLayer {
    /// The bottleneck makes this many times `growth` maps.
    pub const EXPANSION: usize = 4;

    /// BN, ReLU, 1x1, BN, ReLU, 3x3. Weights are Kaiming-normal by fan-in, as torchvision's.
    ///
    /// # Errors
    /// [`Error::Argument`] if a number is zero.
    pub fn bottleneck(inputs: usize, growth: usize, rng: &mut Rng) -> Result<DenseLayer> {
        let width = growth.saturating_mul(DenseLayer::EXPANSION);
        let first = NormConv::new(conv1x1(inputs, width).fan(Fan::In), rng)?.named("norm1", "conv1");
        let second = NormConv::new(conv3x3(width, growth).fan(Fan::In), rng)?.named("norm2", "conv2");
        Ok(DenseLayer { first, second: Some(second), dropout: 0.0 })
    }

    /// BN, ReLU, 3x3. Weights as [`DenseLayer::bottleneck`].
    ///
    /// # Errors
    /// As [`DenseLayer::bottleneck`].
    pub fn plain(inputs: usize, growth: usize, rng: &mut Rng) -> Result<DenseLayer> {
        let first = NormConv::new(conv3x3(inputs, growth).fan(Fan::In), rng)?.named("norm1", "conv1");
        Ok(DenseLayer { first, second: None, dropout: 0.0 })
    }

    /// The layer as a part of [`Var::dense_block`], if its convolutions are those that [`DenseLayer::bottleneck`] or
    /// [`DenseLayer::plain`] made.
    fn operands<'t>(&self, tape: &'t Tape) -> Option<DenseBlockLayer<'t>> {
        let (bottleneck, last) = match &self.second {
            None => (None, &self.first),
            Some(second) => {
                let conv = &self.first.conv;
                let usual = Conv2dOptions { algorithm: conv.options.algorithm, ..Conv2dOptions::default() };
                if conv.options != usual || conv.bias.is_some() {
                    return None;
                }
                (Some((tape.param(&conv.weight), operands_of_norm(&second.norm, tape))), second)
            }
        };
        let conv = &last.conv;
        let algorithm = conv.options.algorithm;
        let usual = Conv2dOptions { padding: Padding::Zeros([1, 1]), algorithm, ..Conv2dOptions::default() };
        (conv.options == usual && conv.bias.is_none()).then(|| DenseBlockLayer {
            norm1: operands_of_norm(&self.first.norm, tape),
            bottleneck,
            weight: tape.param(&conv.weight),
            algorithm,
            dropout: self.dropout,
        })
    }

    /// Its normalizations and convolutions.
    fn parts(&self) -> impl Iterator<Item = &NormConv> + Clone {
        [Some(&self.first), self.second.as_ref()].into_iter().flatten()
    }

    /// Whether it is the same function of the maps in every pass.
    fn is_constant(&self, tape: &Tape) -> bool {
        let drops = self.dropout != 0.0 && tape.mode() == Mode::Train;
        !drops && self.parts().all(|part| part.norm.is_constant(tape))
    }

    /// Has its norms observe the statistics that [`Var::dense_block`] used for them.
    fn observe(&self, tape: &Tape, moments: &DenseBlockLayerMoments) {
        let second = self.second.as_ref().zip(moments.norm2.as_ref());
        let norms = [Some((&self.first, &moments.norm1)), second];
        for (NormConv { norm, .. }, moments) in norms.into_iter().flatten() {
            if !norm.is_constant(tape) {
                norm.observe(tape, moments);
            }
        }
    }
}

/// The norm as a part of [`Var::dense_block`].
fn operands_of_norm<'t>(norm: &BatchNorm2d, tape: &'t Tape) -> DenseBlockNorm<'t> {
    DenseBlockNorm {
        gamma: tape.param(&norm.weight),
        beta: tape.param(&norm.bias),
        eps: norm.eps,
        fixed: norm
            .is_constant(tape)
            .then(|| (norm.running_mean.value().clone(), norm.running_var.value().clone())),
    }
}

impl Module for DenseLayer {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let mut y = self.first.forward(x)?;
        if let Some(second) = &self.second {
            y = second.forward(&y)?;
        }
        if self.dropout == 0.0 { Ok(y) } else { y.dropout(self.dropout) }
    }
}

/// Layers of which each reads the maps of all before it (Huang et al. 2017, figure 1 and equation 2): the output is the
/// input and every layer's new maps, side by side in the channels.
///
/// `[N, H, W, in]` to `[N, H, W, in + layers * growth]`. State: `denselayer1`, `denselayer2` and so on.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::Tape, blocks::DenseBlock, nn::Module};
/// let mut rng = Rng::seed(0);
/// let block = DenseBlock::bottleneck(16, 12, 3).build(&mut rng)?;
/// assert_eq!(block.outputs(), 16 + 3 * 12);
/// let tape = Tape::eval();
/// let x = tape.input(Tensor::uniform([1, 4, 4, 16], 0.0, 1.0, &mut rng)?);
/// let y = block.forward(&x)?;
/// assert_eq!(y.shape(), [1, 4, 4, 52]);
/// assert_eq!(y.slice_channels(0..16)?.value(), x.value());
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DenseBlock {
    /// The layers, first to last.
    pub layers: Vec<DenseLayer>,
    outputs: usize,
    folding: Folding<FoldedDenseBlock>,
}

impl DenseBlock {
    /// Begins a block of so many bottleneck layers with `growth` new maps each (DenseNet-B).
    pub fn bottleneck(inputs: usize, growth: usize, layers: usize) -> DenseBlockBuilder {
        DenseBlockBuilder { inputs, growth, layers, bottleneck: true, dropout: 0.0 }
    }

    /// Begins a block of so many layers without bottleneck.
    pub fn plain(inputs: usize, growth: usize, layers: usize) -> DenseBlockBuilder {
        DenseBlockBuilder { inputs, growth, layers, bottleneck: false, dropout: 0.0 }
    }

    /// The number of output channels.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// [`Module::forward`] as the paper defines it, layer after layer with a concatenation behind each. Up to rounding the
    /// same, but slower, and in training it remembers as many copies of the maps as there are layers.
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
    /// assert!(y.value().data().iter().zip(defined.value().data()).all(|(a, b)| (a - b).abs() < 1e-4));
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn forward_by_concatenation<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        self.layers.iter().enumerate().try_fold(x.clone(), |maps, (i, layer)| {
            let new = x.tape().scope(layer_name(i), || layer.forward(&maps))?;
            Var::concat(&[&maps, &new])
        })
    }

    /// [`Module::forward`], and the moments of each channel of the result, where they were found out on the way: for a norm behind
    /// the block, see [`Transition::forward_with`].
    ///
    /// # Errors
    /// As [`Module::forward`].
    pub fn forward_moments<'t>(&self, x: &Var<'t>) -> Result<(Var<'t>, Option<Moments>)> {
        let by_concatenation = || Ok((self.forward_by_concatenation(x)?, None));
        if x.tape().captures_within() {
            return by_concatenation();
        }
        self.forward_in_place(x).or_else(|_| by_concatenation())
    }

    /// By [`Var::dense_block`], if all layers are of the form that it knows and it has nothing to object.
    fn forward_in_place<'t>(&self, x: &Var<'t>) -> Result<(Var<'t>, Option<Moments>)> {
        let tape = x.tape();
        if tape.mode() == Mode::Train {
            self.folding.clear();
        }
        // On a meta tape there are no weights to fold; the operation says what that would take.
        let constant = self.layers.iter().all(|layer| layer.is_constant(tape));
        if constant && !tape.is_recording() && !tape.is_meta() {
            return Ok((tape.input(self.folded(tape)?.apply(x.value())?), None));
        }
        let (y, moments) = x.dense_block(&self.operands(tape)?)?;
        for (layer, moments) in self.layers.iter().zip(&moments.layers) {
            layer.observe(tape, moments);
        }
        Ok((y, moments.maps))
    }

    fn folded(&self, tape: &Tape) -> Result<Arc<FoldedDenseBlock>> {
        let parts = self.layers.iter().flat_map(DenseLayer::parts);
        let origins = parts.map(|NormConv { conv, norm, .. }| Origin::of(conv, norm));
        self.folding.of(origins, || {
            let inputs = self.layers.first().map_or(0, |layer| layer.first.norm.num_channels());
            FoldedDenseBlock::new(inputs, &self.operands(tape)?).map(Arc::new)
        })
    }

    fn operands<'t>(&self, tape: &'t Tape) -> Result<Vec<DenseBlockLayer<'t>>> {
        let unusual = || Error::argument("dense_block", "layers", "convolutions as made", "other settings");
        self.layers.iter().map(|layer| layer.operands(tape).ok_or_else(unusual)).collect()
    }
}

/// Computed in place, see [`Var::dense_block`]; where statistics are constants and nothing is recorded, with weights that are
/// folded and packed once, see [`FoldedDenseBlock`], until a parameter, a statistic or a setting changes. Layers whose convolutions were given other settings are concatenated, and
/// errors are those of [`DenseBlock::forward_by_concatenation`], which name the layer.
impl Module for DenseBlock {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        self.forward_moments(x).map(|(y, _)| y)
    }
}

impl State for DenseBlock {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, StateRef<'_>)) {
        self.layers.iter().enumerate().for_each(|(i, layer)| layer.visit(&join(path, layer_name(i)), f));
    }
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, StateMut<'_>)) {
        self.layers
            .iter_mut()
            .enumerate()
            .for_each(|(i, layer)| layer.visit_mut(&join(path, layer_name(i)), f));
    }
}

/// torchvision counts from one.
fn layer_name(index: usize) -> String {
    format!("denselayer{}", index + 1)
}

/// A dense block to be: see [`DenseBlock::bottleneck`] and [`DenseBlock::plain`].
#[derive(Clone, Debug)]
#[must_use = "`build` makes the block"]
pub struct DenseBlockBuilder {
    inputs: usize,
    growth: usize,
    layers: usize,
    bottleneck: bool,
    dropout: f32,
}

impl DenseBlockBuilder {
    /// Drops new values with this probability in [0, 1) in training (the paper: 0.2 where images are not augmented).
    pub fn dropout(mut self, p: f32) -> Self {
        self.dropout = p;
        self
    }

    /// Makes the block.
    ///
    /// # Errors
    /// [`Error::Argument`] if a number is zero or the probability is none.
    pub fn build(self, rng: &mut Rng) -> Result<DenseBlock> {
        let DenseBlockBuilder { inputs, growth, layers, bottleneck, dropout } = self;
        if layers == 0 {
            return Err(Error::argument("dense_block", "layers", "at least 1", 0));
        }
        if !(0.0..1.0).contains(&dropout) {
            return Err(Error::argument("dense_block", "dropout", "a probability in [0, 1)", dropout));
        }
        let absurd = || Error::argument("dense_block", "growth", "a sane number of maps", growth);
        let outputs =
            growth.checked_mul(layers).and_then(|new| inputs.checked_add(new)).ok_or_else(absurd)?;
        let make = if bottleneck { DenseLayer::bottleneck } else { DenseLayer::plain };
        let layer =
            |i| Ok(DenseLayer { dropout, ..make(inputs + i * growth, growth, rng).at(layer_name(i))? });
        let layers = (0..layers).map(layer).collect::<Result<_>>()?;
        Ok(DenseBlock { layers, outputs, folding: Folding::default() })
    }
}

/// The layers between two dense blocks (Huang et al. 2017, section 3, "Pooling layers"): BN, ReLU, a 1x1 convolution to
/// fewer maps, and 2x2 average pooling.
///
/// `[N, H, W, in]` to `[N, H/2, W/2, out]`, rounded down. State: `norm`, `conv`.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::Tape, blocks::Transition, nn::Module};
/// let transition = Transition::new(64, 32, &mut Rng::seed(0))?;
/// let tape = Tape::eval();
/// assert_eq!(transition.forward(&tape.input(Tensor::zeros([1, 7, 8, 64])?))?.shape(), [1, 3, 4, 32]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Transition {
    /// BN, ReLU and the 1x1 convolution.
    pub conv: NormConv,
}
state!(Transition { ..conv });

impl Transition {
    /// From `inputs` to `outputs` maps. Weights are Kaiming-normal by fan-in, as torchvision's.
    ///
    /// # Errors
    /// [`Error::Argument`] if a number is zero.
    pub fn new(inputs: usize, outputs: usize, rng: &mut Rng) -> Result<Transition> {
        Ok(Transition { conv: NormConv::new(conv1x1(inputs, outputs).fan(Fan::In), rng)? })
    }

    /// [`Module::forward`], with the input's moments if they are known, from [`DenseBlock::forward_moments`]: they must be those of
    /// the input.
    ///
    /// # Errors
    /// As [`Module::forward`].
    ///
    /// ```
    /// use skipgrad::{Rng, Tensor, autograd::Tape, blocks::{DenseBlock, Transition}, nn::Module};
    /// let mut rng = Rng::seed(0);
    /// let block = DenseBlock::bottleneck(16, 12, 3).build(&mut rng)?;
    /// let transition = Transition::new(block.outputs(), 26, &mut rng)?;
    /// let tape = Tape::train(Rng::seed(1));
    /// let x = tape.input(Tensor::uniform([2, 4, 4, 16], 0.0, 1.0, &mut rng)?);
    /// let (maps, moments) = block.forward_moments(&x)?;
    /// let y = transition.forward_with(&maps, moments.as_ref())?;
    /// assert_eq!(y.shape(), [2, 2, 2, 26]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn forward_with<'t>(&self, x: &Var<'t>, moments: Option<&Moments>) -> Result<Var<'t>> {
        let (tape, activated) = (x.tape(), self.conv.activate(x, moments)?);
        let pool = |x: &Var<'t>| tape.scope("pool", || AvgPool2d::new(2).forward(x));
        // Pooling and convolution are linear, one over pixels and one over channels, so they may change places: pooled
        // first, the convolution has a quarter of the work.
        match tape.captures_within() {
            true => pool(&self.conv.convolve(&activated)?),
            false => self.conv.convolve(&pool(&activated)?),
        }
    }
}

impl Module for Transition {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        self.forward_with(x, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tensor, autograd::Tape};
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

    /// What evaluation computes, folded, and as it is defined.
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
    fn whatever_changes_is_folded_anew() {
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
            // What is not of the usual form is concatenated.
            let layer = &mut block.layers[1];
            layer.second.as_mut().unwrap_or(&mut layer.first).conv.options.padding = Padding::Same;
            let [other, defined] = outputs(&block, &small);
            assert!(other == defined);
            assert_alike(&[other, before[0].clone()]);
            assert_alike(&outputs(&block.clone(), &small));
        }
    }

    #[test]
    fn a_training_pass_lets_the_folded_weights_go() {
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
    fn absurd_blocks_are_refused() {
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
