//! Training: a loop that can be stopped and resumed bit for bit, metrics, history and checkpoints.
//!
//! [`Trainer`] is meant to be read and copied: the same loop can be written with the public API.
//!
//! ```
//! use skipgrad::{Rng, data::{Loader, SyntheticShapes}, nn::{Flatten, Linear, Sequential}};
//! use skipgrad::{optim::{Schedule, Sgd}, train::{Event, Outcome, Trainer, evaluate}};
//! let data = SyntheticShapes::with_sizes(64, 32, 42)?;
//! let train = Loader::new(data.train(), 16).shuffle(42);
//! let test = Loader::new(data.test(), 32);
//! let head = Linear::new(3072, 10, &mut Rng::seed(42))?;
//! let mut model = Sequential::new().push(Flatten).push(head);
//! let mut sgd = Sgd::new(0.01).momentum(0.9);
//!
//! let schedule = Schedule::cosine(0.01, 2 * train.num_batches());
//! let mut trainer = Trainer::new(2, schedule).label_smoothing(0.1);
//! let mut steps = 0;
//! let outcome = trainer.run(&mut model, &mut sgd, &train, &test, |event| match event {
//!     Event::Step(step) => steps += usize::from(step.loss.is_finite()),
//!     Event::Epoch(record) => assert!(record.test_accuracy <= 1.0),
//!     _ => {}
//! })?;
//! assert_eq!((outcome, steps, trainer.history().records.len()), (Outcome::Finished, 8, 2));
//! assert_eq!(evaluate(&model, &test)?.images, 32);
//! # Ok::<(), skipgrad::Error>(())
//! ```

mod average_precision;
mod calibration;
mod checkpoint;
mod diagnose;
mod early_stopping;
mod ema;
mod event;
mod hash;
mod history;
mod loader_info;
mod loss;
mod metrics;
mod on_divergence;
mod settings;
mod trainer;

pub use average_precision::AveragePrecision;
pub use calibration::{Calibration, CalibrationBin};
#[cfg(feature = "report")]
pub(crate) use calibration::{confidence, probability};
pub use checkpoint::{Checkpoint, Position};
pub use diagnose::{
    ChannelStats, Check, CheckProgress, DiagnoseOptions, Diagnosis, Finding, FindingKind, HeldOut,
    LayerStats, ReluStats, Severity, diagnose,
};
pub use early_stopping::EarlyStopping;
pub use ema::{Ema, ModelEma};
pub use event::{Divergence, Event, Outcome, Recovery, Step};
pub use hash::weights_hash;
pub use history::{History, Record};
#[cfg(feature = "report")]
pub(crate) use loader_info::LoaderInfo;
pub use loss::{Distillation, Loss};
#[cfg(feature = "report")]
pub(crate) use metrics::for_each_batch;
pub use metrics::{ConfusionMatrix, Metrics, evaluate, evaluate_in};
pub use on_divergence::OnDivergence;
pub use settings::{Change, Settings};
pub use trainer::{Resumed, Trainer};
