//! The way around a residual block.

use super::ConvNorm;
use crate::{
    Error, Result, Rng,
    autograd::{State, StateMut, StateRef, Var},
    nn::{AvgPool2d, Module, conv1x1, init::Fan},
    ops::Pool2dOptions,
};

/// What a shortcut does where the block changes the shape (He et al. 2015, section 4.1, "Identity vs. projection shortcuts").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ShortcutKind {
    /// Option A: every `stride`-th pixel, the new channels zero, half of them on each side. No parameters; what the paper
    /// uses on CIFAR-10.
    Pad,
    /// Option B: a 1x1 convolution with batch normalization. What the paper uses on ImageNet.
    #[default]
    Project,
    /// Option B behind a mean over 2 x 2 pixels, which strides in the convolution's place, so that no pixel is left out (He et
    /// al. 2018, "Bag of tricks for image classification with convolutional neural networks", ResNet-D).
    PoolProject,
}

/// The way around a residual block; its output has the shape of the block's.
///
/// State: nothing, or a projection's convolution and norm, under the names `0` and `1`, or behind a pooling `1` and `2`.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::Tape, blocks::{Shortcut, ShortcutKind}, nn::{Module, init::Fan}};
/// let pad = Shortcut::new(ShortcutKind::Pad, [1, 3], 2, Fan::Out, &mut Rng::seed(0))?;
/// let tape = Tape::eval();
/// let y = pad.forward(&tape.input(Tensor::new([1, 1, 3, 1], [5.0, 6.0, 7.0])?))?;
/// assert_eq!(y.shape(), [1, 1, 2, 3]);
/// assert_eq!(y.value().data(), [0.0, 5.0, 0.0, 0.0, 7.0, 0.0]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub enum Shortcut {
    /// The input itself.
    Identity,
    /// Option B of [`ShortcutKind`].
    Projection {
        /// What strides in the convolution's place.
        pool: Option<AvgPool2d>,
        /// To the block's channels.
        conv: Box<ConvNorm>,
    },
    /// Option A of [`ShortcutKind`].
    Pad {
        /// One pixel of how many is kept, in rows and in columns.
        stride: usize,
        /// Zero channels before the input's.
        before: usize,
        /// Zero channels after the input's.
        after: usize,
    },
}

impl Shortcut {
    /// The shortcut around a block from `inputs` to `outputs` channels: the identity where nothing changes, else as `kind`
    /// says. Of an odd number of new channels the larger half comes after.
    ///
    /// # Errors
    /// [`Error::Argument`] if the stride is zero, or option A would have to drop channels.
    pub fn new(
        kind: ShortcutKind,
        [inputs, outputs]: [usize; 2],
        stride: usize,
        fan: Fan,
        rng: &mut Rng,
    ) -> Result<Shortcut> {
        if stride == 0 {
            return Err(Error::argument("shortcut", "stride", "at least 1", stride));
        }
        if inputs == outputs && stride == 1 {
            return Ok(Shortcut::Identity);
        }
        match kind {
            ShortcutKind::Project => {
                let conv = conv1x1(inputs, outputs).stride(stride).fan(fan);
                Ok(Shortcut::Projection {
                    pool: None,
                    conv: Box::new(ConvNorm::new(conv, rng)?.named("0", "1")),
                })
            }
            ShortcutKind::PoolProject => {
                let options = Pool2dOptions {
                    stride: [stride; 2],
                    count_include_pad: false,
                    ceil_mode: true,
                    ..Pool2dOptions::default()
                };
                let conv = ConvNorm::new(conv1x1(inputs, outputs).fan(fan), rng)?.named("1", "2");
                let pool = (stride > 1).then_some(AvgPool2d { options });
                Ok(Shortcut::Projection { pool, conv: Box::new(conv) })
            }
            ShortcutKind::Pad => {
                let Some(new) = outputs.checked_sub(inputs) else {
                    let expected = format!("at least the input's {inputs}");
                    return Err(Error::argument("shortcut", "channels", expected, outputs));
                };
                Ok(Shortcut::Pad { stride, before: new / 2, after: new - new / 2 })
            }
        }
    }
}

impl Module for Shortcut {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        match *self {
            Shortcut::Identity => Ok(x.clone()),
            Shortcut::Projection { pool: None, ref conv } => conv.forward(x),
            Shortcut::Projection { pool: Some(ref pool), ref conv } => {
                conv.forward(&x.tape().scope("0", || pool.forward(x))?)
            }
            Shortcut::Pad { stride, before, after } => {
                // The mean of a window of one pixel is that pixel.
                let every = Pool2dOptions { kernel: [1, 1], stride: [stride; 2], ..Pool2dOptions::default() };
                x.avg_pool2d(&every)?.pad_channels(before, after)
            }
        }
    }
}

impl State for Shortcut {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, StateRef<'_>)) {
        if let Shortcut::Projection { conv, .. } = self {
            conv.visit(path, f);
        }
    }
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, StateMut<'_>)) {
        if let Shortcut::Projection { conv, .. } = self {
            conv.visit_mut(path, f);
        }
    }
}
