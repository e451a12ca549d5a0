//! A function as a module.

use super::Module;
use crate::{
    Result,
    autograd::{State, Var},
};
use std::fmt;

/// A module without state, made of a function by [`from_fn`].
#[derive(Clone, Copy, State)]
pub struct FromFn<F>(#[state(skip)] F);

/// Makes a module of a function without parameters, for one operation or a few inside of a
/// [`Sequential`](super::Sequential). Keras calls it a `Lambda` layer.
///
/// The function does not see parameters of its own: those would be outside of the model's state,
/// and a step would refuse to leave them untrained
/// ([`Error::NotInState`](crate::Error::NotInState)). A module with parameters is a struct with
/// `#[derive(State)]`.
///
/// ```
/// use skipgrad::{Rng, Tensor, autograd::Tape, nn::{Linear, Module, Sequential, from_fn}};
/// let net = Sequential::new()
///     .push(from_fn(|x| x.slice_channels(0..2)?.flatten()))
///     .push(Linear::new(2, 10, &mut Rng::seed(0))?)
///     .push(from_fn(|x| Ok(x.sigmoid())));
/// let tape = Tape::eval();
/// assert_eq!(net.forward(&tape.input(Tensor::zeros([4, 1, 1, 3])?))?.shape(), [4, 10]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
pub fn from_fn<F>(f: F) -> FromFn<F>
where
    F: for<'t> Fn(&Var<'t>) -> Result<Var<'t>> + Send + Sync,
{
    FromFn(f)
}

impl<F> Module for FromFn<F>
where
    F: for<'t> Fn(&Var<'t>) -> Result<Var<'t>> + Send + Sync,
{
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        self.0(x)
    }
}

impl<F> fmt::Debug for FromFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromFn").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Error, Rng, Tensor,
        autograd::{Param, Tape},
        graph::ModuleExt,
        nn::{Sequential, conv1x1},
        optim::{Optimizer, Sgd},
    };

    /// Returns the sum of twice its input, for a function that is not a closure.
    fn double<'t>(x: &Var<'t>) -> Result<Var<'t>> {
        x.add(x)
    }

    #[test]
    fn functions_and_closures_are_modules() {
        let shift = 3.0;
        let net = Sequential::new().push(from_fn(double)).push(from_fn(move |x| Ok(x.scale(shift))));
        let tape = Tape::eval();
        assert_eq!(net.forward(&tape.input(Tensor::scalar(1.0))).unwrap().item(), 6.0);
        assert_eq!(net.num_parameters(), 0);
    }

    #[test]
    fn the_parameters_of_a_closure_are_refused() {
        let factor = Param::new(Tensor::full([1, 2, 2, 2], 2.0).unwrap());
        let conv = conv1x1(2, 2).build(&mut Rng::seed(0)).unwrap();
        let mut net = Sequential::new()
            .named("conv", conv)
            .unwrap()
            .named("gain", from_fn(move |x| x.mul(&x.tape().param(&factor))))
            .unwrap();
        let Error::Faults { faults } = net.check(&[1, 2, 2, 2]).unwrap_err() else { panic!("other errors") };
        assert!(matches!(&faults[..], [Error::Module { path, source }]
            if path == "gain" && matches!(**source, Error::NotInState { op: "mul", .. })));
        let tape = Tape::train(Rng::seed(0));
        let y = net.forward(&tape.input(Tensor::zeros([1, 2, 2, 2]).unwrap())).unwrap();
        let error = Sgd::new(0.1).step(&mut net, y.sum().backward().unwrap()).unwrap_err();
        assert!(error.to_string().contains("read after conv.weight"), "{error}");
    }
}
