//! Every distinct convolution of a ResNet-18 and a ResNet-50: in all three directions (forward also
//! with the moments of the output, as in training), or with packed weights, as in inference on one
//! image.

use crate::{flops, measure, operand};
use criterion::Criterion;
use skipgrad::__private::kernels::{Algorithm, Conv2dGeometry, Epilogue, Isa, Packing};
use std::hint::black_box;

/// Channels of the images, whose gradient no network asks for.
const COLORS: usize = 3;

/// `[taps, input channels, output channels, stride, edge of the input]`, in network order.
type Row = [usize; 5];

const RESNET18_CIFAR: [Row; 11] = [
    [3, COLORS, 64, 1, 32],
    [3, 64, 64, 1, 32],
    [3, 64, 128, 2, 32],
    [1, 64, 128, 2, 32],
    [3, 128, 128, 1, 16],
    [3, 128, 256, 2, 16],
    [1, 128, 256, 2, 16],
    [3, 256, 256, 1, 8],
    [3, 256, 512, 2, 8],
    [1, 256, 512, 2, 8],
    [3, 512, 512, 1, 4],
];

const RESNET18: [Row; 11] = [
    [7, COLORS, 64, 2, 224],
    [3, 64, 64, 1, 56],
    [3, 64, 128, 2, 56],
    [1, 64, 128, 2, 56],
    [3, 128, 128, 1, 28],
    [3, 128, 256, 2, 28],
    [1, 128, 256, 2, 28],
    [3, 256, 256, 1, 14],
    [3, 256, 512, 2, 14],
    [1, 256, 512, 2, 14],
    [3, 512, 512, 1, 7],
];

const RESNET50: [Row; 23] = [
    [7, COLORS, 64, 2, 224],
    [1, 64, 64, 1, 56],
    [3, 64, 64, 1, 56],
    [1, 64, 256, 1, 56],
    [1, 256, 64, 1, 56],
    [1, 256, 128, 1, 56],
    [3, 128, 128, 2, 56],
    [1, 128, 512, 1, 28],
    [1, 256, 512, 2, 56],
    [1, 512, 128, 1, 28],
    [3, 128, 128, 1, 28],
    [1, 512, 256, 1, 28],
    [3, 256, 256, 2, 28],
    [1, 256, 1024, 1, 14],
    [1, 512, 1024, 2, 28],
    [1, 1024, 256, 1, 14],
    [3, 256, 256, 1, 14],
    [1, 1024, 512, 1, 14],
    [3, 512, 512, 2, 14],
    [1, 512, 2048, 1, 7],
    [1, 1024, 2048, 2, 14],
    [1, 2048, 512, 1, 7],
    [3, 512, 512, 1, 7],
];

#[derive(Clone, Copy)]
enum Direction {
    Forward,
    ForwardMoments,
    ForwardPacked,
    InputGradient,
    WeightGradient,
}

pub(crate) fn bench(criterion: &mut Criterion) {
    use Direction::{Forward, ForwardMoments, ForwardPacked, InputGradient, WeightGradient};
    let training = [Forward, ForwardMoments, InputGradient, WeightGradient];
    let cases: [(&[Row], usize, &[Direction]); 4] = [
        (&RESNET18_CIFAR, 128, &training),
        (&RESNET18, 1, &[ForwardPacked]),
        (&RESNET50, 8, &training),
        (&RESNET50, 1, &[ForwardPacked]),
    ];
    for (rows, batch, directions) in cases {
        for &direction in directions {
            rows.iter().for_each(|row| algorithms(criterion, row, batch, direction));
        }
    }
}

fn algorithms(criterion: &mut Criterion, row: &Row, batch: usize, direction: Direction) {
    let &[taps, inputs, outputs, stride, edge] = row;
    let group = match direction {
        Direction::Forward => "conv/forward",
        Direction::ForwardMoments => "conv/forward_moments",
        Direction::ForwardPacked => "conv/forward_packed",
        Direction::InputGradient if inputs == COLORS => return,
        Direction::InputGradient => "conv/input_gradient",
        Direction::WeightGradient => "conv/weight_gradient",
    };
    let sizes = geometry(row, batch);
    let work = 2 * batch * sizes.out_height() * sizes.out_width() * taps * taps * inputs * outputs;
    let shape = format!("{taps}x{taps}_{inputs}_{outputs}_s{stride}_{edge}x{edge}_b{batch}");
    let mut algorithms = vec![("auto", Algorithm::Auto)];
    if (taps, stride) == (3, 1) && inputs != COLORS {
        algorithms.push(("direct", Algorithm::Direct));
    }
    for (name, algorithm) in algorithms {
        measure(criterion, group, &format!("{shape}/{name}"), flops(work), || {
            run(algorithm, sizes, direction)
        });
    }
}

fn geometry(&[taps, inputs, outputs, stride, edge]: &Row, batch: usize) -> Conv2dGeometry {
    Conv2dGeometry {
        batch,
        height: edge,
        width: edge,
        in_channels: inputs,
        out_channels: outputs,
        kernel: [taps; 2],
        stride: [stride; 2],
        padding: [[taps / 2; 2]; 2],
        dilation: [1, 1],
        groups: 1,
    }
}

fn run(algorithm: Algorithm, sizes: Conv2dGeometry, direction: Direction) -> impl FnMut() {
    let isa = Isa::active();
    let mut x = operand(sizes.batch * sizes.height * sizes.width * sizes.in_channels);
    let mut w = operand(sizes.kernel[0] * sizes.kernel[1] * sizes.in_channels * sizes.out_channels);
    let mut y = operand(sizes.batch * sizes.out_height() * sizes.out_width() * sizes.out_channels);
    let packing = Packing::fastest(algorithm, &sizes);
    let mut packed = vec![0.0; packing.len(isa, &sizes)];
    packing.pack(isa, &sizes, &w, &mut packed);
    move || match direction {
        Direction::Forward => algorithm.conv2d(isa, &sizes, &x, &w, Epilogue::default(), &mut y),
        Direction::ForwardMoments => {
            black_box(algorithm.conv2d_moments(isa, &sizes, &x, &w, Epilogue::default(), &mut y));
        }
        Direction::ForwardPacked => packing.conv2d(isa, &sizes, &x, &packed, Epilogue::default(), &mut y),
        Direction::InputGradient => algorithm.input_gradient(isa, &sizes, &y, &w, &mut x),
        Direction::WeightGradient => algorithm.weight_gradient(isa, &sizes, &x, &y, &mut w),
    }
}
