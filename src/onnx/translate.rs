//! Translates the operations of a meta pass to ONNX nodes.
//!
//! On a tape that captures all values nothing is fused, so that each operation is one of a few that
//! ONNX has too. Values with four axes are images, whose channels are the last axis in this crate
//! and the second in ONNX. Padding is written as numbers, because ONNX's automatic padding may
//! round differently.

use super::{
    graph::{Graph, float, int, ints},
    proto::AttributeProto,
};
use crate::{
    At, Error, Result, Shape, Tensor,
    autograd::{Layout, Operand, Operation, StateId},
    ops::{Conv2dOptions, Normalized, Padding, Windows},
};
use std::ops::Range;

/// Adds the nodes of an operation to the graph.
///
/// # Errors
/// [`Error::Argument`], with the path of the module, for an operation that has no translation.
pub(super) fn translate(graph: &mut Graph, operation: &Operation) -> Result<()> {
    let name = Translator { graph, operation }.translate();
    let name = if operation.path.is_empty() { name? } else { name.at(&operation.path)? };
    graph.define(operation.output, name);
    Ok(())
}

struct Translator<'a> {
    graph: &'a mut Graph,
    operation: &'a Operation,
}

impl Translator<'_> {
    /// Adds the nodes, and returns the name of their output.
    fn translate(&mut self) -> Result<String> {
        let channel_axis = channel_axis(&self.operation.shape);
        match self.operation.name {
            "conv2d" => self.conv2d(),
            "batch_norm" => self.batch_norm(),
            "linear" => self.linear(),
            "matmul" => self.elementwise("MatMul"),
            "relu" => self.elementwise("Relu"),
            "sigmoid" => self.elementwise("Sigmoid"),
            "add" => self.elementwise("Add"),
            "mul" => self.elementwise("Mul"),
            "scale" => self.scale(),
            "scale_channels" => self.scale_channels(),
            "softmax" => self.along_channels("Softmax", channel_axis),
            "log_softmax" => self.along_channels("LogSoftmax", channel_axis),
            "concat" => self.along_channels("Concat", channel_axis),
            "slice_channels" => self.slice_channels(channel_axis),
            "pad_channels" => self.pad_channels(channel_axis),
            "max_pool2d" => self.pool("MaxPool"),
            "avg_pool2d" => self.pool("AveragePool"),
            "global_avg_pool" => {
                let x = self.value(0)?;
                let pooled = self.node("GlobalAveragePool", vec![x], vec![]);
                Ok(self.node("Flatten", vec![pooled], vec![int("axis", 1)]))
            }
            "flatten" => self.flatten(),
            other => Err(unsupported("operation", "one of evaluation that ONNX export supports", other)),
        }
    }

    fn node(&mut self, op_type: &str, inputs: Vec<String>, attributes: Vec<AttributeProto>) -> String {
        self.graph.node(&self.operation.path, op_type, inputs, attributes)
    }

    /// Returns the name of input `i`, which may be a computed value.
    fn value(&mut self, i: usize) -> Result<String> {
        self.input(i, Layout::Plain)
    }

    /// Returns the name of input `i`, in a layout that computed values have only if it is plain.
    fn input(&mut self, i: usize, layout: Layout) -> Result<String> {
        match (self.operation.inputs.get(i), layout) {
            (Some(Operand::Given(id, value)), _) => {
                self.graph.initializer(&self.operation.path, *id, value, layout)
            }
            (Some(Operand::Computed(id, _)), Layout::Plain) => {
                let known = id.and_then(|id| self.graph.value(id));
                known.ok_or_else(|| unsupported("input", "a value of this pass", "one that was detached"))
            }
            _ => Err(unsupported("weight", "a parameter or a constant", "a value that is computed")),
        }
    }

    /// Returns the id and the value of input `i`, which must not be a computed value.
    fn param(&self, i: usize) -> Result<(Option<StateId>, &Tensor)> {
        match self.operation.inputs.get(i) {
            Some(Operand::Given(id, value)) => Ok((*id, value)),
            _ => Err(unsupported("weight", "a parameter or a constant", "a value that is computed")),
        }
    }

    fn settings<S: 'static>(&self) -> Result<&S> {
        let settings = self.operation.settings.as_ref().and_then(|settings| settings.downcast_ref());
        settings.ok_or_else(|| unsupported("operation", "one of this crate", self.operation.name))
    }

    /// Adds a node with all inputs and without attributes.
    fn elementwise(&mut self, op_type: &str) -> Result<String> {
        let inputs = (0..self.operation.inputs.len()).map(|i| self.value(i)).collect::<Result<_>>()?;
        Ok(self.node(op_type, inputs, vec![]))
    }

    /// Adds a node with all inputs, for an operation along the channels.
    fn along_channels(&mut self, op_type: &str, axis: usize) -> Result<String> {
        let inputs = (0..self.operation.inputs.len()).map(|i| self.value(i)).collect::<Result<_>>()?;
        Ok(self.node(op_type, inputs, vec![int("axis", axis as i64)]))
    }

    fn conv2d(&mut self) -> Result<String> {
        let Conv2dOptions { stride, padding, dilation, groups, .. } = *self.settings()?;
        let Padding::Sides { top, bottom, left, right } = padding else {
            return Err(unsupported("padding", "numbers", format_args!("{padding:?}")));
        };
        let weight = self.param(1)?.1.shape();
        let kernel = [weight[0], weight[1]];
        // A kernel of one element has the same result with any dilation.
        let dilation = [0, 1].map(|axis| if kernel[axis] > 1 { dilation[axis] } else { 1 });
        let mut inputs = vec![self.value(0)?, self.input(1, Layout::Conv)?];
        if self.operation.inputs.len() > 2 {
            inputs.push(self.value(2)?);
        }
        let attributes = vec![
            ints("kernel_shape", kernel),
            ints("strides", stride),
            ints("pads", [top, left, bottom, right]),
            ints("dilations", dilation),
            int("group", groups as i64),
        ];
        Ok(self.node("Conv", inputs, attributes))
    }

    fn batch_norm(&mut self) -> Result<String> {
        let &Normalized { eps, ref fixed, relu } = self.settings()?;
        let Some([mean, var]) = fixed.clone() else {
            return Err(unsupported(
                "statistics",
                "running ones, as in evaluation",
                "those of the batch, as in training",
            ));
        };
        if ![2, 4].contains(&self.operation.shape.rank()) {
            return Err(unsupported("input", "[N, H, W, C] or [N, C]", self.operation.shape));
        }
        let beside = self.param(1)?.0;
        let mut inputs = vec![self.value(0)?, self.input(1, Layout::Plain)?, self.input(2, Layout::Plain)?];
        for statistic in [mean, var] {
            inputs.push(self.graph.statistic(&self.operation.path, beside, &statistic)?);
        }
        let mut y = self.node("BatchNormalization", inputs, vec![float("epsilon", eps)]);
        if self.operation.inputs.len() > 3 {
            let residual = self.value(3)?;
            y = self.node("Add", vec![y, residual], vec![]);
        }
        Ok(if relu { self.node("Relu", vec![y], vec![]) } else { y })
    }

    fn linear(&mut self) -> Result<String> {
        if self.operation.shape.rank() != 2 {
            return Err(unsupported(
                "input",
                "[N, C]",
                format_args!("one that gives {}", self.operation.shape),
            ));
        }
        let mut inputs = vec![self.value(0)?, self.input(1, Layout::Linear)?];
        if self.operation.inputs.len() > 2 {
            inputs.push(self.value(2)?);
        }
        Ok(self.node("Gemm", inputs, vec![int("transB", 1)]))
    }

    fn scale(&mut self) -> Result<String> {
        let alpha = Tensor::scalar(*self.settings()?);
        let x = self.value(0)?;
        let alpha = self.graph.initializer(&self.operation.path, None, &alpha, Layout::Plain)?;
        Ok(self.node("Mul", vec![x, alpha], vec![]))
    }

    /// Multiplies images by a gate, which gets an axis for the rows and one for the columns.
    fn scale_channels(&mut self) -> Result<String> {
        let (x, mut gate) = (self.value(0)?, self.value(1)?);
        if self.operation.inputs[1].shape().rank() == 2 {
            let axes = self.graph.integers(&self.operation.path, "axes", &[2, 3]);
            gate = self.node("Unsqueeze", vec![gate, axes], vec![]);
        }
        Ok(self.node("Mul", vec![x, gate], vec![]))
    }

    fn slice_channels(&mut self, axis: usize) -> Result<String> {
        let Range { start, end } = *self.settings::<Range<usize>>()?;
        let mut inputs = vec![self.value(0)?];
        for (argument, number) in [("starts", start), ("ends", end), ("axes", axis)] {
            inputs.push(self.graph.integers(&self.operation.path, argument, &[number as i64]));
        }
        Ok(self.node("Slice", inputs, vec![]))
    }

    fn pad_channels(&mut self, axis: usize) -> Result<String> {
        let ([before, after], rank) = (*self.settings::<[usize; 2]>()?, self.operation.shape.rank());
        let x = self.value(0)?;
        let mut pads = vec![0; 2 * rank];
        (pads[axis], pads[rank + axis]) = (before as i64, after as i64);
        let pads = self.graph.integers(&self.operation.path, "pads", &pads);
        Ok(self.node("Pad", vec![x, pads], vec![]))
    }

    fn pool(&mut self, op_type: &str) -> Result<String> {
        let Windows { kernel, stride, padding: [[top, bottom], [left, right]], count_include_pad } =
            *self.settings()?;
        let x = self.value(0)?;
        let mut attributes = vec![
            ints("kernel_shape", kernel),
            ints("strides", stride),
            ints("pads", [top, left, bottom, right]),
        ];
        if op_type == "AveragePool" {
            attributes.push(int("count_include_pad", i64::from(count_include_pad)));
        }
        Ok(self.node(op_type, vec![x], attributes))
    }

    /// Flattens images in the order of `[H, W, C]`, with which the following layer was trained.
    fn flatten(&mut self) -> Result<String> {
        let mut x = self.value(0)?;
        if self.operation.inputs.first().is_some_and(|x| x.shape().rank() == 4) {
            x = self.node("Transpose", vec![x], vec![ints("perm", [0, 2, 3, 1])]);
        }
        Ok(self.node("Flatten", vec![x], vec![int("axis", 1)]))
    }
}

/// Returns the axis of the channels in ONNX.
fn channel_axis(shape: &Shape) -> usize {
    if shape.rank() == 4 { 1 } else { shape.rank().saturating_sub(1) }
}

fn unsupported(argument: &'static str, expected: &str, found: impl std::fmt::Display) -> Error {
    Error::argument("onnx", argument, expected, found)
}
