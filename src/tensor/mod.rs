//! Arrays of numbers: [`Tensor`], its [`Shape`], and the recycled memory of its elements.

mod arithmetic;
mod convert;
mod meta;
mod pattern;
mod shape;

pub(crate) use meta::MemoryTracker;
pub use pattern::{Axis, ShapePattern};
pub use shape::Shape;

use crate::{Error, Result, Rng};
use meta::Entry;
use skipgrad_kernels::memory::{Storage, rounded};
use std::{ops::Range, sync::Arc};

/// A contiguous, row-major array of `f32`. Clones share the memory; writing to shared memory copies
/// it first.
///
/// ```
/// use skipgrad::Tensor;
/// let x = Tensor::new([2, 3], [1.0, 2.0, 3.0, 4.0, 9.0, 6.0])?;
/// assert_eq!(x.argmax(), [2, 1]);
/// assert_eq!(x.slice_rows(1..2)?.data(), [4.0, 9.0, 6.0]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone)]
pub struct Tensor {
    shape: Shape,
    memory: Memory,
}

/// The memory of the elements.
#[derive(Clone)]
enum Memory {
    /// Elements in a buffer of the pool.
    Held(Arc<Storage>),
    /// The bytes of a meta tensor, which has no elements.
    Counted(Arc<Entry>),
}

impl Tensor {
    /// Makes a tensor of `shape` with a copy of `data`, an array, a slice or a vector, in row-major
    /// order.
    ///
    /// # Errors
    /// [`Error::Argument`] if the shape is not valid (see [`Shape::new`]) or `data` has another
    /// number of elements; [`Error::OutOfMemory`].
    pub fn new(shape: impl AsRef<[usize]>, data: impl AsRef<[f32]>) -> Result<Tensor> {
        let (shape, data) = (Shape::new(shape.as_ref())?, data.as_ref());
        if shape.num_elements() != data.len() {
            let expected = format!("{} elements for {shape}", shape.num_elements());
            return Err(Error::argument("tensor", "data", expected, data.len()));
        }
        Tensor::try_build(shape, |out| out.copy_from_slice(data))
    }

    /// Makes a tensor of zeros.
    ///
    /// # Errors
    /// [`Error::Argument`] if the shape is not valid (see [`Shape::new`]); [`Error::OutOfMemory`].
    pub fn zeros(shape: impl AsRef<[usize]>) -> Result<Tensor> {
        Tensor::full(shape, 0.0)
    }

    /// Makes a tensor whose elements are all `value`.
    ///
    /// # Errors
    /// As [`Tensor::zeros`].
    pub fn full(shape: impl AsRef<[usize]>, value: f32) -> Result<Tensor> {
        Tensor::try_build(Shape::new(shape.as_ref())?, |out| out.fill(value))
    }

    /// Makes a tensor whose elements are computed from their flat index.
    ///
    /// # Errors
    /// As [`Tensor::zeros`].
    ///
    /// ```
    /// # use skipgrad::Tensor;
    /// assert_eq!(Tensor::from_fn([2, 2], |i| i as f32)?.data(), [0.0, 1.0, 2.0, 3.0]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn from_fn(shape: impl AsRef<[usize]>, mut f: impl FnMut(usize) -> f32) -> Result<Tensor> {
        Tensor::try_build(Shape::new(shape.as_ref())?, |out| {
            for (i, x) in out.iter_mut().enumerate() {
                *x = f(i);
            }
        })
    }

    /// Makes a tensor of normally distributed elements with mean 0 and standard deviation `std`.
    ///
    /// # Errors
    /// As [`Tensor::zeros`].
    pub fn normal(shape: impl AsRef<[usize]>, std: f32, rng: &mut Rng) -> Result<Tensor> {
        Tensor::from_fn(shape, |_| std * rng.normal())
    }

    /// Makes a tensor of elements distributed uniformly in [`low`, `high`).
    ///
    /// # Errors
    /// As [`Tensor::zeros`].
    pub fn uniform(shape: impl AsRef<[usize]>, low: f32, high: f32, rng: &mut Rng) -> Result<Tensor> {
        Tensor::from_fn(shape, |_| low + (high - low) * rng.uniform())
    }

    /// Makes a tensor of one element, of shape `[]`.
    ///
    /// # Panics
    /// Panics if memory runs out.
    pub fn scalar(value: f32) -> Tensor {
        Tensor::build(Shape::scalar(), |out| out[0] = value)
    }

    /// Makes a tensor whose elements `fill` writes, as operations do for their outputs.
    ///
    /// The memory is recycled and not zeroed, so `fill` must write every element: the elements have
    /// unspecified values before.
    ///
    /// # Panics
    /// Panics if memory runs out; [`Tensor::zeros`] and the other constructors return an error
    /// instead.
    pub fn build(shape: Shape, fill: impl FnOnce(&mut [f32])) -> Tensor {
        match Tensor::try_build(shape, fill) {
            Ok(tensor) => tensor,
            Err(error) => panic!("{error}"),
        }
    }

    pub(crate) fn try_build(shape: Shape, fill: impl FnOnce(&mut [f32])) -> Result<Tensor> {
        let len = shape.num_elements();
        let bytes = len * size_of::<f32>();
        let mut storage = Storage::allocate(len).ok_or(Error::OutOfMemory { bytes })?;
        fill(&mut storage);
        Ok(Tensor { shape, memory: Memory::Held(Arc::new(storage)) })
    }

    /// Returns the sizes of the axes.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Returns the elements in row-major order; a [meta](Tensor::is_meta) tensor has none.
    pub fn data(&self) -> &[f32] {
        match &self.memory {
            Memory::Held(storage) => storage,
            Memory::Counted(_) => &[],
        }
    }

    /// Returns the elements for writing, after copying them if another tensor shares the memory.
    ///
    /// # Panics
    /// Panics if memory runs out for the copy.
    pub fn data_mut(&mut self) -> &mut [f32] {
        if !self.is_unique() {
            match &self.memory {
                Memory::Held(storage) => {
                    *self = Tensor::build(self.shape, |out| out.copy_from_slice(storage))
                }
                Memory::Counted(entry) => self.memory = Memory::Counted(Arc::new(entry.again())),
            }
        }
        match &mut self.memory {
            Memory::Held(storage) => match Arc::get_mut(storage) {
                Some(storage) => storage,
                None => unreachable!("the memory is not shared, or was just made"),
            },
            Memory::Counted(_) => &mut [],
        }
    }

    /// Returns whether no other tensor shares the memory, so that [`Tensor::data_mut`] copies
    /// nothing.
    pub fn is_unique(&self) -> bool {
        match &self.memory {
            Memory::Held(storage) => Arc::strong_count(storage) == 1,
            Memory::Counted(entry) => Arc::strong_count(entry) == 1,
        }
    }

    /// Returns the number of bytes in the memory pool: four for each element, rounded up to whole
    /// cache lines or pages.
    pub fn bytes(&self) -> usize {
        rounded(self.shape.num_elements())
    }

    /// Returns a copy of the elements.
    pub fn to_vec(&self) -> Vec<f32> {
        self.data().to_vec()
    }

    /// Returns the value of a tensor with one element, the first element of a larger tensor, or NaN
    /// for an empty one.
    pub fn item(&self) -> f32 {
        self.data().first().copied().unwrap_or(f32::NAN)
    }

    /// Returns the same elements in another shape, sharing the memory.
    ///
    /// # Errors
    /// [`Error::Argument`] if the number of elements differs.
    pub fn reshape(&self, shape: impl AsRef<[usize]>) -> Result<Tensor> {
        let shape = Shape::new(shape.as_ref())?;
        if shape.num_elements() != self.shape.num_elements() {
            return Err(Error::argument(
                "reshape",
                "shape",
                format!("{} elements", self.shape.num_elements()),
                shape,
            ));
        }
        Ok(Tensor { shape, memory: self.memory.clone() })
    }

    /// Returns a copy of a range of the first axis: images of a batch, rows of a matrix.
    ///
    /// # Errors
    /// [`Error::Argument`] if the range is not inside the axis, or there is no axis.
    pub fn slice_rows(&self, range: Range<usize>) -> Result<Tensor> {
        let count = self.shape.first().copied().unwrap_or(0);
        if range.start > range.end || range.end > count {
            return Err(Error::argument(
                "rows",
                "range",
                format!("a range in 0..{count}"),
                format_args!("{range:?}"),
            ));
        }
        let mut sizes = self.shape.to_vec();
        let stride = self.data().len().checked_div(count).unwrap_or(0);
        sizes[0] = range.len();
        Tensor::new(sizes, &self.data()[range.start * stride..range.end * stride])
    }

    /// Returns the index of the largest element of each row, where a row is a run of the last axis:
    /// the predicted class for each row of logits.
    pub fn argmax(&self) -> Vec<usize> {
        let largest =
            |row: &[f32]| (1..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best });
        self.data().chunks(self.shape.num_channels().max(1)).map(largest).collect()
    }
}

/// Tensors are equal if their shapes and their elements are.
impl PartialEq for Tensor {
    fn eq(&self, other: &Tensor) -> bool {
        self.shape == other.shape && self.data() == other.data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writing_to_shared_memory_copies() {
        let mut a = Tensor::zeros([2]).unwrap();
        let b = a.clone();
        a.data_mut()[0] = 1.0;
        assert_eq!((a.data(), b.data()), (&[1.0, 0.0][..], &[0.0, 0.0][..]));
        let before = a.data().as_ptr();
        a.data_mut()[1] = 2.0;
        assert_eq!(a.data().as_ptr(), before, "memory of its own is written in place");
    }

    #[test]
    fn errors_name_what_was_wrong() {
        let x = Tensor::zeros([2, 3]).unwrap();
        assert!(x.reshape([5]).unwrap_err().to_string().contains("expected 6 elements, found [5]"));
        assert!(x.slice_rows(1..3).unwrap_err().to_string().contains("expected a range in 0..2, found 1..3"));
        assert!(Tensor::scalar(1.0).slice_rows(0..1).is_err());
        assert!(
            Tensor::new([2], [1.0]).unwrap_err().to_string().contains("expected 2 elements for [2], found 1")
        );
        assert!(Tensor::zeros([1 << 40, 1 << 20]).is_err());
    }

    #[test]
    fn a_failed_allocation_is_an_error() {
        let error = Tensor::zeros([1 << 59]).unwrap_err();
        assert!(matches!(error, Error::OutOfMemory { bytes } if bytes == 1 << 61), "{error}");
    }

    #[test]
    fn empty_tensors_work() {
        let x = Tensor::zeros([0, 3]).unwrap();
        assert_eq!((x.argmax(), x.slice_rows(0..0).unwrap().shape().num_elements()), (vec![], 0));
        assert!(x.item().is_nan());
    }
}
