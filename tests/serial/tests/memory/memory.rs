//! What a training step and an evaluation hold.

use libtest_mimic::Trial;
use skipgrad::{
    Result, Rng, Tensor,
    autograd::{State, Tape},
    blocks::DenseBlock,
    memory,
    models::{ResNet, ResNetConfig},
    nn::Module,
    optim::{Optimizer, Sgd},
};
use skipgrad_serial_tests as serial;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        serial::test("memory::training_of_a_resnet", training_of_a_resnet),
        serial::test("memory::training_of_a_dense_block", training_of_a_dense_block),
        serial::test("memory::evaluation_of_a_dense_block", evaluation_of_a_dense_block),
        serial::test("memory::two_hundred_steps", two_hundred_steps),
    ]
}

const BATCH: usize = 8;

/// A 32 x 32 map of 64 channels for every image of the batch: what the stem and the first stage
/// work on. The maps of the second stage are half as large, those of the third a quarter.
const MAP: usize = 4 * BATCH * 32 * 32 * 64;

fn images(edge: usize) -> Result<Tensor> {
    Tensor::normal([BATCH, edge, edge, 3], 1.0, &mut Rng::seed(2))
}

fn step(model: &mut ResNet, sgd: &mut Sgd, images: &Tensor) -> Result<()> {
    let tape = Tape::train(Rng::seed(0));
    let loss = model.forward(&tape.input(images.clone()))?.cross_entropy(&[1; BATCH])?;
    sgd.step(model, loss.backward()?)
}

fn training_of_a_resnet() -> Result<()> {
    let mut model = ResNet::cifar(18, 10, &mut Rng::seed(1))?;
    let mut sgd = Sgd::new(0.01).momentum(0.9);
    let images = images(32)?;
    for _ in 0..3 {
        step(&mut model, &mut sgd, &images)?;
    }

    let before = memory::stats();
    memory::reset_peak();
    for _ in 0..3 {
        step(&mut model, &mut sgd, &images)?;
    }
    let after = memory::stats();
    assert_eq!(after.fresh, before.fresh, "a step takes all its memory from the pool");
    let faults_before = faults();
    for _ in 0..5 {
        step(&mut model, &mut sgd, &images)?;
    }
    // A page for every map of a step would be tens of thousands. The few are lists for which the
    // allocator extends its heap.
    if let Some((before, after)) = faults_before.zip(faults()) {
        assert!(after - before < 5 * 100, "five steps take {} fresh pages", after - before);
    }
    // Not to the byte: a buffer may have got a block of the pool that is a little larger than it.
    assert!(after.live.abs_diff(before.live) < 4096, "a step leaves nothing behind: {before:?}, {after:?}");

    // Parameters, momentum and running statistics are always there. The most is live when the sweep
    // comes back to the second stage: nearly all gradients (the first two stages have 6 % of the
    // parameters), the maps that the stages before and this one keep, and maps that the sweep works
    // with. A convolution keeps its output, which its norm starts from; what comes out of the norm
    // and the ReLU is computed again, except for the output of every stage. The stem and the first
    // stage have five convolutions, the second four and a projection. A sweep that kept everything
    // to its end would exceed this by the maps of the other stages.
    let state: usize = model.export().values().map(|tensor| 4 * tensor.data().len()).sum();
    let bound = 3 * state + 6 * MAP + 6 * MAP / 2 + 5 * MAP / 2;
    assert!(after.peak < bound, "a step holds {} bytes, more than {bound}", after.peak);

    // The first pass in evaluation folds and packs all weights, Winograd's four times as large.
    let evaluate = || model.forward(&Tape::eval().input(images.clone())).map(drop);
    evaluate()?;
    let packed = memory::stats().live - after.live;
    assert!(packed < 4 * state / 2 + state / 8, "{packed} bytes packed, of {state}");
    // A block in evaluation: the maps that come into the stage and into the block, and two of its
    // own.
    memory::reset_peak();
    evaluate()?;
    let eval = memory::stats();
    let held = eval.peak - packed - after.live;
    assert!(held < 4 * MAP + MAP / 8, "evaluation holds {held} bytes");
    assert_eq!(
        (eval.live - packed, eval.fresh),
        (after.live, memory::stats().fresh),
        "the tape saves nothing"
    );
    step(&mut model, &mut sgd, &images)?;
    assert!(memory::stats().live.abs_diff(before.live) < 4096, "training lets the packed weights go");
    Ok(())
}

/// By its definition a dense block of L layers makes L²/2 times the maps of one. Here four times
/// the layers take four times the memory.
fn training_of_a_dense_block() -> Result<()> {
    let peak = |layers: usize| -> Result<usize> {
        let block = DenseBlock::bottleneck(12, 12, layers).build(&mut Rng::seed(1))?;
        let images = Tensor::normal([BATCH, 16, 16, 12], 1.0, &mut Rng::seed(2))?;
        let before = memory::stats().live;
        memory::reset_peak();
        let tape = Tape::train(Rng::seed(0));
        block.forward(&tape.watch(images))?.sum().backward()?;
        Ok(memory::stats().peak - before)
    };
    let (short, long) = (peak(12)?, peak(48)?);
    assert!(long < 4 * short, "{short} bytes for 12 layers, {long} for 48");
    Ok(())
}

/// Folds and packs once, and then takes all its memory from the pool and holds the maps, and what a
/// bottleneck made of them.
fn evaluation_of_a_dense_block() -> Result<()> {
    let block = DenseBlock::bottleneck(16, 16, 6).build(&mut Rng::seed(1))?;
    let images = Tensor::normal([BATCH, 16, 16, 16], 1.0, &mut Rng::seed(2))?;
    let evaluate = || block.forward(&Tape::eval().input(images.clone())).map(drop);
    let empty = memory::stats().live;
    evaluate()?;
    let before = memory::stats();
    assert!(before.live > empty, "packed weights are kept");
    memory::reset_peak();
    evaluate()?;
    let after = memory::stats();
    assert_eq!((after.live, after.fresh), (before.live, before.fresh));
    let map = 4 * BATCH * 16 * 16 * 16;
    assert!(after.peak - before.live <= (7 + 4) * map + 4096, "{} bytes", after.peak - before.live);
    Ok(())
}

fn two_hundred_steps() -> Result<()> {
    memory::trim();
    let config = ResNetConfig::cifar_paper(8, 10)?.stages([(4, 1), (8, 1)]);
    let mut model = ResNet::new(&config, &mut Rng::seed(1))?;
    let mut sgd = Sgd::new(0.01).momentum(0.9);
    let images = images(8)?;
    let mut held = vec![];
    for _ in 0..200 {
        step(&mut model, &mut sgd, &images)?;
        let stats = memory::stats();
        held.push(stats.live + stats.pooled);
    }
    assert!(held[20..].iter().all(|&bytes| bytes == held[20]), "{held:?}");
    Ok(())
}

/// Pages that the system had to provide to this process so far, where it says.
fn faults() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // After the command's name, which may hold anything, the numbers begin with the third; this is
    // the tenth.
    let (_, numbers) = stat.rsplit_once(')')?;
    numbers.split_whitespace().nth(7)?.parse().ok()
}
