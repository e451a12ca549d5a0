//! The maps between pixels and values at points, in one dimension. In two they are applied to the columns of a tile and
//! then to the rows of the result.

use crate::kernels::simd::Simd;

/// The maps of F(OxO, 3x3), from tiles of `I` x `I` inputs.
pub(in super::super) trait Filtering<const I: usize, const O: usize> {
    /// `B^T`.
    type Input: Transform<I, I>;
    /// `A^T`.
    type Output: Transform<I, O>;
    /// `G`.
    type Weight: Transform<3, I>;
}

/// Minimal filtering.
pub(in super::super) struct F;

impl Filtering<6, 4> for F {
    type Input = Input;
    type Output = Output;
    type Weight = Weight;
}

impl Filtering<4, 2> for F {
    type Input = Input;
    type Output = Output;
    type Weight = Weight;
}

/// A matrix of `O` rows times a column of `I` vectors.
pub(in super::super) trait Transform<const I: usize, const O: usize> {
    /// The product.
    fn apply<S: Simd>(simd: S, x: [S::Vector; I]) -> [S::Vector; O];
}

/// `B^T`: inputs to their values at the points.
pub(in super::super) struct Input;

impl Transform<6, 6> for Input {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, d: [S::Vector; 6]) -> [S::Vector; 6] {
        let (two, four) = (simd.splat(2.0), simd.splat(4.0));
        let (minus_four, minus_five) = (simd.splat(-4.0), simd.splat(-5.0));
        let even = simd.mul_add(minus_four, d[2], d[4]);
        let odd = simd.mul_add(minus_four, d[1], d[3]);
        let even_at_two = simd.sub(d[4], d[2]);
        let odd_at_two = simd.mul(two, simd.sub(d[3], d[1]));
        [
            simd.mul_add(four, d[0], simd.mul_add(minus_five, d[2], d[4])),
            simd.add(even, odd),
            simd.sub(even, odd),
            simd.add(even_at_two, odd_at_two),
            simd.sub(even_at_two, odd_at_two),
            simd.mul_add(four, d[1], simd.mul_add(minus_five, d[3], d[5])),
        ]
    }
}

impl Transform<4, 4> for Input {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, d: [S::Vector; 4]) -> [S::Vector; 4] {
        [simd.sub(d[0], d[2]), simd.add(d[1], d[2]), simd.sub(d[2], d[1]), simd.sub(d[1], d[3])]
    }
}

/// `A^T`: values at the points to outputs.
pub(in super::super) struct Output;

impl Transform<6, 4> for Output {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, m: [S::Vector; 6]) -> [S::Vector; 4] {
        let (two, four, eight) = (simd.splat(2.0), simd.splat(4.0), simd.splat(8.0));
        let (sum, difference) = (simd.add(m[1], m[2]), simd.sub(m[1], m[2]));
        let (sum_at_two, difference_at_two) = (simd.add(m[3], m[4]), simd.sub(m[3], m[4]));
        [
            simd.add(m[0], simd.add(sum, sum_at_two)),
            simd.mul_add(two, difference_at_two, difference),
            simd.mul_add(four, sum_at_two, sum),
            simd.add(simd.mul_add(eight, difference_at_two, difference), m[5]),
        ]
    }
}

impl Transform<4, 2> for Output {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, m: [S::Vector; 4]) -> [S::Vector; 2] {
        [simd.add(m[0], simd.add(m[1], m[2])), simd.sub(simd.sub(m[1], m[2]), m[3])]
    }
}

/// `G`: three taps to their values at the points.
pub(in super::super) struct Weight;

impl Transform<3, 6> for Weight {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, g: [S::Vector; 3]) -> [S::Vector; 6] {
        let (quarter, minus_sixth) = (simd.splat(0.25), simd.splat(-1.0 / 6.0));
        let (twenty_fourth, twelfth, sixth) =
            (simd.splat(1.0 / 24.0), simd.splat(1.0 / 12.0), simd.splat(1.0 / 6.0));
        let even = simd.mul(minus_sixth, simd.add(g[0], g[2]));
        let odd = simd.mul(minus_sixth, g[1]);
        let even_at_two = simd.mul_add(twenty_fourth, g[0], simd.mul(sixth, g[2]));
        let odd_at_two = simd.mul(twelfth, g[1]);
        [
            simd.mul(quarter, g[0]),
            simd.add(even, odd),
            simd.sub(even, odd),
            simd.add(even_at_two, odd_at_two),
            simd.sub(even_at_two, odd_at_two),
            g[2],
        ]
    }
}

impl Transform<3, 4> for Weight {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, g: [S::Vector; 3]) -> [S::Vector; 4] {
        let half = simd.splat(0.5);
        let (even, odd) = (simd.mul(half, simd.add(g[0], g[2])), simd.mul(half, g[1]));
        [g[0], simd.add(even, odd), simd.sub(even, odd), g[2]]
    }
}

/// `A`: the gradients of four outputs to those of their values at the points.
pub(super) struct OutputGradient;

impl Transform<4, 6> for OutputGradient {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, d: [S::Vector; 4]) -> [S::Vector; 6] {
        let (two, four, eight) = (simd.splat(2.0), simd.splat(4.0), simd.splat(8.0));
        let (even, odd) = (simd.add(d[0], d[2]), simd.add(d[1], d[3]));
        let even_at_two = simd.mul_add(four, d[2], d[0]);
        let odd_at_two = simd.mul_add(eight, d[3], simd.mul(two, d[1]));
        [
            d[0],
            simd.add(even, odd),
            simd.sub(even, odd),
            simd.add(even_at_two, odd_at_two),
            simd.sub(even_at_two, odd_at_two),
            d[3],
        ]
    }
}

/// `G^T`: the gradients of the values at the points to those of three taps.
pub(super) struct WeightGradient;

impl Transform<6, 3> for WeightGradient {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, p: [S::Vector; 6]) -> [S::Vector; 3] {
        let (quarter, sixth, minus_sixth) = (simd.splat(0.25), simd.splat(1.0 / 6.0), simd.splat(-1.0 / 6.0));
        let (twelfth, twenty_fourth) = (simd.splat(1.0 / 12.0), simd.splat(1.0 / 24.0));
        let (sum, difference) = (simd.add(p[1], p[2]), simd.sub(p[2], p[1]));
        let (sum_at_two, difference_at_two) = (simd.add(p[3], p[4]), simd.sub(p[3], p[4]));
        let inner = simd.mul(minus_sixth, sum);
        [
            simd.mul_add(quarter, p[0], simd.mul_add(twenty_fourth, sum_at_two, inner)),
            simd.mul_add(sixth, difference, simd.mul(twelfth, difference_at_two)),
            simd.add(simd.mul_add(sixth, sum_at_two, inner), p[5]),
        ]
    }
}
