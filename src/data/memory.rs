//! A dataset in memory.

use super::{Batch, Dataset, dataset::check_read};
use crate::{Error, Result, Rng, Shape, Tensor};
use std::{fmt, ops::Range, sync::Arc};

/// Labeled images in memory, as in PyTorch's `TensorDataset`. Clones and slices share the pixels.
///
/// ```
/// use skipgrad::{Tensor, data::Images};
/// let pixels = Tensor::from_fn([6, 2, 2, 1], |i| i as f32 / 24.0)?;
/// let images = Images::new(pixels, vec![0, 1, 1, 0, 1, 0], ["cat", "dog"])?;
/// let slice = images.slice(2..6)?.take(3);
/// assert_eq!(slice.labels(0..3)?, [1, 0, 1]);
/// assert_eq!(slice.images(1..2)?.data(), [0.5, 13.0 / 24.0, 14.0 / 24.0, 15.0 / 24.0]);
/// assert!(Images::new(Tensor::full([1, 2, 2, 1], 255.0)?, vec![0], ["cat"]).is_err());
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone)]
pub struct Images {
    pixels: Pixels,
    labels: Arc<[usize]>,
    classes: Arc<[String]>,
    /// Shape of one image, `[H, W, C]`.
    shape: [usize; 3],
    /// Indices of the stored images that belong to this slice.
    range: Range<usize>,
}

/// Pixels of all stored images, `[N, H, W, C]`.
#[derive(Clone)]
enum Pixels {
    /// Bytes, which are divided by 255 when they are read.
    Bytes(Arc<[u8]>),
    /// Values in [0, 1].
    Floats(Tensor),
}

impl Images {
    /// Creates a dataset from images `[N, H, W, C]` with values in [0, 1], the `N` labels, and the
    /// names of the classes.
    ///
    /// # Errors
    /// [`Error::Argument`] if the tensor has not four axes, the images have no pixels, a pixel is
    /// NaN or outside of [0, 1], the number of labels is not `N`, or a label is not the index of a
    /// class.
    pub fn new(
        images: Tensor,
        labels: Vec<usize>,
        classes: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Images> {
        let shape = images.shape().nhwc("images", "images")?;
        if let Some(i) = images.data().iter().position(|x| !(0.0..=1.0).contains(x)) {
            let image_len = shape[1..].iter().product::<usize>();
            let found = format!("{} in image {}", images.data()[i], i / image_len);
            return Err(Error::argument("images", "images", "pixels in [0, 1]", found));
        }
        Images::checked(shape, Pixels::Floats(images), labels, classes)
    }

    /// Creates a dataset from bytes, where 0 becomes 0.0 and 255 becomes 1.0. `shape` is
    /// `[N, H, W, C]`.
    ///
    /// # Errors
    /// The errors of [`Images::new`], and [`Error::Argument`] if the length of `pixels` is not the
    /// product of `shape`.
    pub fn from_bytes(
        shape: [usize; 4],
        pixels: Vec<u8>,
        labels: Vec<usize>,
        classes: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Images> {
        let num_elements = Shape::new(&shape)?.num_elements();
        if num_elements != pixels.len() {
            let expected = format!("{num_elements} bytes for {shape:?}");
            return Err(Error::argument("images", "pixels", expected, pixels.len()));
        }
        Images::checked(shape, Pixels::Bytes(pixels.into()), labels, classes)
    }

    /// Checks the labels and the shape, `[N, H, W, C]`.
    fn checked(
        [count, h, w, c]: [usize; 4],
        pixels: Pixels,
        labels: Vec<usize>,
        classes: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Images> {
        let classes: Arc<[String]> = classes.into_iter().map(Into::into).collect();
        if h * w * c == 0 {
            let found = format!("{:?}", [count, h, w, c]);
            return Err(Error::argument("images", "images", "at least one pixel per image", found));
        }
        if labels.len() != count {
            let expected = format!("{count}, one per image");
            return Err(Error::argument("images", "labels", expected, labels.len()));
        }
        if let Some(i) = labels.iter().position(|&label| label >= classes.len()) {
            let expected = format!("classes below {}", classes.len());
            return Err(Error::argument("images", "labels", expected, format!("{} in image {i}", labels[i])));
        }
        Ok(Images { pixels, labels: labels.into(), classes, shape: [h, w, c], range: 0..count })
    }

    /// Returns the number of images.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Returns whether there are no images.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Returns the names of the classes; a label is an index into them.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// Returns the shape of every image, `[H, W, C]`.
    pub fn image_shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Returns the images of a range, `[N, H, W, C]` with values in [0, 1].
    ///
    /// # Errors
    /// [`Error::Argument`] if the range is not inside `0..len`.
    pub fn images(&self, range: Range<usize>) -> Result<Tensor> {
        let stored = self.stored("images", range)?;
        Ok(self.gather(stored))
    }

    /// Returns the labels of a range.
    ///
    /// # Errors
    /// [`Error::Argument`] if the range is not inside `0..len`.
    pub fn labels(&self, range: Range<usize>) -> Result<&[usize]> {
        Ok(&self.labels[self.stored("labels", range)?])
    }

    /// Returns the dataset of a range of the images.
    ///
    /// # Errors
    /// [`Error::Argument`] if the range is not inside `0..len`.
    pub fn slice(&self, range: Range<usize>) -> Result<Images> {
        Ok(Images { range: self.stored("slice", range)?, ..self.clone() })
    }

    /// Returns the dataset of the first `count` images, or of all if there are fewer.
    #[must_use]
    pub fn take(&self, count: usize) -> Images {
        let end = self.range.start + count.min(self.len());
        Images { range: self.range.start..end, ..self.clone() }
    }

    /// Iterates once over the images, in random order and in batches of `batch_size`; the last
    /// batch may be smaller. A [`Loader`](super::Loader) also applies transforms and uses threads.
    ///
    /// # Errors
    /// [`Error::Argument`] if there are no images or `batch_size` is 0.
    ///
    /// ```
    /// use skipgrad::{Rng, data::SyntheticShapes};
    /// let train = SyntheticShapes::with_sizes(50, 0, 42)?.train();
    /// let batches = train.batches(20, Rng::seed(0))?;
    /// let sizes: Vec<usize> = batches.map(|batch| batch.labels.len()).collect();
    /// assert_eq!(sizes, [20, 20, 10]);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn batches(&self, batch_size: usize, mut rng: Rng) -> Result<Batches> {
        if self.is_empty() {
            return Err(Error::argument("batches", "images", "at least one", "none"));
        }
        if batch_size == 0 {
            return Err(Error::argument("batches", "batch_size", "at least 1", 0));
        }
        let mut order: Vec<usize> = self.range.clone().collect();
        rng.shuffle(&mut order);
        Ok(Batches { images: self.clone(), order, batch_size, next: 0 })
    }

    /// Returns the same images with other labels and classes.
    pub(super) fn relabeled(&self, labels: Vec<usize>, classes: &[&str]) -> Images {
        let classes = classes.iter().map(|&name| name.into()).collect();
        Images { labels: labels.into(), classes, ..self.clone() }
    }

    /// Converts a range of this slice to a range of the stored images.
    fn stored(&self, op: &'static str, range: Range<usize>) -> Result<Range<usize>> {
        if range.start > range.end || range.end > self.len() {
            let expected = format!("a range in 0..{}", self.len());
            return Err(Error::argument(op, "range", expected, format_args!("{range:?}")));
        }
        Ok(self.range.start + range.start..self.range.start + range.end)
    }

    /// Returns the number of elements of one image, `H * W * C`.
    fn image_len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns the stored images with these indices, `[N, H, W, C]`.
    fn gather(&self, indices: impl ExactSizeIterator<Item = usize>) -> Tensor {
        let [h, w, c] = self.shape;
        let shape = match Shape::new(&[indices.len(), h, w, c]) {
            Ok(shape) => shape,
            Err(error) => unreachable!("at most as many images as are stored: {error}"),
        };
        Tensor::build(shape, |out| {
            for (out, index) in out.chunks_exact_mut(self.image_len()).zip(indices) {
                self.copy(index, out);
            }
        })
    }

    /// Writes the pixels of the stored image with this index.
    fn copy(&self, index: usize, out: &mut [f32]) {
        let range = index * out.len()..(index + 1) * out.len();
        match &self.pixels {
            Pixels::Floats(pixels) => out.copy_from_slice(&pixels.data()[range]),
            Pixels::Bytes(pixels) => {
                for (x, &byte) in out.iter_mut().zip(&pixels[range]) {
                    *x = f32::from(byte) / 255.0;
                }
            }
        }
    }
}

/// Allocates an empty vector for this many bytes of pixels.
pub(super) fn with_byte_capacity(bytes: usize) -> Result<Vec<u8>> {
    let mut pixels = Vec::new();
    pixels.try_reserve_exact(bytes).map_err(|_| Error::OutOfMemory { bytes })?;
    Ok(pixels)
}

impl Dataset for Images {
    fn len(&self) -> usize {
        self.len()
    }

    fn classes(&self) -> &[String] {
        self.classes()
    }

    fn image_shape(&self) -> [usize; 3] {
        self.shape
    }

    fn read(&self, index: usize, pixels: &mut [f32]) -> Result<usize> {
        check_read(self.len(), self.shape, index, pixels)?;
        self.copy(self.range.start + index, pixels);
        Ok(self.labels[self.range.start + index])
    }
}

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [h, w, c] = self.shape;
        write!(f, "Images({} of {h} x {w} x {c} in {} classes)", self.len(), self.classes.len())
    }
}

/// Iterates over batches in random order; [`Images::batches`] creates it.
#[derive(Debug)]
pub struct Batches {
    images: Images,
    /// Index of each stored image, in the order of the batches.
    order: Vec<usize>,
    batch_size: usize,
    next: usize,
}

impl Iterator for Batches {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let rest = &self.order[self.next..];
        let indices = &rest[..rest.len().min(self.batch_size)];
        if indices.is_empty() {
            return None;
        }
        self.next += indices.len();
        Some(Batch {
            images: self.images.gather(indices.iter().copied()),
            labels: indices.iter().map(|&i| self.images.labels[i]).collect(),
            indices: indices.iter().map(|&i| i - self.images.range.start).collect(),
            targets: None,
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let remaining = (self.order.len() - self.next).div_ceil(self.batch_size);
        (remaining, Some(remaining))
    }
}

impl ExactSizeIterator for Batches {}

#[cfg(test)]
mod tests {
    use super::*;

    fn ten() -> Images {
        let labels = (0..10).map(|i| i % 2).collect();
        Images::from_bytes([10, 1, 2, 1], (0..20).collect(), labels, ["even", "odd"]).unwrap()
    }

    #[test]
    fn bytes_become_values_in_0_to_1() {
        let images =
            Images::from_bytes([1, 1, 3, 1], vec![0, 51, 255], vec![0], vec!["a".to_string()]).unwrap();
        assert_eq!(images.images(0..1).unwrap().data(), [0.0, 0.2, 1.0]);
    }

    #[test]
    fn slices_of_slices_count_from_their_own_start() {
        let slice = ten().slice(3..9).unwrap().slice(1..6).unwrap().take(4);
        assert_eq!((slice.len(), slice.labels(0..4).unwrap()), (4, &[0, 1, 0, 1][..]));
        assert_eq!(slice.images(3..4).unwrap().data(), [14.0 / 255.0, 15.0 / 255.0]);
        let mut pixels = [0.0; 2];
        assert_eq!(slice.read(1, &mut pixels).unwrap(), 1);
        assert_eq!(pixels, [10.0 / 255.0, 11.0 / 255.0]);
        assert_eq!(slice.take(100).len(), 4);
        assert!(slice.take(0).is_empty());
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let says = |result: Result<()>, text: &str| {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(text), "{error:?} does not say {text:?}");
        };
        let names = ["a", "b"];
        let zeros = |shape: [usize; 4]| Tensor::zeros(shape).unwrap();
        let new = |images, labels| Images::new(images, labels, names).map(drop);
        says(new(Tensor::zeros([4, 4]).unwrap(), vec![]), "expected [N, H, W, C], found [4, 4]");
        says(new(zeros([2, 2, 2, 1]), vec![0]), "labels: expected 2, one per image, found 1");
        says(new(zeros([2, 2, 2, 1]), vec![0, 2]), "expected classes below 2, found 2 in image 1");
        says(new(zeros([2, 0, 2, 1]), vec![0, 1]), "at least one pixel");
        let mut invalid = zeros([3, 2, 2, 1]);
        invalid.data_mut()[9] = f32::NAN;
        says(new(invalid, vec![0; 3]), "expected pixels in [0, 1], found NaN in image 2");
        says(
            Images::from_bytes([2, 2, 2, 1], vec![0; 7], vec![0; 2], names).map(drop),
            "expected 8 bytes for [2, 2, 2, 1], found 7",
        );
        says(ten().images(5..11).map(drop), "images: range: expected a range in 0..10, found 5..11");
        #[expect(clippy::reversed_empty_ranges, reason = "the case under test")]
        let reversed = 3..2;
        says(ten().labels(reversed).map(drop), "found 3..2");
        says(ten().slice(0..11).map(drop), "slice: range");
        says(ten().read(10, &mut [0.0; 2]).map(drop), "index: expected below 10, found 10");
        says(ten().read(0, &mut [0.0; 3]).map(drop), "pixels: expected 2 for [1, 2, 1], found 3");
        says(ten().batches(0, Rng::seed(0)).map(drop), "batch_size: expected at least 1, found 0");
        says(ten().take(0).batches(1, Rng::seed(0)).map(drop), "images: expected at least one, found none");
    }

    #[test]
    fn batches_have_every_image_of_the_slice_once_with_its_label() {
        let slice = ten().slice(2..9).unwrap();
        let batches = slice.batches(3, Rng::seed(5)).unwrap();
        assert_eq!(batches.len(), 3);
        let mut seen = vec![];
        for batch in batches {
            for (row, &label) in batch.images.data().chunks(2).zip(&batch.labels) {
                let index = (row[0] * 255.0).round() as usize / 2;
                assert_eq!(label, index % 2);
                seen.push(index);
            }
        }
        assert_ne!(seen, [2, 3, 4, 5, 6, 7, 8]);
        seen.sort_unstable();
        assert_eq!(seen, [2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn the_order_depends_on_the_random_stream() {
        let order = |seed| ten().batches(10, Rng::seed(seed)).unwrap().next().unwrap().labels;
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }
}
