//! The values of a pickle, and the memory that they take.

use super::names::{Called, Element};
use std::mem::size_of;

/// A value: a small one itself, another by its place among the [`Nodes`].
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    /// A value of which nothing is used: none, a float, bytes, an integer of more than 64 bits.
    Plain,
    Bool(bool),
    Int(i64),
    Node(u32),
}

/// A value with content.
#[derive(Debug)]
pub(super) enum Node {
    Text(Box<str>),
    Class(Box<Class>),
    Tuple(Box<[Value]>),
    /// A list or a set.
    List(Vec<Value>),
    /// A dictionary: its keys and values, in the order in which they were added.
    Dict(Vec<[Value; 2]>),
    Storage(Box<Storage>),
    Tensor(Box<View>),
    Object(Box<Object>),
}

/// A class or a function.
#[derive(Debug)]
pub(super) struct Class {
    pub(super) module: Box<str>,
    pub(super) name: Box<str>,
    pub(super) called: Called,
}

/// The elements that tensors are views of.
#[derive(Clone, Debug)]
pub(super) struct Storage {
    pub(super) key: Box<str>,
    pub(super) element: Element,
    /// The first element that the pickle refers to, and the number of elements up to the last.
    pub(super) begin: u64,
    pub(super) end: u64,
}

/// A tensor: a view of a storage, in elements.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) key: Box<str>,
    pub(super) element: Element,
    pub(super) offset: u64,
    pub(super) shape: Box<[u64]>,
    pub(super) strides: Box<[u64]>,
    /// Number of elements from the first to the last.
    pub(super) extent: u64,
}

/// An object of a class that is passed over.
#[derive(Debug)]
pub(super) struct Object {
    /// The class or the function that makes it, with its module.
    pub(super) class: Box<str>,
    /// Whether its arguments or its attributes hold tensors, which would be lost.
    pub(super) holds_tensors: bool,
    /// Whether it is a `torch.nn.Module`, by its attributes.
    pub(super) is_module: bool,
    /// The items of a subclass of dictionaries, and those of a subclass of lists.
    pub(super) pairs: Vec<[Value; 2]>,
    pub(super) items: Vec<Value>,
}

/// The greatest depth of nested values. A checkpoint has its optimizer's state at depth five, and a
/// model with its modules in modules is not much deeper.
const MAX_DEPTH: u32 = 64;

/// A buffer that grows doubles, and the old one exists until it is copied.
const GROWTH: u64 = 3;

/// Bytes that an allocation takes beyond its content.
const ALLOCATION: u64 = 16;

/// Bytes of a place on the stack, of a mark, and of a place in the memo, which is a tree.
const STACK_PLACE: u64 = GROWTH * size_of::<Value>() as u64;
const MARK: u64 = GROWTH * size_of::<usize>() as u64;
const MEMO_PLACE: u64 = 64;

/// The longest text for which memory is allocated before it is read; longer ones grow.
pub(super) const TEXT_AT_ONCE: u64 = 1 << 16;

/// Bytes that are counted for each step of a walk through a value: one that is contained in itself
/// many times over takes no memory, but the time.
const STEP: u64 = 16;

/// The memory limit of a pickle.
#[derive(Debug)]
pub(super) struct Memory {
    taken: u64,
    max: u64,
}

/// More memory than the limit, or values that nest too deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TooMuch {
    Memory,
    Depth,
}

impl Memory {
    pub(super) fn new(max: u64) -> Memory {
        Memory { taken: 0, max }
    }

    /// Counts bytes that are about to be allocated. Nothing is freed before the pickle's end.
    pub(super) fn take(&mut self, bytes: u64) -> Result<(), TooMuch> {
        self.taken = self.taken.saturating_add(bytes);
        if self.taken > self.max { Err(TooMuch::Memory) } else { Ok(()) }
    }

    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Counts what grows with the height of the stack, with the marks on it, or with the memo.
    pub(super) fn take_stack_place(&mut self) -> Result<(), TooMuch> {
        self.take(STACK_PLACE)
    }
    pub(super) fn take_mark(&mut self) -> Result<(), TooMuch> {
        self.take(MARK)
    }
    pub(super) fn take_memo_place(&mut self) -> Result<(), TooMuch> {
        self.take(MEMO_PLACE)
    }

    /// Returns the length of the longest text that may be read.
    pub(super) fn longest_text(&self) -> u64 {
        self.max.saturating_sub(self.taken) / GROWTH
    }

    /// Counts a text that was read.
    pub(super) fn take_text(&mut self, len: u64) -> Result<(), TooMuch> {
        let growth = if len > TEXT_AT_ONCE { GROWTH } else { 1 };
        self.take(len.saturating_mul(growth).saturating_add(ALLOCATION))
    }

    pub(super) fn take_step(&mut self) -> Result<(), TooMuch> {
        self.take(STEP)
    }
}

/// A node, how deep values nest in it, and whether it holds tensors. Of a value that contains
/// itself, both are as they were before it did.
#[derive(Debug)]
struct Place {
    node: Node,
    depth: u32,
    holds_tensors: bool,
}

/// All values of a pickle that have content. Values refer to each other by their place, so that a
/// value can contain itself, as in Python, and all are dropped together.
#[derive(Debug, Default)]
pub(super) struct Nodes(Vec<Place>);

impl Nodes {
    /// Adds a value with content.
    pub(super) fn add(&mut self, node: Node, memory: &mut Memory) -> Result<Value, TooMuch> {
        let values = size_of::<Value>() as u64;
        memory.take(GROWTH * size_of::<Place>() as u64)?;
        memory.take(match &node {
            // The text itself was counted when it was read.
            Node::Text(_) => 0,
            Node::Class(class) => (size_of::<Class>() + class.module.len() + class.name.len()) as u64,
            Node::Tuple(items) => values * items.len() as u64,
            Node::List(items) => values * items.capacity() as u64,
            // Pairs were counted before they were collected.
            Node::Dict(_) => 0,
            Node::Storage(storage) => (size_of::<Storage>() + storage.key.len()) as u64,
            Node::Tensor(view) => (size_of::<View>() + view.key.len() + 16 * view.shape.len()) as u64,
            Node::Object(object) => (size_of::<Object>() + object.class.len()) as u64,
        })?;
        memory.take(ALLOCATION)?;
        let (depth, holds_tensors) = match &node {
            Node::Tuple(items) => self.about(items),
            Node::List(items) => self.about(items),
            Node::Dict(pairs) => self.about(pairs.as_flattened()),
            Node::Tensor(_) => (0, true),
            Node::Object(object) => (0, object.holds_tensors),
            Node::Storage(_) => (0, true),
            Node::Text(_) | Node::Class(_) => (0, false),
        };
        if depth > MAX_DEPTH {
            return Err(TooMuch::Depth);
        }
        self.0.push(Place { node, depth, holds_tensors });
        Ok(Value::Node((self.0.len() - 1) as u32))
    }

    /// Returns how deep a collection of these values nests, and whether it holds tensors.
    fn about(&self, values: &[Value]) -> (u32, bool) {
        let places = values.iter().filter_map(|value| self.place(*value));
        let init = (1, false);
        places.fold(init, |(depth, holds), place| (depth.max(place.depth + 1), holds | place.holds_tensors))
    }

    fn place(&self, value: Value) -> Option<&Place> {
        match value {
            Value::Node(at) => self.0.get(at as usize),
            _ => None,
        }
    }

    pub(super) fn get(&self, value: Value) -> Option<&Node> {
        self.place(value).map(|place| &place.node)
    }

    pub(super) fn holds_tensors(&self, value: Value) -> bool {
        self.place(value).is_some_and(|place| place.holds_tensors)
    }

    pub(super) fn text(&self, value: Value) -> Option<&str> {
        match self.get(value) {
            Some(Node::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Returns the items of a tuple, a list or a set.
    pub(super) fn items(&self, value: Value) -> Option<&[Value]> {
        match self.get(value) {
            Some(Node::Tuple(items)) => Some(items),
            Some(Node::List(items)) => Some(items),
            _ => None,
        }
    }

    /// Appends items to a list, or to an object, which is then a subclass of lists. Returns whether
    /// it is either.
    pub(super) fn append(
        &mut self,
        to: Value,
        items: &[Value],
        memory: &mut Memory,
    ) -> Result<bool, TooMuch> {
        memory.take(GROWTH * size_of_val(items) as u64)?;
        let about = self.about(items);
        let added = match self.node_mut(to, about)? {
            Some(Node::List(list)) => list,
            Some(Node::Object(object)) => &mut object.items,
            _ => return Ok(false),
        };
        added.extend_from_slice(items);
        Ok(true)
    }

    /// Adds pairs to a dictionary, or to an object, which is then a subclass of dictionaries.
    /// Returns whether it is either.
    pub(super) fn insert(
        &mut self,
        to: Value,
        pairs: &[[Value; 2]],
        memory: &mut Memory,
    ) -> Result<bool, TooMuch> {
        memory.take(GROWTH * size_of_val(pairs) as u64)?;
        let about = self.about(pairs.as_flattened());
        let added = match self.node_mut(to, about)? {
            Some(Node::Dict(dict)) => dict,
            Some(Node::Object(object)) => &mut object.pairs,
            _ => return Ok(false),
        };
        added.extend_from_slice(pairs);
        Ok(true)
    }

    /// Records the attributes of an object. Returns whether it is one.
    pub(super) fn set_attributes(&mut self, of: Value, is_module: bool, holds_tensors: bool) -> bool {
        let Value::Node(at) = of else { return false };
        match self.0.get_mut(at as usize) {
            Some(Place { node: Node::Object(object), holds_tensors: holds, .. }) => {
                object.is_module |= is_module;
                object.holds_tensors |= holds_tensors;
                *holds |= holds_tensors;
                true
            }
            _ => false,
        }
    }

    /// Returns a collection to which values are added that nest as deep and hold tensors as given.
    fn node_mut(&mut self, value: Value, (depth, holds): (u32, bool)) -> Result<Option<&mut Node>, TooMuch> {
        let Value::Node(at) = value else { return Ok(None) };
        let Some(place) = self.0.get_mut(at as usize) else { return Ok(None) };
        place.depth = place.depth.max(depth);
        place.holds_tensors |= holds;
        if place.depth > MAX_DEPTH { Err(TooMuch::Depth) } else { Ok(Some(&mut place.node)) }
    }
}
