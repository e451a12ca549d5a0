//! The modules of the crate: who may import whom, where `unsafe` may stand, how long a file may be.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// A module, the modules it may import besides itself, and why no others. Errors and random numbers are everyone's; `kernels` is the
/// crate below.
const ROOMS: [(&str, &[&str], &str); 13] = [
    ("cpu", &["kernels"], "what the processor has is asked of the kernels"),
    ("tensor", &["kernels"], "a tensor is numbers in memory and knows nothing of gradients"),
    ("autograd", &["tensor"], "the tape must not know what a convolution is, else every op edits the engine"),
    ("ops", &["kernels", "tensor", "autograd"], "an op has no state and no name"),
    (
        "nn",
        &["tensor", "autograd", "ops"],
        "a layer is state around ops; arithmetic on slices belongs in kernels",
    ),
    ("blocks", &["tensor", "autograd", "ops", "nn"], "a block is written with what a user also has"),
    (
        "models",
        &["tensor", "autograd", "ops", "nn", "blocks"],
        "a model is written with what a user also has",
    ),
    ("optim", &["kernels", "tensor", "autograd"], "an optimizer sees named state only"),
    ("data", &["tensor"], "loader threads carry tensors; a tape cannot cross a thread"),
    ("io", &["tensor", "autograd"], "a format is names and tensors; a second format must not need a model"),
    (
        "onnx",
        &["tensor", "autograd", "ops", "nn", "io"],
        "a network in a file is the operations of its pass, whatever model runs them",
    ),
    (
        "train",
        &["kernels", "tensor", "autograd", "ops", "nn", "blocks", "models", "optim", "data", "io"],
        "training knows every room",
    ),
    (
        "predict",
        &["kernels", "tensor", "autograd", "nn", "data"],
        "a predictor runs any module on any picture; it trains nothing and reads no weights",
    ),
];

/// The longest file without its tests.
const LINES: usize = 400;

/// A source file: its path below `src`, with `/`, and its text before the tests.
struct Source {
    path: String,
    code: String,
}

impl Source {
    fn room(&self) -> &str {
        self.path.split(['/', '.']).next().unwrap_or_default()
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut files: Vec<PathBuf> = vec![];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    let read = |file: PathBuf| {
        let names: Vec<_> = file.strip_prefix(&root).unwrap().iter().map(|n| n.to_string_lossy()).collect();
        let text = fs::read_to_string(&file).unwrap().replace("\r\n", "\n");
        let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
        Source { path: names.join("/"), code: code.to_string() }
    };
    files.into_iter().map(read).collect()
}

/// The code with comments blanked, line by line: an example in a comment may import everything.
fn without_comments(code: &str) -> String {
    code.lines().map(|line| line.split("//").next().unwrap_or_default()).fold(
        String::new(),
        |mut out, line| {
            let _ = writeln!(out, "{line}");
            out
        },
    )
}

/// The names directly below the crate that the code mentions, each with its line number: of `crate::ops::Padding` and of
/// `crate::{Error, ops::{Conv2dOptions, Padding}}` these are `ops`, and `Error` and `ops`.
fn imports(code: &str) -> Vec<(usize, String)> {
    let code = without_comments(code);
    let mut found = vec![];
    for (at, prefix) in code.match_indices("crate::") {
        let begin = at + prefix.len();
        for (offset, item) in items(&code[begin..]) {
            let name = item.trim_start();
            let line = code[..begin + offset + item.len() - name.len()].matches('\n').count() + 1;
            let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
            found.push((line, name[..end].to_string()));
        }
    }
    found
}

/// What a path goes on with, each with its offset: the items of a group in braces, or the one thing that follows.
fn items(path: &str) -> Vec<(usize, &str)> {
    if !path.starts_with('{') {
        return vec![(0, path)];
    }
    let (mut items, mut begin, mut depth) = (vec![], 1, 0);
    for (i, c) in path.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && c == ',') {
            items.push((begin, &path[begin..i]));
            begin = i + 1;
        }
        if depth == 0 {
            break;
        }
    }
    items
}

/// The module where a name directly below the crate lives.
fn home(name: &str) -> Option<&str> {
    match name {
        "Tensor" | "Shape" | "memory" => Some("tensor"),
        "state" => Some("autograd"),
        "kernels" => Some("kernels"),
        name => ROOMS.iter().map(|room| room.0).find(|room| *room == name),
    }
}

fn violations(sources: &[Source]) -> Vec<String> {
    let mut violations = vec![];
    for source in sources {
        let Some((room, allowed, reason)) = ROOMS.iter().find(|room| room.0 == source.room()) else {
            continue;
        };
        for (line, name) in imports(&source.code) {
            if let Some(home) = home(&name)
                && home != *room
                && !allowed.contains(&home)
            {
                let text = source.code.lines().nth(line - 1).unwrap_or_default().trim();
                violations.push(format!("src/{}:{line}: {room} -> {home}: `{text}`: {reason}", source.path));
            }
        }
    }
    violations
}

#[test]
fn rooms_import_only_what_they_may() {
    let violations = violations(&sources());
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

#[test]
fn files_are_short() {
    let long = |source: Source| {
        let lines = source.code.lines().count();
        (lines > LINES).then(|| format!("src/{}: {lines} lines before its tests", source.path))
    };
    let long: Vec<String> = sources().into_iter().filter_map(long).collect();
    assert!(long.is_empty(), "more than {LINES} lines; one idea a file:\n{}", long.join("\n"));
}

/// The tests above can fail: each kind of import is seen.
#[test]
fn a_forbidden_import_is_found() {
    let found = |path: &str, code: &str| violations(&[Source { path: path.into(), code: code.into() }]).len();
    let named = &[Source {
        path: "ops/relu.rs".into(),
        code: "use crate::{\n    Error,\n    nn::Relu,\n};\n".into(),
    }];
    assert_eq!(
        violations(named),
        ["src/ops/relu.rs:3: ops -> nn: `nn::Relu,`: an op has no state and no name"]
    );
    assert_eq!(
        found("autograd/tape.rs", "use crate::{\n    Error,\n    ops::{Padding, Pool2dOptions},\n};\n"),
        1
    );
    assert_eq!(found("ops/relu.rs", "use crate::{Error, autograd::{Var, nn}, kernels};\n"), 0);
    assert_eq!(found("ops/relu.rs", "use crate::{autograd::{Var}, nn::Module};\n"), 1);
    assert_eq!(found("models/resnet.rs", "fn f() { crate::kernels::relu(); }\n"), 1);
    assert_eq!(found("models/resnet.rs", "/// use crate::kernels;\nuse crate::{blocks, nn};\n"), 0);
    assert_eq!(found("data/loader.rs", "use crate::{Result, state};\n"), 1);
    assert_eq!(found("io.rs", "use crate::models::ResNet;\n"), 1);
    assert_eq!(found("lib.rs", "pub use crate::models::ResNet;\n"), 0);
}
