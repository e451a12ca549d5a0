//! The memory that the values of a pickle take in the reader.
//!
//! The sizes are those of the reader's types, and of the collections of Rust's standard library,
//! which grow by doubling and keep the old buffer until the new one is filled. They are upper
//! bounds, for what `torch.save` writes about a third more than is taken.

/// The properties of a value that bound its memory.
#[derive(Clone, Copy)]
pub(super) struct Value {
    pub(super) kind: Kind,
    /// Bytes of memory, those of the value itself included.
    pub(super) memory: u64,
    /// How deep lists, tuples and dictionaries nest in it.
    pub(super) depth: u32,
    /// Index in the memo, if the value is in it.
    pub(super) memo: Option<u32>,
    /// Length of the longest text that the value is or directly contains.
    pub(super) text_len: u32,
    /// Number of tensors in the value, and the bytes of their names below the value.
    pub(super) tensors: u64,
    pub(super) name_bytes: u64,
}

/// The kind of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
    Dict,
    List,
    /// The class `OrderedDict`, whose call makes a dictionary.
    OrderedDict,
    /// A function that rebuilds a tensor.
    Rebuild,
    Tensor,
    Other,
}

/// Bytes of a value, of its place on the stack, and of its place in the memo.
pub(super) const VALUE: u64 = 80;
const STACK_PLACE: u64 = 96;
const MEMO_PLACE: u64 = 105;

/// Bytes that an item of a list takes besides its value, and a pair of a dictionary besides both;
/// and that either collection takes with its first.
const LIST_ITEM: u64 = 160;
const DICT_PAIR: u64 = 200;
const COLLECTION: u64 = 100;

/// Bytes of a tensor besides its shape, of a named tensor besides its shape and its name, and of a
/// reference to a class or a function.
const TENSOR: u64 = 160;
const NAMED_TENSOR: u64 = 360;
const CLASS: u64 = 64;

/// Bytes of an index and a dot in the name of a tensor of a list.
const INDEX_NAME: u64 = 21;

/// The longest text that the reader allocates at once; longer ones grow as they are read.
const TEXT_AT_ONCE: u64 = 1 << 16;

/// Returns the bytes of a stack that was `max_height` high at most: its buffer does not shrink, and
/// values that are popped together are copied first.
pub(super) fn stack_memory(max_height: usize) -> u64 {
    STACK_PLACE * (max_height.next_power_of_two().max(4) + max_height) as u64
}

/// Returns the bytes of a memo with this number of places.
pub(super) fn memo_memory(places: usize) -> u64 {
    MEMO_PLACE * (places * 8 / 7 + 1).next_power_of_two() as u64
}

impl Value {
    /// A value with `memory` bytes besides its own.
    pub(super) fn new(kind: Kind, memory: u64) -> Value {
        let memory = VALUE + memory;
        Value { kind, memory, depth: 0, memo: None, text_len: 0, tensors: 0, name_bytes: 0 }
    }

    pub(super) fn class(kind: Kind) -> Value {
        Value::new(kind, CLASS)
    }

    pub(super) fn text(len: u32) -> Value {
        let bytes = u64::from(len);
        let memory = if bytes > TEXT_AT_ONCE { 3 * bytes } else { bytes };
        Value { text_len: len, ..Value::new(Kind::Other, memory) }
    }

    /// The result of a call. A tensor keeps the storage's key, the shape and the strides of its
    /// four or more arguments, in a more compact form; any other result keeps all arguments.
    pub(super) fn call(called: &Value, arguments: &Value) -> Value {
        let value = Value { kind: Kind::Other, memo: None, ..*arguments };
        match called.kind {
            Kind::Rebuild => {
                let sizes = arguments.memory.saturating_sub(5 * VALUE) / 4;
                let memory = TENSOR + u64::from(arguments.text_len) + sizes;
                Value { depth: arguments.depth, tensors: 1, ..Value::new(Kind::Tensor, memory) }
            }
            Kind::OrderedDict => value,
            _ => Value { memory: CLASS + arguments.memory, ..value },
        }
    }

    /// A storage, which keeps the key from its persistent id: a text or an integer.
    pub(super) fn storage(id: &Value) -> Value {
        let key = u64::from(id.text_len).max(INDEX_NAME);
        Value { text_len: id.text_len, ..Value::new(Kind::Other, key) }
    }

    /// A copy. That of a tensor shares the object which reads the data.
    pub(super) fn copied(&self) -> Value {
        let shared = if self.kind == Kind::Tensor { TENSOR } else { 0 };
        Value { memory: self.memory - shared, ..*self }
    }

    pub(super) fn tuple(values: &[Value]) -> Value {
        let all = Value::nested(values);
        let places = (STACK_PLACE - VALUE) * values.len() as u64;
        Value { memory: VALUE + all.memory + places, ..all }
    }

    /// Appends to this list, with `arity` 1, or adds keys and values to this dictionary, with 2.
    pub(super) fn extend(&mut self, values: &[Value], arity: usize) {
        let place = if arity == 1 { LIST_ITEM } else { DICT_PAIR };
        self.memory += COLLECTION + place * (values.len() / arity) as u64;
        values.chunks(arity).for_each(|item| self.add(&Value::nested(item)));
    }

    /// Several values, one level deeper. A text among them may become a part of the name of each
    /// tensor among them.
    fn nested(values: &[Value]) -> Value {
        let mut all = Value { memory: 0, ..Value::new(Kind::Other, 0) };
        values.iter().for_each(|value| all.add(value));
        let text_len = values.iter().map(|value| value.text_len).max().unwrap_or(0);
        let names = all.tensors.saturating_mul(INDEX_NAME + u64::from(text_len));
        all.name_bytes = all.name_bytes.saturating_add(names);
        Value { depth: all.depth + 1, text_len, ..all }
    }

    /// Adds what another value contains to this one.
    pub(super) fn add(&mut self, part: &Value) {
        self.memory += part.memory;
        self.depth = self.depth.max(part.depth);
        self.tensors += part.tensors;
        self.name_bytes = self.name_bytes.saturating_add(part.name_bytes);
    }

    /// Returns the bytes of memory after its tensors have got their names, of which there are two
    /// copies.
    pub(super) fn named_memory(&self) -> u64 {
        self.name_bytes.saturating_mul(2).saturating_add(self.memory + NAMED_TENSOR * self.tensors)
    }
}
