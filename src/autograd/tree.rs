//! The state of a model as a tree.

use super::state::{State, StateRef};
use crate::Shape;
use std::fmt;

/// The modules and tensors of a model by their names, to be displayed; see [`State::tree`].
#[derive(Clone, Debug)]
pub struct Tree {
    /// The name of the model's type.
    name: String,
    num_parameters: usize,
    root: Module,
    depth: usize,
}

/// A module: its own tensors, and the modules in it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Module {
    tensors: Vec<(String, Shape)>,
    children: Vec<(String, Module)>,
}

impl Tree {
    pub(super) fn of(model: &(impl State + ?Sized)) -> Tree {
        let mut root = Module::default();
        model.visit("", &mut |name, state| root.insert(name, state));
        let name = short_name(std::any::type_name_of_val(model));
        Tree { name, num_parameters: model.num_parameters(), root, depth: usize::MAX }
    }

    /// Shows modules down to this depth only; the modules in the model itself have depth 1.
    #[must_use]
    pub fn depth(self, depth: usize) -> Tree {
        Tree { depth, ..self }
    }
}

impl Module {
    fn insert(&mut self, name: &str, state: StateRef<'_>) {
        match name.split_once('.') {
            Some((first, rest)) => {
                let known = self.children.iter().position(|(child, _)| child == first);
                let child = known.unwrap_or_else(|| {
                    self.children.push((first.to_string(), Module::default()));
                    self.children.len() - 1
                });
                self.children[child].1.insert(rest, state);
            }
            None => {
                let shape = state.layout().shape_in_file(state.value().shape());
                self.tensors.push((name.to_string(), shape));
            }
        }
    }

    /// Writes the tensors, those of one shape together: `: weight [8, 3, 3, 3]; bias [8]`.
    fn write_tensors(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, tensors) in self.tensors.chunk_by(|a, b| a.1 == b.1).enumerate() {
            let names: Vec<&str> =
                tensors.iter().map(|(name, _)| name.as_str()).filter(|name| !name.is_empty()).collect();
            let gap = if names.is_empty() { "" } else { " " };
            write!(f, "{} {}{gap}{}", if i == 0 { ":" } else { ";" }, names.join(", "), tensors[0].1)?;
        }
        Ok(())
    }

    fn write_children(&self, f: &mut fmt::Formatter<'_>, level: usize, depth: usize) -> fmt::Result {
        if level > depth {
            return Ok(());
        }
        for alike in self.children.chunk_by(|a, b| is_counted(&a.0) && is_counted(&b.0) && a.1 == b.1) {
            let [(first, module), ..] = alike else { continue };
            write!(f, "\n{:indent$}{first}", "", indent = 2 * level)?;
            if let [_, .., (last, _)] = alike {
                write!(f, " to {last}, {} times", alike.len())?;
            }
            module.write_tensors(f)?;
            module.write_children(f, level + 1, depth)?;
        }
        Ok(())
    }
}

/// Returns whether a name has a number: `0`, `block1`.
fn is_counted(name: &str) -> bool {
    name.ends_with(|last: char| last.is_ascii_digit())
}

/// Returns the name of a type without the modules around it and without its parameters.
fn short_name(name: &str) -> String {
    let name = name.split('<').next().unwrap_or_default();
    name.rsplit("::").next().unwrap_or_default().to_string()
}

/// Writes a line for the model and one for each module; modules that are alike and follow each
/// other share theirs.
impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tree { name, num_parameters, root, depth } = self;
        write!(f, "{name} of {num_parameters} parameters")?;
        root.write_tensors(f)?;
        root.write_children(f, 1, *depth)
    }
}

/// Displays types of the crate, and shows them in debug output if asked to, as their tree.
macro_rules! displayed_as_tree {
    ($($name:ty),+ $(,)?) => {$(
        /// Writes the modules and their tensors, as [`State::tree`](crate::autograd::State::tree)
        /// does.
        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::fmt::Display::fmt(&$crate::autograd::State::tree(self), f)
            }
        }
    )+};
    (debug: $($name:ty),+ $(,)?) => {
        $crate::autograd::displayed_as_tree!($($name),+);
        $(
        /// Writes the modules and their tensors, without values; see
        /// [`State::tree`](crate::autograd::State::tree).
        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::fmt::Display::fmt(self, f)
            }
        }
        )+
    };
}
pub(crate) use displayed_as_tree;
