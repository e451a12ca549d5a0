//! The named state of a model: visiting, exporting, importing and freezing it.

use super::{
    Buffer, Layout, Param, StateId, Version,
    freeze::{self, Kind},
    tree::Tree,
};
use crate::{Error, Result, Shape, Tensor};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// A parameter or a buffer of a model.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum StateRef<'a> {
    /// A parameter, which is trained.
    Param(&'a Param),
    /// A buffer, which is not trained.
    Buffer(&'a Buffer),
}

impl StateRef<'_> {
    /// Returns the identity of the parameter or buffer.
    pub fn id(&self) -> StateId {
        match self {
            StateRef::Param(param) => param.id(),
            StateRef::Buffer(buffer) => buffer.id(),
        }
    }

    /// Returns the version of the value; see [`Param::version`].
    pub fn version(&self) -> Version {
        match self {
            StateRef::Param(param) => param.version(),
            StateRef::Buffer(buffer) => buffer.version(),
        }
    }

    /// Returns the value.
    pub fn value(&self) -> &Tensor {
        match self {
            StateRef::Param(param) => param.value(),
            StateRef::Buffer(buffer) => buffer.value(),
        }
    }

    /// Returns the layout in files.
    pub fn layout(&self) -> Layout {
        match self {
            StateRef::Param(param) => param.layout(),
            StateRef::Buffer(_) => Layout::Plain,
        }
    }
}

/// A parameter or a buffer of a model, to be written.
#[derive(Debug)]
#[non_exhaustive]
pub enum StateMut<'a> {
    /// A parameter, which is trained.
    Param(&'a mut Param),
    /// A buffer, which is not trained.
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

/// Tensors by their names in a file, with their axes in the order of a file; see [`Layout`].
pub type NamedTensors = BTreeMap<String, Tensor>;

/// A value with named state: a parameter, a layer, a block, a network.
///
/// `#[derive(State)]` implements it. Every field is state, under its own name, unless it is marked
/// with `#[state(skip)]`, so that no parameter can be forgotten:
///
/// ```
/// use skipgrad::{Tensor, autograd::{Buffer, Param, State}};
///
/// #[derive(State)]
/// struct Scale {
///     weight: Param,
///     seen: Buffer,
///     #[state(skip)]
///     note: &'static str,
/// }
///
/// #[derive(State)]
/// struct Net {
///     #[state(rename = "layer{n}")]
///     scales: Vec<Scale>,
///     #[state(flatten(weight = "gamma"))]
///     head: Scale,
/// }
///
/// let scale = || Scale {
///     weight: Param::new(Tensor::scalar(1.0)),
///     seen: Buffer::new(Tensor::scalar(0.0)),
///     note: "",
/// };
/// let net = Net { scales: vec![scale(), scale()], head: scale() };
/// let names: Vec<String> = net.export().into_keys().collect();
/// assert_eq!(
///     names,
///     ["gamma", "layer1.seen", "layer1.weight", "layer2.seen", "layer2.weight", "seen"]
/// );
/// assert_eq!(net.num_parameters(), 3);
/// # let _ = net.head.note;
/// ```
///
/// * `#[state(skip)]`: the field is no state.
/// * `#[state(rename = "name")]`: the field has another name in weights files. In the name for a
///   list, `{i}` counts its elements from 0 and `{n}` from 1: `"layer{n}"` gives `layer1`,
///   `layer2`.
/// * `#[state(flatten)]`: the names of the field's own state have nothing in front of them.
///   `#[state(flatten(conv = "conv1", norm = "bn1"))]` also renames the field's children: of
///   `conv.weight`, this makes `conv1.weight`. The names may have placeholders, too.
///
/// Structs, enums and generic types can derive it. An enum has the state of its active variant; a
/// tuple of one field is what the field is, and the fields of a longer one are named by index.
/// `Option`, `Box`, `Vec`, arrays and tuples are state if their elements are.
///
/// A field that is no state, and is not said to be none, does not compile:
///
/// ```compile_fail,E0277
/// #[derive(skipgrad::autograd::State)]
/// struct Layer { weight: skipgrad::autograd::Param, stride: usize }
/// ```
///
/// Nor does a placeholder that means nothing, or a second attribute:
///
/// ```compile_fail
/// #[derive(skipgrad::autograd::State)]
/// struct Net { #[state(rename = "layer{k}")] layers: Vec<skipgrad::autograd::Param> }
/// ```
///
/// ```compile_fail
/// #[derive(skipgrad::autograd::State)]
/// struct Net { #[state(skip, flatten)] layer: skipgrad::autograd::Param }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not state",
    label = "this is not state",
    note = "derive it for a type of your own with `#[derive(State)]`",
    note = "mark a field that carries no parameters with `#[state(skip)]`",
    note = "a tensor of a model is a `Param`, which is trained, or a `Buffer`, which is not"
)]
pub trait State {
    /// Shows every parameter and buffer to `f`, with its name below `path`.
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, StateRef<'_>));

    /// Shows every parameter and buffer to `f` to be written, with its name below `path`, in the
    /// order of [`State::visit`].
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, StateMut<'_>));

    /// Returns the number of elements of all parameters, without buffers.
    fn num_parameters(&self) -> usize {
        let mut count = 0;
        self.visit("", &mut |_, slot| {
            if let StateRef::Param(param) = slot {
                count += param.value().shape().num_elements();
            }
        });
        count
    }

    /// Returns all parameters and buffers by name, with their axes in the order of a file. A tensor
    /// with another number of axes than its layout keeps its order, and a warning is logged.
    fn export(&self) -> NamedTensors {
        let mut tensors = NamedTensors::new();
        self.visit("", &mut |name, slot| {
            let value = slot.layout().to_file(slot.value()).unwrap_or_else(|error| {
                log::warn!("{name} is exported with its axes in the order of memory: {error}");
                slot.value().clone()
            });
            tensors.insert(name.to_string(), value);
        });
        tensors
    }

    /// Returns the modules and tensors by name, to be displayed. The models, blocks and layers of
    /// this crate display themselves so. Shapes are those of a file, as in [`State::fits`].
    ///
    /// ```
    /// use skipgrad::{Rng, autograd::State, blocks::ResBlock};
    /// let stage = ResBlock::basic(8, 8, 2).build(&mut Rng::seed(0))?;
    /// let tree = "\
    /// ResBlock of 2368 parameters
    ///   0 to 1, 2 times
    ///     conv1: weight [8, 8, 3, 3]
    ///     bn1: weight, bias, running_mean, running_var [8]
    ///     conv2: weight [8, 8, 3, 3]
    ///     bn2: weight, bias, running_mean, running_var [8]";
    /// assert_eq!(stage.tree().to_string(), tree);
    /// assert_eq!(stage.to_string(), tree);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    fn tree(&self) -> Tree {
        Tree::of(self)
    }

    /// Checks whether tensors of these names and shapes are the state of the model, neither more
    /// nor less. Shapes are those of a file: a convolution's weight is `[OC, C/groups, KH, KW]`.
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
    /// [`Error::State`], which lists every missing, unexpected and misshapen tensor.
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

    /// Sets all parameters and buffers from named tensors. `num_batches_tracked`, which PyTorch
    /// writes and nothing reads, is ignored.
    ///
    /// # Errors
    /// As [`State::fits`]; the model is then unchanged.
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

    /// Freezes the parameters whose names match `pattern`, in which `*` stands for any text, and
    /// returns how many there are. They get neither gradients nor updates, and the layers before
    /// the first parameter that is not frozen need no backward pass.
    ///
    /// ```
    /// use skipgrad::{Rng, autograd::State, models::ResNet};
    /// let mut model = ResNet::imagenet(18, 5, &mut Rng::seed(0))?;
    /// model.freeze("*")?; // everything except ...
    /// assert_eq!(model.thaw("fc.*")?, 2); // ... the new head
    /// model.freeze_statistics("*")?;
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] if no name of a parameter matches.
    fn freeze(&mut self, pattern: &str) -> Result<usize> {
        freeze::set(self, Kind::Params, pattern, true)
    }

    /// Thaws the parameters whose names match `pattern`: the opposite of [`State::freeze`].
    ///
    /// # Errors
    /// As [`State::freeze`].
    fn thaw(&mut self, pattern: &str) -> Result<usize> {
        freeze::set(self, Kind::Params, pattern, false)
    }

    /// Freezes the buffers whose names match `pattern`, in which `*` stands for any text, and
    /// returns how many there are. Batch normalizations then use their running statistics in
    /// training as in evaluation, as fine-tuning with small batches needs it.
    ///
    /// # Errors
    /// [`Error::Argument`] if no name of a buffer matches.
    fn freeze_statistics(&mut self, pattern: &str) -> Result<usize> {
        freeze::set(self, Kind::Buffers, pattern, true)
    }

    /// Thaws the buffers whose names match `pattern`: the opposite of [`State::freeze_statistics`].
    ///
    /// # Errors
    /// As [`State::freeze_statistics`].
    fn thaw_statistics(&mut self, pattern: &str) -> Result<usize> {
        freeze::set(self, Kind::Buffers, pattern, false)
    }
}

/// Returns `path.name`, or whichever of the two is not empty.
pub fn join(path: &str, name: impl fmt::Display) -> String {
    if path.is_empty() {
        return name.to_string();
    }
    let joined = format!("{path}.{name}");
    if joined.len() > path.len() + 1 { joined } else { path.to_string() }
}

/// Returns `path.name` with the first segment of `name` replaced as `names` say: what
/// `#[state(flatten(old = "new"))]` expands to.
#[doc(hidden)]
pub fn rename(path: &str, name: &str, names: &[(&str, fmt::Arguments<'_>)]) -> String {
    let (first, rest) = name.split_once('.').unwrap_or((name, ""));
    match names.iter().find(|(old, _)| *old == first) {
        Some((_, new)) => join(&join(path, new), rest),
        None => join(path, name),
    }
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
    fn tree(&self) -> Tree {
        (**self).tree()
    }
}

/// The state of the value, if there is one, under the same name.
impl<T: State> State for Option<T> {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, StateRef<'_>)) {
        self.iter().for_each(|item| item.visit(path, f));
    }
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, StateMut<'_>)) {
        self.iter_mut().for_each(|item| item.visit_mut(path, f));
    }
}

/// The elements are named by index: `layer1.0`, `layer1.1`.
impl<T: State> State for Vec<T> {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, StateRef<'_>)) {
        self.iter().enumerate().for_each(|(i, item)| item.visit(&join(path, i), f));
    }
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, StateMut<'_>)) {
        self.iter_mut().enumerate().for_each(|(i, item)| item.visit_mut(&join(path, i), f));
    }
}

/// The elements are named by index.
impl<T: State, const N: usize> State for [T; N] {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, StateRef<'_>)) {
        self.iter().enumerate().for_each(|(i, item)| item.visit(&join(path, i), f));
    }
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, StateMut<'_>)) {
        self.iter_mut().enumerate().for_each(|(i, item)| item.visit_mut(&join(path, i), f));
    }
}

macro_rules! tuples {
    ($(($($type:ident $index:tt),+))+) => {$(
        /// The elements are named by index.
        impl<$($type: State),+> State for ($($type,)+) {
            fn visit(&self, path: &str, f: &mut dyn FnMut(&str, StateRef<'_>)) {
                $(self.$index.visit(&join(path, $index), f);)+
            }
            fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, StateMut<'_>)) {
                $(self.$index.visit_mut(&join(path, $index), f);)+
            }
        }
    )+};
}
tuples! { (A 0) (A 0, B 1) (A 0, B 1, C 2) (A 0, B 1, C 2, D 3) }

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::State;

    #[derive(State)]
    struct Layer {
        weight: Param,
        mean: Buffer,
    }

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

    #[derive(State)]
    enum Branch<T> {
        Empty,
        Single(Box<T>),
        Pair(T, T),
        Named {
            #[state(rename = "left.conv")]
            left: T,
            #[state(skip)]
            _width: usize,
            right: Option<T>,
        },
    }

    #[derive(State)]
    struct Wrapper<T, U>(T, #[state(skip)] std::marker::PhantomData<U>);

    #[derive(State)]
    struct Tree<const N: usize> {
        #[state(rename = "stage{n}")]
        stages: [Branch<Layer>; N],
        #[state(flatten(weight = "block{i}.weight"))]
        blocks: Vec<Layer>,
        #[state(flatten)]
        head: Wrapper<(Param, Buffer), std::rc::Rc<u8>>,
        r#type: Param,
    }

    fn names(state: &impl State) -> Vec<String> {
        let mut names = vec![];
        state.visit("net", &mut |name, _| names.push(name.to_string()));
        names
    }

    #[test]
    fn derived_names_are_the_fields() {
        let scalar = || Tensor::scalar(0.0);
        let head = Wrapper((Param::new(scalar()), Buffer::new(scalar())), std::marker::PhantomData);
        let stages = [
            Branch::Empty,
            Branch::Single(Box::new(layer())),
            Branch::Pair(layer(), layer()),
            Branch::Named { left: layer(), _width: 3, right: None },
        ];
        let mut tree = Tree { stages, blocks: vec![layer(), layer()], head, r#type: Param::new(scalar()) };
        let expected = [
            "net.stage2.weight",
            "net.stage2.mean",
            "net.stage3.0.weight",
            "net.stage3.0.mean",
            "net.stage3.1.weight",
            "net.stage3.1.mean",
            "net.stage4.left.conv.weight",
            "net.stage4.left.conv.mean",
            "net.block0.weight",
            "net.mean",
            "net.block1.weight",
            "net.mean",
            "net.0.0",
            "net.0.1",
            "net.type",
        ];
        assert_eq!(names(&tree), expected);
        let mut names = vec![];
        tree.visit_mut("net", &mut |name, _| names.push(name.to_string()));
        assert_eq!(names, expected);
    }

    #[test]
    fn paths_are_joined_where_there_are_two() {
        assert_eq!([join("", "a"), join("a", ""), join("a", "b"), join("", "")], ["a", "a", "a.b", ""]);
    }
}
