//! The distance between two tensors.

use skipgrad::Tensor;

/// Returns the largest difference of two elements, relative to the largest element of `expected`,
/// or NaN if an element is NaN.
pub(crate) fn distance(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.shape(), expected.shape());
    let pairs = found.data().iter().zip(expected.data());
    let difference = largest(pairs.map(|(&a, &b)| f64::from(a) - f64::from(b)));
    let scale = largest(expected.data().iter().map(|&b| f64::from(b)));
    difference / scale.max(f64::from(f32::MIN_POSITIVE))
}

/// Returns the largest magnitude. `f64::max` would drop a NaN; this keeps it.
fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |largest: f64, x| if largest.is_nan() || x.abs() <= largest { largest } else { x.abs() })
}

/// Asserts that `found` is within `tolerance` of `expected`, relative to its largest element.
#[track_caller]
pub(crate) fn assert_close(name: &str, found: &Tensor, expected: &Tensor, tolerance: f64) {
    let distance = distance(found, expected);
    assert!(distance <= tolerance, "{name}: {distance:.1e} away, more than {tolerance:.0e}");
}
