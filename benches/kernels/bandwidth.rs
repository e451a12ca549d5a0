//! What a network does between its convolutions, which memory limits.

use crate::{measure, numbers, operand};
use criterion::Criterion;
use skipgrad::__private::kernels::{
    Activation, BatchNormGradient, Isa, Pool2d, SgdStep, add, axpy, batch_norm_dx, batch_norm_sums,
    global_avg_pool, global_avg_pool_backward, max_pool2d, max_pool2d_backward, moments, normalize, relu,
    relu_backward_in_place, sgd,
};
use std::hint::black_box;

/// `[pixels of all images, channels]` of the feature maps in the four stages of a ResNet-18, for
/// 128 images of 32 x 32: 32, 16, 8 and 4 MiB.
const MAPS: [[usize; 2]; 4] = [[128 * 1024, 64], [128 * 256, 128], [128 * 64, 256], [128 * 16, 512]];
/// Parameters of that network.
const PARAMETERS: usize = 11_173_962;

pub(crate) fn bench(criterion: &mut Criterion) {
    for map in MAPS {
        normalization(criterion, map);
        for behind in [Behind::Nothing, Behind::Relu, Behind::Residual] {
            normalization_backward(criterion, map, behind);
        }
        elementwise(criterion, map);
    }
    optimizer(criterion);
    pooling(criterion);
}

fn map_name([rows, channels]: [usize; 2]) -> String {
    format!("{rows}x{channels}")
}

fn normalization(criterion: &mut Criterion, map: [usize; 2]) {
    let (isa, n, channels) = (Isa::active(), map[0] * map[1], map[1]);
    measure(criterion, "norm/moments", &map_name(map), numbers(n), || {
        let x = operand(n);
        move || {
            black_box(moments(isa, &x, channels));
        }
    });
    for (group, tensors, residual, relu) in [
        ("norm/normalize", 2, false, false),
        ("norm/normalize_relu", 2, false, true),
        ("norm/normalize_residual_relu", 3, true, true),
    ] {
        measure(criterion, group, &map_name(map), numbers(tensors * n), || {
            let (scale, shift) = (vec![1.0; channels], vec![0.0; channels]);
            let (x, mut y, r) = (operand(n), operand(n), residual.then(|| operand(n)));
            move || normalize(isa, &x, &scale, &shift, r.as_deref(), relu, &mut y)
        });
    }
}

/// What follows the normalization.
#[derive(Clone, Copy)]
enum Behind {
    Nothing,
    Relu,
    /// The sum with a shortcut, which gets a gradient of its own, and a ReLU.
    Residual,
}

impl Behind {
    fn activation<'a>(self, scale: &'a [f32], shift: &'a [f32], y: &'a [f32]) -> Activation<'a> {
        match self {
            Behind::Nothing => Activation::None,
            Behind::Relu => Activation::ReluOf { scale, shift },
            Behind::Residual => Activation::Relu(y),
        }
    }
}

fn normalization_backward(criterion: &mut Criterion, map: [usize; 2], behind: Behind) {
    let (isa, n, channels) = (Isa::active(), map[0] * map[1], map[1]);
    let ones = vec![1.0; channels];
    // Without the means, the gradient that dx overwrites keeps its size, however often.
    let zeros = vec![0.0; channels];
    let (sums, dx, tensors) = match behind {
        Behind::Nothing => ("norm/sums", "norm/dx", [2, 3]),
        Behind::Relu => ("norm/sums_relu", "norm/dx_relu", [2, 3]),
        Behind::Residual => ("norm/sums_residual_relu", "norm/dx_residual_relu", [3, 5]),
    };
    measure(criterion, sums, &map_name(map), numbers(tensors[0] * n), || {
        let (x, dy, y) = (operand(n), operand(n), operand(n));
        let (ones, zeros) = (&ones, &zeros);
        move || {
            let activation = behind.activation(ones, zeros, &y);
            black_box(batch_norm_sums(isa, &x, &dy, zeros, activation));
        }
    });
    measure(criterion, dx, &map_name(map), numbers(tensors[1] * n), || {
        let (x, mut dy, y) = (operand(n), operand(n), operand(n));
        let mut apart = matches!(behind, Behind::Residual).then(|| operand(n));
        let (ones, zeros) = (&ones, &zeros);
        let gradient = BatchNormGradient { scale: ones, mean: zeros, mean_dy: zeros, slope: zeros };
        move || {
            let activation = behind.activation(ones, zeros, &y);
            batch_norm_dx(isa, &x, gradient, activation, &mut dy, apart.as_deref_mut());
        }
    });
}

fn elementwise(criterion: &mut Criterion, map: [usize; 2]) {
    let (isa, n) = (Isa::active(), map[0] * map[1]);
    measure(criterion, "elementwise/relu", &map_name(map), numbers(2 * n), || {
        let (x, mut y) = (operand(n), operand(n));
        move || relu(isa, &x, &mut y)
    });
    measure(criterion, "elementwise/relu_backward", &map_name(map), numbers(3 * n), || {
        let (y, mut dy) = (operand(n), operand(n));
        move || relu_backward_in_place(isa, &y, &mut dy)
    });
    measure(criterion, "elementwise/axpy", &map_name(map), numbers(3 * n), || {
        let (x, mut y) = (operand(n), operand(n));
        // A zero, because the sum would grow from one measurement to the next.
        move || axpy(isa, black_box(0.0), &x, &mut y)
    });
    measure(criterion, "elementwise/add", &map_name(map), numbers(3 * n), || {
        let (a, b, mut y) = (operand(n), operand(n), operand(n));
        move || add(isa, &a, &b, &mut y)
    });
}

fn optimizer(criterion: &mut Criterion) {
    let n = PARAMETERS;
    let step = SgdStep {
        lr: 1e-3,
        momentum: 0.9,
        dampening: 0.0,
        nesterov: false,
        weight_decay: 5e-4,
        first: false,
    };
    measure(criterion, "optimizer/sgd_momentum", &n.to_string(), numbers(5 * n), || {
        let (mut parameter, gradient, mut velocity) = (operand(n), operand(n), operand(n));
        move || sgd(Isa::active(), step, &mut parameter, &gradient, Some(&mut velocity))
    });
}

/// The pooling after the stem for large images, and the one at a network's end.
fn pooling(criterion: &mut Criterion) {
    let isa = Isa::active();
    let pool = Pool2d {
        batch: 16,
        height: 112,
        width: 112,
        channels: 64,
        kernel: [3, 3],
        stride: [2, 2],
        padding: [[1, 1], [1, 1]],
    };
    let (inputs, outputs) = (pool.input_len(), pool.output_len());
    // The positions of the maxima take half a number each.
    let work = numbers(inputs + outputs + outputs / 2);
    measure(criterion, "pool/max", "16x112x112x64", work.clone(), || {
        let (x, mut y, mut argmax) = (operand(inputs), operand(outputs), vec![0; outputs]);
        move || max_pool2d(isa, &pool, &x, &mut y, Some(&mut argmax))
    });
    measure(criterion, "pool/max_backward", "16x112x112x64", work, || {
        let (x, mut y, mut argmax) = (operand(inputs), operand(outputs), vec![0; outputs]);
        max_pool2d(isa, &pool, &x, &mut y, Some(&mut argmax));
        let mut dx = x;
        move || max_pool2d_backward(isa, &pool, &argmax, &y, &mut dx)
    });
    for [batch, edge, channels] in [[128, 4, 512], [16, 7, 2048]] {
        let (name, n) = (format!("{batch}x{edge}x{edge}x{channels}"), batch * edge * edge * channels);
        let work = numbers(n + batch * channels);
        measure(criterion, "pool/global", &name, work.clone(), || {
            let (x, mut y) = (operand(n), operand(batch * channels));
            move || global_avg_pool(isa, batch, channels, &x, &mut y)
        });
        measure(criterion, "pool/global_backward", &name, work, || {
            let (dy, mut dx) = (operand(batch * channels), operand(n));
            move || global_avg_pool_backward(isa, batch, channels, &dy, &mut dx)
        });
    }
}
