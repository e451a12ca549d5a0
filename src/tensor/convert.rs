//! Conversion to and from `ndarray`, which does everything that need not be fast: permuting,
//! printing.

use super::{Shape, Tensor};
use crate::{Error, Result};
use ndarray::{Array, ArrayD, ArrayViewD, Dimension, IxDyn};
use std::fmt;

impl Tensor {
    /// Returns the elements as an `ndarray` view, without copying; an empty one of a
    /// [meta](Tensor::is_meta) tensor.
    ///
    /// ```
    /// # use skipgrad::Tensor;
    /// let x = Tensor::from_fn([2, 3], |i| i as f32)?;
    /// assert_eq!(x.view()[[1, 2]], 5.0);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn view(&self) -> ArrayViewD<'_, f32> {
        let shape: &[usize] = if self.is_meta() { &[0] } else { self.shape() };
        match ArrayViewD::from_shape(IxDyn(shape), self.data()) {
            Ok(view) => view,
            Err(error) => {
                unreachable!("a tensor is contiguous and has as many elements as its shape says: {error}")
            }
        }
    }

    /// Returns a copy with the axes in another order: axis `i` of the result is axis `order[i]` of
    /// this tensor.
    ///
    /// # Errors
    /// [`Error::Argument`] if `order` is not a permutation of the axes.
    ///
    /// ```
    /// # use skipgrad::Tensor;
    /// let x = Tensor::from_fn([2, 3], |i| i as f32)?;
    /// assert_eq!(x.permute(&[1, 0])?.data(), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn permute(&self, order: &[usize]) -> Result<Tensor> {
        let rank = self.shape().rank();
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..rank) {
            let expected = format!("a permutation of the {rank} axes");
            return Err(Error::argument("permute", "order", expected, format_args!("{order:?}")));
        }
        if self.is_meta() {
            return Err(Error::argument("permute", "tensor", "a tensor with elements", "a meta tensor"));
        }
        Tensor::try_from(self.view().permuted_axes(order).to_owned())
    }
}

/// Copies an array of any memory layout.
impl<D: Dimension> TryFrom<Array<f32, D>> for Tensor {
    type Error = Error;
    fn try_from(array: Array<f32, D>) -> Result<Tensor> {
        let shape = Shape::new(array.shape())?;
        let mut elements = array.iter();
        Tensor::from_fn(shape, |_| elements.next().copied().unwrap_or_default())
    }
}

/// Copies the elements.
impl From<&Tensor> for ArrayD<f32> {
    fn from(tensor: &Tensor) -> ArrayD<f32> {
        tensor.view().to_owned()
    }
}

/// Shows the elements in nested brackets and abbreviates long axes.
impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.view(), f)
    }
}

/// The number of elements that debug output shows.
const SHOWN: usize = 8;

/// Shows the shape and the first elements, so that the debug output of a model stays readable;
/// [`Display`](fmt::Display) shows more.
impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor {} ", self.shape())?;
        let elements = self.data();
        if elements.len() <= SHOWN {
            return write!(f, "{}", self.view());
        }
        f.write_str("[")?;
        elements[..SHOWN / 2].iter().try_for_each(|element| write!(f, "{element:?}, "))?;
        f.write_str("..]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, ShapeBuilder, array};

    #[test]
    fn through_ndarray_and_back_in_any_layout() {
        let rows = array![[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
        let columns = Array2::from_shape_fn((2, 3).f(), |index| rows[index]);
        assert!(!columns.is_standard_layout());
        let tensor = Tensor::try_from(columns).unwrap();
        assert_eq!(tensor.data(), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(ArrayD::from(&tensor), rows.into_dyn());
    }

    #[test]
    fn permuting_oihw_to_hwio_and_back() {
        let x = Tensor::from_fn([2, 3, 4, 5], |i| i as f32).unwrap();
        let y = x.permute(&[2, 3, 1, 0]).unwrap();
        assert_eq!(y.shape(), [4, 5, 3, 2]);
        assert_eq!(y.permute(&[3, 2, 0, 1]).unwrap(), x);
        assert!(x.permute(&[0, 0, 1, 2]).unwrap_err().to_string().contains("a permutation of the 4 axes"));
    }

    #[test]
    fn shown_to_a_person() {
        let x = Tensor::new([1, 2], [1.5, -2.0]).unwrap();
        assert_eq!(x.to_string(), "[[1.5, -2]]");
        assert_eq!(format!("{x:?}"), "Tensor [1, 2] [[1.5, -2]]");
    }
}
