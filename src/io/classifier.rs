//! The classifier of a network, which libraries give different names and different numbers of
//! layers.

use super::weights_file::WeightsFile;
use crate::Shape;

/// The names that libraries give the classifier, each of which stands for all others.
pub(super) const CLASSIFIERS: [&str; 5] = ["fc", "linear", "classifier", "head", "head.fc"];

/// Names that only Keras and collections of networks give it.
const OTHERS: [&str; 4] = ["predictions", "fc1000", "last_linear", "logits"];

/// The path of a layer in a classifier.
pub(super) struct Layer<'a> {
    /// The path of the classifier, with the parts of the network that it is in.
    pub(super) classifier: &'a str,
    /// The place of the layer, if the classifier is a sequence: 1 for `fc.1`.
    pub(super) index: Option<usize>,
}

impl Layer<'_> {
    /// The place in the network, from which the classifier at the shortest path is told.
    fn depth(&self) -> usize {
        self.classifier.matches('.').count()
    }
}

/// Returns where the module at `path` is in a classifier, if its name is one of a classifier.
pub(super) fn layer(path: &str) -> Option<Layer<'_>> {
    let is_classifier = |path: &str| {
        CLASSIFIERS.iter().chain(&OTHERS).any(|name| {
            path.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('.'))
        })
    };
    if is_classifier(path) {
        return Some(Layer { classifier: path, index: None });
    }
    let (classifier, index) = path.rsplit_once('.')?;
    let index = index.parse().ok()?;
    is_classifier(classifier).then_some(Layer { classifier, index: Some(index) })
}

impl WeightsFile {
    /// Returns the number of outputs of the classifier, which is the number of classes.
    ///
    /// The classifier is told by its name: those of torchvision, timm, transformers, Keras and
    /// others are known (`fc`, `classifier`, `head.fc`, `predictions`), also below a prefix. It may
    /// be a linear layer, a 1x1 convolution, or a sequence of layers, of which the last counts
    /// (`fc.1`). If no tensor has such a name, a single matrix in the file is the classifier.
    /// Otherwise the number is not known.
    ///
    /// ```
    /// use skipgrad::{Tensor, io::{self, WeightsFile}};
    /// # let file_name = format!("skipgrad-outputs-{}.safetensors", std::process::id());
    /// # let path = std::env::temp_dir().join(file_name);
    /// let named = |name: &str, shape: &[usize]| Ok((name.to_string(), Tensor::zeros(shape)?));
    /// let tensors = [named("fc.0.weight", &[64, 8]), named("fc.3.weight", &[7, 64])];
    /// let tensors = tensors.into_iter().collect::<skipgrad::Result<_>>()?;
    /// io::write(&path, &tensors, &Default::default())?;
    /// assert_eq!(WeightsFile::open(&path)?.num_classes(), Some(7));
    /// # std::fs::remove_file(&path).unwrap();
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn num_classes(&self) -> Option<usize> {
        let weights = || self.iter().filter_map(|(key, shape)| Some((module(key)?, outputs(key, shape)?)));
        let named = weights().filter_map(|(module, outputs)| Some((layer(module)?, outputs)));
        let by_name = named.max_by_key(|(layer, _)| (std::cmp::Reverse(layer.depth()), layer.index));
        if let Some((_, outputs)) = by_name {
            return Some(outputs);
        }
        let mut matrices = self.iter().filter(|(key, shape)| module(key).is_some() && shape.rank() == 2);
        match (matrices.next(), matrices.next()) {
            (Some((key, shape)), None) => outputs(key, shape),
            _ => None,
        }
    }
}

/// Returns the path of the module whose weight a key names.
fn module(key: &str) -> Option<&str> {
    let key = key.trim_end_matches(":0");
    let module = key.strip_suffix(".weight").or_else(|| key.strip_suffix("/kernel"))?;
    // Keras may name a layer twice.
    Some(module.split_once('/').filter(|(a, b)| a == b).map_or(module, |(name, _)| name))
}

/// Returns the number of outputs of a linear layer, or of a convolution of one pixel, by the shape
/// of its weight in the layout of the library that named it.
fn outputs(key: &str, shape: &Shape) -> Option<usize> {
    match shape[..] {
        [_, outputs] if key.contains("/kernel") => Some(outputs),
        [outputs, _] | [outputs, _, 1, 1] => Some(outputs),
        _ => None,
    }
}
