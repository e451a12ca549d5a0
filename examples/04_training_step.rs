//! Training steps of ResNet-18 by hand, with their time and memory: forward, loss, backward, step.
//!
//! `cargo run --release --example 04_training_step`

use skipgrad::{data::SyntheticShapes, memory, prelude::*};
use std::time::Instant;

fn main() -> Result<()> {
    let mut rng = Rng::seed(42);
    let mut model = ResNet::cifar(18, 10, &mut rng)?;
    println!("ResNet-18 for 32 x 32 images: {} parameters", model.num_parameters());
    let mut sgd = Sgd::new(0.02).momentum(0.9).weight_decay(5e-4);
    let images = SyntheticShapes::with_sizes(32, 0, 0)?.train();
    let (x, labels) = (images.images(0..32)?, images.labels(0..32)?);

    for step in 0..4 {
        let start = Instant::now();
        // The forward pass. The tape saves what backward needs; the model does not change.
        let tape = Tape::train(rng.split());
        let logits = model.forward(&tape.input(x.clone()))?;
        let loss = logits.cross_entropy(labels)?;
        let forward = start.elapsed();
        let saved = memory::stats().live >> 20;

        // Backward consumes the saved tensors and returns gradients and new running statistics.
        let mut updates = loss.backward()?;
        let norm = updates.clip_global_norm(10.0);
        let backward = start.elapsed() - forward;

        // The optimizer updates the weights in place.
        sgd.step(&mut model, updates)?;
        let correct = logits.argmax().iter().zip(labels).filter(|(class, label)| class == label).count();
        println!(
            "step {step}: loss {:.3}, {correct}/32 correct, gradient norm {norm:.2}; forward {forward:.0?}, backward \
             {backward:.0?}, {saved} MiB live after forward, {} MiB now",
            loss.item(),
            memory::stats().live >> 20
        );
    }
    Ok(())
}
