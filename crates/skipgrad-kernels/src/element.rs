//! Elements of 16 bits: the type [`Bf16`], and what f32 and it have in common, [`Element`].

/// A floating-point number of 16 bits: the upper half of an `f32`, with its 8 bits of exponent and
/// 7 of its 23 bits of fraction.
///
/// ```
/// use skipgrad_kernels::Bf16;
/// assert_eq!(Bf16::from_f32(1.0).to_f32(), 1.0);
/// assert_eq!(Bf16::from_f32(257.0).to_f32(), 256.0, "halfway, to the even one");
/// assert_eq!(Bf16::from_f32(1e-39).to_f32(), 0.0, "a denormal number");
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[repr(transparent)]
pub struct Bf16(u16);

/// The bits of the exponent.
const EXPONENT: u16 = 0x7f80;
/// The bit of the sign.
const SIGN: u16 = 0x8000;

impl Bf16 {
    /// Returns the nearest number, of two the one whose last bit is zero. What is denormal after
    /// rounding becomes a zero of the same sign, as in the matrix units of x86-64, and any NaN the
    /// one whose bits are `0x7fc0`.
    #[inline(always)]
    pub fn from_f32(x: f32) -> Bf16 {
        let bits = x.to_bits();
        let rounded = (bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16) as u16;
        let flushed = if rounded & EXPONENT == 0 { rounded & SIGN } else { rounded };
        Bf16(if bits & 0x7fff_ffff > 0x7f80_0000 { 0x7fc0 } else { flushed })
    }

    /// Returns the same number.
    #[inline(always)]
    pub fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }

    /// Returns the number with these bits.
    pub const fn from_bits(bits: u16) -> Bf16 {
        Bf16(bits)
    }

    /// Returns the bits.
    #[inline(always)]
    pub fn to_bits(self) -> u16 {
        self.0
    }

    /// Returns the number, or a zero of the same sign for a denormal one.
    #[inline(always)]
    pub(crate) fn flushed(self) -> f32 {
        Bf16(if self.0 & EXPONENT == 0 { self.0 & SIGN } else { self.0 }).to_f32()
    }
}

/// The type of the elements of activations: operands of products, which are rounded to bf16, and
/// results, to which sums of f32 are rounded.
pub trait Element: Copy + Send + Sync + 'static {
    /// Returns the element nearest to a sum.
    fn from_sum(sum: f32) -> Self;
    /// Returns the value of the element.
    fn to_f32(self) -> f32;
    /// Returns the element as an operand of a product.
    fn to_bf16(self) -> Bf16;
}

impl Element for f32 {
    #[inline(always)]
    fn from_sum(sum: f32) -> f32 {
        sum
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    fn to_bf16(self) -> Bf16 {
        Bf16::from_f32(self)
    }
}

impl Element for Bf16 {
    #[inline(always)]
    fn from_sum(sum: f32) -> Bf16 {
        Bf16::from_f32(sum)
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        Bf16::to_f32(self)
    }
    #[inline(always)]
    fn to_bf16(self) -> Bf16 {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the number in the way of the definition: of all numbers the nearest one.
    fn nearest(x: f64) -> u16 {
        let normal = (0x80..EXPONENT).map(|bits| (bits, f64::from(Bf16(bits).to_f32())));
        let mut best = (0, 0.0f64);
        for (bits, value) in normal {
            let (distance, least) = ((value - x).abs(), (best.1 - x).abs());
            if distance < least || distance == least && bits & 1 == 0 {
                best = (bits, value);
            }
        }
        best.0
    }

    #[test]
    fn rounding_is_to_the_nearest_even() {
        // Halfway between two numbers, and a little more.
        for x in [1.0, 257.0 / 256.0, 259.0 / 256.0, 1.003907, 3.9e-3, 2.5e30, 1.2e-38, 3.3e38] {
            assert_eq!(Bf16::from_f32(x).to_bits(), nearest(f64::from(x)), "{x}");
            assert_eq!(Bf16::from_f32(-x).to_bits(), nearest(f64::from(x)) | SIGN, "-{x}");
        }
        assert_eq!(Bf16::from_f32(f32::MAX).to_f32(), f32::INFINITY);
    }

    #[test]
    fn every_number_is_itself() {
        for bits in 0..=u16::MAX {
            let x = Bf16(bits).to_f32();
            let expected = match bits & !SIGN {
                0..0x80 => bits & SIGN,
                0x80..=EXPONENT => bits,
                _ => 0x7fc0,
            };
            assert_eq!(Bf16::from_f32(x).to_bits(), expected, "{bits:x}");
            let flushed = if x.is_subnormal() { 0.0 } else { x };
            assert!(Bf16(bits).flushed() == flushed || x.is_nan());
        }
    }
}
