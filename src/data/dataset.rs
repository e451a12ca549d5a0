//! What a loader reads, and what it gives.

use super::resample::Resample;
use crate::{Error, Result, Tensor};
use std::{ops::Range, path::PathBuf, sync::Arc};

/// Labeled images of one size, which are read by index, possibly by several threads at once.
///
/// Reading an index must give the same pixels every time: random transforms belong in a
/// [`Compose`](super::Compose).
///
/// ```
/// use skipgrad::{Result, data::{Dataset, Loader}};
///
/// /// A thousand gray images, the brightness of each given by its index.
/// struct Grays(Vec<String>);
///
/// impl Dataset for Grays {
///     fn len(&self) -> usize { 1000 }
///     fn classes(&self) -> &[String] { &self.0 }
///     fn image_shape(&self) -> [usize; 3] { [8, 8, 1] }
///     fn read(&self, index: usize, pixels: &mut [f32]) -> Result<usize> {
///         pixels.fill(index as f32 / 1000.0);
///         Ok(usize::from(index >= 500))
///     }
/// }
///
/// let loader = Loader::new(Grays(vec!["dark".into(), "bright".into()]), 250);
/// let last = loader.epoch(0)?.last().unwrap()?;
/// assert_eq!((last.labels[0], last.images.data()[0]), (1, 0.75));
/// # Ok::<(), skipgrad::Error>(())
/// ```
pub trait Dataset: Send + Sync {
    /// Returns the number of images.
    fn len(&self) -> usize;

    /// Returns whether there are no images.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the names of the classes; a label is an index into them.
    fn classes(&self) -> &[String];

    /// Returns the shape of every image, `[H, W, C]`.
    fn image_shape(&self) -> [usize; 3];

    /// Writes the pixels of an image, `[H, W, C]` with values in [0, 1], and returns its label.
    ///
    /// `index` is below [`Dataset::len`], and `pixels` has `H * W * C` elements.
    ///
    /// # Errors
    /// Any error of the source. The datasets of this module return [`Error::Argument`] if the index
    /// or the length of the slice is wrong.
    fn read(&self, index: usize, pixels: &mut [f32]) -> Result<usize>;

    /// Writes a box of an image, resized to [`Dataset::image_shape`], and returns the label.
    ///
    /// `choose` is called once, with the height and the width of the image in its own size, and
    /// returns the rows and the columns of the box. `index` and `pixels` are those of
    /// [`Dataset::read`]. The default implementation crops what [`Dataset::read`] writes; a dataset
    /// of images of many sizes crops the original.
    ///
    /// # Errors
    /// The errors of [`Dataset::read`], and [`Error::Argument`] if the box has no pixel or is not
    /// within the image.
    fn read_crop(
        &self,
        index: usize,
        pixels: &mut [f32],
        choose: &mut dyn FnMut([usize; 2]) -> [Range<usize>; 2],
    ) -> Result<usize> {
        let label = self.read(index, pixels)?;
        let shape @ [h, w, _] = self.image_shape();
        let source = choose([h, w]);
        check_box(&source, [h, w])?;
        resize_box(pixels, shape, source);
        Ok(label)
    }

    /// Returns whether an image is skipped because [`Dataset::read`] returned this error for it.
    ///
    /// The batch of a skipped image is smaller by one, and the epoch goes on; see
    /// [`Epoch`](super::Epoch). The default implementation skips no image.
    fn should_skip(&self, _error: &Error) -> bool {
        false
    }

    /// Returns the path and the error of each image that could not be read so far, every image
    /// once. The default implementation returns none.
    fn unreadable(&self) -> Vec<(PathBuf, String)> {
        vec![]
    }
}

impl<D: Dataset + ?Sized> Dataset for Arc<D> {
    fn len(&self) -> usize {
        (**self).len()
    }

    fn classes(&self) -> &[String] {
        (**self).classes()
    }

    fn image_shape(&self) -> [usize; 3] {
        (**self).image_shape()
    }

    fn read(&self, index: usize, pixels: &mut [f32]) -> Result<usize> {
        (**self).read(index, pixels)
    }

    fn read_crop(
        &self,
        index: usize,
        pixels: &mut [f32],
        choose: &mut dyn FnMut([usize; 2]) -> [Range<usize>; 2],
    ) -> Result<usize> {
        (**self).read_crop(index, pixels, choose)
    }

    fn should_skip(&self, error: &Error) -> bool {
        (**self).should_skip(error)
    }

    fn unreadable(&self) -> Vec<(PathBuf, String)> {
        (**self).unreadable()
    }
}

/// Checks the arguments of [`Dataset::read`] for a dataset of `len` images of shape `[H, W, C]`.
pub(super) fn check_read(len: usize, shape: [usize; 3], index: usize, pixels: &[f32]) -> Result<()> {
    if index >= len {
        return Err(Error::argument("read", "index", format!("below {len}"), index));
    }
    let num_elements = shape.iter().product::<usize>();
    if pixels.len() != num_elements {
        let expected = format!("{num_elements} for {shape:?}");
        return Err(Error::argument("read", "pixels", expected, pixels.len()));
    }
    Ok(())
}

/// Replaces an image `[H, W, C]` by a box of it, resized to the whole.
pub(super) fn resize_box(pixels: &mut [f32], [h, w, c]: [usize; 3], source: [Range<usize>; 2]) {
    let resample = Resample { source, size: [h, w], window: [0..h, 0..w] };
    let image = pixels.to_vec();
    resample.run(&image, [w, c], |x| x as f32, pixels);
}

/// Checks the box that was chosen for an image of `h` rows and `w` columns.
pub(super) fn check_box(source: &[Range<usize>; 2], [h, w]: [usize; 2]) -> Result<()> {
    let [rows, columns] = source;
    if !rows.is_empty() && !columns.is_empty() && rows.end <= h && columns.end <= w {
        return Ok(());
    }
    let expected = format!("at least one pixel within {h} rows and {w} columns");
    Err(Error::argument("read_crop", "box", expected, format_args!("{rows:?} and {columns:?}")))
}

/// Images and their labels: the input of one training step.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Batch {
    /// Pixels of the images, `[N, H, W, C]`.
    pub images: Tensor,
    /// Label of each image, `N` of them.
    pub labels: Vec<usize>,
    /// Index of each image in the dataset, `N` of them.
    pub indices: Vec<usize>,
    /// Weight of each class for each image, `[N, K]`, if a
    /// [`BatchTransform`](super::BatchTransform) has mixed images; the labels are then those
    /// before.
    pub targets: Option<Tensor>,
}

impl Batch {
    /// Returns the class of each image that counts as correct: its label or, of mixed images, the
    /// class of the largest weight.
    pub(crate) fn classes(&self) -> Vec<usize> {
        self.targets.as_ref().map_or_else(|| self.labels.clone(), Tensor::argmax)
    }
}
