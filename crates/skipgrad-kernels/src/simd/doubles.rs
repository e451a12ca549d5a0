//! Test doubles of AVX-512 and NEON: their lanes and tiles, computed with AVX2. So everything that
//! depends on the number of lanes and the size of the tile (remainders, whole vectors written after
//! a row, the size of tasks) is tested on machines with neither; only the few instructions that
//! `simd!` names remain untested there.

use super::Simd;
use std::arch::x86_64::*;

simd! {
    /// The token of four lanes, as NEON has them.
    FourLanes: __m128, lanes 4, tile 8 x 3, if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    splat _mm_set1_ps; add _mm_add_ps; sub _mm_sub_ps; mul _mm_mul_ps;
    mul_add |a, b, c| _mm_fmadd_ps(a, b, c);
    relu_backward |y, x| _mm_andnot_ps(_mm_cmple_ps(y, _mm_setzero_ps()), x);
    load _mm_loadu_ps; store _mm_storeu_ps
}

simd! {
    /// The token of sixteen lanes, as AVX-512 has them.
    SixteenLanes: [__m256; 2], lanes 16, tile 14 x 2, if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    splat twice::splat; add twice::add; sub twice::sub; mul twice::mul;
    mul_add |a, b, c| [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])];
    relu_backward |y, x| [twice::relu_backward(y[0], x[0]), twice::relu_backward(y[1], x[1])];
    load twice::load; store twice::store
}

/// Instructions of AVX2 on two vectors. Each is safe to call only for the holder of a token, as the
/// methods of `Simd` are.
mod twice {
    use std::arch::x86_64::*;

    #[inline(always)]
    pub(super) unsafe fn splat(x: f32) -> [__m256; 2] {
        // SAFETY: the caller holds a token.
        unsafe { [_mm256_set1_ps(x); 2] }
    }
    #[inline(always)]
    pub(super) unsafe fn add(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: the caller holds a token.
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }
    #[inline(always)]
    pub(super) unsafe fn sub(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: the caller holds a token.
        unsafe { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
    }
    #[inline(always)]
    pub(super) unsafe fn mul(a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: the caller holds a token.
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }
    #[inline(always)]
    pub(super) unsafe fn relu_backward(y: __m256, x: __m256) -> __m256 {
        // SAFETY: the caller holds a token.
        unsafe { _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LE_OQ>(y, _mm256_setzero_ps()), x) }
    }
    #[inline(always)]
    pub(super) unsafe fn load(p: *const f32) -> [__m256; 2] {
        // SAFETY: the caller holds a token, and guarantees 16 readable elements.
        unsafe { [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))] }
    }
    #[inline(always)]
    pub(super) unsafe fn store(p: *mut f32, a: [__m256; 2]) {
        // SAFETY: the caller holds a token, and guarantees 16 writable elements.
        unsafe {
            _mm256_storeu_ps(p, a[0]);
            _mm256_storeu_ps(p.add(8), a[1]);
        }
    }
}
