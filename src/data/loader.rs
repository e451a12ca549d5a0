//! The options of a loader, and how many batches an epoch has.

use super::{
    BatchTransform, Compose, Dataset,
    epoch::{BatchReader, Epoch},
};
use crate::{Error, Result, Rng, Shape};
use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

/// Identifies the random stream that shuffles an epoch, in the place where the stream of an image
/// has the index of the image.
const SHUFFLE_STREAM: u64 = u64::MAX;

/// Turns a dataset into batches, epoch by epoch, as PyTorch's `DataLoader` does.
///
/// The order of the images depends on the seed and the epoch alone, and the random transforms of an
/// image on the seed, the epoch and the index of the image. So a seed gives the same bits with any
/// number of workers.
///
/// ```
/// use skipgrad::data::{
///     Compose, Loader, Normalize, RandomCrop, RandomHorizontalFlip, SyntheticShapes,
/// };
/// let data = SyntheticShapes::with_sizes(100, 20, 42)?;
/// let transform = Compose::new()
///     .then(RandomCrop::with_padding(4))
///     .then(RandomHorizontalFlip)
///     .then(Normalize::fit(&data.train())?);
/// let test = Loader::new(data.test(), 20).transform(transform.eval());
/// let train = Loader::new(data.train(), 32)
///     .shuffle(7)
///     .transform(transform)
///     .num_workers(2)
///     .drop_last(true);
/// assert_eq!((train.num_batches(), test.num_batches()), (3, 1));
/// for batch in train.epoch(0)? {
///     assert_eq!(batch?.images.shape(), [32, 32, 32, 3]);
/// }
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone)]
pub struct Loader {
    dataset: Arc<dyn Dataset>,
    batch_size: usize,
    shuffle: bool,
    seed: u64,
    transform: Compose,
    batch_transform: Option<Arc<dyn BatchTransform>>,
    num_workers: usize,
    drop_last: bool,
}

impl Loader {
    /// Creates a loader of batches of `batch_size` images in the order of the dataset, without
    /// transforms, with one worker thread.
    pub fn new(dataset: impl Dataset + 'static, batch_size: usize) -> Loader {
        Loader {
            dataset: Arc::new(dataset),
            batch_size,
            shuffle: false,
            seed: 0,
            transform: Compose::new(),
            batch_transform: None,
            num_workers: 1,
            drop_last: false,
        }
    }

    /// Shuffles the images in every epoch. The random transforms depend on the same seed, which is
    /// 0 for a loader that does not shuffle.
    #[must_use]
    pub fn shuffle(self, seed: u64) -> Loader {
        Loader { shuffle: true, seed, ..self }
    }

    /// Sets the transforms that are applied to every image.
    #[must_use]
    pub fn transform(self, transform: Compose) -> Loader {
        Loader { transform, ..self }
    }

    /// Sets the transform that is applied to every batch after those of its images. The batches
    /// have [`Batch::targets`](super::Batch::targets) then, one weight for each class of the
    /// dataset.
    ///
    /// ```
    /// use skipgrad::data::{Loader, Mixup, SyntheticShapes};
    /// let data = SyntheticShapes::with_sizes(8, 0, 1)?;
    /// let loader = Loader::new(data.train(), 4).shuffle(0).batch_transform(Mixup::new(0.2));
    /// let targets = loader.epoch(0)?.next().unwrap()?.targets.unwrap();
    /// assert_eq!(targets.shape(), [4, 10]);
    /// assert!((targets.data()[..10].iter().sum::<f32>() - 1.0).abs() < 1e-6);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    #[must_use]
    pub fn batch_transform(self, transform: impl BatchTransform + 'static) -> Loader {
        Loader { batch_transform: Some(Arc::new(transform)), ..self }
    }

    /// Sets the number of threads that prepare batches ahead of use. With 0, each batch is prepared
    /// when it is asked for, on the thread that asks.
    #[must_use]
    pub fn num_workers(self, num_workers: usize) -> Loader {
        Loader { num_workers, ..self }
    }

    /// Sets whether the last batch of an epoch is dropped if it is smaller than the others.
    #[must_use]
    pub fn drop_last(self, drop_last: bool) -> Loader {
        Loader { drop_last, ..self }
    }

    /// Returns the dataset that the batches are read from.
    pub fn dataset(&self) -> &dyn Dataset {
        &*self.dataset
    }

    /// Returns the number of images in a batch; the last batch of an epoch may be smaller.
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// Returns the path and the error of each image that could not be read so far, every image once
    /// ([`Dataset::unreadable`]). Loaders of the same dataset share the list.
    pub fn unreadable(&self) -> Vec<(PathBuf, String)> {
        self.dataset.unreadable()
    }

    /// Returns the number of planned batches in an epoch. Images that cannot be read may leave
    /// fewer; see [`Epoch`].
    pub fn num_batches(&self) -> usize {
        let len = self.dataset.len();
        let full = len.checked_div(self.batch_size).unwrap_or(0);
        let partial = full * self.batch_size < len && self.batch_size > 0;
        if self.drop_last { full } else { full + usize::from(partial) }
    }

    /// Returns the number of images in an epoch, whether or not they can be read.
    pub fn num_samples(&self) -> usize {
        if self.drop_last { self.num_batches() * self.batch_size } else { self.dataset.len() }
    }

    /// Returns whether the images are shuffled.
    pub(crate) fn is_shuffled(&self) -> bool {
        self.shuffle
    }

    /// Returns the seed of the order and of the random transforms.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// Returns whether a last batch that is smaller than the others is dropped.
    pub(crate) fn drops_last(&self) -> bool {
        self.drop_last
    }

    /// Returns the transforms that are applied to every image.
    pub(crate) fn transforms(&self) -> &Compose {
        &self.transform
    }

    /// Returns the transform that is applied to every batch, if there is one.
    pub(crate) fn batch_transforms(&self) -> Option<&dyn BatchTransform> {
        self.batch_transform.as_deref()
    }

    /// Starts an epoch and returns the iterator over its batches.
    ///
    /// Images that the dataset skips ([`Dataset::should_skip`]) are missing from their batch, as
    /// [`Epoch`] describes. The iterator ends after its first error.
    ///
    /// # Errors
    /// [`Error::Argument`] if the dataset has no images, its images have no pixels, the batch size
    /// is 0, or the dataset is smaller than one batch while [`Loader::drop_last`] is set; and the
    /// errors of [`Compose::check`].
    ///
    /// # Panics
    /// This function does not panic. [`Iterator::next`] of the epoch panics if the dataset or a
    /// transform panics, on whichever thread that happens.
    pub fn epoch(&self, epoch: u64) -> Result<Epoch> {
        self.epoch_from(epoch, 0)
    }

    /// Resumes an epoch at planned batch `first`, with the same bits as an epoch that was run from
    /// its start and whose [`Epoch::position`] is `first`.
    ///
    /// # Errors
    /// The errors of [`Loader::epoch`], and [`Error::Argument`] if the epoch has fewer than `first`
    /// batches.
    ///
    /// ```
    /// use skipgrad::data::{Loader, SyntheticShapes};
    /// let loader = Loader::new(SyntheticShapes::with_sizes(40, 0, 1)?.train(), 8).shuffle(3);
    /// let whole = loader.epoch(5)?.skip(3).collect::<Result<Vec<_>, _>>()?;
    /// let resumed = loader.epoch_from(5, 3)?.collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!((whole.len(), whole == resumed), (2, true));
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn epoch_from(&self, epoch: u64, first: usize) -> Result<Epoch> {
        self.check()?;
        let num_batches = self.num_batches();
        if first > num_batches {
            let expected = format!("at most {num_batches}, the batches of an epoch");
            return Err(Error::argument("loader", "first batch", expected, first));
        }
        let mut order: Vec<usize> = (0..self.dataset.len()).collect();
        if self.shuffle {
            Rng::keyed(self.seed, epoch, SHUFFLE_STREAM).shuffle(&mut order);
        }
        let reader = BatchReader {
            dataset: self.dataset.clone(),
            transform: self.transform.clone(),
            batch_transform: self.batch_transform.clone(),
            batch_size: self.batch_size,
            seed: self.seed,
            epoch,
            order,
            stop: AtomicBool::new(false),
        };
        Ok(Epoch::start(reader, first..num_batches, self.num_workers))
    }

    /// Checks that the options fit the dataset, as [`Loader::epoch`] does before it starts.
    ///
    /// # Errors
    /// The errors of [`Loader::epoch`].
    pub fn check(&self) -> Result<()> {
        let len = self.dataset.len();
        if len == 0 {
            return Err(Error::argument("loader", "dataset", "at least one image", "none"));
        }
        if self.batch_size == 0 {
            return Err(Error::argument("loader", "batch size", "at least 1", 0));
        }
        if self.num_batches() == 0 {
            let expected = format!("at most {len}, the images there are, as the last batch is dropped");
            return Err(Error::argument("loader", "batch size", expected, self.batch_size));
        }
        let shape = self.dataset.image_shape();
        if Shape::new(&shape)?.num_elements() == 0 {
            let found = format!("{shape:?}");
            return Err(Error::argument("loader", "dataset", "at least one pixel per image", found));
        }
        if let Some(transform) = &self.batch_transform {
            transform.check()?;
            if self.dataset.classes().is_empty() {
                let expected = "the names of the classes, which mixed targets need";
                return Err(Error::argument("loader", "classes", expected, "none"));
            }
        }
        self.transform.check(shape)
    }
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loader")
            .field("images", &self.dataset.len())
            .field("batch_size", &self.batch_size)
            .field("shuffle", &self.shuffle)
            .field("seed", &self.seed)
            .field("transform", &self.transform)
            .field("batch_transform", &self.batch_transform)
            .field("num_workers", &self.num_workers)
            .field("drop_last", &self.drop_last)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Batch, Cutout, Images, Normalize, RandomCrop, RandomHorizontalFlip, Transform};
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
        time::{Duration, Instant},
    };

    fn noise(count: usize) -> Images {
        let mut rng = Rng::seed(8);
        let pixels = (0..count * 36).map(|_| rng.bits() as u8).collect();
        Images::from_bytes(
            [count, 4, 3, 3],
            pixels,
            (0..count).map(|i| i % 5).collect(),
            ["a", "b", "c", "d", "e"],
        )
        .unwrap()
    }

    fn transforms() -> Compose {
        Compose::new()
            .then(RandomCrop::with_padding(2))
            .then(RandomHorizontalFlip)
            .then(Normalize::cifar10())
            .then(Cutout::with_length(2))
    }

    fn all(epoch: Result<Epoch>) -> Vec<Batch> {
        epoch.unwrap().collect::<Result<_>>().unwrap()
    }

    #[test]
    fn any_number_of_workers_gives_the_same_bits() {
        let loader = Loader::new(noise(103), 8).shuffle(11).transform(transforms());
        let expected = all(loader.clone().num_workers(0).epoch(3));
        assert_eq!(expected.len(), 13);
        assert_eq!(expected[12].labels.len(), 7);
        for workers in [1, 2, 4, 50] {
            assert!(all(loader.clone().num_workers(workers).epoch(3)) == expected, "{workers} workers");
        }
        assert!(all(loader.epoch(4)) != expected, "every epoch is another");
        assert!(all(loader.clone().shuffle(12).epoch(3)) != expected, "every seed is another");
    }

    #[test]
    fn an_epoch_resumed_at_any_batch_goes_on_with_the_same_bits() {
        let loader = Loader::new(noise(50), 8).shuffle(1).transform(transforms());
        let whole = all(loader.epoch(2));
        for workers in [0, 1, 3] {
            let loader = loader.clone().num_workers(workers);
            for first in 0..=7 {
                assert!(all(loader.epoch_from(2, first)) == whole[first..], "from {first}");
            }
        }
        let error = loader.epoch_from(2, 8).unwrap_err().to_string();
        assert!(error.contains("at most 7, the batches of an epoch, found 8"), "{error}");
    }

    #[test]
    fn every_image_comes_once_with_its_label() {
        let images = noise(20);
        let batches = all(Loader::new(images.clone(), 6).shuffle(5).epoch(0));
        let mut seen: Vec<usize> = batches
            .iter()
            .flat_map(|batch| batch.images.data().chunks(36).zip(&batch.labels))
            .map(|(pixels, &label)| {
                let index = (0..20).find(|&i| images.images(i..i + 1).unwrap().data() == pixels).unwrap();
                assert_eq!(label, index % 5);
                index
            })
            .collect();
        assert_ne!(seen, (0..20).collect::<Vec<_>>());
        seen.sort_unstable();
        assert_eq!(seen, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn without_shuffling_the_order_is_the_datasets() {
        let images = noise(10);
        let batches = all(Loader::new(images.clone(), 4).drop_last(true).epoch(9));
        assert_eq!(batches.len(), 2);
        assert_eq!(batches[1].images, images.images(4..8).unwrap());
    }

    #[test]
    fn counts_of_batches_and_samples() {
        let counts = |len, size, drop_last| {
            let loader = Loader::new(noise(len), size).drop_last(drop_last);
            (loader.num_batches(), loader.num_samples())
        };
        assert_eq!(counts(10, 4, false), (3, 10));
        assert_eq!(counts(10, 4, true), (2, 8));
        assert_eq!(counts(8, 4, false), (2, 8));
        assert_eq!(counts(3, 4, false), (1, 3));
        assert_eq!(counts(3, usize::MAX, false), (1, 3));
        assert_eq!(counts(3, 0, false).0, 0);
        assert_eq!(all(Loader::new(noise(3), usize::MAX).epoch(0)).len(), 1);
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let error = |loader: Loader| loader.epoch(0).unwrap_err().to_string();
        assert_eq!(error(Loader::new(noise(3), 0)), "loader: batch size: expected at least 1, found 0");
        assert!(error(Loader::new(noise(0), 1)).contains("dataset: expected at least one image, found none"));
        assert!(error(Loader::new(noise(3), 4).drop_last(true)).contains("expected at most 3"));
        assert!(
            error(Loader::new(noise(3), 1).transform(Compose::new().then(RandomCrop::with_padding(3))))
                .contains("random_crop")
        );
    }

    /// A dataset that counts the images that are read, and fails or panics at one index.
    struct Trap {
        classes: Vec<String>,
        reads: Arc<AtomicUsize>,
        fault: usize,
        panics: bool,
    }

    impl Dataset for Trap {
        fn len(&self) -> usize {
            10_000
        }

        fn classes(&self) -> &[String] {
            &self.classes
        }

        fn image_shape(&self) -> [usize; 3] {
            [1, 1, 1]
        }

        fn read(&self, index: usize, _pixels: &mut [f32]) -> Result<usize> {
            self.reads.fetch_add(1, Ordering::SeqCst);
            match index == self.fault {
                true if self.panics => panic!("the trap snapped"),
                true => Err(Error::argument("trap", "index", "another", index)),
                false => Ok(0),
            }
        }
    }

    #[test]
    fn images_without_pixels_are_an_error() {
        struct Nothing;
        impl Dataset for Nothing {
            fn len(&self) -> usize {
                1
            }

            fn classes(&self) -> &[String] {
                &[]
            }

            fn image_shape(&self) -> [usize; 3] {
                [8, 0, 3]
            }

            fn read(&self, _index: usize, _pixels: &mut [f32]) -> Result<usize> {
                Ok(0)
            }
        }
        let error = Loader::new(Nothing, 1).epoch(0).unwrap_err().to_string();
        assert!(error.contains("expected at least one pixel per image, found [8, 0, 3]"), "{error}");
        assert!(Normalize::fit(&Nothing).is_err());
    }

    fn trap(fault: usize, panics: bool, workers: usize) -> (Loader, Arc<AtomicUsize>) {
        let reads = Arc::new(AtomicUsize::new(0));
        let data = Trap { classes: vec!["none".into()], reads: reads.clone(), fault, panics };
        (Loader::new(data, 10).num_workers(workers), reads)
    }

    #[test]
    fn an_error_comes_once_in_its_place_and_ends_the_epoch() {
        for workers in [0, 1, 2, 4] {
            let (loader, _) = trap(57, false, workers);
            let mut epoch = loader.epoch(0).unwrap();
            assert_eq!(epoch.by_ref().take(5).filter(Result::is_ok).count(), 5);
            let error = epoch.next().unwrap().unwrap_err();
            assert!(error.to_string().contains("trap: index: expected another, found 57"), "{error}");
            assert!(epoch.next().is_none());
        }
    }

    #[test]
    fn a_panic_of_a_worker_is_a_panic_of_the_consumer_once() {
        for workers in [0, 1, 2, 4] {
            let (loader, _) = trap(57, true, workers);
            let mut epoch = loader.epoch(0).unwrap();
            assert_eq!(epoch.by_ref().take(5).filter(Result::is_ok).count(), 5);
            let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| epoch.next())).unwrap_err();
            assert_eq!(*panic.downcast_ref::<&str>().unwrap(), "the trap snapped");
            assert!(epoch.next().is_none());
        }
    }

    #[test]
    fn workers_are_at_most_two_batches_ahead() {
        for workers in [1, 3] {
            let (loader, reads) = trap(usize::MAX, false, workers);
            let mut epoch = loader.epoch(0).unwrap();
            for taken in 1..=3 {
                epoch.next().unwrap().unwrap();
                thread::sleep(Duration::from_millis(30));
                let made = reads.load(Ordering::SeqCst).div_ceil(10);
                assert!((taken..=taken + 2 * workers).contains(&made), "{made} made, {taken} taken");
            }
        }
    }

    #[test]
    fn dropping_the_epoch_stops_the_workers() {
        /// Takes a millisecond an image.
        #[derive(Debug)]
        struct Slow;
        impl Transform for Slow {
            fn apply(&self, _pixels: &mut [f32], _shape: [usize; 3], _rng: &mut Rng) {
                thread::sleep(Duration::from_millis(1));
            }
        }
        let reads = Arc::new(AtomicUsize::new(0));
        let data = Arc::new(Trap {
            classes: vec!["none".into()],
            reads: reads.clone(),
            fault: usize::MAX,
            panics: false,
        });
        let loader = Loader::new(data.clone(), 2000).transform(Compose::new().then(Slow)).num_workers(3);
        let epoch = loader.epoch(0).unwrap();
        thread::sleep(Duration::from_millis(20));
        let start = Instant::now();
        drop(epoch);
        assert!(start.elapsed() < Duration::from_millis(1000), "a batch takes 2 seconds");
        let read = reads.load(Ordering::SeqCst);
        drop(loader);
        assert_eq!(Arc::strong_count(&data), 1, "no thread holds the dataset");
        assert!(read < 6000, "{read}");
    }
}
