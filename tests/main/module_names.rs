//! The names of modules are written once, at the fields of a network: errors, feature maps and
//! checks find them.

use skipgrad::{
    blocks::{ConvNorm, DenseBlock, ResBlock, Stem},
    nn::{BatchNorm2d, Conv2d, Linear, MaxPool2d, Sequential, conv3x3},
    prelude::*,
};

/// A block that never says what its parts are called.
#[derive(State)]
struct Fork {
    left: Conv2d,
    #[state(flatten(conv = "wide", norm = "wide_norm"))]
    right: ConvNorm,
}

impl Module for Fork {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        Ok(self.left.forward(x)?.add(&self.right.forward(x)?)?.relu())
    }
}

#[derive(State)]
struct Net {
    #[state(flatten(conv = "conv1", norm = "bn1"))]
    stem: Stem,
    #[state(rename = "block{n}")]
    blocks: Vec<Fork>,
    norm: BatchNorm2d,
    #[state(skip)]
    pool: MaxPool2d,
    #[state(rename = "heads.main")]
    head: Option<Linear>,
}

impl Module for Net {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let x = self.stem.forward(x)?;
        let x = self.blocks.iter().try_fold(x, |x, block| x.apply(block))?;
        let x = x.apply(&self.norm)?.relu();
        let x = x.tape().scope("pool", || x.apply(&self.pool))?.global_avg_pool()?;
        self.head.as_ref().map_or(Ok(x.clone()), |head| x.apply(head))
    }
}

fn net() -> Result<Net> {
    let rng = &mut Rng::seed(0);
    let mut fork = || {
        let left = conv3x3(4, 4).build(rng)?;
        Ok(Fork { left, right: ConvNorm::new(conv3x3(4, 4), rng)? })
    };
    let blocks = vec![fork()?, fork()?];
    Ok(Net {
        stem: Stem::cifar(3, 4).build(rng)?,
        blocks,
        norm: BatchNorm2d::new(4)?,
        pool: MaxPool2d::new(2),
        head: Some(Linear::new(4, 5, rng)?),
    })
}

fn path(net: &Net, shape: [usize; 4]) -> String {
    let tape = Tape::eval();
    let error = tape.input(Tensor::zeros(shape).unwrap()).apply(net).unwrap_err();
    error.path().unwrap_or_default().to_string()
}

#[test]
fn errors_carry_the_names_of_the_fields() -> Result<()> {
    assert_eq!(path(&net()?, [1, 8, 8, 2]), "conv1");
    let mut broken = net()?;
    broken.blocks[1].left = conv3x3(5, 4).build(&mut Rng::seed(0))?;
    assert_eq!(path(&broken, [1, 8, 8, 3]), "block2.left");
    let mut broken = net()?;
    broken.blocks[0].right.conv = conv3x3(5, 4).build(&mut Rng::seed(0))?;
    assert_eq!(path(&broken, [1, 8, 8, 3]), "block1.wide");
    let mut broken = net()?;
    broken.blocks[0].right.norm = BatchNorm2d::new(7)?;
    assert_eq!(path(&broken, [1, 8, 8, 3]), "block1.wide_norm");
    // The sum of a block is nobody's but the block's.
    let mut broken = net()?;
    broken.blocks[1].left = conv3x3(4, 6).build(&mut Rng::seed(0))?;
    assert_eq!(path(&broken, [1, 8, 8, 3]), "block2");
    let mut broken = net()?;
    broken.head = Some(Linear::new(3, 5, &mut Rng::seed(0))?);
    assert_eq!(path(&broken, [1, 8, 8, 3]), "heads.main");
    assert_eq!(path(&net()?, [1, 1, 1, 3]), "pool");
    Ok(())
}

#[test]
fn an_error_that_was_recovered_from_does_not_name_the_next_one() -> Result<()> {
    let net = net()?;
    let tape = Tape::eval();
    let x = tape.input(Tensor::zeros([1, 8, 8, 4])?);
    let features = tape.input(Tensor::zeros([1, 3])?);
    let error = tape.enter(&net, || {
        assert!(x.apply(&net.stem).is_err());
        x.apply(&net.norm)?;
        features.apply(net.head.as_ref().unwrap())
    });
    assert_eq!(error.unwrap_err().path(), Some("heads.main"));
    Ok(())
}

#[test]
fn checks_and_feature_maps_find_the_same_names() -> Result<()> {
    let mut broken = net()?;
    broken.blocks[1].right.conv = conv3x3(5, 4).build(&mut Rng::seed(0))?;
    broken.head = Some(Linear::new(3, 5, &mut Rng::seed(0))?);
    let Error::Faults { faults } = broken.check(&[2, 8, 8, 3]).unwrap_err() else { panic!("other errors") };
    let paths: Vec<_> = faults.iter().map(|fault| fault.path().unwrap()).collect();
    assert_eq!(paths, ["block2.wide", "heads.main"]);

    let net = net()?;
    let tape = Tape::eval();
    let x = tape.input(Tensor::normal([2, 8, 8, 3], 1.0, &mut Rng::seed(1))?);
    let maps = net.feature_maps(&x, &["conv1", "block1", "block2.wide_norm", "pool", "heads.main"])?;
    let shapes: Vec<_> = maps.iter().map(|map| map.shape().to_vec()).collect();
    let expected = [&[2, 8, 8, 4][..], &[2, 8, 8, 4], &[2, 8, 8, 4], &[2, 4, 4, 4], &[2, 5]];
    assert_eq!(shapes, expected);
    let block = net.feature_maps(&x, &["block1"])?;
    assert_eq!(block[0].value(), x.apply(&net.stem)?.apply(&net.blocks[0])?.value());
    assert_eq!(net.summary(&[2, 8, 8, 3])?.layers.last().unwrap().name, "heads.main");
    Ok(())
}

#[test]
fn a_sequence_names_its_modules_and_theirs() -> Result<()> {
    let rng = &mut Rng::seed(0);
    let net = Sequential::new()
        .push(Stem::cifar(3, 8).build(rng)?)
        .named("stage", ResBlock::basic(8, 8, 2).build(rng)?)?
        .push(DenseBlock::bottleneck(9, 4, 2).build(rng)?);
    let tape = Tape::eval();
    let error = net.forward(&tape.input(Tensor::zeros([1, 8, 8, 3])?)).unwrap_err();
    assert_eq!(error.path(), Some("2.denselayer1.norm1"));
    Ok(())
}

/// A network that runs its block by `forward`, which hides the block's name.
#[derive(State)]
struct Hidden {
    block: Fork,
}

impl Module for Hidden {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        self.block.forward(x)
    }
}

#[test]
fn an_error_says_how_a_module_gets_its_name() -> Result<()> {
    let rng = &mut Rng::seed(0);
    let left = conv3x3(4, 4).build(rng)?;
    let net = Hidden { block: Fork { left, right: ConvNorm::new(conv3x3(4, 4), rng)? } };
    let tape = Tape::eval();
    let x = tape.input(Tensor::zeros([1, 8, 8, 4])?);
    let error = net.feature_maps(&x, &["block"]).unwrap_err();
    assert!(matches!(error, Error::UnknownModule { has_state: true, .. }));
    assert!(error.to_string().contains("run it by `x.apply(&self.part)`"), "{error}");
    let error = net.feature_maps(&x, &["relu"]).unwrap_err();
    assert!(matches!(error, Error::UnknownModule { has_state: false, .. }));
    assert!(error.to_string().contains("`Tape::scope`"), "{error}");
    assert_eq!(net.feature_maps(&x, &["block.left"])?[0].shape(), [1, 8, 8, 4]);
    Ok(())
}
