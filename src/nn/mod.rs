//! Layers: named state and its initialisation; the arithmetic is in [`ops`](crate::ops).
//!
//! A [`Module`] maps a value to a value and does not change while it does: what training learns comes back as
//! [`Updates`](crate::autograd::Updates). A network of one's own is a struct of modules, with
//! [`state!`](crate::state) for the names and `forward` for the arithmetic, or a [`Sequential`]:
//!
//! ```
//! use skipgrad::{Result, Rng, Tensor, autograd::{State, Tape, Var}, nn::{Conv2d, Linear, Module}, state};
//!
//! struct Tiny { conv: Conv2d, fc: Linear }
//! state!(Tiny { conv, fc });
//!
//! impl Module for Tiny {
//!     fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
//!         let maps = self.conv.forward(x)?.relu();
//!         self.fc.forward(&maps.global_avg_pool()?)
//!     }
//! }
//!
//! let mut rng = Rng::seed(0);
//! let net = Tiny { conv: Conv2d::builder(3, 8, 3).padding(1).build(&mut rng)?, fc: Linear::new(8, 10, &mut rng)? };
//! assert_eq!(net.parameters(), 3 * 3 * 3 * 8 + 8 * 10 + 10);
//! let tape = Tape::eval();
//! let logits = net.forward(&tape.input(Tensor::zeros([2, 5, 6, 3])?))?;
//! assert_eq!(logits.shape()[..], [2, 10]);
//! # Ok::<(), skipgrad::Error>(())
//! ```

mod activation;
mod batch_norm;
mod conv;
pub mod init;
mod linear;
mod pool;
mod sequential;

pub use activation::{Dropout, Flatten, Relu};
pub use batch_norm::BatchNorm2d;
pub use conv::{Conv2d, Conv2dBuilder, Pair, conv1x1, conv3x3};
pub use linear::Linear;
pub use pool::{AvgPool2d, GlobalAvgPool, MaxPool2d};
pub use sequential::Sequential;

use crate::{
    Result,
    autograd::{State, Var},
};

/// A layer, a block, a network: something with named state that maps a value to a value.
///
/// The mode of the tape decides between training and evaluation; see [`Tape`](crate::autograd::Tape). A container adds
/// its child's name to the child's error with [`At::at`](crate::At::at), so that an error says where in the network it
/// arose.
pub trait Module: State + Send + Sync {
    /// The output for an input `[N, H, W, C]`, or `[N, C]` behind the pooling.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) if the input does not fit.
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>>;
}

impl<M: Module + ?Sized> Module for Box<M> {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        (**self).forward(x)
    }
}
