//! Conversion of 16-bit floating-point formats to and from `f32`.

/// Converts an IEEE 754 binary16 (1 sign, 5 exponent, 10 fraction bits) to `f32`, exactly.
pub(super) fn f16_to_f32(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f32::from(bits & 0x3ff));
    match exponent {
        0 => sign * fraction * f32::powi(2.0, -24),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        _ => sign * (1024.0 + fraction) * f32::powi(2.0, exponent - 25),
    }
}

/// Converts a bfloat16, which is the upper half of an `f32`, to `f32`, exactly.
pub(super) fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Rounds to the nearest binary16, of two to the one whose last bit is zero. What is beyond the
/// largest number becomes infinite.
pub(super) fn f32_to_f16(x: f32) -> u16 {
    let (sign, magnitude) = ((x.to_bits() >> 16) as u16 & 0x8000, x.abs());
    // Adding a power of two whose last bit is the result's rounds in hardware, as f32 adds do: a
    // normal number to 10 bits of fraction, a denormal one to multiples of 2^-24.
    let exponent = (magnitude.to_bits() >> 23).max(113);
    let rounding = f32::from_bits((exponent + 13) << 23);
    sign | match magnitude {
        _ if x.is_nan() => 0x7e00,
        // Halfway between the largest number and 2^16, which would be the next one.
        _ if magnitude >= 65520.0 => 0x7c00,
        _ => {
            let fraction = ((magnitude + rounding).to_bits() & 0x7f_ffff) as u16;
            // The fraction has the leading 1 of a normal number, whose carry is the exponent's.
            (exponent as u16 - 113) * 1024 + fraction
        }
    }
}

/// Rounds to the nearest bfloat16, of two to the one whose last bit is zero.
pub(super) fn f32_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() { 0x7fc0 } else { ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every number is itself, and what is halfway to the next one rounds to the even one of both.
    #[test]
    fn rounding_is_to_the_nearest_even() {
        let check = |to: fn(f32) -> u16, from: fn(u16) -> f32, infinity: u16| {
            for bits in 0..infinity {
                let (x, next) = (from(bits), from(bits + 1));
                assert_eq!(to(x), bits, "{x}");
                assert_eq!(to(-x), bits | 0x8000, "-{x}");
                if bits + 1 == infinity {
                    continue;
                }
                let halfway = ((f64::from(x) + f64::from(next)) / 2.0) as f32;
                let even = bits + (bits & 1);
                assert_eq!(to(halfway), even, "{halfway}");
                assert_eq!((to(halfway.next_down()), to(halfway.next_up())), (bits, bits + 1), "{halfway}");
            }
            assert_eq!((to(f32::MAX), to(f32::INFINITY)), (infinity, infinity));
            assert!(from(to(f32::NAN)).is_nan());
        };
        check(f32_to_f16, f16_to_f32, 0x7c00);
        check(f32_to_bf16, bf16_to_f32, 0x7f80);
    }

    #[test]
    fn halves_of_every_kind() {
        let cases = [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_95),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_5e-8),
            (0x03ff, 6.097_555e-5),
            (0x0400, 6.103_515_6e-5),
            (0xfc00, f32::NEG_INFINITY),
        ];
        for (bits, value) in cases {
            assert_eq!(f16_to_f32(bits), value, "{bits:04x}");
        }
        assert!(f16_to_f32(0x7e00).is_nan());
        assert!(f16_to_f32(0x8000).is_sign_negative());
    }

    #[test]
    fn bfloat16_is_the_upper_half() {
        assert_eq!([0x3f80, 0xc049, 0x7f80].map(bf16_to_f32), [1.0, -3.140_625, f32::INFINITY]);
    }
}
