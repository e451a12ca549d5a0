//! Images in folders, one folder for each class.

mod listing;
mod names;
mod options;
mod parts;
mod split;

pub use options::ImageFolderOptions;
pub use parts::ImageFolderParts;

use super::{
    Dataset, ImageLimits, Preset, Transform as _,
    dataset::{check_box, check_read},
    image_file::resize_image_box,
};
use crate::{Error, Result, Rng};
use image::DynamicImage;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Image files on disk, `root/class/image.jpg`, as torchvision's `ImageFolder` finds them.
///
/// The folders in the root are the classes, at least two, and the files in the folder of a class,
/// at any depth, are its images:
///
/// - **Classes are sorted by name as texts**, as in torchvision, whose weights depend on it: the
///   labels of folders `0` to `11` are those of the order 0, 1, 10, 11, 2, ...
///   [`ImageFolderOptions::natural_order`] sorts numbers by their value, and
///   [`ImageFolderOptions::classes`] gives any order.
/// - **Images are the files with the extension of a format that is read**, in any case: `.png`,
///   `.jpg`, `.jpeg`, `.jpe` and `.jfif`, and with the features `webp`, `bmp`, `gif` and `tiff`
///   those of these formats. [`ImageFolder::ignored_files`] lists the other files. The content of a
///   file decides how it is read.
/// - **What systems and programs leave is passed over**: names that begin with `.` or `__`, and
///   names such as `Thumbs.db`, `desktop.ini`, `@eaDir` and `lost+found`.
/// - **Links are followed**, and every file is listed once.
/// - **Parts** such as `train` and `val` are no classes: [`ImageFolderOptions::open_parts`] opens
///   them.
/// - **The center of an image is read**, after its shorter side was resized, as a [`Preset`] does
///   it. A [`RandomResizedCrop`](super::RandomResizedCrop) that is the first transform of a loader
///   crops the image in its own size instead.
///
/// An image is decoded when it is read, which a [`Loader`](super::Loader) does on its worker
/// threads. An image that cannot be read is skipped: its batch is smaller, a warning is logged, and
/// [`ImageFolder::unreadable`] lists it. It is an error if no image of an epoch can be read, or if
/// the folder was opened with [`ImageFolderOptions::strict`]. Clones and splits share the list.
///
/// ```
/// use skipgrad::data::{ImageFolder, Loader};
/// # let root = std::env::temp_dir().join(format!("skipgrad-folder-{}", std::process::id()));
/// # for (class, i) in [("dog", 0), ("cat", 0), ("cat", 1), ("cat", 2)] {
/// #     std::fs::create_dir_all(root.join(class)).unwrap();
/// #     image::RgbImage::new(50, 40).save(root.join(class).join(format!("{i}.png"))).unwrap();
/// # }
/// # std::fs::write(root.join("dog/1.png"), "not an image").unwrap();
/// let data = ImageFolder::open(&root, 32)?; // root/cat/0.png, root/dog/0.png, ...
/// assert_eq!(data.classes(), ["cat", "dog"]);
/// let batch = Loader::new(data.clone(), 8).epoch(0)?.next().unwrap()?;
/// assert_eq!(batch.images.shape(), [4, 32, 32, 3]);
/// assert_eq!(batch.labels, [0, 0, 0, 1]);
/// assert!(data.unreadable()[0].0.ends_with("dog/1.png"));
/// # std::fs::remove_dir_all(&root).unwrap();
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone)]
pub struct ImageFolder {
    classes: Arc<[String]>,
    /// Path and label of each image.
    samples: Arc<[(PathBuf, usize)]>,
    /// Path of each file that is not read, and why it is not.
    ignored: Arc<[(PathBuf, String)]>,
    preset: Preset,
    strict: bool,
    limits: ImageLimits,
    /// Path of each unreadable image, with its error.
    unreadable: Arc<Mutex<BTreeMap<PathBuf, String>>>,
    /// Paths of images that can be read although something is wrong with them, which was logged.
    noted: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl ImageFolder {
    /// Lists the images below `root`, which are read as `[size, size, 3]` with values in [0, 1].
    ///
    /// This is `ImageFolderOptions::new(size).open(root)`.
    ///
    /// # Errors
    /// The errors of [`ImageFolderOptions::open`].
    pub fn open(root: impl AsRef<Path>, size: usize) -> Result<ImageFolder> {
        ImageFolderOptions::new(size).open(root)
    }

    /// Returns the names of the classes, which are those of their folders; a label is an index into
    /// them.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Returns the path and the label of each image, in the order of their indices.
    pub fn samples(&self) -> &[(PathBuf, usize)] {
        &self.samples
    }

    /// Returns the path of each file in the folders of the classes that is not read, and why it is
    /// not: it has no extension of an image, a format that no enabled feature reads, or is listed
    /// already under another path. Files that systems and programs leave are not among them.
    pub fn ignored_files(&self) -> &[(PathBuf, String)] {
        &self.ignored
    }

    /// Splits the images at random into a training and a test set. The first gets this fraction of
    /// the images of each class (a stratified split), rounded, a half up: 9 of 10 images are 0.9 of
    /// them. It gets at least one image of each class if the fraction is above 0. A class with few
    /// images may have none in the second set, which is logged.
    ///
    /// # Errors
    /// [`Error::Argument`] if the fraction is not in [0, 1].
    ///
    /// ```
    /// use skipgrad::{Rng, data::ImageFolder};
    /// # let root = std::env::temp_dir().join(format!("skipgrad-split-{}", std::process::id()));
    /// # for (class, count) in [("cat", 8), ("dog", 4)] {
    /// #     std::fs::create_dir_all(root.join(class)).unwrap();
    /// #     for i in 0..count {
    /// #         std::fs::write(root.join(class).join(format!("{i}.png")), "").unwrap();
    /// #     }
    /// # }
    /// let data = ImageFolder::open(&root, 32)?; // 8 cats, 4 dogs
    /// let (train, test) = data.split(0.75, Rng::seed(0))?;
    /// assert_eq!((train.samples().len(), test.samples().len()), (9, 3));
    /// # std::fs::remove_dir_all(&root).unwrap();
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn split(&self, fraction: f32, mut rng: Rng) -> Result<(ImageFolder, ImageFolder)> {
        if !(0.0..=1.0).contains(&fraction) {
            return Err(Error::argument("split", "fraction", "a number in [0, 1]", fraction));
        }
        let (mut first, mut second) = (vec![], vec![]);
        for class in self.samples.chunk_by(|a, b| a.1 == b.1) {
            let mut order: Vec<usize> = (0..class.len()).collect();
            rng.shuffle(&mut order);
            let (head, tail) = order.split_at_mut(split::count(class.len(), fraction));
            if tail.is_empty() && fraction < 1.0 {
                log::warn!("split: no image of the class {} is left to test with", self.classes[class[0].1]);
            }
            for (indices, samples) in [(head, &mut first), (tail, &mut second)] {
                indices.sort_unstable();
                samples.extend(indices.iter().map(|&i| class[i].clone()));
            }
        }
        let with_samples = |samples: Vec<_>| ImageFolder { samples: samples.into(), ..self.clone() };
        Ok((with_samples(first), with_samples(second)))
    }

    /// Returns the images that could not be read so far and the error of each, for all clones and
    /// splits together.
    pub fn unreadable(&self) -> Vec<(PathBuf, String)> {
        let unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        unreadable.iter().map(|(path, error)| (path.clone(), error.clone())).collect()
    }

    /// Logs what is wrong with an image that can be read nevertheless, once for each image.
    fn record_note(&self, path: &Path, note: &str) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.insert(path.to_path_buf()) {
            log::warn!("{}: {note}", path.display());
        }
    }

    /// Decodes an image for [`Dataset::read`], and returns its label too.
    fn decode(&self, index: usize, pixels: &[f32]) -> Result<(DynamicImage, usize)> {
        check_read(self.samples.len(), self.preset.shape(), index, pixels)?;
        let (path, label) = &self.samples[index];
        let image = self.limits.open_noting(path, &mut |note| self.record_note(path, &note));
        let image = image.inspect_err(|error| self.record_unreadable(path, error.to_string()))?;
        if image.width() == 0 || image.height() == 0 {
            return Err(Error::malformed(path, "image", "at least one pixel", "none"));
        }
        Ok((image, *label))
    }

    /// Adds an image to the list of unreadable ones and logs it, once for each image.
    fn record_unreadable(&self, path: &Path, error: String) {
        let mut unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        if !unreadable.contains_key(path) {
            log::warn!("unreadable image: {error}");
            unreadable.insert(path.to_path_buf(), error);
        }
    }
}

impl Dataset for ImageFolder {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn classes(&self) -> &[String] {
        self.classes()
    }

    fn image_shape(&self) -> [usize; 3] {
        self.preset.shape()
    }

    fn read(&self, index: usize, pixels: &mut [f32]) -> Result<usize> {
        let (image, label) = self.decode(index, pixels)?;
        pixels.copy_from_slice(self.preset.apply_image(&image)?.data());
        Ok(label)
    }

    fn read_crop(
        &self,
        index: usize,
        pixels: &mut [f32],
        choose: &mut dyn FnMut([usize; 2]) -> [Range<usize>; 2],
    ) -> Result<usize> {
        let (image, label) = self.decode(index, pixels)?;
        let (shape, size) = (self.preset.shape(), [image.height() as usize, image.width() as usize]);
        let source = choose(size);
        check_box(&source, size)?;
        resize_image_box(&image, source, shape, pixels)?;
        self.preset.normalize.apply(pixels, shape, &mut Rng::seed(0));
        Ok(label)
    }

    fn unreadable(&self) -> Vec<(PathBuf, String)> {
        self.unreadable()
    }

    fn should_skip(&self, error: &Error) -> bool {
        !self.strict && matches!(error, Error::Malformed { .. } | Error::Io { .. })
    }
}

impl fmt::Debug for ImageFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [h, w, c] = self.preset.shape();
        let (images, classes) = (self.samples.len(), self.classes.len());
        write!(f, "ImageFolder({images} images in {classes} classes, read as {h} x {w} x {c})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Loader, Normalize};
    use image::{Rgb, RgbImage};
    use std::fs;
    use tempfile::TempDir;

    /// The root of an image folder.
    struct Root(TempDir);

    impl Root {
        fn new() -> Root {
            Root(TempDir::new().unwrap())
        }

        fn path(&self) -> &Path {
            self.0.path()
        }

        fn image(&self, path: &str, gray: u8) {
            let path = self.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            RgbImage::from_pixel(12, 9, Rgb([gray; 3])).save(path).unwrap();
        }

        fn file(&self, path: &str) {
            fs::write(self.path().join(path), "not an image").unwrap();
        }
    }

    fn found(data: &ImageFolder, root: &Root) -> Vec<(String, usize)> {
        let short = |path: &PathBuf| path.strip_prefix(root.path()).unwrap().display().to_string();
        data.samples().iter().map(|(path, class)| (short(path), *class)).collect()
    }

    #[test]
    fn classes_and_images_are_sorted() {
        let root = Root::new();
        for path in ["b/2.PNG", "b/10.jpeg", "b/deep/er/0.jpg", "a b/x.png", "C/x.png"] {
            root.image(path, 0);
        }
        root.file("b/notes.txt");
        root.file("readme.png");
        let data = ImageFolder::open(root.path(), 8).unwrap();
        assert_eq!(data.classes(), ["C", "a b", "b"]);
        let expected =
            [("C/x.png", 0), ("a b/x.png", 1), ("b/10.jpeg", 2), ("b/2.PNG", 2), ("b/deep/er/0.jpg", 2)];
        assert_eq!(found(&data, &root), expected.map(|(path, class)| (path.to_string(), class)));
    }

    #[test]
    fn pixels_are_in_0_to_1() {
        let root = Root::new();
        root.image("a/0.png", 51);
        let mut pixels = [0.0; 48];
        let options = ImageFolderOptions::new(4).classes(["a"]);
        assert_eq!(options.open(root.path()).unwrap().read(0, &mut pixels).unwrap(), 0);
        assert_eq!(pixels, [0.2; 48]);
    }

    #[test]
    fn unreadable_images_are_skipped_and_listed_or_an_error_if_strict() {
        let root = Root::new();
        for i in 0..6 {
            root.image(&format!("a/{i}.png"), i);
        }
        root.file("a/1.png");
        root.file("a/4.png");
        let options = ImageFolderOptions::new(4).classes(["a"]);
        let data = options.open(root.path()).unwrap();
        for workers in [0, 2] {
            let loader = Loader::new(data.clone(), 4).num_workers(workers);
            let batches: Vec<_> = loader.epoch(0).unwrap().map(Result::unwrap).collect();
            // The one image that is left of the second batch joins the first.
            assert_eq!(batches.iter().map(|batch| batch.labels.len()).collect::<Vec<_>>(), [4]);
            let firsts: Vec<u32> = batches
                .iter()
                .flat_map(|batch| {
                    batch.images.data().chunks(48).map(|image| (image[0] * 255.0).round() as u32)
                })
                .collect();
            assert_eq!(firsts, [0, 2, 3, 5]);
        }
        let paths: Vec<PathBuf> = data.unreadable().into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, [root.path().join("a/1.png"), root.path().join("a/4.png")]);
        let reason = &data.unreadable()[0].1;
        assert!(reason.contains("format: expected a PNG") && reason.contains("JPEG"), "{reason}");
        assert_eq!(Normalize::fit(&data).unwrap().mean.len(), 3);

        let strict = options.strict(true).open(root.path()).unwrap();
        let error = Loader::new(strict, 4).epoch(0).unwrap().next().unwrap().unwrap_err();
        assert!(matches!(&error, Error::Malformed { path, .. } if path.ends_with("a/1.png")), "{error}");
        let alone = Loader::new(data, 1).epoch(0).unwrap().map(|batch| batch.unwrap().labels.len());
        assert_eq!(alone.collect::<Vec<_>>(), [1; 4], "a batch without a readable image is passed over");
    }

    #[test]
    fn folders_without_classes_or_images_are_an_error() {
        let root = Root::new();
        let open = |size| ImageFolder::open(root.path(), size).unwrap_err().to_string();
        assert!(open(8).contains("content: expected a folder for each class, found none"));
        root.image("b/0.png", 0);
        assert!(open(0).contains("preset: crop"));
        let large = ImageFolderOptions::new(8).resize_size(7).open(root.path()).unwrap_err();
        assert!(large.to_string().contains("preset: crop_size: expected from 1 to 7"), "{large}");
        fs::create_dir(root.path().join("a")).unwrap();
        let error = open(8);
        assert!(error.contains("a: content: expected an image, .png, .apng, .jpg, "), "{error}");
        assert!(error.ends_with("found none"), "{error}");
        root.file("a/x.heic");
        let error = open(8);
        let found = "found none of 1 files; the first, x.heic: a HEIC image, which is not read: convert it \
                     to PNG or JPEG";
        assert!(error.ends_with(found), "{error}");
        let none = ImageFolder::open(root.path().join("none"), 8).unwrap_err();
        assert!(matches!(none, Error::Io { .. }));
    }
}
