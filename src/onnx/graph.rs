//! A graph in the making: names, numbers, nodes.

use super::proto::{
    AttributeProto, Dimension, DimensionProto, GraphProto, NodeProto, TensorProto, TensorShapeProto,
    TensorTypeProto, TypeProto, ValueInfoProto, attribute_type, data_type,
};
use crate::{
    Result, Shape, Tensor,
    autograd::{Layout, State, StateId, StateRef, join},
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What the value that a network reads is called.
pub(super) const INPUT: &str = "input";

/// What the value that a network gives is called.
pub(super) const OUTPUT: &str = "logits";

/// The graph so far.
pub(super) struct Graph {
    proto: GraphProto,
    /// The names of values that were computed.
    values: BTreeMap<StateId, String>,
    /// The names of parameters.
    params: BTreeMap<StateId, String>,
    /// Buffers by name.
    buffers: Vec<(String, Tensor)>,
    /// Where numbers with a name of their own are.
    given: HashMap<(String, Layout), String>,
    taken: BTreeSet<String>,
}

impl Graph {
    /// Nothing but the input.
    pub(super) fn new(state: &(impl State + ?Sized), input: Option<StateId>) -> Graph {
        let (mut params, mut buffers) = (BTreeMap::new(), vec![]);
        state.visit("", &mut |name, slot| match slot {
            StateRef::Param(param) => drop(params.insert(param.id(), name.to_string())),
            StateRef::Buffer(buffer) => buffers.push((name.to_string(), buffer.value().clone())),
        });
        Graph {
            proto: GraphProto { name: "network".into(), ..GraphProto::default() },
            values: input.map(|id| (id, INPUT.to_string())).into_iter().collect(),
            params,
            buffers,
            given: HashMap::new(),
            taken: [INPUT, OUTPUT].map(String::from).into(),
        }
    }

    /// The name of a value that was computed.
    pub(super) fn value(&self, id: StateId) -> Option<String> {
        self.values.get(&id).cloned()
    }

    /// Says which value a computed one is.
    pub(super) fn define(&mut self, id: StateId, name: String) {
        self.values.insert(id, name);
    }

    /// A node below a path; returns its output's name, which is its own.
    pub(super) fn node(
        &mut self,
        path: &str,
        op_type: &str,
        input: Vec<String>,
        attribute: Vec<AttributeProto>,
    ) -> String {
        let name = self.unique(join(path, op_type));
        let output = vec![name.clone()];
        self.proto.node.push(NodeProto {
            input,
            output,
            name: name.clone(),
            op_type: op_type.into(),
            attribute,
        });
        name
    }

    /// The name of a parameter's numbers, or of others that something below `path` reads; plain ones with four axes are images.
    pub(super) fn numbers(
        &mut self,
        path: &str,
        id: Option<StateId>,
        value: &Tensor,
        layout: Layout,
    ) -> Result<String> {
        match id.and_then(|id| self.params.get(&id).cloned()) {
            Some(name) => self.named(name, value, layout),
            None => self.unnamed(join(path, "constant"), value, layout),
        }
    }

    /// The name of a statistic. Buffers are not on the tape: it is known by its memory, which copies of a model share, so one
    /// beside the parameter `beside` comes first.
    pub(super) fn statistic(
        &mut self,
        path: &str,
        beside: Option<StateId>,
        value: &Tensor,
    ) -> Result<String> {
        let module =
            |name: &str| name.rsplit_once('.').map_or(String::new(), |(module, _)| module.to_string());
        let beside = beside.and_then(|id| self.params.get(&id)).map(|name| module(name));
        let same = |(_, tensor): &&(String, Tensor)| tensor.data().as_ptr() == value.data().as_ptr();
        let candidates = || self.buffers.iter().filter(same).map(|(name, _)| name);
        let nearest = candidates().find(|name| Some(module(name)) == beside);
        match nearest.or_else(|| candidates().next()).cloned() {
            Some(name) => self.named(name, value, Layout::Plain),
            None => self.unnamed(join(path, "statistic"), value, Layout::Plain),
        }
    }

    /// A list of whole numbers that something below `path` reads.
    pub(super) fn integers(&mut self, path: &str, what: &str, integers: &[i64]) -> String {
        let name = self.unique(join(path, what));
        self.proto.initializer.push(TensorProto {
            dims: vec![integers.len() as i64],
            data_type: data_type::INT64,
            name: name.clone(),
            raw_data: integers.iter().flat_map(|i| i.to_le_bytes()).collect(),
        });
        name
    }

    fn named(&mut self, name: String, value: &Tensor, layout: Layout) -> Result<String> {
        let key = (name.clone(), layout);
        if let Some(known) = self.given.get(&key) {
            return Ok(known.clone());
        }
        let name = self.unnamed(name, value, layout)?;
        self.given.insert(key, name.clone());
        Ok(name)
    }

    fn unnamed(&mut self, name: String, value: &Tensor, layout: Layout) -> Result<String> {
        let value = match (layout, value.shape().rank()) {
            (Layout::Plain, 4) => value.permute(&[0, 3, 1, 2])?,
            _ => layout.to_file(value)?,
        };
        let name = self.unique(name);
        self.proto.initializer.push(TensorProto {
            dims: value.shape().iter().map(|&size| size as i64).collect(),
            data_type: data_type::FLOAT,
            name: name.clone(),
            raw_data: value.data().iter().flat_map(|x| x.to_le_bytes()).collect(),
        });
        Ok(name)
    }

    /// The name, with a number behind it if it is taken.
    fn unique(&mut self, name: String) -> String {
        let mut numbered = (1..).map(|n| format!("{name}_{n}"));
        let mut candidate = name.clone();
        while !self.taken.insert(candidate.clone()) {
            candidate = numbered.next().unwrap_or_default();
        }
        candidate
    }

    /// The whole graph, whose output is this value.
    pub(super) fn finish(mut self, [input, output]: [&Shape; 2], last: String) -> GraphProto {
        // A name that no node gave is that of an input or of a parameter.
        let last = match self.proto.node.iter().any(|node| node.output[0] == last) {
            true => last,
            false => self.node("", "Identity", vec![last], vec![]),
        };
        for node in &mut self.proto.node {
            let names = node.input.iter_mut().chain(&mut node.output);
            names.filter(|name| **name == last).for_each(|name| *name = OUTPUT.to_string());
        }
        self.proto.input = vec![described(INPUT, input)];
        self.proto.output = vec![described(OUTPUT, output)];
        self.proto
    }
}

/// A value of any batch size.
fn described(name: &str, shape: &Shape) -> ValueInfoProto {
    let mut sizes = shape.to_vec();
    if let [_, height, width, channels] = shape[..] {
        sizes[1..].copy_from_slice(&[channels, height, width]);
    }
    let dim = sizes.iter().enumerate().map(|(axis, &size)| match axis {
        0 => Dimension::Named("N".into()),
        _ => Dimension::Size(size as i64),
    });
    let dim = dim.map(|value| DimensionProto { value: Some(value) }).collect();
    let tensor = TensorTypeProto { elem_type: data_type::FLOAT, shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { tensor_type: Some(tensor) }) }
}

/// An attribute of one whole number.
pub(super) fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i, r#type: attribute_type::INT, ..AttributeProto::default() }
}

/// An attribute of sizes, each less than the address space.
pub(super) fn ints(name: &str, sizes: impl IntoIterator<Item = usize>) -> AttributeProto {
    let ints = sizes.into_iter().map(|size| size as i64).collect();
    AttributeProto { name: name.into(), ints, r#type: attribute_type::INTS, ..AttributeProto::default() }
}

/// An attribute of one real number.
pub(super) fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { name: name.into(), f, r#type: attribute_type::FLOAT, ..AttributeProto::default() }
}
