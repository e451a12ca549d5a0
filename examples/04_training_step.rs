//! One training step of ResNet-18 by hand, taken apart: forward, loss, backward, step; and what it cost.
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
        // A pass forward. The tape remembers what backward needs; the model itself does not change.
        let tape = Tape::train(rng.split());
        let logits = model.forward(&tape.input(x.clone()))?;
        let loss = logits.cross_entropy(labels)?;
        let forward = start.elapsed();
        let kept = memory::stats().live >> 20;

        // Backward consumes what was remembered, and gives gradients and new running statistics.
        let mut updates = loss.backward()?;
        let norm = updates.clip_global_norm(10.0);
        let backward = start.elapsed() - forward;

        // The optimizer applies them, in place.
        sgd.step(&mut model, updates)?;
        let right = logits.argmax().iter().zip(labels).filter(|(guess, label)| guess == label).count();
        println!(
            "step {step}: loss {:.3}, {right}/32 right, gradient norm {norm:.2}; forward {forward:.0?}, backward \
             {backward:.0?}, {kept} MiB live after forward, {} MiB now",
            loss.item(),
            memory::stats().live >> 20
        );
    }
    Ok(())
}
