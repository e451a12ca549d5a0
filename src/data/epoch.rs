//! The batches of one epoch, prepared by worker threads.
//!
//! Worker `w` of `n` reads the planned batches `w`, `w + n`, `w + 2n`, ... and sends each through
//! its own channel, which holds one batch. So the batches come in order, and each worker is at most
//! two batches ahead of the consumer: one waits in the channel while the next is read.
//!
//! Where images cannot be read, the consumer's thread makes batches of what is left of the planned
//! ones. So the result does not depend on the number of workers.

use super::{Batch, BatchTransform, Compose, Dataset, batch_transform::one_hot, planned::Planned};
use crate::{Error, Result, Rng, Tensor};
use std::{
    fmt,
    ops::Range,
    panic::resume_unwind,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

/// Iterates over the batches of one epoch; [`Loader::epoch`](super::Loader::epoch) starts one.
///
/// Images that the dataset skips ([`Dataset::should_skip`]) are missing from their batch:
///
/// - A batch without any of its images is passed over.
/// - A batch with one image left is joined with the next batch, since batch normalization needs
///   more than one image. The last batch of the epoch is joined with the one before it.
/// - If no image of the whole epoch could be read, the only item is an error.
///
/// [`Epoch::position`] says how many planned batches were consumed. Dropping the iterator stops its
/// worker threads.
pub struct Epoch {
    reader: Arc<BatchReader>,
    /// Each worker, or `None` if the system could not start its thread.
    workers: Vec<Option<Worker>>,
    /// First planned batch of the iterator; worker `w` reads the planned batches `first + w`,
    /// `first + w + n`, ...
    first: usize,
    /// Next planned batch to receive.
    next: usize,
    end: usize,
    /// The last planned batch of the epoch, if it was received before its turn.
    peeked: Option<Result<Planned>>,
    /// First planned batch that is in no batch that was given.
    position: usize,
    /// Whether a batch was given.
    is_started: bool,
    num_skipped: usize,
    /// Why the first of the skipped images could not be read, until the epoch ends.
    first_error: Option<Error>,
}

/// Identifies the random stream that transforms planned batch 0, in the place where the stream of
/// an image has its index; those of the other batches are below. The next number is that of the
/// order.
const LAST_BATCH_STREAM: u64 = u64::MAX - 1;

/// Reads the planned batches of an epoch; all its threads share one reader.
pub(super) struct BatchReader {
    pub(super) dataset: Arc<dyn Dataset>,
    pub(super) transform: Compose,
    pub(super) batch_transform: Option<Arc<dyn BatchTransform>>,
    pub(super) batch_size: usize,
    pub(super) seed: u64,
    pub(super) epoch: u64,
    /// Index in the dataset of each image, in the order of the epoch.
    pub(super) order: Vec<usize>,
    /// Set when no more batches are wanted.
    pub(super) stop: AtomicBool,
}

impl BatchReader {
    /// Reads a planned batch. Returns `None` if the epoch was stopped meanwhile.
    fn load(&self, batch: usize) -> Option<Result<Planned>> {
        let start = batch * self.batch_size;
        let indices = &self.order[start..self.order.len().min(start.saturating_add(self.batch_size))];
        let shape @ [h, w, c] = self.dataset.image_shape();
        let mut images = match Tensor::zeros([indices.len(), h, w, c]) {
            Ok(images) => images,
            Err(error) => return Some(Err(error)),
        };
        let mut labels = Vec::with_capacity(indices.len());
        let mut read = Vec::with_capacity(indices.len());
        let mut first_error = None;
        let image_len: usize = shape.iter().product();
        for &index in indices {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            let pixels = &mut images.data_mut()[labels.len() * image_len..][..image_len];
            let mut rng = Rng::keyed(self.seed, self.epoch, index as u64);
            match self.transform.read(&*self.dataset, index, pixels, &mut rng) {
                Ok(label) => {
                    labels.push(label);
                    read.push(index);
                }
                Err(error) if self.dataset.should_skip(&error) => {
                    first_error.get_or_insert(error);
                }
                Err(error) => return Some(Err(error)),
            }
        }
        let planned = indices.len();
        let batch = self.finish(images, labels, read, batch as u64);
        Some(batch.map(|batch| Planned::new(batch, planned, first_error)))
    }

    /// Makes a batch of the images that were read, the first rows of `images`, and transforms it.
    fn finish(&self, images: Tensor, labels: Vec<usize>, indices: Vec<usize>, number: u64) -> Result<Batch> {
        let read = labels.len();
        let mut images = if read < images.shape()[0] { images.slice_rows(0..read)? } else { images };
        let mut targets = None;
        if let Some(transform) = &self.batch_transform
            && read > 0
        {
            let mut mixed = one_hot(&labels, self.dataset.classes().len())?;
            let mut rng = Rng::keyed(self.seed, self.epoch, LAST_BATCH_STREAM - number);
            transform.apply(&mut images, &mut mixed, &mut rng)?;
            targets = Some(mixed);
        }
        Ok(Batch { images, labels, indices, targets })
    }
}

/// A thread that reads every n-th planned batch.
struct Worker {
    /// The channel closes when the thread ends, which it also does after an error or a panic.
    batches: Receiver<Result<Planned>>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Starts a thread that reads these planned batches. Returns `None` if the system cannot start
    /// another thread; then the consumer reads them.
    fn spawn(
        reader: &Arc<BatchReader>,
        batches: impl Iterator<Item = usize> + Send + 'static,
    ) -> Option<Worker> {
        let (sender, receiver) = sync_channel(1);
        let reader = reader.clone();
        let thread = thread::Builder::new()
            .name("loader".into())
            .spawn(move || run_worker(&reader, batches, &sender))
            .inspect_err(|error| log::warn!("loader: batches are prepared without a worker thread: {error}"));
        Some(Worker { batches: receiver, thread: thread.ok()? })
    }
}

/// Reads and sends planned batches until all are sent, one fails, or the epoch is stopped.
fn run_worker(
    reader: &BatchReader,
    batches: impl Iterator<Item = usize>,
    sender: &SyncSender<Result<Planned>>,
) {
    for batch in batches {
        let Some(batch) = reader.load(batch) else { return };
        let failed = batch.is_err();
        if sender.send(batch).is_err() || failed {
            return;
        }
    }
}

impl Epoch {
    /// Starts the worker threads that read the planned batches.
    pub(super) fn start(reader: BatchReader, batches: Range<usize>, num_workers: usize) -> Epoch {
        let Range { start: first, end } = batches;
        let reader = Arc::new(reader);
        let count = num_workers.min(batches.len());
        let workers = (0..count).map(|w| Worker::spawn(&reader, (first + w..end).step_by(count))).collect();
        Epoch {
            reader,
            workers,
            first,
            next: first,
            end,
            peeked: None,
            position: first,
            is_started: false,
            num_skipped: 0,
            first_error: None,
        }
    }

    /// Returns the index of the first planned batch that was not consumed yet.
    ///
    /// Planned batches are those of [`Loader::num_batches`](super::Loader::num_batches), counted
    /// from the start of the epoch. Each of them usually gives one batch. Where unreadable images
    /// emptied a planned batch, or left one that was joined with another, the position grows by
    /// more than 1. An epoch that is resumed at this position
    /// ([`Loader::epoch_from`](super::Loader::epoch_from)) gives the batches that this one would
    /// have given.
    ///
    /// ```
    /// use skipgrad::data::{Loader, SyntheticShapes};
    /// let loader = Loader::new(SyntheticShapes::with_sizes(40, 0, 1)?.train(), 8).shuffle(3);
    /// let mut epoch = loader.epoch(0)?;
    /// epoch.by_ref().take(2).for_each(drop);
    /// assert_eq!(epoch.position(), 2);
    /// let resumed = loader.epoch_from(0, epoch.position())?;
    /// assert!(epoch.map(Result::unwrap).eq(resumed.map(Result::unwrap)));
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn position(&self) -> usize {
        self.position
    }

    /// Returns the number of images that this iterator skipped so far because they could not be
    /// read.
    ///
    /// [`Loader::unreadable`](super::Loader::unreadable) says which images these are, and why.
    pub fn num_skipped(&self) -> usize {
        self.num_skipped
    }

    /// Returns the next planned batch, or `None` after the last one. An error or a panic ends the
    /// epoch.
    fn receive(&mut self) -> Option<Result<Planned>> {
        if self.peeked.is_some() {
            return self.peeked.take();
        }
        if self.next == self.end {
            return None;
        }
        // An error or a panic ends the epoch, so it counts as ended until a batch is there.
        let index = std::mem::replace(&mut self.next, self.end);
        let turn = (index - self.first).checked_rem(self.workers.len());
        let planned = match turn.and_then(|turn| self.workers[turn].as_ref()) {
            Some(worker) => worker.batches.recv().ok(),
            None => self.reader.load(index),
        };
        if matches!(planned, Some(Ok(_))) {
            self.next = index + 1;
        } else if let Err(panic) = self.stop() {
            resume_unwind(panic);
        }
        planned
    }

    /// Returns the next batch: what is left of a planned batch, joined with others if that is too
    /// little. Only what is left of a whole epoch may have no image.
    fn gather(&mut self) -> Result<Option<Planned>> {
        let Some(planned) = self.receive() else { return Ok(None) };
        let mut batch = planned?;
        while batch.is_too_small()
            && let Some(next) = self.receive()
        {
            batch = batch.join(next?)?;
        }
        // Nothing follows the last planned batch that it could be joined with.
        if self.next + 1 == self.end {
            self.peeked = self.receive();
            let is_too_small = |last: &mut Result<Planned>| last.as_ref().is_ok_and(Planned::is_too_small);
            if let Some(last) = self.peeked.take_if(is_too_small) {
                batch = batch.join(last?)?;
            }
        }
        Ok(Some(batch))
    }

    /// Logs how many images were skipped, once, after the last batch. Returns an error if no image
    /// of the whole epoch could be read.
    fn finish(&mut self) -> Option<Error> {
        if !self.reader.stop.load(Ordering::Relaxed) {
            self.position = self.end;
        }
        let first = self.first_error.take()?;
        let (epoch, skipped) = (self.reader.epoch, self.num_skipped);
        if self.is_started || self.first > 0 {
            log::warn!("epoch {epoch}: {skipped} images could not be read and were skipped");
            return None;
        }
        let found = format!("{skipped} that cannot be read; the first: {first}");
        Some(Error::argument("loader", "dataset", "at least one image that can be read", found))
    }

    /// Ends the epoch: every thread stops after the image that it is reading. Returns the panic of
    /// the first worker that panicked.
    fn stop(&mut self) -> thread::Result<()> {
        self.next = self.end;
        self.first_error = None;
        self.reader.stop.store(true, Ordering::Relaxed);
        let threads = self.workers.drain(..).flatten().map(|worker| {
            // Without a receiver, a thread that waits to send a batch goes on.
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
        let planned = match self.gather() {
            Ok(None) => return self.finish().map(Err),
            Ok(Some(planned)) => planned,
            Err(error) => {
                return match self.stop() {
                    Ok(()) => Some(Err(error)),
                    Err(panic) => resume_unwind(panic),
                };
            }
        };
        let (batch, num_skipped, first_error) = planned.into_parts();
        self.num_skipped += num_skipped;
        self.first_error = self.first_error.take().or(first_error);
        if batch.labels.is_empty() {
            return self.finish().map(Err);
        }
        self.is_started = true;
        self.position = self.next - usize::from(self.peeked.is_some());
        Some(Ok(batch))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // An error ends the epoch early, and images that cannot be read leave fewer batches.
        let remaining = self.end - self.next + usize::from(self.peeked.is_some());
        (0, Some(remaining.max(usize::from(self.first_error.is_some()))))
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        // The panic of a worker is not passed on: this may run during another panic.
        let _ = self.stop();
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Epoch({}, batch {} of {})", self.reader.epoch, self.position, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Loader;
    use std::{collections::BTreeSet, path::PathBuf};

    /// Images of one pixel, which is the index of the image; some of them cannot be read.
    struct Gaps {
        len: usize,
        broken: BTreeSet<usize>,
    }

    impl Dataset for Gaps {
        fn len(&self) -> usize {
            self.len
        }

        fn classes(&self) -> &[String] {
            &[]
        }

        fn image_shape(&self) -> [usize; 3] {
            [1, 1, 1]
        }

        fn read(&self, index: usize, pixels: &mut [f32]) -> Result<usize> {
            if self.broken.contains(&index) {
                return Err(Error::malformed(format!("{index}.png"), "image", "a complete image", "half"));
            }
            pixels.fill(index as f32);
            Ok(index)
        }

        fn should_skip(&self, error: &Error) -> bool {
            matches!(error, Error::Malformed { .. })
        }

        fn unreadable(&self) -> Vec<(PathBuf, String)> {
            self.broken.iter().map(|i| (format!("{i}.png").into(), "half".into())).collect()
        }
    }

    fn loader(len: usize, broken: impl IntoIterator<Item = usize>, batch_size: usize) -> Loader {
        Loader::new(Gaps { len, broken: broken.into_iter().collect() }, batch_size)
    }

    /// The labels of each batch, and the position after it.
    fn batches(mut epoch: Epoch) -> Vec<(Vec<usize>, usize)> {
        let mut batches = vec![];
        while let Some(batch) = epoch.next() {
            let batch = batch.unwrap();
            let pixels: Vec<f32> = batch.labels.iter().map(|&i| i as f32).collect();
            assert_eq!(batch.images.data(), pixels);
            batches.push((batch.labels, epoch.position()));
        }
        assert_eq!(epoch.position(), epoch.end);
        batches
    }

    #[track_caller]
    fn assert_batches(loader: &Loader, expected: &[(&[usize], usize)]) {
        let expected: Vec<_> =
            expected.iter().map(|(labels, position)| (labels.to_vec(), *position)).collect();
        for workers in [0, 1, 3] {
            assert_eq!(batches(loader.clone().num_workers(workers).epoch(0).unwrap()), expected);
        }
    }

    #[test]
    fn an_emptied_batch_is_passed_over() {
        assert_batches(&loader(9, 3..6, 3), &[(&[0, 1, 2], 1), (&[6, 7, 8], 3)]);
        assert_batches(&loader(9, 0..6, 3), &[(&[6, 7, 8], 3)]);
        assert_batches(&loader(6, [5], 5), &[(&[0, 1, 2, 3, 4], 2)]);
        assert_batches(&loader(3, [1], 1), &[(&[0], 1), (&[2], 3)]);
    }

    #[test]
    fn one_image_that_is_left_joins_the_next_batch() {
        assert_batches(&loader(9, [3, 5], 3), &[(&[0, 1, 2], 1), (&[4, 6, 7, 8], 3)]);
        assert_batches(&loader(9, [0, 2, 3, 5], 3), &[(&[1, 4], 2), (&[6, 7, 8], 3)]);
        assert_batches(&loader(9, [0, 2, 3, 4, 5], 3), &[(&[1, 6, 7, 8], 3)]);
        assert_batches(&loader(4, [0], 3), &[(&[1, 2], 1), (&[3], 2)]);
    }

    #[test]
    fn one_image_that_is_left_of_the_last_batch_joins_the_one_before_it() {
        assert_batches(&loader(9, [6, 7], 3), &[(&[0, 1, 2], 1), (&[3, 4, 5, 8], 3)]);
        assert_batches(&loader(9, [3, 4, 7, 8], 3), &[(&[0, 1, 2], 1), (&[5, 6], 3)]);
        assert_batches(&loader(3, [0, 1], 3), &[(&[2], 1)]);
        // A batch that was planned with one image stays as it is.
        assert_batches(&loader(4, [], 3), &[(&[0, 1, 2], 1), (&[3], 2)]);
    }

    #[test]
    fn any_gaps_any_workers_and_any_resumption_give_the_same_batches() {
        let mut rng = Rng::seed(16);
        for round in 0..300 {
            let (len, batch_size) = (1 + rng.below(24), 1 + rng.below(6));
            let rate = rng.uniform();
            let broken: Vec<usize> = (0..len).filter(|_| rng.chance(rate)).collect();
            let num_readable = len - broken.len();
            let drop_last = round % 3 == 0;
            let loader = loader(len, broken, batch_size).shuffle(round).drop_last(drop_last);
            // With `drop_last` there may be no batch, or no image in it.
            if !loader.epoch(1).is_ok_and(|mut epoch| epoch.next().is_some_and(|batch| batch.is_ok())) {
                assert!(drop_last || num_readable == 0);
                continue;
            }
            let whole = batches(loader.epoch(1).unwrap());
            for workers in [0, 2, 5] {
                let loader = loader.clone().num_workers(workers);
                assert_eq!(batches(loader.epoch(1).unwrap()), whole);
                for (i, (_, position)) in whole.iter().enumerate() {
                    assert_eq!(batches(loader.epoch_from(1, *position).unwrap()), whole[i + 1..]);
                }
            }
            let images: Vec<usize> = whole.iter().flat_map(|(labels, _)| labels.clone()).collect();
            let distinct = images.iter().copied().collect::<BTreeSet<_>>().len();
            assert_eq!(distinct, images.len(), "every image once");
            assert!(drop_last || distinct == num_readable);
        }
    }

    #[test]
    fn an_epoch_without_a_readable_image_is_an_error() {
        for workers in [0, 2] {
            let loader = loader(7, 0..7, 3).num_workers(workers);
            let mut epoch = loader.epoch(0).unwrap();
            let error = epoch.next().unwrap().unwrap_err().to_string();
            let expected = "loader: dataset: expected at least one image that can be read, found 7 that cannot \
                            be read; the first: 0.png: image: expected a complete image, found half";
            assert_eq!(error, expected);
            assert!(epoch.next().is_none());
            // The batches before may have had images.
            assert!(loader.epoch_from(0, 1).unwrap().next().is_none());
        }
    }

    #[test]
    fn skipped_images_are_counted_and_listed() {
        let loader = loader(9, [1, 4, 8], 3);
        let mut epoch = loader.epoch(0).unwrap();
        let counts: Vec<usize> =
            std::iter::from_fn(|| epoch.next().map(|batch| batch.unwrap().labels.len())).collect();
        assert_eq!((counts, epoch.num_skipped()), (vec![2, 2, 2], 3));
        assert_eq!(loader.unreadable().len(), 3);
        assert_eq!(loader.unreadable()[0].0, PathBuf::from("1.png"));
    }
}
