//! Maps between torchvision's names of tensors, which the models use, and those of other libraries.
//!
//! Each [`KeyStyle`] has a table of [`Rule`]s that is read in both directions: from a file's key to
//! the model's ([`candidate_keys`]) and from the model's to a file's ([`KeyStyle::name`]). Rules
//! are about text only. Reading applies one only if the model has the key that results, so that no
//! rule needs to know the model.

use super::classifier::CLASSIFIERS;
use crate::{Error, Result};
use std::fmt::Write as _;

/// The library whose names a weights file has.
///
/// [`load`](super::load) recognizes all of them, also mixed; [`SaveOptions`](super::SaveOptions)
/// writes one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KeyStyle {
    /// torchvision's names, which the models of this crate have: `layer1.0.conv1.weight`.
    #[default]
    Torchvision,
    /// The names of the DenseNets that torchvision published first: `denselayer1.norm.1.weight`.
    TorchvisionLegacy,
    /// timm's names: those of its pre-activation networks (`stages.0.blocks.0.norm1.weight`, and a
    /// 1x1 convolution for a classifier), and torchvision's for its other networks.
    Timm,
    /// The names of ResNets in Hugging Face's transformers:
    /// `resnet.encoder.stages.0.layers.0.layer.0.convolution.weight`.
    Transformers,
    /// The names of ResNets in kuangliu/pytorch-cifar: `layer2.0.shortcut.0.weight`, `linear.bias`.
    PytorchCifar,
    /// The names of wide residual networks in xternalizing/WideResNet-pytorch:
    /// `block1.layer.0.convShortcut.weight`.
    WideResNet,
    /// The names and layouts of Keras' DenseNets: `conv2_block1_0_bn/gamma`, and kernels of
    /// `[KH, KW, C, OC]` and `[in, out]`.
    Keras,
}

/// Patterns for a module's path in a style and in torchvision. `{b}` is a number, and `{b+1}` is
/// one more than that number.
type Rule = [&'static str; 2];

const TORCHVISION_LEGACY: &[Rule] = &[
    ["denselayer{l}.norm.{k}", "denselayer{l}.norm{k}"],
    ["denselayer{l}.conv.{k}", "denselayer{l}.conv{k}"],
];

/// For pre-activation networks; timm's other networks have torchvision's names.
const TIMM: &[Rule] = &[
    ["stem.conv", "conv1"],
    ["stages.{s}.blocks.{b}.norm{k}", "layer{s+1}.{b}.bn{k}"],
    ["stages.{s}.blocks.{b}.conv{k}", "layer{s+1}.{b}.conv{k}"],
    ["stages.{s}.blocks.{b}.downsample.conv", "layer{s+1}.{b}.downsample.0"],
    ["head.fc", "fc"],
];

const TRANSFORMERS: &[Rule] = &[
    ["resnet.embedder.embedder.convolution", "conv1"],
    ["resnet.embedder.embedder.normalization", "bn1"],
    ["resnet.encoder.stages.{s}.layers.{b}.layer.{k}.convolution", "layer{s+1}.{b}.conv{k+1}"],
    ["resnet.encoder.stages.{s}.layers.{b}.layer.{k}.normalization", "layer{s+1}.{b}.bn{k+1}"],
    ["resnet.encoder.stages.{s}.layers.{b}.shortcut.convolution", "layer{s+1}.{b}.downsample.0"],
    ["resnet.encoder.stages.{s}.layers.{b}.shortcut.normalization", "layer{s+1}.{b}.downsample.1"],
    ["classifier.1", "fc"],
];

const PYTORCH_CIFAR: &[Rule] = &[
    ["conv1", "conv1"],
    ["bn1", "bn1"],
    ["layer{s}.{b}.conv{k}", "layer{s}.{b}.conv{k}"],
    ["layer{s}.{b}.bn{k}", "layer{s}.{b}.bn{k}"],
    ["shortcut.{k}", "downsample.{k}"],
    ["linear", "fc"],
];

const WIDE_RESNET: &[Rule] = &[
    ["conv1", "conv1"],
    ["block{s}.layer.{b}.bn{k}", "layer{s}.{b}.bn{k}"],
    ["block{s}.layer.{b}.conv{k}", "layer{s}.{b}.conv{k}"],
    ["block{s}.layer.{b}.convShortcut", "layer{s}.{b}.downsample.0"],
    ["bn1", "norm"],
    ["fc", "fc"],
];

/// Keras counts the stem as the first block. (Its ResNets have biases and strides that
/// torchvision's do not have.)
const KERAS: &[Rule] = &[
    ["conv1_conv", "features.conv0"],
    ["conv1_bn", "features.norm0"],
    ["conv{b+1}_block{l}_0_bn", "features.denseblock{b}.denselayer{l}.norm1"],
    ["conv{b+1}_block{l}_1_conv", "features.denseblock{b}.denselayer{l}.conv1"],
    ["conv{b+1}_block{l}_1_bn", "features.denseblock{b}.denselayer{l}.norm2"],
    ["conv{b+1}_block{l}_2_conv", "features.denseblock{b}.denselayer{l}.conv2"],
    ["pool{b+1}_bn", "features.transition{b}.norm"],
    ["pool{b+1}_conv", "features.transition{b}.conv"],
    ["bn", "features.norm5"],
    ["predictions", "classifier"],
    ["fc1000", "classifier"],
];

/// The styles whose keys are a module's path and a torchvision parameter, other than torchvision's.
const PYTORCH_STYLES: [KeyStyle; 5] = [
    KeyStyle::TorchvisionLegacy,
    KeyStyle::PytorchCifar,
    KeyStyle::Transformers,
    KeyStyle::Timm,
    KeyStyle::WideResNet,
];

impl KeyStyle {
    const fn rules(self) -> &'static [Rule] {
        match self {
            KeyStyle::Torchvision => &[],
            KeyStyle::TorchvisionLegacy => TORCHVISION_LEGACY,
            KeyStyle::Timm => TIMM,
            KeyStyle::Transformers => TRANSFORMERS,
            KeyStyle::PytorchCifar => PYTORCH_CIFAR,
            KeyStyle::WideResNet => WIDE_RESNET,
            KeyStyle::Keras => KERAS,
        }
    }

    /// Returns the style that a model with these keys has in this library: timm renames only
    /// pre-activation networks, which end with a normalization of their own.
    pub(super) fn for_model(self, keys: &[String]) -> KeyStyle {
        match self {
            KeyStyle::Timm if !keys.iter().any(|key| key == "norm.weight") => KeyStyle::Torchvision,
            style => style,
        }
    }

    /// Returns the name that this style gives the tensor which torchvision calls `key`.
    ///
    /// # Errors
    /// [`Error::Argument`] if the library has no network with such a tensor.
    pub(super) fn name(self, key: &str) -> Result<String> {
        let name = key.rsplit_once('.').and_then(|(module, parameter)| {
            let rules = self.rules().iter();
            let module = rules.filter_map(|[theirs, ours]| translate(module, ours, theirs)).next()?;
            match self {
                KeyStyle::Keras => keras_variable(&module, parameter).map(|v| format!("{module}/{v}")),
                _ => Some(format!("{module}.{parameter}")),
            }
        });
        match (name, self) {
            (Some(name), _) => Ok(name),
            (None, KeyStyle::Torchvision | KeyStyle::TorchvisionLegacy | KeyStyle::Timm) => Ok(key.into()),
            (None, _) => {
                let expected = "a style that names every tensor of the model";
                let found = format_args!("{self:?}, which has no name for {key}");
                Err(Error::argument("save", "key_style", expected, found))
            }
        }
    }
}

/// A key of a model that a key of a file may stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) key: String,
    /// Whether the file has the tensor as Keras stores it, `[KH, KW, C, OC]` or `[in, out]`, not as
    /// torchvision does.
    pub(super) keras_layout: bool,
}

/// Returns the keys of a model, other than `key` itself, that the `key` of a file may stand for.
pub(super) fn candidate_keys(key: &str) -> impl Iterator<Item = Candidate> {
    let renamed = PYTORCH_STYLES.into_iter().flat_map(move |style| torchvision_keys(key, style));
    let keys = renamed.chain(classifier_keys(key)).filter(move |candidate| candidate != key);
    keys.map(|key| Candidate { key, keras_layout: false }).chain(keras_candidate(key))
}

/// Returns torchvision's keys for the `key` of a style.
fn torchvision_keys(key: &str, style: KeyStyle) -> impl Iterator<Item = String> {
    // The backbone alone, without a classifier, has keys without this prefix.
    const BACKBONE: &str = "resnet.";
    let prefix = if style == KeyStyle::Transformers { BACKBONE } else { "" };
    let key = key.strip_prefix(prefix).unwrap_or(key);
    let split = key.rsplit_once('.').into_iter();
    split.flat_map(move |(module, parameter)| {
        style.rules().iter().filter_map(move |[theirs, ours]| {
            let theirs = theirs.strip_prefix(prefix).unwrap_or(theirs);
            Some(format!("{}.{parameter}", translate(module, theirs, ours)?))
        })
    })
}

/// Returns the key of a classifier under the other names that libraries give it.
fn classifier_keys(key: &str) -> impl Iterator<Item = String> {
    let split = key.rsplit_once('.').filter(|(module, _)| CLASSIFIERS.contains(module));
    split.into_iter().flat_map(|(_, parameter)| CLASSIFIERS.map(|other| format!("{other}.{parameter}")))
}

/// Returns torchvision's key for the `key` of a Keras DenseNet.
fn keras_candidate(key: &str) -> Option<Candidate> {
    let (layer, variable) = key.trim_end_matches(":0").rsplit_once('/')?;
    let parameter = match variable {
        "kernel" | "gamma" => "weight",
        "beta" | "bias" => "bias",
        "moving_mean" => "running_mean",
        "moving_variance" => "running_var",
        _ => return None,
    };
    // Some versions nest a layer's variables in its name twice, some split the name with a slash.
    let repeated = layer.split_once('/').filter(|(a, b)| a == b);
    let layer = repeated.map_or(layer, |(name, _)| name).replace('/', "_");
    let module = KERAS.iter().find_map(|[theirs, ours]| translate(&layer, theirs, ours))?;
    Some(Candidate { key: format!("{module}.{parameter}"), keras_layout: variable == "kernel" })
}

/// Returns the name that Keras gives a parameter of a layer.
fn keras_variable(layer: &str, parameter: &str) -> Option<&'static str> {
    match (parameter, layer.ends_with("bn")) {
        ("weight", true) => Some("gamma"),
        ("weight", false) => Some("kernel"),
        ("bias", true) => Some("beta"),
        ("bias", false) => Some("bias"),
        ("running_mean", true) => Some("moving_mean"),
        ("running_var", true) => Some("moving_variance"),
        _ => None,
    }
}

/// Rewrites the path of a module that matches the pattern `from` by the pattern `to`. A pattern
/// with numbers may match the end of a path: the network may be a part of a larger one.
fn translate(module: &str, from: &str, to: &str) -> Option<String> {
    let begins = [0].into_iter().chain(module.match_indices('.').map(|(at, _)| at + 1));
    begins.take(if from.contains('{') { usize::MAX } else { 1 }).find_map(|at| {
        let numbers = captures(&module[at..], from)?;
        Some(format!("{}{}", &module[..at], filled(to, &numbers)?))
    })
}

/// Returns the numbers of a pattern by their names, if `text` matches it.
fn captures<'p>(text: &str, pattern: &'p str) -> Option<Vec<(&'p str, u32)>> {
    let mut parts = pattern.split('{');
    let mut rest = text.strip_prefix(parts.next()?)?;
    let mut numbers = vec![];
    for part in parts {
        let (name, offset, literal) = placeholder(part)?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        numbers.push((name, rest[..digits].parse::<u32>().ok()?.checked_sub(offset)?));
        rest = rest[digits..].strip_prefix(literal)?;
    }
    rest.is_empty().then_some(numbers)
}

/// Returns a pattern with numbers in place of their names.
fn filled(pattern: &str, numbers: &[(&str, u32)]) -> Option<String> {
    let mut parts = pattern.split('{');
    let mut text = parts.next()?.to_string();
    for part in parts {
        let (name, offset, literal) = placeholder(part)?;
        let (_, number) = numbers.iter().find(|(other, _)| *other == name)?;
        write!(text, "{}{literal}", number.checked_add(offset)?).ok()?;
    }
    Some(text)
}

/// Splits what follows the brace of a pattern, `b+1}_conv`, into name, offset and text: `b`, 1 and
/// `_conv`.
fn placeholder(part: &str) -> Option<(&str, u32, &str)> {
    let (inside, literal) = part.split_once('}')?;
    match inside.split_once('+') {
        Some((name, offset)) => Some((name, offset.parse().ok()?, literal)),
        None => Some((inside, 0, literal)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stands_for(name: &str, expected: &str, keras_layout: bool) {
        let candidates: Vec<Candidate> = candidate_keys(name).collect();
        let expected = Candidate { key: expected.to_string(), keras_layout };
        assert!(candidates.contains(&expected), "{name}: {candidates:?}");
    }

    /// Checks that a style names torchvision's keys as listed, and that its names lead back.
    fn both_ways(style: KeyStyle, names: &[[&str; 2]]) {
        for &[theirs, ours] in names {
            assert_eq!(style.name(ours).unwrap(), theirs);
            let kernel = style == KeyStyle::Keras && theirs.ends_with("kernel");
            if theirs != ours {
                stands_for(theirs, ours, kernel);
            }
        }
    }

    #[test]
    fn legacy_densenets() {
        let layer = "features.denseblock1.denselayer6";
        both_ways(
            KeyStyle::TorchvisionLegacy,
            &[
                [&format!("{layer}.norm.1.weight"), &format!("{layer}.norm1.weight")],
                [&format!("{layer}.conv.2.weight"), &format!("{layer}.conv2.weight")],
                ["features.conv0.weight", "features.conv0.weight"],
                ["features.transition1.norm.bias", "features.transition1.norm.bias"],
                ["layer1.0.bn1.bias", "layer1.0.bn1.bias"],
            ],
        );
        stands_for("denselayer1.norm.2.bias", "denselayer1.norm2.bias", false);
        stands_for("backbone.denselayer1.norm.2.bias", "backbone.denselayer1.norm2.bias", false);
    }

    #[test]
    fn timms_preactivation_networks() {
        both_ways(
            KeyStyle::Timm,
            &[
                ["stem.conv.weight", "conv1.weight"],
                ["stages.0.blocks.0.norm1.running_mean", "layer1.0.bn1.running_mean"],
                ["stages.3.blocks.11.conv3.weight", "layer4.11.conv3.weight"],
                ["stages.1.blocks.0.downsample.conv.weight", "layer2.0.downsample.0.weight"],
                ["norm.bias", "norm.bias"],
                ["head.fc.weight", "fc.weight"],
            ],
        );
    }

    #[test]
    fn timm_has_torchvisions_names_for_other_networks() {
        let keys = |keys: [&str; 2]| keys.map(String::from);
        assert_eq!(KeyStyle::Timm.for_model(&keys(["conv1.weight", "fc.weight"])), KeyStyle::Torchvision);
        assert_eq!(KeyStyle::Timm.for_model(&keys(["conv1.weight", "norm.weight"])), KeyStyle::Timm);
        assert_eq!(KeyStyle::Keras.for_model(&keys(["conv1.weight", "fc.weight"])), KeyStyle::Keras);
    }

    #[test]
    fn transformers_resnets() {
        let layers = "resnet.encoder.stages.0.layers.0";
        both_ways(
            KeyStyle::Transformers,
            &[
                ["resnet.embedder.embedder.convolution.weight", "conv1.weight"],
                ["resnet.embedder.embedder.normalization.running_var", "bn1.running_var"],
                [&format!("{layers}.layer.2.convolution.weight"), "layer1.0.conv3.weight"],
                [&format!("{layers}.layer.0.normalization.bias"), "layer1.0.bn1.bias"],
                [&format!("{layers}.shortcut.convolution.weight"), "layer1.0.downsample.0.weight"],
                [&format!("{layers}.shortcut.normalization.bias"), "layer1.0.downsample.1.bias"],
                ["classifier.1.weight", "fc.weight"],
            ],
        );
        stands_for("embedder.embedder.convolution.weight", "conv1.weight", false);
        stands_for("encoder.stages.2.layers.5.layer.1.convolution.weight", "layer3.5.conv2.weight", false);
    }

    #[test]
    fn resnets_of_pytorch_cifar() {
        both_ways(
            KeyStyle::PytorchCifar,
            &[
                ["conv1.weight", "conv1.weight"],
                ["layer2.0.shortcut.0.weight", "layer2.0.downsample.0.weight"],
                ["layer2.0.shortcut.1.running_var", "layer2.0.downsample.1.running_var"],
                ["layer3.1.bn2.weight", "layer3.1.bn2.weight"],
                ["linear.bias", "fc.bias"],
            ],
        );
        stands_for("net.layer2.0.shortcut.0.weight", "net.layer2.0.downsample.0.weight", false);
    }

    #[test]
    fn wide_residual_networks() {
        both_ways(
            KeyStyle::WideResNet,
            &[
                ["conv1.weight", "conv1.weight"],
                ["block1.layer.0.bn1.running_var", "layer1.0.bn1.running_var"],
                ["block3.layer.3.conv2.weight", "layer3.3.conv2.weight"],
                ["block2.layer.0.convShortcut.weight", "layer2.0.downsample.0.weight"],
                ["bn1.bias", "norm.bias"],
                ["fc.weight", "fc.weight"],
            ],
        );
    }

    #[test]
    fn keras_densenets() {
        let layer = "features.denseblock4.denselayer16";
        both_ways(
            KeyStyle::Keras,
            &[
                ["conv1_conv/kernel", "features.conv0.weight"],
                ["conv1_bn/gamma", "features.norm0.weight"],
                ["conv5_block16_0_bn/moving_variance", &format!("{layer}.norm1.running_var")],
                ["conv5_block16_1_conv/kernel", &format!("{layer}.conv1.weight")],
                ["conv5_block16_1_bn/beta", &format!("{layer}.norm2.bias")],
                ["conv5_block16_2_conv/kernel", &format!("{layer}.conv2.weight")],
                ["pool2_bn/beta", "features.transition1.norm.bias"],
                ["pool4_conv/kernel", "features.transition3.conv.weight"],
                ["bn/moving_mean", "features.norm5.running_mean"],
                ["predictions/kernel", "classifier.weight"],
                ["predictions/bias", "classifier.bias"],
            ],
        );
        stands_for("conv1/bn/gamma:0", "features.norm0.weight", false);
        let nested = "conv5_block16_2_conv/conv5_block16_2_conv/kernel:0";
        stands_for(nested, &format!("{layer}.conv2.weight"), true);
        stands_for("fc1000/kernel", "classifier.weight", true);
    }

    #[test]
    fn a_classifier_has_many_names() {
        for (from, to) in
            [("fc", "linear"), ("linear", "fc"), ("head", "classifier"), ("classifier", "head.fc")]
        {
            stands_for(&format!("{from}.bias"), &format!("{to}.bias"), false);
        }
    }

    #[test]
    fn a_style_without_a_name_for_a_tensor_is_an_error() {
        for (style, key) in [
            (KeyStyle::Keras, "layer1.0.conv1.weight"),
            (KeyStyle::Keras, "features.norm0.scale"),
            (KeyStyle::Transformers, "norm.weight"),
            (KeyStyle::WideResNet, "bn1.weight"),
            (KeyStyle::PytorchCifar, "features.conv0.weight"),
        ] {
            let error = style.name(key).unwrap_err().to_string();
            assert!(error.ends_with(&format!("found {style:?}, which has no name for {key}")), "{error}");
        }
        assert_eq!(KeyStyle::Torchvision.name("anything").unwrap(), "anything");
    }

    #[test]
    fn keys_that_stand_for_nothing_else() {
        for name in [
            "",
            ".",
            "/",
            "a/b",
            "conv1.weight",
            "layer1.0.bn1.bias",
            "pool0_bn/gamma",
            ".denselayer",
            "conv_block/kernel",
            "stages.4294967295.blocks.0.conv1.weight",
            "stages.99999999999.blocks.0.conv1.weight",
            "stages.-1.blocks.0.conv1.weight",
            "stages..blocks.0.conv1.weight",
        ] {
            assert_eq!(candidate_keys(name).next(), None, "{name}");
        }
    }
}
