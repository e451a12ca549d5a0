//! Writing a model's state to a weights file.

use super::{entry::Metadata, key_map::KeyStyle, safetensors::write};
use crate::{
    Result, Tensor,
    autograd::{Layout, NamedTensors, State, StateRef},
};
use std::path::Path;

/// Writes all state of a model to a safetensors file, atomically: see
/// [`write_atomically`](super::write_atomically).
///
/// The name of the file ends with `.safetensors`, or at least not like one of another format.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) if the folder does not exist, cannot be written or is full;
/// [`Error::Argument`](crate::Error::Argument) if the name ends with `.pth` or as another format's.
pub fn save(model: &(impl State + ?Sized), path: impl AsRef<Path>) -> Result<()> {
    save_as(model, path, KeyStyle::Torchvision)
}

/// Writes all state of a model as [`save`] does, under the names and in the layouts of another
/// library. [`load`](super::load) reads such a file too.
///
/// ```
/// use skipgrad::{Rng, autograd::State, io::{self, KeyStyle}, models::DenseNet};
/// # let file_name = format!("skipgrad-save-as-{}.safetensors", std::process::id());
/// # let path = std::env::temp_dir().join(file_name);
/// let mut rng = Rng::seed(0);
/// let model = DenseNet::bc(10, 4, 5, &mut rng)?;
/// io::save_as(&model, &path, KeyStyle::Keras)?;
/// assert_eq!(io::read(&path)?["conv1_conv/kernel"].shape(), [3, 3, 3, 8]);
/// let mut other = DenseNet::bc(10, 4, 5, &mut rng)?;
/// io::load(&mut other, &path)?;
/// assert_eq!(other.export(), model.export());
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), skipgrad::Error>(())
/// ```
///
/// # Errors
/// As [`save`]; [`Error::Argument`](crate::Error::Argument) if the style has no name for a tensor
/// of the model.
pub fn save_as(model: &(impl State + ?Sized), path: impl AsRef<Path>, style: KeyStyle) -> Result<()> {
    let mut keys = vec![];
    model.visit("", &mut |key, _| keys.push(key.to_string()));
    let style = style.for_model(&keys);
    let mut tensors: Vec<Result<(String, Tensor)>> = vec![];
    model.visit("", &mut |key, state| {
        tensors.push(style.name(key).and_then(|name| Ok((name, stored(style, state)?))));
    });
    // PyTorch's and TensorFlow's loaders check this entry.
    let format = if style == KeyStyle::Keras { "tf" } else { "pt" };
    let metadata = Metadata::from([("format".to_string(), format.to_string())]);
    write(path, &tensors.into_iter().collect::<Result<NamedTensors>>()?, &metadata)
}

/// Returns a tensor of the model in the layout that the style stores it in.
fn stored(style: KeyStyle, state: StateRef<'_>) -> Result<Tensor> {
    if style == KeyStyle::Keras {
        // Keras has the layouts that this crate has in memory: [KH, KW, C, OC] and [in, out].
        return Ok(state.value().clone());
    }
    let tensor = state.layout().to_file(state.value())?;
    match (style, state.layout(), &tensor.shape()[..]) {
        // The classifier of timm's pre-activation networks is a 1x1 convolution.
        (KeyStyle::Timm, Layout::Linear, &[outputs, inputs]) => tensor.reshape([outputs, inputs, 1, 1]),
        _ => Ok(tensor),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        autograd::{Param, StateMut},
        io::{self, KeyStyle::*},
    };

    /// The parameters of a pre-activation network.
    struct PreActivation(Vec<(&'static str, Param)>);

    impl State for PreActivation {
        fn visit(&self, _path: &str, f: &mut dyn FnMut(&str, StateRef<'_>)) {
            self.0.iter().for_each(|(key, param)| f(key, StateRef::Param(param)));
        }
        fn visit_mut(&mut self, _path: &str, f: &mut dyn FnMut(&str, StateMut<'_>)) {
            self.0.iter_mut().for_each(|(key, param)| f(key, StateMut::Param(param)));
        }
    }

    fn network(value: f32) -> PreActivation {
        let tensor = |shape: &[usize]| Tensor::from_fn(shape, |i| value * (1.0 + i as f32)).unwrap();
        PreActivation(vec![
            ("conv1.weight", Param::conv(tensor(&[3, 3, 1, 2]))),
            ("layer1.0.bn1.weight", Param::new(tensor(&[2]))),
            ("layer1.0.conv1.weight", Param::conv(tensor(&[1, 3, 2, 4]))),
            ("layer1.0.downsample.0.weight", Param::conv(tensor(&[1, 1, 2, 4]))),
            ("norm.bias", Param::new(tensor(&[4]))),
            ("norm.weight", Param::new(tensor(&[4]))),
            ("fc.weight", Param::linear(tensor(&[4, 5]))),
        ])
    }

    #[test]
    fn files_of_every_style_load_again() {
        let path = std::env::temp_dir().join(format!("skipgrad-save-{}.safetensors", std::process::id()));
        for (style, expected) in [
            (Torchvision, ["fc.weight [5, 4]", "layer1.0.downsample.0.weight [4, 2, 1, 1]"]),
            (Timm, ["head.fc.weight [5, 4, 1, 1]", "stages.0.blocks.0.downsample.conv.weight [4, 2, 1, 1]"]),
            (WideResNet, ["bn1.bias [4]", "block1.layer.0.convShortcut.weight [4, 2, 1, 1]"]),
        ] {
            let (model, mut other) = (network(1.0), network(0.0));
            save_as(&model, &path, style).unwrap();
            let file = io::WeightsFile::open(&path).unwrap();
            let found: Vec<String> = file.iter().map(|(name, shape)| format!("{name} {shape}")).collect();
            assert!(expected.iter().all(|tensor| found.iter().any(|found| found == tensor)), "{found:?}");
            io::load(&mut other, &path).unwrap();
            assert_eq!(other.export(), model.export(), "{style:?}");
        }
        std::fs::remove_file(&path).unwrap();
        let error = save_as(&network(1.0), &path, Keras).unwrap_err().to_string();
        assert!(error.ends_with("found Keras, which has no name for conv1.weight"), "{error}");
        assert!(!path.exists());
    }
}
