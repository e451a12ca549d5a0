//! The report and its options.

use super::{evaluation::Evaluation, mistakes, page};
use crate::{
    Result,
    data::Loader,
    graph::grad_cam_layer,
    io,
    nn::Module,
    train::{Metrics, Trainer},
};
use std::{
    fmt::{self, Display},
    path::Path,
};

/// The most confident mistakes that a page shows, unless another number is set.
const MISTAKES: usize = 12;

/// The report of a training; see [the module](super) for an example.
///
/// [`Report::write`] evaluates the model, in evaluation mode, on all images of the test loader. The
/// loader should neither shuffle nor augment the images, as in
/// [`evaluate`](crate::train::evaluate).
#[derive(Clone)]
pub struct Report<'a> {
    pub(super) model: &'a dyn Module,
    pub(super) trainer: &'a Trainer,
    pub(super) test: &'a Loader,
    pub(super) title: String,
    pub(super) findings: Option<Vec<String>>,
    pub(super) settings: Vec<(String, String)>,
    num_mistakes: usize,
    layer: Option<String>,
}

impl<'a> Report<'a> {
    /// The usual name of the file in [`Trainer::folder`].
    pub const FILE_NAME: &'static str = "report.html";

    /// Creates the report of a trainer that has run, the model that it trained, and the test
    /// images.
    pub fn new(model: &'a dyn Module, trainer: &'a Trainer, test: &'a Loader) -> Report<'a> {
        let name = &trainer.settings().model;
        let title = if name.is_empty() { "Training".into() } else { format!("Training of {name}") };
        Report {
            model,
            trainer,
            test,
            title,
            findings: None,
            settings: vec![],
            num_mistakes: MISTAKES,
            layer: None,
        }
    }

    /// Sets the title of the page, which by default has the name of the model.
    #[must_use]
    pub fn title(self, title: impl Into<String>) -> Report<'a> {
        Report { title: title.into(), ..self }
    }

    /// Adds what a diagnosis of the training has found, one sentence each. If there was a diagnosis
    /// and it has found nothing, the page says so; by default it does not mention one.
    ///
    /// ```
    /// # use skipgrad::{data::{Loader, SyntheticShapes}, prelude::*};
    /// # use skipgrad::{report::Report, train::Trainer};
    /// # let data = SyntheticShapes::with_sizes(4, 4, 0)?;
    /// # let test = Loader::new(data.test(), 4);
    /// # let model = ResNet::cifar_paper(20, 10, &mut Rng::seed(0))?;
    /// # let trainer = Trainer::new(1, Schedule::constant(0.1));
    /// let report = Report::new(&model, &trainer, &test).findings(["a dead ReLU"]);
    /// assert!(report.to_html()?.contains("a dead ReLU"));
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    #[must_use]
    pub fn findings(mut self, findings: impl IntoIterator<Item = impl Display>) -> Report<'a> {
        let found = findings.into_iter().map(|finding| finding.to_string());
        self.findings.get_or_insert_default().extend(found);
        self
    }

    /// Adds a setting of the program, such as the version of the data.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Display) -> Report<'a> {
        self.settings.push((name.into(), value.to_string()));
        self
    }

    /// Sets how many mistakes are shown, those of the highest confidence; 12 by default.
    #[must_use]
    pub fn mistakes(self, count: usize) -> Report<'a> {
        Report { num_mistakes: count, ..self }
    }

    /// Sets the layer whose feature maps Grad-CAM weights, a name as in
    /// [`ModuleExt::feature_maps`](crate::graph::ModuleExt::feature_maps). The default is that of
    /// [`grad_cam_layer`].
    #[must_use]
    pub fn layer(self, layer: impl Into<String>) -> Report<'a> {
        Report { layer: Some(layer.into()), ..self }
    }

    /// Evaluates the model and returns the page.
    ///
    /// # Errors
    /// The errors of the test loader and of the model, and
    /// [`Error::UnknownModule`](crate::Error::UnknownModule) for a layer that the model does not
    /// have.
    pub fn to_html(&self) -> Result<String> {
        Ok(self.evaluate()?.0)
    }

    /// Returns the page and the metrics that it shows.
    fn evaluate(&self) -> Result<(String, Metrics)> {
        let precision = self.trainer.settings().precision;
        let evaluation = Evaluation::new(precision, self.model, self.test, self.num_mistakes)?;
        let layer = match &self.layer {
            Some(layer) => Some(layer.clone()),
            None => grad_cam_layer(self.model, &self.test.dataset().image_shape())?,
        };
        let explained = mistakes::explain(self.model, self.test, &evaluation, layer.as_deref())?;
        let page = page::page(self, &evaluation, &explained, layer.as_deref())?.into_string();
        Ok((page, evaluation.metrics))
    }

    /// Evaluates the model, in the precision of the training, writes the page, atomically, and
    /// returns the metrics that it shows.
    ///
    /// # Errors
    /// As [`Report::to_html`], and [`Error::Io`](crate::Error::Io) if the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<Metrics> {
        let (page, metrics) = self.evaluate()?;
        io::write_atomically(path, page.as_bytes())?;
        Ok(metrics)
    }
}

impl fmt::Debug for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report")
            .field("title", &self.title)
            .field("test", &self.test)
            .field("findings", &self.findings)
            .finish_non_exhaustive()
    }
}
