//! Checks a network without computing anything: shape errors, a summary of its layers, the memory
//! of a training step, and the largest batch for a given amount of memory.
//!
//! `cargo run --release --example 05_look_first`

use skipgrad::{
    memory,
    nn::{Conv2d, Linear},
    prelude::*,
};

const MIB: usize = 1 << 20;

fn main() -> Result<()> {
    let mut rng = Rng::seed(42);
    let mut model = ResNet::cifar_paper(20, 10, &mut rng)?;

    // All shape errors of a training pass, with the paths of their modules.
    model.check(&[32, 32, 32, 3])?;
    *model.stem.conv_mut() = Conv2d::builder(1, 16, 3).padding(1).build(&mut rng)?;
    model.fc = Linear::new(32, 10, &mut rng)?;
    let faults = model.check(&[32, 32, 32, 3]).unwrap_err();
    println!("{faults}\n");

    // A summary of the layers, for one image of ImageNet's size.
    let model = ResNet::imagenet(18, 1000, &mut rng)?;
    let summary = model.summary(&[1, 224, 224, 3])?;
    println!("{summary}");
    assert_eq!(summary.multiply_adds / 1_000_000, 1_814);

    // Memory of a training step with momentum, which takes one element for each parameter.
    for batch in [1, 32, 256] {
        let plan = model.plan(&[batch, 224, 224, 3], Mode::Train)?;
        println!(
            "a step of {batch} images: {} MiB, {} of them kept for backward",
            plan.peak(1) / MIB,
            plan.kept / MIB
        );
    }
    let budget = 2048 * MIB;
    let batch = model.largest_batch(&[224, 224, 3], Mode::Train, &|plan| plan.peak(1) <= budget)?;
    println!("{batch} images fit {} MiB", budget / MIB);

    // Nothing was computed, and only parameters were ever in memory.
    assert!(memory::stats().peak < 64 * MIB);
    Ok(())
}
