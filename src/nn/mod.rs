//! Layers: named state and its initialization; the arithmetic is in [`ops`](crate::ops).
//!
//! A [`Module`] maps a value to a value and does not change while it does: what training learns
//! comes back as [`Updates`](crate::autograd::Updates). A network of your own is a struct of
//! modules, with `#[derive(State)]` for the names and `forward` for the arithmetic, or a
//! [`Sequential`]:
//!
//! ```
//! use skipgrad::{Result, Rng, Tensor, autograd::{State, Tape, Var}, nn::{Conv2d, Linear, Module}};
//!
//! #[derive(State)]
//! struct Tiny { conv: Conv2d, fc: Linear }
//!
//! impl Module for Tiny {
//!     fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
//!         x.apply(&self.conv)?.relu().global_avg_pool()?.apply(&self.fc)
//!     }
//! }
//!
//! let mut rng = Rng::seed(0);
//! let conv = Conv2d::builder(3, 8, 3).padding(1).build(&mut rng)?;
//! let net = Tiny { conv, fc: Linear::new(8, 10, &mut rng)? };
//! assert_eq!(net.num_parameters(), 3 * 3 * 3 * 8 + 8 * 10 + 10);
//! let tape = Tape::eval();
//! let logits = tape.input(Tensor::zeros([2, 5, 6, 3])?).apply(&net)?;
//! assert_eq!(logits.shape(), [2, 10]);
//!
//! // Errors say where they arose, by the names of the fields.
//! let error = tape.input(Tensor::zeros([2, 5, 6, 4])?).apply(&net).unwrap_err();
//! assert_eq!(error.path(), Some("conv"));
//! # Ok::<(), skipgrad::Error>(())
//! ```

mod activation;
mod batch_norm;
mod conv;
mod from_fn;
pub mod init;
mod linear;
mod pool;
mod sequential;

pub use activation::{Dropout, Flatten, Relu};
pub(crate) use batch_norm::Fused;
pub use batch_norm::{BatchNorm2d, BatchNorm2dBuilder};
pub use conv::{Conv2d, Conv2dBuilder, Pair, conv1x1, conv3x3};
pub use from_fn::{FromFn, from_fn};
pub use linear::{Linear, LinearBuilder};
pub use pool::{AvgPool2d, GlobalAvgPool, MaxPool2d};
pub use sequential::Sequential;

use crate::{
    Result,
    autograd::{State, Var, displayed_as_tree},
};

displayed_as_tree!(Relu, Flatten, Dropout, BatchNorm2d, Conv2d, Linear, MaxPool2d, AvgPool2d, GlobalAvgPool);
displayed_as_tree!(debug: Sequential, dyn Module);

/// A layer, a block or a network: named state, and a function of a value.
///
/// The tape's mode decides between training and evaluation; see [`Tape`](crate::autograd::Tape).
/// [`Var::apply`] runs a module so that errors carry its path and
/// [`feature_maps`](crate::graph::ModuleExt::feature_maps) finds its output. The layers, blocks and
/// models of this crate see to that themselves. A module of your own needs it where it runs its
/// parts, and where a program runs the module: `x.apply(&net)` instead of `net.forward(&x)`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a module",
    label = "this has no `forward`",
    note = "a module of your own derives `State` (`#[derive(State)]`) and implements `Module`, whose \
            `forward` takes and returns a `Var`",
    note = "a closure becomes a module by `nn::from_fn(|x| ...)`"
)]
pub trait Module: State + Send + Sync {
    /// Returns the output for an input `[N, H, W, C]`, or `[N, C]` after the pooling.
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

impl<'t> Var<'t> {
    /// Returns the output of a module for this value: [`Module::forward`], such that an error
    /// carries the path of the module, and that the output can be captured; see
    /// [`Tape::enter`](crate::autograd::Tape::enter).
    ///
    /// # Errors
    /// Returns those of the module.
    ///
    /// ```
    /// use skipgrad::{Rng, Tensor, autograd::Tape, nn::{BatchNorm2d, conv3x3}};
    /// let conv = conv3x3(3, 8).build(&mut Rng::seed(0))?;
    /// let tape = Tape::eval();
    /// let x = tape.input(Tensor::zeros([1, 4, 4, 3])?);
    /// let y = x.apply(&conv)?.apply(&BatchNorm2d::new(8)?)?.relu();
    /// assert_eq!(y.shape(), [1, 4, 4, 8]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn apply(&self, module: &(impl Module + ?Sized)) -> Result<Var<'t>> {
        self.tape().enter(module, || module.forward(self))
    }
}
