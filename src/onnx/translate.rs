//! Translates the operations of a graph to ONNX nodes.
//!
//! A traced graph has each operation as it is defined, so that each is one of a few that ONNX has
//! too. Values with four axes are images, whose channels are the last axis in this crate and the
//! second in ONNX. Padding is written as numbers, because ONNX's automatic padding may round
//! differently.

use super::{
    builder::{GraphBuilder, INPUT, float, int, ints, sizes, string},
    proto::AttributeProto,
};
use crate::{
    Error, Result, Shape, Tensor,
    autograd::{Kind, Layout, OnnxAttribute, OnnxNode},
    graph::{Graph, Node, Source},
};
use std::ops::Range;

/// The names of the values of a graph in ONNX, by node.
type Names = Vec<String>;

/// Adds all nodes of a graph, and returns the name of its output.
///
/// # Errors
/// [`Error::Argument`], with the path of the module, for an operation that has no translation.
pub(super) fn translate(builder: &mut GraphBuilder, graph: &Graph) -> Result<String> {
    let mut names: Names = vec![];
    for node in graph.nodes() {
        let mut translator = Translator { builder, graph, node, names: &names };
        let name = translator.translate().map_err(|error| node.locate(error))?;
        names.push(name);
    }
    match graph.output() {
        Source::Input => Ok(INPUT.to_string()),
        Source::Node(node) => Ok(names[*node].clone()),
        Source::Constant(id, value) => builder.initializer("", *id, value, Layout::Plain),
    }
}

/// The translation of one node.
struct Translator<'a> {
    builder: &'a mut GraphBuilder,
    graph: &'a Graph,
    node: &'a Node,
    /// Names of the outputs of the nodes before.
    names: &'a Names,
}

impl Translator<'_> {
    /// Adds the nodes, and returns the name of their output.
    fn translate(&mut self) -> Result<String> {
        let channel_axis = channel_axis(self.node.shape());
        match self.node.kind() {
            &Kind::Conv2d { stride, padding, dilation, groups, .. } => {
                self.conv2d(stride, padding, dilation, groups)
            }
            &Kind::BatchNorm { eps, is_fixed, has_residual, relu } => {
                self.batch_norm(eps, is_fixed, has_residual, relu)
            }
            Kind::Linear => self.linear(),
            Kind::MatMul => self.with_all_inputs("MatMul", vec![]),
            Kind::Relu => self.with_all_inputs("Relu", vec![]),
            Kind::Sigmoid => self.with_all_inputs("Sigmoid", vec![]),
            Kind::Add => self.with_all_inputs("Add", vec![]),
            Kind::Mul => self.with_all_inputs("Mul", vec![]),
            &Kind::Scale(alpha) => self.scale(alpha),
            Kind::ScaleChannels => self.scale_channels(),
            Kind::Softmax => self.along_channels("Softmax", channel_axis),
            Kind::LogSoftmax => self.along_channels("LogSoftmax", channel_axis),
            Kind::Concat => self.along_channels("Concat", channel_axis),
            Kind::SliceChannels(range) => self.slice_channels(range.clone(), channel_axis),
            &Kind::PadChannels(pads) => self.pad_channels(pads, channel_axis),
            &Kind::MaxPool2d { kernel, stride, padding } => {
                self.with_all_inputs("MaxPool", windows(kernel, stride, padding))
            }
            &Kind::AvgPool2d { kernel, stride, padding, count_include_pad } => {
                let count = int("count_include_pad", i64::from(count_include_pad));
                let attributes = [windows(kernel, stride, padding), vec![count]].concat();
                self.with_all_inputs("AveragePool", attributes)
            }
            Kind::GlobalAvgPool => {
                let pooled = self.with_all_inputs("GlobalAveragePool", vec![])?;
                Ok(self.add("Flatten", vec![pooled], vec![int("axis", 1)]))
            }
            Kind::Flatten => self.flatten(),
            Kind::Sum => self.with_all_inputs("ReduceSum", vec![int("keepdims", 0)]),
            Kind::Mean => self.with_all_inputs("ReduceMean", vec![int("keepdims", 0)]),
            Kind::Custom(Some(node)) => self.custom(node),
            Kind::Reshape | Kind::Training | Kind::Custom(None) => {
                let expected = "one of evaluation that ONNX has, or one that names its ONNX node";
                Err(unsupported("operation", expected, self.node.name()))
            }
        }
    }

    fn add(&mut self, op_type: &str, inputs: Vec<String>, attributes: Vec<AttributeProto>) -> String {
        self.builder.node(self.node.path(), op_type, inputs, attributes)
    }

    /// Returns the name of input `i`, in a layout that computed values have only if it is plain.
    fn input(&mut self, i: usize, layout: Layout) -> Result<String> {
        match (&self.node.inputs()[i], layout) {
            (Source::Constant(id, value), _) => {
                self.builder.initializer(self.node.path(), *id, value, layout)
            }
            (Source::Input, Layout::Plain) => Ok(INPUT.to_string()),
            (Source::Node(node), Layout::Plain) => Ok(self.names[*node].clone()),
            _ => Err(unsupported("weight", "a parameter or a constant", "a value that is computed")),
        }
    }

    fn inputs(&mut self, range: Range<usize>) -> Result<Vec<String>> {
        range.map(|i| self.input(i, Layout::Plain)).collect()
    }

    fn num_inputs(&self) -> usize {
        self.node.inputs().len()
    }

    fn shape_of(&self, i: usize) -> &Shape {
        self.graph.shape(&self.node.inputs()[i])
    }

    /// Adds a node with all inputs.
    fn with_all_inputs(&mut self, op_type: &str, attributes: Vec<AttributeProto>) -> Result<String> {
        let inputs = self.inputs(0..self.num_inputs())?;
        Ok(self.add(op_type, inputs, attributes))
    }

    /// Adds a node with all inputs, for an operation along the channels.
    fn along_channels(&mut self, op_type: &str, axis: usize) -> Result<String> {
        self.with_all_inputs(op_type, vec![int("axis", axis as i64)])
    }

    fn conv2d(
        &mut self,
        stride: [usize; 2],
        [[top, bottom], [left, right]]: [[usize; 2]; 2],
        dilation: [usize; 2],
        groups: usize,
    ) -> Result<String> {
        let weight = self.shape_of(1);
        let kernel = [weight[0], weight[1]];
        // A kernel of one element has the same result with any dilation.
        let dilation = [0, 1].map(|axis| if kernel[axis] > 1 { dilation[axis] } else { 1 });
        let mut inputs = vec![self.input(0, Layout::Plain)?, self.input(1, Layout::Conv)?];
        inputs.extend(self.inputs(2..self.num_inputs())?);
        let attributes = vec![
            sizes("kernel_shape", kernel),
            sizes("strides", stride),
            sizes("pads", [top, left, bottom, right]),
            sizes("dilations", dilation),
            int("group", groups as i64),
        ];
        Ok(self.add("Conv", inputs, attributes))
    }

    fn batch_norm(&mut self, eps: f32, is_fixed: bool, has_residual: bool, relu: bool) -> Result<String> {
        if !is_fixed {
            let (expected, found) = ("running ones, as in evaluation", "those of the batch, as in training");
            return Err(unsupported("statistics", expected, found));
        }
        if ![2, 4].contains(&self.node.shape().rank()) {
            return Err(unsupported("input", "[N, H, W, C] or [N, C]", self.node.shape()));
        }
        let inputs = self.inputs(0..5)?;
        let mut y = self.add("BatchNormalization", inputs, vec![float("epsilon", eps)]);
        if has_residual {
            let residual = self.input(5, Layout::Plain)?;
            y = self.add("Add", vec![y, residual], vec![]);
        }
        Ok(if relu { self.add("Relu", vec![y], vec![]) } else { y })
    }

    fn linear(&mut self) -> Result<String> {
        let shape = self.node.shape();
        if shape.rank() != 2 {
            return Err(unsupported("input", "[N, C]", format_args!("one that gives {shape}")));
        }
        let mut inputs = vec![self.input(0, Layout::Plain)?, self.input(1, Layout::Linear)?];
        inputs.extend(self.inputs(2..self.num_inputs())?);
        Ok(self.add("Gemm", inputs, vec![int("transB", 1)]))
    }

    fn scale(&mut self, alpha: f32) -> Result<String> {
        let x = self.input(0, Layout::Plain)?;
        let alpha = Tensor::scalar(alpha);
        let alpha = self.builder.initializer(self.node.path(), None, &alpha, Layout::Plain)?;
        Ok(self.add("Mul", vec![x, alpha], vec![]))
    }

    /// Multiplies images by a gate, which gets an axis for the rows and one for the columns.
    fn scale_channels(&mut self) -> Result<String> {
        let mut inputs = self.inputs(0..2)?;
        if self.shape_of(1).rank() == 2 {
            let axes = self.builder.integers(self.node.path(), "axes", &[2, 3]);
            inputs[1] = self.add("Unsqueeze", vec![inputs[1].clone(), axes], vec![]);
        }
        Ok(self.add("Mul", inputs, vec![]))
    }

    fn slice_channels(&mut self, Range { start, end }: Range<usize>, axis: usize) -> Result<String> {
        let mut inputs = vec![self.input(0, Layout::Plain)?];
        for (argument, number) in [("starts", start), ("ends", end), ("axes", axis)] {
            inputs.push(self.builder.integers(self.node.path(), argument, &[number as i64]));
        }
        Ok(self.add("Slice", inputs, vec![]))
    }

    fn pad_channels(&mut self, [before, after]: [usize; 2], axis: usize) -> Result<String> {
        let (x, rank) = (self.input(0, Layout::Plain)?, self.node.shape().rank());
        let mut pads = vec![0; 2 * rank];
        (pads[axis], pads[rank + axis]) = (before as i64, after as i64);
        let pads = self.builder.integers(self.node.path(), "pads", &pads);
        Ok(self.add("Pad", vec![x, pads], vec![]))
    }

    /// Flattens images in the order of `[H, W, C]`, with which the following layer was trained.
    fn flatten(&mut self) -> Result<String> {
        let mut x = self.input(0, Layout::Plain)?;
        if self.shape_of(0).rank() == 4 {
            x = self.add("Transpose", vec![x], vec![sizes("perm", [0, 2, 3, 1])]);
        }
        Ok(self.add("Flatten", vec![x], vec![int("axis", 1)]))
    }

    fn custom(&mut self, node: &OnnxNode) -> Result<String> {
        let inputs = self.inputs(0..self.num_inputs())?;
        let attribute = |(name, value): &(String, OnnxAttribute)| match value {
            OnnxAttribute::Float(value) => float(name, *value),
            OnnxAttribute::Int(value) => int(name, *value),
            OnnxAttribute::Ints(values) => ints(name, values.clone()),
            OnnxAttribute::String(text) => string(name, text),
        };
        let attributes = node.attributes.iter().map(attribute).collect();
        let operator = [&node.domain[..], &node.op_type];
        Ok(self.builder.node_of_domain(self.node.path(), operator, inputs, attributes))
    }
}

/// Returns the attributes of a pooling.
fn windows(
    kernel: [usize; 2],
    stride: [usize; 2],
    [[top, bottom], [left, right]]: [[usize; 2]; 2],
) -> Vec<AttributeProto> {
    vec![sizes("kernel_shape", kernel), sizes("strides", stride), sizes("pads", [top, left, bottom, right])]
}

/// Returns the axis of the channels in ONNX.
fn channel_axis(shape: &Shape) -> usize {
    if shape.rank() == 4 { 1 } else { shape.rank().saturating_sub(1) }
}

fn unsupported(argument: &'static str, expected: &str, found: impl std::fmt::Display) -> Error {
    Error::argument("onnx", argument, expected, found)
}
