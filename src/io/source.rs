//! The tensor of a file that one of the model's is loaded from, and its conversion.

use super::{load_plan::StateEntry, weights_file::WeightsFile};
use crate::{Result, Shape, Tensor, autograd::Layout};

/// A tensor of a file and how it differs from the model's.
pub(super) struct Source<'a> {
    /// The file's key.
    pub(super) key: &'a str,
    /// Whether the file has Keras' layout, which is the layout in memory.
    pub(super) keras_layout: bool,
    /// The layout of the model's tensor.
    pub(super) layout: Layout,
    /// The number of input channels in the file and in the model, if they are to be adapted.
    pub(super) adapted_channels: Option<[usize; 2]>,
}

impl<'a> Source<'a> {
    /// A tensor of the file whose channels are the model's.
    pub(super) fn new(key: &'a str, keras_layout: bool, layout: Layout) -> Source<'a> {
        Source { key, keras_layout, layout, adapted_channels: None }
    }

    /// Returns the same source, with the channels to adapt if it is for the weight `stem` and the
    /// file has another number of them.
    pub(super) fn adapted(self, file: &WeightsFile, entry: &StateEntry, stem: Option<&str>) -> Source<'a> {
        if stem != Some(entry.key.as_str()) {
            return self;
        }
        let found = self.shape(file);
        let adapted_channels = found.and_then(|found| differing_channels(&found, &entry.shape));
        Source { adapted_channels, ..self }
    }

    /// Returns the shape of the file's tensor in torchvision's layout.
    pub(super) fn shape(&self, file: &WeightsFile) -> Option<Shape> {
        let shape = file.shape(self.key)?;
        Some(match shape.rank() {
            4 if self.keras_layout => Layout::Conv.shape_in_file(shape),
            2 if self.keras_layout => Layout::Linear.shape_in_file(shape),
            _ => self.shape_of_linear(shape).unwrap_or(*shape),
        })
    }

    /// Returns the shape `[out, in]` for a linear layer whose weight the file stores as that of a
    /// 1x1 convolution, `[out, in, 1, 1]`, as timm does for pre-activation networks.
    fn shape_of_linear(&self, shape: &Shape) -> Option<Shape> {
        match shape[..] {
            [outputs, inputs, 1, 1] if self.layout == Layout::Linear => Shape::new(&[outputs, inputs]).ok(),
            _ => None,
        }
    }

    /// Converts the file's tensor to torchvision's layout and the model's input channels.
    pub(super) fn convert(&self, tensor: Tensor) -> Result<Tensor> {
        let tensor = match tensor.shape().rank() {
            4 if self.keras_layout => Layout::Conv.to_file(&tensor)?,
            2 if self.keras_layout => Layout::Linear.to_file(&tensor)?,
            _ => match self.shape_of_linear(tensor.shape()) {
                Some(shape) => tensor.reshape(shape)?,
                None => tensor,
            },
        };
        match self.adapted_channels {
            Some([_, channels]) => with_input_channels(&tensor, channels),
            None => Ok(tensor),
        }
    }
}

/// Returns the numbers of input channels found and expected, if the shapes of two convolutions'
/// weights differ in nothing else.
fn differing_channels(found: &Shape, expected: &Shape) -> Option<[usize; 2]> {
    match (&found[..], &expected[..]) {
        (&[a, from, b, c], &[d, to, e, f]) if [a, b, c] == [d, e, f] && from != to && from > 0 => {
            Some([from, to])
        }
        _ => None,
    }
}

/// Returns a convolution's weight `[OC, C', KH, KW]` for another number of input channels; see
/// [`LoadOptions::adapt_channels`](super::LoadOptions::adapt_channels).
fn with_input_channels(weight: &Tensor, channels: usize) -> Result<Tensor> {
    let [outputs, from, height, width] = weight.shape().nhwc("load", "weight")?;
    let pixels = height * width;
    let scale = from as f32 / channels as f32;
    let element = |output: usize, channel: usize, pixel: usize| {
        weight.data()[(output * from + channel) * pixels + pixel]
    };
    Tensor::from_fn([outputs, channels, height, width], |i| {
        let (output, channel, pixel) = (i / pixels / channels, i / pixels % channels, i % pixels);
        match channels {
            1 => (0..from).map(|channel| element(output, channel, pixel)).sum(),
            _ => scale * element(output, channel % from, pixel),
        }
    })
}
