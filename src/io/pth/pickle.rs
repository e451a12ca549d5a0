//! Whether a pickle is one of tensors and plain values, and what it would take in memory.
//!
//! A pickle is read as its machine would run it, but on sizes instead of values: a stack, a memory, and for everything on them
//! how many bytes it would take and how deep it nests. The instructions are those that `torch.save` writes, which are also
//! all that PyTorch's own `weights_only` accepts; what they may name is listed in [`names`].

use super::names;
use crate::{Error, Result, io::weights::malformed};
use std::{
    collections::HashMap,
    io::{self, BufRead, Read},
    path::Path,
};

/// What a pickle may come to.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    /// Bytes in memory, at any time, besides what [`granted`] allows.
    pub(super) heap: u64,
    /// What the whole must be.
    pub(super) kind: Option<Kind>,
}

/// What kind of value this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
    Dict,
    List,
    /// A call that rebuilds a tensor.
    Rebuild,
    Other,
}

/// How deep values may nest. A checkpoint has its optimizer's state below five names.
const DEPTH: u32 = 64;

/// Bytes that a value takes; that it takes besides on the stack, in a list or dictionary and in the memory, each of which may
/// have just grown; and that a tensor takes besides its shape.
const VALUE: u64 = 80;
const STACKED: u64 = 192;
const LISTED: u64 = 160;
const REMEMBERED: u64 = 240;
const TENSOR: u64 = 256;

/// What a tensor's names, shape and storage take, as they are remembered one in the other, and the tensors to which that is granted
/// even if the file has fewer bytes of them: those of a large network with its optimizer's state, each of a few numbers.
const SMALL: u64 = 7 << 10;
const MANY: u64 = 4096;

/// Bytes granted to a file that names so many storages.
fn granted(storages: u64) -> u64 {
    SMALL * storages.min(MANY)
}

/// The longest line that names something.
const LINE: u64 = 128;

/// Goes through one pickle.
///
/// # Errors
/// [`Error::Malformed`] if it is cut short, has another instruction, names anything else, or exceeds the limit;
/// [`Error::Io`].
pub(super) fn check(path: &Path, pickle: &mut impl BufRead, limit: Limit) -> Result<()> {
    let mut machine =
        Machine { stack: vec![], marks: vec![], memory: HashMap::new(), values: 0, storages: 0 };
    let root = machine.run(pickle, limit.heap).map_err(|fault| match fault {
        Fault::Read(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            malformed(path, "pickle", "its last instruction", "the end of the file")
        }
        Fault::Read(error) => Error::io(path, "read", error),
        Fault::Pickle(expected, found) => malformed(path, "pickle", expected, found),
    })?;
    match limit.kind {
        Some(kind) if kind != root => {
            Err(malformed(path, "pickle", format!("{kind:?}"), format!("{root:?}")))
        }
        _ => Ok(()),
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

/// What a value takes.
#[derive(Clone, Copy)]
struct Value {
    kind: Kind,
    heap: u64,
    depth: u32,
    /// Where it is remembered.
    memory: Option<u32>,
}

struct Machine {
    stack: Vec<Value>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memory: HashMap<u32, Value>,
    /// Bytes of all values on the stack and in the memory.
    values: u64,
    /// How many were named.
    storages: u64,
}

impl Machine {
    fn run(&mut self, pickle: &mut impl BufRead, most: u64) -> Result<Kind, Fault> {
        while self.step(pickle)? {
            if self.heap() > most + granted(self.storages) {
                return fault("what takes less than twice the file in memory", "more");
            }
        }
        match self.stack[..] {
            [root] if self.marks.is_empty() => Ok(root.kind),
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
            b'N' | 0x88 | 0x89 => self.push(Kind::Other, 0, 0)?,
            b'K' => {
                bytes::<1>(pickle)?;
                self.push(Kind::Number, 0, 0)?;
            }
            b'M' => {
                bytes::<2>(pickle)?;
                self.push(Kind::Number, 0, 0)?;
            }
            b'J' => {
                bytes::<4>(pickle)?;
                self.push(Kind::Number, 0, 0)?;
            }
            b'G' => {
                bytes::<8>(pickle)?;
                self.push(Kind::Number, 0, 0)?;
            }
            0x8a => {
                let [len] = bytes(pickle)?;
                skip(pickle, len.into())?;
                self.push(Kind::Number, 0, 0)?;
            }
            b'U' => {
                let [len] = bytes(pickle)?;
                self.text(pickle, len.into())?;
            }
            b'X' | b'T' => {
                let len = u32::from_le_bytes(bytes(pickle)?);
                self.text(pickle, len.into())?;
            }
            b')' => self.push(Kind::Other, 0, 0)?,
            b']' => self.push(Kind::List, 0, 0)?,
            b'}' => self.push(Kind::Dict, 0, 0)?,
            b'(' => self.marks.push(self.stack.len()),
            b't' => self.gather_to_mark(Kind::Other)?,
            0x85..=0x87 => self.gather(usize::from(instruction - 0x84), Kind::Other)?,
            b'a' => self.extend(1)?,
            b's' => self.extend(2)?,
            b'e' | b'u' => {
                let values = self.above_mark()?;
                self.extend(values)?;
            }
            b'c' => self.name(pickle)?,
            b'R' | 0x81 => self.call()?,
            b'b' => self.build()?,
            b'Q' => {
                let id = self.pop()?;
                self.storages += 1;
                self.push(Kind::Other, id.heap, 0)?;
            }
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

    fn heap(&self) -> u64 {
        let stacked = (self.stack.len() + self.marks.len()) as u64;
        self.values + STACKED * stacked + REMEMBERED * self.memory.len() as u64
    }

    fn push(&mut self, kind: Kind, heap: u64, depth: u32) -> Result<(), Fault> {
        if depth > DEPTH {
            return fault("values that nest no deeper than 64", "deeper ones");
        }
        let value = Value { kind, heap: VALUE + heap, depth, memory: None };
        self.values += value.heap;
        self.stack.push(value);
        Ok(())
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

    fn text(&mut self, pickle: &mut impl BufRead, len: u64) -> Result<(), Fault> {
        skip(pickle, len)?;
        // It may be copied into a name.
        self.push(Kind::Other, 2 * len, 0)
    }

    /// Takes the last mark away, and gives the number of values above it.
    fn above_mark(&mut self) -> Result<usize, Fault> {
        match self.marks.pop() {
            Some(height) => Ok(self.stack.len() - height),
            None => fault("a mark on the stack", "none"),
        }
    }

    fn gather_to_mark(&mut self, kind: Kind) -> Result<(), Fault> {
        let values = self.above_mark()?;
        self.gather(values, kind)
    }

    /// Makes one value of the last few.
    fn gather(&mut self, values: usize, kind: Kind) -> Result<(), Fault> {
        let (heap, depth) = self.pop_all(values)?;
        self.push(kind, heap, depth + 1)
    }

    /// Puts the last few values into the one below them.
    fn extend(&mut self, values: usize) -> Result<(), Fault> {
        let (heap, depth) = self.pop_all(values)?;
        let into = self.pop()?;
        let heap = into.heap - VALUE + heap + LISTED * values as u64;
        self.push(into.kind, heap, into.depth.max(depth + 1))?;
        self.keep_memory(into.memory);
        Ok(())
    }

    /// A tensor keeps of its arguments the key of its storage, shape and strides, more compactly; what another call comes to
    /// keeps them all.
    fn call(&mut self) -> Result<(), Fault> {
        let arguments = self.pop()?;
        let called = self.pop()?;
        let heap = match called.kind {
            Kind::Rebuild => TENSOR + arguments.heap / 2,
            _ => arguments.heap,
        };
        self.push(Kind::Other, heap, arguments.depth)
    }

    /// An object and its state come to both.
    fn build(&mut self) -> Result<(), Fault> {
        let state = self.pop()?;
        let object = self.pop()?;
        self.push(object.kind, object.heap - VALUE + state.heap, object.depth.max(state.depth))?;
        match object.memory {
            Some(index) => self.remember(index),
            None => Ok(()),
        }
    }

    fn pop_all(&mut self, values: usize) -> Result<(u64, u32), Fault> {
        let (mut heap, mut depth) = (0, 0);
        for _ in 0..values {
            let value = self.pop()?;
            (heap, depth) = (heap + value.heap, value.depth.max(depth));
        }
        Ok((heap, depth))
    }

    /// A changed value stays remembered where it was.
    fn keep_memory(&mut self, memory: Option<u32>) {
        if let Some(value) = self.stack.last_mut() {
            value.memory = memory;
        }
    }

    fn remember(&mut self, index: u32) -> Result<(), Fault> {
        let mut value = self.pop()?;
        value.memory = Some(index);
        self.values += 2 * value.heap;
        self.stack.push(value);
        if let Some(before) = self.memory.insert(index, value) {
            self.values -= before.heap;
        }
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Result<(), Fault> {
        let Some(&value) = self.memory.get(&index) else { return fault("something remembered", index) };
        self.values += value.heap;
        self.stack.push(value);
        Ok(())
    }

    fn name(&mut self, pickle: &mut impl BufRead) -> Result<(), Fault> {
        let (module, name) = (line(pickle)?, line(pickle)?);
        if !names::are_known(&module, &name) {
            return fault("tensors and plain values, as of a state_dict", format_args!("{module}.{name}"));
        }
        let kind = if name.starts_with("_rebuild") { Kind::Rebuild } else { Kind::Other };
        self.push(kind, 2 * (module.len() + name.len()) as u64, 0)
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
