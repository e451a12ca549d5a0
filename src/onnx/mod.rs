//! Export of networks to ONNX, for other runtimes (feature `onnx`).
//!
//! A file has the network as evaluation computes it, without fusion: a node for each convolution,
//! normalization, addition and so on, recorded by a meta pass, and the model's tensors under their
//! names in weights files (`layer1.0.conv1.weight`, `layer1.0.bn1.running_mean`). The input `input`
//! is `[N, channels, height, width]`, ONNX's order, with any number N of images of the size that
//! was exported; the output is `logits`. The operators are those of opset 17, which needs ONNX
//! Runtime 1.12 or newer. Preprocessing is not part of the file: normalize images as for the model.
//!
//! ```
//! use skipgrad::{Rng, models::ResNet, onnx};
//! # let path = std::env::temp_dir().join(format!("skipgrad-{}.onnx", std::process::id()));
//! let model = ResNet::cifar_paper(20, 10, &mut Rng::seed(0))?;
//! onnx::save(&model, [32, 32, 3], &path)?;
//! assert!(std::fs::metadata(&path).unwrap().len() > 4 * 269_722);
//! # std::fs::remove_file(&path).unwrap();
//! # Ok::<(), skipgrad::Error>(())
//! ```

mod builder;
mod proto;
mod translate;

use crate::{
    Error, Result,
    autograd::Kind,
    graph::{Graph, Node},
    io,
    nn::Module,
};
use builder::GraphBuilder;
use prost::Message;
use proto::{ModelProto, OperatorSetIdProto};
use std::{collections::BTreeSet, path::Path};

/// The version of the file format, which is that of ONNX 1.12.
const IR_VERSION: i64 = 8;

/// The version of the operator set.
const OPSET: i64 = 17;

/// The longest message of protobuf, in bytes.
const MAX_LEN: usize = i32::MAX as usize;

/// Writes a network to an ONNX file, for images of `[height, width, channels]`, atomically: see
/// [`write_atomically`](io::write_atomically). The [module](self) describes the content.
///
/// # Errors
/// As [`encode`]; [`Error::Io`] if the folder does not exist, cannot be written or is full.
pub fn save<M: Module + ?Sized>(module: &M, image: [usize; 3], path: impl AsRef<Path>) -> Result<()> {
    io::write_atomically(path, &encode(module, image)?)
}

/// Returns the bytes of a network's ONNX file, for images of `[height, width, channels]`.
///
/// # Errors
/// As [`Module::forward`] if such images do not fit; [`Error::Argument`] if the file would have
/// 2 GiB or more, and, with the path of the module, for an operation that belongs to training or
/// that ONNX export does not support.
///
/// ```
/// use skipgrad::{Rng, nn::{Flatten, Linear, Module, Sequential}, onnx};
/// let net = Sequential::new().push(Flatten).named("fc", Linear::new(48, 2, &mut Rng::seed(0))?)?;
/// let bytes = onnx::encode(&net, [4, 4, 3])?;
/// assert_eq!(bytes[..2], [8, 8]); // the first field: IR version 8
/// assert_eq!(onnx::encode(&net, [4, 5, 3]).unwrap_err().path(), Some("fc"));
/// # Ok::<(), skipgrad::Error>(())
/// ```
pub fn encode<M: Module + ?Sized>(module: &M, image: [usize; 3]) -> Result<Vec<u8>> {
    let model = model(module, image)?;
    let length = model.encoded_len();
    if length > MAX_LEN {
        return Err(Error::argument("onnx", "model", "a file of less than 2 GiB", length));
    }
    Ok(model.encode_to_vec())
}

fn model<M: Module + ?Sized>(module: &M, [height, width, channels]: [usize; 3]) -> Result<ModelProto> {
    let graph = Graph::trace(module, &[1, height, width, channels])?;
    let mut builder = GraphBuilder::new(module);
    let last = translate::translate(&mut builder, &graph)?;
    let opset = |domain: &str, version| OperatorSetIdProto { domain: domain.into(), version };
    // Other operator sets are in their first version, as those of ONNX Runtime are.
    let domains: BTreeSet<&str> = graph.nodes().iter().filter_map(domain).collect();
    let others = domains.into_iter().map(|domain| opset(domain, 1));
    Ok(ModelProto {
        ir_version: IR_VERSION,
        producer_name: env!("CARGO_PKG_NAME").into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(builder.finish([graph.input(), graph.shape(graph.output())], last)),
        opset_import: [opset("", OPSET)].into_iter().chain(others).collect(),
    })
}

/// Returns the operator set that a node needs besides that of ONNX.
fn domain(node: &Node) -> Option<&str> {
    match node.kind() {
        Kind::Custom(Some(node)) if !node.domain.is_empty() => Some(&node.domain),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
