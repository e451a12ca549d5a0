//! Vectors of `f32`: one trait, and one zero-sized token per instruction set.
//!
//! A value of a token type proves that the processor has the set, so arithmetic is safe; only
//! memory access is `unsafe`. Everything is inlined into a function that is compiled for the set
//! (see [`Isa::dispatch`](super::Isa::dispatch)).

/// An instruction set's vectors of `f32`.
pub trait Simd: Copy + Send + Sync + 'static {
    /// Number of lanes of a vector.
    const LANES: usize;
    /// Number of rows of the micro-tile of a matrix product.
    const TILE_ROWS: usize;
    /// Number of vectors in a row of the micro-tile of a matrix product.
    const TILE_VECTORS: usize;
    /// The type of a vector.
    type Vector: Copy;

    /// Returns a vector with `x` in all lanes.
    fn splat(self, x: f32) -> Self::Vector;
    /// Returns `a + b`.
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// Returns `a - b`.
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// Returns `a * b`.
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// Returns `a * b + c`, rounded once except in the portable set.
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// Returns each lane of `x`, or zero where that of `y` is zero or less: the gradient `x`
    /// through a ReLU with the input `y`.
    fn relu_backward(self, y: Self::Vector, x: Self::Vector) -> Self::Vector;

    /// Returns `max(x, 0)` of each lane. NaN stays NaN, as in PyTorch.
    #[inline(always)]
    fn relu(self, x: Self::Vector) -> Self::Vector {
        self.relu_backward(x, x)
    }

    /// Loads `LANES` elements from `p`.
    ///
    /// # Safety
    /// `p` must be valid for reading `LANES` elements. Any alignment of whole elements is allowed.
    unsafe fn load(self, p: *const f32) -> Self::Vector;
    /// Stores `LANES` elements at `p`.
    ///
    /// # Safety
    /// `p` must be valid for writing `LANES` elements. Any alignment of whole elements is allowed.
    unsafe fn store(self, p: *mut f32, a: Self::Vector);

    /// Returns the lanes from the first to the last, followed by zeros.
    #[inline(always)]
    fn to_array(self, a: Self::Vector) -> [f32; 16] {
        const { assert!(Self::LANES <= 16) };
        let mut lanes = [0.0; 16];
        // SAFETY: the array holds 16 elements, and the assert shows that no set has more lanes.
        unsafe { self.store(lanes.as_mut_ptr(), a) };
        lanes
    }
    /// Returns the sum of the lanes, added from the first to the last.
    #[inline(always)]
    fn sum(self, a: Self::Vector) -> f32 {
        let lanes = self.to_array(a);
        lanes[1..Self::LANES].iter().fold(lanes[0], |sum, x| sum + x)
    }
    /// Loads `n` elements from `p` into the first lanes, and zero into the others.
    ///
    /// # Safety
    /// `p` must be valid for reading `n` elements, and `n <= LANES`.
    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> Self::Vector {
        let mut lanes = [0.0f32; 16];
        // SAFETY: the caller guarantees `n` readable elements and n <= LANES, and the array holds
        // 16 >= LANES.
        unsafe {
            std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
            self.load(lanes.as_ptr())
        }
    }
    /// Loads as [`Simd::load`] if `n` is `LANES`, otherwise as [`Simd::load_first`].
    ///
    /// # Safety
    /// `p` must be valid for reading `n` elements, and `n <= LANES`.
    #[inline(always)]
    unsafe fn load_up_to(self, p: *const f32, n: usize) -> Self::Vector {
        // SAFETY: the caller guarantees `n` readable elements, which is all that either function
        // reads.
        unsafe { if n == Self::LANES { self.load(p) } else { self.load_first(p, n) } }
    }
    /// Stores as [`Simd::store`] if `n` is `LANES`, otherwise as [`Simd::store_first`].
    ///
    /// # Safety
    /// `p` must be valid for writing `n` elements, and `n <= LANES`.
    #[inline(always)]
    unsafe fn store_up_to(self, p: *mut f32, a: Self::Vector, n: usize) {
        // SAFETY: the caller guarantees `n` writable elements, which is all that either function
        // writes.
        unsafe { if n == Self::LANES { self.store(p, a) } else { self.store_first(p, a, n) } }
    }
    /// Stores the first `n` lanes at `p`.
    ///
    /// # Safety
    /// `p` must be valid for writing `n` elements, and `n <= LANES`.
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, a: Self::Vector, n: usize) {
        let lanes = self.to_array(a);
        // SAFETY: the caller guarantees `n` writable elements and n <= LANES, and the array holds
        // 16 >= LANES.
        unsafe { std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n) };
    }
}

/// The token of eight lanes of plain Rust, for every target.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

impl Simd for Portable {
    const LANES: usize = 8;
    const TILE_ROWS: usize = 4;
    const TILE_VECTORS: usize = 1;
    type Vector = [f32; 8];

    #[inline(always)]
    fn splat(self, x: f32) -> [f32; 8] {
        [x; 8]
    }
    #[inline(always)]
    fn add(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn mul_add(self, a: [f32; 8], b: [f32; 8], c: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn relu_backward(self, y: [f32; 8], x: [f32; 8]) -> [f32; 8] {
        std::array::from_fn(|i| if y[i] <= 0.0 { 0.0 } else { x[i] })
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> [f32; 8] {
        // SAFETY: the caller guarantees eight readable elements.
        unsafe { p.cast::<[f32; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, a: [f32; 8]) {
        // SAFETY: the caller guarantees eight writable elements.
        unsafe { p.cast::<[f32; 8]>().write_unaligned(a) };
    }
}

/// Defines a token from the intrinsics of its set.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! simd {
    ($(#[$doc:meta])* $name:ident: $vector:ty, lanes $lanes:literal, tile $rows:literal x $vectors:literal, if $detect:expr;
     splat $splat:path; add $add:path; sub $sub:path; mul $mul:path; mul_add |$a:ident, $b:ident, $c:ident| $mul_add:expr;
     relu_backward |$y:ident, $x:ident| $relu_backward:expr; load $load:path; store $store:path$(;
     load_first |$lp:ident, $ln:ident| $load_first:expr; store_first |$sp:ident, $sa:ident, $sn:ident| $store_first:expr)?) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $name(());

        impl $name {
            /// Returns the token if the processor has the set.
            #[inline]
            pub fn detect() -> Option<$name> {
                $detect.then_some($name(()))
            }
        }

        impl Simd for $name {
            const LANES: usize = $lanes;
            const TILE_ROWS: usize = $rows;
            const TILE_VECTORS: usize = $vectors;
            type Vector = $vector;

            #[inline(always)]
            fn splat(self, x: f32) -> $vector {
                // SAFETY: `self` proves that the processor has the set.
                unsafe { $splat(x) }
            }
            #[inline(always)]
            fn add(self, a: $vector, b: $vector) -> $vector {
                // SAFETY: `self` proves that the processor has the set.
                unsafe { $add(a, b) }
            }
            #[inline(always)]
            fn sub(self, a: $vector, b: $vector) -> $vector {
                // SAFETY: `self` proves that the processor has the set.
                unsafe { $sub(a, b) }
            }
            #[inline(always)]
            fn mul(self, a: $vector, b: $vector) -> $vector {
                // SAFETY: `self` proves that the processor has the set.
                unsafe { $mul(a, b) }
            }
            #[inline(always)]
            fn mul_add(self, $a: $vector, $b: $vector, $c: $vector) -> $vector {
                // SAFETY: `self` proves that the processor has the set.
                unsafe { $mul_add }
            }
            #[inline(always)]
            fn relu_backward(self, $y: $vector, $x: $vector) -> $vector {
                // SAFETY: `self` proves that the processor has the set.
                unsafe { $relu_backward }
            }
            #[inline(always)]
            unsafe fn load(self, p: *const f32) -> $vector {
                // SAFETY: `self` proves the set, and the caller guarantees `LANES` readable
                // elements.
                unsafe { $load(p) }
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut f32, a: $vector) {
                // SAFETY: `self` proves the set, and the caller guarantees `LANES` writable
                // elements.
                unsafe { $store(p, a) }
            }
            $(
                #[inline(always)]
                unsafe fn load_first(self, $lp: *const f32, $ln: usize) -> $vector {
                    // SAFETY: `self` proves the set, the caller guarantees `n <= LANES` readable
                    // elements, and no other is accessed.
                    unsafe { $load_first }
                }
                #[inline(always)]
                unsafe fn store_first(self, $sp: *mut f32, $sa: $vector, $sn: usize) {
                    // SAFETY: `self` proves the set, the caller guarantees `n <= LANES` writable
                    // elements, and no other is accessed.
                    unsafe { $store_first }
                }
            )?
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Simd;
    use std::arch::x86_64::*;

    simd! {
        /// The token of AVX2 and FMA, with 8 lanes and 16 registers.
        Avx2: __m256, lanes 8, tile 6 x 2, if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        splat _mm256_set1_ps; add _mm256_add_ps; sub _mm256_sub_ps; mul _mm256_mul_ps;
        mul_add |a, b, c| _mm256_fmadd_ps(a, b, c);
        relu_backward |y, x| _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LE_OQ>(y, _mm256_setzero_ps()), x);
        load _mm256_loadu_ps; store _mm256_storeu_ps;
        load_first |p, n| _mm256_maskload_ps(p, first_lanes(n));
        store_first |p, a, n| store_first(p, a, n)
    }

    /// Stores the first `n` of 8 lanes in up to three parts, as a masked store is dozens of
    /// operations on Zen processors.
    ///
    /// # Safety
    /// The processor must have AVX, `n <= 8`, and `p` must be valid for writing `n` elements.
    #[inline(always)]
    unsafe fn store_first(p: *mut f32, a: __m256, n: usize) {
        // SAFETY: each store writes as many elements as its bit of `n` stands for, after those
        // before, which together are `n`; the instructions take any alignment.
        unsafe {
            if n >= 8 {
                return _mm256_storeu_ps(p, a);
            }
            let (mut p, mut rest) = (p, _mm256_castps256_ps128(a));
            if n & 4 != 0 {
                _mm_storeu_ps(p, rest);
                (p, rest) = (p.add(4), _mm256_extractf128_ps::<1>(a));
            }
            if n & 2 != 0 {
                _mm_storel_epi64(p.cast(), _mm_castps_si128(rest));
                (p, rest) = (p.add(2), _mm_movehl_ps(rest, rest));
            }
            if n & 1 != 0 {
                _mm_store_ss(p, rest);
            }
        }
    }

    /// Returns a mask with all bits set in the first `n` of 8 lanes.
    ///
    /// # Safety
    /// The processor must have AVX.
    #[inline(always)]
    unsafe fn first_lanes(n: usize) -> __m256i {
        const ONES_THEN_ZEROS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
        let lanes: &[i32; 8] = (ONES_THEN_ZEROS[8 - n..16 - n].first_chunk()).expect("eight of sixteen");
        // SAFETY: the reference shows that eight integers are readable, and the caller guarantees
        // AVX.
        unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) }
    }

    simd! {
        /// The token of AVX-512F, with 16 lanes and 32 registers.
        Avx512: __m512, lanes 16, tile 14 x 2, if is_x86_feature_detected!("avx512f");
        splat _mm512_set1_ps; add _mm512_add_ps; sub _mm512_sub_ps; mul _mm512_mul_ps;
        mul_add |a, b, c| _mm512_fmadd_ps(a, b, c);
        relu_backward |y, x| _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLE_UQ>(y, _mm512_setzero_ps()), x);
        load _mm512_loadu_ps; store _mm512_storeu_ps;
        load_first |p, n| _mm512_maskz_loadu_ps(((1u32 << n) - 1) as u16, p);
        store_first |p, a, n| _mm512_mask_storeu_ps(p, ((1u32 << n) - 1) as u16, a)
    }
}
#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::Simd;
    use std::arch::aarch64::*;

    simd! {
        /// The token of NEON, with 4 lanes and 32 registers.
        Neon: float32x4_t, lanes 4, tile 8 x 3, if std::arch::is_aarch64_feature_detected!("neon");
        splat vdupq_n_f32; add vaddq_f32; sub vsubq_f32; mul vmulq_f32;
        mul_add |a, b, c| vfmaq_f32(c, a, b);
        relu_backward |y, x| vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(x), vcleq_f32(y, vdupq_n_f32(0.0))));
        load vld1q_f32; store vst1q_f32
    }
}
#[cfg(target_arch = "aarch64")]
pub use arm::Neon;

#[cfg(all(test, target_arch = "x86_64"))]
pub mod doubles;
#[cfg(test)]
mod tests;
