//! The same seed gives the same bits on any number of threads: of the pool that computes and of the
//! loader's workers.

use crate::common::hash::fnv1a;
use skipgrad::{
    Result, Rng, Tensor,
    autograd::{NamedTensors, State, StateRef, Tape},
    blocks::{BlockKind, ShortcutKind, StemKind},
    data::{Compose, Cutout, Images, Loader, Normalize, RandomCrop, RandomHorizontalFlip, SyntheticShapes},
    models::{DenseNet, DenseNetConfig, ResNet, ResNetConfig},
    nn::{
        AvgPool2d, BatchNorm2d, Conv2d, GlobalAvgPool, Linear, MaxPool2d, Module, Relu, Sequential, conv3x3,
    },
    optim::{AdamW, Optimizer, Sgd},
};
use std::fmt::Debug;

/// Threads that compute, and workers of the loader beside them.
const THREADS: [(usize, usize); 5] = [(1, 0), (2, 1), (3, 2), (4, 3), (8, 5)];

/// FNV-1a of the names and of all bits.
fn hash(tensors: &NamedTensors) -> u64 {
    let values = |tensor: &Tensor| tensor.data().iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>();
    let bytes = tensors.iter().flat_map(|(name, tensor)| name.bytes().chain(values(tensor)));
    fnv1a(bytes)
}

/// Runs `f` in pools of several sizes and expects what a pool of one thread gives.
fn same_on_any_number_of_threads<T: Debug + PartialEq + Send>(f: impl Fn(usize) -> T + Sync) -> T {
    let run = |(threads, workers)| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| f(workers))
    };
    let alone = run(THREADS[0]);
    for threads in &THREADS[1..] {
        assert_eq!(run(*threads), alone, "threads and workers {threads:?}");
    }
    alone
}

/// Twenty steps: the hash of all weights, running statistics and what the optimizer remembers, and
/// the bits of every loss.
fn train(
    mut model: impl Module,
    mut optimizer: impl Optimizer,
    images: Images,
    workers: usize,
) -> Result<(u64, Vec<u32>)> {
    let augment = Compose::new()
        .then(RandomCrop::with_padding(4))
        .then(RandomHorizontalFlip)
        .then(Cutout::with_length(8))
        .then(Normalize::fit(&images)?);
    let loader = Loader::new(images, 16).shuffle(5).transform(augment).num_workers(workers);
    let (mut rng, mut losses) = (Rng::seed(3), vec![]);
    for epoch in 0.. {
        for batch in loader.epoch(epoch)? {
            let batch = batch?;
            let tape = Tape::train(rng.split());
            let loss = model.forward(&tape.input(batch.images))?.cross_entropy(&batch.labels)?;
            losses.push(loss.item().to_bits());
            let mut updates = loss.backward()?;
            updates.clip_global_norm(1.0);
            optimizer.step(&mut model, updates)?;
            if losses.len() == 20 {
                let mut state = model.export();
                state.extend(optimizer.export());
                return Ok((hash(&state), losses));
            }
        }
    }
    unreachable!("epochs do not end before twenty steps")
}

/// Basic blocks of 16 to 64 channels, with strides, projections and skipped blocks: (hash, losses)
/// of twenty steps.
fn resnet(seed: u64, workers: usize) -> (u64, Vec<u32>) {
    let run = || {
        let config = ResNetConfig::cifar_paper(8, 10)?
            .stages([(16, 1), (32, 1), (64, 2)])
            .shortcut(ShortcutKind::Project)
            .drop_path(0.1);
        let model = ResNet::new(&config, &mut Rng::seed(seed))?;
        let sgd = Sgd::new(0.05).momentum(0.9).nesterov(true).weight_decay(5e-4);
        train(model, sgd, SyntheticShapes::with_sizes(100, 0, 2)?.train(), workers)
    };
    run().unwrap()
}

#[test]
fn a_resnet() {
    let (weights, _) = same_on_any_number_of_threads(|workers| resnet(1, workers));
    assert_ne!(weights, resnet(2, 0).0, "another seed gives other bits: the hash sees them");
}

#[test]
fn a_resnet_of_bottlenecks_with_the_stem_for_large_images() {
    same_on_any_number_of_threads(|workers| {
        let run = || {
            let config = ResNetConfig::imagenet(50, 10)?
                .stem(StemKind::ImageNet)
                .kind(BlockKind::Bottleneck)
                .stages([(64, 1), (128, 2)]);
            let model = ResNet::new(&config, &mut Rng::seed(1))?;
            train(model, AdamW::new(0.002), SyntheticShapes::with_sizes(70, 0, 2)?.train(), workers)
        };
        run().unwrap()
    });
}

#[test]
fn a_densenet() {
    same_on_any_number_of_threads(|workers| {
        let run = || {
            let config =
                DenseNetConfig::bc(10, 12, 10)?.layers([3, 2, 2]).width(16).growth_rate(12).dropout(0.1);
            let model = DenseNet::new(&config, &mut Rng::seed(1))?;
            let adamw = AdamW::new(0.002).no_decay_on_norms_and_biases();
            train(model, adamw, SyntheticShapes::with_sizes(90, 0, 2)?.train(), workers)
        };
        run().unwrap()
    });
}

/// Sizes at which every kernel splits its work: 16,384 pixels of 64 channels are several ranges of
/// batch statistics, and sixteen parts of the sums of a weight gradient.
#[test]
fn layers_of_many_pixels() {
    same_on_any_number_of_threads(|_| {
        let run = || -> Result<u64> {
            let mut rng = Rng::seed(1);
            let net = Sequential::new()
                .push(conv3x3(64, 64).bias(true).build(&mut rng)?)
                .push(BatchNorm2d::new(64)?)
                .push(Relu)
                .push(conv3x3(64, 96).groups(2).build(&mut rng)?)
                .push(MaxPool2d::new(3).stride(2).padding(1))
                .push(BatchNorm2d::new(96)?)
                .push(conv3x3(96, 96).groups(96).stride(2).build(&mut rng)?)
                .push(Conv2d::builder(96, 40, [1, 3]).dilation([1, 2]).build(&mut rng)?)
                .push(AvgPool2d::new(2))
                .push(GlobalAvgPool)
                .push(Linear::new(40, 10, &mut rng)?);
            let tape = Tape::train(rng.split());
            let x = tape.watch(Tensor::normal([16, 32, 32, 64], 1.0, &mut rng)?);
            let logits = net.forward(&x)?;
            let labels: Vec<usize> = (0..16).map(|i| i % 10).collect();
            let updates = logits.cross_entropy(&labels)?.backward()?;

            let mut results = NamedTensors::from([("logits".to_string(), logits.value().clone())]);
            results.insert("dx".to_string(), updates.grad_of(&x).expect("a watched input").clone());
            net.visit("", &mut |name, slot| {
                let result = match slot {
                    StateRef::Param(param) => updates.grad(param),
                    StateRef::Buffer(buffer) => updates.observed(buffer),
                    _ => None,
                };
                results.insert(name.to_string(), result.expect("all of it was reached").clone());
            });
            Ok(hash(&results))
        };
        run().unwrap()
    });
}
