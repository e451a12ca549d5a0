//! The training of a network that there are no weights of, and whether a network has learned.

use skipgrad::{
    data::{Compose, Images, Loader, Normalize, RandomCrop, RandomHorizontalFlip},
    optim::Schedule,
    prelude::*,
    train::evaluate,
};

/// The batch size, and the highest learning rate of the schedule.
const BATCH: usize = 64;
const LR: f32 = 0.1;

/// Trains for a number of epochs with a seed. Gradients are clipped, so that no rounding of the
/// first steps, which differs between instruction sets, decides whether the network learns.
pub(crate) fn train(
    model: &mut Box<dyn Model>,
    images: Images,
    normalize: &Normalize,
    [epochs, seed]: [u64; 2],
) -> Result<()> {
    let augment =
        Compose::new().then(RandomCrop::with_padding(4)).then(RandomHorizontalFlip).then(normalize.clone());
    let loader = Loader::new(images, BATCH).shuffle(seed).transform(augment).drop_last(true);
    let steps = epochs as usize * loader.num_batches();
    println!("no weights: {steps} steps of training");
    let schedule = Schedule::one_cycle(LR, steps);
    let mut sgd = Sgd::new(LR).momentum(0.9).nesterov(true).weight_decay(5e-4).no_decay_on_norms_and_biases();
    let mut rng = Rng::seed(seed);
    let mut step = 0;
    for epoch in 0..epochs {
        for batch in loader.epoch(epoch)? {
            let batch = batch?;
            sgd.set_lr(schedule.lr(step));
            let tape = Tape::train(rng.split());
            let loss = tape.input(batch.images).apply(model)?.cross_entropy(&batch.labels)?;
            if step % 50 == 0 {
                println!("step {step}: loss {:.3}", loss.item());
            }
            let mut updates = loss.backward()?;
            updates.clip_global_norm(1.0);
            sgd.step(model, updates)?;
            step += 1;
        }
    }
    Ok(())
}

/// Prints the accuracy on test images, and a warning if the network has not learned.
pub(crate) fn report(model: &dyn Model, images: &Images, normalize: &Normalize) -> Result<f64> {
    let loader = Loader::new(images.take(1000), 250).transform(Compose::new().then(normalize.clone()));
    let accuracy = f64::from(evaluate(model, &loader)?.accuracy());
    println!("accuracy on {} test images: {accuracy:.3}", images.len().min(1000));
    if accuracy < 0.5 {
        println!(
            "THIS NETWORK HAS NOT LEARNED these classes: its heat maps explain nothing. Weights of another\n\
             dataset, another model or too short a training are the usual reasons."
        );
    }
    Ok(accuracy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use skipgrad::{cpu::Isa, data::SyntheticShapes, models};

    /// The recipe of the example, with its defaults, for seeds 0 to 4. `SKIPGRAD_ISA` chooses the
    /// instruction set; it takes minutes on each.
    #[test]
    #[ignore = "trains five networks"]
    fn the_recipe_gives_nine_in_ten_for_every_seed() -> Result<()> {
        let data = SyntheticShapes::new(0);
        let normalize = Normalize::cifar10();
        for seed in 0..5 {
            let mut model = models::build("resnet20", &ModelOptions::classes(10), &mut Rng::seed(seed))?;
            train(&mut model, data.train(), &normalize, [6, seed])?;
            let accuracy = report(&model, &data.test(), &normalize)?;
            println!("{}, seed {seed}: {accuracy:.3}", Isa::active().name());
            assert!(accuracy >= 0.9, "{}, seed {seed}: {accuracy}", Isa::active().name());
        }
        Ok(())
    }
}
