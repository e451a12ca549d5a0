//! From a dataset to batches: order, augmentation, worker threads.
//!
//! Nothing that is random depends on who computes it: the order of an epoch is a stream keyed by (seed, epoch), the
//! augmentation of a sample one keyed by (seed, epoch, index). Worker `w` of `n` prepares the batches `w`, `w + n`,
//! `w + 2n`, ... and hands each over through a channel of its own that holds one, so that batches come in order and at
//! most two a worker exist ahead of the consumer: one in the channel, one in the making.

use super::{Batch, Compose, Dataset};
use crate::{Error, Result, Rng, Shape, Tensor};
use std::{
    fmt,
    panic::resume_unwind,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

/// The key of the stream that shuffles, where a sample's stream has its index.
const ORDER: u64 = u64::MAX;

/// Makes batches of a dataset, epoch by epoch. The same seed gives the same bits with any number of workers.
///
/// ```
/// use skipgrad::data::{SyntheticShapes, RandomHorizontalFlip, Loader, Normalize, RandomCrop, Compose};
/// let data = SyntheticShapes::with_sizes(100, 20, 42)?;
/// let steps = Compose::new().then(RandomCrop(4)).then(RandomHorizontalFlip).then(Normalize::measure(&data.train())?);
/// let test = Loader::new(data.test(), 20).transform(steps.eval());
/// let train = Loader::new(data.train(), 32).shuffle(7).transform(steps).workers(2).drop_last(true);
/// assert_eq!((train.num_batches(), test.num_batches()), (3, 1));
/// for batch in train.epoch(0)? {
///     assert_eq!(batch?.images.shape(), [32, 32, 32, 3]);
/// }
/// # Ok::<(), skipgrad::Error>(())
/// ```
#[derive(Clone)]
pub struct Loader {
    dataset: Arc<dyn Dataset>,
    size: usize,
    shuffle: bool,
    seed: u64,
    transform: Compose,
    workers: usize,
    drop_last: bool,
}

impl Loader {
    /// Batches of `size` images, in the order of the dataset, as they are, prepared by one thread ahead of use.
    pub fn new(dataset: impl Dataset + 'static, size: usize) -> Loader {
        Loader {
            dataset: Arc::new(dataset),
            size,
            shuffle: false,
            seed: 0,
            transform: Compose::new(),
            workers: 1,
            drop_last: false,
        }
    }

    /// Every epoch in a random order of its own. The seed is the augmentation's too.
    #[must_use]
    pub fn shuffle(self, seed: u64) -> Loader {
        Loader { shuffle: true, seed, ..self }
    }

    /// What happens to every image.
    #[must_use]
    pub fn transform(self, transform: Compose) -> Loader {
        Loader { transform, ..self }
    }

    /// How many threads prepare batches ahead of use; with 0, the thread that asks for a batch makes it then.
    #[must_use]
    pub fn workers(self, workers: usize) -> Loader {
        Loader { workers, ..self }
    }

    /// Whether an epoch leaves out the images that do not fill a batch at its end.
    #[must_use]
    pub fn drop_last(self, drop_last: bool) -> Loader {
        Loader { drop_last, ..self }
    }

    /// What the batches are made of.
    pub fn dataset(&self) -> &dyn Dataset {
        &*self.dataset
    }

    /// The number of images of a batch, the last one perhaps excepted.
    pub fn batch_size(&self) -> usize {
        self.size
    }

    /// The number of batches of an epoch.
    pub fn num_batches(&self) -> usize {
        let len = self.dataset.len();
        let whole = len.checked_div(self.size).unwrap_or(0);
        if self.drop_last { whole } else { whole + usize::from(whole * self.size < len && self.size > 0) }
    }

    /// The number of images of an epoch.
    pub fn samples(&self) -> usize {
        let len = self.dataset.len();
        if self.drop_last { self.num_batches() * self.size } else { len }
    }

    /// The batches of an epoch. An image that the dataset leaves out ([`Dataset::should_skip`]) is missing in its batch; if all of a
    /// batch are, that is an error. An error is given once and is the last item; a panic of the dataset or of an augmentation
    /// is a panic of [`Iterator::next`].
    ///
    /// # Errors
    /// [`Error::Argument`] if there are no images or they have no pixels, the batch size is 0 or the dataset does not fill one batch and
    /// [`Loader::drop_last`] is set, and [`Compose::check`]'s.
    pub fn epoch(&self, epoch: u64) -> Result<Epoch> {
        self.epoch_from(epoch, 0)
    }

    /// The rest of an epoch from batch `first` on, with the same bits as if it had been run from the start.
    ///
    /// # Errors
    /// As [`Loader::epoch`], and [`Error::Argument`] if the epoch has fewer than `first` batches.
    ///
    /// ```
    /// use skipgrad::data::{SyntheticShapes, Loader};
    /// let loader = Loader::new(SyntheticShapes::with_sizes(40, 0, 1)?.train(), 8).shuffle(3);
    /// let whole = loader.epoch(5)?.skip(3).collect::<Result<Vec<_>, _>>()?;
    /// let resumed = loader.epoch_from(5, 3)?.collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!((whole.len(), whole == resumed), (2, true));
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn epoch_from(&self, epoch: u64, first: usize) -> Result<Epoch> {
        self.check()?;
        let batches = self.num_batches();
        if first > batches {
            let expected = format!("at most {batches}, the batches of an epoch");
            return Err(Error::argument("loader", "first batch", expected, first));
        }
        let mut order: Vec<usize> = (0..self.dataset.len()).collect();
        if self.shuffle {
            Rng::keyed(self.seed, epoch, ORDER).shuffle(&mut order);
        }
        let work = Arc::new(Work { loader: self.clone(), epoch, order, stop: AtomicBool::new(false) });
        let count = self.workers.min(batches - first);
        let workers = (0..count).map(|w| Worker::spawn(&work, (first + w..batches).step_by(count))).collect();
        Ok(Epoch { work, workers, first, next: first, batches })
    }

    /// Whether an epoch can be made.
    ///
    /// # Errors
    /// As [`Loader::epoch`].
    pub fn check(&self) -> Result<()> {
        let len = self.dataset.len();
        if len == 0 {
            return Err(Error::argument("loader", "dataset", "at least one image", "none"));
        }
        if self.size == 0 {
            return Err(Error::argument("loader", "batch size", "at least 1", 0));
        }
        if self.num_batches() == 0 {
            let expected = format!("at most {len}, the images there are, as the last batch is dropped");
            return Err(Error::argument("loader", "batch size", expected, self.size));
        }
        let shape = self.dataset.image_shape();
        if Shape::new(&shape)?.num_elements() == 0 {
            let found = format!("{shape:?}");
            return Err(Error::argument("loader", "dataset", "at least one pixel an image", found));
        }
        self.transform.check(shape)
    }
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loader")
            .field("images", &self.dataset.len())
            .field("size", &self.size)
            .field("shuffle", &self.shuffle)
            .field("seed", &self.seed)
            .field("transform", &self.transform)
            .field("workers", &self.workers)
            .field("drop_last", &self.drop_last)
            .finish()
    }
}

/// An epoch: what all its threads share.
struct Work {
    loader: Loader,
    epoch: u64,
    /// The index in the dataset of each sample of the epoch.
    order: Vec<usize>,
    /// Set when nobody waits for batches any more.
    stop: AtomicBool,
}

impl Work {
    /// Makes a batch; `None` if it is no longer wanted.
    fn batch(&self, number: usize) -> Option<Result<Batch>> {
        let size = self.loader.size;
        let start = number * size;
        let indices = &self.order[start..self.order.len().min(start.saturating_add(size))];
        let shape @ [h, w, c] = self.loader.dataset.image_shape();
        let mut images = match Tensor::zeros([indices.len(), h, w, c]) {
            Ok(images) => images,
            Err(error) => return Some(Err(error)),
        };
        let mut labels = Vec::with_capacity(indices.len());
        let mut left_out = None;
        let size: usize = shape.iter().product();
        for &index in indices {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            let pixels = &mut images.data_mut()[labels.len() * size..][..size];
            match self.loader.dataset.read(index, pixels) {
                Ok(label) => labels.push(label),
                Err(error) if self.loader.dataset.should_skip(&error) => {
                    left_out = Some(error);
                    continue;
                }
                Err(error) => return Some(Err(error)),
            }
            let mut rng = Rng::keyed(self.loader.seed, self.epoch, index as u64);
            self.loader.transform.apply(pixels, shape, &mut rng);
        }
        Some(match left_out {
            None => Ok(Batch { images, labels }),
            Some(error) if labels.is_empty() => Err(error),
            Some(_) => images.slice_rows(0..labels.len()).map(|images| Batch { images, labels }),
        })
    }
}

/// A thread that prepares every n-th batch.
struct Worker {
    /// Ends when the thread does, after an error or a panic for instance.
    batches: Receiver<Result<Batch>>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// `None` if the system has no thread left: then the consumer makes this worker's batches itself.
    fn spawn(work: &Arc<Work>, numbers: impl Iterator<Item = usize> + Send + 'static) -> Option<Worker> {
        let (sender, batches) = sync_channel(1);
        let work = work.clone();
        let thread =
            thread::Builder::new().name("loader".into()).spawn(move || deliver(&work, numbers, &sender));
        thread.ok().map(|thread| Worker { batches, thread })
    }
}

/// The life of a worker thread: until its batches are made, one fails, or nobody wants them.
fn deliver(work: &Work, numbers: impl Iterator<Item = usize>, sender: &SyncSender<Result<Batch>>) {
    for number in numbers {
        let Some(batch) = work.batch(number) else { return };
        let failed = batch.is_err();
        if sender.send(batch).is_err() || failed {
            return;
        }
    }
}

/// The batches of one epoch, made by [`Loader::epoch`]. Dropping it stops the worker threads.
pub struct Epoch {
    work: Arc<Work>,
    workers: Vec<Option<Worker>>,
    first: usize,
    next: usize,
    batches: usize,
}

impl Epoch {
    /// Ends the epoch: the threads leave off after the sample at hand. Gives the panic of the first that panicked.
    fn stop(&mut self) -> thread::Result<()> {
        self.next = self.batches;
        self.work.stop.store(true, Ordering::Relaxed);
        let threads = self.workers.drain(..).flatten().map(|worker| {
            // Without its receiver a thread that waits to hand a batch over goes on.
            drop(worker.batches);
            worker.thread
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(JoinHandle::join).fold(Ok(()), Result::and)
    }
}

impl Iterator for Epoch {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        if self.next == self.batches {
            return None;
        }
        // Only a batch moves the epoch on: whatever else comes, a panic too, has ended it.
        let number = std::mem::replace(&mut self.next, self.batches);
        let turn = (number - self.first).checked_rem(self.workers.len());
        let batch = match turn.and_then(|turn| self.workers[turn].as_ref()) {
            Some(worker) => worker.batches.recv().ok(),
            None => self.work.batch(number),
        };
        if matches!(batch, Some(Ok(_))) {
            self.next = number + 1;
        } else if let Err(panic) = self.stop() {
            resume_unwind(panic);
        }
        batch
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // An error ends the epoch early.
        let left = self.batches - self.next;
        (left.min(1), Some(left))
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        // A panic that nobody waited for is not passed on: this may run while another one unwinds.
        let _ = self.stop();
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({}, batch {} of {})", self.work.epoch, self.next, self.batches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Cutout, Images, Normalize, RandomCrop, RandomHorizontalFlip, Transform};
    use std::{
        sync::atomic::AtomicUsize,
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

    fn steps() -> Compose {
        Compose::new()
            .then(RandomCrop(2))
            .then(RandomHorizontalFlip)
            .then(Normalize::cifar10())
            .then(Cutout(2))
    }

    fn all(epoch: Result<Epoch>) -> Vec<Batch> {
        epoch.unwrap().collect::<Result<_>>().unwrap()
    }

    #[test]
    fn any_number_of_workers_gives_the_same_bits() {
        let loader = Loader::new(noise(103), 8).shuffle(11).transform(steps());
        let expected = all(loader.clone().workers(0).epoch(3));
        assert_eq!(expected.len(), 13);
        assert_eq!(expected[12].labels.len(), 7);
        for workers in [1, 2, 4, 50] {
            assert!(all(loader.clone().workers(workers).epoch(3)) == expected, "{workers} workers");
        }
        assert!(all(loader.epoch(4)) != expected, "every epoch is another");
        assert!(all(loader.clone().shuffle(12).epoch(3)) != expected, "every seed is another");
    }

    #[test]
    fn an_epoch_resumed_at_any_batch_goes_on_with_the_same_bits() {
        let loader = Loader::new(noise(50), 8).shuffle(1).transform(steps());
        let whole = all(loader.epoch(2));
        for workers in [0, 1, 3] {
            let loader = loader.clone().workers(workers);
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
            (loader.num_batches(), loader.samples())
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
    fn refusals_name_what_was_wrong() {
        let error = |loader: Loader| loader.epoch(0).unwrap_err().to_string();
        assert_eq!(error(Loader::new(noise(3), 0)), "loader: batch size: expected at least 1, found 0");
        assert!(error(Loader::new(noise(0), 1)).contains("dataset: expected at least one image, found none"));
        assert!(error(Loader::new(noise(3), 4).drop_last(true)).contains("expected at most 3"));
        assert!(
            error(Loader::new(noise(3), 1).transform(Compose::new().then(RandomCrop(3))))
                .contains("pad_crop")
        );
    }

    /// A dataset that counts what is read, and fails or panics at one index.
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
    fn images_without_pixels_are_refused() {
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
        assert!(error.contains("expected at least one pixel an image, found [8, 0, 3]"), "{error}");
        assert!(Normalize::measure(&Nothing).is_err());
    }

    fn trap(fault: usize, panics: bool, workers: usize) -> (Loader, Arc<AtomicUsize>) {
        let reads = Arc::new(AtomicUsize::new(0));
        let data = Trap { classes: vec!["none".into()], reads: reads.clone(), fault, panics };
        (Loader::new(data, 10).workers(workers), reads)
    }

    #[test]
    fn an_error_comes_in_its_place_once_and_ends_the_epoch() {
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
        /// Takes a millisecond a sample.
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
        let loader = Loader::new(data.clone(), 2000).transform(Compose::new().then(Slow)).workers(3);
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
