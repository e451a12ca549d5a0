//! Reads a pickle: tensors and the dictionaries that name them, and nothing else.
//!
//! A pickle is a program for a machine with a stack and a memo. A [`Machine`] runs it on
//! [`Value`]s and calls nothing: what rebuilds a tensor becomes a description of the tensor, and
//! any other object is passed over, unless it holds tensors, which would be lost.

use super::{
    calls,
    input::{Fault, MAX_NAME_LEN, bytes, line, long, malformed, short, skip},
    names::{self, Called},
    opcode,
    value::{Class, Memory, Node, Nodes, Storage, TEXT_AT_ONCE, TooMuch, Value},
};
use crate::Result;
use std::{
    collections::BTreeMap,
    io::{self, BufRead, Read},
    path::Path,
};

/// A pickle after it has run.
pub(super) struct Pickle {
    /// The value that it makes.
    pub(super) root: Value,
    pub(super) nodes: Nodes,
    /// The storages that it refers to, by their keys.
    pub(super) storages: BTreeMap<Box<str>, Storage>,
    /// The memory that it takes.
    pub(super) memory: Memory,
}

/// Reads one pickle, which may take `memory` bytes.
///
/// # Errors
/// [`Error::Malformed`](crate::Error) if it is truncated, has an instruction that `torch.save` does
/// not write, would do harm in Python, or takes more memory; [`Error::Io`](crate::Error).
pub(super) fn read(path: &Path, pickle: &mut impl BufRead, memory: u64) -> Result<Pickle> {
    let mut machine = Machine::new(Memory::new(memory));
    machine.run(pickle).map_err(|fault| fault.into_error(path))?;
    let Machine { stack, nodes, storages, memory, .. } = machine;
    Ok(Pickle { root: stack[0], nodes, storages, memory })
}

/// The pickle machine: a stack of values with marks, and a memo.
pub(super) struct Machine {
    pub(super) memory: Memory,
    pub(super) nodes: Nodes,
    pub(super) storages: BTreeMap<Box<str>, Storage>,
    stack: Vec<Value>,
    /// Heights of the stack at which a mark was set.
    marks: Vec<usize>,
    /// The greatest height of the stack, and the greatest number of marks.
    max_height: usize,
    max_marks: usize,
    memo: BTreeMap<u32, Value>,
}

impl Machine {
    fn new(memory: Memory) -> Machine {
        Machine {
            memory,
            nodes: Nodes::default(),
            storages: BTreeMap::new(),
            stack: vec![],
            marks: vec![],
            max_height: 0,
            max_marks: 0,
            memo: BTreeMap::new(),
        }
    }

    fn run(&mut self, pickle: &mut impl BufRead) -> Result<(), Fault> {
        while self.step(pickle)? {}
        match (self.stack.len(), self.marks.len()) {
            (1, 0) => Ok(()),
            (values, _) => malformed("one value in the end", values),
        }
    }

    /// Runs one instruction. Returns whether another follows.
    fn step(&mut self, pickle: &mut impl BufRead) -> Result<bool, Fault> {
        let [instruction] = bytes(pickle)?;
        match instruction {
            opcode::STOP => return Ok(false),
            opcode::PROTO => match bytes(pickle)? {
                [2..=5] => {}
                [other] => return malformed("protocols 2 to 5, which torch.save writes", other),
            },
            opcode::FRAME => skip(pickle, 8)?,
            opcode::NONE => self.push(Value::Plain)?,
            opcode::NEWTRUE => self.push(Value::Bool(true))?,
            opcode::NEWFALSE => self.push(Value::Bool(false))?,
            opcode::MARK => self.mark()?,
            opcode::POP if self.mark_on_top() => drop(self.marks.pop()),
            opcode::POP => drop(self.pop()?),
            opcode::POP_MARK => drop(self.pop_to_mark()?),
            opcode::DUP => {
                let value = self.top()?;
                self.push(value)?;
            }
            opcode::GLOBAL => {
                let (module, name) = (line(pickle)?, line(pickle)?);
                self.global(module, name)?;
            }
            opcode::STACK_GLOBAL => self.stack_global()?,
            opcode::BINPUT => self.put(short(pickle)?)?,
            opcode::LONG_BINPUT => self.put(long(pickle)?)?,
            opcode::MEMOIZE => self.put(self.memo.len() as u32)?,
            opcode::BINGET => self.get(short(pickle)?)?,
            opcode::LONG_BINGET => self.get(long(pickle)?)?,
            instruction => {
                let done = self.atom(instruction, pickle)? || self.collection(instruction)?;
                if !done && !self.object(instruction)? {
                    let found = format_args!("0x{instruction:02x}");
                    return malformed("an instruction that torch.save writes", found);
                }
            }
        }
        Ok(true)
    }

    /// Runs an instruction that pushes a number, a text or bytes. Returns whether it is one.
    fn atom(&mut self, instruction: u8, pickle: &mut impl BufRead) -> Result<bool, Fault> {
        match instruction {
            opcode::BININT1 => self.integer(pickle, 1, false)?,
            opcode::BININT2 => self.integer(pickle, 2, false)?,
            opcode::BININT => self.integer(pickle, 4, true)?,
            opcode::LONG1 => {
                let len = short(pickle)?;
                self.integer(pickle, len.into(), true)?;
            }
            opcode::LONG4 => {
                let len = long(pickle)?;
                self.integer(pickle, len.into(), true)?;
            }
            opcode::BINFLOAT => self.plain(pickle, 8)?,
            opcode::SHORT_BINSTRING | opcode::SHORT_BINUNICODE => {
                let len = short(pickle)?;
                self.text(pickle, len.into())?;
            }
            opcode::BINSTRING | opcode::BINUNICODE => {
                let len = long(pickle)?;
                self.text(pickle, len.into())?;
            }
            opcode::BINUNICODE8 => {
                let len = bytes(pickle).map(u64::from_le_bytes)?;
                self.text(pickle, len)?;
            }
            opcode::SHORT_BINBYTES => {
                let len = short(pickle)?;
                self.plain(pickle, len.into())?;
            }
            opcode::BINBYTES => {
                let len = long(pickle)?;
                self.plain(pickle, len.into())?;
            }
            opcode::BINBYTES8 | opcode::BYTEARRAY8 => {
                let len = bytes(pickle).map(u64::from_le_bytes)?;
                self.plain(pickle, len)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Runs an instruction that makes or fills a collection. Returns whether it is one.
    fn collection(&mut self, instruction: u8) -> Result<bool, Fault> {
        match instruction {
            opcode::EMPTY_TUPLE => self.push_node(Node::Tuple(Box::default()))?,
            opcode::EMPTY_LIST | opcode::EMPTY_SET => self.push_node(Node::List(vec![]))?,
            opcode::EMPTY_DICT => self.push_node(Node::Dict(vec![]))?,
            opcode::TUPLE => {
                let values = self.pop_to_mark()?;
                self.push_node(Node::Tuple(values.into()))?;
            }
            opcode::TUPLE1..=opcode::TUPLE3 => {
                let values = self.pop_several(usize::from(instruction - opcode::TUPLE1) + 1)?;
                self.push_node(Node::Tuple(values.into()))?;
            }
            opcode::LIST | opcode::FROZENSET => {
                let values = self.pop_to_mark()?;
                self.push_node(Node::List(values))?;
            }
            opcode::DICT => {
                let values = self.pop_to_mark()?;
                self.memory.take(size_of_val(&values[..]) as u64)?;
                self.push_node(Node::Dict(pairs(&values)?.to_vec()))?;
            }
            opcode::APPEND => {
                let values = self.pop_several(1)?;
                self.append(&values)?;
            }
            opcode::APPENDS | opcode::ADDITEMS => {
                let values = self.pop_to_mark()?;
                self.append(&values)?;
            }
            opcode::SETITEM => {
                let values = self.pop_several(2)?;
                self.insert(&values)?;
            }
            opcode::SETITEMS => {
                let values = self.pop_to_mark()?;
                self.insert(&values)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Runs an instruction that makes an object. Returns whether it is one.
    fn object(&mut self, instruction: u8) -> Result<bool, Fault> {
        let made = match instruction {
            opcode::REDUCE | opcode::NEWOBJ => {
                let arguments = self.pop()?;
                let class = self.pop()?;
                calls::call(self, class, arguments)?
            }
            opcode::NEWOBJ_EX => {
                let named = self.pop()?;
                let arguments = self.pop()?;
                let class = self.pop()?;
                let made = calls::call(self, class, arguments)?;
                let holds_tensors = self.nodes.holds_tensors(named);
                self.nodes.set_attributes(made, false, holds_tensors);
                made
            }
            opcode::BUILD => {
                let state = self.pop()?;
                let object = self.pop()?;
                calls::build(self, object, state)?;
                object
            }
            opcode::BINPERSID => {
                let id = self.pop()?;
                calls::persistent(self, id)?
            }
            _ => return Ok(false),
        };
        self.push(made)?;
        Ok(true)
    }

    fn push(&mut self, value: Value) -> Result<(), Fault> {
        self.stack.push(value);
        if self.stack.len() > self.max_height {
            self.max_height = self.stack.len();
            self.memory.take_stack_place()?;
        }
        Ok(())
    }

    fn push_node(&mut self, node: Node) -> Result<(), Fault> {
        let value = self.nodes.add(node, &mut self.memory)?;
        self.push(value)
    }

    fn mark(&mut self) -> Result<(), Fault> {
        self.marks.push(self.stack.len());
        if self.marks.len() > self.max_marks {
            self.max_marks = self.marks.len();
            self.memory.take_mark()?;
        }
        Ok(())
    }

    fn mark_on_top(&self) -> bool {
        self.marks.last() == Some(&self.stack.len())
    }

    fn pop(&mut self) -> Result<Value, Fault> {
        let value = self.top()?;
        self.stack.pop();
        Ok(value)
    }

    fn top(&self) -> Result<Value, Fault> {
        match self.stack.last() {
            Some(value) if !self.mark_on_top() => Ok(*value),
            _ => malformed("a value on the stack", "none"),
        }
    }

    fn pop_several(&mut self, count: usize) -> Result<Vec<Value>, Fault> {
        let above = self.stack.len() - self.marks.last().copied().unwrap_or(0);
        if above < count {
            return malformed("a value on the stack", "none");
        }
        Ok(self.stack.split_off(self.stack.len() - count))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>, Fault> {
        let Some(height) = self.marks.pop() else { return malformed("a mark on the stack", "none") };
        Ok(self.stack.split_off(height))
    }

    /// Pushes a value of which nothing is used but its length.
    fn plain(&mut self, pickle: &mut impl BufRead, len: u64) -> Result<(), Fault> {
        skip(pickle, len)?;
        self.push(Value::Plain)
    }

    /// Pushes an integer of `len` bytes in little-endian.
    fn integer(&mut self, pickle: &mut impl BufRead, len: u64, signed: bool) -> Result<(), Fault> {
        if len > 8 {
            return self.plain(pickle, len);
        }
        let mut bytes = [0; 8];
        let used = &mut bytes[..len as usize];
        pickle.read_exact(used)?;
        if signed && used.last().is_some_and(|byte| byte & 0x80 != 0) {
            bytes[len as usize..].fill(0xff);
        }
        self.push(Value::Int(i64::from_le_bytes(bytes)))
    }

    /// Pushes a text, or nothing but its place if it is no UTF-8: bytes of Python 2.
    fn text(&mut self, pickle: &mut impl BufRead, len: u64) -> Result<(), Fault> {
        let readable = len.min(self.memory.longest_text());
        let mut text = Vec::with_capacity(readable.min(TEXT_AT_ONCE) as usize);
        pickle.take(readable).read_to_end(&mut text)?;
        if (text.len() as u64) < readable {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if readable < len {
            return Err(TooMuch::Memory.into());
        }
        self.memory.take_text(len)?;
        match String::from_utf8(text) {
            Ok(text) => self.push_node(Node::Text(text.into())),
            Err(_) => self.push(Value::Plain),
        }
    }

    fn append(&mut self, items: &[Value]) -> Result<(), Fault> {
        let list = self.top()?;
        match self.nodes.append(list, items, &mut self.memory)? {
            true => Ok(()),
            false => malformed("a list to append to", "something else"),
        }
    }

    fn insert(&mut self, values: &[Value]) -> Result<(), Fault> {
        let (pairs, dict) = (pairs(values)?, self.top()?);
        match self.nodes.insert(dict, pairs, &mut self.memory)? {
            true => Ok(()),
            false => malformed("a dictionary to add to", "something else"),
        }
    }

    /// Puts the top of the stack into the memo.
    fn put(&mut self, index: u32) -> Result<(), Fault> {
        let value = self.top()?;
        if self.memo.insert(index, value).is_none() {
            self.memory.take_memo_place()?;
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
    fn global(&mut self, module: String, name: String) -> Result<(), Fault> {
        if names::is_harmful(&module, &name) {
            let found = format!("{module}.{name}, which PyTorch would run: do not trust this file");
            return malformed("tensors and plain values, as of a state_dict", found);
        }
        let called: Called = names::called(&module, &name);
        self.push_node(Node::Class(Box::new(Class { module: module.into(), name: name.into(), called })))
    }

    /// Pushes the class or the function whose module and name are on the stack.
    fn stack_global(&mut self) -> Result<(), Fault> {
        let (name, module) = (self.pop()?, self.pop()?);
        match (self.nodes.text(module), self.nodes.text(name)) {
            (Some(module), Some(name)) if (module.len() + name.len()) as u64 <= 2 * MAX_NAME_LEN => {
                let (module, name) = (module.to_string(), name.to_string());
                self.global(module, name)
            }
            _ => malformed("the name of something", "something else"),
        }
    }
}

/// Returns the pairs of a name and a value.
fn pairs(values: &[Value]) -> Result<&[[Value; 2]], Fault> {
    match values.as_chunks() {
        (pairs, []) => Ok(pairs),
        _ => malformed("a value for every name", values.len()),
    }
}
