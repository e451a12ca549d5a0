//! A network as a table.

use super::Graph;
use crate::{Result, Shape, autograd::StateRef, nn::Module};
use std::{collections::BTreeMap, fmt};

/// A network's operations in training, and their sums; see
/// [`ModuleExt::summary`](super::ModuleExt::summary). It is displayed as a table.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Summary {
    /// The shape of the input.
    pub input: Shape,
    /// The operations, in the order of a pass.
    pub layers: Vec<LayerSummary>,
    /// The number of elements of all parameters, as
    /// [`State::num_parameters`](crate::autograd::State::num_parameters).
    pub parameters: usize,
    /// The multiply-adds of convolutions and linear maps by their definition. Winograd's algorithm
    /// takes fewer.
    pub multiply_adds: u64,
    /// The bytes that exist between the forward and the backward pass, without the input.
    pub memory: usize,
}

/// An operation of a network.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LayerSummary {
    /// The path of the module whose parameters it reads, in the names of weights files; empty if it
    /// reads none.
    pub name: String,
    /// The operation, such as `conv2d`.
    pub operation: &'static str,
    /// The shape of the output.
    pub output: Shape,
    /// The number of elements of the parameters that no operation has read before.
    pub parameters: usize,
    /// Its part of [`Summary::multiply_adds`].
    pub multiply_adds: u64,
    /// The bytes that it makes and that exist between the forward and the backward pass.
    pub memory: usize,
}

pub(super) fn summary<M: Module + ?Sized>(module: &M, shape: &[usize]) -> Result<Summary> {
    let mut unread = BTreeMap::new();
    let mut modules = BTreeMap::new();
    module.visit("", &mut |name, slot| {
        if let StateRef::Param(param) = slot {
            let path = name.rsplit_once('.').map_or("", |(path, _)| path);
            modules.insert(param.id(), path.to_string());
            unread.insert(param.id(), param.value().shape().num_elements());
        }
    });
    let graph = Graph::trace_training(module, shape)?;
    let layers: Vec<LayerSummary> = graph
        .nodes()
        .iter()
        .map(|node| LayerSummary {
            name: common(node.states().filter_map(|id| modules.get(&id))),
            operation: node.name(),
            output: *node.shape(),
            parameters: node.states().filter_map(|id| unread.remove(&id)).sum(),
            multiply_adds: node.multiply_adds(),
            memory: node.live_bytes,
        })
        .collect();
    Ok(Summary {
        input: *graph.input(),
        parameters: module.num_parameters(),
        multiply_adds: layers.iter().map(|layer| layer.multiply_adds).sum(),
        memory: layers.iter().map(|layer| layer.memory).sum(),
        layers,
    })
}

/// Returns the path that all paths begin with.
fn common<'a>(mut paths: impl Iterator<Item = &'a String>) -> String {
    let Some(first) = paths.next() else { return String::new() };
    let mut parts: Vec<&str> = first.split('.').collect();
    for path in paths {
        let alike = parts.iter().zip(path.split('.')).take_while(|(a, b)| **a == *b).count();
        parts.truncate(alike);
    }
    parts.join(".")
}

/// A line for every operation, and one for the sums.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heading =
            ["layer", "operation", "output", "parameters", "multiply-adds", "memory"].map(String::from);
        let numbers = |parameters: usize, multiply_adds: u64, memory: usize| {
            [grouped(parameters as u64), grouped(multiply_adds), mebibytes(memory)]
        };
        let line = |layer: &LayerSummary| {
            let [parameters, multiply_adds, memory] =
                numbers(layer.parameters, layer.multiply_adds, layer.memory);
            let output = layer.output.to_string();
            [layer.name.clone(), layer.operation.into(), output, parameters, multiply_adds, memory]
        };
        let [parameters, multiply_adds, memory] = numbers(self.parameters, self.multiply_adds, self.memory);
        let input = [
            "input".into(),
            String::new(),
            self.input.to_string(),
            String::new(),
            String::new(),
            String::new(),
        ];
        let total = ["total".into(), String::new(), String::new(), parameters, multiply_adds, memory];
        let lines: Vec<[String; 6]> =
            [heading, input].into_iter().chain(self.layers.iter().map(line)).chain([total]).collect();
        let widths: [usize; 6] =
            std::array::from_fn(|column| lines.iter().map(|line| line[column].len()).max().unwrap_or(0));
        for [layer, operation, output, parameters, multiply_adds, memory] in lines {
            let [a, b, c, d, e, g] = widths;
            let line = format!(
                "{layer:a$}  {operation:b$}  {output:c$}  {parameters:>d$}  {multiply_adds:>e$}  {memory:>g$}"
            );
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Formats a number in groups of three digits, and 0 as nothing.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    if number == 0 { String::new() } else { groups.join(",") }
}

fn mebibytes(bytes: usize) -> String {
    if bytes == 0 { String::new() } else { format!("{:.2} MiB", bytes as f64 / f64::from(1 << 20)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_people_read_them() {
        assert_eq!([0, 7, 999, 1000, 1_814_073_344].map(grouped), ["", "7", "999", "1,000", "1,814,073,344"]);
        assert_eq!([0, 1 << 20].map(mebibytes), ["", "1.00 MiB"]);
    }

    #[test]
    fn the_module_of_an_operation() {
        let of =
            |paths: &[&str]| common(paths.iter().map(|path| path.to_string()).collect::<Vec<_>>().iter());
        assert_eq!(of(&[]), "");
        assert_eq!(of(&["layer1.0.bn1", "layer1.0.bn1"]), "layer1.0.bn1");
        assert_eq!(of(&["block1.layer1.norm1", "block1.layer12.conv1"]), "block1");
        assert_eq!(of(&["fc", "linear"]), "");
    }
}
