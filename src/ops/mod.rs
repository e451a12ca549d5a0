//! Operations on [`Var`](crate::autograd::Var): one file each, forward beside backward.
//!
//! Every file says what its backward keeps: that is what training remembers.

mod mul;
mod sum;
