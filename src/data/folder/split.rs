//! How many images of a class a fraction is.

/// Decimals of a fraction that are counted. An `f32` has at most nine digits that are not zero, and
/// a fraction below them is less than half an image of any dataset.
const DECIMALS: u32 = 18;

/// Returns the number of images in this fraction of `len` images, rounded, a half to the larger
/// number. The fraction is in [0, 1] and counts as the decimal number that it is written as: 0.9 of
/// 10 are 9, although the nearest `f32` is less than 0.9. Of at least one image, any fraction above
/// 0 has at least one.
pub(super) fn count(len: usize, fraction: f32) -> usize {
    let (numerator, denominator) = decimal(fraction);
    let len_u128 = len as u128;
    let rounded = (2 * len_u128 * numerator + denominator) / (2 * denominator);
    let at_least = usize::from(fraction > 0.0).min(len);
    usize::try_from(rounded).map_or(len, |rounded| rounded.clamp(at_least, len))
}

/// Returns the shortest decimal number that a fraction can be written as, as a quotient.
fn decimal(fraction: f32) -> (u128, u128) {
    let text = fraction.to_string();
    let (whole, decimals) = text.split_once('.').unwrap_or((&text, ""));
    let digits = whole.chars().chain(decimals.chars().chain(std::iter::repeat('0')).take(DECIMALS as usize));
    let numerator =
        digits.filter_map(|digit| digit.to_digit(10)).fold(0, |n, digit| 10 * n + u128::from(digit));
    (numerator, 10u128.pow(DECIMALS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_hundredth_of_up_to_a_thousand_images_is_as_decimal_arithmetic_says() {
        for hundredths in 1..100usize {
            // As a program writes it, and as a user types it.
            let typed: f32 = format!("0.{hundredths:02}").parse().unwrap();
            for len in 1..=1000 {
                let expected = ((len * hundredths + 50) / 100).max(1);
                assert_eq!(count(len, typed), expected, "{typed} of {len}");
                assert_eq!(count(len, hundredths as f32 / 100.0), expected, "{typed} of {len}");
            }
        }
    }

    #[test]
    fn fractions_of_any_size_are_within_the_images() {
        assert_eq!((count(10, 0.9), count(5, 0.5), count(3, 1.0 / 3.0)), (9, 3, 1));
        for len in [0, 1, 2, 1_000_000_007, usize::MAX] {
            assert_eq!((count(len, 0.0), count(len, 1.0)), (0, len));
            assert_eq!(count(len, f32::from_bits(1)), len.min(1));
            assert_eq!(count(len, f32::MIN_POSITIVE), len.min(1));
            assert!(count(len, 0.999_999_94) <= len);
        }
    }
}
