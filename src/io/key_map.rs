//! Other spellings of torchvision's names.
//!
//! Who wrote a file is a matter of files, not of models: a spelling is a rule on text, from a name that stands in a file to the
//! name that torchvision gives the same tensor. A rule applies only where the model has the name that comes out, so rules
//! need not know what they are applied to.

/// A name that may be meant, and whether the tensor lies in the file as in memory (`[KH, KW, C, OC]`, `[in, out]`) and not
/// as torchvision would have it there.
pub(super) type Spelling = (String, bool);

/// The names that a tensor of this name may mean besides its own.
pub(super) fn candidate_keys(name: &str) -> impl Iterator<Item = Spelling> {
    let as_in_files = [old_densenet(name), shortcut(name), hugging_face(name)].into_iter().flatten();
    as_in_files.chain(heads(name)).map(|name| (name, false)).chain(keras(name))
}

/// DenseNets that torchvision published before PyTorch forbade dots in names: `denselayer1.norm.1.weight`.
fn old_densenet(name: &str) -> Option<String> {
    let (layer, rest) = split_at_last(name, ".denselayer")?;
    let (number, rest) = rest.split_once('.')?;
    let (kind, rest) = rest.split_once('.')?;
    matches!(kind, "norm" | "conv").then(|| format!("{layer}.denselayer{number}.{kind}{rest}"))
}

/// CIFAR networks in the style of kuangliu/pytorch-cifar: `layer2.0.shortcut.0.weight`.
fn shortcut(name: &str) -> Option<String> {
    name.contains(".shortcut.").then(|| name.replace(".shortcut.", ".downsample."))
}

/// The classifier, by all the names that it goes by.
fn heads(name: &str) -> impl Iterator<Item = String> {
    const HEADS: [&str; 5] = ["fc", "linear", "classifier", "head", "head.fc"];
    let head = name.rsplit_once('.').filter(|(head, _)| HEADS.contains(head));
    head.into_iter().flat_map(|(head, end)| {
        HEADS.into_iter().filter(move |other| *other != head).map(move |other| format!("{other}.{end}"))
    })
}

/// ResNets of the library transformers: `resnet.encoder.stages.0.layers.1.layer.0.convolution.weight`.
fn hugging_face(name: &str) -> Option<String> {
    let name = name.strip_prefix("resnet.").unwrap_or(name);
    if let Some(end) = name.strip_prefix("classifier.1.") {
        return Some(format!("fc.{end}"));
    }
    let (path, end) = name.rsplit_once('.')?;
    let (path, kind) = path.rsplit_once('.')?;
    let norm = match kind {
        "convolution" => false,
        "normalization" => true,
        _ => return None,
    };
    if path == "embedder.embedder" {
        return Some(format!("{}.{end}", if norm { "bn1" } else { "conv1" }));
    }
    let (stage, rest) = path.strip_prefix("encoder.stages.")?.split_once(".layers.")?;
    let (block, place) = rest.split_once('.')?;
    let layer = match place.strip_prefix("layer.") {
        Some(index) => {
            format!("{}{}", if norm { "bn" } else { "conv" }, index.parse::<u32>().ok()?.checked_add(1)?)
        }
        None if place == "shortcut" => format!("downsample.{}", u8::from(norm)),
        None => return None,
    };
    Some(format!("layer{}.{block}.{layer}.{end}", stage.parse::<u32>().ok()?.checked_add(1)?))
}

/// Keras' DenseNets: `conv2_block1_0_bn/gamma`. (Its ResNets have biases and strides that torchvision's have not.)
fn keras(name: &str) -> Option<Spelling> {
    let (layer, variable) = name.trim_end_matches(":0").rsplit_once('/')?;
    let (end, as_in_memory) = match variable {
        "kernel" => ("weight", true),
        "gamma" => ("weight", false),
        "beta" | "bias" => ("bias", false),
        "moving_mean" => ("running_mean", false),
        "moving_variance" => ("running_var", false),
        _ => return None,
    };
    // Some versions nest a layer's variables below its name twice, some split it with a slash.
    let layer =
        layer.split_once('/').filter(|(a, b)| a == b).map_or(layer, |(once, _)| once).replace('/', "_");
    let path = match layer.as_str() {
        "conv1_conv" => "features.conv0".to_string(),
        "conv1_bn" => "features.norm0".to_string(),
        "bn" => "features.norm5".to_string(),
        "predictions" | "fc1000" => "classifier".to_string(),
        _ => keras_layer(&layer)?,
    };
    Some((format!("{path}.{end}"), as_in_memory))
}

/// Keras counts the stem as the first block.
fn keras_layer(layer: &str) -> Option<String> {
    let below = |number: &str| number.parse::<u32>().ok()?.checked_sub(1);
    if let Some(rest) = layer.strip_prefix("pool") {
        let (number, kind) = rest.split_once('_')?;
        let kind = if kind == "bn" { "norm" } else { kind };
        return Some(format!("features.transition{}.{kind}", below(number)?));
    }
    let (block, rest) = layer.strip_prefix("conv")?.split_once("_block")?;
    let (layer, part) = rest.split_once('_')?;
    let part = match part {
        "0_bn" => "norm1",
        "1_conv" => "conv1",
        "1_bn" => "norm2",
        "2_conv" => "conv2",
        _ => return None,
    };
    Some(format!("features.denseblock{}.denselayer{layer}.{part}", below(block)?))
}

/// What stands before and behind the last `mark`.
fn split_at_last<'a>(text: &'a str, mark: &str) -> Option<(&'a str, &'a str)> {
    let at = text.rfind(mark)?;
    Some((&text[..at], &text[at + mark.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn means(name: &str, expected: &str, as_in_memory: bool) {
        let candidate_keys: Vec<Spelling> = candidate_keys(name).collect();
        assert!(candidate_keys.contains(&(expected.to_string(), as_in_memory)), "{name}: {candidate_keys:?}");
    }

    #[test]
    fn names_of_every_origin() {
        let layer = "features.denseblock1.denselayer6";
        means(&format!("{layer}.norm.1.weight"), &format!("{layer}.norm1.weight"), false);
        means(&format!("{layer}.conv.2.weight"), &format!("{layer}.conv2.weight"), false);
        means("layer2.0.shortcut.1.running_var", "layer2.0.downsample.1.running_var", false);
        means("linear.bias", "fc.bias", false);
        means("fc.weight", "classifier.weight", false);
        means("resnet.embedder.embedder.convolution.weight", "conv1.weight", false);
        means("resnet.embedder.embedder.normalization.running_mean", "bn1.running_mean", false);
        let stage = "resnet.encoder.stages.3.layers.2";
        means(&format!("{stage}.layer.1.convolution.weight"), "layer4.2.conv2.weight", false);
        means(&format!("{stage}.layer.0.normalization.bias"), "layer4.2.bn1.bias", false);
        means(
            "resnet.encoder.stages.0.layers.0.shortcut.convolution.weight",
            "layer1.0.downsample.0.weight",
            false,
        );
        means(
            "resnet.encoder.stages.0.layers.0.shortcut.normalization.bias",
            "layer1.0.downsample.1.bias",
            false,
        );
        means("classifier.1.weight", "fc.weight", false);
        means("conv1_conv/kernel", "features.conv0.weight", true);
        means("conv1/bn/gamma:0", "features.norm0.weight", false);
        let layer = "features.denseblock4.denselayer16";
        means("conv5_block16_0_bn/moving_variance", &format!("{layer}.norm1.running_var"), false);
        means("conv5_block16_2_conv/conv5_block16_2_conv/kernel:0", &format!("{layer}.conv2.weight"), true);
        means("pool2_bn/beta", "features.transition1.norm.bias", false);
        means("pool4_conv/kernel", "features.transition3.conv.weight", true);
        means("bn/moving_mean", "features.norm5.running_mean", false);
        means("predictions/kernel", "classifier.weight", true);
    }

    #[test]
    fn what_is_no_spelling_of_anything() {
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
        ] {
            assert_eq!(candidate_keys(name).next(), None, "{name}");
        }
    }
}
