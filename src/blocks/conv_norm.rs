//! A convolution and a batch normalization, in both orders.

use super::folding::{Folding, Origin};
use crate::{
    At, Result, Rng,
    autograd::{Mode, Param, State, StateMut, StateRef, Var, join},
    nn::{BatchNorm2d, Conv2d, Conv2dBuilder, Module},
    ops::{FoldedConv2d, Moments, Normalization},
};
use std::{borrow::Cow, iter, sync::Arc};

/// A convolution, the normalization of its output, and what may follow in the same pass: the addition of a shortcut and a
/// ReLU (He et al. 2015, section 3.4: "BN right after each convolution and before activation").
///
/// State: under two names that are its own to choose, `conv` and `norm` if nothing is said, so that a struct can show it
/// flat (`..conv1`) under the names of its weights file.
///
/// Where statistics are constants and nothing is recorded, the normalization is folded into the convolution
/// ([`FoldedConv2d`]) on the first forward pass, and folded weights are used until a parameter, a statistic or a setting changes. A
/// forward pass in training drops them.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::{State, Tape}, blocks::ConvNorm, nn::{Module, conv3x3}};
/// let conv1 = ConvNorm::new(conv3x3(3, 8).stride(2), &mut Rng::seed(0))?.named("conv1", "bn1");
/// let names: Vec<String> = conv1.export().into_keys().collect();
/// assert_eq!(names, ["bn1.bias", "bn1.running_mean", "bn1.running_var", "bn1.weight", "conv1.weight"]);
///
/// let tape = Tape::eval();
/// let x = tape.input(Tensor::full([1, 6, 6, 3], 1.0)?);
/// assert_eq!(conv1.relu(&x)?.value(), conv1.forward(&x)?.relu().value());
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ConvNorm {
    /// The convolution.
    pub conv: Conv2d,
    /// The normalization of its output.
    pub norm: BatchNorm2d,
    names: [Cow<'static, str>; 2],
    folding: Folding<FoldedConv2d>,
}

impl ConvNorm {
    /// Makes the convolution, and the normalization for its output's channels.
    ///
    /// # Errors
    /// As [`Conv2dBuilder::build`].
    pub fn new(conv: Conv2dBuilder, rng: &mut Rng) -> Result<ConvNorm> {
        let conv = conv.build(rng)?;
        let norm = BatchNorm2d::new(conv.outputs())?;
        Ok(ConvNorm { norm, conv, names: ["conv".into(), "norm".into()], folding: Folding::default() })
    }

    /// The same under other names.
    pub fn named(
        mut self,
        conv: impl Into<Cow<'static, str>>,
        norm: impl Into<Cow<'static, str>>,
    ) -> ConvNorm {
        self.names = [conv.into(), norm.into()];
        self
    }

    /// `relu(norm(conv(x)))`.
    ///
    /// # Errors
    /// As [`Module::forward`].
    pub fn relu<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        self.apply(x, None, true)
    }

    /// `relu(norm(conv(x)) + shortcut)`: the end of a residual block (He et al. 2015, figure 2).
    ///
    /// # Errors
    /// As [`Module::forward`], and if the shortcut has another shape than the convolution's output.
    pub fn add_relu<'t>(&self, x: &Var<'t>, shortcut: &Var<'t>) -> Result<Var<'t>> {
        self.apply(x, Some(shortcut), true)
    }

    fn folded(&self) -> Result<Arc<FoldedConv2d>> {
        let ConvNorm { conv, norm, .. } = self;
        self.folding.of(iter::once(Origin::of(conv, norm)), || {
            let constants = Normalization {
                gamma: norm.weight.value(),
                beta: norm.bias.value(),
                mean: norm.running_mean.value(),
                var: norm.running_var.value(),
                eps: norm.eps,
            };
            let bias = conv.bias.as_ref().map(Param::value);
            FoldedConv2d::new(conv.weight.value(), bias, conv.options, constants)
        })
    }

    fn apply<'t>(&self, x: &Var<'t>, shortcut: Option<&Var<'t>>, relu: bool) -> Result<Var<'t>> {
        let ([conv, norm], tape) = (&self.names, x.tape());
        let constant = self.norm.is_constant(tape);
        if constant && !tape.is_recording() && !tape.captures(conv) && !tape.captures(norm) {
            let folded = self.folded().at(norm)?;
            return folded.apply(x, shortcut, relu).at(conv);
        }
        if tape.mode() == Mode::Train {
            self.folding.clear();
        }
        let (y, moments) = tape.scope(conv, || match constant {
            true => Ok((self.conv.forward(x)?, None)),
            false => self.conv.forward_moments(x).map(|(y, moments)| (y, Some(moments))),
        })?;
        self.norm.apply_as(norm, &y, moments.as_ref(), shortcut, relu)
    }
}

/// `norm(conv(x))`.
impl Module for ConvNorm {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        self.apply(x, None, false)
    }
}

impl State for ConvNorm {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, StateRef<'_>)) {
        self.conv.visit(&join(path, &self.names[0]), f);
        self.norm.visit(&join(path, &self.names[1]), f);
    }
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, StateMut<'_>)) {
        self.conv.visit_mut(&join(path, &self.names[0]), f);
        self.norm.visit_mut(&join(path, &self.names[1]), f);
    }
}

/// Normalization, ReLU, convolution: the composite function of Huang et al. 2017, section 3.
///
/// State: under two names that are its own to choose, `norm` and `conv` if nothing is said.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::Tape, blocks::NormConv, nn::{Module, conv3x3}};
/// let layer = NormConv::new(conv3x3(6, 4), &mut Rng::seed(0))?.named("norm1", "conv1");
/// let tape = Tape::eval();
/// assert_eq!(layer.forward(&tape.input(Tensor::zeros([1, 5, 5, 6])?))?.shape(), [1, 5, 5, 4]);
/// let error = layer.forward(&tape.input(Tensor::zeros([1, 5, 5, 7])?)).err().unwrap();
/// assert_eq!(error.path(), Some("norm1"));
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct NormConv {
    /// The normalization of the input.
    pub norm: BatchNorm2d,
    /// The convolution behind the ReLU.
    pub conv: Conv2d,
    names: [&'static str; 2],
}

impl NormConv {
    /// Makes the convolution, and the normalization for its input's channels.
    ///
    /// # Errors
    /// As [`Conv2dBuilder::build`].
    pub fn new(conv: Conv2dBuilder, rng: &mut Rng) -> Result<NormConv> {
        let conv = conv.build(rng)?;
        Ok(NormConv { norm: BatchNorm2d::new(conv.inputs())?, conv, names: ["norm", "conv"] })
    }

    /// The same under other names.
    pub fn named(mut self, norm: &'static str, conv: &'static str) -> NormConv {
        self.names = [norm, conv];
        self
    }

    /// `relu(norm(x))`, the convolution's input, with the moments of x if they are known.
    pub(super) fn activate<'t>(&self, x: &Var<'t>, moments: Option<&Moments>) -> Result<Var<'t>> {
        self.norm.apply_as(self.names[0], x, moments, None, true)
    }

    /// The convolution of what [`NormConv::activate`] gave.
    pub(super) fn convolve<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        x.tape().scope(self.names[1], || self.conv.forward(x))
    }
}

impl Module for NormConv {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        self.convolve(&self.activate(x, None)?)
    }
}

impl State for NormConv {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, StateRef<'_>)) {
        self.norm.visit(&join(path, self.names[0]), f);
        self.conv.visit(&join(path, self.names[1]), f);
    }
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, StateMut<'_>)) {
        self.norm.visit_mut(&join(path, self.names[0]), f);
        self.conv.visit_mut(&join(path, self.names[1]), f);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tensor, autograd::Tape, nn::conv3x3};

    fn layer(rng: &mut Rng) -> ConvNorm {
        let mut layer = ConvNorm::new(conv3x3(3, 5).with_bias(), rng).unwrap();
        let tape = Tape::train(Rng::seed(0));
        let x = Tensor::uniform([4, 6, 6, 3], -1.0, 2.0, rng).unwrap();
        let updates = layer.forward(&tape.input(x)).unwrap().sum().backward().unwrap();
        for buffer in [&mut layer.norm.running_mean, &mut layer.norm.running_var] {
            *buffer.value_mut() = updates.observed(buffer).unwrap().clone();
        }
        layer
    }

    /// What evaluation computes, folded, and on a recording tape, where nothing is.
    fn outputs(layer: &ConvNorm, x: &Tensor) -> [Tensor; 2] {
        [false, true].map(|recording| {
            let tape = Tape::eval().recording(recording);
            layer.relu(&tape.input(x.clone())).unwrap().value().clone()
        })
    }

    #[track_caller]
    fn assert_alike([folded, plain]: &[Tensor; 2]) {
        for (a, b) in folded.data().iter().zip(plain.data()) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }

    #[test]
    fn whatever_changes_is_folded_anew() {
        let mut rng = Rng::seed(4);
        let mut layer = layer(&mut rng);
        let x = Tensor::normal([2, 5, 4, 3], 1.0, &mut rng).unwrap();
        let mut before = outputs(&layer, &x);
        assert_alike(&before);
        let changes: [fn(&mut ConvNorm); 8] = [
            |layer| layer.conv.weight.value_mut().scale(1.5),
            |layer| layer.conv.bias.as_mut().unwrap().value_mut().data_mut().fill(0.3),
            |layer| layer.norm.weight.value_mut().scale(-2.0),
            |layer| layer.norm.bias.value_mut().data_mut().fill(0.7),
            |layer| layer.norm.running_mean.value_mut().data_mut().fill(0.2),
            |layer| layer.norm.running_var.value_mut().scale(0.5),
            |layer| layer.norm.eps = 0.5,
            |layer| layer.conv.options.stride = [1, 2],
        ];
        for change in changes {
            change(&mut layer);
            let after = outputs(&layer, &x);
            assert_alike(&after);
            assert_ne!(after, before);
            before = after;
        }
        let copy = layer.clone();
        assert_eq!(outputs(&copy, &x), before);
    }

    #[test]
    fn a_frozen_norm_is_folded_in_training_if_nothing_is_recorded() {
        let mut rng = Rng::seed(5);
        let mut layer = layer(&mut rng);
        layer.norm.freeze_statistics("*").unwrap();
        let x = Tensor::normal([2, 5, 4, 3], 1.0, &mut rng).unwrap();
        let tape = Tape::train(Rng::seed(0)).recording(false);
        let y = layer.relu(&tape.input(x.clone())).unwrap();
        assert_alike(&[y.value().clone(), outputs(&layer, &x)[1].clone()]);
    }

    #[test]
    fn a_training_pass_lets_the_folded_weights_go() {
        let layer = layer(&mut Rng::seed(6));
        let x = Tensor::zeros([1, 5, 4, 3]).unwrap();
        outputs(&layer, &x);
        assert!(!layer.conv.weight.value().is_unique());
        layer.relu(&Tape::train(Rng::seed(0)).input(x)).unwrap();
        assert!(layer.conv.weight.value().is_unique(), "an update is in place");
    }
}
