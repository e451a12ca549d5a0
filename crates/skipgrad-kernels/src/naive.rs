//! The oracle of the tests: what the kernels should compute, as plainly as possible, in `f64`.
//!
//! Every function also returns the sum of the absolute values of the terms, which bounds the
//! rounding error of `f32`.

use super::conv::Conv2dGeometry;
use super::epilogue::Epilogue;
use super::gemm::Gemm;

/// The exact value of a sum, and the sum of the absolute values of its terms.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ExpectedSum {
    pub(crate) value: f64,
    pub(crate) magnitude: f64,
}

impl ExpectedSum {
    fn add(&mut self, a: f32, b: f32) {
        let term = f64::from(a) * f64::from(b);
        self.value += term;
        self.magnitude += term.abs();
    }
}

/// Returns `a * b`, `[m, n]`.
pub(crate) fn matmul(sizes: &Gemm, a: &[f32], b: &[f32]) -> Vec<ExpectedSum> {
    let mut c = vec![ExpectedSum::default(); sizes.m * sizes.n];
    for i in 0..sizes.m {
        for j in 0..sizes.n {
            for k in 0..sizes.k {
                c[i * sizes.n + j]
                    .add(a[i * sizes.a_row + k * sizes.a_column], b[k * sizes.b_row + j * sizes.b_column]);
            }
        }
    }
    c
}

/// Returns y of a convolution.
pub(crate) fn conv2d(sizes: &Conv2dGeometry, x: &[f32], w: &[f32]) -> Vec<ExpectedSum> {
    let mut y = vec![
        ExpectedSum::default();
        sizes.batch * sizes.out_height() * sizes.out_width() * sizes.out_channels
    ];
    each_term(sizes, |x_at, w_at, y_at| y[y_at].add(x[x_at], w[w_at]));
    y
}

/// Applies an epilogue to sums in `channels`.
pub(crate) fn apply_epilogue(
    sums: &[ExpectedSum],
    channels: usize,
    epilogue: Epilogue<'_>,
) -> Vec<ExpectedSum> {
    let sums = sums.iter().enumerate();
    sums.map(|(i, sum)| {
        let addends =
            [epilogue.bias.map(|bias| bias[i % channels]), epilogue.residual.map(|residual| residual[i])];
        let mut sum = *sum;
        addends.into_iter().flatten().for_each(|addend| sum.add(1.0, addend));
        if epilogue.relu {
            sum.value = sum.value.max(0.0);
        }
        sum
    })
    .collect()
}

/// Returns dx of a convolution.
pub(crate) fn conv2d_input_gradient(sizes: &Conv2dGeometry, dy: &[f32], w: &[f32]) -> Vec<ExpectedSum> {
    let mut dx = vec![ExpectedSum::default(); sizes.batch * sizes.height * sizes.width * sizes.in_channels];
    each_term(sizes, |x_at, w_at, y_at| dx[x_at].add(dy[y_at], w[w_at]));
    dx
}

/// Returns dw of a convolution.
pub(crate) fn conv2d_weight_gradient(sizes: &Conv2dGeometry, x: &[f32], dy: &[f32]) -> Vec<ExpectedSum> {
    let [kernel_height, kernel_width] = sizes.kernel;
    let group_in = sizes.in_channels / sizes.groups;
    let mut dw = vec![ExpectedSum::default(); kernel_height * kernel_width * group_in * sizes.out_channels];
    each_term(sizes, |x_at, w_at, y_at| dw[w_at].add(x[x_at], dy[y_at]));
    dw
}

/// Calls `term` with the positions in x, w and y of every product `x * w` that a convolution adds
/// to y.
fn each_term(sizes: &Conv2dGeometry, mut term: impl FnMut(usize, usize, usize)) {
    let [kernel_height, kernel_width] = sizes.kernel;
    let (out_height, out_width) = (sizes.out_height(), sizes.out_width());
    let (group_in, group_out) = (sizes.in_channels / sizes.groups, sizes.out_channels / sizes.groups);
    for n in 0..sizes.batch {
        for oy in 0..out_height {
            for ox in 0..out_width {
                for ky in 0..kernel_height {
                    for kx in 0..kernel_width {
                        let iy = (oy * sizes.stride[0] + ky * sizes.dilation[0]) as isize
                            - sizes.padding[0][0] as isize;
                        let ix = (ox * sizes.stride[1] + kx * sizes.dilation[1]) as isize
                            - sizes.padding[1][0] as isize;
                        if iy < 0 || ix < 0 || iy >= sizes.height as isize || ix >= sizes.width as isize {
                            continue;
                        }
                        for o in 0..sizes.out_channels {
                            for c in 0..group_in {
                                let channel = o / group_out * group_in + c;
                                let pixel = (n * sizes.height + iy as usize) * sizes.width + ix as usize;
                                term(
                                    pixel * sizes.in_channels + channel,
                                    ((ky * kernel_width + kx) * group_in + c) * sizes.out_channels + o,
                                    ((n * out_height + oy) * out_width + ox) * sizes.out_channels + o,
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Asserts that `got` are sums of `terms` terms in `f32`, rounded as such sums may be.
///
/// A sum of K products in any order errs by at most about K * eps/2 times the sum of their absolute
/// values, and as roundings are as good as random, by about sqrt(K) * eps/2 times. The test allows
/// (2 + sqrt(K)) * eps times: the former for the shortest sums, twice the latter for long ones. A
/// term that is left out or counted twice shows many orders of magnitude above that.
#[track_caller]
pub(crate) fn assert_sums(got: &[f32], want: &[ExpectedSum], terms: usize, case: &dyn std::fmt::Debug) {
    assert_eq!(got.len(), want.len());
    let bound = (2.0 + (terms as f64).sqrt()) * f64::from(f32::EPSILON);
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(*got) - want.value).abs();
        assert!(
            error <= bound * want.magnitude,
            "{case:?}: element {i}: {got}, expected {want:?}, error {error:e}"
        );
    }
}
