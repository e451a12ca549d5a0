//! The report of a training: valid HTML that fetches nothing, with the numbers of the history.

#[allow(dead_code, reason = "most helpers are for the other tests that train")]
#[path = "../../main/common/training.rs"]
mod training;

use html5ever::{ParseOpts, parse_document, tendril::TendrilSink, tree_builder::TreeBuilderOpts};
use markup5ever_rcdom::{Handle, NodeData, RcDom};
use skipgrad::{
    Error, Result, Rng, Tensor,
    data::{Images, Loader},
    nn::{Flatten, Linear, Sequential},
    optim::Schedule,
    report::Report,
    train::{Trainer, evaluate, weights_hash},
};
use std::fs;
use training::{loaders, model, sgd, trainer};

/// An element: its name, its attributes, and the text inside of it.
struct Element {
    name: String,
    attributes: Vec<(String, String)>,
    text: String,
}

impl Element {
    fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|attribute| attribute.0 == name).map(|attribute| &*attribute.1)
    }
}

/// Parses a page, which must have no errors, and returns its elements.
fn elements(page: &str) -> Vec<Element> {
    let tree_builder = TreeBuilderOpts { exact_errors: true, ..TreeBuilderOpts::default() };
    let mut options = ParseOpts { tree_builder, ..ParseOpts::default() };
    options.tokenizer.exact_errors = true;
    let dom = parse_document(RcDom::default(), options).one(page);
    let errors = dom.errors.borrow();
    assert!(errors.is_empty(), "{errors:?}");
    let mut elements = vec![];
    collect(&dom.document, &mut elements);
    elements
}

/// Adds the elements below a node, and returns the text.
fn collect(node: &Handle, elements: &mut Vec<Element>) -> String {
    let place = elements.len();
    if let NodeData::Element { name, attrs, .. } = &node.data {
        let pair = |attr: &html5ever::Attribute| (attr.name.local.to_string(), attr.value.to_string());
        let attributes = attrs.borrow().iter().map(pair).collect();
        elements.push(Element { name: name.local.to_string(), attributes, text: String::new() });
    }
    let mut text = match &node.data {
        NodeData::Text { contents } => contents.borrow().to_string(),
        _ => String::new(),
    };
    for child in node.children.borrow().iter() {
        text += &collect(child, elements);
    }
    if matches!(node.data, NodeData::Element { .. }) {
        elements[place].text.clone_from(&text);
    }
    text
}

/// Checks that nothing in a page is fetched from anywhere.
fn assert_fetches_nothing(page: &str) {
    for element in elements(page) {
        assert!(
            !["script", "iframe", "object", "embed", "base"].contains(&&*element.name),
            "{}",
            element.name
        );
        for (name, value) in &element.attributes {
            let is_reference = ["src", "href", "srcset", "data", "action", "poster"].contains(&&**name);
            let is_inside = value.starts_with("data:") || value.starts_with('#');
            assert!(!is_reference || is_inside, "{name}={value}");
            assert!(!name.starts_with("on"), "{name}={value}");
            assert!(name != "style" || !value.contains("url("), "{value}");
        }
        if element.name == "style" {
            assert!(!element.text.contains("url(") && !element.text.contains("@import"), "{}", element.text);
        }
    }
}

/// A training of two epochs, with its folder's report.
fn trained() -> Result<(Sequential, Trainer, Loader)> {
    let ((train, test), mut model) = (loaders(1), model(1));
    let mut trainer = trainer().epochs(2);
    trainer.run(&mut model, &mut sgd(), &train, &test, |_| ())?;
    Ok((model, trainer, test))
}

#[test]
fn the_page_is_valid_and_fetches_nothing() -> Result<()> {
    let (model, trainer, test) = trained()?;
    let page = Report::new(&model, &trainer, &test).findings(["a < b & \"c\""]).to_html()?;
    assert_fetches_nothing(&page);
    assert!(page.len() < 300_000, "{}", page.len());
    let elements = elements(&page);
    let titles: Vec<&str> = elements.iter().filter(|e| e.name == "h2").map(|e| &*e.text).collect();
    let expected = [
        "Findings of the diagnosis",
        "Curves",
        "Confusion matrix",
        "Classes",
        "Most confident mistakes",
        "Calibration",
        "Epochs",
        "Settings and machine",
    ];
    assert_eq!(titles, expected);
    assert!(elements.iter().any(|e| e.name == "li" && e.text == "a < b & \"c\""));
    // Four curves and two diagrams of the calibration.
    let plots = elements.iter().filter(|e| e.attribute("class") == Some("plot")).count();
    assert_eq!(plots, 6);
    let policy = elements.iter().find_map(|e| e.attribute("content").filter(|_| e.name == "meta"));
    assert!(policy.unwrap().starts_with("default-src 'none'"));
    Ok(())
}

#[test]
fn numbers_are_those_of_the_history() -> Result<()> {
    let (model, trainer, test) = trained()?;
    let page = Report::new(&model, &trainer, &test).to_html()?;
    let elements = elements(&page);
    let values: Vec<&str> = elements.iter().filter_map(|e| e.attribute("value")).collect();
    for r in &trainer.history().records {
        let numbers = [r.lr, r.train_loss, r.train_accuracy, r.test_loss, r.test_accuracy, r.test_top5];
        let row: Vec<String> = numbers
            .iter()
            .map(f32::to_string)
            .chain([r.seconds.to_string(), r.images_per_second.unwrap().to_string()])
            .collect();
        assert!(values.windows(row.len()).any(|window| *window == row[..]), "{row:?} in {values:?}");
        let hash = format!("{:016x}", r.weights_hash.unwrap());
        assert!(elements.iter().any(|e| e.name == "code" && e.text == hash));
    }
    let metrics = evaluate(&model, &test)?;
    let tile = elements.iter().find(|e| e.attribute("class") == Some("value")).unwrap();
    assert_eq!(tile.text, format!("{:.1} %", 100.0 * metrics.accuracy()));
    let text = &elements[0].text;
    for expected in ["with the weights of epoch 2.", "OneCycle", "nesterov", "RandomCrop", "7 of 20"] {
        let expected = expected.replace("7 of 20", &format!("{} of 20 images", metrics.top1));
        assert!(text.contains(&expected), "{expected}");
    }
    // The support of the ten classes, and their sum.
    let counted: usize = elements
        .iter()
        .filter(|e| e.name == "td" && e.attribute("class").is_some_and(|class| class.starts_with("right")))
        .map(|e| e.text.parse().unwrap_or(0))
        .sum();
    assert_eq!(counted, metrics.top1, "the diagonal of the confusion matrix");
    Ok(())
}

#[test]
fn mistakes_have_their_picture_and_two_heat_maps() -> Result<()> {
    let (model, trainer, test) = trained()?;
    let count = |report: Report<'_>| -> Result<[usize; 2]> {
        let elements = elements(&report.to_html()?);
        Ok(["image", "use"].map(|name| elements.iter().filter(|e| e.name == name).count()))
    };
    assert_eq!(count(Report::new(&model, &trainer, &test).mistakes(5))?, [15, 10]);
    assert_eq!(count(Report::new(&model, &trainer, &test).mistakes(0))?, [0, 0]);
    // What lies after the pooling has no maps, and the page has the pictures only.
    assert_eq!(count(Report::new(&model, &trainer, &test).mistakes(5).layer("fc"))?, [5, 0]);
    let error = Report::new(&model, &trainer, &test).layer("layer9").to_html().unwrap_err();
    assert!(matches!(error, Error::UnknownModule { .. }), "{error}");
    Ok(())
}

/// A linear network for gray images of these classes, untrained.
fn linear(classes: &[&str]) -> Result<(Sequential, Images)> {
    let mut rng = Rng::seed(3);
    let count = 2 * classes.len();
    let pixels = Tensor::uniform([count, 4, 4, 1], 0.0, 1.0, &mut rng)?;
    let labels = (0..count).map(|i| i % classes.len()).collect();
    let images = Images::new(pixels, labels, classes.iter().copied())?;
    Ok((Sequential::new().push(Flatten).push(Linear::new(16, classes.len(), &mut rng)?), images))
}

#[test]
fn names_are_escaped() -> Result<()> {
    let name = "<script>alert(1)</script>\" onload=\"x";
    let (model, images) = linear(&[name, "b & c"])?;
    let trainer = Trainer::new(1, Schedule::constant(0.1)).model_name(name);
    let test = Loader::new(images, 4);
    let report = Report::new(&model, &trainer, &test).setting(name, name).findings([name]);
    let page = report.to_html()?;
    assert_fetches_nothing(&page);
    let elements = elements(&page);
    assert!(elements.iter().any(|e| e.name == "th" && e.text == name));
    assert!(elements.iter().any(|e| e.name == "title" && e.text == format!("Training of {name}")));
    // Nothing was trained: there is no history, and no diagnosis is mentioned without findings.
    assert!(page.contains("No epoch is finished") && !page.contains("id=\"curves\""));
    let without = Report::new(&model, &trainer, &test);
    assert!(!without.to_html()?.contains("diagnosis"));
    assert!(without.findings([""; 0]).to_html()?.contains("The diagnosis has found nothing."));
    Ok(())
}

#[test]
fn many_classes_are_a_picture_and_a_folded_table() -> Result<()> {
    let names: Vec<String> = (0..120).map(|i| format!("class number {i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (model, images) = linear(&names)?;
    let trainer = Trainer::new(1, Schedule::constant(0.1));
    let page = Report::new(&model, &trainer, &Loader::new(images, 50)).title("Many").to_html()?;
    assert_fetches_nothing(&page);
    let elements = elements(&page);
    let matrix = elements.iter().find(|e| e.attribute("class") == Some("matrix")).unwrap();
    assert_eq!((matrix.name.as_str(), matrix.attribute("width")), ("img", Some("120")));
    assert!(elements.iter().any(|e| e.name == "summary" && e.text == "All 120 classes"));
    assert!(elements.iter().any(|e| e.name == "h1" && e.text == "Many"));
    Ok(())
}

#[test]
fn a_page_is_written_whole_or_not_at_all() -> Result<()> {
    let (model, images) = linear(&["a", "b"])?;
    let (trainer, test) = (Trainer::new(1, Schedule::constant(0.1)), Loader::new(images, 4));
    let report = Report::new(&model, &trainer, &test);
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing").join(Report::FILE_NAME);
    let error = report.write(&missing).unwrap_err();
    assert!(matches!(&error, Error::Io { path, .. } if *path == missing), "{error}");
    let path = folder.path().join(Report::FILE_NAME);
    fs::write(&path, "before").unwrap();
    // What goes wrong before the page is complete leaves the file as it was.
    assert!(report.clone().layer("none").write(&path).is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "before");
    report.write(&path)?;
    assert!(fs::read_to_string(&path).unwrap().ends_with("</html>"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    Ok(())
}

#[test]
fn a_resumed_training_has_the_hashes_of_an_unbroken_one() -> Result<()> {
    let (unbroken, trainer_of_it, _) = trained()?;
    let folder = tempfile::tempdir().unwrap();
    let ((train, test), mut first) = (loaders(1), model(1));
    let mut once = trainer().epochs(1).folder(folder.path());
    once.run(&mut first, &mut sgd(), &train, &test, |_| ())?;
    let mut model = model(2);
    let (mut optimizer, mut trainer) = (sgd(), trainer().epochs(2).folder(folder.path()));
    trainer.resume(&mut model, &mut optimizer, folder.path().join(Trainer::LAST))?;
    trainer.run(&mut model, &mut optimizer, &train, &test, |_| ())?;
    let hashes =
        |trainer: &Trainer| trainer.history().records.iter().map(|r| r.weights_hash).collect::<Vec<_>>();
    assert_eq!(hashes(&trainer), hashes(&trainer_of_it));
    assert_eq!(hashes(&trainer)[1], Some(weights_hash(&unbroken)));
    Ok(())
}
