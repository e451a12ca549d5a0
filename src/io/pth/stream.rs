//! The stream that PyTorch wrote before version 1.6: pickles of a magic number, a version, the
//! sizes of the machine's types, the object, and the keys of the storages, which follow.

use super::{
    elements::Location,
    pickle::{self, Pickle},
    value::{Node, Value},
};
use crate::{Error, Result};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read, Seek},
    path::Path,
};

/// Bytes of memory for each pickle before the object, far more than PyTorch's take.
const HEADER: u64 = 1 << 14;

/// The only version of the format.
const VERSION: i64 = 1001;

/// Bytes of the number of elements before a storage.
const COUNT: u64 = 8;

/// Bytes of memory that the place of a storage takes, besides its key.
const PLACE: u64 = 160;

/// Reads the object of a stream of `size` bytes, and where the storages are.
///
/// # Errors
/// [`Error::Malformed`] if the stream is cut short or is not as PyTorch writes; [`Error::Io`].
pub(super) fn read(
    path: &Path,
    file: &mut File,
    size: u64,
    budget: u64,
) -> Result<(Pickle, BTreeMap<Box<str>, Location>)> {
    let read_error = |error| Error::io(path, "read", error);
    file.rewind().map_err(read_error)?;
    let mut stream = BufReader::new(file);
    pickle::read(path, &mut stream, HEADER)?;
    let version = pickle::read(path, &mut stream, HEADER)?;
    if !matches!(version.root, Value::Int(VERSION)) {
        return Err(Error::malformed(path, "version", VERSION, "another"));
    }
    check_machine(path, &pickle::read(path, &mut stream, HEADER)?)?;
    let mut object = pickle::read(path, &mut stream, budget)?;
    let rest = budget.saturating_sub(object.memory.taken());
    let keys = pickle::read(path, &mut stream, rest)?;
    let storages = storages(path, &mut stream, size, &mut object, &keys, rest)?;
    Ok((object, storages))
}

/// Finds the storages that follow the list of their keys, for which `memory` bytes are left.
fn storages(
    path: &Path,
    stream: &mut BufReader<&mut File>,
    size: u64,
    object: &mut Pickle,
    keys: &Pickle,
    memory: u64,
) -> Result<BTreeMap<Box<str>, Location>> {
    let read_error = |error| Error::io(path, "read", error);
    let mut begin = stream.stream_position().map_err(read_error)?;
    let Some(Node::List(items)) = keys.nodes.get(keys.root) else {
        return Err(Error::malformed(path, "pickle", "the list of the storages' keys", "something else"));
    };
    let (mut storages, mut rest) = (BTreeMap::new(), memory.saturating_sub(keys.memory.taken()));
    for item in items {
        let key = match (keys.nodes.text(*item), item) {
            (Some(key), _) => key.to_string(),
            (None, Value::Int(key)) => key.to_string(),
            _ => return Err(Error::malformed(path, "pickle", "the key of a storage", "something else")),
        };
        let at = format!("storage {key}");
        let Some(storage) = object.storages.get(key.as_str()).cloned() else {
            return Err(Error::malformed(path, at, "a storage of the object", "another"));
        };
        // The place of a storage exists beside the keys now, and beside the object's tensors later.
        let taken = PLACE + key.len() as u64;
        rest = match (rest.checked_sub(taken), object.memory.take(taken)) {
            (Some(rest), Ok(())) => rest,
            _ => return Err(Error::malformed(path, at, "keys in proportion to the file", "more")),
        };
        let mut count = [0; COUNT as usize];
        let len = storage.end * storage.element.size as u64;
        if size.saturating_sub(begin) < COUNT.saturating_add(len) {
            let found = format!("{} bytes, up to the end of the file", size.saturating_sub(begin));
            return Err(Error::malformed(
                path,
                at,
                format_args!("{} bytes", COUNT.saturating_add(len)),
                found,
            ));
        }
        stream.read_exact(&mut count).and_then(|()| stream.seek_relative(len as i64)).map_err(read_error)?;
        let count = u64::from_le_bytes(count);
        if count != storage.end && count != len {
            return Err(Error::malformed(path, at, format_args!("{} elements", storage.end), count));
        }
        if storages.insert(key.into(), Location::InStream { begin: begin + COUNT, len }).is_some() {
            return Err(Error::malformed(path, at, "each storage once", "one twice"));
        }
        begin += COUNT + len;
    }
    Ok(storages)
}

/// Checks the description of the machine that wrote the file.
fn check_machine(path: &Path, machine: &Pickle) -> Result<()> {
    let Some(Node::Dict(pairs)) = machine.nodes.get(machine.root) else {
        return Err(Error::malformed(path, "pickle", "a dictionary about the machine", "something else"));
    };
    let big_endian = pairs.iter().any(|[key, value]| {
        machine.nodes.text(*key) == Some("little_endian") && matches!(value, Value::Bool(false))
    });
    if big_endian {
        return Err(Error::malformed(path, "byte order", "little-endian", "big-endian"));
    }
    Ok(())
}
