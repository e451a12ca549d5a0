//! Reverse-mode differentiation on a tape that is a value.
//!
//! A [`Tape`] is one pass through a network, and [`Var`]s are the values computed on it. Each
//! operation is an [`Op`], applied to values: it computes a value and, while the tape records,
//! keeps what its backward needs. [`Var::backward`] consumes the recording, from the loss to the
//! parameters: each backward function runs once and is freed with the activations it saved. The
//! result, [`Updates`], has the gradients of [`Param`]s and the new values of [`Buffer`]s, by
//! identity, for an optimizer to apply. A module does not change while it runs, so threads can
//! share it, each with its own tape.
//!
//! ```
//! use skipgrad::{Rng, Tensor, autograd::{Param, Tape}};
//! let weight = Param::new(Tensor::new([2], [3.0, -1.0])?);
//! let tape = Tape::train(Rng::seed(0));
//! let x = tape.input(Tensor::new([2], [2.0, 5.0])?);
//! let loss = x.mul(&tape.param(&weight))?.sum();
//! assert_eq!(loss.item(), 1.0);
//! let updates = loss.backward()?;
//! assert_eq!(updates.grad(&weight).unwrap().data(), [2.0, 5.0]);
//! # Ok::<(), skipgrad::Error>(())
//! ```

mod backward;
mod check;
mod closure;
mod freeze;
mod inspect;
mod kind;
mod meta;
mod op;
mod param;
mod saved;
mod scope;
mod state;
mod tape;
mod tree;
mod unnamed;
mod updates;

pub use check::{GradientCheck, gradient_check};
pub(crate) use freeze::matches;
pub(crate) use inspect::Computed;
pub use kind::{Kind, OnnxAttribute, OnnxNode};
pub use meta::{Cost, GradientMemory, RecomputeCost};
pub(crate) use meta::{Operand, Operation};
pub(crate) use op::{AnyOp, apply_with};
pub use op::{Fault, Input, Op};
pub use param::{Buffer, Layout, Param, StateId, Version};
pub use saved::{Recompute, Saved};
pub use scope::Scoped;
pub use skipgrad_derive::State;
#[doc(hidden)]
pub use state::rename;
pub use state::{NamedTensors, State, StateMut, StateRef, join};
pub use tape::{Mode, Tape, Var};
pub use tree::Tree;
pub(crate) use tree::displayed_as_tree;
pub use updates::Updates;
