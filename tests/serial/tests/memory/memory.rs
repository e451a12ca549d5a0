//! What a training step and an evaluation hold.

use libtest_mimic::Trial;
use skipgrad::{
    Result, Rng, Tensor,
    autograd::{State, Tape},
    blocks::DenseBlock,
    inference::{InferenceMemory, InferenceModel, InferenceOptions},
    memory,
    models::{DenseNet, ResNet, ResNetConfig},
    nn::Module,
    optim::{Optimizer, Sgd},
};
use skipgrad_serial_tests as serial;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        serial::test("memory::training_of_a_resnet", training_of_a_resnet),
        serial::test("memory::training_of_a_dense_block", training_of_a_dense_block),
        serial::test("memory::inference_of_many_sizes", inference_of_many_sizes),
        serial::test("memory::inference_of_a_densenet", inference_of_a_densenet),
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

    // In evaluation by definition: the maps that come into the stage and into the block, and those
    // of a convolution and of its norm.
    memory::reset_peak();
    model.forward(&Tape::eval().input(images.clone())).map(drop)?;
    let eval = memory::stats();
    let held = eval.peak - after.live;
    assert!(held < 5 * MAP + MAP / 8, "evaluation holds {held} bytes");
    assert!(eval.live.abs_diff(after.live) < 4096, "the tape saves nothing");
    Ok(())
}

/// The weights are packed once, whatever the sizes of inputs, and the model itself can go.
fn inference_of_many_sizes() -> Result<()> {
    let before = memory::stats().live;
    let model = ResNet::imagenet(18, 1000, &mut Rng::seed(1))?;
    let state: usize = model.export().values().map(Tensor::bytes).sum();
    for batch in [1, 16] {
        let options = InferenceOptions::new([224, 224, 3]).batch_size(batch);
        let weights = InferenceModel::compile(&model, &options)?.memory().weights;
        assert!(10 * weights <= 22 * state, "{weights} bytes for {state} and a batch of {batch}");
    }
    let compiled = InferenceModel::compile(&model, &InferenceOptions::new([224, 224, 3]))?;
    drop(model);
    for shape in [[1, 224, 224, 3], [3, 64, 96, 3], [1, 160, 160, 3], [2, 33, 57, 3], [1, 224, 224, 3]] {
        compiled.run(&Tensor::zeros(shape)?)?;
    }
    let (held, InferenceMemory { weights, arena, .. }) = (memory::stats().live - before, compiled.memory());
    // Beside these there are the vectors of other norms and the pages that slots are rounded to.
    assert!(held < weights + arena + (1 << 18), "{held} bytes held, {weights} + {arena} said");
    Ok(())
}

fn inference_of_a_densenet() -> Result<()> {
    let model = DenseNet::imagenet(121, 10, &mut Rng::seed(1))?;
    let compiled = InferenceModel::compile(&model, &InferenceOptions::new([64, 64, 3]).batch_size(7))?;
    let run = |batch: usize| -> Result<[usize; 2]> {
        let images = Tensor::zeros([batch, 64, 64, 3])?;
        let before = memory::stats();
        memory::reset_peak();
        let output = compiled.run(&images)?;
        let after = memory::stats();
        Ok([after.peak - before.live - output.bytes(), (after.fresh - before.fresh) as usize])
    };
    run(1)?;
    run(7)?;
    for batch in [1, 7, 1] {
        assert_eq!(run(batch)?, [0, 0], "a batch of {batch} again");
    }
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
