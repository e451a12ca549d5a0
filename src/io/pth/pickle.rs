//! Checks that a pickle holds tensors and plain values only, and bounds the memory that reading it
//! takes.
//!
//! A [`Machine`] runs the pickle on [`Value`]s, which stand for how much memory the real ones would
//! take in the reader. Allowed are the instructions of [`opcode`] and the names of [`names`].
//!
//! The reader keeps whole values in its memo, and `torch.save` memoizes almost everything: a tensor
//! takes about 4 KiB besides its data.

use super::{
    names, opcode,
    value::{Kind, VALUE, Value, memo_memory, stack_memory},
};
use crate::{Error, Result};
use std::{
    collections::HashMap,
    io::{self, BufRead, Read},
    path::Path,
};

/// The limits of a pickle.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    /// Bytes of memory at any time.
    pub(super) memory: u64,
    /// The kind of its value, if only one is allowed.
    pub(super) kind: Option<Kind>,
}

/// The greatest depth of nested values. A checkpoint has its optimizer's state at depth five.
const MAX_DEPTH: u32 = 64;

/// Bytes of memory that a stream takes for a storage.
const STORAGE: u64 = 160;

/// The longest line with the name of a module, a class or a function.
const MAX_NAME_LEN: u64 = 128;

/// The value of a checked pickle.
pub(super) struct Checked {
    kind: Kind,
    /// Bytes of memory, after its tensors have got their names.
    pub(super) memory: u64,
    /// Number of tensors.
    pub(super) tensors: u64,
}

/// Checks one pickle.
///
/// # Errors
/// [`Error::Malformed`] if it is truncated, has an instruction or refers to a name that is not
/// allowed, or exceeds the limit; [`Error::Io`].
pub(super) fn check(path: &Path, pickle: &mut impl BufRead, limit: Limit) -> Result<Checked> {
    let mut machine = Machine { max_memory: limit.memory, ..Machine::default() };
    let checked = machine.run(pickle).map_err(|fault| match fault {
        Fault::Read(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Error::malformed(path, "pickle", "its last instruction", "the end of the file")
        }
        Fault::Read(error) => Error::io(path, "read", error),
        Fault::Malformed { expected, found } => Error::malformed(path, "pickle", expected, found),
    })?;
    match limit.kind {
        Some(kind) if kind != checked.kind => {
            let (expected, found) = (format!("{kind:?}"), format!("{:?}", checked.kind));
            Err(Error::malformed(path, "pickle", expected, found))
        }
        _ => Ok(checked),
    }
}

enum Fault {
    Read(io::Error),
    Malformed { expected: &'static str, found: String },
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Read(error)
    }
}

fn malformed<T>(expected: &'static str, found: impl ToString) -> Result<T, Fault> {
    Err(Fault::Malformed { expected, found: found.to_string() })
}

/// The pickle machine: a stack of values with marks, and a memo.
#[derive(Default)]
struct Machine {
    max_memory: u64,
    stack: Vec<Value>,
    /// Heights of the stack at which a mark was set.
    marks: Vec<usize>,
    /// The greatest height of the stack, marks included.
    max_height: usize,
    memo: HashMap<u32, Value>,
    /// Bytes of all values on the stack and in the memo, and of the descriptions of storages.
    values: u64,
    storages: u64,
}

impl Machine {
    fn run(&mut self, pickle: &mut impl BufRead) -> Result<Checked, Fault> {
        while self.step(pickle)? {
            self.check_memory(0)?;
        }
        match self.stack[..] {
            [root] if self.marks.is_empty() => {
                let memory = root.named_memory().saturating_add(self.storages);
                self.check_limit(memory)?;
                Ok(Checked { kind: root.kind, memory, tensors: root.tensors })
            }
            _ => malformed("one value in the end", self.stack.len()),
        }
    }

    /// Runs one instruction. Returns whether another follows.
    fn step(&mut self, pickle: &mut impl BufRead) -> Result<bool, Fault> {
        let [instruction] = bytes(pickle)?;
        match instruction {
            opcode::STOP => return Ok(false),
            opcode::PROTO => match bytes(pickle)? {
                [2] => {}
                [other] => return malformed("protocol 2, which torch.save writes", other),
            },
            opcode::NONE | opcode::NEWTRUE | opcode::NEWFALSE => self.push(Value::new(Kind::Other, 0))?,
            opcode::BININT1 => self.number(pickle, 1)?,
            opcode::BININT2 => self.number(pickle, 2)?,
            opcode::BININT => self.number(pickle, 4)?,
            opcode::BINFLOAT => self.number(pickle, 8)?,
            opcode::LONG1 => {
                let len = short(pickle)?;
                self.number(pickle, len)?;
            }
            opcode::SHORT_BINSTRING => {
                let len = short(pickle)?;
                self.text(pickle, len)?;
            }
            opcode::BINUNICODE | opcode::BINSTRING => {
                let len = long(pickle)?;
                self.text(pickle, len)?;
            }
            opcode::EMPTY_TUPLE => self.push(Value::new(Kind::Other, 0))?,
            opcode::EMPTY_LIST => self.push(Value::new(Kind::List, 0))?,
            opcode::EMPTY_DICT => self.push(Value::new(Kind::Dict, 0))?,
            opcode::MARK => self.mark(),
            opcode::TUPLE | opcode::TUPLE1..=opcode::TUPLE3 => {
                let values = match instruction {
                    opcode::TUPLE => self.pop_to_mark()?,
                    _ => self.pop_several(usize::from(instruction - opcode::TUPLE1) + 1)?,
                };
                self.push(Value::tuple(&values))?;
            }
            opcode::APPEND => self.append(1)?,
            opcode::SETITEM => self.append(2)?,
            opcode::APPENDS => self.extend(1)?,
            opcode::SETITEMS => self.extend(2)?,
            opcode::GLOBAL => self.global(pickle)?,
            opcode::REDUCE | opcode::NEWOBJ => self.call()?,
            opcode::BUILD => self.build()?,
            opcode::BINPERSID => self.storage()?,
            opcode::BINPUT => self.put(short(pickle)?)?,
            opcode::LONG_BINPUT => self.put(long(pickle)?)?,
            opcode::BINGET => self.get(short(pickle)?)?,
            opcode::LONG_BINGET => self.get(long(pickle)?)?,
            other => {
                return malformed("an instruction that torch.save writes", format_args!("0x{other:02x}"));
            }
        }
        Ok(true)
    }

    /// Checks that `more` bytes than are taken now are within the limit.
    fn check_memory(&self, more: u64) -> Result<(), Fault> {
        // Values are stored in the places of the stack and the memo, which are counted as a whole.
        let in_places = VALUE * (self.stack.len() + self.memo.len()) as u64;
        let places = stack_memory(self.max_height) + memo_memory(self.memo.len());
        self.check_limit(self.values - in_places + places + self.storages + more)
    }

    fn check_limit(&self, memory: u64) -> Result<(), Fault> {
        if memory > self.max_memory {
            return malformed(
                "what takes at most twice the file and 1 MiB in memory",
                "more (as safetensors they take less)",
            );
        }
        Ok(())
    }

    fn push(&mut self, value: Value) -> Result<(), Fault> {
        if value.depth > MAX_DEPTH {
            return malformed("values that nest no deeper than 64", "deeper ones");
        }
        self.values += value.memory;
        self.stack.push(value);
        self.record_height();
        Ok(())
    }

    fn mark(&mut self) {
        self.marks.push(self.stack.len());
        self.record_height();
    }

    fn record_height(&mut self) {
        self.max_height = self.max_height.max(self.stack.len() + self.marks.len());
    }

    fn pop(&mut self) -> Result<Value, Fault> {
        let above_mark = self.stack.len() > self.marks.last().copied().unwrap_or(0);
        match self.stack.pop().filter(|_| above_mark) {
            Some(value) => {
                self.values -= value.memory;
                Ok(value)
            }
            None => malformed("a value on the stack", "none"),
        }
    }

    fn pop_several(&mut self, count: usize) -> Result<Vec<Value>, Fault> {
        let mut values = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
        values.reverse();
        Ok(values)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>, Fault> {
        let Some(height) = self.marks.pop() else { return malformed("a mark on the stack", "none") };
        self.pop_several(self.stack.len() - height)
    }

    fn number(&mut self, pickle: &mut impl BufRead, len: u32) -> Result<(), Fault> {
        skip(pickle, len)?;
        self.push(Value::new(Kind::Number, 0))
    }

    fn text(&mut self, pickle: &mut impl BufRead, len: u32) -> Result<(), Fault> {
        skip(pickle, len)?;
        self.push(Value::text(len))
    }

    /// Adds one item, of `arity` values, to the list or dictionary below it.
    fn append(&mut self, arity: usize) -> Result<(), Fault> {
        let values = self.pop_several(arity)?;
        self.add_items(&values, arity)
    }

    /// Adds the items down to the mark to the list or dictionary below it.
    fn extend(&mut self, arity: usize) -> Result<(), Fault> {
        let values = self.pop_to_mark()?;
        self.add_items(&values, arity)
    }

    fn add_items(&mut self, values: &[Value], arity: usize) -> Result<(), Fault> {
        if !values.len().is_multiple_of(arity) {
            return malformed("a value for every name", values.len());
        }
        let mut collection = self.pop()?;
        collection.extend(values, arity);
        self.push(collection)
    }

    fn storage(&mut self) -> Result<(), Fault> {
        let storage = Value::storage(&self.pop()?);
        self.storages += STORAGE + storage.memory - VALUE;
        self.push(storage)
    }

    /// Calls a function or a class; its arguments and its result exist together for a moment.
    fn call(&mut self) -> Result<(), Fault> {
        let arguments = self.pop()?;
        let called = self.pop()?;
        self.check_memory(arguments.memory + arguments.memory / 2)?;
        self.push(Value::call(&called, &arguments))
    }

    /// Adds a state to an object; both exist beside the result for a moment.
    fn build(&mut self) -> Result<(), Fault> {
        let state = self.pop()?;
        let mut object = self.pop()?;
        self.check_memory(object.memory + state.memory + state.memory / 2)?;
        object.add(&state);
        self.push(object)?;
        match object.memo {
            Some(index) => self.put(index),
            None => Ok(()),
        }
    }

    /// Copies the top of the stack into the memo.
    fn put(&mut self, index: u32) -> Result<(), Fault> {
        let mut value = self.pop()?;
        value.memo = Some(index);
        self.push(value)?;
        let copy = value.copied();
        self.values += copy.memory;
        // The copy is there before the old value at this index goes, and a memo that grows exists
        // twice for a moment.
        let [now, grown] = [0, 1].map(|more| memo_memory(self.memo.len() + more));
        self.check_memory(if grown > now { grown } else { 0 })?;
        if let Some(old) = self.memo.insert(index, copy) {
            self.values -= old.memory;
        }
        Ok(())
    }

    /// Pushes a value of the memo.
    fn get(&mut self, index: u32) -> Result<(), Fault> {
        match self.memo.get(&index) {
            Some(&value) => self.push(value),
            None => malformed("something remembered", index),
        }
    }

    /// Pushes a class or a function.
    fn global(&mut self, pickle: &mut impl BufRead) -> Result<(), Fault> {
        let (module, name) = (line(pickle)?, line(pickle)?);
        if !names::is_allowed(&module, &name) {
            let found = format_args!("{module}.{name}");
            return malformed("tensors and plain values, as of a state_dict", found);
        }
        self.push(Value::class(match name.as_str() {
            "OrderedDict" => Kind::OrderedDict,
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

/// Reads a length or an index of one byte.
fn short(pickle: &mut impl BufRead) -> Result<u32, Fault> {
    bytes(pickle).map(|[byte]| u32::from(byte))
}

/// Reads a length or an index of four bytes.
fn long(pickle: &mut impl BufRead) -> Result<u32, Fault> {
    bytes(pickle).map(u32::from_le_bytes)
}

fn skip(pickle: &mut impl BufRead, len: u32) -> Result<(), Fault> {
    let found = io::copy(&mut pickle.take(len.into()), &mut io::sink())?;
    if found < u64::from(len) {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(())
}

/// Reads a line of at most [`MAX_NAME_LEN`] bytes, without its end.
fn line(pickle: &mut impl BufRead) -> Result<String, Fault> {
    let mut line = vec![];
    pickle.take(MAX_NAME_LEN).read_until(b'\n', &mut line)?;
    match String::from_utf8(line) {
        Ok(text) if text.ends_with('\n') => Ok(text.trim_end().to_string()),
        _ => malformed("the name of something", "something else"),
    }
}
