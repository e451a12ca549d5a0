//! Global average pooling: the mean over the pixels of an image, for every channel.

use super::Isa;
use super::parallel::{PIECE, RowsMut, for_each_piece};
use super::reduce::{ColumnTotals, column_totals};
use super::rows::{update_rows, whole_rows};

/// The number of elements of an image from which on [`global_avg_pool`] splits the image itself
/// among the threads.
const LARGE_IMAGE: usize = 16 * PIECE;

/// Computes `y[N, C]`, the mean over the pixels of `x[N, pixels, C]`, where `N = batch` and `C =
/// channels`. The mean of no pixels is NaN.
///
/// # Panics
/// If a slice does not fit.
///
/// ```
/// use skipgrad_kernels::{Isa, global_avg_pool};
/// let mut y = [0.0; 2];
/// global_avg_pool(Isa::active(), 1, 2, &[1.0, 10.0, 3.0, 30.0], &mut y);
/// assert_eq!(y, [2.0, 20.0]);
/// ```
pub fn global_avg_pool(isa: Isa, batch: usize, channels: usize, x: &[f32], y: &mut [f32]) {
    assert_eq!(y.len(), batch * channels, "an output of [N, C]");
    let image = whole_rows(x.len(), batch);
    let pixels = whole_rows(image, channels);
    if y.is_empty() {
        return;
    }
    if image == 0 {
        return y.fill(f32::NAN);
    }
    let mean = |y: &mut [f32], totals: Vec<f64>| {
        for (y, total) in y.iter_mut().zip(totals) {
            *y = (total / pixels as f64) as f32;
        }
    };
    if image >= LARGE_IMAGE {
        for (x, y) in x.chunks(image).zip(y.chunks_mut(channels)) {
            mean(y, column_totals(isa, x, channels));
        }
    } else {
        let y = RowsMut { data: y, width: channels };
        for_each_piece(y, (PIECE / image).max(1), |first, y| {
            for (x, y) in x[first * image..].chunks(image).zip(y.data.chunks_mut(channels)) {
                mean(y, isa.dispatch(ColumnTotals { x, channels }));
            }
        });
    }
}

/// Computes `dx[n, pixel, c] = dy[n, c] / pixels` for `dx[N, pixels, C]` and `dy[N, C]`.
///
/// # Panics
/// If a slice does not fit.
pub fn global_avg_pool_backward(isa: Isa, batch: usize, channels: usize, dy: &[f32], dx: &mut [f32]) {
    assert_eq!(dy.len(), batch * channels, "a gradient of [N, C]");
    let image = whole_rows(dx.len(), batch);
    let pixels = whole_rows(image, channels);
    if dx.is_empty() {
        return;
    }
    let dx = RowsMut { data: dx, width: image };
    for_each_piece(dx, (PIECE / image).max(1), |first, dx| {
        for (dx, dy) in dx.data.chunks_mut(image).zip(dy[first * channels..].chunks(channels)) {
            let share: Vec<f32> = dy.iter().map(|dy| dy / pixels as f32).collect();
            update_rows(isa, channels, dx, [], [&share], |_, [], [share]| share);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guarded, assert_close, each_isa, normals, same_on_any_threads};
    use super::*;

    #[test]
    fn global_average_is_the_mean_over_pixels() {
        for isa in each_isa() {
            for (batch, pixels, channels) in
                [(1, 1, 1), (3, 49, 7), (200, 64, 20), (0, 4, 4), (2, 40_000, 16)]
            {
                let x = normals(batch * pixels * channels, 1);
                let dy = normals(batch * channels, 2);
                let mut sums = vec![0.0; dy.len()];
                for (i, &x) in x.iter().enumerate() {
                    sums[i / (pixels * channels) * channels + i % channels] += f64::from(x) / pixels as f64;
                }
                let (mut y, mut dx) = (Guarded::new(dy.len()), Guarded::new(x.len()));
                global_avg_pool(isa, batch, channels, &x, &mut y);
                assert_close(&y, &sums, 1e-6, "mean");
                global_avg_pool_backward(isa, batch, channels, &dy, &mut dx);
                let share = |i: usize| dy[i / (pixels * channels) * channels + i % channels] / pixels as f32;
                assert!((0..x.len()).all(|i| dx[i] == share(i)));
            }
        }
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        for (batch, pixels, channels) in [(40, 100, 24), (2, 40_000, 16)] {
            let x = normals(batch * pixels * channels, 1);
            same_on_any_threads(|| {
                let mut y = vec![0.0; batch * channels];
                global_avg_pool(Isa::active(), batch, channels, &x, &mut y);
                y
            });
        }
    }
}
