//! Pictures in folders, one folder a class.

use super::{Dataset, Normalize, Preset, open_picture};
use crate::{Error, Result, Rng};
use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Pictures on disk, `root/class/picture.jpg`, as torchvision's `ImageFolder` finds them: the folders below the root, sorted, are the
/// classes, and the PNG and JPEG files in them, at any depth, their pictures.
///
/// Pictures are decoded when they are read, which is on the [`Loader`](super::Loader)'s threads. One that cannot be read is left out
/// of its batch, a warning is logged, and [`ImageFolder::unreadable`] lists it; if all of a batch are, or after
/// [`ImageFolder::strict`], it is an error. Cloning, and taking a part, shares the list.
///
/// ```
/// use skipgrad::data::{ImageFolder, Loader};
/// # let root = std::env::temp_dir().join(format!("skipgrad-folder-{}", std::process::id()));
/// # for (class, i) in [("dog", 0), ("cat", 0), ("cat", 1), ("cat", 2)] {
/// #     std::fs::create_dir_all(root.join(class)).unwrap();
/// #     image::RgbImage::new(50, 40).save(root.join(class).join(format!("{i}.png"))).unwrap();
/// # }
/// # std::fs::write(root.join("dog/1.png"), "no picture").unwrap();
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
    /// Each with its class.
    files: Arc<[(PathBuf, usize)]>,
    preset: Preset,
    strict: bool,
    unreadable: Arc<Mutex<BTreeMap<PathBuf, String>>>,
}

/// Folders in folders, below a class, that are looked into.
const DEPTH: usize = 16;

impl ImageFolder {
    /// Lists the pictures below a root. They will be read as `[size, size, 3]` with values in [0, 1]: the shorter side is resized to
    /// `size` and the middle cut out, as a [`Preset`] does it.
    ///
    /// # Errors
    /// [`Error::Io`] if a folder cannot be read; [`Error::Malformed`] if there is no class, or a class without a picture;
    /// [`Error::Argument`] if the size is 0.
    pub fn open(root: impl AsRef<Path>, size: usize) -> Result<ImageFolder> {
        let root = root.as_ref();
        let mut folders = entries(root)?;
        folders.retain(|path| path.is_dir());
        let mut files = vec![];
        for (class, folder) in folders.iter().enumerate() {
            let before = files.len();
            list(folder, DEPTH, &mut |path| files.push((path, class)))?;
            if files.len() == before {
                return Err(empty(folder, "a picture, .png, .jpg or .jpeg"));
            }
        }
        if folders.is_empty() {
            return Err(empty(root, "a folder for each class"));
        }
        let names = folders.iter().map(|folder| folder.file_name().unwrap_or_default().to_string_lossy());
        let classes: Arc<[String]> = names.map(String::from).collect();
        let preset = Preset {
            resize: size,
            crop: [size; 2],
            // Leaves pixels as they are.
            normalize: Normalize { mean: vec![0.0; 3], std: vec![1.0; 3] },
            classes: classes.to_vec(),
        };
        preset.check()?;
        Ok(ImageFolder { classes, files: files.into(), preset, strict: false, unreadable: Arc::default() })
    }

    /// The pixels that the shorter side is resized to, before the middle is cut out: 256 for a size of 224 is what ImageNet's networks
    /// are judged by.
    ///
    /// # Errors
    /// [`Error::Argument`] if that is less than the size.
    pub fn resize(mut self, resize: usize) -> Result<ImageFolder> {
        self.preset.resize = resize;
        self.preset.check()?;
        Ok(self)
    }

    /// Whether a picture that cannot be read is an error, as it is not unless said.
    #[must_use]
    pub fn strict(self, strict: bool) -> ImageFolder {
        ImageFolder { strict, ..self }
    }

    /// The names of the classes, those of their folders; a label is an index into them.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The picture of each number, with its label.
    pub fn files(&self) -> &[(PathBuf, usize)] {
        &self.files
    }

    /// Pictures to learn from and pictures to judge by: of each class this part, in [0, 1], by lot and rounded down, and the rest.
    ///
    /// # Errors
    /// [`Error::Argument`] if the part is not in [0, 1].
    ///
    /// ```
    /// use skipgrad::{Rng, data::ImageFolder};
    /// # let root = std::env::temp_dir().join(format!("skipgrad-split-{}", std::process::id()));
    /// # for (class, count) in [("cat", 8), ("dog", 4)] {
    /// #     std::fs::create_dir_all(root.join(class)).unwrap();
    /// #     (0..count).for_each(|i| std::fs::write(root.join(class).join(format!("{i}.png")), "").unwrap());
    /// # }
    /// let (train, test) = ImageFolder::open(&root, 32)?.split(0.75, Rng::seed(0))?; // 8 cats, 4 dogs
    /// assert_eq!((train.files().len(), test.files().len()), (9, 3));
    /// # std::fs::remove_dir_all(&root).unwrap();
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn split(&self, part: f32, mut rng: Rng) -> Result<(ImageFolder, ImageFolder)> {
        if !(0.0..=1.0).contains(&part) {
            return Err(Error::argument("split", "part", "a number in [0, 1]", part));
        }
        let (mut first, mut second) = (vec![], vec![]);
        for class in self.files.chunk_by(|a, b| a.1 == b.1) {
            let mut order: Vec<usize> = (0..class.len()).collect();
            rng.shuffle(&mut order);
            let (head, tail) = order.split_at_mut((class.len() as f64 * f64::from(part)) as usize);
            for (indices, files) in [(head, &mut first), (tail, &mut second)] {
                indices.sort_unstable();
                files.extend(indices.iter().map(|&i| class[i].clone()));
            }
        }
        let with = |files: Vec<_>| ImageFolder { files: files.into(), ..self.clone() };
        Ok((with(first), with(second)))
    }

    /// The pictures that could not be read so far, and why; those of all clones and parts.
    pub fn unreadable(&self) -> Vec<(PathBuf, String)> {
        let unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        unreadable.iter().map(|(path, why)| (path.clone(), why.clone())).collect()
    }

    fn note(&self, path: &Path, why: String) {
        let mut unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        if !unreadable.contains_key(path) {
            log::warn!("left out: {why}");
            unreadable.insert(path.to_path_buf(), why);
        }
    }
}

impl Dataset for ImageFolder {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn classes(&self) -> &[String] {
        self.classes()
    }

    fn image_shape(&self) -> [usize; 3] {
        self.preset.shape()
    }

    fn read(&self, index: usize, pixels: &mut [f32]) -> Result<usize> {
        let Some((path, label)) = self.files.get(index) else {
            return Err(Error::argument("read", "index", format!("below {}", self.files.len()), index));
        };
        let size = self.preset.shape().iter().product::<usize>();
        if pixels.len() != size {
            return Err(Error::argument("read", "pixels", size, pixels.len()));
        }
        match open_picture(path) {
            Ok(picture) => pixels.copy_from_slice(self.preset.image(&picture)?.data()),
            Err(error) => {
                self.note(path, error.to_string());
                return Err(error);
            }
        }
        Ok(*label)
    }

    fn should_skip(&self, error: &Error) -> bool {
        !self.strict && matches!(error, Error::Malformed { .. } | Error::Io { .. })
    }
}

impl fmt::Debug for ImageFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [size, ..] = self.preset.crop;
        write!(
            f,
            "ImageFolder({} pictures in {} classes, read as {size} x {size})",
            self.files.len(),
            self.classes.len()
        )
    }
}

fn empty(folder: &Path, expected: &str) -> Error {
    Error::Malformed {
        path: folder.to_path_buf(),
        at: "content".to_string(),
        expected: expected.to_string(),
        found: "none".to_string(),
    }
}

/// What is in a folder, sorted.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let cannot = |source| Error::io(folder, "read", source);
    let mut paths = vec![];
    for entry in fs::read_dir(folder).map_err(cannot)? {
        paths.push(entry.map_err(cannot)?.path());
    }
    paths.sort();
    Ok(paths)
}

/// The pictures of a folder, then those of the folders in it.
fn list(folder: &Path, depth: usize, f: &mut impl FnMut(PathBuf)) -> Result<()> {
    let (folders, files): (Vec<PathBuf>, Vec<PathBuf>) =
        entries(folder)?.into_iter().partition(|path| path.is_dir());
    files.into_iter().filter(|path| is_picture(path)).for_each(&mut *f);
    // A link to a folder above would be followed for ever.
    folders.iter().filter(|_| depth > 0).try_for_each(|folder| list(folder, depth - 1, f))
}

fn is_picture(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_ascii_lowercase();
    ["png", "jpg", "jpeg"].iter().any(|known| extension == *known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Loader;
    use image::{Rgb, RgbImage};

    /// A folder that goes with the test.
    struct Root(PathBuf);

    impl Root {
        fn new(name: &str) -> Root {
            let root = std::env::temp_dir().join(format!("skipgrad-{name}-{}", std::process::id()));
            fs::create_dir_all(&root).unwrap();
            Root(root)
        }

        fn picture(&self, path: &str, gray: u8) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            RgbImage::from_pixel(12, 9, Rgb([gray; 3])).save(path).unwrap();
        }

        fn file(&self, path: &str) {
            fs::write(self.0.join(path), "no picture").unwrap();
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn found(data: &ImageFolder, root: &Root) -> Vec<(String, usize)> {
        let short = |path: &PathBuf| path.strip_prefix(&root.0).unwrap().display().to_string();
        data.files().iter().map(|(path, class)| (short(path), *class)).collect()
    }

    #[test]
    fn classes_and_pictures_come_sorted() {
        let root = Root::new("sorted");
        for path in ["b/2.PNG", "b/10.jpeg", "b/deep/er/0.jpg", "a b/x.png", "C/x.png"] {
            root.picture(path, 0);
        }
        root.file("b/notes.txt");
        root.file("readme.png");
        let data = ImageFolder::open(&root.0, 8).unwrap();
        assert_eq!(data.classes(), ["C", "a b", "b"]);
        let expected =
            [("C/x.png", 0), ("a b/x.png", 1), ("b/10.jpeg", 2), ("b/2.PNG", 2), ("b/deep/er/0.jpg", 2)];
        assert_eq!(found(&data, &root), expected.map(|(path, class)| (path.to_string(), class)));
    }

    #[test]
    fn pixels_are_in_0_to_1() {
        let root = Root::new("pixels");
        root.picture("a/0.png", 51);
        let mut pixels = [0.0; 48];
        assert_eq!(ImageFolder::open(&root.0, 4).unwrap().read(0, &mut pixels).unwrap(), 0);
        assert_eq!(pixels, [0.2; 48]);
    }

    #[test]
    fn unreadable_pictures_are_left_out_and_listed_or_an_error_if_asked() {
        let root = Root::new("unreadable");
        for i in 0..6 {
            root.picture(&format!("a/{i}.png"), i);
        }
        root.file("a/1.png");
        root.file("a/4.png");
        let data = ImageFolder::open(&root.0, 4).unwrap();
        for workers in [0, 2] {
            let loader = Loader::new(data.clone(), 4).workers(workers);
            let batches: Vec<_> = loader.epoch(0).unwrap().map(Result::unwrap).collect();
            assert_eq!(batches.iter().map(|batch| batch.labels.len()).collect::<Vec<_>>(), [3, 1]);
            let firsts: Vec<u32> = batches
                .iter()
                .flat_map(|batch| {
                    batch.images.data().chunks(48).map(|image| (image[0] * 255.0).round() as u32)
                })
                .collect();
            assert_eq!(firsts, [0, 2, 3, 5]);
        }
        let paths: Vec<PathBuf> = data.unreadable().into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, [root.0.join("a/1.png"), root.0.join("a/4.png")]);
        assert!(data.unreadable()[0].1.contains("a picture, PNG or JPEG"));
        assert_eq!(Normalize::measure(&data).unwrap().mean.len(), 3);

        let error = Loader::new(data.clone().strict(true), 4).epoch(0).unwrap().next().unwrap().unwrap_err();
        assert!(matches!(&error, Error::Malformed { path, .. } if path.ends_with("a/1.png")), "{error}");
        let error = Loader::new(data, 1).epoch(0).unwrap().nth(1).unwrap().unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }), "a batch of none: {error}");
    }

    #[test]
    fn folders_without_what_is_needed_are_refused() {
        let root = Root::new("refused");
        let open = |size| ImageFolder::open(&root.0, size).unwrap_err().to_string();
        assert!(open(8).contains("content: expected a folder for each class, found none"));
        root.picture("b/0.png", 0);
        assert!(open(0).contains("preset: crop"));
        fs::create_dir(root.0.join("a")).unwrap();
        root.file("a/x.gif");
        let error = open(8);
        assert!(error.contains("a: content: expected a picture, .png, .jpg or .jpeg, found none"), "{error}");
        let none = ImageFolder::open(root.0.join("none"), 8).unwrap_err();
        assert!(matches!(none, Error::Io { .. }));
    }
}
