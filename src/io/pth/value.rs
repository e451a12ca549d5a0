//! What the values of a pickle take in the reader's memory.
//!
//! The bytes are those of its types and of the containers of Rust's library as they grow: by doubling, for which the old module is
//! kept until the new one is filled. They are at least what is taken, and for what `torch.save` writes a third more.

/// What is known of a value.
#[derive(Clone, Copy)]
pub(super) struct Value {
    pub(super) kind: Kind,
    pub(super) heap: u64,
    pub(super) depth: u32,
    /// Where it is remembered.
    pub(super) memory: Option<u32>,
    /// The length of the longest text that it is, or has directly.
    pub(super) text: u32,
    /// How many tensors are inside, and the bytes of their names from here on.
    pub(super) tensors: u64,
    pub(super) names: u64,
}

/// What kind of value this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
    Dict,
    List,
    /// Calls that make a dictionary and a tensor, and a tensor.
    Order,
    Rebuild,
    Tensor,
    Other,
}

/// Bytes of a value, and of its place on the stack.
pub(super) const VALUE: u64 = 80;
const STACKED: u64 = 96;
const REMEMBERED: u64 = 105;

/// Bytes that a value takes besides in a list, and two in a dictionary; and either for its first.
const LISTED: u64 = 160;
const NAMED: u64 = 200;
const FIRST: u64 = 100;

/// Bytes that a tensor takes besides its shape, and besides its name once it has that; and the names of something.
const TENSOR: u64 = 160;
const LOADED: u64 = 360;
const CLASS: u64 = 64;

/// Bytes of the number and the dot by which a tensor of a list is named.
const NUMBER: u64 = 21;

/// A text that is longer than this grows while it is read.
const AT_ONCE: u64 = 1 << 16;

/// Bytes of a stack that has been as high as this: it keeps its module, and what is taken off it together is there twice for a moment.
pub(super) fn stack(highest: usize) -> u64 {
    STACKED * (highest.next_power_of_two().max(4) + highest) as u64
}

/// Bytes of a memory with so many places.
pub(super) fn memory(places: usize) -> u64 {
    REMEMBERED * (places * 8 / 7 + 1).next_power_of_two() as u64
}

impl Value {
    pub(super) fn new(kind: Kind, heap: u64) -> Value {
        Value { kind, heap: VALUE + heap, depth: 0, memory: None, text: 0, tensors: 0, names: 0 }
    }

    pub(super) fn class(kind: Kind) -> Value {
        Value::new(kind, CLASS)
    }

    pub(super) fn text(len: u32) -> Value {
        let bytes = u64::from(len);
        let heap = if bytes > AT_ONCE { 3 * bytes } else { bytes };
        Value { text: len, ..Value::new(Kind::Other, heap) }
    }

    /// What a call comes to. A tensor keeps of its four or more arguments the key of its storage, shape and strides, more compactly;
    /// any other call's value keeps them all.
    pub(super) fn called(called: &Value, arguments: &Value) -> Value {
        let value = Value { kind: Kind::Other, memory: None, ..*arguments };
        match called.kind {
            Kind::Rebuild => {
                let sizes = arguments.heap.saturating_sub(5 * VALUE) / 4;
                let heap = TENSOR + u64::from(arguments.text) + sizes;
                Value { depth: arguments.depth, tensors: 1, ..Value::new(Kind::Tensor, heap) }
            }
            Kind::Order => value,
            _ => Value { heap: CLASS + arguments.heap, ..value },
        }
    }

    /// A storage, which keeps of its name the key: a text or a number.
    pub(super) fn storage(name: &Value) -> Value {
        let key = u64::from(name.text).max(NUMBER);
        Value { text: name.text, ..Value::new(Kind::Other, key) }
    }

    /// A copy, which of a tensor shares what reads its numbers.
    pub(super) fn copied(&self) -> Value {
        let shared = if self.kind == Kind::Tensor { TENSOR } else { 0 };
        Value { heap: self.heap - shared, ..*self }
    }

    pub(super) fn tuple(values: &[Value]) -> Value {
        let all = Value::together(values);
        Value { heap: VALUE + all.heap + (STACKED - VALUE) * values.len() as u64, ..all }
    }

    /// Puts more values into this list, or names and values into this dictionary.
    pub(super) fn extend(&mut self, values: &[Value], each: usize) {
        let room = if each == 1 { LISTED } else { NAMED };
        self.heap += FIRST + room * (values.len() / each) as u64;
        values.chunks(each).for_each(|some| self.add(&Value::together(some)));
    }

    /// What is inside several values. A text among them may come to be in the name of each tensor.
    fn together(values: &[Value]) -> Value {
        let mut all = Value { heap: 0, ..Value::new(Kind::Other, 0) };
        values.iter().for_each(|value| all.add(value));
        let text = values.iter().map(|value| value.text).max().unwrap_or(0);
        all.names = all.names.saturating_add(all.tensors.saturating_mul(NUMBER + u64::from(text)));
        Value { depth: all.depth + 1, text, ..all }
    }

    /// Makes another value a part of this one.
    pub(super) fn add(&mut self, part: &Value) {
        self.heap += part.heap;
        self.depth = self.depth.max(part.depth);
        self.tensors += part.tensors;
        self.names = self.names.saturating_add(part.names);
    }

    /// Bytes that it takes once its tensors have their names, each twice.
    pub(super) fn named(&self) -> u64 {
        self.names.saturating_mul(2).saturating_add(self.heap + LOADED * self.tensors)
    }
}
