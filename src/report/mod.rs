//! The report of a training: one HTML file that shows what happened, and event files for
//! TensorBoard.
//!
//! [`Report`] (feature `report`) evaluates the network once and writes a page with curves,
//! confusion matrix, classes, the most confident mistakes with Grad-CAM, calibration, settings and
//! machine. The page is one file. It reads nothing from a network, and has no scripts. The module
//! `tensorboard` (feature `tensorboard`) writes scalars that TensorBoard shows.
//!
#![cfg_attr(
    feature = "report",
    doc = "
```
use skipgrad::{data::{Loader, SyntheticShapes}, prelude::*, report::Report, train::Trainer};
let data = SyntheticShapes::with_sizes(32, 32, 0)?;
let (train, test) = (Loader::new(data.train(), 16).shuffle(0), Loader::new(data.test(), 32));
let mut model = ResNet::cifar_paper(20, 10, &mut Rng::seed(0))?;
let mut trainer = Trainer::new(1, Schedule::constant(0.01)).model_name(\"resnet20\");
trainer.run(&mut model, &mut Sgd::new(0.0).momentum(0.9), &train, &test, |_| ())?;

let page = Report::new(&model, &trainer, &test).to_html()?; // or .write(\"report.html\")?
assert!(page.starts_with(\"<!DOCTYPE html>\") && page.contains(\"Confusion matrix\"));
# Ok::<(), skipgrad::Error>(())
```
"
)]

#[cfg(feature = "report")]
mod confusion;
#[cfg(feature = "report")]
mod evaluation;
#[cfg(feature = "report")]
mod format;
#[cfg(feature = "report")]
mod machine;
#[cfg(feature = "report")]
mod mistakes;
#[cfg(feature = "report")]
mod page;
#[cfg(feature = "report")]
mod picture;
#[cfg(feature = "report")]
mod plot;
#[cfg(feature = "report")]
mod settings;
#[cfg(feature = "report")]
mod tables;
#[cfg(feature = "tensorboard")]
pub mod tensorboard;
#[cfg(feature = "report")]
mod training_report;

#[cfg(feature = "report")]
pub use plot::curves_to_svg;
#[cfg(feature = "report")]
pub use training_report::Report;
