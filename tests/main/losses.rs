//! Losses and their gradients, held to what PyTorch computed (`tests/golden/losses.py`).

use crate::common::{compare::assert_close, golden::tensors};
use skipgrad::{
    Result, Rng, Tensor,
    autograd::{NamedTensors, Tape, Var},
    ops::{BceOptions, FocalOptions, Targets},
};

const TOLERANCE: f64 = 1e-5;

/// Computes a loss of the file's logits, and compares it and its gradient.
fn compare<F>(golden: &NamedTensors, name: &str, loss: F) -> Result<()>
where
    F: for<'t> FnOnce(&Var<'t>) -> Result<Var<'t>>,
{
    let tape = Tape::train(Rng::seed(0));
    let x = tape.watch(golden["x"].clone());
    let y = loss(&x)?;
    assert_close(name, y.value(), &golden[&format!("{name}/y")], TOLERANCE);
    let updates = y.backward()?;
    assert_close(name, updates.grad_of(&x).unwrap(), &golden[&format!("{name}/dx")], TOLERANCE);
    Ok(())
}

#[test]
fn every_loss_is_pytorchs() -> Result<()> {
    let golden = tensors("losses.safetensors");
    let names: Vec<&str> = golden.keys().filter_map(|name| name.strip_suffix("/y")).collect();
    assert_eq!(names.len(), 8 + 2 + 3 + 2);
    let labels: Vec<usize> = golden["labels"].data().iter().map(|&label| label as usize).collect();
    let weights = golden["class_weights"].data();
    let (soft, answers) = (&golden["soft"], &golden["answers"]);
    for name in names {
        let [loss, case, rest @ ..] = &name.split('/').collect::<Vec<_>>()[..] else { panic!("{name}") };
        let number = |text: &str| text.parse::<f32>().unwrap();
        let number = |place: usize| number(rest[place]);
        let labels = Targets::classes(&labels);
        match (*loss, *case) {
            ("cross_entropy", case) => {
                let targets = match case {
                    "weights" => labels.class_weights(weights),
                    "ignore6" => labels.ignore_index(6),
                    "weights_ignore6" => labels.class_weights(weights).ignore_index(6),
                    _ => Targets::soft(soft).class_weights(weights),
                };
                compare(&golden, name, |x| x.cross_entropy(targets.smoothed(number(0))))?;
            }
            ("bce_with_logits", "plain") => {
                compare(&golden, name, |x| x.bce_with_logits(answers, &BceOptions::new()))?;
            }
            ("bce_with_logits", _) => {
                let options = BceOptions::new().pos_weight(golden["pos_weight"].data());
                compare(&golden, name, |x| x.bce_with_logits(answers, &options))?;
            }
            ("focal_loss", alpha) => {
                let alpha = Some(alpha.parse().unwrap()).filter(|&alpha: &f32| alpha >= 0.0);
                let options = FocalOptions::new().alpha(alpha).gamma(number(0));
                compare(&golden, name, |x| x.focal_loss(answers, &options))?;
            }
            ("distillation", temperature) => {
                let temperature = temperature.parse().unwrap();
                compare(&golden, name, |x| x.distillation(&golden["teacher"], temperature))?;
            }
            other => panic!("{other:?}"),
        }
    }
    Ok(())
}

/// A teacher is a compiled model: its logits are what the pupil learns from.
#[test]
fn a_compiled_teacher_teaches() -> Result<()> {
    use skipgrad::{
        inference::{InferenceModel, InferenceOptions},
        nn::{Flatten, Linear, Module, Sequential},
        optim::{Optimizer, Sgd},
    };
    let net = |seed| -> Result<Sequential> {
        Ok(Sequential::new().push(Flatten).push(Linear::new(12, 4, &mut Rng::seed(seed))?))
    };
    let teacher = InferenceModel::compile(&net(1)?, &InferenceOptions::new([2, 2, 3]).batch_size(8))?;
    let images = Tensor::normal([8, 2, 2, 3], 1.0, &mut Rng::seed(2))?;
    let (mut pupil, mut sgd) = (net(3)?, Sgd::new(0.5));
    let mut losses = vec![];
    for _ in 0..100 {
        let tape = Tape::train(Rng::seed(0));
        let logits = pupil.forward(&tape.input(images.clone()))?;
        let loss = logits.distillation(&teacher.run(&images)?, 2.0)?;
        losses.push(loss.item());
        sgd.step(&mut pupil, loss.backward()?)?;
    }
    assert!(losses[99] < 0.01 * losses[0], "{} {}", losses[0], losses[99]);
    Ok(())
}
