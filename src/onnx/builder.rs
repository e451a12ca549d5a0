//! A graph under construction: its nodes, its initializers and their names.

use super::proto::{
    AttributeProto, Dimension, DimensionProto, GraphProto, NodeProto, TensorProto, TensorShapeProto,
    TensorTypeProto, TypeProto, ValueInfoProto, attribute_type, data_type,
};
use crate::{
    Result, Shape, Tensor,
    autograd::{Layout, State, StateId, join},
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The name of the network's input.
pub(super) const INPUT: &str = "input";

/// The name of the network's output.
pub(super) const OUTPUT: &str = "logits";

/// The graph so far, and the names of what it contains.
pub(super) struct GraphBuilder {
    proto: GraphProto,
    /// Names of the model's parameters and buffers.
    states: BTreeMap<StateId, String>,
    /// Names of the initializers that hold a named tensor in a layout.
    initializers: HashMap<(String, Layout), String>,
    used_names: BTreeSet<String>,
}

impl GraphBuilder {
    /// Returns a graph that has only the input.
    pub(super) fn new(state: &(impl State + ?Sized)) -> GraphBuilder {
        let mut states = BTreeMap::new();
        state.visit("", &mut |name, state| drop(states.insert(state.id(), name.to_string())));
        GraphBuilder {
            proto: GraphProto { name: "network".into(), ..GraphProto::default() },
            states,
            initializers: HashMap::new(),
            used_names: [INPUT, OUTPUT].map(String::from).into(),
        }
    }

    /// Adds a node of the module at `path` and returns the name of its output, which is the node's.
    pub(super) fn node(
        &mut self,
        path: &str,
        op_type: &str,
        input: Vec<String>,
        attribute: Vec<AttributeProto>,
    ) -> String {
        self.node_of_domain(path, ["", op_type], input, attribute)
    }

    /// Adds a node as [`GraphBuilder::node`], whose operator is of another domain than ONNX's.
    pub(super) fn node_of_domain(
        &mut self,
        path: &str,
        [domain, op_type]: [&str; 2],
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
            domain: domain.into(),
        });
        name
    }

    /// Returns the name of an initializer with a parameter or a buffer, or with a constant that the
    /// module at `path` reads. Plain tensors with four axes are images, whose channels become the
    /// second axis.
    pub(super) fn initializer(
        &mut self,
        path: &str,
        id: Option<StateId>,
        value: &Tensor,
        layout: Layout,
    ) -> Result<String> {
        match id.and_then(|id| self.states.get(&id).cloned()) {
            Some(name) => self.shared_initializer(name, value, layout),
            None => self.add_initializer(join(path, "constant"), value, layout),
        }
    }

    /// Adds an initializer with integers that the module at `path` reads, and returns its name.
    pub(super) fn integers(&mut self, path: &str, argument: &str, integers: &[i64]) -> String {
        let name = self.unique(join(path, argument));
        self.proto.initializer.push(TensorProto {
            dims: vec![integers.len() as i64],
            data_type: data_type::INT64,
            name: name.clone(),
            raw_data: integers.iter().flat_map(|i| i.to_le_bytes()).collect(),
        });
        name
    }

    /// Returns the name of the initializer with a named tensor, which is added once.
    fn shared_initializer(&mut self, name: String, value: &Tensor, layout: Layout) -> Result<String> {
        let key = (name.clone(), layout);
        if let Some(known) = self.initializers.get(&key) {
            return Ok(known.clone());
        }
        let name = self.add_initializer(name, value, layout)?;
        self.initializers.insert(key, name.clone());
        Ok(name)
    }

    fn add_initializer(&mut self, name: String, value: &Tensor, layout: Layout) -> Result<String> {
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

    /// Returns the name, followed by a number if it is used already.
    fn unique(&mut self, name: String) -> String {
        let mut numbered = (1..).map(|n| format!("{name}_{n}"));
        let mut candidate = name.clone();
        while !self.used_names.insert(candidate.clone()) {
            candidate = numbered.next().unwrap_or_default();
        }
        candidate
    }

    /// Returns the finished graph, whose output is the value `last`.
    pub(super) fn finish(mut self, [input, output]: [&Shape; 2], last: String) -> GraphProto {
        // Otherwise the output is the input or an initializer.
        let last = match self.proto.node.iter().any(|node| node.output[0] == last) {
            true => last,
            false => self.node("", "Identity", vec![last], vec![]),
        };
        for node in &mut self.proto.node {
            let names = node.input.iter_mut().chain(&mut node.output);
            names.filter(|name| **name == last).for_each(|name| *name = OUTPUT.to_string());
        }
        self.proto.input = vec![value_info(INPUT, input)];
        self.proto.output = vec![value_info(OUTPUT, output)];
        self.proto
    }
}

/// Describes an input or an output, of any batch size.
fn value_info(name: &str, shape: &Shape) -> ValueInfoProto {
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

/// An attribute with an integer.
pub(super) fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i, r#type: attribute_type::INT, ..AttributeProto::default() }
}

/// An attribute with several sizes.
pub(super) fn sizes(name: &str, sizes: impl IntoIterator<Item = usize>) -> AttributeProto {
    ints(name, sizes.into_iter().map(|size| size as i64).collect())
}

/// An attribute with several integers.
pub(super) fn ints(name: &str, ints: Vec<i64>) -> AttributeProto {
    AttributeProto { name: name.into(), ints, r#type: attribute_type::INTS, ..AttributeProto::default() }
}

/// An attribute with a floating-point number.
pub(super) fn float(name: &str, f: f32) -> AttributeProto {
    AttributeProto { name: name.into(), f, r#type: attribute_type::FLOAT, ..AttributeProto::default() }
}

/// An attribute with a text.
pub(super) fn string(name: &str, text: &str) -> AttributeProto {
    let s = text.as_bytes().to_vec();
    AttributeProto { name: name.into(), s, r#type: attribute_type::STRING, ..AttributeProto::default() }
}
