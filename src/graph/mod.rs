//! A network as the graph of its operations, and what can be asked of any network without running
//! it.
//!
//! [`Graph::trace`] runs a module on shapes alone, and takes down its operations as they are
//! defined: nothing is computed, fused or folded. [`ModuleExt`] gives every module what follows
//! from such a pass: whether it fits an input, a table of its layers, the memory that it takes, and
//! the values inside of it. [`InferenceModel`](crate::inference::InferenceModel) compiles a graph,
//! `onnx` writes it to a file, and [`Graph::to_svg`] draws it.
//!
//! ```
//! use skipgrad::{Rng, autograd::Kind, graph::{Graph, Source}, models::ResNet};
//! let model = ResNet::imagenet(18, 1000, &mut Rng::seed(0))?;
//! let graph = Graph::trace(&model, &[1, 224, 224, 3])?;
//! let shortcut = graph.nodes().iter().position(|node| *node.kind() == Kind::Add).unwrap();
//! let node = &graph.nodes()[shortcut];
//! assert_eq!((node.path(), node.shape().as_ref()), ("layer1.0", &[1, 56, 56, 64][..]));
//! let Source::Node(skipped) = node.inputs()[1] else { panic!("a shortcut from an operation") };
//! assert_eq!(graph.nodes()[skipped].name(), "max_pool2d");
//! # Ok::<(), skipgrad::Error>(())
//! ```

mod feature_maps;
mod grad_cam;
mod module_ext;
mod plan;
mod summary;
mod svg;

pub use grad_cam::{HeatMap, grad_cam, grad_cam_layer};
pub use module_ext::ModuleExt;
pub use plan::Plan;
pub use summary::{LayerSummary, Summary};

use crate::{
    Error, Result, Shape, Tensor,
    autograd::{AnyOp, Input, Kind, Mode, Operand, Operation, StateId, Tape},
    nn::Module,
    tensor::MemoryTracker,
};
use std::{collections::HashMap, fmt, sync::Arc};

/// The operations of a pass through a network, in the order in which they run.
#[derive(Clone, Debug)]
pub struct Graph {
    input: Shape,
    nodes: Vec<Node>,
    output: Source,
}

/// An operation of a [`Graph`].
#[derive(Clone)]
pub struct Node {
    op: Arc<dyn AnyOp>,
    kind: Kind,
    inputs: Vec<Source>,
    shape: Shape,
    path: String,
    multiply_adds: u64,
    live_bytes: usize,
}

/// Where an input of an operation comes from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Source {
    /// The input of the network.
    Input,
    /// The output of the node with this index.
    Node(usize),
    /// A parameter, a buffer, or a constant, which has no identity.
    Constant(Option<StateId>, Tensor),
}

impl Graph {
    /// Runs a module on an input of this shape, `[N, H, W, C]` or `[N, C]`, as it is defined in
    /// evaluation.
    ///
    /// # Errors
    /// As [`Module::forward`] if the input does not fit; [`Error::Argument`] if the module reads a
    /// value of another pass.
    pub fn trace<M: Module + ?Sized>(module: &M, shape: &[usize]) -> Result<Graph> {
        Graph::record(Tape::meta(Mode::Eval).capture_all(module), module, shape)
    }

    /// Runs a module on an input of this shape as training does, where some operations are fused.
    ///
    /// # Errors
    /// As [`Graph::trace`].
    ///
    /// ```
    /// use skipgrad::{Rng, graph::Graph, models::ResNet};
    /// let model = ResNet::cifar_paper(20, 10, &mut Rng::seed(0))?;
    /// let training = Graph::trace_training(&model, &[2, 32, 32, 3])?;
    /// assert!(training.nodes().len() < Graph::trace(&model, &[2, 32, 32, 3])?.nodes().len());
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn trace_training<M: Module + ?Sized>(module: &M, shape: &[usize]) -> Result<Graph> {
        Graph::record(Tape::meta(Mode::Train).track_paths(module), module, shape)
    }

    fn record<M: Module + ?Sized>(tape: Tape, module: &M, shape: &[usize]) -> Result<Graph> {
        let x = tape.placeholder(shape)?;
        // The output is dropped, so that its memory does not count.
        let output = Operand::of(&x.apply(module)?);
        let mut sources: HashMap<StateId, Source> =
            x.id().map(|id| (id, Source::Input)).into_iter().collect();
        let mut nodes = vec![];
        for operation in tape.operations() {
            let (id, node) = (operation.output, Source::Node(nodes.len()));
            nodes.push(Node::new(operation, &sources)?);
            sources.insert(id, node);
        }
        let output = source(&output, &sources)?;
        Ok(Graph { input: *x.shape(), nodes, output })
    }

    /// Returns the shape of the input.
    pub fn input(&self) -> &Shape {
        &self.input
    }

    /// Returns the operations, each after those that it reads from.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Returns where the output of the network comes from.
    pub fn output(&self) -> &Source {
        &self.output
    }

    /// Returns the shape of a value of the graph.
    pub fn shape<'a>(&'a self, source: &'a Source) -> &'a Shape {
        match source {
            Source::Input => &self.input,
            Source::Node(node) => &self.nodes[*node].shape,
            Source::Constant(_, value) => value.shape(),
        }
    }

    /// Returns the number of products that are added to a sum.
    pub fn multiply_adds(&self) -> u64 {
        self.nodes.iter().map(|node| node.multiply_adds).sum()
    }

    /// Returns the nodes that read each node, once for each input. The output of the network is
    /// read by the node after the last.
    pub(crate) fn readers(&self) -> Vec<Vec<usize>> {
        let mut readers = vec![vec![]; self.nodes.len()];
        let inputs = self.nodes.iter().map(|node| &node.inputs[..]);
        for (reader, inputs) in inputs.chain([std::slice::from_ref(&self.output)]).enumerate() {
            for source in inputs {
                if let Source::Node(read) = source {
                    readers[*read].push(reader);
                }
            }
        }
        readers
    }

    /// Returns whether another graph has the same operations on values of the same shapes.
    pub(crate) fn is_like(&self, other: &Graph) -> bool {
        let are_alike = |(a, b): (&Source, &Source)| match (a, b) {
            (Source::Input, Source::Input) => true,
            (Source::Node(a), Source::Node(b)) => a == b,
            (Source::Constant(a, _), Source::Constant(b, _)) => a == b,
            _ => false,
        };
        let node_is_alike = |(a, b): (&Node, &Node)| {
            a.kind == b.kind
                && a.shape == b.shape
                && a.inputs.len() == b.inputs.len()
                && a.inputs.iter().zip(&b.inputs).all(are_alike)
        };
        self.nodes.len() == other.nodes.len() && self.nodes.iter().zip(&other.nodes).all(node_is_alike)
    }

    /// Frees the elements of all constants that operations read, and keeps their shapes.
    pub(crate) fn forget_constants(&mut self) {
        let tracker = MemoryTracker::default();
        for source in self.nodes.iter_mut().flat_map(|node| &mut node.inputs) {
            if let Source::Constant(_, value) = source {
                *value = Tensor::meta(*value.shape(), &tracker, 0);
            }
        }
    }

    /// Returns the same operations for an input of another shape.
    ///
    /// # Errors
    /// Those of the operations, if the input does not fit, with the path of the module.
    pub(crate) fn resized(&self, input: Shape) -> Result<Graph> {
        let tracker = MemoryTracker::default();
        let mut graph = Graph { input, nodes: vec![], output: self.output.clone() };
        for node in &self.nodes {
            let values: Vec<Tensor> = node
                .inputs
                .iter()
                .map(|source| match source {
                    Source::Constant(_, value) => value.clone(),
                    computed => Tensor::meta(*graph.shape(computed), &tracker, 0),
                })
                .collect();
            let inputs: Vec<Input<'_>> = values.iter().map(Input::from).collect();
            let shape = node.op.output_shape(&inputs).map_err(|fault| node.locate(fault.into_parts().0))?;
            graph.nodes.push(Node { shape, kind: node.op.kind(&inputs), ..node.clone() });
        }
        Ok(graph)
    }
}

impl Node {
    fn new(operation: Operation, sources: &HashMap<StateId, Source>) -> Result<Node> {
        let Operation { op, kind, path, inputs, shape, multiply_adds, live_bytes, .. } = operation;
        let inputs = inputs.iter().map(|input| source(input, sources)).collect::<Result<_>>();
        let inputs = inputs.map_err(|error: Error| error.in_module(path.clone()))?;
        Ok(Node { op, kind, inputs, shape, path, multiply_adds, live_bytes })
    }

    /// Returns the name of the operation, such as `conv2d`.
    pub fn name(&self) -> &'static str {
        self.op.name()
    }

    /// Returns what the operation is.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Returns where the inputs come from, in the order of the operation.
    pub fn inputs(&self) -> &[Source] {
        &self.inputs
    }

    /// Returns the shape of the output.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Returns the path of the module that calls the operation, such as `layer1.0.conv1`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the number of products that are added to a sum.
    pub fn multiply_adds(&self) -> u64 {
        self.multiply_adds
    }

    /// Returns the operation, which can run again.
    pub(crate) fn op(&self) -> &Arc<dyn AnyOp> {
        &self.op
    }

    /// Returns the error with the path of the module.
    pub(crate) fn locate(&self, error: Error) -> Error {
        error.in_module(self.path.clone())
    }

    /// Returns the parameters and buffers among the inputs.
    fn states(&self) -> impl Iterator<Item = StateId> {
        self.inputs.iter().filter_map(|source| match source {
            Source::Constant(id, _) => *id,
            Source::Input | Source::Node(_) => None,
        })
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Node { kind, shape, path, .. } = self;
        write!(f, "{} {path:?} {kind:?} -> {shape}", self.name())
    }
}

fn source(operand: &Operand, sources: &HashMap<StateId, Source>) -> Result<Source> {
    match operand {
        Operand::Given(id, value) => Ok(Source::Constant(*id, value.clone())),
        Operand::Computed(id) => {
            let known = id.and_then(|id| sources.get(&id)).cloned();
            known.ok_or_else(|| Error::argument("graph", "input", "a value of this pass", "another"))
        }
    }
}
