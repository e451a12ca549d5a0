//! The names of folders and files: which are hidden, which are parts of a dataset, how they sort.

use std::{cmp::Ordering, ffi::OsStr};

/// Names of what systems and programs leave beside a user's files, in lower case.
const HIDDEN: [&str; 13] = [
    "@eadir",
    "@recycle",
    "@tmp",
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "desktop.ini",
    "ehthumbs.db",
    "icon\r",
    "lost+found",
    "recycler",
    "system volume information",
    "thumbs.db",
];

/// Returns whether a file or folder is none of a user's images: its name begins with `.` or `__`,
/// or is one that a system or a program gives.
pub(super) fn is_hidden(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with('.') || name.starts_with("__") || HIDDEN.contains(&name.to_lowercase().as_str())
}

/// A part of a dataset, each with images of all classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Train,
    Validation,
    Test,
}

impl Part {
    /// Returns the part that a folder of this name has, by one of the usual names in any case.
    pub(super) fn of(name: &str) -> Option<Part> {
        let name = name.to_lowercase();
        // "train_set", "test-images", "Training Data"
        let base = ["set", "data", "images", "imgs", "split"].iter().find_map(|last| name.strip_suffix(last));
        let base = base.unwrap_or(&name).trim_end_matches(['_', '-', ' ']);
        match base {
            "train" | "training" | "trn" => Some(Part::Train),
            "val" | "valid" | "validate" | "validation" | "dev" => Some(Part::Validation),
            "test" | "testing" | "tst" | "eval" | "evaluate" | "evaluation" => Some(Part::Test),
            _ => None,
        }
    }
}

/// Compares names as people sort them: a run of digits by its value, so that 2 is before 10.
pub(super) fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut rest_a, mut rest_b) = (a, b);
    loop {
        let (digits_a, digits_b) = (digits(rest_a), digits(rest_b));
        let order = if digits_a.is_empty() || digits_b.is_empty() {
            let (x, y) = (rest_a.chars().next(), rest_b.chars().next());
            let len = |c: Option<char>| c.map_or(0, char::len_utf8);
            (rest_a, rest_b) = (&rest_a[len(x)..], &rest_b[len(y)..]);
            if x.is_none() && y.is_none() {
                // The names differ in leading zeros at most.
                return a.cmp(b);
            }
            x.cmp(&y)
        } else {
            (rest_a, rest_b) = (&rest_a[digits_a.len()..], &rest_b[digits_b.len()..]);
            let (x, y) = (digits_a.trim_start_matches('0'), digits_b.trim_start_matches('0'));
            x.len().cmp(&y.len()).then(x.cmp(y))
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// Returns the digits that a text begins with.
fn digits(text: &str) -> &str {
    &text[..text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_systems_and_programs_are_hidden() {
        for name in [
            ".DS_Store",
            "._0.png",
            ".ipynb_checkpoints",
            ".git",
            "__MACOSX",
            "__pycache__",
            "@eaDir",
            "Thumbs.db",
            "thumbs.db",
            "desktop.ini",
            "Desktop.ini",
            "$RECYCLE.BIN",
            "lost+found",
            "System Volume Information",
            "ehthumbs.db",
        ] {
            assert!(is_hidden(OsStr::new(name)), "{name}");
        }
        for name in ["cat", "_cat", "0", "my.cat", "eaDir", "@cat", "cat__dog", "recycle"] {
            assert!(!is_hidden(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn parts_have_many_names() {
        let all = |names: &[&str], part: Option<Part>| {
            for name in names {
                assert_eq!(Part::of(name), part, "{name}");
            }
        };
        all(&["train", "Train", "TRAINING", "train_set", "training-data", "Train Images"], Some(Part::Train));
        all(&["val", "Valid", "validation", "VALIDATION", "dev", "val_set"], Some(Part::Validation));
        all(&["test", "Test", "testing", "eval", "testset", "Evaluation"], Some(Part::Test));
        all(&["cat", "trains", "tests", "set", "data", "images", "devil", "value", ""], None);
    }

    #[test]
    fn numbers_sort_by_their_value_in_the_natural_order() {
        let mut names = ["10", "b2", "2", "1", "b10", "a", "02", "b", "2a", "b2c", "0", "11", "b02"];
        names.sort_by(|a, b| natural_order(a, b));
        assert_eq!(names, ["0", "1", "02", "2", "2a", "10", "11", "a", "b", "b02", "b2", "b2c", "b10"]);
        let large = ["99999999999999999999999", "100000000000000000000000"];
        assert_eq!(natural_order(large[0], large[1]), Ordering::Less);
        assert_eq!(natural_order("ä1", "ä1"), Ordering::Equal);
    }
}
