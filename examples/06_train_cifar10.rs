//! Trains ResNet-20 with `Loader` and `Trainer`, on CIFAR-10 or on synthetic images.
//!
//! `cargo run --release --example 06_train_cifar10 [cifar-10-batches-bin]`

use skipgrad::{
    data::{Cifar10, Compose, Loader, Normalize, RandomCrop, RandomHorizontalFlip, SyntheticShapes},
    optim::Schedule,
    prelude::*,
    train::{Event, Trainer},
};

fn main() -> Result<()> {
    // The folder of CIFAR-10's binary version; without one, a few synthetic images take its place.
    let folder = std::env::args_os().nth(1).or_else(|| std::env::var_os("SKIPGRAD_CIFAR10"));
    let (train, test, epochs) = match folder {
        Some(folder) => (Cifar10::open(&folder)?.train(), Cifar10::open(&folder)?.test(), 30),
        None => {
            let shapes = SyntheticShapes::with_sizes(512, 250, 0)?;
            (shapes.train(), shapes.test(), 2)
        }
    };
    let transform = Compose::new()
        .then(RandomCrop::with_padding(4))
        .then(RandomHorizontalFlip)
        .then(Normalize::cifar10());
    let test = Loader::new(test, 250).transform(transform.eval());
    let train = Loader::new(train, 64).shuffle(0).transform(transform).num_workers(1);

    let mut model = ResNet::cifar_paper(20, 10, &mut Rng::seed(0))?;
    let mut sgd = Sgd::new(0.1).momentum(0.9).nesterov(true).weight_decay(5e-4);
    let schedule = Schedule::one_cycle(0.1, epochs * train.num_batches());
    let mut trainer = Trainer::new(epochs, schedule).label_smoothing(0.1);
    trainer.run(&mut model, &mut sgd, &train, &test, |event| match event {
        Event::Step(step) if step.batch % 50 == 0 => println!("batch {}: {:.3}", step.batch, step.loss),
        Event::Epoch(epoch) => println!("epoch {}: accuracy {:.3}", epoch.epoch, epoch.test_accuracy),
        _ => {}
    })?;
    skipgrad::io::save(&model, std::env::temp_dir().join("skipgrad-resnet20.safetensors"))
}
