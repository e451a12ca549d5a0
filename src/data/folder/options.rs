//! How a folder of images is opened.

use super::{
    ImageFolder,
    listing::{Content, Listing},
    names::{Part, natural_order},
};
use crate::{
    Error, Result,
    data::{ImageLimits, Normalize, Preset, image_file::readable_extensions},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Options with which an [`ImageFolder`] is opened.
///
/// ```no_run
/// use skipgrad::data::ImageFolderOptions;
/// // The evaluation of ImageNet networks: resize to 256 pixels, crop 224.
/// let data = ImageFolderOptions::new(224).resize_size(256).strict(true).open("imagenet/val")?;
/// // Digits in gray, with the label 10 for the folder "10".
/// let classes = (0..=10).map(|digit| digit.to_string());
/// let digits = ImageFolderOptions::new(28).channels(1).classes(classes).open("digits")?;
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ImageFolderOptions {
    size: usize,
    resize_size: usize,
    channels: usize,
    classes: Option<Vec<String>>,
    natural_order: bool,
    strict: bool,
    limits: ImageLimits,
    pub(super) train_fraction: f32,
    pub(super) split_seed: u64,
}

impl ImageFolderOptions {
    /// Creates the options for square images of `size` pixels a side in color: the shorter side of
    /// an image is resized to `size` and the center is cropped, as a [`Preset`] does it. Unreadable
    /// images are skipped.
    pub fn new(size: usize) -> ImageFolderOptions {
        ImageFolderOptions {
            size,
            resize_size: size,
            channels: 3,
            classes: None,
            natural_order: false,
            strict: false,
            limits: ImageLimits::new(),
            train_fraction: 0.8,
            split_seed: 0,
        }
    }

    /// Sets the length in pixels to which the shorter side is resized before the center is cropped.
    #[must_use]
    pub fn resize_size(self, resize_size: usize) -> ImageFolderOptions {
        ImageFolderOptions { resize_size, ..self }
    }

    /// Sets the number of channels: 3 for red, green and blue, 1 for gray. Colors become gray as in
    /// torchvision's `Grayscale`, with the luma of ITU-R 601-2; gray becomes three equal channels.
    #[must_use]
    pub fn channels(self, channels: usize) -> ImageFolderOptions {
        ImageFolderOptions { channels, ..self }
    }

    /// Sets the names of the classes, in the order of their labels. There must be a folder for each
    /// of them, and no other. A list of one class is accepted, and so are names that would be
    /// passed over, such as `__other__`.
    ///
    /// Without a list, the classes are the folders in the order of [`ImageFolder`].
    #[must_use]
    pub fn classes(self, classes: impl IntoIterator<Item = impl Into<String>>) -> ImageFolderOptions {
        ImageFolderOptions { classes: Some(classes.into_iter().map(Into::into).collect()), ..self }
    }

    /// Sets whether numbers in the names of classes sort by their value: 0, 1, 2, 10 instead of 0,
    /// 1, 10, 2, which is the order of torchvision and the default.
    #[must_use]
    pub fn natural_order(self, natural_order: bool) -> ImageFolderOptions {
        ImageFolderOptions { natural_order, ..self }
    }

    /// Sets whether an image that cannot be read is an error, instead of being skipped.
    #[must_use]
    pub fn strict(self, strict: bool) -> ImageFolderOptions {
        ImageFolderOptions { strict, ..self }
    }

    /// Sets the size up to which images are read. Larger ones are unreadable.
    #[must_use]
    pub fn limits(self, limits: ImageLimits) -> ImageFolderOptions {
        ImageFolderOptions { limits, ..self }
    }

    /// Sets how [`ImageFolderOptions::open_parts`] splits images that are not in parts: the
    /// fraction of each class that is trained on, in (0, 1), and a seed. The default is 0.8 and 0.
    #[must_use]
    pub fn split(self, train_fraction: f32, split_seed: u64) -> ImageFolderOptions {
        ImageFolderOptions { train_fraction, split_seed, ..self }
    }

    /// Lists the images below `root`, which has a folder for each class.
    ///
    /// # Errors
    /// - [`Error::Io`] if a folder cannot be read.
    /// - [`Error::Malformed`] if there are no folders of classes, or only one; if the folders are
    ///   parts such as `train` and `val`, which [`ImageFolderOptions::open_parts`] opens; if they
    ///   are not those of [`ImageFolderOptions::classes`]; or if a class has no image.
    /// - [`Error::Argument`] if the size is 0 or larger than the size after resizing, the number of
    ///   channels is neither 1 nor 3, or a class is listed twice.
    pub fn open(&self, root: impl AsRef<Path>) -> Result<ImageFolder> {
        let root = root.as_ref();
        let content = Content::read(root)?;
        if self.classes.is_none()
            && let Some(parts) = parts_in(&content)
        {
            let expected = "a folder for each class";
            let found = format!(
                "the parts {}: open them with ImageFolderOptions::open_parts, or the folder of one part, \
                 or name the classes with ImageFolderOptions::classes",
                parts.join(", ")
            );
            return Err(Error::malformed(root, "content", expected, found));
        }
        self.open_classes(root, content)
    }

    /// Lists the images of the classes whose folders are the content of `root`.
    pub(super) fn open_classes(&self, root: &Path, content: Content) -> Result<ImageFolder> {
        let preset = self.preset()?;
        let loose = content.images.clone();
        let folders = self.class_folders(root, content)?;
        let mut listing = Listing::of(root, &folders)?;
        for (label, (_, folder)) in folders.iter().enumerate() {
            if !listing.samples.iter().any(|sample| sample.1 == label) {
                return Err(empty_class(folder, &listing.ignored));
            }
        }
        let in_no_class = |path| (path, "not in the folder of a class".to_string());
        listing.ignored.extend(loose.into_iter().map(in_no_class));
        log_ignored(root, &listing.ignored);
        let classes: Arc<[String]> = folders.into_iter().map(|(name, _)| name).collect();
        Ok(ImageFolder {
            preset: preset.classes(classes.iter()),
            classes,
            samples: listing.samples.into(),
            ignored: listing.ignored.into(),
            strict: self.strict,
            limits: self.limits,
            unreadable: Arc::default(),
            noted: Arc::default(),
        })
    }

    /// Returns whether the list of classes has one of these names.
    pub(super) fn lists(&self, names: &[&str]) -> bool {
        let listed =
            |classes: &Vec<String>| names.iter().any(|name| classes.iter().any(|class| class == name));
        self.classes.as_ref().is_some_and(listed)
    }

    fn preset(&self) -> Result<Preset> {
        if ![1, 3].contains(&self.channels) {
            return Err(Error::argument("image_folder", "channels", "1 or 3", self.channels));
        }
        let identity = Normalize::new(vec![0.0; self.channels], vec![1.0; self.channels]);
        let preset = Preset::new(self.size, identity, [""; 0]).resize_size(self.resize_size);
        preset.check()?;
        Ok(preset)
    }

    /// Returns the name and the folder of each class, in the order of the labels.
    fn class_folders(&self, root: &Path, content: Content) -> Result<Vec<(String, PathBuf)>> {
        if let Some(classes) = &self.classes {
            return listed_folders(root, classes, content);
        }
        let mut folders = content.folders;
        match &folders[..] {
            [] => {
                let found = match content.images.len() {
                    0 => "none".to_string(),
                    images => format!("{images} images directly in it, and no folder"),
                };
                return Err(Error::malformed(root, "content", "a folder for each class", found));
            }
            [(name, folder)] => {
                let mut found = format!("one, {name}");
                if let Ok(within) = Content::read(folder)
                    && within.folders.len() > 1
                {
                    let path = folder.display();
                    found +=
                        &format!(", with folders of its own ({}): open {path}", within.names().join(", "));
                }
                return Err(Error::malformed(root, "content", "at least two folders of classes", found));
            }
            _ => {}
        }
        if self.natural_order {
            folders.sort_by(|(a, _), (b, _)| natural_order(a, b));
        } else if !folders.is_sorted_by(|(a, _), (b, _)| natural_order(a, b).is_le())
            && folders.iter().all(|(name, _)| name.bytes().all(|byte| byte.is_ascii_digit()))
        {
            log::warn!(
                "{}: the classes sort as texts, as in torchvision: {}, ...; see \
                 ImageFolderOptions::natural_order",
                root.display(),
                folders.iter().map(|(name, _)| name.as_str()).take(4).collect::<Vec<_>>().join(", ")
            );
        }
        Ok(folders)
    }
}

/// Returns the names of the folders that are parts of a dataset instead of classes, if all folders
/// are, or if there is a part for training and another one.
pub(super) fn parts_in(content: &Content) -> Option<Vec<&str>> {
    let mut names = content.names();
    let num_folders = names.len();
    names.retain(|name| Part::of(name).is_some());
    let kinds: Vec<Part> = names.iter().filter_map(|name| Part::of(name)).collect();
    let has_two = kinds.contains(&Part::Train) && kinds.iter().any(|kind| *kind != Part::Train);
    (has_two || (!names.is_empty() && names.len() == num_folders)).then_some(names)
}

/// Returns the folders of the classes of a list, if these are all folders there are.
fn listed_folders(root: &Path, classes: &[String], content: Content) -> Result<Vec<(String, PathBuf)>> {
    let listed: BTreeSet<&str> = classes.iter().map(String::as_str).collect();
    if listed.len() < classes.len() || classes.is_empty() {
        let expected = "at least one name, and each once";
        return Err(Error::argument("image_folder", "classes", expected, format!("{classes:?}")));
    }
    let unlisted: Vec<&str> = content.names().into_iter().filter(|name| !listed.contains(name)).collect();
    let mut folders: BTreeMap<String, PathBuf> =
        content.folders.iter().chain(&content.hidden_folders).cloned().collect();
    let missing: Vec<&str> =
        classes.iter().map(String::as_str).filter(|&name| !folders.contains_key(name)).collect();
    if !missing.is_empty() || !unlisted.is_empty() {
        let expected = format!("a folder for each of {}", classes.join(", "));
        return Err(Error::malformed(root, "classes", expected, difference(&missing, &unlisted)));
    }
    let folder = |name: &String| folders.remove(name).map(|path| (name.clone(), path));
    Ok(classes.iter().filter_map(folder).collect())
}

/// Says which classes are missing, and which are there beside those that are expected.
pub(super) fn difference(missing: &[&str], unlisted: &[&str]) -> String {
    let parts = [("no ", missing, " and no "), ("also ", unlisted, ", ")];
    let parts = parts.into_iter().filter(|(_, names, _)| !names.is_empty());
    parts.map(|(word, names, between)| word.to_string() + &names.join(between)).collect::<Vec<_>>().join("; ")
}

/// Builds the error that there is no image in the folder of a class.
fn empty_class(folder: &Path, ignored: &[(PathBuf, String)]) -> Error {
    let expected = format!("an image, {}", readable_extensions());
    let ignored: Vec<_> = ignored.iter().filter(|(path, _)| path.starts_with(folder)).collect();
    let found = match ignored.first() {
        None => "none".to_string(),
        Some((path, reason)) => format!(
            "none of {} files; the first, {}: {reason}",
            ignored.len(),
            path.file_name().unwrap_or_default().display()
        ),
    };
    Error::malformed(folder, "content", expected, found)
}

/// Logs how many files are ignored, and the reasons of most of them.
fn log_ignored(root: &Path, ignored: &[(PathBuf, String)]) {
    if ignored.is_empty() {
        return;
    }
    let mut counts = BTreeMap::<&str, usize>::new();
    for (_, reason) in ignored {
        *counts.entry(reason).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|&(reason, count)| (std::cmp::Reverse(count), reason));
    let reasons: Vec<_> = counts.iter().take(4).map(|(reason, count)| format!("{count}: {reason}")).collect();
    log::warn!("{}: {} files are ignored ({})", root.display(), ignored.len(), reasons.join("; "));
}
