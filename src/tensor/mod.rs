//! Numbers in memory: [`Tensor`], its [`Shape`], and the recycled memory below it.

mod arithmetic;
mod convert;
mod meta;
mod shape;

pub(crate) use meta::MemoryTracker;
pub use shape::Shape;

use crate::{Error, Result, Rng};
use meta::Entry;
use skipgrad_kernels::memory::{Storage, rounded};
use std::{ops::Range, sync::Arc};

/// A contiguous, row-major array of `f32`. Cloning shares the memory; writing to shared memory copies it first.
///
/// ```
/// use skipgrad::Tensor;
/// let x = Tensor::new([2, 3], vec![1.0, 2.0, 3.0, 4.0, 9.0, 6.0])?;
/// assert_eq!(x.argmax(), [2, 1]);
/// assert_eq!(x.slice_rows(1..2)?.data(), [4.0, 9.0, 6.0]);
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone)]
pub struct Tensor {
    shape: Shape,
    memory: Memory,
}

/// Where the elements are.
#[derive(Clone)]
enum Memory {
    Held(Arc<Storage>),
    /// Nowhere: a meta tensor's.
    Counted(Arc<Entry>),
}

impl Tensor {
    /// A tensor of `shape` whose elements are `data`, the last axis fastest.
    ///
    /// # Errors
    /// [`Error::Argument`] if the shape is absurd or `data` has another number of elements.
    pub fn new(shape: impl AsRef<[usize]>, data: Vec<f32>) -> Result<Tensor> {
        Tensor::from_slice(shape, &data)
    }

    /// A tensor of `shape` with a copy of `data`.
    ///
    /// # Errors
    /// As [`Tensor::new`].
    pub fn from_slice(shape: impl AsRef<[usize]>, data: &[f32]) -> Result<Tensor> {
        let shape = Shape::new(shape.as_ref())?;
        if shape.num_elements() != data.len() {
            let expected = format!("{} elements for {shape}", shape.num_elements());
            return Err(Error::argument("tensor", "data", expected, data.len()));
        }
        Tensor::try_build(shape, |out| out.copy_from_slice(data))
    }

    /// All elements zero.
    ///
    /// # Errors
    /// [`Error::Argument`] for an absurd shape, [`Error::OutOfMemory`].
    pub fn zeros(shape: impl AsRef<[usize]>) -> Result<Tensor> {
        Tensor::full(shape, 0.0)
    }

    /// All elements `value`.
    ///
    /// # Errors
    /// As [`Tensor::zeros`].
    pub fn full(shape: impl AsRef<[usize]>, value: f32) -> Result<Tensor> {
        Tensor::try_build(Shape::new(shape.as_ref())?, |out| out.fill(value))
    }

    /// Each element from its flat index.
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

    /// Normal with mean 0 and standard deviation `std`.
    ///
    /// # Errors
    /// As [`Tensor::zeros`].
    pub fn normal(shape: impl AsRef<[usize]>, std: f32, rng: &mut Rng) -> Result<Tensor> {
        Tensor::from_fn(shape, |_| std * rng.normal())
    }

    /// Uniform in [`low`, `high`).
    ///
    /// # Errors
    /// As [`Tensor::zeros`].
    pub fn uniform(shape: impl AsRef<[usize]>, low: f32, high: f32, rng: &mut Rng) -> Result<Tensor> {
        Tensor::from_fn(shape, |_| low + (high - low) * rng.uniform())
    }

    /// A single number, of shape `[]`.
    pub fn scalar(value: f32) -> Tensor {
        Tensor::build(Shape::scalar(), |out| out[0] = value)
    }

    /// A tensor that `fill` writes. The memory is recycled: what it holds before is unspecified, and `fill` must write
    /// every element. This is how ops make their outputs: nothing is zeroed that is overwritten anyway.
    ///
    /// # Panics
    /// If the memory cannot be had; [`Tensor::zeros`] and its siblings return an error instead.
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

    /// The sizes of the axes.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The elements, the last axis fastest; none of a [meta](Tensor::is_meta) tensor.
    pub fn data(&self) -> &[f32] {
        match &self.memory {
            Memory::Held(storage) => storage,
            Memory::Counted(_) => &[],
        }
    }

    /// The elements for writing. Copies them first if another tensor shares the memory.
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

    /// Whether no other tensor shares the memory, so that [`Tensor::data_mut`] copies nothing.
    pub fn is_unique(&self) -> bool {
        match &self.memory {
            Memory::Held(storage) => Arc::strong_count(storage) == 1,
            Memory::Counted(entry) => Arc::strong_count(entry) == 1,
        }
    }

    /// The bytes that it takes of the pool: four for each element, rounded up to whole cache lines or pages.
    pub fn bytes(&self) -> usize {
        rounded(self.shape.num_elements())
    }

    /// A copy of the elements.
    pub fn to_vec(&self) -> Vec<f32> {
        self.data().to_vec()
    }

    /// The value of a tensor with one element; the first element of a larger one, NaN of an empty one.
    pub fn item(&self) -> f32 {
        self.data().first().copied().unwrap_or(f32::NAN)
    }

    /// The same elements in another shape. Shares the memory.
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

    /// A copy of a range of the first axis: images of a batch, rows of a matrix.
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
        Tensor::from_slice(sizes, &self.data()[range.start * stride..range.end * stride])
    }

    /// The index of the largest element of each row, a row being a run of the last axis: the class of each row of logits.
    pub fn argmax(&self) -> Vec<usize> {
        let largest =
            |row: &[f32]| (1..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best });
        self.data().chunks(self.shape.num_channels().max(1)).map(largest).collect()
    }
}

/// Equal shapes and equal elements.
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
    fn refusals_name_what_was_wrong() {
        let x = Tensor::zeros([2, 3]).unwrap();
        assert!(x.reshape([5]).unwrap_err().to_string().contains("expected 6 elements, found [5]"));
        assert!(x.slice_rows(1..3).unwrap_err().to_string().contains("expected a range in 0..2, found 1..3"));
        assert!(Tensor::scalar(1.0).slice_rows(0..1).is_err());
        assert!(
            Tensor::new([2], vec![1.0])
                .unwrap_err()
                .to_string()
                .contains("expected 2 elements for [2], found 1")
        );
        assert!(Tensor::zeros([1 << 40, 1 << 20]).is_err());
    }

    #[test]
    fn an_allocation_that_cannot_be_had_is_an_error() {
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
