//! Taking a model's state from a weights file, whoever wrote it.

use super::{WeightsFile, key_map::candidate_keys};
use crate::{
    Error, Result, Shape, Tensor,
    autograd::{Layout, NamedTensors, State, matches},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// How a model is loaded from a weights file.
///
/// Strict unless told otherwise: every tensor of the model must be in the file and every tensor of the file in the model (but
/// `num_batches_tracked`, which PyTorch writes and nothing reads). Where the file has the model's tensors below some name, as
/// training checkpoints do (`state_dict.module.conv1.weight`), that name is found, and what stands beside it is left alone.
/// Where a name is not the model's, other spellings of it are tried: torchvision's older ones, those of CIFAR networks, of
/// the library transformers and of Keras' DenseNets.
///
/// ```
/// use skipgrad::{Rng, autograd::State, io::{self, LoadOptions}, models::{ResNet, ResNetConfig}};
/// # let path = std::env::temp_dir().join(format!("skipgrad-load-{}.safetensors", std::process::id()));
/// let mut rng = Rng::seed(0);
/// let config = ResNetConfig::cifar_paper(8, 1000)?.stages([(4, 1), (8, 1)]);
/// io::save(&ResNet::new(&config, &mut rng)?, &path)?;
///
/// // For three classes, and for images of one channel.
/// let mut model = ResNet::new(&config.classes(3).channels(1), &mut rng)?;
/// let error = io::load(&mut model, &path).unwrap_err().to_string();
/// assert!(error.contains("fc.weight: expected [3, 8], found [1000, 8]"));
/// let loaded = LoadOptions::new().new_head().adapt_channels().load(&mut model, &path)?;
/// assert_eq!(loaded.kept, ["fc.weight", "fc.bias"]);
/// assert_eq!(loaded.channels, Some([3, 1]));
/// # std::fs::remove_file(&path).unwrap();
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    prefix: Option<String>,
    ignore: Vec<String>,
    new_head: bool,
    adapt_channels: bool,
}

/// What was done to load a model. All names but those of [`Loaded::within`] and [`Loaded::ignored`] are the model's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Loaded {
    /// Below which name the file has the model's tensors: `state_dict.module`, or nothing.
    pub prefix: String,
    /// Tensors that the file spells in another way, each with the file's name.
    pub renamed: BTreeMap<String, String>,
    /// Tensors that kept the values they had, in the model's order.
    pub kept: Vec<String>,
    /// Names of the file that were left out.
    pub ignored: Vec<String>,
    /// The file's number of input channels and the model's, where the first convolution was adapted.
    pub channels: Option<[usize; 2]>,
}

impl LoadOptions {
    /// Strict loading.
    pub fn new() -> LoadOptions {
        LoadOptions::default()
    }

    /// Says below which name the file has the model's tensors: `state_dict_ema`. Needed only where they are there more than
    /// once.
    pub fn prefix(self, name: impl Into<String>) -> LoadOptions {
        LoadOptions { prefix: Some(name.into()), ..self }
    }

    /// Leaves out the tensors, of the model or of the file, whose name is `pattern`, in which `*` is any text: the model's keep
    /// the values they have, the file's are not read. May be called more than once.
    pub fn ignore(mut self, pattern: impl Into<String>) -> LoadOptions {
        self.ignore.push(pattern.into());
        self
    }

    /// Leaves the classifier, which is the model's last linear layer, as it is initialized: for other classes than the file's.
    pub fn new_head(self) -> LoadOptions {
        LoadOptions { new_head: true, ..self }
    }

    /// Lets the model's first convolution have another number of input channels than the file's. For one channel its filters are
    /// summed over the file's; for C of the file's C', filter i is filter i mod C' times C'/C. So an image whose channels are
    /// alike is seen as before (as timm does it).
    pub fn adapt_channels(self) -> LoadOptions {
        LoadOptions { adapt_channels: true, ..self }
    }

    /// Takes all state of a model from a weights file of any format that [`WeightsFile`] opens.
    ///
    /// # Errors
    /// As [`WeightsFile::open`] and [`WeightsFile::read_all`]; [`Error::State`] that lists everything that does not fit, in the
    /// model's names where they are known; [`Error::Argument`] if the model's tensors are there more than once, or if there is
    /// no head or no convolution to treat apart. The model is unchanged then.
    pub fn load(&self, model: &mut (impl State + ?Sized), path: impl AsRef<Path>) -> Result<Loaded> {
        let path = path.as_ref();
        let file = WeightsFile::open(path)?;
        let pieces = pieces(model);
        let plan = self.plan(&file, &pieces)?;
        model.fits(&plan.shapes(&file, &pieces)).map_err(|error| error.with_file(Some(path)))?;

        let names: Vec<&str> = plan.taken.values().map(|source| source.name).collect();
        let mut tensors = NamedTensors::new();
        for ((name, source), tensor) in plan.taken.iter().zip(file.read_several(&names)?) {
            tensors.insert(name.to_string(), source.adapted(tensor)?);
        }
        model.visit("", &mut |name, slot| {
            if plan.kept.contains(name)
                && let Ok(tensor) = slot.layout().to_file(slot.value())
            {
                tensors.insert(name.to_string(), tensor);
            }
        });
        model.import(tensors)?;
        Ok(plan.done(&pieces))
    }

    /// Which tensor of the file becomes which of the model's.
    fn plan<'a>(&self, file: &'a WeightsFile, pieces: &'a [Piece]) -> Result<Plan<'a>> {
        let head = self.head(pieces)?;
        let stem = self.stem(pieces)?;
        let by_name: BTreeMap<&str, &Piece> =
            pieces.iter().map(|piece| (piece.name.as_str(), piece)).collect();
        let prefix = match &self.prefix {
            Some(name) if !name.is_empty() => format!("{name}."),
            Some(_) => String::new(),
            None => common_prefix(file, &by_name)?,
        };
        let mut plan = Plan { prefix, ..Plan::default() };
        let is_kept = |piece: &&Piece| self.ignores(&piece.name) || head == Some(parent(&piece.name));
        plan.kept = pieces.iter().filter(is_kept).map(|piece| piece.name.as_str()).collect();

        let below = |(name, _)| Some((name, str::strip_prefix(name, &plan.prefix)?));
        let names: Vec<(&str, &str)> = file.iter().filter_map(below).collect();
        // A tensor that has the model's own name for it comes before one that is another spelling.
        let (own, others): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|(_, short)| by_name.contains_key(short));
        for (name, short) in own.into_iter().chain(others) {
            if short.ends_with("num_batches_tracked") {
                continue;
            }
            let resolved = resolve_key(short, &by_name)
                .filter(|(piece, _)| !plan.taken.contains_key(piece.name.as_str()));
            let left_out = self.ignores(name)
                || self.ignores(short)
                || resolved.is_some_and(|(piece, _)| plan.kept.contains(piece.name.as_str()));
            match resolved {
                _ if left_out => plan.ignored.push(name),
                None => plan.unexpected.push(name),
                Some((piece, as_in_memory)) => {
                    let mut source = Source { name, as_in_memory, layout: piece.layout, channels: None };
                    if stem == Some(piece.name.as_str()) {
                        source.channels =
                            source.shape(file).and_then(|found| other_channels(&found, &piece.shape));
                    }
                    plan.taken.insert(&piece.name, source);
                }
            }
        }
        Ok(plan)
    }

    fn ignores(&self, name: &str) -> bool {
        self.ignore.iter().any(|pattern| matches(pattern, name))
    }

    /// The path of the layer that is the head, if it is treated apart.
    fn head<'a>(&self, pieces: &'a [Piece]) -> Result<Option<&'a str>> {
        let last = pieces.iter().rfind(|piece| piece.layout == Layout::Linear);
        match last {
            _ if !self.new_head => Ok(None),
            Some(piece) => Ok(Some(parent(&piece.name))),
            None => Err(Error::argument("load", "new_head", "a model with a linear layer", "none")),
        }
    }

    /// The name of the weight that may have other channels, if one may.
    fn stem<'a>(&self, pieces: &'a [Piece]) -> Result<Option<&'a str>> {
        let first = pieces.iter().find(|piece| piece.layout == Layout::Conv);
        match first {
            _ if !self.adapt_channels => Ok(None),
            Some(piece) => Ok(Some(&piece.name)),
            None => Err(Error::argument("load", "adapt_channels", "a model with a convolution", "none")),
        }
    }
}

/// A piece of a model's state.
struct Piece {
    name: String,
    /// As a file has it.
    shape: Shape,
    layout: Layout,
}

fn pieces(model: &(impl State + ?Sized)) -> Vec<Piece> {
    let mut pieces = vec![];
    model.visit("", &mut |name, slot| {
        let layout = slot.layout();
        pieces.push(Piece {
            name: name.to_string(),
            shape: layout.shape_in_file(slot.value().shape()),
            layout,
        });
    });
    pieces
}

/// The piece that a name of the file means, and whether the tensor lies in the file as in memory.
fn resolve_key<'a>(short: &str, by_name: &BTreeMap<&str, &'a Piece>) -> Option<(&'a Piece, bool)> {
    if let Some(piece) = by_name.get(short) {
        return Some((piece, false));
    }
    candidate_keys(short).find_map(|(name, as_in_memory)| Some((*by_name.get(name.as_str())?, as_in_memory)))
}

/// The names of a checkpoint are as deep as this, and as long as that; what is beyond is no name of a model's.
const NESTED: (usize, usize) = (8, 512);

/// What stands before the model's names in the file, with the dot: the one prefix below which most of them are found.
///
/// # Errors
/// [`Error::Argument`] if there is more than one.
fn common_prefix(file: &WeightsFile, by_name: &BTreeMap<&str, &Piece>) -> Result<String> {
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, _) in file.iter().filter(|(name, _)| name.len() <= NESTED.1) {
        let dots = name.match_indices('.').map(|(at, _)| at + 1);
        for at in [0].into_iter().chain(dots).take(NESTED.0) {
            let (prefix, short) = name.split_at(at);
            if resolve_key(short, by_name).is_some() {
                *found.entry(prefix).or_default() += 1;
            }
        }
    }
    let most = found.values().copied().max().unwrap_or(0);
    let best: Vec<&str> =
        found.into_iter().filter(|(_, count)| *count == most).map(|(prefix, _)| prefix).collect();
    match best[..] {
        [] | ["", ..] => Ok(String::new()),
        [one] => Ok(one.to_string()),
        _ => {
            let names: Vec<&str> = best.iter().map(|prefix| prefix.trim_end_matches('.')).collect();
            let expected = "the name below which the tensors are, since they are there more than once";
            Err(Error::argument("load", "within", expected, names.join(" and ")))
        }
    }
}

/// A tensor of the file that becomes one of the model's.
struct Source<'a> {
    name: &'a str,
    /// Whether it lies in the file as in memory.
    as_in_memory: bool,
    /// The model's.
    layout: Layout,
    /// The file's input channels and the model's, if they are to be adapted.
    channels: Option<[usize; 2]>,
}

impl Source<'_> {
    /// Its shape in torchvision's layout, as the file has it.
    fn shape(&self, file: &WeightsFile) -> Option<Shape> {
        let shape = file.shape(self.name)?;
        Some(match shape.rank() {
            4 if self.as_in_memory => Layout::Conv.shape_in_file(shape),
            2 if self.as_in_memory => Layout::Linear.shape_in_file(shape),
            _ => self.linear(shape).unwrap_or(*shape),
        })
    }

    /// The shape `[out, in]` of a linear layer's weight that the file has as a convolution's of one pixel, `[out, in, 1, 1]`: timm's
    /// pre-activation networks do.
    fn linear(&self, shape: &Shape) -> Option<Shape> {
        match shape[..] {
            [outputs, inputs, 1, 1] if self.layout == Layout::Linear => Shape::new(&[outputs, inputs]).ok(),
            _ => None,
        }
    }

    /// What was read, as the model has it.
    fn adapted(&self, tensor: Tensor) -> Result<Tensor> {
        let tensor = match tensor.shape().rank() {
            4 if self.as_in_memory => Layout::Conv.to_file(&tensor)?,
            2 if self.as_in_memory => Layout::Linear.to_file(&tensor)?,
            _ => match self.linear(tensor.shape()) {
                Some(shape) => tensor.reshape(shape)?,
                None => tensor,
            },
        };
        match self.channels {
            Some([_, channels]) => with_channels(&tensor, channels),
            None => Ok(tensor),
        }
    }
}

#[derive(Default)]
struct Plan<'a> {
    /// With the dot.
    prefix: String,
    /// By the model's name.
    taken: BTreeMap<&'a str, Source<'a>>,
    kept: BTreeSet<&'a str>,
    /// By the file's names, of which a hostile file may have so many that they are not copied.
    ignored: Vec<&'a str>,
    unexpected: Vec<&'a str>,
}

impl<'a> Plan<'a> {
    /// The shapes that the model's state would have.
    fn shapes(&self, file: &WeightsFile, pieces: &'a [Piece]) -> BTreeMap<&'a str, Shape> {
        let unexpected =
            self.unexpected.iter().filter_map(|&name| Some((&name[self.prefix.len()..], *file.shape(name)?)));
        let own = pieces.iter().filter_map(|piece| {
            let name = piece.name.as_str();
            let shape = match self.taken.get(name) {
                Some(source) if source.channels.is_none() => source.shape(file)?,
                None if !self.kept.contains(name) => return None,
                _ => piece.shape,
            };
            Some((name, shape))
        });
        unexpected.chain(own).collect()
    }

    fn done(self, pieces: &[Piece]) -> Loaded {
        let kept = pieces.iter().filter(|piece| self.kept.contains(piece.name.as_str()));
        let renamed = self.taken.iter().filter(|(name, source)| source.name[self.prefix.len()..] != ***name);
        Loaded {
            renamed: renamed.map(|(name, source)| (name.to_string(), source.name.to_string())).collect(),
            kept: kept.map(|piece| piece.name.clone()).collect(),
            channels: self.taken.values().find_map(|source| source.channels),
            prefix: self.prefix.trim_end_matches('.').to_string(),
            ignored: self.ignored.into_iter().map(str::to_string).collect(),
        }
    }
}

/// The path of a tensor's layer.
fn parent(name: &str) -> &str {
    name.rsplit_once('.').map_or("", |(parent, _)| parent)
}

/// The input channels found and expected, if the shapes of two convolutions' weights differ in nothing else.
fn other_channels(found: &Shape, expected: &Shape) -> Option<[usize; 2]> {
    match (&found[..], &expected[..]) {
        (&[a, from, b, c], &[d, to, e, f]) if [a, b, c] == [d, e, f] && from != to && from > 0 => {
            Some([from, to])
        }
        _ => None,
    }
}

/// A convolution's weight `[OC, C', KH, KW]` for another number of input channels; see [`LoadOptions::adapt_channels`].
fn with_channels(weight: &Tensor, channels: usize) -> Result<Tensor> {
    let [outputs, from, height, width] = weight.shape().nhwc("load", "weight")?;
    let pixels = height * width;
    let scale = from as f32 / channels as f32;
    let of = |output: usize, channel: usize, pixel: usize| {
        weight.data()[(output * from + channel) * pixels + pixel]
    };
    Tensor::from_fn([outputs, channels, height, width], |i| {
        let (output, channel, pixel) = (i / pixels / channels, i / pixels % channels, i % pixels);
        match channels {
            1 => (0..from).map(|channel| of(output, channel, pixel)).sum(),
            _ => scale * of(output, channel % from, pixel),
        }
    })
}
