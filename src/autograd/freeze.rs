//! Freezing: parameters and buffers, chosen by their names, that training leaves unchanged.

use super::{State, StateMut};
use crate::{Error, Result};

/// The part of a model's state that is frozen.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Params,
    Buffers,
}

/// Freezes or thaws the parameters or buffers whose names match a pattern; returns how many there
/// are.
pub(super) fn set(
    model: &mut (impl State + ?Sized),
    kind: Kind,
    pattern: &str,
    frozen: bool,
) -> Result<usize> {
    let mut count = 0;
    model.visit_mut("", &mut |name, slot| match slot {
        StateMut::Param(param) if kind == Kind::Params && matches(pattern, name) => {
            param.set_trainable(!frozen);
            count += 1;
        }
        StateMut::Buffer(buffer) if kind == Kind::Buffers && matches(pattern, name) => {
            buffer.set_frozen(frozen);
            count += 1;
        }
        _ => {}
    });
    let (op, expected) = match (kind, frozen) {
        (Kind::Params, true) => ("freeze", "a pattern that matches a parameter's name"),
        (Kind::Params, false) => ("thaw", "a pattern that matches a parameter's name"),
        (Kind::Buffers, true) => ("freeze_statistics", "a pattern that matches a buffer's name"),
        (Kind::Buffers, false) => ("thaw_statistics", "a pattern that matches a buffer's name"),
    };
    if count == 0 {
        return Err(Error::argument(op, "pattern", expected, format_args!("{pattern:?}")));
    }
    Ok(count)
}

/// Returns whether a name matches a pattern, in which `*` stands for any text.
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let Some((begin, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(begin) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        match name.find(part) {
            Some(at) => name = &name[at + part.len()..],
            None => return false,
        }
    }
    name.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Rng, Tensor,
        autograd::Tape,
        models::{self, Model, ModelOptions, ResNet},
        nn::Module,
        optim::{Optimizer, Sgd},
    };

    #[test]
    fn stars_are_any_text() {
        let cases = [
            ("conv1.weight", "conv1.weight", true),
            ("conv1", "conv1.weight", false),
            ("layer1.*", "layer1.0.conv1.weight", true),
            ("layer1.*", "layer10.0.conv1.weight", false),
            ("*.bn*.weight", "layer1.0.bn2.weight", true),
            ("*.bn*.weight", "layer1.0.bn2.bias", false),
            ("*", "", true),
            ("a*a", "a", false),
        ];
        for (pattern, name, fits) in cases {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn a_step_leaves_what_is_frozen_and_moves_the_rest() {
        let mut model = ResNet::cifar_paper(8, 3, &mut Rng::seed(0)).unwrap();
        model.freeze("*").unwrap();
        assert_eq!(model.thaw("fc.*").unwrap(), 2);
        model.freeze_statistics("layer*").unwrap();
        let before = model.export();
        let tape = Tape::train(Rng::seed(1));
        let images = Tensor::uniform([4, 8, 8, 3], 0.0, 1.0, &mut Rng::seed(2)).unwrap();
        let loss = model.forward(&tape.input(images)).unwrap().cross_entropy(&[0, 1, 2, 0]).unwrap();
        Sgd::new(0.1).step(&mut model, loss.backward().unwrap()).unwrap();
        for (name, value) in model.export() {
            let moved = name.starts_with("fc.") || name.starts_with("bn1.running");
            assert_eq!(value != before[&name], moved, "{name}");
        }
        assert!(model.thaw_statistics("*").is_ok());
        assert!(!model.clone().stages[0].export().is_empty());
    }

    /// In fused operations, too, frozen parameters stay, and the others get the same gradients.
    #[test]
    fn the_rest_learns_as_if_nothing_were_frozen() {
        for name in ["resnet20", "densenet_bc100_k12"] {
            let model = || models::build(name, &ModelOptions::classes(3), &mut Rng::seed(0)).unwrap();
            let step = |mut model: Box<dyn Model>| {
                let tape = Tape::train(Rng::seed(1));
                let images = Tensor::uniform([2, 8, 8, 3], 0.0, 1.0, &mut Rng::seed(2)).unwrap();
                let loss = model.forward(&tape.input(images)).unwrap().cross_entropy(&[0, 1]).unwrap();
                Sgd::new(0.1).step(&mut model, loss.backward().unwrap()).unwrap();
                model.export()
            };
            let (before, free) = (model().export(), step(model()));
            for pattern in ["*.bias", "*conv*", "*1.weight"] {
                let mut frozen = model();
                frozen.freeze(pattern).unwrap();
                for (name, value) in step(frozen) {
                    let is_frozen = matches(pattern, &name) && !name.contains("running");
                    let expected = if is_frozen { &before[&name] } else { &free[&name] };
                    assert_eq!(value, *expected, "{pattern}: {name}");
                }
            }
        }
    }

    #[test]
    fn a_pattern_that_matches_nothing_is_an_error() {
        let mut model = ResNet::cifar_paper(8, 3, &mut Rng::seed(0)).unwrap();
        assert_eq!(
            model.freeze("head.*").unwrap_err().to_string(),
            "freeze: pattern: expected a pattern that matches a parameter's name, found \"head.*\""
        );
        assert!(model.freeze_statistics("fc.*").is_err());
    }
}
