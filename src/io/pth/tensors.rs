//! The tensors of a pickle, by the names that lead to them.

use super::{
    input::{Fault, malformed},
    pickle::Pickle,
    value::{Memory, Node, Nodes, TooMuch, Value, View},
};
use std::collections::BTreeMap;

/// Bytes of memory that a tensor takes with its name, besides the name's letters and its shape.
const NAMED_TENSOR: u64 = 600;

/// Copies of a name: here, in an error that lists those that the model does not have, and while
/// they grow.
const NAME_COPIES: u64 = 3;

/// The greatest depth of nested values, of which one may contain itself.
const MAX_DEPTH: u32 = 64;

/// Returns the tensors of a pickle, whose names are the paths of keys to them: those of
/// dictionaries, and the places in lists and tuples.
pub(super) fn named(pickle: &mut Pickle) -> Result<BTreeMap<String, View>, Fault> {
    let Pickle { root, nodes, memory, .. } = pickle;
    let found = match nodes.get(*root) {
        Some(Node::Dict(_) | Node::Object(_)) => None,
        Some(Node::List(_) | Node::Tuple(_)) => Some("a list"),
        Some(Node::Tensor(_)) => Some("a tensor"),
        Some(Node::Text(_)) => Some("a text"),
        _ => Some("a number or another plain value"),
    };
    if let Some(found) = found {
        let found = format!("{found}: save a dictionary of tensors by name, such as a state_dict()");
        return malformed("a dictionary of tensors", found);
    }
    let mut walk = Walk { nodes, memory, path: String::new(), tensors: BTreeMap::new(), count: 0 };
    walk.visit(*root, true, MAX_DEPTH)?;
    if walk.tensors.len() as u64 != walk.count {
        let found = format!("{} names of {}", walk.tensors.len(), walk.count);
        return malformed("a name for every tensor", found);
    }
    Ok(walk.tensors)
}

struct Walk<'a> {
    nodes: &'a Nodes,
    memory: &'a mut Memory,
    /// The name of the value that is visited.
    path: String,
    tensors: BTreeMap<String, View>,
    /// The number of tensors, of which several may have one name.
    count: u64,
}

impl Walk<'_> {
    /// Collects the tensors of a value, which nests no deeper than `depth` more levels. A tensor is
    /// an error if a key on the way to it is no name, such as a tuple or a float.
    fn visit(&mut self, value: Value, named: bool, depth: u32) -> Result<(), Fault> {
        self.memory.take_step()?;
        let nodes = self.nodes;
        match nodes.get(value) {
            Some(Node::Tensor(_)) if !named => {
                malformed("a text or an integer as the key of every tensor", "another key")
            }
            Some(Node::Tensor(view)) => {
                let sizes = 16 * view.shape.len() as u64;
                self.memory.take(NAMED_TENSOR + NAME_COPIES * self.path.len() as u64 + sizes)?;
                self.count += 1;
                self.tensors.insert(self.path.clone(), (**view).clone());
                Ok(())
            }
            Some(Node::Dict(pairs)) => self.visit_pairs(pairs, named, depth),
            Some(Node::List(items)) => self.visit_items(items, named, depth),
            Some(Node::Tuple(items)) => self.visit_items(items, named, depth),
            Some(Node::Object(object)) if object.holds_tensors => {
                let class = &object.class;
                let kind = match object.is_module {
                    _ if class.starts_with("__torch__") => "a TorchScript program",
                    true => "a whole model",
                    false => "an object that holds tensors",
                };
                let found = format!("{class}, {kind}: save its state_dict() with torch.save");
                malformed("tensors and plain values, as of a state_dict", found)
            }
            Some(Node::Object(object)) => {
                self.visit_pairs(&object.pairs, named, depth)?;
                self.visit_items(&object.items, named, depth)
            }
            Some(Node::Text(_) | Node::Class(_) | Node::Storage(_)) | None => Ok(()),
        }
    }

    fn visit_pairs(&mut self, pairs: &[[Value; 2]], named: bool, depth: u32) -> Result<(), Fault> {
        for [key, value] in pairs {
            match (self.nodes.text(*key), key) {
                (Some(key), _) => self.visit_inside(key, *value, named, depth)?,
                (None, Value::Int(key)) => self.visit_inside(&key.to_string(), *value, named, depth)?,
                _ => self.visit_inside("", *value, false, depth)?,
            }
        }
        Ok(())
    }

    fn visit_items(&mut self, items: &[Value], named: bool, depth: u32) -> Result<(), Fault> {
        for (index, item) in items.iter().enumerate() {
            self.visit_inside(&index.to_string(), *item, named, depth)?;
        }
        Ok(())
    }

    /// Visits a value below the one that is visited, under this key.
    fn visit_inside(&mut self, key: &str, value: Value, named: bool, depth: u32) -> Result<(), Fault> {
        let Some(depth) = depth.checked_sub(1) else {
            // A plain value may contain itself, as in Python.
            return if self.nodes.holds_tensors(value) { Err(TooMuch::Depth.into()) } else { Ok(()) };
        };
        let len = self.path.len();
        if len > 0 {
            self.path.push('.');
        }
        self.path.push_str(key);
        self.visit(value, named, depth)?;
        self.path.truncate(len);
        Ok(())
    }
}
