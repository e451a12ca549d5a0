use super::*;
use crate::{
    Rng,
    autograd::{Tape, gradient_check},
};

const EPS: f32 = 1e-3;

/// x, gamma, beta and a residual such that what enters a ReLU, in any form, is far from 0: x is
/// about 2 or -2 in turn, so its normalized values are about 1 or -1; the residual outweighs them.
fn inputs(shape: &[usize], seed: u64) -> [Tensor; 4] {
    let mut rng = Rng::seed(seed);
    let channels = shape[shape.len() - 1];
    let in_turn = |i: usize| if (i / channels + i % channels).is_multiple_of(2) { 2.0 } else { -2.0 };
    let x = Tensor::from_fn(shape, |i| in_turn(i) + 0.2 * rng.uniform()).unwrap();
    let gamma = Tensor::uniform([channels], 0.8, 1.2, &mut rng).unwrap();
    let beta = Tensor::uniform([channels], -0.2, 0.2, &mut rng).unwrap();
    let residual = Tensor::from_fn(shape, |_| if rng.chance(0.5) { 4.0 } else { -4.0 } + rng.uniform());
    [x, gamma, beta, residual.unwrap()]
}

fn statistics(channels: usize) -> (Tensor, Tensor) {
    let mut rng = Rng::seed(9);
    let mean = Tensor::uniform([channels], -0.5, 0.5, &mut rng).unwrap();
    (mean, Tensor::uniform([channels], 1.0, 2.0, &mut rng).unwrap())
}

fn all_forms() -> impl Iterator<Item = (bool, bool, bool)> {
    (0..8).map(|bits| (bits & 1 > 0, bits & 2 > 0, bits & 4 > 0))
}

#[test]
fn values_are_those_of_f64_and_the_statistics_are_returned() {
    let [x, gamma, beta, _] = inputs(&[3, 2, 5, 3], 1);
    let tape = Tape::eval();
    let vars = [&gamma, &beta].map(|v| tape.input(v.clone()));
    let (y, moments) = tape.input(x.clone()).batch_norm(&BatchNorm::new(&vars[0], &vars[1])).unwrap();
    assert_eq!(moments.count, 30);
    for c in 0..3 {
        let column =
            |t: &Tensor| -> Vec<f64> { t.data().iter().skip(c).step_by(3).map(|&v| v.into()).collect() };
        let values = column(&x);
        let mean = values.iter().sum::<f64>() / 30.0;
        let var = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 30.0;
        assert!((f64::from(moments.mean.data()[c]) - mean).abs() < 1e-6);
        assert!((f64::from(moments.var.data()[c]) - var).abs() < 1e-6 * var);
        let (gamma, beta) = (f64::from(gamma.data()[c]), f64::from(beta.data()[c]));
        for (y, v) in column(y.value()).iter().zip(&values) {
            assert!((y - (gamma * (v - mean) / (var + 1e-5).sqrt() + beta)).abs() < 2e-6);
        }
    }
}

#[test]
fn what_is_computed_again_is_the_same_to_the_bit_and_chains_are_cut() {
    let [x, gamma, beta, residual] = inputs(&[3, 2, 5, MIN_RECOMPUTED_CHANNELS], 1);
    let tape = Tape::train(Rng::seed(0));
    let [x, gamma, beta, residual] = [x, gamma, beta, residual].map(|t| tape.watch(t));
    for relu in [false, true] {
        let plain = BatchNorm::new(&gamma, &beta).relu(relu);
        assert_eq!(again(&x, plain, Some(&residual)).1, 1, "the residual is at hand");
        let (first, passes) = again(&x, plain, None);
        assert_eq!(passes, 1);
        let (second, passes) = again(&x, plain, Some(&first));
        assert_eq!(passes, 2);
        let (third, passes) = again(&x, plain, Some(&second));
        assert_eq!(passes, 0, "saved");
        assert_eq!(again(&x, plain, Some(&third)).1, 1);
    }
}

#[test]
fn narrow_maps_are_kept() {
    let [x, gamma, beta, _] = inputs(&[3, 2, 5, MIN_RECOMPUTED_CHANNELS - 1], 1);
    let tape = Tape::train(Rng::seed(0));
    let [x, gamma, beta] = [x, gamma, beta].map(|t| tape.watch(t));
    assert_eq!(again(&x, BatchNorm::new(&gamma, &beta).relu(true), None).1, 0);
}

/// The normalized x, and in how many passes it is computed again.
fn again<'v, 't>(x: &Var<'t>, norm: BatchNorm<'v, 't>, residual: Option<&'v Var<'t>>) -> (Var<'t>, usize) {
    let (y, _) = x.batch_norm(&norm.residual(residual)).unwrap();
    let saved = y.save();
    assert_eq!(saved.value(), *y.value());
    (y, saved.passes())
}

#[test]
fn gradients_agree_with_differences_in_every_form() {
    for shape in [&[3, 2, 2, 3][..], &[5, 4], &[3, MIN_RECOMPUTED_CHANNELS]] {
        let all = inputs(shape, 7);
        let (mean, var) = statistics(shape[shape.len() - 1]);
        for (given, relu, residual) in all_forms() {
            let inputs = if residual { &all[..] } else { &all[..3] };
            let check = gradient_check(inputs, |v| {
                let [mean, var] = [&mean, &var].map(|fixed| v[0].tape().input(fixed.clone()));
                let given = given.then_some((&mean, &var));
                let norm =
                    BatchNorm::new(&v[1], &v[2]).eps(EPS).statistics(given).residual(v.get(3)).relu(relu);
                Ok(v[0].batch_norm(&norm)?.0)
            });
            check.unwrap().within(1e-3).unwrap();
        }
    }
}

#[test]
fn the_fused_form_is_the_composition_with_all_gradients() {
    for shape in [&[4, 5, 3, 7][..], &[9, 5], &[2, 3, 2, MIN_RECOMPUTED_CHANNELS]] {
        let all = inputs(shape, 3);
        let (mean, var) = statistics(shape[shape.len() - 1]);
        let weights = Tensor::normal(shape, 1.0, &mut Rng::seed(4)).unwrap();
        for (given, relu, residual) in all_forms() {
            let run = |fused: bool| -> Vec<Tensor> {
                let tape = Tape::train(Rng::seed(0));
                let v = all.each_ref().map(|t| tape.watch(t.clone()));
                let [mean, var] = [&mean, &var].map(|fixed| tape.input(fixed.clone()));
                let given = given.then_some((&mean, &var));
                let norm = BatchNorm::new(&v[1], &v[2]).statistics(given);
                let y = if fused {
                    let norm = norm.residual(residual.then_some(&v[3])).relu(relu);
                    v[0].batch_norm(&norm).unwrap().0
                } else {
                    let y = v[0].batch_norm(&norm).unwrap().0;
                    let y = if residual { y.add(&v[3]).unwrap() } else { y };
                    if relu { y.relu() } else { y }
                };
                let updates = y.backward_from(weights.clone()).unwrap();
                let gradients = v.iter().filter_map(|v| updates.grad_of(v).cloned());
                iter::once(y.value().clone()).chain(gradients).collect()
            };
            let (fused, composed) = (run(true), run(false));
            assert_eq!(fused.len(), if residual { 5 } else { 4 });
            assert_eq!(fused.len(), composed.len());
            for (a, b) in fused.iter().zip(&composed) {
                let largest = b.data().iter().fold(1.0, |m: f32, v| m.max(v.abs()));
                let close = a.data().iter().zip(b.data()).all(|(a, b)| (a - b).abs() <= 1e-6 * largest);
                assert!(close, "given {given}, relu {relu}, residual {residual}: {a:?} {b:?}");
            }
        }
    }
}

#[test]
fn only_the_gradients_that_are_needed() {
    let [x, gamma, beta, residual] = inputs(&[2, 3, 3, 2], 5);
    let all = |watched: [bool; 4]| {
        let tape = Tape::train(Rng::seed(0));
        let values = [&x, &gamma, &beta, &residual];
        let v: [Var; 4] = std::array::from_fn(|i| {
            if watched[i] { tape.watch(values[i].clone()) } else { tape.input(values[i].clone()) }
        });
        let norm = BatchNorm::new(&v[1], &v[2]).residual(&v[3]).relu(true);
        let y = v[0].batch_norm(&norm).unwrap().0;
        let updates = y.backward_from(x.clone()).unwrap();
        v.each_ref().map(|v| updates.grad_of(v).cloned())
    };
    let full = all([true; 4]);
    for i in 0..4 {
        let one = all(std::array::from_fn(|j| i == j));
        assert_eq!(one[i], full[i], "input {i}");
        assert_eq!(one.iter().flatten().count(), 1);
    }
}

#[test]
fn a_single_value_per_channel_has_no_variance() {
    let tape = Tape::train(Rng::seed(0));
    let vector = tape.input(Tensor::zeros([3]).unwrap());
    let x = tape.input(Tensor::zeros([1, 1, 1, 3]).unwrap());
    let error = x.batch_norm(&BatchNorm::new(&vector, &vector)).unwrap_err().to_string();
    assert!(error.contains("more than one value per channel") && error.contains("[1, 1, 1, 3]"), "{error}");
    let (mean, var) = statistics(3);
    let [mean, var] = [mean, var].map(|fixed| tape.input(fixed));
    let norm = BatchNorm::new(&vector, &vector).statistics(Some((&mean, &var)));
    assert!(x.batch_norm(&norm).is_ok(), "given statistics need no batch");
}

#[test]
fn errors_name_the_argument() {
    let tape = Tape::eval();
    let zeros = |shape: &[usize]| tape.input(Tensor::zeros(shape).unwrap());
    let (x, three, two) = (zeros(&[4, 3]), zeros(&[3]), zeros(&[2]));
    let message = |norm: BatchNorm| x.batch_norm(&norm).unwrap_err().to_string();
    let right = BatchNorm::new(&three, &three);
    assert_eq!(message(BatchNorm::new(&two, &three)), "batch_norm: gamma: expected [3], found [2]");
    assert_eq!(message(BatchNorm::new(&three, &two)), "batch_norm: beta: expected [3], found [2]");
    let residual = Some(&three);
    assert_eq!(message(right.residual(residual)), "batch_norm: residual: expected [4, 3], found [3]");
    let given = Some((&three, &two));
    assert_eq!(message(right.statistics(given)), "batch_norm: var: expected [3], found [2]");
    assert_eq!(message(right.eps(-1.0)), "batch_norm: eps: expected a number of at least 0, found -1");
    assert!(zeros(&[]).batch_norm(&right).unwrap_err().to_string().contains("[N, ..., C]"));
}
