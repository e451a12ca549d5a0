//! Where the values of a compiled network lie while it runs: in channels of buffers, which share
//! the slots of one arena.

use super::{
    fuse::{Stage, Work},
    weights::Weights,
};
use crate::{
    Shape,
    graph::{Graph, Source},
};

/// Where a value lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Place {
    /// It is the input of the network, perhaps in another shape.
    Input,
    /// It is in channels of a buffer.
    Buffer(Region),
    /// It is a tensor of its own: the one of this node, perhaps in another shape.
    Tensor(usize),
}

/// Neighboring channels of a buffer `[rows, row]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Region {
    pub(super) buffer: usize,
    /// The number of channels of the buffer.
    pub(super) row: usize,
    /// The first of the channels.
    pub(super) first: usize,
    /// The number of channels.
    pub(super) channels: usize,
}

impl Region {
    /// Returns whether it is the whole buffer.
    pub(super) fn is_whole(&self) -> bool {
        self.row == self.channels
    }
}

/// The places of the values that stages make, for one size of the input.
#[derive(Debug)]
pub(super) struct Places {
    /// The place of the value of each node that a stage makes.
    of_node: Vec<Option<Place>>,
    /// The slot of each buffer.
    slot: Vec<usize>,
    /// The number of elements of each slot, the largest first.
    slots: Vec<usize>,
    /// The last stage that reads the tensor of each node.
    last_read: Vec<usize>,
}

impl Places {
    /// Finds places for the values of the stages of a graph; `shapes` are those of its nodes.
    pub(super) fn new(graph: &Graph, stages: &[Stage], weights: &[Weights], shapes: &[Shape]) -> Places {
        let mut placer = Placer::new(graph, stages, weights, shapes);
        placer.place_concatenations();
        placer.place_others();
        placer.share_slots()
    }

    /// Returns the place of a value that a stage made.
    pub(super) fn of(&self, node: usize) -> Place {
        match self.of_node[node] {
            Some(place) => place,
            None => unreachable!("no stage makes the value of node {node}"),
        }
    }

    /// Returns the slot of a buffer.
    pub(super) fn slot(&self, buffer: usize) -> usize {
        self.slot[buffer]
    }

    /// Returns the number of elements of each slot.
    pub(super) fn slots(&self) -> &[usize] {
        &self.slots
    }

    /// Returns whether the tensor of a node is not read after a stage.
    pub(super) fn is_read_last(&self, node: usize, stage: usize) -> bool {
        self.last_read[node] <= stage
    }
}

struct Placer<'a> {
    stages: &'a [Stage],
    weights: &'a [Weights],
    shapes: &'a [Shape],
    input: &'a Shape,
    output: &'a Source,
    /// The stage that makes the value of each node.
    maker: Vec<Option<usize>>,
    /// The stages that read the value of each node.
    readers: Vec<Vec<usize>>,
    of_node: Vec<Option<Place>>,
    /// The number of elements of each buffer.
    buffers: Vec<usize>,
}

impl<'a> Placer<'a> {
    fn new(graph: &'a Graph, stages: &'a [Stage], weights: &'a [Weights], shapes: &'a [Shape]) -> Placer<'a> {
        let (mut maker, mut readers) = (vec![None; shapes.len()], vec![vec![]; shapes.len()]);
        for (i, stage) in stages.iter().enumerate() {
            maker[stage.output] = Some(i);
            for node in stage.inputs.iter().filter_map(node_of) {
                readers[node].push(i);
            }
        }
        let (input, output, of_node) = (graph.input(), graph.output(), vec![None; shapes.len()]);
        Placer { stages, weights, shapes, input, output, maker, readers, of_node, buffers: vec![] }
    }

    /// Adds a buffer for the value of a node, and returns all of it.
    fn whole_buffer(&mut self, node: usize) -> Region {
        let channels = self.shapes[node].num_channels();
        self.buffers.push(self.shapes[node].num_elements());
        Region { buffer: self.buffers.len() - 1, row: channels, first: 0, channels }
    }

    /// Gives each concatenation a buffer, and lets its inputs be written there directly, if that is
    /// possible. The last one comes first, so that a chain of concatenations shares one buffer.
    fn place_concatenations(&mut self) {
        let stages = self.stages;
        for (i, stage) in stages.iter().enumerate().rev() {
            if !matches!(stage.work, Work::Concat) {
                continue;
            }
            let region = match self.of_node[stage.output] {
                Some(Place::Buffer(region)) => region,
                _ => self.whole_buffer(stage.output),
            };
            self.of_node[stage.output] = Some(Place::Buffer(region));
            let mut first = region.first;
            for input in &stage.inputs {
                let channels = match input {
                    Source::Node(node) => self.shapes[*node].num_channels(),
                    Source::Constant(_, value) => value.shape().num_channels(),
                    Source::Input => self.input.num_channels(),
                };
                if let Source::Node(node) = *input
                    && self.can_be_part(node, i, first)
                {
                    self.of_node[node] = Some(Place::Buffer(Region { first, channels, ..region }));
                }
                first += channels;
            }
        }
    }

    /// Returns whether the value of a node can be written as channels, from `first` on, of the
    /// buffer of a concatenation.
    fn can_be_part(&self, node: usize, concatenation: usize, first: usize) -> bool {
        let Some(maker) = self.maker[node] else { return false };
        let others = self.readers[node].iter().filter(|&&reader| reader != concatenation);
        let is_read_once = self.readers[node].len() == others.clone().count() + 1;
        let is_output = matches!(self.output, Source::Node(output) if *output == node);
        let can_be_written = match &self.stages[maker].work {
            Work::Concat => true,
            Work::Conv { weights, relu: false, .. } => {
                self.weights[*weights].bias.is_none() && self.stages[maker].inputs.len() == 1
            }
            _ => false,
        };
        let mut others = others.peekable();
        // A view of channels for reading begins with the first channel of the buffer.
        let can_be_read = others.peek().is_none() || first == 0;
        self.of_node[node].is_none()
            && is_read_once
            && !is_output
            && can_be_written
            && can_be_read
            && others.all(|&reader| self.reads_views(reader))
    }

    /// Returns whether a stage can read channels of a wider buffer.
    fn reads_views(&self, stage: usize) -> bool {
        match &self.stages[stage].work {
            Work::Norm { relu, .. } => *relu && self.stages[stage].inputs.len() == 1,
            Work::NormProduct { weights, .. } => self.weights[*weights].packed_matrix().is_some(),
            _ => false,
        }
    }

    /// Places the other values: each in a buffer, or as a tensor if an operation makes or reads it.
    fn place_others(&mut self) {
        let stages = self.stages;
        for stage in stages {
            if self.of_node[stage.output].is_some() {
                continue;
            }
            let place = match &stage.work {
                Work::View => match &stage.inputs[0] {
                    Source::Input => Place::Input,
                    Source::Node(node) => self.of_node[*node].unwrap_or(Place::Tensor(*node)),
                    Source::Constant(..) => Place::Tensor(stage.output),
                },
                Work::Op(_) => Place::Tensor(stage.output),
                _ if self.is_tensor(stage.output) => Place::Tensor(stage.output),
                _ => Place::Buffer(self.whole_buffer(stage.output)),
            };
            self.of_node[stage.output] = Some(place);
        }
    }

    /// Returns whether an operation reads the value of a node, itself or a view of it.
    fn is_tensor(&self, node: usize) -> bool {
        self.readers[node].iter().any(|&reader| match &self.stages[reader].work {
            Work::Op(_) => true,
            Work::View => self.is_tensor(self.stages[reader].output),
            _ => false,
        })
    }

    /// Lets buffers that are not needed at the same time share a slot: the largest first, each in
    /// the first slot that is free for as long as it is needed.
    fn share_slots(self) -> Places {
        let (lifetimes, last_read) = self.lifetimes();
        let mut order: Vec<usize> = (0..self.buffers.len()).collect();
        order.sort_by_key(|&buffer| std::cmp::Reverse(self.buffers[buffer]));
        let (mut slot, mut slots) = (vec![0; self.buffers.len()], vec![]);
        let mut taken: Vec<Vec<[usize; 2]>> = vec![];
        for buffer in order {
            let [begin, end] = lifetimes[buffer];
            let is_free = |taken: &Vec<[usize; 2]>| taken.iter().all(|[b, e]| end < *b || *e < begin);
            slot[buffer] = taken.iter().position(is_free).unwrap_or(taken.len());
            if slot[buffer] == taken.len() {
                taken.push(vec![]);
                slots.push(self.buffers[buffer]);
            }
            taken[slot[buffer]].push([begin, end]);
        }
        Places { of_node: self.of_node, slot, slots, last_read }
    }

    /// Returns the first and the last stage that need each buffer, and the last that reads the
    /// tensor of each node.
    fn lifetimes(&self) -> (Vec<[usize; 2]>, Vec<usize>) {
        let mut lifetimes = vec![[usize::MAX, 0]; self.buffers.len()];
        let mut last_read = vec![0; self.of_node.len()];
        let mut touch = |node: usize, stage: usize| match self.of_node[node] {
            Some(Place::Buffer(Region { buffer, .. })) => {
                let [begin, end] = lifetimes[buffer];
                lifetimes[buffer] = [begin.min(stage), end.max(stage)];
            }
            Some(Place::Tensor(node)) => last_read[node] = last_read[node].max(stage),
            Some(Place::Input) | None => {}
        };
        for (i, stage) in self.stages.iter().enumerate() {
            touch(stage.output, i);
            stage.inputs.iter().filter_map(node_of).for_each(|node| touch(node, i));
        }
        if let Some(output) = node_of(self.output) {
            touch(output, self.stages.len());
        }
        (lifetimes, last_read)
    }
}

fn node_of(source: &Source) -> Option<usize> {
    match source {
        Source::Node(node) => Some(*node),
        Source::Input | Source::Constant(..) => None,
    }
}
