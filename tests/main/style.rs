//! What the compiler and the formatter do not check: the length of functions and comments, and
//! words that have given way to the field's.

use crate::common::files::{before_tests, rust_files};

/// The most lines of a function, from `fn` to its closing brace.
const FUNCTION_LINES: usize = 60;

/// The most columns of a line with a comment.
const COMMENT_COLUMNS: usize = 100;

/// Names that code once had, and that the field has other words for.
const OLD_NAMES: &[&str] = &[
    "AHEAD",
    "Again",
    "Ahead",
    "Augment",
    "Drawn",
    "EndOfColumns",
    "Ended",
    "Ending",
    "Features",
    "Flip",
    "Follow",
    "Guess",
    "Kept",
    "Ledger",
    "Line",
    "Looks",
    "PadCrop",
    "Pipeline",
    "Revision",
    "Seen",
    "Slot",
    "SlotMut",
    "assumed",
    "computed_again_by",
    "forgive",
    "leaves_out",
    "looks_at",
    "looks_inside",
    "meant",
    "on_pool",
    "spelling",
    "wrt",
    "zero_last_gamma",
];

/// Functions whose names are too common as words to look for them anywhere else.
const OLD_FUNCTIONS: &[&str] = &["dry", "gate", "is_dry", "keep", "ran"];

/// What comments once said.
const OLD_PHRASES: &[&str] = &["so many", "to be had", "absurd"];

/// Spellings that are not American.
const BRITISH: &[&str] = &[
    "behaviour",
    "colour",
    "grey",
    "initialise",
    "initialised",
    "normalisation",
    "normalise",
    "normalised",
    "normalises",
    "optimise",
    "optimised",
    "optimiser",
    "optimisers",
];

/// The files with code that users read.
fn library() -> impl Iterator<Item = (String, String)> {
    ["src", "crates"].into_iter().flat_map(rust_files)
}

/// All files but this one, which names what it forbids.
fn everything() -> impl Iterator<Item = (String, String)> {
    let others = ["tests", "examples", "benches", "fuzz"].into_iter().flat_map(rust_files);
    library().chain(others).filter(|(path, _)| path != "tests/main/style.rs" && !path.contains("/target/"))
}

/// The words of a line: identifiers, and words of comments.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// The code and the comment of a line. Slashes within a string look like a comment.
fn split(line: &str) -> (&str, &str) {
    line.split_at(line.find("//").unwrap_or(line.len()))
}

/// Calls `found` with each line and returns where it says what is wrong.
fn complaints(
    files: impl Iterator<Item = (String, String)>,
    found: impl Fn(&str) -> Option<String>,
) -> Vec<String> {
    let in_file = |(path, text): (String, String)| {
        let lines = text.lines().enumerate();
        let wrong = lines.filter_map(|(i, line)| Some(format!("{path}:{}: {}", i + 1, found(line)?)));
        wrong.collect::<Vec<_>>()
    };
    files.flat_map(in_file).collect()
}

#[track_caller]
fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "{}:\n{}", complaints.len(), complaints.join("\n"));
}

/// The name of a function that begins on a line.
fn function(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    loop {
        if let Some(name) = rest.strip_prefix("fn ") {
            return words(name).next();
        }
        let (word, after) = rest.split_once(' ')?;
        let qualifier = word.starts_with("pub")
            || ["const", "unsafe", "extern", "async"].contains(&word)
            || word.starts_with('"');
        if !qualifier {
            return None;
        }
        rest = after;
    }
}

/// The functions that are longer than `most` lines: the number of the first, the name, how many.
/// In formatted code a function ends at the first brace that stands as far to the left as `fn`.
fn long_functions(code: &str, most: usize) -> Vec<(usize, &str, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut long = vec![];
    for (i, line) in lines.iter().enumerate() {
        let Some(name) = function(line) else { continue };
        let indent = &line[..line.len() - line.trim_start().len()];
        let ends = |line: &&str| {
            let rest = line.strip_prefix(indent).unwrap_or_default();
            rest == "}" || (!rest.starts_with(' ') && (rest.ends_with(';') || rest.ends_with(" }")))
        };
        let count = lines[i..].iter().position(ends).map_or(0, |last| last + 1);
        if count > most {
            long.push((i + 1, name, count));
        }
    }
    long
}

#[test]
fn functions_are_short() {
    let mut long = vec![];
    for (path, text) in library().filter(|(path, _)| !path.ends_with("/tests.rs")) {
        for (line, name, count) in long_functions(before_tests(&text), FUNCTION_LINES) {
            long.push(format!("{path}:{line}: {name}: {count} lines"));
        }
    }
    assert_none(&long);
}

#[test]
fn comments_are_narrow() {
    assert_none(&complaints(everything(), |line| {
        let (_, comment) = split(line);
        let columns = line.chars().count();
        (!comment.is_empty() && columns > COMMENT_COLUMNS).then(|| format!("{columns} columns"))
    }));
}

#[test]
fn old_names_are_gone() {
    assert_none(&complaints(everything(), |line| {
        let (code, _) = split(line);
        let name = words(code).find(|word| OLD_NAMES.contains(word));
        let function = function(code).filter(|name| OLD_FUNCTIONS.contains(name));
        Some(name.or(function)?.to_string())
    }));
}

#[test]
fn old_phrases_are_gone() {
    assert_none(&complaints(everything(), |line| {
        let (_, comment) = split(line);
        let comment = comment.to_lowercase();
        Some(OLD_PHRASES.iter().find(|phrase| comment.contains(*phrase))?.to_string())
    }));
}

#[test]
fn spelling_is_american() {
    // The names of ImageNet's classes are as published.
    let files = library().filter(|(path, _)| path != "src/data/imagenet.rs");
    assert_none(&complaints(files, |line| {
        let line = line.to_lowercase();
        words(&line).find(|word| BRITISH.contains(word)).map(str::to_string)
    }));
}

/// The tests above can fail.
#[test]
fn long_functions_are_found() {
    let code = "\
impl A {
    pub(crate) const fn short(&self) -> usize { 1 }

    fn declared(
        a: usize,
    ) -> usize;

    unsafe fn four<T>(
        a: T,
    ) {
    }
}

fn three() {
    if true { f(); }
}
";
    assert_eq!(long_functions(code, 3), [(8, "four", 4)]);
    assert_eq!(long_functions(code, 2), [(4, "declared", 3), (8, "four", 4), (14, "three", 3)]);
    assert_eq!(split("a(); // b").1, "// b");
    assert_eq!(words("a.wrt(b_c)").collect::<Vec<_>>(), ["a", "wrt", "b_c"]);
}
