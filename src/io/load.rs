//! Loading a model's state from a weights file.

use super::{
    load_plan::{LoadPlan, state_entries},
    weights_file::WeightsFile,
};
use crate::{
    Error, Result, Tensor,
    autograd::{NamedTensors, State, matches},
};
use std::{collections::BTreeMap, path::Path};

/// Options for loading a model from a weights file.
///
/// By default loading is strict: the model and the file must have the same keys, except
/// `num_batches_tracked`, which PyTorch writes and this crate does not use. If the file has the
/// model's tensors below a prefix, as training checkpoints do (`state_dict.module.conv1.weight`),
/// the prefix is found, and tensors outside of it are not read. A key that the model does not have
/// is tried under the names of every [`KeyStyle`](super::KeyStyle).
///
/// ```
/// use skipgrad::{Rng, autograd::State, io::{self, LoadOptions}, models::{ResNet, ResNetConfig}};
/// # let file_name = format!("skipgrad-load-{}.safetensors", std::process::id());
/// # let path = std::env::temp_dir().join(file_name);
/// let mut rng = Rng::seed(0);
/// let small = ResNetConfig::cifar_paper(8, 1000)?;
/// let config = small.stages([(4, 1), (8, 1)]);
/// io::save(&ResNet::new(&config, &mut rng)?, &path)?;
///
/// // For three classes, and for images of one channel.
/// let mut model = ResNet::new(&config.classes(3).channels(1), &mut rng)?;
/// let error = io::load(&mut model, &path).unwrap_err().to_string();
/// assert!(error.contains("fc.weight: expected [3, 8], found [1000, 8]"));
/// let report = LoadOptions::new().new_head().adapt_channels().load(&mut model, &path)?;
/// assert_eq!(report.missing_keys, ["fc.weight", "fc.bias"]);
/// assert_eq!(report.adapted_channels, Some([3, 1]));
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LoadOptions {
    pub(super) strict: bool,
    finite: bool,
    pub(super) prefix: Option<String>,
    ignore: Vec<String>,
    pub(super) new_head: bool,
    pub(super) adapt_channels: bool,
}

/// The keys of a model and of a weights file after loading, in PyTorch's words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadReport {
    /// Path in the file below which the model's tensors are, such as `state_dict.module`, or empty.
    pub prefix: String,
    /// Keys of the model that have another name in the file, each with the file's key.
    pub renamed_keys: BTreeMap<String, String>,
    /// Keys of the model that were not loaded and keep their values, in the model's order.
    pub missing_keys: Vec<String>,
    /// Keys of the file, below the prefix, that were not used.
    pub unexpected_keys: Vec<String>,
    /// Number of input channels in the file and in the model, if the first convolution was adapted.
    pub adapted_channels: Option<[usize; 2]>,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions {
            strict: true,
            finite: true,
            prefix: None,
            ignore: vec![],
            new_head: false,
            adapt_channels: false,
        }
    }
}

impl LoadOptions {
    /// Returns the options of strict loading.
    pub fn new() -> LoadOptions {
        LoadOptions::default()
    }

    /// Sets whether every key of the model must be in the file and the other way round. Without,
    /// keys that only one of them has are reported. Shapes must match in any case.
    pub fn strict(self, strict: bool) -> LoadOptions {
        LoadOptions { strict, ..self }
    }

    /// Sets whether every element that is loaded must be finite, which is the default. Weights with
    /// NaN or infinity are usually those of a training that diverged, and a model with one such
    /// element usually answers NaN to every input. Running statistics are checked too.
    pub fn finite(self, finite: bool) -> LoadOptions {
        LoadOptions { finite, ..self }
    }

    /// Sets the path below which the file has the model's tensors, such as `state_dict_ema`. It is
    /// needed only if the file has them more than once.
    pub fn prefix(self, path: impl Into<String>) -> LoadOptions {
        LoadOptions { prefix: Some(path.into()), ..self }
    }

    /// Leaves out tensors, of the model or of the file, whose key matches `pattern`, in which `*`
    /// stands for any text. Those of the model keep their values. May be called more than once.
    pub fn ignore(mut self, pattern: impl Into<String>) -> LoadOptions {
        self.ignore.push(pattern.into());
        self
    }

    /// Leaves the classifier as it is initialized, and the file's classifier out: for other classes
    /// than the file's. It is the model's last linear layer, with the layers before it in the same
    /// sequence (`fc.0`, `fc.3`); the file's may have other layers and another of the usual names
    /// (`fc`, `classifier`, `head.fc`).
    pub fn new_head(self) -> LoadOptions {
        LoadOptions { new_head: true, ..self }
    }

    /// Lets the model's first convolution have another number of input channels than the file's.
    ///
    /// For one channel the filters are summed over the file's channels. For C channels instead of
    /// the file's C', the filters of channel i are those of channel i mod C', times C'/C. An image
    /// with equal channels has the same activations as before. timm does the same.
    pub fn adapt_channels(self) -> LoadOptions {
        LoadOptions { adapt_channels: true, ..self }
    }

    /// Loads all state of a model from a weights file of any format that [`WeightsFile`] opens.
    ///
    /// # Errors
    /// As [`WeightsFile::open`] and [`WeightsFile::read_all`]; [`Error::State`] that lists every
    /// tensor that does not fit, by the model's key where it is known; [`Error::Malformed`] that
    /// names the tensors with elements that are not finite; [`Error::Argument`] if the
    /// file has the model's tensors more than once, or if the model has no linear layer for
    /// [`new_head`](LoadOptions::new_head) or no convolution for
    /// [`adapt_channels`](LoadOptions::adapt_channels). After an error the model is unchanged.
    pub fn load(&self, model: &mut (impl State + ?Sized), path: impl AsRef<Path>) -> Result<LoadReport> {
        let path = path.as_ref();
        let file = WeightsFile::open(path)?;
        let entries = state_entries(model);
        let plan = LoadPlan::new(self, &file, &entries)?;
        model.fits(&plan.shapes(&file, &entries)).map_err(|error| error.with_file(Some(path)))?;

        let keys: Vec<&str> = plan.sources.values().map(|source| source.key).collect();
        let mut tensors = NamedTensors::new();
        let read = file.read_several(&keys)?;
        if self.finite {
            check_finite(path, plan.sources.keys().copied().zip(&read))?;
        }
        for ((key, source), tensor) in plan.sources.iter().zip(read) {
            tensors.insert(key.to_string(), source.convert(tensor)?);
        }
        model.visit("", &mut |key, state| {
            if plan.missing.contains(key)
                && let Ok(tensor) = state.layout().to_file(state.value())
            {
                tensors.insert(key.to_string(), tensor);
            }
        });
        model.import(tensors)?;
        let report = plan.report(&entries);
        log::debug!(
            "{}: loaded {} tensors below {:?}, {} of them under another name; {} missing, {} unexpected",
            path.display(),
            keys.len(),
            report.prefix,
            report.renamed_keys.len(),
            report.missing_keys.len(),
            report.unexpected_keys.len(),
        );
        Ok(report)
    }

    pub(super) fn ignores(&self, key: &str) -> bool {
        self.ignore.iter().any(|pattern| matches(pattern, key))
    }
}

/// The most tensors that the error about elements that are not finite names.
const MAX_NAMED: usize = 4;

/// Checks that every element of the tensors, each with its name, is finite.
///
/// # Errors
/// [`Error::Malformed`] that names the tensors which have others.
fn check_finite<'a>(path: &Path, tensors: impl Iterator<Item = (&'a str, &'a Tensor)>) -> Result<()> {
    let mut described = tensors.filter_map(|(name, tensor)| {
        let others = tensor.data().iter().filter(|x| !x.is_finite());
        let (nan, infinite) = others.fold((0, 0), |(nan, infinite), x| match x.is_nan() {
            true => (nan + 1, infinite),
            false => (nan, infinite + 1),
        });
        let kinds = [(nan, "NaN"), (infinite, "infinity")].into_iter().filter(|(count, _)| *count > 0);
        let kinds: Vec<String> = kinds.map(|(count, kind)| format!("{count} times {kind}")).collect();
        (!kinds.is_empty()).then(|| format!("{name} ({} in {})", kinds.join(", "), tensor.data().len()))
    });
    let named: Vec<String> = described.by_ref().take(MAX_NAMED).collect();
    if named.is_empty() {
        return Ok(());
    }
    let more = match described.count() {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    let expected = "finite elements (`LoadOptions::finite(false)` loads any)";
    Err(Error::malformed(path, "tensors", expected, named.join(", ") + &more))
}
