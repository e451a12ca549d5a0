//! The zip archive around a pickle, as `torch.save` writes it: nothing compressed, nothing twice, nothing behind its end.

use crate::{Error, Result};
use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// Bytes of the record that ends an archive, of the pointer and the record before it in a large one, and of what precedes
/// a file and describes it in the directory.
const END: u64 = 22;
const POINTER: u64 = 20;
const LARGE_END: u64 = 56;
const LOCAL: u64 = 30;
const DESCRIBED: usize = 46;

/// Bytes that an entry takes at most once the directory is read, besides its name; and times that the name is there, whose letters
/// may take more bytes than in the file.
const BYTES_PER_ENTRY: u64 = 360;
const NAMES: u64 = 3;

/// What an entry may have behind its name: the sizes and the place that the large archives have there.
const LARGE: [u8; 2] = [1, 0];
const LARGE_EXTRA: usize = 32;

/// The pickle of an archive; the file stands at its beginning.
pub(super) struct Found {
    pub(super) len: u64,
    /// Bytes that the directory will take.
    pub(super) directory: u64,
}

/// Finds the pickle, if the file is an archive.
pub(super) fn find_pickle(path: &Path, file: &mut File, size: u64) -> Result<Option<Found>> {
    let at = |at: u64, len: usize, file: &mut File| -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let read = file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut bytes));
        read.map(|()| bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Error::malformed(path, "archive", "a whole file", "its end"),
            _ => Error::io(path, "read", error),
        })
    };
    let broken = |expected: &str, found: String| Error::malformed(path, "archive", expected, found);

    if size < 4 || at(0, 4, file)? != b"PK\x03\x04" {
        file.seek(SeekFrom::Start(0)).map_err(|e| Error::io(path, "read", e))?;
        return Ok(None);
    }
    if size < LOCAL + END {
        return Err(broken("a directory", format!("{size} bytes")));
    }
    let end = at(size - END, END as usize, file)?;
    if !end.starts_with(b"PK\x05\x06") || u16_at(&end, 20) != 0 {
        return Err(broken("the record that ends it", "another end".to_string()));
    }
    let mut directory = Directory {
        entries: u16_at(&end, 10).into(),
        size: u32_at(&end, 12).into(),
        begin: u32_at(&end, 16).into(),
    };
    let mut directory_end = size - END;
    if let Some(large) = directory_end.checked_sub(POINTER + LARGE_END)
        && at(size - END - POINTER, POINTER as usize, file)?.starts_with(b"PK\x06\x07")
    {
        let record = at(large, LARGE_END as usize, file)?;
        let large_directory =
            Directory { entries: u64_at(&record, 32), size: u64_at(&record, 40), begin: u64_at(&record, 48) };
        if !record.starts_with(b"PK\x06\x06") || !large_directory.is_meant_by(&directory) {
            return Err(broken("two ends that agree", "two that do not".to_string()));
        }
        (directory, directory_end) = (large_directory, large);
    }

    let Directory { entries, size: len, begin } = directory;
    if begin.checked_add(len) != Some(directory_end) || entries > len / DESCRIBED as u64 {
        return Err(broken(
            "a directory before its end",
            format!("{entries} entries in {len} bytes at {begin}"),
        ));
    }
    let taken = entries * BYTES_PER_ENTRY + NAMES * (len - entries * DESCRIBED as u64);
    if taken > 2 * size + super::ALLOWANCE / 2 {
        return Err(broken(
            "a directory in proportion to the file",
            format!("{entries} entries in {size} bytes"),
        ));
    }
    let bytes = at(begin, len as usize, file)?;
    let pickle = find(path, &bytes, directory)?;
    let local = at(pickle.at, LOCAL as usize, file)?;
    let begin = pickle.at + LOCAL + u64::from(u16_at(&local, 26)) + u64::from(u16_at(&local, 28));
    if !local.starts_with(b"PK\x03\x04") || begin + pickle.len > directory.begin {
        return Err(broken("data.pkl before the directory", format!("{} bytes at {begin}", pickle.len)));
    }
    file.seek(SeekFrom::Start(begin)).map_err(|e| Error::io(path, "read", e))?;
    Ok(Some(Found { len: pickle.len, directory: taken }))
}

/// Where the directory is.
#[derive(Clone, Copy)]
struct Directory {
    entries: u64,
    size: u64,
    begin: u64,
}

impl Directory {
    /// Whether a smaller record says the same, where it has module to.
    fn is_meant_by(&self, small: &Directory) -> bool {
        let same = |large: u64, small: u64, full: u64| large == small || small == full;
        same(self.entries, small.entries, u16::MAX.into())
            && same(self.size, small.size, u32::MAX.into())
            && same(self.begin, small.begin, u32::MAX.into())
    }
}

/// Where an entry is, and how long.
struct Place {
    at: u64,
    len: u64,
}

/// Goes through the directory's bytes for the one pickle.
fn find(path: &Path, bytes: &[u8], directory: Directory) -> Result<Place> {
    let broken = |expected: &str, found: String| Error::malformed(path, "archive", expected, found);
    let (mut rest, mut names, mut pickle, mut total) = (bytes, BTreeSet::new(), None, 0u64);
    for _ in 0..directory.entries {
        let Some((entry, behind)) =
            rest.split_at_checked(DESCRIBED).filter(|(e, _)| e.starts_with(b"PK\x01\x02"))
        else {
            return Err(broken("an entry of the directory", format!("{} other bytes", rest.len())));
        };
        let [name, extra, comment] = [28, 30, 32].map(|at| usize::from(u16_at(entry, at)));
        let Some((name, behind)) = behind.split_at_checked(name).filter(|(_, b)| b.len() >= extra + comment)
        else {
            return Err(broken("a name", format!("{} bytes", behind.len())));
        };
        rest = &behind[extra + comment..];
        let (extra, comment) = behind[..extra + comment].split_at(extra);
        let large = extra.starts_with(&LARGE) && extra.len() <= LARGE_EXTRA;
        if !comment.is_empty() || !(large || extra.is_empty()) {
            return Err(broken("a name and nothing more", format!("{} bytes", extra.len() + comment.len())));
        }
        let text = String::from_utf8_lossy(name);
        // Encrypted files have one of these bits.
        if u16_at(entry, 8) & 0x2041 != 0 || u16_at(entry, 10) != 0 || u32_at(entry, 20) != u32_at(entry, 24)
        {
            return Err(broken(
                "files as torch.save stores them",
                format!("{text}, compressed or encrypted"),
            ));
        }
        if !names.insert(name) {
            return Err(broken("files of different names", format!("{text} twice")));
        }
        // A file of 4 GiB has its length elsewhere, and nothing else can be as long beside it.
        let len = u64::from(u32_at(entry, 24));
        total += if len == u64::from(u32::MAX) { 0 } else { len };
        if name == b"data.pkl" || name.ends_with(b"/data.pkl") {
            let place = Place { at: u32_at(entry, 42).into(), len };
            if pickle.replace(place).is_some() {
                return Err(broken("one data.pkl", "two".to_string()));
            }
        }
    }
    if !rest.is_empty() || total > directory.begin {
        return Err(broken(
            "files side by side",
            format!("{total} bytes before the directory at {}", directory.begin),
        ));
    }
    pickle.ok_or_else(|| broken("a file data.pkl", "none".to_string()))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    number(bytes, at) as u16
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    (number(bytes, at) & 0xffff_ffff) as u32
}

/// Up to eight bytes as a number; what is beyond the end is zero.
fn number(bytes: &[u8], at: usize) -> u64 {
    bytes.iter().skip(at).take(8).rev().fold(0, |n, &byte| n << 8 | u64::from(byte))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    number(bytes, at)
}
