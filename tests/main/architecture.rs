//! The modules of the crate: who may import whom, that none is `unsafe`, how long a file may be.

use crate::common::files::{before_tests, rust_files};
use std::fmt::Write as _;

/// A module, the modules it may import besides itself, and why no others. Errors, precisions and
/// random numbers are everyone's; `kernels` is the crate below.
const MODULES: [(&str, &[&str], &str); 16] = [
    ("cpu", &["kernels"], "what the processor has is asked of the kernels"),
    ("tensor", &["kernels"], "a tensor is elements in memory and knows nothing of gradients"),
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
    (
        "graph",
        &["tensor", "autograd", "nn"],
        "a graph is read from any module; it knows no operation but by its kind",
    ),
    ("optim", &["kernels", "tensor", "autograd"], "an optimizer sees named state only"),
    ("data", &["tensor", "io"], "loader threads carry tensors; a tape cannot cross a thread"),
    ("io", &["tensor", "autograd"], "a format is names and tensors; a second format must not need a model"),
    (
        "onnx",
        &["tensor", "autograd", "nn", "graph", "io"],
        "a network in a file is the operations of its graph, whatever model runs them",
    ),
    (
        "inference",
        &["kernels", "tensor", "autograd", "ops", "nn", "graph"],
        "a compiled network is made of the operations of a graph, whatever blocks they are from",
    ),
    (
        "train",
        &["tensor", "autograd", "ops", "nn", "graph", "blocks", "models", "optim", "data", "io", "inference"],
        "training uses every module",
    ),
    (
        "predict",
        &["tensor", "autograd", "nn", "data", "inference"],
        "a predictor runs any module on any picture; it trains nothing and reads no weights",
    ),
    (
        "report",
        &["cpu", "tensor", "autograd", "nn", "graph", "data", "io", "inference", "train"],
        "a report reads what a training has left, and changes nothing",
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
    fn module(&self) -> &str {
        self.path.split(['/', '.']).next().unwrap_or_default()
    }
}

fn sources() -> Vec<Source> {
    let source = |(path, text): (String, String)| Source {
        path: path.trim_start_matches("src/").to_string(),
        code: before_tests(&text).to_string(),
    };
    rust_files("src").into_iter().map(source).collect()
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

/// The names directly below the crate that the code mentions, each with its line number: of
/// `crate::ops::Padding` and of `crate::{Error, ops::{Conv2dOptions, Padding}}` these are `ops`,
/// and `Error` and `ops`.
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

/// What a path goes on with, each with its offset: the items of a group in braces, or the one thing
/// that follows.
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
        name => MODULES.iter().map(|module| module.0).find(|module| *module == name),
    }
}

fn violations(sources: &[Source]) -> Vec<String> {
    let mut violations = vec![];
    for source in sources {
        let Some((module, allowed, reason)) = MODULES.iter().find(|module| module.0 == source.module())
        else {
            continue;
        };
        for (line, name) in imports(&source.code) {
            if let Some(home) = home(&name)
                && home != *module
                && !allowed.contains(&home)
            {
                let text = source.code.lines().nth(line - 1).unwrap_or_default().trim();
                violations
                    .push(format!("src/{}:{line}: {module} -> {home}: `{text}`: {reason}", source.path));
            }
        }
    }
    violations
}

#[test]
fn modules_import_only_what_they_may() {
    let violations = violations(&sources());
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

#[test]
fn unsafe_is_forbidden_outside_of_the_kernels() {
    let sources = sources();
    let lib = sources.iter().find(|source| source.path == "lib.rs").unwrap();
    assert!(lib.code.contains("#![forbid(unsafe_code)]"));
}

#[test]
fn files_are_short() {
    let long = |(path, text): (String, String)| {
        let lines = before_tests(&text).lines().count();
        (lines > LINES).then(|| format!("{path}: {lines} lines before its tests"))
    };
    let long: Vec<String> = ["src", "crates"].into_iter().flat_map(rust_files).filter_map(long).collect();
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
