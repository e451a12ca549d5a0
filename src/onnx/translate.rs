//! From the operations of a meta pass to nodes.
//!
//! On a tape that looks everywhere all values are computed as they are defined, so each operation is one of a few that ONNX has,
//! too. Values with four axes are images: channels are the last axis here and the second one there. Sizes of windows and what
//! surrounds images are given as numbers, since a rule that rounds may round differently there.

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

/// Adds the nodes of an operation.
///
/// # Errors
/// [`Error::Argument`], with the path of the module, for what cannot be said in nodes.
pub(super) fn translate(graph: &mut Graph, operation: &Operation) -> Result<()> {
    let name = Translation { graph, operation }.run();
    let name = if operation.path.is_empty() { name? } else { name.at(&operation.path)? };
    graph.define(operation.output, name);
    Ok(())
}

struct Translation<'a> {
    graph: &'a mut Graph,
    operation: &'a Operation,
}

impl Translation<'_> {
    /// The name of the operation's output.
    fn run(&mut self) -> Result<String> {
        let channels = channels(&self.operation.shape);
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
            "softmax" => self.along_channels("Softmax", channels),
            "log_softmax" => self.along_channels("LogSoftmax", channels),
            "concat" => self.along_channels("Concat", channels),
            "slice_channels" => self.channels(channels),
            "pad_channels" => self.pad_channels(channels),
            "max_pool2d" => self.pool("MaxPool"),
            "avg_pool2d" => self.pool("AveragePool"),
            "global_avg_pool" => {
                let x = self.value(0)?;
                let pooled = self.node("GlobalAveragePool", vec![x], vec![]);
                Ok(self.node("Flatten", vec![pooled], vec![int("axis", 1)]))
            }
            "flatten" => self.flatten(),
            other => Err(refuse("operation", "one of evaluation that ONNX export knows", other)),
        }
    }

    fn node(&mut self, op_type: &str, inputs: Vec<String>, attributes: Vec<AttributeProto>) -> String {
        self.graph.node(&self.operation.path, op_type, inputs, attributes)
    }

    /// The name of an input.
    fn value(&mut self, i: usize) -> Result<String> {
        self.input(i, Layout::Plain)
    }

    /// The name of an input that is no image.
    fn input(&mut self, i: usize, layout: Layout) -> Result<String> {
        match (self.operation.inputs.get(i), layout) {
            (Some(Operand::Given(id, value)), _) => {
                self.graph.numbers(&self.operation.path, *id, value, layout)
            }
            (Some(Operand::Computed(id, _)), Layout::Plain) => {
                let known = id.and_then(|id| self.graph.value(id));
                known.ok_or_else(|| refuse("input", "a value of this pass", "one that was detached"))
            }
            _ => Err(refuse("weight", "a parameter or a constant", "a value that is computed")),
        }
    }

    /// The identity and the numbers of an input that is a parameter.
    fn given(&self, i: usize) -> Result<(Option<StateId>, &Tensor)> {
        match self.operation.inputs.get(i) {
            Some(Operand::Given(id, value)) => Ok((*id, value)),
            _ => Err(refuse("weight", "a parameter or a constant", "a value that is computed")),
        }
    }

    fn settings<S: 'static>(&self) -> Result<&S> {
        let settings = self.operation.settings.as_ref().and_then(|settings| settings.downcast_ref());
        settings.ok_or_else(|| refuse("operation", "one of this crate", self.operation.name))
    }

    /// As many inputs as there are, and nothing to say.
    fn elementwise(&mut self, op_type: &str) -> Result<String> {
        let inputs = (0..self.operation.inputs.len()).map(|i| self.value(i)).collect::<Result<_>>()?;
        Ok(self.node(op_type, inputs, vec![]))
    }

    fn along_channels(&mut self, op_type: &str, axis: usize) -> Result<String> {
        let inputs = (0..self.operation.inputs.len()).map(|i| self.value(i)).collect::<Result<_>>()?;
        Ok(self.node(op_type, inputs, vec![int("axis", axis as i64)]))
    }

    fn conv2d(&mut self) -> Result<String> {
        let Conv2dOptions { stride, padding, dilation, groups, .. } = *self.settings()?;
        let Padding::Sides { top, bottom, left, right } = padding else {
            return Err(refuse("padding", "numbers", format_args!("{padding:?}")));
        };
        let weight = self.given(1)?.1.shape();
        let kernel = [weight[0], weight[1]];
        // Of a kernel of one tap there is nothing to spread, however far.
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
            return Err(refuse("statistics", "given ones", "those of the batch, which is training"));
        };
        if ![2, 4].contains(&self.operation.shape.rank()) {
            return Err(refuse("input", "[N, H, W, C] or [N, C]", self.operation.shape));
        }
        let beside = self.given(1)?.0;
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
            return Err(refuse("input", "[N, C]", format_args!("one that gives {}", self.operation.shape)));
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
        let alpha = self.graph.numbers(&self.operation.path, None, &alpha, Layout::Plain)?;
        Ok(self.node("Mul", vec![x, alpha], vec![]))
    }

    fn channels(&mut self, axis: usize) -> Result<String> {
        let Range { start, end } = *self.settings::<Range<usize>>()?;
        let mut inputs = vec![self.value(0)?];
        for (what, number) in [("starts", start), ("ends", end), ("axes", axis)] {
            inputs.push(self.graph.integers(&self.operation.path, what, &[number as i64]));
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

    /// In the order of channels last, in which whatever follows was trained.
    fn flatten(&mut self) -> Result<String> {
        let mut x = self.value(0)?;
        if self.operation.inputs.first().is_some_and(|x| x.shape().rank() == 4) {
            x = self.node("Transpose", vec![x], vec![ints("perm", [0, 2, 3, 1])]);
        }
        Ok(self.node("Flatten", vec![x], vec![int("axis", 1)]))
    }
}

/// The axis of the channels.
fn channels(shape: &Shape) -> usize {
    if shape.rank() == 4 { 1 } else { shape.rank().saturating_sub(1) }
}

fn refuse(argument: &'static str, expected: &str, found: impl std::fmt::Display) -> Error {
    Error::argument("onnx", argument, expected, found)
}
