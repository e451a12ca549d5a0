//! What operations are to those who read a graph.

use std::ops::Range;

/// What an operation is to those who read a graph: a compiler for inference, an exporter, a
/// drawing. The engine itself does not look at it.
///
/// Images are `[N, H, W, C]`, and pairs are (rows, columns). The inputs are those of the method of
/// [`Var`](super::Var) with the name of the operation, in its order.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// A convolution; the inputs are x, the weight and perhaps the bias.
    Conv2d {
        /// The distance between neighboring windows.
        stride: [usize; 2],
        /// The zeros before and after the image, in rows and in columns.
        padding: [[usize; 2]; 2],
        /// The distance between neighboring taps of the kernel.
        dilation: [usize; 2],
        /// The number of groups.
        groups: usize,
        /// Whether only the direct sums may be taken, not a faster algorithm that rounds otherwise.
        is_direct: bool,
    },
    /// A batch normalization; the inputs are x, gamma and beta, then the mean and the variance if
    /// they are fixed, then the residual if there is one.
    BatchNorm {
        /// The constant that is added to the variance.
        eps: f32,
        /// Whether the mean and the variance are inputs.
        is_fixed: bool,
        /// Whether a residual is added.
        has_residual: bool,
        /// Whether a ReLU is applied last.
        relu: bool,
    },
    /// A fully connected layer; the inputs are x, the weight and perhaps the bias.
    Linear,
    /// A matrix product.
    MatMul,
    /// An element-wise sum.
    Add,
    /// An element-wise product.
    Mul,
    /// A product with a constant.
    Scale(f32),
    /// A product of each channel of images with a factor; the inputs are the images and the gate.
    ScaleChannels,
    /// A rectified linear unit.
    Relu,
    /// A logistic function.
    Sigmoid,
    /// A softmax over the last axis.
    Softmax,
    /// The logarithm of a softmax over the last axis.
    LogSoftmax,
    /// A concatenation along the last axis.
    Concat,
    /// A range of the last axis.
    SliceChannels(Range<usize>),
    /// Zeros before and after the channels.
    PadChannels([usize; 2]),
    /// A maximum over windows.
    MaxPool2d {
        /// The size of a window.
        kernel: [usize; 2],
        /// The distance between neighboring windows.
        stride: [usize; 2],
        /// The pixels before and after the image, in rows and in columns.
        padding: [[usize; 2]; 2],
    },
    /// A mean over windows.
    AvgPool2d {
        /// The size of a window.
        kernel: [usize; 2],
        /// The distance between neighboring windows.
        stride: [usize; 2],
        /// The pixels before and after the image, in rows and in columns.
        padding: [[usize; 2]; 2],
        /// Whether the mean divides by the size of the window, or by the number of its pixels
        /// inside the image.
        count_include_pad: bool,
    },
    /// The mean of each channel of an image.
    GlobalAvgPool,
    /// The same elements with all axes but the first as one.
    Flatten,
    /// The same elements in another shape.
    Reshape,
    /// The sum of all elements.
    Sum,
    /// The mean of all elements.
    Mean,
    /// A loss or a random operation, which is part of training only.
    Training,
    /// Any other operation, perhaps with the ONNX node that computes the same.
    Custom(Option<OnnxNode>),
}

/// An ONNX node: what the export of a network writes for an operation.
///
/// ```
/// use skipgrad::autograd::{Kind, OnnxAttribute, OnnxNode};
/// let node = OnnxNode::new("LeakyRelu").attribute("alpha", OnnxAttribute::Float(0.01));
/// let kind = Kind::Custom(Some(node));
/// # let _ = kind;
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct OnnxNode {
    /// The name of the operator, such as `LeakyRelu`.
    pub op_type: String,
    /// The operator set that defines it; empty for that of ONNX itself.
    pub domain: String,
    /// The attributes by name.
    pub attributes: Vec<(String, OnnxAttribute)>,
}

/// The value of an attribute of an [`OnnxNode`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum OnnxAttribute {
    /// A floating-point number.
    Float(f32),
    /// An integer.
    Int(i64),
    /// A list of integers.
    Ints(Vec<i64>),
    /// A text.
    String(String),
}

impl OnnxNode {
    /// Makes a node of ONNX's own operator set, without attributes.
    pub fn new(op_type: impl Into<String>) -> OnnxNode {
        OnnxNode { op_type: op_type.into(), domain: String::new(), attributes: vec![] }
    }

    /// Sets the operator set, such as `com.microsoft`.
    #[must_use]
    pub fn domain(self, domain: impl Into<String>) -> OnnxNode {
        OnnxNode { domain: domain.into(), ..self }
    }

    /// Adds an attribute.
    #[must_use]
    pub fn attribute(mut self, name: impl Into<String>, value: OnnxAttribute) -> OnnxNode {
        self.attributes.push((name.into(), value));
        self
    }
}
