//! All directions, on every instruction set, against the oracle.

use super::transforms::{F, Filtering};
use super::*;
use crate::conv::tests::epilogues;
use crate::naive::{self, Input, Output, Sum};
use crate::testing::each_isa;
use crate::{ChannelViewMut, Epilogue, Isa, NormRelu};

/// The largest error that is allowed, relative to the largest number of the result; see `mod` for what was measured.
const BOUND: f64 = 3e-6;

#[track_caller]
fn assert_close(got: &[f32], want: &[Sum], case: &dyn std::fmt::Debug) {
    assert_eq!(got.len(), want.len());
    let largest = want.iter().map(|sum| sum.value.abs()).fold(0.0, f64::max);
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(*got) - want.value).abs();
        assert!(
            error <= BOUND * largest,
            "{case:?}: number {i}: {got}, expected {}, error {error:e} of {largest}",
            want.value
        );
    }
}

/// Holds the three directions of one geometry against the oracle.
fn check_all(sizes: &Conv2dGeometry) {
    let x = Input::random(sizes.x_len(), 1);
    let w = Input::random(sizes.w_len(), 2);
    let dy = Input::random(sizes.y_len(), 3);
    let (bias, residual) = (Input::random(sizes.out_channels, 4), Input::random(sizes.y_len(), 5));
    let y_want = naive::conv2d(sizes, &x, &w);
    let dx_want = naive::conv2d_input_gradient(sizes, &dy, &w);
    let dw_want = naive::conv2d_weight_gradient(sizes, &x, &dy);
    let [scale, shift] = [6, 7].map(|seed| Input::random(sizes.in_channels, seed));
    let channels = sizes.in_channels;
    let norm = |(i, x): (usize, &f32)| (x * scale[i % channels] + shift[i % channels]).max(0.0);
    let normalized: Vec<f32> = x.iter().enumerate().map(norm).collect();
    for isa in each_isa() {
        let case = (isa, sizes);
        for epilogue in epilogues(&bias, &residual) {
            let mut y = Output::filled(sizes.y_len(), f32::NAN);
            forward(isa, sizes, &x, &w, epilogue, &(), y.slice());
            assert_close(
                &y.checked(),
                &naive::end(&y_want, sizes.out_channels, epilogue),
                &("y", epilogue.relu, case),
            );
        }
        check_packed::<6, 4>(isa, sizes, &x, &w, &y_want);
        check_packed::<4, 2>(isa, sizes, &x, &w, &y_want);
        let mut dx = Output::filled(sizes.x_len(), f32::NAN);
        input_gradient(isa, sizes, &dy, &w, &(), dx.slice());
        assert_close(&dx.checked(), &dx_want, &("dx", case));
        let mut dw = Output::filled(sizes.w_len(), f32::NAN);
        weight_gradient(isa, sizes, &x, None, &dy, dw.slice());
        assert_close(&dw.checked(), &dw_want, &("dw", case));

        let norm = NormRelu { scale: &scale, shift: &shift };
        let mut y = Output::filled(sizes.y_len(), f32::NAN);
        forward_into(isa, sizes, &x, Some(norm), &w, ChannelViewMut::whole(y.slice(), sizes.out_channels));
        assert_close(&y.checked(), &naive::conv2d(sizes, &normalized, &w), &("y of a norm", case));
        let mut dw = Output::filled(sizes.w_len(), f32::NAN);
        weight_gradient(isa, sizes, &x, Some(norm), &dy, dw.slice());
        let want = naive::conv2d_weight_gradient(sizes, &normalized, &dy);
        assert_close(&dw.checked(), &want, &("dw of a norm", case));
    }
}

/// Holds the forward direction with packed weights, for tiles of `O` x `O` outputs, against the oracle.
fn check_packed<const I: usize, const O: usize>(
    isa: Isa,
    sizes: &Conv2dGeometry,
    x: &[f32],
    w: &[f32],
    want: &[Sum],
) where
    F: Filtering<I, O>,
{
    let mut y = Output::filled(sizes.y_len(), f32::NAN);
    let mut packed = Output::filled(packed_len::<I>(isa, sizes), f32::NAN);
    pack::<I, O>(isa, sizes, w, packed.slice());
    let slot = ChannelViewMut::whole(y.slice(), sizes.out_channels);
    forward_packed::<I, O>(isa, sizes, x, &packed.checked(), Epilogue::default(), slot);
    assert_close(&y.checked(), want, &("y of packed weights", O, isa, sizes));
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
        let x = Input::random(sizes.x_len(), 1);
        let w = Input::random(sizes.w_len(), 2);
        let dy = Input::random(sizes.y_len(), 3);
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
