//! Reading the bytes of a pickle, and what may be wrong with it.

use super::value::TooMuch;
use crate::{Error, Result};
use std::{
    io::{self, BufRead, Read},
    path::Path,
};

/// The longest line with the name of a module, a class or a function.
pub(super) const MAX_NAME_LEN: u64 = 256;

/// Why a pickle is not read.
#[derive(Debug)]
pub(super) enum Fault {
    Read(io::Error),
    TooMuch(TooMuch),
    Malformed { expected: &'static str, found: String },
}

impl Fault {
    pub(super) fn into_error(self, path: &Path) -> Error {
        let malformed = |expected: &str, found: &str| Error::malformed(path, "pickle", expected, found);
        match self {
            Fault::Read(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                malformed("its last instruction", "the end of the file")
            }
            // What a decoder says about its input, not the operating system.
            Fault::Read(error) if error.raw_os_error().is_none() => {
                malformed("a pickle that can be unpacked", &error.to_string())
            }
            Fault::Read(error) => Error::io(path, "read", error),
            Fault::TooMuch(TooMuch::Memory) => malformed(
                "what takes at most twice the file and 1 MiB in memory",
                "more (as safetensors they take less)",
            ),
            Fault::TooMuch(TooMuch::Depth) => malformed("values that nest no deeper than 64", "deeper ones"),
            Fault::Malformed { expected, found } => malformed(expected, &found),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Read(error)
    }
}

impl From<TooMuch> for Fault {
    fn from(too_much: TooMuch) -> Fault {
        Fault::TooMuch(too_much)
    }
}

pub(super) fn malformed<T>(expected: &'static str, found: impl ToString) -> Result<T, Fault> {
    Err(Fault::Malformed { expected, found: found.to_string() })
}

pub(super) fn bytes<const N: usize>(pickle: &mut impl BufRead) -> Result<[u8; N], Fault> {
    let mut bytes = [0; N];
    pickle.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Reads a length or an index of one byte.
pub(super) fn short(pickle: &mut impl BufRead) -> Result<u32, Fault> {
    bytes(pickle).map(|[byte]| u32::from(byte))
}

/// Reads a length or an index of four bytes.
pub(super) fn long(pickle: &mut impl BufRead) -> Result<u32, Fault> {
    bytes(pickle).map(u32::from_le_bytes)
}

pub(super) fn skip(pickle: &mut impl BufRead, len: u64) -> Result<(), Fault> {
    if io::copy(&mut pickle.take(len), &mut io::sink())? < len {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(())
}

/// Reads a line of at most [`MAX_NAME_LEN`] bytes, without its end.
pub(super) fn line(pickle: &mut impl BufRead) -> Result<String, Fault> {
    let mut line = vec![];
    pickle.take(MAX_NAME_LEN).read_until(b'\n', &mut line)?;
    match String::from_utf8(line) {
        Ok(text) if text.ends_with('\n') => Ok(text.trim_end().to_string()),
        _ => malformed("the name of something", "something else"),
    }
}
