//! A small training whose every bit can be compared.

use skipgrad::{
    Rng, Tensor,
    autograd::State,
    data::{Compose, Loader, RandomCrop, RandomHorizontalFlip, SyntheticShapes},
    nn::{BatchNorm2d, Dropout, GlobalAvgPool, Linear, Relu, Sequential, conv3x3},
    optim::{Optimizer, Schedule, Sgd},
    train::Trainer,
};

/// A small network with all kinds of state that a step changes: weights, running statistics, random
/// numbers of dropout.
pub(crate) fn model(seed: u64) -> Sequential {
    let mut rng = Rng::seed(seed);
    Sequential::new()
        .push(conv3x3(3, 6).build(&mut rng).unwrap())
        .push(BatchNorm2d::new(6).unwrap())
        .push(Relu)
        .push(Dropout::new(0.2).unwrap())
        .push(GlobalAvgPool)
        .named("fc", Linear::new(6, 10, &mut rng).unwrap())
        .unwrap()
}

/// The random transforms of the training images.
pub(crate) fn transform() -> Compose {
    Compose::new().then(RandomCrop::with_padding(4)).then(RandomHorizontalFlip)
}

/// Seven batches per epoch, the last one smaller, shuffled and augmented.
pub(crate) fn loaders(workers: usize) -> (Loader, Loader) {
    let data = SyntheticShapes::with_sizes(50, 20, 3).unwrap();
    let train = Loader::new(data.train(), 8).shuffle(7).transform(transform()).num_workers(workers);
    (train, Loader::new(data.test(), 20))
}

pub(crate) fn plain_trainer() -> Trainer {
    let schedule = Schedule::one_cycle(0.1, 21).warmup(2);
    Trainer::new(3, schedule).seed(11).label_smoothing(0.1).model_name("small")
}

/// The same, with clipped gradients and micro-batches.
pub(crate) fn trainer() -> Trainer {
    plain_trainer().clip_norm(1.0).micro_batches(2)
}

pub(crate) fn sgd() -> Sgd {
    Sgd::new(0.0).momentum(0.9).nesterov(true).weight_decay(1e-3).no_decay_on_norms_and_biases()
}

/// All bits of the state of a model and of an optimizer.
pub(crate) fn bits(model: &dyn State, optimizer: &dyn Optimizer) -> Vec<(String, Vec<u32>)> {
    let bits = |(name, tensor): (String, Tensor)| (name, tensor.data().iter().map(|x| x.to_bits()).collect());
    model.export().into_iter().chain(optimizer.export()).map(bits).collect()
}

/// The history without the durations, which differ from run to run.
pub(crate) fn epochs(trainer: &Trainer) -> Vec<[f32; 6]> {
    let numbers = trainer
        .history()
        .records
        .iter()
        .map(|r| [r.lr, r.train_loss, r.train_accuracy, r.test_loss, r.test_accuracy, r.test_top5]);
    numbers.collect()
}

pub(crate) type Bits = Vec<(String, Vec<u32>)>;
