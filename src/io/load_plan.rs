//! Which tensor of a weights file each tensor of a model is loaded from.

use super::{
    classifier::{self, CLASSIFIERS},
    key_map::{Candidate, candidate_keys},
    load::{LoadOptions, LoadReport},
    source::Source,
    weights_file::WeightsFile,
};
use crate::{
    Error, Result, Shape,
    autograd::{Layout, State},
};
use std::collections::{BTreeMap, BTreeSet};

/// The description of a parameter or a buffer of the model.
pub(super) struct StateEntry {
    pub(super) key: String,
    /// The shape in torchvision's layout.
    pub(super) shape: Shape,
    layout: Layout,
}

type ByKey<'a> = BTreeMap<&'a str, &'a StateEntry>;

pub(super) fn state_entries(model: &(impl State + ?Sized)) -> Vec<StateEntry> {
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
pub(super) struct LoadPlan<'a> {
    /// The prefix of the file's keys, with its dot.
    prefix: String,
    /// The tensor of the file for each key of the model.
    pub(super) sources: BTreeMap<&'a str, Source<'a>>,
    /// Keys of the model that keep their values.
    pub(super) missing: BTreeSet<&'a str>,
    /// Keys of the file that are left out.
    skipped: Vec<&'a str>,
    /// Keys of the file that the model does not have, which is an error.
    unexpected: Vec<&'a str>,
}

impl<'a> LoadPlan<'a> {
    /// Decides which tensor of the file each tensor of the model is loaded from.
    pub(super) fn new(
        options: &LoadOptions,
        file: &'a WeightsFile,
        entries: &'a [StateEntry],
    ) -> Result<LoadPlan<'a>> {
        let head = if options.new_head { Some(head(entries)?) } else { None };
        let stem = if options.adapt_channels { Some(stem(entries)?) } else { None };
        let by_key: ByKey<'a> = entries.iter().map(|entry| (entry.key.as_str(), entry)).collect();
        let prefix = match &options.prefix {
            Some(path) if !path.is_empty() => format!("{path}."),
            Some(_) => String::new(),
            None => common_prefix(file, &by_key)?,
        };
        let mut plan = LoadPlan { prefix, ..LoadPlan::default() };
        let left_out = |entry: &&StateEntry| {
            options.ignores(&entry.key) || head.is_some_and(|head| is_below(&entry.key, head))
        };
        plan.missing = entries.iter().filter(left_out).map(|entry| entry.key.as_str()).collect();

        let below_prefix = |(key, _)| Some((key, str::strip_prefix(key, &plan.prefix)?));
        let keys: Vec<(&str, &str)> = file.iter().filter_map(below_prefix).collect();
        let sole = sole_layers(keys.iter().map(|(_, short)| *short));
        // A tensor under the model's own key precedes one under another library's name for it.
        let (own, others): (Vec<_>, Vec<_>) =
            keys.into_iter().partition(|(_, short)| by_key.contains_key(short));
        for (key, short) in own.into_iter().chain(others) {
            if short.ends_with("num_batches_tracked") {
                continue;
            }
            let resolved = resolve_key(short, &by_key)
                .or_else(|| resolve_sole_layer(short, &sole, &by_key))
                .filter(|(entry, _)| !plan.sources.contains_key(entry.key.as_str()));
            let ignored = options.ignores(key)
                || options.ignores(short)
                || match resolved {
                    Some((entry, _)) => plan.missing.contains(entry.key.as_str()),
                    None => head.is_some_and(|head| is_in_old_head(short, head)),
                };
            match resolved {
                _ if ignored => plan.skipped.push(key),
                None => plan.unexpected.push(key),
                Some((entry, keras_layout)) => {
                    let source = Source::new(key, keras_layout, entry.layout);
                    plan.sources.insert(&entry.key, source.adapted(file, entry, stem));
                }
            }
        }
        if !options.strict {
            plan.skip_unmatched(entries);
        }
        Ok(plan)
    }

    /// Leaves out every key that only the file or only the model has.
    fn skip_unmatched(&mut self, entries: &'a [StateEntry]) {
        self.skipped.append(&mut self.unexpected);
        let keys = entries.iter().map(|entry| entry.key.as_str());
        self.missing.extend(keys.filter(|key| !self.sources.contains_key(key)));
    }

    /// Returns the shapes that the model's state would have.
    pub(super) fn shapes(&self, file: &WeightsFile, entries: &'a [StateEntry]) -> BTreeMap<&'a str, Shape> {
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

    pub(super) fn report(self, entries: &[StateEntry]) -> LoadReport {
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

/// Returns the path of the model's classifier: that of its last linear layer, or of the outermost
/// module around it that has neither a convolution nor the whole model in it, which is the sequence
/// that a classifier of several layers is.
///
/// # Errors
/// [`Error::Argument`] if the model has no linear layer.
fn head(entries: &[StateEntry]) -> Result<&str> {
    let Some(last) = entries.iter().rfind(|entry| entry.layout == Layout::Linear) else {
        return Err(Error::argument("load", "new_head", "a model with a linear layer", "none"));
    };
    let mut head = parent(&last.key);
    while let Some((around, _)) = head.rsplit_once('.') {
        let (inside, outside): (Vec<_>, Vec<_>) =
            entries.iter().partition(|entry| is_below(&entry.key, around));
        if outside.is_empty() || inside.iter().any(|entry| entry.layout == Layout::Conv) {
            break;
        }
        head = around;
    }
    Ok(head)
}

/// Returns the key of the weight whose input channels may differ.
///
/// # Errors
/// [`Error::Argument`] if the model has no convolution.
fn stem(entries: &[StateEntry]) -> Result<&str> {
    let first = entries.iter().find(|entry| entry.layout == Layout::Conv);
    first
        .map(|entry| entry.key.as_str())
        .ok_or_else(|| Error::argument("load", "adapt_channels", "a model with a convolution", "none"))
}

/// Whether a key of the file, which stands for none of the model's, belongs to the file's
/// classifier, where the model's has the path `head`.
fn is_in_old_head(key: &str, head: &str) -> bool {
    let around = head.rsplit_once('.').map_or("", |(around, _)| around);
    let in_same_place = |name: &str| match around {
        "" => is_below(key, name),
        around => is_below(key, &format!("{around}.{name}")),
    };
    is_below(key, head) || CLASSIFIERS.iter().any(|name| in_same_place(name))
}

/// Whether a tensor belongs to the module at `path`, or to a module in it. At the empty path that
/// is the model itself, without the modules in it.
fn is_below(key: &str, path: &str) -> bool {
    match path {
        "" => !key.contains('.'),
        path => key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')),
    }
}

/// Returns the paths of the classifiers that are a sequence in which one layer has a weight, as a
/// dropout and a linear layer are: `fc`, of the keys `fc.1.weight` and `fc.1.bias`.
fn sole_layers<'k>(keys: impl Iterator<Item = &'k str>) -> BTreeSet<&'k str> {
    let mut weights: BTreeMap<&str, usize> = BTreeMap::new();
    for layer in keys.filter_map(|key| classifier::layer(key.strip_suffix(".weight")?)) {
        *weights.entry(layer.classifier).or_default() += 1;
    }
    weights.into_iter().filter(|(_, count)| *count == 1).map(|(classifier, _)| classifier).collect()
}

/// Returns the entry of the model that the only layer of a classifier stands for.
fn resolve_sole_layer<'a>(
    key: &str,
    sole: &BTreeSet<&str>,
    by_key: &ByKey<'a>,
) -> Option<(&'a StateEntry, bool)> {
    let (module, parameter) = key.rsplit_once('.')?;
    let layer = classifier::layer(module).filter(|layer| sole.contains(layer.classifier))?;
    resolve_key(&format!("{}.{parameter}", layer.classifier), by_key)
}

/// Returns the path of the module that a tensor belongs to.
fn parent(key: &str) -> &str {
    key.rsplit_once('.').map_or("", |(parent, _)| parent)
}
