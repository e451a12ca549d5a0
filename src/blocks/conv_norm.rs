//! A convolution and a batch normalisation, in both orders.

use crate::{
    At, Result, Rng,
    autograd::{Slot, SlotMut, State, Var, join},
    nn::{BatchNorm2d, Conv2d, Conv2dBuilder, Module},
};

/// A convolution, the normalisation of its output, and what may follow in the same pass: the addition of a shortcut and a
/// ReLU (He et al. 2015, section 3.4: "BN right after each convolution and before activation").
///
/// State: under two names that are its own to choose, `conv` and `norm` if nothing is said, so that a struct can show it
/// flat (`..conv1`) under the names of its weights file.
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
    /// The normalisation of its output.
    pub norm: BatchNorm2d,
    names: [&'static str; 2],
}

impl ConvNorm {
    /// Makes the convolution, and the normalisation for its output's channels.
    ///
    /// # Errors
    /// As [`Conv2dBuilder::build`].
    pub fn new(conv: Conv2dBuilder, rng: &mut Rng) -> Result<ConvNorm> {
        let conv = conv.build(rng)?;
        Ok(ConvNorm { norm: BatchNorm2d::new(conv.outputs())?, conv, names: ["conv", "norm"] })
    }

    /// The same under other names.
    pub fn named(mut self, conv: &'static str, norm: &'static str) -> ConvNorm {
        self.names = [conv, norm];
        self
    }

    /// `relu(norm(conv(x)))`.
    ///
    /// # Errors
    /// As [`Module::forward`].
    pub fn relu<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        self.norm.relu(&self.convolve(x)?).at(self.names[1])
    }

    /// `relu(norm(conv(x)) + shortcut)`: the end of a residual block (He et al. 2015, figure 2).
    ///
    /// # Errors
    /// As [`Module::forward`], and if the shortcut has another shape than the convolution's output.
    pub fn add_relu<'t>(&self, x: &Var<'t>, shortcut: &Var<'t>) -> Result<Var<'t>> {
        self.norm.add_relu(&self.convolve(x)?, shortcut).at(self.names[1])
    }

    fn convolve<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        self.conv.forward(x).at(self.names[0])
    }
}

/// `norm(conv(x))`.
impl Module for ConvNorm {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        self.norm.forward(&self.convolve(x)?).at(self.names[1])
    }
}

impl State for ConvNorm {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, Slot<'_>)) {
        self.conv.visit(&join(path, self.names[0]), f);
        self.norm.visit(&join(path, self.names[1]), f);
    }
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, SlotMut<'_>)) {
        self.conv.visit_mut(&join(path, self.names[0]), f);
        self.norm.visit_mut(&join(path, self.names[1]), f);
    }
}

/// Normalisation, ReLU, convolution: the composite function of Huang et al. 2017, section 3.
///
/// State: under two names that are its own to choose, `norm` and `conv` if nothing is said.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::Tape, blocks::NormConv, nn::{Module, conv3x3}};
/// let layer = NormConv::new(conv3x3(6, 4), &mut Rng::seed(0))?.named("norm1", "conv1");
/// let tape = Tape::eval();
/// assert_eq!(layer.forward(&tape.input(Tensor::zeros([1, 5, 5, 6])?))?.shape()[..], [1, 5, 5, 4]);
/// let error = layer.forward(&tape.input(Tensor::zeros([1, 5, 5, 7])?)).err().unwrap();
/// assert_eq!(error.path(), Some("norm1"));
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct NormConv {
    /// The normalisation of the input.
    pub norm: BatchNorm2d,
    /// The convolution behind the ReLU.
    pub conv: Conv2d,
    names: [&'static str; 2],
}

impl NormConv {
    /// Makes the convolution, and the normalisation for its input's channels.
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

    /// `relu(norm(x))`, the convolution's input.
    pub(super) fn activate<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        self.norm.relu(x).at(self.names[0])
    }

    /// The convolution of what [`NormConv::activate`] gave.
    pub(super) fn convolve<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        self.conv.forward(x).at(self.names[1])
    }
}

impl Module for NormConv {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        self.convolve(&self.activate(x)?)
    }
}

impl State for NormConv {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, Slot<'_>)) {
        self.norm.visit(&join(path, self.names[0]), f);
        self.conv.visit(&join(path, self.names[1]), f);
    }
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, SlotMut<'_>)) {
        self.norm.visit_mut(&join(path, self.names[0]), f);
        self.conv.visit_mut(&join(path, self.names[1]), f);
    }
}
