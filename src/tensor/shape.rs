//! The shape of a tensor.

use crate::{Error, Result};
use std::{fmt, ops::Deref};

/// The largest number of axes of a tensor.
const MAX_RANK: usize = 8;

/// The sizes of a tensor's axes, outermost first: activations are `[N, H, W, C]`.
///
/// A shape is always valid: at most 8 axes, and the tensor's bytes fit the address space, so
/// arithmetic on the sizes of an existing shape cannot overflow. It reads as a slice, and compares
/// with arrays and slices.
///
/// ```
/// use skipgrad::Shape;
/// let shape = Shape::new(&[2, 3, 4])?;
/// assert_eq!((shape.num_elements(), shape[1], shape.rank()), (24, 3, 3));
/// assert!(shape == [2, 3, 4]);
/// assert!(Shape::new(&[usize::MAX, 2]).is_err());
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    sizes: [usize; MAX_RANK],
    rank: u8,
}

impl Shape {
    /// Makes a shape with these sizes.
    ///
    /// # Errors
    /// [`Error::Argument`] for more than 8 axes or more elements than the address space has bytes
    /// for.
    pub fn new(sizes: &[usize]) -> Result<Shape> {
        let invalid = |expected| Error::argument("shape", "sizes", expected, format_args!("{sizes:?}"));
        if sizes.len() > MAX_RANK {
            return Err(invalid("at most 8 axes"));
        }
        // Zeros are skipped, so that the order of the axes does not decide whether the product
        // overflows.
        let bytes =
            sizes.iter().filter(|&&n| n > 0).try_fold(size_of::<f32>(), |bytes, &n| bytes.checked_mul(n));
        if bytes.is_none_or(|bytes| bytes > isize::MAX as usize) {
            return Err(invalid("a size that fits the address space"));
        }
        let mut shape = Shape { sizes: [0; MAX_RANK], rank: sizes.len() as u8 };
        shape.sizes[..sizes.len()].copy_from_slice(sizes);
        Ok(shape)
    }

    /// Makes the shape of a tensor of one element, `[]`.
    pub const fn scalar() -> Shape {
        Shape { sizes: [0; MAX_RANK], rank: 0 }
    }

    /// The axes in another order: axis `i` of the result is axis `order[i]` of this shape, which
    /// has as many.
    pub(crate) fn permuted<const N: usize>(&self, order: [usize; N]) -> Shape {
        let mut shape = *self;
        shape.sizes[..N].copy_from_slice(&order.map(|axis| self[axis]));
        shape
    }

    /// Returns the number of elements: the product of the sizes, 1 for `[]`.
    pub fn num_elements(&self) -> usize {
        self.iter().product()
    }

    /// Returns the number of axes.
    pub fn rank(&self) -> usize {
        usize::from(self.rank)
    }

    /// Returns the size of the innermost axis, the channels of an activation; 1 for `[]`.
    pub fn num_channels(&self) -> usize {
        self.last().copied().unwrap_or(1)
    }

    /// Returns the number of rows if the tensor is read as a matrix `[rows, channels]`: elements of
    /// all axes but the last.
    pub fn num_rows(&self) -> usize {
        self.split_last().map_or(1, |(_, outer)| outer.iter().product())
    }

    /// Returns the sizes of an activation `[N, H, W, C]`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] that names `op` and its `argument` if there are not four axes.
    pub fn nhwc(&self, op: &'static str, argument: &'static str) -> Result<[usize; 4]> {
        <[usize; 4]>::try_from(&self[..]).map_err(|_| Error::shape(op, argument, ["N", "H", "W", "C"], self))
    }
}

impl Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.sizes[..self.rank()]
    }
}

impl AsRef<[usize]> for Shape {
    fn as_ref(&self) -> &[usize] {
        self
    }
}

/// Compares a shape, or a reference to one, with arrays and slices of sizes, in either order.
macro_rules! compare_with_sizes {
    ($([$($generics:tt)*] $sizes:ty),*) => {$(
        impl<$($generics)*> PartialEq<$sizes> for Shape {
            fn eq(&self, sizes: &$sizes) -> bool {
                self[..] == sizes[..]
            }
        }

        impl<$($generics)*> PartialEq<$sizes> for &Shape {
            fn eq(&self, sizes: &$sizes) -> bool {
                self[..] == sizes[..]
            }
        }

        impl<$($generics)*> PartialEq<Shape> for $sizes {
            fn eq(&self, shape: &Shape) -> bool {
                self[..] == shape[..]
            }
        }

        impl<$($generics)*> PartialEq<&Shape> for $sizes {
            fn eq(&self, shape: &&Shape) -> bool {
                self[..] == shape[..]
            }
        }
    )*};
}

compare_with_sizes!([const N: usize] [usize; N], [] [usize], [] Vec<usize>);

impl PartialEq<&[usize]> for Shape {
    fn eq(&self, sizes: &&[usize]) -> bool {
        self[..] == **sizes
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflowing_shapes_are_errors_before_anything_is_allocated() {
        for sizes in [&[usize::MAX, 2][..], &[1 << 61, 2], &[0, usize::MAX, usize::MAX], &[1; 9]] {
            assert!(Shape::new(sizes).is_err(), "{sizes:?}");
        }
        assert_eq!(Shape::new(&[0, 1 << 40]).unwrap().num_elements(), 0);
    }

    #[test]
    fn a_matrix_view_of_any_rank() {
        let shape = Shape::new(&[2, 3, 5]).unwrap();
        assert_eq!((shape.num_rows(), shape.num_channels()), (6, 5));
        assert_eq!(
            (Shape::scalar().num_rows(), Shape::scalar().num_channels(), Shape::scalar().num_elements()),
            (1, 1, 1)
        );
    }
}
