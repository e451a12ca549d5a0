//! The shortcut of a residual block.

use super::ConvNorm;
use crate::{
    Error, Result, Rng,
    autograd::{State, Var},
    nn::{AvgPool2d, Module, conv1x1, init::Fan},
    ops::Pool2dOptions,
};

/// The kind of shortcut that a block has where it changes the shape (He et al. 2015, section 4.1,
/// "Identity vs. projection shortcuts"), or that no block has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShortcutKind {
    /// Option A: every `stride`-th pixel, padded with zero channels, half of them on each side. It
    /// has no parameters; the paper uses it on CIFAR-10.
    Pad,
    /// Option B: a 1x1 convolution with batch normalization. The paper uses it on ImageNet.
    #[default]
    Project,
    /// Option B after a 2x2 average pooling, which takes the stride in the convolution's place, so
    /// that no pixel is left out (He et al. 2018, "Bag of tricks for image classification with
    /// convolutional neural networks", ResNet-D).
    PoolProject,
    /// No shortcut at all, in blocks that keep the shape neither: the plain networks that the paper
    /// compares with (section 4.1, "Plain networks"; figures 1 and 6).
    None,
}

/// The shortcut of a residual block; its output has the shape of the block's. A block of a plain
/// network has [`Shortcut::None`], which has no output.
///
/// Its state is that of the projection, if there is one: convolution and norm under the names `0`
/// and `1`, or after a pooling `1` and `2`.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::Tape, nn::{Module, init::Fan}};
/// use skipgrad::blocks::{Shortcut, ShortcutKind};
/// let pad = Shortcut::new(ShortcutKind::Pad, [1, 3], 2, Fan::Out, &mut Rng::seed(0))?;
/// let tape = Tape::eval();
/// let y = pad.forward(&tape.input(Tensor::new([1, 1, 3, 1], [5.0, 6.0, 7.0])?))?;
/// assert_eq!(y.shape(), [1, 1, 2, 3]);
/// assert_eq!(y.value().data(), [0.0, 5.0, 0.0, 0.0, 7.0, 0.0]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug, State)]
#[non_exhaustive]
pub enum Shortcut {
    /// The input itself.
    Identity,
    /// [`ShortcutKind::Project`].
    Projection {
        /// The convolution to the block's channels, and its norm.
        #[state(flatten(conv = "0", norm = "1"))]
        conv: Box<ConvNorm>,
    },
    /// [`ShortcutKind::PoolProject`].
    PoolProjection {
        /// The pooling, if the block has a stride.
        #[state(skip)]
        pool: Option<AvgPool2d>,
        /// The convolution to the block's channels, and its norm.
        #[state(flatten(conv = "1", norm = "2"))]
        conv: Box<ConvNorm>,
    },
    /// [`ShortcutKind::Pad`].
    Pad {
        /// The stride of the pixels that are kept, in rows and in columns.
        #[state(skip)]
        stride: usize,
        /// The number of zero channels before the input's.
        #[state(skip)]
        before: usize,
        /// The number of zero channels after the input's.
        #[state(skip)]
        after: usize,
    },
    /// [`ShortcutKind::None`].
    None,
}

impl Shortcut {
    /// Makes the shortcut of a block from `in_channels` to `out_channels`: the identity where
    /// nothing changes, else one of this kind; with [`ShortcutKind::None`] always none. Of an odd
    /// number of zero channels the larger half comes last.
    ///
    /// # Errors
    /// [`Error::Argument`] if the stride is zero, or option A would have to drop channels.
    pub fn new(
        kind: ShortcutKind,
        [in_channels, out_channels]: [usize; 2],
        stride: usize,
        fan: Fan,
        rng: &mut Rng,
    ) -> Result<Shortcut> {
        if stride == 0 {
            return Err(Error::argument("shortcut", "stride", "at least 1", stride));
        }
        if kind == ShortcutKind::None {
            return Ok(Shortcut::None);
        }
        if in_channels == out_channels && stride == 1 {
            return Ok(Shortcut::Identity);
        }
        let conv = conv1x1(in_channels, out_channels).fan(fan);
        match kind {
            ShortcutKind::Project => {
                let conv = Box::new(ConvNorm::new(conv.stride(stride), rng)?);
                Ok(Shortcut::Projection { conv })
            }
            ShortcutKind::PoolProject => {
                let conv = Box::new(ConvNorm::new(conv, rng)?);
                let pool = AvgPool2d::new(2).stride(stride).count_include_pad(false).ceil_mode(true);
                Ok(Shortcut::PoolProjection { pool: (stride > 1).then_some(pool), conv })
            }
            ShortcutKind::Pad => {
                let Some(new) = out_channels.checked_sub(in_channels) else {
                    let expected = format!("at least the input's {in_channels}");
                    return Err(Error::argument("shortcut", "channels", expected, out_channels));
                };
                Ok(Shortcut::Pad { stride, before: new / 2, after: new - new / 2 })
            }
            ShortcutKind::None => Ok(Shortcut::None),
        }
    }
}

/// [`Shortcut::None`] has no output, and its forward is an error: blocks look for it beforehand.
impl Module for Shortcut {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let tape = x.tape();
        tape.enter(self, || match *self {
            Shortcut::Identity => Ok(x.clone()),
            Shortcut::Projection { ref conv } | Shortcut::PoolProjection { pool: None, ref conv } => {
                conv.forward(x)
            }
            Shortcut::PoolProjection { pool: Some(ref pool), ref conv } => {
                conv.forward(&tape.scope("0", || pool.forward(x))?)
            }
            Shortcut::Pad { stride, before, after } => {
                // The mean of a window of one pixel is that pixel.
                let every = Pool2dOptions { kernel: [1, 1], stride: [stride; 2], ..Pool2dOptions::default() };
                x.avg_pool2d(&every)?.pad_channels(before, after)
            }
            Shortcut::None => Err(Error::argument("shortcut", "kind", "a shortcut with an output", "None")),
        })
    }
}
