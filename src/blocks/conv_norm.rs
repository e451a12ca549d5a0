//! A convolution and a batch normalization, in both orders.

use crate::{
    Result, Rng,
    autograd::{State, Var},
    nn::{BatchNorm2d, Conv2d, Conv2dBuilder, Fused, Module},
    ops::Moments,
};

/// A convolution and the normalization of its output (He et al. 2015, section 3.4: "BN right after
/// each convolution and before activation"), with what may follow in the same pass over memory: the
/// addition of a shortcut, and a ReLU.
///
/// Its state is `conv` and `norm`. A field shows them under other names with
/// `#[state(flatten(conv = "conv1", norm = "bn1"))]`.
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
        Ok(ConvNorm { conv, norm })
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

    /// Returns `norm(conv(x))` and what follows it. The statistics of a batch are taken while the
    /// convolution's output is in the cache.
    fn forward_fused<'t>(&self, x: &Var<'t>, residual: Option<&Var<'t>>, relu: bool) -> Result<Var<'t>> {
        let tape = x.tape();
        tape.enter(self, || {
            if self.norm.uses_running_moments(tape) {
                let y = self.conv.forward(x)?;
                return self.norm.forward_fused(&y, Fused { moments: None, residual, relu });
            }
            let (y, moments) = self.conv.forward_moments(x)?;
            self.norm.forward_fused(&y, Fused { moments: Some(&moments), residual, relu })
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
