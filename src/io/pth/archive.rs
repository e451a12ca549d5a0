//! The zip archive in which `torch.save` stores a pickle. Archives as PyTorch writes them have
//! nothing compressed, no file twice and nothing after the end record; others are errors.

use crate::{Error, Result, io::entry::MEMORY_ALLOWANCE};
use std::{
    collections::BTreeSet,
    fmt::Display,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// Bytes of the end record, of the zip64 locator and the zip64 end record before it, and of a local
/// file header.
const END: u64 = 22;
const ZIP64_LOCATOR: u64 = 20;
const ZIP64_END: u64 = 56;
const LOCAL_HEADER: u64 = 30;

/// Bytes of an entry of the central directory, without its name.
const DIRECTORY_ENTRY: usize = 46;

/// Bytes of memory that the reader takes at most for an entry of the directory, besides its name.
const MEMORY_PER_ENTRY: u64 = 360;

/// Copies of each name in the reader's memory, and their growth when they are not UTF-8.
const NAME_COPIES: u64 = 3;

/// The extra field of an entry of a zip64 archive: its id, and its greatest length.
const ZIP64_EXTRA: [u8; 2] = [1, 0];
const ZIP64_EXTRA_LEN: usize = 32;

/// The pickle of an archive.
pub(super) struct Pickle {
    /// Length in bytes.
    pub(super) len: u64,
    /// Bytes of memory that the archive's directory will take.
    pub(super) directory_memory: u64,
}

/// Finds the pickle and moves the file's position to its beginning. Returns `None`, at the file's
/// beginning, if the file is not an archive.
pub(super) fn find_pickle(path: &Path, file: &mut File, size: u64) -> Result<Option<Pickle>> {
    let mut archive = Archive { path, file, size };
    if size < 4 || archive.read(0, 4)? != b"PK\x03\x04" {
        archive.seek(0)?;
        return Ok(None);
    }
    let directory = archive.directory()?;
    let directory_memory = archive.directory_memory(directory)?;
    let bytes = archive.read(directory.begin, directory.size as usize)?;
    let pickle = archive.find_entry(&bytes, directory)?;
    let header = archive.read(pickle.begin, LOCAL_HEADER as usize)?;
    let begin = pickle.begin + LOCAL_HEADER + u64::from(u16_at(&header, 26)) + u64::from(u16_at(&header, 28));
    if !header.starts_with(b"PK\x03\x04") || begin + pickle.len > directory.begin {
        let found = format!("{} bytes at {begin}", pickle.len);
        return Err(archive.malformed("data.pkl before the directory", found));
    }
    archive.seek(begin)?;
    Ok(Some(Pickle { len: pickle.len, directory_memory }))
}

struct Archive<'a> {
    path: &'a Path,
    file: &'a mut File,
    size: u64,
}

/// The central directory: the number of its entries, and its place.
#[derive(Clone, Copy)]
struct Directory {
    entries: u64,
    size: u64,
    begin: u64,
}

/// The place of a file in the archive.
struct Entry {
    begin: u64,
    len: u64,
}

impl Archive<'_> {
    fn malformed(&self, expected: &str, found: impl Display) -> Error {
        Error::malformed(self.path, "archive", expected, found)
    }

    fn seek(&mut self, to: u64) -> Result<()> {
        self.file.seek(SeekFrom::Start(to)).map(drop).map_err(|e| Error::io(self.path, "read", e))
    }

    fn read(&mut self, begin: u64, len: usize) -> Result<Vec<u8>> {
        self.seek(begin)?;
        let mut bytes = vec![0; len];
        self.file.read_exact(&mut bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.malformed("a whole file", "its end"),
            _ => Error::io(self.path, "read", error),
        })?;
        Ok(bytes)
    }

    /// Finds the directory by the end record, and by the zip64 end record if there is one.
    fn directory(&mut self) -> Result<Directory> {
        if self.size < LOCAL_HEADER + END {
            return Err(self.malformed("a directory", format_args!("{} bytes", self.size)));
        }
        let end = self.read(self.size - END, END as usize)?;
        if !end.starts_with(b"PK\x05\x06") || u16_at(&end, 20) != 0 {
            return Err(self.malformed("the record that ends it", "another end"));
        }
        let mut directory = Directory {
            entries: u16_at(&end, 10).into(),
            size: u32_at(&end, 12).into(),
            begin: u32_at(&end, 16).into(),
        };
        let mut directory_end = self.size - END;
        if let Some(begin) = directory_end.checked_sub(ZIP64_LOCATOR + ZIP64_END)
            && self.read(self.size - END - ZIP64_LOCATOR, ZIP64_LOCATOR as usize)?.starts_with(b"PK\x06\x07")
        {
            let end = self.read(begin, ZIP64_END as usize)?;
            let zip64 =
                Directory { entries: u64_at(&end, 32), size: u64_at(&end, 40), begin: u64_at(&end, 48) };
            if !end.starts_with(b"PK\x06\x06") || !zip64.agrees_with(&directory) {
                return Err(self.malformed("two ends that agree", "two that do not"));
            }
            (directory, directory_end) = (zip64, begin);
        }
        let Directory { entries, size, begin } = directory;
        if begin.checked_add(size) != Some(directory_end) || entries > size / DIRECTORY_ENTRY as u64 {
            let found = format!("{entries} entries in {size} bytes at {begin}");
            return Err(self.malformed("a directory before its end", found));
        }
        Ok(directory)
    }

    /// Returns the bytes of memory that the directory will take, if they are in proportion.
    fn directory_memory(&self, Directory { entries, size, .. }: Directory) -> Result<u64> {
        let names = size - entries * DIRECTORY_ENTRY as u64;
        let memory = entries * MEMORY_PER_ENTRY + NAME_COPIES * names;
        if memory > 2 * self.size + MEMORY_ALLOWANCE / 2 {
            let found = format!("{entries} entries in {} bytes", self.size);
            return Err(self.malformed("a directory in proportion to the file", found));
        }
        Ok(memory)
    }

    /// Checks every entry of the directory, whose bytes these are, and returns that of the pickle.
    fn find_entry(&self, bytes: &[u8], directory: Directory) -> Result<Entry> {
        let (mut rest, mut names, mut pickle, mut total) = (bytes, BTreeSet::new(), None, 0u64);
        for _ in 0..directory.entries {
            let (name, entry) = self.next_entry(&mut rest)?;
            if !names.insert(name) {
                let found = format!("{} twice", String::from_utf8_lossy(name));
                return Err(self.malformed("files of different names", found));
            }
            // A file of 4 GiB has its length in the extra field; the archive has room for only one.
            total += if entry.len == u64::from(u32::MAX) { 0 } else { entry.len };
            let is_pickle = name == b"data.pkl" || name.ends_with(b"/data.pkl");
            if is_pickle && pickle.replace(entry).is_some() {
                return Err(self.malformed("one data.pkl", "two"));
            }
        }
        if !rest.is_empty() || total > directory.begin {
            let found = format!("{total} bytes before the directory at {}", directory.begin);
            return Err(self.malformed("files side by side", found));
        }
        pickle.ok_or_else(|| self.malformed("a file data.pkl", "none"))
    }

    /// Reads the next entry of the directory, and the name of its file.
    fn next_entry<'b>(&self, rest: &mut &'b [u8]) -> Result<(&'b [u8], Entry)> {
        let Some((entry, after)) =
            rest.split_at_checked(DIRECTORY_ENTRY).filter(|(entry, _)| entry.starts_with(b"PK\x01\x02"))
        else {
            return Err(
                self.malformed("an entry of the directory", format_args!("{} other bytes", rest.len()))
            );
        };
        let [name, extra, comment] = [28, 30, 32].map(|at| usize::from(u16_at(entry, at)));
        let Some((name, after)) =
            after.split_at_checked(name).filter(|(_, after)| after.len() >= extra + comment)
        else {
            return Err(self.malformed("a name", format_args!("{} bytes", after.len())));
        };
        *rest = &after[extra + comment..];
        let (extra, comment) = after[..extra + comment].split_at(extra);
        let zip64 = extra.starts_with(&ZIP64_EXTRA) && extra.len() <= ZIP64_EXTRA_LEN;
        if !comment.is_empty() || !(zip64 || extra.is_empty()) {
            let found = format!("{} bytes", extra.len() + comment.len());
            return Err(self.malformed("a name and nothing more", found));
        }
        // Flags of encryption, the method of compression, and the lengths before and after it.
        let encrypted = u16_at(entry, 8) & 0x2041 != 0;
        if encrypted || u16_at(entry, 10) != 0 || u32_at(entry, 20) != u32_at(entry, 24) {
            let found = format!("{}, compressed or encrypted", String::from_utf8_lossy(name));
            return Err(self.malformed("files as torch.save stores them", found));
        }
        Ok((name, Entry { begin: u32_at(entry, 42).into(), len: u32_at(entry, 24).into() }))
    }
}

impl Directory {
    /// Whether an end record says the same as the zip64 one, in the fields that it has room for.
    fn agrees_with(&self, end: &Directory) -> bool {
        let same = |zip64: u64, short: u64, full: u64| zip64 == short || short == full;
        same(self.entries, end.entries, u16::MAX.into())
            && same(self.size, end.size, u32::MAX.into())
            && same(self.begin, end.begin, u32::MAX.into())
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u64_at(bytes, at) as u16
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u64_at(bytes, at) as u32
}

/// Reads up to eight bytes as a little-endian integer; bytes beyond the end are zero.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.iter().skip(at).take(8).rev().fold(0, |n, &byte| n << 8 | u64::from(byte))
}
