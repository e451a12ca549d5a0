//! Folders of images that are in parts for training and for testing.

use super::{
    ImageFolder, ImageFolderOptions,
    listing::Content,
    names::Part,
    options::{difference, parts_in},
};
use crate::{Error, Result, Rng};
use std::path::{Path, PathBuf};

/// The parts of a dataset, which [`ImageFolderOptions::open_parts`] opens. All have the same
/// classes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ImageFolderParts {
    /// The images to train on.
    pub train: ImageFolder,
    /// The images to choose among trained networks by, if there is a part for validation.
    pub validation: Option<ImageFolder>,
    /// The images to evaluate with in the end, if there is a part for testing or the images were
    /// split.
    pub test: Option<ImageFolder>,
    /// Whether the images were split into [`train`](Self::train) and [`test`](Self::test), since no
    /// other images were there to evaluate with.
    pub is_split: bool,
    /// The images of a part for testing that are in no folders of classes, as those of
    /// competitions. They are for prediction; no part has them.
    pub unlabeled: Vec<PathBuf>,
    /// What was found and how it was taken, a sentence each, for a person to read.
    pub notes: Vec<String>,
}

impl ImageFolderParts {
    /// Returns the images to evaluate with during a training: those for validation, or else those
    /// for testing.
    pub fn evaluation(&self) -> &ImageFolder {
        // One of them is there, for else the images were split.
        self.validation.as_ref().or(self.test.as_ref()).unwrap_or(&self.train)
    }
}

impl ImageFolderOptions {
    /// Opens the parts of a dataset below `root`, each of which has a folder for each class.
    ///
    /// The parts have one of their usual names, in any case: `train` or `training`; `val`, `valid`,
    /// `validation` or `dev`; `test`, `testing` or `eval`; also with an ending, as in `train_set`.
    /// If there is no part to evaluate with, or if the folders in `root` are classes instead of
    /// parts, the images are split at random ([`ImageFolderOptions::split`]). If the images of a
    /// part for testing are not in folders of classes, they are listed as unlabeled. All this is
    /// logged, and [`ImageFolderParts::notes`] says it.
    ///
    /// # Errors
    /// The errors of [`ImageFolderOptions::open`] for each part; [`Error::Malformed`] if there is
    /// no part for training but another one, if there are two for one purpose, or if a part has
    /// other classes than the part for training; and [`Error::Argument`] if the images are to be
    /// split and the fraction leaves nothing to evaluate with.
    ///
    /// ```
    /// use skipgrad::data::ImageFolderOptions;
    /// # let root = std::env::temp_dir().join(format!("skipgrad-parts-{}", std::process::id()));
    /// # for (part, class) in
    /// #     [("Train", "cat"), ("Train", "dog"), ("validation", "cat"), ("validation", "dog")]
    /// # {
    /// #     std::fs::create_dir_all(root.join(part).join(class)).unwrap();
    /// #     std::fs::write(root.join(part).join(class).join("0.png"), "").unwrap();
    /// # }
    /// // root/Train/cat/0.png, root/Train/dog/0.png, root/validation/cat/0.png, ...
    /// let parts = ImageFolderOptions::new(32).open_parts(&root)?;
    /// assert_eq!(parts.train.classes(), ["cat", "dog"]);
    /// assert_eq!((parts.evaluation().samples().len(), parts.is_split), (2, false));
    ///
    /// // root/Train has no parts, but classes: it is split, and 0.5 of each class trained on.
    /// # for class in ["cat", "dog"] {
    /// #     std::fs::write(root.join("Train").join(class).join("1.png"), "").unwrap();
    /// # }
    /// let parts = ImageFolderOptions::new(32).split(0.5, 0).open_parts(root.join("Train"))?;
    /// assert_eq!((parts.train.samples().len(), parts.is_split), (2, true));
    /// # std::fs::remove_dir_all(&root).unwrap();
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn open_parts(&self, root: impl AsRef<Path>) -> Result<ImageFolderParts> {
        let root = root.as_ref();
        let content = Content::read(root)?;
        let mut notes = vec![];
        let parts = match Folders::of(self, root, &content)? {
            None => self.split_parts(self.open_classes(root, content)?, &mut notes)?,
            Some(folders) => self.open_folders(root, folders, &mut notes)?,
        };
        notes.iter().for_each(|note| log::info!("{}: {note}", root.display()));
        Ok(ImageFolderParts { notes, ..parts })
    }

    fn open_folders(
        &self,
        root: &Path,
        folders: Folders,
        notes: &mut Vec<String>,
    ) -> Result<ImageFolderParts> {
        let content = Content::read(&folders.train)?;
        let train = self.open_classes(&folders.train, content)?;
        let mut unlabeled = vec![];
        let mut open = |folder: &Option<PathBuf>| match folder {
            Some(folder) => self.open_like(&train, &folders.train, folder, &mut unlabeled),
            None => Ok(None),
        };
        let (validation, test) = (open(&folders.validation)?, open(&folders.test)?);
        let counts =
            [("training", Some(&train)), ("validation", validation.as_ref()), ("testing", test.as_ref())];
        for (purpose, part) in counts {
            notes.extend(part.map(|part| format!("{} images for {purpose}", part.samples().len())));
        }
        if !folders.others.is_empty() {
            notes.push(format!("not a part, and ignored: {}", folders.others.join(", ")));
        }
        if let Some(first) = unlabeled.first() {
            let folder = first.parent().unwrap_or(root).display();
            let count = unlabeled.len();
            notes
                .push(format!("{count} images in no folder of a class are unlabeled, the first in {folder}"));
        }
        let parts = if validation.is_none() && test.is_none() {
            self.split_parts(train, notes)?
        } else {
            ImageFolderParts { train, validation, test, is_split: false, unlabeled: vec![], notes: vec![] }
        };
        Ok(ImageFolderParts { unlabeled, ..parts })
    }

    /// Opens a part with the classes of the part for training. Returns `None` if its images are not
    /// in folders of classes, and adds them to `unlabeled`.
    fn open_like(
        &self,
        train: &ImageFolder,
        train_folder: &Path,
        folder: &Path,
        unlabeled: &mut Vec<PathBuf>,
    ) -> Result<Option<ImageFolder>> {
        let content = Content::read(folder)?;
        let names = content.names();
        let known = |name: &str| train.classes().iter().any(|class| class == name);
        match names[..] {
            [] if !content.images.is_empty() => {
                unlabeled.extend(content.images);
                return Ok(None);
            }
            // Readers that want a folder for each class are given one.
            [name] if !known(name) => {
                let within = Content::read(&content.folders[0].1)?;
                if within.folders.is_empty() && !within.images.is_empty() {
                    unlabeled.extend(within.images);
                    return Ok(None);
                }
            }
            _ => {}
        }
        let classes = train.classes();
        let hidden = |class: &str| content.hidden_folders.iter().any(|(name, _)| name == class);
        let is_missing = |class: &&str| !names.contains(class) && !hidden(class);
        let missing: Vec<&str> = classes.iter().map(String::as_str).filter(is_missing).collect();
        let others: Vec<&str> = names.iter().copied().filter(|name| !known(name)).collect();
        if !missing.is_empty() || !others.is_empty() {
            let expected = format!("those of {}: {}", train_folder.display(), classes.join(", "));
            return Err(Error::malformed(folder, "classes", expected, difference(&missing, &others)));
        }
        self.clone().classes(classes).open_classes(folder, content).map(Some)
    }

    /// Splits images into those to train on and those to evaluate with.
    fn split_parts(&self, images: ImageFolder, notes: &mut Vec<String>) -> Result<ImageFolderParts> {
        let (train, test) = images.split(self.train_fraction, Rng::seed(self.split_seed))?;
        if train.samples().is_empty() || test.samples().is_empty() {
            let expected = format!(
                "a fraction that leaves images to train on and to evaluate with, of {} images in {} classes",
                images.samples().len(),
                images.classes().len()
            );
            return Err(Error::argument("image_folder", "split", expected, self.train_fraction));
        }
        notes.push(format!(
            "no part to evaluate with: the images were split into {} for training and {} for testing",
            train.samples().len(),
            test.samples().len()
        ));
        Ok(ImageFolderParts {
            train,
            validation: None,
            test: Some(test),
            is_split: true,
            unlabeled: vec![],
            notes: vec![],
        })
    }
}

/// The folders of the parts in a root.
struct Folders {
    train: PathBuf,
    validation: Option<PathBuf>,
    test: Option<PathBuf>,
    /// Names of folders that are no parts.
    others: Vec<String>,
}

impl Folders {
    /// Returns `None` if the folders in the root are classes.
    fn of(options: &ImageFolderOptions, root: &Path, content: &Content) -> Result<Option<Folders>> {
        let Some(names) = parts_in(content).filter(|names| !options.lists(names)) else { return Ok(None) };
        let one = |part: Part| {
            let mut of_part = content.folders.iter().filter(|(name, _)| Part::of(name) == Some(part));
            match (of_part.next(), of_part.next()) {
                (Some((a, _)), Some((b, _))) => {
                    let found = format!("{a} and {b}");
                    Err(Error::malformed(root, "content", "one folder for each part", found))
                }
                (first, _) => Ok(first.map(|(_, path)| path.clone())),
            }
        };
        let Some(train) = one(Part::Train)? else {
            let found = format!("{} only", names.join(", "));
            return Err(Error::malformed(root, "content", "a part for training, such as train", found));
        };
        let others = content.names().into_iter().filter(|name| Part::of(name).is_none());
        Ok(Some(Folders {
            train,
            validation: one(Part::Validation)?,
            test: one(Part::Test)?,
            others: others.map(String::from).collect(),
        }))
    }
}
