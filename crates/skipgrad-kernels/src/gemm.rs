//! Matrix products of strided operands.

use super::grid::Grid;
use super::microkernel::Beta;
use super::pack::{BOperand, UnpackedB};
use super::panel::{DepthMajor, Layout, RowMajor};
use super::product::{AOperand, Product};
use super::{Isa, narrow};
use std::ops::Range;

/// The sizes and strides of a product: `C[m, n] = sum over k of A[m, k] * B[k, n]`.
///
/// Element `A[i, j]` is `a[i * a_row + j * a_column]`, likewise B; rows of C are contiguous and
/// `c_row` apart. A transposed operand is one with its strides exchanged, see
/// [`Gemm::transpose_a`].
#[derive(Clone, Copy, Debug)]
pub struct Gemm {
    /// Number of rows of A and C.
    pub m: usize,
    /// Number of columns of B and C.
    pub n: usize,
    /// Number of columns of A and rows of B.
    pub k: usize,
    /// Elements from one row of A to the next.
    pub a_row: usize,
    /// Elements from one column of A to the next.
    pub a_column: usize,
    /// Elements from one row of B to the next.
    pub b_row: usize,
    /// Elements from one column of B to the next.
    pub b_column: usize,
    /// Elements from one row of C to the next, `n` or more.
    pub c_row: usize,
    /// Whether the product is added to C instead of overwriting it.
    pub accumulate: bool,
}

impl Gemm {
    /// Describes three contiguous row-major matrices, A `[m, k]`, B `[k, n]` and C `[m, n]`, the
    /// last of which is overwritten.
    pub fn new(m: usize, n: usize, k: usize) -> Gemm {
        Gemm { m, n, k, a_row: k, a_column: 1, b_row: n, b_column: 1, c_row: n, accumulate: false }
    }

    /// Reads A from its transpose, `[k, m]` contiguous.
    pub fn transpose_a(self) -> Gemm {
        Gemm { a_row: 1, a_column: self.m, ..self }
    }

    /// Reads B from its transpose, `[n, k]` contiguous.
    pub fn transpose_b(self) -> Gemm {
        Gemm { b_row: 1, b_column: self.k, ..self }
    }

    /// Adds the product to C instead of overwriting it.
    pub fn accumulate(self) -> Gemm {
        Gemm { accumulate: true, ..self }
    }
}

/// Multiplies matrices: `C = A * B`, or `C += A * B`, in the caller's rayon pool.
///
/// With x `[N, in]`, w `[in, out]` and y `[N, out]`, a linear layer is `Gemm::new(N, out, in)` of x
/// and w, its input gradient `Gemm::new(N, in, out).transpose_b()` of dy and w, its weight gradient
/// `Gemm::new(in, out, N).transpose_a()` of x and dy.
///
/// # Panics
/// If a slice is too short for its sizes and strides, or rows of C overlap.
///
/// ```
/// use skipgrad_kernels::{Gemm, Isa, gemm};
/// let (a, b) = ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0]); // [2, 2] and [2, 1]
/// let mut c = [0.0; 2];
/// gemm(Isa::active(), Gemm::new(2, 1, 2), &a, &b, &mut c);
/// assert_eq!(c, [17.0, 39.0]);
/// gemm(Isa::active(), Gemm::new(2, 1, 2).transpose_a().accumulate(), &a, &b, &mut c);
/// assert_eq!(c, [17.0 + 23.0, 39.0 + 34.0]);
/// ```
pub fn gemm(isa: Isa, sizes: Gemm, a: &[f32], b: &[f32], c: &mut [f32]) {
    let Gemm { m, n, k, a_row, a_column, b_row, b_column, c_row, accumulate } = sizes;
    if m <= narrow::MAX_ROWS && [a_column, b_column, b_row] == [1, 1, n] && !accumulate && c_row >= n {
        return narrow::product(isa, [m, n, k], (a, a_row), b, (c, c_row));
    }
    let a = Matrix { data: a, row: a_row, column: a_column };
    let b = BOperand::Unpacked(UnpackedB::matrix(b, k, b_row, b_column));
    let grid = Grid::matrix(m, c_row);
    let beta = if accumulate { Beta::One } else { Beta::Zero };
    if a_row == 1 && a_column != 1 {
        Product::new(Transposed(a), b, grid, [k, n]).beta(beta).compute(isa, c);
    } else {
        Product::new(a, b, grid, [k, n]).beta(beta).compute(isa, c);
    }
}

/// A strided matrix as the left operand, whose rows are copied to rows of the panel.
struct Matrix<'a> {
    data: &'a [f32],
    row: usize,
    column: usize,
}

impl AOperand for Matrix<'_> {
    type Layout = RowMajor;

    fn pack(&self, _: Isa, rows: Range<usize>, depth: Range<usize>, panel: &mut [f32]) {
        for (row, to) in rows.zip(panel.chunks_exact_mut(RowMajor::PITCH)) {
            let to = &mut to[..depth.len()];
            let from = row * self.row;
            if self.column == 1 {
                to.copy_from_slice(&self.data[from + depth.start..from + depth.end]);
            } else {
                for (k, to) in depth.clone().zip(to) {
                    *to = self.data[from + k * self.column];
                }
            }
        }
    }

    fn in_place(&self, rows: Range<usize>, depth: Range<usize>) -> Option<(&[f32], usize)> {
        (self.column == 1).then(|| (&self.data[rows.start * self.row + depth.start..], self.row))
    }
}

/// A matrix whose columns are contiguous, and are copied to rows of the panel.
struct Transposed<'a>(Matrix<'a>);

impl AOperand for Transposed<'_> {
    type Layout = DepthMajor;

    fn pack(&self, _: Isa, rows: Range<usize>, depth: Range<usize>, panel: &mut [f32]) {
        for (k, to) in depth.zip(panel.chunks_exact_mut(DepthMajor::PITCH)) {
            let from = k * self.0.column;
            to[..rows.len()].copy_from_slice(&self.0.data[from + rows.start..from + rows.end]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naive::{ExpectedSum, assert_sums, matmul};
    use crate::testing::{Guarded, each_isa};
    use proptest::prelude::*;

    /// Compares one product, in all transpositions, with the oracle.
    fn check(m: usize, n: usize, k: usize) {
        let (a, b) = (Guarded::uniform(m * k, 1), Guarded::uniform(k * n, 2));
        let plain = Gemm::new(m, n, k);
        for sizes in [plain, plain.transpose_a(), plain.transpose_b(), plain.transpose_a().transpose_b()] {
            let want = matmul(&sizes, &a, &b);
            let more: Vec<_> = want
                .iter()
                .map(|sum| ExpectedSum { value: sum.value + 1.0, magnitude: sum.magnitude + 1.0 })
                .collect();
            for isa in each_isa() {
                let mut c = Guarded::new(m * n);
                gemm(isa, sizes, &a, &b, &mut c);
                assert_sums(&c, &want, k, &(isa, sizes));
                let mut c = Guarded::filled(m * n, 1.0);
                gemm(isa, sizes.accumulate(), &a, &b, &mut c);
                assert_sums(&c, &more, k + 1, &(isa, sizes));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_gemm_is_as_the_oracle_says(m in 0..130usize, n in 0..150usize, k in 0..120usize) {
            check(m, n, k);
        }
    }

    #[test]
    fn every_remainder_of_the_tile_is_as_the_oracle_says() {
        for m in 1..=29 {
            for n in [1, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 41] {
                check(m, n, 3);
            }
        }
        for n in 1..=70 {
            check(5, n, 2);
        }
    }

    #[test]
    fn every_depth_is_as_the_oracle_says() {
        for k in (0..40).chain([111, 112, 113, 255, 256, 257, 512, 513]) {
            check(7, 19, k);
        }
    }

    #[test]
    fn sizes_beyond_one_block_are_as_the_oracle_says() {
        check(230, 300, 70);
        check(113, 17, 300);
        check(300, 130, 12);
        check(20, 10, 5000);
        check(1, 1000, 40);
        check(0, 3, 2);
        check(3, 0, 2);
    }

    #[test]
    fn rows_of_a_wider_matrix_are_written_in_place() {
        let (a, b) = (Guarded::uniform(9 * 4, 1), Guarded::uniform(4 * 5, 2));
        let want = matmul(&Gemm::new(9, 5, 4), &a, &b);
        let mut c = Guarded::filled(9 * 8, 7.0);
        gemm(Isa::active(), Gemm { c_row: 8, ..Gemm::new(9, 5, 4) }, &a, &b, &mut c[..69]);
        for (row, want) in c.chunks_exact(8).zip(want.chunks_exact(5)) {
            assert_sums(&row[..5], want, 4, &"wide");
            assert_eq!(row[5..], [7.0; 3]);
        }
    }

    #[test]
    fn strides_may_skip_elements() {
        let (a, b) = (Guarded::uniform(6 * 8, 1), Guarded::uniform(4 * 15, 2));
        let sizes = Gemm { a_row: 8, a_column: 2, b_row: 15, b_column: 3, ..Gemm::new(6, 5, 4) };
        let mut c = Guarded::new(30);
        gemm(Isa::active(), sizes, &a, &b, &mut c);
        assert_sums(&c, &matmul(&sizes, &a, &b), 4, &sizes);
    }

    #[test]
    #[should_panic(expected = "B is too short")]
    fn a_short_operand_is_refused() {
        gemm(Isa::Portable, Gemm::new(2, 2, 2), &[0.0; 4], &[0.0; 3], &mut [0.0; 4]);
    }

    #[test]
    #[should_panic(expected = "rows of C overlap")]
    fn overlapping_rows_are_refused() {
        gemm(Isa::Portable, Gemm { c_row: 1, ..Gemm::new(2, 2, 2) }, &[0.0; 4], &[0.0; 4], &mut [0.0; 4]);
    }
}
