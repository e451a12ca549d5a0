//! The zip archive in which `torch.save` stores a pickle and the storages. It has no file twice,
//! none in another, and nothing after the end record; others are errors. PyTorch compresses
//! nothing, but its archives may be packed again, by deflate.

use crate::{
    Error, Result,
    io::{FileKind, entry::MEMORY_ALLOWANCE},
};
use flate2::{Crc, bufread::DeflateDecoder};
use std::{
    collections::{BTreeMap, btree_map},
    fmt::Display,
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
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

/// Bytes of memory that an entry of the directory takes at most, besides its name.
const MEMORY_PER_ENTRY: u64 = 360;

/// Copies of each name in memory, and their growth when they are not UTF-8.
const NAME_COPIES: u64 = 3;

/// The ids of extra fields that are passed over: times and owners of files, which `zip` stores.
const IGNORED_EXTRAS: [u16; 3] = [0x5455, 0x7855, 0x7875];

/// The id of the extra field with the lengths of a file of 4 GiB.
const ZIP64_EXTRA: u16 = 1;

/// The flags of encryption.
const ENCRYPTED: u16 = 0x2041;

/// The methods of compression that are read.
const STORED: u16 = 0;
const DEFLATED: u16 = 8;

/// What an archive has for a file of weights.
pub(super) struct Contents {
    pub(super) pickle: Entry,
    /// The storages, by their keys.
    pub(super) storages: BTreeMap<Box<str>, Entry>,
    /// The text that says the order of bytes, if there is one.
    pub(super) byte_order: Option<Entry>,
    /// Bytes of memory that the directory takes at most.
    pub(super) memory: u64,
}

/// The place of a file in an archive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Where its local header begins.
    header: u64,
    /// Bytes in the archive, and after unpacking.
    packed: u64,
    pub(super) len: u64,
    deflated: bool,
    checksum: u32,
}

/// Reads the directory of an archive.
///
/// # Errors
/// [`Error::Malformed`] if the file is cut short, or is not an archive as `torch.save` writes, or
/// is a TorchScript program; [`Error::Io`].
pub(super) fn read(path: &Path, file: &mut File, size: u64) -> Result<Contents> {
    let mut archive = Archive { path, file, size };
    let directory = archive.directory()?;
    let memory = archive.directory_memory(directory)?;
    let bytes = archive.read(directory.begin, directory.size as usize)?;
    let entries = archive.entries(&bytes, directory)?;
    let mut pickles = entries.iter().filter(|(name, _)| *name == b"data.pkl" || name.ends_with(b"/data.pkl"));
    let (root, pickle) = match (pickles.next(), pickles.next()) {
        (Some((name, entry)), None) => (&name[..name.len() - b"data.pkl".len()], *entry),
        (None, _) => {
            return Err(archive.malformed("a file data.pkl", format_args!("none: {}", FileKind::Zip)));
        }
        (Some(_), Some(_)) => return Err(archive.malformed("one data.pkl", "two")),
    };
    let beside = |name: &[u8]| entries.get(&[root, name].concat()[..]).copied();
    if beside(b"constants.pkl").is_some() {
        return Err(FileKind::TorchScript.error(path, "weights that torch.save wrote"));
    }
    let folder = [root, b"data/"].concat();
    let storages = entries.iter().filter_map(|(name, entry)| {
        let key = std::str::from_utf8(name.strip_prefix(&folder[..])?).ok()?;
        Some((key.into(), *entry))
    });
    Ok(Contents { pickle, storages: storages.collect(), byte_order: beside(b"byteorder"), memory })
}

impl Entry {
    /// Opens the unpacked file, at its beginning; it may have other bytes after its end.
    pub(super) fn open<'f>(&self, file: &'f mut File) -> io::Result<Box<dyn BufRead + 'f>> {
        let mut header = [0; LOCAL_HEADER as usize];
        file.seek(SeekFrom::Start(self.header))?;
        file.read_exact(&mut header)?;
        if !header.starts_with(b"PK\x03\x04") {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no file where the directory says"));
        }
        let after = u64::from(u16_at(&header, 26)) + u64::from(u16_at(&header, 28));
        file.seek(SeekFrom::Current(after as i64))?;
        let packed = BufReader::new(file.take(self.packed));
        Ok(if self.deflated {
            Box::new(BufReader::new(DeflateDecoder::new(packed)))
        } else {
            Box::new(packed)
        })
    }

    /// Reads `len` bytes from `begin` on. If that is the whole file, its checksum is compared.
    pub(super) fn read(&self, file: &mut File, begin: u64, len: u64) -> io::Result<Vec<u8>> {
        let bytes = self.unpack(file, begin, len).map_err(|error| match error.raw_os_error() {
            Some(_) => error,
            // What the decoder says is about the file, whatever kind it gives it.
            None => io::Error::new(io::ErrorKind::InvalidData, error.to_string()),
        })?;
        if len == self.len {
            let mut checksum = Crc::new();
            checksum.update(&bytes);
            self.check(checksum.sum())?;
        }
        Ok(bytes)
    }

    fn unpack(&self, file: &mut File, begin: u64, len: u64) -> io::Result<Vec<u8>> {
        let mut unpacked = self.open(file)?;
        io::copy(&mut (&mut unpacked).take(begin), &mut io::sink())?;
        let mut bytes = Vec::with_capacity(len as usize);
        unpacked.take(len).read_to_end(&mut bytes)?;
        if (bytes.len() as u64) < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(bytes)
    }

    /// Compares the checksum of the whole file. PyTorch writes none on request, which is a 0.
    pub(super) fn check(&self, checksum: u32) -> io::Result<()> {
        if self.checksum != 0 && self.checksum != checksum {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "another checksum"));
        }
        Ok(())
    }
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
            let found = match self.has_end_record()? {
                true => "more after it: the archive was changed",
                false => "another end: the file is cut short, download it again",
            };
            return Err(self.malformed("the record that ends it", found));
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

    /// Whether the whole record that ends an archive is somewhere near the end of the file.
    fn has_end_record(&mut self) -> Result<bool> {
        /// The longest comment after the record.
        const COMMENT: u64 = 1 << 16;
        let len = self.size.min(END + COMMENT);
        let bytes = self.read(self.size - len, len as usize)?;
        Ok(bytes.windows(END as usize).any(|record| record.starts_with(b"PK\x05\x06")))
    }

    /// Returns the entries of the directory, whose bytes these are, by the names of the files.
    fn entries<'b>(&self, bytes: &'b [u8], directory: Directory) -> Result<BTreeMap<&'b [u8], Entry>> {
        let (mut rest, mut entries, mut total) = (bytes, BTreeMap::new(), 0u64);
        for _ in 0..directory.entries {
            let (name, entry) = self.next_entry(&mut rest)?;
            total = total.saturating_add(entry.packed);
            if entry.header.saturating_add(LOCAL_HEADER + entry.packed) > directory.begin {
                let found = format!("{} bytes at {}", entry.packed, entry.header);
                return Err(self.malformed("files before the directory", found));
            }
            match entries.entry(name) {
                btree_map::Entry::Occupied(_) => {
                    let found = format!("{} twice", String::from_utf8_lossy(name));
                    return Err(self.malformed("files of different names", found));
                }
                btree_map::Entry::Vacant(place) => drop(place.insert(entry)),
            }
        }
        if !rest.is_empty() || total > directory.begin {
            let found = format!("{total} bytes before the directory at {}", directory.begin);
            return Err(self.malformed("files side by side", found));
        }
        Ok(entries)
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
        let extras = &after[..extra];
        let mut lengths = [24, 20, 42].map(|at| u64::from(u32_at(entry, at)));
        if comment > 0 || !read_extras(extras, &mut lengths) {
            let found = format!("{} bytes", extra + comment);
            return Err(self.malformed("a name and nothing more", found));
        }
        let [len, packed, header] = lengths;
        let (flags, method) = (u16_at(entry, 8), u16_at(entry, 10));
        let supported = flags & ENCRYPTED == 0 && matches!(method, STORED | DEFLATED);
        if !supported || (method == STORED && len != packed) {
            let found = format!("{}, compressed or encrypted", String::from_utf8_lossy(name));
            return Err(self.malformed("files that are stored or deflated", found));
        }
        let most = 2 * self.size + MEMORY_ALLOWANCE;
        if len > most {
            let found = format!("{} of {len} bytes after unpacking", String::from_utf8_lossy(name));
            return Err(self.malformed("files in proportion to the archive", found));
        }
        let deflated = method == DEFLATED;
        Ok((name, Entry { header, packed, len, deflated, checksum: u32_at(entry, 16) }))
    }
}

/// Reads the extra fields of an entry, and from them the lengths (unpacked, packed, place of the
/// header) that are too large for the entry. Returns whether the fields are known.
fn read_extras(mut extras: &[u8], lengths: &mut [u64; 3]) -> bool {
    while let [id_low, id_high, len_low, len_high, rest @ ..] = extras {
        let id = u16::from_le_bytes([*id_low, *id_high]);
        let len = usize::from(u16::from_le_bytes([*len_low, *len_high]));
        let Some((mut field, rest)) = rest.split_at_checked(len) else { return false };
        extras = rest;
        if IGNORED_EXTRAS.contains(&id) {
            continue;
        }
        if id != ZIP64_EXTRA {
            return false;
        }
        for length in lengths.iter_mut().filter(|length| **length == u64::from(u32::MAX)) {
            let Some((value, rest)) = field.split_first_chunk() else { return false };
            (*length, field) = (u64::from_le_bytes(*value), rest);
        }
    }
    extras.is_empty()
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
