//! The block that all engines compute, and how multiply-adds of f32 compute it.
//!
//! Widened operands have 8 bits of fraction, so that their product is exact in f32, and a
//! multiply-add has the same bits whether it is fused or not, unless a product is too small or too
//! large for f32. So vectors multiply and add as they do elsewhere, for as long as the exponents
//! show that no product or sum can be denormal; what may be goes one element at a time.

use super::STEP;
use crate::simd::Simd;
use crate::{Bf16, Isa, Task};

/// The number of rows and of columns of a tile.
pub(crate) const TILE: usize = 16;
/// The number of rows and of columns of a block, which has two by two tiles.
pub(crate) const BLOCK: usize = 2 * TILE;

/// The operands of some steps: the rows of A for the two halves of a block, and the packed B.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Tap {
    /// The first row of each half.
    pub(crate) a: [*const Bf16; 2],
    /// The first step, `[2 tiles][STEP / 2 pairs][TILE columns][2]`.
    pub(crate) b: *const Bf16,
}

/// How the operands of a tap lie in memory.
#[derive(Clone, Copy)]
pub(crate) struct Walk {
    /// The number of steps, at least 1.
    pub(crate) steps: usize,
    /// Elements from a row of A to the next.
    pub(crate) row: usize,
}

/// The sums of a block, `[2 halves][2 tiles][TILE rows][TILE columns]`.
#[repr(C, align(64))]
#[derive(Clone)]
pub(crate) struct Sums(pub(crate) [[[[f32; TILE]; TILE]; 2]; 2]);

impl Sums {
    pub(crate) const ZERO: Sums = Sums([[[[0.0; TILE]; TILE]; 2]; 2]);

    /// Returns the columns of a row.
    #[inline(always)]
    pub(crate) fn row(&self, half: usize, row: usize) -> [f32; BLOCK] {
        let [left, right] = &self.0[half];
        std::array::from_fn(|j| if j < TILE { left[row][j] } else { right[row][j - TILE] })
    }
}

/// Computes a block by multiply-adds of f32.
///
/// # Safety
/// The pointers of `taps` must be valid for reading what `walk` describes.
pub(super) unsafe fn by_multiply_adds(isa: Isa, taps: &[Tap], walk: Walk, sums: &mut Sums, add: bool) {
    isa.dispatch(MultiplyAdds { taps, walk, sums, add });
}

/// The pointers of its taps are valid for the walk.
struct MultiplyAdds<'a> {
    taps: &'a [Tap],
    walk: Walk,
    sums: &'a mut Sums,
    add: bool,
}

impl Task for MultiplyAdds<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let MultiplyAdds { taps, walk, sums, add } = self;
        let mut wide = Wide::ZERO;
        let mut is_normal = !add || is_far_from_denormal(sums);
        if !add {
            *sums = Sums::ZERO;
        }
        for tap in taps {
            for step in 0..walk.steps {
                // SAFETY: whoever made the taps guarantees that they are valid for the walk.
                is_normal &= unsafe { wide.load(tap, walk, step) };
                if is_normal {
                    multiply(simd, &wide, sums);
                } else {
                    multiply_flushed(&wide, sums);
                }
            }
        }
    }
}

/// Returns whether no sum of these and of normal products can be denormal: all are multiples of the
/// least normal number.
#[inline(always)]
fn is_far_from_denormal(sums: &Sums) -> bool {
    /// The least number whose last bit is a normal number.
    const LEAST: f32 = f32::MIN_POSITIVE * (1 << 23) as f32;
    sums.0.as_flattened().as_flattened().as_flattened().iter().all(|&x| x == 0.0 || x.abs() >= LEAST)
}

/// The operands of a step as f32: 32 rows of A, and for every pair of k the rows of B.
#[repr(C, align(64))]
struct Wide {
    a: [[f32; STEP]; BLOCK],
    b: [[[f32; BLOCK]; 2]; STEP / 2],
}

impl Wide {
    const ZERO: Wide = Wide { a: [[0.0; STEP]; BLOCK], b: [[[0.0; BLOCK]; 2]; STEP / 2] };

    /// Widens the operands of a step, and returns whether all their products are exact in f32, and
    /// so are normal numbers or zero, as are all sums of them.
    ///
    /// # Safety
    /// The pointers of `tap` must be valid for reading what `walk` describes.
    #[inline(always)]
    unsafe fn load(&mut self, tap: &Tap, walk: Walk, step: usize) -> bool {
        let (mut a, mut b) = (Magnitudes::NONE, Magnitudes::NONE);
        for (row, to) in self.a.iter_mut().enumerate() {
            let from = tap.a[row / TILE].wrapping_add(row % TILE * walk.row + step * STEP);
            // SAFETY: the caller guarantees that each row has `STEP` elements for every step; any
            // address is aligned to its element.
            let from = unsafe { &*from.cast::<[Bf16; STEP]>() };
            for (to, x) in to.iter_mut().zip(from) {
                *to = x.flushed();
                a.add(*x);
            }
        }
        let from = tap.b.wrapping_add(step * STEP * BLOCK);
        // SAFETY: the caller guarantees that B has 2 tiles of `STEP / 2` pairs for every step.
        let tiles = unsafe { &*from.cast::<[[[[Bf16; 2]; TILE]; STEP / 2]; 2]>() };
        for (tile, pairs) in tiles.iter().enumerate() {
            for (pair, to) in pairs.iter().zip(&mut self.b) {
                for (j, two) in pair.iter().enumerate() {
                    for (to, x) in to.iter_mut().zip(two) {
                        to[tile * TILE + j] = x.flushed();
                        b.add(*x);
                    }
                }
            }
        }
        a.has_exact_products(b)
    }
}

/// The least and the greatest magnitude of the elements that are not zero.
#[derive(Clone, Copy)]
struct Magnitudes {
    /// The bits without the sign, less those of the least normal number: those of zeros and
    /// denormal numbers wrap to the largest ones.
    least: u16,
    greatest: u16,
}

impl Magnitudes {
    const NONE: Magnitudes = Magnitudes { least: u16::MAX, greatest: 0 };
    /// The bits of the least normal number, which is 2^-126 and has the exponent 1.
    const NORMAL: u16 = 0x80;

    #[inline(always)]
    fn add(&mut self, x: Bf16) {
        let magnitude = x.to_bits() & 0x7fff;
        self.least = self.least.min(magnitude.wrapping_sub(Magnitudes::NORMAL));
        self.greatest = self.greatest.max(magnitude);
    }

    /// Returns whether every product is zero, or a multiple of 2^-126 below 2^128. A number with
    /// exponent e (biased by 127) is a multiple of 2^(e - 134) below 2^(e - 126).
    #[inline(always)]
    fn has_exact_products(self, other: Magnitudes) -> bool {
        let least = |m: Magnitudes| (u32::from(m.least) + u32::from(Magnitudes::NORMAL)) >> 7;
        let greatest = |m: Magnitudes| u32::from(m.greatest) >> 7;
        least(self) + least(other) >= 2 * 134 - 126 && greatest(self) + greatest(other) <= 128 + 2 * 126
    }
}

/// The number of rows that are multiplied at once, by two vectors: eight sums, as many as a
/// processor needs to add in every cycle.
const ROWS: usize = 2;

/// Adds the products of a step.
#[inline(always)]
fn multiply<S: Simd>(simd: S, wide: &Wide, sums: &mut Sums) {
    const { assert!(BLOCK.is_multiple_of(2 * S::LANES) && TILE.is_multiple_of(S::LANES)) };
    for first in (0..BLOCK).step_by(ROWS) {
        for column in (0..BLOCK).step_by(2 * S::LANES) {
            let (mut even, mut odd) = ([[simd.splat(0.0); 2]; ROWS], [[simd.splat(0.0); 2]; ROWS]);
            for (pair, [b_even, b_odd]) in wide.b.iter().enumerate() {
                // SAFETY: two vectors from a multiple of two vectors on lie within a row of `BLOCK`
                // columns, which is divisible by two vectors.
                let [b0, b1, b2, b3] = unsafe {
                    let (b_even, b_odd) = (b_even.as_ptr().add(column), b_odd.as_ptr().add(column));
                    [
                        simd.load(b_even),
                        simd.load(b_even.add(S::LANES)),
                        simd.load(b_odd),
                        simd.load(b_odd.add(S::LANES)),
                    ]
                };
                for i in 0..ROWS {
                    let a = &wide.a[first + i];
                    let (x, y) = (simd.splat(a[2 * pair]), simd.splat(a[2 * pair + 1]));
                    even[i][0] = simd.mul_add(x, b0, even[i][0]);
                    even[i][1] = simd.mul_add(x, b1, even[i][1]);
                    odd[i][0] = simd.mul_add(y, b2, odd[i][0]);
                    odd[i][1] = simd.mul_add(y, b3, odd[i][1]);
                }
            }
            for i in 0..ROWS {
                for v in 0..2 {
                    let (row, at) = (first + i, column + v * S::LANES);
                    let c = sums.0[row / TILE][at / TILE][row % TILE][at % TILE..].as_mut_ptr();
                    // SAFETY: a vector from a multiple of its lanes on lies within a row of a tile,
                    // whose columns are divisible by the lanes.
                    unsafe { simd.store(c, simd.add(simd.load(c), simd.add(even[i][v], odd[i][v]))) };
                }
            }
        }
    }
}

/// Adds the products of a step as they are defined, one at a time.
#[inline(never)]
fn multiply_flushed(wide: &Wide, sums: &mut Sums) {
    for (row, a) in wide.a.iter().enumerate() {
        for column in 0..BLOCK {
            let (mut even, mut odd) = (0.0, 0.0);
            for (two, [b_even, b_odd]) in a.chunks_exact(2).zip(&wide.b) {
                even = flushed(two[0].mul_add(b_even[column], even));
                odd = flushed(two[1].mul_add(b_odd[column], odd));
            }
            let c = &mut sums.0[row / TILE][column / TILE][row % TILE][column % TILE];
            *c = flushed(flushed(*c) + flushed(even + odd));
        }
    }
}

/// Returns a zero of the same sign for a denormal number.
fn flushed(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}
