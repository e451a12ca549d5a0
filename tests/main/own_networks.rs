//! Networks of a user's own: what their state forgets is refused, their blocks take part in
//! everything, and they can be printed.

use skipgrad::{
    autograd::{Buffer, Param, StateMut, StateRef, join},
    blocks::{BasicBlock, BlockSettings, ResidualUnit},
    models::{self, DenseNet, ModelOptions, ResNetConfig},
    nn::{BatchNorm2d, Conv2d, Linear, Sequential, conv3x3},
    ops::{BatchNorm, Conv2dOptions},
    prelude::*,
};

/// A network of each family and kind of block.
const FAMILIES: [&str; 8] = [
    "resnet18",
    "resnext50_32x4d",
    "resnet50d",
    "resnetv2_50",
    "wrn16_4",
    "resnet20",
    "densenet121",
    "densenet40_k12",
];

fn images(channels: usize) -> Tensor {
    Tensor::normal([4, 6, 6, channels], 1.0, &mut Rng::seed(1)).unwrap()
}

/// Two convolutions of which the second is not in the state.
#[derive(State)]
struct Skipped {
    first: Conv2d,
    #[state(skip)]
    second: Conv2d,
    head: Linear,
}

impl Module for Skipped {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let x = x.apply(&self.first)?.relu().apply(&self.second)?.relu();
        x.global_avg_pool()?.apply(&self.head)
    }
}

fn skipped() -> Result<Skipped> {
    let rng = &mut Rng::seed(0);
    let (first, second) = (conv3x3(3, 4).build(rng)?, conv3x3(4, 5).build(rng)?);
    Ok(Skipped { first, second, head: Linear::new(5, 2, rng)? })
}

/// A block whose hand-written visitor forgets the running variance and a factor of its own.
struct Forgetful {
    norm: BatchNorm2d,
    factor: Param,
    visits: [bool; 2],
}

impl State for Forgetful {
    fn visit(&self, path: &str, f: &mut dyn FnMut(&str, StateRef<'_>)) {
        let [norm, factor] = self.visits;
        if norm {
            self.norm.visit(path, f);
        } else {
            self.norm.weight.visit(&join(path, "weight"), f);
            self.norm.bias.visit(&join(path, "bias"), f);
            self.norm.running_mean.visit(&join(path, "running_mean"), f);
        }
        if factor {
            self.factor.visit(&join(path, "factor"), f);
        }
    }
    fn visit_mut(&mut self, path: &str, f: &mut dyn FnMut(&str, StateMut<'_>)) {
        let [norm, factor] = self.visits;
        if norm {
            self.norm.visit_mut(path, f);
        } else {
            self.norm.weight.visit_mut(&join(path, "weight"), f);
            self.norm.bias.visit_mut(&join(path, "bias"), f);
            self.norm.running_mean.visit_mut(&join(path, "running_mean"), f);
        }
        if factor {
            self.factor.visit_mut(&join(path, "factor"), f);
        }
    }
}

impl Module for Forgetful {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let y = x.apply(&self.norm)?;
        y.mul(&x.tape().param(&self.factor))
    }
}

/// The network around it.
fn forgetful(visits: [bool; 2]) -> Result<Sequential> {
    let factor = Param::new(Tensor::full([4, 6, 6, 3], 2.0)?);
    Sequential::new().named("block", Forgetful { norm: BatchNorm2d::new(3)?, factor, visits })
}

/// Returns the errors of a check, of a plan and of a step.
fn errors(net: &mut dyn Module) -> [Option<Error>; 3] {
    let shape = [4, 6, 6, 3];
    let step = || {
        let tape = Tape::train(Rng::seed(0));
        let updates = tape.input(images(3)).apply(net).unwrap().sum().backward().unwrap();
        updates.check_named(net)
    };
    let step = step().err();
    [net.check(&shape).err(), net.plan(&shape, Mode::Train).err(), step]
}

/// The parts of an [`Error::NotInState`]: path, kind, operation, shape, and what was read before.
type Unnamed = (String, &'static str, &'static str, Vec<usize>, Option<String>);

#[track_caller]
fn unnamed(error: &Error) -> Unnamed {
    let path = error.path().unwrap_or_default().to_string();
    let source = match error {
        Error::Module { source, .. } => source,
        error => error,
    };
    match source {
        Error::NotInState { kind, op, shape, after } => (path, kind, op, shape.to_vec(), after.clone()),
        other => panic!("another error: {other}"),
    }
}

#[test]
fn a_skipped_part_is_refused_by_check_plan_and_step() -> Result<()> {
    let mut net = skipped()?;
    let [check, plan, step] = errors(&mut net).map(Option::unwrap);
    let Error::Faults { faults } = check else { panic!("{check}") };
    let expected = ("".to_string(), "trainable parameter", "conv2d", vec![3, 3, 4, 5], None);
    assert_eq!(faults.iter().map(unnamed).collect::<Vec<_>>(), std::slice::from_ref(&expected));
    assert_eq!(unnamed(&plan), expected);
    assert_eq!(unnamed(&step).4.as_deref(), Some("first.weight"));

    let tape = Tape::train(Rng::seed(0));
    let updates = tape.input(images(3)).apply(&net)?.sum().backward()?;
    let before = net.export();
    let error = Sgd::new(0.1).step(&mut net, updates).unwrap_err().to_string();
    assert_eq!(
        error,
        "conv2d: a trainable parameter of shape [3, 3, 4, 5], read after first.weight, is not in the state of \
         the model, so that it is neither trained nor saved: show it in `State` (without `#[state(skip)]`, or \
         in `visit` and `visit_mut`), or freeze it; for a step of a part of the model, freeze the rest or take \
         the part's updates by `Updates::split_off`"
    );
    assert_eq!(net.export(), before);
    Ok(())
}

#[test]
fn a_skipped_part_that_is_frozen_is_meant_to_be() -> Result<()> {
    let mut net = skipped()?;
    net.second.freeze("*")?;
    assert!(errors(&mut net).iter().all(Option::is_none));
    Ok(())
}

#[test]
fn what_a_visitor_forgets_is_named_with_its_module() -> Result<()> {
    assert!(errors(&mut forgetful([true, true])?).iter().all(Option::is_none));
    let [check, plan, step] = errors(&mut forgetful([true, false])?).map(Option::unwrap);
    let Error::Faults { faults } = check else { panic!("{check}") };
    assert_eq!(unnamed(&faults[0]), ("block".into(), "trainable parameter", "mul", vec![4, 6, 6, 3], None));
    assert_eq!((faults.len(), unnamed(&plan)), (1, unnamed(&faults[0])));
    assert_eq!(unnamed(&step).4.as_deref(), Some("block.bias"));

    // A running statistic that is never updated makes evaluation meaningless.
    let [check, plan, step] = errors(&mut forgetful([false, true])?).map(Option::unwrap);
    let Error::Faults { faults } = check else { panic!("{check}") };
    assert_eq!(unnamed(&faults[0]), ("block".into(), "buffer", "batch_norm", vec![3], None));
    assert_eq!(unnamed(&plan), unnamed(&faults[0]));
    assert_eq!(unnamed(&step).1, "buffer");

    let [check, ..] = errors(&mut forgetful([false, false])?).map(Option::unwrap);
    let Error::Faults { faults } = check else { panic!("{check}") };
    assert_eq!(faults.len(), 2);
    Ok(())
}

#[test]
fn a_copy_that_a_pass_reads_is_another_parameter() -> Result<()> {
    #[derive(State)]
    struct Copying {
        weight: Param,
    }
    impl Module for Copying {
        fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
            x.mul(&x.tape().param(&self.weight.clone()))
        }
    }
    let net = Copying { weight: Param::new(Tensor::full([4, 6, 6, 3], 1.0)?) };
    let Error::Faults { faults } = net.check(&[4, 6, 6, 3]).unwrap_err() else { panic!("other errors") };
    assert_eq!(unnamed(&faults[0]).2, "mul");
    Ok(())
}

#[test]
fn faults_of_operations_come_before_those_of_the_state() -> Result<()> {
    let mut net = skipped()?;
    net.head = Linear::new(7, 2, &mut Rng::seed(0))?;
    let Error::Faults { faults } = net.check(&[4, 6, 6, 3]).unwrap_err() else { panic!("other errors") };
    assert_eq!(faults[0].path(), Some("head"));
    assert_eq!((faults.len(), unnamed(&faults[1]).2), (2, "conv2d"));
    Ok(())
}

#[test]
fn every_network_of_the_crate_names_its_state() -> Result<()> {
    for name in FAMILIES {
        let model = models::build(name, &ModelOptions::classes(5), &mut Rng::seed(0))?;
        model.check(&[2, 64, 64, 3])?;
        for mode in [Mode::Train, Mode::Eval] {
            model.plan(&[2, 64, 64, 3], mode)?;
        }
    }
    Ok(())
}

#[test]
fn a_part_with_an_optimizer_of_its_own() -> Result<()> {
    let mut net = skipped()?;
    let tape = Tape::train(Rng::seed(0));
    let mut updates = tape.input(images(3)).apply(&net)?.sum().backward()?;
    let (first, second) = (net.export(), net.second.export());
    let of_second = updates.split_off(&net.second);
    Adam::new(0.1).step(&mut net.second, of_second)?;
    assert!(updates.grad(&net.second.weight).is_none());
    assert_eq!(net.export(), first);
    Sgd::new(0.1).step(&mut net, updates)?;
    assert_ne!(net.second.export(), second);
    assert_ne!(net.export()["first.weight"], first["first.weight"]);
    Ok(())
}

#[test]
fn inputs_on_two_tapes_are_an_error() -> Result<()> {
    let (a, b) = (Tape::train(Rng::seed(0)), Tape::eval());
    let tensor = |shape: &[usize]| Tensor::full(shape, 1.0);
    let on = |tape| -> Result<_> {
        let tape: &Tape = tape;
        let input = |shape: &[usize]| Ok::<_, Error>(tape.input(tensor(shape)?));
        Ok([input(&[2, 3, 3, 4])?, input(&[2, 4])?, input(&[4, 4])?, input(&[1, 1, 4, 4])?, input(&[4])?])
    };
    let ([x, row, matrix, _, vector], [y, gate, weight, kernel, bias]) = (on(&a)?, on(&b)?);
    let options = Conv2dOptions::new();
    let norm = BatchNorm::new(&bias, &bias);
    let here = a.input(tensor(&[1, 1, 4, 4])?);
    let errors: Vec<(&str, Result<Var<'_>>)> = vec![
        ("add", x.add(&y)),
        ("mul", x.mul(&y)),
        ("mse", x.mse(&y)),
        ("scale_channels", x.scale_channels(&gate)),
        ("matmul", row.matmul(&weight)),
        ("linear", row.linear(&weight, None)),
        ("linear", row.linear(&matrix, Some(&bias))),
        ("concat", Var::concat(&[&x, &x, &y])),
        ("conv2d", x.conv2d(&kernel, None, &options)),
        ("conv2d", x.conv2d(&here, Some(&bias), &options)),
        ("batch_norm", x.batch_norm(&norm).map(|(y, _)| y)),
        ("batch_norm", x.batch_norm(&BatchNorm::new(&vector, &vector).residual(&y)).map(|(y, _)| y)),
    ];
    for (name, result) in errors {
        match result.unwrap_err() {
            Error::DifferentTapes { op } => assert_eq!(op, name),
            other => panic!("{name}: {other}"),
        }
    }
    let error = x.add(&y).unwrap_err().to_string();
    assert!(error.starts_with("add: the inputs are on different tapes"), "{error}");
    Ok(())
}

/// A basic block whose channels are gated (Hu et al. 2018).
#[derive(Clone, State)]
struct SeBlock {
    #[state(flatten)]
    block: BasicBlock,
    fc1: Linear,
    fc2: Linear,
}

impl SeBlock {
    fn new(settings: BlockSettings, rng: &mut Rng) -> Result<SeBlock> {
        let BlockSettings { in_channels, out_channels, stride, .. } = settings;
        Ok(SeBlock {
            block: BasicBlock::builder(in_channels, out_channels).stride(stride).build(rng)?,
            fc1: Linear::new(out_channels, out_channels / 2, rng)?,
            fc2: Linear::new(out_channels / 2, out_channels, rng)?,
        })
    }
}

impl Module for SeBlock {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        let y = self.block.conv2.forward(&self.block.conv1.forward_relu(x)?)?;
        let gate = y.global_avg_pool()?.apply(&self.fc1)?.relu().apply(&self.fc2)?.sigmoid();
        let shortcut = x.tape().scope("downsample", || x.apply(&self.block.downsample))?;
        Ok(y.scale_channels(&gate)?.add(&shortcut)?.relu())
    }
}

/// The settings of a squeeze-and-excitation network for small images.
pub(crate) fn se_resnet() -> Result<ResNetConfig> {
    Ok(ResNetConfig::cifar_paper(8, 3)?.stages([(4, 1), (8, 2)]).block(SeBlock::new))
}

#[test]
fn a_block_of_ones_own_takes_part_in_everything() -> Result<()> {
    let mut model = ResNet::new(&se_resnet()?, &mut Rng::seed(0))?;
    assert!(matches!(model.stages[0].blocks[0], ResidualUnit::Custom(_)));
    let names: Vec<String> = model.export().into_keys().collect();
    for name in ["layer1.0.conv1.weight", "layer2.1.fc2.bias", "layer2.0.downsample.1.running_var"] {
        assert!(names.iter().any(|found| found == name), "{name} is not in {names:?}");
    }
    model.check(&[4, 8, 8, 3])?;
    assert!(model.tree().to_string().contains("\n      fc1: "), "{model}");

    let x = Tensor::normal([4, 8, 8, 3], 1.0, &mut Rng::seed(1))?;
    let copy = model.clone();
    let (tape, other) = (Tape::eval(), Tape::eval());
    let logits = tape.input(x.clone()).apply(&model)?;
    assert_eq!(other.input(x.clone()).apply(&copy)?.value(), logits.value());
    let maps = model.feature_maps(&tape.input(x.clone()), &["layer2.0", "layer2.1.fc1"])?;
    assert_eq!((maps[0].shape().to_vec(), maps[1].shape().to_vec()), (vec![4, 4, 4, 8], vec![4, 4]));

    let mut sgd = Sgd::new(0.1).momentum(0.9);
    let mut losses = vec![];
    for step in 0..20 {
        let tape = Tape::train(Rng::seed(step));
        let loss = tape.input(x.clone()).apply(&model)?.cross_entropy(&[0, 1, 2, 0])?;
        losses.push(loss.item());
        sgd.step(&mut model, loss.backward()?)?;
    }
    assert!(losses[19] < 0.5 * losses[0], "{losses:?}");
    assert_eq!(other.input(x).apply(&copy)?.value(), logits.value(), "the copy did not learn");
    Ok(())
}

#[test]
fn errors_of_a_block_of_ones_own_have_its_path() -> Result<()> {
    let broken = se_resnet()?.block(|settings, rng| {
        let mut block = SeBlock::new(settings, rng)?;
        if settings.stride == 2 {
            block.fc2 = Linear::new(3, 8, rng)?;
        }
        Ok(block)
    });
    let model = ResNet::new(&broken, &mut Rng::seed(0))?;
    let tape = Tape::eval();
    let error = tape.input(Tensor::zeros([1, 8, 8, 3])?).apply(&model).unwrap_err();
    assert_eq!(error.path(), Some("layer2.0.fc2"));
    let refused = se_resnet()?.block(|mut settings, rng| {
        settings.stride = 0;
        SeBlock::new(settings, rng)
    });
    let error = ResNet::new(&refused, &mut Rng::seed(0)).unwrap_err().to_string();
    assert!(error.starts_with("layer1.0: conv2d: stride"), "{error}");
    Ok(())
}

#[test]
fn every_norm_of_a_network_has_its_name_and_its_settings() -> Result<()> {
    for name in FAMILIES {
        let mut model = models::build(name, &ModelOptions::classes(5), &mut Rng::seed(0))?;
        let expected: Vec<String> = model
            .export()
            .into_keys()
            .filter_map(|name| name.strip_suffix(".running_mean").map(str::to_string))
            .collect();
        let mut found: Vec<String> = model.norms_mut().into_iter().map(|(name, _)| name).collect();
        found.sort();
        assert_eq!(found, expected, "{name}");
    }
    let mut model = ResNet::cifar_paper(8, 3, &mut Rng::seed(0))?;
    let x = images(3);
    let logits = |model: &ResNet| -> Result<Tensor> {
        Ok(Tape::eval().input(x.clone()).apply(model)?.value().clone())
    };
    let before = logits(&model)?;
    for (name, norm) in model.norms_mut() {
        norm.eps = if name == "bn1" { 0.5 } else { 1e-3 };
    }
    assert_ne!(logits(&model)?, before);
    Ok(())
}

#[test]
fn networks_print_as_short_trees() -> Result<()> {
    for name in FAMILIES {
        let model = models::build(name, &ModelOptions::classes(1000), &mut Rng::seed(0))?;
        let (display, debug) = (model.to_string(), format!("{model:?}"));
        assert_eq!((&display, &debug), (&model.tree().to_string(), &display), "{name}");
        assert!(display.len() < 60_000 && display.lines().count() < 700, "{name}: {}", display.len());
        let short = model.tree().depth(1).to_string();
        assert!(short.lines().count() < 12, "{short}");
    }
    let model = ResNet::imagenet(18, 1000, &mut Rng::seed(0))?;
    let text = model.to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[..9],
        [
            "ResNet of 11689512 parameters",
            "  conv1: weight [64, 3, 7, 7]",
            "  bn1: weight, bias, running_mean, running_var [64]",
            "  layer1",
            "    0 to 1, 2 times",
            "      conv1: weight [64, 64, 3, 3]",
            "      bn1: weight, bias, running_mean, running_var [64]",
            "      conv2: weight [64, 64, 3, 3]",
            "      bn2: weight, bias, running_mean, running_var [64]",
        ]
    );
    assert_eq!(lines.last(), Some(&"  fc: weight [1000, 512]; bias [1000]"));
    assert!(format!("{:?}", model.stages).len() < 20_000);
    let dense = DenseNet::bc(10, 12, 10, &mut Rng::seed(0))?;
    assert!(dense.to_string().starts_with("DenseNet of "));
    let net = Sequential::new().push(conv3x3(3, 4).build(&mut Rng::seed(0))?);
    assert_eq!(net.to_string(), "Sequential of 108 parameters\n  0: weight [4, 3, 3, 3]");
    let (param, buffer) = (Param::new(images(3)), Buffer::new(Tensor::zeros([2])?));
    assert!(format!("{param:?}").len() < 100, "{param:?}");
    assert_eq!(format!("{buffer:?}"), "Buffer(Tensor [2] [0, 0])");
    Ok(())
}
