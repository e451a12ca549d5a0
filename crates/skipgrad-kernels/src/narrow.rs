//! Products of a few rows, such as the classifier's of one image: every element of B is used so
//! seldom that packing it would be most of the work. B is read once, where it lies.
//!
//! ```text
//! for each part of the columns                                     in parallel
//!   for each k, four at a time
//!     for each row:  sums[row] += A[row, k] * B[k, columns]     the sums stay in the L1 cache
//! ```

use super::simd::Simd;
use super::{Isa, Task};
use rayon::prelude::*;

/// The most rows: with more of them, packed tiles are faster.
pub(super) const MAX_ROWS: usize = 4;
/// The columns of a task: a few cache lines of every row of B.
const TASK_COLUMNS: usize = 128;
/// The rows of B that are added at once.
const UNROLL: usize = 4;

/// Computes C `[m, n]` from A `[m, k]` and B `[k, n]`, where m is at most [`MAX_ROWS`]. A and C
/// come with the elements from one row to the next; rows of B are contiguous.
pub(super) fn product(
    isa: Isa,
    [m, n, k]: [usize; 3],
    a: (&[f32], usize),
    b: &[f32],
    c: (&mut [f32], usize),
) {
    assert!(m <= MAX_ROWS && b.len() >= k * n, "B is too short");
    let (c, c_row) = c;
    let parts: Vec<(usize, [f32; MAX_ROWS * TASK_COLUMNS])> = (0..n)
        .into_par_iter()
        .step_by(TASK_COLUMNS)
        .map(|column| (column, isa.dispatch(ColumnsTask { a: a.0, a_row: a.1, b, sizes: [m, n, k], column })))
        .collect();
    for (column, sums) in parts {
        let width = TASK_COLUMNS.min(n - column);
        for row in 0..m {
            c[row * c_row + column..][..width].copy_from_slice(&sums[row * TASK_COLUMNS..][..width]);
        }
    }
}

/// Computes the sums of some columns, row after row.
struct ColumnsTask<'a> {
    a: &'a [f32],
    a_row: usize,
    b: &'a [f32],
    sizes: [usize; 3],
    column: usize,
}

impl Task for ColumnsTask<'_> {
    type Output = [f32; MAX_ROWS * TASK_COLUMNS];

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> [f32; MAX_ROWS * TASK_COLUMNS] {
        let ColumnsTask { a, a_row, b, sizes: [m, n, k], column } = self;
        let width = TASK_COLUMNS.min(n - column);
        let mut sums = [0.0; MAX_ROWS * TASK_COLUMNS];
        let b_rows = |k: usize| &b[k * n + column..][..width];
        let whole = k / UNROLL * UNROLL;
        for k in (0..whole).step_by(UNROLL) {
            let [b0, b1, b2, b3] = [b_rows(k), b_rows(k + 1), b_rows(k + 2), b_rows(k + 3)];
            for row in 0..m {
                let a = &a[row * a_row + k..][..UNROLL];
                let sums = &mut sums[row * TASK_COLUMNS..][..width];
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum += (a[0] * b0[i] + a[1] * b1[i]) + (a[2] * b2[i] + a[3] * b3[i]);
                }
            }
        }
        for k in whole..k {
            for row in 0..m {
                let x = a[row * a_row + k];
                let sums = &mut sums[row * TASK_COLUMNS..][..width];
                sums.iter_mut().zip(b_rows(k)).for_each(|(sum, b)| *sum += x * b);
            }
        }
        sums
    }
}
