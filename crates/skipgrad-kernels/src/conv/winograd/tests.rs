//! Compares all directions with the oracle on every instruction set.

use super::transforms::{F, Filtering};
use super::*;
use crate::conv::tests::epilogues;
use crate::naive::{self, ExpectedSum};
use crate::testing::{Guarded, each_isa};
use crate::{ChannelViewMut, Epilogue, Isa, NormRelu};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// The largest error allowed, relative to the largest value of the result; the documentation of the
/// module says what was measured.
const BOUND: f64 = 3e-6;

#[track_caller]
fn assert_close(got: &[f32], want: &[ExpectedSum], case: &dyn std::fmt::Debug) {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().map(|sum| sum.value.abs()).fold(0.0, f64::max);
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(*got) - want.value).abs();
        assert!(
            error <= BOUND * largest,
            "{case:?}: element {i}: {got}, expected {}, error {error:e} of {largest}",
            want.value
        );
    }
}

/// Compares the three directions of one geometry with the oracle.
fn check_all(sizes: &Conv2dGeometry) {
    let x = Guarded::uniform(sizes.x_len(), 1);
    let w = Guarded::uniform(sizes.w_len(), 2);
    let dy = Guarded::uniform(sizes.y_len(), 3);
    let (bias, residual) = (Guarded::uniform(sizes.out_channels, 4), Guarded::uniform(sizes.y_len(), 5));
    let y_want = naive::conv2d(sizes, &x, &w);
    let dx_want = naive::conv2d_input_gradient(sizes, &dy, &w);
    let dw_want = naive::conv2d_weight_gradient(sizes, &x, &dy);
    let [scale, shift] = [6, 7].map(|seed| Guarded::uniform(sizes.in_channels, seed));
    let channels = sizes.in_channels;
    let norm = |(i, x): (usize, &f32)| (x * scale[i % channels] + shift[i % channels]).max(0.0);
    let normalized: Vec<f32> = x.iter().enumerate().map(norm).collect();
    for isa in each_isa() {
        let case = (isa, sizes);
        for epilogue in epilogues(&bias, &residual) {
            let mut y = Guarded::new(sizes.y_len());
            forward(isa, sizes, &x, &w, epilogue, &(), &mut y);
            assert_close(
                &y,
                &naive::apply_epilogue(&y_want, sizes.out_channels, epilogue),
                &("y", epilogue.relu, case),
            );
        }
        check_packed::<6, 4>(isa, sizes, &x, &w, &y_want);
        check_packed::<4, 2>(isa, sizes, &x, &w, &y_want);
        let mut dx = Guarded::new(sizes.x_len());
        input_gradient(isa, sizes, &dy, &w, &(), &mut dx);
        assert_close(&dx, &dx_want, &("dx", case));
        let mut dw = Guarded::new(sizes.w_len());
        weight_gradient(isa, sizes, &x, None, &dy, &mut dw);
        assert_close(&dw, &dw_want, &("dw", case));

        let norm = NormRelu { scale: &scale, shift: &shift };
        let mut y = Guarded::new(sizes.y_len());
        forward_into(isa, sizes, &x, Some(norm), &w, ChannelViewMut::whole(&mut y, sizes.out_channels));
        assert_close(&y, &naive::conv2d(sizes, &normalized, &w), &("y of a norm", case));
        let mut dw = Guarded::new(sizes.w_len());
        weight_gradient(isa, sizes, &x, Some(norm), &dy, &mut dw);
        let want = naive::conv2d_weight_gradient(sizes, &normalized, &dy);
        assert_close(&dw, &want, &("dw of a norm", case));
    }
}

/// Compares the forward direction with packed weights, for tiles of `O` x `O` outputs, with the
/// oracle.
fn check_packed<const I: usize, const O: usize>(
    isa: Isa,
    sizes: &Conv2dGeometry,
    x: &[f32],
    w: &[f32],
    want: &[ExpectedSum],
) where
    F: Filtering<I, O>,
{
    let mut y = Guarded::new(sizes.y_len());
    let mut packed = Guarded::new(packed_len::<I>(isa, sizes));
    pack::<I, O>(isa, sizes, w, &mut packed);
    let view = ChannelViewMut::whole(&mut y, sizes.out_channels);
    forward_packed::<I, O>(isa, sizes, x, &packed, Epilogue::default(), view);
    assert_close(&y, want, &("y of packed weights", O, isa, sizes));
}

fn square(batch: usize, size: usize, channels: [usize; 2], padding: usize) -> Conv2dGeometry {
    Conv2dGeometry {
        batch,
        height: size,
        width: size,
        in_channels: channels[0],
        out_channels: channels[1],
        kernel: [3; 2],
        stride: [1; 2],
        padding: [[padding; 2]; 2],
        dilation: [1; 2],
        groups: 1,
    }
}

prop_compose! {
    /// Generates any geometry that the algorithm can compute and is small enough for the oracle.
    fn geometry()(
        batch in 1..4usize, size in prop::array::uniform2(1..15usize),
        channels in prop::array::uniform2(1..40usize),
        padding in prop::array::uniform2(prop::array::uniform2(0..4usize)),
    ) -> Conv2dGeometry {
        // The image grows until the kernel fits the padded image.
        let fit = |axis: usize| size[axis].max(3usize.saturating_sub(padding[axis].iter().sum()));
        Conv2dGeometry { batch, height: fit(0), width: fit(1), padding, ..square(1, 1, channels, 0) }
    }
}

// The seed is fixed: the error is relative to the largest output, which may happen to be small
// where there are few outputs.
proptest! {
    #![proptest_config(ProptestConfig {
        cases: 32,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(1),
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_winograd_conv2d_is_as_the_oracle_says(sizes in geometry()) {
        check_all(&sizes);
    }
}

#[test]
fn every_image_size_and_padding_is_as_the_oracle_says() {
    for height in 1..=10 {
        for (width, padding) in [(3, 1), (8, 0), (5, 2), (13, 1), (4, 3), (1, 1)] {
            let sizes = Conv2dGeometry { height, width, ..square(2, 0, [3, 5], padding) };
            if height + 2 * padding >= 3 && width + 2 * padding >= 3 {
                check_all(&sizes);
            }
        }
    }
    check_all(&Conv2dGeometry { padding: [[0, 2], [1, 4]], ..square(1, 6, [3, 5], 0) });
    check_all(&Conv2dGeometry { padding: [[5, 0], [2, 0]], ..square(1, 6, [3, 5], 0) });
}

#[test]
fn every_number_of_channels_is_as_the_oracle_says() {
    for channels in (1..=34).chain([47, 48, 49, 63, 64, 65, 96]) {
        check_all(&square(1, 5, [channels, 35 - channels.min(34)], 1));
        check_all(&square(3, 4, [2, channels], 1));
    }
}

#[test]
fn sizes_beyond_one_block_are_as_the_oracle_says() {
    // More than a block of the tiles, of the depth and of the columns; few tiles and many channels.
    check_all(&square(3, 21, [20, 24], 1));
    check_all(&square(1, 6, [150, 170], 1));
    check_all(&square(2, 30, [70, 9], 1));
    check_all(&square(40, 4, [65, 130], 1));
    // Enough tiles for the weight gradient to be summed in chunks.
    check_all(&square(7, 30, [9, 20], 1));
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    for sizes in [square(3, 21, [20, 24], 1), square(1, 14, [70, 150], 1), square(8, 24, [16, 16], 1)] {
        let x = Guarded::uniform(sizes.x_len(), 1);
        let w = Guarded::uniform(sizes.w_len(), 2);
        let dy = Guarded::uniform(sizes.y_len(), 3);
        for isa in each_isa() {
            let results = [1, 2, 3, 8].map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| {
                    let mut results =
                        [vec![0.0; sizes.y_len()], vec![0.0; sizes.x_len()], vec![0.0; sizes.w_len()]];
                    let [y, dx, dw] = &mut results;
                    forward(isa, &sizes, &x, &w, Epilogue::default(), &(), y);
                    input_gradient(isa, &sizes, &dy, &w, &(), dx);
                    weight_gradient(isa, &sizes, &x, None, &dy, dw);
                    results.map(|result| result.into_iter().map(f32::to_bits).collect::<Vec<_>>())
                })
            });
            assert!(results.iter().all(|result| *result == results[0]), "{isa:?}");
        }
    }
}
