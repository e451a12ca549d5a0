//! Whether a pickle is one of tensors and plain values, and what it would take in memory.
//!
//! A pickle is read as its machine would run it, but on sizes instead of values: a stack, a memory, and for everything on them
//! how many bytes it would take in the reader ([`value`]) and how deep it nests. The instructions are those that `torch.save` writes, which
//! are also all that PyTorch's own `weights_only` accepts; what they may name is listed in [`names`].
//!
//! The reader keeps whole values in its memory, and torch.save has it remember almost everything: a tensor comes to some 4 KiB,
//! whatever it holds.

use super::{
    names,
    value::{self, Kind, VALUE, Value},
};
use crate::{Error, Result};
use std::{
    collections::HashMap,
    io::{self, BufRead, Read},
    path::Path,
};

/// What a pickle may come to.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    /// Bytes in memory, at any time.
    pub(super) heap: u64,
    /// What the whole must be.
    pub(super) kind: Option<Kind>,
}

/// How deep values may nest. A checkpoint has its optimizer's state below five names.
const DEPTH: u32 = 64;

/// Bytes that a stream remembers of a storage.
const STORAGE: u64 = 160;

/// The longest line that names something.
const LINE: u64 = 128;

/// What a pickle makes.
pub(super) struct Made {
    kind: Kind,
    /// Bytes, once its tensors have their names.
    pub(super) heap: u64,
    pub(super) tensors: u64,
}

/// Goes through one pickle.
///
/// # Errors
/// [`Error::Malformed`] if it is cut short, has another instruction, names anything else, or exceeds the limit;
/// [`Error::Io`].
pub(super) fn check(path: &Path, pickle: &mut impl BufRead, limit: Limit) -> Result<Made> {
    let mut machine = Machine { most: limit.heap, ..Machine::default() };
    let made = machine.run(pickle).map_err(|fault| match fault {
        Fault::Read(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Error::malformed(path, "pickle", "its last instruction", "the end of the file")
        }
        Fault::Read(error) => Error::io(path, "read", error),
        Fault::Pickle(expected, found) => Error::malformed(path, "pickle", expected, found),
    })?;
    match limit.kind {
        Some(kind) if kind != made.kind => {
            Err(Error::malformed(path, "pickle", format!("{kind:?}"), format!("{:?}", made.kind)))
        }
        _ => Ok(made),
    }
}

enum Fault {
    Read(io::Error),
    /// What was expected and found.
    Pickle(&'static str, String),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Read(error)
    }
}

fn fault<T>(expected: &'static str, found: impl ToString) -> Result<T, Fault> {
    Err(Fault::Pickle(expected, found.to_string()))
}

#[derive(Default)]
struct Machine {
    /// Bytes that all may take.
    most: u64,
    stack: Vec<Value>,
    /// Heights of the stack.
    marks: Vec<usize>,
    /// How high it has been.
    highest: usize,
    memory: HashMap<u32, Value>,
    /// Bytes of all values on the stack and in the memory, and of what is known of the storages.
    values: u64,
    storages: u64,
}

impl Machine {
    fn run(&mut self, pickle: &mut impl BufRead) -> Result<Made, Fault> {
        while self.step(pickle)? {
            self.needs(0)?;
        }
        match self.stack[..] {
            [root] if self.marks.is_empty() => {
                let heap = root.named().saturating_add(self.storages);
                self.within(heap)?;
                Ok(Made { kind: root.kind, heap, tensors: root.tensors })
            }
            _ => fault("one value in the end", self.stack.len()),
        }
    }

    /// Takes one instruction; false after the last.
    fn step(&mut self, pickle: &mut impl BufRead) -> Result<bool, Fault> {
        let [instruction] = bytes(pickle)?;
        match instruction {
            b'.' => return Ok(false),
            0x80 => match bytes(pickle)? {
                [2] => {}
                [other] => return fault("protocol 2, which torch.save writes", other),
            },
            b'N' | 0x88 | 0x89 => self.push(Value::new(Kind::Other, 0))?,
            b'K' => {
                bytes::<1>(pickle)?;
                self.push(Value::new(Kind::Number, 0))?;
            }
            b'M' => {
                bytes::<2>(pickle)?;
                self.push(Value::new(Kind::Number, 0))?;
            }
            b'J' => {
                bytes::<4>(pickle)?;
                self.push(Value::new(Kind::Number, 0))?;
            }
            b'G' => {
                bytes::<8>(pickle)?;
                self.push(Value::new(Kind::Number, 0))?;
            }
            0x8a => {
                let [len] = bytes(pickle)?;
                skip(pickle, len.into())?;
                self.push(Value::new(Kind::Number, 0))?;
            }
            b'U' => {
                let [len] = bytes(pickle)?;
                self.text(pickle, u32::from(len))?;
            }
            b'X' | b'T' => {
                let len = u32::from_le_bytes(bytes(pickle)?);
                self.text(pickle, len)?;
            }
            b')' => self.push(Value::new(Kind::Other, 0))?,
            b']' => self.push(Value::new(Kind::List, 0))?,
            b'}' => self.push(Value::new(Kind::Dict, 0))?,
            b'(' => {
                self.marks.push(self.stack.len());
                self.rise();
            }
            b't' => {
                let values = self.pop_to_mark()?;
                self.push(Value::tuple(&values))?;
            }
            0x85..=0x87 => {
                let values = self.pop_all(usize::from(instruction - 0x84))?;
                self.push(Value::tuple(&values))?;
            }
            b'a' | b's' => {
                let each = if instruction == b'a' { 1 } else { 2 };
                let values = self.pop_all(each)?;
                self.extend(values, each)?;
            }
            b'e' | b'u' => {
                let values = self.pop_to_mark()?;
                self.extend(values, if instruction == b'e' { 1 } else { 2 })?;
            }
            b'c' => self.name(pickle)?,
            b'R' | 0x81 => self.call()?,
            b'b' => self.build()?,
            b'Q' => self.storage()?,
            b'q' => {
                let [index] = bytes(pickle)?;
                self.remember(index.into())?;
            }
            b'r' => {
                let index = u32::from_le_bytes(bytes(pickle)?);
                self.remember(index)?;
            }
            b'h' => {
                let [index] = bytes(pickle)?;
                self.recall(index.into())?;
            }
            b'j' => {
                let index = u32::from_le_bytes(bytes(pickle)?);
                self.recall(index)?;
            }
            other => return fault("an instruction that torch.save writes", format_args!("0x{other:02x}")),
        }
        Ok(true)
    }

    /// Refuses the pickle if so many bytes more than now are too many.
    fn needs(&self, more: u64) -> Result<(), Fault> {
        // Values are inside the places of the stack and the memory.
        let inside = VALUE * (self.stack.len() + self.memory.len()) as u64;
        let places = value::stack(self.highest) + value::memory(self.memory.len());
        self.within(self.values - inside + places + self.storages + more)
    }

    fn within(&self, heap: u64) -> Result<(), Fault> {
        if heap > self.most {
            return fault(
                "what takes at most twice the file and 1 MiB in memory",
                "more (as safetensors they take less)",
            );
        }
        Ok(())
    }

    fn push(&mut self, value: Value) -> Result<(), Fault> {
        if value.depth > DEPTH {
            return fault("values that nest no deeper than 64", "deeper ones");
        }
        self.values += value.heap;
        self.stack.push(value);
        self.rise();
        Ok(())
    }

    fn rise(&mut self) {
        self.highest = self.highest.max(self.stack.len() + self.marks.len());
    }

    fn pop(&mut self) -> Result<Value, Fault> {
        let free = self.stack.len() > self.marks.last().copied().unwrap_or(0);
        match self.stack.pop().filter(|_| free) {
            Some(value) => {
                self.values -= value.heap;
                Ok(value)
            }
            None => fault("a value on the stack", "none"),
        }
    }

    fn pop_all(&mut self, values: usize) -> Result<Vec<Value>, Fault> {
        let mut all = (0..values).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        all.reverse();
        Ok(all)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>, Fault> {
        let Some(height) = self.marks.pop() else { return fault("a mark on the stack", "none") };
        self.pop_all(self.stack.len() - height)
    }

    fn text(&mut self, pickle: &mut impl BufRead, len: u32) -> Result<(), Fault> {
        skip(pickle, len.into())?;
        self.push(Value::text(len))
    }

    /// Puts values into the list or dictionary below them.
    fn extend(&mut self, values: Vec<Value>, each: usize) -> Result<(), Fault> {
        if !values.len().is_multiple_of(each) {
            return fault("a value for every name", values.len());
        }
        let mut into = self.pop()?;
        into.extend(&values, each);
        self.push(into)
    }

    fn storage(&mut self) -> Result<(), Fault> {
        let storage = Value::storage(&self.pop()?);
        self.storages += STORAGE + storage.heap - VALUE;
        self.push(storage)
    }

    /// For a moment there are the arguments and what is made of them.
    fn call(&mut self) -> Result<(), Fault> {
        let arguments = self.pop()?;
        let called = self.pop()?;
        self.needs(arguments.heap + arguments.heap / 2)?;
        self.push(Value::called(&called, &arguments))
    }

    /// An object and its state come to both, which for a moment are there besides.
    fn build(&mut self) -> Result<(), Fault> {
        let state = self.pop()?;
        let mut object = self.pop()?;
        self.needs(object.heap + state.heap + state.heap / 2)?;
        object.add(&state);
        self.push(object)?;
        match object.memory {
            Some(index) => self.remember(index),
            None => Ok(()),
        }
    }

    fn remember(&mut self, index: u32) -> Result<(), Fault> {
        let mut value = self.pop()?;
        value.memory = Some(index);
        self.push(value)?;
        let copy = value.copied();
        self.values += copy.heap;
        // What was there before goes after this has come; and a memory that grows is there twice.
        let [now, then] = [0, 1].map(|more| value::memory(self.memory.len() + more));
        self.needs(if then > now { then } else { 0 })?;
        if let Some(before) = self.memory.insert(index, copy) {
            self.values -= before.heap;
        }
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Result<(), Fault> {
        match self.memory.get(&index) {
            Some(&value) => self.push(value),
            None => fault("something remembered", index),
        }
    }

    fn name(&mut self, pickle: &mut impl BufRead) -> Result<(), Fault> {
        let (module, name) = (line(pickle)?, line(pickle)?);
        if !names::are_known(&module, &name) {
            return fault("tensors and plain values, as of a state_dict", format_args!("{module}.{name}"));
        }
        self.push(Value::class(match name.as_str() {
            "OrderedDict" => Kind::Order,
            name if name.starts_with("_rebuild_tensor") => Kind::Rebuild,
            _ => Kind::Other,
        }))
    }
}

fn bytes<const N: usize>(pickle: &mut impl BufRead) -> Result<[u8; N], Fault> {
    let mut bytes = [0; N];
    pickle.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Passes over some bytes.
fn skip(pickle: &mut impl BufRead, len: u64) -> Result<(), Fault> {
    let found = io::copy(&mut pickle.take(len), &mut io::sink())?;
    if found < len {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(())
}

/// A line of text that is none too long, without its end.
fn line(pickle: &mut impl BufRead) -> Result<String, Fault> {
    let mut line = vec![];
    pickle.take(LINE).read_until(b'\n', &mut line)?;
    match String::from_utf8(line) {
        Ok(text) if text.ends_with('\n') => Ok(text.trim_end().to_string()),
        _ => fault("the name of something", "something else"),
    }
}
