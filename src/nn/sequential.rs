//! Modules one after the other.

use super::Module;
use crate::{
    Error, Result,
    autograd::{State, StateMut, StateRef, Var, join},
};

/// Modules that run one after the other, named by their index or as given.
///
/// ```
/// use skipgrad::nn::{Flatten, Linear, MaxPool2d, Module, Relu, Sequential, conv3x3};
/// use skipgrad::{Rng, Tensor, autograd::{State, Tape}};
/// let mut rng = Rng::seed(0);
/// let net = Sequential::new()
///     .push(conv3x3(1, 4).build(&mut rng)?)
///     .push(Relu)
///     .push(MaxPool2d::new(2))
///     .push(Flatten)
///     .named("fc", Linear::new(4 * 4 * 4, 10, &mut rng)?)?;
/// assert_eq!(net.export().into_keys().collect::<Vec<_>>(), ["0.weight", "fc.bias", "fc.weight"]);
///
/// let tape = Tape::eval();
/// assert_eq!(net.forward(&tape.input(Tensor::zeros([2, 8, 8, 1])?))?.shape(), [2, 10]);
/// let error = net.forward(&tape.input(Tensor::zeros([2, 6, 8, 1])?)).err().unwrap();
/// assert_eq!(error.path(), Some("fc"));
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Default)]
pub struct Sequential {
    children: Vec<(String, Box<dyn Module>)>,
}

impl Sequential {
    /// Makes an empty sequence, which returns its input.
    pub fn new() -> Sequential {
        Sequential::default()
    }

    /// Appends a module, whose name is its index.
    pub fn push(mut self, module: impl Module + 'static) -> Sequential {
        self.children.push((self.children.len().to_string(), Box::new(module)));
        self
    }

    /// Appends a module under a name of its own.
    ///
    /// # Errors
    /// [`Error::Argument`] if the name is empty, a number (those are the indices) or taken.
    pub fn named(mut self, name: &str, module: impl Module + 'static) -> Result<Sequential> {
        let number = name.bytes().all(|byte| byte.is_ascii_digit());
        if number || self.children.iter().any(|(taken, _)| taken == name) {
            let expected = "a name that is not empty, not a number and not taken";
            return Err(Error::argument("sequential", "name", expected, format_args!("{name:?}")));
        }
        self.children.push((name.to_string(), Box::new(module)));
        Ok(self)
    }
}

impl State for Sequential {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, StateRef<'_>)) {
        self.children.iter().for_each(|(name, child)| child.visit(&join(path, name), f));
    }
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, StateMut<'_>)) {
        self.children.iter_mut().for_each(|(name, child)| child.visit_mut(&join(path, name), f));
    }
}

impl Module for Sequential {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let tape = x.tape();
        tape.enter(self, || {
            let mut children = self.children.iter();
            children.try_fold(x.clone(), |x, (name, child)| tape.scope(name, || x.apply(child)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Relu;

    #[test]
    fn names_stay_apart() {
        let net = Sequential::new().named("a", Relu).unwrap();
        for name in ["", "1", "a"] {
            let net = Sequential::new().named("a", Relu).unwrap();
            assert!(net.named(name, Relu).is_err(), "{name:?}");
        }
        assert!(net.push(Relu).named("b", Relu).is_ok());
    }
}
