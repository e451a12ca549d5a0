//! Training: an ordinary loop that can be stopped and resumed to the bit, what it measures, and what it writes down.
//!
//! [`Trainer`] is meant to be read and copied: nothing in it that a user could not write with the rest of the crate.
//!
//! ```
//! use skipgrad::{Rng, data::{SyntheticShapes, Loader}, nn::{Flatten, Linear, Sequential}, optim::{Schedule, Sgd}};
//! use skipgrad::train::{Outcome, Event, Trainer, evaluate};
//! let data = SyntheticShapes::with_sizes(64, 32, 42)?;
//! let train = Loader::new(data.train(), 16).shuffle(42);
//! let test = Loader::new(data.test(), 32);
//! let mut model = Sequential::new().push(Flatten).push(Linear::new(3072, 10, &mut Rng::seed(42))?);
//! let mut sgd = Sgd::new(0.01).momentum(0.9);
//!
//! let mut trainer = Trainer::new(2, Schedule::cosine(0.01, 2 * train.num_batches())).label_smoothing(0.1);
//! let mut steps = 0;
//! let ended = trainer.run(&mut model, &mut sgd, &train, &test, |event| match event {
//!     Event::Step(step) => steps += usize::from(step.loss.is_finite()),
//!     Event::Epoch(record) => assert!(record.test_accuracy <= 1.0),
//! })?;
//! assert_eq!((ended, steps, trainer.history().records.len()), (Outcome::Finished, 8, 2));
//! assert_eq!(evaluate(&model, &test)?.images, 32);
//! # Ok::<(), skipgrad::Error>(())
//! ```

mod checkpoint;
mod event;
mod history;
mod metrics;
mod trainer;

pub use checkpoint::{Checkpoint, Position, Settings};
pub use event::{Event, Outcome, Step};
pub use history::{History, Record};
pub use metrics::{Confusion, Metrics, evaluate};
pub use trainer::Trainer;
