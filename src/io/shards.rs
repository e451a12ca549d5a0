//! Weights in several files, and the index that says which tensor is in which file.

use super::{
    entry::MEMORY_ALLOWANCE,
    kind::{self, FileKind},
    regular_file::open_regular_file,
    weights_file::WeightsFile,
};
use crate::{Error, Result};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{Read, Seek},
    path::{Component, Path},
};

/// The most files that an index may name; all of them are open at once.
const MAX_SHARDS: usize = 512;

/// Bytes of memory that a name of the index takes at most, besides its letters.
const BYTES_PER_ITEM: u64 = 96;

/// The content of an index. Its metadata are not used.
#[derive(Deserialize)]
struct Index {
    /// For each tensor the file that has it.
    weight_map: BTreeMap<String, String>,
}

/// Opens the files that the index at `path` names, which lie in its folder or below. `file` is the
/// index itself, of `size` bytes.
///
/// # Errors
/// [`Error::Malformed`] if the index is not valid, if it names a file outside of its folder or one
/// that is missing, or if a file does not have a tensor that the index says it has; and the errors
/// of [`WeightsFile::open`] for each file.
pub(super) fn open(path: &Path, mut file: File, size: u64) -> Result<WeightsFile> {
    let index = read_index(path, &mut file, size)?;
    let names: BTreeSet<&str> = index.weight_map.values().map(String::as_str).collect();
    if names.len() > MAX_SHARDS {
        let expected = format!("at most {MAX_SHARDS} files");
        return Err(Error::malformed(path, "weight_map", expected, names.len()));
    }
    if let Some(outside) = names.iter().find(|name| !is_inside(name)) {
        return Err(Error::malformed(path, "weight_map", "files in the folder of the index", outside));
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let missing: Vec<&str> = names.iter().copied().filter(|name| !folder.join(name).exists()).collect();
    if !missing.is_empty() {
        let expected = format!("all {} files beside the index", names.len());
        let found = format!("{} of them missing: download {}", missing.len(), missing.join(", "));
        return Err(Error::malformed(path, "weight_map", expected, found));
    }
    let (mut entries, mut total) = (BTreeMap::new(), size);
    for name in names {
        let (mut shard, size) = open_shard(&folder.join(name))?.into_entries();
        total += size;
        for (tensor, _) in index.weight_map.iter().filter(|(_, file)| *file == name) {
            let entry = shard.remove(tensor).ok_or_else(|| {
                let expected = format!("the tensor {tensor}, which {} says it has", path.display());
                Error::malformed(folder.join(name), "tensors", expected, "others")
            })?;
            entries.insert(tensor.clone(), entry);
        }
    }
    Ok(WeightsFile::of_shards(path, total, entries))
}

/// Reads the index, after checking the memory that parsing it takes.
fn read_index(path: &Path, file: &mut File, size: u64) -> Result<Index> {
    let read_error = |error| Error::io(path, "read", error);
    let mut bytes = vec![];
    let len = size as usize;
    bytes.try_reserve_exact(len).map_err(|_| Error::OutOfMemory { bytes: len })?;
    file.rewind().and_then(|()| file.take(size).read_to_end(&mut bytes)).map_err(read_error)?;
    let items = bytes.iter().filter(|byte| b",:[{".contains(byte)).count() as u64;
    let max = (size + MEMORY_ALLOWANCE / 2) / BYTES_PER_ITEM;
    if items > max {
        let expected = format!("at most {max} items, in proportion to the file");
        return Err(Error::malformed(path, "index", expected, items));
    }
    serde_json::from_slice(bytes.trim_ascii_start().strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes))
        .map_err(|error| Error::malformed(path, "index", "a file for each tensor, in `weight_map`", error))
}

/// Whether a file that an index names is in the index's folder or below it.
fn is_inside(name: &str) -> bool {
    let inside = |component| matches!(component, Component::Normal(_));
    !name.is_empty() && !name.contains('\\') && Path::new(name).components().all(inside)
}

/// Opens one of the files, which must not be an index itself.
fn open_shard(path: &Path) -> Result<WeightsFile> {
    let (mut file, size) = open_regular_file(path)?;
    let head = kind::head(path, &mut file)?;
    match FileKind::of(path, &head) {
        FileKind::ShardIndex => Err(FileKind::ShardIndex.error(path, "weights")),
        kind => WeightsFile::open_single(path, file, size, kind, &head),
    }
}
