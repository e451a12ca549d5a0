//! Every pooling, on every instruction set, against plain loops.

use super::*;
use crate::Isa;
use crate::testing::{Guarded, assert_close, each_isa, normals, same_on_any_threads};

fn pools() -> Vec<Pool2d> {
    let mut pools = Vec::new();
    for channels in [1, 3, 7, 8, 16, 24, 33] {
        for (height, width) in [(1, 1), (5, 7), (8, 8), (9, 4)] {
            for (kernel, stride, padding) in [
                ([1, 1], [1, 1], [[0, 0], [0, 0]]),
                ([2, 2], [2, 2], [[0, 0], [0, 0]]),
                ([3, 3], [2, 2], [[1, 1], [1, 1]]),
                ([3, 2], [1, 3], [[1, 0], [0, 1]]),
                ([2, 5], [3, 1], [[0, 3], [2, 2]]),
                ([2, 2], [1, 1], [[3, 3], [3, 3]]),
            ] {
                pools.push(Pool2d { batch: 2, height, width, channels, kernel, stride, padding });
            }
        }
    }
    pools
}

/// Calls `f(output, position, input)` for every pair of elements where the window of the output
/// contains the input, in the order of the window.
fn for_each_pair(pool: &Pool2d, mut f: impl FnMut(usize, usize, usize)) {
    let p = pool;
    for n in 0..p.batch {
        for oh in 0..p.out_height() {
            for ow in 0..p.out_width() {
                for position in 0..p.kernel[0] * p.kernel[1] {
                    let h = (oh * p.stride[0] + position / p.kernel[1]).wrapping_sub(p.padding[0][0]);
                    let w = (ow * p.stride[1] + position % p.kernel[1]).wrapping_sub(p.padding[1][0]);
                    if h < p.height && w < p.width {
                        for c in 0..p.channels {
                            let y = ((n * p.out_height() + oh) * p.out_width() + ow) * p.channels + c;
                            let x = ((n * p.height + h) * p.width + w) * p.channels + c;
                            f(y, position, x);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn max_pool_is_the_first_largest_of_each_window_and_its_gradient_goes_there() {
    for isa in each_isa() {
        for pool in pools() {
            // Small integers make many elements equal.
            let x: Vec<f32> = normals(pool.input_len(), 1).into_iter().map(f32::round).collect();
            let dy = normals(pool.output_len(), 2);
            let mut best = vec![(f32::NEG_INFINITY, u16::MAX, 0); dy.len()];
            for_each_pair(&pool, |y, position, i| {
                if x[i] > best[y].0 {
                    best[y] = (x[i], position as u16, i);
                }
            });
            let mut gradient = vec![0.0; x.len()];
            for (&(_, position, i), &dy) in best.iter().zip(&dy) {
                if position < u16::MAX {
                    gradient[i] += f64::from(dy);
                }
            }
            let (mut y, mut argmax) = (Guarded::new(dy.len()), vec![7; dy.len()]);
            max_pool2d(isa, &pool, &x, &mut y, Some(&mut argmax));
            for (o, &(value, position, _)) in best.iter().enumerate() {
                assert_eq!(y[o], value, "{isa:?} {pool:?}");
                assert!(position == u16::MAX || argmax[o] == position, "{isa:?} {pool:?}");
            }
            let mut again = Guarded::new(dy.len());
            max_pool2d(isa, &pool, &x, &mut again, None);
            assert_eq!(y[..], again[..]);
            let mut dx = Guarded::new(x.len());
            max_pool2d_backward(isa, &pool, &argmax, &dy, &mut dx);
            assert_close(&dx, &gradient, 1e-6, "max gradient");
        }
    }
}

#[test]
fn average_pool_is_the_mean_of_each_window_and_its_gradient_is_shared() {
    for isa in each_isa() {
        for pool in pools() {
            for count_include_pad in [false, true] {
                let x = normals(pool.input_len(), 1);
                let dy = normals(pool.output_len(), 2);
                let (mut sums, mut counts) = (vec![0.0; dy.len()], vec![0.0f64; dy.len()]);
                for_each_pair(&pool, |y, _, i| {
                    sums[y] += f64::from(x[i]);
                    counts[y] += 1.0;
                });
                for count in &mut counts {
                    let full = (pool.kernel[0] * pool.kernel[1]) as f64;
                    *count = if count_include_pad { full } else { count.max(1.0) };
                }
                let means: Vec<f64> = sums.iter().zip(&counts).map(|(sum, count)| sum / count).collect();
                let mut gradient = vec![0.0; x.len()];
                for_each_pair(&pool, |y, _, i| gradient[i] += f64::from(dy[y]) / counts[y]);

                let (mut y, mut dx) = (Guarded::new(dy.len()), Guarded::new(x.len()));
                avg_pool2d(isa, &pool, count_include_pad, &x, &mut y);
                assert_close(&y, &means, 1e-6, "mean");
                avg_pool2d_backward(isa, &pool, count_include_pad, &dy, &mut dx);
                assert_close(&dx, &gradient, 1e-6, "mean gradient");
            }
        }
    }
}

#[test]
fn nan_is_larger_than_any_number_and_a_window_of_infinities_has_a_position() {
    let pool = Pool2d {
        batch: 1,
        height: 1,
        width: 4,
        channels: 1,
        kernel: [1, 2],
        stride: [1, 2],
        padding: [[0, 0]; 2],
    };
    for isa in each_isa() {
        let (mut y, mut argmax) = ([0.0; 2], [9; 2]);
        let x = [f32::NEG_INFINITY, f32::NEG_INFINITY, f32::NAN, 1.0];
        max_pool2d(isa, &pool, &x, &mut y, Some(&mut argmax));
        assert!(y[0] == f32::NEG_INFINITY && y[1].is_nan());
        assert_eq!(argmax, [0, 0]);
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let pool = Pool2d {
        batch: 5,
        height: 40,
        width: 40,
        channels: 24,
        kernel: [3, 3],
        stride: [2, 2],
        padding: [[1, 1]; 2],
    };
    let x = normals(pool.input_len(), 1);
    let isa = Isa::active();
    same_on_any_threads(|| {
        let (mut y, mut argmax) = (vec![0.0; pool.output_len()], vec![0; pool.output_len()]);
        let mut dx = vec![0.0; x.len()];
        max_pool2d(isa, &pool, &x, &mut y, Some(&mut argmax));
        max_pool2d_backward(isa, &pool, &argmax, &y, &mut dx);
        [y, dx].concat()
    });
}
