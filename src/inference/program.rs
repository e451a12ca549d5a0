//! A compiled network for one size of its input, and the loop that runs it.

use super::{
    fuse::{Stage, Work, geometry},
    place::{Place, Places, Region},
    weights::Weights,
};
use crate::{
    Result, Shape, Tensor,
    autograd::{Input, Kind},
    graph::{Graph, Source},
    kernels::{
        self, ChannelView, ChannelViewMut, Conv2dGeometry, Engine, Epilogue, Gemm, Isa, NormRelu, Pool2d,
        bf16,
    },
};

/// The memory of a run: a buffer for each slot.
#[derive(Debug, Default)]
pub(super) struct Arena(Vec<Option<Tensor>>);

impl Arena {
    /// Enlarges the slots to at least these numbers of elements.
    fn fit(&mut self, slots: &[usize]) -> Result<()> {
        self.0.resize(self.0.len().max(slots.len()), None);
        for (slot, &len) in self.0.iter_mut().zip(slots) {
            if slot.as_ref().is_none_or(|buffer| buffer.data().len() < len) {
                // What the slot held before is freed first.
                *slot = None;
                *slot = Some(Tensor::try_build(Shape::new(&[len])?, |_| ())?);
            }
        }
        Ok(())
    }

    /// Returns the bytes of all slots.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().flatten().map(Tensor::bytes).sum()
    }
}

/// The stages of a network with the sizes and places of all values.
#[derive(Debug)]
pub(super) struct Program {
    graph: Graph,
    /// The shape of the value of each node that a stage makes.
    shapes: Vec<Shape>,
    places: Places,
}

impl Program {
    /// Plans a run for the size of the graph's input.
    pub(super) fn new(graph: Graph, stages: &[Stage], weights: &[Weights]) -> Result<Program> {
        let mut shapes: Vec<Shape> = graph.nodes().iter().map(|node| *node.shape()).collect();
        for stage in stages {
            // A pooling that comes before a convolution takes the place of the convolution's value.
            if let Work::AvgPool { node } = stage.work
                && node != stage.output
            {
                let [batch, height, width, _] = shapes[node][..] else { continue };
                let channels = shape_of(&graph, &shapes, &stage.inputs[0]).num_channels();
                shapes[stage.output] = Shape::new(&[batch, height, width, channels])?;
            }
        }
        let places = Places::new(&graph, stages, weights, &shapes);
        Ok(Program { graph, shapes, places })
    }

    /// Returns the shape of the input.
    pub(super) fn input(&self) -> &Shape {
        self.graph.input()
    }

    /// Returns the number of elements of each slot of the arena.
    pub(super) fn slots(&self) -> &[usize] {
        self.places.slots()
    }

    /// Computes the output for an input.
    pub(super) fn run(
        &self,
        stages: &[Stage],
        weights: &[Weights],
        input: &Tensor,
        arena: &mut Arena,
    ) -> Result<Tensor> {
        arena.fit(self.places.slots())?;
        let tensors = vec![None; self.shapes.len()];
        let mut run = Run { program: self, weights, input, arena, tensors };
        for (index, stage) in stages.iter().enumerate() {
            run.stage(stage)?;
            run.free(stage, index);
        }
        let output = self.graph.output();
        let shape = shape_of(&self.graph, &self.shapes, output);
        match run.tensor(output) {
            Some(tensor) => tensor.reshape(shape),
            None => Tensor::new(shape, run.data(output)),
        }
    }
}

fn shape_of<'a>(graph: &'a Graph, shapes: &'a [Shape], source: &'a Source) -> &'a Shape {
    match source {
        Source::Node(node) => &shapes[*node],
        other => graph.shape(other),
    }
}

/// The state of a run.
struct Run<'a> {
    program: &'a Program,
    weights: &'a [Weights],
    input: &'a Tensor,
    arena: &'a mut Arena,
    /// The values that are tensors of their own, by node.
    tensors: Vec<Option<Tensor>>,
}

impl Run<'_> {
    /// Computes the value of a stage, and puts it where its place is.
    fn stage(&mut self, stage: &Stage) -> Result<()> {
        let (program, output) = (self.program, stage.output);
        let shape = program.shapes[output];
        match (&stage.work, program.places.of(output)) {
            (Work::View, _) => {}
            (Work::Op(op), _) => {
                let values =
                    stage.inputs.iter().map(|input| self.value(input)).collect::<Result<Vec<_>>>()?;
                let inputs: Vec<Input<'_>> = values.iter().map(Input::from).collect();
                let y = op.compute(&inputs).map_err(|error| program.graph.nodes()[output].locate(error))?;
                self.tensors[output] = Some(y);
            }
            (_, Place::Buffer(region)) => {
                let slot = program.places.slot(region.buffer);
                let Some(mut buffer) = self.arena.0[slot].take() else {
                    unreachable!("the slot of a value that is written is not read");
                };
                let rows = shape.num_elements().checked_div(region.channels).unwrap_or(0);
                self.compute(stage, region, &mut buffer.data_mut()[..rows * region.row]);
                self.arena.0[slot] = Some(buffer);
            }
            (_, Place::Tensor(_)) => {
                let channels = shape.num_channels();
                let region = Region { buffer: 0, row: channels, first: 0, channels };
                self.tensors[output] = Some(Tensor::try_build(shape, |y| self.compute(stage, region, y))?);
            }
            (_, Place::Input) => unreachable!("only a view lies where the input does"),
        }
        Ok(())
    }

    /// Frees the tensors that are read last by a stage.
    fn free(&mut self, stage: &Stage, index: usize) {
        for input in &stage.inputs {
            if let Source::Node(node) = input
                && let Place::Tensor(node) = self.program.places.of(*node)
                && self.program.places.is_read_last(node, index)
            {
                self.tensors[node] = None;
            }
        }
    }

    /// Computes the value of a stage into channels of `y`.
    fn compute(&self, stage: &Stage, region: Region, y: &mut [f32]) {
        let (isa, nodes) = (Isa::active(), self.program.graph.nodes());
        let x = &stage.inputs[0];
        let shape = shape_of(&self.program.graph, &self.program.shapes, x);
        match &stage.work {
            &Work::Conv { weights, node, relu } => {
                let weights = &self.weights[weights];
                let geometry = geometry(&nodes[node], shape, &weights.shape);
                if region.is_whole() {
                    let residual = stage.inputs.get(1).map(|residual| self.data(residual));
                    weights.conv2d(&geometry, self.data(x), residual, relu, y);
                } else {
                    let y = ChannelViewMut { data: y, row: region.row, first: region.first };
                    weights.conv2d_into(&geometry, self.data(x), y);
                }
            }
            Work::NormProduct { norm, weights, .. } => {
                self.norm_product(x, norm.relu(), &self.weights[*weights], y);
            }
            Work::Norm { norm, relu } => {
                let view = self.view(x);
                match stage.inputs.get(1) {
                    None if *relu => kernels::activate(isa, view, norm.relu(), y),
                    residual => {
                        let residual = residual.map(|residual| self.data(residual));
                        let NormRelu { scale, shift } = norm.relu();
                        kernels::normalize(isa, self.data(x), scale, shift, residual, *relu, y);
                    }
                }
            }
            &Work::MaxPool { node } => {
                let (pool, _) = windows(nodes[node].kind(), shape);
                kernels::max_pool2d(isa, &pool, self.data(x), y, None);
            }
            &Work::AvgPool { node } => {
                let (pool, count_include_pad) = windows(nodes[node].kind(), shape);
                kernels::avg_pool2d(isa, &pool, count_include_pad, self.data(x), y);
            }
            Work::GlobalAvgPool => {
                kernels::global_avg_pool(isa, shape[0], shape.num_channels(), self.data(x), y);
            }
            Work::Linear { weight, bias, is_bf16: true } => {
                let [channels, outputs] = [weight.shape()[0], weight.shape()[1]];
                let geometry = Conv2dGeometry::of_pixels(shape[0], channels, outputs);
                let bias = bias.as_ref().map(Tensor::data);
                let epilogue = Epilogue { bias, ..Epilogue::default() };
                bf16::conv2d(Engine::active(), &geometry, self.data(x), weight.data(), epilogue, y);
            }
            Work::Linear { weight, bias, is_bf16: false } => {
                let [channels, outputs] = [weight.shape()[0], weight.shape()[1]];
                kernels::gemm(isa, Gemm::new(shape[0], outputs, channels), self.data(x), weight.data(), y);
                if let Some(bias) = bias {
                    kernels::add_bias_rows(isa, bias.data(), y);
                }
            }
            Work::Concat => self.concat(stage, region, y),
            Work::View | Work::Op(_) => unreachable!("they write no slice"),
        }
    }

    /// Computes `relu(relu(norm(x)) w + bias)`.
    fn norm_product(&self, x: &Source, norm: NormRelu<'_>, weights: &Weights, y: &mut [f32]) {
        let (isa, view) = (Isa::active(), self.view(x));
        let (Some(matrix), Some(bias)) = (weights.packed_matrix(), &weights.bias) else {
            unreachable!("a 1x1 convolution is packed directly, and a norm was folded into it");
        };
        kernels::activate_product_packed(isa, view, norm, matrix, bias.data(), y);
    }

    /// Copies the inputs of a concatenation that were not written to its buffer directly.
    fn concat(&self, stage: &Stage, region: Region, y: &mut [f32]) {
        let mut first = region.first;
        for input in &stage.inputs {
            let channels = shape_of(&self.program.graph, &self.program.shapes, input).num_channels();
            let part = Place::Buffer(Region { first, channels, ..region });
            if !matches!(input, Source::Node(node) if self.program.places.of(*node) == part) {
                kernels::put_channels(Isa::active(), self.data(input), channels, y, region.row, first);
            }
            first += channels;
        }
    }

    /// Returns the elements of a value that fills its buffer.
    fn data<'s>(&'s self, source: &'s Source) -> &'s [f32] {
        let view = self.view(source);
        assert_eq!(view.row, view.channels, "a value that is not between the channels of another");
        view.data
    }

    /// Returns a value, which may be the first channels of a buffer.
    fn view<'s>(&'s self, source: &'s Source) -> ChannelView<'s> {
        let program = self.program;
        let shape = shape_of(&program.graph, &program.shapes, source);
        let whole = |data| ChannelView { data, row: shape.num_channels(), channels: shape.num_channels() };
        let node = match source {
            Source::Input => return whole(self.input.data()),
            Source::Constant(_, value) => return whole(value.data()),
            Source::Node(node) => *node,
        };
        match program.places.of(node) {
            Place::Input => whole(self.input.data()),
            Place::Tensor(node) => match &self.tensors[node] {
                Some(tensor) => whole(tensor.data()),
                None => unreachable!("the value of node {node} was computed before and is still needed"),
            },
            Place::Buffer(region) => {
                let Some(buffer) = &self.arena.0[program.places.slot(region.buffer)] else {
                    unreachable!("a value is not written while it is read");
                };
                if region.is_whole() {
                    return whole(&buffer.data()[..shape.num_elements()]);
                }
                assert_eq!(region.first, 0, "a view begins with the first channel");
                let rows = shape.num_elements().checked_div(region.channels).unwrap_or(0);
                ChannelView {
                    data: &buffer.data()[..rows * region.row],
                    row: region.row,
                    channels: region.channels,
                }
            }
        }
    }

    /// Returns a value that is a tensor.
    fn tensor<'s>(&'s self, source: &'s Source) -> Option<&'s Tensor> {
        match source {
            Source::Input => Some(self.input),
            Source::Constant(_, value) => Some(value),
            Source::Node(node) => match self.program.places.of(*node) {
                Place::Input => Some(self.input),
                Place::Tensor(node) => self.tensors[node].as_ref(),
                Place::Buffer(_) => None,
            },
        }
    }

    /// Returns a value as a tensor; it is copied from a buffer.
    fn value(&self, source: &Source) -> Result<Tensor> {
        let shape = shape_of(&self.program.graph, &self.program.shapes, source);
        match self.tensor(source) {
            Some(tensor) => tensor.reshape(shape),
            None => Tensor::new(shape, self.data(source)),
        }
    }
}

/// Returns the geometry of a pooling of images of a shape, and whether a mean counts the padding.
fn windows(kind: &Kind, x: &[usize]) -> (Pool2d, bool) {
    let &[batch, height, width, channels] = x else {
        unreachable!("the graph was checked: a pooling of {x:?}");
    };
    match *kind {
        Kind::MaxPool2d { kernel, stride, padding } => {
            (Pool2d { batch, height, width, channels, kernel, stride, padding }, true)
        }
        Kind::AvgPool2d { kernel, stride, padding, count_include_pad } => {
            (Pool2d { batch, height, width, channels, kernel, stride, padding }, count_include_pad)
        }
        _ => unreachable!("the graph was checked: {kind:?}"),
    }
}
