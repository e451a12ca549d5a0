//! Compares all directions with the oracle, and all engines with each other.

use super::super::{Conv2dGeometry, tests as f32_tests};
use super::*;
use crate::engine::tests::each_engine;
use crate::naive::{self, ExpectedSum};
use crate::testing::{Canary, Guarded};
use proptest::prelude::*;

type Guarded16 = Guarded<Bf16>;

impl Guarded16 {
    fn uniform16(n: usize, seed: u64) -> Guarded16 {
        let values: Vec<Bf16> = Guarded::uniform(n, seed).iter().map(|&x| Bf16::from_f32(x)).collect();
        Guarded::from(&values)
    }

    fn output(n: usize) -> Guarded16 {
        Guarded::from(&vec![Bf16::CANARY; n])
    }

    fn wide(&self) -> Vec<f32> {
        self.iter().map(|x| x.to_f32()).collect()
    }
}

/// Returns the values rounded to bf16.
fn rounded(x: &[f32]) -> Vec<f32> {
    x.iter().map(|&x| Bf16::from_f32(x).to_f32()).collect()
}

/// Asserts that sums of f32 that were rounded to bf16 are within both roundings.
#[track_caller]
fn assert_rounded_sums(got: &[f32], want: &[ExpectedSum], terms: usize, case: &dyn std::fmt::Debug) {
    assert_eq!(got.len(), want.len());
    let bound = (2.0 + (terms as f64).sqrt()) * f64::from(f32::EPSILON);
    for (i, (&got, want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(got) - want.value).abs();
        let most = bound * want.magnitude + (want.value.abs() + bound * want.magnitude) / 256.0;
        assert!(error <= most, "{case:?}: element {i}: {got}, expected {want:?}, error {error:e}");
    }
}

/// Compares all directions of one geometry with the oracle, and the bits of all engines.
fn check(sizes: &Conv2dGeometry) {
    let (x, dy) = (Guarded16::uniform16(sizes.x_len(), 1), Guarded16::uniform16(sizes.y_len(), 3));
    let (w, bias) = (Guarded::uniform(sizes.w_len(), 2), Guarded::uniform(sizes.out_channels, 4));
    let rounded_w = rounded(&w);
    let taps = sizes.kernel[0] * sizes.kernel[1];
    let sums = naive::conv2d(sizes, &x.wide(), &rounded_w);
    let with_epilogue = Epilogue { bias: Some(&bias), residual: Some(&dy.wide()), relu: true };
    let wanted = [
        naive::apply_epilogue(&sums, sizes.out_channels, with_epilogue),
        naive::conv2d_input_gradient(sizes, &dy.wide(), &rounded_w),
    ];
    let wanted_dw = naive::conv2d_weight_gradient(sizes, &x.wide(), &dy.wide());
    let mut bits: Option<Vec<u32>> = None;
    for engine in each_engine() {
        let mut y32 = Guarded::new(sizes.y_len());
        conv2d(engine, sizes, &x, &w, Epilogue::default(), &mut y32);
        naive::assert_sums(&y32, &sums, taps * sizes.group_in(), &("y", engine, sizes));
        let (mut y, mut dx) = (Guarded16::output(sizes.y_len()), Guarded16::output(sizes.x_len()));
        let epilogue = Epilogue { bias: Some(&bias), residual: Some(&dy), relu: true };
        conv2d(engine, sizes, &x, &w, epilogue, &mut y);
        assert_rounded_sums(&y.wide(), &wanted[0], taps * sizes.group_in() + 2, &("y", engine, sizes));
        conv2d_input_gradient(engine, sizes, &dy, &w, &mut dx);
        assert_rounded_sums(&dx.wide(), &wanted[1], taps * sizes.group_out(), &("dx", engine, sizes));
        let mut dw = Guarded::new(sizes.w_len());
        conv2d_weight_gradient(engine, sizes, &x, &dy, &mut dw);
        let terms = sizes.batch * sizes.out_height() * sizes.out_width();
        naive::assert_sums(&dw, &wanted_dw, terms, &("dw", engine, sizes));
        let (mut from_f32, wide) = (Guarded::new(sizes.y_len()), Guarded::from(&x.wide()));
        conv2d(engine, sizes, &wide, &w, Epilogue::default(), &mut from_f32);
        assert_eq!(*from_f32, *y32, "elements of f32 are rounded");
        let mut packed = Guarded16::output(packed_len(sizes));
        pack(sizes, &w, &mut packed);
        conv2d_packed(engine, sizes, &x, &packed, Epilogue::default(), &mut from_f32);
        assert_eq!(*from_f32, *y32, "packed weights change nothing");
        let all: Vec<u32> =
            [&y32[..], &y.wide(), &dx.wide(), &dw].concat().into_iter().map(f32::to_bits).collect();
        assert!(*bits.get_or_insert_with(|| all.clone()) == all, "{engine:?} has other bits: {sizes:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bf16_conv2d_is_as_the_oracle_says(sizes in f32_tests::geometry()) {
        check(&sizes);
    }
}

#[test]
fn bf16_conv2d_of_several_windows_and_columns_is_as_the_oracle_says() {
    let square = f32_tests::square;
    // Several images and parts of images in a window, several steps and blocks of columns.
    check(&square(17, 7, [40, 33], 3, 1, 1));
    check(&square(2, 40, [33, 70], 3, 2, 1));
    check(&square(1, 12, [270, 40], 1, 1, 0));
    check(&square(3, 30, [3, 16], 7, 2, 3));
    check(&Conv2dGeometry { groups: 4, ..square(2, 9, [96, 80], 3, 1, 1) });
    check(&square(70, 1, [65, 10], 1, 1, 0));
    check(&square(0, 5, [3, 4], 3, 1, 1));
    // Most taps read zeros only, at a distance that no map could have.
    check(&Conv2dGeometry {
        padding: [[1 << 40; 2]; 2],
        dilation: [1 << 40; 2],
        ..square(2, 5, [2, 3], 3, 1, 0)
    });
    check(&Conv2dGeometry { padding: [[7; 2]; 2], dilation: [5, 7], ..square(2, 5, [2, 3], 3, 2, 0) });
}

#[test]
fn bf16_conv2d_has_the_same_bits_on_any_threads() {
    let sizes = f32_tests::square(9, 13, [35, 40], 3, 2, 1);
    let (x, dy) = (Guarded16::uniform16(sizes.x_len(), 1), Guarded16::uniform16(sizes.y_len(), 3));
    let w = Guarded::uniform(sizes.w_len(), 2);
    crate::testing::same_on_any_threads(|| {
        let (mut y, mut dx) = (Guarded16::output(sizes.y_len()), Guarded16::output(sizes.x_len()));
        let mut dw = Guarded::new(sizes.w_len());
        conv2d(Engine::active(), &sizes, &x, &w, Epilogue::default(), &mut y);
        conv2d_input_gradient(Engine::active(), &sizes, &dy, &w, &mut dx);
        conv2d_weight_gradient(Engine::active(), &sizes, &x, &dy, &mut dw);
        [y.wide(), dx.wide(), dw.to_vec()].concat()
    });
}

/// A pixel that is NaN reaches the outputs that read it, and no other.
#[test]
fn nan_reaches_the_outputs_that_read_it() {
    let sizes = f32_tests::square(2, 8, [5, 3], 3, 1, 1);
    let mut x = Guarded16::uniform16(sizes.x_len(), 1);
    x[(3 * 8 + 7) * 5 + 4] = Bf16::from_f32(f32::NAN); // line 3, the last pixel
    let w = Guarded::uniform(sizes.w_len(), 2);
    for engine in each_engine() {
        let mut y = Guarded::new(sizes.y_len());
        conv2d(engine, &sizes, &x, &w, Epilogue::default(), &mut y);
        for (pixel, y) in y.chunks_exact(3).enumerate() {
            let reads = pixel < 64 && (2..=4).contains(&(pixel / 8)) && pixel % 8 >= 6;
            assert!(y.iter().all(|y| y.is_nan() == reads), "{engine:?}, pixel {pixel}");
        }
    }
}
