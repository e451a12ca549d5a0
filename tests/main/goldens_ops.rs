//! Every operation, forward and backward, held to what PyTorch computed (`tests/golden/README.md`).
//! An operation of the file that has no test here fails, and so does a case that is not computed
//! here.

use crate::common::{compare::distance, golden::tensors, rows};
use skipgrad::{
    Precision, Result, Rng, Tensor,
    autograd::{Layout, NamedTensors, Tape, Var},
    ops::{BatchNorm, Conv2dOptions, Moments, Padding, Pool2dOptions, Targets},
};
use std::collections::{BTreeMap, BTreeSet};

/// The largest distance allowed, relative to the largest value of a tensor.
const TOLERANCE: f64 = 1e-5;

// Each operation of the file, with the number of its cases.
rows! {
    const OPERATIONS;
    every_case;
    add => 1,
    avg_pool2d => 3,
    batch_norm => 8,
    channel_slice => 1,
    concat => 1,
    conv2d => 14,
    cross_entropy => 4,
    flatten => 1,
    global_avg_pool => 1,
    linear => 1,
    log_softmax => 1,
    matmul => 1,
    max_pool2d => 4,
    mean => 1,
    mse => 1,
    mul => 1,
    pad_channels => 1,
    relu => 1,
    scale => 1,
    scale_channels => 1,
    sigmoid => 1,
    softmax => 1,
    sum => 1,
}

#[test]
fn every_operation_of_the_file_has_a_test() {
    let golden = tensors("ops.safetensors");
    let operations: BTreeSet<&str> = cases(&golden).map(operation).collect();
    assert_eq!(operations, OPERATIONS.iter().copied().collect());
}

/// The names of the cases: an operation, or an operation and a variant of it.
fn cases(golden: &NamedTensors) -> impl Iterator<Item = &str> {
    golden.keys().filter_map(|name| name.strip_suffix("/y"))
}

fn operation(case: &str) -> &str {
    case.split('/').next().unwrap_or(case)
}

/// The largest distance of what is multiplied in bf16. Two roundings to 8 bits change a product by
/// 2^-8 at most, and the products of a sum are together a few times as large as the largest sum.
const BF16_TOLERANCE: f64 = 4.0 / 256.0;

#[test]
fn conv2d_in_bf16() -> Result<()> {
    every_case_in(Precision::Bf16, "conv2d", 14)
}

#[test]
fn linear_in_bf16() -> Result<()> {
    every_case_in(Precision::Bf16, "linear", 1)
}

/// Computes all cases of an operation.
fn every_case(name: &str, count: usize) -> Result<()> {
    every_case_in(Precision::F32, name, count)
}

fn every_case_in(precision: Precision, name: &str, count: usize) -> Result<()> {
    let golden = tensors("ops.safetensors");
    let cases: Vec<&str> = cases(&golden).filter(|case| operation(case) == name).collect();
    assert_eq!(cases.len(), count);
    let mut failures = vec![];
    for case in cases {
        failures.extend(compare(&golden, case, precision)?);
    }
    assert!(failures.is_empty(), "{failures:#?}");
    Ok(())
}

/// How an input lies in the file.
fn layout(name: &str, rank: usize) -> Layout {
    match (name, rank) {
        ("weight", 4) => Layout::Conv,
        ("weight", 2) => Layout::Linear,
        _ => Layout::Plain,
    }
}

/// Computes a case and says what is too far away.
fn compare(golden: &NamedTensors, case: &str, precision: Precision) -> Result<Vec<String>> {
    let prefix = format!("{case}/");
    let of_case: BTreeMap<&str, &Tensor> =
        golden.iter().filter_map(|(name, tensor)| Some((name.strip_prefix(&prefix)?, tensor))).collect();
    let tape = Tape::train(Rng::seed(0)).precision(precision);
    // Inputs are what the file has a gradient for, besides the output.
    let mut inputs: BTreeMap<&str, Var> = BTreeMap::new();
    for (&name, tensor) in &of_case {
        if name != "y" && of_case.contains_key(format!("d{name}").as_str()) {
            let value = layout(name, tensor.shape().rank()).from_file(tensor)?;
            inputs.insert(name, tape.watch(value));
        }
    }
    let (y, moments) = compute(case, &inputs, &of_case)?;
    let updates = y.backward_from(of_case["dy"].clone())?;

    let mut computed = vec![("y".to_string(), y.value().clone())];
    for (name, var) in &inputs {
        let gradient = updates.grad_of(var).unwrap_or_else(|| panic!("{case}: no gradient of {name}"));
        computed.push((format!("d{name}"), layout(name, var.shape().rank()).to_file(gradient)?));
    }
    if let (Some(moments), true) = (moments, case.contains("train")) {
        computed.extend(running(&moments, &of_case));
    }
    let expected = of_case.keys().filter(|name| name.starts_with("after/")).count() + 1 + inputs.len();
    assert_eq!(computed.len(), expected, "{case}: all results are compared");
    let tolerance = if precision == Precision::Bf16 { BF16_TOLERANCE } else { TOLERANCE };
    let far = |(name, tensor): (String, Tensor)| {
        let distance = distance(&tensor, of_case[name.as_str()]);
        (distance.is_nan() || distance > tolerance).then(|| format!("{case}/{name}: {distance:e} away"))
    };
    Ok(computed.into_iter().filter_map(far).collect())
}

/// The running statistics after a step: momentum 0.1, the variance unbiased.
fn running(moments: &Moments, of_case: &BTreeMap<&str, &Tensor>) -> [(String, Tensor); 2] {
    let unbiased = moments.count as f32 / (moments.count - 1) as f32;
    [("running_mean", &moments.mean, 1.0), ("running_var", &moments.var, unbiased)].map(
        |(name, batch, factor)| {
            let mut after = of_case[name].clone();
            after.scale(0.9);
            after.axpy(0.1 * factor, batch);
            (format!("after/{name}"), after)
        },
    )
}

/// The output of a case, and the statistics if it is a batch normalization.
fn compute<'t>(
    case: &str,
    inputs: &BTreeMap<&str, Var<'t>>,
    of_case: &BTreeMap<&str, &Tensor>,
) -> Result<(Var<'t>, Option<Moments>)> {
    let input = |name: &str| &inputs[name];
    let x = || input("x");
    let (op, variant) = case.split_once('/').unwrap_or((case, ""));
    let y = match op {
        "add" => input("a").add(input("b"))?,
        "mul" => input("a").mul(input("b"))?,
        "matmul" => input("a").matmul(input("b"))?,
        "concat" => Var::concat(&[input("a"), input("b"), input("c")])?,
        "scale" => x().scale(-1.5),
        "scale_channels" => x().scale_channels(input("gate"))?,
        "relu" => x().relu(),
        "sigmoid" => x().sigmoid(),
        "sum" => x().sum(),
        "mean" => x().mean(),
        "softmax" => x().softmax()?,
        "log_softmax" => x().log_softmax()?,
        "flatten" => x().flatten()?,
        "global_avg_pool" => x().global_avg_pool()?,
        "mse" => x().mse(input("target"))?,
        "linear" => x().linear(input("weight"), inputs.get("bias"))?,
        "conv2d" => x().conv2d(input("weight"), inputs.get("bias"), &conv2d_options(variant))?,
        "max_pool2d" => x().max_pool2d(&pool_options(variant))?,
        "avg_pool2d" => x().avg_pool2d(&pool_options(variant))?,
        "cross_entropy" => compute_cross_entropy(variant, x(), of_case)?,
        "batch_norm" => {
            let fixed = ["running_mean", "running_var"].map(|name| x().tape().input(of_case[name].clone()));
            let is_eval = variant.starts_with("eval");
            let (y, moments) = x().batch_norm(
                &BatchNorm::new(input("weight"), input("bias"))
                    .statistics(is_eval.then(|| (&fixed[0], &fixed[1])))
                    .residual(inputs.get("residual"))
                    .relu(variant.ends_with("relu")),
            )?;
            return Ok((y, Some(moments)));
        }
        _ => match case {
            "channel_slice/from1_to4" => x().slice_channels(1..4)?,
            "pad_channels/before1_after2" => x().pad_channels(1, 2)?,
            _ => panic!("the golden case {case} is not computed here"),
        },
    };
    Ok((y, None))
}

fn conv2d_options(variant: &str) -> Conv2dOptions {
    let default = Conv2dOptions::default();
    let padding = |pixels: usize| Padding::Zeros([pixels; 2]);
    let stride = [2, 2];
    match variant {
        "pointwise" => default,
        "pointwise_stride2" => default.stride(stride),
        "stride1_pad1" | "no_bias" => default.padding(padding(1)),
        "stride2_pad1" => default.stride(stride).padding(padding(1)),
        "stem7_stride2_pad3" => default.stride(stride).padding(padding(3)),
        "dilation2_pad2" => default.padding(padding(2)).dilation(2),
        "groups2_pad1" => default.padding(padding(1)).groups(2),
        "depthwise_pad1" => default.padding(padding(1)).groups(6),
        "depthwise_twice_stride2" => default.stride(stride).padding(padding(1)).groups(4),
        "wide_kernel" => default.stride([1, 2]).padding([0, 2]),
        "uneven" => default.stride([2, 1]).padding([2, 1]).dilation([1, 2]),
        "same_even" => default.padding(Padding::Same),
        "same_dilated" => default.padding(Padding::Same).dilation(3),
        _ => panic!("the golden case conv2d/{variant} is not computed here"),
    }
}

fn pool_options(variant: &str) -> Pool2dOptions {
    let halves = Pool2dOptions::default();
    let overlapping = Pool2dOptions::new(3).stride(2).padding(1);
    match variant {
        "k2_s2" => halves,
        "k3_s2_p1" | "ties" | "k3_s2_p1_count_pad" => overlapping,
        "same_k3_s2" => Pool2dOptions::new(3).stride(2).padding(Padding::Same),
        "k3_s2_p1_skip_pad" => overlapping.count_include_pad(false),
        _ => panic!("the golden pooling {variant} is not computed here"),
    }
}

fn compute_cross_entropy<'t>(
    variant: &str,
    x: &Var<'t>,
    of_case: &BTreeMap<&str, &Tensor>,
) -> Result<Var<'t>> {
    let labels: Vec<usize> =
        of_case.get("labels").map_or(vec![], |labels| labels.data().iter().map(|&k| k as usize).collect());
    match variant {
        "labels" => Ok(x.cross_entropy(&labels)?),
        "smoothing0.1" => Ok(x.cross_entropy(Targets::classes(&labels).smoothed(0.1))?),
        "soft" => Ok(x.cross_entropy(of_case["targets"])?),
        "soft_smoothing0.1" => Ok(x.cross_entropy(Targets::soft(of_case["targets"]).smoothed(0.1))?),
        _ => panic!("the golden case cross_entropy/{variant} is not computed here"),
    }
}
