//! Loading a model's state from a weights file.

use super::{
    key_map::{Candidate, candidate_keys},
    source::{Source, differing_channels},
    weights_file::WeightsFile,
};
use crate::{
    Error, Result, Shape,
    autograd::{Layout, NamedTensors, State, matches},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

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
    strict: bool,
    prefix: Option<String>,
    ignore: Vec<String>,
    new_head: bool,
    adapt_channels: bool,
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
        LoadOptions { strict: true, prefix: None, ignore: vec![], new_head: false, adapt_channels: false }
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

    /// Leaves the classifier, which is the model's last linear layer, as it is initialized: for
    /// other classes than the file's.
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
    /// tensor that does not fit, by the model's key where it is known; [`Error::Argument`] if the
    /// file has the model's tensors more than once, or if the model has no linear layer for
    /// [`new_head`](LoadOptions::new_head) or no convolution for
    /// [`adapt_channels`](LoadOptions::adapt_channels). After an error the model is unchanged.
    pub fn load(&self, model: &mut (impl State + ?Sized), path: impl AsRef<Path>) -> Result<LoadReport> {
        let path = path.as_ref();
        let file = WeightsFile::open(path)?;
        let entries = state_entries(model);
        let plan = self.plan(&file, &entries)?;
        model.fits(&plan.shapes(&file, &entries)).map_err(|error| error.with_file(Some(path)))?;

        let keys: Vec<&str> = plan.sources.values().map(|source| source.key).collect();
        let mut tensors = NamedTensors::new();
        for ((key, source), tensor) in plan.sources.iter().zip(file.read_several(&keys)?) {
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

    /// Decides which tensor of the file each tensor of the model is loaded from.
    fn plan<'a>(&self, file: &'a WeightsFile, entries: &'a [StateEntry]) -> Result<LoadPlan<'a>> {
        let head = self.head(entries)?;
        let stem = self.stem(entries)?;
        let by_key: ByKey<'a> = entries.iter().map(|entry| (entry.key.as_str(), entry)).collect();
        let prefix = match &self.prefix {
            Some(path) if !path.is_empty() => format!("{path}."),
            Some(_) => String::new(),
            None => common_prefix(file, &by_key)?,
        };
        let mut plan = LoadPlan { prefix, ..LoadPlan::default() };
        let left_out = |entry: &&StateEntry| self.ignores(&entry.key) || head == Some(parent(&entry.key));
        plan.missing = entries.iter().filter(left_out).map(|entry| entry.key.as_str()).collect();

        let below_prefix = |(key, _)| Some((key, str::strip_prefix(key, &plan.prefix)?));
        let keys: Vec<(&str, &str)> = file.iter().filter_map(below_prefix).collect();
        // A tensor under the model's own key precedes one under another library's name for it.
        let (own, others): (Vec<_>, Vec<_>) =
            keys.into_iter().partition(|(_, short)| by_key.contains_key(short));
        for (key, short) in own.into_iter().chain(others) {
            if short.ends_with("num_batches_tracked") {
                continue;
            }
            let resolved = resolve_key(short, &by_key)
                .filter(|(entry, _)| !plan.sources.contains_key(entry.key.as_str()));
            let ignored = self.ignores(key)
                || self.ignores(short)
                || resolved.is_some_and(|(entry, _)| plan.missing.contains(entry.key.as_str()));
            match resolved {
                _ if ignored => plan.skipped.push(key),
                None => plan.unexpected.push(key),
                Some((entry, keras_layout)) => {
                    let layout = entry.layout;
                    let mut source = Source { key, keras_layout, layout, adapted_channels: None };
                    if stem == Some(entry.key.as_str()) {
                        let found = source.shape(file);
                        source.adapted_channels =
                            found.and_then(|found| differing_channels(&found, &entry.shape));
                    }
                    plan.sources.insert(&entry.key, source);
                }
            }
        }
        if !self.strict {
            plan.skip_unmatched(entries);
        }
        Ok(plan)
    }

    fn ignores(&self, key: &str) -> bool {
        self.ignore.iter().any(|pattern| matches(pattern, key))
    }

    /// Returns the path of the classifier, if it is to keep its values.
    fn head<'a>(&self, entries: &'a [StateEntry]) -> Result<Option<&'a str>> {
        let last = entries.iter().rfind(|entry| entry.layout == Layout::Linear);
        match last {
            _ if !self.new_head => Ok(None),
            Some(entry) => Ok(Some(parent(&entry.key))),
            None => Err(Error::argument("load", "new_head", "a model with a linear layer", "none")),
        }
    }

    /// Returns the key of the weight whose input channels may differ, if channels are adapted.
    fn stem<'a>(&self, entries: &'a [StateEntry]) -> Result<Option<&'a str>> {
        let first = entries.iter().find(|entry| entry.layout == Layout::Conv);
        match first {
            _ if !self.adapt_channels => Ok(None),
            Some(entry) => Ok(Some(&entry.key)),
            None => Err(Error::argument("load", "adapt_channels", "a model with a convolution", "none")),
        }
    }
}

/// The description of a parameter or a buffer of the model.
struct StateEntry {
    key: String,
    /// The shape in torchvision's layout.
    shape: Shape,
    layout: Layout,
}

type ByKey<'a> = BTreeMap<&'a str, &'a StateEntry>;

fn state_entries(model: &(impl State + ?Sized)) -> Vec<StateEntry> {
    let mut entries = vec![];
    model.visit("", &mut |key, state| {
        let layout = state.layout();
        let shape = layout.shape_in_file(state.value().shape());
        entries.push(StateEntry { key: key.to_string(), shape, layout });
    });
    entries
}

/// Returns the entry of the model that a file's key stands for, and whether the file has it in
/// Keras' layout.
fn resolve_key<'a>(key: &str, by_key: &ByKey<'a>) -> Option<(&'a StateEntry, bool)> {
    if let Some(entry) = by_key.get(key) {
        return Some((entry, false));
    }
    candidate_keys(key)
        .find_map(|Candidate { key, keras_layout }| Some((*by_key.get(key.as_str())?, keras_layout)))
}

/// The largest number of dots in a prefix and the longest key that are searched for one.
const MAX_PREFIX_DEPTH: usize = 8;
const MAX_KEY_LEN: usize = 512;

/// Returns the prefix, with its dot, below which the file has most of the model's tensors.
///
/// # Errors
/// [`Error::Argument`] if there is more than one.
fn common_prefix(file: &WeightsFile, by_key: &ByKey<'_>) -> Result<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (key, _) in file.iter().filter(|(key, _)| key.len() <= MAX_KEY_LEN) {
        let dots = key.match_indices('.').map(|(at, _)| at + 1);
        for at in [0].into_iter().chain(dots).take(MAX_PREFIX_DEPTH) {
            let (prefix, short) = key.split_at(at);
            if resolve_key(short, by_key).is_some() {
                *counts.entry(prefix).or_default() += 1;
            }
        }
    }
    let most = counts.values().copied().max().unwrap_or(0);
    let best: Vec<&str> =
        counts.into_iter().filter(|(_, count)| *count == most).map(|(prefix, _)| prefix).collect();
    match best[..] {
        [] | ["", ..] => Ok(String::new()),
        [one] => Ok(one.to_string()),
        _ => {
            let paths: Vec<&str> = best.iter().map(|prefix| prefix.trim_end_matches('.')).collect();
            let expected = "the path below which the tensors are, since the file has them more than once";
            Err(Error::argument("load", "prefix", expected, paths.join(" and ")))
        }
    }
}

/// The keys of a model and of a file, matched. A hostile file may have very many keys, so that they
/// are borrowed, not copied.
#[derive(Default)]
struct LoadPlan<'a> {
    /// The prefix of the file's keys, with its dot.
    prefix: String,
    /// The tensor of the file for each key of the model.
    sources: BTreeMap<&'a str, Source<'a>>,
    /// Keys of the model that keep their values.
    missing: BTreeSet<&'a str>,
    /// Keys of the file that are left out.
    skipped: Vec<&'a str>,
    /// Keys of the file that the model does not have, which is an error.
    unexpected: Vec<&'a str>,
}

impl<'a> LoadPlan<'a> {
    /// Leaves out every key that only the file or only the model has.
    fn skip_unmatched(&mut self, entries: &'a [StateEntry]) {
        self.skipped.append(&mut self.unexpected);
        let keys = entries.iter().map(|entry| entry.key.as_str());
        self.missing.extend(keys.filter(|key| !self.sources.contains_key(key)));
    }

    /// Returns the shapes that the model's state would have.
    fn shapes(&self, file: &WeightsFile, entries: &'a [StateEntry]) -> BTreeMap<&'a str, Shape> {
        let unexpected =
            self.unexpected.iter().filter_map(|&key| Some((&key[self.prefix.len()..], *file.shape(key)?)));
        let own = entries.iter().filter_map(|entry| {
            let key = entry.key.as_str();
            let shape = match self.sources.get(key) {
                Some(source) if source.adapted_channels.is_none() => source.shape(file)?,
                None if !self.missing.contains(key) => return None,
                _ => entry.shape,
            };
            Some((key, shape))
        });
        unexpected.chain(own).collect()
    }

    fn report(self, entries: &[StateEntry]) -> LoadReport {
        let missing = entries.iter().filter(|entry| self.missing.contains(entry.key.as_str()));
        let renamed = self.sources.iter().filter(|(key, source)| source.key[self.prefix.len()..] != ***key);
        LoadReport {
            renamed_keys: renamed.map(|(key, source)| (key.to_string(), source.key.to_string())).collect(),
            missing_keys: missing.map(|entry| entry.key.clone()).collect(),
            adapted_channels: self.sources.values().find_map(|source| source.adapted_channels),
            prefix: self.prefix.trim_end_matches('.').to_string(),
            unexpected_keys: self.skipped.into_iter().map(str::to_string).collect(),
        }
    }
}

/// Returns the path of the module that a tensor belongs to.
fn parent(key: &str) -> &str {
    key.rsplit_once('.').map_or("", |(parent, _)| parent)
}
