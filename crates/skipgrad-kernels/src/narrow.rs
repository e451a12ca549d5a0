//! Products of a few rows, such as the classifier's of one image: every number of B is used so seldom that packing it would
//! be most of the work. B is read once, as it lies.
//!
//! ```text
//! for each part of the columns                                     in parallel
//!   for each k, four at a time
//!     for each row:  sums[row] += A[row, k] * B[k, columns]        the sums stay in the first-level cache
//! ```

use super::simd::Simd;
use super::{Isa, Task};
use rayon::prelude::*;

/// Most rows: with more of them, packed tiles are faster.
pub(super) const ROWS: usize = 4;
/// Columns of a part: a few cache lines of every row of B.
const COLUMNS: usize = 128;
/// Rows of B that are added at once.
const STEPS: usize = 4;

/// C `[m, n]` of A `[m, k]` and B `[k, n]`, where m is at most [`ROWS`]; rows of A and C are contiguous and so far apart as said,
/// those of B one behind the other.
pub(super) fn product(
    isa: Isa,
    [m, n, k]: [usize; 3],
    a: (&[f32], usize),
    b: &[f32],
    c: (&mut [f32], usize),
) {
    assert!(m <= ROWS && b.len() >= k * n, "B is too short");
    let (c, c_row) = c;
    let parts: Vec<(usize, [f32; ROWS * COLUMNS])> = (0..n)
        .into_par_iter()
        .step_by(COLUMNS)
        .map(|column| (column, isa.dispatch(Part { a: a.0, a_row: a.1, b, sizes: [m, n, k], column })))
        .collect();
    for (column, sums) in parts {
        let width = COLUMNS.min(n - column);
        for row in 0..m {
            c[row * c_row + column..][..width].copy_from_slice(&sums[row * COLUMNS..][..width]);
        }
    }
}

/// The sums of some columns, row after row.
struct Part<'a> {
    a: &'a [f32],
    a_row: usize,
    b: &'a [f32],
    sizes: [usize; 3],
    column: usize,
}

impl Task for Part<'_> {
    type Output = [f32; ROWS * COLUMNS];

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> [f32; ROWS * COLUMNS] {
        let Part { a, a_row, b, sizes: [m, n, k], column } = self;
        let width = COLUMNS.min(n - column);
        let mut sums = [0.0; ROWS * COLUMNS];
        let b_rows = |k: usize| &b[k * n + column..][..width];
        let whole = k / STEPS * STEPS;
        for k in (0..whole).step_by(STEPS) {
            let [b0, b1, b2, b3] = [b_rows(k), b_rows(k + 1), b_rows(k + 2), b_rows(k + 3)];
            for row in 0..m {
                let a = &a[row * a_row + k..][..STEPS];
                let sums = &mut sums[row * COLUMNS..][..width];
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum += (a[0] * b0[i] + a[1] * b1[i]) + (a[2] * b2[i] + a[3] * b3[i]);
                }
            }
        }
        for k in whole..k {
            for row in 0..m {
                let x = a[row * a_row + k];
                let sums = &mut sums[row * COLUMNS..][..width];
                sums.iter_mut().zip(b_rows(k)).for_each(|(sum, b)| *sum += x * b);
            }
        }
        sums
    }
}
