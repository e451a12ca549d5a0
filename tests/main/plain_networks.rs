//! Networks without shortcuts: in all that is asked of a network they are its residual twin without
//! the additions.

use skipgrad::{
    autograd::NamedTensors,
    blocks::{BlockKind, ShortcutKind},
    graph::Graph,
    inference::{InferenceModel, InferenceOptions},
    models::ResNetConfig,
    prelude::*,
};

fn config(kind: BlockKind, shortcut: ShortcutKind) -> Result<ResNetConfig> {
    let stages = [(16, 2), (32, 2), (64, 1)];
    Ok(ResNetConfig::cifar_paper(14, 10)?.kind(kind).stages(stages).shortcut(shortcut))
}

fn plain(kind: BlockKind) -> Result<ResNet> {
    ResNet::new(&config(kind, ShortcutKind::None)?, &mut Rng::seed(1))
}

fn images(n: usize) -> Result<Tensor> {
    Tensor::normal([n, 16, 16, 3], 1.0, &mut Rng::seed(2))
}

/// The number of operations of a name in a graph.
fn count(graph: &Graph, name: &str) -> usize {
    graph.nodes().iter().filter(|node| node.name() == name).count()
}

#[test]
fn the_names_are_those_of_the_residual_twin_without_its_shortcuts() -> Result<()> {
    for kind in [BlockKind::Basic, BlockKind::Bottleneck] {
        let twin = ResNet::new(&config(kind, ShortcutKind::Project)?, &mut Rng::seed(1))?;
        let mut expected: NamedTensors = twin.export();
        expected.retain(|name, _| !name.contains("downsample"));
        let shapes = |tensors: NamedTensors| -> Vec<(String, Vec<usize>)> {
            tensors.into_iter().map(|(name, tensor)| (name, tensor.shape().to_vec())).collect()
        };
        assert_eq!(shapes(plain(kind)?.export()), shapes(expected));
    }
    Ok(())
}

#[test]
fn no_addition_runs() -> Result<()> {
    let shape = [2, 16, 16, 3];
    let twin = ResNet::new(&config(BlockKind::Basic, ShortcutKind::Pad)?, &mut Rng::seed(1))?;
    let [with, without] = [twin, plain(BlockKind::Basic)?].map(|model| {
        model.check(&shape).and_then(|()| {
            let kept = model.plan(&shape, Mode::Train)?.kept;
            Ok((Graph::trace(&model, &shape)?, model.summary(&shape)?, kept))
        })
    });
    let ((with, of_twin, kept_of_twin), (without, of_plain, kept)) = (with?, without?);
    assert_eq!((count(&with, "add"), count(&without, "add")), (5, 0));
    assert_eq!((count(&with, "relu"), count(&without, "relu")), (11, 11));
    assert_eq!(of_plain.parameters, of_twin.parameters);
    assert_eq!(of_plain.multiply_adds, of_twin.multiply_adds);
    assert!(kept <= kept_of_twin, "{kept} {kept_of_twin}");
    // Sums are red in a drawing.
    let red = |graph: &Graph| graph.to_svg(3).matches("#b8413d").count();
    assert!(red(&with) > 0 && red(&without) == 0);
    Ok(())
}

#[test]
fn every_parameter_gets_a_gradient() -> Result<()> {
    let mut model = plain(BlockKind::Bottleneck)?;
    let tape = Tape::train(Rng::seed(0));
    let logits = tape.input(images(4)?).apply(&model)?;
    let updates = logits.cross_entropy(&[1, 3, 5, 7])?.backward()?;
    assert!(updates.grad(&model.fc.weight).is_some());
    // A step refuses parameters that the pass met and the state does not name, and the reverse.
    Sgd::new(0.1).step(&mut model, updates)
}

#[test]
fn compiled_it_is_what_it_is_by_definition() -> Result<()> {
    for kind in [BlockKind::Basic, BlockKind::Bottleneck] {
        let mut model = plain(kind)?;
        let mut rng = Rng::seed(3);
        let mut tensors = model.export();
        for (name, tensor) in &mut tensors {
            if name.ends_with("running_var") {
                *tensor = Tensor::uniform(tensor.shape(), 0.5, 1.5, &mut rng)?;
            }
        }
        model.import(tensors)?;
        let compiled = InferenceModel::compile(&model, &InferenceOptions::new([16, 16, 3]).batch_size(3))?;
        compiled.verify(&model, &images(3)?, 2e-5)?;
    }
    Ok(())
}

#[test]
fn errors_name_the_block() -> Result<()> {
    let error = |config: ResNetConfig| ResNet::new(&config, &mut Rng::seed(0)).err().map(|e| e.to_string());
    let plain = || config(BlockKind::Basic, ShortcutKind::None);
    let found = error(plain()?.drop_path(0.5)).unwrap_or_default();
    assert!(found.starts_with("layer1.0: basic_block: drop_path: expected 0 without a shortcut"), "{found}");
    let found = error(plain()?.zero_init_residual(true)).unwrap_or_default();
    assert!(found.starts_with("layer1.0: basic_block: zero_init_residual: expected false"), "{found}");
    // A pre-activation block has the shortcut of its paper.
    let preact = plain()?.kind(BlockKind::PreActBasic);
    assert_eq!(
        error(preact).as_deref(),
        Some("layer1.0: preact_block: shortcut: expected Project, found None")
    );
    Ok(())
}
