//! CIFAR-10 and CIFAR-100 in their binary versions (Krizhevsky 2009,
//! <https://www.cs.toronto.edu/~kriz/cifar.html>).
//!
//! A file is a sequence of records. A record of CIFAR-10 has one byte for the label and 3072 bytes
//! for the pixels; a record of CIFAR-100 has one byte for the coarse label, one for the fine label,
//! and then the pixels. The pixels are three planes of 32 x 32: red, green and blue.

mod version;

use self::version::{CIFAR_10, CIFAR_100};
use super::{Images, Splits, memory::with_byte_capacity};
use crate::{
    Error, Result,
    io::{FileKind, open_regular_file},
};
use std::{
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

/// Height and width of an image, in pixels.
const SIDE: usize = 32;
/// Bytes of one channel of an image.
const PLANE: usize = SIDE * SIDE;
/// Bytes of an image.
const IMAGE_LEN: usize = 3 * PLANE;

/// CIFAR-10: 60,000 color images of 32 x 32 pixels in ten classes.
///
/// ```no_run
/// use skipgrad::data::Cifar10;
/// let data = Cifar10::open("data/cifar-10-batches-bin")?;
/// assert_eq!((data.train().len(), data.test().len()), (50_000, 10_000));
/// assert_eq!(data.train().classes()[9], "truck");
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Cifar10(Splits);

impl Cifar10 {
    /// Names of the classes; a label is an index into them.
    pub const CLASSES: [&'static str; 10] =
        ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

    /// Reads the training images from `data_batch_1.bin` to `data_batch_5.bin`, in this order, and
    /// the test images from `test_batch.bin`.
    ///
    /// The files are in `folder`, or in the folder `cifar-10-batches-bin` inside it, to which the
    /// published archive unpacks. The files may have any number of images, but all training files
    /// must have the same number.
    ///
    /// # Errors
    /// [`Error::Io`] if a file is missing or cannot be read; [`Error::Malformed`] if there is an
    /// archive or the version for Python or Matlab instead, or with the file and the record if a
    /// file is empty, truncated, or has a label that is not a class; and [`Error::OutOfMemory`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Cifar10> {
        let folder = CIFAR_10.locate(folder.as_ref())?;
        let labels = [Label { name: "label", classes: 10 }];
        let train = read_files(
            &(1..=5).map(|i| folder.join(format!("data_batch_{i}.bin"))).collect::<Vec<_>>(),
            labels,
        )?;
        let test = read_files(&[folder.join("test_batch.bin")], labels)?;
        let images = |read: Records<1>| {
            let [labels] = read.labels;
            Images::from_bytes([labels.len(), SIDE, SIDE, 3], read.pixels, labels, Cifar10::CLASSES)
        };
        Ok(Cifar10(Splits::new(images(train)?, images(test)?)))
    }

    /// Returns the training images.
    pub fn train(&self) -> Images {
        self.0.train()
    }

    /// Returns the test images.
    pub fn test(&self) -> Images {
        self.0.test()
    }
}

impl From<Cifar10> for Splits {
    fn from(data: Cifar10) -> Splits {
        data.0
    }
}

/// CIFAR-100: 60,000 color images of 32 x 32 pixels with a fine label of 100 classes and a coarse
/// label of 20 classes.
///
/// ```no_run
/// use skipgrad::data::Cifar100;
/// let data = Cifar100::open("data")?;
/// assert_eq!((data.train().classes().len(), data.coarse().train().classes().len()), (100, 20));
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Cifar100 {
    fine: Splits,
    coarse: Splits,
}

impl Cifar100 {
    /// Names of the fine classes; a fine label is an index into them.
    #[rustfmt::skip]
    pub const CLASSES: [&'static str; 100] = [
        "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
        "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
        "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur",
        "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard",
        "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain",
        "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
        "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket",
        "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider",
        "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
        "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
    ];

    /// Names of the coarse classes; a coarse label is an index into them.
    #[rustfmt::skip]
    pub const COARSE_CLASSES: [&'static str; 20] = [
        "aquatic_mammals", "fish", "flowers", "food_containers", "fruit_and_vegetables", "household_electrical_devices",
        "household_furniture", "insects", "large_carnivores", "large_man-made_outdoor_things",
        "large_natural_outdoor_scenes", "large_omnivores_and_herbivores", "medium_mammals", "non-insect_invertebrates",
        "people", "reptiles", "small_mammals", "trees", "vehicles_1", "vehicles_2",
    ];

    /// Reads the training images from `train.bin` and the test images from `test.bin`.
    ///
    /// The files are in `folder`, or in the folder `cifar-100-binary` inside it, to which the
    /// published archive unpacks. The files may have any number of images.
    ///
    /// # Errors
    /// The errors of [`Cifar10::open`].
    pub fn open(folder: impl AsRef<Path>) -> Result<Cifar100> {
        let folder = CIFAR_100.locate(folder.as_ref())?;
        let labels =
            [Label { name: "coarse label", classes: 20 }, Label { name: "fine label", classes: 100 }];
        let images = |file: &str| {
            let Records { labels: [coarse, fine], pixels } = read_files(&[folder.join(file)], labels)?;
            let images = Images::from_bytes([fine.len(), SIDE, SIDE, 3], pixels, fine, Cifar100::CLASSES)?;
            Ok((images.relabeled(coarse, &Cifar100::COARSE_CLASSES), images))
        };
        let ((coarse_train, train), (coarse_test, test)) = (images("train.bin")?, images("test.bin")?);
        Ok(Cifar100 { fine: Splits::new(train, test), coarse: Splits::new(coarse_train, coarse_test) })
    }

    /// Returns the training images with their fine labels.
    pub fn train(&self) -> Images {
        self.fine.train()
    }

    /// Returns the test images with their fine labels.
    pub fn test(&self) -> Images {
        self.fine.test()
    }

    /// Returns both splits with their coarse labels.
    pub fn coarse(&self) -> &Splits {
        &self.coarse
    }
}

impl From<Cifar100> for Splits {
    fn from(data: Cifar100) -> Splits {
        data.fine
    }
}

/// The meaning of a label byte of a record.
#[derive(Clone, Copy)]
struct Label {
    /// Name of the label in errors.
    name: &'static str,
    /// Number of classes.
    classes: u8,
}

/// The content of one or several files: pixels `[N, H, W, C]`, and `N` labels of each kind.
struct Records<const L: usize> {
    labels: [Vec<usize>; L],
    pixels: Vec<u8>,
}

/// Reads files that have the same number of records. All sizes are checked before a file is read.
fn read_files<const L: usize>(paths: &[PathBuf], kinds: [Label; L]) -> Result<Records<L>> {
    let files = paths.iter().map(|path| open(path, L + IMAGE_LEN)).collect::<Result<Vec<_>>>()?;
    let count = files.first().map_or(0, |(_, count)| *count);
    if let Some((path, (_, found))) = paths.iter().zip(&files).find(|(_, (_, other))| *other != count) {
        let first = paths[0].file_name().unwrap_or_default().display();
        let expected = format!("{count} records, as {first} has");
        return Err(Error::malformed(path, "size", expected, format!("{found} records")));
    }
    let total = count.saturating_mul(files.len());
    let pixels = with_byte_capacity(total.saturating_mul(IMAGE_LEN))?;
    let mut records = Records { labels: std::array::from_fn(|_| Vec::with_capacity(total)), pixels };
    for (path, (file, _)) in paths.iter().zip(files) {
        append(path, file, count, kinds, &mut records)?;
    }
    Ok(records)
}

/// Opens a file and computes its number of records from its size.
fn open(path: &Path, record: usize) -> Result<(File, usize)> {
    let (file, size) = open_regular_file(path)?;
    let (count, rest) = (size / record as u64, size % record as u64);
    if rest != 0 || count == 0 {
        // A file of CIFAR may begin as a file of some kinds, but not as text, a pickle or an
        // archive.
        let kind = FileKind::read(path)?;
        if !matches!(
            kind,
            FileKind::Empty | FileKind::Zeros | FileKind::Unknown | FileKind::Onnx | FileKind::Ico
        ) {
            return Err(kind.error(path, format!("records of {record} bytes, as CIFAR's binary version has")));
        }
        let found = if count + rest == 0 { "an empty file".into() } else { format!("{rest} bytes") };
        return Err(Error::malformed(path, format!("record {count}"), format!("{record} bytes"), found));
    }
    Ok((file, usize::try_from(count).unwrap_or(usize::MAX)))
}

/// Reads the records of one file and appends them to `records`.
fn append<const L: usize>(
    path: &Path,
    file: File,
    count: usize,
    kinds: [Label; L],
    records: &mut Records<L>,
) -> Result<()> {
    let mut file = BufReader::with_capacity(1 << 16, file);
    let (mut labels, mut planes) = ([0; L], [0; IMAGE_LEN]);
    for number in 0..count {
        let read = file.read_exact(&mut labels).and_then(|()| file.read_exact(&mut planes));
        read.map_err(|error| Error::io(path, "read", error))?;
        for ((&label, kind), to) in labels.iter().zip(kinds).zip(&mut records.labels) {
            if label >= kind.classes {
                let expected = format!("a {} below {}", kind.name, kind.classes);
                return Err(Error::malformed(path, format!("record {number}"), expected, label));
            }
            to.push(usize::from(label));
        }
        records.pixels.extend((0..IMAGE_LEN).map(|i| planes[i % 3 * PLANE + i / 3]));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    /// A folder of CIFAR files.
    struct Folder(TempDir);

    impl Folder {
        fn new() -> Folder {
            Folder(TempDir::new().unwrap())
        }

        fn path(&self) -> &Path {
            self.0.path()
        }

        /// Creates six files of `count` records. In file f, record r has the label (f + r) % 10,
        /// and each pixel has the file, its row and its column as its channels.
        fn cifar10(count: usize) -> Folder {
            let folder = Folder::new();
            for (f, name) in cifar10_names().iter().enumerate() {
                let records = (0..count).flat_map(|r| record(&[((f + r) % 10) as u8], f as u8));
                folder.write(name, &records.collect::<Vec<u8>>());
            }
            folder
        }

        fn write(&self, name: &str, bytes: &[u8]) {
            fs::write(self.path().join(name), bytes).unwrap();
        }

        /// Changes the bytes of a file.
        fn edit(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
            let mut bytes = fs::read(self.path().join(name)).unwrap();
            change(&mut bytes);
            self.write(name, &bytes);
        }

        fn error(&self) -> Error {
            Cifar10::open(self.path()).unwrap_err()
        }
    }

    fn cifar10_names() -> Vec<String> {
        (1..=5).map(|i| format!("data_batch_{i}.bin")).chain(["test_batch.bin".into()]).collect()
    }

    /// Returns a record: labels, a red plane of `tag`, a green plane of the row of each pixel, and
    /// a blue plane of its column.
    fn record(labels: &[u8], tag: u8) -> Vec<u8> {
        let planes = (0..IMAGE_LEN).map(|i| [tag, (i % PLANE / SIDE) as u8, (i % SIDE) as u8][i / PLANE]);
        labels.iter().copied().chain(planes).collect()
    }

    #[test]
    fn records_become_images_in_the_order_of_the_files() {
        let folder = Folder::cifar10(3);
        let data = Cifar10::open(folder.path()).unwrap();
        assert_eq!((data.train().len(), data.test().len()), (15, 3));
        assert_eq!(data.train().labels(0..15).unwrap(), [0, 1, 2, 1, 2, 3, 2, 3, 4, 3, 4, 5, 4, 5, 6]);
        assert_eq!(data.test().labels(0..3).unwrap(), [5, 6, 7]);
        let image = data.train().images(13..14).unwrap();
        let at = |y: usize, x: usize, k: usize| image.data()[(y * SIDE + x) * 3 + k] * 255.0;
        assert_eq!([at(7, 30, 0), at(7, 30, 1), at(7, 30, 2)], [4.0, 7.0, 30.0]);
        assert_eq!(data.train().classes()[5], "dog");
    }

    #[test]
    fn the_parent_of_the_folder_is_accepted() {
        let parent = Folder::new();
        let folder = Folder::cifar10(1);
        let inner = parent.path().join("cifar-10-batches-bin");
        fs::create_dir(&inner).unwrap();
        for name in cifar10_names() {
            fs::copy(folder.path().join(&name), inner.join(&name)).unwrap();
        }
        assert_eq!(Cifar10::open(parent.path()).unwrap().train().len(), 5);
    }

    #[test]
    fn cifar_100_has_fine_and_coarse_labels() {
        let folder = Folder::new();
        folder.write("train.bin", &[record(&[19, 99], 1), record(&[0, 4], 2)].concat());
        folder.write("test.bin", &record(&[3, 5], 3));
        let data = Cifar100::open(folder.path()).unwrap();
        assert_eq!(data.train().labels(0..2).unwrap(), [99, 4]);
        assert_eq!(data.coarse().train().labels(0..2).unwrap(), [19, 0]);
        assert_eq!(data.coarse().test().labels(0..1).unwrap(), [3]);
        assert_eq!(data.coarse().test().images(0..1).unwrap(), data.test().images(0..1).unwrap());
        folder.edit("train.bin", |bytes| bytes[3074] = 20);
        let error = Cifar100::open(folder.path()).unwrap_err().to_string();
        assert!(
            error.ends_with("train.bin: record 1: expected a coarse label below 20, found 20"),
            "{error}"
        );
        folder.edit("train.bin", |bytes| (bytes[3074], bytes[3075]) = (19, 100));
        let error = Cifar100::open(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with("record 1: expected a fine label below 100, found 100"), "{error}");
    }

    #[test]
    fn a_label_that_is_not_a_class_is_an_error_with_its_record() {
        let folder = Folder::cifar10(3);
        folder.edit("data_batch_4.bin", |bytes| bytes[2 * 3073] = 200);
        let error = folder.error();
        assert!(matches!(error, Error::Malformed { .. }));
        let text = error.to_string();
        assert!(text.ends_with("data_batch_4.bin: record 2: expected a label below 10, found 200"), "{text}");
    }

    #[test]
    fn a_truncated_file_is_an_error_with_its_incomplete_record() {
        for (length, text) in [
            (0, "record 0: expected 3073 bytes, found an empty file"),
            (1, "record 0: expected 3073 bytes, found 1 bytes"),
            (3072, "record 0: expected 3073 bytes, found 3072 bytes"),
            (3073, "size: expected 2 records, as data_batch_1.bin has, found 1 records"),
            (3074, "record 1: expected 3073 bytes, found 1 bytes"),
            (2 * 3073 - 1, "record 1: expected 3073 bytes, found 3072 bytes"),
        ] {
            let folder = Folder::cifar10(2);
            folder.edit("data_batch_3.bin", |bytes| bytes.truncate(length));
            let error = folder.error();
            assert!(matches!(error, Error::Malformed { .. }));
            let expected = format!("data_batch_3.bin: {text}");
            assert!(error.to_string().ends_with(&expected), "{error} is not {expected}");
        }
        let folder = Folder::cifar10(2);
        folder.edit("test_batch.bin", |bytes| bytes.push(0));
        assert!(folder.error().to_string().contains("test_batch.bin: record 2: expected 3073 bytes"));
    }

    #[test]
    fn a_file_of_another_kind_is_named() {
        let folder = Folder::cifar10(2);
        for (bytes, found) in [
            (&b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 30\n"[..], "LFS"),
            (b"<!DOCTYPE html><html></html>", "a web page"),
            (b"\x1f\x8b\x08\0\0\0\0\0\0\x03", "a gzip file: unpack it first"),
            (b"\x80\x02}q\x01(U\x0bbatch_label", "a Python pickle"),
        ] {
            folder.write("data_batch_4.bin", bytes);
            let error = folder.error().to_string();
            let expected = "data_batch_4.bin: format: expected records of 3073 bytes, as CIFAR's binary";
            assert!(error.contains(expected) && error.contains(found), "{error}");
        }
    }

    #[test]
    fn a_missing_file_or_folder_is_named() {
        let folder = Folder::cifar10(1);
        fs::remove_file(folder.path().join("data_batch_5.bin")).unwrap();
        let error = folder.error();
        assert!(matches!(&error, Error::Io { path, .. } if path.ends_with("data_batch_5.bin")), "{error}");
        assert!(error.to_string().contains("cannot read"));
        let error = Cifar10::open(folder.path().join("nowhere")).unwrap_err();
        assert!(
            matches!(&error, Error::Io { path, .. } if path.ends_with("nowhere/data_batch_1.bin")),
            "{error}"
        );
        let error = Cifar100::open(folder.path()).unwrap_err();
        assert!(matches!(&error, Error::Io { path, .. } if path.ends_with("train.bin")), "{error}");
    }

    #[test]
    fn other_versions_and_archives_are_told_apart() {
        let error = |files: &[&str], open: &str| {
            let folder = Folder::new();
            for file in files {
                let path = folder.path().join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, b"\x80\x02}").unwrap();
            }
            let path = folder.path().join(open);
            let errors = [Cifar10::open(&path).unwrap_err(), Cifar100::open(&path).unwrap_err()];
            errors.map(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
        };
        let python = ["cifar-10-batches-py/data_batch_1", "cifar-10-batches-py/test_batch"];
        let words = "content: expected CIFAR-10's binary version, which cifar-10-binary.tar.gz from \
                     https://www.cs.toronto.edu/~kriz/cifar.html has, found its version for Python";
        assert_eq!(error(&python, "")[0], format!("cifar-10-batches-py: {words}"));
        let inside = error(&python, "cifar-10-batches-py");
        assert_eq!(inside[0], format!("cifar-10-batches-py/data_batch_1: {words}"));
        assert!(inside[1].contains("train.bin: cannot read: no such file"), "{}", inside[1]);
        let inside = error(&["cifar-100-python/train", "cifar-100-python/meta"], "cifar-100-python");
        assert!(inside[1].contains("CIFAR-100's binary version"), "{}", inside[1]);
        assert!(inside[1].ends_with("its version for Python"), "{}", inside[1]);
        assert!(error(&["data_batch_1.mat"], "")[0].ends_with("its version for Matlab"));

        let archive = error(&["cifar-10-binary.tar.gz"], "");
        let words = "expected the folder cifar-10-batches-bin of CIFAR-10's binary version, found an \
                     archive: unpack it, as `tar xf cifar-10-binary.tar.gz` does";
        assert_eq!(archive[0], format!("cifar-10-binary.tar.gz: content: {words}"));
        assert_eq!(error(&["cifar-10-binary.tar.gz"], "cifar-10-binary.tar.gz")[0], archive[0]);
        let file = error(&["data_batch_1.bin"], "data_batch_1.bin");
        assert!(file[0].ends_with("found a file: open the folder that it is in"), "{}", file[0]);

        let other = error(&["train.bin", "test.bin"], "");
        let words = "data_batch_1.bin: cannot read: no such file; the folder has CIFAR-100, which \
                     Cifar100::open reads";
        assert_eq!(other[0], words);
        let nothing = error(&["cat/0.png"], "");
        assert!(nothing[0].starts_with("data_batch_1.bin: cannot read: no such file; the folder cifar-10"));
    }

    #[test]
    fn a_folder_in_the_place_of_a_file_is_an_error() {
        let folder = Folder::cifar10(1);
        fs::remove_file(folder.path().join("data_batch_2.bin")).unwrap();
        fs::create_dir(folder.path().join("data_batch_2.bin")).unwrap();
        assert!(folder.error().to_string().contains("data_batch_2.bin"));
    }
}
