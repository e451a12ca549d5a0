//! A convolution and a batch normalization, in both orders.

use super::folding::{Folding, Origin};
use crate::{
    Result, Rng,
    autograd::{Mode, Param, State, Tape, Var},
    nn::{BatchNorm2d, Conv2d, Conv2dBuilder, Fused, Module},
    ops::{FoldedConv2d, Moments, Normalization},
};
use std::{iter, sync::Arc};

/// A convolution and the normalization of its output (He et al. 2015, section 3.4: "BN right after
/// each convolution and before activation"), with what may follow in the same pass over memory: the
/// addition of a shortcut, and a ReLU.
///
/// Its state is `conv` and `norm`. A field shows them under other names with
/// `#[state(flatten(conv = "conv1", norm = "bn1"))]`.
///
/// Where the statistics are constant and nothing is recorded, the first pass folds the
/// normalization into the convolution ([`FoldedConv2d`]). Folded weights are used until a
/// parameter, a statistic or a setting changes; a pass in training drops them.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::{State, Tape}, blocks::ConvNorm, nn::{Module, conv3x3}};
/// let layer = ConvNorm::new(conv3x3(3, 8).stride(2), &mut Rng::seed(0))?;
/// let names: Vec<String> = layer.export().into_keys().collect();
/// assert_eq!(names[0], "conv.weight");
/// assert_eq!(names[1..], ["norm.bias", "norm.running_mean", "norm.running_var", "norm.weight"]);
///
/// let tape = Tape::eval();
/// let x = tape.input(Tensor::full([1, 6, 6, 3], 1.0)?);
/// assert_eq!(layer.forward_relu(&x)?.value(), layer.forward(&x)?.relu().value());
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug, State)]
pub struct ConvNorm {
    /// The convolution.
    pub conv: Conv2d,
    /// The normalization of the convolution's output.
    pub norm: BatchNorm2d,
    #[state(skip)]
    folding: Folding<FoldedConv2d>,
}

/// Returns `norm(conv(x))`.
impl Module for ConvNorm {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        self.forward_fused(x, None, false)
    }
}

impl ConvNorm {
    /// Makes the convolution, and the normalization of its output channels.
    ///
    /// # Errors
    /// As [`Conv2dBuilder::build`].
    pub fn new(conv: Conv2dBuilder, rng: &mut Rng) -> Result<ConvNorm> {
        let conv = conv.build(rng)?;
        let norm = BatchNorm2d::new(conv.out_channels())?;
        Ok(ConvNorm { conv, norm, folding: Folding::default() })
    }

    /// Returns `relu(norm(conv(x)))`.
    ///
    /// # Errors
    /// As [`Module::forward`].
    pub fn forward_relu<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        self.forward_fused(x, None, true)
    }

    /// Returns `relu(norm(conv(x)) + shortcut)`, the end of a residual block (He et al. 2015,
    /// figure 2).
    ///
    /// # Errors
    /// As [`Module::forward`], and if the shortcut has another shape than the convolution's output.
    pub fn forward_add_relu<'t>(&self, x: &Var<'t>, shortcut: &Var<'t>) -> Result<Var<'t>> {
        self.forward_fused(x, Some(shortcut), true)
    }

    fn forward_fused<'t>(&self, x: &Var<'t>, residual: Option<&Var<'t>>, relu: bool) -> Result<Var<'t>> {
        let tape = x.tape();
        tape.enter(self, || {
            if self.is_folded(tape) {
                let folded = tape.locate(&self.norm, self.folded())?;
                return tape.enter(&self.conv, || folded.apply(x, residual, relu));
            }
            if tape.mode() == Mode::Train {
                self.folding.clear();
            }
            let (y, moments) = self.convolve(x)?;
            self.norm.forward_fused(&y, Fused { moments: moments.as_ref(), residual, relu })
        })
    }

    /// Returns the convolution's output, and its moments if the norm needs them.
    fn convolve<'t>(&self, x: &Var<'t>) -> Result<(Var<'t>, Option<Moments>)> {
        if self.norm.uses_running_moments(x.tape()) {
            return Ok((self.conv.forward(x)?, None));
        }
        let (y, moments) = self.conv.forward_moments(x)?;
        Ok((y, Some(moments)))
    }

    /// Returns whether the norm is folded into the convolution on this tape.
    fn is_folded(&self, tape: &Tape) -> bool {
        self.norm.uses_running_moments(tape)
            && !tape.is_recording()
            && !tape.captures(&self.conv)
            && !tape.captures(&self.norm)
    }

    fn folded(&self) -> Result<Arc<FoldedConv2d>> {
        let ConvNorm { conv, norm, .. } = self;
        self.folding.get_or_fold(iter::once(Origin::of(conv, norm)), || {
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
}

/// Normalization, ReLU, convolution: the composite function of Huang et al. 2017, section 3.
///
/// Its state is `norm` and `conv`.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::Tape, blocks::NormConv, nn::{Module, conv3x3}};
/// let layer = NormConv::new(conv3x3(6, 4), &mut Rng::seed(0))?;
/// let tape = Tape::eval();
/// assert_eq!(layer.forward(&tape.input(Tensor::zeros([1, 5, 5, 6])?))?.shape(), [1, 5, 5, 4]);
/// let error = layer.forward(&tape.input(Tensor::zeros([1, 5, 5, 7])?)).err().unwrap();
/// assert_eq!(error.path(), Some("norm"));
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug, State)]
pub struct NormConv {
    /// The normalization of the input.
    pub norm: BatchNorm2d,
    /// The convolution after the ReLU.
    pub conv: Conv2d,
}

/// Returns `conv(relu(norm(x)))`.
impl Module for NormConv {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        x.tape().enter(self, || self.conv.forward(&self.activate(x, None)?))
    }
}

impl NormConv {
    /// Makes the convolution, and the normalization of its input channels.
    ///
    /// # Errors
    /// As [`Conv2dBuilder::build`].
    pub fn new(conv: Conv2dBuilder, rng: &mut Rng) -> Result<NormConv> {
        let conv = conv.build(rng)?;
        Ok(NormConv { norm: BatchNorm2d::new(conv.in_channels())?, conv })
    }

    /// Returns `relu(norm(x))`, the convolution's input, with the moments of x if they are known.
    pub(super) fn activate<'t>(&self, x: &Var<'t>, moments: Option<&Moments>) -> Result<Var<'t>> {
        self.norm.forward_fused(x, Fused { moments, residual: None, relu: true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tensor, autograd::Tape, nn::conv3x3};

    fn layer(rng: &mut Rng) -> ConvNorm {
        let mut layer = ConvNorm::new(conv3x3(3, 5).bias(true), rng).unwrap();
        let tape = Tape::train(Rng::seed(0));
        let x = Tensor::uniform([4, 6, 6, 3], -1.0, 2.0, rng).unwrap();
        let updates = layer.forward(&tape.input(x)).unwrap().sum().backward().unwrap();
        for buffer in [&mut layer.norm.running_mean, &mut layer.norm.running_var] {
            *buffer.value_mut() = updates.observed(buffer).unwrap().clone();
        }
        layer
    }

    /// Returns what evaluation computes with folded weights, and on a recording tape without.
    fn outputs(layer: &ConvNorm, x: &Tensor) -> [Tensor; 2] {
        [false, true].map(|recording| {
            let tape = Tape::eval().recording(recording);
            layer.forward_relu(&tape.input(x.clone())).unwrap().value().clone()
        })
    }

    #[track_caller]
    fn assert_alike([folded, plain]: &[Tensor; 2]) {
        for (a, b) in folded.data().iter().zip(plain.data()) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }

    #[test]
    fn a_change_is_folded_again() {
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
        let y = layer.forward_relu(&tape.input(x.clone())).unwrap();
        assert_alike(&[y.value().clone(), outputs(&layer, &x)[1].clone()]);
    }

    #[test]
    fn a_training_pass_drops_the_folded_weights() {
        let layer = layer(&mut Rng::seed(6));
        let x = Tensor::zeros([1, 5, 4, 3]).unwrap();
        outputs(&layer, &x);
        assert!(!layer.conv.weight.value().is_unique());
        layer.forward_relu(&Tape::train(Rng::seed(0)).input(x)).unwrap();
        assert!(layer.conv.weight.value().is_unique(), "an update is in place");
    }
}
