//! Folders of images as people have them: names, parts, links, files of other kinds, splits.

use image::{Luma, Rgb, RgbImage};
use skipgrad::{
    Result, Rng,
    data::{Dataset as _, ImageFolder, ImageFolderOptions, ImageFolderParts, ImageLimits, Loader},
};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// Makes a folder with these files: small images where the extension is that of one which can be
/// written, and else a text.
fn tree<P: AsRef<Path>>(files: impl IntoIterator<Item = P>) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    for (i, file) in files.into_iter().enumerate() {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let picture = RgbImage::from_pixel(4, 3, Rgb([i as u8, 100, 200]));
        if picture.save(&path).is_err() {
            fs::write(path, "a text").unwrap();
        }
    }
    root
}

/// The files `0.png`, `1.png`, ... in the folder of a class.
fn images(class: &str, count: usize) -> Vec<String> {
    (0..count).map(|i| format!("{class}/{i}.png")).collect()
}

fn pets(root: &str) -> Vec<String> {
    ["cat", "dog"].into_iter().flat_map(|class| images(&format!("{root}{class}"), 4)).collect()
}

fn options() -> ImageFolderOptions {
    ImageFolderOptions::new(4)
}

fn open(root: &TempDir) -> Result<ImageFolder> {
    options().open(root.path())
}

fn parts(root: &TempDir) -> Result<ImageFolderParts> {
    options().open_parts(root.path())
}

/// The paths of images in a root, each with its label.
fn samples(data: &ImageFolder, root: &TempDir) -> Vec<(String, usize)> {
    let short = |path: &PathBuf| path.strip_prefix(root.path()).unwrap().display().to_string();
    data.samples().iter().map(|(path, label)| (short(path), *label)).collect()
}

/// The error, without the path of the root.
#[track_caller]
fn error<T: std::fmt::Debug>(result: Result<T>, root: &TempDir) -> String {
    let root = root.path().display().to_string();
    result.unwrap_err().to_string().replace(&format!("{root}/"), "").replace(&root, "ROOT")
}

#[test]
fn what_systems_and_programs_leave_is_passed_over() {
    let hidden = [
        ".ipynb_checkpoints/0-checkpoint.png",
        "__MACOSX/cat/._0.png",
        "@eaDir/0.png",
        "$RECYCLE.BIN/0.png",
        "lost+found/0.png",
        ".git/objects/0.png",
        "cat/.ipynb_checkpoints/0.png",
        "cat/._0.png",
        "cat/__pycache__/0.png",
        "cat/@eaDir/0.png/thumb.png",
        "cat/Thumbs.db",
        "cat/.DS_Store",
        "dog/desktop.ini",
        "dog/__0.png",
    ];
    let root = tree(pets("").into_iter().chain(hidden.map(String::from)));
    let data = open(&root).unwrap();
    assert_eq!(data.classes(), ["cat", "dog"]);
    assert_eq!(data.len(), 8);
    assert_eq!(data.ignored_files(), []);
    assert_eq!(parts(&root).unwrap().train.classes(), ["cat", "dog"]);
}

#[test]
fn one_class_alone_is_an_error() {
    let root = tree(images("cat", 3));
    let alone = "ROOT: content: expected at least two folders of classes, found one, cat";
    assert_eq!(error(open(&root), &root), alone);
    assert_eq!(error(parts(&root), &root), alone);
    assert_eq!(options().classes(["cat"]).open(root.path()).unwrap().len(), 3);

    let root = tree(pets("pets/"));
    let nested = error(open(&root), &root);
    assert!(nested.ends_with("found one, pets, with folders of its own (cat, dog): open pets"), "{nested}");
    let root = tree(["0.png", "1.png", "notes.txt"]);
    let flat =
        "ROOT: content: expected a folder for each class, found 2 images directly in it, and no folder";
    assert_eq!(error(open(&root), &root), flat);
}

#[test]
fn parts_have_their_usual_names_in_any_case() {
    for train in ["train", "Train", "TRAINING", "training_set"] {
        for validation in [None, Some("val"), Some("Valid"), Some("validation"), Some("DEV")] {
            for test in [None, Some("test"), Some("Testing"), Some("eval"), Some("test_set")] {
                let names = [Some(train), validation, test];
                let files = names.iter().flatten().flat_map(|name| pets(&format!("{name}/")));
                let root = tree(files.chain(["__MACOSX/x.png".into(), "labels.csv".into()]));
                let parts = parts(&root).unwrap();
                let (has_validation, has_test) = (validation.is_some(), test.is_some());
                assert_eq!(parts.is_split, !has_validation && !has_test, "{names:?}");
                assert_eq!(parts.validation.is_some(), has_validation, "{names:?}");
                assert_eq!(parts.test.is_some(), has_test || parts.is_split, "{names:?}");
                assert_eq!(parts.train.len(), if parts.is_split { 6 } else { 8 }, "{names:?}");
                assert_eq!(parts.evaluation().len(), if parts.is_split { 2 } else { 8 }, "{names:?}");
                for part in [Some(&parts.train), parts.validation.as_ref(), parts.test.as_ref()] {
                    assert!(part.is_none_or(|part| part.classes() == ["cat", "dog"]), "{names:?}");
                }
                let first =
                    parts.evaluation().samples()[0].0.strip_prefix(root.path()).unwrap().to_path_buf();
                assert!(first.starts_with(validation.or(test).unwrap_or(train)), "{names:?}");
            }
        }
    }
}

#[test]
fn parts_are_no_classes() {
    let root = tree(pets("train/").into_iter().chain(pets("validation/")));
    let text = error(open(&root), &root);
    let words = "ROOT: content: expected a folder for each class, found the parts train, validation: open \
                 them with ImageFolderOptions::open_parts, or the folder of one part, or name the classes with \
                 ImageFolderOptions::classes";
    assert_eq!(text, words);
    let alone = tree(pets("train/"));
    assert!(error(open(&alone), &alone).contains("found the parts train: open"));
    // A train among vehicles is a class, and so is a part that is listed as one.
    let vehicles = tree(["bus/0.png", "car/0.png", "train/0.png"]);
    assert_eq!(open(&vehicles).unwrap().classes(), ["bus", "car", "train"]);
    assert!(error(parts(&vehicles), &vehicles).contains("of 3 images in 3 classes"));
    let listed = options().classes(["validation", "train"]);
    assert_eq!(listed.open(root.path()).unwrap().classes(), ["validation", "train"]);
    assert!(listed.open_parts(root.path()).unwrap().is_split);
}

#[test]
fn a_split_is_made_and_said_where_no_part_is_for_testing() {
    for prefix in ["", "Train/"] {
        let root = tree(pets(prefix));
        let parts = options().split(0.5, 3).open_parts(root.path()).unwrap();
        assert_eq!((parts.is_split, parts.train.len(), parts.evaluation().len()), (true, 4, 4));
        let note = "no part to evaluate with: the images were split into 4 for training and 4 for testing";
        assert!(parts.notes.iter().any(|said| said == note), "{:?}", parts.notes);
        let none = options().split(0.99, 0).open_parts(root.path());
        let text = error(none, &root);
        assert!(text.starts_with("image_folder: split: expected a fraction that leaves images"), "{text}");
        assert!(text.ends_with("of 8 images in 2 classes, found 0.99"), "{text}");
    }
}

#[test]
fn unlabeled_images_for_testing_are_said() {
    for (folder, files) in
        [("test", ["test/0.png", "test/1.jpg"]), ("Test/all", ["Test/all/0.png", "Test/all/1.jpg"])]
    {
        let root = tree(pets("train/").into_iter().chain(files.map(String::from)));
        let parts = parts(&root).unwrap();
        assert_eq!(parts.train.classes(), ["cat", "dog"]);
        assert!(parts.is_split, "nothing else is there to evaluate with");
        assert_eq!(parts.unlabeled, files.map(|file| root.path().join(file)));
        let note = parts.notes.iter().find(|note| note.contains("unlabeled")).unwrap();
        assert!(note.starts_with("2 images in no folder of a class are unlabeled, the first in"), "{note}");
        assert!(note.ends_with(folder), "{note}");
    }
    let files = pets("train/").into_iter().chain(pets("val/")).chain(["test/0.png".into()]);
    let parts = parts(&tree(files)).unwrap();
    assert_eq!((parts.is_split, parts.validation.is_some(), parts.test.is_some()), (false, true, false));
    assert_eq!(parts.unlabeled.len(), 1);
}

#[test]
fn parts_that_do_not_fit_together_are_errors_that_name_the_difference() {
    let says = |files: Vec<String>, words: &str| {
        let root = tree(files);
        assert_eq!(error(parts(&root), &root), words);
    };
    let with = |more: &[&str]| -> Vec<String> {
        pets("train/").into_iter().chain(more.iter().map(|file| file.to_string())).collect()
    };
    says(
        with(&["val/cat/0.png", "val/bird/0.png"]),
        "val: classes: expected those of train: cat, dog, found no dog; also bird",
    );
    says(with(&["test/cat/0.png"]), "test: classes: expected those of train: cat, dog, found no dog");
    says(
        with(&["val/cat/0.png", "val/dog/0.png", "val/x/0.png", "val/y/0.png"]),
        "val: classes: expected those of train: cat, dog, found also x, y",
    );
    says(
        with(&["val/cat/0.png", "valid/dog/0.png"]),
        "ROOT: content: expected one folder for each part, found val and valid",
    );
    says(pets("test/"), "ROOT: content: expected a part for training, such as train, found test only");
    says(
        vec!["train/0.png".into(), "train/1.png".into(), "val/0.png".into()],
        "train: content: expected a folder for each class, found 2 images directly in it, and no folder",
    );
    let root = tree(with(&["val/cat/0.png", "val/dog/0.png", "annotations/0.json"]));
    let notes = parts(&root).unwrap().notes;
    assert!(notes.contains(&"not a part, and ignored: annotations".to_string()), "{notes:?}");
}

#[test]
fn numbers_sort_as_texts_or_by_their_value_or_as_listed() {
    let root = tree((0..12).map(|class| format!("{class}/0.png")));
    let as_texts = ["0", "1", "10", "11", "2", "3", "4", "5", "6", "7", "8", "9"];
    assert_eq!(open(&root).unwrap().classes(), as_texts, "torchvision's order");
    let by_value: Vec<String> = (0..12).map(|class| class.to_string()).collect();
    let data = options().natural_order(true).open(root.path()).unwrap();
    assert_eq!(data.classes(), by_value);
    assert_eq!(samples(&data, &root)[10], ("10/0.png".to_string(), 10));
    let reversed: Vec<String> = by_value.iter().rev().cloned().collect();
    let data = options().classes(&reversed).open(root.path()).unwrap();
    assert_eq!(data.classes(), reversed);
    assert_eq!(samples(&data, &root)[0], ("11/0.png".to_string(), 0));
}

#[test]
fn a_list_of_classes_must_be_that_of_the_folders() {
    let root = tree(pets("").into_iter().chain(images("__other__", 1)));
    let open = |classes: &[&str]| options().classes(classes.iter().copied()).open(root.path());
    assert_eq!(open(&["dog", "cat"]).unwrap().classes(), ["dog", "cat"]);
    assert_eq!(open(&["dog", "__other__", "cat"]).unwrap().len(), 9);
    let says = |classes: &[&str], words: &str| assert_eq!(error(open(classes), &root), words);
    says(
        &["cat", "dgo", "brid"],
        "ROOT: classes: expected a folder for each of cat, dgo, brid, found no dgo and no brid; also dog",
    );
    says(&["cat"], "ROOT: classes: expected a folder for each of cat, found also dog");
    let twice = error(open(&["cat", "dog", "cat"]), &root);
    assert!(twice.starts_with("image_folder: classes: expected at least one name, and each once"), "{twice}");
    assert!(error(open(&[]), &root).contains("at least one name"));
    // The order is that of all parts.
    let root = tree(pets("train/").into_iter().chain(pets("val/")));
    let parts = options().classes(["dog", "cat"]).open_parts(root.path()).unwrap();
    assert_eq!(parts.evaluation().classes(), ["dog", "cat"]);
}

#[test]
fn files_of_other_kinds_are_counted_and_listed() {
    let others = ["cat/notes.txt", "cat/y.heic", "dog/deep/z.AVIF", "dog/noextension", "loose.png"];
    let readable = ["cat/x.jpe", "cat/x.JFIF", "dog/deep/x.JPG", "dog/x.jpeg"];
    let root = tree(pets("").into_iter().chain(others.into_iter().chain(readable).map(String::from)));
    let data = open(&root).unwrap();
    assert_eq!(data.len(), 12);
    let ignored: Vec<(String, &str)> = data
        .ignored_files()
        .iter()
        .map(|(path, reason)| (path.strip_prefix(root.path()).unwrap().display().to_string(), &reason[..]))
        .collect();
    let convert = "which is not read: convert it to PNG or JPEG";
    let expected = [
        ("cat/notes.txt", "no extension of an image"),
        ("cat/y.heic", &format!("a HEIC image, {convert}")),
        ("dog/deep/z.AVIF", &format!("an AVIF image, {convert}")),
        ("dog/noextension", "no extension of an image"),
        ("loose.png", "not in the folder of a class"),
    ];
    assert_eq!(ignored, expected.map(|(path, reason)| (path.to_string(), reason)));
}

#[test]
#[cfg(unix)]
fn every_file_is_listed_once_and_loops_of_links_end() {
    use std::os::unix::fs::symlink;
    let elsewhere = tree(["more/9.png", "more/deep/8.png", "single.png", "birds/0.png"]);
    let root = tree(pets("").into_iter().chain([".store/7.png".to_string()]));
    let link = |target: &Path, name: &str| symlink(target, root.path().join(name)).unwrap();
    let [within, outside] = [root.path(), elsewhere.path()].map(|path| move |name: &str| path.join(name));
    link(&within("cat/0.png"), "cat/again.png");
    link(&within("dog/1.png"), "cat/a_dog.png");
    link(&within("dog"), "cat/dogs");
    link(&within("cat"), "cat/loop");
    link(root.path(), "cat/root");
    link(Path::new("/"), "cat/everything");
    link(&within("nowhere.png"), "cat/nowhere.png");
    link(&outside("more"), "cat/more");
    link(&outside("more"), "dog/more");
    link(&outside("single.png"), "dog/single.png");
    link(&within(".store/7.png"), "dog/stored.png");
    link(&outside("birds"), "bird");
    symlink(outside("more"), outside("more/deep/up")).unwrap();
    symlink(within("cat"), outside("more/deep/cats")).unwrap();

    let data = open(&root).unwrap();
    assert_eq!(data.classes(), ["bird", "cat", "dog"]);
    let of_class = |class: &str| -> Vec<String> {
        let paths = samples(&data, &root).into_iter().map(|(path, _)| path);
        paths.filter_map(|path| path.strip_prefix(&format!("{class}/")).map(String::from)).collect()
    };
    assert_eq!(of_class("bird"), ["0.png"]);
    assert_eq!(of_class("cat"), ["0.png", "1.png", "2.png", "3.png", "more/9.png", "more/deep/8.png"]);
    assert_eq!(of_class("dog"), ["0.png", "1.png", "2.png", "3.png", "single.png", "stored.png"]);
    assert!(samples(&data, &root).iter().all(|(path, label)| {
        data.classes().iter().position(|class| path.starts_with(class.as_str())) == Some(*label)
    }));
    let ignored = data.ignored_files();
    assert_eq!(ignored.len(), 10, "{ignored:?}");
    let leads_nowhere = ignored.iter().filter(|(_, reason)| reason == "a link that leads nowhere");
    assert_eq!(leads_nowhere.count(), 1);
    // The root itself may be reached by a link.
    let other = tempfile::tempdir().unwrap();
    symlink(root.path(), other.path().join("link")).unwrap();
    assert_eq!(ImageFolder::open(other.path().join("link"), 4).unwrap().len(), data.len());
}

#[test]
fn one_channel_can_be_asked_for() {
    let root = tree(["b/0.png"]);
    fs::create_dir(root.path().join("a")).unwrap();
    image::GrayImage::from_pixel(5, 5, Luma([51])).save(root.path().join("a/0.png")).unwrap();
    let data = options().channels(1).open(root.path()).unwrap();
    assert_eq!(data.image_shape(), [4, 4, 1]);
    let mut pixels = [0.0; 16];
    data.read(0, &mut pixels).unwrap();
    assert_eq!(pixels, [0.2; 16]);
    // PIL: Image.new("RGB", (1, 1), (0, 100, 200)).convert("L").getpixel((0, 0)) is 82.
    data.read(1, &mut pixels).unwrap();
    assert_eq!(pixels, [82.0 / 255.0; 16]);
    assert_eq!(options().open(root.path()).unwrap().image_shape(), [4, 4, 3]);
    for channels in [0, 2, 4] {
        let text = error(options().channels(channels).open(root.path()), &root);
        assert_eq!(text, format!("image_folder: channels: expected 1 or 3, found {channels}"));
    }
}

#[test]
fn splits_are_those_of_decimal_arithmetic_and_keep_each_class_in_the_first() {
    let sizes = |root: &TempDir, fraction: f32| {
        let (train, test) = open(root).unwrap().split(fraction, Rng::seed(1)).unwrap();
        [train, test].map(|data| [0, 1].map(|label| data.samples().iter().filter(|s| s.1 == label).count()))
    };
    let root = tree(images("cat", 10).into_iter().chain(images("dog", 10)));
    assert_eq!(sizes(&root, 0.9), [[9, 9], [1, 1]]);
    assert_eq!(sizes(&root, 0.01), [[1, 1], [9, 9]]);
    assert_eq!(sizes(&root, 0.0), [[0, 0], [10, 10]]);
    assert_eq!(sizes(&root, 1.0), [[10, 10], [0, 0]]);
    let root = tree(images("cat", 5).into_iter().chain(images("dog", 1)));
    assert_eq!(sizes(&root, 0.8), [[4, 1], [1, 0]]);
    assert_eq!(sizes(&root, 0.1), [[1, 1], [4, 0]]);
    let text = error(open(&root).unwrap().split(1.1, Rng::seed(0)), &root);
    assert_eq!(text, "split: fraction: expected a number in [0, 1], found 1.1");
}

#[test]
fn a_broken_image_alone_in_its_batch_is_passed_over_and_listed() {
    let root = tree(images("a", 3).into_iter().chain(images("b", 3)));
    fs::write(root.path().join("b/2.png"), "broken").unwrap();
    let loader = Loader::new(open(&root).unwrap(), 5);
    for _ in 0..2 {
        let counts: Vec<usize> = loader.epoch(0).unwrap().map(|batch| batch.unwrap().labels.len()).collect();
        assert_eq!(counts, [5]);
        let unreadable = loader.unreadable();
        assert_eq!(unreadable.len(), 1, "once, however often it is read");
        assert!(unreadable[0].0.ends_with("b/2.png"));
    }
}

#[test]
fn limits_of_size_can_be_set() {
    let root = tree(pets(""));
    RgbImage::new(300, 200).save(root.path().join("dog/4.png")).unwrap();
    let unreadable = |limits: ImageLimits| {
        let loader = Loader::new(options().limits(limits).open(root.path()).unwrap(), 16);
        loader.epoch(0).unwrap().for_each(drop);
        loader.unreadable().into_iter().map(|(_, reason)| reason).collect::<Vec<_>>()
    };
    assert_eq!(unreadable(ImageLimits::new()), [""; 0]);
    let large = unreadable(ImageLimits::new().max_side(299));
    assert_eq!(large.len(), 1);
    let words = "header: expected at most 299 x 299 pixels and 268435456 bytes (see ImageLimits), found 300 x \
                 200 pixels and 180000 bytes";
    assert!(large[0].ends_with(words), "{}", large[0]);
    let large = unreadable(ImageLimits::new().max_image_bytes(179_999));
    assert_eq!(large.len(), 1);
    assert!(large[0].contains("179999 bytes"), "{}", large[0]);
    let large = unreadable(ImageLimits::new().max_file_bytes(10));
    assert_eq!(large.len(), 9);
    assert!(large[0].contains("at most 10 bytes (ImageLimits::max_file_bytes)"), "{}", large[0]);
}
