//! Compares all directions with the oracle on every instruction set.

use super::*;
use crate::naive::{self, assert_sums};
use crate::testing::{Guarded, each_isa};
use crate::{ChannelViewMut, Epilogue, Gemm, Isa, NormRelu, Normalized, gemm, moments};
use proptest::prelude::*;

/// Compares all directions of one geometry with the oracle.
fn check_all(sizes: &Conv2dGeometry) {
    check_forward(sizes);
    check_input_gradient(sizes);
    check_weight_gradient(sizes);
}

/// Compares y, also with packed weights, with the oracle.
fn check_forward(sizes: &Conv2dGeometry) {
    let (x, w) = (Guarded::uniform(sizes.x_len(), 1), Guarded::uniform(sizes.w_len(), 2));
    let want = naive::conv2d(sizes, &x, &w);
    let terms = sizes.kernel[0] * sizes.kernel[1] * sizes.group_in();
    for isa in each_isa() {
        let mut y = Guarded::new(sizes.y_len());
        conv2d(isa, sizes, &x, &w, &mut y);
        assert_sums(&y, &want, terms, &("y", isa, sizes));
        let mut again = Guarded::new(sizes.y_len());
        let mut packed = Guarded::new(Packing::Direct.len(isa, sizes));
        Packing::Direct.pack(isa, sizes, &w, &mut packed);
        Packing::Direct.conv2d(isa, sizes, &x, &packed, Epilogue::default(), &mut again);
        assert_eq!(*again, *y, "packed weights change nothing");
    }
}

/// Compares dx with the oracle.
fn check_input_gradient(sizes: &Conv2dGeometry) {
    let (dy, w) = (Guarded::uniform(sizes.y_len(), 3), Guarded::uniform(sizes.w_len(), 2));
    let want = naive::conv2d_input_gradient(sizes, &dy, &w);
    let terms = sizes.kernel[0] * sizes.kernel[1] * sizes.group_out();
    for isa in each_isa() {
        let mut dx = Guarded::new(sizes.x_len());
        conv2d_input_gradient(isa, sizes, &dy, &w, &mut dx);
        assert_sums(&dx, &want, terms, &("dx", isa, sizes));
    }
}

/// Compares dw with the oracle.
fn check_weight_gradient(sizes: &Conv2dGeometry) {
    let (x, dy) = (Guarded::uniform(sizes.x_len(), 1), Guarded::uniform(sizes.y_len(), 3));
    let want = naive::conv2d_weight_gradient(sizes, &x, &dy);
    let terms = sizes.batch * sizes.out_height() * sizes.out_width();
    for isa in each_isa() {
        let mut dw = Guarded::new(sizes.w_len());
        conv2d_weight_gradient(isa, sizes, &x, &dy, &mut dw);
        assert_sums(&dw, &want, terms, &("dw", isa, sizes));
    }
}

pub(super) fn square(
    batch: usize,
    size: usize,
    channels: [usize; 2],
    kernel: usize,
    stride: usize,
    padding: usize,
) -> Conv2dGeometry {
    Conv2dGeometry {
        batch,
        height: size,
        width: size,
        in_channels: channels[0],
        out_channels: channels[1],
        kernel: [kernel; 2],
        stride: [stride; 2],
        padding: [[padding; 2]; 2],
        dilation: [1; 2],
        groups: 1,
    }
}

prop_compose! {
    /// Generates any geometry that has an output and is small enough for the oracle.
    pub(super) fn geometry()(
        batch in 1..3usize, size in prop::array::uniform2(1..10usize), groups in 1..4usize,
        channels in prop::array::uniform2(1..12usize), kernel in prop::array::uniform2(1..5usize),
        stride in prop::array::uniform2(1..4usize), dilation in prop::array::uniform2(1..3usize),
        padding in prop::array::uniform2(prop::array::uniform2(0..4usize)),
    ) -> Conv2dGeometry {
        // The kernel loses taps until it fits the padded image.
        let fit = |axis: usize| {
            let padded: usize = size[axis] + padding[axis][0] + padding[axis][1];
            kernel[axis].min((padded - 1) / dilation[axis] + 1)
        };
        Conv2dGeometry {
            batch, height: size[0], width: size[1],
            in_channels: channels[0] * groups, out_channels: channels[1] * groups,
            kernel: [fit(0), fit(1)], stride, padding, dilation, groups,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_conv2d_is_as_the_oracle_says(sizes in geometry()) {
        check_forward(&sizes);
    }

    #[test]
    fn any_conv2d_input_gradient_is_as_the_oracle_says(sizes in geometry()) {
        check_input_gradient(&sizes);
    }

    #[test]
    fn any_conv2d_weight_gradient_is_as_the_oracle_says(sizes in geometry()) {
        check_weight_gradient(&sizes);
    }
}

#[test]
fn every_width_of_the_tile_is_as_the_oracle_says() {
    for channels in (1..=34).chain([47, 48, 49, 63, 64, 65, 96]) {
        check_all(&square(1, 3, [channels, 35 - channels.min(34)], 3, 1, 1));
        check_all(&square(2, 3, [3, channels], 1, 1, 0));
    }
}

#[test]
fn every_number_of_pixels_is_as_the_oracle_says() {
    for pixels in 1..=31 {
        check_all(&Conv2dGeometry { width: pixels, ..square(1, 1, [5, 9], 1, 1, 0) });
        check_all(&Conv2dGeometry { height: pixels, ..square(1, 2, [5, 9], 3, 1, 1) });
    }
}

#[test]
fn a_kernel_may_be_larger_than_the_image() {
    check_all(&square(2, 1, [3, 4], 3, 1, 1));
    check_all(&square(2, 1, [3, 4], 7, 2, 3));
    check_all(&square(1, 2, [3, 4], 5, 1, 2));
    check_all(&Conv2dGeometry { padding: [[3, 3], [0, 0]], ..square(1, 1, [2, 2], 1, 1, 0) });
    check_all(&Conv2dGeometry { dilation: [3, 3], ..square(1, 2, [2, 20], 3, 2, 3) });
}

#[test]
fn sizes_beyond_one_block_are_as_the_oracle_says() {
    // More than a panel of depth (9 * 40 = 360), more than a block of pixels, more than a part of
    // the columns.
    check_all(&square(2, 9, [40, 24], 3, 1, 1));
    check_all(&square(2, 12, [70, 40], 3, 2, 1));
    check_all(&square(1, 3, [300, 270], 1, 1, 0));
    check_all(&square(1, 2, [150, 520], 3, 1, 1));
    // Enough pixels for the weight gradient to be summed in parts.
    check_all(&square(5, 40, [3, 20], 3, 1, 1));
    check_all(&square(1, 80, [3, 5], 7, 2, 3));
}

#[test]
fn depthwise_and_grouped_convolutions_are_as_the_oracle_says() {
    check_all(&Conv2dGeometry { groups: 20, ..square(2, 6, [20, 20], 3, 1, 1) });
    check_all(&Conv2dGeometry { groups: 10, ..square(2, 7, [10, 30], 3, 2, 1) });
    check_all(&Conv2dGeometry { groups: 4, ..square(1, 9, [68, 76], 3, 1, 1) });
    check_all(&Conv2dGeometry { groups: 32, ..square(2, 5, [128, 64], 3, 1, 1) });
    check_all(&Conv2dGeometry { groups: 17, ..square(2, 5, [34, 17], 3, 2, 1) });
}

#[test]
fn empty_sizes_are_no_trouble() {
    check_all(&square(0, 4, [3, 5], 3, 1, 1));
    check_all(&square(2, 4, [0, 5], 3, 1, 1));
    check_all(&square(2, 4, [3, 0], 3, 1, 1));
}

/// Returns every combination of a bias, a residual and a ReLU.
pub(super) fn epilogues<'a>(bias: &'a [f32], residual: &'a [f32]) -> impl Iterator<Item = Epilogue<'a>> {
    (0..8).map(|bits| Epilogue {
        bias: (bits & 1 > 0).then_some(bias),
        residual: (bits & 2 > 0).then_some(residual),
        relu: bits & 4 > 0,
    })
}

#[test]
fn every_epilogue_is_as_the_oracle_says() {
    for sizes in [
        square(1, 4, [50, 21], 3, 1, 1),
        square(2, 5, [3, 8], 3, 2, 1),
        square(1, 12, [20, 300], 1, 1, 0),
        Conv2dGeometry { groups: 3, ..square(2, 3, [9, 33], 1, 1, 0) },
        Conv2dGeometry { groups: 20, ..square(2, 6, [20, 20], 3, 1, 1) },
    ] {
        let (x, w) = (Guarded::uniform(sizes.x_len(), 1), Guarded::uniform(sizes.w_len(), 2));
        let (bias, residual) = (Guarded::uniform(sizes.out_channels, 3), Guarded::uniform(sizes.y_len(), 4));
        let sums = naive::conv2d(&sizes, &x, &w);
        for epilogue in epilogues(&bias, &residual) {
            let want = naive::apply_epilogue(&sums, sizes.out_channels, epilogue);
            for isa in each_isa() {
                let mut y = Guarded::new(sizes.y_len());
                conv2d_with(isa, &sizes, &x, &w, epilogue, &mut y);
                assert_sums(&y, &want, 452, &(isa, sizes));
            }
        }
    }
}

#[test]
fn a_relu_at_the_end_hides_no_nan() {
    let sizes = square(1, 2, [3, 11], 1, 1, 0);
    let mut x = vec![-1.0; sizes.x_len()];
    x[0] = f32::NAN;
    let epilogue = Epilogue { relu: true, ..Epilogue::default() };
    for isa in each_isa() {
        let mut y = vec![7.0; sizes.y_len()];
        conv2d_with(isa, &sizes, &x, &vec![1.0; sizes.w_len()], epilogue, &mut y);
        assert!(y[..11].iter().all(|y| y.is_nan()) && y[11..].iter().all(|&y| y == 0.0), "{isa:?} {y:?}");
    }
}

#[test]
fn moments_are_those_of_the_result() {
    for sizes in [
        square(1, 4, [50, 21], 3, 1, 1),
        square(3, 40, [3, 70], 3, 2, 1),
        square(2, 12, [20, 300], 1, 1, 0),
        Conv2dGeometry { groups: 3, ..square(2, 5, [9, 33], 1, 1, 0) },
        Conv2dGeometry { groups: 20, ..square(2, 6, [20, 20], 3, 1, 1) },
        square(16, 31, [16, 20], 3, 1, 1),
        square(4, 30, [70, 200], 3, 1, 0),
    ] {
        let (x, w) = (Guarded::uniform(sizes.x_len(), 1), Guarded::uniform(sizes.w_len(), 2));
        let bias: Vec<f32> = (0..sizes.out_channels).map(|c| 100.0 * (c % 3) as f32).collect();
        let epilogue = Epilogue { bias: Some(&bias), relu: true, ..Epilogue::default() };
        for (isa, algorithm) in
            each_isa().into_iter().flat_map(|isa| [(isa, Algorithm::Auto), (isa, Algorithm::Direct)])
        {
            let mut y = Guarded::new(sizes.y_len());
            let (mean, variance) = algorithm.conv2d_moments(isa, &sizes, &x, &w, epilogue, &mut y);
            let mut plain = Guarded::new(sizes.y_len());
            algorithm.conv2d(isa, &sizes, &x, &w, epilogue, &mut plain);
            assert_eq!(*y, *plain);
            let wanted = moments(isa, &y, sizes.out_channels);
            for c in 0..sizes.out_channels {
                assert!((mean[c] - wanted.0[c]).abs() <= 1e-6 * wanted.0[c].abs().max(1.0));
                assert!((variance[c] - wanted.1[c]).abs() <= 1e-5 * wanted.1[c], "{isa:?} {sizes:?}");
            }
        }
    }
}

#[test]
fn a_view_gets_the_convolution_and_other_channels_stay() {
    for sizes in [
        square(2, 9, [4, 7], 3, 2, 1),
        Conv2dGeometry { groups: 2, ..square(1, 5, [6, 10], 3, 1, 1) },
        square(2, 30, [40, 37], 3, 1, 1),
    ] {
        let (x, w) = (Guarded::uniform(sizes.x_len(), 1), Guarded::uniform(sizes.w_len(), 2));
        let (channels, row, first) = (sizes.out_channels, sizes.out_channels + 9, 4);
        for (isa, algorithm) in
            each_isa().into_iter().flat_map(|isa| [(isa, Algorithm::Auto), (isa, Algorithm::Direct)])
        {
            let mut plain = Guarded::new(sizes.y_len());
            let wanted = algorithm.conv2d_moments(isa, &sizes, &x, &w, Epilogue::default(), &mut plain);
            let view_of = |run: &mut dyn FnMut(ChannelViewMut<'_>)| {
                let mut y = Guarded::filled(sizes.y_len() / channels * row, 7.5);
                run(ChannelViewMut { data: &mut y, row, first });
                let mut view = vec![];
                for y in y.chunks_exact(row) {
                    assert!(y[..first].iter().chain(&y[first + channels..]).all(|&other| other == 7.5));
                    view.extend_from_slice(&y[first..first + channels]);
                }
                view
            };
            let view = view_of(&mut |y| {
                assert_eq!(algorithm.conv2d_into(isa, &sizes, &x, None, &w, y), wanted);
            });
            assert_eq!(view, *plain);
            let packing = Packing::fastest(algorithm, &sizes);
            let mut packed = vec![f32::NAN; packing.len(isa, &sizes)];
            packing.pack(isa, &sizes, &w, &mut packed);
            let mut y = vec![f32::NAN; sizes.y_len()];
            packing.conv2d(isa, &sizes, &x, &packed, Epilogue::default(), &mut y);
            assert_eq!(view_of(&mut |y| packing.conv2d_into(isa, &sizes, &x, &packed, y)), y);
        }
    }
}

#[test]
fn the_sums_of_a_norm_before_are_those_of_its_gradient() {
    for sizes in
        [square(2, 9, [7, 4], 3, 1, 1), square(3, 20, [48, 12], 3, 1, 1), square(2, 17, [140, 20], 3, 1, 1)]
    {
        let (dy, w) = (Guarded::uniform(sizes.y_len(), 1), Guarded::uniform(sizes.w_len(), 2));
        let x = Guarded::uniform(sizes.x_len(), 3);
        let [scale, shift, mean] = [4, 5, 6].map(|seed| Guarded::uniform(sizes.in_channels, seed));
        let normalized = Normalized { x: &x, norm: NormRelu { scale: &scale, shift: &shift }, mean: &mean };
        for (isa, algorithm) in
            each_isa().into_iter().flat_map(|isa| [(isa, Algorithm::Auto), (isa, Algorithm::Direct)])
        {
            let mut dx = Guarded::new(sizes.x_len());
            let sums = algorithm.input_gradient_sums(isa, &sizes, &dy, &w, normalized, &mut dx);
            let mut plain = Guarded::new(sizes.x_len());
            algorithm.input_gradient(isa, &sizes, &dy, &w, &mut plain);
            assert_eq!(*dx, *plain);
            let mut wanted = [vec![0.0; sizes.in_channels], vec![0.0; sizes.in_channels]];
            let mut sizes_of_terms = wanted.clone();
            for (i, (&dx, &x)) in dx.iter().zip(x.iter()).enumerate() {
                let c = i % sizes.in_channels;
                if x * scale[c] + shift[c] > 0.0 {
                    let terms = [f64::from(dx), f64::from(dx) * (f64::from(x) - f64::from(mean[c]))];
                    for (i, term) in terms.into_iter().enumerate() {
                        wanted[i][c] += term;
                        sizes_of_terms[i][c] += term.abs();
                    }
                }
            }
            for (i, found) in [sums.dy, sums.dy_deviation].into_iter().enumerate() {
                for c in 0..sizes.in_channels {
                    let error = (found[c] - wanted[i][c]).abs();
                    assert!(error <= 1e-5 * sizes_of_terms[i][c], "{isa:?} {algorithm:?} {sizes:?} {c}");
                }
            }
        }
    }
}

#[test]
fn a_convolution_is_its_patches_times_the_weights() {
    let sizes =
        Conv2dGeometry { padding: [[2, 0], [1, 3]], dilation: [1, 2], ..square(2, 7, [5, 6], 3, 2, 0) };
    let (x, w) = (Guarded::uniform(sizes.x_len(), 1), Guarded::uniform(sizes.w_len(), 2));
    let dy = Guarded::uniform(sizes.y_len(), 3);
    let (rows, depth, columns) = (sizes.y_len() / 6, 45, 6);
    let mut patches = vec![f32::NAN; rows * depth];
    im2col(&sizes, &x, &mut patches);
    let mut y = vec![f32::NAN; sizes.y_len()];
    gemm(Isa::Portable, Gemm::new(rows, columns, depth), &patches, &w, &mut y);
    assert_sums(&y, &naive::conv2d(&sizes, &x, &w), depth, &sizes);

    let mut d_patches = vec![f32::NAN; rows * depth];
    gemm(Isa::Portable, Gemm::new(rows, depth, columns).transpose_b(), &dy, &w, &mut d_patches);
    let mut dx = vec![f32::NAN; sizes.x_len()];
    col2im(&sizes, &d_patches, &mut dx);
    assert_sums(&dx, &naive::conv2d_input_gradient(&sizes, &dy, &w), 9 * columns, &sizes);
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let sizes = square(4, 40, [16, 24], 3, 2, 1);
    let (x, w) = (Guarded::uniform(sizes.x_len(), 1), Guarded::uniform(sizes.w_len(), 2));
    let dy = Guarded::uniform(sizes.y_len(), 3);
    for isa in each_isa() {
        let results = [1, 2, 3, 8].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut results =
                    [vec![0.0; sizes.y_len()], vec![0.0; sizes.x_len()], vec![0.0; sizes.w_len()]];
                let [y, dx, dw] = &mut results;
                conv2d(isa, &sizes, &x, &w, y);
                conv2d_input_gradient(isa, &sizes, &dy, &w, dx);
                conv2d_weight_gradient(isa, &sizes, &x, &dy, dw);
                results.map(|result| result.into_iter().map(f32::to_bits).collect::<Vec<_>>())
            })
        });
        assert!(results.iter().all(|result| *result == results[0]), "{isa:?}");
    }
}

#[test]
#[should_panic(expected = "a slice does not fit the geometry")]
fn a_wrong_slice_is_refused() {
    conv2d(Isa::Portable, &square(1, 4, [1, 1], 3, 1, 1), &[0.0; 15], &[0.0; 9], &mut [0.0; 16]);
}

#[test]
#[should_panic(expected = "the kernel is larger than the padded image")]
fn a_kernel_that_does_not_fit_is_refused() {
    square(1, 2, [1, 1], 5, 1, 1).out_height();
}
