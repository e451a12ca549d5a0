//! Presets in files, `preset.json`, and the preset that fits a file of weights.

use super::{
    Normalize, Preset,
    class_names::{check_count, read_class_names_for, read_text},
};
use crate::{
    Error, Result,
    io::{FileKind, WeightsFile, write_atomically},
};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The value of `format` in every preset file.
const FORMAT: &str = "skipgrad preset";

/// The version of the format that is written, and the latest that is read.
const VERSION: u32 = 1;

/// The way in which images are resized; there is no other.
const INTERPOLATION: &str = "bilinear";

/// The largest file that is read, in bytes.
const MAX_LEN: u64 = 16 << 20;

/// What every version of the format begins with.
#[derive(Deserialize)]
struct Header {
    format: String,
    version: u32,
}

/// The content of a preset file, in torchvision's words.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    format: String,
    version: u32,
    resize_size: usize,
    crop_size: [usize; 2],
    interpolation: String,
    mean: Vec<f32>,
    std: Vec<f32>,
    classes: Vec<String>,
}

impl Preset {
    /// The name of a preset file in the folder of the weights that it belongs to.
    pub const FILE_NAME: &str = "preset.json";

    /// Writes the preset to a JSON file, atomically: see [`write_atomically`]. In the folder of the
    /// weights and under the name [`FILE_NAME`](Preset::FILE_NAME), [`Preset::for_weights`] finds
    /// it.
    ///
    /// # Errors
    /// Those of [`Preset::check`], and [`Error::Io`] if the file cannot be written.
    ///
    /// ```
    /// use skipgrad::data::Preset;
    /// # let path = std::env::temp_dir().join(format!("skipgrad-preset-{}", std::process::id()));
    /// let preset = Preset::imagenet().resize_size(232).classes(["cat", "dog"]);
    /// preset.save(&path)?;
    /// assert_eq!(Preset::load(&path)?, preset);
    /// # std::fs::remove_file(&path).unwrap();
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.check()?;
        let path = path.as_ref();
        let content = Content {
            format: FORMAT.to_string(),
            version: VERSION,
            resize_size: self.resize_size,
            crop_size: self.crop_size,
            interpolation: INTERPOLATION.to_string(),
            mean: self.normalize.mean.clone(),
            std: self.normalize.std.clone(),
            classes: self.classes.clone(),
        };
        let mut text = serde_json::to_string_pretty(&content)
            .map_err(|error| Error::argument("preset", "values", "values that JSON has", error))?;
        text.push('\n');
        write_atomically(path, text.as_bytes())
    }

    /// Reads a preset from a file that [`Preset::save`] wrote.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Malformed`] if it is not a preset, is of
    /// a later version, or has values that do not fit each other. A file that is something else is
    /// named by its [`FileKind`].
    pub fn load(path: impl AsRef<Path>) -> Result<Preset> {
        let path = path.as_ref();
        let text = read_text(path, MAX_LEN, |kind| kind == FileKind::Json, "a preset, which is JSON")?;
        let Header { format, version } = serde_json::from_str(&text).map_err(|error| {
            Error::malformed(
                path,
                "preset",
                "JSON with `format` and `version`, as Preset::save writes",
                error,
            )
        })?;
        if format != FORMAT {
            return Err(Error::malformed(path, "format", format_args!("{FORMAT:?}"), format!("{format:?}")));
        }
        if !(1..=VERSION).contains(&version) {
            let expected = format!("from 1 to {VERSION}, the versions that this release reads");
            return Err(Error::malformed(path, "version", expected, version));
        }
        let content: Content = serde_json::from_str(&text).map_err(|error| {
            Error::malformed(path, "preset", "the fields that Preset::save writes", error)
        })?;
        if content.interpolation != INTERPOLATION {
            let found = format!("{:?}", content.interpolation);
            return Err(Error::malformed(path, "interpolation", format_args!("{INTERPOLATION:?}"), found));
        }
        let normalize = Normalize::new(content.mean, content.std);
        let preset =
            Preset::new(content.resize_size, normalize, content.classes).crop_size(content.crop_size);
        preset.check().map_err(|error| match error {
            Error::Argument { argument, expected, found, .. } => {
                Error::malformed(path, argument, expected, found)
            }
            other => other,
        })?;
        Ok(preset)
    }

    /// Returns the preset that belongs to a file of weights.
    ///
    /// That is the one of [`FILE_NAME`](Preset::FILE_NAME) in its folder. Without such a file it
    /// follows from the number of outputs of the classifier ([`WeightsFile::num_classes`]): 1000
    /// are ImageNet's, 10 and 100 those of CIFAR. The names of the classes are then those of
    /// `classes.txt` in the folder, if there is one; with it, any other number of outputs has the
    /// preprocessing of ImageNet.
    ///
    /// # Errors
    /// Those of [`WeightsFile::open`] and [`Preset::load`]; [`Error::Malformed`] about
    /// `preset.json` or `classes.txt` if it has names for another number of classes than the
    /// classifier has outputs; [`Error::Argument`] if neither file is there and the number of
    /// outputs is none of the three, or unknown.
    ///
    /// ```
    /// use skipgrad::{Tensor, data::Preset, io};
    /// # let folder = std::env::temp_dir().join(format!("skipgrad-fits-{}", std::process::id()));
    /// # std::fs::create_dir_all(&folder).unwrap();
    /// let weights = folder.join("model.safetensors");
    /// let tensors = [("head.fc.weight".to_string(), Tensor::zeros([1000, 8, 1, 1])?)].into();
    /// io::write(&weights, &tensors, &Default::default())?;
    /// assert_eq!(Preset::for_weights(&weights)?, Preset::imagenet());
    ///
    /// Preset::imagenet().resize_size(232).save(folder.join(Preset::FILE_NAME))?;
    /// assert_eq!(Preset::for_weights(&weights)?.resize_size, 232);
    /// # std::fs::remove_dir_all(&folder).unwrap();
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn for_weights(weights: impl AsRef<Path>) -> Result<Preset> {
        let weights = WeightsFile::open(weights)?;
        let file = weights.path().with_file_name(Preset::FILE_NAME);
        if file.exists() {
            let preset = Preset::load(&file)?;
            check_count(&file, "classes", preset.classes.len(), &weights)?;
            return Ok(preset);
        }
        let names = weights.path().with_file_name("classes.txt");
        let names = names.exists().then(|| read_class_names_for(&names, &weights)).transpose()?;
        let preset = match (weights.num_classes(), &names) {
            (Some(1000), _) => Preset::imagenet(),
            (Some(100), _) => Preset::cifar100(),
            (Some(10), _) => Preset::cifar10(),
            (_, Some(_)) => Preset::imagenet(),
            (outputs, None) => {
                let expected = format!(
                    "a file {} or classes.txt beside the weights, whose classes are neither ImageNet's nor \
                     CIFAR's",
                    Preset::FILE_NAME
                );
                let outputs = outputs.map_or("a classifier of an unknown name".to_string(), |outputs| {
                    format!("{outputs} outputs")
                });
                let found = format!("{} with {outputs}, alone", weights.path().display());
                return Err(Error::argument("preset", "weights", expected, found));
            }
        };
        Ok(match names {
            Some(names) => preset.classes(names),
            None => preset,
        })
    }
}
