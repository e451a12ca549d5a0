//! The options of a trainer.

use super::{Output, Trainer};
use crate::{
    Precision,
    inference::InferenceModel,
    optim::{Plateau, Schedule},
    train::{Distillation, EarlyStopping, Ema, Loss, OnDivergence, loss::Teacher},
};
use std::{
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
};

impl Trainer {
    /// Sets the number of epochs.
    pub fn epochs(mut self, epochs: usize) -> Trainer {
        self.settings.epochs = epochs;
        self
    }

    /// Sets the learning rate of every step. Steps are counted from the beginning of the training,
    /// also after it was resumed.
    pub fn schedule(mut self, schedule: Schedule) -> Trainer {
        self.settings.schedule = schedule;
        self
    }

    /// Sets the seed of the random numbers of a step, such as those of dropout.
    pub fn seed(mut self, seed: u64) -> Trainer {
        self.settings.seed = seed;
        self.requested.seed = true;
        self
    }

    /// Sets the name of the model that checkpoints record.
    pub fn model_name(mut self, name: impl Into<String>) -> Trainer {
        self.settings.model = name.into();
        self.requested.model = true;
        self
    }

    /// Sets the fraction of each target that is spread over all classes, in [0, 1) (Szegedy et al.
    /// 2016, section 7).
    pub fn label_smoothing(mut self, label_smoothing: f32) -> Trainer {
        self.settings.label_smoothing = label_smoothing;
        self.requested.label_smoothing = true;
        self
    }

    /// Scales the gradients of a step so that their global Euclidean norm is at most `norm`
    /// (Pascanu et al. 2013). An infinite norm clips nothing.
    pub fn clip_norm(mut self, norm: f32) -> Trainer {
        self.settings.clip_norm = Some(norm);
        self.requested.clip_norm = true;
        self
    }

    /// Computes every batch as `count` micro-batches, one after the other, and accumulates their
    /// gradients, which takes less memory. The step is that of the whole batch, except that batch
    /// normalization uses the statistics of each micro-batch.
    pub fn micro_batches(mut self, count: usize) -> Trainer {
        self.settings.micro_batches = count;
        self.requested.micro_batches = true;
        self
    }

    /// Sets what happens when a value is not finite; by default the training ends.
    pub fn on_divergence(mut self, policy: OnDivergence) -> Trainer {
        self.settings.on_divergence = policy;
        self.requested.on_divergence = true;
        self
    }

    /// Sets the type in which convolutions and linear layers multiply, in training and in its
    /// evaluations; [`Precision::F32`] by default.
    pub fn precision(mut self, precision: Precision) -> Trainer {
        self.settings.precision = precision;
        self.requested.precision = true;
        self
    }

    /// Averages the weights and statistics over the steps ([`Ema`]). The average is evaluated after
    /// every epoch too ([`Record::ema_test_accuracy`](crate::train::Record::ema_test_accuracy)),
    /// decides which epoch is the best, and is saved in checkpoints beside the weights
    /// ([`Checkpoint::load_ema`](crate::train::Checkpoint::load_ema)).
    ///
    /// ```
    /// use skipgrad::{data::{Loader, SyntheticShapes}, nn::{Flatten, Linear, Sequential}};
    /// use skipgrad::{prelude::*, train::{Ema, Trainer}};
    /// let data = SyntheticShapes::with_sizes(16, 16, 0)?;
    /// let (train, test) = (Loader::new(data.train(), 8), Loader::new(data.test(), 16));
    /// let fc = Linear::new(3072, 10, &mut Rng::seed(0))?;
    /// let mut model = Sequential::new().push(Flatten).push(fc);
    /// let mut trainer = Trainer::new(1, Schedule::constant(0.01)).ema(Ema::new(0.9));
    /// trainer.run(&mut model, &mut Sgd::new(0.0), &train, &test, |_| ())?;
    /// assert!(trainer.history().records[0].ema_test_accuracy.is_some());
    /// trainer.averages().unwrap().copy_to(&mut model)?;
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn ema(mut self, ema: Ema) -> Trainer {
        self.settings.ema = Some(ema);
        self.requested.ema = true;
        self
    }

    /// Sets the folder where checkpoints and the history are written before the first step, after
    /// every epoch, and when the training is stopped. It is created if it does not exist. A folder
    /// with the results of another training is an error when the training begins, and so is one
    /// whose last checkpoint is further than the one that was resumed from: nothing is wiped.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Trainer {
        self.output = Some(Output::new(folder.into()));
        self
    }

    /// Writes [`Trainer::LAST`] also after every `batches` batches of an epoch, at least 1.
    pub fn checkpoint_every(mut self, batches: usize) -> Trainer {
        self.checkpoint_every = Some(batches);
        self
    }

    /// Sets the flag with which another thread, or a handler of Ctrl-C, stops the training after
    /// the current step.
    pub fn stop(mut self, flag: Arc<AtomicBool>) -> Trainer {
        self.stop = flag;
        self
    }

    /// Sets the loss that is minimized; the cross entropy by default. Label smoothing holds for all
    /// losses.
    ///
    /// ```
    /// use skipgrad::{optim::Schedule, train::{Loss, Trainer}};
    /// let trainer = Trainer::new(1, Schedule::constant(0.1))
    ///     .loss(Loss::WeightedCrossEntropy { class_weights: vec![1.0, 5.0] });
    /// assert_ne!(trainer.settings().loss, Loss::CrossEntropy);
    /// ```
    pub fn loss(mut self, loss: Loss) -> Trainer {
        self.settings.loss = loss;
        self.requested.loss = true;
        self
    }

    /// Ends the training when its test accuracy does not rise any more, and gives the model the
    /// weights of the best epoch then. The files in the folder remain those of the last epoch and
    /// of the best one.
    ///
    /// A training that is resumed finds the best weights in [`Trainer::BEST`] beside its
    /// checkpoint.
    ///
    /// ```
    /// use skipgrad::{optim::Schedule, train::{EarlyStopping, Trainer}};
    /// let trainer = Trainer::new(300, Schedule::constant(0.1));
    /// let trainer = trainer.early_stopping(EarlyStopping::new(20));
    /// assert_eq!(trainer.settings().early_stopping.unwrap().patience, 20);
    /// ```
    pub fn early_stopping(mut self, early_stopping: EarlyStopping) -> Trainer {
        self.settings.early_stopping = Some(early_stopping);
        self.requested.early_stopping = true;
        self
    }

    /// Reduces the learning rate when the test loss does not fall any more: the schedule's learning
    /// rate is multiplied by [`Plateau::scale`] of the epochs so far.
    ///
    /// ```
    /// use skipgrad::{optim::{Plateau, Schedule}, train::Trainer};
    /// let plateau = Plateau::new().patience(3).factor(0.2);
    /// let trainer = Trainer::new(60, Schedule::constant(0.1)).reduce_on_plateau(plateau);
    /// assert_eq!(trainer.settings().plateau, Some(plateau));
    /// ```
    pub fn reduce_on_plateau(mut self, plateau: Plateau) -> Trainer {
        self.settings.plateau = Some(plateau);
        self.requested.plateau = true;
        self
    }

    /// Learns from a teacher, too (Hinton et al. 2015): the loss of a batch is `1 - alpha` times
    /// that of its labels, and `alpha` times the divergence from what the teacher says about the
    /// same images ([`Var::distillation`](crate::autograd::Var::distillation)).
    ///
    /// The teacher is not part of a checkpoint. A training with one is resumed with one.
    ///
    /// ```
    /// use skipgrad::{data::{Loader, SyntheticShapes}, nn::{Flatten, Linear, Sequential}};
    /// use skipgrad::{inference::{InferenceModel, InferenceOptions}, prelude::*};
    /// use skipgrad::train::{Distillation, Trainer};
    /// let data = SyntheticShapes::with_sizes(16, 16, 0)?;
    /// let (train, test) = (Loader::new(data.train(), 8), Loader::new(data.test(), 16));
    /// let linear = |seed| -> Result<Sequential> {
    ///     Ok(Sequential::new().push(Flatten).push(Linear::new(3072, 10, &mut Rng::seed(seed))?))
    /// };
    /// let options = InferenceOptions::new(&[32, 32, 3]).batch_size(8);
    /// let teacher = InferenceModel::compile(&linear(1)?, &options)?;
    /// let mut trainer = Trainer::new(1, Schedule::constant(0.01))
    ///     .distill(teacher, Distillation::new(4.0).alpha(0.9));
    /// trainer.run(&mut linear(2)?, &mut Sgd::new(0.0), &train, &test, |_| ())?;
    /// assert_eq!(trainer.history().records.len(), 1);
    /// # Ok::<(), skipgrad::Error>(())
    /// ```
    pub fn distill(mut self, teacher: InferenceModel, distillation: Distillation) -> Trainer {
        self.settings.distillation = Some(distillation);
        self.requested.distillation = true;
        self.teacher = Some(Teacher(Arc::new(teacher)));
        self
    }
}
