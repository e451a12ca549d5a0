//! From the operations of a graph to the stages of a compiled network: normalizations are folded
//! into convolutions, and bias, residual and ReLU into the pass that writes a result.

use super::weights::{Folded, Weights, pack_all};
use crate::{
    Result, Tensor,
    autograd::{AnyOp, Kind},
    graph::{Graph, Node, Source},
    kernels::{Algorithm, Conv2dGeometry},
    ops::Affine,
};
use std::sync::Arc;

/// A step of a compiled network. It does not depend on the size of the input.
#[derive(Clone)]
pub(super) struct Stage {
    pub(super) work: Work,
    /// What it reads, as values of the graph.
    pub(super) inputs: Vec<Source>,
    /// The node of the graph whose value it makes.
    pub(super) output: usize,
}

impl Stage {
    /// Returns the constants that it keeps.
    pub(super) fn constants(&self) -> impl Iterator<Item = &Tensor> {
        let of_work = match &self.work {
            Work::Linear { weight, bias, .. } => vec![Some(weight), bias.as_ref()],
            Work::Norm { norm, .. } | Work::NormProduct { norm, .. } => {
                vec![Some(&norm.scale), Some(&norm.shift)]
            }
            _ => vec![],
        };
        of_work.into_iter().flatten().chain(self.inputs.iter().filter_map(|input| constant(Some(input))))
    }
}

/// What a stage computes.
#[derive(Clone)]
pub(super) enum Work {
    /// A convolution of the first input, plus the second if there is one, and a ReLU. The settings
    /// are those of a node.
    Conv { weights: usize, node: usize, relu: bool },
    /// A normalization, a ReLU, a 1x1 convolution and a ReLU.
    NormProduct { norm: Affine, weights: usize },
    /// A normalization of the first input, plus the second if there is one, and a ReLU.
    Norm { norm: Affine, relu: bool },
    /// A maximum over the windows of a node.
    MaxPool { node: usize },
    /// A mean over the windows of a node.
    AvgPool { node: usize },
    /// The mean of each channel of an image.
    GlobalAvgPool,
    /// A matrix product with a constant weight, and perhaps a bias.
    Linear { weight: Tensor, bias: Option<Tensor>, is_bf16: bool },
    /// A concatenation along the channels.
    Concat,
    /// The same elements in another shape.
    View,
    /// Any other operation, as it is defined.
    Op(Arc<dyn AnyOp>),
}

/// The stages of a graph, and the weights of their convolutions.
pub(super) struct Fused {
    pub(super) stages: Vec<Stage>,
    pub(super) weights: Vec<Weights>,
}

/// Fuses the operations of a graph, and packs weights for the size of its input, rounded if they
/// are multiplied in bf16.
pub(super) fn fuse(graph: &Graph, is_bf16: bool) -> Result<Fused> {
    let (readers, done) = (graph.readers(), vec![false; graph.nodes().len()]);
    let mut fuser = Fuser { graph, is_bf16, readers, done, stages: vec![], convolutions: vec![] };
    for node in 0..graph.nodes().len() {
        if !fuser.done[node] {
            let stage = fuser.stage(node);
            fuser.stages.push(stage);
        }
    }
    let Fuser { stages, convolutions, .. } = fuser;
    Ok(Fused { stages, weights: pack_all(convolutions, is_bf16)? })
}

struct Fuser<'g> {
    graph: &'g Graph,
    /// Whether convolutions and linear layers multiply in bf16.
    is_bf16: bool,
    /// The nodes that read each node.
    readers: Vec<Vec<usize>>,
    /// Whether a node is part of a stage of an earlier node.
    done: Vec<bool>,
    stages: Vec<Stage>,
    convolutions: Vec<(Folded, Conv2dGeometry)>,
}

impl<'g> Fuser<'g> {
    /// Returns the stage that begins with a node.
    fn stage(&mut self, node: usize) -> Stage {
        let n = &self.graph.nodes()[node];
        let inputs = n.inputs();
        let of_first = |work| Stage { work, inputs: vec![inputs[0].clone()], output: node };
        match n.kind() {
            Kind::Conv2d { .. } => match self.folded(n) {
                Some(folded) => self.conv(node, folded),
                None => self.plain(node),
            },
            Kind::BatchNorm { .. } => match self.affine(n) {
                Some(norm) => self.norm(node, norm),
                None => self.plain(node),
            },
            Kind::Linear if n.shape().rank() == 2 => {
                let (is_bf16, bias) = (self.is_bf16, constant(inputs.get(2)).cloned());
                match constant(inputs.get(1)).cloned() {
                    Some(weight) if bias.is_some() == (inputs.len() > 2) => {
                        of_first(Work::Linear { weight, bias, is_bf16 })
                    }
                    _ => self.plain(node),
                }
            }
            Kind::MaxPool2d { .. } => of_first(Work::MaxPool { node }),
            Kind::AvgPool2d { .. } => of_first(Work::AvgPool { node }),
            Kind::GlobalAvgPool => of_first(Work::GlobalAvgPool),
            Kind::Flatten | Kind::Reshape => of_first(Work::View),
            Kind::Concat => Stage { work: Work::Concat, inputs: inputs.to_vec(), output: node },
            _ => self.plain(node),
        }
    }

    /// Returns the stage of a node that runs as it is defined.
    fn plain(&self, node: usize) -> Stage {
        let n = &self.graph.nodes()[node];
        Stage { work: Work::Op(n.op().clone()), inputs: n.inputs().to_vec(), output: node }
    }

    /// Returns the stage of a convolution and of what follows it, up to a ReLU.
    fn conv(&mut self, node: usize, mut folded: Folded) -> Stage {
        let n = &self.graph.nodes()[node];
        let geometry = geometry(n, self.graph.shape(&n.inputs()[0]), folded.weight.shape());
        let mut input = n.inputs()[0].clone();
        let mut output = node;
        if let Some(pool) = self.pool_that_commutes(node, &geometry) {
            let work = Work::AvgPool { node: pool };
            self.stages.push(Stage { work, inputs: vec![input], output: node });
            (input, output) = (Source::Node(node), self.take(pool));
        }
        let (output, residual, relu) = self.followers(node, output, Some(&mut folded));
        self.convolutions.push((folded, geometry));
        let work = Work::Conv { weights: self.convolutions.len() - 1, node, relu };
        Stage { work, inputs: [input].into_iter().chain(residual).collect(), output }
    }

    /// Returns the stage of a normalization and of what follows it, up to a ReLU; with a 1x1
    /// convolution, a normalization and another ReLU after it, all are one.
    fn norm(&mut self, node: usize, norm: Affine) -> Stage {
        let input = self.graph.nodes()[node].inputs()[0].clone();
        let (output, residual, relu) = self.followers(node, node, None);
        if relu
            && residual.is_none()
            && let Some((conv, folded, end)) = self.product_after(output)
        {
            let n = &self.graph.nodes()[conv];
            let geometry = geometry(n, self.graph.shape(&n.inputs()[0]), folded.weight.shape());
            self.convolutions.push((folded, geometry));
            let work = Work::NormProduct { norm, weights: self.convolutions.len() - 1 };
            return Stage { work, inputs: vec![input], output: end };
        }
        let inputs = [input].into_iter().chain(residual).collect();
        Stage { work: Work::Norm { norm, relu }, inputs, output }
    }

    /// Takes what follows `last` in a stage that begins with the node `first`: normalizations, if
    /// there are weights to fold them into, a sum, and a ReLU, which ends the stage. Returns the
    /// last node of the stage, the other term of the sum, and whether there is a ReLU.
    fn followers(
        &mut self,
        first: usize,
        mut last: usize,
        mut folded: Option<&mut Folded>,
    ) -> (usize, Option<Source>, bool) {
        let mut residual = None;
        while let Some(next) = self.only_reader(last) {
            let follower = &self.graph.nodes()[next];
            match (follower.kind(), &mut folded) {
                (Kind::BatchNorm { .. }, Some(folded)) if residual.is_none() => {
                    let Some(norm) = self.affine(follower) else { break };
                    folded.fold(&norm);
                }
                (Kind::Add, _) if residual.is_none() => {
                    let Some(term) = self.other_term(follower, last, first) else { break };
                    residual = Some(term);
                }
                (Kind::Relu, _) => return (self.take(next), residual, true),
                _ => break,
            }
            last = self.take(next);
        }
        (last, residual, false)
    }

    /// Returns the 1x1 convolution that alone reads a node, if a normalization and a ReLU follow
    /// it, with the normalization folded in, and the node of that ReLU.
    fn product_after(&mut self, node: usize) -> Option<(usize, Folded, usize)> {
        let nodes = self.graph.nodes();
        // The product with a normalization in front has no kernel in bf16.
        let conv = self.only_reader(node).filter(|_| !self.is_bf16)?;
        let mut folded = self.folded(&nodes[conv])?;
        let of_conv = geometry(&nodes[conv], nodes[node].shape(), folded.weight.shape());
        let norm = self.only_reader(conv).filter(|_| is_product(&of_conv))?;
        if !matches!(nodes[norm].kind(), Kind::BatchNorm { relu: false, has_residual: false, .. }) {
            return None;
        }
        let relu = self.only_reader(norm).filter(|&next| *nodes[next].kind() == Kind::Relu)?;
        folded.fold(&self.affine(&nodes[norm])?);
        for node in [conv, norm, relu] {
            self.take(node);
        }
        Some((conv, folded, relu))
    }

    /// Returns the mean over windows that alone reads a 1x1 convolution. Both are linear, one over
    /// channels and one over pixels, so they commute: after the pooling, the convolution has fewer
    /// pixels.
    fn pool_that_commutes(&self, conv: usize, geometry: &Conv2dGeometry) -> Option<usize> {
        let pool = self.only_reader(conv).filter(|_| is_product(geometry))?;
        match self.graph.nodes()[pool].kind() {
            Kind::AvgPool2d { padding: [[0, 0], [0, 0]], .. } => Some(pool),
            _ => None,
        }
    }

    /// Marks a node as part of the current stage, and returns it.
    fn take(&mut self, node: usize) -> usize {
        self.done[node] = true;
        node
    }

    /// Returns the node that alone reads a node, once, and is not part of a stage.
    fn only_reader(&self, node: usize) -> Option<usize> {
        match self.readers[node][..] {
            [reader] if reader < self.done.len() && !self.done[reader] => Some(reader),
            _ => None,
        }
    }

    /// Returns the other term of a sum, if it was computed before a stage that begins with the node
    /// `first`.
    fn other_term(&self, sum: &Node, term: usize, first: usize) -> Option<Source> {
        let other =
            sum.inputs().iter().find(|input| !matches!(input, Source::Node(node) if *node == term))?;
        match other {
            Source::Node(node) if *node > first => None,
            Source::Constant(..) => None,
            other => Some(other.clone()),
        }
    }

    /// Returns a convolution with constant weights.
    fn folded(&self, node: &Node) -> Option<Folded> {
        let &Kind::Conv2d { is_direct, .. } = node.kind() else { return None };
        let weight = constant(node.inputs().get(1))?.clone();
        let bias = match node.inputs().get(2) {
            None => None,
            bias => Some(constant(bias)?.clone()),
        };
        Some(Folded { weight, bias, algorithm: if is_direct { Algorithm::Direct } else { Algorithm::Auto } })
    }

    /// Returns a normalization with constant statistics as a multiplication and an addition.
    fn affine(&self, node: &Node) -> Option<Affine> {
        let &Kind::BatchNorm { eps, is_fixed: true, has_residual: false, relu: false } = node.kind() else {
            return None;
        };
        let [gamma, beta, mean, var] = [1, 2, 3, 4].map(|i| constant(node.inputs().get(i)));
        Some(Affine::new([gamma?, beta?], [mean?, var?], eps))
    }
}

/// Returns a constant input.
fn constant(source: Option<&Source>) -> Option<&Tensor> {
    match source? {
        Source::Constant(_, value) => Some(value),
        Source::Input | Source::Node(_) => None,
    }
}

/// Returns whether a convolution is a product of each pixel with a matrix.
fn is_product(geometry: &Conv2dGeometry) -> bool {
    let Conv2dGeometry { kernel, stride, padding, groups, .. } = *geometry;
    kernel == [1, 1] && stride == [1, 1] && padding == [[0, 0]; 2] && groups == 1
}

/// Returns the geometry of a convolution for an input and a weight of these shapes.
pub(super) fn geometry(node: &Node, x: &[usize], weight: &[usize]) -> Conv2dGeometry {
    let (&Kind::Conv2d { stride, padding, dilation, groups, .. }, &[batch, height, width, in_channels]) =
        (node.kind(), x)
    else {
        unreachable!("the graph was checked: {node:?}");
    };
    Conv2dGeometry {
        batch,
        height,
        width,
        in_channels,
        out_channels: weight[3],
        kernel: [weight[0], weight[1]],
        stride,
        padding,
        dilation,
        groups,
    }
}
