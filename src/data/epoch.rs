//! The batches of one epoch, prepared by worker threads.
//!
//! Worker `w` of `n` prepares the batches `w`, `w + n`, `w + 2n`, ... and sends each through its
//! own channel, which holds one batch. So the batches come in order, and each worker is at most two
//! batches ahead of the consumer: one waits in the channel while the next is prepared.

use super::{Batch, Compose, Dataset};
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
/// Dropping the iterator stops its worker threads.
pub struct Epoch {
    reader: Arc<BatchReader>,
    /// Each worker, or `None` if the system could not start its thread.
    workers: Vec<Option<Worker>>,
    /// First batch of the iterator; worker `w` prepares the batches `first + w`, `first + w + n`,
    /// ...
    first: usize,
    next: usize,
    end: usize,
}

/// Reads the batches of an epoch; all its threads share one reader.
pub(super) struct BatchReader {
    pub(super) dataset: Arc<dyn Dataset>,
    pub(super) transform: Compose,
    pub(super) batch_size: usize,
    pub(super) seed: u64,
    pub(super) epoch: u64,
    /// Index in the dataset of each image, in the order of the epoch.
    pub(super) order: Vec<usize>,
    /// Set when no more batches are wanted.
    pub(super) stop: AtomicBool,
}

impl BatchReader {
    /// Prepares a batch. Returns `None` if the epoch was stopped meanwhile.
    fn load(&self, batch: usize) -> Option<Result<Batch>> {
        let start = batch * self.batch_size;
        let indices = &self.order[start..self.order.len().min(start.saturating_add(self.batch_size))];
        let shape @ [h, w, c] = self.dataset.image_shape();
        let mut images = match Tensor::zeros([indices.len(), h, w, c]) {
            Ok(images) => images,
            Err(error) => return Some(Err(error)),
        };
        let mut labels = Vec::with_capacity(indices.len());
        let mut skipped = None;
        let image_len: usize = shape.iter().product();
        for &index in indices {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            let pixels = &mut images.data_mut()[labels.len() * image_len..][..image_len];
            match self.dataset.read(index, pixels) {
                Ok(label) => labels.push(label),
                Err(error) if self.dataset.should_skip(&error) => {
                    skipped = Some(error);
                    continue;
                }
                Err(error) => return Some(Err(error)),
            }
            let mut rng = Rng::keyed(self.seed, self.epoch, index as u64);
            self.transform.apply(pixels, shape, &mut rng);
        }
        Some(without_skipped(images, labels, skipped))
    }
}

/// Makes a batch of the images that were read, which come first. `skipped` is the last error for
/// which an image was skipped; it is returned if no image was read.
fn without_skipped(images: Tensor, labels: Vec<usize>, skipped: Option<Error>) -> Result<Batch> {
    match skipped {
        None => Ok(Batch { images, labels }),
        Some(error) if labels.is_empty() => Err(error),
        Some(_) => images.slice_rows(0..labels.len()).map(|images| Batch { images, labels }),
    }
}

/// A thread that prepares every n-th batch.
struct Worker {
    /// The channel closes when the thread ends, which it also does after an error or a panic.
    batches: Receiver<Result<Batch>>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Starts a thread that prepares these batches. Returns `None` if the system cannot start
    /// another thread; then the consumer prepares them.
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

/// Prepares and sends batches until all are sent, one fails, or the epoch is stopped.
fn run_worker(
    reader: &BatchReader,
    batches: impl Iterator<Item = usize>,
    sender: &SyncSender<Result<Batch>>,
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
    /// Starts the worker threads that prepare `batches`.
    pub(super) fn start(reader: BatchReader, batches: Range<usize>, num_workers: usize) -> Epoch {
        let Range { start: first, end } = batches;
        let reader = Arc::new(reader);
        let count = num_workers.min(batches.len());
        let workers = (0..count).map(|w| Worker::spawn(&reader, (first + w..end).step_by(count))).collect();
        Epoch { reader, workers, first, next: first, end }
    }

    /// Ends the epoch: every thread stops after the image that it is reading. Returns the panic of
    /// the first worker that panicked.
    fn stop(&mut self) -> thread::Result<()> {
        self.next = self.end;
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
        if self.next == self.end {
            return None;
        }
        // An error or a panic ends the epoch, so it counts as ended until a batch is there.
        let index = std::mem::replace(&mut self.next, self.end);
        let turn = (index - self.first).checked_rem(self.workers.len());
        let batch = match turn.and_then(|turn| self.workers[turn].as_ref()) {
            Some(worker) => worker.batches.recv().ok(),
            None => self.reader.load(index),
        };
        if matches!(batch, Some(Ok(_))) {
            self.next = index + 1;
        } else if let Err(panic) = self.stop() {
            resume_unwind(panic);
        }
        batch
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // An error ends the epoch early.
        let remaining = self.end - self.next;
        (remaining.min(1), Some(remaining))
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
        write!(f, "Epoch({}, batch {} of {})", self.reader.epoch, self.next, self.end)
    }
}
