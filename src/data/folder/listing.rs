//! Which files below a root are images of which class.

use super::names::is_hidden;
use crate::{Error, Result, data::image_file::why_not_read};
use std::{
    collections::{HashSet, VecDeque},
    fs::{self, DirEntry},
    path::{Path, PathBuf},
};

/// What a folder has in it, each sorted by name. What is hidden is left out, except for folders,
/// which a list of classes may name.
pub(super) struct Content {
    /// Name and path of each folder.
    pub(super) folders: Vec<(String, PathBuf)>,
    /// Name and path of each hidden folder.
    pub(super) hidden_folders: Vec<(String, PathBuf)>,
    /// Files with the extension of an image that is read.
    pub(super) images: Vec<PathBuf>,
}

impl Content {
    /// # Errors
    /// [`Error::Io`] if the folder cannot be read.
    pub(super) fn read(folder: &Path) -> Result<Content> {
        let mut content = Content { folders: vec![], hidden_folders: vec![], images: vec![] };
        for entry in entries(folder)? {
            let (name, path) = (entry.file_name(), entry.path());
            if path.is_dir() {
                let folders =
                    if is_hidden(&name) { &mut content.hidden_folders } else { &mut content.folders };
                folders.push((name.to_string_lossy().into_owned(), path));
            } else if !is_hidden(&name) && why_not_read(&path).is_none() {
                content.images.push(path);
            }
        }
        Ok(content)
    }

    /// Returns the names of the folders.
    pub(super) fn names(&self) -> Vec<&str> {
        self.folders.iter().map(|(name, _)| name.as_str()).collect()
    }
}

/// Returns the entries of a folder, sorted by name.
fn entries(folder: &Path) -> Result<Vec<DirEntry>> {
    let read_error = |error| Error::io(folder, "read", error);
    let entries = fs::read_dir(folder).map_err(read_error)?;
    let mut entries = entries.collect::<Result<Vec<_>, _>>().map_err(read_error)?;
    entries.sort_by_key(DirEntry::file_name);
    Ok(entries)
}

/// The files in the folders of some classes, at any depth. Every file is listed once, even if links
/// lead to it.
#[derive(Default)]
pub(super) struct Listing {
    /// Path and label of each image, sorted by label, folder and name.
    pub(super) samples: Vec<(PathBuf, usize)>,
    /// Path of each file that is not read, and why it is not.
    pub(super) ignored: Vec<(PathBuf, String)>,
    /// Links that are not followed yet, with the label of their class.
    links: VecDeque<(usize, PathBuf)>,
    /// The folders that were searched.
    searched: Vec<PathBuf>,
}

impl Listing {
    /// Lists the images of these folders in the root, one for each class.
    ///
    /// # Errors
    /// [`Error::Io`] if a folder cannot be read.
    pub(super) fn of(root: &Path, folders: &[(String, PathBuf)]) -> Result<Listing> {
        let mut listing = Listing::default();
        for (label, (_, folder)) in folders.iter().enumerate() {
            if folder.is_symlink() {
                listing.links.push_back((label, folder.clone()));
            } else {
                listing.search(label, folder.clone())?;
            }
        }
        // What is reached without a link has precedence, so links come last.
        if !listing.links.is_empty() {
            listing.follow_links(root)?;
        }
        listing.samples.sort_by(|(a, label_a), (b, label_b)| {
            (label_a, a.parent(), a.file_name()).cmp(&(label_b, b.parent(), b.file_name()))
        });
        listing.ignored.sort();
        Ok(listing)
    }

    /// Lists what is below a folder, without following links.
    fn search(&mut self, label: usize, folder: PathBuf) -> Result<()> {
        let mut folders = vec![folder];
        while let Some(folder) = folders.pop() {
            for entry in entries(&folder)?.into_iter().filter(|entry| !is_hidden(&entry.file_name())) {
                let (path, kind) = (entry.path(), entry.file_type());
                let kind = kind.map_err(|error| Error::io(&path, "read", error))?;
                if kind.is_symlink() {
                    self.links.push_back((label, path));
                } else if kind.is_dir() {
                    folders.push(path);
                } else if kind.is_file() {
                    self.add(label, path);
                } else {
                    self.ignored.push((path, "not a regular file".to_string()));
                }
            }
            self.searched.push(folder);
        }
        Ok(())
    }

    /// Lists one file.
    fn add(&mut self, label: usize, path: PathBuf) {
        match why_not_read(&path) {
            None => self.samples.push((path, label)),
            Some(reason) => self.ignored.push((path, reason)),
        }
    }

    /// Lists what the links lead to, and the links in that.
    fn follow_links(&mut self, root: &Path) -> Result<()> {
        let mut seen = self.seen(root)?;
        while let Some((label, link)) = self.links.pop_front() {
            let Ok(target) = fs::canonicalize(&link) else {
                self.ignored.push((link, "a link that leads nowhere".to_string()));
                continue;
            };
            if target.is_dir() {
                self.search_linked(label, link, target, &mut seen)?;
            } else if seen.files.insert(target) {
                self.add(label, link);
            } else {
                self.ignored.push((link, ALREADY.to_string()));
            }
        }
        Ok(())
    }

    /// Returns what was reached without a link.
    fn seen(&self, root: &Path) -> Result<Listed> {
        let canonical = fs::canonicalize(root).map_err(|error| Error::io(root, "read", error))?;
        let in_canonical = |path: &PathBuf| path.strip_prefix(root).map(|rest| canonical.join(rest)).ok();
        let files = self.samples.iter().filter_map(|(path, _)| in_canonical(path)).collect();
        let mut folders: HashSet<PathBuf> = self.searched.iter().filter_map(in_canonical).collect();
        // A link to the root or to a folder above it leads back to itself.
        folders.extend(canonical.ancestors().map(Path::to_path_buf));
        Ok(Listed { files, folders })
    }

    /// Lists what is below a folder that a link led to. `target` is the path of the folder without
    /// links.
    fn search_linked(
        &mut self,
        label: usize,
        folder: PathBuf,
        target: PathBuf,
        seen: &mut Listed,
    ) -> Result<()> {
        let mut folders = vec![(folder, target)];
        while let Some((folder, target)) = folders.pop() {
            if !seen.folders.insert(target.clone()) {
                self.ignored.push((folder, ALREADY.to_string()));
                continue;
            }
            for entry in entries(&folder)?.into_iter().filter(|entry| !is_hidden(&entry.file_name())) {
                let (path, target) = (entry.path(), target.join(entry.file_name()));
                if path.is_symlink() {
                    self.links.push_back((label, path));
                } else if path.is_dir() {
                    folders.push((path, target));
                } else if seen.files.insert(target) {
                    self.add(label, path);
                } else {
                    self.ignored.push((path, ALREADY.to_string()));
                }
            }
        }
        Ok(())
    }
}

/// Why a link is ignored that leads to what is listed anyway.
const ALREADY: &str = "listed already, under another path";

/// The paths without links of what is listed.
struct Listed {
    files: HashSet<PathBuf>,
    folders: HashSet<PathBuf>,
}
