//! The gradients of every operation against differences of its values, over odd shapes, strides and
//! groups. A file of `src/ops` without a test of its name here fails.

use skipgrad::{
    Result, Rng, Tensor,
    autograd::{Var, gradient_check},
    ops::{
        Algorithm, BatchNorm, BceOptions, Conv2dOptions, DenseBlockLayer, DenseBlockNorm, FocalOptions,
        Padding, Pool2dOptions, Targets,
    },
};
use std::collections::BTreeSet;

#[test]
fn every_operation_has_a_test() {
    let operations: BTreeSet<&str> = include_str!("../../src/ops/mod.rs")
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'))
        .collect();
    let tests = include_str!("gradients.rs").split("#[test]\nfn ").skip(1);
    let tests: BTreeSet<&str> =
        tests.filter_map(|test| test.lines().next()?.strip_suffix("() -> Result<()> {")).collect();
    assert_eq!(tests, operations);
}

/// Operations compute in f32; differences of them are right to about 1e-4.
const TOLERANCE: f64 = 1e-3;

/// Shapes of activations: an image of one pixel, odd sizes, one channel, more than a vector of
/// channels.
const SHAPES: [&[usize]; 4] = [&[2, 1, 1, 3], &[1, 3, 5, 1], &[2, 2, 1, 17], &[3, 4]];

fn check<F>(inputs: &[Tensor], f: F) -> Result<()>
where
    F: for<'t> Fn(&[Var<'t>]) -> Result<Var<'t>>,
{
    gradient_check(inputs, f)?.within(TOLERANCE)
}

/// Checks a function of one input, and of two of the same shape, for all shapes.
fn check_shapes<F>(inputs: usize, f: F) -> Result<()>
where
    F: for<'t> Fn(&[Var<'t>]) -> Result<Var<'t>>,
{
    SHAPES.iter().try_for_each(|shape| check(&normals(&vec![*shape; inputs])?, &f))
}

fn normals(shapes: &[&[usize]]) -> Result<Vec<Tensor>> {
    let mut rng = Rng::seed(7);
    shapes.iter().map(|shape| Tensor::normal(shape, 1.0, &mut rng)).collect()
}

/// Normal values moved away from 0, the kink of a ReLU.
fn off_zero(shape: &[usize]) -> Result<Tensor> {
    let mut rng = Rng::seed(7);
    Tensor::from_fn(shape, |_| {
        let x = rng.normal();
        x + 0.2f32.copysign(x)
    })
}

#[test]
fn add() -> Result<()> {
    check_shapes(2, |v| v[0].add(&v[1]))?;
    check_shapes(1, |v| v[0].add(&v[0]))
}

#[test]
fn mul() -> Result<()> {
    check_shapes(2, |v| v[0].mul(&v[1]))?;
    check_shapes(1, |v| v[0].mul(&v[0]))
}

#[test]
fn scale() -> Result<()> {
    check_shapes(1, |v| Ok(v[0].scale(-1.5)))
}

#[test]
fn scale_channels() -> Result<()> {
    for (x, gate) in [
        (&[2, 1, 1, 3], &[2, 3][..]),
        (&[1, 3, 5, 1], &[1, 1]),
        (&[2, 2, 1, 17], &[2, 17]),
        (&[3, 2, 3, 4], &[3, 1, 1, 4]),
    ] {
        check(&normals(&[x, gate])?, |v| v[0].scale_channels(&v[1]))?;
    }
    check(&normals(&[&[2, 3, 1, 5]])?, |v| v[0].scale_channels(&v[0].global_avg_pool()?.sigmoid()))
}

#[test]
fn relu() -> Result<()> {
    SHAPES.iter().try_for_each(|shape| check(&[off_zero(shape)?], |v| Ok(v[0].relu())))
}

#[test]
fn sigmoid() -> Result<()> {
    check_shapes(1, |v| Ok(v[0].sigmoid()))
}

#[test]
fn softmax() -> Result<()> {
    check_shapes(1, |v| v[0].softmax())?;
    check_shapes(1, |v| v[0].log_softmax())
}

#[test]
fn sum() -> Result<()> {
    check_shapes(1, |v| Ok(v[0].sum()))
}

#[test]
fn mean() -> Result<()> {
    check_shapes(1, |v| Ok(v[0].mean()))
}

#[test]
fn mse() -> Result<()> {
    check_shapes(2, |v| v[0].mse(&v[1]))
}

#[test]
fn reshape() -> Result<()> {
    check_shapes(1, |v| v[0].flatten())?;
    check(&normals(&[&[2, 3, 4]])?, |v| v[0].reshape([3, 8]))
}

#[test]
fn matmul() -> Result<()> {
    for [m, k, n] in [[1, 1, 1], [5, 3, 7], [2, 17, 1], [1, 2, 19]] {
        check(&normals(&[&[m, k], &[k, n]])?, |v| v[0].matmul(&v[1]))?;
    }
    Ok(())
}

#[test]
fn linear() -> Result<()> {
    for (x, outputs) in [(&[1, 1][..], 1), (&[5, 3], 7), (&[2, 17], 3), (&[2, 3, 2, 4], 5)] {
        let inputs = x[x.len() - 1];
        let all = normals(&[x, &[inputs, outputs], &[outputs]])?;
        check(&all, |v| v[0].linear(&v[1], Some(&v[2])))?;
        check(&all[..2], |v| v[0].linear(&v[1], None))?;
    }
    Ok(())
}

#[test]
fn conv2d() -> Result<()> {
    let default = Conv2dOptions::default();
    let sides = Padding::Sides { top: 2, bottom: 0, left: 0, right: 1 };
    let cases: [(&[usize], &[usize], Conv2dOptions); 11] = [
        (&[1, 1, 1, 1], &[1, 1, 1, 1], default),
        (&[2, 3, 4, 5], &[1, 1, 5, 3], default),
        (&[2, 5, 4, 3], &[1, 1, 3, 2], default.stride([2, 3])),
        (&[1, 1, 1, 2], &[3, 3, 2, 3], default.padding(1)),
        (&[2, 5, 4, 3], &[3, 3, 3, 4], default.padding(1)),
        (&[1, 6, 5, 2], &[3, 3, 2, 3], default.stride(2).padding(1)),
        (&[1, 5, 6, 2], &[3, 2, 2, 3], default.stride([3, 1]).padding(sides)),
        (&[1, 7, 6, 2], &[3, 2, 2, 2], default.dilation([2, 3]).padding(sides)),
        (&[1, 5, 4, 2], &[4, 2, 2, 2], default.stride([2, 1]).padding(Padding::Same)),
        (&[1, 4, 5, 6], &[3, 2, 2, 9], default.groups(3).padding(Padding::Same)),
        (&[1, 4, 5, 3], &[3, 3, 1, 6], default.groups(3).stride(2).padding(Padding::Same)),
    ];
    for (x, w, options) in cases {
        let all = normals(&[x, w, &w[3..]])?;
        check(&all, |v| v[0].conv2d(&v[1], Some(&v[2]), &options))?;
        check(&all[..2], |v| v[0].conv2d(&v[1], None, &options))?;
    }
    Ok(())
}

#[test]
fn batch_norm() -> Result<()> {
    for shape in [&[5, 3][..], &[2, 3, 1, 4], &[1, 2, 2, 1]] {
        let channels = shape[shape.len() - 1];
        let mut rng = Rng::seed(3);
        // Values of about 2 and -2 in turn are normalized to about 1 and -1, away from the kink of
        // the ReLU.
        let in_turn = |i: usize| if (i / channels + i % channels).is_multiple_of(2) { 2.0 } else { -2.0 };
        let x = Tensor::from_fn(shape, |i| in_turn(i) + 0.2 * rng.uniform())?;
        let gamma = Tensor::uniform([channels], 0.8, 1.2, &mut rng)?;
        let beta = Tensor::uniform([channels], -0.2, 0.2, &mut rng)?;
        let residual = Tensor::from_fn(shape, |_| if rng.chance(0.5) { 4.0 } else { -4.0 })?;
        let (mean, var) = (
            Tensor::uniform([channels], -0.5, 0.5, &mut rng)?,
            Tensor::uniform([channels], 1.0, 2.0, &mut rng)?,
        );
        let all = [x, gamma, beta, residual];
        for form in 0..8 {
            let (given, relu, inputs) = (form & 1 > 0, form & 2 > 0, if form & 4 > 0 { 4 } else { 3 });
            check(&all[..inputs], |v| {
                let [mean, var] = [&mean, &var].map(|fixed| v[0].tape().input(fixed.clone()));
                let given = given.then_some((&mean, &var));
                let norm = BatchNorm::new(&v[1], &v[2]).statistics(given).relu(relu).residual(v.get(3));
                Ok(v[0].batch_norm(&norm)?.0)
            })?;
        }
    }
    Ok(())
}

#[test]
fn pool() -> Result<()> {
    for ([height, width, channels], kernel, stride, padding) in [
        ([1, 1, 1], [1, 1], [1, 1], [0, 0]),
        ([6, 5, 3], [2, 2], [2, 2], [0, 0]),
        ([7, 6, 2], [3, 3], [2, 2], [1, 1]),
        ([4, 5, 17], [3, 2], [1, 3], [1, 0]),
        ([5, 5, 2], [1, 3], [2, 1], [0, 1]),
    ] {
        // Numbers that are the same every three rows and columns, so that no window has two of them
        // nearer than 0.2.
        const VALUES: [f32; 9] = [0.1, 0.9, -0.5, 0.5, -0.9, 0.3, -0.3, 0.7, -0.7];
        let x = [Tensor::from_fn([2, height, width, channels], |i| {
            let (pixel, channel) = (i / channels, i % channels);
            VALUES[(3 * (pixel / width % height) + (pixel % width + channel) % 3) % 9]
        })?];
        for count_include_pad in [true, false] {
            let options = Pool2dOptions::new(kernel)
                .stride(stride)
                .padding(padding)
                .count_include_pad(count_include_pad);
            check(&x, |v| v[0].max_pool2d(&options))?;
            check(&x, |v| v[0].avg_pool2d(&options))?;
        }
        let same = Pool2dOptions::new(kernel).stride(stride).padding(Padding::Same).count_include_pad(false);
        check(&x, |v| v[0].max_pool2d(&same))?;
        check(&x, |v| v[0].avg_pool2d(&same))?;
        check(&x, |v| v[0].global_avg_pool())?;
    }
    Ok(())
}

#[test]
fn concat() -> Result<()> {
    check_shapes(1, |v| Var::concat(&[&v[0]]))?;
    check_shapes(2, |v| Var::concat(&[&v[0], &v[1], &v[0]]))?;
    check(&normals(&[&[2, 3, 1], &[2, 3, 5], &[2, 3, 17]])?, |v| Var::concat(&[&v[2], &v[0], &v[1]]))
}

/// Two layers of each form on two images. What enters a ReLU is away from its kink: of the input's
/// channels it is about 1 or -1; the channels of other norms are wholly on one side or the other.
#[test]
fn dense_block() -> Result<()> {
    let (inputs, growth, width) = (3, 2, 3);
    for (bottleneck, given) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut rng = Rng::seed(11);
        let mut all = vec![Tensor::from_fn([2, 3, 3, inputs], |_| {
            let side = if rng.chance(0.5) { 2.0 } else { -2.0 };
            side + 0.2 * rng.uniform()
        })?];
        for channels in [inputs, inputs + growth] {
            let aside = |i: usize| if i % 3 == 1 { -6.0 } else { 6.0 };
            all.push(Tensor::uniform([channels], 0.8, 1.2, &mut rng)?);
            all.push(Tensor::from_fn([channels], |i| if i < inputs { 0.1 } else { aside(i) })?);
            if bottleneck {
                // Constants do not hold what they normalize within bounds; small weights do.
                let std = if given { 0.1 } else { 0.5 };
                all.push(Tensor::normal([1, 1, channels, width], std, &mut rng)?);
                all.push(Tensor::uniform([width], 0.8, 1.2, &mut rng)?);
                all.push(Tensor::from_fn([width], aside)?);
            }
            let channels = if bottleneck { width } else { channels };
            all.push(Tensor::normal([3, 3, channels, growth], 0.2, &mut rng)?);
        }
        check(&all, |v| {
            let norm = |at: usize| {
                let channels = v[at].shape().to_vec();
                let fixed = given.then(|| (Tensor::full(&channels, 0.1), Tensor::full(&channels, 1.5)));
                let fixed = fixed.map(|(mean, var)| Ok::<_, skipgrad::Error>((mean?, var?))).transpose()?;
                let (gamma, beta) = (v[at].clone(), v[at + 1].clone());
                Ok::<_, skipgrad::Error>(DenseBlockNorm { gamma, beta, eps: 1e-5, fixed })
            };
            let operands = if bottleneck { 6 } else { 3 };
            let layer = |i: usize| {
                let at = 1 + i * operands;
                let bottleneck = bottleneck.then(|| Ok((v[at + 2].clone(), norm(at + 3)?))).transpose()?;
                let weight = v[at + operands - 1].clone();
                let norm1 = norm(at)?;
                Ok(DenseBlockLayer { norm1, bottleneck, weight, algorithm: Algorithm::Auto, dropout: 0.3 })
            };
            Ok(v[0].dense_block(&[layer(0)?, layer(1)?])?.0)
        })?;
    }
    Ok(())
}

#[test]
fn slice_channels() -> Result<()> {
    check_shapes(1, |v| v[0].slice_channels(0..1))?;
    check_shapes(1, |v| v[0].pad_channels(1, 2))?;
    check(&normals(&[&[2, 3, 9]])?, |v| v[0].slice_channels(3..8))
}

/// Dropping is random, but the same for every evaluation of a check.
#[test]
fn dropout() -> Result<()> {
    check_shapes(1, |v| v[0].dropout(0.4))
}

#[test]
fn drop_path() -> Result<()> {
    check_shapes(1, |v| v[0].drop_path(0.4))
}

#[test]
fn cross_entropy() -> Result<()> {
    for (rows, classes) in [(1, 1), (3, 5), (2, 17)] {
        let labels: Vec<usize> = (0..rows).map(|row| (7 * row + 2) % classes).collect();
        let weights = Tensor::uniform([rows, classes], 0.0, 0.5, &mut Rng::seed(5))?;
        for smoothing in [0.0, 0.1] {
            let class_weights: Vec<f32> = (0..classes).map(|class| 0.5 + 0.1 * class as f32).collect();
            for targets in [
                Targets::classes(&labels),
                Targets::soft(&weights),
                Targets::classes(&labels).class_weights(&class_weights).ignore_index(classes),
                Targets::soft(&weights).class_weights(&class_weights),
            ] {
                let targets = targets.smoothed(smoothing);
                check(&normals(&[&[rows, classes]])?, |v| v[0].cross_entropy(targets))?;
            }
        }
    }
    Ok(())
}

/// Targets in [0, 1] for logits of a shape; every third is 1, every fifth 0.
fn answers(shape: &[usize]) -> Result<Tensor> {
    Tensor::from_fn(shape, |i| match (i % 3, i % 5) {
        (0, _) => 1.0,
        (_, 0) => 0.0,
        _ => 0.3,
    })
}

#[test]
fn bce_with_logits() -> Result<()> {
    for shape in [[1, 1], [3, 5], [2, 17]] {
        let weights: Vec<f32> = (0..shape[1]).map(|class| 0.5 * class as f32).collect();
        for options in [BceOptions::new(), BceOptions::new().pos_weight(weights)] {
            let targets = answers(&shape)?;
            check(&normals(&[&shape])?, |v| v[0].bce_with_logits(&targets, &options))?;
        }
    }
    Ok(())
}

#[test]
fn focal_loss() -> Result<()> {
    for shape in [[1, 1], [3, 5], [2, 17]] {
        let default = FocalOptions::new();
        for options in [default, default.alpha(None).gamma(0.5), default.alpha(0.7).gamma(0.0)] {
            let targets = answers(&shape)?;
            check(&normals(&[&shape])?, |v| v[0].focal_loss(&targets, &options))?;
        }
    }
    Ok(())
}

#[test]
fn distillation() -> Result<()> {
    for shape in [[1, 1], [3, 5], [2, 17]] {
        let teacher = Tensor::normal(shape, 2.0, &mut Rng::seed(5))?;
        for temperature in [1.0, 4.0] {
            check(&normals(&[&shape])?, |v| v[0].distillation(&teacher, temperature))?;
        }
    }
    Ok(())
}
