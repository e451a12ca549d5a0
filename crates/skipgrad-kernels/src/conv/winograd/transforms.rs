//! The maps between pixels and values at points, in one dimension. In two dimensions they are
//! applied to the columns of a tile and then to the rows of the result.

use crate::simd::Simd;

/// The points of F(4x4, 3x3) are 0, these two, of which each is one divided by the other, their
/// negatives, and infinity.
const NEAR: f32 = 2.0 / 3.0;
const FAR: f32 = 3.0 / 2.0;
/// Their squares.
const NEAR_2: f32 = 4.0 / 9.0;
const FAR_2: f32 = 9.0 / 4.0;

/// The maps of F(OxO, 3x3), from tiles of `I` x `I` inputs.
pub(in super::super) trait Filtering<const I: usize, const O: usize> {
    /// The map `B^T`.
    type Inputs: Transform<I, I>;
    /// The map `A^T`.
    type Outputs: Transform<I, O>;
    /// The map `G`.
    type Weights: Transform<3, I>;
}

/// The algorithms F(4x4, 3x3) and F(2x2, 3x3) of minimal filtering.
pub(in super::super) struct F;

impl Filtering<6, 4> for F {
    type Inputs = InputTransform;
    type Outputs = OutputTransform;
    type Weights = WeightTransform;
}

impl Filtering<4, 2> for F {
    type Inputs = InputTransform;
    type Outputs = OutputTransform;
    type Weights = WeightTransform;
}

/// A matrix of `O` rows times a column of `I` vectors.
pub(in super::super) trait Transform<const I: usize, const O: usize> {
    /// Returns the product.
    fn apply<S: Simd>(simd: S, x: [S::Vector; I]) -> [S::Vector; O];
}

/// The map `B^T` from inputs to their values at the points.
pub(in super::super) struct InputTransform;

impl Transform<6, 6> for InputTransform {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, d: [S::Vector; 6]) -> [S::Vector; 6] {
        let (near, minus_near, far, minus_far) =
            (simd.splat(NEAR), simd.splat(-NEAR), simd.splat(FAR), simd.splat(-FAR));
        let (minus_near_2, minus_far_2) = (simd.splat(-NEAR_2), simd.splat(-FAR_2));
        let minus_both_2 = simd.splat(-97.0 / 36.0);
        let even_near = simd.mul_add(minus_far_2, d[2], d[4]);
        let odd_near = simd.mul_add(minus_far_2, d[1], d[3]);
        let even_far = simd.mul_add(minus_near_2, d[2], d[4]);
        let odd_far = simd.mul_add(minus_near_2, d[1], d[3]);
        [
            simd.mul_add(minus_both_2, d[2], simd.add(d[0], d[4])),
            simd.mul_add(near, odd_near, even_near),
            simd.mul_add(minus_near, odd_near, even_near),
            simd.mul_add(far, odd_far, even_far),
            simd.mul_add(minus_far, odd_far, even_far),
            simd.mul_add(minus_both_2, d[3], simd.add(d[1], d[5])),
        ]
    }
}

impl Transform<4, 4> for InputTransform {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, d: [S::Vector; 4]) -> [S::Vector; 4] {
        [simd.sub(d[0], d[2]), simd.add(d[1], d[2]), simd.sub(d[2], d[1]), simd.sub(d[1], d[3])]
    }
}

/// The map `A^T` from values at the points to outputs.
pub(in super::super) struct OutputTransform;

impl Transform<6, 4> for OutputTransform {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, m: [S::Vector; 6]) -> [S::Vector; 4] {
        let (near, near_2) = (simd.splat(NEAR), simd.splat(NEAR_2));
        let far = simd.splat(FAR);
        let (sum_near, difference_near) = (simd.add(m[1], m[2]), simd.sub(m[1], m[2]));
        let (sum_far, difference_far) = (simd.add(m[3], m[4]), simd.sub(m[3], m[4]));
        [
            simd.mul_add(far, sum_near, simd.mul_add(near_2, sum_far, m[0])),
            simd.mul_add(near, difference_far, difference_near),
            simd.mul_add(near, sum_near, sum_far),
            simd.mul_add(far, difference_far, simd.mul_add(near_2, difference_near, m[5])),
        ]
    }
}

impl Transform<4, 2> for OutputTransform {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, m: [S::Vector; 4]) -> [S::Vector; 2] {
        [simd.add(m[0], simd.add(m[1], m[2])), simd.sub(simd.sub(m[1], m[2]), m[3])]
    }
}

/// The map `G` from three taps to their values at the points.
pub(in super::super) struct WeightTransform;

impl Transform<3, 6> for WeightTransform {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, g: [S::Vector; 3]) -> [S::Vector; 6] {
        let even_near =
            simd.mul_add(simd.splat(-12.0 / 65.0), g[2], simd.mul(simd.splat(-27.0 / 65.0), g[0]));
        let odd_near = simd.mul(simd.splat(-18.0 / 65.0), g[1]);
        let even_far = simd.mul_add(simd.splat(81.0 / 130.0), g[2], simd.mul(simd.splat(18.0 / 65.0), g[0]));
        let odd_far = simd.mul(simd.splat(27.0 / 65.0), g[1]);
        [
            g[0],
            simd.add(even_near, odd_near),
            simd.sub(even_near, odd_near),
            simd.add(even_far, odd_far),
            simd.sub(even_far, odd_far),
            g[2],
        ]
    }
}

impl Transform<3, 4> for WeightTransform {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, g: [S::Vector; 3]) -> [S::Vector; 4] {
        let half = simd.splat(0.5);
        let (even, odd) = (simd.mul(half, simd.add(g[0], g[2])), simd.mul(half, g[1]));
        [g[0], simd.add(even, odd), simd.sub(even, odd), g[2]]
    }
}

/// The map `A`, of which a row is 1, p, p^2, p^3 here, from the gradients of four outputs to those
/// of their values at the points p.
pub(super) struct OutputGradientTransform;

impl Transform<4, 6> for OutputGradientTransform {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, d: [S::Vector; 4]) -> [S::Vector; 6] {
        let (near, minus_near, far, minus_far) =
            (simd.splat(NEAR), simd.splat(-NEAR), simd.splat(FAR), simd.splat(-FAR));
        let (near_2, far_2) = (simd.splat(NEAR_2), simd.splat(FAR_2));
        let (even_near, odd_near) = (simd.mul_add(near_2, d[2], d[0]), simd.mul_add(near_2, d[3], d[1]));
        let (even_far, odd_far) = (simd.mul_add(far_2, d[2], d[0]), simd.mul_add(far_2, d[3], d[1]));
        [
            d[0],
            simd.mul_add(near, odd_near, even_near),
            simd.mul_add(minus_near, odd_near, even_near),
            simd.mul_add(far, odd_far, even_far),
            simd.mul_add(minus_far, odd_far, even_far),
            d[3],
        ]
    }
}

/// The map `G^T`, with the factors that [`OutputGradientTransform`] leaves out, from the gradients
/// of the values at the points to those of three taps.
pub(super) struct WeightGradientTransform;

impl Transform<6, 3> for WeightGradientTransform {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, p: [S::Vector; 6]) -> [S::Vector; 3] {
        let (sum_near, difference_near) = (simd.add(p[1], p[2]), simd.sub(p[1], p[2]));
        let (sum_far, difference_far) = (simd.add(p[3], p[4]), simd.sub(p[3], p[4]));
        let at_zero = simd.mul_add(simd.splat(8.0 / 65.0), sum_far, p[0]);
        let at_infinity = simd.mul_add(simd.splat(18.0 / 65.0), sum_far, p[5]);
        let middle = simd.mul(simd.splat(12.0 / 65.0), difference_far);
        [
            simd.mul_add(simd.splat(-81.0 / 130.0), sum_near, at_zero),
            simd.mul_add(simd.splat(-27.0 / 65.0), difference_near, middle),
            simd.mul_add(simd.splat(-18.0 / 65.0), sum_near, at_infinity),
        ]
    }
}
