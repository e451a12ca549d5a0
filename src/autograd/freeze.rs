//! Parts of a model that stay as they are while the rest learns, chosen by their names.

use super::{State, StateMut};
use crate::{Error, Result};

/// Which half of a model's state.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Half {
    Params,
    Buffers,
}

/// Freezes what has a name that fits, or thaws it, and counts it.
pub(super) fn set(
    model: &mut (impl State + ?Sized),
    half: Half,
    pattern: &str,
    frozen: bool,
) -> Result<usize> {
    let mut count = 0;
    model.visit_mut("", &mut |name, slot| match slot {
        StateMut::Param(param) if half == Half::Params && matches(pattern, name) => {
            param.set_trainable(!frozen);
            count += 1;
        }
        StateMut::Buffer(buffer) if half == Half::Buffers && matches(pattern, name) => {
            buffer.set_frozen(frozen);
            count += 1;
        }
        _ => {}
    });
    let (op, expected) = match (half, frozen) {
        (Half::Params, true) => ("freeze", "what a parameter's name fits"),
        (Half::Params, false) => ("thaw", "what a parameter's name fits"),
        (Half::Buffers, true) => ("freeze_statistics", "what a buffer's name fits"),
        (Half::Buffers, false) => ("thaw_statistics", "what a buffer's name fits"),
    };
    if count == 0 {
        return Err(Error::argument(op, "pattern", expected, format_args!("{pattern:?}")));
    }
    Ok(count)
}

/// Whether a name is what a pattern says, in which `*` is any text.
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
    fn what_is_frozen_stays_through_a_step_and_the_rest_moves() {
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

    /// In fused operations too: what is frozen stays, and what is not gets the gradient that it got before.
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
    fn a_pattern_that_nothing_fits_is_refused() {
        let mut model = ResNet::cifar_paper(8, 3, &mut Rng::seed(0)).unwrap();
        assert_eq!(
            model.freeze("head.*").unwrap_err().to_string(),
            "freeze: pattern: expected what a parameter's name fits, found \"head.*\""
        );
        assert!(model.freeze_statistics("fc.*").is_err());
    }
}
