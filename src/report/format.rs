//! How numbers are written on the page.

use std::time::Duration;

/// Formats a fraction in percent, with one decimal: `93.4 %`. What is not finite is a dash.
pub(super) fn percent(fraction: impl Into<f64>) -> String {
    let percent = 100.0 * fraction.into();
    if percent.is_finite() { format!("{percent:.1} %") } else { "–".into() }
}

/// Formats a number with four significant digits, without zeros at the end: `0.1234`, `0.016`,
/// `2.5e-6`.
pub(super) fn short(x: f32) -> String {
    let magnitude = x.abs();
    if !x.is_finite() || x == 0.0 {
        return x.to_string();
    }
    if !(1e-4..1e6).contains(&magnitude) {
        return format!("{x:.3e}");
    }
    let decimals = (3 - magnitude.log10().floor() as i32).max(0) as usize;
    let text = format!("{x:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text }
}

/// Formats a whole number in groups of three digits: `269,722`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Formats a duration in its two largest units: `12 s`, `3 min 5 s`, `1 h 2 min`.
pub(super) fn duration(seconds: f64) -> String {
    let seconds = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs_f64().round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let numbers = [0.123_456, 0.016, 2.5e-6, 0.0, 1234.56, 12.0, 1.0, 999_999.0, -0.5, 100.0];
        let texts = ["0.1235", "0.016", "2.500e-6", "0", "1235", "12", "1", "999999", "-0.5", "100"];
        assert_eq!(numbers.map(short), texts);
        assert_eq!([f32::NAN, f32::INFINITY].map(short), ["NaN", "inf"]);
        assert_eq!([0.93449f32, f32::NAN].map(percent), ["93.4 %", "–"]);
        assert_eq!(
            [0, 999, 1000, 269_722, 1_234_567].map(grouped),
            ["0", "999", "1,000", "269,722", "1,234,567"]
        );
        assert_eq!([0.4, 59.6, 185.0, 3720.0].map(duration), ["0 s", "1 min 0 s", "3 min 5 s", "1 h 2 min"]);
        assert_eq!(duration(f64::NAN), "0 s");
    }
}
