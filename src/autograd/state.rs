//! The names of what a model carries, and how it is visited, saved and loaded.

use super::{
    Buffer, Layout, Param,
    freeze::{self, Half},
};
use crate::{Error, Result, Shape, Tensor};
use std::collections::{BTreeMap, BTreeSet};

/// One piece of a model's state.
#[derive(Clone, Copy, Debug)]
pub enum StateRef<'a> {
    /// Trained.
    Param(&'a Param),
    /// Carried.
    Buffer(&'a Buffer),
}

impl StateRef<'_> {
    /// Its value.
    pub fn value(&self) -> &Tensor {
        match self {
            StateRef::Param(param) => param.value(),
            StateRef::Buffer(buffer) => buffer.value(),
        }
    }

    /// How it lies in files.
    pub fn layout(&self) -> Layout {
        match self {
            StateRef::Param(param) => param.layout(),
            StateRef::Buffer(_) => Layout::Plain,
        }
    }
}

/// One piece of a model's state, to be written.
#[derive(Debug)]
pub enum StateMut<'a> {
    /// Trained.
    Param(&'a mut Param),
    /// Carried.
    Buffer(&'a mut Buffer),
}

impl StateMut<'_> {
    fn set(&mut self, value: Tensor) {
        match self {
            StateMut::Param(param) => *param.value_mut() = value,
            StateMut::Buffer(buffer) => *buffer.value_mut() = value,
        }
    }
}

/// Tensors by their names in a file, in torchvision's layouts.
pub type NamedTensors = BTreeMap<String, Tensor>;

/// Something that carries named state. Implement it with [`state!`](crate::state), which takes the names from the fields.
pub trait State {
    /// Shows every piece to `f`, with its name below `path`.
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, StateRef<'_>));

    /// Hands every piece to `f` for writing, with its name below `path`, in the order of [`State::visit`].
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, StateMut<'_>));

    /// The number of trained numbers (buffers do not count).
    fn num_parameters(&self) -> usize {
        let mut count = 0;
        self.visit("", &mut |_, slot| {
            if let StateRef::Param(param) = slot {
                count += param.value().shape().num_elements();
            }
        });
        count
    }

    /// All state by name, in the layouts of a file.
    fn export(&self) -> NamedTensors {
        let mut tensors = NamedTensors::new();
        self.visit("", &mut |name, slot| {
            let value = slot.layout().to_file(slot.value()).unwrap_or_else(|_| slot.value().clone());
            tensors.insert(name.to_string(), value);
        });
        tensors
    }

    /// Whether tensors of these names and shapes are the model's state, all of it and nothing else. Shapes are those of a
    /// file: a convolution's weight is `[OC, C/groups, KH, KW]`.
    ///
    /// ```
    /// use skipgrad::{Shape, Tensor, autograd::{Param, State}};
    /// let model = vec![Param::linear(Tensor::zeros([4, 2])?)];
    /// assert!(model.fits(&[("0", Shape::new(&[2, 4])?)].into()).is_ok());
    /// assert!(model.fits(&[("0", Shape::new(&[4, 2])?)].into()).is_err());
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::State`] that lists every missing, unexpected and misshapen tensor.
    fn fits(&self, shapes: &BTreeMap<&str, Shape>) -> Result<()> {
        let (mut missing, mut misshapen) = (vec![], vec![]);
        let mut unexpected: BTreeSet<&str> = shapes.keys().copied().collect();
        self.visit("", &mut |name, slot| {
            unexpected.remove(name);
            let expected = slot.layout().shape_in_file(slot.value().shape());
            match shapes.get(name) {
                None => missing.push(name.to_string()),
                Some(shape) if *shape != expected => {
                    misshapen.push((name.to_string(), expected.to_vec(), shape.to_vec()));
                }
                Some(_) => {}
            }
        });
        let unexpected = unexpected.into_iter().map(str::to_string).collect();
        Error::state(missing, unexpected, misshapen).map_or(Ok(()), Err)
    }

    /// Takes all state from named tensors. `num_batches_tracked`, which PyTorch writes and nothing reads, is ignored.
    ///
    /// # Errors
    /// As [`State::fits`]; the model is unchanged then.
    fn import(&mut self, mut tensors: NamedTensors) -> Result<()> {
        tensors.retain(|name, _| !name.ends_with("num_batches_tracked"));
        self.fits(&tensors.iter().map(|(name, tensor)| (name.as_str(), *tensor.shape())).collect())?;
        self.visit_mut("", &mut |name, mut slot| {
            let layout = match &slot {
                StateMut::Param(param) => param.layout(),
                StateMut::Buffer(_) => Layout::Plain,
            };
            if let Some(value) = tensors.remove(name).and_then(|tensor| layout.from_file(&tensor).ok()) {
                slot.set(value);
            }
        });
        Ok(())
    }

    /// Keeps the parameters whose name is `pattern`, in which `*` is any text, as they are: they get neither gradients nor updates,
    /// and what lies before the first that learns needs no backward pass. Returns how many there are.
    ///
    /// ```
    /// use skipgrad::{Rng, autograd::State, models::ResNet};
    /// let mut model = ResNet::imagenet(18, 5, &mut Rng::seed(0))?;
    /// model.freeze("*")?; // all but
    /// assert_eq!(model.thaw("fc.*")?, 2); // the new head
    /// model.freeze_statistics("*")?;
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] if no parameter has such a name.
    fn freeze(&mut self, pattern: &str) -> Result<usize> {
        freeze::set(self, Half::Params, pattern, true)
    }

    /// Lets the parameters whose name is `pattern` learn again; see [`State::freeze`].
    ///
    /// # Errors
    /// As [`State::freeze`].
    fn thaw(&mut self, pattern: &str) -> Result<usize> {
        freeze::set(self, Half::Params, pattern, false)
    }

    /// Keeps the statistics whose name is `pattern`, in which `*` is any text, as they are: batch normalizations use them in training
    /// as in evaluation, as small batches want it. Returns how many tensors there are.
    ///
    /// # Errors
    /// [`Error::Argument`] if no buffer has such a name.
    fn freeze_statistics(&mut self, pattern: &str) -> Result<usize> {
        freeze::set(self, Half::Buffers, pattern, true)
    }

    /// Lets training observe the statistics whose name is `pattern` again.
    ///
    /// # Errors
    /// As [`State::freeze_statistics`].
    fn thaw_statistics(&mut self, pattern: &str) -> Result<usize> {
        freeze::set(self, Half::Buffers, pattern, false)
    }
}

/// `path.name`, or `name` at the root.
pub fn join(path: &str, name: impl std::fmt::Display) -> String {
    if path.is_empty() { name.to_string() } else { format!("{path}.{name}") }
}

impl State for Param {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, StateRef<'_>)) {
        f(path, StateRef::Param(self));
    }
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, StateMut<'_>)) {
        f(path, StateMut::Param(self));
    }
}

impl State for Buffer {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, StateRef<'_>)) {
        f(path, StateRef::Buffer(self));
    }
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, StateMut<'_>)) {
        f(path, StateMut::Buffer(self));
    }
}

impl<T: State + ?Sized> State for Box<T> {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, StateRef<'_>)) {
        (**self).visit(path, f);
    }
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, StateMut<'_>)) {
        (**self).visit_mut(path, f);
    }
}

/// Nothing, or what is inside, under the same name.
impl<T: State> State for Option<T> {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, StateRef<'_>)) {
        self.iter().for_each(|item| item.visit(path, f));
    }
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, StateMut<'_>)) {
        self.iter_mut().for_each(|item| item.visit_mut(path, f));
    }
}

/// Named by index: `layer1.0`, `layer1.1`.
impl<T: State> State for Vec<T> {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, StateRef<'_>)) {
        self.iter().enumerate().for_each(|(i, item)| item.visit(&join(path, i), f));
    }
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, StateMut<'_>)) {
        self.iter_mut().enumerate().for_each(|(i, item)| item.visit_mut(&join(path, i), f));
    }
}

/// Implements [`State`](crate::autograd::State) for a struct: the fields listed carry state, and their names are the names
/// in weights files. `..field` shows a field's pieces without the field's own name in front.
///
/// ```
/// use skipgrad::{Tensor, autograd::{Buffer, Param, State}, state};
/// struct Scale { weight: Param, seen: Buffer, note: &'static str }
/// state!(Scale { weight, seen });
/// struct Net { scales: Vec<Scale>, head: Scale }
/// state!(Net { scales, ..head });
/// let scale = || Scale { weight: Param::new(Tensor::scalar(1.0)), seen: Buffer::new(Tensor::scalar(0.0)), note: "" };
/// let net = Net { scales: vec![scale()], head: scale() };
/// let names: Vec<String> = net.export().into_keys().collect();
/// assert_eq!(names, ["scales.0.seen", "scales.0.weight", "seen", "weight"]);
/// assert_eq!(net.num_parameters(), 2);
/// # let _ = net.head.note;
/// ```
#[macro_export]
macro_rules! state {
    ($type:ty { $($fields:tt)* }) => {
        impl $crate::autograd::State for $type {
            #[allow(unused_variables, unused_imports)]
            fn visit(&self, path: &str, f: &mut dyn FnMut(&str, $crate::autograd::StateRef<'_>)) {
                use $crate::autograd::State as _;
                $crate::state!(@fields self visit path f; $($fields)*);
            }
            #[allow(unused_variables, unused_imports)]
            fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, $crate::autograd::StateMut<'_>)) {
                use $crate::autograd::State as _;
                $crate::state!(@fields self visit_mut path f; $($fields)*);
            }
        }
    };
    (@fields $self:ident $visit:ident $path:ident $f:ident;) => {};
    (@fields $self:ident $visit:ident $path:ident $f:ident; ..$field:ident $(, $($rest:tt)*)?) => {
        $self.$field.$visit($path, $f);
        $crate::state!(@fields $self $visit $path $f; $($($rest)*)?);
    };
    (@fields $self:ident $visit:ident $path:ident $f:ident; $field:ident $(, $($rest:tt)*)?) => {
        $self.$field.$visit(&$crate::autograd::join($path, stringify!($field)), $f);
        $crate::state!(@fields $self $visit $path $f; $($($rest)*)?);
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Layer {
        weight: Param,
        mean: Buffer,
    }
    state!(Layer { weight, mean });

    fn layer() -> Layer {
        let weight = Tensor::from_fn([1, 1, 2, 3], |i| i as f32).unwrap();
        Layer { weight: Param::conv(weight), mean: Buffer::new(Tensor::zeros([3]).unwrap()) }
    }

    #[test]
    fn files_have_torchvisions_layout() {
        let exported = layer().export();
        assert_eq!(exported["weight"].shape(), [3, 2, 1, 1]);
        assert_eq!(exported["weight"].data(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
        let mut other = layer();
        other.weight.value_mut().scale(0.0);
        other.import(exported).unwrap();
        assert_eq!(other.weight.value(), layer().weight.value());
    }

    #[test]
    fn one_error_lists_everything_and_the_model_is_unchanged() {
        let mut model = vec![layer(), layer()];
        let mut tensors = model.export();
        tensors.remove("0.weight");
        tensors.insert("0.wait".into(), Tensor::scalar(0.0));
        tensors.insert("1.mean".into(), Tensor::zeros([4]).unwrap());
        tensors.insert("1.weight".into(), Tensor::zeros([3, 2, 1, 1]).unwrap());
        tensors.insert("1.num_batches_tracked".into(), Tensor::scalar(7.0));
        let error = model.import(tensors).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the tensors do not fit the model; missing: 0.weight (nearest: 0.wait); \
             unexpected: 0.wait; 1.mean: expected [3], found [4]"
        );
        assert_eq!(model[1].weight.value(), layer().weight.value());
    }

    #[test]
    fn a_copy_is_another_model() {
        let a = layer();
        assert_ne!(a.weight.clone().id(), a.weight.id());
        assert_ne!(a.mean.clone().id(), a.mean.id());
    }
}
