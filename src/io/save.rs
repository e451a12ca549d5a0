//! Writing a model's state to a weights file.

use super::{dtype::DType, entry::Metadata, key_map::KeyStyle, safetensors::write_as};
use crate::{
    Result, Tensor,
    autograd::{Layout, NamedTensors, State, StateRef},
};
use std::path::Path;

/// Writes all state of a model to a safetensors file, atomically: see
/// [`write_atomically`](super::write_atomically). [`SaveOptions`] has more choices.
///
/// The name of the file ends with `.safetensors`, or at least not like one of another format.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io) if the folder does not exist, cannot be written or is full;
/// [`Error::Argument`](crate::Error::Argument) if the name ends with `.pth` or as another format's.
pub fn save(model: &(impl State + ?Sized), path: impl AsRef<Path>) -> Result<()> {
    SaveOptions::new().save(model, path)
}

/// How a model is written to a weights file: under which names, and in which type.
/// [`load`](super::load) reads what any options wrote.
///
/// ```
/// use skipgrad::{Rng, autograd::State, io::{self, KeyStyle, SaveOptions}, models::DenseNet};
/// # let file_name = format!("skipgrad-save-options-{}.safetensors", std::process::id());
/// # let path = std::env::temp_dir().join(file_name);
/// let mut rng = Rng::seed(0);
/// let model = DenseNet::bc(10, 4, 5, &mut rng)?;
/// SaveOptions::new().key_style(KeyStyle::Keras).bfloat16().save(&model, &path)?;
/// assert_eq!(io::read(&path)?["conv1_conv/kernel"].shape(), [3, 3, 3, 8]);
/// let mut other = DenseNet::bc(10, 4, 5, &mut rng)?;
/// io::load(&mut other, &path)?;
/// let weights = [&model, &other].map(|model| model.export()["features.conv0.weight"].data()[0]);
/// assert!((weights[0] - weights[1]).abs() <= weights[0].abs() / 256.0);
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct SaveOptions {
    style: KeyStyle,
    dtype: DType,
}

impl Default for SaveOptions {
    fn default() -> SaveOptions {
        SaveOptions { style: KeyStyle::Torchvision, dtype: DType::F32 }
    }
}

impl SaveOptions {
    /// Torchvision's names and layouts, and elements of f32.
    pub fn new() -> SaveOptions {
        SaveOptions::default()
    }

    /// Writes the names and the layouts of another library.
    #[must_use]
    pub fn key_style(self, style: KeyStyle) -> SaveOptions {
        SaveOptions { style, ..self }
    }

    /// Rounds all elements to bf16, the upper half of an f32: half the size, 8 bits of precision.
    #[must_use]
    pub fn bfloat16(self) -> SaveOptions {
        SaveOptions { dtype: DType::Bf16, ..self }
    }

    /// Rounds all elements to f16: half the size, 11 bits of precision, and values of at most
    /// 65504.
    #[must_use]
    pub fn half(self) -> SaveOptions {
        SaveOptions { dtype: DType::F16, ..self }
    }

    /// Writes all state of a model, as [`save`].
    ///
    /// # Errors
    /// As [`save`]; [`Error::Argument`](crate::Error::Argument) if the style has no name for a
    /// tensor of the model, or an element is too large for f16.
    pub fn save(&self, model: &(impl State + ?Sized), path: impl AsRef<Path>) -> Result<()> {
        let mut keys = vec![];
        model.visit("", &mut |key, _| keys.push(key.to_string()));
        let style = self.style.for_model(&keys);
        let mut tensors: Vec<Result<(String, Tensor)>> = vec![];
        model.visit("", &mut |key, state| {
            tensors.push(style.name(key).and_then(|name| Ok((name, stored(style, state)?))));
        });
        // PyTorch's and TensorFlow's loaders check this entry.
        let format = if style == KeyStyle::Keras { "tf" } else { "pt" };
        let metadata = Metadata::from([("format".to_string(), format.to_string())]);
        write_as(self.dtype, path, &tensors.into_iter().collect::<Result<NamedTensors>>()?, &metadata)
    }
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
            SaveOptions::new().key_style(style).save(&model, &path).unwrap();
            let file = io::WeightsFile::open(&path).unwrap();
            let found: Vec<String> = file.iter().map(|(name, shape)| format!("{name} {shape}")).collect();
            assert!(expected.iter().all(|tensor| found.iter().any(|found| found == tensor)), "{found:?}");
            io::load(&mut other, &path).unwrap();
            assert_eq!(other.export(), model.export(), "{style:?}");
        }
        std::fs::remove_file(&path).unwrap();
        let keras = SaveOptions::new().key_style(Keras);
        let error = keras.save(&network(1.0), &path).unwrap_err().to_string();
        assert!(error.ends_with("found Keras, which has no name for conv1.weight"), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn half_files_are_rounded_and_refuse_what_is_too_large() {
        let path = std::env::temp_dir().join(format!("skipgrad-half-{}.safetensors", std::process::id()));
        let net = |value: f32| PreActivation(vec![("norm.bias", Param::new(Tensor::scalar(value)))]);
        let saved = |options: SaveOptions, value: f32| -> Result<f32> {
            options.save(&net(value), &path)?;
            Ok(io::read(&path)?["norm.bias"].item())
        };
        assert_eq!(saved(SaveOptions::new().half(), 1.000_7).unwrap(), 1.000_976_6);
        assert_eq!(saved(SaveOptions::new().bfloat16(), 1.005).unwrap(), 1.007_812_5);
        assert_eq!(saved(SaveOptions::new().bfloat16(), 1e38).unwrap(), 150.0 * f32::powi(2.0, 119));
        let error = saved(SaveOptions::new().half(), -65520.0).unwrap_err().to_string();
        assert_eq!(
            error,
            "save: tensors: expected elements of at most 65504, for f16, found -65520 in norm.bias"
        );
        std::fs::remove_file(&path).unwrap();
    }
}
