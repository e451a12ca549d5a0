//! Vectors of `f32`: one trait, one zero-sized token an instruction set.
//!
//! A value of a token type proves that the processor has the set, so arithmetic is safe; only memory access is `unsafe`.
//! Everything is inlined into a function that is compiled for the set (see [`Isa::dispatch`](super::Isa::dispatch)).

/// An instruction set's vectors of `f32`.
pub trait Simd: Copy + Send + Sync + 'static {
    /// Numbers in a vector.
    const LANES: usize;
    /// Rows of the register tile of a matrix product.
    const TILE_ROWS: usize;
    /// Vectors in a row of the register tile of a matrix product.
    const TILE_VECTORS: usize;
    /// A vector.
    type Vector: Copy;

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::Vector;
    /// `a + b`.
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a - b`.
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a * b`.
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `a * b + c`, rounded once except in the portable set.
    fn mul_add(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// Each lane of `x`, zero where that of `y` is zero or less: what a ReLU with the input `y` lets through of a gradient.
    fn relu_backward(self, y: Self::Vector, x: Self::Vector) -> Self::Vector;

    /// `max(x, 0)` of each lane; NaN stays NaN, as in PyTorch.
    #[inline(always)]
    fn relu(self, x: Self::Vector) -> Self::Vector {
        self.relu_backward(x, x)
    }

    /// `LANES` numbers from `p`.
    ///
    /// # Safety
    /// `p` must be valid for reading `LANES` numbers; any alignment.
    unsafe fn load(self, p: *const f32) -> Self::Vector;
    /// `LANES` numbers to `p`.
    ///
    /// # Safety
    /// `p` must be valid for writing `LANES` numbers; any alignment.
    unsafe fn store(self, p: *mut f32, a: Self::Vector);

    /// The lanes from the first to the last.
    #[inline(always)]
    fn to_array(self, a: Self::Vector) -> [f32; 16] {
        const { assert!(Self::LANES <= 16) };
        let mut lanes = [0.0; 16];
        // SAFETY: the array holds 16 numbers, and no set has more lanes.
        unsafe { self.store(lanes.as_mut_ptr(), a) };
        lanes
    }
    /// The sum of the lanes, from the first to the last.
    #[inline(always)]
    fn sum(self, a: Self::Vector) -> f32 {
        let lanes = self.to_array(a);
        lanes[1..Self::LANES].iter().fold(lanes[0], |sum, x| sum + x)
    }
    /// The first `n` numbers from `p`, zero in the other lanes.
    ///
    /// # Safety
    /// `p` must be valid for reading `n` numbers, and `n <= LANES`.
    #[inline(always)]
    unsafe fn load_first(self, p: *const f32, n: usize) -> Self::Vector {
        let mut lanes = [0.0f32; 16];
        // SAFETY: the caller promises `n` readable numbers and n <= LANES <= 16; the array holds 16.
        unsafe {
            std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
            self.load(lanes.as_ptr())
        }
    }
    /// [`Simd::load`] of a whole vector, else [`Simd::load_first`].
    ///
    /// # Safety
    /// As [`Simd::load_first`].
    #[inline(always)]
    unsafe fn load_up_to(self, p: *const f32, n: usize) -> Self::Vector {
        // SAFETY: as promised.
        unsafe { if n == Self::LANES { self.load(p) } else { self.load_first(p, n) } }
    }
    /// [`Simd::store`] of a whole vector, else [`Simd::store_first`].
    ///
    /// # Safety
    /// As [`Simd::store_first`].
    #[inline(always)]
    unsafe fn store_up_to(self, p: *mut f32, a: Self::Vector, n: usize) {
        // SAFETY: as promised.
        unsafe { if n == Self::LANES { self.store(p, a) } else { self.store_first(p, a, n) } }
    }
    /// The first `n` lanes to `p`.
    ///
    /// # Safety
    /// `p` must be valid for writing `n` numbers, and `n <= LANES`.
    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, a: Self::Vector, n: usize) {
        let lanes = self.to_array(a);
        // SAFETY: the caller promises `n` writable numbers and n <= LANES <= 16; the array holds 16.
        unsafe { std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n) };
    }
}

/// Numbers of a cache line.
pub(super) const LINE: usize = 16;

/// Asks for the cache line at `p`, which will be needed soon. Any address is allowed.
#[inline(always)]
pub(super) fn prefetch(p: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has the instruction, and it never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// Asks for the cache line at `p` in the second-level cache only: it will be needed, but not so soon that it may displace what is
/// in use. Any address is allowed.
#[inline(always)]
pub(super) fn prefetch_early(p: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 has the instruction, and it never faults.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T1>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// Eight lanes of plain Rust, for every target.
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
        // SAFETY: the caller promises eight readable numbers.
        unsafe { p.cast::<[f32; 8]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, a: [f32; 8]) {
        // SAFETY: the caller promises eight writable numbers.
        unsafe { p.cast::<[f32; 8]>().write_unaligned(a) };
    }
}

/// A token whose vectors are those of the intrinsics named.
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
            /// The token, where the processor has the set.
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
                // SAFETY: `self` proves the set, and the caller promises readable numbers.
                unsafe { $load(p) }
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut f32, a: $vector) {
                // SAFETY: `self` proves the set, and the caller promises writable numbers.
                unsafe { $store(p, a) }
            }
            $(
                #[inline(always)]
                unsafe fn load_first(self, $lp: *const f32, $ln: usize) -> $vector {
                    // SAFETY: `self` proves the set, the caller promises `n` readable numbers, and no other is touched.
                    unsafe { $load_first }
                }
                #[inline(always)]
                unsafe fn store_first(self, $sp: *mut f32, $sa: $vector, $sn: usize) {
                    // SAFETY: `self` proves the set, the caller promises `n` writable numbers, and no other is touched.
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
        /// AVX2 and FMA: 8 lanes, 16 registers.
        Avx2: __m256, lanes 8, tile 6 x 2, if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        splat _mm256_set1_ps; add _mm256_add_ps; sub _mm256_sub_ps; mul _mm256_mul_ps;
        mul_add |a, b, c| _mm256_fmadd_ps(a, b, c);
        relu_backward |y, x| _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LE_OQ>(y, _mm256_setzero_ps()), x);
        load _mm256_loadu_ps; store _mm256_storeu_ps;
        load_first |p, n| _mm256_maskload_ps(p, first_lanes(n));
        store_first |p, a, n| store_first(p, a, n)
    }

    /// The first `n` of 8 lanes, in up to three parts: a masked store is dozens of operations on Zen processors.
    ///
    /// # Safety
    /// The processor has AVX, `n <= 8` and `p` is valid for writing `n` numbers.
    #[inline(always)]
    unsafe fn store_first(p: *mut f32, a: __m256, n: usize) {
        // SAFETY: each store writes as many numbers as its bit of `n` stands for, behind those before, at any alignment of
        // whole numbers.
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

    /// All bits set in the first `n` of 8 lanes.
    #[inline(always)]
    fn first_lanes(n: usize) -> __m256i {
        const ONES_THEN_ZEROS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
        let lanes: &[i32; 8] = (ONES_THEN_ZEROS[8 - n..16 - n].first_chunk()).expect("eight of sixteen");
        // SAFETY: eight readable integers; only code that holds an AVX2 token calls this.
        unsafe { _mm256_loadu_si256(lanes.as_ptr().cast()) }
    }

    simd! {
        /// AVX-512F: 16 lanes, 32 registers.
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
        /// NEON: 4 lanes, 32 registers.
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
