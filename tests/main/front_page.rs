//! The pages of the repository as documentation of the crate: their links and the picture.

use base64::{Engine, engine::general_purpose::STANDARD};
use std::fs;

#[test]
fn the_embedded_picture_is_that_of_the_readme() {
    let embedded = fs::read_to_string("docs/training.svg.base64").unwrap();
    assert_eq!(STANDARD.decode(embedded.trim_end()).unwrap(), fs::read("docs/training.svg").unwrap());
}

/// A link that only a page defines would lead to a file that the documentation does not have.
#[test]
fn every_link_of_a_page_is_defined_for_the_documentation_too() {
    let defined = fs::read_to_string("src/guide/links.md").unwrap();
    let pages = ["train", "fine-tune", "look-inside", "deploy", "extend", "README"];
    for page in pages.map(|name| format!("docs/{name}.md")).iter().chain([&"README.md".to_string()]) {
        let text = fs::read_to_string(page).unwrap();
        assert!(!text.contains(".md)"), "{page}: link by reference");
        for line in text.lines().filter(|line| line.starts_with('[')) {
            let Some((label, file)) = line.split_once("]: ") else { continue };
            let folder = if page.starts_with("docs/") { "docs/" } else { "" };
            assert!(fs::exists(format!("{folder}{file}")).unwrap(), "{page}: {line}");
            assert!(label == "[picture" || defined.contains(&format!("{label}]: ")), "{page}: {line}");
        }
    }
}
