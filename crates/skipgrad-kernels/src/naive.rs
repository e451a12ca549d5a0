//! What the kernels should compute, as plainly as it can be said, in `f64`. For tests.
//!
//! Every function also returns the sum of the absolute values of the terms, which bounds the rounding error of `f32`.

use super::conv::Conv2dGeometry;
use super::epilogue::Epilogue;
use super::gemm::Gemm;

/// A sum, and the sum of the absolute values of its terms.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    pub(crate) value: f64,
    pub(crate) magnitude: f64,
}

impl Sum {
    fn add(&mut self, a: f32, b: f32) {
        let term = f64::from(a) * f64::from(b);
        self.value += term;
        self.magnitude += term.abs();
    }
}

/// `a * b`, `[m, n]`.
pub(crate) fn matmul(sizes: &Gemm, a: &[f32], b: &[f32]) -> Vec<Sum> {
    let mut c = vec![Sum::default(); sizes.m * sizes.n];
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

/// y of a convolution.
pub(crate) fn conv2d(sizes: &Conv2dGeometry, x: &[f32], w: &[f32]) -> Vec<Sum> {
    let mut y =
        vec![Sum::default(); sizes.batch * sizes.out_height() * sizes.out_width() * sizes.out_channels];
    each_term(sizes, |x_at, w_at, y_at| y[y_at].add(x[x_at], w[w_at]));
    y
}

/// The end of sums in `channels`.
pub(crate) fn end(sums: &[Sum], channels: usize, epilogue: Epilogue<'_>) -> Vec<Sum> {
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

/// dx of a convolution.
pub(crate) fn conv2d_input_gradient(sizes: &Conv2dGeometry, dy: &[f32], w: &[f32]) -> Vec<Sum> {
    let mut dx = vec![Sum::default(); sizes.batch * sizes.height * sizes.width * sizes.in_channels];
    each_term(sizes, |x_at, w_at, y_at| dx[x_at].add(dy[y_at], w[w_at]));
    dx
}

/// dw of a convolution.
pub(crate) fn conv2d_weight_gradient(sizes: &Conv2dGeometry, x: &[f32], dy: &[f32]) -> Vec<Sum> {
    let [kernel_height, kernel_width] = sizes.kernel;
    let group_in = sizes.in_channels / sizes.groups;
    let mut dw = vec![Sum::default(); kernel_height * kernel_width * group_in * sizes.out_channels];
    each_term(sizes, |x_at, w_at, y_at| dw[w_at].add(x[x_at], dy[y_at]));
    dw
}

/// Calls `term` with the places in x, w and y of every product `x * w` that a convolution adds to y.
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

/// Numbers for a kernel to read, with NaN on both sides: whatever is read outside of them shows in the result.
pub(crate) struct Input(Vec<f32>);

/// A place for a kernel to write, with numbers on both sides that must stay.
pub(crate) struct Output(Vec<f32>);

const GUARD: usize = 64;
const SENTINEL: f32 = 12345.678;

impl Input {
    /// `len` numbers in [-1, 1), the same for the same seed.
    pub(crate) fn random(len: usize, seed: u64) -> Input {
        use rand::{Rng, SeedableRng, rngs::ChaCha8Rng};
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut numbers = vec![f32::NAN; len + 2 * GUARD];
        numbers[GUARD..GUARD + len].fill_with(|| (rng.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0);
        Input(numbers)
    }
}

impl std::ops::Deref for Input {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.0[GUARD..self.0.len() - GUARD]
    }
}

impl Output {
    /// `len` times `value`: NaN where every number must be written.
    pub(crate) fn filled(len: usize, value: f32) -> Output {
        let mut numbers = vec![SENTINEL; len + 2 * GUARD];
        numbers[GUARD..GUARD + len].fill(value);
        Output(numbers)
    }

    /// Where to write.
    pub(crate) fn slice(&mut self) -> &mut [f32] {
        let end = self.0.len() - GUARD;
        &mut self.0[GUARD..end]
    }

    /// What was written, after a look at the guards.
    #[track_caller]
    pub(crate) fn checked(self) -> Vec<f32> {
        let end = self.0.len() - GUARD;
        assert!(self.0[..GUARD].iter().chain(&self.0[end..]).all(|&x| x == SENTINEL), "written outside");
        self.0[GUARD..end].to_vec()
    }
}

/// Asserts that `got` are sums of `terms` terms in `f32`, rounded as such sums may be.
///
/// A sum of K products in any order errs by at most about K * eps/2 times the sum of their absolute values, and as
/// roundings are as good as random, by about sqrt(K) * eps/2 times. Allowed is (2 + sqrt(K)) * eps times: the former for
/// the shortest sums, twice the latter for long ones. A term left out or taken twice shows many orders above that.
#[track_caller]
pub(crate) fn assert_sums(got: &[f32], want: &[Sum], terms: usize, case: &dyn std::fmt::Debug) {
    assert_eq!(got.len(), want.len());
    let bound = (2.0 + (terms as f64).sqrt()) * f64::from(f32::EPSILON);
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(*got) - want.value).abs();
        assert!(
            error <= bound * want.magnitude,
            "{case:?}: number {i}: {got}, expected {want:?}, error {error:e}"
        );
    }
}
