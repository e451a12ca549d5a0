//! Channel gates: every channel of an image is multiplied by a factor of its own, as squeeze and
//! excitation does.

use super::parallel::{PIECE, RowsMut, for_each_piece};
use super::reduce::add_vectors;
use super::rows::{Strip, Terms, add_terms, lanes, map_ranges, update_rows, whole_rows};
use super::simd::Simd;
use super::{Isa, Task};

/// The number of elements of an image from which on [`scale_channels_gradient`] splits the image
/// itself among the threads.
const LARGE_IMAGE: usize = 16 * PIECE;

/// Computes `y[n, pixel, c] = x[n, pixel, c] * gate[n, c]` for `x[N, pixels, C]` and `gate[N, C]`,
/// where `N = batch` and `C = channels`. With `dy` in place of `x`, this is the gradient of `x`.
///
/// # Panics
/// If a slice does not fit.
///
/// ```
/// use skipgrad_kernels::{Isa, scale_channels};
/// let mut y = [0.0; 4];
/// scale_channels(Isa::active(), 1, 2, &[1.0, 2.0, 3.0, 4.0], &[10.0, 0.5], &mut y);
/// assert_eq!(y, [10.0, 1.0, 30.0, 2.0]);
/// ```
pub fn scale_channels(isa: Isa, batch: usize, channels: usize, x: &[f32], gate: &[f32], y: &mut [f32]) {
    assert_eq!(gate.len(), batch * channels, "a gate of [N, C]");
    assert_eq!(x.len(), y.len(), "operands of one length");
    let image = whole_rows(y.len(), batch);
    whole_rows(image, channels);
    if y.is_empty() {
        return;
    }
    let y = RowsMut { data: y, width: image };
    for_each_piece(y, (PIECE / image).max(1), |first, y| {
        let images = y.data.chunks_mut(image).zip(x[first * image..].chunks(image));
        for ((y, x), gate) in images.zip(gate[first * channels..].chunks(channels)) {
            update_rows(isa, channels, y, [x], [gate], |_, [x], [gate]| x * gate);
        }
    });
}

/// Computes `dgate[n, c] = Σ dy[n, pixel, c] * x[n, pixel, c]` over the pixels, the gradient of the
/// gate of [`scale_channels`].
///
/// # Panics
/// If a slice does not fit.
pub fn scale_channels_gradient(
    isa: Isa,
    batch: usize,
    channels: usize,
    dy: &[f32],
    x: &[f32],
    dgate: &mut [f32],
) {
    assert_eq!(dgate.len(), batch * channels, "a gradient of [N, C]");
    assert_eq!(x.len(), dy.len(), "operands of one length");
    let image = whole_rows(x.len(), batch);
    let pixels = whole_rows(image, channels);
    if image == 0 {
        return dgate.fill(0.0);
    }
    let round = |dgate: &mut [f32], totals: Vec<f64>| {
        dgate.iter_mut().zip(totals).for_each(|(dgate, total)| *dgate = total as f32);
    };
    if image >= LARGE_IMAGE {
        for (i, dgate) in dgate.chunks_mut(channels).enumerate() {
            let parts = map_ranges(pixels, channels, |range| {
                let elements = i * image + range.start * channels..i * image + range.end * channels;
                isa.dispatch(ProductTotals { x: &x[elements.clone()], dy: &dy[elements], channels })
            });
            round(dgate, add_vectors(parts, channels));
        }
        return;
    }
    let dgate = RowsMut { data: dgate, width: channels };
    for_each_piece(dgate, (PIECE / image).max(1), |first, dgate| {
        let images = x[first * image..].chunks(image).zip(dy[first * image..].chunks(image));
        for ((x, dy), dgate) in images.zip(dgate.data.chunks_mut(channels)) {
            round(dgate, isa.dispatch(ProductTotals { x, dy, channels }));
        }
    });
}

/// The task that sums the columns of a product of two matrices on one thread.
struct ProductTotals<'a> {
    x: &'a [f32],
    dy: &'a [f32],
    channels: usize,
}

impl Task for ProductTotals<'_> {
    type Output = Vec<f64>;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Vec<f64> {
        let strip = Strip::new(self.channels);
        let mut totals = vec![0.0; self.channels];
        let mut sums = [vec![0.0; strip.width()]];
        for block in strip.blocks(self.x.len()) {
            add_terms(&self, block, &mut sums);
            strip.drain(&mut sums[0], &mut totals);
        }
        totals
    }
}

impl Terms<1> for ProductTotals<'_> {
    #[inline(always)]
    fn terms<const L: usize>(&self, at: usize, _: usize) -> [[f32; L]; 1] {
        let (x, dy) = (lanes::<L>(self.x, at), lanes::<L>(self.dy, at));
        [std::array::from_fn(|l| x[l] * dy[l])]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guarded, each_isa, few_cases, normals, same_on_any_threads};
    use super::*;
    use proptest::prelude::*;

    /// Compares the product and the gradient of the gate with their definitions.
    fn check(batch: usize, pixels: usize, channels: usize) {
        for isa in each_isa() {
            let (x, dy) = (normals(batch * pixels * channels, 1), normals(batch * pixels * channels, 2));
            let gate = normals(batch * channels, 3);
            let of = |i: usize| i / (pixels * channels) * channels + i % channels;
            let (mut sums, mut sizes) = (vec![0.0; gate.len()], vec![0.0; gate.len()]);
            for (i, (&x, &dy)) in x.iter().zip(&dy).enumerate() {
                let term = f64::from(x) * f64::from(dy);
                sums[of(i)] += term;
                sizes[of(i)] += term.abs();
            }
            let (mut y, mut dgate) = (Guarded::new(x.len()), Guarded::new(gate.len()));
            scale_channels(isa, batch, channels, &x, &gate, &mut y);
            assert!((0..x.len()).all(|i| y[i] == x[i] * gate[of(i)]));
            scale_channels_gradient(isa, batch, channels, &dy, &x, &mut dgate);
            for (i, (sum, size)) in sums.iter().zip(&sizes).enumerate() {
                let error = (f64::from(dgate[i]) - sum).abs();
                assert!(error <= 3e-7 * size, "{batch} {pixels} {channels}: {i}: {} {sum}", dgate[i]);
            }
        }
    }

    #[test]
    fn channels_are_scaled() {
        for (batch, pixels, channels) in
            [(1, 1, 1), (3, 49, 7), (200, 64, 20), (0, 4, 4), (2, 0, 3), (2, 40_000, 16)]
        {
            check(batch, pixels, channels);
        }
    }

    proptest! {
        #![proptest_config(few_cases())]

        #[test]
        fn any_channels_are_scaled(batch in 0_usize..6, pixels in 0_usize..60, channels in 1_usize..40) {
            check(batch, pixels, channels);
        }
    }

    #[test]
    fn the_number_of_threads_does_not_change_the_result() {
        let (x, dy) = (normals(2 * 40_000 * 16, 4), normals(2 * 40_000 * 16, 5));
        same_on_any_threads(|| {
            let mut dgate = vec![0.0; 32];
            scale_channels_gradient(Isa::active(), 2, 16, &dy, &x, &mut dgate);
            dgate
        });
    }

    #[test]
    #[should_panic(expected = "a gate of [N, C]")]
    fn a_gate_of_another_size_is_an_error() {
        scale_channels(Isa::active(), 2, 2, &[1.0; 8], &[1.0; 2], &mut [0.0; 8]);
    }
}
