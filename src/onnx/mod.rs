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
mod tests {
    use super::{
        proto::{Dimension, GraphProto, NodeProto, attribute_type, data_type},
        *,
    };
    use crate::{
        Rng, Shape, Tensor,
        autograd::{Cost, Fault, Input, Kind, OnnxAttribute, OnnxNode, Op, State, Var},
        blocks::ShortcutKind,
        models::{self, DenseNet, DenseNetConfig, ModelOptions, ResNet, ResNetConfig},
        nn::{Conv2d, Linear, MaxPool2d, Relu, Sequential, conv1x1, from_fn},
        ops::{BatchNorm, Padding, Pool2dOptions},
    };
    use std::collections::{BTreeMap, BTreeSet};

    /// Exports a network and decodes its graph again.
    fn graph<M: Module + ?Sized>(module: &M, image: [usize; 3]) -> GraphProto {
        let model = ModelProto::decode(&encode(module, image).unwrap()[..]).unwrap();
        assert_eq!((model.ir_version, model.opset_import[0].version), (8, 17));
        assert_eq!(model.producer_name, "skipgrad");
        let graph = model.graph.unwrap();
        check(&graph);
        graph
    }

    /// Checks that names are unique, and that each is defined before it is used.
    fn check(graph: &GraphProto) {
        let mut known = BTreeSet::from(["input"]);
        for tensor in &graph.initializer {
            assert!(known.insert(&tensor.name), "{}", tensor.name);
            let bytes = if tensor.data_type == data_type::FLOAT { 4 } else { 8 };
            assert_eq!(tensor.dims.iter().product::<i64>() as usize * bytes, tensor.raw_data.len());
        }
        for node in &graph.node {
            assert!(node.input.iter().all(|name| known.contains(name.as_str())), "{}", node.name);
            assert!(known.insert(&node.output[0]), "{}", node.name);
        }
        assert_eq!((graph.input[0].name.as_str(), graph.output[0].name.as_str()), ("input", "logits"));
        assert_eq!(graph.node.last().unwrap().output, ["logits"]);
    }

    fn counts(graph: &GraphProto) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        graph.node.iter().for_each(|node| *counts.entry(node.op_type.as_str()).or_default() += 1);
        counts
    }

    fn node<'a>(graph: &'a GraphProto, name: &str) -> &'a NodeProto {
        graph.node.iter().find(|node| node.name == name).unwrap_or_else(|| panic!("no node {name}"))
    }

    fn ints<'a>(node: &'a NodeProto, name: &str) -> &'a [i64] {
        let attribute = node.attribute.iter().find(|attribute| attribute.name == name).unwrap();
        assert_eq!(attribute.r#type, attribute_type::INTS);
        &attribute.ints
    }

    /// Returns the sizes of a value's axes, with 0 for the batch.
    fn sizes(value: &proto::ValueInfoProto) -> Vec<i64> {
        let tensor = value.r#type.as_ref().unwrap().tensor_type.as_ref().unwrap();
        let size = |dim: &proto::DimensionProto| match dim.value.as_ref().unwrap() {
            Dimension::Size(size) => *size,
            Dimension::Named(name) => {
                assert_eq!(name, "N");
                0
            }
        };
        tensor.shape.as_ref().unwrap().dim.iter().map(size).collect()
    }

    #[test]
    fn the_nodes_and_initializers_of_a_resnet() {
        let model = ResNet::imagenet(18, 1000, &mut Rng::seed(0)).unwrap();
        let graph = graph(&model, [224, 224, 3]);
        assert_eq!(sizes(&graph.input[0]), [0, 3, 224, 224]);
        assert_eq!(sizes(&graph.output[0]), [0, 1000]);
        let expected = [
            ("Add", 8),
            ("BatchNormalization", 20),
            ("Conv", 20),
            ("Flatten", 1),
            ("Gemm", 1),
            ("GlobalAveragePool", 1),
            ("MaxPool", 1),
            ("Relu", 17),
        ];
        assert_eq!(counts(&graph), expected.into());

        let conv = node(&graph, "layer2.0.conv1.Conv");
        assert_eq!(conv.input[1], "layer2.0.conv1.weight");
        assert_eq!((ints(conv, "kernel_shape"), ints(conv, "strides")), (&[3, 3][..], &[2, 2][..]));
        assert_eq!((ints(conv, "pads"), ints(conv, "dilations")), (&[1, 1, 1, 1][..], &[1, 1][..]));
        let norm = node(&graph, "layer4.1.bn2.BatchNormalization");
        let parts =
            ["weight", "bias", "running_mean", "running_var"].map(|part| format!("layer4.1.bn2.{part}"));
        assert_eq!(norm.input[1..], parts);

        // The initializers are the model's state, as a weights file has it.
        let state = model.export();
        assert_eq!(graph.initializer.len(), state.len());
        for tensor in &graph.initializer {
            let expected = &state[&tensor.name];
            let dims: Vec<usize> = tensor.dims.iter().map(|&dim| dim as usize).collect();
            assert_eq!(dims, expected.shape(), "{}", tensor.name);
            let numbers = tensor.raw_data.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
            assert!(numbers.eq(expected.data().iter().copied()), "{}", tensor.name);
        }
    }

    #[test]
    fn the_graph_of_every_family_has_its_state() {
        for name in [
            "resnet18",
            "resnext50_32x4d",
            "resnet50d",
            "resnetv2_18",
            "wrn16_4",
            "resnet20",
            "densenet121",
            "densenet40_k12",
        ] {
            let model = models::build(name, &ModelOptions::classes(10), &mut Rng::seed(0)).unwrap();
            let graph = graph(&model, [64, 64, 3]);
            let integers = |name: &str| name.ends_with(".pads");
            let names: BTreeSet<&str> = graph.initializer.iter().map(|tensor| &tensor.name[..]).collect();
            let state = model.export();
            let expected: BTreeSet<&str> = state.keys().map(|name| &name[..]).collect();
            let found: BTreeSet<&str> = names.into_iter().filter(|name| !integers(name)).collect();
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn dense_blocks_are_what_the_paper_defines() {
        let config = DenseNetConfig::bc(10, 4, 5).unwrap().layers([2, 3]);
        let graph = graph(&DenseNet::new(&config, &mut Rng::seed(0)).unwrap(), [8, 8, 3]);
        let counts = counts(&graph);
        assert_eq!((counts["Concat"], counts["Conv"], counts["BatchNormalization"]), (5, 12, 12));
        assert_eq!((counts["Relu"], counts["AveragePool"]), (12, 1));
        let concat = node(&graph, "features.denseblock2.Concat");
        assert_eq!(concat.input[1], "features.denseblock2.denselayer1.conv2.Conv");
        assert_eq!(concat.attribute[0].i, 1);
        let pool = node(&graph, "features.transition1.pool.AveragePool");
        assert_eq!(pool.input, ["features.transition1.conv.Conv"]);
    }

    #[test]
    fn shortcuts_without_parameters() {
        let config =
            ResNetConfig::cifar_paper(8, 3).unwrap().stages([(4, 1), (7, 1)]).shortcut(ShortcutKind::Pad);
        let graph = graph(&ResNet::new(&config, &mut Rng::seed(0)).unwrap(), [8, 8, 3]);
        let every = node(&graph, "layer2.0.downsample.AveragePool");
        assert_eq!((ints(every, "kernel_shape"), ints(every, "strides")), (&[1, 1][..], &[2, 2][..]));
        let pad = node(&graph, "layer2.0.downsample.Pad");
        let pads = graph.initializer.iter().find(|tensor| tensor.name == pad.input[1]).unwrap();
        let pads: Vec<i64> =
            pads.raw_data.chunks(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap())).collect();
        assert_eq!(pads, [0, 1, 0, 0, 0, 2, 0, 0]);
    }

    #[test]
    fn plain_networks_add_nothing() {
        let config = ResNetConfig::cifar_paper(8, 3).unwrap().shortcut(ShortcutKind::None);
        let graph = graph(&ResNet::new(&config, &mut Rng::seed(0)).unwrap(), [8, 8, 3]);
        let counts = counts(&graph);
        assert_eq!((counts.get("Add"), counts["Conv"], counts["Relu"]), (None, 7, 7));
        assert_eq!(node(&graph, "layer2.0.conv1.Conv").input[0], node(&graph, "layer1.0.Relu_1").output[0]);
    }

    #[test]
    fn rounded_padding_is_written_as_numbers() {
        let rng = &mut Rng::seed(0);
        let conv = Conv2d::builder(3, 4, [3, 1]).stride(2).padding(Padding::Same).dilation([2, 9]).bias(true);
        let mut pool = MaxPool2d::new(2);
        pool.options.ceil_mode = true;
        let net = Sequential::new().push(conv.build(rng).unwrap()).push(pool);
        let graph = graph(&net, [7, 6, 3]);
        let conv = node(&graph, "0.Conv");
        assert_eq!(conv.input, ["input", "0.weight", "0.bias"]);
        assert_eq!((ints(conv, "pads"), ints(conv, "dilations")), (&[2, 0, 2, 0][..], &[2, 1][..]));
        assert_eq!(ints(node(&graph, "1.MaxPool"), "pads"), [0, 0, 0, 1]);
        assert_eq!(sizes(&graph.output[0]), [0, 4, 2, 2]);
    }

    #[test]
    fn a_gate_has_an_axis_for_rows_and_one_for_columns() {
        let net = Sequential::new()
            .push(conv1x1(3, 4).build(&mut Rng::seed(0)).unwrap())
            .push(from_fn(|x| x.scale_channels(&x.global_avg_pool()?.sigmoid())))
            .push(from_fn(|x| x.scale_channels(&x.max_pool2d(&Pool2dOptions::new([7, 6]))?)))
            .push(MaxPool2d::new(3).stride(2).padding(Padding::Same));
        let graph = graph(&net, [7, 6, 3]);
        let counts = counts(&graph);
        assert_eq!((counts["Mul"], counts["Unsqueeze"], counts["Sigmoid"]), (2, 1, 1));
        let unsqueeze = graph.node.iter().find(|node| node.op_type == "Unsqueeze").unwrap();
        let axes = graph.initializer.iter().find(|tensor| tensor.name == unsqueeze.input[1]).unwrap();
        let axes: Vec<i64> =
            axes.raw_data.chunks(8).map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap())).collect();
        assert_eq!(axes, [2, 3]);
        let same = graph.node.iter().rfind(|node| node.op_type == "MaxPool").unwrap();
        assert_eq!(ints(same, "pads"), [1, 0, 1, 1]);
        assert_eq!(sizes(&graph.output[0]), [0, 4, 4, 3]);
    }

    #[test]
    fn an_empty_network_and_a_shared_layer() {
        let graph_of_nothing = graph(&Sequential::new(), [2, 2, 3]);
        assert_eq!(counts(&graph_of_nothing), [("Identity", 1)].into());

        #[derive(State)]
        struct Twice(Linear);
        impl Module for Twice {
            fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
                let once = self.0.forward(&x.flatten()?)?;
                self.0.forward(&once)?.add(&once.scale(0.5).softmax()?)
            }
        }
        let twice = graph(&Twice(Linear::new(12, 12, &mut Rng::seed(0)).unwrap()), [2, 2, 3]);
        assert_eq!(counts(&twice)["Gemm"], 2);
        assert_eq!(node(&twice, "Transpose").input, ["input"]);
        assert_eq!(ints(node(&twice, "Transpose"), "perm"), [0, 2, 3, 1]);
    }

    /// A module that records some operations on its input, and applies ReLU.
    #[derive(State)]
    struct Records(#[state(skip)] fn(&Var<'_>) -> Result<()>);

    impl Module for Records {
        fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
            (self.0)(x)?;
            Ok(x.relu())
        }
    }

    #[test]
    fn an_unsupported_operation_is_an_error_with_its_path() {
        let error = |operations: fn(&Var<'_>) -> Result<()>| {
            let net = Sequential::new().push(Relu).named("odd", Records(operations)).unwrap();
            let error = encode(&net, [4, 4, 3]).unwrap_err();
            assert_eq!(error.path(), Some("odd"));
            error.to_string()
        };
        assert_eq!(
            error(|x| x.flatten()?.cross_entropy(&[1]).map(drop)),
            "odd: onnx: operation: expected one of evaluation that ONNX has, or one that names its ONNX node, \
             found cross_entropy"
        );
        let batch = error(|x| {
            let ones = x.tape().input(Tensor::full([3], 1.0)?);
            x.batch_norm(&BatchNorm::new(&ones, &ones)).map(drop)
        });
        assert!(batch.contains("statistics: expected running ones"), "{batch}");
        let computed = error(|x| {
            let weight = x.tape().input(Tensor::full([48, 2], 1.0)?).scale(2.0);
            x.flatten()?.linear(&weight, None).map(drop)
        });
        assert!(computed.contains("weight: expected a parameter or a constant"), "{computed}");
    }

    #[test]
    fn images_and_paths_that_do_not_fit() {
        let model = ResNet::cifar_paper(8, 10, &mut Rng::seed(0)).unwrap();
        let folder = std::env::temp_dir().join(format!("skipgrad-onnx-{}", std::process::id()));
        let error = save(&model, [32, 32, 3], folder.join("no/such/folder.onnx")).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
        assert!(!folder.exists());
        assert_eq!(encode(&model, [32, 32, 1]).unwrap_err().path(), Some("conv1"));
        assert!(encode(&model, [usize::MAX, 32, 3]).is_err());
        assert!(encode(&model, [0, 32, 3]).is_err());
    }

    /// `y = x` where x is positive, else `slope x`, as a user would write it.
    struct LeakyRelu {
        slope: f32,
        node: Option<OnnxNode>,
    }

    impl Op for LeakyRelu {
        type Context = Tensor;

        fn name(&self) -> &'static str {
            "leaky_relu"
        }

        fn output_shape(&self, inputs: &[Input<'_>]) -> std::result::Result<Shape, Fault> {
            Ok(*inputs[0].shape())
        }

        fn forward(&self, inputs: &[Input<'_>], shape: Shape) -> (Tensor, Tensor) {
            let x = inputs[0].value();
            let leaky = |x: f32| if x > 0.0 { x } else { self.slope * x };
            let write = |y: &mut [f32]| y.iter_mut().zip(x.data()).for_each(|(y, x)| *y = leaky(*x));
            (Tensor::build(shape, write), x.clone())
        }

        fn backward(&self, x: Tensor, mut dy: Tensor, _: &[bool]) -> Vec<Option<Tensor>> {
            let slope = |x: f32| if x > 0.0 { 1.0 } else { self.slope };
            dy.data_mut().iter_mut().zip(x.data()).for_each(|(dy, x)| *dy *= slope(*x));
            vec![Some(dy)]
        }

        fn cost(&self, inputs: &[Input<'_>], _: Shape) -> Cost {
            Cost::saving_everything(inputs)
        }

        fn kind(&self, _: &[Input<'_>]) -> Kind {
            Kind::Custom(self.node.clone())
        }
    }

    /// Returns a convolution and an operation of a user's own.
    fn leaky(node: Option<OnnxNode>) -> Sequential {
        let op = from_fn(move |x| LeakyRelu { slope: 0.1, node: node.clone() }.apply(&[x]));
        let conv = conv1x1(3, 4).build(&mut Rng::seed(0)).unwrap();
        Sequential::new().push(conv).named("act", op).unwrap().push(Relu)
    }

    #[test]
    fn an_operation_of_a_user_says_which_node_it_is() {
        let own = OnnxNode::new("Leaky")
            .domain("org.example")
            .attribute("alpha", OnnxAttribute::Float(0.1))
            .attribute("axes", OnnxAttribute::Ints(vec![1, 2]))
            .attribute("count", OnnxAttribute::Int(-3))
            .attribute("mode", OnnxAttribute::String("exact".to_string()));
        let model = ModelProto::decode(&encode(&leaky(Some(own)), [5, 6, 3]).unwrap()[..]).unwrap();
        let sets: Vec<(&str, i64)> =
            model.opset_import.iter().map(|set| (&set.domain[..], set.version)).collect();
        assert_eq!(sets, [("", 17), ("org.example", 1)]);
        let graph = model.graph.unwrap();
        check(&graph);
        let node = node(&graph, "act.Leaky");
        assert_eq!((&node.domain[..], &node.input[..]), ("org.example", &["0.Conv".to_string()][..]));
        assert_eq!(ints(node, "axes"), [1, 2]);
        let attribute = |name: &str| node.attribute.iter().find(|attribute| attribute.name == name).unwrap();
        assert_eq!((attribute("alpha").f, attribute("count").i), (0.1, -3));
        assert_eq!(attribute("mode").s, b"exact");
        assert_eq!(graph.node.last().unwrap().input, ["act.Leaky"]);
    }

    #[test]
    fn an_operation_of_a_user_without_a_node_is_an_error_that_names_it() {
        let error = encode(&leaky(None), [5, 6, 3]).unwrap_err();
        assert_eq!(error.path(), Some("act"));
        assert!(error.to_string().ends_with("found leaky_relu"), "{error}");
    }
}
