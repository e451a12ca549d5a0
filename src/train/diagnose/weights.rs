//! What can be read from the weights: whether they are trained, and whether convolutions are zero.

use super::{
    diagnosis::Diagnosis,
    finding::{Finding, FindingKind, Severity},
    pass::{is_trained, listed, module_path, named},
};
use crate::{
    Result,
    autograd::{Layout, StateId, StateRef},
    graph::{Graph, Source},
    nn::Module,
};
use std::collections::BTreeMap;

const TRAINABLE: &str = "trained";
const ZERO: &str = "weights";

/// A parameter: its name, its number of elements and whether it is trained.
struct Known {
    name: String,
    elements: usize,
    trained: bool,
}

/// Judges the weights of a model for images of this shape, `[H, W, C]`. Returns whether any are
/// trained.
pub(super) fn judge(model: &dyn Module, [h, w, c]: [usize; 3], diagnosis: &mut Diagnosis) -> Result<bool> {
    let mut params = BTreeMap::new();
    model.visit("", &mut |name, state| {
        if let StateRef::Param(param) = state {
            let elements = param.value().shape().num_elements();
            params
                .insert(param.id(), Known { name: name.to_string(), elements, trained: is_trained(&state) });
        }
    });
    let is_any_trained = judge_trained(&params, &Graph::trace(model, &[1, h, w, c])?, diagnosis);
    judge_zeros(model, diagnosis);
    Ok(is_any_trained)
}

/// Judges which parameters are trained.
fn judge_trained(params: &BTreeMap<StateId, Known>, graph: &Graph, diagnosis: &mut Diagnosis) -> bool {
    let total: usize = params.values().map(|known| known.elements).sum();
    let trained: usize = params.values().filter(|known| known.trained).map(|known| known.elements).sum();
    let measured = format!("{trained} of {total} parameters");
    if trained == 0 {
        let message = "No parameter is trained: all are frozen, or there are none. Thaw those that are to learn \
                       by `State::thaw`.";
        diagnosis.add(Finding::new(FindingKind::NothingTrainable, Severity::Error, total as f64, message));
        diagnosis.check(TRAINABLE, measured, false, "nothing is trained");
        return false;
    }
    let head = head(params, graph);
    let is_frozen = !head.is_empty() && head.iter().all(|known| !known.trained);
    if is_frozen {
        let path = module_path(&head[0].name);
        let frozen: usize = head.iter().map(|known| known.elements).sum();
        let message = format!(
            "The last layer, {}, is frozen, while layers before it are trained. Thaw it by `State::thaw`, unless \
             the classifier is to be fixed.",
            named(path)
        );
        let finding = Finding::new(FindingKind::FrozenHead, Severity::Warning, frozen as f64, message);
        diagnosis.add(finding.at(path));
    }
    let verdict = match (is_frozen, trained == total) {
        (true, _) => "the last layer is frozen",
        (false, true) => "all are trained",
        (false, false) => "the last layer is trained",
    };
    diagnosis.check(TRAINABLE, measured, !is_frozen, verdict);
    true
}

/// Returns the parameters of the last operation that reads any.
fn head<'a>(params: &'a BTreeMap<StateId, Known>, graph: &Graph) -> Vec<&'a Known> {
    let read = |source: &Source| match source {
        Source::Constant(Some(id), _) => params.get(id),
        _ => None,
    };
    let mut nodes = graph.nodes().iter().rev().map(|node| node.inputs().iter().filter_map(read).collect());
    nodes.find(|known: &Vec<&Known>| !known.is_empty()).unwrap_or_default()
}

/// Judges whether the weights of convolutions are zero. A scale of zero at the end of a residual
/// block is usual, and so is a classifier of zeros: both get a gradient.
fn judge_zeros(model: &dyn Module, diagnosis: &mut Diagnosis) {
    let (mut convolutions, mut zero) = (0, vec![]);
    model.visit("", &mut |name, state| {
        if state.layout() != Layout::Conv {
            return;
        }
        convolutions += 1;
        if state.value().data().iter().all(|&weight| weight == 0.0) {
            zero.push((module_path(name).to_string(), state.value().shape().num_elements()));
        }
    });
    for (path, elements) in &zero {
        let message = format!(
            "All {elements} weights of the convolution {} are zero, so that nothing gets through it, and no \
             gradient to what is before it. Initialize it (`nn::init`), or load its weights; only the last one \
             of a residual branch may begin at zero.",
            named(path)
        );
        let kind = FindingKind::ZeroConvolution;
        diagnosis.add(Finding::new(kind, Severity::Error, *elements as f64, message).at(path));
    }
    let paths: Vec<String> = zero.into_iter().map(|(path, _)| path).collect();
    let measured = match paths.len() {
        0 => format!("{convolutions} convolutions"),
        count => format!("{count} of {convolutions} convolutions: {}", listed(&paths)),
    };
    diagnosis.check(ZERO, measured, paths.is_empty(), if paths.is_empty() { "none is zero" } else { "zero" });
}
