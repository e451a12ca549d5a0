//! Twenty steps of every optimizer and sixty learning rates of every schedule equal those of
//! PyTorch (`tests/golden`).

use crate::common::{
    compare::assert_close,
    golden::{below, tensors},
};
use approx::abs_diff_eq;
use skipgrad::{
    Result, Rng, Tensor,
    autograd::{State, Tape, Var},
    nn::{Linear, Module},
    optim::{Adam, AdamW, Curve, Optimizer, Plateau, Schedule, Sgd},
};

/// The network of the golden run: two linear layers and a ReLU.
#[derive(State)]
struct TwoLayers {
    fc1: Linear,
    fc2: Linear,
}

impl Module for TwoLayers {
    fn forward<'t>(&self, x: &Var<'t>) -> Result<Var<'t>> {
        self.fc2.forward(&self.fc1.forward(x)?.relu())
    }
}

/// Trains the golden network from its initial weights, and compares losses, gradient norms and
/// weights.
fn follows_pytorch(name: &str, optimizer: &mut dyn Optimizer, clip: Option<f32>) {
    let golden = tensors("training.safetensors");
    let mut rng = Rng::seed(0);
    let mut model =
        TwoLayers { fc1: Linear::new(6, 5, &mut rng).unwrap(), fc2: Linear::new(5, 3, &mut rng).unwrap() };
    model.import(below(&golden, "optim/init/")).unwrap();
    let (x, labels) = (&golden["optim/x"], &golden["optim/labels"]);
    let (mut losses, mut norms) = (vec![], vec![]);
    for step in 0..20 {
        let tape = Tape::train(Rng::seed(0));
        let images = x.slice_rows(step..step + 1).unwrap().reshape([8, 6]).unwrap();
        let classes: Vec<usize> =
            labels.slice_rows(step..step + 1).unwrap().data().iter().map(|&x| x as usize).collect();
        let loss = model.forward(&tape.input(images)).unwrap().cross_entropy(&classes).unwrap();
        losses.push(loss.item());
        let mut updates = loss.backward().unwrap();
        norms.push(updates.clip_global_norm(clip.unwrap_or(f32::INFINITY)));
        optimizer.step(&mut model, updates).unwrap();
    }
    let [losses, norms] = [losses, norms].map(|values| Tensor::new([20], values).unwrap());
    assert_close(&format!("{name}: losses"), &losses, &golden[&format!("optim/{name}/losses")], 1e-5);
    assert_close(&format!("{name}: norms"), &norms, &golden[&format!("optim/{name}/grad_norms")], 1e-5);
    let after = below(&golden, &format!("optim/{name}/after/"));
    assert_eq!(after.len(), 4);
    for (parameter, found) in model.export() {
        assert_close(&format!("{name}: {parameter}"), &found, &after[&parameter], 1e-5);
    }
}

#[test]
fn sgd_follows_pytorch() {
    let sgd = || Sgd::new(0.1);
    follows_pytorch("sgd", &mut sgd(), None);
    follows_pytorch("sgd_momentum", &mut sgd().momentum(0.9), None);
    follows_pytorch("sgd_nesterov", &mut sgd().momentum(0.9).nesterov(true), None);
    follows_pytorch("sgd_dampening", &mut sgd().momentum(0.9).dampening(0.1), None);
    follows_pytorch("sgd_decay", &mut sgd().weight_decay(0.05), None);
    follows_pytorch("sgd_momentum_decay", &mut sgd().momentum(0.9).weight_decay(0.05), None);
    follows_pytorch("sgd_nesterov_decay", &mut sgd().momentum(0.9).nesterov(true).weight_decay(0.05), None);
    follows_pytorch("sgd_clipped", &mut sgd().momentum(0.9), Some(0.5));
}

#[test]
fn adam_follows_pytorch() {
    let adam = || Adam::new(0.02);
    follows_pytorch("adam", &mut adam(), None);
    follows_pytorch("adam_decay", &mut adam().weight_decay(0.05), None);
    follows_pytorch("adam_betas", &mut adam().betas(0.8, 0.95).eps(1e-6).weight_decay(0.1), None);
}

#[test]
fn adamw_follows_pytorch() {
    let adamw = || AdamW::new(0.02);
    follows_pytorch("adamw", &mut adamw(), None);
    follows_pytorch("adamw_no_decay", &mut adamw().weight_decay(0.0), None);
    follows_pytorch("adamw_betas", &mut adamw().betas(0.8, 0.95).eps(1e-6).weight_decay(0.1), None);
}

#[test]
fn schedules_follow_pytorch() {
    let golden = tensors("training.safetensors");
    let cosine_floor = Curve::Cosine { lr: 0.1, steps: 60, min_lr: 0.01 };
    let schedules = [
        ("one_cycle", Schedule::one_cycle(0.4, 60)),
        ("cosine", Schedule::cosine(0.1, 60)),
        ("cosine_floor", cosine_floor.into()),
        ("step", Schedule::step(0.1, 20, 0.1)),
        ("multi_step", Schedule::multi_step(0.1, &[15, 40], 0.2)),
        ("polynomial0.9", Schedule::polynomial(0.1, 60, 0.9)),
        ("polynomial1", Schedule::polynomial(0.1, 60, 1.0)),
        ("warmup_cosine", Schedule::cosine(0.1, 50).warmup(10)),
        ("warmup_step", Schedule::step(0.1, 20, 0.1).warmup(10)),
    ];
    assert_eq!(below(&golden, "schedule/").len(), schedules.len());
    for (name, schedule) in schedules {
        let expected = &golden[&format!("schedule/{name}")];
        for (step, &expected) in expected.data().iter().enumerate() {
            let lr = schedule.lr(step);
            assert!(
                abs_diff_eq!(lr, expected, epsilon = 1e-6 * expected),
                "{name} at {step}: {lr}, PyTorch has {expected}"
            );
        }
    }
}

#[test]
fn warm_restarts_follow_pytorch() {
    let golden = below(&tensors("schedules.safetensors"), "warm_restarts/");
    let schedules = [
        ("once", Schedule::cosine_warm_restarts(0.1, 20, 1)),
        ("doubled", Curve::CosineWarmRestarts { lr: 0.1, steps: 8, steps_factor: 2, min_lr: 0.01 }.into()),
        ("tripled", Schedule::cosine_warm_restarts(0.1, 5, 3)),
    ];
    assert_eq!(golden.len(), schedules.len());
    for (name, schedule) in schedules {
        for (step, &expected) in golden[name].data().iter().enumerate() {
            let lr = schedule.lr(step);
            assert!((lr - expected).abs() <= 1e-7, "{name} at {step}: {lr}, PyTorch has {expected}");
        }
    }
}

#[test]
fn plateaus_follow_pytorch() {
    let golden = below(&tensors("schedules.safetensors"), "plateau/");
    let plateaus = [
        ("default_patience1", Plateau::new().patience(1)),
        ("cooldown", Plateau::new().factor(0.5).patience(0).threshold(1e-2).cooldown(2)),
        ("floor", Plateau::new().factor(0.3).patience(2).cooldown(1).min_scale(0.05)),
    ];
    assert_eq!(golden.len(), plateaus.len() + 1);
    for (name, plateau) in plateaus {
        for (epoch, &expected) in golden[name].data().iter().enumerate() {
            let losses = golden["losses"].data()[..=epoch].iter().copied();
            let scale = plateau.scale(losses);
            assert!(
                (scale / expected - 1.0).abs() < 1e-6,
                "{name}, {epoch}: {scale}, PyTorch has {expected}"
            );
        }
    }
}
